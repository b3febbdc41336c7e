"""A real table: the accuracy of scikit-learn models on digits, computed once and cached."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import evonas as en
from benchmarks.search_quality.instance import Genes

__all__ = ["digits_space", "digits_table"]


# Their order means something: a place among these values, not choices to be renumbered.
_NUMBERS = {
    "c": [0.01, 0.1, 1.0, 10.0, 100.0],
    "gamma": [0.001, 0.01, 0.1, 1.0],
    "power": [1, 2, 4],
    "trees": [5, 15, 40],
    "depth": [3, 6, 12],
    "features": [1, 2, 4],
    "alpha": [0.001, 0.1, 10.0, 1000.0],
}
_GENES_OF = {
    "svm": ("kernel", "c", "gamma"),
    "neighbours": ("n_neighbours", "weights", "power"),
    "forest": ("trees", "depth", "features"),
    "ridge": ("alpha",),
}


def digits_space() -> en.SearchSpace:
    """Returns preprocessing, a kind of model, and the genes of each kind."""
    genes: dict[str, Any] = {
        "scaling": ["none", "standard", "unit"],
        "components": en.Integer(4, 24, step=4),
        "model": list(_GENES_OF),
        "kernel": ["rbf", "poly", "sigmoid"],
        "c": None,
        "gamma": None,
        "n_neighbours": en.Integer(1, 15, step=2),
        "weights": ["uniform", "distance"],
    }
    genes |= {name: en.Integer(0, len(values) - 1) for name, values in _NUMBERS.items()}
    conditions = {name: {"model": [model]} for model, names in _GENES_OF.items() for name in names}
    return en.SearchSpace(genes, conditions=conditions)


@cache
def digits_table() -> tuple[en.SearchSpace, dict[str, tuple[float, float]]]:
    """Returns the space, and for each point's key the validation and test accuracy in percent."""
    space = digits_space()
    folder = Path(os.environ.get("EVONAS_CACHE", tempfile.gettempdir()))
    path = folder / f"evonas-digits-{space.fingerprint[:12]}.json"
    if not path.is_file():
        path.write_text(json.dumps(_compute(space)))
    return space, {key: tuple(entry) for key, entry in json.loads(path.read_text()).items()}


def _compute(space: en.SearchSpace) -> dict[str, tuple[float, float]]:
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order], labels[order]
    train, val, test = slice(0, 300), slice(300, 897), slice(897, None)
    prepared: dict[tuple[Any, Any], Any] = {}
    table = {}
    for genes in space.enumerate():
        what = (genes["scaling"], genes["components"])
        if what not in prepared:
            x = images
            if genes["scaling"] != "none":
                scaler = StandardScaler() if genes["scaling"] == "standard" else MinMaxScaler()
                x = scaler.fit(x[train]).transform(x)
            pca = PCA(genes["components"], random_state=0).fit(x[train])
            prepared[what] = pca.transform(x)
        x = prepared[what]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's on fits that do not converge
            model = _model(genes).fit(x[train], labels[train])
        table[space.key(genes)] = tuple(
            100.0 * float((model.predict(x[part]) == labels[part]).mean()) for part in (val, test)
        )
    return table


def _model(genes: Genes) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    def value(name: str) -> Any:
        return _NUMBERS[name][genes[name]]

    if genes["model"] == "svm":
        return SVC(kernel=genes["kernel"], C=value("c"), gamma=value("gamma"), max_iter=20_000)
    if genes["model"] == "neighbours":
        return KNeighborsClassifier(
            genes["n_neighbours"], weights=genes["weights"], p=value("power")
        )
    if genes["model"] == "forest":
        return RandomForestClassifier(
            value("trees"), max_depth=value("depth"), max_features=value("features"), random_state=0
        )
    return RidgeClassifier(alpha=value("alpha"))
