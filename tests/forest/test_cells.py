"""Ranks of values among thresholds by cells, against NumPy's search."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.device import choose_device
from gpu_tomoclass.forest.cells import CELLS, MANY_HALVINGS, cell_tables

LARGEST = np.finfo(np.float32).max
RANDOM = np.random.default_rng(4)
CROWDED = 1 + np.arange(200) * 2.0**-23  # neighbours among all float32 values
COLUMNS = {
    "uniform": RANDOM.uniform(0, 65535, 254),
    "one": [3.5],
    "two": [-1.0, 7.0],
    "of both signs": RANDOM.normal(size=200),
    "far out": np.exp(RANDOM.normal(size=254) * 12),
    "whole": np.arange(250) + 20000.0,
    "crowded": CROWDED,
    "crowded between far ones": [-LARGEST, *CROWDED, LARGEST],
    "crowded with all others far away": [-LARGEST, *(-CROWDED[::-1]), 0.0, *CROWDED[:50], LARGEST],
    "small": [2e-38, 3e-38, 1e-30],
    "largest": [-LARGEST, 0.0, LARGEST],
    "none": [],
}


def columns_of_thresholds() -> np.ndarray:
    """(n_columns, 256) float32, as a forest has them."""
    thresholds = np.full((len(COLUMNS), 256), np.nan, np.float32)
    for row, values in zip(thresholds, COLUMNS.values(), strict=True):
        distinct = np.unique(np.asarray(values, np.float32))
        row[: distinct.size] = distinct
    return thresholds


def values_to_rank(thresholds: np.ndarray) -> np.ndarray:
    """All thresholds, their neighbours, and values anywhere."""
    real = thresholds[~np.isnan(thresholds)]
    with np.errstate(over="ignore"):
        beside = [np.nextafter(real, np.float32(side)) for side in (-np.inf, np.inf)]
    anywhere = RANDOM.integers(-(2**31), 2**31, size=2000).astype(np.int32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, LARGEST, -LARGEST], np.float32)
    normal = (RANDOM.normal(size=500) * 1000).astype(np.float32)
    values = np.concatenate([real, *beside, anywhere, normal, special])
    # Thresholds are never denormal, and a denormal value counts as 0 does.
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.float32(0), values)


def test_ranks_are_those_of_a_search() -> None:
    device = choose_device("native", threads=1)
    thresholds = columns_of_thresholds()
    values = values_to_rank(thresholds)
    tables = cell_tables(thresholds)
    n_columns, tile = len(thresholds), 128
    ranks = device.empty((-(-values.size // tile), n_columns, tile), np.uint8)
    device.launch(
        "forest_ranks_cpu.cu",
        "forest_ranks_cpu",
        grid=(-(-values.size // 512) * n_columns // 4,),
        block=(1,),
        args={
            "features": device.array(values[np.newaxis]),
            "feature_of_column": np.zeros(n_columns, np.int32),
            **tables._asdict(),
            "ranks": ranks,
            "n_words": n_columns // 4,
            "n_words_of_tile": n_columns // 4,
            "n_keys": tables.keys.shape[1],
            "n_pixels": values.size,
        },
        defines={"CELLS": CELLS, "TILE": tile, "PIXELS": 64, "PASSES": 8, "ONE_THREAD": 1},
    )
    for column, (name, row) in enumerate(zip(COLUMNS, thresholds, strict=True)):
        found = ranks[:, column].reshape(-1)[: values.size]
        expected = np.searchsorted(row[~np.isnan(row)], values, side="right")
        np.testing.assert_array_equal(found, np.where(np.isnan(values), 255, expected), err_msg=name)


@pytest.mark.parametrize(("name", "halvings"), [("one", 1), ("whole", 1), ("crowded between far ones", MANY_HALVINGS)])
def test_crowded_cells_are_halved_more_often(name: str, halvings: int) -> None:
    """All ways of the kernel are taken by the columns above."""
    assert cell_tables(columns_of_thresholds()).places[list(COLUMNS).index(name), 3] == halvings
