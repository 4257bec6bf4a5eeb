"""Writing a volume as OME-Zarr 0.4 (Zarr version 2) or 0.5 (version 3), one chunk thick per plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from gpu_tomoclass.classes import PALETTE, LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.io.partial import commit, discard, prepare_target, writing
from gpu_tomoclass.volume import VolumeWriter, VoxelSize

TILE = 1024  # pixels; planes up to this size are one chunk


class ZarrWriter(VolumeWriter):
    """Writes an OME-Zarr image (axes z, y, x, or c, z, y, x), full resolution only.

    Chunks are compressed by Blosc (Zstandard, bytes shuffled), which every OME-Zarr reader knows; version 0.5 adds a
    CRC-32C to each, version 0.4 has no place for one. Chunks of zeros are written too, so that a missing chunk is
    always a fault. Planes may be written in any order, and by several threads.

    Parameters
    ----------
    path : str or path
        Folder, usually ``*.ome.zarr``.
    shape : tuple of int
        (nz, ny, nx).
    dtype : dtype
        Any integer or float.
    voxel_size : tuple of float or None
        (z, y, x) in nm.
    classes : sequence of LabelClass
        Names and colours, as ``image-label`` metadata.
    channels : sequence of str
        Names, or none; with channels, planes are (n_channels, ny, nx).
    metadata : mapping
        JSON, kept as the attribute ``gpu_tomoclass`` of the image.
    overwrite : bool
    ome_version : {"0.4", "0.5"}

    Raises
    ------
    UsageError
        If ``ome_version`` or ``dtype`` is not one of these.
    DataError, ResourceError
        As :func:`~gpu_tomoclass.io.partial.prepare_target`.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any] | type | str,
        voxel_size: VoxelSize | None = None,
        classes: Sequence[LabelClass] = (),
        channels: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        ome_version: str = "0.4",
    ) -> None:
        self.path, self.shape = fspath(path), shape
        self._dtype, self._channels = np.dtype(dtype).newbyteorder("="), tuple(channels)
        if ome_version not in ("0.4", "0.5"):
            raise UsageError(f"OME-Zarr version {ome_version!r} cannot be written, only 0.4 and 0.5", where=path)
        if self._dtype.kind not in "iuf" or self._dtype.itemsize > 8:
            raise UsageError(f"Zarr volumes hold integers and floats, not {self._dtype}", where=path)
        ome = _ome_metadata(Path(path).name, shape, self._dtype, voxel_size, classes, self._channels)
        self._written = np.zeros(shape[0], bool)
        self._temporary = prepare_target(path, overwrite=overwrite, folder=True)
        try:
            with writing(path):
                self._array = self._create(ome, dict(metadata or {}), ome_version)
        except BaseException:
            self.discard()
            raise

    def _create(self, ome: dict[str, Any], metadata: dict[str, Any], ome_version: str) -> zarr.Array[Any]:
        lead = (len(self._channels),) if self._channels else ()
        options: dict[str, Any] = {
            "shape": (*lead, *self.shape),
            "chunks": (*(1 for _ in lead), 1, tile(self.shape[1]), tile(self.shape[2])),
            "dtype": self._dtype,
            "fill_value": 0,
            "filters": None,
            "config": {"write_empty_chunks": True},
        }
        if ome_version == "0.4":
            options["compressors"] = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
            options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
            attributes = _with_versions(ome)
        else:
            blosc = BloscCodec(typesize=self._dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
            options["compressors"] = [blosc, Crc32cCodec()]
            options["dimension_names"] = [axis["name"] for axis in ome["multiscales"][0]["axes"]]
            attributes = {"ome": {"version": "0.5", **ome}}
        group = zarr.create_group(
            self._temporary,
            zarr_format=2 if ome_version == "0.4" else 3,
            attributes=attributes | ({"gpu_tomoclass": metadata} if metadata else {}),
        )
        return group.create_array("0", **options)

    def write_plane(self, z: int, plane: np.ndarray) -> None:
        """Write plane z: (ny, nx), or (n_channels, ny, nx) with channels."""
        lead = (len(self._channels),) if self._channels else ()
        expected = (*lead, *self.shape[1:])
        if plane.shape != expected or plane.dtype.newbyteorder("=") != self._dtype:
            raise UsageError(f"plane {z} is {plane.dtype} {plane.shape}, not {self._dtype} {expected}", where=self.path)
        if not 0 <= z < self.shape[0]:
            raise UsageError(f"there is no plane {z}, only 0 to {self.shape[0] - 1}", where=self.path)
        with writing(self.path):
            if self._channels:
                self._array[:, z] = plane
            else:
                self._array[z] = plane
        self._written[z] = True

    def finish(self) -> None:
        """Check that every plane was written, sync and rename."""
        missing = np.flatnonzero(~self._written)
        if missing.size:
            self.discard()
            raise UsageError(
                f"{missing.size} of {self.shape[0]} planes were not written, the first is {missing[0]}", where=self.path
            )
        commit(self._temporary, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        discard(self._temporary)


def tile(length: int) -> int:
    """Chunk length along an axis: all of it up to ``TILE``, else equal parts of at most that."""
    return -(-length // -(-length // TILE))


def _ome_metadata(
    name: str,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    voxel_size: VoxelSize | None,
    classes: Sequence[LabelClass],
    channels: Sequence[str],
) -> dict[str, Any]:
    """``multiscales``, ``image-label`` and ``omero`` without versions."""
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if channels else []
    for letter in "zyx":
        axes.append({"name": letter, "type": "space"} | ({"unit": "nanometer"} if voxel_size else {}))
    scale = [1.0] * len(channels[:1]) + [float(s) for s in voxel_size or (1, 1, 1)]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    ome: dict[str, Any] = {"multiscales": [{"name": name.split(".")[0] or name, "axes": axes, "datasets": [level]}]}
    if classes:
        # 0 is no class: transparent, so that viewers do not choose a colour for it.
        colours = [{"label-value": 0, "rgba": [0, 0, 0, 0]}]
        colours += [{"label-value": c.value, "rgba": [*c.colour, 255]} for c in classes]
        properties = [{"label-value": 0, "class": "unlabelled"}]
        properties += [{"label-value": c.value, "class": c.name} for c in classes]
        ome["image-label"] = {"colors": colours, "properties": properties}
    if channels:
        top = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
        window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
        ome["omero"] = {
            "channels": [
                {"label": label, "active": True, "color": "{:02X}{:02X}{:02X}".format(*colour), "window": window}
                for label, colour in zip(channels, _cycle(PALETTE, len(channels)), strict=True)
            ]
        }
    return ome


def _with_versions(ome: Mapping[str, Any]) -> dict[str, Any]:
    """Version 0.4 of each part, which from 0.5 on stands once above them."""
    out = dict(ome)
    out["multiscales"] = [{"version": "0.4", **image} for image in ome["multiscales"]]
    for part in ("image-label", "omero"):
        if part in ome:
            out[part] = {"version": "0.4", **ome[part]}
    return out


def _cycle(colours: Sequence[tuple[int, int, int]], n: int) -> list[tuple[int, int, int]]:
    return [colours[i % len(colours)] for i in range(n)]
