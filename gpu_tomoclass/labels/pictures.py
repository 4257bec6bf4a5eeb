"""Planes and labels as colours: arrays in, RGB arrays or a PNG out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import atomic, check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTRAST = (0.5, 99.5)  # percentiles shown as black and white, so that a few hot pixels do not hide the rest


def grey_image(plane: np.ndarray) -> np.ndarray:
    """(ny, nx) of any real dtype -> (ny, nx, 3) uint8; the 0.5 and 99.5 percentiles become black and white."""
    finite = np.isfinite(plane)
    low, high = np.percentile(plane[finite], CONTRAST) if finite.any() else (0.0, 1.0)
    scaled = (np.nan_to_num(plane.astype(np.float64)) - low) * (255 / (high - low) if high > low else 0)
    return np.repeat(np.clip(scaled, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def class_image(labels: np.ndarray, classes: Sequence[LabelClass]) -> np.ndarray:
    """(ny, nx) label values -> (ny, nx, 3) uint8 in the colours of the classes; other values are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for c in classes:
        table[c.value] = c.colour
    return table[labels]


def overlay_image(
    plane: np.ndarray, labels: np.ndarray, *, classes: Sequence[LabelClass], alpha: float = 0.4
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

    Raises
    ------
    UsageError
        If the shapes differ or alpha is outside 0..1.
    """
    if plane.shape != labels.shape:
        raise UsageError(f"the plane is {plane.shape}, its labels {labels.shape}")
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}", do="give 0 to 1")
    grey = grey_image(plane)
    weight = np.where(np.isin(labels, [c.value for c in classes]), alpha, 0.0)[..., None]
    return np.round(grey * (1 - weight) + class_image(labels, classes) * weight).astype(np.uint8)


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
    """Raise before the work what :func:`save_preview` would raise after it."""
    if not str(path).lower().endswith(".png"):
        raise UsageError("a picture's name ends in .png", where=path)
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
    overwrite: bool = False,
) -> None:
    """Write a classified plane as a PNG: grey values, overlay with its legend, confidence.

    Parameters
    ----------
    plane : numpy.ndarray
        (ny, nx) grey values.
    labels : numpy.ndarray
        (ny, nx) class values.
    confidence : numpy.ndarray
        (ny, nx) in 0..1: the best probability minus the second.

    Raises
    ------
    UsageError
        If the name does not end in ``.png``.
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
    panels = (
        ("grey values", grey_image(plane)),
        ("classes", overlay_image(plane, labels, classes=classes, alpha=alpha)),
    )
    for axis, (name, image) in zip(axes, panels, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(name)
    shown = axes[2].imshow(confidence, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    axes[2].set_title("best minus second probability")
    figure.colorbar(shown, ax=axes[2], shrink=0.8)
    patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*c.colour), label=f"{c.value} {c.name}") for c in classes]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6), frameon=False)
    save_figure(figure, path, dpi=100, overwrite=overwrite)


def save_figure(figure: Figure, path: str | PathLike[str], *, dpi: int = 180, overwrite: bool = False) -> None:
    """Write a matplotlib figure as a PNG; it appears complete or not at all.

    Raises
    ------
    UsageError
        If the name does not end in ``.png``.
    DataError
        If the file exists and ``overwrite`` is not set.
    """
    check_picture_target(path, overwrite=overwrite)
    with atomic(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
