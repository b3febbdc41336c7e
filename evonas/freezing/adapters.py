"""LoRA adapters of the linear layers and convolutions of a block, by peft: put in and merged.

Source:
    Hu et al. (2021), "LoRA: low-rank adaptation of large language models"; on all linear layers as
    in Dettmers et al. (2023), "QLoRA".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from evonas.exceptions import MissingDependencyError
from evonas.freezing.blocks import Block

__all__ = [
    "LORA",
    "adapter_layers",
    "check_rank",
    "insert_adapters",
    "lora_config",
    "lora_rank",
    "lora_state",
    "merge_adapters",
    "modules_to_save",
    "n_adapter_weights",
    "require_peft",
]

LORA = "lora"

_ATTENTION = " attention"
# Their forward passes read the weights of their linear layers without calling them, the last two
# in eval mode alone: an adapter would be trained and then be missing, without a word.
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def lora_state(rank: int, *, attention: bool = False) -> str:
    """Returns the state of a block whose linear layers have adapters of a rank.

    Args:
        rank: Of the adapters.
        attention: Whether those of its attention alone have.

    Example:
        >>> lora_state(8), lora_state(8, attention=True)
        ('lora 8', 'lora 8 attention')
    """
    return f"{LORA} {rank}{_ATTENTION if attention else ''}"


def lora_rank(state: Any) -> int | None:
    """Returns the rank of a block's adapters, None for a state without any.

    Example:
        >>> lora_rank("lora 8"), lora_rank("frozen"), lora_rank("lora 0")
        (8, None, None)
    """
    found = re.fullmatch(rf"{LORA} ([1-9]\d*)({_ATTENTION})?", str(state))
    return int(found[1]) if found else None


def adapter_layers(model: nn.Module, block: Block, state: str = LORA) -> dict[str, nn.Module]:
    """Returns the layers of a block that adapters can be put on, by path.

    Its `nn.Linear`, transformers' `Conv1D` and plain `nn.Conv1d` and `nn.Conv2d` of one group,
    whose weights are their own: not tied, nor computed from others as by `weight_norm`. Not those
    of torch's own transformer layers and attention, which do not call them, and no convolutions of
    classes of their own: peft would call these as it calls torch's.

    Args:
        model: The model.
        block: Of this model.
        state: One that ends in `attention` leaves those of attention alone.
    """
    fused = [path for path, module in model.named_modules() if isinstance(module, _FUSED)]
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = {}
    for path, module in model.named_modules():
        if not any(path == top or path.startswith(f"{top}.") for top in block.modules):
            continue
        if not _takes_adapter(module):
            continue
        if any(path.startswith(f"{top}.") or path == top for top in fused if top):
            continue
        if owners[id(module.get_parameter("weight"))] == 1:
            found[path] = module
    if state.endswith(_ATTENTION):
        return {path: module for path, module in found.items() if _is_attention(path)}
    return found


def n_adapter_weights(layers: Iterable[nn.Module], rank: int) -> int:
    """Returns how many weights the adapters of some layers have: a rank's worth of both sides."""
    return sum(rank * sum(_sides(layer)) for layer in layers)


def check_rank(layers: Mapping[str, nn.Module], rank: int) -> None:
    """Refuses a rank above what a layer has.

    Raises:
        ValueError: Names the first such layer.
    """
    for path, layer in layers.items():
        if rank > min(_sides(layer)):
            raise ValueError(
                f"rank {rank} is above the size of {path} ({' to '.join(map(str, _sides(layer)))}):"
                f" at most {min(_sides(layer))}"
            )


def lora_config(ranks: Mapping[str, int], **more: Any) -> Any:
    """Returns peft's `LoraConfig` of adapters by layer; their output counts twice (alpha = 2 rank).

    Args:
        ranks: Path of a layer to the rank of its adapter.
        **more: Other arguments of `LoraConfig`.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    peft = require_peft()
    paths = {f"^{re.escape(path)}$": rank for path, rank in ranks.items()}
    return peft.LoraConfig(
        r=max(ranks.values()),
        target_modules=rf"(.*\.)?({'|'.join(map(re.escape, ranks))})",
        rank_pattern=paths,
        lora_alpha=2 * max(ranks.values()),
        alpha_pattern={path: 2 * rank for path, rank in paths.items()},
        **more,
    )


def modules_to_save(model: nn.Module, trained: Collection[str]) -> list[str]:
    """Returns the modules that peft trains whole beside adapters, so that it trains `trained`.

    Args:
        model: Of which peft trains each module whose path *ends* in one of the names returned.
        trained: Names of parameters.

    Raises:
        ValueError: It would train others, too.
    """
    owned = {
        path: [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
        for path, module in model.named_modules()
    }
    found = list(dict.fromkeys(n.rpartition(".")[0] for n in owned[""] if n in trained))
    for chosen in found:
        for path in (path for path in owned if path.endswith(chosen)):
            if others := [name for name in owned[path] if name not in trained]:
                raise ValueError(
                    f"a LoraConfig trains whole modules, and with {chosen or 'the model'!r} also "
                    f"{others[0]}, which the recipe does not: take `apply`"
                )
    return found


def insert_adapters(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Puts adapters on layers, which compute as before until these are trained.

    What else is trained stays so: peft by itself freezes all the rest.

    Args:
        model: Changed in place; its parameters get other names, `….base_layer.weight`.
        ranks: Path of a layer to the rank of its adapter.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    peft = require_peft()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with warnings.catch_warnings():
        # peft sets it by itself for the other kind of layer, and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        peft.inject_adapter_in_model(lora_config(ranks), model)
    for parameter in trained:
        parameter.requires_grad_(True)


def merge_adapters(model: nn.Module) -> None:
    """Adds adapters to the weights that they stand beside, and takes them out.

    The model computes the same up to rounding, and its parameters have their own names again. A
    model without adapters stays as it is.
    """
    for path, module in list(model.named_modules()):
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            module.merge()
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, module.get_base_layer())
    model.__dict__.pop("peft_config", None)


def require_peft() -> Any:
    """Returns the package.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import peft
    except (ImportError, RuntimeError) as error:  # of a broken torchvision
        raise MissingDependencyError.of(
            "a LoRA adapter", "peft", error, "pip install 'evonas[lora]', or leave the ranks out"
        ) from error
    return peft


def _is_attention(path: str) -> bool:
    return re.search(r"att(n|ention)", path, re.IGNORECASE) is not None


def _takes_adapter(module: nn.Module) -> bool:
    if module._parameters.get("weight") is None:  # weight_norm computes it
        return False
    if isinstance(module, _CONVOLUTIONS):
        if type(module) not in _CONVOLUTIONS:  # a class of the user's, which may call it otherwise
            return False
        # peft's adapter has neither groups nor dilation nor reflection.
        usual = module.groups == 1 and module.padding_mode == "zeros"
        return usual and set(module.dilation) == {1} and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _sides(layer: Any) -> tuple[int, int]:
    """Returns what a layer takes and gives: of a convolution, all that its kernel sees."""
    if isinstance(layer, _CONVOLUTIONS):
        return layer.weight[0].numel(), layer.out_channels
    rows, columns = layer.weight.shape
    return (columns, rows) if isinstance(layer, nn.Linear) else (rows, columns)
