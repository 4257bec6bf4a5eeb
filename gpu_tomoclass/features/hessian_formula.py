"""Formula of the Hessian's eigenvalues, one of TWS's two, that rows or a classifier were made with.

Until 3.2.25, Trainable Weka Segmentation (TWS) wrote (A + D) / 2 +- sqrt(q / 2), since then (A + D +- sqrt(q)) / 2,
under the same names. Rows tell by arithmetic: their difference is sqrt(2 q) or sqrt(q), and q is a channel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIRST, SECOND, SQUARE = "Hessian_Eigenvalue_1", "Hessian_Eigenvalue_2", "Hessian_Normalized_Eigenvalue_Difference"
DECIMAL = 5e-7  # half the last of the six decimals that TWS writes
SINGLE = 2.0**-23  # what float32 holds numbers to, and a step more
CLEAR = 8  # times its rounding by which a row's two candidates must be apart to count
AGREE = 0.99  # share of the rows that must agree; some may have been edited or cut


def formula_of_relation(relation: str, asked: str) -> tuple[str, list[str]]:
    """Formula that a classifier's eigenvalues follow, and notes; ``asked``: ``"auto"`` or the formula that is wanted.

    Relations begin with ``segment`` in TWS before 3.2.25, but also later for training from label images by a script.
    TWS's own window takes all of them for old, its ``applyClassifier`` none.
    """
    if not relation.startswith("segment"):
        return ("current" if asked == "auto" else asked), []
    found = "legacy" if asked == "auto" else asked
    ways = {
        "legacy": "as TWS before 3.2.25 did, and TWS's window does for such classifiers; if a script trained it on "
        "label images with a later TWS, --hessian current is right",
        "current": "as TWS does since 3.2.25, and its applyClassifier does for any classifier",
    }
    return found, [f"the relation is {relation[:60]!r}: Hessian eigenvalues are computed {ways[found]}"]


def formula_of_table(values: np.ndarray, channels: Sequence[str], asked: str) -> tuple[str, list[str]]:
    """Formula that training rows follow, by arithmetic, and notes; ``asked`` as in :func:`formula_of_relation`."""
    found = formula_of_rows(values, channels)
    if asked not in ("auto", found):
        if found is None:
            return asked, []
        return asked, [
            f"the rows' Hessian eigenvalues follow the {found} formula, but the model will compute the {asked} one, as "
            "was asked for: its forest will not see what it learned"
        ]
    if found == "legacy":
        return found, ["the rows' Hessian eigenvalues are those of TWS before 3.2.25; the model computes these, too"]
    if found is None and any(name.startswith(f"{FIRST}_") for name in channels):
        return "current", [
            "the rows do not tell by which formula their Hessian eigenvalues were computed; that of TWS since 3.2.25 "
            "is taken (--hessian legacy for the one before)"
        ]
    return "current", []


def formula_of_rows(values: np.ndarray, channels: Sequence[str]) -> str | None:
    """Formula that the eigenvalues of training rows follow.

    Parameters
    ----------
    values : numpy.ndarray
        (n, n_channels) float32, as read from an ARFF of at least six decimals; NaN where missing.
    channels : sequence of str
        TWS's names of the columns.

    Returns
    -------
    str or None
        ``"current"`` or ``"legacy"``; None where nothing tells: no Hessian, one that is 0 or lost in the rounding
        everywhere, or rows that follow neither or both.
    """
    column = {name: i for i, name in enumerate(channels)}
    votes = np.zeros(3, dtype=np.int64)  # rows: current, legacy, neither
    for name in channels:
        sigma = name.removeprefix(f"{FIRST}_")
        if sigma == name or not {f"{SECOND}_{sigma}", f"{SQUARE}_{sigma}"} <= column.keys():
            continue
        wanted = [column[f"{channel}_{sigma}"] for channel in (FIRST, SECOND, SQUARE)]
        votes += _votes(*values[:, wanted].astype(np.float64).T)
    counted = votes.sum()
    for formula, agree in zip(("current", "legacy"), votes[:2], strict=True):
        if counted and agree >= AGREE * counted:
            return formula
    return None


def _votes(first: np.ndarray, second: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Rows of one sigma that follow the current formula, the legacy one, neither; those that cannot tell: left out."""
    square = np.maximum(square, 0)
    root = np.sqrt(square)
    with np.errstate(invalid="ignore", divide="ignore"):
        # What rounding does to a difference of two numbers, and to the root of a square.
        rounding = 2 * DECIMAL + SINGLE * (np.abs(first) + np.abs(second))
        rounding += np.where(root > 0, (DECIMAL + SINGLE * square) / root, np.inf)
        apart = (np.sqrt(2.0) - 1) * root
        usable = np.isfinite(first) & np.isfinite(second) & (apart > CLEAR * rounding)
    difference = first - second
    current = usable & (np.abs(difference - root) <= 2 * rounding)
    legacy = usable & (np.abs(difference - np.sqrt(2.0) * root) <= 2 * rounding)
    return np.array([current.sum(), legacy.sum(), (usable & ~current & ~legacy).sum()])
