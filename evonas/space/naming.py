"""What a fingerprint calls the functions and objects that a user passes: by name, and by code."""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["CODE", "fingerprint_of", "name_of", "readable_name"]

CODE = f"py{sys.version_info.major}.{sys.version_info.minor}-"
"""What the digest of code begins with: the same code has another digest in another Python."""

_LAMBDA = "<lambda>"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DIGITS = 16
_LARGEST_ARRAY = 1 << 20  # bytes; larger ones count by type, shape and dtype
_INSTALLED = tuple(
    {
        Path(folder).resolve()
        for name, folder in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
)


def fingerprint_of(thing: Any) -> str:
    """Returns what tells a function, or an object with settings, from another one.

    What belongs to an installed package (or to Python, or to evonas) is known by its name, as what
    it does belongs to the version of that package. Everything else is known by a digest of its
    code, too: of the instructions, constants and names of a function, its defaults, what it closes
    over, and the constants, functions and classes that it names, of any file of the user's: also as
    attributes of a module (`net.build`). Of a module of the user's that is imported in the function
    all code counts. An object of a class of the user's counts with its attributes, and so does
    `thing` itself, a torch module with its weights and buffers. Numbers, texts and tuples count by
    value, lists, dicts and sets only as globals in capitals (others are often logs that grow),
    arrays of up to 1 MiB by their bytes, and everything else by its type. Variables and attributes
    that the code itself assigns, except in a constructor, do not count.

    So another version of it is another fingerprint, and the same one is the same in every process
    of one Python.

    Example:
        >>> fingerprint_of(name_of)
        'name_of'
        >>> fingerprint_of(lambda x: x + 1) == fingerprint_of(lambda x: x + 1)
        True
        >>> fingerprint_of(lambda x: x + 1) == fingerprint_of(lambda x: x + 2)
        False
    """
    if isinstance(thing, functools.partial):
        return f"partial({fingerprint_of(thing.func)} {_digest(thing)})"
    if isinstance(thing, types.MethodType):
        return f"{name_of(thing)} {_digest(thing)}"
    if isinstance(thing, (types.FunctionType, type)):
        return thing.__name__ if _is_installed(thing) else f"{thing.__name__} {_digest(thing)}"
    name = name_of(thing)
    if not hasattr(thing, "__dict__") or (_is_installed(type(thing)) and not vars(thing)):
        return name
    if _is_installed(type(thing)) and "__dataclass_fields__" in dir(type(thing)):
        return name  # which says its settings
    return f"{name} {_digest(thing)}"


def name_of(thing: Any) -> str:
    """Returns what a fingerprint calls a function or an object with settings.

    Example:
        >>> name_of(len)
        'len'
    """
    # A dataclass (FlipCrop) says its settings in its repr; other reprs may hold an address, which
    # would make every start of a run another problem.
    name = getattr(thing, "__name__", None)
    if isinstance(name, str):
        return name
    shown = repr(thing)
    return type(thing).__qualname__ if " at 0x" in shown else shown


def readable_name(thing: Any, otherwise: str) -> str:
    """Returns what people call a function; `otherwise` for a lambda, which has no name.

    Example:
        >>> readable_name(lambda x: x, "metric"), readable_name(name_of, "metric")
        ('metric', 'name_of')
    """
    if isinstance(thing, functools.partial):
        return readable_name(thing.func, otherwise)
    name = name_of(thing)
    return otherwise if name == _LAMBDA else name


def _is_installed(thing: Any) -> bool:
    """Whether a function or class belongs to Python, to an installed package, or to evonas."""
    name = getattr(thing, "__module__", None)
    if name in ("__main__", "__mp_main__", None) or "<" in thing.__qualname__:
        return False  # of a script or notebook, a lambda, or defined within another function
    if name.partition(".")[0] == "evonas":
        return True
    module = sys.modules.get(name)
    if module is None:  # its file is not known: taken for the user's
        return False
    return _is_installed_module(module)


def _is_installed_module(module: types.ModuleType) -> bool:
    name, file = module.__name__, getattr(module, "__file__", None)
    if name.partition(".")[0] == "evonas":
        return True
    files = list(getattr(module, "__path__", ())) if file is None else [file]
    return all(map(_is_in_installed, files))  # without a file it is built in


def _is_in_installed(file: str) -> bool:
    path = Path(file).resolve()
    return any(path.is_relative_to(folder) for folder in _INSTALLED)


def _digest(thing: Any) -> str:
    return CODE + hashlib.sha256(_Reader(thing).text(thing).encode()).hexdigest()[:_DIGITS]


class _Reader:
    """Makes a text of a value that no address and no order of hashing gets into."""

    def __init__(self, thing: Any) -> None:
        self._whole = {id(thing)}  # those of which all attributes count: also a module's modules
        self._seen: dict[int, Any] = {}  # kept alive, so that no other object gets its id

    def text(self, value: Any) -> str:
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, tuple):
            return f"tuple({','.join(map(self.text, value))})"
        if isinstance(value, frozenset):
            return f"set({','.join(sorted(map(self.text, value)))})"
        if isinstance(value, types.CodeType):
            parts = (value.co_code, value.co_consts, value.co_names, value.co_varnames)
            return "code" + self.text(parts)
        if id(value) in self._seen:  # functions may name each other
            return name_of(value) if hasattr(value, "__name__") else type(value).__qualname__
        self._seen[id(value)] = value
        if isinstance(value, functools.partial):
            keywords = tuple(sorted(value.keywords.items()))
            return "partial" + self.text((value.func, value.args, keywords))
        if isinstance(value, types.MethodType):
            return "method" + self.text((value.__func__, value.__self__))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        return self._array(value) or self._object(value)

    def contents(self, value: Any) -> str:
        """Like `text`, but of a list, dict or set with what is in it."""
        if isinstance(value, list):
            return f"list({','.join(map(self.contents, value))})"
        if isinstance(value, set):
            return f"set({','.join(sorted(map(self.contents, value)))})"
        if isinstance(value, dict):
            items = (f"{self.text(k)}:{self.contents(v)}" for k, v in value.items())
            return f"dict({','.join(items)})"
        return self.text(value)

    def _function(self, function: types.FunctionType) -> str:
        if _is_installed(function):
            return f"{function.__module__}.{function.__qualname__}"
        assigned = set(_assigned(function.__code__))
        closed = [
            cell.cell_contents
            for name, cell in zip(
                function.__code__.co_freevars, function.__closure__ or (), strict=True
            )
            if name not in assigned and _is_filled(cell)
        ]
        defaults = (function.__defaults__, tuple((function.__kwdefaults__ or {}).items()))
        named = [
            f"{name}={self.contents(value) if name.isupper() else self.text(value)}"
            for name, value in _globals(function)
            if name not in assigned
        ]
        named += [self._of_module(found, function.__code__) for found in _modules(function)]
        named += [f"{name}:{self.text(code)}" for name, code in _imported(function)]
        parts = self.text((function.__code__, defaults, tuple(closed)))
        return f"function({parts},{','.join(named)})"

    def _of_module(self, module: types.ModuleType, code: types.CodeType) -> str:
        """Returns what code may use of a module of the user's: all attributes that it names."""
        attributes = []
        for name in _attributes(code):
            value = vars(module).get(name)
            if isinstance(value, types.ModuleType):
                if value.__name__.startswith(f"{module.__name__}."):  # of a package
                    attributes.append(self._of_module(value, code))
            elif name in vars(module):
                text = self.contents(value) if name.isupper() else self.text(value)
                attributes.append(f"{name}={text}")
        return f"{module.__name__}({','.join(attributes)})"

    def _class(self, found: type) -> str:
        if _is_installed(found):
            return f"{found.__module__}.{found.__qualname__}"
        members = []
        for name, member in sorted(vars(found).items()):
            inner = member
            if isinstance(member, (staticmethod, classmethod)):
                inner = member.__func__
            elif isinstance(member, property):
                inner = (member.fget, member.fset, member.fdel)
            if isinstance(inner, (*_PLAIN, tuple, types.FunctionType)) and name not in _NO_CODE:
                members.append(f"{name}={self.text(inner)}")
        return f"class {found.__name__}({self.text(found.__bases__)},{','.join(members)})"

    def _object(self, value: Any) -> str:
        attributes = getattr(value, "__dict__", {})
        if id(value) in self._whole:
            self._whole.update(map(id, attributes.get("_modules", {}).values()))
        elif _is_installed(type(value)):
            attributes = {}
        counters = _set_by_methods(type(value)) - _STATE
        inner = [
            f"{name}={self.contents(part) if name in _STATE else self.text(part)}"
            for name, part in sorted(attributes.items())
            if name not in counters
        ]
        return f"{self.text(type(value))}({','.join(inner)})"

    def _array(self, value: Any) -> str | None:
        """Returns the digest of a NumPy array or a tensor, None of anything else."""
        if type(value).__module__.partition(".")[0] not in ("numpy", "torch"):
            return None
        shape, n_bytes = getattr(value, "shape", None), getattr(value, "nbytes", None)
        if shape is None or not isinstance(n_bytes, int):
            return None
        about = f"{type(value).__name__}{tuple(shape)}{value.dtype}"
        if n_bytes > _LARGEST_ARRAY or getattr(value, "is_meta", False):
            return about
        if hasattr(value, "detach"):
            value = value.detach().cpu().flatten()
            value = value.view(dtype=sys.modules["torch"].uint8) if n_bytes else value
            value = value.numpy()
        return f"{about}{hashlib.sha256(value.tobytes()).hexdigest()}"


_STATE = {"_buffers", "_parameters", "_modules"}  # of a torch module
_NO_CODE = {"__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__"}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yields a function's code and, as they are constants of it, that of what is defined in it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _codes(part)


def _globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields the globals that a function names, in the order of their names."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in sorted(names):
        if name in function.__globals__ and not name.startswith("__"):
            yield name, function.__globals__[name]


def _modules(function: types.FunctionType) -> Iterator[types.ModuleType]:
    """Yields the modules of the user's that are globals of a function, or that it closes over."""
    cells = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
    for value in (*(value for _, value in _globals(function)), *cells):
        if isinstance(value, types.ModuleType) and not _is_installed_module(value):
            yield value


def _attributes(code: types.CodeType) -> list[str]:
    """Returns the names of attributes that code reads and does not assign."""
    read, assigned = set(), set()
    for part in _codes(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname.startswith(("LOAD_ATTR", "LOAD_METHOD")):
                read.add(instruction.argval)
            elif instruction.opname == "STORE_ATTR":
                assigned.add(instruction.argval)
    return sorted(read - assigned)


def _imported(function: types.FunctionType) -> Iterator[tuple[str, types.CodeType]]:
    """Yields the modules of the user's that a function imports when it is called, with their code.

    They are read and not imported: that would run them.
    """
    package = function.__globals__.get("__package__") or ""
    for part in _codes(function.__code__):
        before: list[Any] = []
        for instruction in dis.get_instructions(part):
            if instruction.opname == "IMPORT_NAME":
                level, name = before[-2], instruction.argval
                for file in _files_of("." * level + name, package):
                    yield name, compile(file.read_bytes(), name, "exec", dont_inherit=True)
            before.append(instruction.argval)


def _files_of(name: str, package: str) -> Iterator[Path]:
    """Yields the source of a module of the user's; nothing where it is another or not found."""
    try:
        spec = importlib.util.find_spec(name, package)
    except (ImportError, ValueError, AttributeError):
        return
    file = spec.origin if spec is not None and spec.has_location else None
    if file is not None and file.endswith(".py") and not _is_in_installed(file):
        is_ours = importlib.util.resolve_name(name, package).partition(".")[0] == "evonas"
        if not is_ours:
            yield Path(file)


def _assigned(code: types.CodeType) -> Iterator[str]:
    """Yields the variables outside a function that it assigns (`global`, `nonlocal`)."""
    for part in _codes(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname in ("STORE_GLOBAL", "STORE_DEREF"):
                yield instruction.argval


def _set_by_methods(found: type) -> set[str]:
    """Returns the names of attributes that methods other than constructors assign."""
    methods = [
        member.__code__
        for base in found.__mro__
        for name, member in vars(base).items()
        if isinstance(member, types.FunctionType) and name not in ("__init__", "__post_init__")
    ]
    return {
        instruction.argval
        for method in methods
        for code in _codes(method)
        for instruction in dis.get_instructions(code)
        if instruction.opname == "STORE_ATTR"
    }


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # of a name that is bound only later
        return False
    return True
