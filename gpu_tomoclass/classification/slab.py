"""Slabs of finished planes, and the options of what is made of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

UNLABELLED = 0
PROBABILITIES = ("float32", "uint8")
UNCERTAINTIES = ("margin", "entropy")


@dataclass(frozen=True)
class ProductOptions:
    """Options of what is made of every plane, beside the labels.

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
        """Tell whether labels alone are not enough."""
        return bool(self.probabilities or self.uncertainty or self.smooth)

    @property
    def needs_bytes_only(self) -> bool:
        """Tell whether nothing is made of the probabilities but bytes."""
        return self.probabilities == "uint8" and not (self.uncertainty or self.smooth)


@dataclass(frozen=True)
class Slab:
    """Finished planes ``start`` and following: for each product (n, ny, nx), or (n_channels, n, ny, nx)."""

    start: int
    values: Mapping[str, np.ndarray]
    notes: Sequence[str] = ()

    @property
    def stop(self) -> int:
        return self.start + next(iter(self.values.values())).shape[-3]
