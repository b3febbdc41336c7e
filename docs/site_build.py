"""For mkdocs.yml, which makes the site: what our pages and docstrings need beside its plugins.

- `ExamplesAsCode`, an extension of griffe: mkdocstrings shows the doctests of docstrings as code.
- `on_page_markdown`, a hook: `CHANGELOG.md` and `CONTRIBUTING.md` lie outside of `docs/`, and are
  pages of the site all the same.
- `on_files`, a hook: reports and pictures of the gallery are made with the site, by `gallery.py`.
"""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gallery
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


class ExamplesAsCode(griffe.Extension):
    """Reads the docstring section `Example:` as `Examples:`.

    Of the first griffe makes a box of prose, in which `>>>` is a quotation and `[x]` a link.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of each object that griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Returns the text of a page, or of the file that it stands for."""
    name = FROM_ROOT.get(page.file.src_uri)
    if name is None:
        return markdown
    return (ROOT / name).read_text().replace("](docs/", "](")


@functools.cache
def gallery_files() -> list[Path]:
    """Returns the gallery's files, made once: `mkdocs serve` builds the site again and again."""
    folder = tempfile.mkdtemp(prefix="evonas-gallery-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return gallery.build(Path(folder))


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Adds the gallery's files, which the page gallery.md shows."""
    for path in gallery_files():
        file = File.generated(config, f"gallery/{path.name}", abs_src_path=str(path))
        file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files
