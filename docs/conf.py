"""Sphinx's settings: `make docs` builds these pages, with warnings as errors."""

from channels_redis_fast._version import __version__

project = "channels_redis_fast"
copyright = "the authors of channels_redis_fast"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
suppress_warnings = []
exclude_patterns: list[str] = []

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = project
html_show_sphinx = False
