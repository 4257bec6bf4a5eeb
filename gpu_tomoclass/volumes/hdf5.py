"""Volumes in HDF5 files (ilastik, NeXus, Imaris-like, hspy ...), named as ``file.h5::/path/to/dataset``.

The HDF5 library reads chunks that were never written, and virtual sources that do not exist, as fill values without
a word, follows links into other files, and knows only some compressors: these are looked at when opening.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import posixpath
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.stored import LayerCache, order_notes, spatial_axes, stored_order
from gpu_tomoclass.volumes.volume import Volume, VoxelSize

# Without chunks, z along rows or columns: as many planes are collected in one pass as this many bytes hold.
SLAB_BYTES = 2**28
# A larger plane in a file of less than a thousandth of it is a damaged shape, not compression.
ABSURD_PLANE = 2**33
LISTED = 20  # datasets named in an error
LINK_DEPTH = 40  # soft links followed one after another; HDF5's own limit is 16


def open_hdf5(path: str | PathLike[str], *, axes: str | None = None, allow_missing_planes: bool = False) -> Volume:
    """Open a dataset of an HDF5 file, read-only; only its header is read.

    Parameters
    ----------
    path : str or path
        ``file.h5::/path/to/dataset``; a file alone is never guessed from, its datasets are listed in the error.
    axes : str, optional
        Order in which the stored axes (slowest first) are to be read, a permutation of ``"zyx"``.
    allow_missing_planes : bool
        Fill planes that cannot be read with zeros and list them in ``missing_planes``.

    Raises
    ------
    UsageError
        If there is no such file, or ``axes`` is no permutation of ``"zyx"``.
    DataError
        If the file is damaged, holds no such dataset, or the dataset is no volume, leads into another file or needs
        a compressor that is not installed.
    """
    name = fspath(path)
    file_name, _, inner = name.partition("::")
    if not inner.strip("/"):
        with _opened(file_name) as file:
            raise _which_dataset(file_name, file)
    return Hdf5Volume(name, file_name, inner, axes=axes, allow_missing_planes=allow_missing_planes)


class Hdf5Volume(Volume):
    """A volume in an HDF5 dataset; made by :func:`open_hdf5`. The file is open only while it is read."""

    def __init__(self, path: str, file_name: str, inner: str, *, axes: str | None, allow_missing_planes: bool) -> None:
        self._file_name = file_name
        notes: list[str] = []
        with _opened(file_name) as file:
            self._dataset = _resolve(file, inner, path)
            dataset = file[self._dataset]
            sources = _check_storage(dataset, path, notes)
            dtype = _grey_type(dataset, path)
            kept = spatial_axes(dataset.shape)
            if kept is None:
                raise DataError(f"is no volume: the dataset has the shape {dataset.shape}", where=path)
            if len(kept) < dataset.ndim:
                notes.append(f"axes of length 1 are left out of the shape {dataset.shape}")
            if len(kept) == 2:
                order = "yx"
                notes.append("the dataset has two axes: one plane")
                if axes is not None:
                    raise UsageError(f"axes '{axes}' of a single plane", where=path)
            else:
                order = stored_order(axes, "zyx", where=path)
                notes += order_notes(axes, "zyx", order)
            sizes = _stored_voxel_size(dataset, kept)
            self._ndim = dataset.ndim
            # The dataset's axes that are z, y, x; None where there is no z.
            self._axes = [kept[order.index(letter)] if letter in order else None for letter in "zyx"]
            nz, ny, nx = (1 if axis is None else dataset.shape[axis] for axis in self._axes)
            plane_bytes = ny * nx * dtype.itemsize
            if plane_bytes > max(ABSURD_PLANE, 1000 * os.path.getsize(file_name)):
                raise DataError(
                    f"declares planes of {plane_bytes} bytes, and the file has {os.path.getsize(file_name)}", where=path
                )
            z_axis = self._axes[0]
            if z_axis is None:
                thickness = 1
            elif dataset.chunks is not None:
                thickness = dataset.chunks[z_axis]
            else:
                thickness = 1 if order[0] == "z" else max(1, min(nz, SLAB_BYTES // max(1, plane_bytes)))
        self._is_mask = dtype == np.bool_
        super().__init__(
            path,
            shape=(nz, ny, nx),
            dtype=np.dtype("uint8") if self._is_mask else dtype,
            format="HDF5",
            axes=order.upper(),
            voxel_size=None if sizes is None else tuple(sizes[order.index(c)] for c in "zyx"),  # type: ignore[arg-type]
            notes=[*notes, *(["true and false are read as 1 and 0"] if self._is_mask else [])],
            files=[file_name, *sources],
            allow_missing_planes=allow_missing_planes,
        )
        self._layers = LayerCache(nz, thickness, plane_bytes)
        self.notes += self._layers.notes()

    def _read_plane(self, z: int) -> np.ndarray:
        try:
            return self._layers.plane(z, self._read_layer)
        except OSError as error:
            if error.errno:  # the system's: a new attempt may help
                raise
            raise DataError(f"plane {z} cannot be read: {_reason(error)}", where=self.path) from error

    def _read_layer(self, start: int, stop: int) -> np.ndarray:
        """Planes ``start`` to ``stop``, axes z, y, x."""
        z_axis, y_axis, x_axis = self._axes
        selection: list[slice | int] = [0] * self._ndim
        for axis in (y_axis, x_axis):
            selection[axis] = slice(None)  # type: ignore[index]  # y and x are never None
        if z_axis is not None:
            selection[z_axis] = slice(start, stop)
        with _opened(self._file_name) as file:
            values = file[self._dataset][tuple(selection)]
        kept = sorted(axis for axis in self._axes if axis is not None)
        values = values.transpose([kept.index(axis) for axis in self._axes if axis is not None])
        values = values.reshape(-1, *self.shape[1:])
        return values.astype(np.uint8) if self._is_mask else values

    def _reopen(self) -> None:
        self._layers.clear()

    def close(self) -> None:
        self._layers.clear()


@contextlib.contextmanager
def _opened(file_name: str) -> Iterator[h5py.File]:
    """The file, read-only; a DataError if HDF5 cannot open it or stumbles over its structure."""
    if not os.path.exists(file_name):
        raise UsageError("there is no such file", where=file_name)
    try:
        file = h5py.File(file_name, "r")
    except OSError as error:
        raise DataError(f"cannot be opened as HDF5: {_reason(error)}", where=file_name) from error
    with file:
        try:
            yield file
        except (KeyError, RuntimeError) as error:  # h5py's answers to damaged objects; ours are neither
            raise DataError(f"is damaged: {_reason(error)}", where=file_name) from error


def _reason(error: Exception) -> str:
    """HDF5's own words in brackets, which tell more than the sentence around them."""
    text = str(error).strip("'\"")
    return text[text.index("(") + 1 : text.rindex(")")] if "(" in text and text.endswith(")") else text


def _datasets(group: h5py.Group, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Path and dataset, reached by hard links only, so that no link leads out of the file; each group once."""
    seen = set() if seen is None else seen
    seen.add(h5py.h5o.get_info(group.id).addr)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        kind = group.get(name, getclass=True)
        if kind is h5py.Dataset:
            yield f"{prefix}/{name}", group[name]
        elif kind is h5py.Group and h5py.h5o.get_info(group[name].id).addr not in seen:
            yield from _datasets(group[name], f"{prefix}/{name}", seen)


def _which_dataset(file_name: str, file: h5py.File) -> DataError:
    found = (f"{p} {d.shape} {d.dtype}" for p, d in _datasets(file) if d.ndim >= 3 and d.dtype.kind in "iufb")
    volumes = list(itertools.islice(found, LISTED + 1))
    if not volumes:
        return DataError("holds no dataset with three axes", where=file_name)
    shown = ", ".join(volumes[:LISTED]) + (" and more" if len(volumes) > LISTED else "")
    first = volumes[0].split(" (")[0]
    return DataError(
        f"does not say which dataset is the volume: {shown}", where=file_name, do=f"name it, as {file_name}::{first}"
    )


def _resolve(file: h5py.File, inner: str, path: str) -> str:
    """The dataset's path in the file with its soft links followed; external links are refused."""
    parts = [part for part in inner.split("/") if part not in ("", ".")]
    done = "/"
    for _ in range(LINK_DEPTH + inner.count("/")):
        if not parts:
            break
        name = parts.pop(0)
        group = file[done]
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            there = ", ".join(sorted(group)[:LISTED]) if isinstance(group, h5py.Group) else "a dataset"
            raise DataError(f"there is no '{name}' in {done} (which holds {there})", where=path)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"'{posixpath.join(done, name)}' is a link into the file {link.filename}, which is not followed",
                where=path,
                do=f"open {link.filename}::{link.path}",
            )
        if isinstance(link, h5py.SoftLink):
            target = posixpath.normpath(posixpath.join(done, link.path))
            parts, done = [part for part in target.split("/") if part] + parts, "/"
        else:
            done = posixpath.join(done, name)
    else:
        raise DataError(f"the links at {inner} lead in a circle", where=path)
    if not isinstance(file[done], h5py.Dataset):
        volumes = [done.rstrip("/") + p for p, d in itertools.islice(_datasets(file[done]), LISTED) if d.ndim >= 2]
        listed = f"; datasets inside: {', '.join(volumes)}" if volumes else ""
        raise DataError(f"{done} is a group, not a dataset{listed}", where=path)
    return done


def _grey_type(dataset: h5py.Dataset, path: str) -> np.dtype[Any]:
    dtype = dataset.dtype
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise DataError(f"holds values of type {dtype}, which are no grey values", where=path)
    return dtype


def _check_storage(dataset: h5py.Dataset, path: str, notes: list[str]) -> list[Path]:
    """That the values are in this file (or its folder), complete and decodable; the other files concerned."""
    if dataset.is_virtual:
        return _virtual_files(dataset, path)
    if dataset.shape is None:
        raise DataError("is an empty dataset", where=path)
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        names = [properties.get_external(i)[0].decode(errors="replace") for i in range(properties.get_external_count())]
        raise DataError(f"keeps its values in other files ({', '.join(names)}), which is not followed", where=path)
    for i in range(properties.get_nfilters()):
        number, _, _, name = properties.get_filter(i)
        if not _filter_is_known(number):
            raise DataError(
                f"is compressed with the HDF5 filter {number} ({name.decode(errors='replace') or 'without a name'}), "
                "which is not installed",
                where=path,
                do="pip install hdf5plugin",
            )
    if dataset.chunks is not None and dataset.size:
        expected = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)], dtype=object))
        written = dataset.id.get_num_chunks()
        if written == 0:
            raise DataError(f"none of its {expected} chunks was ever written", where=path)
        if written < expected:
            notes.append(
                f"{expected - written} of {expected} chunks were never written and read as the fill value "
                f"{dataset.fillvalue}"
            )
    elif dataset.size and dataset.id.get_storage_size() == 0:
        raise DataError("its values were never written", where=path)
    return []


def _filter_is_known(number: int) -> bool:
    if not h5py.h5z.filter_avail(number):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # which registers its filters
    return bool(h5py.h5z.filter_avail(number))


def _virtual_files(dataset: h5py.Dataset, path: str) -> list[Path]:
    """The files that a virtual dataset is put together from: in the folder of its file, existing, and not virtual."""
    own = Path(dataset.file.filename)
    files: set[Path] = set()
    for source in dataset.virtual_sources():
        target = own if source.file_name == "." else own.parent / source.file_name
        if not target.resolve().is_relative_to(own.parent.resolve()):
            raise DataError(f"is put together from {source.file_name}, outside of its folder", where=path)
        if not target.is_file():
            raise DataError(f"is put together from {source.file_name}, which does not exist", where=path)
        with _opened(str(target)) as file:
            found = _resolve(file, source.dset_name, f"{target}::{source.dset_name}")
            if file[found].is_virtual:
                raise DataError(f"is put together from {target}::{found}, which is virtual itself", where=path)
            _check_storage(file[found], f"{target}::{found}", [])
        files.add(target)
    return sorted(files - {own})


def _stored_voxel_size(dataset: h5py.Dataset, kept: tuple[int, ...]) -> VoxelSize | None:
    """nm along the kept axes from the attribute ``element_size_um`` (one number per axis, as Fiji's HDF5 plugin writes
    it); None where it is missing or makes no sense."""
    value = dataset.attrs.get("element_size_um")
    if value is None or len(kept) != 3:
        return None
    try:
        sizes = np.asarray(value, np.float64).ravel() * 1000
    except (TypeError, ValueError):
        return None
    if sizes.size == dataset.ndim:
        sizes = sizes[list(kept)]
    if sizes.size != 3 or not np.all(np.isfinite(sizes) & (sizes > 0)):
        return None
    return float(sizes[0]), float(sizes[1]), float(sizes[2])
