"""Suggested places as files: ROIs for Fiji, a table, a page of pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from gpu_tomoclass.annotations import Rectangle, save_rectangles
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.labels import Report, grey_image, overlay_image
from gpu_tomoclass.outputs import atomic, check_output
from gpu_tomoclass.training.suggest_places import SuggestedPlace

SUFFIXES = (".zip", ".csv", ".html")
MAGNIFIED = 4


def suggestion_targets(path: str | PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """The files that a name stands for: itself with one of the suffixes, without any all three; checked before work.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    UsageError
        If the name has another suffix than ``.zip``, ``.csv`` or ``.html``.
    DataError
        If one of them exists and ``overwrite`` is not set.
    """
    name = Path(fspath(path))
    if name.suffix.lower() in SUFFIXES:
        targets = [name]
    elif name.suffix:
        raise UsageError(f"suggestions are not written as {name.suffix}", where=name, do=f"give {', '.join(SUFFIXES)}")
    else:
        targets = [name.with_name(name.name + suffix) for suffix in SUFFIXES]
    for target in targets:
        check_output(target, overwrite=overwrite)
    return targets


def save_suggestions(
    suggestions: Sequence[SuggestedPlace],
    path: str | PathLike[str],
    *,
    classes: Sequence[LabelClass],
    title: str = "Where to mark next",
    overwrite: bool = False,
) -> list[Path]:
    """Write places as ``.zip`` (rectangles, ImageJ's ROI Manager opens it), ``.csv`` or ``.html``, or all three.

    Raises
    ------
    UsageError
        If the name has another suffix.
    DataError
        If a file exists and ``overwrite`` is not set.
    """
    targets = suggestion_targets(path, overwrite=overwrite)
    for target in targets:
        suffix = target.suffix.lower()
        if suffix == ".zip":
            rectangles = (
                Rectangle(f"{i:03d}-{_between(s)}", s.z, s.y, s.x, s.height, s.width)
                for i, s in enumerate(suggestions, start=1)
            )
            save_rectangles(target, rectangles, overwrite=overwrite)
        else:
            text = _table(suggestions) if suffix == ".csv" else _page(suggestions, classes, title)
            with atomic(target, overwrite=overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return targets


def _between(s: SuggestedPlace) -> str:
    return " or ".join(c.name for c in s.classes).replace("/", "_").replace("\\", "_")


def _table(suggestions: Sequence[SuggestedPlace]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "z", "y", "x", "height", "width", "uncertainty", "novelty", "alike", "classes"))
    for rank, s in enumerate(suggestions, start=1):
        numbers = (f"{value:.3f}" for value in (s.uncertainty, s.novelty, s.alike))
        writer.writerow((rank, s.z, s.y, s.x, s.height, s.width, *numbers, _between(s)))
    return text.getvalue()


def _page(suggestions: Sequence[SuggestedPlace], classes: Sequence[LabelClass], title: str) -> str:
    report = Report(title)
    report.text("The best places first. Mark what you see there; where the colours are right, too.")
    report.legend(classes)
    images = []
    for rank, s in enumerate(suggestions, start=1):
        both = [grey_image(s.image), overlay_image(s.image, s.labels, classes=classes)]
        large = MAGNIFIED if s.height * MAGNIFIED <= 600 else 1
        picture = np.hstack([np.kron(part, np.ones((large, large, 1), np.uint8)) for part in both])
        where = f"plane {s.z} (slice {s.z + 1} in Fiji), y {s.y}, x {s.x}"
        images.append((picture, f"{rank}. {where}: {_between(s)}; uncertainty {s.uncertainty:.2f}"))
    report.figures(images)
    return report.html()
