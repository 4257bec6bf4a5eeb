"""Train a forest with scikit-learn on the CPU and turn its trees into :class:`~gpu_tomoclass.forest.arrays.Forest`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.forest.arrays import LEAF, Forest, breadth_first, smallest_above
from gpu_tomoclass.forest.trained import TrainedForest, check_settings, checked_rows, out_of_bag, training_notes


def train_forest(
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
    n_jobs: int | None = None,
    channels: Sequence[str] | None = None,
) -> TrainedForest:
    """Grow a random forest on labelled rows; the same rows and settings give the same arrays, whatever ``n_jobs``.

    The defaults are those of Trainable Weka Segmentation's FastRandomForest: 200 trees of unlimited depth on bootstrap
    samples, entropy, two random features tried per split and more where those two separate nothing. The trees are
    scikit-learn's, so they are not FastRandomForest's trees.

    NaN means "missing". scikit-learn learns for each split on which side missing values do better; the forest that
    is returned sends them both ways instead, as Weka does, so on rows with NaN it differs from scikit-learn's.

    Parameters
    ----------
    values : numpy.ndarray
        (n_rows, n_features) float32.
    labels : numpy.ndarray
        (n_rows,) integers 1..255; any subset of them.
    n_trees : int
    max_features : int
        Features tried per split; at most all of them.
    max_depth : int, optional
        Default unlimited.
    min_samples_leaf : int
        Smallest number of (bootstrap) rows in a leaf.
    criterion : {"entropy", "gini"}
    balance : bool
        Give every class the same total weight: a row of class c weighs n_rows / (n_classes * rows of c), in the splits
        and in the votes.
    seed : int
        0..4294967295.
    n_jobs : int, optional
        Threads; default one per usable core.
    channels : sequence of str, optional
        Names of the features, for messages.

    Raises
    ------
    DataError
        If there are no rows, fewer than two classes, labels outside 1..255, or infinite values.
    UsageError
        If a setting makes no sense.
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
    class_values, columns, counts = np.unique(labels, return_inverse=True, return_counts=True)
    classifier = RandomForestClassifier(
        n_estimators=n_trees,
        criterion=criterion,
        max_features=min(max_features, values.shape[1]),
        max_depth=max_depth,
        min_samples_leaf=min_samples_leaf,
        class_weight="balanced" if balance else None,
        bootstrap=True,
        oob_score=True,
        random_state=seed,
        n_jobs=-1 if n_jobs is None else n_jobs,
    )
    with warnings.catch_warnings():
        # Rows that are never out of bag are counted and excluded below.
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores", category=UserWarning)
        classifier.fit(values, columns)

    error, confusion, n_never = out_of_bag(classifier.oob_decision_function_, columns)
    return TrainedForest(
        forest=forest_from_sklearn(classifier),
        class_values=tuple(int(v) for v in class_values),
        class_counts=tuple(int(n) for n in counts),
        oob_error=error,
        oob_confusion=confusion,
        n_never_out_of_bag=n_never,
        feature_importance=classifier.feature_importances_,
        settings={
            "engine": "sklearn",
            "n_trees": n_trees,
            "max_features": max_features,
            "max_depth": max_depth,
            "min_samples_leaf": min_samples_leaf,
            "criterion": criterion,
            "balance": balance,
            "seed": seed,
        },
        notes=tuple(training_notes(values, class_values, counts, n_never)),
    )


def forest_from_sklearn(classifier: RandomForestClassifier) -> Forest:
    """The same trees as arrays, exactly: equal leaves for every float32 value, equal votes.

    scikit-learn goes left when ``value <= t`` with a float64 ``t``. For float32 values that is ``value < s`` where
    ``s`` is the smallest float32 above ``t``. Nodes are numbered breadth first, so that siblings are neighbours.

    Parameters
    ----------
    classifier : sklearn.ensemble.RandomForestClassifier
        Fitted, one output.
    """
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("feature", "threshold", "child", "left_fraction", "votes")
    }
    roots = []
    n_nodes = n_leaves = 0
    for estimator in classifier.estimators_:
        tree = estimator.tree_
        order, left = breadth_first(tree.children_left, tree.children_right)
        is_leaf = left == LEAF
        n_tree_leaves = int(is_leaf.sum())
        child = left + n_nodes
        child[is_leaf] = n_leaves + np.arange(n_tree_leaves)
        weight = tree.weighted_n_node_samples
        fraction = np.zeros(order.size)
        split = order[~is_leaf]
        fraction[~is_leaf] = weight[tree.children_left[split]] / weight[split]
        parts["feature"].append(np.where(is_leaf, LEAF, tree.feature[order]).astype(np.int32))
        parts["threshold"].append(np.where(is_leaf, np.float32(0), smallest_above(tree.threshold[order])))
        parts["child"].append(child.astype(np.int32))
        parts["left_fraction"].append(fraction.astype(np.float32))
        parts["votes"].append(tree.value[order[is_leaf], 0, :])
        roots.append(n_nodes)
        n_nodes += order.size
        n_leaves += n_tree_leaves
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    # Grown to purity, nearly all votes are 0 or 1: half the bytes hold them as well.
    votes = arrays["votes"].astype(np.float32)
    if np.array_equal(votes, arrays["votes"]):
        arrays["votes"] = votes
    return Forest(**arrays, roots=np.array(roots, dtype=np.int64), n_features=classifier.n_features_in_)
