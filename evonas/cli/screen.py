"""What the commands print with: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evonas.exceptions import RunStorageError
from evonas.files import replace_file
from evonas.report.formats import plain
from evonas.run.store.schema import DATABASE

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = [
    "CommandWithExamples",
    "RunPath",
    "check_output",
    "console",
    "echo",
    "json_option",
    "json_text",
    "pairs",
    "printable",
    "put",
    "run_argument",
    "shown",
    "table",
    "write_or_print",
]


_ENDLESS = 1_000_000
_Command = TypeVar("_Command", bound=Callable[..., Any])


class CommandWithExamples(click.Command):
    """A command whose `--help` ends with notes and examples.

    Args:
        examples: One line each.
        notes: Title to (name, text) pairs.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str],
        notes: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.notes = dict(notes or {})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes notes and examples."""
        for title, entries in self.notes.items():
            with formatter.section(title):
                formatter.write_dl(entries)
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class RunPath(click.Path):
    """A run's directory; its database stands for it.

    Not `exists=True`: a run that is not there is no wrong usage (2), but a missing run (1).
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Returns the directory."""
        if value == "":
            self.fail("must name a directory, got ''", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        return path.parent if path.name == DATABASE and os.path.isfile(path) else path


def run_argument(metavar: str = "RUN", **settings: Any) -> Callable[[_Command], _Command]:
    """Returns the decorator for a command that takes a run's directory as `run`."""
    return click.argument("run", type=RunPath(), metavar=metavar, **settings)


json_option = partial(click.option, "--json", "as_json", is_flag=True, help="JSON for programs.")


def console() -> Console:
    """Returns where tables go: colours on a terminal only, and elsewhere lines of any length."""
    from rich.console import Console

    screen = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not screen.is_terminal:
        screen.width = _ENDLESS  # or rich wraps at 80 columns, and cuts paths and commands in two
    return screen


def printable(text: str) -> str:
    """Returns a text in which what would steer a terminal, or turn its text around, is spelled out.

    A run may be somebody else's, and names, errors and commands in it hold what they like.

    Example:
        >>> printable(chr(27) + "[31mred").isprintable()
        True
    """
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)


def echo(text: object, *, err: bool = False) -> None:
    """Prints a line, on a terminal as `printable` makes it."""
    stream = sys.stderr if err else sys.stdout
    is_terminal = stream is not None and stream.isatty()
    click.echo(printable(str(text)) if err or is_terminal else text, err=err)


def put(*parts: RenderableType) -> None:
    """Prints tables and lines; into a pipe or a file without blanks at the ends of lines."""
    screen = console()
    parts = tuple(printable(part) if isinstance(part, str) else part for part in parts)
    if screen.is_terminal:
        # A line that is not to be wrapped is not cut off either.
        screen.print(*parts, sep="\n", crop=False)
        return
    with screen.capture() as captured:
        screen.print(*parts, sep="\n")
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 0) -> Table:
    """Returns a table of right-aligned columns, the last `left` of them left-aligned."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for place, name in enumerate(columns):
        is_left = place >= len(columns) - left
        # Folded where the terminal is narrow: nothing is cut off.
        made.add_column(
            Text(printable(name)), justify="left" if is_left else "right", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    return made


def pairs(entries: Iterable[tuple[str, object]], *, indent: int = 0) -> RenderableType:
    """Returns names and values in two columns; a long value goes on below itself."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in entries:
        grid.add_row(Text(" " * indent + printable(name)), Text(printable(str(value))))
    return grid


def shown(value: object) -> str:
    """Returns a gene's value or a metric: floats short, lists and dicts as JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Returns strict JSON."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def check_output(output: Path, *, to_directory: bool = False) -> None:
    """Refuses where nothing can be written: no tree of directories is made for a slip.

    Raises:
        RunStorageError: The directory is not there or cannot be written, or `output` is one.
    """
    try:
        output.exists()
    except OSError as error:
        raise RunStorageError(
            f"{str(output)[:60]} cannot be written: {error.strerror}; give another -o"
        ) from None
    if not output.parent.is_dir():
        raise RunStorageError(
            f"{output} cannot be written: there is no directory {output.parent}; make it, or give "
            "another -o"
        )
    if output.is_dir() and not to_directory:
        raise RunStorageError(f"{output} is a directory: -o wants the name of a file")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise RunStorageError(
            f"{output} cannot be written: {output.parent} is not writable; give another -o"
        )


def write_or_print(text: str, output: Path | None) -> None:
    """Prints a text, or writes it to a file (whole or not at all) and prints where.

    Raises:
        RunStorageError: The file cannot be written.
    """
    if output is None:
        echo(text.removesuffix("\n"))
        return
    check_output(output)
    replace_file(output, lambda part: part.write_text(text, encoding="utf-8"))
    click.echo(click.format_filename(output))
