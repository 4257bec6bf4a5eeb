"""Small pictures of finished labels for portals and log books: three sections as PNG, a sweep through z as GIF."""

from __future__ import annotations

import math
from os import PathLike

import numpy as np

from gpu_tomoclass.labels.figure import place_of
from gpu_tomoclass.labels.pictures import draw_scale_bar, overlay_image, save_figure, volume_contrast
from gpu_tomoclass.outputs import atomic, check_output, check_suffix
from gpu_tomoclass.volumes import Volume

SECTION_PLANES = 256  # read at most for the sections along z: more than the picture can show
SWEEP_PLANES, SWEEP_PIXELS, SWEEP_SECONDS = 60, 400, 6.0
ALPHA = 0.4


def save_thumbnail(
    volume: Volume | None, labels: Volume, path: str | PathLike[str], *, overwrite: bool = False
) -> None:
    """Draw the three sections through the middle of finished labels, over the grey values, with legend and scale bar.

    Parameters
    ----------
    volume : Volume or None
        (nz, ny, nx), what was classified; without it the colours stand alone, unlabelled voxels are black.
    labels : Volume
        (n, ny, nx), with classes: of the whole volume, or of a run of its planes that their provenance tells.
    path : str or path
        A ``.png``. At most 257 planes are read.

    Raises
    ------
    ModelError
        If the labels do not belong to the volume.
    DataError
        If the file exists and ``overwrite`` is not set.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    check_suffix(path, ".png")
    below = _Below(volume, labels)
    nz, ny, nx = labels.shape
    some = _spread(nz, SECTION_PLANES)
    middle = below.plane(nz // 2), labels.plane(nz // 2)
    grey = [below.plane(z) for z in some]
    found = [labels.plane(z) for z in some]
    across_x = np.stack([p[ny // 2] for p in grey]), np.stack([p[ny // 2] for p in found])
    across_y = np.stack([p[:, nx // 2] for p in grey]), np.stack([p[:, nx // 2] for p in found])
    dz, dy, dx = below.voxel_size or (1.0, 1.0, 1.0)
    dz *= nz / len(some)
    sections = ((*middle, (dy, dx), "y, x"), (*across_x, (dz, dx), "z, x"), (*across_y, (dz, dy), "z, y"))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (plane, values, pixel, name) in zip(figure.subplots(1, 3), sections, strict=True):
        image = below.coloured(plane, values)
        axis.imshow(image, interpolation="nearest", aspect=pixel[0] / pixel[1])
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
        if below.voxel_size is not None:
            draw_scale_bar(axis, shape=plane.shape, pixel_nm=pixel)
    colours = [(c.colour[0] / 255, c.colour[1] / 255, c.colour[2] / 255) for c in labels.classes]
    legend = [Patch(color=colour, label=c.name) for colour, c in zip(colours, labels.classes, strict=True)]
    figure.legend(handles=legend, loc="outside lower center", ncols=max(1, len(legend)), frameon=False, fontsize=9)
    save_figure(figure, path, dpi=100, overwrite=overwrite)


def save_sweep(volume: Volume | None, labels: Volume, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write an animated GIF that goes through at most 60 planes, the labels' colours over the grey values.

    Arguments and errors are those of :func:`save_thumbnail`; ``path`` is a ``.gif``. Planes are thinned out to at most
    400 pixels a side.
    """
    from PIL import Image

    check_suffix(path, ".gif")
    check_output(path, overwrite=overwrite)
    below = _Below(volume, labels)
    step = math.ceil(max(labels.shape[1:]) / SWEEP_PIXELS)
    some = _spread(labels.shape[0], SWEEP_PLANES)
    frames = []
    for z in some:
        image = below.coloured(below.plane(z)[::step, ::step], labels.plane(z)[::step, ::step])
        frames.append(Image.fromarray(image).quantize(128, dither=Image.Dither.NONE))
    with atomic(path, overwrite=overwrite) as temporary:
        milliseconds = round(1000 * SWEEP_SECONDS / len(frames))
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


class _Below:
    """Grey values under the colours of labels; black where there are none."""

    def __init__(self, volume: Volume | None, labels: Volume) -> None:
        self._volume, self._labels = volume, labels
        if volume is None:
            self._limits, self._alpha = (0.0, 1.0), 1.0
        else:
            self._first, self._part = place_of(labels, volume)
            self._limits, self._alpha = volume_contrast(volume), ALPHA
        self.voxel_size = (volume or labels).voxel_size

    def plane(self, z: int) -> np.ndarray:
        """Those of the plane z of the labels."""
        if self._volume is None:
            return np.zeros(self._labels.shape[1:], np.uint8)
        return self._volume.plane(self._first + z)[self._part]

    def coloured(self, grey: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8."""
        return overlay_image(grey, values, classes=self._labels.classes, alpha=self._alpha, limits=self._limits)


def _spread(n: int, at_most: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int)).tolist()
