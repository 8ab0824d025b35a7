"""Sphinx's settings: `make docs` builds these pages, with warnings as errors."""

from __future__ import annotations

import inspect
from typing import Any

from channels_redis_fast._version import __version__

project = "channels_redis_fast"
copyright = "the authors of channels_redis_fast"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
default_role = "code"  # what `this` means in docstrings
myst_heading_anchors = 3

autodoc_typehints = "none"  # they are in the source, which is as short

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_use_index = html_domain_indices = False  # the API is one page


def _signature(
    app: Any, what: str, name: str, cls: Any, *_: Any
) -> tuple[str, None] | None:
    """The arguments of a layer: those of `__init__`, not of `__new__`."""
    if what == "class" and hasattr(cls, "channel_name_regex"):
        parameters = inspect.signature(cls).parameters.values()
        plain = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
        return str(inspect.Signature(plain)), None
    return None


def setup(app: Any) -> None:
    """Sphinx calls it."""
    app.connect("autodoc-process-signature", _signature)
