"""The live view's answers: what is shown, to whom, and what a hostile run can do to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import MissingDependencyError
from evonas.live.app import LOOPBACK, live_app

pytest.importorskip("starlette", reason="pip install 'evonas[live]'")
pytest.importorskip("httpx2", reason="pip install httpx2")

TOKEN = "a-token-of-22-characters"
EVIL = '</script><script>document.title="evil"</script><img src=x onerror=alert(1)>'


def accuracy(genes: en.Genes, trial: en.Trial) -> tuple[float, float]:
    if genes["x"] > 0.9:
        raise RuntimeError(EVIL)
    for epoch in range(3):
        trial.report(accuracy=genes["x"] * (epoch + 1) / 3)
    return genes["x"], 1.0 - genes["x"] ** 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them below another folder, one with names that mean harm."""
    root = tmp_path_factory.mktemp("runs")
    space = en.SearchSpace({"x": en.Float(0.0, 1.0), EVIL: en.Categorical([EVIL, "b"])})
    objectives = [en.Objective(EVIL), en.Objective("size", "min")]
    problem = en.FunctionProblem(space, accuracy, objectives=objectives, problem_id=EVIL)
    en.evolve(
        problem, strategy=en.NSGA2(10), generations=3, seed=1, run_dir=root / "evil",
        progress=False, max_consecutive_failures=100,
    )  # fmt: skip
    en.evolve({"x": en.Float(0.0, 1.0)}, lambda genes, trial: genes["x"], max_evaluations=5,
              seed=1, run_dir=root / "below" / "plain run", progress=False)  # fmt: skip
    return root


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Any]:
    from starlette.testclient import TestClient

    with TestClient(live_app(folder, TOKEN), base_url="http://127.0.0.1:8321") as made:
        yield made


def test_the_runs_of_a_folder_are_listed(client: Any) -> None:
    page = client.get(f"/{TOKEN}/")
    assert page.status_code == 200
    assert "<h1>Runs</h1>" in page.text
    runs = {run["name"]: run for run in client.get(f"/{TOKEN}/runs.json").json()}
    assert runs.keys() == {"evil", "below/plain run"}
    plain = runs["below/plain run"]
    assert plain["trained"] == "5"
    assert plain["running"] is False
    assert plain["state"].startswith("finished")
    assert re.fullmatch(r"fitness 0\.\d+", plain["best"])


def test_a_run_is_told_as_json(client: Any, folder: Path) -> None:
    told = client.get(f"/{TOKEN}/run/evil.json").json()
    result = en.open_run(folder / "evil")
    ok = [entry for entry in result.evaluations if entry.values]
    assert told["ended"] is True
    assert told["points"]["x"] == [entry.number for entry in ok]
    assert told["points"]["y"] == [entry.values[0] for entry in ok]
    assert told["points"]["best_y"][-1] == max(entry.values[0] for entry in ok)
    assert told["front"]["n"] == len(result.pareto_front)
    assert told["champion"]["number"] == result.champion.number
    assert told["failures"][0][:2] == ["failed", result.counts.failed]
    assert len(told["curves"]["ended"][0]["y"]) == 3
    again = client.get(f"/{TOKEN}/run/evil.json", params={"version": told["version"]}).json()
    assert again["points"] is None, "what the page has already is not sent again"
    assert again["tiles"] == told["tiles"]


def test_a_name_with_a_blank_is_found(client: Any) -> None:
    told = client.get(f"/{TOKEN}/run/below/plain%20run.json").json()
    assert told["name"] == "below/plain run"
    assert client.get(f"/{TOKEN}/report/below/plain%20run").status_code == 200


def test_the_page_of_a_run_that_has_ended_is_its_report(client: Any, folder: Path) -> None:
    from evonas.report import render

    answer = client.get(f"/{TOKEN}/report/evil")
    assert answer.text == render(en.open_run(folder / "evil"))
    assert "sandbox allow-scripts" in answer.headers["content-security-policy"]
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["", "runs.json", "run/evil", "run/evil.json", "report/evil", "static/live.js"],
)
def test_without_the_token_there_is_nothing(client: Any, path: str) -> None:
    for token in ("wrong", TOKEN[:-1], TOKEN + "x", "é"):
        answer = client.get(f"/{token}/{path}")
        assert answer.status_code == 404
        assert "evil" not in answer.text
    assert client.get("/").status_code == 404


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "10.0.0.1:8321", ""])
def test_another_sites_name_is_refused(client: Any, host: str) -> None:
    answer = client.get(f"/{TOKEN}/runs.json", headers={"host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["localhost:8321", "127.0.0.1"])
def test_this_machines_names_are_taken(client: Any, host: str) -> None:
    assert client.get(f"/{TOKEN}/runs.json", headers={"host": host}).status_code == 200
    assert LOOPBACK[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "name",
    ["nothing", "../evil", "..%2fevil", "%2e%2e/%2e%2e/etc/passwd", "evil/run.db", "/etc/passwd"],
)
def test_what_is_no_run_of_the_folder_is_not_found(client: Any, name: str) -> None:
    assert client.get(f"/{TOKEN}/run/{name}.json").status_code == 404
    assert client.get(f"/{TOKEN}/report/{name}").status_code == 404
    assert client.get(f"/{TOKEN}/static/{name}").status_code == 404


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_nothing_can_be_changed(client: Any, method: str) -> None:
    assert getattr(client, method)(f"/{TOKEN}/run/evil.json").status_code == 405


def test_every_answer_carries_its_policy(client: Any) -> None:
    for path in ("", "runs.json", "run/evil", "run/evil.json", "report/evil", "static/plotly.js"):
        headers = client.get(f"/{TOKEN}/{path}").headers
        assert headers["referrer-policy"] == "no-referrer", "the token must not go elsewhere"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    policy = client.get(f"/{TOKEN}/run/evil").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_a_name_in_an_address_is_text(client: Any) -> None:
    page = client.get(f"/{TOKEN}/run/%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_scripts_put_texts_of_runs_into_text_nodes_only() -> None:
    for name in ("live.js", "list.js"):
        script = (Path(live_app.__code__.co_filename).parent / "templates" / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


def test_what_plotly_is_given_has_no_markup(client: Any) -> None:
    told = client.get(f"/{TOKEN}/run/evil.json").json()
    assert "<" not in json.dumps([told["objectives"], told["curves"]["metric"]])


def test_a_run_that_is_damaged_says_so_and_hides_no_other(folder: Path, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    (tmp_path / "good").mkdir()
    for run in ("good", "bad"):
        (tmp_path / run).mkdir(exist_ok=True)
        data = (folder / "evil" / "run.db").read_bytes()
        (tmp_path / run / "run.db").write_bytes(data if run == "good" else data[:5000])
    with TestClient(live_app(tmp_path, TOKEN), base_url="http://localhost") as client:
        runs = {run["name"]: run for run in client.get(f"/{TOKEN}/runs.json").json()}
        assert runs["good"]["trained"] != "0"
        assert "damaged" in runs["bad"]["state"]
        answer = client.get(f"/{TOKEN}/run/bad.json")
        assert answer.status_code == 503
        assert "damaged" in answer.text


def test_one_run_is_its_own_page(folder: Path) -> None:
    from starlette.testclient import TestClient

    with TestClient(live_app(folder / "evil", TOKEN), base_url="http://localhost") as client:
        assert 'data-name="evil"' in client.get(f"/{TOKEN}/").text
        assert client.get(f"/{TOKEN}/run/evil.json").json()["ended"] is True
        assert client.get(f"/{TOKEN}/report/evil").status_code == 200


def test_without_starlette_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[live\]'"):
        live_app(tmp_path, TOKEN)
