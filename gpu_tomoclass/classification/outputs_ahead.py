"""The outputs of a run, made while planes pass, so that little is left to do after the last plane.

Nothing depends on it: the stores and the journal say what is finished, an interruption throws away what was made ahead
(a store's coarser levels, a TIFF or MRC file under its hidden name), and what could not be made ahead is made at the
end from the stores, with an error if it still cannot be.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gpu_tomoclass.classification.plane_file import PlaneFile
from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.errors import TomoclassError
from gpu_tomoclass.volumes import Stamp, VolumeWriter, ZarrStore


class OutputsAhead:
    """Outputs under way; planes come in any order and from several threads.

    Parameters
    ----------
    products : sequence of Product
    stores : mapping
        The store of each product that has not its final name yet; one of Zarr becomes the output.
    done : numpy.ndarray
        (nz,) bool: planes that an interrupted run has stored.
    create : callable
        Begins the final file of a product.
    """

    def __init__(
        self,
        products: Sequence[Product],
        stores: Mapping[str, ZarrStore | PlaneFile],
        *,
        done: np.ndarray,
        create: Callable[[Product], VolumeWriter],
    ) -> None:
        self._lock = threading.Lock()
        self._stores: dict[str, ZarrStore] = {}
        self._stamps: dict[str, dict[int, Stamp | None]] = {}
        self._files: dict[str, VolumeWriter] = {}
        self._written = {product.name: np.zeros(done.size, np.bool_) for product in products}
        for product in products:
            store = stores.get(product.name)
            if isinstance(store, ZarrStore):
                store.begin_pyramid(nearest=bool(product.classes), written=done)
                self._stores[product.name], self._stamps[product.name] = store, {}
            elif store is not None and not product.is_zarr:  # a sharded store is written in rising order, at the end
                with contextlib.suppress(TomoclassError):  # the end says why it cannot be written
                    self._files[product.name] = create(product)

    def makes(self, product: str) -> bool:
        """Tell whether planes of the product need not be put into its store before: :meth:`add` does it."""
        return product in self._stores

    def stamps(self, product: str, start: int, n: int) -> list[Stamp | None]:
        """Of planes that are in the store, to be taken before these are read; see :meth:`add`."""
        store = self._stores.get(product)
        return [None if store is None else store.stamp(start + i) for i in range(n)]

    def add(
        self, product: str, start: int, planes: np.ndarray, *, stamps: Sequence[Stamp | None] | None = None
    ) -> None:
        """Planes ``start`` and following: (n, ny, nx), or (n_channels, n, ny, nx).

        ``stamps`` are given of planes that are in the store already.
        """
        if (store := self._stores.get(product)) is not None:
            stamps = store.write_through(start, planes, stamps=stamps)
            with self._lock:
                self._stamps[product].update(enumerate(stamps, start))
        elif (file := self._files.get(product)) is not None:
            try:
                for i in range(planes.shape[-3]):
                    file.write_plane(start + i, planes[..., i, :, :])
                    self._written[product][start + i] = True
            except (TomoclassError, OSError, ValueError):  # a full disk; ValueError: another thread has closed the file
                self._drop(product)

    def is_unchanged(self, product: str, z: int) -> bool:
        """Tell whether the store still holds plane z as it was when its checksum was compared."""
        stamp = self._stamps.get(product, {}).get(z)
        return stamp is not None and stamp == self._stores[product].stamp(z)

    def file(self, product: str) -> tuple[VolumeWriter | None, np.ndarray]:
        """The file under way, which is the caller's now, and which planes (nz,) it holds."""
        with self._lock:
            file = self._files.pop(product, None)
        return file, self._written[product] if file is not None else np.zeros_like(self._written[product])

    def discard(self) -> None:
        """Throw away files that were not finished."""
        for product in list(self._files):
            self._drop(product)

    def _drop(self, product: str) -> None:
        file, _ = self.file(product)
        if file is not None:
            with contextlib.suppress(OSError):
                file.discard()
