"""Simulated tomograms as files, the truth beside them; memory does not grow with the number of planes."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass import VoxelSize, __version__, create_volume, default_classes
from gpu_tomoclass.outputs import check_output, check_space
from gpu_tomoclass.studies.simulation.phantom import PHANTOM_CLASSES, PHANTOM_LEVELS, phantom_labels, phantom_planes
from gpu_tomoclass.studies.simulation.pillar import SAMPLE_CLASSES, PillarRecipe, make_pillar
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import is_folder, is_written, product_name

PILLAR_SHARE = 0.86  # share of the plane's width, as in the paper: 150 nm in 317 voxels of 0.55 nm


def simulated_names(output: str | PathLike[str], *, name: str) -> tuple[str, str]:
    """Volume and truth for ``-o``: a file name, whose truth is ``<file>_truth``, or a folder for two TIFF files."""
    path = fspath(output)
    if is_written(path):
        return path, product_name(path, "truth")
    return os.path.join(path, f"{name}.tif"), os.path.join(path, "truth.tif")


def write_phantom(
    output: str | PathLike[str],
    *,
    n_planes: int = 1,
    size: int = 512,
    angles: np.ndarray | None = None,
    levels: Sequence[float] = PHANTOM_LEVELS,
    eight_bit: bool = True,
    poisson: float = 0.0,
    max_shift: float = 0.0,
    bits: int = 8,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[str, str]:
    """Write a phantom tomogram; the options are those of `gpu_tomoclass.studies.simulation.phantom.phantom_planes`.

    Returns
    -------
    volume, truth : str
        The files. In the truth the classes of `PHANTOM_CLASSES` are 1 to 5.
    """
    planes = phantom_planes(
        n_planes, size=size, angles=angles, levels=levels, eight_bit=eight_bit, poisson=poisson, max_shift=max_shift,
        bits=bits, seed=seed,
    )  # fmt: skip
    truth = phantom_labels(size) + np.uint8(1)
    wedge = "0 to 178, 90" if angles is None else f"{angles[0]:g} to {angles[-1]:g}, {len(angles)}"
    settings = {
        "specimen": f"five-level modified Shepp-Logan phantom, {size} pixels",
        "levels": [float(level) for level in levels],
        "tilt angles (degrees)": f"{wedge} projections",
        "8-bit sinogram": eight_bit,
        "mean of the Poisson noise": poisson,
        "misalignment (pixels)": max_shift,
        "reconstruction": "ramp-filtered back-projection",
        "seed": seed,
    }
    return _write(
        simulated_names(output, name="phantom"),
        shape=(n_planes, size, size),
        dtype=np.dtype(np.uint8 if bits == 8 else np.uint16),
        planes=((plane, truth) for plane in planes),
        class_names=PHANTOM_CLASSES,
        voxel_size=None,
        settings=settings,
        overwrite=overwrite,
        progress=progress,
    )


def write_pillar(
    output: str | PathLike[str],
    *,
    shape: tuple[int, int, int] = (24, 160, 136),
    diameter: float = 150.0,
    voxel: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **recipe: Any,
) -> tuple[str, str]:
    """Write a rubber-silica pillar; what all planes need together lies in temporary files beside the output.

    Parameters
    ----------
    output : path
        See `simulated_names`.
    shape : (nz, ny, nx)
        Any; the paper's is (861, 428, 317).
    diameter : float
        In nm.
    voxel : float, optional
        Edge in nm; by default the pillar fills 86 % of the narrower side of the plane, as in the paper.
    overwrite : bool
    progress : callable, optional
        Called with (steps done, steps in all).
    **recipe
        Other attributes of `gpu_tomoclass.studies.simulation.pillar.PillarRecipe`.

    Returns
    -------
    volume, truth : str
        The files. In the truth vacuum, rubber and silica are 1 to 3.
    """
    voxel = diameter / (PILLAR_SHARE * min(shape[1:])) if voxel is None else voxel
    what = PillarRecipe(shape=shape, diameter=diameter, voxel=voxel, **recipe)
    names = simulated_names(output, name="pillar")
    for name in names:
        check_output(name, overwrite=overwrite, folder=is_folder(name))
    voxels, rays = int(np.prod(shape)), shape[0] * shape[2] * len(what.tilt_angles)
    check_space(names[0], 19 * voxels + 16 * rays)  # truth 4, texture 8, pixels 4, output 3; projections 16 bytes
    folder = Path(names[0]).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pillar-") as scratch:
        return _make_and_write(what, names, scratch=Path(scratch), overwrite=overwrite, progress=progress)


def _make_and_write(
    recipe: PillarRecipe, names: tuple[str, str], *, scratch: Path, overwrite: bool, progress: Progress | None
) -> tuple[str, str]:
    """A function of its own, so that the arrays in ``scratch`` are gone when the folder is removed."""
    number = itertools.count()

    def in_file(shape: tuple[int, ...], dtype: type[Any]) -> np.ndarray:
        return np.memmap(scratch / str(next(number)), dtype, "w+", shape=shape)

    made = make_pillar(recipe, new_array=in_file, progress=progress)
    return _write(
        names,
        shape=recipe.shape,
        dtype=np.dtype(np.uint16),
        planes=((made.volume_plane(z), made.truth_plane(z)) for z in range(recipe.shape[0])),
        class_names=SAMPLE_CLASSES,
        voxel_size=(recipe.voxel, recipe.voxel, recipe.voxel),
        settings=made.settings(),
        overwrite=overwrite,
    )


def _write(
    names: tuple[str, str],
    *,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    planes: Iterable[tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    voxel_size: VoxelSize | None,
    settings: dict[str, Any],
    overwrite: bool,
    progress: Progress | None = None,
) -> tuple[str, str]:
    metadata = {"made_by": f"gpu_tomoclass {__version__}", "simulation": settings}
    common: dict[str, Any] = {"shape": shape, "voxel_size": voxel_size, "metadata": metadata, "overwrite": overwrite}
    classes = default_classes(class_names)
    with (
        create_volume(names[0], dtype=dtype, **common) as volume,
        create_volume(names[1], dtype=np.uint8, classes=classes, **common) as truth,
    ):
        for z, (plane, true_plane) in enumerate(planes):
            if progress is not None:
                progress(z, shape[0])
            volume.write_plane(z, plane)
            truth.write_plane(z, true_plane)
    if progress is not None:
        progress(shape[0], shape[0])
    return names
