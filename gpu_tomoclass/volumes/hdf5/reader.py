"""Volumes in HDF5 files (ilastik, NeXus, Imaris-like, hspy ...), named as ``file.h5::/path/to/dataset``.

The HDF5 library reads chunks that were never written, and virtual sources that do not exist, as fill values without
a word, follows links into other files, and knows only some compressors: these are looked at when opening.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import posixpath
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, TomoclassError, UsageError
from gpu_tomoclass.volumes.hdf5.metadata import Labels, is_bdv_uint16, read_labels
from gpu_tomoclass.volumes.hdf5.nexus import OURS
from gpu_tomoclass.volumes.hdf5.probe import check_survives
from gpu_tomoclass.volumes.hdf5.storage import ChunkTable, check_filters
from gpu_tomoclass.volumes.indexed import IndexedVolume
from gpu_tomoclass.volumes.place import with_origin
from gpu_tomoclass.volumes.stored_axes import StoredAxes, check_declared, choose_axes
from gpu_tomoclass.volumes.volume import Volume, ranges_text

_DAMAGE = (KeyError, RuntimeError, ValueError, TypeError, AttributeError)  # h5py's answers to damaged objects
LISTED = 20  # datasets named in an error
SEARCHED = 100_000  # datasets looked at
LINK_DEPTH = 40  # soft links followed one after another; HDF5's own limit is 16


def open_hdf5(
    path: str | PathLike[str],
    *,
    axes: str | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
    sparse: bool = False,
) -> Volume:
    """Open a dataset of an HDF5 file, read-only; only its header and index are read.

    Parameters
    ----------
    path : str or path
        ``file.h5::/path/to/dataset``, or a file that holds one dataset with three or more axes; of several, they are
        listed in the error.
    axes : str, optional
        What the stored axes are, slowest first: ``"zyx"`` in any order, or one letter for every axis (``"zyxc"``).
    channel : int, optional
        Index on the axis that is none of z, y, x, from 0.
    allow_missing_planes : bool
        Fill planes that cannot be read with zeros, and chunks that were never written with the fill value; both are
        listed in ``missing_planes``.
    sparse : bool
        Chunks that were never written hold the fill value, as of an annotation.

    Raises
    ------
    UsageError
        If there is no such file, or ``axes`` or ``channel`` does not fit.
    DataError
        If the file is damaged, holds no such dataset, or the dataset is no volume, leads into another file or needs
        a compressor that is not installed.
    """
    name = fspath(path)
    file_name, _, inner = name.partition("::")
    notes: list[str] = []
    gaps = {"allow_missing_planes": allow_missing_planes, "sparse": sparse}
    check_survives(name, axes=axes, channel=channel, **gaps)
    if not inner.strip("/"):
        with _opened(file_name) as file:
            inner = _only_dataset(file_name, file)
        notes.append(f"{inner} is read, the only dataset with three or more axes in the file")
    return Hdf5Volume(
        name,
        file_name,
        inner,
        axes=axes,
        channel=channel,
        notes=notes,
        **gaps,
    )


class Hdf5Volume(IndexedVolume):
    """A volume in an HDF5 dataset; made by :func:`open_hdf5`. The file is open only while it is read."""

    def __init__(
        self,
        path: str,
        file_name: str,
        inner: str,
        *,
        axes: str | None,
        channel: int | None,
        allow_missing_planes: bool,
        sparse: bool,
        notes: Sequence[str] = (),
    ) -> None:
        self._file_name = file_name
        with _opened(file_name) as file:
            self._dataset = _resolve(file, inner, path)
            dataset = file[self._dataset]
            sources = _check_storage(dataset, path)
            dtype = _grey_type(dataset, path)
            self._table = None if dataset.chunks is None or not dataset.size else ChunkTable(dataset, path)
            labels = read_labels(dataset)
            stored = choose_axes(dataset.shape, labels.names, axes=axes, channel=channel, where=path, what="dataset")
            more = [*labels.notes, *_silent_notes(labels, axes, stored)]
            self._unsigned = is_bdv_uint16(dataset)
            if self._unsigned:
                dtype = np.dtype("uint16")
                more.append("a BigDataViewer file: its values are unsigned, though stored as signed ones")
            shape, fill_value = dataset.shape, dataset.fillvalue
            ny, nx = (shape[stored.axis_of[letter]] for letter in "yx")
            check_declared("planes", ny * nx * dtype.itemsize, os.path.getsize(file_name), where=path)
            chunks = dataset.chunks
            classes, metadata = _ours(file, dataset)
        if self._table is not None and self._table.missing:
            self._refuse_missing(path, fill=allow_missing_planes or sparse, may_be_all=sparse)
        super().__init__(
            path,
            stored_shape=shape,
            stored=stored,
            dtype=dtype,
            thickness=None if chunks is None or len(stored.kept) < 3 else chunks[stored.axis_of["z"]],
            format="HDF5",
            voxel_size=stored.sizes(labels.sizes),
            metadata=with_origin(metadata, stored.place(labels.origin), voxel_size=stored.sizes(labels.sizes)),
            classes=classes,
            notes=[*notes, *more],
            files=[file_name, *sources],
            allow_missing_planes=allow_missing_planes,
        )
        if self._table is not None and self._table.missing:
            self._note_missing(stored, fill_value, sparse=sparse)

    def _refuse_missing(self, path: str, *, fill: bool, may_be_all: bool) -> None:
        assert self._table is not None
        n, total = len(self._table.missing), self._table.total
        if n == total and not may_be_all:
            raise DataError(f"none of its {total} chunks was ever written", where=path)
        if not fill:
            raise DataError(
                f"the chunk at {self._table.missing[0]} was never written ({n} of {total} are missing)",
                where=path,
                do="copy or export it again; if the program left out what holds nothing but the fill value "
                f"{self._table.fill_value}, read it so with --allow-missing-planes",
            )

    def _note_missing(self, stored: StoredAxes, fill_value: object, *, sparse: bool) -> None:
        assert self._table is not None
        n, total = len(self._table.missing), self._table.total
        what = f"{n} of {total} chunks were never written and read as the fill value {fill_value}"
        if not sparse:
            axis = stored.axis_of.get("z")
            planes: set[int] = set()
            for corner in self._table.missing:
                start = 0 if axis is None else corner[axis]
                planes.update(
                    range(start, min(start + (1 if axis is None else self._table.chunks[axis]), self.shape[0]))
                )
            self.missing_planes |= planes
            what += f", in planes {ranges_text(planes)}"
        self.notes.append(what)

    def _read_plane(self, z: int) -> np.ndarray:
        try:
            return super()._read_plane(z)
        except OSError as error:
            if error.errno:  # the system's: a new attempt may help
                raise
            raise DataError(f"plane {z} cannot be read: {_reason(error)}", where=self.path) from error
        except DataError as error:
            raise DataError(f"plane {z} cannot be read: {error.what}", where=self.path, do=error.do) from error

    def _region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        if self._table is not None and self._table.decoded_here:
            if not os.path.exists(self._file_name):
                raise UsageError("there is no such file", where=self._file_name)
            values = self._table.region(low, high)
        else:
            with _opened(self._file_name) as file:
                dataset = file[self._dataset]
                if self._table is not None:
                    self._table.check_found(dataset, low, high)
                values = dataset[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        return values.astype(values.dtype.newbyteorder("="), copy=False).view("u2") if self._unsigned else values


def _silent_notes(labels: Labels, axes: str | None, stored: StoredAxes) -> list[str]:
    """A sentence where the order of the axes is a guess."""
    if labels.names is not None or axes is not None or len(stored.kept) < 3:
        return []
    return ["the file does not name its axes: read as z, y, x"]


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
        except TomoclassError:
            raise
        except OSError as error:
            if error.errno:
                raise
            raise DataError(f"is damaged: {_reason(error)}", where=file_name) from error
        except _DAMAGE as error:
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


def _only_dataset(file_name: str, file: h5py.File) -> str:
    """The path of the one dataset that can be a volume; an error that lists them where there are several."""
    found = []
    for path, dataset in itertools.islice(_datasets(file), SEARCHED):
        with contextlib.suppress(*_DAMAGE):  # a type that NumPy does not have
            if dataset.ndim >= 3 and dataset.dtype.kind in "iufb":
                found.append((path, f"{path} {dataset.shape} {dataset.dtype}"))
        if len(found) > LISTED:
            break
    if not found:
        linked = sorted(set(_external_links(file)))[:LISTED]
        also = f"; it links to {', '.join(linked)}" if linked else ""
        do = f"open {linked[0]}" if linked else None
        raise DataError(f"holds no dataset with three axes{also}", where=file_name, do=do)
    if len(found) == 1:
        return found[0][0]
    shown = ", ".join(text for _, text in found[:LISTED]) + (" and more" if len(found) > LISTED else "")
    raise DataError(
        f"does not say which dataset is the volume: {shown}",
        where=file_name,
        do=f"name it, as {file_name}::{found[0][0]}",
    )


def _external_links(group: h5py.Group, depth: int = 8) -> Iterator[str]:
    """``file::/path`` of the links into other files, which are not followed."""
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield f"{link.filename}::{link.path}"
        elif isinstance(link, h5py.HardLink) and depth and group.get(name, getclass=True) is h5py.Group:
            yield from _external_links(group[name], depth - 1)


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


def _check_storage(dataset: h5py.Dataset, path: str) -> list[Path]:
    """That the values are in this file (or its folder) and decodable; the other files concerned."""
    if dataset.is_virtual:
        return _virtual_files(dataset, path)
    if dataset.shape is None:
        raise DataError("is an empty dataset", where=path)
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        names = [properties.get_external(i)[0].decode(errors="replace") for i in range(properties.get_external_count())]
        raise DataError(f"keeps its values in other files ({', '.join(names)}), which is not followed", where=path)
    check_filters(dataset, path)
    if dataset.chunks is None and dataset.size and dataset.id.get_storage_size() == 0:
        raise DataError("its values were never written", where=path)
    return []


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
            _check_storage(file[found], f"{target}::{found}")
        files.add(target)
    return sorted(files - {own})


def _ours(file: h5py.File, dataset: h5py.Dataset) -> tuple[tuple[LabelClass, ...], dict[str, Any]]:
    """Classes and metadata that :class:`~gpu_tomoclass.volumes.hdf5.nexus.NexusWriter` keeps beside the voxels."""
    if dataset.name != "/entry/data/data" or not isinstance(file.get(OURS), h5py.Dataset):
        return (), {}
    try:
        content = json.loads(file[OURS].asstr()[()])
        return tuple(LabelClass.from_dict(c) for c in content["classes"]), dict(content["metadata"])
    except _DAMAGE as error:
        raise DataError(f"{OURS} is damaged: {type(error).__name__}", where=file.filename) from error
