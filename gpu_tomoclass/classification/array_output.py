"""Labels into an array that the caller has made, in place of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.outputs import refuse_inputs
from gpu_tomoclass.volumes import ArrayVolume, Volume, is_array


class ArrayOutput:
    """An array that takes finished planes; nothing of it is read, and nothing is kept for another run.

    Parameters
    ----------
    array : numpy.ndarray or zarr.Array
        (nz, ny, nx) of an integer type that holds 0 to 255.
    shape : tuple of int
        What it must have.
    volume : Volume
        What is classified: its memory and its files are not written to.
    options : RunOptions
    format_options : dict
        Of files; there must be none.

    Attributes
    ----------
    done : numpy.ndarray
        (nz,) bool: planes that are in the array.
    name : str
        ``"numpy array"``, ``"zarr array"``.

    Raises
    ------
    UsageError
        If it is no such array, is the input, or an option is for files.
    DataError
        If it has another shape or type.
    """

    notes: tuple[str, ...] = ()
    kept = "in the array"
    go_on = "give the planes that are missing, or all again"

    def __init__(
        self,
        array: Any,
        *,
        shape: tuple[int, int, int],
        volume: Volume,
        options: RunOptions,
        format_options: dict[str, Any],
    ) -> None:
        if not is_array(array) or not hasattr(array, "__setitem__"):
            raise UsageError(f"{type(array).__name__} is no output", do="give a path, a NumPy array or a Zarr array")
        self.array, self.shape = array, shape
        self.name = f"{type(array).__module__.partition('.')[0]} array"
        if hasattr(array, "__cuda_array_interface__"):
            raise UsageError("cannot be written to", where=self.name, do="Model.predict gives CuPy's arrays")
        of_files = [name for name in ("probabilities", "uncertainty", "restart") if getattr(options, name)]
        if of_files := [*of_files, *format_options]:
            what = f"an array takes labels only, not {', '.join(of_files)}"
            raise UsageError(what, do="give a path, or use Model.predict for probabilities")
        if tuple(array.shape) != shape:
            raise DataError(f"is {tuple(array.shape)}, the labels are {shape} (z, y, x)", where=self.name)
        dtype = np.dtype(array.dtype)
        if dtype.kind not in "iu" or not np.can_cast(np.uint8, dtype):
            raise DataError(f"holds {dtype}, which is no type for labels", where=self.name, do="make it uint8")
        self._refuse_input(volume)
        self.done = np.zeros(shape[0], dtype=np.bool_)

    def _refuse_input(self, volume: Volume) -> None:
        given = volume.array if isinstance(volume, ArrayVolume) else None
        if given is self.array or (
            isinstance(given, np.ndarray)
            and isinstance(self.array, np.ndarray)
            and np.may_share_memory(given, self.array)
        ):
            raise UsageError("is the input, which is never changed", where=self.name, do="give another array")
        if (folder := _zarr_folder(self.array)) is not None:
            refuse_inputs(folder, [*volume.inputs(), *filter(None, [_zarr_folder(given)])])

    @staticmethod
    def n_writers(*, on_gpu: bool) -> int:
        """One thread writes: a chunk of an array may hold several planes."""
        return 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    @property
    def n_done(self) -> int:
        return int(self.done.sum())

    def write(self, slab: Slab) -> None:
        """Put the planes of a slab into the array."""
        self.array[slab.start : slab.stop] = slab.values["labels"]
        self.done[slab.start : slab.stop] = True

    def finished_planes(self) -> Iterator[np.ndarray]:
        """Labels that an earlier run has made: none."""
        return iter(())

    def finish(self) -> list[str]:
        """The name of the output."""
        return [self.name]


def _zarr_folder(array: Any) -> str | None:
    """Where a Zarr array is on this machine; None if it is elsewhere or no Zarr array."""
    root = getattr(getattr(array, "store", None), "root", None)
    return None if root is None else os.path.join(root, getattr(array, "path", ""))
