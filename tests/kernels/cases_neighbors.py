"""Neighbors and original: copies."""

from __future__ import annotations

from family_cases import Planes, family_case

ALL = tuple({"distance": d} for d in (1, 2, 4, 8, 16))
SMALL = (
    Planes(2, 9, 37, parameters=ALL[:3]),
    Planes(1, 1, 40, parameters=ALL),
    Planes(1, 5, 3, parameters=ALL),
)
CASES = [
    family_case(
        "neighbors",
        sizes=(*SMALL, Planes(3, 64, 56, "small16", ALL), Planes(1, 317, 428, parameters=ALL)),
        small_sizes=SMALL,
    ),
]
