"""NAD of a volume on disk into another one, of any size.

In three dimensions every step needs the step before of the whole volume. Where memory holds it, it stays there (on the
device); where not, it lies in two files beside the output and passes through memory slab by slab. The result is the
same in every bit.
"""

from __future__ import annotations

import contextlib
import errno
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpu_tomoclass import __version__
from gpu_tomoclass.baseline.nad_kernels import bytes_per_plane as bytes_per_single_plane
from gpu_tomoclass.baseline.nad_kernels import nad_planes
from gpu_tomoclass.baseline.nad_reference import NadParameters
from gpu_tomoclass.baseline.nad_volume_kernels import VolumeSteps, bytes_per_plane, halo, state_dtype
from gpu_tomoclass.device import Device, available_bytes, choose_device, resident_bytes
from gpu_tomoclass.errors import ResourceError, UsageError
from gpu_tomoclass.features import IntensityScale, prepare_slab
from gpu_tomoclass.outputs import check_space, discard, size_text, temporary_name, writing
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume, VolumeWriter, check_volume_target, create_volume

DTYPES = ("float32", "input")
NAN_POLICIES = ("error", "fill")
MEMORY_SHARE = 0.8  # used of what is free; fragments and other programs need the rest
WORK_BYTES = 32_000_000  # beside the arrays of a limited process: planes being read and written, the noise area
MOST_SINGLE_PLANES = 32  # at once; beyond, launches cost nothing any more beside the work


@dataclass(frozen=True)
class Denoised:
    """Report of a denoising.

    Attributes
    ----------
    seconds : float
    slab_planes : int
        Planes at once, without those around them.
    in_files : bool
        Whether memory was not enough for the volume, so that it lay in files between steps.
    notes : tuple of str
        Sentences for the user.
    """

    seconds: float
    slab_planes: int
    in_files: bool
    notes: tuple[str, ...] = ()


def write_nad(
    volume: Volume,
    output: str | PathLike[str],
    *,
    parameters: NadParameters,
    dtype: str = "float32",
    nan: str = "error",
    device: Device | str = "auto",
    memory_limit: int | None = None,
    slab_planes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **format_options: Any,
) -> Denoised:
    """Denoise a volume: each plane for itself, or in three dimensions.

    Parameters
    ----------
    volume : Volume
        Integers or floats.
    output : str or path
        The new volume, with voxel size and metadata of the old one.
    parameters : NadParameters
        Their ``dimensions`` decide.
    dtype : {"float32", "input"}
        Of the output; ``"input"`` is that of the volume, integers rounded and limited to its range.
    nan : {"error", "fill"}
        Non-finite voxels: refuse; or give them the value of the nearest finite one in their plane.
    device : str or Device
        ``"auto"`` is the first that works.
    memory_limit : int, optional
        Bytes of this process, or of its arrays on a GPU; default most of what is free.
    slab_planes : int, optional
        Planes at once; default as many as the memory allows. In three dimensions a given number also keeps the volume
        in files between steps. The result does not depend on it.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all), where each step counts every plane.
    **format_options
        Of :func:`gpu_tomoclass.volumes.opening.create_volume`.

    Returns
    -------
    Denoised

    Raises
    ------
    UsageError
        If an option is unknown, the noise area is outside, or the output is the input.
    DataError
        If voxels are not finite, a plane cannot be read, or the output exists.
    ResourceError
        If the memory does not hold one plane with those around it, or the disk is full.
    """
    for name, value, known in (("dtype", dtype, DTYPES), ("policy for NaN", nan, NAN_POLICIES)):
        if value not in known:
            raise UsageError(f"{name} {value!r} is unknown", do=f"choose one of {', '.join(known)}")
    if slab_planes is not None and slab_planes < 1:
        raise UsageError(f"slabs of {slab_planes} planes", do="use 1 or more")
    kind = volume.dtype if dtype == "input" else np.dtype(np.float32)
    target: dict[str, Any] = {"inputs": volume.inputs(), "overwrite": overwrite, **format_options}
    check_volume_target(output, dtype=kind, shape=volume.shape, **target)
    parameters.noise_box(*volume.shape[-parameters.dimensions :])
    began = time.perf_counter()
    device = choose_device(device)
    budget = _budget(device, memory_limit)
    writer = create_volume(
        output,
        shape=volume.shape,
        dtype=kind,
        voxel_size=volume.voxel_size,
        metadata={**volume.metadata, "nad": {"made_by": f"gpu_tomoclass {__version__}", **asdict(parameters)}},
        **target,
    )
    flow = _Flow(volume, writer, nan=nan, dtype=kind)
    with writer:
        if parameters.dimensions == 2:
            slab, in_files = slab_planes or _single_planes(volume, device, budget), False
            flow.report_to(progress, passes=0)
            _planes(flow, device, parameters, slab)
        else:
            slab, in_files = _plan(volume, device, parameters, budget, slab_planes)
            flow.report_to(progress, passes=parameters.iterations)
            if in_files:
                _in_files(flow, output, device, parameters, slab)
            else:
                _on_device(flow, device, parameters, slab)
        volume.check_unchanged()
    return Denoised(time.perf_counter() - began, slab, in_files, tuple(flow.notes))


def _budget(device: Device, memory_limit: int | None) -> float:
    """Bytes for arrays on the device."""
    free = device.free_memory() if device.has_own_memory else available_bytes()
    share = math.inf if free is None else MEMORY_SHARE * free
    if memory_limit is None:
        return share
    taken = 0 if device.has_own_memory else (resident_bytes() or 0) + WORK_BYTES
    return min(share, memory_limit - taken)


def _single_planes(volume: Volume, device: Device, budget: float) -> int:
    per_plane = bytes_per_single_plane(device, volume.shape[1:])
    if budget < per_plane:
        raise _too_little(per_plane, budget, "a plane")
    # On a CPU, more than a few threads' worth of planes at once gain nothing.
    return int(min(MOST_SINGLE_PLANES if device.has_own_memory else 1, budget // per_plane))


def _plan(
    volume: Volume, device: Device, parameters: NadParameters, budget: float, slab_planes: int | None
) -> tuple[int, bool]:
    """Planes of a slab, and whether the volume lies in files between steps."""
    if slab_planes is not None:
        return min(slab_planes, volume.shape[0]), True
    nz, plane = volume.shape[0], volume.shape[1:]
    around = 2 * halo(parameters)
    state = 2 * state_dtype(device).itemsize * math.prod(volume.shape)
    per_plane = bytes_per_plane(device, plane, on_device=True)
    if state + nz * per_plane <= budget:
        return nz, False
    slab = int((budget - state) // per_plane) - around
    if slab >= around:  # what is around a slab is computed again and again: at most as much as the slab itself
        return slab, False
    per_plane = bytes_per_plane(device, plane, on_device=False)
    slab = min(nz, int(budget // per_plane) - around) if budget < math.inf else nz
    if slab < 1:
        raise _too_little((around + 1) * per_plane, budget, f"a plane and {around} around it")
    return slab, True


def _too_little(needed: int, budget: float, what: str) -> ResourceError:
    return ResourceError(
        f"NAD of {what} needs {size_text(needed)} of memory, and {size_text(max(0, int(budget)))} may be used",
        do="raise --memory-limit, close other programs or use a machine with more memory",
    )


def _planes(flow: _Flow, device: Device, parameters: NadParameters, slab_planes: int) -> None:
    """Each plane for itself."""
    waiting: list[npt.NDArray[np.float32]] = []
    for z, plane in flow.read():
        waiting.append(plane)
        if len(waiting) == slab_planes or z == flow.volume.shape[0] - 1:
            denoised = nad_planes(np.stack(waiting), device=device, parameters=parameters)
            for i, result in enumerate(denoised):
                flow.write(z - len(waiting) + 1 + i, result)
            waiting.clear()


def _on_device(flow: _Flow, device: Device, parameters: NadParameters, slab_planes: int) -> None:
    """The volume stays on the device."""
    shape, kind = flow.volume.shape, state_dtype(device)
    u, moved = (device.empty(shape, kind) for _ in range(2))
    for z, plane in flow.read():
        device.upload(plane.astype(kind, copy=False), u[z])
    steps = VolumeSteps(device, parameters, shape=shape, slab_planes=slab_planes, on_device=True)
    result = steps.run(u, moved, advance=flow.advance)
    for z in range(shape[0]):
        flow.write(z, device.numpy(result[z]))


def _in_files(
    flow: _Flow, output: str | PathLike[str], device: Device, parameters: NadParameters, slab_planes: int
) -> None:
    """The volume lies in two files beside the output between steps."""
    shape, kind = flow.volume.shape, state_dtype(device)
    needed = 2 * kind.itemsize * math.prod(shape)
    check_space(output, needed)
    folder = temporary_name(output)
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(output, needed_bytes=needed))
        folder.mkdir()
        stack.callback(discard, folder)
        u, moved = (stack.enter_context(_PlaneFile(folder / name, shape, kind)) for name in "ab")
        for z, plane in flow.read():
            u[z : z + 1] = plane[np.newaxis]
        steps = VolumeSteps(device, parameters, shape=shape, slab_planes=slab_planes, on_device=False)
        result = steps.run(u, moved, advance=flow.advance)
        for z in range(shape[0]):
            flow.write(z, result[z : z + 1][0])


class _PlaneFile:
    """A volume in a file, read and written by runs of planes as an array is.

    No memory map: a full disk would end the process instead of raising an error, and mapped pages count as its memory.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._file = path.open("w+b", buffering=0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: slice | tuple[slice, ...]) -> npt.NDArray[Any]:
        planes, *rest = where if isinstance(where, tuple) else (where,)
        start, stop, _ = planes.indices(self.shape[0])
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self._seek(start)
        view = found.data.cast("B")
        while view:
            n = self._file.readinto(view)
            if not n:
                raise OSError(errno.EIO, "a file of the volume between two steps ends too early", self._file.name)
            view = view[n:]
        return found[(slice(None), *rest)]

    def __setitem__(self, where: slice, planes: npt.NDArray[Any]) -> None:
        self._seek(where.indices(self.shape[0])[0])
        view = np.ascontiguousarray(planes, dtype=self.dtype).data.cast("B")
        while view:
            view = view[self._file.write(view) :]

    def _seek(self, plane: int) -> None:
        self._file.seek(plane * self.shape[1] * self.shape[2] * self.dtype.itemsize)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Flow:
    """The planes of the volume in, those of the result out, and the count of both."""

    def __init__(self, volume: Volume, writer: VolumeWriter, *, nan: str, dtype: np.dtype[Any]) -> None:
        self.volume, self.notes = volume, list[str]()
        self._writer, self._nan, self._dtype = writer, nan, dtype
        self._progress: Progress | None = None
        self._done, self._total = 0, 0

    def report_to(self, progress: Progress | None, *, passes: int) -> None:
        """Count the planes that are read and written, and moved in ``passes`` steps between."""
        self._progress, self._total = progress, (2 + passes) * self.volume.shape[0]

    def read(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """(z, plane as float32), finite."""
        scale = IntensityScale()
        for z in range(self.volume.shape[0]):
            (prepared,) = prepare_slab(self.volume, z, z + 1, scale=scale, nan=self._nan).wanted
            if prepared.filled is not None:
                n = int(prepared.filled.sum())
                self.notes.append(f"plane {z}: {n} non-finite voxels took the value of their nearest neighbour")
            yield z, prepared.image
            self.advance(1)

    def write(self, z: int, plane: npt.NDArray[Any]) -> None:
        """A plane of the result, which is float32 on every device."""
        self._writer.write_plane(z, as_dtype(plane.astype(np.float32, copy=False), self._dtype))
        self.advance(1)

    def advance(self, planes: int) -> None:
        """So many planes more are done."""
        self._done += planes
        if self._progress is not None:
            self._progress(self._done, self._total)


def as_dtype(plane: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Rounded to the nearest and limited to the range of integers; other types are cast."""
    if dtype.kind not in "iu":
        return plane.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    high = float(limits.max)
    if high > limits.max:  # as of 64 bits, which no float is
        high = float(np.nextafter(high, 0))
    return np.rint(plane.astype(np.float64)).clip(float(limits.min), high).astype(dtype)
