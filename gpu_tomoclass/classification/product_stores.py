"""The stores of a run's products, to which planes are written in any order; one per product.

A store becomes the output itself where that is OME-Zarr, else it is a :class:`PlaneFile` and goes when the output is
there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classification.finished_files import FinishedFiles, checksum
from gpu_tomoclass.classification.plane_file import SUFFIX, PlaneFile
from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.classification.run_folder import UNFINISHED
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.errors import DataError, TomoclassError
from gpu_tomoclass.outputs import discard
from gpu_tomoclass.volumes import ZarrStore


class ProductStores(dict[str, ZarrStore | PlaneFile]):
    """Open stores in the folder of a run, by the names of their products.

    Parameters
    ----------
    folder : pathlib.Path
    products : sequence of Product
        Those that have their final names already have no store any more.
    in_order : bool
        Whether outputs of Zarr are written plane after plane: they are no place for planes in any order.
    """

    def __init__(self, folder: Path, products: Sequence[Product], *, in_order: bool) -> None:
        super().__init__()
        self._folder, self._products, self._in_order = folder, products, in_order

    def place(self, product: Product) -> Path:
        """Of the product's store."""
        becomes_output = product.is_zarr and not self._in_order
        return self._folder / (product.name if becomes_output else product.name + SUFFIX)

    def create(self, shape: tuple[int, int, int], **how: Any) -> None:
        """Make an empty store for every product.

        Parameters
        ----------
        shape : tuple of int
            (nz, ny, nx).
        **how
            ``voxel_size`` (z, y, x) in nm, ``metadata`` and ``ome_version``, for :meth:`ZarrStore.create`.
        """
        for product in self._products:
            self[product.name] = self._made(product, self.place(product), shape, **how)

    def restore(self, shape: tuple[int, int, int], *, done: np.ndarray, **how: Any) -> None:
        """As :meth:`create`, for the products without a store: planes that are ``done``, (nz,) bool, come from the
        files with the product's final names. Each store appears whole or not at all."""
        for product in self._products:
            if product.name in self:
                continue
            place = self.place(product)
            unfinished = place.with_name(place.name + UNFINISHED)
            discard(unfinished)
            store = self._made(product, unfinished, shape, **how)
            with FinishedFiles(product) as volume:
                for z in np.flatnonzero(done).tolist():
                    store.write(z, volume.plane(z)[..., None, :, :])
            os.rename(unfinished, place)
            self[product.name] = open_store(self._folder, place.name)

    def _made(self, product: Product, place: Path, shape: tuple[int, int, int], **how: Any) -> ZarrStore | PlaneFile:
        if self.place(product).suffix == SUFFIX:
            return PlaneFile.create(place, plane=shape[1:], dtype=product.dtype, n_channels=len(product.channels))
        place.mkdir()
        return ZarrStore.create(
            place,
            name=Path(product.path).name,
            shape=shape,
            dtype=product.dtype,
            classes=product.classes,
            channels=product.channels,
            **how,
        )

    def open(self) -> None:
        """Open what an interrupted run has left.

        Raises
        ------
        DataError
            If a store is damaged.
        """
        for product in self._products:
            place = self.place(product)
            if not place.exists():
                continue
            try:
                if place.is_symlink():
                    raise DataError("it is a symbolic link", where=place)
                store = self[product.name] = open_store(self._folder, place.name)
            except Exception as error:
                raise DataError(
                    f"the interrupted run is damaged: {error}", where=place, do="use --restart to begin anew"
                ) from error
            if isinstance(store, ZarrStore):
                store.remove_torn_files()

    def stored(self, product: str, z: int) -> np.ndarray | None:
        """A plane of a store; None where it is missing or damaged."""
        store = self[product]
        try:
            return store.stored(z) if isinstance(store, ZarrStore) else store.read(z)
        except (TomoclassError, OSError):
            return None

    def stored_checksum(self, product: str, z: int) -> int | None:
        """The checksum of a plane of a store; None where the plane is missing or damaged."""
        plane = self.stored(product, z)
        return None if plane is None else checksum(plane)


def open_store(folder: str | PathLike[str], name: str) -> ZarrStore | PlaneFile:
    """The store of a product in the folder of a run: ``labels``, or ``labels.planes``."""
    path = Path(folder, name)
    return PlaneFile(path) if path.suffix == SUFFIX else ZarrStore.open(path)


def store_slab(stores: Mapping[str, ZarrStore | PlaneFile], slab: Slab) -> dict[str, list[int]]:
    """Write the planes of a slab to the store of each product; the checksum of each plane of each product."""
    for name, values in slab.values.items():
        stores[name].write(slab.start, values)
    return checksums(slab)


def checksums(slab: Slab) -> dict[str, list[int]]:
    """The checksum of each plane of each product."""
    return {
        name: [checksum(values[..., i, :, :]) for i in range(values.shape[-3])] for name, values in slab.values.items()
    }
