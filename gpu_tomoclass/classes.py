"""A class of material: its label value, name and colour, the same in annotations, models and label volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_tomoclass.errors import UsageError

# Okabe & Ito's colour-blind safe palette, the three strongest first, yellow and black last (hard to see on an overlay).
PALETTE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
    (60, 60, 60),
)


@dataclass(frozen=True)
class LabelClass:
    """One class: ``value`` 1..255 in label images (0 is never a class), ``name``, ``colour`` as (r, g, b) 0..255."""

    value: int
    name: str
    colour: tuple[int, int, int]

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value, "name": self.name, "colour": list(self.colour)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelClass:
        r, g, b = (int(c) for c in data["colour"])
        return cls(int(data["value"]), str(data["name"]), (r, g, b))


def default_classes(names: Sequence[str]) -> tuple[LabelClass, ...]:
    """Classes with values 1..k and palette colours for the given names, in order."""
    return tuple(LabelClass(i + 1, name, PALETTE[i % len(PALETTE)]) for i, name in enumerate(names))


def class_value(text: str, classes: Sequence[LabelClass]) -> int:
    """Label value of a class given by its name, or by its value.

    Raises
    ------
    UsageError
        If no class has the name and it is no value of 0 to 255.
    """
    for c in classes:
        if c.name == text:
            return c.value
    if text.isdecimal() and int(text) <= 255:
        return int(text)
    known = ", ".join(f"{c.value} {c.name}" for c in classes)
    raise UsageError(
        f"there is no class {text!r}",
        do=f"give one of {known}" if known else "give a label value of 0 to 255; the file names no classes",
    )
