"""Volumes in OME-Zarr (0.1 to 0.5) and in plain Zarr arrays (version 2 and 3), on local disk.

OME-Zarr metadata: https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.indexed import IndexedVolume
from gpu_tomoclass.volumes.ome_zarr.array import Node, ZarrArray, read_node
from gpu_tomoclass.volumes.ome_zarr.hyperspy import hyperspy_axes, hyperspy_signal
from gpu_tomoclass.volumes.place import with_origin
from gpu_tomoclass.volumes.stored_axes import UNSUSPICIOUS_BYTES, StoredAxes, check_declared, choose_axes
from gpu_tomoclass.volumes.units import nanometres
from gpu_tomoclass.volumes.volume import Volume, VoxelSize, ranges_text


def open_zarr(
    path: str | PathLike[str],
    *,
    axes: str | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
    sparse: bool = False,
) -> Volume:
    """Open a Zarr store, a group or an array in it; metadata are read and chunk names listed, nothing else.

    Parameters
    ----------
    path : str or path
        Folder of an OME-Zarr image (its full resolution is read), of an array, or of a group that holds one image.
    axes : str, optional
        Order in which the stored z, y, x axes (slowest first) are to be read, a permutation of ``"zyx"``.
    channel : int, optional
        Which channel (or time point, where there is one channel), from 0.
    allow_missing_planes : bool
        Read chunks that do not exist as the fill value and list their planes in ``missing_planes``; fill planes of
        damaged chunks with zeros.
    sparse : bool
        Chunks that do not exist hold the fill value (Zarr's default for empty ones), as in an annotation.

    Raises
    ------
    UsageError
        If there is nothing of that name, or ``axes`` or ``channel`` does not fit.
    DataError
        If chunks are missing, metadata are damaged or lead out of the store, or there is no single image.
    """
    root = Path(path)
    if not root.is_dir():
        raise (DataError("is no Zarr store but a file", where=path, do="unpack it") if root.exists() else _absent(path))
    node = read_node(root)
    if node is None:
        raise DataError("is no Zarr store: it holds no zarr.json, .zarray or .zgroup", where=path)
    notes: list[str] = []
    if not node.is_array and "multiscales" not in _ome(node):
        node = hyperspy_signal(node) or _only_image(node, notes)
    open_node = _open_array if node.is_array else _open_image
    how = {"allow_missing_planes": allow_missing_planes, "sparse": sparse}
    return open_node(fspath(path), node, axes=axes, channel=channel, notes=notes, **how)


class ZarrVolume(IndexedVolume):
    """A volume in a Zarr array; made by :func:`open_zarr`.

    Parameters
    ----------
    stored : StoredAxes
        Which axes of the array are z, y, x.
    sparse : bool
        Chunks that do not exist hold the fill value, and no plane is missing.
    """

    def __init__(
        self,
        path: str,
        array: ZarrArray,
        *,
        stored: StoredAxes,
        allow_missing_planes: bool,
        sparse: bool,
        files: Sequence[Path],
        **details: Any,
    ) -> None:
        self._array, self._fill_missing = array, allow_missing_planes or sparse
        ranges = [
            range(stored.fixed[axis], stored.fixed[axis] + 1) if axis in stored.fixed else range(n)
            for axis, n in enumerate(array.shape)
        ]
        total, absent, folders = array.missing(ranges)
        if absent and not sparse and (not allow_missing_planes or len(absent) == total):
            raise DataError(
                f"{array.name(absent[0])} missing ({len(absent)} of {total})",
                where=path,
                do="copy the store again; if the writer left out chunks that hold nothing but the fill value "
                f"{array.fill_value} (Zarr's default), read them so with --allow-missing-planes",
            )
        ny, nx = (array.shape[stored.axis_of[letter]] for letter in "yx")
        plane_bytes = ny * nx * array.dtype.itemsize
        if plane_bytes > UNSUSPICIOUS_BYTES:
            check_declared("planes", plane_bytes, _bytes_below(array.node.folder), where=path)
        axis = stored.axis_of.get("z")
        thickness = 1 if axis is None else array.chunks[axis]
        super().__init__(
            path,
            stored_shape=array.shape,
            stored=stored,
            dtype=array.dtype,
            thickness=thickness,
            files=[*files, *folders],
            allow_missing_planes=allow_missing_planes,
            **details,
        )
        if absent and sparse:
            self.notes.append(
                f"{len(absent)} of {total} chunks are not there and hold the fill value {array.fill_value}"
            )
        elif absent:
            starts = {0 if axis is None else index[axis] * thickness for index in absent}
            planes = {z for start in starts for z in range(start, min(start + thickness, self.shape[0]))}
            self.missing_planes |= planes
            self.notes.append(
                f"{len(absent)} of {total} chunks are missing (first {array.name(absent[0])}) and read as the fill "
                f"value {array.fill_value}, in planes {ranges_text(planes)}"
            )

    def _read_plane(self, z: int) -> np.ndarray:
        try:
            return super()._read_plane(z)
        except DataError as error:
            raise DataError(f"plane {z}: {error.what}", where=self.path, do=error.do) from error

    def _region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        return self._array.region(low, high, fill_missing=self._fill_missing)


def _bytes_below(folder: Path) -> int:
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names)


def _open_array(
    path: str, node: Node, *, axes: str | None, channel: int | None, notes: list[str], **how: bool
) -> Volume:
    """A plain array: its axes are z, y, x unless it names them."""
    array = ZarrArray(node)
    named = node.content.get("dimension_names")
    names = [str(name).lower() for name in named] if isinstance(named, list) else []
    said = hyperspy_axes(node, len(array.shape), notes)
    if said is not None:
        names = said[0] or []
    is_named = len(names) == len(set(names)) == len(array.shape) and {"y", "x"} <= set(names)
    stored = choose_axes(array.shape, names if is_named else None, axes=axes, channel=channel, where=path)
    return ZarrVolume(
        path,
        array,
        stored=stored,
        format=f"Zarr {node.zarr_format} array" if said is None else "HyperSpy Zarr",
        voxel_size=None if said is None else stored.sizes(said[1]),
        notes=notes,
        classes=_classes(node),
        metadata=with_origin(_own_metadata(node), None if said is None else stored.place(said[2])),
        files=[node.file],
        **how,
    )


def _open_image(
    path: str, node: Node, *, axes: str | None, channel: int | None, notes: list[str], **how: bool
) -> Volume:
    """An OME-Zarr image at full resolution."""
    ome = _ome(node)
    try:
        multiscales = ome["multiscales"]
        image = multiscales[0]
        level = image["datasets"][0]
        level_path = level["path"]
        version = str(ome.get("version", image.get("version", "without version")))
        if "axes" not in image and "coordinateSystems" in image:
            raise DataError(
                f"is OME-Zarr {version}, whose axes stand in 'coordinateSystems'; 0.1 to 0.5 are read",
                where=_metadata_file(node),
                do=f"open the array itself ({level_path}), or write it as version 0.5",
            )
        names, units = _axis_names(image)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        what = "an empty list" if isinstance(error, IndexError) else repr(error)
        raise DataError(f"field 'multiscales' is damaged: {what}", where=_metadata_file(node)) from error
    if len(multiscales) > 1:
        notes.append(f"the first of {len(multiscales)} images in the group is read")
    level_node = read_node(_inside(node, level_path))
    if level_node is None or not level_node.is_array:
        raise DataError(f"field 'datasets': there is no array at '{level_path}'", where=_metadata_file(node))
    array = ZarrArray(level_node)
    if len(names) != len(array.shape) or len(set(names)) != len(names) or not {"y", "x"} <= set(names):
        raise DataError(f"field 'axes' names {names} for an array of shape {array.shape}", where=_metadata_file(node))
    stored = choose_axes(array.shape, names, axes=axes, channel=channel, where=path, what="image")
    voxel_size, origin = _size_and_origin(image, level, stored, units, notes)
    return ZarrVolume(
        path,
        array,
        stored=stored,
        format=f"OME-Zarr {version}",
        voxel_size=voxel_size,
        notes=notes,
        classes=_classes(node),
        metadata=with_origin(_own_metadata(node), origin, voxel_size=voxel_size),
        files=[node.file, level_node.file],
        **how,
    )


def _absent(path: str | PathLike[str]) -> UsageError:
    return UsageError("there is no such file or folder", where=path)


def _metadata_file(node: Node) -> Path:
    return node.file if node.zarr_format == 3 else node.folder / ".zattrs"


def _ome(node: Node) -> dict[str, Any]:
    """The OME-Zarr part of a group's attributes: under ``ome`` from 0.5 on."""
    ome = node.attributes.get("ome", {}) if node.zarr_format == 3 else node.attributes
    return ome if isinstance(ome, dict) else {}


def _only_image(group: Node, notes: list[str]) -> Node:
    """The one image or array in a group without an image of its own."""
    found: list[Node] = []
    for child in sorted(group.folder.iterdir()):
        node = read_node(_inside(group, child.name)) if child.is_dir() else None
        if node is not None and (node.is_array or "multiscales" in _ome(node)):
            found.append(node)
    if len(found) == 1:
        notes.append(f"'{found[0].folder.name}' is read, the only image in the group")
        return found[0]
    listed = [f"{n.folder.name} ({n.content.get('shape') if n.is_array else 'OME-Zarr image'})" for n in found]
    what = f"holds {len(found)} images: {', '.join(listed)}" if found else "is a group without an image or array in it"
    do = f"name one, for example {group.folder / found[0].folder.name}" if found else "name an array inside it"
    raise DataError(what, where=group.folder, do=do)


def _inside(node: Node, path: Any) -> Path:
    """The folder ``path`` below a group, after following links; it must not leave the group."""
    root = node.folder.resolve()
    # Lone surrogates, which JSON can say, are in no file name.
    usable = isinstance(path, str) and "\0" not in path and not re.search("[\ud800-\udfff]", path)
    target = (root / path).resolve() if usable else None
    if target is None or not target.is_relative_to(root) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"path '{path}' leaves the store", where=_metadata_file(node))
    return node.folder / path


def _axis_names(image: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Names and units of the axes; before 0.4 there were only names, before 0.3 always t, c, z, y, x."""
    axes = image.get("axes", list("tczyx"))
    names = [(axis if isinstance(axis, str) else axis["name"]).lower() for axis in axes]
    return names, [None if isinstance(axis, str) else axis.get("unit") for axis in axes]


def _size_and_origin(
    image: Mapping[str, Any],
    level: Mapping[str, Any],
    stored: StoredAxes,
    units: Sequence[Any],
    notes: list[str],
) -> tuple[VoxelSize | None, list[float] | None]:
    """nm along z, y, x of a voxel and of the first one's position; None if the file does not say.

    The transformations of the level count first, then those of the image; each scales or moves what is there so far.
    """
    scale: list[float] | None = None
    origin = [0.0] * len(stored.kept)
    try:
        for transform in [*level.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())]:
            if transform["type"] == "scale" and "scale" in transform:
                factors = [float(transform["scale"][axis]) for axis in stored.kept]
                scale = factors if scale is None else [a * b for a, b in zip(scale, factors, strict=True)]
                origin = [a * b for a, b in zip(origin, factors, strict=True)]
            elif transform["type"] == "translation" and "translation" in transform:
                shift = [float(transform["translation"][axis]) for axis in stored.kept]
                origin = [a + b for a, b in zip(origin, shift, strict=True)]
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        notes.append(f"the voxel size is ignored, because 'coordinateTransformations' is damaged: {error!r}")
        return None, None
    if scale is None or len(stored.kept) != 3:
        return None, None
    found = [units[axis] for axis in stored.kept]
    # Bare symbols (nm, um) are no names of the specification, but are written.
    in_nm = [nanometres(unit) for unit in found]
    if any(factor is None for factor in in_nm) or not all(math.isfinite(s) and s > 0 for s in scale):
        if scale != [1.0, 1.0, 1.0]:
            notes.append(f"the voxel size is ignored: scale {scale} in units {found}")
        return None, None
    factors = [factor for factor in in_nm if factor is not None]
    size = {letter: s * f for letter, s, f in zip(stored.order, scale, factors, strict=True)}
    place = {letter: o * f for letter, o, f in zip(stored.order, origin, factors, strict=True)}
    return (size["z"], size["y"], size["x"]), [place[letter] for letter in "zyx"]


def _own_metadata(node: Node) -> dict[str, Any]:
    ours = node.attributes.get("gpu_tomoclass")
    return ours if isinstance(ours, dict) else {}


def _classes(node: Node) -> tuple[LabelClass, ...]:
    """Classes from OME-Zarr's ``image-label``; empty if there is none or it cannot be understood."""
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        label = _ome(node)["image-label"]
        names = {p["label-value"]: p.get("class", p.get("name")) for p in label.get("properties", ())}
        colours = {c["label-value"]: c["rgba"][:3] for c in label["colors"] if c.get("rgba")}
        return tuple(
            LabelClass.from_dict({"value": v, "name": names.get(v) or f"label {v}", "colour": colours[v]})
            for v in sorted(colours)
            if 1 <= v <= 255
        )
    return ()
