"""A report: one HTML file with everything inside, no script, that opens from a file share years later."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import visible
from gpu_tomoclass.labels.evaluate import Confusion
from gpu_tomoclass.labels.pictures import chart_png, png_bytes
from gpu_tomoclass.outputs import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
p { max-width: 48rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th[scope=row] { font-weight: normal; }
td.number, th.number { text-align: right; }
td.number, td.cell { white-space: nowrap; }
td.cell { text-align: right; background: rgb(0 114 178 / var(--share)); }
td.cell, .swatch { print-color-adjust: exact; }
.figures { display: grid; gap: 1rem; margin: 1rem 0; grid-template-columns:
  repeat(auto-fill, minmax(max(140px, (100% - (var(--columns) - 1) * 1rem) / var(--columns)), 1fr)); }
figure { margin: 0; break-inside: avoid; } figcaption { font-size: .9rem; }
.figures img { width: 100%; image-rendering: pixelated; background: #000; }
.chart img { width: 100%; max-width: 640px; border-radius: 6px; } .wide img { max-width: none; }
.wide { margin: 1.5rem 0; } .wide figcaption { max-width: 60rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); font-size: .9rem; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.1em; }
.big { font-size: 1.35rem; } code, pre { background: var(--soft); padding: .1rem .3rem; }
pre { padding: .8rem; overflow-x: auto; } .scroll { overflow-x: auto; }
"""


class Report:
    """Sections of a report in the order in which they are added; all text is escaped.

    Parameters
    ----------
    title : str
    reload_seconds : int, optional
        The page loads itself again after so many seconds, for one that is written again and again.
    """

    def __init__(self, title: str, *, reload_seconds: int | None = None) -> None:
        self.title, self.reload_seconds = title, reload_seconds
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, *, big: bool = False) -> None:
        style = ' class="big"' if big else ""
        self._parts.append(f"<p{style}>{escape(text)}</p>")

    def commands(self, lines: Iterable[str]) -> None:
        """A block of command lines."""
        self._parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>")

    def figures(self, images: Iterable[tuple[np.ndarray, str]]) -> None:
        """A row of pictures: ((ny, nx, 3) uint8, caption); where more than 6, or little room, several rows."""
        cells = []
        for image, caption in images:
            data = base64.b64encode(png_bytes(image)).decode()
            alt = escape(caption, quote=True)
            cells.append(
                f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        columns = min(max(len(cells), 4), 6)
        self._parts.append(f'<div class="figures" style="--columns: {columns}">{"".join(cells)}</div>')

    def chart(self, figure: Figure, *, caption: str, alt: str, wide: bool = False, dpi: int = 180) -> None:
        """A matplotlib figure, of the page's full width if ``wide``; ``alt`` says in words what it shows."""
        data = base64.b64encode(chart_png(figure, dpi=dpi)).decode()
        kind = "chart wide" if wide else "chart"
        self._parts.append(
            f'<figure class="{kind}"><img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table whose first column names its rows; numbers are set right, floats with three decimals."""
        body = (_row(first, "".join(map(_cell, rest))) for first, *rest in rows)
        self._parts.append(_table(_header(header), body))

    def properties(self, items: Mapping[str, Any]) -> None:
        """Names and values, nested mappings flattened."""
        self._parts.append(_table("", (_row(k, f"<td>{escape(v)}</td>") for k, v in _flat(items))))

    def legend(self, classes: Iterable[LabelClass]) -> None:
        """The classes and their colours."""
        items = (
            f'<span class="swatch" style="background: rgb{c.colour}"></span>{escape(c.name)}&emsp;' for c in classes
        )
        self._parts.append(f"<p>{''.join(items)}</p>")

    def confusion(self, confusion: Confusion) -> None:
        """Scores per class, and the confusion matrix in per cent of each true class."""
        names = confusion.names
        columns = (confusion.dice, confusion.iou, confusion.precision, confusion.recall)
        shares = (confusion.true_fractions, confusion.predicted_fractions)
        rows = [
            (name, *(float(c[i]) for c in columns), *(f"{100 * s[i]:.2f} %" for s in shares))
            for i, name in enumerate(names)
        ]
        self.table(("class", "Dice", "IoU", "precision", "recall", "true share", "found share"), rows)
        counts, found_as = confusion.matrix, list(names)
        if confusion.unclassified.any():
            counts, found_as = np.column_stack((counts, confusion.unclassified)), [*names, "not classified"]
        shares_of_true = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        body = (
            _row(name, "".join(f'<td class="cell" style="--share: {0.6 * v:.3f}">{100 * v:.2f} %</td>' for v in row))
            for name, row in zip(names, shares_of_true, strict=True)
        )
        self._parts.append(_table(_header(("true class, found as", *found_as)), body))

    def html(self) -> str:
        """The whole page."""
        title, seconds = escape(self.title), self.reload_seconds
        reload = "" if seconds is None else f'<meta http-equiv="refresh" content="{seconds}">'
        return (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{reload}<title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1><main>{''.join(self._parts)}</main>"
            f"<footer>Written by gpu_tomoclass {__version__} on {datetime.now(UTC):%Y-%m-%d}.</footer></body></html>\n"
        )

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the page; it appears complete or not at all.

        Raises
        ------
        DataError
            If it exists and ``overwrite`` is not set.
        """
        with atomic(path, overwrite=overwrite) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")


def escape(text: str, quote: bool = True) -> str:
    """Text from anywhere as HTML: neither markup nor control characters act."""
    return html.escape(visible(text), quote)


def _table(head: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _header(names: Sequence[str]) -> str:
    first, *rest = names
    cells = (f'<th scope="col" class="number">{escape(name)}</th>' for name in rest)
    return f'<tr><th scope="col">{escape(first)}</th>{"".join(cells)}</tr>'


def _row(name: Any, cells: str) -> str:
    return f'<tr><th scope="row">{escape(str(name))}</th>{cells}</tr>'


def _cell(value: Any) -> str:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, (float, np.floating)):
        text = "undefined" if np.isnan(value) else f"{value:.3f}"
    else:
        text = str(value)
    is_number = re.fullmatch(r"-?[\d.,]+( %)?|undefined", text) is not None
    return f"<td{' class=number' if is_number else ''}>{escape(text)}</td>"


def _flat(items: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in items.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)
