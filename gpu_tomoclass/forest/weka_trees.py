"""FastRandomForest 0.99 in NumPy and plain Python: the definition of the ``weka`` engine.

Random numbers, rounding and the order of additions are those of the Java program, so that the same rows and seed give
the same trees, node by node. ``weka_trees.cpp`` is the fast version; if it differs, it is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.forest.arrays import LEAF
from gpu_tomoclass.forest.java_random import JavaRandom

MISSING = np.finfo(np.float32).max  # sorts behind all values
NULL_HASH = 3392903  # Java's hash of the text "null"
ALMOST = 1e-6  # Weka's tolerance when it compares sums
LEAST_GAIN = 1e-2  # bits times weight that a split must save


@dataclass(eq=False)
class Tree:
    """A growing tree; the children of the k-th question, in preorder, are nodes 1 + 2k and 2 + 2k.

    Attributes
    ----------
    feature : list of int
        What each node asks about; -1 for a leaf.
    split : list of float
        Values below it go left.
    left : list of int
        The left child; the right one follows it.
    shares : list of (float, float)
        Parts of the training weight that went left and right.
    gain : list of float
        Entropy saved by the question, in bits times weight.
    votes : dict of int to numpy.ndarray
        (n_classes,) float64 for every leaf.
    """

    feature: list[int] = field(default_factory=list)
    split: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    shares: list[tuple[float, float]] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    votes: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)

    def add(self) -> int:
        """A new leaf; its number."""
        self.feature.append(LEAF)
        self.split.append(0.0)
        self.left.append(LEAF)
        self.shares.append((0.0, 0.0))
        self.gain.append(0.0)
        return len(self.feature) - 1


class Rows:
    """Training rows as FastRandomForest holds them.

    Parameters
    ----------
    values : numpy.ndarray
        (n_rows, n_features) float32; NaN is missing.
    classes : numpy.ndarray
        (n_rows,) intp, 0..n_classes - 1.
    n_classes : int
    """

    def __init__(self, values: npt.NDArray[np.float32], classes: npt.NDArray[np.intp], n_classes: int) -> None:
        self.values = np.where(np.isnan(values), MISSING, values)
        self.classes = classes
        self.n_classes = n_classes
        self.order = [manber_order(column) for column in self.values.T]
        self.hash = [list_hash(order) for order in self.order]
        self.n_rows, self.n_features = values.shape

    def bootstraps(self, n_trees: int, seed: int) -> list[tuple[npt.NDArray[np.intp], JavaRandom]]:
        """For each tree how often each row is in its bag, and its own random numbers."""
        random = JavaRandom(seed)
        bags = []
        for _ in range(n_trees):
            drawn = [random.next_below(self.n_rows) for _ in range(self.n_rows)]
            tree_seed = random.next_int()
            own = JavaRandom(tree_seed)
            attribute = own.next_below(self.n_features + 1)  # the class counts as an attribute, without an order
            own.set_seed(tree_seed + (self.hash[attribute] if attribute < self.n_features else NULL_HASH))
            bags.append((np.bincount(drawn, minlength=self.n_rows), own))
        return bags


def manber_order(values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The rows in rising order of value, equal ones in the order in which FastRandomForest's quicksort leaves them.

    The pivot is the middle element; both pointers stop at elements equal to it, which are swapped.
    """
    key = values.tolist()
    order = list(range(len(key)))
    ranges = [(0, len(key) - 1)]
    while ranges:
        first, last = ranges.pop()
        if first >= last:
            continue
        low, high = first, last
        pivot = key[order[(low + high) // 2]]
        while low < high:
            while low < high and key[order[low]] < pivot:
                low += 1
            while low < high and key[order[high]] > pivot:
                high -= 1
            if low < high:
                order[low], order[high] = order[high], order[low]
                low += 1
                high -= 1
        if low == high and key[order[high]] > pivot:
            high -= 1
        ranges += [(first, high), (high + 1, last)]
    return np.array(order, dtype=np.intp)


def list_hash(numbers: npt.NDArray[np.intp]) -> int:
    """Java's hash of the text ``[3, 1, 2]``."""
    value = 0
    for byte in f"[{', '.join(map(str, numbers.tolist()))}]".encode():
        value = (31 * value + byte) & 0xFFFFFFFF
    return value - (1 << 32) if value & (1 << 31) else value


def weighted_log2(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x * log2(x) with a parabola for the logarithm of the mantissa, in float32; 0 up to 1e-6."""
    bits = x.astype(np.float32).view(np.int32)
    exponent = ((bits >> 23) & 255) - 128
    mantissa = ((bits & ~(255 << 23)) + (127 << 23)).view(np.float32)
    third, two_thirds = np.float32(1) / np.float32(3), np.float32(2) / np.float32(3)
    log2 = ((-third * mantissa + np.float32(2)) * mantissa - two_thirds) + exponent.astype(np.float32)
    return np.where(x <= ALMOST, 0.0, x * log2)


def score(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Minus the entropy that is left after a split, in bits times weight.

    Parameters
    ----------
    left, right : numpy.ndarray
        (n_classes, ...) class weights of the branches.
    """
    result = np.zeros(left.shape[1:])
    for branch in (left, right):
        total = np.zeros(left.shape[1:])
        for weight in branch:
            result = result + weighted_log2(weight)
            total = total + weight
        result = result - weighted_log2(total)
    return result


def entropy(weights: npt.NDArray[np.float64]) -> float:
    """Entropy of class weights, in bits times weight."""
    result, total = 0.0, 0.0
    for weight, term in zip(weights.tolist(), weighted_log2(weights).tolist(), strict=True):
        result -= term
        total += weight
    return result + float(weighted_log2(np.array([total]))[0])


@dataclass(frozen=True, eq=False)
class _Split:
    feature: int
    point: float
    weights: npt.NDArray[np.float64]  # (2, n_classes)
    shares: tuple[float, float]
    score: float


def grow(
    rows: Rows, bag: npt.NDArray[np.intp], random: JavaRandom, *, max_features: int, max_depth: int | None
) -> Tree:
    """One tree.

    Parameters
    ----------
    rows : Rows
    bag : numpy.ndarray
        (n_rows,) how often each row was drawn.
    random : JavaRandom
        The tree's own.
    max_features : int
        Features tried at a node; more where these separate nothing.
    max_depth : int or None
    """
    tree = Tree()
    window = list(range(rows.n_features))  # shuffled by every node, for the whole tree
    members = np.flatnonzero(bag)
    weights = np.bincount(rows.classes, weights=bag, minlength=rows.n_classes).astype(np.float64)
    todo = [(tree.add(), members, weights, 0)]
    while todo:
        node, members, weights, depth = todo.pop()
        split = None
        is_pure = weights.max() == weights.sum() or abs(weights.max() - weights.sum()) < ALMOST
        if members.size >= 2 and not is_pure and (max_depth is None or depth < max_depth):
            split, gain = _best_split(rows, bag, members, window, random, max_features)
        if split is None:
            tree.votes[node] = weights / members.size if members.size else weights
            continue
        goes_left = _goes_left(rows, members, split, random)
        left, right = tree.add(), tree.add()
        tree.feature[node], tree.split[node], tree.left[node] = split.feature, split.point, left
        tree.shares[node], tree.gain[node] = split.shares, gain
        branches = [members[goes_left], members[~goes_left]]
        branch_weights = list(split.weights)
        if not branches[0].size:  # the mean of two neighbours was rounded down to the lower one
            branch_weights = [weights / members.size] * 2
        todo.append((right, branches[1], branch_weights[1], depth + 1))
        todo.append((left, branches[0], branch_weights[0], depth + 1))  # grown first: random numbers go in this order
    return tree


def _best_split(
    rows: Rows,
    bag: npt.NDArray[np.intp],
    members: npt.NDArray[np.intp],
    window: list[int],
    random: JavaRandom,
    max_features: int,
) -> tuple[_Split | None, float]:
    """The best split of the features that are drawn, and what it gains; None if all of them gain too little."""
    best: _Split | None = None
    prior, gain = None, 0.0
    is_sensible = False
    is_member = np.zeros(rows.n_rows, dtype=bool)
    is_member[members] = True
    n_left, n_tries = len(window), max_features
    while n_left and (n_tries > 0 or not is_sensible):
        n_tries -= 1
        chosen = random.next_below(n_left)
        n_left -= 1
        window[chosen], window[n_left] = window[n_left], window[chosen]
        feature = window[n_left]
        order = rows.order[feature]
        split = _split(rows, bag, order[is_member[order]], feature)
        if split is None or (best is not None and not split.score > best.score):
            continue
        best = split
        if prior is None:
            prior = entropy(split.weights[0] + split.weights[1])
        gain = prior + split.score
        is_sensible |= gain > LEAST_GAIN
    return (best if is_sensible else None), gain


def _split(rows: Rows, bag: npt.NDArray[np.intp], members: npt.NDArray[np.intp], feature: int) -> _Split | None:
    """The best split by one feature, of members in rising order of its values; None if there is none."""
    values = rows.values[members, feature]
    n = int(np.searchsorted(values, MISSING))
    one_hot = np.zeros((rows.n_classes, members.size))
    one_hot[rows.classes[members], np.arange(members.size)] = bag[members]
    below = np.cumsum(one_hot[:, :n], axis=1)
    boundary = np.flatnonzero(values[1:n] > values[: n - 1]) if n > 1 else np.empty(0, dtype=np.intp)
    if not boundary.size:
        return None
    total = below[:, -1:]
    scores = score(below[:, boundary], total - below[:, boundary])
    at = boundary[scores.argmax()]
    with np.errstate(over="ignore"):  # Weka adds in float32 and halves in double
        point = float(values[at + 1] + values[at]) / 2
    weights = np.stack([below[:, at], total[:, 0] - below[:, at]])
    totals = [sum(branch) for branch in weights.tolist()]
    shares = (totals[0] / (totals[0] + totals[1]), totals[1] / (totals[0] + totals[1]))
    for row in members[n:].tolist():  # missing: to both sides
        for branch in (0, 1):
            weights[branch, rows.classes[row]] += shares[branch] * bag[row]
    return _Split(feature, point, weights, shares, float(score(weights[0][:, None], weights[1][:, None])[0]))


def _goes_left(rows: Rows, members: npt.NDArray[np.intp], split: _Split, random: JavaRandom) -> npt.NDArray[np.bool_]:
    """Choose the members that go left; where the value is missing, chance decides, in the order of the feature."""
    values = rows.values[members, split.feature]
    left = values.astype(np.float64) < split.point
    is_missing = values == MISSING
    if is_missing.any():
        position = np.empty(rows.n_rows, dtype=np.intp)
        position[rows.order[split.feature]] = np.arange(rows.n_rows)
        unknown = np.flatnonzero(is_missing)
        for i in unknown[np.argsort(position[members[unknown]])]:
            left[i] = random.next_double() <= split.shares[0]
    return left


def smallest_float32_not_below(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """For float32 values x, ``x < t`` is ``x < s`` with this s; finite, as every x is."""
    with np.errstate(over="ignore"):
        s = t.astype(np.float32)
    s = np.where(s < t, np.nextafter(s, np.float32(np.inf)), s)
    return np.clip(s, -MISSING, MISSING)


def votes_of(tree: Tree, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Votes of a tree for one row (n_features,), in which :data:`MISSING` goes both ways."""

    def votes(node: int) -> npt.NDArray[np.float64]:
        while tree.feature[node] != LEAF:
            value, left = values[tree.feature[node]], tree.left[node]
            if value == MISSING:
                return tree.shares[node][0] * votes(left) + tree.shares[node][1] * votes(left + 1)
            node = left if float(value) < tree.split[node] else left + 1
        return tree.votes[node]

    return votes(0)
