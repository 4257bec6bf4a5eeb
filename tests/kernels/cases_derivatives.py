"""Derivatives, Laplacian and Structure: double sums in the reference's order, so equal bits."""

from __future__ import annotations

from family_cases import Parameters, Planes, family_case


def sigmas(*values: float) -> tuple[Parameters, ...]:
    return tuple({"sigma": sigma} for sigma in values)


ALL = sigmas(1.0, 2.0, 4.0, 8.0, 16.0)
# No tap but the centre; one tap; a fraction; kernels cut to the plane; longer than the shorter compiled ones.
SMALL = (
    Planes(2, 9, 37, parameters=sigmas(1.0, 2.0)),
    Planes(1, 1, 40, parameters=sigmas(0.01, 1.3)),
    Planes(1, 40, 1, "float", parameters=sigmas(0.3, 1.3)),
    Planes(1, 1, 1, parameters=sigmas(1.0)),
    Planes(1, 5, 3, "steps", parameters=sigmas(16.0)),
    Planes(1, 2, 140, parameters=sigmas(40.0)),
    Planes(1, 140, 2, parameters=sigmas(40.0)),
)
SIZES = (
    *SMALL,
    Planes(3, 56, 64, "small8", ALL),
    Planes(1, 64, 56, "small16", ALL),
    Planes(1, 56, 64, "small32", ALL),
    Planes(2, 101, 97, parameters=sigmas(0.7, 3.7)),
    Planes(2, 41, 53, "float", parameters=ALL),
    Planes(1, 31, 33, "constant", parameters=ALL),
    Planes(1, 256, 512, "steps", parameters=sigmas(2.0)),
    Planes(1, 9, 1301, parameters=sigmas(256.0)),
    Planes(1, 1301, 9, parameters=sigmas(256.0)),
    Planes(1, 317, 428, parameters=ALL),
)
CASES = [family_case(family, sizes=SIZES, small_sizes=SMALL) for family in ("derivatives", "laplacian", "structure")]
