"""Nonlinear anisotropic diffusion (NAD) of volumes: the definition in three dimensions.

After J.-J. Fernandez and S. Li, J. Struct. Biol. 144 (2003) 152-161. The parameters are those of
:mod:`gpu_tomoclass.baseline.nad_reference`. A volume u follows  du/dt = div(D grad u),  D = l1 v1 v1^T + l2 v2 v2^T +
l3 v3 v3^T,  0 <= l <= 1. In each step, with s = G_sigma * u (a Gaussian):

====================  ==============================================================================================
structure tensor      J = G_rho * (grad s grad s^T), rho = ``structure_sigma``; eigenvalues m1 >= m2 >= m3 with vectors
                      v1 (across a surface), v2, v3 (along a line)
contrast K            ``contrast``; automatic: mean of |grad s| over the volume
switch t              mean of m1 - m3 in the noise area / ``balance``; for balance 0, all is EED
structure C           ``structure``; automatic: t^2
EED                   l1 = l2 = 1 / sqrt(1 + |grad s|^2 / K^2), l3 = 1
CED                   l1 = a, l2 = a + p2 (1 - a) exp(-C / (m1 - m2)^2), l3 = a + (1 - a) exp(-C / (m1 - m3)^2),
                      a = 0.001, p2 = ``second_eigenvector``
hybrid                EED where m1 - m3 < 0.95 t, CED where m1 - m3 > 1.05 t, linear in between
background            l <- l + w ``grey_level`` (1 - l), w = 0.5 + (g - G_rho * s) / d within 0..1, where g and d are
                      mean and standard deviation of G_rho * s in the noise area: 1 where it is dark, 0 where bright
====================  ==============================================================================================

A stack of equal slices has m3 = 0 and v3 = z: each slice moves exactly as a plane in two dimensions, and l3 acts along
z, where nothing varies.

The central stencil is used: fluxes at half points for the diagonal of D, at voxels for the mixed terms, nothing through
the borders. It is consistent, and stable for every D with eigenvalues in 0..1 up to a time step of 1/6. Stencils that
keep their weights positive in two dimensions are not: their extension to three grows at the highest frequency where D
is like v v^T with v = (1, 1, 1) / sqrt(3), and to halve its axis weights changes what is diffused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.baseline.nad_reference import LEAST, TINY, NadParameters, smoothed

Volume = npt.NDArray[Any]
PAIRS = ((2, 2), (2, 1), (2, 0), (1, 1), (1, 0), (0, 0))  # axes of xx, xy, xz, yy, yz, zz in (z, y, x)


@dataclass(frozen=True)
class Statistics:
    """Figures of the whole volume that the tensor needs in one step.

    Attributes
    ----------
    contrast : float
        K.
    switch : float
        t; 0: all is EED.
    root_c : float
        Square root of C.
    grey, width : float
        Mean and standard deviation of the smoothed grey values in the noise area.
    """

    contrast: float
    switch: float
    root_c: float
    grey: float
    width: float


def nad_volume(volume: Volume, parameters: NadParameters, *, dtype: npt.DTypeLike = np.float64) -> Volume:
    """A volume diffused.

    Parameters
    ----------
    volume : ndarray
        (nz, ny, nx), finite.
    parameters : NadParameters
        Of 3 dimensions.
    dtype : dtype
        Precision of the arithmetic, but for eigenvalues, and of the result.

    Returns
    -------
    ndarray
        (nz, ny, nx).
    """
    u = volume.astype(dtype)
    box = parameters.noise_box(*u.shape)
    for _ in range(parameters.iterations):
        s = smoothed(u, parameters.sigma)
        steep, structure = steepness(s), structure_tensor(s, parameters)
        grey = smoothed(s, parameters.structure_sigma)
        statistics = step_statistics(
            parameters,
            mean_steepness=math.fsum(plane_sums(steep)) / u.size,
            noise=noise_statistics(structure[(slice(None), *box)], grey[box], parameters),
        )
        tensor = diffusion_tensor(structure, steep, grey, parameters, statistics)
        u = diffused(u, tensor, time_step=parameters.time_step)
    return u


def gradient(image: Volume) -> tuple[Volume, Volume, Volume]:
    """Along z, y, x, by central differences; edge voxels are repeated."""
    p = np.pad(image, 1, mode="edge")
    half = image.dtype.type(0.5)
    inner = p[1:-1, 1:-1, 1:-1]

    def along(axis: int) -> Volume:
        behind, before = ([slice(1, -1)] * 3 for _ in range(2))
        behind[axis], before[axis] = slice(2, None), slice(None, -2)
        return half * (p[tuple(behind)] - p[tuple(before)])

    assert inner.shape == image.shape
    return along(0), along(1), along(2)


def steepness(s: Volume) -> Volume:
    """|grad s|."""
    gz, gy, gx = gradient(s)
    return np.asarray(np.sqrt(gx * gx + gy * gy + gz * gz))


def structure_tensor(s: Volume, parameters: NadParameters) -> Volume:
    """xx, xy, xz, yy, yz, zz of J: (6, nz, ny, nx)."""
    g = gradient(s)
    return np.stack([smoothed(g[i] * g[j], parameters.structure_sigma) for i, j in PAIRS])


def eigen(structure: Volume) -> tuple[Volume, Volume]:
    """Eigenvalues, descending, (..., 3) float64 and eigenvectors as columns (..., 3, 3) of components (6, ...)."""
    matrix = np.empty((*structure.shape[1:], 3, 3))
    for component, (i, j) in zip(structure, PAIRS, strict=True):
        matrix[..., i, j] = matrix[..., j, i] = component
    values, vectors = np.linalg.eigh(matrix)
    return values[..., ::-1], vectors[..., ::-1]


def plane_sums(steep: Volume) -> list[float]:
    """Sum over each plane, so that slabs of a volume add up to the same as the whole."""
    return [float(plane.sum(dtype=np.float64)) for plane in steep]


def noise_statistics(structure: Volume, grey: Volume, parameters: NadParameters) -> tuple[float, float, float]:
    """Mean of m1 - m3, mean and standard deviation of the smoothed grey values, in the noise area; 0 without one.

    Parameters
    ----------
    structure : ndarray
        (6, nz, ny, nx), of the voxels of the noise area.
    grey : ndarray
        (nz, ny, nx).
    parameters : NadParameters
    """
    if parameters.noise_area is None:
        return 0.0, 0.0, 0.0
    m = eigen(structure)[0]
    return float((m[..., 0] - m[..., 2]).mean()), float(grey.mean(dtype=np.float64)), float(grey.std(dtype=np.float64))


def step_statistics(
    parameters: NadParameters, *, mean_steepness: float, noise: tuple[float, float, float]
) -> Statistics:
    """Given numbers and automatic ones together."""
    p = parameters
    switch = max(noise[0] / p.balance, TINY) if p.balance > 0 else 0.0
    return Statistics(
        contrast=p.contrast if p.contrast is not None else mean_steepness,
        switch=switch,
        root_c=math.sqrt(p.structure) if p.structure is not None else switch,
        grey=noise[1],
        width=max(noise[2], TINY),
    )


def diffusion_tensor(
    structure: Volume, steep: Volume, grey: Volume, parameters: NadParameters, statistics: Statistics
) -> Volume:
    """xx, xy, xz, yy, yz, zz of D, by the table above: (6, nz, ny, nx)."""
    p, of = parameters, statistics
    m, v = eigen(structure)
    m1, m2, m3 = (m[..., i] for i in range(3))
    g = 1 / np.sqrt(1 + (steep / of.contrast) ** 2) if of.contrast > 0 else np.ones_like(steep)
    l2 = LEAST + p.second_eigenvector * (1 - LEAST) * np.exp(-((of.root_c / (m1 - m2 + TINY)) ** 2))
    l3 = LEAST + (1 - LEAST) * np.exp(-((of.root_c / (m1 - m3 + TINY)) ** 2))
    share = (
        np.clip(10 * (m1 - m3) / of.switch - 9.5, 0, 1) if of.switch > 0 else np.zeros_like(m1)
    )  # of coherence enhancement (CED)
    dark = p.grey_level * np.clip(0.5 + (of.grey - grey) / of.width, 0, 1)
    eigenvalues = []
    for eed, ced in ((g, LEAST), (g, l2), (1.0, l3)):
        hybrid = eed + share * (ced - eed)
        eigenvalues.append(hybrid + dark * (1 - hybrid))
    tensor = np.empty_like(structure)
    for component, (i, j) in zip(tensor, PAIRS, strict=True):
        component[...] = sum(value * v[..., i, k] * v[..., j, k] for k, value in enumerate(eigenvalues))
    return tensor


def diffused(u: Volume, tensor: Volume, *, time_step: float) -> Volume:
    """u + time_step div(D grad u) by the central stencil; nothing flows through the borders.

    Parameters
    ----------
    u : ndarray
        (nz, ny, nx).
    tensor : ndarray
        (6, nz, ny, nx): xx, xy, xz, yy, yz, zz of D.
    time_step : float
    """
    slope = gradient(u)
    change = np.zeros_like(u)
    for component, (i, j) in zip(tensor, PAIRS, strict=True):
        if i == j:
            change += _across_half_points(u, component, axis=i)
        else:
            change += _across_voxels(component * slope[j], axis=i) + _across_voxels(component * slope[i], axis=j)
    return np.asarray(u + u.dtype.type(time_step) * change)


def _across_half_points(u: Volume, d: Volume, *, axis: int) -> Volume:
    """d/dx (d du/dx): the flux between two neighbours leaves one and enters the other."""
    u, d = np.moveaxis(u, axis, 0), np.moveaxis(d, axis, 0)
    flux = (d[:-1] + d[1:]) * (u[1:] - u[:-1]) / 2
    change = np.zeros_like(u)
    change[:-1] += flux
    change[1:] -= flux
    return np.moveaxis(change, 0, axis)


def _across_voxels(flux: Volume, *, axis: int) -> Volume:
    """Central difference; beyond an edge, the flux is the edge's with the other sign, so that none crosses it."""
    f = np.moveaxis(flux, axis, 0)
    f = np.concatenate((-f[:1], f, -f[-1:]))
    return np.moveaxis((f[2:] - f[:-2]) / 2, 0, axis)
