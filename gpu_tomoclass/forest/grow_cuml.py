"""Train a forest with cuML on a GPU. The only module that imports cuML, and only when it is used.

cuML looks for splits between quantiles of a feature (``n_bins``), scikit-learn and Fiji between all its values; so its
trees are others, and the same seed gives other trees in another version of cuML. The forest comes back through
treelite, the one export that cuML 26.8 and later document.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import cupys_own_allocator, free_cupys_pool
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.forest.trained import TrainedForest, check_settings, checked_rows, out_of_bag, training_notes
from gpu_tomoclass.forest.treelite_arrays import forest_from_treelite

OLDEST = (26, 8)  # features sampled as scikit-learn does, class weights, deterministic quantiles
N_BINS = 256
N_STREAMS = 4
OTHERWISE = "choose --forest weka or --forest sklearn"


def train_cuml(
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    *,
    n_trees: int = 200,
    max_features: int = 2,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    criterion: str = "entropy",
    balance: bool = False,
    seed: int = 42,
    n_bins: int = N_BINS,
    channels: Sequence[str] | None = None,
) -> TrainedForest:
    """Grow a random forest on the GPU.

    Parameters
    ----------
    values, labels, n_trees, max_features, max_depth, min_samples_leaf, criterion, balance, seed, channels
        As for :func:`~gpu_tomoclass.forest.grow_sklearn.train_forest`.
    n_bins : int
        Quantiles of a feature between which splits are looked for; at most one per row.

    Raises
    ------
    DataError
        If the rows cannot be used; cuML takes no missing values.
    UsageError
        If a setting makes no sense.
    ResourceError
        If cuML is missing, too old, or fails.
    """
    values, labels = checked_rows(values, labels, channels=channels)
    check_settings(
        n_trees=n_trees,
        max_features=max_features,
        max_depth=max_depth,
        min_samples_leaf=min_samples_leaf,
        criterion=criterion,
        seed=seed,
    )
    if n_bins < 2:
        raise UsageError(f"n_bins is {n_bins}", do="give 2 or more")
    n_missing = int(np.isnan(values).any(axis=1).sum())
    if n_missing:
        raise DataError(f"{n_missing} training rows have missing values, which cuML does not take", do=OTHERWISE)
    make_classifier, cuml_version = _import_cuml()
    class_values, columns, counts = np.unique(labels, return_inverse=True, return_counts=True)
    try:
        with warnings.catch_warnings():
            # Rows that are never out of bag are counted and excluded below.
            warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores", category=UserWarning)
            classifier = make_classifier(
                n_estimators=n_trees,
                split_criterion=criterion,
                bootstrap=True,
                max_depth=max_depth,
                max_features=share_of_features(max_features, values.shape[1]),
                n_bins=min(n_bins, values.shape[0]),
                min_samples_leaf=min_samples_leaf,
                class_weight="balanced" if balance else None,
                oob_score=True,
                random_state=seed,
                n_streams=N_STREAMS,
                output_type="numpy",
            )
            free_cupys_pool()  # what the features of the rows took; cuML allocates by itself
            classifier.fit(values, columns.astype(np.int32))
            model = classifier.as_treelite()
            votes = np.asarray(classifier.oob_decision_function_, dtype=np.float64)
            importance = np.asarray(classifier.feature_importances_, dtype=np.float64)
    # cuML, RAFT, RMM and CuPy raise kinds of their own; whichever it is, the forest was not grown.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ResourceError(f"cuML {cuml_version} did not grow the forest: {reason}", do=OTHERWISE) from error
    error_rate, confusion, n_never = out_of_bag(votes, columns)
    importance = np.where(np.isfinite(importance), importance, 0)
    total = float(importance.sum())
    return TrainedForest(
        forest=forest_from_treelite(model),
        class_values=tuple(int(v) for v in class_values),
        class_counts=tuple(int(n) for n in counts),
        oob_error=error_rate,
        oob_confusion=confusion,
        n_never_out_of_bag=n_never,
        feature_importance=importance / total if total > 0 else importance,
        settings={
            "engine": "cuml",
            "cuml": cuml_version,
            "n_trees": n_trees,
            "max_features": max_features,
            "max_depth": max_depth,
            "min_samples_leaf": min_samples_leaf,
            "criterion": criterion,
            "balance": balance,
            "seed": seed,
            "n_bins": n_bins,
        },
        notes=tuple(training_notes(values, class_values, counts, n_never)),
    )


def share_of_features(max_features: int, n_features: int) -> float:
    """Share that makes cuML look at ``max_features`` of ``n_features`` features.

    cuML turns a number into a share of float32 precision, multiplies it with ``n_features`` and cuts to a whole number:
    2 of 41 features would become 1. The share for half a feature more is cut to the right number
    (``compute_max_features`` in cuML's ``randomforest_common.pyx``, ``n_sampled_cols`` in its C++ ``builder.cuh``).
    """
    return min(1.0, (max_features + 0.5) / n_features)


def _import_cuml() -> tuple[Any, str]:
    """The class of classifiers, and the version of cuML."""
    try:
        with cupys_own_allocator():
            version = str(importlib.import_module("cuml").__version__)
            classifier = importlib.import_module("cuml.ensemble").RandomForestClassifier
    # Not only ImportError: CUDA libraries that do not fit each other fail in many ways while they are loaded.
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cuml"
        reason = "is not installed" if missing else f"cannot be loaded: {type(error).__name__}: {error}"
        raise ResourceError(
            f"cuML {reason}", do=f"pip install 'gpu_tomoclass[rapids12]' or [rapids13], or {OTHERWISE}"
        ) from error
    if _year_and_month(version) < OLDEST:
        raise ResourceError(
            f"cuML {version} is too old, {OLDEST[0]}.{OLDEST[1]} or newer is needed", do=f"upgrade it, or {OTHERWISE}"
        )
    return classifier, version


def _year_and_month(version: str) -> tuple[int, ...]:
    """``26.10.00a42`` is (26, 10)."""
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in version.split(".")[:2])
