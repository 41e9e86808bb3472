"""Sphinx: the pages are Markdown, the API reference comes from the docstrings. `./tools/docs` builds it."""

from importlib.metadata import version as installed

project = "aiscache"
release = version = installed("aiscache")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"aiscache {release}"
html_static_path = ["images", "style"]
html_css_files = ["aiscache.css"]
exclude_patterns = ["images", "style"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp"
copybutton_prompt_text = "$ "

default_role = "code"  # docstrings have `names` in single backticks, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
nitpicky = False
