"""Membrane_projections: double sums in the reference's order, so equal bits."""

from __future__ import annotations

from family_cases import Parameters, Planes, family_case


def lines(*patches_and_thicknesses: tuple[int, int]) -> tuple[Parameters, ...]:
    return tuple({"patch": patch, "thickness": thickness} for patch, thickness in patches_and_thicknesses)


USUAL = lines((19, 1))
SMALL = (
    Planes(2, 7, 41, parameters=USUAL),
    Planes(1, 1, 40, "float", parameters=lines((5, 2), (3, 1))),
    Planes(1, 40, 1, parameters=lines((7, 3))),
    Planes(1, 1, 1, parameters=USUAL),
    Planes(1, 5, 3, "steps", parameters=lines((9, 8))),
    Planes(1, 3, 64, "constant", parameters=lines((3, 2))),
)
CASES = [
    family_case(
        "membrane_projections",
        sizes=(
            *SMALL,
            Planes(3, 56, 64, "small8", USUAL),
            Planes(1, 64, 56, "small16", USUAL),
            Planes(1, 56, 64, "small32", USUAL),
            Planes(2, 101, 97, "float", parameters=lines((19, 1), (19, 4), (31, 2))),
            Planes(1, 31, 33, "constant", parameters=USUAL),
            Planes(1, 23, 37, parameters=lines((255, 3), (63, 62))),
            Planes(1, 317, 428, parameters=USUAL),
        ),
        small_sizes=SMALL,
    )
]
