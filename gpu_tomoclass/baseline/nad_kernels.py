"""Nonlinear anisotropic diffusion of planes on any device; on those that run kernels by ``kernels/nad.cu``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.baseline.nad_reference import NadParameters, gaussian, nad_plane
from gpu_tomoclass.device import Array, Device

GPU_BLOCK = (32, 8)
CPU_BLOCK = (128, 1)  # a run of pixels that becomes a loop of vectors
STATISTICS_THREADS = {True: 256, False: 64}  # on a GPU, on a CPU
AUTOMATIC = -1.0  # as in kernels/nad.cu
REFERENCE_VALUES = 26  # float64 per pixel that the reference holds at most, by tracemalloc


def nad_planes(planes: npt.NDArray[Any], *, device: Device, parameters: NadParameters) -> npt.NDArray[np.float32]:
    """Denoise planes, each for itself: see :mod:`gpu_tomoclass.baseline.nad_reference`.

    Parameters
    ----------
    planes : ndarray
        (nz, ny, nx), finite. Squares of squared gradients are float32 on devices that run kernels: grey levels should
        differ by more than 1e-8 and less than 1e9.
    device : Device
        All planes are on it at once, with 10 float32 values per pixel.
    parameters : NadParameters

    Returns
    -------
    ndarray
        (nz, ny, nx) float32. In float64 on the numpy device, but for the result, and in float32 elsewhere.

    Raises
    ------
    UsageError
        If the noise area is outside of the planes.
    """
    if planes.ndim != 3 or planes.size == 0:
        raise ValueError(f"NAD takes planes (nz, ny, nx) with at least one pixel, not {planes.shape}")
    if not device.runs_kernels:
        return np.stack([nad_plane(plane, parameters) for plane in planes]).astype(np.float32)
    steps = _Steps(planes, device, parameters)
    for _ in range(parameters.iterations):
        steps.step()
    return np.array(device.numpy(steps.u))


def bytes_per_plane(device: Device, plane: tuple[int, int]) -> int:
    """Memory that :func:`nad_planes` takes for each plane, beside the input."""
    return (4 * 11 if device.runs_kernels else 8 * REFERENCE_VALUES) * plane[0] * plane[1]


class _Steps:
    """Planes on a device, and one step at a time."""

    def __init__(self, planes: npt.NDArray[Any], device: Device, parameters: NadParameters) -> None:
        nz, ny, nx = planes.shape
        self.device, self.parameters = device, parameters
        self.u = device.array(np.ascontiguousarray(planes, dtype=np.float32))
        self.moved = device.empty((nz, ny, nx), np.float32)
        self.fields = device.empty((4, nz, ny, nx), np.float32)
        self.rows = device.empty((4, nz, ny, nx), np.float32)
        self.statistics = device.empty((nz, 5), np.float32)
        rows, columns = parameters.noise_box(ny, nx)
        self.box = device.array(np.array([rows.start, rows.stop, columns.start, columns.stop], np.int32))
        self.fine = device.array(gaussian(parameters.sigma).astype(np.float32))
        self.coarse = device.array(gaussian(parameters.structure_sigma).astype(np.float32))
        tx, ty = self.block = GPU_BLOCK if device.wants_gpu_plan else CPU_BLOCK
        self.tiles = (-(-nx // tx), -(-ny // ty))

    def step(self) -> None:
        """Make ``u`` the planes one time step later."""
        p, nz = self.parameters, len(self.u)
        threads = STATISTICS_THREADS[self.device.wants_gpu_plan]
        # The last field is the smoothed plane; rows serve as scratch before they are filled.
        self._launch("nad_smooth_x", nz, self.fine, image=self.u, result=self.rows[0])
        self._launch("nad_smooth_y", nz, self.fine, image=self.rows[0], result=self.fields[3])
        self._launch("nad_products", nz, fields=self.fields)
        self._launch("nad_smooth_x", 4 * nz, self.coarse, image=self.fields, result=self.rows)
        self._launch(
            "nad_statistics",
            0,
            self.coarse,
            grid=(nz,),
            block=(threads,),
            fields=self.fields,
            rows=self.rows,
            box=self.box,
            statistics=self.statistics,
            contrast=AUTOMATIC if p.contrast is None else p.contrast,
            root_c=AUTOMATIC if p.structure is None else math.sqrt(p.structure),
            balance=p.balance,
        )
        self._launch(
            "nad_tensor",
            nz,
            self.coarse,
            fields=self.fields,
            rows=self.rows,
            statistics=self.statistics,
            second_eigenvector=p.second_eigenvector,
            grey_level=p.grey_level,
        )
        self._launch("nad_move", nz, u=self.u, fields=self.fields, moved=self.moved, time_step=p.time_step)
        self.u, self.moved = self.moved, self.u

    def _launch(
        self,
        kernel: str,
        n_planes: int,
        weights: Array | None = None,
        *,
        grid: tuple[int, ...] | None = None,
        block: tuple[int, ...] | None = None,
        **args: Any,
    ) -> None:
        ny, nx = (int(n) for n in self.u.shape[1:])
        tx, ty = self.block
        if weights is not None:
            args["weights"] = weights
        self.device.launch(
            "nad.cu",
            kernel,
            grid=grid or (*self.tiles, n_planes),
            block=block or self.block,
            args={**args, "ny": ny, "nx": nx},
            defines={
                "TX": tx,
                "TY": ty,
                # Kernels that smooth nothing take any: with this one they need not be compiled for themselves.
                "RADIUS": len(self.coarse if weights is None else weights) // 2,
                "THREADS": STATISTICS_THREADS[self.device.wants_gpu_plan],
            },
        )
