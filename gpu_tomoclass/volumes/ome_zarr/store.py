"""An OME-Zarr image on disk that is filled plane by plane, in any order, and then gets its coarser levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numcodecs
import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.volumes.ome_zarr.level import BLOSC, Level, Stamp
from gpu_tomoclass.volumes.ome_zarr.metadata import PORTAL_FACTORS, level_factors, ome_metadata, with_versions
from gpu_tomoclass.volumes.ome_zarr.pyramid import Pyramid, means
from gpu_tomoclass.volumes.place import position
from gpu_tomoclass.volumes.volume import VoxelSize

if TYPE_CHECKING:  # half a second, and whoever writes a TIFF needs none of it
    import zarr

TILE = 1024  # pixels; planes up to this size are one chunk
SHARD_PLANES = 32  # of a sharded array: one file holds so many planes
PORTAL_CHUNK = 256  # voxels along each axis
PORTAL_BLOSC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
RUN_BYTES, LEAST_RUN = 2**28, 8  # bytes and number of planes that are written at once to chunks that hold many
OME_VERSIONS = ("0.4", "0.5")


class ZarrStore:
    """One image; made by :meth:`create`, or opened again by :meth:`open`.

    Chunks are one plane thick and compressed by Blosc (Zstandard, bytes shuffled), which every OME-Zarr reader knows;
    version 0.5 adds a CRC-32C to each, version 0.4 has no place for one. Chunks of zeros are written too, so that a
    missing chunk is always a fault. Different planes may be written by several threads or processes, unless the store
    is sharded or made for a portal, where a file holds voxels of many planes.

    The layout of portals is that of the CZ cryoET Data Portal, as mrc2omezarr writes it: version 0.4, chunks of 256^3
    voxels, levels 1x, 2x and 4x, coordinates in angstrom.
    """

    def __init__(self, folder: Path, group: zarr.Group) -> None:
        self.folder, self._group = folder, group
        self._array = _array(group, "0")
        self.has_channels = self._array.ndim == 4
        in_planes = self._array.shards is None and self._array.chunks[-3] == 1
        self._level = Level(folder / "0", self._array) if in_planes else None
        self._is_portal = not in_planes and self._array.shards is None
        self._pyramid: Pyramid | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        name: str,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size: VoxelSize | None = None,
        classes: Sequence[LabelClass] = (),
        channels: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        ome_version: str = "0.4",
        sharded: bool = False,
        portal: bool = False,
    ) -> ZarrStore:
        """An image without voxels, in an empty folder; see
        :class:`gpu_tomoclass.volumes.ome_zarr.writer.ZarrWriter`."""
        import zarr

        origin = position(metadata or {}, voxel_size)
        ome = ome_metadata(name, dtype, voxel_size, classes, channels, origin=origin, in_angstroms=portal)
        zarr_format: Literal[2, 3] = 2 if ome_version == "0.4" else 3
        attributes = _attributes(ome, metadata, zarr_format=zarr_format)
        group = zarr.create_group(folder, zarr_format=zarr_format, attributes=attributes)
        lead = (len(channels),) if channels else ()
        _create_array(group, "0", (*lead, *shape), dtype, sharded=sharded, portal=portal)
        return cls(folder, group)

    @classmethod
    def open(cls, folder: Path) -> ZarrStore:
        """An image that :meth:`create` made, to be filled further."""
        import zarr

        return cls(folder, zarr.open_group(folder, mode="r+"))

    def write(self, start: int, planes: np.ndarray) -> None:
        """Planes ``start`` and following: (n, ny, nx), or (n_channels, n, ny, nx)."""
        if self._level is not None:
            self._level.write(start, planes)
        elif self.has_channels:
            self._array[:, start : start + planes.shape[-3]] = planes
        else:
            self._array[start : start + planes.shape[-3]] = planes

    def begin_pyramid(self, *, nearest: bool, written: np.ndarray) -> None:
        """Coarser levels grow from now on with the planes that :meth:`write_through` writes.

        Parameters
        ----------
        nearest : bool
            See :class:`~gpu_tomoclass.volumes.ome_zarr.pyramid.Pyramid`.
        written : numpy.ndarray
            (nz,) bool: planes that are here already.
        """
        assert self._level is not None
        shape = tuple(int(n) for n in self._array.shape[-3:])
        factors = level_factors(shape)  # type: ignore[arg-type]
        levels, steps = [self._level], []
        for i, (before, factor) in enumerate(itertools.pairwise(factors), start=1):
            steps.append(tuple(f // b for f, b in zip(factor, before, strict=True)))
            finer = levels[-1].shape
            lengths = (-(-n // s) for n, s in zip(finer[-3:], steps[-1], strict=True))
            array = _create_array(self._group, str(i), (*finer[:-3], *lengths), self._array.dtype)
            levels.append(Level(self.folder / str(i), array))
        self._pyramid = Pyramid(levels, steps, nearest=nearest, written=written)

    def write_through(
        self, start: int, planes: np.ndarray, *, stamps: Sequence[Stamp | None] | None = None
    ) -> Sequence[Stamp | None]:
        """Planes ``start`` and following to the disk, and what becomes of them in coarser levels; their stamps.

        What this has written, :func:`gpu_tomoclass.outputs.publish` need not sync: see :attr:`synced`. Planes whose
        ``stamps`` are given are stored already and not written again.
        """
        assert self._level is not None
        assert self._pyramid is not None
        if stamps is None:
            self._level.write(start, planes, sync=True)
            stamps = [self._level.stamp(start + i) for i in range(planes.shape[-3])]
        self._pyramid.add(start, planes, sync=True)
        return stamps

    def stamp(self, z: int) -> Stamp | None:
        """See :meth:`gpu_tomoclass.volumes.ome_zarr.level.Level.stamp`."""
        return None if self._level is None else self._level.stamp(z)

    @property
    def synced(self) -> frozenset[str]:
        """Folders whose content is on disk, whatever happens to the machine."""
        levels = () if self._pyramid is None else self._pyramid.levels
        return frozenset().union(*(level.synced for level in levels))

    def read(self, z: int) -> np.ndarray:
        """Plane z: (ny, nx), or (n_channels, ny, nx)."""
        return np.asarray(self._array[:, z] if self.has_channels else self._array[z])

    def stored(self, z: int) -> np.ndarray:
        """Plane z by our own reader: the library reads a missing chunk as zeros.

        Raises
        ------
        DataError
            If a chunk is missing or damaged.
        """
        assert self._level is not None
        return self._level.read(z)

    def foreign_entries(self) -> list[str]:
        """Names of what lies in the folder of the image and is no part of it."""
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if path.is_symlink() or not (path.name.isdigit() or path.name in (".zgroup", ".zattrs", "zarr.json"))
        )

    def remove_torn_files(self) -> None:
        """Delete what a killed process left half-written; only when no other process writes."""
        for path in self.folder.rglob("*.partial"):
            path.unlink(missing_ok=True)

    def describe(self, name: str, voxel_size: VoxelSize | None, classes: Sequence[LabelClass]) -> None:
        """Other classes of an image without coarser levels."""
        own = self._group.attrs.asdict().get("gpu_tomoclass")
        metadata = own if isinstance(own, dict) else None
        origin = position(metadata or {}, voxel_size)
        ome = ome_metadata(name, self._array.dtype, voxel_size, classes, (), origin=origin)
        self._group.attrs.put(_attributes(ome, metadata, zarr_format=self._group.metadata.zarr_format))

    def add_levels(
        self,
        name: str,
        voxel_size: VoxelSize | None,
        classes: Sequence[LabelClass],
        *,
        channels: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        windows: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        """Write the coarser levels, as far as they are not there, and all metadata."""
        shape = tuple(int(n) for n in self._array.shape[-3:])
        factors = PORTAL_FACTORS if self._is_portal else level_factors(shape)  # type: ignore[arg-type]
        if self._level is None:
            self._add_levels_in_order(factors, nearest=bool(classes))
        else:
            if self._pyramid is None:
                self.begin_pyramid(nearest=bool(classes), written=np.ones(self._array.shape[-3], np.bool_))
            assert self._pyramid is not None
            self._pyramid.finish()
        origin, dtype = position(metadata or {}, voxel_size), self._array.dtype
        how: dict[str, Any] = {"factors": factors, "origin": origin, "windows": windows}
        how["in_angstroms"] = self._is_portal
        ome = ome_metadata(name, dtype, voxel_size, classes, channels, **how)
        self._group.attrs.put(_attributes(ome, metadata, zarr_format=self._group.metadata.zarr_format))

    def _add_levels_in_order(self, factors: Sequence[tuple[int, int, int]], *, nearest: bool) -> None:
        finer = self._array
        for i, (before, factor) in enumerate(itertools.pairwise(factors), start=1):
            step = tuple(f // b for f, b in zip(factor, before, strict=True))
            lead, lengths = finer.shape[:-3], finer.shape[-3:]
            coarse_shape = (*lead, *(-(-n // s) for n, s in zip(lengths, step, strict=True)))
            how = {"sharded": not self._is_portal, "portal": self._is_portal}
            coarse = _create_array(self._group, str(i), coarse_shape, finer.dtype, **how)
            _fill(coarse, finer, step, nearest=nearest)
            finer = coarse


def tile(length: int) -> int:
    """Chunk length along an axis: all of it up to ``TILE``, else equal parts of at most that."""
    return -(-length // -(-length // TILE))


def _attributes(
    ome: dict[str, Any], metadata: Mapping[str, Any] | None, *, zarr_format: Literal[2, 3]
) -> dict[str, Any]:
    attributes = with_versions(ome) if zarr_format == 2 else {"ome": {"version": "0.5", **ome}}
    return attributes | ({"gpu_tomoclass": dict(metadata)} if metadata else {})


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    import zarr

    array = group[name]
    assert isinstance(array, zarr.Array)
    return array.with_config({"write_empty_chunks": True})


def run_planes(shape: Sequence[int], dtype: np.dtype[Any], *, portal: bool) -> int:
    """Planes to write at once to a store whose files hold many; ``shape`` is that of a plane with its channels."""
    if not portal:
        return SHARD_PLANES
    n = PORTAL_CHUNK
    while n > LEAST_RUN and n * math.prod(shape) * dtype.itemsize > RUN_BYTES:
        n //= 2  # a chunk is then written anew for each part of it
    return n


def _create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    sharded: bool = False,
    portal: bool = False,
) -> zarr.Array[Any]:
    lead = tuple(1 for _ in shape[:-3])
    chunks = (*lead, *(PORTAL_CHUNK,) * 3) if portal else (*lead, 1, tile(shape[-2]), tile(shape[-1]))
    options: dict[str, Any] = {
        "shape": shape,
        "chunks": chunks,
        "dtype": dtype,
        "fill_value": 0,
        "filters": None,
        "overwrite": True,
        "config": {"write_empty_chunks": True},
    }
    if group.metadata.zarr_format == 2:
        options["compressors"] = PORTAL_BLOSC if portal else BLOSC
        options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    else:
        from zarr.codecs import BloscCodec, Crc32cCodec

        blosc = BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
        options["compressors"] = [blosc, Crc32cCodec()]
        options["dimension_names"] = ("c", "z", "y", "x")[-len(shape) :]
        if sharded:
            counts = [-(-n // c) for n, c in zip(shape[-2:], chunks[-2:], strict=True)]
            options["shards"] = (*lead, SHARD_PLANES, chunks[-2] * counts[0], chunks[-1] * counts[1])
    return group.create_array(name, **options)


def _fill(coarse: zarr.Array[Any], finer: zarr.Array[Any], step: tuple[int, ...], *, nearest: bool) -> None:
    """Each run of planes of the coarser level from those of the finer one."""
    at_once = SHARD_PLANES
    if coarse.shards is None:
        at_once = run_planes((*finer.shape[:-3], *finer.shape[-2:]), finer.dtype, portal=True) // step[0]
    for start in range(0, coarse.shape[-3], at_once):
        stop = min(start + at_once, coarse.shape[-3])
        source = np.asarray(finer[..., start * step[0] : stop * step[0], :, :])
        coarse[..., start:stop, :, :] = (
            source[..., :: step[0], :: step[1], :: step[2]] if nearest else means(source, step)
        )
