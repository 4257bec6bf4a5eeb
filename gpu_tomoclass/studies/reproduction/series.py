"""The needle from its aligned tilt series: two reconstructions, and labels that serve as its truth.

The series is `HAADF_Aligned.hspy` of the wheel `etspy` on PyPI: (77, 256, 256) projections of 3.36 nm pixels, -76 to 76
degrees, the tilt axis along the last axis. The needle stands along the tilt axis: a dim substrate, layers of two
brightnesses across the axis, and beyond its tip vacuum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve
from skimage.filters import threshold_otsu

from gpu_tomoclass import create_volume, default_classes, open_volume
from gpu_tomoclass.errors import DataError
from gpu_tomoclass.studies.simulation.tilt_series import WEDGE, projection_matrix, shift_projections, sirt, tilt_angles
from gpu_tomoclass.types import Progress

CLASSES = ("vacuum", "dim substrate", "middle layer", "bright layer")
FILES = ("needle_wbp.tif", "needle_sirt.tif", "needle_reference.tif")
PIXEL = 3.36  # nm
SIRT, REFERENCE = 20, 60  # iterations of the reconstruction that is classified, and of the one that is labelled
EMPTY = 0.1  # planes darker than this share of the brightest hold no specimen
SLAB = 32  # planes reconstructed at once

Stack = npt.NDArray[np.float32]


def reconstruct_needle(
    series: str, folder: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> tuple[list[str], str, tuple[int, int]]:
    """Reconstruct the needle by filtered back-projection and by SIRT, and label it.

    Parameters
    ----------
    series : path
        Aligned projections (n_angles, n_bins, nz).
    folder : path
        Gets the `FILES`; planes are half as wide as the detector, which holds the needle.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all).

    Returns
    -------
    volumes : list of str
        Filtered back-projection and SIRT.
    truth : str
        Label values 1..4 in the order of `CLASSES`.
    planes : (start, stop)
        Those with specimen.

    Raises
    ------
    DataError
        If the series does not have a projection for each of the 77 angles.
    """
    rays = _rays(series)
    n_angles, n_bins, nz = rays.shape
    angles = tilt_angles(*WEDGE)
    side = n_bins // 2
    matrix = projection_matrix(angles, shape=(side, side), n_bins=n_bins)
    back = matrix.T.tocsr()
    wbp, twenty, best = (np.empty((nz, side, side), np.float32) for _ in range(3))
    for z in range(0, nz, SLAB):
        if progress is not None:
            progress(z, nz)
        part = slice(z, min(nz, z + SLAB))
        of_slab = np.ascontiguousarray(rays[:, :, part]).reshape(n_angles * n_bins, -1)
        for volume, iterations in ((twenty, SIRT), (best, REFERENCE)):
            volume[part] = sirt(matrix, of_slab, iterations=iterations).T.reshape(-1, side, side)
        filtered = ramp_filtered(rays[:, :, part]).reshape(n_angles * n_bins, -1)
        wbp[part] = (back @ filtered).T.reshape(-1, side, side)
    labels, planes = needle_labels(best)
    paths = [folder / name for name in FILES]
    for path, volume in zip(paths, (wbp, twenty), strict=False):
        _write(path, _to_16_bits(volume), overwrite=overwrite)
    _write(paths[2], labels, overwrite=overwrite, names=CLASSES)
    if progress is not None:
        progress(nz, nz)
    return [str(path) for path in paths[:2]], str(paths[2]), planes


def needle_labels(volume: Stack) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Labels of a good reconstruction, half automatic: they know that a plane is of one material.

    Material is what is above Otsu's threshold of its plane. Planes are dim, middle or bright by the median of their
    material; dim and the others, then middle and bright are parted by Otsu's threshold of these medians.

    Parameters
    ----------
    volume : (nz, ny, nx) float32

    Returns
    -------
    labels : (nz, ny, nx) uint8
        1..4 in the order of `CLASSES`.
    planes : (start, stop)
        From the first plane to the last that holds a specimen, with nothing but vacuum outside.
    """
    thresholds = [float(threshold_otsu(plane)) for plane in volume]
    medians = np.array([np.median(plane[plane > t]) for plane, t in zip(volume, thresholds, strict=True)])
    used = np.flatnonzero(medians > EMPTY * medians.max())
    start, stop = int(used[0]), int(used[-1]) + 1
    inside = medians[start:stop]
    dim = threshold_otsu(inside)
    bright = threshold_otsu(inside[inside > dim])
    labels = np.ones(volume.shape, np.uint8)
    for z in range(start, stop):
        value = 2 + int(medians[z] > dim) + int(medians[z] > bright)
        labels[z][volume[z] > thresholds[z]] = value
    return labels, (start, stop)


def _rays(series: str) -> Stack:
    """Projections (n_angles, n_bins, nz) without background, the rotation axis at the middle of the detector."""
    with open_volume(series) as volume:
        angles = tilt_angles(*WEDGE)
        if volume.shape[0] != len(angles):
            raise DataError(
                f"holds {volume.shape[0]} projections, not {len(angles)}", where=series,
                do="give HAADF_Aligned.hspy::/Experiments/__unnamed__/data of the wheel etspy",
            )  # fmt: skip
        rays = np.stack([plane.astype(np.float32) for _, plane in volume.planes()])
    rays -= np.median(rays, axis=(1, 2), keepdims=True)  # most of a projection is empty
    centre = (rays.shape[1] - 1) / 2
    shift = np.full(len(rays), centre - rotation_axis(rays.mean(axis=2), angles))
    return shift_projections(rays.transpose(1, 0, 2), shift).transpose(1, 0, 2)


def rotation_axis(profiles: npt.NDArray[np.floating], angles: npt.NDArray[np.floating]) -> float:
    """Detector position of the rotation axis: the centre of mass moves around it on a sinusoid.

    Parameters
    ----------
    profiles : (n_angles, n_bins)
        Projections summed along the axis; a tenth of the bins or more is empty.
    angles : (n_angles,)
        In degrees.
    """
    clean = np.clip(profiles - np.percentile(profiles, 10, axis=1, keepdims=True), 0, None)
    mass_centre = clean @ np.arange(profiles.shape[1]) / clean.sum(axis=1)
    turned = np.deg2rad(angles)
    columns = np.stack([np.ones_like(turned), np.cos(turned), np.sin(turned)], axis=1)
    return float(np.linalg.lstsq(columns, mass_centre, rcond=None)[0][0])


def ramp_filtered(rays: Stack) -> Stack:
    """Projections (n_angles, n_bins, nz) convolved along the detector with the band-limited ramp filter.

    Its weights at distance n are 1/4 for 0, -1 / (pi n)^2 for odd n and 0 for even n (Kak and Slaney, Principles of
    computerized tomographic imaging, 1988, equation 61 of chapter 3).
    """
    n_bins = rays.shape[1]
    distance = np.arange(-n_bins, n_bins + 1)
    odd = distance % 2 == 1
    kernel = np.where(distance == 0, 0.25, 0.0)
    kernel[odd] = -1 / (np.pi * distance[odd]) ** 2
    return fftconvolve(rays, kernel[None, :, None].astype(np.float32), mode="same", axes=1)


def _to_16_bits(volume: Stack) -> npt.NDArray[np.uint16]:
    """The 0.01 and 99.99 percentiles become 0 and 65535."""
    low, high = np.percentile(volume, (0.01, 99.99))
    return np.round(np.clip((volume - low) / (high - low), 0, 1) * 65535).astype(np.uint16)


def _write(path: Path, volume: npt.NDArray[np.integer], *, overwrite: bool, names: tuple[str, ...] = ()) -> None:
    with create_volume(
        path, shape=volume.shape, dtype=volume.dtype, voxel_size=(PIXEL, PIXEL, PIXEL), classes=default_classes(names),
        overwrite=overwrite,
    ) as writer:  # fmt: skip
        for z, plane in enumerate(volume):
            writer.write_plane(z, plane)
