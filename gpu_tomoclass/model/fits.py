"""Comparison of a model with a volume that it is to classify: kind of values, voxel size, order of the axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.volumes import NO_BIN, Bin, Volume, VoxelSize

VOXEL_SIZE_TOLERANCE = 0.01


def check_fits(
    model: Model,
    *,
    dtype: np.dtype[Any],
    shape: tuple[int, int, int] | None = None,
    voxel_size: VoxelSize | None = None,
    bin: Bin = NO_BIN,
    force: bool = False,
) -> list[str]:
    """Tell whether a volume of this kind can be classified by the model.

    Parameters
    ----------
    model : Model
    dtype : numpy.dtype
        Of the volume.
    shape : tuple of int, optional
        (nz, ny, nx) of the volume; the training volume's shape in another order is worth a note.
    voxel_size : tuple of float, optional
        (z, y, x) in nm of the volume.
    bin : (int, int, int)
        Of the volume; another one than in training is refused unless voxel sizes say that the grids agree.
    force : bool
        Only note a different voxel size. A different kind of values is refused all the same.

    Returns
    -------
    list of str
        Notes for the user.

    Raises
    ------
    ModelError
        If the values are of another kind or range than in training, or the voxel size differs by more than 1 %.
    """
    trained = model.training.get("dtype")
    if trained is not None and np.dtype(trained) != dtype and _value_kind(np.dtype(trained)) != _value_kind(dtype):
        raise ModelError(
            f"the model was trained on {trained} voxels, the volume has {dtype}: grey values do not compare",
            do="convert the volume or train on volumes of this kind",
        )
    notes = []
    known = model.training.get("volume", {}).get("shape")
    if known and shape is not None and list(shape) != known and sorted(shape) == sorted(known):
        notes.append(
            f"the volume is {tuple(shape)} (z, y, x), the training volume was {tuple(known)}: if axes are swapped, "
            "give the right order with --axes"
        )
    if known and known[0] > 1 and shape is not None and shape[0] == 1 and 3 in model.bank.dimensions:
        notes.append(
            "the volume has one plane, and the model knows families across planes of volumes: those see no neighbours"
            " here, which costs accuracy; classify the volume that the plane is of, with --planes"
        )
    if model.voxel_size is None or voxel_size is None:
        trained_bin = tuple(model.training.get("bin", NO_BIN))
        if trained_bin == bin:
            return notes
        what = f"the model was trained on a volume with {_boxes(trained_bin)}, this one has {_boxes(bin)}"
        if not force:
            raise ModelError(what, do=f"open it with bin {','.join(map(str, trained_bin))}, train anew, or use --force")
        return [*notes, what]
    across = 3 in model.bank.dimensions
    if same_voxels(model.voxel_size, voxel_size, across=across):
        return notes
    if model.bank.fits_any_voxels:
        return [*notes, f"sigmas in nm are those of voxels of {_nm(voxel_size, across)} now"]
    sizes = f"{_nm(voxel_size, across)}, the model was trained on {_nm(model.voxel_size, across)}"
    if not force:
        raise ModelError(
            f"voxels of the volume are {sizes}: features have sizes in pixels",
            do="give --voxel-size if the file is wrong, rescale the volume, train on such volumes, or use --force",
        )
    return [*notes, f"voxels of the volume are {sizes}"]


def same_voxels(a: VoxelSize, b: VoxelSize, *, across: bool) -> bool:
    """Tell whether two voxel sizes (z, y, x) agree within 1 %: features have sizes in pixels.

    Parameters
    ----------
    across : bool
        Along z, too: for banks with families that look across planes.
    """
    first = 0 if across else 1
    return all(abs(y / x - 1) <= VOXEL_SIZE_TOLERANCE for x, y in zip(a[first:], b[first:], strict=True))


def fits_volume(model: Model, volume: Volume, *, force: bool = False) -> list[str]:
    """:func:`check_fits` for an open volume."""
    return check_fits(
        model, dtype=volume.dtype, shape=volume.shape, voxel_size=volume.voxel_size, bin=volume.bin, force=force
    )


def _boxes(bin: tuple[int, ...]) -> str:
    return "no bin" if bin == NO_BIN else f"bin {','.join(map(str, bin))} (z, y, x)"


def _value_kind(dtype: np.dtype[Any]) -> str:
    """Float volumes share a scale; an integer type is its own range."""
    return "float" if dtype.kind == "f" else dtype.name


def _nm(size: VoxelSize, across: bool) -> str:
    shown = size if across else size[1:]
    return " x ".join(f"{v:.4g}" for v in shown) + (" nm (z, y, x)" if across else " nm (y, x)")
