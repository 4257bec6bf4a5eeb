"""Scores of a comparison as files for programs: JSON with everything, CSV with a line per class."""

from __future__ import annotations

import csv
import io
import json
from os import PathLike, fspath

from gpu_tomoclass.labels.evaluate import Evaluation
from gpu_tomoclass.outputs import atomic


def save_evaluation(result: Evaluation, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write what :meth:`Evaluation.to_dict` says (``.json``), or its classes as a table (any other name).

    Columns of the table: value, name, dice, iou, precision, recall, true_fraction, predicted_fraction, and for each
    number of the borders one more; empty where nothing is known.

    Raises
    ------
    DataError
        If the file exists and ``overwrite`` is not set.
    ResourceError
        If it cannot be written.
    """
    found = result.to_dict()
    if fspath(path).lower().endswith(".json"):
        text = json.dumps(found, indent=1) + "\n"
    else:
        rows = []
        for row in found["classes"]:
            border = row.pop("boundary", None) or {}
            rows.append({**row, **{f"border_{name}": value for name, value in border.items()}})
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = io.StringIO()
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    with atomic(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
