"""README and docs: every Python block runs, every command that is named exists.

A page is run as one script, its blocks in order, in an empty folder. A block of the language
`output` is what the block before it prints, compared line by line; after the comment
`<!-- numbers vary -->` the numbers in it are not compared (accuracies differ between processors).
A block that must not run stands after `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import configparser
import functools
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evonas.run.store import SCHEMA_VERSION, Store

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
# A page that does not run is a page that rots: each of these needs a reason in the page, and the
# number is here so that it does not grow unseen.
MAX_NOT_RUN = 2

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S
)
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is where its code begins, from 1; `note` the comment before it."""

    line: int
    language: str
    code: str
    note: str


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rsplit("\n", 1)[-1].strip()
        note = before[4:-3].strip() if before.startswith("<!--") and before.endswith("-->") else ""
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(line, match["language"], textwrap.dedent(match["code"]), note)


def not_run(block: Block) -> bool:
    return block.note.startswith("not run: ") and len(block.note) > len("not run: ")


def script(text: str) -> str:
    """The page's Python as a script whose line numbers are the page's own.

    Where a block begins, its line number is printed between two zero bytes (not in workers, which
    import the script again).
    """
    lines = [""] * (text.count("\n") + 1)
    for block in blocks(text):
        if block.language == "python" and not not_run(block):
            code = block.code.splitlines()
            lines[block.line - 2] = (
                rf'if __name__ == "__main__": print("\x00{block.line}\x00", end="")'
            )
            lines[block.line - 1 : block.line - 1 + len(code)] = code
    return "\n".join(lines) + "\n"


def run_page(text: str, folder: Path) -> dict[int, str]:
    """Runs the page's blocks; what each printed, by the line at which it begins."""
    file = folder / "page.py"
    file.write_text(script(text))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pieces = done.stdout.split("\0")
    assert pieces[0] == ""
    return dict(zip(map(int, pieces[1::2]), pieces[2::2], strict=True))


def expected_outputs(text: str) -> Iterator[tuple[int, Block]]:
    """The line of each block that shows its output, and the block that shows it."""
    last = None
    for block in blocks(text):
        if block.language == "output":
            assert last is not None, f"line {block.line}: an output without code before it"
            yield last, block
        last = block.line if block.language == "python" else None


def comparable(printed: str, note: str) -> list[str]:
    lines = [line.rstrip() for line in printed.strip().splitlines()]
    if note != "numbers vary":
        return lines
    # Columns are as wide as their numbers.
    return [" ".join(NUMBER.sub("#", line).split()) for line in lines]


def check_page(text: str, folder: Path) -> None:
    printed = run_page(text, folder)
    for line, shown in expected_outputs(text):
        assert comparable(printed[line], shown.note) == comparable(shown.code, shown.note)


@pytest.mark.parametrize("page", [name for name in PAGES if "```python" in PAGES[name].read_text()])
def test_the_python_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    check_page(PAGES[page].read_text(), tmp_path)


def test_few_blocks_are_excused_from_running() -> None:
    excused = [
        block for path in PAGES.values() for block in blocks(path.read_text()) if not_run(block)
    ]
    assert len(excused) <= MAX_NOT_RUN


def test_readme_shows_the_snippet_and_its_output_within_40_lines() -> None:
    outputs = [
        block for block in blocks(PAGES["README.md"].read_text()) if block.language == "output"
    ]
    assert outputs, "README.md shows no output"
    assert outputs[0].line + len(outputs[0].code.splitlines()) <= 40


# What the checks themselves must catch.


def test_a_broken_block_is_found_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r'page.py", line 4'):
        check_page("# Title\n\n```python\nundefined_name\n```\n", tmp_path)


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    page = "```python\nprint('a', 1)\n```\n\n{}\n```output\n{}\n```\n"
    check_page(page.format("", "a 1"), tmp_path)
    check_page(page.format("<!-- numbers vary -->", "a 2.5"), tmp_path)
    with pytest.raises(AssertionError):
        check_page(page.format("", "a 2.5"), tmp_path)
    with pytest.raises(AssertionError):
        check_page(page.format("<!-- numbers vary -->", "b 1"), tmp_path)


# Commands.

EVONAS = "import sys; from evonas.cli import main; sys.exit(main(sys.argv[1:]))"


@functools.cache
def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def extras() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options.extras_require"])


def commands() -> list[tuple[str, str]]:
    """Every command of every bash block, with its page."""
    found = []
    for page, path in PAGES.items():
        for block in blocks(path.read_text()):
            if block.language == "bash":
                for line in block.code.replace("\\\n", " ").splitlines():
                    found += [
                        (page, part.strip()) for part in re.split(r"&&|;", line.split(" #")[0])
                    ]
    return [(page, command) for page, command in found if command and not command.startswith("#")]


def check_options(command: list[str], *of: str) -> None:
    for option in command:
        if option.startswith("--"):
            name = option.split("=")[0]
            assert re.search(rf"(?<!\S){name}\b", help_of(*of)), f"{of} knows no {name}"


def check_command(command: str) -> None:
    """Fails where a file, module, option, extra or subcommand that `command` names is missing."""
    words = shlex.split(command)
    match words:
        case ["python", "-m", module, *rest]:
            check_options(rest, "-m", module)
        case ["python", name, *rest]:
            assert (ROOT / name).is_file(), f"there is no {name}"
            check_options(rest, name)
        case ["pip", "install", "-e", where]:
            named = re.fullmatch(r"\.\[([\w,]+)\]", where)
            assert named, f"not an editable install with extras: {where}"
            assert set(named[1].split(",")) <= extras()
        case ["evonas", subcommand, *rest]:
            check_options(rest, "-c", EVONAS, subcommand)
        case ["sbatch", *rest] | ["ray", "up", "-y", *rest] | ["docker", "build", *rest]:
            assert any((ROOT / word).is_file() for word in rest), f"no file of ours: {command}"
        case ["docker", "run", "--rm", "evonas"]:
            pass
        case ["bash", name]:
            assert (ROOT / name).is_file(), f"there is no {name}"
        case ["pytest" | "ruff" | "mypy" | "mkdocs" | "kill" | "git" | "cd", *_]:
            pass
        case _:
            raise AssertionError(f"teach this test to check: {command}")


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_name_what_exists(page: str, command: str) -> None:
    check_command(command)


@pytest.mark.parametrize(
    "command",
    [
        'pip install -e ".[nonsense]"',
        "python examples/missing.py",
        "bash .ci/missing",
        "frobnicate",
    ],
)
def test_a_command_that_names_nothing_is_found(command: str) -> None:
    with pytest.raises(AssertionError):
        check_command(command)


def test_ci_runs_the_readme_s_own_test_command() -> None:
    assert ("README.md", "pytest") in commands()
    readme = PAGES["README.md"].read_text().splitlines()
    assert sum(bool(re.fullmatch(r"pip install -e .*&& pytest", line)) for line in readme) == 1


# The schema page.


def test_the_database_page_names_every_table_and_column() -> None:
    page = PAGES["docs/database.md"].read_text()
    sections = {part.split("\n")[0]: part for part in page.split("\n### ")[1:]}
    with Store.create(None) as store:
        rows = store._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        tables = {name for (name,) in rows}
        assert sections.keys() == tables
        for table in tables:
            info = store._connection.execute(f"PRAGMA table_info({table})")
            named = re.findall(
                r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", sections[table], re.M))
            )
            assert named == [column[1] for column in info]
    assert f"this schema ({SCHEMA_VERSION})" in page
