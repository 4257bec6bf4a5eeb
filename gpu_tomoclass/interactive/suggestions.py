"""Where to mark next, among planes that are classified already: the ranking is that of ``suggest``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.training import PATCH, Patch, patches_of_plane, ranked_patches

MOST = 500  # patches that are compared


@dataclass(frozen=True)
class Suggestion:
    """A place worth a stroke.

    Attributes
    ----------
    z, y, x : int
        The middle of the patch.
    uncertainty : float
        Mean over the patch: 0 where the forest is sure, 1 where two classes have the same probability.
    """

    z: int
    y: int
    x: int
    uncertainty: float


def patch_size(shape: tuple[int, ...]) -> int:
    """Edge of a patch: what a person marks at a time, less where a plane (.., ny, nx) would have fewer than 8 x 8."""
    return min(PATCH, max(4, min(shape[-2:]) // 8))


def patches_to_mark(
    z: int,
    uncertainty: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    described: npt.NDArray[np.float32],
    marked: npt.NDArray[np.bool_],
    *,
    values: Sequence[int],
) -> list[Patch]:
    """Patches of a classified plane, for :func:`suggest_places`.

    Parameters
    ----------
    z : int
    uncertainty, labels : numpy.ndarray
        (ny, nx), as of an overlay.
    described : numpy.ndarray
        (n, ny, nx) of a :class:`~gpu_tomoclass.training.patch_ranking.Description`.
    marked : numpy.ndarray
        (ny, nx), where strokes are.
    values : sequence of int
        Of the classes.
    """
    found = (labels == np.array(values)[:, np.newaxis, np.newaxis]).astype(np.float32)
    unsure = uncertainty.astype(np.float32) / 255
    return patches_of_plane(
        z, unsure, found, described, marked, None, size=min(patch_size(labels.shape), *labels.shape)
    )


def grey_description(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Where grey values lie among those of the plane, (ny, nx) -> (1, ny, nx), 0..1: where features are not at hand."""
    grey = plane.astype(np.float64)
    known = np.nanquantile(grey, np.linspace(0, 1, 33))
    return np.interp(grey, known, np.linspace(0, 1, 33))[np.newaxis].astype(np.float32)


def suggest_places(patches: Sequence[Patch], *, size: int, n: int = 12) -> list[Suggestion]:
    """Places of which a forest would learn most, the best first, none of them on a stroke.

    Parameters
    ----------
    patches : sequence of Patch
        Only the most uncertain are compared, so that it takes less than a tenth of a second.
    size : int
        Their edge, :func:`patch_size`.
    n : int
        At most so many places.
    """
    free = sorted((p for p in patches if not p.marked and p.uncertainty > 0), key=lambda p: -p.uncertainty)[:MOST]
    marked = [p for p in patches if p.marked][-MOST:]
    found = ranked_patches([*free, *marked], n=n, by_plane=False, candidates={p.z for p in free})
    return [Suggestion(r.patch.z, r.patch.y + size // 2, r.patch.x + size // 2, r.patch.uncertainty) for r in found]
