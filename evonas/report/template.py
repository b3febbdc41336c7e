"""The templates of the pages: Jinja2 with every value escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from evonas.exceptions import MissingDependencyError

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["rendered"]


def rendered(name: str, /, *, package: str = "evonas.report", **values: Any) -> str:
    """Returns a template with its values, which are escaped.

    Args:
        name: Of the file.
        package: In whose folder `templates` it is.
        values: What the template names.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    return _environment(package).get_template(name).render(**values)


@cache
def _environment(package: str) -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError.of(
            "drawing figures and reports", "Jinja2", error, "pip install 'evonas[report]'"
        ) from error
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
