"""Writing a volume as OME-Zarr 0.4 (Zarr version 2) or 0.5 (version 3), with a pyramid of coarser levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import atomic, check_space, writing
from gpu_tomoclass.volumes.ome_zarr.store import OME_VERSIONS, ZarrStore, run_planes
from gpu_tomoclass.volumes.ranges import ChannelRanges
from gpu_tomoclass.volumes.volume import VolumeWriter, VoxelSize

# By how much Blosc may shrink planes: labels of large even areas 200-fold, grey values (where a channel hardly changes)
# 20-fold.
LABELS_SHRINK, GREYS_SHRINK = 200, 20


class ZarrWriter(VolumeWriter):
    """Writes an OME-Zarr image (axes z, y, x, or c, z, y, x); see
    :class:`gpu_tomoclass.volumes.ome_zarr.store.ZarrStore`.

    Planes may be written in any order, and by several threads; with ``sharded`` or ``portal`` in rising order by one
    thread.

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
    inputs : sequence of str
        See :func:`gpu_tomoclass.outputs.atomic`.
    ome_version : {"0.4", "0.5"}
    sharded : bool
        Only 0.5: one file holds the chunks of 32 planes, for file systems that dislike many files.
    portal : bool
        Only 0.4: chunks of 256^3 voxels, levels 1x, 2x, 4x, coordinates in angstrom, as on the CZ cryoET Data Portal.

    Raises
    ------
    UsageError
        If ``ome_version``, ``sharded``, ``portal`` or ``dtype`` is not one of these.
    DataError, ResourceError
        As :func:`~gpu_tomoclass.outputs.atomic`.
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
        inputs: Sequence[str] = (),
        ome_version: str = "0.4",
        sharded: bool = False,
        portal: bool = False,
    ) -> None:
        self.path, self.shape = fspath(path), shape
        self._dtype, self._channels = np.dtype(dtype).newbyteorder("="), tuple(channels)
        self._voxel_size, self._classes, self._metadata = voxel_size, tuple(classes), dict(metadata or {})
        self.check(path, dtype=self._dtype, ome_version=ome_version, sharded=sharded, portal=portal)
        self._written = np.zeros(shape[0], bool)
        self._ranges = ChannelRanges(len(channels))
        self._run: list[np.ndarray] | None = [] if sharded or portal else None  # planes that are being collected
        lead = (len(channels),) if channels else ()
        self._at_once = run_planes((*lead, *shape[1:]), self._dtype, portal=portal)
        least = self.least_bytes(
            shape=shape, dtype=self._dtype, n_channels=max(1, len(channels)), is_labels=bool(classes)
        )
        check_space(path, least)
        self._output = atomic(path, inputs=inputs, overwrite=overwrite, folder=True)
        try:
            with writing(path):
                self._store = ZarrStore.create(
                    self._output.temporary,
                    name=Path(path).name,
                    shape=shape,
                    dtype=self._dtype,
                    voxel_size=voxel_size,
                    classes=classes,
                    channels=self._channels,
                    metadata=metadata,
                    ome_version=ome_version,
                    sharded=sharded,
                    portal=portal,
                )
        except BaseException:
            self.discard()
            raise

    @classmethod
    def check(
        cls, path: str | PathLike[str], *, dtype: np.dtype[Any], classes: Sequence[LabelClass] = (), **options: Any
    ) -> None:
        ome_version = options.get("ome_version", "0.4")
        if ome_version not in OME_VERSIONS:
            raise UsageError(f"OME-Zarr version {ome_version!r} cannot be written, only 0.4 and 0.5", where=path)
        if options.get("sharded") and ome_version == "0.4" and not options.get("portal"):
            raise UsageError("OME-Zarr 0.4 has no shards", where=path, do="write version 0.5")
        if options.get("portal") and ome_version != "0.4":
            raise UsageError("portals keep OME-Zarr 0.4, without shards", where=path, do="leave the other options out")
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise UsageError(f"Zarr volumes hold integers and floats, not {dtype}", where=path)

    @classmethod
    def least_bytes(
        cls, *, shape: tuple[int, int, int], dtype: np.dtype[Any], n_channels: int = 1, is_labels: bool = False
    ) -> int:
        """Compressed as far as can be hoped for: a disk that has less is surely too small."""
        n_bytes = super().least_bytes(shape=shape, dtype=dtype, n_channels=n_channels)
        return n_bytes // (LABELS_SHRINK if is_labels else GREYS_SHRINK)

    def write_plane(self, z: int, plane: np.ndarray) -> None:
        """Write plane z: (ny, nx), or (n_channels, ny, nx) with channels."""
        lead = (len(self._channels),) if self._channels else ()
        expected = (*lead, *self.shape[1:])
        if plane.shape != expected or plane.dtype.newbyteorder("=") != self._dtype:
            raise UsageError(f"plane {z} is {plane.dtype} {plane.shape}, not {self._dtype} {expected}", where=self.path)
        if not 0 <= z < self.shape[0]:
            raise UsageError(f"there is no plane {z}, only 0 to {self.shape[0] - 1}", where=self.path)
        self._ranges.add(plane)
        if self._run is None:
            self._write(z, [plane])
        else:
            self._collect(z, plane)
        self._written[z] = True

    def _write(self, start: int, planes: Sequence[np.ndarray]) -> None:
        with writing(self.path):
            self._store.write(start, np.stack(planes, axis=-3))

    def _collect(self, z: int, plane: np.ndarray) -> None:
        assert self._run is not None
        if z != int(self._written.sum()):
            raise UsageError(f"plane {z} comes out of order", where=self.path)
        self._run.append(plane.copy())
        if len(self._run) == self._at_once or z == self.shape[0] - 1:
            self._write(z + 1 - len(self._run), self._run)
            self._run.clear()

    def finish(self) -> None:
        """Check that every plane was written, add the coarser levels, sync and rename."""
        missing = np.flatnonzero(~self._written)
        if missing.size:
            self.discard()
            raise UsageError(
                f"{missing.size} of {self.shape[0]} planes were not written, the first is {missing[0]}", where=self.path
            )
        try:
            with writing(self.path):
                self._store.add_levels(
                    Path(self.path).name,
                    self._voxel_size,
                    self._classes,
                    channels=self._channels,
                    metadata=self._metadata,
                    windows=self._ranges.shown(),
                )
        except BaseException:
            self.discard()
            raise
        self._output.commit()

    def discard(self) -> None:
        """Remove what was written."""
        self._output.discard()
