"""Work that a problem asks for beside arithmetic and bytes of arrays: comparisons, integers, accesses to caches.

``benchmarks/roofline`` calls the floor of a kernel what its arrays need at full bandwidth, or its arithmetic, or
what stands here, whichever is most. Here stands what any program of this kind must do, counted from the problem (pixels
of a disk, nodes on the way down a tree), never from the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from benchmarks.roofline.counts import Launch, small_features, standard_forest
from benchmarks.roofline.volumes import ball_work
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.reference.kuwahara import line_offsets
from gpu_tomoclass.features.reference.membrane import membrane_kernels
from gpu_tomoclass.forest.arrays import LEAF, Forest

SAMPLE = (64, 128)  # pixels whose ways down the trees are counted


class Work(NamedTuple):
    """Per pixel of the result: integer operations and comparisons, 4-byte accesses to a cache or to shared memory."""

    integer: float
    accesses: float


class Rule(NamedTuple):
    """The work of a kernel, and the reason for the numbers."""

    work: Callable[[Launch], Work]
    why: str


@cache
def visits_per_pixel() -> float:
    """Nodes that a pixel meets in all trees of the standard forest, leaves included, on average."""
    forest: Forest = standard_forest()
    values = small_features(SAMPLE)
    pixels = np.arange(values.shape[1])
    n = 0
    for root in forest.roots:
        at = np.full(pixels.size, root)
        moving = pixels
        while moving.size:
            n += moving.size
            moving = moving[forest.feature[at[moving]] != LEAF]
            node = at[moving]
            at[moving] = forest.child[node] + (values[forest.feature[node], moving] >= forest.threshold[node])
    return n / pixels.size


def _forest(launch: Launch) -> Work:
    visits = visits_per_pixel()
    return Work(integer=3 * visits + standard_forest().n_trees, accesses=2 * visits)


def _forest_ranks(launch: Launch) -> Work:
    halvings = int(dict(launch.defines)["STEPS"]) * 4 * int(dict(launch.defines)["WORDS"])
    return Work(integer=halvings, accesses=halvings)


def _entropy(launch: Launch) -> Work:
    updates = 2 * launch.numbers["n_rows"]
    return Work(integer=5 * updates, accesses=5 * updates)


def _median(launch: Launch) -> Work:
    updates = 2 * launch.numbers["n_rows"]
    return Work(integer=4 * updates, accesses=3 * updates)


def _median_ranks(launch: Launch) -> Work:
    ny, nx, half = (launch.numbers[key] for key in ("tile_y", "tile_x", "half"))
    n = (ny + 2 * half) * (nx + 2 * half)
    return Work(integer=2 * n * math.log2(n) / (ny * nx), accesses=4 * n / (ny * nx))


def _kuwahara_figures(launch: Launch) -> Work:
    first, n = launch.numbers["first_angle"], launch.numbers["n_angles"]
    return Work(integer=0, accesses=sum(_kuwahara_lines()[first : first + n]))


def _kuwahara_calmest(launch: Launch) -> Work:
    first, n = launch.numbers["first_angle"], launch.numbers["n_angles"]
    candidates = sum(_kuwahara_lines()[first : first + n])
    return Work(integer=3 * candidates, accesses=4 * candidates)


def _volume_runs(launch: Launch) -> Work:
    return Work(integer=1, accesses=0)


def _volume_extremes(launch: Launch) -> Work:
    n_rows, _ = ball_work(launch)
    return Work(integer=n_rows, accesses=n_rows)


def _volume_sums(launch: Launch) -> Work:
    _, n_voxels = ball_work(launch)
    return Work(integer=0, accesses=n_voxels)


def _volume_median(launch: Launch) -> Work:
    updates = 2 * ball_work(launch)[0]
    return Work(integer=4 * updates, accesses=3 * updates)


def _membrane(launch: Launch) -> Work:
    block = next(b for b in FeatureBank.create("paper").blocks if b.family == "membrane_projections")
    kernels = membrane_kernels(dict(block.parameters)["patch"], dict(block.parameters)["thickness"])
    return Work(integer=0, accesses=2 * sum(int(np.count_nonzero(kernel)) for kernel in kernels))


@cache
def _kuwahara_lines() -> list[int]:
    """Pixels on each of the ten lines."""
    block = next(b for b in FeatureBank.create("paper").blocks if b.family == "kuwahara")
    return [len(line) for line in line_offsets(dict(block.parameters)["patch"])]


RULES = {
    "forest": Rule(
        _forest,
        "per node on a pixel's way (mean over pixels and trees, leaf included) the node and the value that it asks for"
        " are read, the value is compared, and two integer operations take the node apart; per tree one vote",
    ),
    "forest_values": Rule(_forest, "as forest"),
    "forest_ranks": Rule(
        _forest_ranks, "a rank among up to 254 thresholds takes 8 halvings, each reads a threshold and compares"
    ),
    "entropy": Rule(
        _entropy,
        "a disk that moves by a pixel loses and gains one pixel per row; for each its level is read, its count read and"
        " written, and a 64-bit value of the table added to the sum (8 bytes, two additions), beside the count's"
        " place, the count, and the comparison for `bins`",
    ),
    "median": Rule(
        _median,
        "a disk that moves by a pixel loses and gains one pixel per row; for each its rank is read and a word of the"
        " set read and written; word, bit, exchange and the comparison with the median are integers",
    ),
    "median_ranks": Rule(
        _median_ranks,
        "sorting n pairs of key and number compares n log2(n) times, each two operations, and moves each pair through"
        " shared memory at least once; tiles overlap",
    ),
    "kuwahara_figures": Rule(_kuwahara_figures, "each pixel on each line is read once from a cache"),
    "kuwahara_calmest": Rule(
        _kuwahara_calmest,
        "the lines of different pixels share no partial minima, so each of 200 candidates is read (16 bytes) and"
        " compared in three criteria",
    ),
    "volume_runs": Rule(_volume_runs, "each value of a table is the extreme of two others: a comparison"),
    "volume_extremes": Rule(
        _volume_extremes, "the extreme of each row of the ball, once found, is read from a cache and compared"
    ),
    "volume_sums": Rule(
        _volume_sums, "the order of additions is given, so each of them takes a voxel of 4 bytes from a cache"
    ),
    "volume_median": Rule(
        _volume_median,
        "a ball that moves by a voxel loses and gains one voxel per row; for each its rank is read and a word of the"
        " set read and written; word, bit, exchange and the comparison with the median are integers",
    ),
    "volume_median_lines": Rule(_volume_median, "as volume_median"),
    "membrane": Rule(
        _membrane, "the order of additions is given, so each of them takes a pixel of 8 bytes from a cache"
    ),
}

WHY_ABOVE = {  # kernels that take more than three times their floors
    "forest": "a step is one addition, but the places of node, column and rank are integers, too, and all pixels of a"
    " tile walk as deep as the tree",
    "forest_values": "nodes come one after the other from L2, 8 bytes of a sector of 32; all pixels of a warp walk as"
    " deep as the tree",
    "forest_missing": "looks for missing values and finds none: few blocks that wait for memory, a millisecond",
    "median_ranks": "a bitonic network makes log2(n) / 4 times the exchanges of a sort that compares only as needed, of"
    " 64-bit items",
    "median": "the sets of its windows take 16 KB of shared memory per block, so few warps run at once, each of which"
    " waits for every step of its chain",
    "entropy": "as median: its histograms take 16 KB of shared memory per block",
    "median_small": "sorting compares, and no rule counts its comparisons: the floor is that of the bytes",
    "kuwahara_figures": "loads and their addresses issue beside the sums, of which alone the floor is made",
    "blur_x": "where bandwidth is largest, loads from shared memory and addresses beside the products take the slots",
    "blur_y": "as blur_x, or few threads have room and wait for memory",
    "derivatives_x": "taps come from shared memory, two reads of 8 bytes for three operations; where double precision"
    " is fast it waits for them",
    "volume_blur_x": "for two operations of arithmetic a tap costs a look at the table of mirrors and an address of 64"
    " bits; several results of a thread would share them",
    "volume_blur_rows": "as volume_blur_x",
    "volume_extremes": "each voxel tests for each row of the ball whether it lies in the volume and makes two addresses"
    " of 64 bits for two reads; the floor has one comparison",
    "volume_levels_of_parts": "few blocks, each of which waits for one read after the other; 1 % of the median",
    "volume_runs": "where bandwidth is largest, addresses of the two reads take the integer units",
    "volume_median": "each thread counts its ball 17 times; of small balls only, where that is some hundred reads",
    "volume_median_lines": "the floor is that of a window that slides over ranks, as on a CPU; here each row also tests"
    " whether it lies in the volume and makes an address of 64 bits and two levels; 32 lanes share a voxel's sums",
}


def necessary_seconds(launch: Launch, *, n_results: int, integer_rate: float, clocks: float) -> float:
    """Seconds of what :data:`RULES` says; 0 for other kernels.

    Parameters
    ----------
    launch : Launch
    n_results : int
        Pixels or voxels of the result.
    integer_rate : float
        Integer operations per clock and multiprocessor.
    clocks : float
        Multiprocessor cycles per second.
    """
    rule = RULES.get(launch.kernel)
    if rule is None:
        return 0.0
    work = rule.work(launch)
    return n_results * max(work.integer / integer_rate, work.accesses / 32) / clocks
