"""Agreement of labels with their neighbours: the specimen goes on beside a pixel, noise does not.

A map of grey values that steepens them steepens noise, too. A model that was corrected where it was wrong knows pixels
at borders and in noise, and follows: regions fray and specks appear. That is seen without a truth, as the labels of
pixels a little apart agree less. ``docs/adapt.md`` says how well that tells harm from gain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LESS_ALIKE = 0.015  # labels may agree so much less with a map (Scott's pi); docs/adapt.md
APART = 4  # pixels: farther than reconstructions blur noise, nearer than most of what is looked for is wide


def beside(pixels: npt.NDArray[np.int64], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Numbers of the pixels that pixels of a plane are compared with.

    Parameters
    ----------
    pixels : numpy.ndarray
        (n,) numbers of pixels, row by row.
    shape : (ny, nx)
        Of the plane.

    Returns
    -------
    numpy.ndarray
        (n,): of every second pixel the one `APART` columns to the right, of the others that so many rows below; at the
        far edge to the left, or above; the pixel itself where the plane is too small.
    """
    places = np.stack(np.unravel_index(pixels, shape))
    step = np.zeros_like(places)
    step[np.arange(len(pixels)) % 2, np.arange(len(pixels))] = APART
    ends = np.array(shape)[:, np.newaxis]
    there = np.where(places + step < ends, places + step, places - step)
    there = np.where(there >= 0, there, places)
    return np.ravel_multi_index((there[0], there[1]), shape).astype(np.int64)


def agreement(here: npt.NDArray[np.integer], there: npt.NDArray[np.integer]) -> float:
    """Scott's pi of the classes of pixels and of those beside them: 1 where all agree, 0 where they do by chance.

    It is Cohen's kappa of pairs whose order does not matter (Scott, Public Opinion Quarterly 19, 321, 1955). Chance
    depends on how much there is of each class: a map that gives pixels to a rarer class is not blamed for that.
    All of one class agree by chance.

    Parameters
    ----------
    here, there : numpy.ndarray
        (n,) classes 0..k-1.
    """
    n = int(max(here.max(), there.max())) + 1
    share = (np.bincount(here, minlength=n) + np.bincount(there, minlength=n)) / (2 * here.size)
    by_chance = float((share**2).sum())
    return (float((here == there).mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0


def share_of_map(less_alike: float) -> float:
    """Share of a map to use, 0..1: so much that labels agree less by `LESS_ALIKE` at most.

    ``less_alike`` is how much less they agree with the whole map; with half of it, they agree less by about half.
    """
    return 1.0 if less_alike <= LESS_ALIKE else LESS_ALIKE / less_alike
