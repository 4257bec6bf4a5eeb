"""The families of TWS 3D (``FeatureStack3D.updateFeaturesMT`` of TWS 4.0.0), which look across planes.

Names of channels are TWS's; half of them are those of families of planes, too. The number in a name is the standard
deviation or radius in voxels of x, without TWS's factor of 0.4 in two dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gpu_tomoclass.device import Tolerance
from gpu_tomoclass.features.family import (
    ONE_VALUE,
    SAME_SUMS,
    Family,
    one_label,
    scales_in_nm,
    size_text,
    wide_number,
)
from gpu_tomoclass.features.reference.derivatives import INTEGRATION_SCALES
from gpu_tomoclass.features.reference.volume_ball import ball_reach
from gpu_tomoclass.features.reference.volume_blur import blur_reach
from gpu_tomoclass.features.reference.volume_derivatives import ORDERS, axis_reach, structure_reach

LARGEST_SIGMA = 32.0  # a ball of this radius has 137,000 voxels
EIGENVALUES = ("largest", "middle", "smallest")
COMMON: dict[str, Any] = {"dimensions": 3, "largest_sigma": LARGEST_SIGMA}
DERIVATIVES = "volume_derivatives:derivatives"  # one function launches the kernels of five families
SUMS = "volume_ranks:sums"
EIGENVALUES_3D = Tolerance(
    1.2e-7, "cosines differ in a double's last bit, so that rarely the float32 does; all else in no bit"
)


_one = partial(one_label, pixels=wide_number)  # as TWS writes sigmas of its 3-D families


def _of_order(order: int) -> Callable[..., int]:
    """Reach of derivatives of up to this order along an axis."""
    return lambda aspect, *, sigma: axis_reach(sigma, order, aspect)


def _ball(name: str, *, scratch: int, kernel: str = "", tolerance: Tolerance = ONE_VALUE) -> Family:
    return Family(
        name=f"{name}_3d",
        weka_name=name.capitalize(),
        parameters=lambda r: {"radius": r.sigma},
        labels=_one(name.capitalize()),
        reach=lambda aspect, *, radius: ball_reach(radius, aspect),
        scratch=scratch,
        reference=f"volume_ranks:{name}",
        kernel=kernel or f"volume_ranks:{name}",
        tolerance=tolerance,
        **COMMON,
    )


VOLUME_ROWS = (
    Family(
        name="gaussian_blur_3d",
        weka_name="Gaussian_blur",
        labels=_one("Gaussian_blur"),
        reach=lambda aspect, *, sigma: blur_reach(sigma, aspect),
        scratch=24,
        reference="volume_blur:gaussian_blur",
        kernel="volume_blur:gaussian_blur",
        tolerance=SAME_SUMS,
        in_nm="as is",
        **COMMON,
    ),
    Family(
        name="difference_of_gaussian_3d",
        weka_name="Difference_of_Gaussian",
        parameters=lambda r: {"sigma": r.sigma, "smaller": r.smaller},
        labels=lambda sigma, smaller, nm=False: [
            f"Difference_of_Gaussian_{size_text(t, nm=nm)}_{size_text(sigma, nm=nm)}" for t in smaller
        ],
        reach=lambda aspect, *, sigma, smaller: blur_reach(sigma, aspect),
        scratch=28,
        reference="volume_blur:difference_of_gaussian",
        kernel="volume_blur:difference_of_gaussian",
        tolerance=SAME_SUMS,
        in_nm="as is",
        **COMMON,
    ),
    Family(
        name="hessian_3d",
        weka_name="Hessian",
        labels=lambda sigma, nm=False: [f"Hessian_{which}_{size_text(sigma, nm=nm)}_true" for which in EIGENVALUES],
        reach=_of_order(2),
        scratch=260,
        reference="volume_derivatives:hessian",
        kernel=DERIVATIVES,
        tolerance=EIGENVALUES_3D,
        in_nm="per sigma",
        **COMMON,
    ),
    Family(
        name="derivatives_3d",
        weka_name="Derivatives",
        labels=lambda sigma, nm=False: [f"Derivatives_{d}_{d}_{d}_{size_text(sigma, nm=nm)}" for d in ORDERS],
        reach=_of_order(ORDERS[-1]),
        scratch=60,
        reference="volume_derivatives:derivatives",
        kernel=DERIVATIVES,
        tolerance=SAME_SUMS,
        in_nm="per sigma",
        **COMMON,
    ),
    Family(
        name="laplacian_3d",
        weka_name="Laplacian",
        labels=_one("Laplacian"),
        reach=_of_order(2),
        scratch=68,
        reference="volume_derivatives:laplacian",
        kernel=DERIVATIVES,
        tolerance=SAME_SUMS,
        in_nm="per sigma",
        **COMMON,
    ),
    Family(
        name="edges_3d",
        weka_name="Edges",
        labels=_one("Edges"),
        reach=_of_order(1),
        scratch=100,
        reference="volume_derivatives:edges",
        kernel=DERIVATIVES,
        tolerance=SAME_SUMS,
        in_nm="per sigma",
        **COMMON,
    ),
    Family(
        name="structure_3d",
        weka_name="Structure",
        parameters=lambda r: {"sigma": r.sigma, **scales_in_nm(r, INTEGRATION_SCALES)},
        labels=lambda sigma, scales=INTEGRATION_SCALES, nm=False: [
            f"Structure_{which}_{size_text(sigma, nm=nm)}_{size_text(scale, nm=nm)}"
            for scale in scales
            for which in EIGENVALUES
        ],
        reach=lambda aspect, *, sigma, scales=INTEGRATION_SCALES: structure_reach(sigma, aspect, scales=scales),
        scratch=300,
        reference="volume_derivatives:structure",
        kernel=DERIVATIVES,
        tolerance=EIGENVALUES_3D,
        in_nm="per sigma",
        **COMMON,
    ),
    _ball("minimum", scratch=16),
    _ball("maximum", scratch=16),
    _ball("mean", scratch=40, kernel=SUMS, tolerance=SAME_SUMS),
    _ball("median", scratch=40, tolerance=Tolerance(0, "one of the values, or half the sum of two")),
    _ball("variance", scratch=60, kernel=SUMS, tolerance=SAME_SUMS),
)
