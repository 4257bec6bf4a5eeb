"""Ranking of patches of planes by what a forest would learn from a stroke on them.

A patch is worth a stroke when the forest is unsure in it, when nothing like it was marked, and when much of the volume
is like it. All three are in one figure: what marking a patch says about every other patch, weighted by how unsure the
forest is there, minus what the marked ones say already. Patches are taken one after the other, each the best beside
those before it, so they spread over what is different. (Facility location, a submodular function, whose greedy maximum
is at least 63 % of the best.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.forest import Forest
from gpu_tomoclass.training.drift import question_weights

PATCH = 24  # pixels; about what a person marks at a time
N_CHANNELS = 24  # that describe a patch: those that the forest asks most
MARKED_PIXELS = 5  # in a patch that counts as marked
MOST_PATCHES = 3000  # compared with each other; of more, every so many-th


@dataclass(frozen=True)
class Patch:
    """Part of a plane.

    Attributes
    ----------
    z, y, x : int
        Plane, first row and column.
    uncertainty : float
        Mean of one minus the lead of the best class over the second.
    marked : bool
        Whether a stroke is on it.
    described : numpy.ndarray
        (n,) float32: numbers that are alike where patches are.
    probabilities : numpy.ndarray
        (n_classes,) float32, means.
    """

    z: int
    y: int
    x: int
    uncertainty: float
    marked: bool
    described: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class RankedPatch:
    """A patch with its novelty, 0..1, and the share of patches that are more like it than not."""

    patch: Patch
    novelty: float
    alike: float


class Description:
    """Channels of a pixel as numbers that compare: where they lie among those of the training planes.

    Parameters
    ----------
    forest : Forest
        The channels that it asks most describe a patch.
    quantiles : numpy.ndarray, optional
        (n_channels, n_levels), rising: the channels on the training planes; without them those of each plane count.

    Attributes
    ----------
    channels : numpy.ndarray
        Their numbers.
    """

    def __init__(self, forest: Forest, *, quantiles: np.ndarray | None = None) -> None:
        weight = np.bincount(
            np.maximum(forest.feature, 0), weights=question_weights(forest), minlength=forest.n_features
        )
        self.channels = np.argsort(-weight, kind="stable")[:N_CHANNELS]
        self._known = None if quantiles is None else quantiles[self.channels]

    def __call__(self, channels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, ny, nx) -> 0..1."""
        result = np.empty(channels.shape, np.float32)
        for i, values in enumerate(channels):
            known = np.quantile(values, np.linspace(0, 1, 33)) if self._known is None else self._known[i]
            result[i] = np.interp(values, known, np.linspace(0, 1, len(known)))
        return result


def patches_of_plane(
    z: int,
    unsure: npt.NDArray[np.floating],
    p: npt.NDArray[np.float32],
    described: npt.NDArray[np.float32],
    marks: npt.NDArray[np.bool_],
    inside: npt.NDArray[np.bool_] | None,
    *,
    size: int,
) -> list[Patch]:
    """Divide plane ``z`` into patches.

    Parameters
    ----------
    z : int
    unsure : numpy.ndarray
        (ny, nx), 0..1.
    p : numpy.ndarray
        (n_classes, ny, nx), probabilities, or 1 where a class is found.
    described : numpy.ndarray
        (n, ny, nx) of a :class:`Description`.
    marks : numpy.ndarray
        (ny, nx) bool, where strokes are.
    inside : numpy.ndarray or None
        (ny, nx) bool; a patch of which less than half counts is left out.
    size : int
        Edge of a patch.
    """
    ny, nx = marks.shape
    found = []
    for y in range(0, ny - size + 1, size):
        for x in range(0, nx - size + 1, size):
            box = np.s_[..., y : y + size, x : x + size]
            if inside is not None and inside[box].mean() < 0.5:
                continue
            own = p[box].mean(axis=(1, 2))
            numbers = np.concatenate([described[box].mean(axis=(1, 2)), described[box].std(axis=(1, 2)), 2 * own])
            marked = int(marks[box].sum()) >= MARKED_PIXELS
            found.append(Patch(z, y, x, float(unsure[box].mean()), marked, numbers.astype(np.float32), own))
    return found


def ranked_patches(patches: Sequence[Patch], *, n: int, by_plane: bool, candidates: set[int]) -> list[RankedPatch]:
    """The patches (or one of each plane) that say most about all others, each beside those before it."""
    free = [p for p in patches if p.z in candidates and not p.marked]
    free = free[:: max(1, -(-len(free) // MOST_PATCHES))]
    if not free:
        return []
    described = np.stack([p.described for p in free])
    distance = _distances(described, described)
    scale = float(np.median(distance)) or 1.0
    like = np.exp(-2 * distance / scale)
    unsure = np.array([p.uncertainty for p in free])
    covered = np.zeros(len(free))
    marked = [p.described for p in patches if p.marked]
    if marked:
        covered = np.exp(-2 * _distances(described, np.stack(marked)) / scale).max(axis=1)
    groups = np.unique([p.z for p in free], return_inverse=True)[1] if by_plane else np.arange(len(free))
    open_ = np.ones(len(free), np.bool_)
    found: list[RankedPatch] = []
    while open_.any() and len(found) < n:
        says = np.maximum(like - covered[np.newaxis], 0) @ unsure * unsure
        if by_plane:  # what all of a plane's patches say together
            together = [
                np.maximum(like[groups == g].max(axis=0) - covered, 0) @ unsure for g in range(groups.max() + 1)
            ]
            total = np.where(open_, np.array(together)[groups], -1)
            best = np.flatnonzero(total == total.max())
            chosen = int(best[np.argmax(says[best])])
        else:
            chosen = int(np.argmax(np.where(open_, says, -1)))
        found.append(RankedPatch(free[chosen], float(1 - covered[chosen]), float((like[chosen] > 0.5).mean())))
        taken = groups == groups[chosen]
        covered = np.maximum(covered, like[taken].max(axis=0))
        open_ &= ~taken
    return found


def _distances(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Squared, (n_a, n_b)."""
    squares = (a.astype(np.float64) ** 2).sum(axis=1)[:, None] + (b.astype(np.float64) ** 2).sum(axis=1)[None]
    return np.maximum(squares - 2 * a.astype(np.float64) @ b.astype(np.float64).T, 0)
