"""Names and colours of classes: given by the user, else by a file, else by their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gpu_tomoclass.classes import PALETTE, LabelClass
from gpu_tomoclass.errors import DataError, UsageError

ClassNames = Sequence[str] | Mapping[int, str]


def colour_of(value: int) -> tuple[int, int, int]:
    return PALETTE[(value - 1) % len(PALETTE)]


def default_class(value: int) -> LabelClass:
    return LabelClass(value, f"class {value}", colour_of(value))


def given_names(names: ClassNames | None) -> dict[int, str] | None:
    """Value -> name of the names that the user gave, checked."""
    if names is None:
        return None
    if isinstance(names, str):
        raise UsageError(f"class names must be a list, not the text {names!r}")
    given = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
    clean = {int(value): str(name).strip() for value, name in given.items()}
    if not clean or not all(clean.values()) or len({name.casefold() for name in clean.values()}) != len(clean):
        raise UsageError(f"class names must be different and not empty, not {list(given.values())}")
    if not 1 <= min(clean) <= max(clean) <= 255:
        raise UsageError(f"class values go from 1 to 255, not {min(clean)} to {max(clean)}")
    return clean


def named_classes(
    values: Sequence[int], names: Mapping[int, str] | None, own: Mapping[int, LabelClass], *, where: str
) -> list[LabelClass]:
    """The class of every value: named by the user, else by the file, else by its number."""
    if names is not None and (nameless := [value for value in values if value not in names]):
        what = f"holds class {', '.join(map(str, nameless))}, and names are given for {', '.join(map(str, names))} only"
        raise DataError(what, where=where, do="name every class, or correct the labels")
    found = [own.get(value) or default_class(value) for value in values]
    return found if names is None else [replace(c, name=names[c.value]) for c in found]


def complete_classes(classes: Sequence[LabelClass], label: np.ndarray) -> tuple[LabelClass, ...]:
    """The class of every label that occurs, by value."""
    known = {c.value: c for c in classes}
    return tuple(known.get(value) or default_class(value) for value in np.unique(label).tolist())
