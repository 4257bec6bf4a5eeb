"""Probabilities smoothed at a few voxels: the voxels around them, and the weights of a Gaussian over these.

`classify --smooth` smooths whole planes. To judge it on held-out strokes, the forest need only be asked near them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.classification import TRUNCATE, planes_around, sigma_in_voxels
from gpu_tomoclass.training import collect_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from gpu_tomoclass.volumes import Volume


@dataclass(frozen=True)
class SmoothedRows:
    """Rows around the places where smoothed probabilities are wanted.

    Attributes
    ----------
    values : numpy.ndarray
        (n, n_channels) float32, features of the voxels around all places.
    weights : dict of float to scipy.sparse.csr_array
        Of each sigma in nm (n_places, n): rows that sum to 1.
    """

    values: npt.NDArray[np.float32]
    weights: Mapping[float, csr_array]

    @classmethod
    def around(
        cls,
        places: npt.NDArray[np.int32],
        volumes: Sequence[Volume],
        sigmas: Sequence[float],
        **collecting: object,
    ) -> SmoothedRows:
        """Collect the features around places.

        Parameters
        ----------
        places : numpy.ndarray
            (n_places, 4): number of the volume, z, y, x.
        volumes : sequence of Volume
            With voxel sizes.
        sigmas : sequence of float
            In nm, above 0.
        **collecting
            Of :func:`gpu_tomoclass.training.collect_rows`.
        """
        near, weights = _neighbours(places, volumes, sigmas)
        marked, numbers = [], np.unique(near[:, 0])
        for i in numbers:
            z, y, x = near[near[:, 0] == i, 1:].T
            marked.append(
                (volumes[i], Annotation.from_voxels(z, y, x, np.ones(z.size, np.uint8), shape=volumes[i].shape))
            )
        rows = collect_rows(marked, **collecting)  # type: ignore[arg-type]
        found = rows.places.copy()
        found[:, 0] = numbers[found[:, 0]]
        order = np.lexsort(found.T[::-1])
        in_order = found[order]
        # Voxels that are not finite may have been left out.
        keep = np.searchsorted(_keys(near, volumes), _keys(in_order, volumes))
        kept = {}
        for sigma, matrix in weights.items():
            part = matrix[:, keep]
            total = np.asarray(part.sum(axis=1)).ravel()
            kept[sigma] = (part.multiply(1 / np.where(total > 0, total, 1)[:, np.newaxis])).tocsr()
        return cls(rows.values[order], kept)

    def smoothed(
        self,
        which: npt.NDArray[np.intp],
        sigma: float,
        near: npt.NDArray[np.float32],
        *,
        needed: npt.NDArray[np.intp],
    ) -> npt.NDArray[np.float32]:
        """(n_classes, n) probabilities of the :meth:`needed` voxels -> (n_classes, n_which) smoothed."""
        return np.asarray((self.weights[sigma][which][:, needed] @ near.T).T, dtype=np.float32)

    def needed(self, which: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Rows of ``values`` that these places look at with any sigma."""
        return np.unique(np.concatenate([matrix[which].indices for matrix in self.weights.values()]))


def _neighbours(
    places: npt.NDArray[np.int32], volumes: Sequence[Volume], sigmas: Sequence[float]
) -> tuple[npt.NDArray[np.int32], dict[float, csr_array]]:
    """Voxels around places, (n, 4) in raster order, and of each sigma the weights (n_places, n)."""
    from scipy.sparse import csr_array

    # per sigma: place, key of the voxel, weight
    entries: dict[float, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {sigma: [] for sigma in sigmas}
    for i in np.unique(places[:, 0]):
        volume = volumes[i]
        of_volume = np.flatnonzero(places[:, 0] == i)
        depth, height, width = volume.shape
        for sigma in sigmas:
            edges = sigma_in_voxels(sigma, volume.voxel_size)
            reach = [
                planes_around(edges[0]),
                *(int(TRUNCATE * edge + 0.5) for edge in edges[1:]),
            ]  # as SciPy's in planes
            steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 3)
            weight = np.exp(-0.5 * ((steps / np.maximum(edges, 1e-9)) ** 2).sum(axis=1))
            at = places[of_volume, 1:][:, np.newaxis] + steps
            there = (at[..., 0] >= 0) & (at[..., 0] < depth)
            at[..., 1] = at[..., 1].clip(0, height - 1)  # at edges a plane goes on as its last row and column
            at[..., 2] = at[..., 2].clip(0, width - 1)
            which = np.broadcast_to(of_volume[:, np.newaxis], there.shape)[there]
            voxel = np.concatenate([np.full((which.size, 1), i), at[there]], axis=1)
            entries[sigma].append((which, _keys(voxel, volumes), np.broadcast_to(weight, there.shape)[there]))
    keys = np.unique(np.concatenate([found for parts in entries.values() for _, found, _ in parts]))
    weights = {}
    for sigma, parts in entries.items():
        which, found, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
        weights[sigma] = csr_array((weight, (which, np.searchsorted(keys, found))), shape=(len(places), keys.size))
    return np.stack(np.unravel_index(keys, _grid(volumes)), axis=1).astype(np.int32), weights


def _grid(volumes: Sequence[Volume]) -> tuple[int, int, int, int]:
    """Volumes, and the most planes, rows and columns that one of them has."""
    nz, ny, nx = np.max([volume.shape for volume in volumes], axis=0).tolist()
    return len(volumes), nz, ny, nx


def _keys(voxels: np.ndarray, volumes: Sequence[Volume]) -> npt.NDArray[np.int64]:
    """One number per voxel, rising in raster order."""
    return np.ravel_multi_index(tuple(voxels.astype(np.int64).T), _grid(volumes))
