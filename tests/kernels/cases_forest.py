"""Forest prediction on devices, against a walk through every tree in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.tolerances import FOREST
from gpu_tomoclass.forest.arrays import LEAF, Forest
from gpu_tomoclass.forest.predict_on_device import DeviceForest
from gpu_tomoclass.forest.walks import WALKS


@dataclass(frozen=True)
class Size:
    """A random forest and random pixels."""

    n_trees: int
    n_nodes: int  # per tree
    n_features: int
    n_classes: int
    n_pixels: int
    missing: float = 0.0  # share of values that are NaN
    pure: bool = True  # leaves vote for one class
    bushy: bool = False  # else trees are bushy in places, chains in others
    near_zero: bool = False  # thresholds and values are zeros of both signs, denormal or barely normal


def random_forest(random: np.random.Generator, size: Size) -> Forest:
    """Trees that grow at random leaves."""
    feature, threshold, child, fraction, roots = [], [], [], [], []
    n_leaves = 0
    for _ in range(size.n_trees):
        start = len(feature)
        roots.append(start)
        leaves = [start]
        feature.append(LEAF)
        while len(feature) - start + 2 <= size.n_nodes and size.n_features:
            node = leaves.pop(int(random.integers(0 if size.bushy else max(0, len(leaves) - 3), len(leaves))))
            feature[node] = int(random.integers(size.n_features))
            leaves += [len(feature), len(feature) + 1]
            child.append((node, len(feature)))
            feature += [LEAF, LEAF]
        child += [(node, n_leaves + i) for i, node in enumerate(sorted(leaves))]
        n_leaves += len(leaves)
    n = len(feature)
    is_leaf = np.array(feature) == LEAF
    threshold = np.where(is_leaf, 0, random.normal(size=n)).astype(np.float32)
    fraction = np.where(is_leaf, 0, random.choice([0, 0.25, 0.9, 1, 1 / 3], size=n)).astype(np.float32)
    children = np.empty(n, np.int32)
    children[[node for node, _ in child]] = [c for _, c in child]
    if size.pure:
        votes = np.eye(size.n_classes)[random.integers(size.n_classes, size=n_leaves)]
    else:
        votes = random.random((n_leaves, size.n_classes)) + 0.01
    return Forest(
        np.array(feature, np.int32), threshold, children, fraction, votes, np.array(roots, np.int64), size.n_features
    )


TINY = np.finfo(np.float32).tiny  # the smallest normal number
NEAR_ZERO = np.array([0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, TINY, -TINY, 2 * TINY, -2 * TINY, 1, -1], np.float32)


def make(random: np.random.Generator, size: Size) -> Inputs:
    forest = random_forest(random, size)
    features = random.normal(size=(size.n_features, size.n_pixels)).astype(np.float32)
    if size.near_zero:
        features = random.choice(NEAR_ZERO, size=features.shape)
        threshold = np.where(forest.feature == LEAF, 0, random.choice(NEAR_ZERO, size=forest.n_nodes))
        forest = replace(forest, threshold=threshold.astype(np.float32))
    # Some values are exactly a threshold, some are infinite.
    asked = np.flatnonzero(forest.feature != LEAF)
    for node in asked[:: max(1, asked.size // 20)]:
        features[forest.feature[node], random.integers(size.n_pixels)] = forest.threshold[node]
    features[random.random(features.shape) < size.missing] = np.nan
    if features.size > 100:
        features.flat[random.integers(features.size, size=3)] = np.inf
        features.flat[random.integers(features.size, size=3)] = -np.inf
    return {"forest": forest, "features": features}


def run(device: Device, inputs: Inputs, *, by_rank: bool = True, walks: Sequence[str | None] = (None,)) -> np.ndarray:
    """The probabilities; on a CPU by several walks, which must agree. Labels alone must be theirs."""
    features = inputs["features"]
    on_device = device.array(features) if features.size else features
    results = []
    for walk in (None,) if device.wants_gpu_plan else walks:
        forest = DeviceForest(inputs["forest"], device, by_rank=by_rank, walk=walk)
        results.append(device.numpy(forest.probabilities(on_device)))
        np.testing.assert_allclose(results[-1], results[0], rtol=0, atol=FOREST.factor)
        if not device.wants_gpu_plan:
            shares = device.numpy(forest.probabilities(on_device, want_labels=True))
            np.testing.assert_array_equal(shares.argmax(axis=0), results[-1].argmax(axis=0))
    return results[0]


def expected(inputs: Inputs) -> np.ndarray:
    """Pixel by pixel, tree by tree; denormal values are zeros, and each threshold is the number that it is."""
    forest: Forest = inputs["forest"]
    features = np.where(np.abs(inputs["features"]) < TINY, 0, inputs["features"])
    votes = np.zeros((features.shape[1], forest.n_classes))
    for p, values in enumerate(features.T.tolist()):
        for root in forest.roots:
            waiting = [(int(root), 1.0)]
            while waiting:
                node, weight = waiting.pop()
                f, left = int(forest.feature[node]), int(forest.child[node])
                if f == LEAF:
                    votes[p] += weight * forest.votes[left]
                elif values[f] != values[f]:
                    share = float(forest.left_fraction[node])
                    waiting += [(left + 1, weight * (1 - share)), (left, weight * share)]
                else:
                    waiting.append((left if values[f] < forest.threshold[node] else left + 1, weight))
    return (votes / votes.sum(axis=1, keepdims=True)).T.astype(np.float32)


SMALL = (
    Size(n_trees=5, n_nodes=21, n_features=6, n_classes=3, n_pixels=45, missing=0.02),
    Size(n_trees=17, n_nodes=9, n_features=3, n_classes=2, n_pixels=33, pure=False),
    Size(n_trees=2, n_nodes=15, n_features=400, n_classes=2, n_pixels=5),
    Size(n_trees=2, n_nodes=701, n_features=1, n_classes=3, n_pixels=7),  # three columns of thresholds
    Size(n_trees=1, n_nodes=1, n_features=2, n_classes=2, n_pixels=3, pure=False),
    Size(n_trees=8, n_nodes=15, n_features=4, n_classes=3, n_pixels=40, missing=0.01, near_zero=True),
)
# A GPU adds the votes of few classes in registers, of more in local memory; and in one row of threads or several.
MANY_CLASSES = tuple(
    Size(n_trees=9, n_nodes=21, n_features=6, n_classes=n, n_pixels=33, missing=0.02, pure=pure)
    for n, pure in ((12, False), (6, False), (48, True), (255, False))
)
# Too large for shared memory, so that only the tops of trees come there; three trees are left for the second turn.
LARGE_TREES = (
    Size(n_trees=7, n_nodes=2801, n_features=3, n_classes=3, n_pixels=33, missing=0.01, bushy=True),
    Size(n_trees=3, n_nodes=2401, n_features=5, n_classes=6, n_pixels=33, pure=False, bushy=True),
)
CASES = [
    Case(
        name="forest",
        make=make,
        run=partial(run, walks=WALKS),
        expected=expected,
        sizes=(
            *SMALL,
            Size(n_trees=30, n_nodes=201, n_features=252, n_classes=4, n_pixels=301),
            Size(n_trees=3, n_nodes=41, n_features=9, n_classes=17, n_pixels=257, missing=0.3, pure=False),
            Size(n_trees=30, n_nodes=201, n_features=252, n_classes=48, n_pixels=301),
            Size(n_trees=2, n_nodes=40001, n_features=5, n_classes=3, n_pixels=64, missing=0.001, bushy=True),
            Size(n_trees=5, n_nodes=1001, n_features=1500, n_classes=3, n_pixels=64),  # too many columns for bytes
            Size(n_trees=2, n_nodes=70001, n_features=60, n_classes=2, n_pixels=40, bushy=True),  # too large trees
            Size(n_trees=2, n_nodes=3001, n_features=5, n_classes=3, n_pixels=64, missing=0.001),  # deep
            Size(n_trees=3, n_nodes=31, n_features=1, n_classes=2, n_pixels=1),
            Size(n_trees=2, n_nodes=1, n_features=0, n_classes=5, n_pixels=7),
        ),
        small_sizes=SMALL,
        tolerance=FOREST.factor,
        why=FOREST.why,
    ),
    Case(
        name="forest of large trees",
        make=make,
        run=run,
        expected=expected,
        sizes=LARGE_TREES,
        small_sizes=LARGE_TREES,
        tolerance=FOREST.factor,
        why=FOREST.why,
    ),
    Case(
        name="forest of many classes",
        make=make,
        run=run,
        expected=expected,
        sizes=MANY_CLASSES,
        small_sizes=MANY_CLASSES,
        tolerance=FOREST.factor,
        why=FOREST.why,
    ),
    Case(
        name="large forest of many classes",
        make=make,
        run=partial(run, by_rank=False),
        expected=expected,
        sizes=MANY_CLASSES,
        small_sizes=MANY_CLASSES[::3],  # the votes are added as "forest of many classes" adds them
        tolerance=FOREST.factor,
        why=FOREST.why,
    ),
    Case(
        name="large forest",
        make=make,
        run=partial(run, by_rank=False),
        expected=expected,
        sizes=(
            *SMALL,
            Size(n_trees=3, n_nodes=41, n_features=9, n_classes=17, n_pixels=5001, missing=0.3, pure=False),
            Size(n_trees=2, n_nodes=40001, n_features=5, n_classes=3, n_pixels=64, missing=0.001, bushy=True),
            Size(n_trees=2, n_nodes=31, n_features=3, n_classes=2, n_pixels=70_000, missing=0.001),  # several launches
        ),
        small_sizes=(*SMALL[:2], *SMALL[4:]),
        tolerance=FOREST.factor,
        why=FOREST.why,
    ),
]
