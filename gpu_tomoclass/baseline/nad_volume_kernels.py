"""Nonlinear anisotropic diffusion of volumes on any device; on those that run kernels by ``kernels/nad_volume.cu``.

A step goes over the volume slab by slab; a slab is computed with so many planes around it that its own do not depend
on where it was cut out. Before a voxel can move, the mean gradient of the whole volume must be known: it is summed up
right behind the slabs of the step before, while their planes are at hand.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.baseline.nad_reference import NadParameters, gaussian, smoothed
from gpu_tomoclass.baseline.nad_volume_reference import (
    Statistics,
    diffused,
    diffusion_tensor,
    noise_statistics,
    plane_sums,
    steepness,
    step_statistics,
    structure_tensor,
)
from gpu_tomoclass.device import Array, Device

GPU_BLOCK = (32, 8)
CPU_WIDTHS = (128, 112, 96, 80, 64)  # lengths of runs of voxels that become loops of vectors
GPU_RUN, CPU_RUN = 4, 1  # planes per thread where sums along z share what they read
SUM_THREADS = {True: 256, False: 64}  # on a GPU, on a CPU
SUM_PORTION = 16384  # pixels
N_FIELDS = 7  # six products of the gradient and the grey value
REFERENCE_VALUES = 40  # float64 per voxel of a slab that the reference holds at most, by tracemalloc


class NadSlab(NamedTuple):
    """Planes ``start`` to ``stop`` - 1 of a volume, and ``first`` to ``last`` - 1 around them, which they depend on."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def own(self) -> slice:
        """The slab's own planes among all that it was given."""
        return slice(self.start - self.first, self.stop - self.first)


def halo(parameters: NadParameters) -> int:
    """Planes beyond a slab that it depends on: two Gaussians, the gradient and the fluxes."""
    return len(gaussian(parameters.sigma)) // 2 + len(gaussian(parameters.structure_sigma)) // 2 + 2


def slabs(nz: int, *, planes: int, around: int) -> list[NadSlab]:
    """A volume of nz planes in slabs of so many, the last one smaller."""
    return [
        NadSlab(a, min(a + planes, nz), max(a - around, 0), min(a + planes + around, nz)) for a in range(0, nz, planes)
    ]


def bytes_per_plane(device: Device, plane: tuple[int, int], *, on_device: bool) -> int:
    """Memory for a plane of a slab, of those around it, too."""
    pixels = plane[0] * plane[1]
    if not device.runs_kernels:
        return 8 * REFERENCE_VALUES * pixels
    return 4 * (2 * N_FIELDS + 1 + (0 if on_device else 2)) * pixels


def state_dtype(device: Device) -> np.dtype[Any]:
    """Of the volume between two steps."""
    return np.dtype(np.float32 if device.runs_kernels else np.float64)


def nad_volume(volume: npt.NDArray[Any], *, device: Device, parameters: NadParameters) -> npt.NDArray[np.float32]:
    """Denoise a volume in three dimensions: see :mod:`gpu_tomoclass.baseline.nad_volume_reference`.

    Parameters
    ----------
    volume : ndarray
        (nz, ny, nx), finite. Squares of squared gradients are float32 on devices that run kernels: grey levels should
        differ by more than 1e-8 and less than 1e9.
    device : Device
        Holds all at once, with 17 float32 values per voxel (see :func:`gpu_tomoclass.baseline.denoise.write_nad` for
        volumes of any size).
    parameters : NadParameters
        Of 3 dimensions.

    Returns
    -------
    ndarray
        (nz, ny, nx) float32. In float64 on the numpy device, but for the result, and in float32 elsewhere.

    Raises
    ------
    UsageError
        If the noise area is outside of the volume.
    """
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(f"NAD takes a volume (nz, ny, nx) with at least one voxel, not {volume.shape}")
    if parameters.dimensions != 3:
        raise ValueError(f"NAD of a volume takes parameters of 3 dimensions, not {parameters.dimensions}")
    u = device.array(np.ascontiguousarray(volume, dtype=state_dtype(device)))
    moved = device.empty(volume.shape, state_dtype(device))
    steps = VolumeSteps(device, parameters, shape=u.shape, slab_planes=len(volume), on_device=True)
    return np.array(device.numpy(steps.run(u, moved)), dtype=np.float32)


class VolumeSteps:
    """Steps of a volume that lies on the device or, as NumPy arrays, elsewhere.

    Parameters
    ----------
    device : Device
    parameters : NadParameters
        Of 3 dimensions.
    shape : tuple of int
        (nz, ny, nx).
    slab_planes : int
        Planes to move at once; no result depends on it.
    on_device : bool
        Whether the volume is an array of the device.
    """

    def __init__(
        self,
        device: Device,
        parameters: NadParameters,
        *,
        shape: tuple[int, int, int],
        slab_planes: int,
        on_device: bool,
    ) -> None:
        self.device, self.parameters = device, parameters
        self.slabs = slabs(shape[0], planes=slab_planes, around=halo(parameters))
        self._reach = len(gaussian(parameters.sigma)) // 2 + 1  # planes that gradients look at
        most = max(*(slab.last - slab.first for slab in self.slabs), min(shape[0], slab_planes + 2 * self._reach))
        kind = _KernelFields if device.runs_kernels else _ReferenceFields
        self._fields = kind(device, parameters, (most, *shape[1:]))
        self._on_device = on_device
        if not on_device and device.has_own_memory:
            self._around = device.empty((most, *shape[1:]), np.float32)
        if not on_device:
            self._result = device.empty((slab_planes, *shape[1:]), state_dtype(device))
        self._box = parameters.noise_box(*shape)
        if parameters.noise_area is not None:
            margin = halo(parameters) - 1
            self._crop = tuple(slice(max(0, b.start - margin), b.stop + margin) for b in self._box)
            corner = [slice(b.start - c.start, b.stop - c.start) for b, c in zip(self._box, self._crop, strict=True)]
            self._box_in_crop = tuple(corner)
            size = tuple(min(c.stop, n) - c.start for c, n in zip(self._crop, shape, strict=True))
            self._noise_fields = kind(device, parameters, size)

    def run(self, u: Array, moved: Array, *, advance: Callable[[int], None] = lambda planes: None) -> Array:
        """All steps.

        Parameters
        ----------
        u, moved : array
            (nz, ny, nx) of the state's dtype: on the device, or NumPy arrays (of files). The volume is in ``u``; both
            are overwritten.
        advance : callable
            Given the number of planes moved after each slab.

        Returns
        -------
        array
            The one of the two that has the result.
        """
        is_whole = len(self.slabs) == 1
        sums: list[float] = []  # sum of the gradients, for each plane of u
        if not is_whole:
            for slab in self.slabs:
                self._add_sums(sums, u, ready=slab.stop)
        for step in range(1, self.parameters.iterations + 1):
            if is_whole:
                self._load(u, self.slabs[0], products=True)
                sums = self._fields.steepness_sums(self.slabs[0].own) if self.parameters.contrast is None else []
            statistics = step_statistics(
                self.parameters, mean_steepness=math.fsum(sums) / math.prod(u.shape), noise=self._noise(u)
            )
            sums = []
            for slab in self.slabs:
                if not is_whole:
                    self._load(u, slab, products=True)
                n = slab.stop - slab.start
                if self._on_device:
                    self._fields.move(slab.own, statistics, moved[slab.start : slab.stop])
                else:
                    self._fields.move(slab.own, statistics, self._result[:n])
                    moved[slab.start : slab.stop] = self.device.numpy(self._result[:n])
                if not is_whole and step < self.parameters.iterations:
                    self._add_sums(sums, moved, ready=slab.stop)
                advance(n)
            u, moved = moved, u
        return u

    def _add_sums(self, sums: list[float], u: Array, *, ready: int) -> None:
        """Those of the planes after the last one that has a sum; u has its values in planes up to ``ready`` - 1."""
        start, nz = len(sums), u.shape[0]
        stop = ready if ready == nz else ready - self._reach
        if self.parameters.contrast is None and stop > start:
            slab = NadSlab(start, stop, max(start - self._reach, 0), min(stop + self._reach, nz))
            self._load(u, slab, products=False)
            sums += self._fields.steepness_sums(slab.own)

    def _load(self, u: Array, slab: NadSlab, *, products: bool) -> None:
        """The slab and what is around it on the device; fields computed."""
        self._fields.planes = None  # not in memory beside the next ones
        planes = u[slab.first : slab.last]
        if not self._on_device and self.device.has_own_memory:
            around = self._around[: len(planes)]
            self.device.upload(planes, around)
            planes = around
        self._fields.load(planes, products=products)

    def _noise(self, u: Array) -> tuple[float, float, float]:
        if self.parameters.noise_area is None:
            return 0.0, 0.0, 0.0
        around = np.ascontiguousarray(self.device.numpy(u[self._crop]) if self._on_device else u[self._crop])
        structure, grey = self._noise_fields.structure(around)
        return noise_statistics(structure[(slice(None), *self._box_in_crop)], grey[self._box_in_crop], self.parameters)


class _Fields(ABC):
    """Fields that a step computes of the planes of a slab."""

    def __init__(self, device: Device, parameters: NadParameters, shape: tuple[int, ...]) -> None:
        self.device, self.parameters = device, parameters
        self.planes: Array = None

    @abstractmethod
    def load(self, planes: Array, *, products: bool) -> None:
        """Gradients of these planes; their products, too, where they will be moved."""

    @abstractmethod
    def steepness_sums(self, own: slice) -> list[float]:
        """Of |grad s|, over each plane."""

    @abstractmethod
    def move(self, own: slice, statistics: Statistics, moved: Array) -> None:
        """The loaded planes one time step later; ``moved`` has the slab's own ones alone."""

    @abstractmethod
    def structure(self, planes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Structure tensor (6, nz, ny, nx) and smoothed grey values of planes in host memory."""


class _ReferenceFields(_Fields):
    """By the reference."""

    def load(self, planes: Array, *, products: bool) -> None:
        self.planes = planes
        self._s = smoothed(planes, self.parameters.sigma)
        self._steep = steepness(self._s)

    def steepness_sums(self, own: slice) -> list[float]:
        return plane_sums(self._steep[own])

    def move(self, own: slice, statistics: Statistics, moved: Array) -> None:
        p = self.parameters
        structure, grey = structure_tensor(self._s, p), smoothed(self._s, p.structure_sigma)
        tensor = diffusion_tensor(structure, self._steep, grey, p, statistics)
        moved[...] = diffused(self.planes, tensor, time_step=p.time_step)[own]

    def structure(self, planes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        s = smoothed(planes, self.parameters.sigma)
        return structure_tensor(s, self.parameters), smoothed(s, self.parameters.structure_sigma)


class _KernelFields(_Fields):
    """By kernels, in arrays for slabs of up to as many planes as ``shape`` (nz, ny, nx) has."""

    def __init__(self, device: Device, parameters: NadParameters, shape: tuple[int, ...]) -> None:
        super().__init__(device, parameters, shape)
        most, self._ny, self._nx = shape
        n = math.prod(shape)
        self._first = device.empty((N_FIELDS * n,), np.float32)
        self._second = device.empty((N_FIELDS * n,), np.float32)
        self._steep = device.empty(shape, np.float32)
        self._portions = -(-(self._ny * self._nx) // SUM_PORTION)
        self._sums = device.empty((most, self._portions), np.float64)
        self._fine = device.array(gaussian(parameters.sigma).astype(np.float32))
        self._coarse = device.array(gaussian(parameters.structure_sigma).astype(np.float32))
        self._block = GPU_BLOCK if device.wants_gpu_plan else (best_width(self._nx), 1)
        self._nz = 0

    def load(self, planes: Array, *, products: bool) -> None:
        self.planes = planes
        nz = self._nz = len(planes)
        a, b = self._views()
        self._smooth_rows(planes, a[1], through=a[0], weights=self._fine)
        self._along_z("nad_volume_smooth_z", nz, weights=self._fine, image=a[1], result=b[6], nz=nz)
        kernel = "nad_volume_products" if products else "nad_volume_steepness"
        self._along_z(kernel, nz, fields=b, steep=self._steep)

    def steepness_sums(self, own: slice) -> list[float]:
        threads = SUM_THREADS[self.device.wants_gpu_plan]
        n = own.stop - own.start
        sums = self._sums[:n]
        self._launch(
            "nad_volume.cu",
            "nad_volume_sums",
            grid=(self._portions, n),
            block=(threads,),
            steep=self._steep[own],
            sums=sums,
            portion=SUM_PORTION,
        )
        return [math.fsum(portions) for portions in self.device.numpy(sums).tolist()]

    def move(self, own: slice, statistics: Statistics, moved: Array) -> None:
        p, of, nz = self.parameters, statistics, self._nz
        a, b = self._views()
        self._smooth_rows(b, b, through=a, weights=self._coarse)
        first, last = max(own.start - 1, 0), min(own.stop + 1, nz)
        run = GPU_RUN if self.device.wants_gpu_plan else CPU_RUN
        tensor = a[:6]
        self._along_z(
            "nad_volume_tensor",
            -(-(last - first) // run),
            weights=self._coarse,
            rows=b,
            steep=self._steep[:nz],
            d=tensor,
            contrast=1 / of.contrast**2 if of.contrast > 0 else 0.0,
            limit=1 / of.switch if of.switch > 0 else 0.0,
            root_c=of.root_c,
            mean=of.grey,
            width=1 / of.width,
            second_eigenvector=p.second_eigenvector,
            grey_level=p.grey_level,
            first=first,
            last=last,
            nz=nz,
        )
        n = own.stop - own.start
        self._along_z(
            "nad_volume_move", n, u=self.planes, d=tensor, moved=moved, time_step=p.time_step, first=own.start, nz=nz
        )

    def structure(self, planes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        self.load(self.device.array(planes), products=True)
        a, b = self._views()
        self._smooth_rows(b, b, through=a, weights=self._coarse)
        n = N_FIELDS * self._nz
        self._along_z("nad_volume_smooth_z", n, weights=self._coarse, image=b, result=a, nz=self._nz)
        found = self.device.numpy(a)
        return found[:6], found[6]

    def _views(self) -> Iterator[Array]:
        shape = N_FIELDS, self._nz, self._ny, self._nx
        return (array[: math.prod(shape)].reshape(shape) for array in (self._first, self._second))

    def _smooth_rows(self, image: Array, result: Array, *, through: Array, weights: Array) -> None:
        """Along x into ``through``, along y into ``result``, which may be ``image``."""
        tx, ty = self._block
        planes = math.prod(through.shape[:-2])
        grid = (-(-self._nx // tx), -(-self._ny // ty), planes)
        common = {"weights": weights, "grid": grid, "block": self._block}
        self._launch("nad.cu", "nad_smooth_x", image=image, result=through, **common)
        self._launch("nad.cu", "nad_smooth_y", image=through, result=result, **common)

    def _along_z(self, kernel: str, n: int, **args: Any) -> None:
        tx, ty = self._block
        grid = (n, -(-self._ny // ty), -(-self._nx // tx))
        self._launch("nad_volume.cu", kernel, grid=grid, block=self._block, **args)

    def _launch(
        self,
        file: str,
        kernel: str,
        *,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        weights: Array | None = None,
        **args: Any,
    ) -> None:
        gpu = self.device.wants_gpu_plan
        tx, ty = self._block
        # Kernels that smooth nothing take any: with this one they need not be compiled for themselves.
        defines = {"TX": tx, "TY": ty, "RADIUS": len(self._coarse if weights is None else weights) // 2}
        defines["THREADS"] = SUM_THREADS[gpu]
        if file == "nad_volume.cu":
            defines["RUN"] = GPU_RUN if gpu else CPU_RUN
        if weights is not None:
            args["weights"] = weights
        self.device.launch(
            file, kernel, grid=grid, block=block, args={**args, "ny": self._ny, "nx": self._nx}, defines=defines
        )


def best_width(nx: int) -> int:
    """Of the runs of voxels for a CPU, the one that leaves the fewest beyond the end of a row of nx."""
    return min(CPU_WIDTHS, key=lambda width: -(-nx // width) * width)
