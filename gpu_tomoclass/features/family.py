"""Row of a feature family in the table in :mod:`gpu_tomoclass.features.families`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gpu_tomoclass.device import Tolerance
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.reference.volume_source import snapped

if TYPE_CHECKING:
    from gpu_tomoclass.features.reference.source import FeatureSource
    from gpu_tomoclass.features.reference.volume_source import Aspect, VolumeSource

COPIES = Tolerance(0, "copies of values")
ONE_VALUE = Tolerance(0, "one of the values")
SAME_SUMS = Tolerance(0, "the same sums in the same order")
SIGMA_LIMITS = (0.01, 256.0)
LENGTHS = {"sigma", "smaller", "scales"}  # parameters that are
NM = "nm"  # behind a number in a name: a length
NM_FAMILIES = "gaussian_blur, gaussian_blur_3d and the others made of Gaussians have"
ACROSS_PLANES = "families across planes, such as gaussian_blur_3d"
SQUARE = 0.01  # voxels within 1 % are the same, as for models
GIVE_SIZE = "give --voxel-size, in nm"
MAX_SIGMAS = 64  # of a family; differences of Gaussians grow with its square


class Request(NamedTuple):
    """Request of a bank to a family: one sigma (0 where the family has none), membrane settings, formulas; if sigmas
    are in nm the least of them, else 0; the sigma along z of smoothed planes, and whether that is in nm."""

    sigma: float
    smaller: tuple[float, ...]
    thickness: int
    patch: int
    legacy_hessian: bool = False
    exact_gabor: bool = False
    nm_least: float = 0.0
    z: float = 0.0
    z_nm: bool = False


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
    dimensions : int
        2: computed plane by plane; 3: looks across planes.
    is_smoothed : bool
        Computed by the functions of a family of planes, of planes smoothed along z; parameter ``z`` is by how much.
    parameters : callable
        Request -> keyword arguments of ``reference``. They define a block of channels entirely.
    labels : callable
        The same keyword arguments -> TWS's channel names.
    reach : callable
        The same -> largest distance in pixels over which the filter itself looks. In 3 dimensions the first argument is
        the aspect of an axis (see :mod:`gpu_tomoclass.features.reference.volume_source`) and the result the distance
        in voxels along it.
    reach_in_plane : callable, optional
        The same -> that distance along y and x, where ``reach`` is that along z only.
    whole_plane : str
        Why a value depends on the whole plane besides; empty if it does not.
    scratch : int
        Bytes per pixel that the reference needs at most besides its result and the shared blurred planes, measured on
        planes of 300 x 300 pixels and more.
    reference : str
        ``"module:function"`` in :mod:`gpu_tomoclass.features.reference`: (source, **parameters) -> (n, ny, nx) float32,
        in 3 dimensions (n, planes, ny, nx).
    kernel : str or None
        ``"module:function"`` in :mod:`gpu_tomoclass.features.accelerated` that computes the same through kernels:
        (source, requests) -> None. Families of one function are given to it together.
    changed_in : callable
        The same as for ``labels`` -> :data:`~gpu_tomoclass.features.DEFINITION_VERSION` that last changed the values.
    parts : callable
        The same -> keyword arguments of smaller blocks, whose channels follow each other: what is computed one after
        the other where memory does not hold the whole. Empty if a block cannot be divided.
    has_kernel : callable
        The same -> whether ``kernel`` computes it; else the reference does, on every device.
    largest_sigma : float
        In pixels; beyond, time or memory would be out of all proportion.
    largest_sigma_nm : float
        The same for sigmas in nm, in pixels; 0 if it is the same.
    in_nm : {"", "as is", "per sigma"}
        Whether sigmas can be lengths in nm: not; yes; yes, and derivatives are then taken over a sigma instead of over
        a voxel, so that values do not depend on the voxels.
    std_per_sigma : float
        Standard deviation of a sigma in pixels, by which lengths in nm, standard deviations themselves, are divided.
    tolerance : Tolerance
        How far ``kernel`` may be from ``reference``, as a share of the channel's largest absolute value, and why;
        factor 0 asks for equal bits.
    """

    name: str
    weka_name: str
    sigmas: Literal["none", "real", "zero", "whole", "doubled"] = "real"
    place: Literal["first", "middle", "last"] = "middle"
    dimensions: Literal[2, 3] = 2
    is_smoothed: bool = False
    parameters: Callable[[Request], dict[str, Any]] = lambda r: {"sigma": r.sigma}
    labels: Callable[..., list[str]]
    reach: Callable[..., int]
    reach_in_plane: Callable[..., int] | None = None
    whole_plane: str = ""
    scratch: int
    reference: str
    kernel: str | None = None
    tolerance: Tolerance
    changed_in: Callable[..., int] = lambda **parameters: 1
    parts: Callable[..., list[dict[str, Any]]] = lambda **parameters: []
    has_kernel: Callable[..., bool] = lambda **parameters: True
    largest_sigma: float = SIGMA_LIMITS[1]
    largest_sigma_nm: float = 0.0
    in_nm: Literal["", "as is", "per sigma"] = ""
    std_per_sigma: float = 1.0

    @property
    def per_sigma(self) -> bool:
        """Tell whether there is one block per sigma."""
        return self.sigmas != "none"

    @property
    def whole_pixels(self) -> bool:
        """Tell whether only the whole part of a sigma counts, and must be 1 or more."""
        return self.sigmas in ("whole", "doubled")

    def check_sigmas(self, sigmas: Sequence[float], *, nm: bool = False) -> None:
        """A UsageError unless these are sigmas that the family can have, rising."""
        if nm and not self.in_nm:
            raise UsageError(f"{self.name} has no sigmas in nm", do=NM_FAMILIES)
        if nm and 0 in sigmas:
            raise UsageError(f"{self.name} has no sigma of 0 nm", do="give lengths above 0, or sigmas in pixels")
        if not self.per_sigma:
            if sigmas:
                raise UsageError(f"{self.name} has no sigma, but was given {_listed(sigmas)}")
            return
        if not nm and max(sigmas, default=0) > self.largest_sigma:
            raise UsageError(f"{self.name} has sigmas up to {self.largest_sigma:g}, not {max(sigmas):g}")
        if len(sigmas) > MAX_SIGMAS:
            raise UsageError(f"{self.name} has {len(sigmas)} sigmas, more than {MAX_SIGMAS}")
        for sigma in sigmas:
            self._check_sigma(sigma)
        steps = [int(s) for s in sigmas] if self.whole_pixels else list(sigmas)
        if not steps or sorted(set(steps)) != steps or (self.whole_pixels and steps[0] < 1):
            least = " of 1 pixel or more" if self.whole_pixels else ""
            raise UsageError(f"{self.name} needs one or more rising sigmas{least}, not {_listed(sigmas)}")

    def sigmas_in_range(self, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
        """Sigmas that TWS takes of its range for this family.

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

    def in_voxels(self, aspect: Aspect, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with standard deviations in nm turned into sigmas in voxels of x; others as they are.

        Raises
        ------
        UsageError
            If a sigma is in nm and the size of the voxels is not known, or makes it too small or too large; or if
            voxels of a family of planes are no squares.
        """
        parameters = self._with_z_in_voxels(aspect, parameters)
        if NM not in parameters:
            return parameters
        if aspect.nm is None:
            raise UsageError(f"sigmas of {self.name} are in nm, and the size of the voxels is not known", do=GIVE_SIZE)
        length = aspect.nm
        if (self.dimensions == 2 or self.is_smoothed) and abs(aspect.y - 1) > SQUARE:
            raise UsageError(
                f"{self.name} filters y and x alike, and voxels are {length / aspect.y:.4g} x {length:.4g} nm (y, x):"
                " no sigma in nm is the same along both",
                do=f"choose {ACROSS_PLANES}, whose sigmas in nm hold along each axis, or give --voxel-size where the"
                " file is wrong",
            )
        unit = length * self.std_per_sigma
        found = {name: value for name, value in parameters.items() if name != NM}
        for name in LENGTHS & found.keys():
            given = found[name]
            found[name] = (
                tuple(_quotient(s, unit) for s in given) if isinstance(given, tuple) else _quotient(given, unit)
            )
        sigma, (low, high) = found["sigma"], (SIGMA_LIMITS[0], self.largest_sigma_nm or self.largest_sigma)
        if not low <= sigma <= high:
            std = self.std_per_sigma
            raise UsageError(
                f"{self.name}: a sigma of {number(parameters['sigma'])} nm is {sigma * std:.3g} voxels of {length:g}"
                f" nm, not {low * std:g} to {high * std:g}",
                do="choose other sigmas, or give --voxel-size where the file is wrong",
            )
        return found | ({"per_sigma": True} if self.in_nm == "per sigma" else {})

    def _with_z_in_voxels(self, aspect: Aspect, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(parameters)
        if not found.pop("z_nm", False):
            return found
        if aspect.nm is None:
            raise UsageError(f"{self.name} smooths by nm, and the size of the voxels is not known", do=GIVE_SIZE)
        return found | {"z": _quotient(found["z"], aspect.nm)}

    def reaches(self, aspect: Aspect, parameters: Mapping[str, Any]) -> tuple[int, int, int]:
        """Distances in voxels along z, y, x over which the filter itself looks."""
        parameters = self.in_voxels(aspect, parameters)
        parameters.pop("per_sigma", None)
        if self.dimensions == 2:
            return 0, self.reach(**parameters), self.reach(**parameters)
        if self.reach_in_plane is not None:
            within = self.reach_in_plane(**parameters)
            return self.reach(aspect.z, **parameters), within, within
        z, y, x = (self.reach(c, **parameters) for c in aspect.axes)
        return z, y, x

    def compute(self, source: FeatureSource | VolumeSource, parameters: Mapping[str, Any]) -> np.ndarray:
        """One block by the reference: (n_channels, ny, nx) float32, in 3 dimensions (n_channels, planes, ny, nx)."""
        module, function = self.reference.split(":")
        compute = getattr(importlib.import_module(f"gpu_tomoclass.features.reference.{module}"), function)
        if self.is_smoothed:
            from gpu_tomoclass.features.reference.smoothed import smoothed_planes

            parameters = dict(parameters)
            planes = smoothed_planes(source, parameters.pop("z"))  # type: ignore[arg-type]
            return np.stack([_quietly(compute, plane, parameters) for plane in planes], axis=1)
        return _quietly(compute, source, parameters)


def _quietly(compute: Callable[..., np.ndarray], source: Any, parameters: Mapping[str, Any]) -> np.ndarray:
    with np.errstate(all="ignore"):  # huge values overflow float32 silently, as in Java
        return compute(source, **parameters)


def single(sigma: float) -> float:
    """The sigma as TWS keeps it: float32."""
    return float(np.float32(sigma))


def number(sigma: float) -> str:
    """A sigma as Java prints a float: ``1.0``, ``1.3``."""
    return str(np.float32(sigma))


def wide_number(sigma: float) -> str:
    """A sigma as Java prints a float that was passed on as a double: ``1.0``, ``1.2999999523162842``."""
    return repr(float(np.float32(sigma)))


def scales_in_nm(request: Request, scales: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    """Scales of a structure tensor where sigmas are in nm: the smallest sigma takes the place of the pixel."""
    return {"scales": tuple(scale * request.nm_least for scale in scales)} if request.nm_least else {}


def _quotient(sigma: float, length: float) -> float:
    return snapped(float(number(sigma)) / length)


def parse_sigmas(sigmas: str | Sequence[float]) -> tuple[tuple[float, ...], bool]:
    """Numbers, and whether they are in nm, of ``"2,4"`` (or numbers themselves), or ``"2,4nm"``.

    Raises
    ------
    ValueError
        If something else is written there.
    """
    if not isinstance(sigmas, str):
        return tuple(sigmas), False
    numbers = sigmas.strip().removesuffix(NM)
    return tuple(float(n) for n in numbers.split(",")), numbers != sigmas.strip()


def _check_sigma(sigma: float, what: str) -> None:
    low, high = SIGMA_LIMITS
    if not low <= sigma <= high:
        raise UsageError(f"{what} must be from {low:g} to {high:g}, not {sigma:g}")


def _listed(sigmas: Sequence[float]) -> str:
    return ", ".join(f"{sigma:g}" for sigma in sigmas) or "none"


def one_label(weka_name: str, *, pixels: Callable[[float], str] = number) -> Callable[..., list[str]]:
    """Labels of a family with one channel per sigma or radius."""
    return lambda nm=False, **size: [f"{weka_name}_{size_text(*size.values(), nm=nm, pixels=pixels)}"]


def size_text(sigma: float, *, nm: bool, pixels: Callable[[float], str] = wide_number) -> str:
    """A sigma in a name: pixels as TWS has them there, or nm."""
    return f"{number(sigma)}{NM}" if nm else pixels(sigma)
