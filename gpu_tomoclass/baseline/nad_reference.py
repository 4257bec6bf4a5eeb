"""Nonlinear anisotropic diffusion (NAD) of planes: hybrid of edge- and coherence-enhancing diffusion.

After J.-J. Fernandez and S. Li, "An improved algorithm for anisotropic nonlinear diffusion for denoising
cryo-tomograms", J. Struct. Biol. 144 (2003) 152-161, and the questions that the program tomoand asks. That program is
closed: where its rules are unknown, ours are stated below, and equal bits with it are not claimed.

A plane u follows  du/dt = div(D grad u),  D = l1 v1 v1^T + l2 v2 v2^T,  0 <= l1, l2 <= 1, in steps of ``time_step``.
In each step, with s = G_sigma * u (a Gaussian):

====================  ==============================================================================================
structure tensor      J = G_rho * (grad s grad s^T), rho = ``structure_sigma``; eigenvalues m1 >= m2, v1 belongs to m1
contrast K            ``contrast``; automatic: mean of |grad s| over the plane
switch t              mean of m1 in the noise area / ``balance``; for balance 0, all is EED
structure C           ``structure``; automatic: t^2
EED                   l1 = l2 = 1 / sqrt(1 + |grad s|^2 / K^2)
CED                   l1 = a, l2 = a + p2 (1 - a) exp(-C / (m1 - m2)^2), a = 0.001, p2 = ``second_eigenvector``
hybrid                EED where m1 < 0.95 t, CED where m1 > 1.05 t, linear in between (so that no rounding decides)
background            l <- l + w ``grey_level`` (1 - l), w = 0.5 + (g - G_rho * s) / d within 0..1, where g and d are
                      mean and standard deviation of G_rho * s in the noise area: 1 where it is dark, 0 where bright
====================  ==============================================================================================

Three dimensions are in :mod:`gpu_tomoclass.baseline.nad_volume_reference`; a stack of equal slices is moved there as
here.

The central stencil is used: fluxes at half points for the diagonal of D, at points for the mixed terms. It is
consistent and stable for every D with eigenvalues in 0..1 up to a time step of 1/4. Nothing flows through the borders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import UsageError

LEAST = 0.001  # a
NOISE_BOX = 15  # pixels or voxels along an edge
TINY = 1e-30  # keeps divisors above 0
TRUNCATE = 4.0  # Gaussians end at this many sigmas

Plane = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class NadParameters:
    """Parameters that tomoand asks for, in its order.

    Attributes
    ----------
    dimensions : int
        2 for planes, each for itself, or 3 for a volume.
    iterations : int
        Time steps.
    structure : float, optional
        C of CED; None: automatic in every step.
    contrast : float, optional
        K of EED, in grey levels per pixel; None: automatic in every step.
    balance : float
        0..1: how much CED; 0 is EED alone.
    second_eigenvector : float
        0..1: proportion of CED along the second eigenvector.
    grey_level : float
        0..1: proportion of plain smoothing where the image is dark.
    noise_area : tuple of int, optional
        x, y, in three dimensions also z, of a point amid noise alone; a box with edges of 15 around it, as far as it
        lies in the image, is used. Needed unless ``balance`` and ``grey_level`` are 0.
    sigma : float
        Of the Gaussian before gradients, in pixels; 0: none.
    structure_sigma : float
        Of the Gaussian that averages the structure tensor, in pixels.
    time_step : float
        ht, more than 0 and at most 1 / (2 ``dimensions``).
    """

    dimensions: int = 2
    iterations: int = 50
    structure: float | None = None
    contrast: float | None = None
    balance: float = 0.4
    second_eigenvector: float = 0.5
    grey_level: float = 0.3
    noise_area: tuple[int, ...] | None = None
    sigma: float = 0.4
    structure_sigma: float = 2.0
    time_step: float = 0.1

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise UsageError(f"NAD in {self.dimensions} dimensions", do="choose 2 or 3")
        if self.iterations < 1:
            raise UsageError(f"NAD needs 1 iteration or more, not {self.iterations}")
        if not 0 < self.time_step <= 1 / (2 * self.dimensions):
            raise UsageError(
                f"the time step of NAD is {self.time_step:g}; in {self.dimensions} dimensions it is stable above 0 up "
                f"to 1/{2 * self.dimensions}",
                do="choose 0.1, and more iterations instead",
            )
        for name in ("balance", "second_eigenvector", "grey_level"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} of NAD must be from 0 to 1, not {getattr(self, name):g}")
        for name in ("structure", "contrast"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} of NAD must be above 0, not {value:g}", do="leave it out to have it chosen")
        for name in ("sigma", "structure_sigma"):
            if not 0 <= getattr(self, name) <= 64:
                raise UsageError(f"{name} of NAD must be from 0 to 64 pixels, not {getattr(self, name):g}")
        axes = "xyz"[: self.dimensions]
        if self.noise_area is None and (self.balance > 0 or self.grey_level > 0):
            raise UsageError(
                "NAD compares with noise and was given no noise area",
                do=f"name {', '.join(axes)} of a point amid noise, or set balance and grey_level to 0",
            )
        if self.noise_area is not None and len(self.noise_area) != self.dimensions:
            raise UsageError(
                f"the noise area of NAD in {self.dimensions} dimensions is {', '.join(axes)}, not {self.noise_area}"
            )

    def noise_box(self, *shape: int) -> tuple[slice, ...]:
        """Where the noise area is in an image of this shape, (nz,) ny, nx; the whole image if there is none.

        Raises
        ------
        UsageError
            If its point is outside of the image.
        """
        if self.noise_area is None:
            return tuple(slice(0, n) for n in shape)
        place = self.noise_area[::-1]
        if not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
            axes = "zyx"[-self.dimensions :]
            named = ", ".join(f"{a} {i}" for a, i in zip(axes[::-1], self.noise_area, strict=True))
            size = " x ".join(map(str, shape))
            what = "planes" if self.dimensions == 2 else "a volume"
            raise UsageError(f"the noise area of NAD, {named}, is outside of {what} of {size} ({', '.join(axes)})")
        half = NOISE_BOX // 2
        return tuple(slice(max(0, i - half), min(n, i + half + 1)) for i, n in zip(place, shape, strict=True))


def nad_plane(plane: Plane, parameters: NadParameters, *, dtype: npt.DTypeLike = np.float64) -> Plane:
    """One plane diffused.

    Parameters
    ----------
    plane : ndarray
        (ny, nx), finite.
    parameters : NadParameters
    dtype : dtype
        Precision of the arithmetic and of the result.

    Returns
    -------
    ndarray
        (ny, nx).
    """
    u = plane.astype(dtype)
    box = parameters.noise_box(*u.shape)
    for _ in range(parameters.iterations):
        u = diffused(u, *diffusion_tensor(u, parameters, box=box), time_step=parameters.time_step)
    return u


def gaussian(sigma: float) -> npt.NDArray[np.float64]:
    """Weights of a Gaussian at whole pixels up to 4 sigma, brought to sum 1; one weight for sigma 0."""
    radius = math.ceil(TRUNCATE * sigma)
    x = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (x / sigma) ** 2) if sigma > 0 else np.ones(1)
    return np.asarray(weights / weights.sum())


def smoothed(image: Plane, sigma: float) -> Plane:
    """Convolved with a Gaussian along x, then y, then z where there is one; edge pixels are repeated."""
    weights = gaussian(sigma).astype(image.dtype)
    radius = len(weights) // 2
    for axis in reversed(range(image.ndim)):
        widths = [(0, 0)] * image.ndim
        widths[axis] = (radius, radius)
        padded = np.pad(image, widths, mode="edge")
        n = image.shape[axis]
        image = np.zeros_like(image)
        for k, weight in enumerate(weights):
            image += weight * padded.take(range(k, k + n), axis=axis)
    return image


def gradient(image: Plane) -> tuple[Plane, Plane]:
    """Along x and y, by central differences; edge pixels are repeated."""
    p = np.pad(image, 1, mode="edge")
    half = image.dtype.type(0.5)
    return half * (p[1:-1, 2:] - p[1:-1, :-2]), half * (p[2:, 1:-1] - p[:-2, 1:-1])


def diffusion_tensor(u: Plane, parameters: NadParameters, *, box: tuple[slice, ...]) -> tuple[Plane, Plane, Plane]:
    """xx, xy, yy of D, by the table above."""
    p = parameters
    s = smoothed(u, p.sigma)
    gx, gy = gradient(s)
    steepness = gx * gx + gy * gy
    jxx, jxy, jyy = (smoothed(product, p.structure_sigma) for product in (gx * gx, gx * gy, gy * gy))
    grey = smoothed(s, p.structure_sigma)
    # Twice the angle of v1: cos = difference / spread, sin = 2 jxy / spread, where spread = m1 - m2.
    difference = jxx - jyy
    spread = np.sqrt(difference * difference + 4 * jxy * jxy)
    m1 = (jxx + jyy + spread) / 2

    scalar = u.dtype.type  # so that float32 stays float32
    contrast = p.contrast if p.contrast is not None else float(np.sqrt(steepness).mean(dtype=np.float64))
    switch = max(float(m1[box].mean(dtype=np.float64)) / p.balance, TINY) if p.balance > 0 else 0.0
    root_c = math.sqrt(p.structure) if p.structure is not None else switch
    eed = 1 / np.sqrt(1 + steepness * scalar(1 / contrast**2 if contrast > 0 else 0.0))
    coherence = scalar(root_c) / (spread + scalar(TINY))
    ced = scalar(LEAST) + scalar(p.second_eigenvector * (1 - LEAST)) * np.exp(-coherence * coherence)
    share = np.clip(
        m1 * scalar(10 / switch if switch > 0 else 0.0) - scalar(9.5), 0, 1
    )  # of coherence enhancement (CED)
    l1, l2 = eed + share * (scalar(LEAST) - eed), eed + share * (ced - eed)

    mean, width = float(grey[box].mean(dtype=np.float64)), float(grey[box].std(dtype=np.float64))
    dark = scalar(p.grey_level) * np.clip(scalar(0.5) + (scalar(mean) - grey) / scalar(max(width, TINY)), 0, 1)
    l1, l2 = l1 + dark * (1 - l1), l2 + dark * (1 - l2)

    half_sum, half_difference = (l1 + l2) / 2, (l1 - l2) / 2 / (spread + scalar(TINY))
    turned = half_difference * difference
    return half_sum + turned, half_difference * 2 * jxy, half_sum - turned


def diffused(u: Plane, xx: Plane, xy: Plane, yy: Plane, *, time_step: float) -> Plane:
    """u + time_step div(D grad u) by the central stencil; nothing flows through the borders."""
    p = np.pad(u, 1, mode="edge")
    along_x, along_y = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]  # twice the derivatives
    change = np.zeros_like(u)
    # Diagonal terms: the flux between two neighbours leaves one and enters the other.
    for axis, d in ((1, xx), (0, yy)):
        first, second = _shifted(axis)
        flux = (d[first] + d[second]) * (u[second] - u[first]) / 2
        change[first] += flux
        change[second] -= flux
    # Mixed terms: fluxes at pixels, differenced between the neighbours on both sides.
    for axis, derivative in ((1, along_y), (0, along_x)):
        flux = _beyond_edges(xy * derivative / 4, axis)
        change += np.delete(flux, [0, 1], axis=axis) - np.delete(flux, [-2, -1], axis=axis)
    return np.asarray(u + u.dtype.type(time_step) * change)


def _shifted(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All pixels but the last along an axis, and all but the first."""
    before, behind, all_ = slice(None, -1), slice(1, None), slice(None)
    return ((all_, before), (all_, behind)) if axis else ((before, all_), (behind, all_))


def _beyond_edges(flux: Plane, axis: int) -> Plane:
    """One more flux at each end: the edge's with the other sign, as in a mirror, so that no flux crosses the edge."""
    widths = [(0, 0), (0, 0)]
    widths[axis] = (1, 1)
    padded = np.pad(flux, widths, mode="edge")
    ends = np.moveaxis(padded, axis, 0)
    ends[0] *= -1
    ends[-1] *= -1
    return padded
