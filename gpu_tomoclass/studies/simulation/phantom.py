"""A phantom slice of five levels, as in the paper: noise, misalignment and missing wedge at will."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.studies.simulation.tilt_series import (
    project,
    reconstruct,
    shift_projections,
    tilt_angles,
    to_integers,
)

PHANTOM_CLASSES = ("background", "void", "matrix", "inset", "shell")
PHANTOM_LEVELS = (0, 64, 128, 191, 255)  # evenly spaced: the only set tried for which plain thresholding works at all
# (x, y, half width, half height, degrees, class); each ellipse overwrites those before it. Geometry of the Shepp-Logan
# plugin for ImageJ (P. Thevenaz, 2009), in units of half the image width, y upwards.
_ELLIPSES = (
    (0.0, 0.0, 0.69, 0.92, 0.0, 4),
    (0.0, -0.0184, 0.6624, 0.874, 0.0, 2),
    (0.22, 0.0, 0.11, 0.31, -18.0, 1),
    (-0.22, 0.0, 0.16, 0.41, 18.0, 1),
    (0.0, 0.35, 0.21, 0.25, 0.0, 3),
    (0.0, 0.1, 0.046, 0.046, 0.0, 3),
    (0.0, -0.1, 0.046, 0.046, 0.0, 3),
    (-0.08, -0.605, 0.046, 0.023, 0.0, 3),
    (0.0, -0.605, 0.023, 0.023, 0.0, 3),
    (0.06, -0.605, 0.023, 0.046, 0.0, 3),
)


def phantom_labels(size: int = 512) -> np.ndarray:
    """Classes of the modified Shepp-Logan phantom: (size, size) uint8, 0..4 in the order of `PHANTOM_CLASSES`."""
    if size < 16:
        raise UsageError(f"a phantom of {size} pixels has no room for its ellipses", do="use a size of 16 or more")
    along = (np.arange(size) - (size - 1) / 2) * 2 / size
    x, y = along[None, :], -along[:, None]
    labels = np.zeros((size, size), np.uint8)
    for xc, yc, a, b, degrees, value in _ELLIPSES:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u, v = x - xc, y - yc
        labels[((c * u + s * v) / a) ** 2 + ((c * v - s * u) / b) ** 2 < 1] = value
    return labels


def simulate_phantom(
    *,
    size: int = 512,
    angles: np.ndarray | None = None,
    levels: Sequence[float] = PHANTOM_LEVELS,
    eight_bit: bool = True,
    poisson: float = 0.0,
    max_shift: float = 0.0,
    bits: int = 8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A phantom slice, projected, spoiled and reconstructed.

    Parameters
    ----------
    size : int
        Pixels per side.
    angles : array, optional
        Tilt angles in degrees; by default 0 to 178 in steps of 2. ``tilt_angles(-76, 76, 2)`` has the missing wedge.
    levels : five numbers
        Grey value of each class; the background is vacuum, so the first is 0.
    eight_bit : bool
        Store the sinogram as 8-bit grey values 0..255, rounded, as an ImageJ user does.
    poisson : float
        Mean of an independent Poisson integer added to every sinogram pixel in units of its 0..255 scale
        (signal-independent); 0.5 in the paper, 0 for none.
    max_shift : float
        Every projection is shifted by a uniform random -max_shift..max_shift pixels (cubic spline); 1 in the paper.
    bits : 8 or 16
        Of the result, which is scaled so that its minimum is 0 and its maximum 255 or 65535.
    seed : int
        Of noise and shifts; the same seed gives the same image.

    Returns
    -------
    reconstruction : (size, size) uint8 or uint16
    labels : (size, size) uint8
        0..4, see `PHANTOM_CLASSES`.
    """
    options: dict[str, Any] = {"eight_bit": eight_bit, "poisson": poisson, "max_shift": max_shift, "bits": bits}
    planes = phantom_planes(1, size=size, angles=angles, levels=levels, seed=seed, **options)
    return next(planes), phantom_labels(size)


def phantom_planes(
    n_planes: int,
    *,
    size: int = 512,
    angles: np.ndarray | None = None,
    levels: Sequence[float] = PHANTOM_LEVELS,
    eight_bit: bool = True,
    poisson: float = 0.0,
    max_shift: float = 0.0,
    bits: int = 8,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Planes of a tomogram whose every plane is the phantom: `simulate_phantom` is the first of them.

    Each plane has noise of its own. A projection is one picture of all planes, so its shift is the same in all. All
    planes have the grey scale of the first: its minimum is 0, its maximum 255 or 65535, and values beyond are clipped.
    """
    if n_planes < 1:
        raise UsageError(f"a phantom of {n_planes} planes", do="use 1 or more")
    if len(levels) != len(PHANTOM_CLASSES) or levels[0] != 0:
        raise UsageError(f"phantom levels are {tuple(levels)}", do="give five, background first and 0")
    if bits not in (8, 16):
        raise UsageError(f"{bits} bits", do="use 8 or 16")
    if poisson < 0 or max_shift < 0:
        raise UsageError(f"noise mean {poisson} and shift {max_shift} must not be negative")
    angles = tilt_angles(0, 178, 2) if angles is None else np.asarray(angles, np.float64)
    return _phantom_planes(n_planes, size, angles, np.asarray(levels), eight_bit, poisson, max_shift, bits, seed)


def _phantom_planes(
    n_planes: int,
    size: int,
    angles: np.ndarray,
    levels: np.ndarray,
    eight_bit: bool,
    poisson: float,
    max_shift: float,
    bits: int,
    seed: int,
) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = project(levels.astype(np.float64)[phantom_labels(size)], angles)
    clean *= 255 / clean.max()
    if eight_bit:
        clean = np.round(clean)
    shifts: np.ndarray | None = None
    scale: tuple[float, float] | None = None
    plane: np.ndarray | None = None
    for _ in range(n_planes):
        if plane is not None and not poisson:  # nothing differs from plane to plane
            yield plane
            continue
        sinogram = clean
        if poisson:
            sinogram = sinogram + rng.poisson(poisson, sinogram.shape)
        if eight_bit:
            sinogram = np.minimum(sinogram, 255)
        if max_shift:
            if shifts is None:
                shifts = rng.uniform(-max_shift, max_shift, len(angles))
            sinogram = shift_projections(sinogram, shifts)
            if eight_bit:
                sinogram = np.clip(np.round(sinogram), 0, 255)
        image = reconstruct(sinogram, angles)
        scale = scale or (image.min(), image.max())
        plane = to_integers(image, low=scale[0], high=scale[1], bits=bits)
        yield plane
