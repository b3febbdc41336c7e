"""The user's function behind a run, found again by its own user and by nobody's else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import evonas as en
from evonas.execution.user_code import (
    ScriptError,
    import_from_file,
    import_from_module,
    place_of,
)

SCRIPT = """
import sys
import torch
from torch import nn
import evonas as en
from evonas.freezing import FreezingProblem, RecipeProblem
from evonas.training import ModelProblem

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = X, (X[:, 0] > 0).long()


class Net(nn.Sequential):
    pass


def model(genes):
    return Net(nn.Linear(4, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2))


def pretrained(width=8):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 8), nn.Linear(8, 2))


def with_dropout(genes):
    return nn.Sequential(*pretrained(), nn.Dropout(genes["dropout"]))


def problem():
    if sys.argv[2] == "masks":
        return FreezingProblem(pretrained, DATA, DATA, n_epochs=2, lr=0.01, precision="float32")
    if sys.argv[2] == "recipes":
        genes = {"dropout": en.Categorical([0.1, 0.2])}
        return RecipeProblem(
            with_dropout, DATA, DATA, genes=genes, n_epochs=2, lr=0.01, precision="float32"
        )
    return ModelProblem({"width": [4, 8]}, model, DATA, DATA, n_epochs=2, precision="float32")


if GUARD:
    result = en.evolve(
        problem(), max_evaluations=2, seed=0, run_dir=sys.argv[1], progress=False,
        threads_per_trial=1, workers=1,
    )
    torch.save(result.champion.load_model()(X), sys.argv[1] + "/outputs.pt")
"""
READER = """
import sys
import torch
import evonas as en
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
loaded = en.open_run(sys.argv[1]).champion.load_model()
print(torch.equal(loaded(X), torch.load(sys.argv[1] + "/outputs.pt")), loaded.training)
"""
GUARD = '__name__ == "__main__"'


def read(run: Path, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READER, str(run)], cwd=run.parent, capture_output=True, text=True,
        check=False, env={**os.environ, "XDG_STATE_HOME": str(state)},
    )  # fmt: skip


def search(folder: Path, kind: str, guard: str = GUARD) -> Path:
    script = folder / "train.py"
    script.write_text(SCRIPT.replace("GUARD", guard))
    subprocess.run(
        [sys.executable, str(script), str(folder / "run"), kind], check=True,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
    )  # fmt: skip
    return folder / "run"


@pytest.mark.parametrize("kind", ["model", "masks", "recipes"])
def test_the_champion_loads_without_an_argument_where_it_was_made(
    tmp_path: Path, kind: str
) -> None:
    run = search(tmp_path, kind)
    found = read(run, tmp_path / "state")
    assert found.stdout.split() == ["True", "False"], found.stderr

    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    for where, state in ((copied, tmp_path / "state"), (run, tmp_path / "of somebody else")):
        refused = read(where, state)
        assert "not made here, on this machine" in refused.stderr
        assert "pass load_model(build)" in refused.stderr

    builder = run / "attachments" / "builder.json"
    entry = json.loads(builder.read_text())
    evil = tmp_path / "evil.py"
    evil.write_text("import pathlib\npathlib.Path('touched').touch()\ndef model(genes): pass\n")
    builder.write_text(json.dumps({**entry, "file": str(evil)}))
    assert "not made here" in read(run, tmp_path / "state").stderr
    assert not list(tmp_path.rglob("touched"))

    builder.write_text(json.dumps(entry))
    script = tmp_path / "train.py"
    script.write_text("open('no such file')\n" + script.read_text())
    said = read(run, tmp_path / "state").stderr
    assert f"while importing {script}, which made this run: FileNotFoundError: [Errno 2]" in said
    function = {"masks": "lambda genes: pretrained()", "recipes": "with_dropout"}
    assert f"or pass load_model({function.get(kind, 'model')})" in said
    assert f'File "{script}", line 1, in <module>' in said, "the cause is chained"
    for code, raised in (
        ("raise KeyError('depth')", "raised KeyError: 'depth'"),
        ("return 3", "returned int and no nn.Module"),
    ):
        changed = SCRIPT.replace("GUARD", '__name__ == "__main__"')
        for name in ("model", "pretrained", "with_dropout"):
            changed = re.sub(rf"(def {name}\(.*\):\n)", rf"\1    {code}\n", changed)
        script.write_text(changed)
        wanted = f"of {script}, which made this run, {raised}: fix it, or pass load_model("
        assert wanted in read(run, tmp_path / "state").stderr
    (tmp_path / "train.py").unlink()
    assert "whose function is gone" in read(run, tmp_path / "state").stderr
    builder.write_text("{")
    assert "pass load_model(build)" in read(run, tmp_path / "state").stderr


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    run = search(tmp_path, "model", guard="True")
    assert not (run / "attachments" / "builder.json").exists()
    assert "pass load_model(build)" in read(run, tmp_path / "state").stderr


def test_code_that_was_edited_after_the_search_is_warned_of(tmp_path: Path) -> None:
    """The shapes fit, and the network computes something else: nothing else would tell."""
    run = search(tmp_path, "model")
    script, state = tmp_path / "train.py", tmp_path / "state"
    before = script.read_text()
    script.write_text(before.replace("torch.randn(60", "torch.randn(61") + "# a comment\n")
    assert "edited" not in read(run, state).stderr, "not of what the function does not use"
    script.write_text(before.replace("Net(nn.Sequential):", "Net(nn.Sequential):\n    slope = 2"))
    found = read(run, state)
    assert f"UserWarning: model in {script}, or what it uses, was edited after" in found.stderr
    assert "restore the file" in found.stderr
    assert found.stdout.endswith(" False\n"), "it is loaded all the same"
    builder = run / "attachments" / "builder.json"
    entry = json.loads(builder.read_text())
    for code in (None, entry["code"].replace("py3.", "py2.")):  # an older evonas, another Python
        builder.write_text(json.dumps({**entry, "code": code}))
        assert "edited" not in read(run, state).stderr


class Holder:
    @staticmethod
    def make() -> int:
        return 7


def test_a_place_leads_back_to_the_function() -> None:
    place = place_of(Holder.make)
    assert place == (str(Path(__file__).resolve()), "Holder.make")
    assert import_from_file(*place)() == 7
    assert place_of(lambda genes: genes) is None
    assert place_of(len) is None
    assert place_of(en.Generational(4)) is None
    with pytest.raises(ImportError, match="has no 'none'"):
        import_from_file(__file__, "none")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        import_from_file(__file__ + ".txt", "none")


@pytest.mark.parametrize("code", ["raise SystemExit('usage')", "1 / 0", "import no_such_module"])
def test_what_a_script_raises_is_told_from_a_script_that_is_gone(tmp_path: Path, code: str) -> None:
    file = tmp_path / "script.py"
    file.write_text(f"{code}\ndef model(genes): pass\n")
    with pytest.raises(ScriptError, match=f"importing {file} raised") as caught:
        import_from_file(str(file), "model")
    assert isinstance(caught.value.__cause__, (SystemExit, ZeroDivisionError, ImportError))
    file.rename(tmp_path / "script.txt")
    with pytest.raises(ImportError, match="is no Python file"):
        import_from_file(str(tmp_path / "script.txt"), "model")


UNGUARDED = """
import sys
import evonas as en

CALLS = {
    "evolve": lambda: en.evolve(
        {"x": [1, 2, 3]}, lambda genes, trial: 1.0, max_evaluations=3, seed=0,
        run_dir=sys.argv[1], progress=False, problem_id="a",
    ),
    "in memory": lambda: en.evolve(
        {"x": [1]}, lambda genes, trial: 1.0, max_evaluations=1, progress=False
    ),
    "confirm": lambda: en.confirm(en.FunctionProblem(
        en.SearchSpace({"x": [1, 2, 3]}), lambda genes, trial: 1.0, problem_id="a"
    ), sys.argv[1]),
    "Store": lambda: __import__("evonas.run.store", fromlist=["Store"]).Store.create(None),
}
def model(genes):
    CALLS["evolve"]()
CALLS[CALL]()
"""


@pytest.mark.parametrize(
    ("call", "named"),
    [("evolve", "evolve"), ("in memory", "evolve"), ("confirm", "confirm"),
     ("Store", "what writes a run")],
)  # fmt: skip
def test_importing_a_script_runs_no_search(
    call: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed at 1 of 3 must not be trained to its end by whoever reads it."""
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["evonas", str(run)])
    en.evolve(
        {"x": [1, 2, 3]}, lambda genes, trial: 1.0, max_evaluations=1, seed=0, run_dir=run,
        progress=False, problem_id="a",
    )  # fmt: skip
    before = (run / "run.db").read_bytes()
    script = tmp_path / f"{call.replace(' ', '_')}.py"
    script.write_text(UNGUARDED.replace("[CALL]", f"[{call!r}]"))
    refused = (
        rf"importing {script} raised RuntimeError: {named} must not run while evonas imports "
        rf"{script} to find a function in it, which changes no run: put the call under "
        'if __name__ == "__main__":'
    )
    with pytest.raises(ScriptError, match=refused):
        import_from_file(str(script), "model")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ScriptError, match=f"{named} must not run while evonas imports {script.stem}"
    ):
        import_from_module(script.stem, "model")
    assert (run / "run.db").read_bytes() == before
    # Afterwards, and in the script itself, it runs.
    more = en.evolve(
        {"x": [1, 2, 3]}, lambda genes, trial: 1.0, max_evaluations=2, seed=0, run_dir=run,
        progress=False, problem_id="a",
    )  # fmt: skip
    assert more.counts.evaluated == 2
