"""Planes and labels as colours: arrays in, RGB arrays or a PNG out."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import atomic, check_output
from gpu_tomoclass.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

PICTURES = (".png", ".svg", ".pdf")
CONTRAST = (0.5, 99.5)  # percentiles shown as black and white, so that a few hot pixels do not hide the rest


def contrast(values: np.ndarray) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of the finite values: what is shown as black and white."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, CONTRAST)
    return float(low), float(high)


def volume_contrast(volume: Volume, *, n_planes: int = 9) -> tuple[float, float]:
    """Grey values to show as black and white, the same for all planes of a volume.

    Parameters
    ----------
    volume : Volume
    n_planes : int
        Planes that are looked at, evenly spaced.

    Returns
    -------
    (float, float)
        The 0.5 and 99.5 percentiles of their finite values.
    """
    some = np.unique(np.linspace(0, volume.shape[0] - 1, n_planes + 2).round().astype(int)[1:-1]).tolist()
    return contrast(np.concatenate([volume.plane(z).ravel()[:: max(1, volume.shape[1] // 256)] for z in some]))


def grey_image(plane: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """(ny, nx) of any real dtype -> (ny, nx, 3) uint8; ``limits``, by default those of the plane (:func:`contrast`),
    become black and white."""
    low, high = contrast(plane) if limits is None else limits
    scaled = (np.nan_to_num(plane.astype(np.float64)) - low) * (255 / (high - low) if high > low else 0)
    return np.repeat(np.clip(scaled, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def class_image(labels: np.ndarray, classes: Sequence[LabelClass]) -> np.ndarray:
    """(ny, nx) label values -> (ny, nx, 3) uint8 in the colours of the classes; other values are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for c in classes:
        table[c.value] = c.colour
    return table[labels]


def overlay_image(
    plane: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[LabelClass],
    alpha: float = 0.4,
    limits: tuple[float, float] | None = None,
    outlines: bool = False,
) -> np.ndarray:
    """The plane in grey with the classes' colours over it, (ny, nx, 3) uint8; pixels without a class stay grey.

    Parameters
    ----------
    plane : numpy.ndarray
        (ny, nx), any real dtype.
    labels : numpy.ndarray
        (ny, nx) uint8.
    classes : sequence of LabelClass
    alpha : float
        0 shows the plane only, 1 the colours only.
    limits : (float, float), optional
        Grey values shown as black and white; see :func:`grey_image`.
    outlines : bool
        Colour only the pixels of a class that touch another, and these fully.

    Raises
    ------
    UsageError
        If the shapes differ or alpha is outside 0..1.
    """
    if plane.shape != labels.shape:
        raise UsageError(f"the plane is {plane.shape}, its labels {labels.shape}")
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}", do="give 0 to 1")
    grey = grey_image(plane, limits)
    shown = np.isin(labels, [c.value for c in classes])
    if outlines:
        shown, alpha = shown & borders(labels), 1.0
    weight = np.where(shown, alpha, 0.0)[..., None]
    return np.round(grey * (1 - weight) + class_image(labels, classes) * weight).astype(np.uint8)


def borders(labels: np.ndarray) -> np.ndarray:
    """(ny, nx) bool: pixels with another value beside them (left, right, above, below)."""
    found = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def scale_bar_nm(width_nm: float) -> float:
    """A length of 1, 2 or 5 times a power of ten nm, at most a quarter of the width."""
    power = 10.0 ** np.floor(np.log10(width_nm / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width_nm / 4))


def draw_scale_bar(
    axis: Axes,
    *,
    shape: tuple[int, int],
    pixel_nm: tuple[float, float],
    length_nm: float | None = None,
    points: float = 9,
) -> None:
    """A bar with its length, by default a round one, in the picture ``shape`` (ny, nx); pixels are (y, x) nm."""
    length = scale_bar_nm(shape[1] * pixel_nm[1]) if length_nm is None else length_nm
    pixels = length / pixel_nm[1]
    y = shape[0] * 0.95
    axis.plot([0.04 * shape[1], 0.04 * shape[1] + pixels], [y, y], color="white", linewidth=4 * points / 9,
              solid_capstyle="butt")  # fmt: skip
    text = f"{length / 1000:g} \N{GREEK SMALL LETTER MU}m" if length >= 1000 else f"{length:g} nm"
    axis.text(0.04 * shape[1] + pixels / 2, y - 0.02 * shape[0], text, color="white", ha="center", va="bottom",
              fontsize=points, path_effects=_dark_edge())  # fmt: skip


def _dark_edge() -> list[AbstractPathEffect]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="black")]


def png_bytes(image: np.ndarray) -> bytes:
    """(ny, nx, 3) uint8 -> PNG, pixel for pixel."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png")
    return buffer.getvalue()


def chart_png(figure: Figure, *, dpi: int = 180) -> bytes:
    """A matplotlib figure -> PNG, sharp on screens of double density, without a date or version inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def histogram_figure(
    volume: np.ndarray, labels: np.ndarray, *, classes: Sequence[LabelClass], thresholds: Sequence[float] = ()
) -> Figure:
    """Histogram of the grey values of each class and of all voxels, with thresholds as dashed lines.

    Parameters
    ----------
    volume, labels : numpy.ndarray
        Of one shape: grey values of any real dtype, and label values.
    classes : sequence of LabelClass
    thresholds : sequence of float
        Grey values.
    """
    from matplotlib.figure import Figure

    low, high = np.percentile(volume, (0.05, 99.95))
    edges = np.linspace(low, high if high > low else low + 1, 129)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.stairs(np.histogram(volume, edges)[0], edges, color="0.4", linewidth=1, label="all")
    for c in classes:
        colour = tuple(v / 255 for v in c.colour)
        counts = np.histogram(volume[labels == c.value], edges)[0]
        axes.stairs(counts, edges, color=(*colour, 0.25), fill=True)
        axes.stairs(counts, edges, color=colour, linewidth=1.5, label=c.name)
    for i, threshold in enumerate(thresholds):
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=None if i else "thresholds")
    axes.set(xlabel="grey value", ylabel="voxels", xlim=(edges[0], edges[-1]), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def check_picture_target(path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse before the work what :func:`save_figure` would refuse after it.

    Raises
    ------
    UsageError
        If the name does not end in ``.png``, ``.svg`` or ``.pdf``.
    DataError
        If it exists and ``overwrite`` is not set.
    """
    if not str(path).lower().endswith(PICTURES):
        raise UsageError(f"a picture's name ends in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}", where=path)
    check_output(path, overwrite=overwrite)


def save_preview(
    plane: np.ndarray,
    labels: np.ndarray,
    confidence: np.ndarray,
    path: str | PathLike[str],
    *,
    classes: Sequence[LabelClass],
    title: str,
    alpha: float = 0.4,
    limits: tuple[float, float] | None = None,
    pixel_nm: tuple[float, float] | None = None,
    strokes: np.ndarray | None = None,
    outlines: bool = False,
    overwrite: bool = False,
) -> None:
    """Draw a classified plane: grey values, overlay with its legend, confidence.

    Parameters
    ----------
    plane : numpy.ndarray
        (ny, nx) grey values.
    labels : numpy.ndarray
        (ny, nx) class values.
    confidence : numpy.ndarray
        (ny, nx) in 0..1: the best probability minus the second.
    path : path
        ``.png``, or ``.svg``, ``.pdf`` with text and bar as lines.
    limits : (float, float), optional
        Grey values shown as black and white; default those of the plane.
    pixel_nm : (float, float), optional
        Edges of a pixel (y, x): draws a scale bar.
    strokes : numpy.ndarray, optional
        (ny, nx) class values, 0 unmarked: drawn over the grey values.
    outlines : bool
        Draw the classes by their borders.

    Raises
    ------
    UsageError
        If the name has no such ending.
    DataError
        If the file exists and ``overwrite`` is not set.
    """
    check_picture_target(path, overwrite=overwrite)
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    ny, nx = labels.shape
    width = min(6.0, max(2.5, 6.0 * nx / ny))
    height = width * ny / nx
    figure = Figure(figsize=(3 * width + 1, height + 1.1), layout="constrained")
    axes = figure.subplots(1, 3)
    figure.suptitle(title)
    grey = grey_image(plane, limits)
    if strokes is not None:
        grey = overlay_image(plane, strokes, classes=classes, alpha=1, limits=limits)
    overlay = overlay_image(plane, labels, classes=classes, alpha=alpha, limits=limits, outlines=outlines)
    panels = (("grey values" if strokes is None else "grey values and strokes", grey), ("classes", overlay))
    for axis, (name, image) in zip(axes, panels, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(name)
    shown = axes[2].imshow(confidence, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    axes[2].set_title("best minus second probability")
    figure.colorbar(shown, ax=axes[2], shrink=0.8)
    if pixel_nm is not None:
        draw_scale_bar(axes[0], shape=(ny, nx), pixel_nm=pixel_nm)
    # The tint of a class over middle grey, as it is in the picture.
    strength = 1.0 if outlines else alpha
    patches = [
        Patch(
            facecolor=_hex(strength * v + (1 - strength) * 128 for v in c.colour),
            edgecolor=_hex(c.colour),
            label=f"{c.value} {c.name}",
        )
        for c in classes
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6), frameon=False)
    save_figure(figure, path, dpi=100, overwrite=overwrite)


def _hex(colour: Iterable[float]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(round(v) for v in colour))


def save_sections(volume: Volume, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Draw the three sections through the middle of a volume, (y, x), (z, x) and (z, y), with one contrast.

    The missing wedge shows in the sections that are not along the tilt axis. Reads every plane, a row at a time where
    the format can.

    Raises
    ------
    UsageError
        If the name does not end in ``.png``, ``.svg`` or ``.pdf``.
    DataError
        If the file exists and ``overwrite`` is not set, or a plane cannot be read.
    """
    check_picture_target(path, overwrite=overwrite)
    from matplotlib.figure import Figure

    nz, ny, nx = volume.shape
    middle = volume.plane(nz // 2)
    along_x, along_y = np.empty((nz, nx), volume.dtype), np.empty((nz, ny), volume.dtype)
    for z, plane in volume.planes():
        along_x[z], along_y[z] = plane[ny // 2], plane[:, nx // 2]
    limits = contrast(np.concatenate([middle.ravel(), along_x.ravel(), along_y.ravel()]))
    size = volume.voxel_size
    edges = (1.0, 1.0, 1.0) if size is None else size
    figure = Figure(figsize=(13, 5), layout="constrained")
    figure.suptitle(os.path.basename(volume.path.rstrip("/\\")))
    sections = (
        (middle, f"plane {nz // 2}: y down, x right", (edges[1], edges[2])),
        (along_x, f"y = {ny // 2}: z down, x right", (edges[0], edges[2])),
        (along_y, f"x = {nx // 2}: z down, y right", (edges[0], edges[1])),
    )
    for axis, (image, name, pixel) in zip(figure.subplots(1, 3), sections, strict=True):
        shown = class_image(image, volume.classes) if volume.classes else grey_image(image, limits)
        axis.imshow(shown, interpolation="nearest", aspect=pixel[0] / pixel[1])
        axis.set_title(name)
        if size is not None:
            draw_scale_bar(axis, shape=(image.shape[0], image.shape[1]), pixel_nm=pixel)
    save_figure(figure, path, dpi=100, overwrite=overwrite)


def save_figure(figure: Figure, path: str | PathLike[str], *, dpi: int = 180, overwrite: bool = False) -> None:
    """Write a matplotlib figure as PNG, SVG or PDF; it appears complete or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
    dpi : int
        Pixels per inch of a PNG.
    overwrite : bool

    Raises
    ------
    UsageError
        If the name has no such ending.
    DataError
        If the file exists and ``overwrite`` is not set.
    """
    check_picture_target(path, overwrite=overwrite)
    kind = os.path.splitext(fspath(path))[1].lower()[1:]
    with atomic(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)
