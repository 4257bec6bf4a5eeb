"""Kuwahara: equal bits, whatever the patch."""

from __future__ import annotations

from family_cases import Planes, family_case

USUAL = ({"patch": 19},)
SMALL = (
    Planes(2, 7, 21, parameters=({"patch": 5},)),
    Planes(1, 1, 40, parameters=({"patch": 3},)),
    Planes(1, 9, 1, "float", parameters=({"patch": 5},)),
    Planes(1, 6, 11, "steps", parameters=({"patch": 7},)),
)
CASES = [
    family_case(
        "kuwahara",
        sizes=(
            *SMALL,
            Planes(1, 56, 64, "small8", USUAL),
            Planes(3, 64, 56, "small16", ({"patch": 19}, {"patch": 9})),
            Planes(2, 56, 64, "small32", USUAL),
            Planes(1, 1, 1, "constant", USUAL),
            Planes(1, 30, 31, "constant", USUAL),
            Planes(1, 41, 67, "steps", USUAL),  # flat regions: all figures are 0
            Planes(1, 13, 17, "float", ({"patch": 19}, {"patch": 4})),  # smaller than the patch; an even patch
            Planes(1, 37, 53, parameters=({"patch": 101},)),
            Planes(1, 317, 428, parameters=USUAL),
        ),
        small_sizes=SMALL,
    )
]
