"""A forest as a treelite model and back: how trees travel from cuML and to nvForest.

The only module that imports treelite, and only when it is used. treelite averages the leaf vectors of the trees; ours
are summed and divided by their total, so where leaves do not sum to 1 (Fiji's) its result must be divided by its sum.
A missing value goes one way there, both ways here.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import ModelError, ResourceError
from gpu_tomoclass.forest.arrays import LEAF, Forest, breadth_first, smallest_above
from gpu_tomoclass.forest.weka_trees import smallest_float32_not_below

# Fields of treelite's serialisation format, version 4.
MULTI_CLASS, BINARY = 2, 0
LESS, LESS_OR_EQUAL = 2, 3
EVERY_CLASS = -1


def forest_from_treelite(model: Any) -> Forest:
    """The trees of a treelite classifier, exactly: for every float32 value the same leaf, and the same votes.

    ``left_fraction`` is the share of the training weight that the model records (``sum_hess``, as scikit-learn's
    forests have it, or else ``data_count``, as cuML's have it); where it records none, treelite's default direction.

    Parameters
    ----------
    model : treelite.Model
        Of numerical questions whose leaves hold one number per class: a random forest.

    Raises
    ------
    ModelError
        Naming the field, if it is something else.
    """
    header = model.get_header_accessor()
    n_classes = _n_classes(header)
    parts: list[dict[str, np.ndarray]] = []
    roots: list[int] = []
    n_nodes = n_leaves = 0
    for number in range(int(model.num_tree)):
        tree = _tree(model.get_tree_accessor(number), number, n_classes)
        is_leaf = tree["feature"] == LEAF
        tree["child"] = tree["child"] + n_nodes
        tree["child"][is_leaf] = n_leaves + np.arange(is_leaf.sum())
        parts.append(tree)
        roots.append(n_nodes)
        n_nodes += is_leaf.size
        n_leaves += int(is_leaf.sum())
    if not parts:
        raise ModelError("the treelite model has no tree")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    votes = arrays["votes"].astype(np.float32)
    if np.array_equal(votes, arrays["votes"]):  # half the bytes hold them as well
        arrays["votes"] = votes
    return Forest(
        feature=arrays["feature"].astype(np.int32),
        threshold=arrays["threshold"],
        child=arrays["child"].astype(np.int32),
        left_fraction=arrays["left_fraction"].astype(np.float32),
        votes=arrays["votes"],
        roots=np.array(roots, dtype=np.int64),
        n_features=int(model.num_feature),
    )


def _n_classes(header: Any) -> int:
    """The number of classes, if the model is a random forest that classifies."""
    task, n_targets = int(header.get_field("task_type")[0]), int(header.get_field("num_target")[0])
    if task not in (MULTI_CLASS, BINARY) or n_targets != 1:
        _refuse(f"its task_type is {task} with {n_targets} targets, not a classifier with one")
    n_classes = int(header.get_field("num_class")[0])
    shape = header.get_field("leaf_vector_shape").tolist()
    if shape != [1, n_classes] or n_classes < 2:
        _refuse(f"its leaves hold {shape} numbers for {n_classes} classes, not one per class")
    if header.get_field("base_scores").any():
        _refuse("its base_scores are not zero: it is no random forest")
    if not str(header.get_field("postprocessor")).startswith("identity"):
        _refuse(f"its postprocessor is {str(header.get_field('postprocessor'))[:40]}, not identity")
    if (header.get_field("class_id") != EVERY_CLASS).any():
        _refuse("it has trees that vote for a single class")
    return n_classes


def _tree(tree: Any, number: int, n_classes: int) -> dict[str, np.ndarray]:
    """The arrays of one tree, numbered breadth first: siblings are neighbours; ``child`` counts from the root."""
    get = tree.get_field
    if int(get("has_categorical_split")[0]):
        _refuse(f"tree {number} has categorical splits")
    order, child = breadth_first(get("cleft").astype(np.int64), get("cright").astype(np.int64))
    is_leaf = child == LEAF
    asks, leaves = order[~is_leaf], order[is_leaf]
    operator = get("cmp")[asks]
    if not np.isin(operator, (LESS, LESS_OR_EQUAL)).all():
        _refuse(f"tree {number} compares otherwise than with < and <=")
    begin, end = get("leaf_vector_begin")[leaves].astype(np.int64), get("leaf_vector_end")[leaves].astype(np.int64)
    if (end - begin != n_classes).any():
        _refuse(f"tree {number} has a leaf of {int((end - begin).min())} votes, not {n_classes}")

    feature = np.full(order.size, LEAF, dtype=np.int64)
    threshold = np.zeros(order.size, dtype=np.float32)
    left_fraction = np.zeros(order.size)
    feature[~is_leaf] = get("split_index")[asks]
    split = get("threshold")[asks].astype(np.float64)
    threshold[~is_leaf] = np.where(operator == LESS, smallest_float32_not_below(split), smallest_above(split))
    left_fraction[~is_leaf] = _left_fraction(tree, asks)
    votes = get("leaf_vector")[begin[:, np.newaxis] + np.arange(n_classes)]
    return {"feature": feature, "threshold": threshold, "child": child, "left_fraction": left_fraction, "votes": votes}


def _left_fraction(tree: Any, asks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    get = tree.get_field
    fraction = get("default_left")[asks].astype(np.float64)
    left = get("cleft")[asks]
    for name in ("data_count", "sum_hess"):  # the latter is better and overwrites
        if get(f"{name}_present").size:
            weight = np.where(get(f"{name}_present"), get(name), 0).astype(np.float64)
            known = (weight[asks] > 0) & (weight[left] <= weight[asks])
            fraction[known] = weight[left][known] / weight[asks][known]
    return fraction


def treelite_from_forest(forest: Forest) -> Any:
    """The same trees as a ``treelite.Model``; nothing is rounded.

    Its type is that of the votes: float32 or float64. Averaged over trees, so that ``treelite.gtil.predict`` and
    nvForest's ``predict_proba`` give the probabilities once each row is divided by its sum. A missing value takes the
    branch that more of the training weight took.

    Raises
    ------
    ResourceError
        If treelite is not installed.
    """
    builders = _import_builders()
    n_classes, n_trees = forest.n_classes, forest.n_trees
    dtype = str(forest.votes.dtype)
    builder = builders.ModelBuilder(
        threshold_type=dtype,
        leaf_output_type=dtype,
        metadata=builders.Metadata(
            num_feature=forest.n_features,
            task_type="kMultiClf",
            average_tree_output=True,
            num_target=1,
            num_class=[n_classes],
            leaf_vector_shape=(1, n_classes),
        ),
        tree_annotation=builders.TreeAnnotation(
            num_tree=n_trees, target_id=[0] * n_trees, class_id=[EVERY_CLASS] * n_trees
        ),
        postprocessor=builders.PostProcessorFunc(name="identity_multiclass"),
        base_scores=[0.0] * n_classes,
    )
    ends = [*forest.roots[1:].tolist(), forest.n_nodes]
    for root, end in zip(forest.roots.tolist(), ends, strict=True):
        _build_tree(builder, forest, root, end)
    return builder.commit()


def _build_tree(builder: Any, forest: Forest, root: int, end: int) -> None:
    columns = (forest.feature, forest.threshold, forest.child, forest.left_fraction)
    builder.start_tree()
    for key, (feature, threshold, child, left) in enumerate(
        zip(*(column[root:end].tolist() for column in columns), strict=True)
    ):
        builder.start_node(key)
        if feature == LEAF:
            builder.leaf(forest.votes[child].tolist())
        else:
            builder.numerical_test(
                feature,
                threshold,
                default_left=left >= 0.5,
                opname="<",
                left_child_key=child - root,
                right_child_key=child - root + 1,
            )
        builder.end_node()
    builder.end_tree()


def _import_builders() -> Any:
    try:
        return importlib.import_module("treelite.model_builder")
    except ImportError as error:
        raise ResourceError("treelite is not installed", do="pip install treelite") from error


def _refuse(what: str) -> NoReturn:
    raise ModelError(f"the treelite model is not a forest that is known here: {what}")
