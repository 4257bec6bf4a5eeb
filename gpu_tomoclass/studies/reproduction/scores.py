"""Scores of a way of classifying, and the best thresholds of grey that there can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass import LabelClass
from gpu_tomoclass.labels import Confusion, HaloShare

SPECK = 16  # pixels of the largest speck; the smallest thing in the phantom has 108


class Scores:
    """Scores of labels, filled plane by plane.

    Parameters
    ----------
    classes : sequence of LabelClass
    halo : (solid, background), optional
        Label values, see `gpu_tomoclass.labels.boundaries.HaloShare`.

    Attributes
    ----------
    all, unpainted : Confusion
        Of all pixels, and of those that the operator did not paint.
    halo : HaloShare or None
    specks : int
        See `count_specks`, summed over planes.
    n_planes : int
    """

    def __init__(self, classes: Sequence[LabelClass], *, halo: tuple[int, int] | None = None) -> None:
        self.all, self.unpainted = Confusion(classes), Confusion(classes)
        self.halo = None if halo is None else HaloShare(*halo)
        self.specks = self.n_planes = 0

    def update(
        self,
        truth: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.uint8],
        *,
        painted: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Add a plane: (ny, nx) label values; ``painted`` is 0 where the operator painted nothing."""
        self.all.update(truth, labels)
        self.unpainted.update(truth, labels, mask=None if painted is None else painted == 0)
        if self.halo is not None:
            self.halo.update(truth, labels)
        self.specks += count_specks(labels)
        self.n_planes += 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything as plain numbers, strings and lists."""
        found = self.all.to_dict()
        found["accuracy_unpainted"] = self.unpainted.accuracy
        halo = None if self.halo is None or not self.halo.pixels else self.halo.share
        return {**found, "halo_share": halo, "specks_per_plane": self.specks / max(1, self.n_planes)}


def count_specks(labels: npt.NDArray[np.uint8], *, largest: int = SPECK) -> int:
    """Number of connected regions of one class, diagonally too, have at most ``largest`` pixels: (ny, nx) labels."""
    import cc3d

    found, n = cc3d.connected_components(labels.astype(np.uint16) + 1, connectivity=8, return_N=True)
    sizes = np.bincount(found.ravel(), minlength=n + 1)[1:]
    return int((sizes <= largest).sum())


def class_histograms(
    image: npt.NDArray[Any], truth: npt.NDArray[np.uint8], *, n_classes: int, edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Grey values of each class by the truth: (n_classes, n_bins) counts; values beyond the edges are in the end bins.

    Parameters
    ----------
    image, truth : ndarray
        Of one shape: grey values, and label values 1..n_classes.
    edges : ndarray
        (n_bins + 1,) as of `gpu_tomoclass.baseline.thresholds.GreyHistogram`.
    """
    n_bins = len(edges) - 1
    place = np.searchsorted(edges[1:-1], image, side="right")
    flat = (truth.astype(np.int64) - 1) * n_bins + place
    return np.bincount(flat.ravel(), minlength=n_classes * n_bins).reshape(n_classes, n_bins)


def best_thresholds(histograms: npt.NDArray[np.int64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The global thresholds with which most pixels are right, chosen with the truth: nobody can choose better ones.

    Class k takes the values from threshold k - 1 on and below threshold k. The exact optimum over all sets of edges,
    by dynamic programming: with N_k(t) pixels of class k below edge t, the most right pixels below edge t with k
    classes are F_k(t) = max over s < t of F_(k-1)(s) + N_k(t) - N_k(s). Every class gets at least one bin.

    Parameters
    ----------
    histograms : ndarray
        (n_classes, n_bins) of `class_histograms`, from dark to bright; at least as many bins as classes.
    edges : ndarray
        (n_bins + 1,).

    Returns
    -------
    ndarray
        (n_classes - 1,) ascending edges, for `gpu_tomoclass.baseline.thresholds.threshold_labels`.
    """
    n_classes, n_bins = histograms.shape
    below = np.concatenate([np.zeros((n_classes, 1), np.int64), histograms.cumsum(axis=1)], axis=1)
    most = below[0].copy()
    most[0] = -1  # a class without a bin is none
    choices = []
    for counts in below[1:]:
        start = np.where(most >= 0, most - counts, np.iinfo(np.int64).min)
        so_far = np.maximum.accumulate(start)
        # The first s that reaches the maximum, for every t behind it.
        is_new = np.concatenate([[True], start[1:] > so_far[:-1]])
        first = np.maximum.accumulate(np.where(is_new, np.arange(n_bins + 1), 0))
        choices.append(np.concatenate([[0], first[:-1]]))
        possible = np.concatenate([[False], so_far[:-1] > np.iinfo(np.int64).min])
        most = np.where(possible, np.concatenate([[0], so_far[:-1]]) + counts, -1)
    t, chosen = n_bins, []
    for choice in reversed(choices):
        t = int(choice[t])
        chosen.append(t)
    return edges[np.array(chosen[::-1], np.int64)]
