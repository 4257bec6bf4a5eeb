"""Forest prediction in NumPy: from a feature matrix to class probabilities and classes.

One tree at a time. Pixels that are together at a node stay together: their values of one channel are gathered, compared
and split in two, which needs no node numbers per pixel. Where fewer than ``FEW`` pixels are together a call costs more
than its work; such groups are collected and walk on side by side, one step of all pixels at a time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.forest.arrays import LEAF, Forest, thresholds_of_flushed

BLOCK = 1 << 17  # pixels at a time: their values of one channel stay in the second-level cache
FEW = 512  # measured: 256 to 1024 are equal
WALKERS = 1 << 15  # pixels that walk side by side: five arrays of this size stay in cache
MISSING_ENTRIES = 1 << 20  # (pixel, node) pairs at a time, where missing values double the paths


def predict_probabilities(
    forest: Forest, features: npt.NDArray[np.float32], *, n_threads: int = 1
) -> npt.NDArray[np.float32]:
    """Class probabilities of pixels.

    Votes are added in float64 in the order of the trees and divided by their total, so the result for a pixel does
    not depend on the other pixels, nor on the number of threads.

    Parameters
    ----------
    forest : Forest
    features : numpy.ndarray
        (n_features, n_pixels) float32, C-contiguous for speed; NaN is a missing value, and denormal numbers count as
        zeros, as on a GPU.
    n_threads : int
        Threads over blocks of pixels.

    Returns
    -------
    numpy.ndarray
        (n_classes, n_pixels) float32; each column sums to 1.

    Raises
    ------
    ModelError
        If the number of features is not the forest's.
    DataError
        If the features are not a float32 matrix.
    """
    check_features(forest, features)
    if n_threads < 1:
        raise UsageError(f"threads must be 1 or more, not {n_threads}")
    features = np.ascontiguousarray(features)
    walker = _Walker(forest, features)
    n_pixels = features.shape[1]
    step = max(1, min(BLOCK, -(-n_pixels // n_threads)))
    blocks = [(start, min(start + step, n_pixels)) for start in range(0, n_pixels, step)]
    probabilities = np.empty((forest.n_classes, n_pixels), dtype=np.float32)

    def fill(block: tuple[int, int]) -> None:
        votes = walker.votes(*block)
        probabilities[:, slice(*block)] = votes / votes.sum(axis=0)

    if n_threads == 1:
        for block in blocks:
            fill(block)
    else:
        with ThreadPoolExecutor(n_threads, thread_name_prefix="forest") as pool:
            list(pool.map(fill, blocks))
    return probabilities


def check_features(forest: Forest, features: npt.NDArray[np.float32]) -> None:
    """Raise if the features are not float32 (n_features, n_pixels), or not those of the forest."""
    if features.ndim != 2 or features.dtype != np.float32:
        raise DataError(f"features are {features.dtype} {features.shape}, not float32 (n_features, n_pixels)")
    if features.shape[0] != forest.n_features:
        raise ModelError(f"there are {features.shape[0]} features, the forest was trained on {forest.n_features}")


def lead(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Lead of the best class over the second: (n_classes, ...) -> (...), 0 (undecided) to 1 (certain)."""
    best = np.partition(probabilities, (-2, -1), axis=0)
    return best[-1] - best[-2]


def probability_bytes(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """255 times each probability, rounded to even: uint8 of the same shape."""
    return np.rint(probabilities * 255).astype(np.uint8)


def predict_classes(
    probabilities: npt.NDArray[np.float32], class_values: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The label value of the largest probability, the first of equals.

    Parameters
    ----------
    probabilities : numpy.ndarray
        (n_classes, n_pixels).
    class_values : numpy.ndarray
        (n_classes,) label values 1..255.

    Returns
    -------
    numpy.ndarray
        (n_pixels,) uint8.
    """
    values = np.asarray(class_values, dtype=np.uint8)
    if probabilities.shape[0] != values.size:
        raise ModelError(f"there are probabilities of {probabilities.shape[0]} classes and {values.size} class values")
    return values[probabilities.argmax(axis=0)]


class _Walker:
    """The forest beside the pixels, in the types that NumPy gathers fastest."""

    def __init__(self, forest: Forest, features: npt.NDArray[np.float32]) -> None:
        self.forest = forest
        self.features = features
        self.flat = features.ravel()
        self.used = forest.used_features()
        self.feature = forest.feature.astype(np.intp)
        self.child = forest.child.astype(np.intp)
        self.threshold = thresholds_of_flushed(forest.threshold)
        self.votes_of_class = np.ascontiguousarray(forest.votes.T, dtype=np.float64)
        # Python ints: the trees are walked one by one.
        self.roots: list[int] = forest.roots.tolist()

    def votes(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Sum of the votes for pixels start..stop: (n_classes, stop - start)."""
        n = stop - start
        missing = np.zeros(n, dtype=bool)
        for f in self.used:
            missing |= np.isnan(self.features[f, start:stop])
        complete = np.flatnonzero(~missing)
        votes = np.zeros((self.forest.n_classes, n))
        leaf = np.zeros(n, dtype=np.intp)
        gathered = np.empty(n)
        for root in self.roots:
            self._find_leaves(root, complete, leaf, start)
            for c, of_class in enumerate(self.votes_of_class):
                votes[c] += of_class.take(leaf, out=gathered, mode="clip")  # "clip": no second buffer
        if complete.size < n:
            incomplete = np.flatnonzero(missing)
            votes[:, incomplete] = self._votes_with_missing(incomplete + start)
        return votes

    def _find_leaves(self, root: int, pixels: np.ndarray, leaf: np.ndarray, start: int) -> None:
        """Write the row of votes of each of the ``pixels`` (numbered from ``start``) to ``leaf``."""
        feature, threshold, child = self.forest.feature.item, self.threshold.item, self.forest.child.item
        rows = self.features[:, start : start + leaf.size]
        together = [(root, pixels)] if pixels.size else []
        few_nodes: list[int] = []
        few_pixels: list[np.ndarray] = []
        while together:
            node, at = together.pop()
            if feature(node) == LEAF:
                leaf[at] = child(node)
                continue
            if at.size < FEW:
                few_nodes.append(node)
                few_pixels.append(at)
                continue
            is_left = rows[feature(node)].take(at) < threshold(node)
            left = is_left.nonzero()[0]
            if left.size:
                together.append((child(node), at.take(left)))
            if left.size < at.size:
                together.append((child(node) + 1, at.take((~is_left).nonzero()[0])))
        if few_nodes:
            nodes = np.repeat(np.array(few_nodes, dtype=np.intp), [p.size for p in few_pixels])
            scattered = np.concatenate(few_pixels)
            for i in range(0, nodes.size, WALKERS):
                self._walk(nodes[i : i + WALKERS], scattered[i : i + WALKERS], leaf, start)

    def _walk(self, node: np.ndarray, pixel: np.ndarray, leaf: np.ndarray, start: int) -> None:
        """Each pixel from its own node to its leaf; those that have arrived are dropped."""
        n_pixels = self.features.shape[1]
        feature = self.feature.take(node)  # no pixel begins at a leaf
        while node.size:
            value = self.flat.take(feature * n_pixels + (pixel + start))
            # not (value < threshold) is value >= threshold, as nothing is NaN here
            node = self.child.take(node) + (value >= self.threshold.take(node))
            feature = self.feature.take(node)
            arrived = feature == LEAF
            done = arrived.nonzero()[0]
            if done.size:
                leaf[pixel.take(done)] = self.child.take(node.take(done))
                going = (~arrived).nonzero()[0]
                node, pixel, feature = node.take(going), pixel.take(going), feature.take(going)

    def _votes_with_missing(self, pixels: np.ndarray) -> npt.NDArray[np.float64]:
        """Votes of pixels (numbers in the whole matrix) that go both ways where their value is missing."""
        n_leaves = np.add.reduceat(self.feature == LEAF, self.roots, dtype=np.intp)
        step = max(1, MISSING_ENTRIES // int(n_leaves.max()))
        votes = np.zeros((self.forest.n_classes, pixels.size))
        for start in range(0, pixels.size, step):
            part = pixels[start : start + step]
            for root in self.roots:
                votes[:, start : start + step] += self._tree_votes_with_missing(root, part)
        return votes

    def _tree_votes_with_missing(self, root: int, pixels: np.ndarray) -> npt.NDArray[np.float64]:
        votes = np.zeros((self.forest.n_classes, pixels.size))
        node = np.full(pixels.size, root, dtype=np.intp)
        position = np.arange(pixels.size)
        weight = np.ones(pixels.size)
        while node.size:
            arrived = self.feature[node] == LEAF
            rows = self.child[node[arrived]]
            for c, of_class in enumerate(self.votes_of_class):
                weights = weight[arrived] * of_class[rows]
                votes[c] += np.bincount(position[arrived], weights=weights, minlength=pixels.size)
            node, position, weight = node[~arrived], position[~arrived], weight[~arrived]
            value = self.features[self.feature[node], pixels[position]]
            fraction = self.forest.left_fraction[node].astype(np.float64)
            share = np.where(np.isnan(value), fraction, value < self.threshold[node])
            left = self.child[node]
            node = np.concatenate([left, left + 1])
            position = np.concatenate([position, position])
            weight = np.concatenate([weight * share, weight * (1 - share)])
            some = weight > 0
            node, position, weight = node[some], position[some], weight[some]
        return votes
