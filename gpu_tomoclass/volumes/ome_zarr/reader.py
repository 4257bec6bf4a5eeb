"""Volumes in OME-Zarr (0.1 to 0.5) and in plain Zarr arrays (version 2 and 3), on local disk.

OME-Zarr metadata: https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.ome_zarr.array import Node, ZarrArray, read_node
from gpu_tomoclass.volumes.stored import LayerCache, order_notes, spatial_axes, stored_order
from gpu_tomoclass.volumes.volume import Volume, VoxelSize, ranges_text

# OME-Zarr units of length (UDUNITS-2 names) in nm.
UNITS_NM = {"picometer": 1e-3, "angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6}
UNITS_NM |= {"centimeter": 1e7, "meter": 1e9}


def open_zarr(
    path: str | PathLike[str],
    *,
    axes: str | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
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
        node = _only_image(node, notes)
    open_node = _open_array if node.is_array else _open_image
    return open_node(
        fspath(path), node, axes=axes, channel=channel, allow_missing_planes=allow_missing_planes, notes=notes
    )


class ZarrVolume(Volume):
    """A volume in a Zarr array; made by :func:`open_zarr`.

    Parameters
    ----------
    axis_of : mapping
        Which array axis is ``"z"`` (may be missing: one plane), ``"y"`` and ``"x"``.
    fixed : mapping
        Index on each of the other axes.
    """

    def __init__(
        self,
        path: str,
        array: ZarrArray,
        *,
        axis_of: Mapping[str, int],
        fixed: Mapping[int, int],
        format: str,
        notes: Sequence[str],
        allow_missing_planes: bool,
        files: Sequence[Path],
        **details: Any,
    ) -> None:
        self._array, self._fixed = array, dict(fixed)
        self._spatial = [axis_of[letter] for letter in "zyx" if letter in axis_of]
        nz, ny, nx = ([1] + [array.shape[axis] for axis in self._spatial])[-3:]
        if min(nz, ny, nx) < 1:
            raise DataError(f"holds no voxels: its shape (z, y, x) is {(nz, ny, nx)}", where=path)
        self._ranges = [range(n) for n in array.shape]
        for axis, index in fixed.items():
            self._ranges[axis] = range(index, index + 1)
        total, absent, folders = array.missing(self._ranges)
        if absent and (not allow_missing_planes or len(absent) == total):
            raise DataError(
                f"{array.name(absent[0])} missing ({len(absent)} of {total})",
                where=path,
                do="copy the store again; if the writer left out chunks that hold nothing but the fill value "
                f"{array.fill_value} (Zarr's default), read them so with --allow-missing-planes",
            )
        is_mask = array.dtype == np.bool_
        super().__init__(
            path,
            shape=(nz, ny, nx),
            dtype=np.dtype("uint8") if is_mask else array.dtype,
            format=format,
            notes=[*notes, *(["true and false are read as 1 and 0"] if is_mask else [])],
            files=[*files, *folders],
            allow_missing_planes=allow_missing_planes,
            **details,
        )
        thickness = array.chunks[self._spatial[0]] if len(self._spatial) == 3 else 1
        self._layers = LayerCache(nz, thickness, ny * nx * array.dtype.itemsize)
        self.notes += self._layers.notes()
        if absent:
            planes = {0} if len(self._spatial) == 2 else set()
            for start in {index[self._spatial[0]] * thickness for index in absent} if not planes else ():
                planes.update(range(start, min(start + thickness, nz)))
            self.missing_planes |= planes
            self.notes.append(
                f"{len(absent)} of {total} chunks are missing (first {array.name(absent[0])}) and read as the fill "
                f"value {array.fill_value}, in planes {ranges_text(planes)}"
            )

    def _read_plane(self, z: int) -> np.ndarray:
        try:
            return self._layers.plane(z, self._read_layer)
        except DataError as error:
            raise DataError(f"plane {z}: {error.what}", where=self.path, do=error.do) from error

    def _read_layer(self, start: int, stop: int) -> np.ndarray:
        """Planes ``start`` to ``stop``, axes z, y, x."""
        low, high = [r.start for r in self._ranges], [r.stop for r in self._ranges]
        if len(self._spatial) == 3:
            low[self._spatial[0]], high[self._spatial[0]] = start, stop
        values = self._array.region(low, high, fill_missing=self.allow_missing_planes)
        values = values.transpose([*self._fixed, *self._spatial]).reshape(-1, *self.shape[1:])
        return values.view(np.uint8) if values.dtype == np.bool_ else values

    def _reopen(self) -> None:
        self._layers.clear()

    def close(self) -> None:
        self._layers.clear()


def _open_array(
    path: str, node: Node, *, axes: str | None, channel: int | None, allow_missing_planes: bool, notes: list[str]
) -> Volume:
    """A plain array: its axes are z, y, x unless it names them."""
    array = ZarrArray(node)
    kept, fixed = spatial_axes(array.shape), {}
    if kept is None and len(array.shape) == 4 and channel is not None:
        kept, fixed = (1, 2, 3), {0: _checked_index(channel, array.shape[0], "channel", path)}
        notes.append("the first of four unnamed axes is read as channels")
    elif channel is not None:
        raise UsageError(f"channel {channel} of an array without channels, shape {array.shape}", where=path)
    if kept is None:
        hint = "choose one with --channel" if len(array.shape) == 4 else None
        raise DataError(f"is no volume: the array has the shape {array.shape}", where=path, do=hint)
    if len(kept) < len(array.shape) and not fixed:
        notes.append(f"axes of length 1 are left out of the shape {array.shape}")
    fixed |= {axis: 0 for axis in range(len(array.shape)) if axis not in kept and axis not in fixed}
    declared = "zyx"
    named = node.content.get("dimension_names")
    if isinstance(named, list) and len(named) == len(array.shape):
        letters = "".join(str(named[axis]).lower() for axis in kept)
        declared = letters if sorted(letters) == ["x", "y", "z"] else declared
    if len(kept) == 2:
        order = declared = "yx"
        notes.append("the array has two axes: one plane")
        if axes is not None:
            raise UsageError(f"axes '{axes}' of a single plane", where=path)
    else:
        order = stored_order(axes, declared, where=path)
        notes += order_notes(axes, declared, order)
    return ZarrVolume(
        path,
        array,
        axis_of=dict(zip(order, kept, strict=True)),
        fixed=fixed,
        format=f"Zarr {node.zarr_format} array",
        axes=order.upper(),
        notes=notes,
        classes=_classes(node),
        metadata=_own_metadata(node),
        allow_missing_planes=allow_missing_planes,
        files=[node.file],
    )


def _open_image(
    path: str, node: Node, *, axes: str | None, channel: int | None, allow_missing_planes: bool, notes: list[str]
) -> Volume:
    """An OME-Zarr image at full resolution."""
    ome = _ome(node)
    try:
        multiscales = ome["multiscales"]
        image = multiscales[0]
        level = image["datasets"][0]
        level_path = level["path"]
        version = str(ome.get("version", image.get("version", "without version")))
        names, units = _axis_names(image)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"field 'multiscales' is damaged: {error!r}", where=_metadata_file(node)) from error
    if len(multiscales) > 1:
        notes.append(f"the first of {len(multiscales)} images in the group is read")
    level_node = read_node(_inside(node, level_path))
    if level_node is None or not level_node.is_array:
        raise DataError(f"field 'datasets': there is no array at '{level_path}'", where=_metadata_file(node))
    array = ZarrArray(level_node)
    if len(names) != len(array.shape) or len(set(names)) != len(names) or not {"y", "x"} <= set(names):
        raise DataError(f"field 'axes' names {names} for an array of shape {array.shape}", where=_metadata_file(node))
    fixed = _fixed_axes(names, array.shape, channel, path, notes)
    kept = [axis for axis in range(len(names)) if axis not in fixed]
    declared = "".join(names[axis] for axis in kept)
    order = declared
    if len(kept) == 3:
        order = stored_order(axes, declared, where=path)
        notes += order_notes(axes, declared, order)
    elif axes is not None:
        raise UsageError(f"axes '{axes}' of a single plane", where=path)
    else:
        notes.append("the image has no z axis: one plane")
    sizes = _voxel_size(image, level, kept, units, notes)
    return ZarrVolume(
        path,
        array,
        axis_of=dict(zip(order, kept, strict=True)),
        fixed=fixed,
        format=f"OME-Zarr {version}",
        axes="".join(names).upper() if order == declared else order.upper(),
        voxel_size=None if sizes is None else tuple(sizes[order.index(letter)] for letter in "zyx"),
        notes=notes,
        classes=_classes(node),
        metadata=_own_metadata(node),
        allow_missing_planes=allow_missing_planes,
        files=[node.file, level_node.file],
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
    target = (root / path).resolve() if isinstance(path, str) and "\0" not in path else None
    if target is None or not target.is_relative_to(root) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"path '{path}' leaves the store", where=_metadata_file(node))
    return node.folder / path


def _axis_names(image: Mapping[str, Any]) -> tuple[list[str], list[str | None]]:
    """Names and units of the axes; before 0.4 there were only names, before 0.3 always t, c, z, y, x."""
    axes = image.get("axes", list("tczyx"))
    names = [(axis if isinstance(axis, str) else axis["name"]).lower() for axis in axes]
    return names, [None if isinstance(axis, str) else axis.get("unit") for axis in axes]


def _fixed_axes(
    names: Sequence[str], shape: Sequence[int], channel: int | None, path: str, notes: list[str]
) -> dict[int, int]:
    """The index to read on each axis that is not z, y or x."""
    others = [axis for axis, name in enumerate(names) if name not in ("z", "y", "x")]
    long = [axis for axis in others if shape[axis] != 1]
    fixed = dict.fromkeys(others, 0)
    found = ", ".join(f"{names[axis]} of length {shape[axis]}" for axis in long)
    if len(long) > 1:
        raise DataError(f"has too many axes beside z, y, x: {found}", where=path, do="extract one volume first")
    if not long and channel not in (None, 0):
        raise UsageError(f"there is no channel {channel}: the image has one", where=path)
    if long and channel is None:
        raise DataError(f"has the axis {found}", where=path, do="choose one with --channel, from 0")
    if long and channel is not None:
        fixed[long[0]] = _checked_index(channel, shape[long[0]], names[long[0]], path)
        notes.append(f"index {channel} of the axis {found} is read")
    return fixed


def _checked_index(index: int, length: int, name: str, path: str) -> int:
    if not 0 <= index < length:
        raise UsageError(f"there is no {name} {index}, only 0 to {length - 1}", where=path)
    return index


def _voxel_size(
    image: Mapping[str, Any],
    level: Mapping[str, Any],
    kept: Sequence[int],
    units: Sequence[str | None],
    notes: list[str],
) -> VoxelSize | None:
    """nm along the three kept axes, from the scales of the level and of the image; None if they do not say."""
    scale: list[float] | None = None
    try:
        for transform in [*level.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())]:
            if transform["type"] == "scale" and "scale" in transform:
                factors = [float(transform["scale"][axis]) for axis in kept]
                scale = factors if scale is None else [a * b for a, b in zip(scale, factors, strict=True)]
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        notes.append(f"the voxel size is ignored, because 'coordinateTransformations' is damaged: {error!r}")
        return None
    if scale is None or len(kept) != 3:
        return None
    found = [units[axis] for axis in kept]
    if any(unit not in UNITS_NM for unit in found) or not all(math.isfinite(s) and s > 0 for s in scale):
        if scale != [1.0, 1.0, 1.0]:
            notes.append(f"the voxel size is ignored: scale {scale} in units {found}")
        return None
    z, y, x = (s * UNITS_NM[str(unit)] for s, unit in zip(scale, found, strict=True))
    return z, y, x


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
