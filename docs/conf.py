"""Sphinx's settings: pages in Markdown, every broken link or unknown reference is an error (`make docs`)."""

project = "stillhouse"
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "stillhouse"
exclude_patterns = ["_build"]
