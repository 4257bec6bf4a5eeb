"""Volumes that a run makes: names, types, and whether they can be written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.outputs import StrPath, check_space
from gpu_tomoclass.volumes import check_volume_target, is_folder, least_bytes, product_name, volume_names

KNOWN_PRODUCTS = ("labels", "probabilities", "uncertainty")


@dataclass(frozen=True)
class Product:
    """One volume that a run makes.

    Attributes
    ----------
    name : str
        ``"labels"``, ``"probabilities"``, ..; also the name of its store.
    path : str
        Its final name.
    dtype : numpy.dtype
    classes : sequence of LabelClass
    channels : sequence of str
        Planes are then (n_channels, ny, nx).
    """

    name: str
    path: str
    dtype: np.dtype[Any]
    classes: Sequence[LabelClass] = ()
    channels: Sequence[str] = ()

    @property
    def is_zarr(self) -> bool:
        return is_folder(self.path)

    @property
    def paths(self) -> list[str]:
        """The files it becomes: one for each channel where a format holds one image per file."""
        return volume_names(self.path, channels=self.channels)


def products_of(output: str | PathLike[str], classes: Sequence[LabelClass], options: ProductOptions) -> list[Product]:
    """The volumes that a run makes, named after the labels."""
    products = [Product("labels", fspath(output), np.dtype(np.uint8), classes=classes)]
    if options.probabilities:
        names = [c.name for c in classes]
        path = product_name(output, "probabilities")
        products.append(Product("probabilities", path, np.dtype(options.probabilities), channels=names))
    if options.uncertainty:
        products.append(Product("uncertainty", product_name(output, "uncertainty"), np.dtype(np.float32)))
    return products


def check_products(
    products: Sequence[Product],
    *,
    shape: tuple[int, int, int],
    inputs: Iterable[StrPath] = (),
    overwrite: bool = False,
    **format_options: Any,
) -> None:
    """Raise before the first plane what writing the products would raise after the last.

    Raises
    ------
    UsageError
        If a suffix names no format, or a format option does not fit it.
    DataError
        If an output exists and ``overwrite`` is not set.
    ResourceError
        If a folder cannot be written to, or the disk has not the room.
    """
    for product in products:
        check_volume_target(
            product.path,
            dtype=product.dtype,
            shape=shape,
            classes=product.classes,
            channels=product.channels,
            inputs=inputs,
            overwrite=overwrite,
            **format_options,
        )
    if products:  # which lie side by side: together they have to fit
        needed = sum(
            least_bytes(p.path, shape=shape, dtype=p.dtype, classes=p.classes, channels=p.channels) for p in products
        )
        check_space(products[0].path, needed)
