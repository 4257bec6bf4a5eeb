"""Inputs of the checks: random planes, forests and parameters, and the reference's results for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.baseline import NadParameters, nad_planes, nad_volume
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.features import FAMILIES, ORIGINAL, FeatureBank, FeatureBlock, FeatureEngine, accelerated_family
from gpu_tomoclass.forest import LEAF, Forest, predict_probabilities

COMPARED = (2, 131, 157)  # planes, rows, columns: primes, so that blocks of kernels are cut off
# Beside the usual sigmas one each that takes another way: a plane made smaller first, a disk too large to sort.
SIGMAS = {"gaussian_blur": (1, 2, 4, 8, 16, 24), "median": (1, 2, 4, 8, 16, 24)}
NEAR_ZERO = np.array([0, -0.0, 1e-45, 1e-39, -1e-39], np.float32)  # GPUs take all of them for 0
NAD_KINDS = {"nad": nad_planes, "nad volume": nad_volume}
OTHERS = ("forest", "forest by values", *NAD_KINDS)
"""What has kernels besides the families; large forests compare values, others the ranks of values."""


class Subjects:
    """The inputs of all checks, and what the reference makes of them.

    Attributes
    ----------
    names : tuple of str
        Families that have a kernel, and :data:`OTHERS`.
    reference_speed : dict of str to float
        Milliseconds per million pixels.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.planes = random_planes(random, COMPARED)
        self.blocks: dict[str, list[FeatureBlock]] = {}
        for block in FeatureBank.create(list(FAMILIES), sigmas=SIGMAS).blocks:
            self.blocks.setdefault(block.family, []).append(block)
        families = (ORIGINAL.name, *FAMILIES)
        self.families = tuple(name for name in families if accelerated_family(name) is not None)
        self.names = (*self.families, *OTHERS)
        self.forests = {"forest": random_forest(random, pure=True), "forest by values": random_forest(random)}
        n_classes, n_features = (getattr(self.forests["forest"], name) for name in ("n_classes", "n_features"))
        self.class_values = np.arange(1, n_classes + 1, dtype=np.uint8)
        n_pixels = self.planes[0].size
        self.values = random.normal(size=(n_features, n_pixels)).astype(np.float32)
        near = random.random(self.values.shape) < 0.01
        self.values[near] = random.choice(NEAR_ZERO, size=int(near.sum()))
        self.values[random.random(self.values.shape) < 0.001] = np.nan  # missing: the slow way through the trees
        self.expected: dict[str, npt.NDArray[Any]] = {}
        self.reference_speed: dict[str, float] = {}

    def compute_reference(self, advance: Callable[[], None]) -> None:
        """Fill ``expected`` and ``reference_speed``."""
        numpy_device = NumpyDevice()
        for name in self.names:
            began = time.perf_counter()
            if name.startswith("forest"):
                self.expected[name] = predict_probabilities(self.forests[name], self.values)
                n_pixels = self.values.shape[1]
            elif name in NAD_KINDS:
                denoise, parameters = NAD_KINDS[name], nad_parameters(name, self.planes.shape)
                self.expected[name] = denoise(self.planes, device=numpy_device, parameters=parameters)
                n_pixels = self.planes.size
            else:
                self.expected[name] = FeatureEngine(numpy_device, self.blocks[name]).compute(self.planes)
                n_pixels = self.planes.size
            self.reference_speed[name] = speed(time.perf_counter() - began, n_pixels)
            advance()


def nad_parameters(name: str, shape: tuple[int, ...]) -> NadParameters:
    """A few steps of NAD of planes or of a volume; noise is in the middle."""
    dimensions = 3 if name == "nad volume" else 2
    return NadParameters(
        dimensions=dimensions, iterations=5, noise_area=tuple(n // 2 for n in shape[::-1])[:dimensions]
    )


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
