"""Training rows that Fiji saved: the bank that they are of, and how they join the rows of strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.annotations import TrainingTable, match_channels
from gpu_tomoclass.classes import LabelClass, default_classes
from gpu_tomoclass.errors import DataError, ModelError
from gpu_tomoclass.features import FeatureBank, formula_of_table, grey_dimensions
from gpu_tomoclass.training.rows import TrainingRows


def bank_of_table(
    table: TrainingTable, *, hessian: str = "auto", gabor: str = "fast"
) -> tuple[FeatureBank, npt.NDArray[np.intp], list[str]]:
    """The bank whose channels rows of Fiji have.

    Parameters
    ----------
    table : TrainingTable
    hessian : {"auto", "current", "legacy"}
        The formula of the Hessian's eigenvalues; ``"auto"``: the one that the values follow.
    gabor : {"fast", "exact"}
        See :class:`~gpu_tomoclass.features.FeatureBank`.

    Returns
    -------
    bank : FeatureBank
    order : numpy.ndarray
        intp (n_channels,): ``table.channels[order[i]]`` is channel i of the bank.
    notes : list of str

    Raises
    ------
    ModelError
        If a channel is not one of ours (it is named), or the rows are of colour images.
    """
    try:
        dimensions, notes = grey_dimensions(table.relation, table.channels)
        formula, more = formula_of_table(table.values, table.channels, hessian)
        bank, order = FeatureBank.from_channels(table.channels, hessian=formula, gabor=gabor, dimensions=dimensions)
    except ModelError as error:
        raise ModelError(error.what, where=table.path or error.where, do=error.do) from error
    return bank, order, [*notes, *more]


def with_table(
    rows: TrainingRows,
    table: TrainingTable,
    notes: list[str],
    *,
    same_scale: bool = False,
    bank: FeatureBank | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], tuple[LabelClass, ...]]:
    """Values, labels and classes of the rows of strokes with those of the table behind them, as TWS merges them.

    ``same_scale``: the voxels of the table went through the scale of the strokes. ``bank``: of the table, where it is
    known.

    Raises
    ------
    ModelError
        If the channels differ, or the formula of the Hessian, or the strokes' voxels are scaled: Fiji's are not.
    DataError
        If a class of the table has the number of another class of the strokes.
    """
    where = table.path or None
    try:
        order = match_channels(table, rows.bank.channels)
        more: list[str] = []
        if bank is None:
            bank, _, more = bank_of_table(table, hessian="auto", gabor=rows.bank.gabor)
    except ModelError as error:
        do = "leave the feature options out: they are taken from the rows"
        raise ModelError(error.what, where=where, do=do) from error
    if bank.hessian != rows.bank.hessian:
        raise ModelError(
            f"has Hessian eigenvalues of the {bank.hessian} formula, the strokes those of the {rows.bank.hessian} one",
            where=where,
            do=f"give --hessian {bank.hessian}",
        )
    if rows.scale.kind == "percentile" and not same_scale:
        raise ModelError(
            "has features of voxels as Fiji sees them, and the volume's are floats, which are scaled here",
            where=where,
            do="give --intensity none, if the volume is the one that Fiji had",
        )
    values, classes = _classes(table, rows.classes, notes)
    notes += [*table.notes, *more, f"{len(table.label)} rows of {table.path or 'a table'} are pooled with the strokes"]
    return (
        np.concatenate([rows.values, table.values[:, order]]),
        np.concatenate([rows.labels, values[table.label - 1]]),
        classes,
    )


def _classes(
    table: TrainingTable, classes: Sequence[LabelClass], notes: list[str]
) -> tuple[npt.NDArray[np.uint8], tuple[LabelClass, ...]]:
    """The value of each class of the table: that of the strokes of its name, else its number; and all classes.

    "class k" gives way to a real name.
    """
    found = {c.value: c for c in classes}
    by_name = {c.name.casefold(): c.value for c in classes}
    values, renamed = [], []
    for new in default_classes(table.class_names):
        is_nameless = new.name.casefold() == f"class {new.value}"
        value = new.value if is_nameless else by_name.get(new.name.casefold(), new.value)
        old = found.get(value)
        if old is None or old.name == f"class {value}":
            found[value] = new if old is None else replace(old, name=new.name)
        elif old.name.casefold() != new.name.casefold() and not is_nameless:
            raise DataError(
                f"has the classes {', '.join(table.class_names)}; class {value} of the strokes is {old.name}",
                where=table.path or None,
                do="give --class-names: those of the rows, and their order",
            )
        if old is not None and old.name.casefold() != new.name.casefold():
            renamed.append(f"{new.name} = {value} {found[value].name}")
        values.append(value)
    if renamed:
        notes.append(f"{table.path or 'the table'}: classes by their order: {', '.join(renamed)}")
    return np.array(values, np.uint8), tuple(found[value] for value in sorted(found))
