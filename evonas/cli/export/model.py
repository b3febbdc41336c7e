"""A trained model as a file for other programs: ONNX, torch.export, safetensors, a state_dict."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonas.cli.export.builder import named_builder
from evonas.cli.screen import echo
from evonas.exceptions import (
    EvonasError,
    MissingDependencyError,
    UnknownModuleError,
    WeightsError,
)
from evonas.execution.anatomy import example_of
from evonas.execution.weights import WEIGHTS, read_weights
from evonas.files import replace_file
from evonas.objectives import Objective
from evonas.records import Evaluation
from evonas.report.network import preprocessing_known
from evonas.run.repeats import weights_json
from evonas.training.data.structure import map_tensors, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ENDINGS", "write_model"]

ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors",
           "state-dict": ".pt"}  # fmt: skip
"""The formats, and what their files' names end in."""

_TRIED = 3  # examples on which a file's outputs are compared; another number than it was made with


def write_model(
    evaluation: Evaluation,
    form: str,
    output: Path,
    *,
    build: str | None = None,
    half: bool = False,
    batch_size: int | None = None,
    precision: str | None = None,
    objectives: Sequence[Objective] = (),
) -> str:
    """Writes the trained model of an evaluation, looks whether it computes the same, says so.

    Args:
        evaluation: Whose weights were kept.
        form: One of `ENDINGS`.
        output: The file.
        build: `FILE.py:FUNCTION` or `MODULE:FUNCTION`, of the genes to the untrained module, where
            the run does not know the network.
        half: Whether floating numbers become float16.
        batch_size: Examples of a batch, for onnx and torch-export. None: any number.
        precision: In which the run trained, for the file's notes (see `_about`).
        objectives: Of the run, for the score of these weights.

    Raises:
        WeightsError: There are no weights, or no module that they fit.
        MissingDependencyError: A package for this format is not installed.
        EvonasError: The model cannot be written in this format (an operator is missing).
    """
    about = _about(evaluation, precision, objectives)
    if form in ("state-dict", "safetensors"):
        return _write_weights(evaluation, form, output, half, about)
    module = _loaded(evaluation, build)
    known = {} if evaluation.kept is None else evaluation.kept.network(evaluation.number)
    if not known.get("inputs"):
        raise WeightsError(
            f"the run does not know the inputs of evaluation {evaluation.number}: pass an example "
            "in the fitness function, trial.save(model, example), or export safetensors"
        )
    written = copy.deepcopy(module).half() if half else module
    about["dtype"] = _dtypes(written.state_dict().values())
    n_made = 2 if batch_size is None else batch_size
    write = _write_onnx if form == "onnx" else _write_program

    example = _halved(example_of(known["inputs"], n_made, seed=0), half)
    _replace(output, lambda part: write(written, example, part, batch_size is None, about))
    tried = example_of(known["inputs"], batch_size or _TRIED, seed=1)
    difference = _largest_difference(module, tried, _halved(tried, half), output, form)
    said = f"largest difference to the module {difference:.2g}"
    return f"{output}: evaluation {evaluation.number}, {said}"


def _loaded(evaluation: Evaluation, build: str | None) -> nn.Module:
    """Returns the trained module, built by the function that `build` names or the run knows."""
    try:
        found = None if build is None else named_builder(build)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            module: nn.Module = evaluation.load_model(found)
    except UnknownModuleError as error:
        raise WeightsError(
            f"{error.reason}: pass --build FILE.py:FUNCTION, a function of the genes that returns "
            "it untrained"
        ) from error
    for each in caught:
        echo(f"evonas: {each.message}", err=True)
    return module


def _about(
    evaluation: Evaluation, precision: str | None, objectives: Sequence[Objective]
) -> dict[str, str]:
    """Returns what a user of the file must know, as the texts that files hold beside weights.

    Genes, key, the training and the scores of the weights (JSON; see `weights_json`), what inputs
    go through with the classes in their order (JSON; see `Evaluation.preprocessing`), and the
    precision of the training. Whoever writes the file adds the `dtype` of its numbers.
    """
    about = {"genes": json.dumps(evaluation.genes), "key": evaluation.key}
    if weights := weights_json(evaluation, objectives):
        about["weights"] = json.dumps(weights)
    if known := preprocessing_known(evaluation):
        about["preprocessing"] = json.dumps(known)
    return about if precision is None else {**about, "precision": precision}


def _write_weights(
    evaluation: Evaluation, form: str, output: Path, half: bool, about: dict[str, str]
) -> str:
    import torch

    if WEIGHTS not in evaluation.files:
        evaluation.load_model(lambda genes: None)  # says why there are none
    weights = read_weights(evaluation.files[WEIGHTS])
    kept = {name: each for name, each in weights.items() if isinstance(each, torch.Tensor)}
    state = {name: _halved(each, half).clone() for name, each in kept.items()}
    rounded = _rounded(kept, state) if half else ""
    about["dtype"] = _dtypes(state.values())
    if form == "state-dict":
        _replace(output, lambda part: torch.save(state, part))
        again = torch.load(output, weights_only=True)
    else:
        safetensors = _package("safetensors.torch", "safetensors")
        _replace(output, lambda part: safetensors.save_file(state, part, metadata=about))
        again = safetensors.load_file(output)
    same = state.keys() == again.keys() and all(torch.equal(state[n], again[n]) for n in state)
    if not same:
        raise EvonasError(f"{output} does not hold the weights that were written")
    return (
        f"{output}: evaluation {evaluation.number}, {len(state)} tensors, "
        f"{rounded or 'equal to the weights kept'}; the module that they fit has the genes "
        f"{json.dumps(evaluation.genes)}"
    )


def _rounded(kept: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Returns how many tensors were rounded, and by how much at most.

    Raises:
        EvonasError: float16 cannot hold a number.
    """
    changed = [name for name, each in kept.items() if each.dtype != state[name].dtype]
    for name in changed:
        if not state[name].isfinite().equal(kept[name].isfinite()):
            raise EvonasError(f"{name} holds numbers too large for float16: leave out --half")
    largest = max(
        (float((kept[name].double() - state[name].double()).abs().max())
         for name in changed if kept[name].numel()), default=0.0,
    )  # fmt: skip
    return (
        f"{len(changed)} of them rounded to float16, largest difference to the weights kept "
        f"{largest:.2g}"
    )


def _dtypes(tensors: Iterable[Tensor]) -> str:
    """Returns the types of floating numbers among tensors: `float16`."""
    return ", ".join(sorted({str(each.dtype)[6:] for each in tensors if each.is_floating_point()}))


def _write_program(
    module: nn.Module, example: Any, part: Path, dynamic: bool, about: dict[str, str]
) -> None:
    import torch

    args, kwargs = _arguments(example)
    shapes = _batch_dims(example) if dynamic else None
    program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    with part.open("wb") as file:
        torch.export.save(program, file, extra_files={"evonas.json": json.dumps(about)})


def _write_onnx(
    module: nn.Module, example: Any, part: Path, dynamic: bool, about: dict[str, str]
) -> None:
    import torch

    onnx = _package("onnx", "onnx")
    _package("onnxscript", "onnxscript")
    args, kwargs = _arguments(example)
    torch.onnx.export(
        module, args, part, kwargs=kwargs, dynamo=True, external_data=False, verbose=False,
        dynamic_shapes=_batch_dims(example) if dynamic else None,
    )  # fmt: skip
    model = onnx.load(part)
    onnx.helper.set_model_props(model, about)
    onnx.save(model, part)


def _replace(output: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file whole or not at all; what torch says of a model becomes an error of ours."""

    def quietly(part: Path) -> None:
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own exporters
            write(part)

    try:
        replace_file(output, quietly, way_out="name another file with -o", error=EvonasError)
    except (OSError, EvonasError):
        raise
    except Exception as error:
        raise EvonasError(
            f"the model cannot be written to {output}: {_reason(error)}; an operator that ONNX "
            "lacks may be written by --format torch-export, any model by --format safetensors"
        ) from error


def _reason(error: BaseException) -> str:
    """Returns the first line of what an error was raised from, at the root."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _largest_difference(
    module: nn.Module, example: Any, given: Any, output: Path, form: str
) -> float:
    """Returns how far the file's outputs of `given` are from the module's of `example`."""
    import torch

    args, kwargs = _arguments(example)
    with torch.no_grad():
        wanted = tensors_in(module(*args, **kwargs))
        args, kwargs = _arguments(given)
        if form == "torch-export":
            with output.open("rb") as file:
                found = tensors_in(torch.export.load(file).module()(*args, **kwargs))
        else:
            session = _package("onnxruntime", "onnxruntime").InferenceSession(str(output))
            names = [entry.name for entry in session.get_inputs()]
            tensors = tensors_in([args, kwargs])
            feed = {name: value.numpy() for name, value in zip(names, tensors, strict=True)}
            found = [torch.as_tensor(value) for value in session.run(None, feed)]
    if [tuple(each.shape) for each in wanted] != [tuple(each.shape) for each in found]:
        raise EvonasError(f"{output} returns outputs of other shapes than the module")
    pairs = zip(wanted, found, strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple) else (example,)), {}


def _batch_dims(example: Any) -> Any:
    import torch

    batch = {0: torch.export.Dim("batch", min=1)}
    if isinstance(example, Mapping):
        return dict.fromkeys(example, batch)
    return tuple(batch for _ in example) if isinstance(example, tuple) else (batch,)


def _halved(example: Any, half: bool) -> Any:
    def halve(tensor: Any) -> Any:
        return tensor.half() if half and tensor.is_floating_point() else tensor

    return map_tensors(halve, example)


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError.of(
            "this format", name, error, "pip install 'evonas[export]'"
        ) from error
