"""The feature families of Trainable Weka Segmentation (TWS): one table row each.

Names and order of the channels of the families of planes are those of TWS 4.0.0 (``FeatureStack.updateFeaturesMT``,
2-D, grey); those that look across planes are in :mod:`gpu_tomoclass.features.volume_families`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from gpu_tomoclass.device import Tolerance
from gpu_tomoclass.features.family import (
    COPIES,
    ONE_VALUE,
    SAME_SUMS,
    Family,
    number,
    one_label,
    scales_in_nm,
    size_text,
)
from gpu_tomoclass.features.reference.blur import STD_PER_SIGMA, is_reduced, kernel_radius
from gpu_tomoclass.features.reference.derivatives import INTEGRATION_SCALES, ORDERS, derivative_reach
from gpu_tomoclass.features.reference.disk import disk_half_widths
from gpu_tomoclass.features.smoothed_families import of_smoothed_planes
from gpu_tomoclass.features.volume_families import VOLUME_ROWS

HESSIAN_CHANNELS = (
    "Hessian",
    "Hessian_Trace",
    "Hessian_Determinant",
    "Hessian_Eigenvalue_1",
    "Hessian_Eigenvalue_2",
    "Hessian_Orientation",
    "Hessian_Square_Eigenvalue_Difference",
    "Hessian_Normalized_Eigenvalue_Difference",
)
# (sigma, gamma, phase, frequency); the reference computes them in this order.
GABOR_BANKS = (
    *((1.0, gamma, phase, 2.0) for phase in (0, 2) for gamma in (1.0, 0.5, 0.25)),
    *((s, gamma, phase, f) for phase in (0, 2) for s in (2.0, 4.0) for gamma in (1.0, 2.0) for f in (2.0, 3.0)),
)
_ALL_BANKS = tuple(range(len(GABOR_BANKS)))
_REDUCED_IN = 2  # definition version since which blurs on reduced lines add as ImageJ 1.54 does; had no legacy Hessian
_STRETCHED = "the plane is stretched to 8 bits by its own minimum and maximum"


def _blur_changed_in(sigma: float, nm: bool = False, **parameters: Any) -> int:
    """In nm the voxels decide whether lines are reduced."""
    return _REDUCED_IN if nm or is_reduced(STD_PER_SIGMA * sigma) else 1


def _rank(name: str, *, scratch: int, tolerance: Tolerance = ONE_VALUE) -> Family:
    weka_name = name.capitalize()
    return Family(
        name=name,
        weka_name=weka_name,
        parameters=lambda r: {"radius": r.sigma},
        labels=one_label(weka_name),
        reach=lambda radius: len(disk_half_widths(radius)) // 2,
        scratch=scratch,
        reference=f"ranks:{name}",
        kernel=f"ranks:{name}",
        tolerance=tolerance,
    )


ORIGINAL = Family(
    name="original",
    weka_name="original",
    sigmas="none",
    place="first",
    parameters=lambda r: {},
    labels=lambda: ["original"],
    reach=lambda: 0,
    scratch=0,
    reference="source:original",
    kernel="source:original",
    tolerance=COPIES,
)

_ROWS = (
    Family(
        name="gabor",
        weka_name="Gabor",
        sigmas="none",
        place="first",
        parameters=lambda r: {"exact": True} if r.exact_gabor else {},
        labels=lambda exact=False, banks=_ALL_BANKS: [
            f"Gabor_{k}_{s}_{gamma}_{phase}_{f}"
            for s, gamma, phase, f in (GABOR_BANKS[i] for i in banks)
            for k in (1, 2)
        ],
        reach=lambda exact=False, banks=(): 12,
        whole_plane="each response is brought to mean 0 and standard deviation 1 over the plane",
        scratch=80,
        reference="gabor:gabor",
        kernel="gabor:gabor",
        tolerance=Tolerance(
            6e-6,
            "sums of up to 625 products in float32, which a plain loop gets wrong by 1e-6 to 1e-5; TWS's own are off by"
            " 7e-6 of a standard deviation, about 2e-6 of the largest value",
            ptx=6e-6,
        ),
        changed_in=lambda exact=False: 2 if exact else 1,
        parts=lambda exact=False: [] if exact else [{"banks": (i,)} for i in _ALL_BANKS],
        has_kernel=lambda exact=False, banks=(): not exact,
    ),
    Family(
        name="anisotropic_diffusion",
        weka_name="Anisotropic_diffusion",
        sigmas="whole",
        place="first",
        parameters=lambda r: {"smoothings": int(r.sigma), "edge_threshold": float(r.thickness)},
        labels=lambda smoothings, edge_threshold, jobs=(0, 1): [
            f"Anisotropic_diffusion_20_{smoothings}_{(0.1, 0.35)[job]}_0.9_{edge_threshold}" for job in jobs
        ],
        reach=lambda smoothings, edge_threshold, jobs=(): 20 * smoothings,
        parts=lambda **parameters: [{**parameters, "jobs": (job,)} for job in (0, 1)],
        whole_plane="the time step depends on the fastest change anywhere, the threshold on the standard deviation",
        scratch=210,
        reference="diffusion:anisotropic_diffusion",
        kernel="diffusion:anisotropic_diffusion",
        tolerance=Tolerance(
            0,
            "powers and inverse lengths within 1e-15 of the reference's: one float32 in 10^8 rounds the other way",
        ),
    ),
    Family(
        name="bilateral",
        weka_name="Bilateral",
        sigmas="none",
        place="first",
        parameters=lambda r: {},
        labels=lambda: [f"Bilateral_{radius}_{cut}" for radius in (5.0, 10.0) for cut in (50.0, 100.0)],
        reach=lambda: 10,
        whole_plane=_STRETCHED,
        scratch=48,
        reference="bilateral:bilateral",
        kernel="bilateral:bilateral",
        tolerance=SAME_SUMS,
    ),
    Family(
        name="lipschitz",
        weka_name="Lipschitz",
        sigmas="none",
        place="first",
        parameters=lambda r: {},
        labels=lambda: [f"Lipschitz_true_true_{slope}" for slope in (5.0, 10.0, 15.0, 20.0, 25.0)],
        reach=lambda: 51,  # 255 grey levels at 5 per pixel
        whole_plane=_STRETCHED,
        scratch=48,
        reference="lipschitz:lipschitz",
        kernel="lipschitz:lipschitz",
        tolerance=Tolerance(0, "whole numbers"),
    ),
    Family(
        name="kuwahara",
        weka_name="Kuwahara",
        sigmas="none",
        place="first",
        parameters=lambda r: {"patch": r.patch},
        labels=lambda patch: [f"Kuwahara_{patch}_ 10_{criterion}" for criterion in range(3)],  # TWS has this blank
        reach=lambda patch: 2 * (patch // 2),
        whole_plane="the plane's minimum is subtracted first, on which two of the criteria depend",
        scratch=72,
        reference="kuwahara:kuwahara",
        kernel="kuwahara:kuwahara",
        tolerance=Tolerance(0, "the same sums and comparisons in the same order"),
    ),
    Family(
        name="gaussian_blur",
        weka_name="Gaussian_blur",
        labels=one_label("Gaussian_blur"),
        reach=lambda sigma: kernel_radius(sigma),
        scratch=24,
        reference="edges:gaussian_blur",
        kernel="edges:gaussian_blur",
        tolerance=SAME_SUMS,
        changed_in=_blur_changed_in,
        in_nm="as is",
        std_per_sigma=STD_PER_SIGMA,
    ),
    Family(
        name="sobel_filter",
        weka_name="Sobel_filter",
        sigmas="zero",
        labels=one_label("Sobel_filter"),
        reach=lambda sigma: kernel_radius(sigma) + 1,
        scratch=24,
        reference="edges:sobel_filter",
        kernel="edges:sobel_filter",
        tolerance=SAME_SUMS,
        changed_in=_blur_changed_in,
        in_nm="per sigma",
        std_per_sigma=STD_PER_SIGMA,
    ),
    Family(
        name="hessian",
        weka_name="Hessian",
        sigmas="zero",
        parameters=lambda r: {"sigma": r.sigma, **({"legacy": True} if r.legacy_hessian else {})},
        labels=lambda sigma, legacy=False, nm=False: [
            f"{channel}_{size_text(sigma, nm=nm, pixels=number)}" for channel in HESSIAN_CHANNELS
        ],
        reach=lambda sigma, legacy=False: kernel_radius(sigma) + 2,
        scratch=64,
        reference="edges:hessian",
        kernel="edges:hessian",
        tolerance=Tolerance(
            1.2e-7, "arc cosines differ in a double's last bit, so that rarely the float32 does; all else in no bit"
        ),
        changed_in=lambda sigma, legacy=False, nm=False: _REDUCED_IN if legacy else _blur_changed_in(sigma, nm),
        in_nm="per sigma",
        std_per_sigma=STD_PER_SIGMA,
    ),
    Family(
        name="difference_of_gaussians",
        weka_name="Difference_of_gaussians",
        parameters=lambda r: {"sigma": r.sigma, "smaller": r.smaller},
        labels=lambda sigma, smaller, nm=False: [
            "_".join(["Difference_of_gaussians", *(size_text(s, nm=nm, pixels=number) for s in (sigma, t))])
            for t in smaller
        ],
        reach=lambda sigma, smaller: kernel_radius(sigma),
        scratch=24,
        reference="edges:difference_of_gaussians",
        kernel="edges:difference_of_gaussians",
        tolerance=SAME_SUMS,
        changed_in=_blur_changed_in,
        in_nm="as is",
        std_per_sigma=STD_PER_SIGMA,
    ),
    _rank("variance", scratch=36, tolerance=SAME_SUMS),
    _rank("mean", scratch=24, tolerance=SAME_SUMS),
    _rank("minimum", scratch=20),
    _rank("maximum", scratch=20),
    _rank("median", scratch=56),
    Family(
        name="derivatives",
        weka_name="Derivatives",
        labels=lambda sigma, nm=False: [f"Derivatives_{d}_{d}_{size_text(sigma, nm=nm)}" for d in ORDERS],
        reach=lambda sigma: max(derivative_reach(sigma, d) for d in ORDERS),
        scratch=24,
        reference="derivatives:derivatives",
        kernel="derivatives:derivatives",
        tolerance=SAME_SUMS,
        in_nm="per sigma",
    ),
    Family(
        name="laplacian",
        weka_name="Laplacian",
        labels=lambda sigma, nm=False: [f"Laplacian_{size_text(sigma, nm=nm)}"],
        reach=lambda sigma: derivative_reach(sigma, 2),
        scratch=28,
        reference="derivatives:laplacian",
        kernel="derivatives:laplacian",
        tolerance=SAME_SUMS,
        in_nm="per sigma",
    ),
    Family(
        name="structure",
        weka_name="Structure",
        parameters=lambda r: {"sigma": r.sigma, **scales_in_nm(r, INTEGRATION_SCALES)},
        labels=lambda sigma, scales=INTEGRATION_SCALES, nm=False: [
            f"Structure_{which}_{size_text(sigma, nm=nm)}_{size_text(scale, nm=nm)}"
            for scale in scales
            for which in ("largest", "smallest")
        ],
        reach=lambda sigma, scales=INTEGRATION_SCALES: derivative_reach(sigma, 1) + derivative_reach(scales[-1], 0),
        parts=lambda scales=INTEGRATION_SCALES, **others: [{**others, "scales": (scale,)} for scale in scales],
        scratch=136,
        reference="derivatives:structure",
        kernel="derivatives:structure",
        tolerance=SAME_SUMS,
        in_nm="per sigma",
        largest_sigma_nm=85.0,  # three times it is averaged over, at most as long as any other sigma
    ),
    Family(
        name="entropy",
        weka_name="Entropy",
        sigmas="whole",
        parameters=lambda r: {"radius": int(r.sigma)},
        labels=lambda radius: [f"Entropy_{radius}_{bins}" for bins in (32, 64, 128, 256)],
        reach=lambda radius: radius,
        whole_plane=_STRETCHED,
        scratch=72,
        reference="entropy:entropy",
        kernel="entropy:entropy",
        tolerance=Tolerance(
            0,
            "sums that are right to 1e-15; where the reference's doubles could round the other way, they are added"
            " again",
        ),
    ),
    Family(
        name="membrane_projections",
        weka_name="Membrane_projections",
        sigmas="none",
        place="last",
        parameters=lambda r: {"patch": r.patch, "thickness": r.thickness},
        labels=lambda patch, thickness: [f"Membrane_projections_{i}_{patch}_{thickness}" for i in range(6)],
        reach=lambda patch, thickness: patch // 2,
        scratch=124,
        reference="membrane:membrane_projections",
        kernel="membrane:membrane_projections",
        tolerance=SAME_SUMS,
    ),
    Family(
        name="neighbors",
        weka_name="Neighbors",
        sigmas="doubled",
        place="last",
        parameters=lambda r: {"distance": int(r.sigma)},
        labels=lambda distance: [f"Neighbors_{distance}_{i}" for i in range(8)],
        reach=lambda distance: distance,
        scratch=8,
        reference="neighbors:neighbors",
        kernel="neighbors:neighbors",
        tolerance=COPIES,
    ),
)

PLANE_FAMILIES: Mapping[str, Family] = {row.name: row for row in _ROWS}
"""The 20 families that are computed plane by plane, in TWS's channel order."""

VOLUME_FAMILIES: Mapping[str, Family] = {row.name: row for row in VOLUME_ROWS}
"""The 12 families of TWS 3D, which look across planes, in TWS's channel order."""

SMOOTHED_FAMILIES: Mapping[str, Family] = {row.name: row for row in map(of_smoothed_planes, _ROWS)}
"""Each family of planes again, of planes that are smoothed along z: ours, not TWS's."""

FAMILIES: Mapping[str, Family] = {**PLANE_FAMILIES, **VOLUME_FAMILIES, **SMOOTHED_FAMILIES}
"""All families by name."""


# Lists of their own: a family that is added to the table enters no set by that. Their order is the channels' order.
_PAPER = (
    "gabor",
    "anisotropic_diffusion",
    "bilateral",
    "kuwahara",
    "gaussian_blur",
    "sobel_filter",
    "hessian",
    "difference_of_gaussians",
    "variance",
    "median",
    "derivatives",
    "laplacian",
    "structure",
    "entropy",
    "membrane_projections",
    "neighbors",
)
_ALL = (
    "gabor",
    "anisotropic_diffusion",
    "bilateral",
    "lipschitz",
    "kuwahara",
    "gaussian_blur",
    "sobel_filter",
    "hessian",
    "difference_of_gaussians",
    "variance",
    "mean",
    "minimum",
    "maximum",
    "median",
    "derivatives",
    "laplacian",
    "structure",
    "entropy",
    "membrane_projections",
    "neighbors",
)

# Chosen by benchmarks/smoothed_planes.py.
_SMOOTHED = ("z_gabor", "z_gaussian_blur", "z_hessian", "z_neighbors")

FEATURE_SETS: Mapping[str, Sequence[str]] = {
    "weka-default": ("gaussian_blur", "sobel_filter", "hessian", "difference_of_gaussians", "membrane_projections"),
    "paper": _PAPER,
    "all": _ALL,
    "weka-3d-default": ("mean_3d", "variance_3d"),
    "weka-3d": (
        "gaussian_blur_3d",
        "difference_of_gaussian_3d",
        "hessian_3d",
        "derivatives_3d",
        "laplacian_3d",
        "edges_3d",
        "structure_3d",
        "minimum_3d",
        "maximum_3d",
        "mean_3d",
        "median_3d",
        "variance_3d",
    ),
    "paper+z": (*_PAPER, *_SMOOTHED),
}
"""TWS's own default; the 16 families (252 channels at sigma 1..16) of the published practice; all 20 of planes (272
channels); the default of TWS 3D; all its 12 (95 channels at sigma 1..8);
the practice's and four families of planes smoothed along z, ours."""


def what_to_choose(unknown: Sequence[str]) -> str:
    """Advice about names that are no features: those that are like them, and all there are."""
    sets = ", ".join(FEATURE_SETS)
    planes = ", ".join(_ALL)
    volumes = ", ".join(name for name, row in FAMILIES.items() if row.dimensions == 3 and not row.is_smoothed)
    like = [get_close_matches(name, [*FAMILIES, *FEATURE_SETS], n=1) for name in unknown]
    meant = ", ".join(name for names in like for name in names)
    return (
        f"{f'did you mean {meant}? ' if meant else ''}choose {sets}, or families of planes from {planes}; those of"
        f" smoothed planes have z_ before the name; across planes {volumes}"
    )
