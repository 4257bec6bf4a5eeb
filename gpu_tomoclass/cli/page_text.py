"""A page of the manual as plain text for a terminal: prose is wrapped, code stays as it is."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Collection
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.default_styles import DEFAULT_STYLES
from rich.markdown import Heading, Markdown, TableElement
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from gpu_tomoclass.cli.command import PROGRAM

FENCE = re.compile(r"^(`{3,}|~{3,})(.*?)\n(.*?)^\1[ \t]*$\n?", re.DOTALL | re.MULTILINE)
DROPPED = {"toctree", "eval-rst", "figure", "image", "contents"}  # directives that only a page of the site can show
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
INDENT = "    "  # of code
# Bold is all that a terminal gets: it reads on any background.
STYLES = {name: "none" for name in DEFAULT_STYLES if name.startswith("markdown.")}
STYLES |= {f"markdown.{name}": "bold" for name in ("code", "strong", "h1", "h2", "h3", "h4", "table.header")}


class _Heading(Heading):
    """A heading at the left margin; the first two levels are underlined, which plain text shows too."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text
        if self.tag in ("h1", "h2"):
            yield Text(("=" if self.tag == "h1" else "-") * min(self.text.cell_len, options.max_width))


class _Table(TableElement):
    """A table, not wider than it is; where cells are wrapped, a blank line tells its rows apart."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for item in super().__rich_console__(console, options):
            if isinstance(item, Table):
                whole = console.measure(item, options=options.update(max_width=10_000)).maximum
                if whole > options.max_width:
                    item.leading = 1
                    _narrow(item, whole - options.max_width)
            yield item


def _narrow(table: Table, too_wide: int) -> None:
    """Take columns from those that have most beyond their longest word; words are cut only where nothing else helps."""
    texts = [[str(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    natural = [max(map(cell_len, cells)) for cells in texts]
    needed = [max(cell_len(word) for cell in cells for word in cell.split() or [""]) for cells in texts]
    spare = [a - b for a, b in zip(natural, needed, strict=True)]
    for column in table.columns:
        column.overflow = "fold"
    if sum(spare) >= too_wide:
        for _ in range(too_wide):
            widest = max(range(len(spare)), key=lambda i: spare[i] and natural[i])
            spare[widest] -= 1
            natural[widest] -= 1
        for column, width in zip(table.columns, natural, strict=True):
            column.width = width


class _Page(Markdown):
    elements: ClassVar = {**Markdown.elements, "heading_open": _Heading, "table_open": _Table}


def page_text(markdown: str, *, width: int, bold: bool = False, names: Collection[str] = (), here: str = "") -> str:
    """A page as text.

    Parameters
    ----------
    markdown : str
        What the site is made of: Markdown with MyST's directives.
    width : int
        Columns that prose and tables have.
    bold : bool
        Mark headings and code by the codes for bold of a terminal.
    names : collection of str
        Pages that can be asked for: a link to one is shown as its name in brackets.
    here : str
        Folder of the page below the documentation, to which links refer.
    """
    seen: list[str] = []
    parts, position = [], 0
    for fence in FENCE.finditer(markdown):
        parts.append(_prose(markdown[position : fence.start()], width, bold, names, here, seen))
        position = fence.end()
        directive = re.match(r"\{([\w-]+)\}", fence[2].strip())
        if directive is None:
            parts.append("\n".join(f"{INDENT}{line}".rstrip() for line in fence[3].rstrip("\n").split("\n")))
        elif directive[1] not in DROPPED:  # a note or a warning
            parts.append(_prose(fence[3], width, bold, names, here, seen))
    parts.append(_prose(markdown[position:], width, bold, names, here, seen))
    if seen:
        also = f"Other pages: {', '.join(seen)}. `{PROGRAM} help --page {seen[0]}` shows one."
        parts.append(_rendered(also, width, bold))
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(markdown: str, width: int, bold: bool, names: Collection[str], here: str, seen: list[str]) -> str:
    markdown = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    markdown = re.sub(r"^:{3,}.*\n?", "", markdown, flags=re.MULTILINE)  # around notes and warnings
    markdown = re.sub(r"^\([\w-]+\)=\n", "", markdown, flags=re.MULTILINE)  # targets of links
    markdown = re.sub(r"\{[\w:-]+\}(?=`)", "", markdown)  # roles

    def shown(link: re.Match[str]) -> str:
        if link["picture"]:
            return f"(Picture: {link['text']}.)" if link["text"] else ""
        return _link(link["text"], link["target"], names, here, seen)

    return _rendered(LINK.sub(shown, markdown), width, bold)


def _link(text: str, target: str, names: Collection[str], here: str, seen: list[str]) -> str:
    if target.startswith(("http:", "https:", "mailto:")):
        return text if text == target else f"{text} ({target})"
    path = posixpath.normpath(posixpath.join(here, target.partition("#")[0]))
    if target.startswith("#"):
        return text
    name = posixpath.basename(path.removesuffix("/index.md").removesuffix(".md"))
    if path.startswith(".."):  # of the repository
        path = path.removeprefix("../")
        return text if text.strip("`") in path else f"{text} ({path})"
    if name not in names:
        return text
    if name not in seen:
        seen.append(name)
    return text if text.strip("`") == name else f"{text} \\[{name}\\]"


def _rendered(markdown: str, width: int, bold: bool) -> str:
    written: Any = io.StringIO()
    console = Console(
        file=written, width=width, force_terminal=bold, color_system="standard" if bold else None, no_color=True,
        theme=Theme(STYLES), highlight=False, emoji=False, markup=False, legacy_windows=False,
    )  # fmt: skip
    console.print(_Page(markdown, hyperlinks=False))
    lines = [line.rstrip() for line in written.getvalue().split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
