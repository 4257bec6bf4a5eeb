"""Rows of the marked pixels, plane by plane: what a stroke adds is looked up, all else is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError
from gpu_tomoclass.features import FeatureBank, IntensityScale
from gpu_tomoclass.interactive.plane_features import PlaneFeatures
from gpu_tomoclass.training import TrainingRows
from gpu_tomoclass.volumes import Volume

Marked = Mapping[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]


@dataclass(frozen=True)
class _Rows:
    """Rows of the marked pixels of a plane, in raster order."""

    pixels: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    usable: npt.NDArray[np.bool_]


class MarkedRows:
    """Feature values of the marked pixels.

    Parameters
    ----------
    volume : Volume
    bank : FeatureBank
    scale : IntensityScale
    nan : {"error", "fill", "mask"}
        With ``"mask"`` pixels whose value was filled in are left out.
    """

    def __init__(self, volume: Volume, bank: FeatureBank, *, scale: IntensityScale, nan: str) -> None:
        self._volume, self._bank, self._scale, self._nan = volume, bank, scale, nan
        self._rows: dict[int, _Rows] = {}

    def of(
        self,
        marked: Marked,
        classes: tuple[LabelClass, ...],
        *,
        order: Iterable[int],
        features: Callable[[int], PlaneFeatures],
    ) -> TrainingRows:
        """Rows of these marks.

        Parameters
        ----------
        marked : mapping
            By plane: flat positions, which rise, and their classes.
        classes : tuple of LabelClass
        order : iterable of int
            The planes, as their features are to be computed.
        features : callable
            Gives the features of a plane.

        Raises
        ------
        DataError
            If less than two classes have usable pixels.
        """
        for z in order:
            self._rows[z] = self._of_plane(z, marked[z][0], features)
        for z in set(self._rows) - set(marked):
            del self._rows[z]
        planes = sorted(marked)
        usable = {z: self._rows[z].usable for z in planes}
        values = np.concatenate([self._rows[z].values[usable[z]] for z in planes])
        labels = np.concatenate([marked[z][1][usable[z]] for z in planes])
        if np.unique(labels).size < 2:
            raise DataError("training needs two classes with usable pixels", do="mark another class")
        places = np.concatenate(
            [
                np.stack([np.zeros_like(p), np.full_like(p, z), *np.divmod(p, self._volume.shape[2])], axis=1)
                for z, p in ((z, marked[z][0][usable[z]]) for z in planes)
            ]
        )
        return TrainingRows(
            bank=self._bank, classes=classes, values=values, labels=labels, places=places.astype(np.int32),
            samples=[], scale=self._scale, voxel_size=self._volume.voxel_size, sources=[],
        )  # fmt: skip

    def _of_plane(self, z: int, pixels: npt.NDArray[np.int64], features: Callable[[int], PlaneFeatures]) -> _Rows:
        known = self._rows.get(z)
        if known is not None and np.array_equal(known.pixels, pixels):
            return known
        n = pixels.size
        values = np.empty((n, self._bank.n_channels), np.float32)
        usable = np.ones(n, np.bool_)
        new = np.ones(n, np.bool_)
        if known is not None and known.pixels.size:
            at = np.minimum(np.searchsorted(known.pixels, pixels), known.pixels.size - 1)
            new = known.pixels[at] != pixels
            values[~new], usable[~new] = known.values[at[~new]], known.usable[at[~new]]
        if new.any():
            plane = features(z)
            values[new] = plane.rows(pixels[new])
            if self._nan == "mask" and plane.filled is not None:
                usable[new] = ~plane.filled.ravel()[pixels[new]]
        return _Rows(pixels, values, usable)
