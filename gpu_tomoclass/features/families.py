"""The feature families of Trainable Weka Segmentation (TWS): one table row each.

Names and order of the channels are those of TWS 4.0.0 (``FeatureStack.updateFeaturesMT``, 2-D, grey).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.reference.blur import STD_PER_SIGMA, is_reduced, kernel_radius
from gpu_tomoclass.features.reference.derivatives import INTEGRATION_SCALES, ORDERS, derivative_reach
from gpu_tomoclass.features.reference.disk import disk_half_widths

if TYPE_CHECKING:
    from gpu_tomoclass.features.reference.source import FeatureSource

SIGMA_LIMITS = (0.01, 256.0)
MAX_SIGMAS = 64  # of a family; differences of Gaussians grow with its square


class Request(NamedTuple):
    """What a bank asks of a family: one sigma (0 where the family has none), membrane settings, Hessian formula."""

    sigma: float
    smaller: tuple[float, ...]
    thickness: int
    patch: int
    legacy_hessian: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the table: everything that is known about a feature family.

    Attributes
    ----------
    name, weka_name : str
        Ours, ``gaussian_blur``; and TWS's in its settings dialog, with which its channel names start.
    sigmas : str
        What the family makes of a range of sigmas: ``"none"``, it has fixed parameters; ``"real"``, one block per
        sigma; ``"zero"``, the same, and sigma 0 (no blur) if the range starts below 2; ``"whole"``, each sigma without
        its fraction; ``"doubled"``, the first sigma without its fraction, and doublings of that.
    place : str
        Where TWS puts the channels: ``"first"``, in the ``"middle"`` sigma by sigma, or ``"last"``.
    parameters : callable
        Request -> keyword arguments of ``reference``. They define a block of channels entirely.
    labels : callable
        The same keyword arguments -> TWS's channel names.
    reach : callable
        The same -> largest distance in pixels over which the filter itself looks.
    whole_plane : str
        Why a value depends on the whole plane besides; empty if it does not.
    scratch : int
        Bytes per pixel that the reference needs at most besides its result and the shared blurred planes, measured on
        planes of 300 x 300 pixels and more.
    reference : str
        ``"module:function"`` in :mod:`gpu_tomoclass.features.reference`: (source, **parameters) -> (n, ny, nx) float32.
    kernel : str or None
        ``"module:function"`` in :mod:`gpu_tomoclass.features.accelerated` that computes the same through kernels:
        (source, requests) -> None.
    changed_in : callable
        The same as for ``labels`` -> :data:`~gpu_tomoclass.features.DEFINITION_VERSION` that last changed the values.
    """

    name: str
    weka_name: str
    sigmas: Literal["none", "real", "zero", "whole", "doubled"] = "real"
    place: Literal["first", "middle", "last"] = "middle"
    parameters: Callable[[Request], dict[str, Any]] = lambda r: {"sigma": r.sigma}
    labels: Callable[..., list[str]]
    reach: Callable[..., int]
    whole_plane: str = ""
    scratch: int
    reference: str
    kernel: str | None = None
    changed_in: Callable[..., int] = lambda **parameters: 1

    @property
    def per_sigma(self) -> bool:
        """Whether there is one block per sigma."""
        return self.sigmas != "none"

    @property
    def whole_pixels(self) -> bool:
        """Whether only the whole part of a sigma counts, and must be 1 or more."""
        return self.sigmas in ("whole", "doubled")

    def check_sigmas(self, sigmas: Sequence[float]) -> None:
        """A UsageError unless these are sigmas that the family can have, rising."""
        if not self.per_sigma:
            if sigmas:
                raise UsageError(f"{self.name} has no sigma, but was given {_listed(sigmas)}")
            return
        if len(sigmas) > MAX_SIGMAS:
            raise UsageError(f"{self.name} has {len(sigmas)} sigmas, more than {MAX_SIGMAS}")
        for sigma in sigmas:
            self._check_sigma(sigma)
        steps = [int(s) for s in sigmas] if self.whole_pixels else list(sigmas)
        if not steps or sorted(set(steps)) != steps or (self.whole_pixels and steps[0] < 1):
            least = " of 1 pixel or more" if self.whole_pixels else ""
            raise UsageError(f"{self.name} needs one or more rising sigmas{least}, not {_listed(sigmas)}")

    def sigmas_in_range(self, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
        """What TWS makes of its sigma range for this family.

        Families that need whole pixels leave out what is less than 1 (with Neighbors, TWS itself would never end).
        """
        _check_sigma(sigma_min, "the smallest sigma")
        _check_sigma(sigma_max, "the largest sigma")
        if sigma_min > sigma_max:
            raise UsageError(f"the smallest sigma, {sigma_min:g}, is above the largest, {sigma_max:g}")
        if not self.per_sigma:
            return ()
        sigma, last = single(sigma_min), single(sigma_max)
        if self.sigmas == "doubled":
            sigma, last = float(max(1, int(sigma))), float(int(last))
        sigmas = [0.0] if self.sigmas == "zero" and sigma < 2 else []
        while sigma <= last:
            if sigma >= 1 or not self.whole_pixels:
                sigmas.append(sigma)
            sigma *= 2
        return tuple(sigmas)

    def sigmas_given(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        """An explicit list, in any order."""
        for sigma in sigmas:
            self._check_sigma(sigma)
            if self.whole_pixels and sigma != int(sigma):
                raise UsageError(f"{self.name} needs whole numbers of pixels as sigmas, not {sigma:g}")
        return tuple(sorted({single(sigma) for sigma in sigmas}))

    def _check_sigma(self, sigma: float) -> None:
        if not (sigma == 0 and self.sigmas == "zero"):
            _check_sigma(sigma, f"each sigma of {self.name}")

    def compute(self, source: FeatureSource, parameters: Mapping[str, Any]) -> np.ndarray:
        """One block by the reference: (n_channels, ny, nx) float32."""
        module, function = self.reference.split(":")
        compute = getattr(importlib.import_module(f"gpu_tomoclass.features.reference.{module}"), function)
        with np.errstate(all="ignore"):  # huge values overflow float32 silently, as in Java
            result: np.ndarray = compute(source, **parameters)
        return result


def single(sigma: float) -> float:
    """The sigma as TWS keeps it: float32."""
    return float(np.float32(sigma))


def number(sigma: float) -> str:
    """A sigma as Java prints a float: ``1.0``, ``1.3``."""
    return str(np.float32(sigma))


def wide_number(sigma: float) -> str:
    """A sigma as Java prints a float that was passed on as a double: ``1.0``, ``1.2999999523162842``."""
    return repr(float(np.float32(sigma)))


def _check_sigma(sigma: float, what: str) -> None:
    low, high = SIGMA_LIMITS
    if not low <= sigma <= high:
        raise UsageError(f"{what} must be from {low:g} to {high:g}, not {sigma:g}")


def _listed(sigmas: Sequence[float]) -> str:
    return ", ".join(f"{sigma:g}" for sigma in sigmas) or "none"


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
_REDUCED_IN = 2  # definition version since which blurs on reduced lines add as ImageJ 1.54 does; had no legacy Hessian
_STRETCHED = "the plane is stretched to 8 bits by its own minimum and maximum"


def _one(weka_name: str) -> Callable[..., list[str]]:
    """Labels of a family with one channel per sigma or radius."""
    return lambda **parameters: [f"{weka_name}_{number(next(iter(parameters.values())))}"]


def _blur_changed_in(sigma: float, **parameters: Any) -> int:
    return _REDUCED_IN if is_reduced(STD_PER_SIGMA * sigma) else 1


def _rank(name: str, *, scratch: int) -> Family:
    weka_name = name.capitalize()
    return Family(
        name=name,
        weka_name=weka_name,
        parameters=lambda r: {"radius": r.sigma},
        labels=_one(weka_name),
        reach=lambda radius: len(disk_half_widths(radius)) // 2,
        scratch=scratch,
        reference=f"ranks:{name}",
        kernel=f"ranks:{name}",
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
)

_ROWS = (
    Family(
        name="gabor",
        weka_name="Gabor",
        sigmas="none",
        place="first",
        parameters=lambda r: {},
        labels=lambda: [f"Gabor_{k}_{s}_{gamma}_{phase}_{f}" for s, gamma, phase, f in GABOR_BANKS for k in (1, 2)],
        reach=lambda: 12,
        whole_plane="each response is brought to mean 0 and standard deviation 1 over the plane",
        scratch=80,
        reference="gabor:gabor",
        kernel="gabor:gabor",
    ),
    Family(
        name="anisotropic_diffusion",
        weka_name="Anisotropic_diffusion",
        sigmas="whole",
        place="first",
        parameters=lambda r: {"smoothings": int(r.sigma), "edge_threshold": float(r.thickness)},
        labels=lambda smoothings, edge_threshold: [
            f"Anisotropic_diffusion_20_{smoothings}_{a1}_0.9_{edge_threshold}" for a1 in (0.1, 0.35)
        ],
        reach=lambda smoothings, edge_threshold: 20 * smoothings,
        whole_plane="the time step depends on the fastest change anywhere, the threshold on the standard deviation",
        scratch=210,
        reference="diffusion:anisotropic_diffusion",
        kernel="diffusion:anisotropic_diffusion",
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
    ),
    Family(
        name="gaussian_blur",
        weka_name="Gaussian_blur",
        labels=_one("Gaussian_blur"),
        reach=lambda sigma: kernel_radius(sigma),
        scratch=24,
        reference="edges:gaussian_blur",
        kernel="edges:gaussian_blur",
        changed_in=_blur_changed_in,
    ),
    Family(
        name="sobel_filter",
        weka_name="Sobel_filter",
        sigmas="zero",
        labels=_one("Sobel_filter"),
        reach=lambda sigma: kernel_radius(sigma) + 1,
        scratch=24,
        reference="edges:sobel_filter",
        kernel="edges:sobel_filter",
        changed_in=_blur_changed_in,
    ),
    Family(
        name="hessian",
        weka_name="Hessian",
        sigmas="zero",
        parameters=lambda r: {"sigma": r.sigma, **({"legacy": True} if r.legacy_hessian else {})},
        labels=lambda sigma, legacy=False: [f"{channel}_{number(sigma)}" for channel in HESSIAN_CHANNELS],
        reach=lambda sigma, legacy=False: kernel_radius(sigma) + 2,
        scratch=64,
        reference="edges:hessian",
        kernel="edges:hessian",
        changed_in=lambda sigma, legacy=False: _REDUCED_IN if legacy else _blur_changed_in(sigma),
    ),
    Family(
        name="difference_of_gaussians",
        weka_name="Difference_of_gaussians",
        parameters=lambda r: {"sigma": r.sigma, "smaller": r.smaller},
        labels=lambda sigma, smaller: [f"Difference_of_gaussians_{number(sigma)}_{number(t)}" for t in smaller],
        reach=lambda sigma, smaller: kernel_radius(sigma),
        scratch=24,
        reference="edges:difference_of_gaussians",
        kernel="edges:difference_of_gaussians",
        changed_in=_blur_changed_in,
    ),
    _rank("variance", scratch=36),
    _rank("mean", scratch=24),
    _rank("minimum", scratch=20),
    _rank("maximum", scratch=20),
    _rank("median", scratch=56),
    Family(
        name="derivatives",
        weka_name="Derivatives",
        labels=lambda sigma: [f"Derivatives_{d}_{d}_{wide_number(sigma)}" for d in ORDERS],
        reach=lambda sigma: max(derivative_reach(sigma, d) for d in ORDERS),
        scratch=24,
        reference="derivatives:derivatives",
        kernel="derivatives:derivatives",
    ),
    Family(
        name="laplacian",
        weka_name="Laplacian",
        labels=lambda sigma: [f"Laplacian_{wide_number(sigma)}"],
        reach=lambda sigma: derivative_reach(sigma, 2),
        scratch=28,
        reference="derivatives:laplacian",
        kernel="derivatives:laplacian",
    ),
    Family(
        name="structure",
        weka_name="Structure",
        labels=lambda sigma: [
            f"Structure_{which}_{wide_number(sigma)}_{scale}"
            for scale in INTEGRATION_SCALES
            for which in ("largest", "smallest")
        ],
        reach=lambda sigma: derivative_reach(sigma, 1) + derivative_reach(INTEGRATION_SCALES[-1], 0),
        scratch=136,
        reference="derivatives:structure",
        kernel="derivatives:structure",
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
    ),
)

FAMILIES: Mapping[str, Family] = {row.name: row for row in _ROWS}
"""The 20 families by name, in TWS's channel order."""


def _all_but(*names: str) -> tuple[str, ...]:
    return tuple(name for name in FAMILIES if name not in names)


FEATURE_SETS: Mapping[str, Sequence[str]] = {
    "weka-default": ("gaussian_blur", "sobel_filter", "hessian", "difference_of_gaussians", "membrane_projections"),
    "paper": _all_but("mean", "minimum", "maximum", "lipschitz"),
    "all": _all_but(),
}
"""TWS's own default; the 16 families (252 channels at sigma 1..16) of the published practice; all 20 (272 channels)."""
