"""Lipschitz: rows of less than a warp, of several warps, and of several pixels per thread."""

from __future__ import annotations

from family_cases import Planes, family_case

SMALL = (
    Planes(2, 9, 137),  # 5 warps, the last with 9 pixels
    Planes(1, 1, 40),
    Planes(1, 33, 1),
    Planes(1, 1, 1),
    Planes(1, 2, 33, "float", display_range=(-0.5, 0.75)),
    Planes(1, 3, 1031),  # 3 pixels per thread
    Planes(1, 17, 32, "steps"),
)
CASES = [
    family_case(
        "lipschitz",
        sizes=(
            *SMALL,
            Planes(2, 56, 64, "small8"),
            Planes(3, 64, 56, "small16"),
            Planes(1, 56, 64, "small32"),
            Planes(1, 61, 53, "float"),
            Planes(1, 20, 30, "constant"),
            Planes(1, 131, 31, "steps"),
            Planes(1, 7, 2053),
            Planes(1, 317, 428),
        ),
        small_sizes=SMALL,
    ),
]
