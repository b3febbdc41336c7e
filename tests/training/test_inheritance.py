"""Children that begin with the weights of their parents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.training import ModelProblem
from evonas.training.inheritance import inherit, leave

torch.manual_seed(0)
X = torch.randn(64, 6)
DATA = X, (X.sum(1) > 0).long()


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))


@pytest.mark.parametrize(("parent", "child"), [(4, 7), (7, 4), (5, 5)])
def test_the_common_corner_is_taken_over(parent: int, child: int, tmp_path: Path) -> None:
    old, new = net(parent), net(child)
    old[1].running_mean.fill_(0.5)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    leave(old, tmp_path, 3)
    found = inherit(new, tmp_path, (3,))
    n = min(parent, child)
    assert torch.equal(new[0].weight[:n], old[0].weight[:n])
    assert torch.equal(new[0].weight[n:], before["0.weight"][n:])
    assert torch.equal(new[3].weight[:, :n], old[3].weight[:, :n])
    assert torch.equal(new[3].weight[:, n:], before["3.weight"][:, n:])
    assert (new[1].running_mean[:n] == 0.5).all()
    copied, n_all = 6 * n + 3 * n + 2 * n + 2, sum(p.numel() for p in new.parameters())
    assert found == {"inherited_from": 3, "inherited_share": pytest.approx(copied / n_all)}


def test_what_has_nothing_in_common_begins_anew(tmp_path: Path) -> None:
    leave(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path, 0)
    child = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
    before = child[1].weight.clone()
    assert inherit(child, tmp_path, (0,)) == {"inherited_from": 0, "inherited_share": 0.0}
    assert torch.equal(child[1].weight, before)
    assert inherit(child, tmp_path, (8, 9)) == {"inherited_share": 0.0}
    assert inherit(child, tmp_path, ()) == {"inherited_share": 0.0}


def test_damaged_weights_are_said_and_the_next_parent_counts(tmp_path: Path) -> None:
    for number in (1, 2):
        leave(net(4), tmp_path, number)
    (tmp_path / "weights-1.pt").write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match="not gone on from, because it is damaged"):
        assert inherit(net(4), tmp_path, (1, 2))["inherited_from"] == 2


def test_a_disk_that_does_not_take_them_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        leave(net(4), tmp_path / "file", 0)
    assert "children of evaluation 0 will begin anew" in caplog.text


def problem(**arguments: Any) -> ModelProblem:
    return ModelProblem(
        {"width": en.Integer(3, 40), "lr": en.Float(1e-3, 1e-1, log=True)},
        lambda genes: net(genes["width"]), DATA, DATA, n_epochs=1, precision="float32",
        **arguments,
    )  # fmt: skip


def test_a_search_with_it_records_the_lineage_and_resumes_exactly(tmp_path: Path) -> None:
    def search(folder: Path, generations: int) -> en.Result:
        return en.evolve(
            problem(inherit_weights=True), strategy=en.Generational(6, elite=1), workers=1,
            generations=generations, seed=2, run_dir=folder,
        )  # fmt: skip

    whole = search(tmp_path / "whole", 3)
    search(tmp_path / "parts", 1)
    parts = search(tmp_path / "parts", 3)
    assert [e.values for e in whole.evaluations] == [e.values for e in parts.evaluations]
    heirs = [e for e in whole.evaluations if "inherited_from" in e.metrics]
    assert heirs
    assert all(0 < e.metrics["inherited_share"] <= 1 for e in heirs)
    assert all(e.metrics["inherited_from"] < e.number for e in heirs)
    first = whole.evaluations[:6]
    assert all(e.metrics["inherited_share"] == 0 for e in first)


def test_it_is_another_problem_and_excludes_continuing() -> None:
    assert "inherit_weights" not in problem().fingerprint()
    assert problem(inherit_weights=True).fingerprint()["inherit_weights"] is True
    with pytest.raises(ValueError, match="exclude each other"):
        ModelProblem(
            {"width": [3], "n_epochs": [1, 2]}, lambda genes: net(3), DATA, DATA,
            inherit_weights=True, continue_trainings=True,
        )  # fmt: skip
