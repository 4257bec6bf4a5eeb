"""Products that have their final names, read as their planes were written."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.volumes import open_volume


def checksum(plane: np.ndarray) -> int:
    """CRC-32 of the values of a plane, the same on every machine."""
    little = plane.astype(plane.dtype.newbyteorder("<"), copy=False)
    return zlib.crc32(np.ascontiguousarray(little).data)


class FinishedFiles:
    """Files that have the final names of a product, read as its planes were written."""

    def __init__(self, product: Product, *, only: Sequence[str] | None = None) -> None:
        self._product = product
        self._stack = contextlib.ExitStack()
        names = product.paths
        places: list[tuple[str, int | None]] = [(path, None) for path in names]
        if len(names) == 1 and product.channels:
            places = [(names[0], channel) for channel in range(len(product.channels))]
        self._chosen = [i for i, (path, _) in enumerate(places) if only is None or path in only]
        self._places = [places[i] for i in self._chosen]

    def __enter__(self) -> FinishedFiles:
        with self._stack:
            self._volumes = [
                self._stack.enter_context(open_volume(path, channel=channel)) for path, channel in self._places
            ]
            shapes = {volume.shape for volume in self._volumes}
            self.shape = shapes.pop() if len(shapes) == 1 else (0, 0, 0)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def plane(self, z: int) -> np.ndarray:
        """(ny, nx), or (n_channels, ny, nx)."""
        planes = self._planes(z)
        return np.stack(planes) if self._product.channels else planes[0]

    def channel_checksums(self, z: int) -> list[int]:
        return [checksum(plane) for plane in self._planes(z)]

    def _planes(self, z: int) -> list[np.ndarray]:
        dtype = self._product.dtype
        return [volume.plane(z).astype(dtype, copy=False) for volume in self._volumes]  # MRC has no uint8

    def channel_checksums_of(self, plane: np.ndarray) -> list[int]:
        """Those of a plane of the product, for the channels that are here."""
        return [checksum(plane[i]) for i in self._chosen] if self._product.channels else [checksum(plane)]
