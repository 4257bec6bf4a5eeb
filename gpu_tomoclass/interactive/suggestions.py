"""Where to mark next: the patches of classified planes in which the forest is least sure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PATCH = 24  # pixels; about what a person marks at a time
FAR = 2 * PATCH  # pixels; two suggestions on a plane are further apart than this


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


def suggest_places(
    uncertainties: Mapping[int, npt.NDArray[np.uint8]],
    marked: Mapping[int, npt.NDArray[np.bool_]],
    *,
    n: int = 12,
) -> list[Suggestion]:
    """The most uncertain patches, the worst first, none of them on a stroke.

    Parameters
    ----------
    uncertainties : mapping of int to numpy.ndarray
        By plane: (ny, nx), 255 where two classes are alike.
    marked : mapping of int to numpy.ndarray
        By plane: (ny, nx), where strokes are.
    n : int
        At most so many.
    """
    found = [place for z, plane in uncertainties.items() for place in _on_plane(z, plane, marked.get(z), n)]
    return sorted(found, key=lambda s: (-s.uncertainty, s.z, s.y, s.x))[:n]


def _on_plane(
    z: int, plane: npt.NDArray[np.uint8], strokes: npt.NDArray[np.bool_] | None, n: int
) -> Iterable[Suggestion]:
    from scipy import ndimage

    size = min(PATCH, *plane.shape)
    values = plane.astype(np.float32) / 255
    if strokes is not None:
        values[strokes] = 0
    mean = ndimage.uniform_filter(values, size, mode="constant")
    for _ in range(n):
        y, x = (int(v) for v in np.unravel_index(int(mean.argmax()), mean.shape))
        if mean[y, x] <= 0:
            return
        yield Suggestion(z, y, x, float(mean[y, x]))
        mean[max(0, y - FAR) : y + FAR + 1, max(0, x - FAR) : x + FAR + 1] = 0
