"""Which formula of the Hessian rows follow: golden rows of TWS 4, and the same rewritten by the algebra of the old."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden_sets import GoldenSet

from gpu_tomoclass.annotations.arff import OLD_RELATION, TWS_RELATION, TrainingTable, load_arff
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.hessian_formula import FIRST, SECOND, formula_of_rows
from gpu_tomoclass.training.train_model import train_from_table


@pytest.fixture(scope="module")
def rows(golden: dict[str, GoldenSet]) -> TrainingTable:
    return load_arff(golden["small8"].arff_path)


def made_old(table: TrainingTable, *, scale: float = 1.0) -> TrainingTable:
    """What TWS before 3.2.25 would have written: eigenvalues sqrt(2) times as far from their mean; six decimals."""
    values = table.values.astype(np.float64)
    column = {name: i for i, name in enumerate(table.channels)}
    for name, i in column.items():
        if name.startswith(FIRST):
            j = column[name.replace(FIRST, SECOND)]
            mean, half = (values[:, i] + values[:, j]) / 2, (values[:, i] - values[:, j]) / 2
            values[:, i], values[:, j] = mean + np.sqrt(2) * half, mean - np.sqrt(2) * half
    return rounded(replace(table, values=values, relation=OLD_RELATION), scale)


def rounded(table: TrainingTable, scale: float) -> TrainingTable:
    """Hessian channels of the image times ``scale``, as an ARFF holds them."""
    values = table.values.astype(np.float64)
    for i, name in enumerate(table.channels):
        if name.startswith("Hessian_Eigenvalue"):
            values[:, i] *= scale
        elif name.startswith("Hessian_Normalized"):
            values[:, i] *= scale**2
    return replace(table, values=np.round(values.astype(np.float32).astype(np.float64), 6).astype(np.float32))


@pytest.mark.parametrize("scale", [1.0, 257.0, 1 / 255])
@pytest.mark.parametrize("n", [1, 7, None])
def test_rows_tell(rows: TrainingTable, scale: float, n: int | None) -> None:
    assert formula_of_rows(rounded(rows, scale).values[:n], rows.channels) == "current"
    assert formula_of_rows(made_old(rows, scale=scale).values[:n], rows.channels) == "legacy"


def test_rows_that_do_not_tell(rows: TrainingTable) -> None:
    without = [i for i, name in enumerate(rows.channels) if not name.startswith("Hessian")]
    assert formula_of_rows(rows.values[:, without], [rows.channels[i] for i in without]) is None
    assert formula_of_rows(np.zeros_like(rows.values), rows.channels) is None
    assert formula_of_rows(np.full_like(rows.values, np.nan), rows.channels) is None
    assert formula_of_rows(rounded(rows, 1e-6).values, rows.channels) is None  # below the sixth decimal
    other = rows.values.copy()
    other[:, [i for i, name in enumerate(rows.channels) if name.startswith(FIRST)]] *= 3
    assert formula_of_rows(other, rows.channels) is None
    half = np.concatenate([rows.values, made_old(rows).values])
    assert formula_of_rows(half, rows.channels) is None


def test_training_follows_the_rows(rows: TrainingTable) -> None:
    current, old = (train_from_table(table, n_trees=2) for table in (rows, made_old(rows)))
    assert (current.model.bank.hessian, current.table.relation) == ("current", TWS_RELATION)
    # Saved rows go back to Fiji with the relation by which its window knows the old formula.
    assert (old.model.bank.hessian, old.table.relation) == ("legacy", OLD_RELATION)
    assert any("before 3.2.25" in note for note in old.notes)
    assert not any("3.2.25" in note for note in current.notes)


def test_asking_for_a_formula(rows: TrainingTable) -> None:
    asked = train_from_table(made_old(rows), hessian="current", n_trees=2)
    assert asked.model.bank.hessian == "current"
    assert any("will not see what it learned" in note for note in asked.notes)
    silent = train_from_table(replace(rows, values=np.zeros_like(rows.values)), n_trees=2)
    assert silent.model.bank.hessian == "current"
    assert any("do not tell" in note for note in silent.notes)
    assert FeatureBank.from_channels(rows.channels, hessian="legacy")[0].hessian == "legacy"
