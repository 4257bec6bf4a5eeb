"""Inputs of the checks: random planes and forests, and the reference's results for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.doctor.trials import FamilyTrial, ForestTrial, NadTrial, Trial
from gpu_tomoclass.features import FAMILIES, ORIGINAL, FeatureBank, FeatureBlock, accelerated_family
from gpu_tomoclass.forest import LEAF, Forest

COMPARED = (2, 131, 157)  # planes, rows, columns: primes, so that blocks of kernels are cut off
# Beside the usual sigmas one each that takes another way: a plane made smaller first, a disk too large to sort.
SIGMAS = {"gaussian_blur": (1, 2, 4, 8, 16, 24), "median": (1, 2, 4, 8, 16, 24)}
SMOOTHED = "z_gaussian_blur"  # the others run the kernels of the families of planes
NEAR_ZERO = np.array([0, -0.0, 1e-45, 1e-39, -1e-39], np.float32)  # GPUs take all of them for 0
NAD_KINDS = {"nad": 2, "nad volume": 3}
"""Dimensions."""
OTHERS = ("forest", "forest by values", *NAD_KINDS)
"""What has kernels besides the families; large forests compare values, others the ranks of values."""


class Subjects:
    """The inputs of all checks, and what the reference makes of them.

    Attributes
    ----------
    trials : dict of str to Trial
        Of the families that have a kernel, and of :data:`OTHERS`.
    reference_speed : dict of str to float
        Milliseconds per million pixels.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        planes = random_planes(random, COMPARED)
        checked = [name for name, row in FAMILIES.items() if not row.is_smoothed or name == SMOOTHED]
        blocks: dict[str, list[FeatureBlock]] = {}
        for block in FeatureBank.create(checked, sigmas=SIGMAS).blocks:
            blocks.setdefault(block.family, []).append(block)
        families = (ORIGINAL.name, *checked)
        self.families = tuple(name for name in families if accelerated_family(name) is not None)
        forests = {"forest": random_forest(random, pure=True), "forest by values": random_forest(random)}
        values = random.normal(size=(forests["forest"].n_features, planes[0].size)).astype(np.float32)
        near = random.random(values.shape) < 0.01
        values[near] = random.choice(NEAR_ZERO, size=int(near.sum()))
        values[random.random(values.shape) < 0.001] = np.nan  # missing: the slow way through the trees
        trials: dict[str, Trial] = {name: FamilyTrial(name, blocks[name], planes) for name in self.families}
        trials |= {name: ForestTrial(forests[name], values, by_rank=name == "forest") for name in forests}
        trials |= {name: NadTrial(planes, dimensions=n) for name, n in NAD_KINDS.items()}
        self.trials = {name: trials[name] for name in (*self.families, *OTHERS)}
        self.expected: dict[str, npt.NDArray[Any]] = {}
        self.reference_speed: dict[str, float] = {}

    def compute_reference(self, advance: Callable[[], None]) -> None:
        """Fill ``expected`` and ``reference_speed``."""
        for name, trial in self.trials.items():
            began = time.perf_counter()
            self.expected[name] = trial.reference()
            self.reference_speed[name] = speed(time.perf_counter() - began, trial.n_pixels(trial.inputs))
            advance()


def random_planes(random: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """(nz, ny, nx) float32, whole numbers 0..65535: streaks along x with noise, and some flat spots."""
    streaks = np.cumsum(random.normal(size=shape), axis=2) * 300 + 20000
    image = np.clip(np.round(streaks + random.normal(size=shape) * 800), 0, 65535)
    image[:, : shape[1] // 8, : shape[2] // 8] = 12345
    return image.astype(np.float32)


def random_forest(
    random: np.random.Generator,
    *,
    n_trees: int = 40,
    depth: int = 9,
    n_features: int = 40,
    n_classes: int = 4,
    pure: bool = False,
) -> Forest:
    """Complete trees with random questions, some of them about zero, and votes, of one class per leaf or of all."""
    n_inner, n_leaves = 2**depth - 1, 2**depth
    n_nodes = n_inner + n_leaves
    node, tree = np.arange(n_nodes), np.arange(n_trees)[:, np.newaxis]
    is_leaf = np.broadcast_to(node >= n_inner, (n_trees, n_nodes))
    child = np.where(is_leaf, tree * n_leaves + node - n_inner, tree * n_nodes + 2 * node + 1)
    threshold = random.normal(size=is_leaf.shape)
    threshold[:, ::16] = random.choice(NEAR_ZERO, size=threshold[:, ::16].shape)
    if pure:
        votes = np.eye(n_classes)[random.integers(n_classes, size=n_trees * n_leaves)]
    else:
        votes = random.random((n_trees * n_leaves, n_classes)) + 0.01
    return Forest(
        feature=np.where(is_leaf, LEAF, random.integers(n_features, size=is_leaf.shape)).astype(np.int32).ravel(),
        threshold=np.where(is_leaf, 0, threshold).astype(np.float32).ravel(),
        child=child.astype(np.int32).ravel(),
        left_fraction=np.where(is_leaf, 0, random.random(is_leaf.shape)).astype(np.float32).ravel(),
        votes=votes,
        roots=tree.ravel() * n_nodes,
        n_features=n_features,
    )


def speed(seconds: float, n_pixels: int) -> float:
    """Milliseconds per million pixels."""
    return 1e9 * seconds / n_pixels
