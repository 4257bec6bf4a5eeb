"""Cells of values: a table that tells a CPU most of a value's rank among thresholds before it compares.

For ``kernels/forest_ranks_cpu.cu``. A value's cell is a function of it that never falls, computed here and there by the
same operations: so the thresholds of lower cells are below the value, those of higher cells above it, and only those
of its own cell are compared. Cells are equal steps of the value or, near enough, of its logarithm; each column takes
the one of the two whose fullest cell has fewer thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CELLS = 1024  # per column
LINEAR = -1
FEW_HALVINGS, MANY_HALVINGS = 5, 8  # the kernel makes up to so few, or so many
LARGEST_SCALE = np.float32(1e30)  # so that 0 times it is 0
BEHIND = np.iinfo(np.int32).max  # the key of what is behind the last threshold


class CellTables(NamedTuple):
    """Of some columns.

    Attributes
    ----------
    places : numpy.ndarray
        (n_columns, 4) int32: :data:`LINEAR` and the bits of the float32 first value and cells per unit, or bits to
        shift, the first key and 0; then the number of halvings among the thresholds of a cell.
    below : numpy.ndarray
        (n_columns, CELLS) uint8, thresholds in lower cells.
    keys : numpy.ndarray
        (n_columns, n_keys) int32, ascending, then :data:`BEHIND`, as many as halvings may look at.
    """

    places: npt.NDArray[np.int32]
    below: npt.NDArray[np.uint8]
    keys: npt.NDArray[np.int32]

    def of(self, columns: npt.NDArray[np.intp]) -> CellTables:
        """The tables of some columns."""
        return CellTables(self.places[columns], self.below[columns], self.keys[columns])


def cell_tables(thresholds: npt.NDArray[np.float32]) -> CellTables:
    """Tables for columns of thresholds, (n_columns, n) float32: each ascending, then NaN."""
    n_columns = len(thresholds)
    is_real = ~np.isnan(thresholds)
    keys = keys_of(thresholds)
    n = is_real.sum(axis=1)
    last = np.maximum(n - 1, 0)
    at = np.arange(n_columns)
    first = np.where(n > 0, thresholds[:, 0], 0).astype(np.float32)
    span = np.where(n > 1, thresholds[at, last].astype(np.float64) - first, 1.0)
    scale = np.minimum((CELLS - 1) / span, LARGEST_SCALE).astype(np.float32)
    linear = _counts(linear_cells(thresholds, first[:, None], scale[:, None]), is_real)
    first_key = np.where(n > 0, keys[:, 0], 0).astype(np.int32)
    reach = np.where(n > 0, keys[at, last].astype(np.int64) - first_key, 0)
    shift = np.maximum(0, np.ceil(np.log2(reach + 1)).astype(np.int32) - int(np.log2(CELLS)))
    by_bits = _counts(key_cells(keys, first_key[:, None], shift[:, None]), is_real)
    is_linear = linear.max(axis=1) <= by_bits.max(axis=1)
    counts = np.where(is_linear[:, None], linear, by_bits)
    halvings = np.ceil(np.log2(counts.max(axis=1) + 1)).astype(np.int32)
    halvings = np.where(halvings > FEW_HALVINGS, MANY_HALVINGS, halvings)
    places = np.stack(
        [
            np.where(is_linear, LINEAR, shift),
            np.where(is_linear, first.view(np.int32), first_key),
            np.where(is_linear, scale.view(np.int32), 0),
            halvings,
        ],
        axis=1,
    ).astype(np.int32)
    more = 1 << int(halvings.max(initial=0))
    return CellTables(
        places,
        (np.cumsum(counts, axis=1) - counts).astype(np.uint8),
        np.pad(keys, ((0, 0), (0, more)), constant_values=BEHIND),
    )


def linear_cells(
    values: npt.NDArray[np.float32], first: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]
) -> npt.NDArray[np.intp]:
    """Cells of values by equal steps."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = (values - first) * scale
    return np.clip(np.nan_to_num(steps, nan=0.0, posinf=CELLS, neginf=0.0), 0, CELLS - 1).astype(np.intp)


def key_cells(
    keys: npt.NDArray[np.int32], first: npt.NDArray[np.int32], shift: npt.NDArray[np.int32]
) -> npt.NDArray[np.intp]:
    """Cells of values by equal steps of the bits of a float, which are nearly those of its logarithm."""
    steps = np.maximum(keys, first).astype(np.int64) - first >> shift
    return np.minimum(steps, CELLS - 1).astype(np.intp)


def keys_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Whole numbers in the order of the values; the largest for NaN."""
    bits = (values + np.float32(0)).view(np.int32)
    keys = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    return np.where(np.isnan(values), BEHIND, keys).astype(np.int32)


def _counts(cells: npt.NDArray[np.intp], is_real: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """(n_columns, CELLS): how many real thresholds are in each."""
    n_columns = len(cells)
    numbers = cells + CELLS * np.arange(n_columns)[:, None]
    return np.bincount(numbers[is_real], minlength=n_columns * CELLS).reshape(n_columns, CELLS)
