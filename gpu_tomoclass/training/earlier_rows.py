"""Rows that an earlier model was trained on, pooled with strokes on another volume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_tomoclass.annotations import TrainingTable
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.model import Model

SEED = 0  # for drawing rows


@dataclass(frozen=True)
class OldRows:
    """Rows of an earlier training and what they count.

    Attributes
    ----------
    table : TrainingTable
        Those drawn.
    model : Model
        Voxels of the new volume go through its scale, with its map if it was adapted, so that features compare.
    kept : bool
        Whether the model kept the rows; the channels of a table from a file are looked at.
    record : dict
        JSON-ready: hash of the model, weight, number of rows.
    """

    table: TrainingTable
    model: Model
    kept: bool
    record: dict[str, Any]


def old_rows(model: Model, *, weight: float = 1.0, table: TrainingTable | None = None) -> OldRows:
    """Draw rows of an earlier training, such that each counts ``weight`` times a row of the new strokes.

    A share of ``weight`` of the rows of each class is drawn (at least one), because every way of growing a forest knows
    rows, and not all know weights.

    Parameters
    ----------
    model : Model
        With the rows that it kept, unless ``table`` gives them; adapted to the new volume, if that differs.
    weight : float
        More than 0, at most 1.
    table : TrainingTable, optional
        Rows that the model was trained on, from a file.

    Raises
    ------
    UsageError
        If the weight is none.
    ModelError
        If the model kept no rows.
    """
    if not 0 < weight <= 1:
        raise UsageError(f"old rows cannot weigh {weight:g}", do="give more than 0 and at most 1")
    kept = table is None
    if table is None:
        if model.rows is None or model.row_labels is None:
            raise ModelError(
                "the model did not keep its training rows",
                do="train it again with --keep-rows, or give rows that were saved with --save-rows: --from DATA.arff",
            )
        values = np.array([c.value for c in model.classes])
        table = TrainingTable(
            model.rows,
            (1 + np.searchsorted(values, model.row_labels)).astype(np.uint8),
            tuple(model.bank.channels),
            tuple(c.name for c in model.classes),
            path="the old model",
        )
    random = np.random.default_rng(SEED)
    drawn = []
    for number in np.unique(table.label):
        of_class = np.flatnonzero(table.label == number)
        drawn.append(random.choice(of_class, max(1, round(weight * of_class.size)), replace=False))
    rows = np.sort(np.concatenate(drawn))
    record = {"from": model.hash, "weight": float(weight), "rows": int(rows.size)}
    table = replace(table, values=table.values[rows], label=table.label[rows])
    return OldRows(table, model, kept, record)
