"""Kuwahara: float32 sums in the reference's order, so equal bits."""

from __future__ import annotations

from family_cases import Parameters, Planes, family_case


def patches(*values: int) -> tuple[Parameters, ...]:
    return tuple({"patch": patch} for patch in values)


# Pixels away from all edges, and none; ties between angles and positions; an even patch, which changes nothing.
SMALL = (
    Planes(2, 11, 35, parameters=patches(7)),
    Planes(1, 9, 37, "float", patches(19)),
    Planes(1, 13, 17, "steps", patches(1, 5, 8)),
    Planes(1, 1, 40, parameters=patches(7)),
    Planes(1, 40, 1, parameters=patches(7)),
    Planes(1, 1, 1, parameters=patches(3)),
    Planes(1, 6, 5, "constant", patches(5)),
)
SIZES = (
    *SMALL,
    Planes(3, 56, 64, "small8", patches(19)),
    Planes(2, 64, 56, "small16", patches(11, 19, 31)),
    Planes(1, 56, 64, "small32", patches(19, 20)),
    Planes(2, 101, 97, parameters=patches(13)),
    Planes(1, 53, 41, "float", patches(255)),
    Planes(1, 37, 53, parameters=patches(101)),
    Planes(1, 13, 17, "float", patches(19)),  # smaller than the patch
    Planes(1, 1, 1, "constant", patches(19)),
    Planes(2, 30, 31, "constant", patches(19)),
    Planes(1, 61, 67, "steps", patches(19)),
    Planes(1, 317, 428, parameters=patches(19)),
)
CASES = [family_case("kuwahara", sizes=SIZES, small_sizes=SMALL)]
