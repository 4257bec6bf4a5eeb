"""Distribution of a volume's grey values, in all and class by class: what a model remembers, to be adapted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.model import GREY_LEVELS

SURE = 0.5  # pixels of a lower probability say nothing about their class
FEW = 0.002  # a class with a smaller share of the pixels looked at is left out


def grey_memory(
    grey: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], list[float]]:
    """Summary of a volume's grey values for a model, see :attr:`gpu_tomoclass.model.Model.grey`.

    Parameters
    ----------
    grey : numpy.ndarray
        (n,) of pixels of the marked planes, as the features see them.
    probabilities : numpy.ndarray
        (n_classes, n) that the forest gives them.

    Returns
    -------
    quantiles : numpy.ndarray
        (1 + n_classes, 129) float32; a class that has too few pixels is all 0.
    shares : list of float
        Of the pixels that are surely of each class; 0 where they are too few.
    """
    weights = sure(probabilities)
    shares = [float(w.sum() / grey.size) for w in weights]
    rows = [weighted_quantiles(grey, np.ones(grey.size), GREY_LEVELS)]
    for k, weight in enumerate(weights):
        if shares[k] < FEW:
            shares[k] = 0.0
        rows.append(weighted_quantiles(grey, weight, GREY_LEVELS) if shares[k] else np.zeros(len(GREY_LEVELS)))
    return np.maximum.accumulate(np.stack(rows).astype(np.float32), axis=1), shares


def sure(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Weights (n_classes, n) of pixels for their class: the probability where it is above a half, else 0."""
    return np.where(probabilities > SURE, probabilities, 0).astype(np.float64)


def weighted_quantiles(
    values: npt.NDArray[Any], weights: npt.NDArray[np.float64], levels: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values below which these shares of the weight lie, by straight lines between the middles of the weights."""
    order = np.argsort(values, kind="stable")
    weight = weights[order]
    order, weight = order[weight > 0], weight[weight > 0]
    below = np.cumsum(weight)
    return np.interp(levels, (below - 0.5 * weight) / below[-1], values[order].astype(np.float64))
