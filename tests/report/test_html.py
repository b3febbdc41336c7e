from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import MissingDependencyError, RunStorageError
from evonas.records import Evaluation, Status
from evonas.report import render, write_report
from evonas.testing import ProcessKilled, dies_at_commit

Write = Callable[..., en.Result]
EVIL = '</script><script>document.title="evil"</script><img src=x onerror=alert(1)>'


class Reader(HTMLParser):
    """What a browser makes of a page: tags, texts by tag, addresses, figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.addresses += [str(named[name]) for name in ("src", "href", "action") if name in named]
        if tag not in ("meta", "link", "br", "img"):
            self._open.append((tag, named))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script":
            if attributes.get("type") == "application/json":
                assert "<" not in data  # nothing there can end the element, or begin another
                self.figures.append(json.loads(data))
        elif data.strip():
            self.texts.append((tag, data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for found, text in self.texts if found == tag]


@pytest.fixture(scope="module")
def page(small: en.Result) -> Reader:
    return Reader(render(small))


def test_the_report_is_one_file_in_the_run(small: en.Result) -> None:
    path = write_report(str(small.run_dir))
    assert path == small.run_dir / "report.html"
    assert {entry.name for entry in path.parent.glob("*report*")} == {"report.html"}
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_writing_a_report_leaves_the_record_alone(small: en.Result, tmp_path: Path) -> None:
    before = (small.run_dir / "run.db").read_bytes()
    write_report(small.run_dir, tmp_path / "r.html")
    assert (small.run_dir / "run.db").read_bytes() == before


def test_nothing_is_asked_of_a_network(page: Reader) -> None:
    links = [address for address in page.addresses if not address.startswith("#")]
    assert links == ["data:,"]
    assert "Content-Security-Policy" in render.__globals__["Page"]("x").render()


def test_the_answer_comes_first(small: en.Result, page: Reader) -> None:
    answer = dict(zip(page.of("dt")[:5], page.of("dd")[:5], strict=True))
    assert list(answer) == ["Searched", "Found", "How sure", "Cost", "Next"]
    assert answer["Searched"].startswith("Generational looked for the highest fitness of the func")
    assert "5 genes and infinitely many points" in answer["Searched"]
    champion = small.champion
    assert f"Evaluation {champion.number} has fitness {champion.fitness:.4g}" in answer["Found"]
    first = [entry.values[0] for entry in small.evaluations[:12] if entry.values]
    assert f"The first {len(first)} points had {max(first):.4g} at best" in answer["Found"]
    assert "partly luck" in answer["How sure"]
    assert f"{small.counts.evaluated} trainings" in answer["Cost"]
    assert f"{small.counts.failed} failed" in answer["Cost"]
    assert "evonas.confirm(problem" in answer["Next"]


def test_the_figures_of_a_run_are_there(page: Reader) -> None:
    titles = page.of("h3")
    for title in (
        "fitness by evaluation", "fitness by generation", "fitness by epoch", "train_loss by epoch",
        "variance of fitness that each gene explains", "gene values and fitness",
        *(f"fitness by {gene}" for gene in ("lr", "width", "deep", "layers", "dropout")),
        *(f"values of {gene} over the search" for gene in ("lr", "width", "deep", "dropout")),
        "fitness expected by lr", "fitness expected by dropout",
    ):  # fmt: skip
        assert title in titles
    assert len(page.figures) == 22
    assert page.of("h2") == [
        "Champion", "Best points", "The search", "Genes", "Family tree", "Failures", "Code",
        "How to reproduce",
    ]  # fmt: skip
    assert page.tags.count("details") >= 5, "what is not for the first look is folded"


def test_the_best_points_show_what_differs(small: en.Result, page: Reader) -> None:
    heads = page.of("th")
    assert heads[:2] == ["number", "fitness"]
    assert "key" not in heads[: heads.index("seconds")]
    hall = small.hall_of_fame
    for gene in ("lr", "width", "deep", "layers", "dropout"):
        differs = len({str(entry.genes.get(gene)) for entry in hall}) > 1
        assert (gene in heads[: heads.index("seconds")]) == differs


def test_the_champion_stands_with_its_genes(small: en.Result, page: Reader) -> None:
    (code,) = [text for text in page.of("code") if '"lr"' in text and "genes" not in text]
    assert json.loads(code) == small.champion.genes


def test_failures_are_listed_with_their_tracebacks(small: en.Result, page: Reader) -> None:
    assert any(re.fullmatch(r"RuntimeError: \d+ layers do not fit", t) for t in page.of("summary"))
    assert any("Traceback (most recent call last)" in text for text in page.of("pre"))


def test_how_to_reproduce_is_what_was_recorded(small: en.Result, page: Reader) -> None:
    texts = page.of("dd")
    assert "5" in texts  # the seed
    assert any(str(small.sessions[0]["environment"]["python"]) in text for text in texts)
    assert sys.orig_argv[-1] in " ".join(page.of("code"))


def test_a_mask_search_has_its_heat_map_and_its_honest_table(masks: en.Result) -> None:
    page = Reader(render(masks))
    assert "share of points that freeze each block" in page.of("h3")
    assert "Repeated on fresh seeds" in page.of("h3")
    assert "gene values and fitness" not in page.of("h3")
    cells = page.of("td")
    for entry in masks.confirmed:
        assert f"{entry.mean:.4g} ± {entry.std:.2g}" in cells
    labels = page.of("span")
    assert "all trained" in labels
    assert "of the search" in labels
    assert page.tags.count("i") > 6 * len(masks.confirmed), "a square for each block"
    best = masks.confirmed[0]
    (sure,) = [text for text in page.of("dd") if text.startswith("Trained again")]
    assert f"on 3 fresh seeds it has fitness {best.mean:.4g} ± {best.std:.2g}." in sure
    assert not any("not finished" in text for text in page.of("p"))


def test_without_a_confirmed_champion_the_repeats_are_no_verdict(masks: en.Result) -> None:
    finished = " ".join(Reader(render(en.open_run(masks.run_dir))).of("p"))
    assert "the best mean is the champion" in finished
    result = en.open_run(masks.run_dir)
    result.record = replace(masks.record, confirmed_champion=None)  # as the driver leaves it
    text = " ".join(Reader(render(result)).of("p"))
    assert "the best mean is the champion" not in text
    assert "The champion is still the search's best single score" in text


def test_two_objectives_have_a_front(two_objectives: en.Result) -> None:
    page = Reader(render(two_objectives))
    assert "accuracy and size" in page.of("h3")
    assert "size by evaluation" in page.of("h3")
    assert page.of("h2")[0] == "Pareto front"
    assert "Best points" not in page.of("h2"), "the front says it"
    (found,) = [text for text in page.of("dd") if "no other beats" in text]
    assert found.startswith(f"{len(two_objectives.pareto_front)} of 40 are points")
    assert "Family tree" not in page.of("h2")


def test_ten_thousand_evaluations_stay_small(large: en.Result, tmp_path: Path) -> None:
    path = write_report(large.run_dir, tmp_path / "large.html")
    assert path.stat().st_size < 7_000_000
    page = Reader(path.read_text(encoding="utf-8"))
    assert len(page.figures) == 6 + 2 * 16 + 2
    assert "accuracy against params" in page.of("h3")
    assert "The 16 most important of 40 genes, those first:" in page.of("p")
    assert any(text.startswith("… and ") and "other reasons" in text for text in page.of("p"))


def test_ten_evaluations_are_enough(write_run: Write) -> None:
    page = Reader(render(write_run(10, per_generation=5)))
    assert "accuracy by evaluation" in page.of("h3")
    assert len(page.figures) >= 14


def test_a_run_without_a_fitness_has_a_report(write_run: Write) -> None:
    page = Reader(render(write_run(5, failed=1.1)))
    assert "Nothing yet: no evaluation has a fitness." in page.of("dd")
    assert page.of("h2") == ["The search", "Failures", "How to reproduce"]


def test_one_evaluation_has_no_chart(write_run: Write) -> None:
    page = Reader(render(write_run(1, failed=0.0, epochs=1)))
    assert page.figures == []
    assert "Champion" in page.of("h2")


def test_a_killed_run_has_a_report(tmp_path: Path) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        en.evolve({"x": en.Float(0.0, 1.0)}, lambda genes, trial: genes["x"], population=20,
                  generations=2, run_dir=tmp_path, progress=False)  # fmt: skip
    page = Reader(write_report(tmp_path).read_text(encoding="utf-8"))
    assert any(text.endswith("· killed") for text in page.of("p"))


def test_what_a_run_holds_is_text(write_run: Write) -> None:
    space = en.SearchSpace({EVIL: en.Categorical([EVIL, "b"]), "flag": en.Boolean()})

    def evil(entry: Evaluation) -> Evaluation:
        entry = dataclasses.replace(entry, metrics={EVIL: EVIL}, key=EVIL)
        if entry.number % 5:
            return entry
        return dataclasses.replace(entry, status=Status.FAILED, values=(), error=f"{EVIL}\n{EVIL}")

    result = write_run(
        40, space=space, edit=evil, objectives=(en.Objective(EVIL),), metadata={EVIL: EVIL},
        strategy={"name": EVIL, "hall_of_fame": 10},
    )  # fmt: skip
    harmless = Reader(render(write_run(40, space=en.SearchSpace({"a": ["b"], "flag": [True]}))))
    page = Reader(render(result))
    assert "img" not in page.tags
    assert page.tags.count("script") == len(page.figures) + 2
    assert set(page.tags) <= set(harmless.tags)
    # What plotly is given: its own markup (a line break, bold) is all that may be in a text.
    for figure in page.figures:
        assert "<script" not in json.dumps(figure)
        assert "<img" not in json.dumps(figure)
    assert any(EVIL in text for text in page.of("pre") + page.of("td") + page.of("summary"))


def test_the_source_of_the_champion_is_shown(write_run: Write) -> None:
    result = write_run(20, failed=0.0)
    assert result.run_dir is not None
    folder = result.run_dir / "ga_architecture"
    folder.mkdir()
    for number in range(20):
        (folder / f"ga-net-{number}.py").write_text(f"# number {number} <&>\n")
    page = Reader(render(result))
    assert f"# number {result.champion.number} <&>" in page.of("code")
    (result.run_dir / "ga-champ-net.py").write_text("# the champion itself\n")
    page = Reader(render(result))
    assert "# the champion itself" in page.of("code")
    assert "ga-champ-net.py" in page.of("h3")


def test_a_source_without_end_is_not_taken_in(write_run: Write) -> None:
    result = write_run(10)
    assert result.run_dir is not None
    (result.run_dir / "ga-champ-net.py").write_text("#" * 300_000)
    assert "the champion's genes (JSON)" in Reader(render(result)).of("h3")


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        write_report(tmp_path)


def test_a_report_that_cannot_be_written_says_so(small: en.Result, tmp_path: Path) -> None:
    with pytest.raises(RunStorageError, match=r"no.such.r\.html cannot be written"):
        write_report(small.run_dir, tmp_path / "no" / "such" / "r.html")


def test_a_report_is_written_whole_or_not_at_all(
    small: en.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.html"
    path.write_text("the last one")

    def full(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunStorageError, match="disk full.*name another file with path="):
        write_report(small.run_dir, path)
    assert path.read_text() == "the last one"
    assert list(tmp_path.iterdir()) == [path]


def test_without_plotly_the_error_says_what_to_install(
    small: en.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[report\]'"):
        write_report(small.run_dir, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
