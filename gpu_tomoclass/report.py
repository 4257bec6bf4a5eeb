"""A report: one HTML file with everything inside, no script, that opens from a file share years later."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.evaluate import Confusion
from gpu_tomoclass.io.partial import commit, discard, prepare_target, writing
from gpu_tomoclass.pictures import png_bytes

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
p { max-width: 48rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
td.cell { text-align: right; background: rgb(0 114 178 / var(--share)); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .9rem; }
img { width: 100%; image-rendering: pixelated; background: #000; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.1em; }
.big { font-size: 1.35rem; } code, pre { background: var(--soft); padding: .1rem .3rem; }
pre { padding: .8rem; overflow-x: auto; } .scroll { overflow-x: auto; }
"""


class Report:
    """Sections of a report in the order in which they are added; all text is escaped.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self.title = title
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
        """A grid of pictures: ((ny, nx, 3) uint8, caption)."""
        cells = []
        for image, caption in images:
            data = base64.b64encode(png_bytes(image)).decode()
            alt = escape(caption, quote=True)
            cells.append(
                f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        self._parts.append(f'<div class="figures">{"".join(cells)}</div>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; numbers are set right, floats with three decimals."""
        head = "".join(f"<th{' class=number' if i else ''}>{escape(h)}</th>" for i, h in enumerate(header))
        body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
        self._parts.append(f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')

    def properties(self, items: Mapping[str, Any]) -> None:
        """Names and values, nested mappings flattened."""
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in _flat(items))
        self._parts.append(f'<div class="scroll"><table>{rows}</table></div>')

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
        matrix = confusion.matrix.astype(np.float64)
        matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        head = "".join(f"<th class=number>{escape(n)}</th>" for n in names)
        body = "".join(
            f"<tr><th>{escape(name)}</th>"
            + "".join(f'<td class="cell" style="--share: {0.6 * v:.3f}">{100 * v:.2f} %</td>' for v in row)
            + "</tr>"
            for name, row in zip(names, matrix, strict=True)
        )
        corner = "<th>true class, found as</th>"
        self._parts.append(f'<div class="scroll"><table><tr>{corner}{head}</tr>{body}</table></div>')

    def html(self) -> str:
        """The whole page."""
        title = escape(self.title)
        return (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(self._parts)}</body></html>\n"
        )

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the page; it appears complete or not at all.

        Raises
        ------
        DataError
            If it exists and ``overwrite`` is not set.
        """
        temporary = prepare_target(path, overwrite=overwrite)
        try:
            with writing(path):
                temporary.write_text(self.html(), encoding="utf-8")
        except BaseException:
            discard(temporary)
            raise
        commit(temporary, path)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.3f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    is_number = str(value)[:1].isdigit()
    return f"<td{' class=number' if is_number else ''}>{escape(str(value))}</td>"


def _flat(items: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in items.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", f"{value:g}" if isinstance(value, float) else str(value)
