"""What a data set of torch says of itself: the labels of its classes, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import ConcatDataset, Dataset

from evonas.exceptions import DataError

__all__ = ["TARGETS", "class_labels", "datasets_in", "refuse_other_labels"]

TARGETS = ("labels", "label", "targets", "target", "y")
"""What the targets of examples that are mappings may be called."""


def class_labels(dataset: Any, outer: tuple[Any, ...] = ()) -> dict[str, int]:
    """Returns the label of each class by the name of the class; {}: the names are not known.

    They are those of `class_to_idx` or `classes` (as torchvision's data sets have them), or of the
    `features` of a data set of Hugging Face, else those of a data set that this one wraps; after
    the `target_transform`, where there is one. Numbers in `classes` are no names.

    Args:
        dataset: The data set.
        outer: Those that wrap it.
    """
    labels = _own_labels(dataset)
    for each in datasets_in(dataset):
        if not labels and all(each is not one for one in outer):
            labels = class_labels(each, (*outer, dataset))
    change = getattr(dataset, "target_transform", None)
    try:
        return labels if change is None else {n: int(change(i)) for n, i in labels.items()}
    except (LookupError, TypeError, ValueError, AttributeError):  # it wants something else
        return {}


def datasets_in(dataset: Any) -> list[Dataset[Any]]:
    """Returns the data sets that another one wraps, as its attributes or as its parts."""
    if isinstance(dataset, ConcatDataset):
        return list(dataset.datasets)
    return [each for each in getattr(dataset, "__dict__", {}).values() if isinstance(each, Dataset)]


def refuse_other_labels(
    labels: Mapping[str, int], expected: Mapping[str, int], name: str, other: str
) -> None:
    """Refuses classes that have another label than expected, where the names of both are known.

    Args:
        labels: By the names of the classes.
        expected: Likewise; others may be among them.
        name: What an error calls the first.
        other: What an error calls what is expected.

    Raises:
        DataError: A class has another label, or none.
    """
    for each, label in labels.items() if expected else ():
        if expected.get(each) != label:
            there = f"{expected[each]} in {other}" if each in expected else f"unknown to {other}"
            raise DataError(
                f"the class {each!r} has the label {label} in {name} and is {there}: read both "
                "with load_image_folder, which goes by the names of the classes, or pass a "
                "target_transform that makes the labels the same; a data set that wraps others "
                "and changes their labels needs `classes` of its own"
            )


def _own_labels(dataset: Any) -> dict[str, int]:
    numbered = getattr(dataset, "class_to_idx", None)
    if isinstance(numbered, Mapping) and all(type(label) is int for label in numbered.values()):
        return {str(name): label for name, label in numbered.items()}
    names = getattr(dataset, "classes", None)
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        names = next((getattr(features[n], "names", None) for n in TARGETS if n in features), names)
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, (str, tuple)) for n in names):
        return {}
    return {str(name): label for label, name in enumerate(names)}
