"""Settings of the documentation site: `make docs` builds it into docs/_build/html."""

import inspect
import os
import re
from pathlib import Path

from sphinx.application import Sphinx

import gpu_tomoclass

ROOT = Path(__file__).resolve().parents[1]

project = "gpu_tomoclass"
author = "The gpu_tomoclass developers"
copyright = "2026, the gpu_tomoclass developers"
release = version = gpu_tomoclass.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = False  # types of signatures come from libraries whose own sites name them otherwise

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # "path" in a list of parameters is a word, not the attribute of that name

html_theme = "pydata_sphinx_theme"
html_title = f"gpu_tomoclass {release}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

python_maximum_signature_line_length = 80
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

SOURCES = "https://github.com/gpu-tomoclass/gpu_tomoclass/blob/main/"
AT_THE_TOP = {"readme": "README.md", "contributing": "CONTRIBUTING.md", "changes": "CHANGELOG.md"}
LINK = re.compile(r"\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def link_sources(app: Sphinx, docname: str, source: list[str]) -> None:
    """Show the pages that lie outside docs/, and point links to what the site does not hold to the repository."""
    page = ROOT / AT_THE_TOP[docname] if docname in AT_THE_TOP else Path(app.env.doc2path(docname))
    if docname in AT_THE_TOP:
        source[0] = page.read_text(encoding="utf-8")
    pages = {file: name for name, file in AT_THE_TOP.items()}

    def target(link: re.Match[str]) -> str:
        path = (page.parent / link["path"]).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            raise FileNotFoundError(f"{page}: the link to {link['path']} leads nowhere")
        place, anchor = path.relative_to(ROOT).as_posix(), link["anchor"] or ""
        if place in pages:
            place = f"docs/{pages[place]}.md"
        if not place.startswith("docs/"):
            return f"]({SOURCES}{place}{anchor})"
        return f"]({Path(os.path.relpath(ROOT / place, Path(app.env.doc2path(docname)).parent)).as_posix()}{anchor})"

    source[0] = LINK.sub(target, source[0])


def drop_module_header(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Leave out docstrings that a class inherited from the library it is built on: they describe something else."""
    if what == "class" and lines and inspect.isclass(obj) and "__doc__" not in vars(obj):
        lines.clear()


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_sources)
    app.connect("autodoc-process-docstring", drop_module_header)
