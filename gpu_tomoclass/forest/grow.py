"""One door to the ways of growing a forest: as Fiji does, with scikit-learn, or with cuML on a GPU.

All of them grow the same kind of forest from the same settings; docs/forests.md says how they differ and why ``auto``
means what it does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import StoppedError, UsageError
from gpu_tomoclass.forest.trained import TrainedForest

ENGINES = ("auto", "weka", "sklearn", "cuml")


def grow_forest(
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    *,
    engine: str = "auto",
    n_trees: int = 200,
    max_features: int = 2,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    balance: bool = False,
    seed: int = 42,
    n_jobs: int | None = None,
    channels: Sequence[str] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainedForest:
    """Grow a random forest on labelled rows.

    Parameters
    ----------
    values : numpy.ndarray
        (n_rows, n_features) float32; NaN is missing.
    labels : numpy.ndarray
        (n_rows,) integers 1..255; any subset of them.
    engine : {"auto", "weka", "sklearn", "cuml"}
        ``weka``: the trees that Fiji's FastRandomForest grows, node by node. ``sklearn``: scikit-learn's. ``cuml``:
        NVIDIA cuML's, on a GPU. ``auto``: ``weka``, or, with a note that says why, ``sklearn`` where that cannot be.
    n_trees, max_features, max_depth, min_samples_leaf, balance, seed
        As for :func:`gpu_tomoclass.forest.grow_sklearn.train_forest`; ``weka`` has no ``min_samples_leaf``.
    n_jobs : int, optional
        CPU threads; default one per usable core.
    channels : sequence of str, optional
        Names of the features, for messages.
    should_stop : callable, optional
        Asked before each tree (``weka``), or once before the forest; once True, StoppedError is raised.

    Raises
    ------
    UsageError
        If the engine is unknown or does not have a setting.
    DataError
        If the rows cannot be used.
    ResourceError
        If the engine does not work here.
    StoppedError
        If ``should_stop`` said so.
    """
    if engine not in ENGINES:
        raise UsageError(f"forest engine {engine!r} is unknown", do=f"choose one of {', '.join(ENGINES)}")
    settings: dict[str, Any] = {
        "n_trees": n_trees,
        "max_features": max_features,
        "max_depth": max_depth,
        "balance": balance,
        "seed": seed,
        "channels": channels,
    }
    notes: tuple[str, ...] = ()
    if engine == "auto":
        from gpu_tomoclass.forest.grow_weka import reason_against

        reason = reason_against(values, min_samples_leaf=min_samples_leaf, seed=seed)
        engine = "weka" if reason is None else "sklearn"
        if reason is not None:
            notes = (f"the forest is scikit-learn's, not Fiji's: {reason}",)
    if engine == "weka":
        if min_samples_leaf != 1:
            raise UsageError(
                f"min_samples_leaf is {min_samples_leaf}, and Fiji's forests have no such limit",
                do="leave it out, limit the depth, or choose --forest sklearn",
            )
        from gpu_tomoclass.forest.grow_weka import train_weka

        trained = train_weka(values, labels, n_jobs=n_jobs, should_stop=should_stop, **settings)
    elif should_stop is not None and should_stop():
        raise StoppedError("the forest is not wanted any more")
    elif engine == "sklearn":
        from gpu_tomoclass.forest.grow_sklearn import train_forest

        trained = train_forest(values, labels, n_jobs=n_jobs, min_samples_leaf=min_samples_leaf, **settings)
    else:
        from gpu_tomoclass.forest.grow_cuml import train_cuml

        trained = train_cuml(values, labels, min_samples_leaf=min_samples_leaf, **settings)
    return dataclasses.replace(trained, notes=(*notes, *trained.notes))
