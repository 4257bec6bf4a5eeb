"""Train a forest as Fiji does: FastRandomForest 0.99, the same trees from the same rows and seed, node by node.

The trees are grown by ``weka_trees.cpp``, compiled for this machine when it is first used, or, where there is no C++
compiler, by the definition in :mod:`gpu_tomoclass.forest.weka_trees`, which takes much longer.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import LibraryCache, find_compiler, worker_count
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, UsageError
from gpu_tomoclass.forest.arrays import LEAF, Forest
from gpu_tomoclass.forest.java_random import JavaRandom
from gpu_tomoclass.forest.trained import TrainedForest, checked_rows, out_of_bag, training_notes
from gpu_tomoclass.forest.weka_trees import MISSING, Rows, grow, smallest_float32_not_below, votes_of

ENGINES = ("auto", "compiled", "python")
SOURCE = Path(__file__).with_name("weka_trees.cpp")
PARTS = 16  # of work on all rows or features, per thread; between them a caller may stop it
RESAMPLE_SEED = 1  # the default of Weka's filter, which TWS leaves as it is


@dataclass(frozen=True, eq=False)
class _Tree:
    """Arrays of one tree; ``left`` counts from its root, ``votes`` has the leaves in the order of their nodes."""

    feature: npt.NDArray[np.int32]
    left: npt.NDArray[np.int32]
    split: npt.NDArray[np.float64]
    left_share: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    votes: npt.NDArray[np.float64]


def train_weka(
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    *,
    n_trees: int = 200,
    max_features: int = 2,
    max_depth: int | None = None,
    balance: bool = False,
    seed: int = 42,
    n_jobs: int | None = None,
    channels: Sequence[str] | None = None,
    engine: str = "auto",
    should_stop: Callable[[], bool] | None = None,
) -> TrainedForest:
    """Grow the forest that Fiji's Trainable Weka Segmentation grows from these rows, in this order, with this seed.

    Trees, votes and out-of-bag error are those of FastRandomForest 0.99, whatever ``n_jobs``. Splits minimise entropy,
    computed with its approximate logarithm; a leaf votes with how often its rows were drawn.

    Parameters
    ----------
    values : numpy.ndarray
        (n_rows, n_features) float32, the features in Fiji's order; NaN is missing.
    labels : numpy.ndarray
        (n_rows,) integers 1..255; any subset of them.
    n_trees : int
    max_features : int
        Features tried per split, and more where these separate nothing; at most all of them.
    max_depth : int, optional
        Default, as 0: unlimited.
    balance : bool
        Draw as many rows of each class before, as TWS's "balance classes" does (Weka's supervised ``Resample``, bias
        1, seed 1). The out-of-bag error is then that of the drawn rows, of which many are there more than once.
    seed : int
        A Java ``int``: -2147483648..2147483647.
    n_jobs : int, optional
        Threads; default one per usable core.
    channels : sequence of str, optional
        Names of the features, for messages.
    engine : {"auto", "compiled", "python"}
        ``"auto"`` is compiled where there is a C++ compiler.
    should_stop : callable, optional
        Asked before each tree and often else; once True, nothing more is begun.

    Raises
    ------
    DataError
        If there are no rows, fewer than two classes, labels outside 1..255, infinite values, or such beyond 1.7e38.
    UsageError
        If a setting makes no sense.
    ResourceError
        If memory does not suffice, or ``engine="compiled"`` cannot be.
    StoppedError
        If ``should_stop`` said so.
    """
    values, labels = checked_rows(values, labels, channels=channels)
    _check_settings(n_trees, max_features, max_depth, seed, engine)
    _check_range(values, channels)
    class_values, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    notes: list[str] = []
    if balance:
        drawn = balanced_rows(classes)
        values, classes = values[drawn], classes[drawn]
        notes.append(
            f"classes were balanced by drawing {counts.sum() // counts.size} rows of each: "
            "the out-of-bag error is optimistic, as copies of a row are on both sides"
        )
    library = _library(engine, notes)
    train = _grow_in_python if library is None else library.grow
    depth = max_depth or None
    trees, votes = train(
        values,
        classes.astype(np.int32),
        counts.size,
        n_trees=n_trees,
        max_features=min(max_features, values.shape[1]),
        max_depth=depth,
        seed=seed,
        threads=worker_count(n_jobs),
        should_stop=should_stop or (lambda: False),
    )
    error, confusion, n_never = out_of_bag(votes, classes)
    return TrainedForest(
        forest=_forest(trees, values.shape[1]),
        class_values=tuple(int(v) for v in class_values),
        class_counts=tuple(int(n) for n in counts),
        oob_error=error,
        oob_confusion=confusion,
        n_never_out_of_bag=n_never,
        feature_importance=_importance(trees, values.shape[1]),
        settings={
            "engine": "weka",
            "n_trees": n_trees,
            "max_features": max_features,
            "max_depth": depth,
            "balance": balance,
            "seed": seed,
        },
        notes=(*notes, *training_notes(values, class_values, counts, n_never)),
    )


def reason_against(values: npt.NDArray[np.float32], *, min_samples_leaf: int, seed: int) -> str | None:
    """Why :func:`train_weka` cannot grow this forest fast; None if it can."""
    if min_samples_leaf != 1:
        return "that one has no smallest number of pixels in a leaf"
    if not _is_java_int(seed):
        return f"that one takes no seed of {seed}"
    values = np.asarray(values)
    if values.size and _columns_beyond(values).size:
        return f"that one cannot split values beyond {MISSING / 2:.3g}"
    try:
        _loaded_library()
    except ResourceError as error:
        return f"that one cannot be compiled here ({error.what.splitlines()[0]})"
    return None


def balanced_rows(classes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Rows that Weka's supervised ``Resample`` draws: class by class, n_rows // n_classes of each, with replacement.

    Parameters
    ----------
    classes : numpy.ndarray
        (n_rows,) 0..n_classes - 1, each of them met.
    """
    random = JavaRandom(RESAMPLE_SEED)
    of_class = [np.flatnonzero(classes == c) for c in range(int(classes.max()) + 1)]
    n = classes.size // len(of_class)
    return np.concatenate([rows[[random.next_below(rows.size) for _ in range(n)]] for rows in of_class])


def _check_settings(n_trees: int, max_features: int, max_depth: int | None, seed: int, engine: str) -> None:
    for name, number in (("n_trees", n_trees), ("max_features", max_features)):
        if number < 1:
            raise UsageError(f"{name} is {number}", do="give 1 or more")
    if max_depth is not None and max_depth < 0:
        raise UsageError(f"max_depth is {max_depth}", do="give 1 or more, or leave it out")
    if not _is_java_int(seed):
        raise UsageError(f"seed is {seed}", do="give a number from -2147483648 to 2147483647, as Fiji has them")
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is unknown", do=f"choose one of {', '.join(ENGINES)}")


def _is_java_int(number: int) -> bool:
    return -(2**31) <= number < 2**31


def _columns_beyond(values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """FastRandomForest adds neighbouring values in float32; where that overflows it would never end."""
    return np.flatnonzero(np.nanmax(np.abs(values), axis=0, initial=0) > MISSING / 2)


def _check_range(values: npt.NDArray[np.float32], channels: Sequence[str] | None) -> None:
    beyond = _columns_beyond(values)
    if beyond.size:
        names = [str(c) if channels is None else channels[c] for c in beyond[:5]]
        raise DataError(
            f"values beyond {MISSING / 2:.3g} cannot be split as Fiji splits them, in the channels {', '.join(names)}",
            do="look for extreme voxels under the strokes, leave these channels out, or choose --forest sklearn",
        )


# --- what both engines share -----------------------------------------------------------------------------------------


def _forest(trees: Sequence[_Tree], n_features: int) -> Forest:
    n_nodes = np.array([tree.feature.size for tree in trees])
    roots = np.concatenate([[0], np.cumsum(n_nodes)[:-1]]).astype(np.int64)
    if n_nodes.sum() >= 2**31:
        raise ResourceError(f"the forest has {n_nodes.sum()} nodes, more than 2147483647", do="use fewer trees")
    feature = np.concatenate([tree.feature for tree in trees])
    is_leaf = feature == LEAF
    child = np.concatenate([tree.left + root for tree, root in zip(trees, roots, strict=True)])
    child[is_leaf] = np.arange(is_leaf.sum())
    return Forest(
        feature=feature,
        threshold=smallest_float32_not_below(np.concatenate([tree.split for tree in trees])),
        child=child.astype(np.int32),
        left_fraction=np.concatenate([tree.left_share for tree in trees]).astype(np.float32),
        votes=np.concatenate([tree.votes for tree in trees]),
        roots=roots,
        n_features=n_features,
    )


def _importance(trees: Sequence[_Tree], n_features: int) -> npt.NDArray[np.float64]:
    """Mean over trees of each feature's share of the entropy saved."""
    total = np.zeros(n_features)
    for tree in trees:
        asks = tree.feature != LEAF
        of_tree = np.bincount(tree.feature[asks], weights=tree.gain[asks], minlength=n_features)
        if of_tree.sum() > 0:
            total += of_tree / of_tree.sum()
    return total / total.sum() if total.sum() > 0 else total


def _grow_in_python(
    values: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int32],
    n_classes: int,
    *,
    n_trees: int,
    max_features: int,
    max_depth: int | None,
    seed: int,
    threads: int,
    should_stop: Callable[[], bool],
) -> tuple[list[_Tree], npt.NDArray[np.float64]]:
    """The trees and the sums (n_rows, n_classes) of what they vote for rows that they have not seen."""
    rows = Rows(values, classes.astype(np.intp), n_classes)
    trees, votes = [], np.zeros((rows.n_rows, n_classes))
    for bag, random in rows.bootstraps(n_trees, seed):
        if should_stop():
            raise _stopped()
        tree = grow(rows, bag, random, max_features=max_features, max_depth=max_depth)
        for row in np.flatnonzero(bag == 0):
            votes[row] += votes_of(tree, rows.values[row])
        trees.append(
            _Tree(
                np.array(tree.feature, np.int32),
                np.array(tree.left, np.int32),
                np.array(tree.split),
                np.array(tree.shares)[:, 0],
                np.array(tree.gain),
                np.array([tree.votes[node] for node in sorted(tree.votes)]),
            )
        )
    return trees, votes


# --- the compiled engine ---------------------------------------------------------------------------------------------

_POINTER, _INT, _LONG, _ULONG = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "weka_open": (_POINTER, (_POINTER, _POINTER, _LONG, _INT, _INT)),
    "weka_close": (None, (_POINTER,)),
    "weka_sort": (_INT, (_POINTER, _INT, _INT)),
    "weka_seeds": (None, (_POINTER, _LONG, _INT, _POINTER, _POINTER)),
    "weka_grow": (_POINTER, (_POINTER, _ULONG, _ULONG, _INT, _INT, _POINTER)),
    "weka_n_nodes": (_LONG, (_POINTER,)),
    "weka_copy": (None, (_POINTER,) * 7),
    "weka_free": (None, (_POINTER,)),
    "weka_out_of_bag": (_INT, (_POINTER, _POINTER, _INT, _POINTER, _LONG, _LONG, _POINTER)),
}


def _library(engine: str, notes: list[str]) -> _Library | None:
    """The compiled engine; None, with a note, if the slow one must do."""
    if engine == "python":
        return None
    try:
        return _loaded_library()
    except ResourceError as error:
        if engine == "compiled":
            raise
        notes.append(f"the forest was grown by the slow Python engine: {error.what.splitlines()[0]}")
        return None


def _loaded_library() -> _Library:
    """The library, which takes two calls of the compiler to find, once for each way of finding it."""
    return _library_of(os.environ.get("CXX"), os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME"))


@functools.cache
def _library_of(*_environment: str | None) -> _Library:
    return _Library()


class _Library:
    def __init__(self) -> None:
        if os.name != "posix":
            raise ResourceError("the compiled engine needs Linux or macOS")
        compiled = LibraryCache()
        library = compiled.library(SOURCE.read_text(encoding="utf-8"), find_compiler(compiled), options=("-O3",))
        self.call: dict[str, Callable[..., Any]] = {}
        for name, (result, arguments) in _FUNCTIONS.items():
            function = library[name]
            function.restype, function.argtypes = result, arguments
            self.call[name] = function

    def grow(
        self,
        values: npt.NDArray[np.float32],
        classes: npt.NDArray[np.int32],
        n_classes: int,
        *,
        n_trees: int,
        max_features: int,
        max_depth: int | None,
        seed: int,
        threads: int,
        should_stop: Callable[[], bool],
    ) -> tuple[list[_Tree], npt.NDArray[np.float64]]:
        """As :func:`_grow_in_python`."""
        call = self.call
        n_rows, n_features = values.shape
        values, classes = np.ascontiguousarray(values), np.ascontiguousarray(classes)
        votes = np.zeros((n_rows, n_classes))
        in_bag = np.zeros((n_trees, -(-n_rows // 64)), dtype=np.uint64)
        bags, own = np.empty(n_trees, dtype=np.uint64), np.empty(n_trees, dtype=np.uint64)
        depth = max_depth or 0
        with (
            ThreadPoolExecutor(threads, thread_name_prefix="weka") as pool,
            self._rows(values, classes, n_classes) as rows,
        ):

            def over(total: int, work: Callable[[int, int], int]) -> None:
                step = max(1, -(-total // (PARTS * threads)))

                def part(start: int) -> int:
                    if should_stop():
                        raise _stopped()
                    return work(start, min(start + step, total))

                for failed in pool.map(part, range(0, total, step)):
                    if failed:
                        raise _no_memory(n_rows, n_features)

            over(n_features, lambda first, stop: call["weka_sort"](rows, first, stop))
            call["weka_seeds"](rows, seed, n_trees, bags.ctypes.data, own.ctypes.data)
            handles = (ctypes.c_void_p * n_trees)()

            def grow_one(t: int) -> None:
                if should_stop():
                    raise _stopped()
                handles[t] = call["weka_grow"](
                    rows, int(bags[t]), int(own[t]), max_features, depth, in_bag[t].ctypes.data
                )

            try:
                list(pool.map(grow_one, range(n_trees)))
                if not all(handles):
                    raise _no_memory(n_rows, n_features)
                over(
                    n_rows,
                    lambda first, stop: call["weka_out_of_bag"](
                        rows, handles, n_trees, in_bag.ctypes.data, first, stop, votes.ctypes.data
                    ),
                )
                trees = [self._tree(handle, n_classes) for handle in handles if handle]
            finally:
                for handle in handles:
                    call["weka_free"](handle)
        return trees, votes

    @contextmanager
    def _rows(
        self, values: npt.NDArray[np.float32], classes: npt.NDArray[np.int32], n_classes: int
    ) -> Iterator[ctypes.c_void_p]:
        n_rows, n_features = values.shape
        rows = self.call["weka_open"](values.ctypes.data, classes.ctypes.data, n_rows, n_features, n_classes)
        if not rows:
            raise _no_memory(n_rows, n_features)
        try:
            yield rows
        finally:
            self.call["weka_close"](rows)

    def _tree(self, handle: int, n_classes: int) -> _Tree:
        n = self.call["weka_n_nodes"](handle)
        tree = _Tree(
            np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n), np.empty(n), np.empty(n),
            np.empty(((n + 1) // 2, n_classes)),  # every question has two successors
        )  # fmt: skip
        arrays = (tree.feature, tree.left, tree.split, tree.left_share, tree.gain, tree.votes)
        self.call["weka_copy"](handle, *(array.ctypes.data for array in arrays))
        return tree


def _stopped() -> StoppedError:
    return StoppedError("the forest is not wanted any more")


def _no_memory(n_rows: int, n_features: int) -> ResourceError:
    needed = 12 * n_rows * n_features / 2**30
    return ResourceError(
        f"there is not enough memory to train on {n_rows} rows of {n_features} features (about {needed:.1f} GiB)",
        do="train on fewer pixels or channels",
    )
