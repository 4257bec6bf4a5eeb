"""A figure for a paper: planes with their labels, one scale, one legend, exact in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import ModelError, TomoclassError, UsageError
from gpu_tomoclass.labels.pictures import (
    class_image,
    draw_scale_bar,
    grey_image,
    overlay_image,
    volume_contrast,
)
from gpu_tomoclass.volumes import Region, Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = ("image", "overlay", "outlines", "labels")
MM = 1 / 25.4  # inches
GAP, TITLE, LEGEND = 1.0, 4.5, 7.0  # mm
POINTS = 7  # size of all text, as journals ask for
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def label_figure(
    volume: Volume,
    labels: Volume,
    *,
    planes: Sequence[int],
    panels: Sequence[str] = ("image", "overlay"),
    classes: Sequence[LabelClass] | None = None,
    alpha: float = 0.4,
    limits: tuple[float, float] | None = None,
    crop: tuple[slice, slice] | None = None,
    scale_nm: float | None = None,
    width_mm: float = 180.0,
    letters: bool = True,
    titles: bool = True,
    legend: bool = True,
) -> Figure:
    """Draw planes of a volume beside each other, one row for each kind of panel.

    Parameters
    ----------
    volume, labels : Volume
        Labels of the whole volume, or of a run of its planes that their provenance tells.
    planes : sequence of int
        Of the volume, from left to right.
    panels : sequence of {"image", "overlay", "outlines", "labels"}
        Rows from top to bottom: grey values; with the classes' colours over them; with their borders; colours alone.
    classes : sequence of LabelClass, optional
        Those that are shown; default what ``labels`` says, else those that the planes hold.
    alpha : float
        Strength of the colours of an overlay, 0..1.
    limits : (float, float), optional
        Grey values shown as black and white; default the 0.5 and 99.5 percentiles of the volume.
    crop : (slice, slice), optional
        The part of each plane (y, x) of the labels.
    scale_nm : float, optional
        Length of the scale bar, 0 for none; default a round one. It needs the voxel size.
    width_mm : float
        Of the whole figure.
    letters, titles, legend : bool
        Letters a, b, .. in the panels; numbers of the planes above them; the classes below.

    Raises
    ------
    UsageError
        If a plane, panel or part is not there, or a bar is asked for and the voxel size is unknown.
    ModelError
        If the labels do not belong to the volume.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not planes or not panels:
        raise UsageError("a figure needs planes and panels")
    if unknown := [name for name in panels if name not in PANELS]:
        raise UsageError(f"there is no panel {unknown[0]!r}", do=f"choose among {', '.join(PANELS)}")
    if not 20 <= width_mm <= 2000:
        raise UsageError(f"a figure of {width_mm:g} mm cannot be read", do="give 20 to 2000")
    first, within = place_of(labels, volume)
    part = (slice(None), slice(None)) if crop is None else crop
    pictures = [(volume.plane(z)[within][part], _plane(labels, z - first)[part]) for z in planes]
    ny, nx = pictures[0][0].shape
    if not ny or not nx:
        raise UsageError(f"nothing is left of planes of {volume.shape[1:]}", do="give another part")
    if classes is None:
        shown = set(np.unique(np.concatenate([np.unique(found) for _, found in pictures])).tolist()) - {0}
        classes = [c for c in labels.classes if c.value in shown] or _nameless(shown)
    pixel = (1.0, 1.0) if volume.voxel_size is None else volume.voxel_size[1:]
    if volume.voxel_size is None and scale_nm:
        raise UsageError("a scale bar needs the voxel size", where=volume.path, do="give --voxel-size")
    limits = volume_contrast(volume) if limits is None else limits
    width = (width_mm - GAP * (len(planes) - 1)) / len(planes)
    height = width * (ny * pixel[0]) / (nx * pixel[1])
    top, bottom = (TITLE if titles else 0.0), (LEGEND if legend and classes else 0.0)
    total = top + bottom + len(panels) * height + (len(panels) - 1) * GAP
    figure = Figure(figsize=(width_mm * MM, total * MM))
    for row, name in enumerate(panels):
        for column, (plane, found) in enumerate(pictures):
            left, above = column * (width + GAP), top + row * (height + GAP)
            place = (left / width_mm, 1 - (above + height) / total, width / width_mm, height / total)
            axes = figure.add_axes(place)
            axes.set_axis_off()
            picture = _panel(name, plane, found, classes=classes, alpha=alpha, limits=limits)
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            if titles and row == 0:
                axes.set_title(f"plane {planes[column]}", fontsize=POINTS, pad=2)
            if letters:
                letter = LETTERS[(row * len(planes) + column) % len(LETTERS)]
                axes.text(0.02, 0.98, letter, transform=axes.transAxes, fontsize=POINTS + 2, fontweight="bold",
                          color="white", ha="left", va="top", path_effects=_edge())  # fmt: skip
            if row == column == 0 and volume.voxel_size is not None and scale_nm != 0:
                draw_scale_bar(axes, shape=(ny, nx), pixel_nm=(pixel[0], pixel[1]), length_nm=scale_nm, points=POINTS)
    if bottom:
        patches = [
            Patch(
                facecolor=(c.colour[0] / 255, c.colour[1] / 255, c.colour[2] / 255),
                edgecolor="black",
                linewidth=0.4,
                label=c.name,
            )
            for c in classes
        ]
        figure.legend(handles=patches, loc="lower center", ncols=len(patches), frameon=False, fontsize=POINTS,
                      borderaxespad=0.2, handlelength=1.2, handleheight=1.2)  # fmt: skip
    return figure


def place_of(labels: Volume, volume: Volume) -> tuple[int, tuple[slice, slice]]:
    """Where the labels lie in the volume: the plane that their first one is, and rows and columns.

    Raises
    ------
    ModelError
        If the labels do not belong to the volume.
    """
    settings = labels.metadata.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    if labels.shape == volume.shape:
        return 0, (slice(None), slice(None))
    with suppress(TomoclassError, LookupError, TypeError, ValueError):  # a stranger's file may say anything
        planes, crop = settings.get("planes"), settings.get("crop")
        box = Region.of(volume, planes=None if planes is None else (planes[0], planes[1]), crop=crop)
        if box.box_shape == labels.shape:
            return box.first[0], box.in_plane
    raise ModelError(f"is {labels.shape}, and {volume.path} is {volume.shape}", where=labels.path,
                     do="give the labels of this volume")  # fmt: skip


def _plane(labels: Volume, z: int) -> np.ndarray:
    plane = labels.plane(z)
    if plane.dtype.kind not in "bui" or plane.max(initial=0) > 255 or plane.min(initial=0) < 0:
        raise ModelError("holds no labels of 0 to 255", where=labels.path, do="give a label volume after the volume")
    return plane.astype(np.uint8)


def _panel(
    name: str,
    plane: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[LabelClass],
    alpha: float,
    limits: tuple[float, float],
) -> np.ndarray:
    if name == "image":
        return grey_image(plane, limits)
    if name == "labels":
        return class_image(labels, classes)
    return overlay_image(plane, labels, classes=classes, alpha=alpha, limits=limits, outlines=name == "outlines")


def _nameless(values: set[int]) -> list[LabelClass]:
    from gpu_tomoclass.classes import PALETTE

    return [LabelClass(value, f"class {value}", PALETTE[(value - 1) % len(PALETTE)]) for value in sorted(values)]


def _edge() -> list:  # type: ignore[type-arg]
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="black")]
