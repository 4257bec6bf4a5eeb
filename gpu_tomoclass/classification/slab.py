"""Products of a run, and slabs of finished planes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.outputs import StrPath
from gpu_tomoclass.volumes import check_volume_target, is_folder, product_name, volume_names

UNLABELLED = 0
PROBABILITIES = ("float32", "uint8")
UNCERTAINTIES = ("margin", "entropy")


@dataclass(frozen=True)
class Wanted:
    """Products wanted beside the labels.

    Attributes
    ----------
    probabilities : {None, "float32", "uint8"}
        uint8: 255 times the probability, rounded.
    uncertainty : {None, "margin", "entropy"}
        float32 from 0 (certain) to 1: one minus the lead of the best class over the second; or the entropy of the
        probabilities divided by its largest value, log(n_classes).
    smooth : float, optional
        Sigma in nm of a Gaussian over the probabilities, in three dimensions, before labels and anything else is made
        of them; see :mod:`gpu_tomoclass.classification.smoothing`.
    mask_filled : bool
        Unlabel every pixel whose filters looked at a filled voxel.
    """

    probabilities: str | None = None
    uncertainty: str | None = None
    smooth: float | None = None
    mask_filled: bool = False

    @property
    def needs_probabilities(self) -> bool:
        """Whether labels alone are not enough."""
        return bool(self.probabilities or self.uncertainty or self.smooth)


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


def products_of(output: str | PathLike[str], classes: Sequence[LabelClass], wanted: Wanted) -> list[Product]:
    """The volumes that a run makes, named after the labels."""
    products = [Product("labels", fspath(output), np.dtype(np.uint8), classes=classes)]
    if wanted.probabilities:
        names = [c.name for c in classes]
        path = product_name(output, "probabilities")
        products.append(Product("probabilities", path, np.dtype(wanted.probabilities), channels=names))
    if wanted.uncertainty:
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


@dataclass(frozen=True)
class Slab:
    """Finished planes ``start`` and following: for each product (n, ny, nx), or (n_channels, n, ny, nx)."""

    start: int
    values: Mapping[str, np.ndarray]
    notes: Sequence[str] = ()

    @property
    def stop(self) -> int:
        return self.start + next(iter(self.values.values())).shape[-3]
