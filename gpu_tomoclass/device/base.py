"""Interface of every device: arrays, and launches of kernels that are checked before they run."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.cores import worker_count
from gpu_tomoclass.device.launch import Dim3, checked_arguments, checked_defines, checked_shape
from gpu_tomoclass.device.launch_record import LaunchRecord
from gpu_tomoclass.device.signature import KernelSignature
from gpu_tomoclass.errors import ResourceError

Array = Any  # numpy.ndarray on the CPU, cupy.ndarray on a GPU
Run = Callable[[Dim3, Dim3, list[Any]], None]


@dataclass(frozen=True)
class BoundKernel:
    """A compiled kernel of one device; calling it checks the launch and runs it."""

    signature: KernelSignature
    address_of: Callable[[Any], int]
    run: Run

    def __call__(self, *, grid: Sequence[int], block: Sequence[int], args: Mapping[str, Any]) -> None:
        """Launch.

        Parameters
        ----------
        grid, block : sequence of int
            Blocks, and threads per block, along x, y, z; 1 to 3 numbers.
        args : mapping of str to array or number
            By parameter name.

        Raises
        ------
        TypeError, ValueError
            Naming kernel and argument: a launch that the kernel was not written for is an error in this package.
        """
        shape = checked_shape(self.signature, grid=grid, block=block)
        self.run(*shape, checked_arguments(self.signature, args, address_of=self.address_of))


class Stopwatch:
    """Seconds that parts of one thread's work on a device take, one after the other.

    On a CPU by the clock of the host. A device that computes later than it is asked marks the times itself.
    """

    def __init__(self) -> None:
        self._marks: list[Any] = []  # kept from slab to slab
        self._names: list[str] = []

    def start(self) -> None:
        """The first part begins."""
        self._names.clear()
        self._mark(0)

    def lap(self, name: str) -> None:
        """End a part: the work asked for since the last lap, or the start."""
        self._names.append(name)
        self._mark(len(self._names))

    def add_to(self, seconds: MutableMapping[str, float]) -> None:
        """Add the parts to what the mapping holds; not before :meth:`Device.synchronize`."""
        for i, name in enumerate(self._names):
            seconds[name] = seconds.get(name, 0.0) + self._between(self._marks[i], self._marks[i + 1])

    def _mark(self, i: int) -> None:
        if i == len(self._marks):
            self._marks.append(self._new_mark())
        self._set(i)

    def _new_mark(self) -> Any:
        return 0.0

    def _set(self, i: int) -> None:
        self._marks[i] = time.perf_counter()

    def _between(self, began: Any, ended: Any) -> float:
        return float(ended - began)


class Device(ABC):
    """Where features and forests are computed.

    Attributes
    ----------
    name : str
        ``"cuda"``, ``"native"`` or ``"numpy"``.
    description : str
        One line for reports: the GPU, or the compiler and the number of threads.
    notes : tuple of str
        What a user should know about the choice, such as why a faster device does not work.
    runs_kernels : bool
        False if there is nothing but the reference implementation.
    wants_gpu_plan : bool
        Whether kernels should be launched in the shape meant for a GPU (many threads per block, one or few results
        each) or in the one meant for a CPU (see ``docs/devices.md``).
    has_own_memory : bool
        Whether arrays must be moved to and from it, and many planes at once keep it busy.
    threads : int
        CPU threads that run the blocks of a launch; 1 where they are no matter of ours.
    n_replaced : int
        Arrays that a :class:`~gpu_tomoclass.device.workspace.Workspace` of this device has replaced: a record of
        launches from before may write to arrays that nobody reads any more.
    shared_bytes : int
        Shared memory that a block may be given at a launch (macro ``SHARED_BYTES``); what it declares itself is at most
        48 KB.
    cluster_blocks : int
        Blocks that may form a cluster (macro ``CLUSTER``), each with ``shared_bytes``; 0 where there are no clusters.
    """

    name: str
    description: str
    notes: tuple[str, ...] = ()
    runs_kernels: bool = True
    computes: bool = True
    wants_gpu_plan: bool = True
    has_own_memory: bool = False
    threads: int = 1
    n_replaced: int = 0
    shared_bytes: int = 48 * 1024
    cluster_blocks: int = 0

    def __init__(self) -> None:
        self._kernels: dict[tuple[str, str, tuple[tuple[str, str], ...]], BoundKernel] = {}

    def __deepcopy__(self, memo: object) -> Device:
        """The device itself: there is one, however often settings that name it are copied."""
        return self

    @abstractmethod
    def array(self, values: npt.NDArray[Any]) -> Array:
        """A copy on the device, C-contiguous, of the same dtype."""

    @abstractmethod
    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        """An array on the device with undefined values."""

    @abstractmethod
    def zeros(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        """An array of zeros on the device."""

    @abstractmethod
    def upload(self, values: npt.NDArray[Any], target: Array) -> None:
        """Copy host values into a contiguous array of the device of the same shape and dtype."""

    @abstractmethod
    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Host memory, with undefined values, that a GPU reads and writes while the host does something else.

        It must live until :meth:`synchronize` returns after the last copy from or to it.
        """

    @abstractmethod
    def start_upload(self, values: npt.NDArray[Any], target: Array) -> None:
        """:meth:`upload` from :meth:`pinned` memory, which must not change before :meth:`synchronize` returns."""

    @abstractmethod
    def start_download(self, array: Array, target: npt.NDArray[Any]) -> None:
        """Copy to :meth:`pinned` memory of the same shape and dtype; it is there when :meth:`synchronize` returns."""

    @abstractmethod
    def copy(self, values: Array, target: Array) -> None:
        """Copy from one array of the device to another of the same shape and dtype."""

    @abstractmethod
    def numpy(self, array: Array) -> npt.NDArray[Any]:
        """The array in host memory; on the CPU the array itself. Waits for what computes it."""

    def holds(self, values: object) -> bool:
        """Tell whether this is an array in the device's own memory."""
        return False

    def scaled(
        self,
        values: Array,
        *,
        gain: float,
        offset: float,
        clip: tuple[float, float] | None,
        points: Sequence[tuple[float, float]] = (),
    ) -> Array:
        """``values * gain + offset`` in float64, clipped, mapped, as a new C-contiguous float32 array on the device.

        Parameters
        ----------
        values : array on the device
            Of any real type and layout, made by whoever uses the device's library, on its current stream.
        gain, offset, clip
            With 1, 0 and None the values are converted as they are.
        points : sequence of (from, to)
            Rising; straight lines between them, as ``numpy.interp`` computes in every bit.
        """
        raise ResourceError(f"the {self.name} device has no arrays of its own", do="give NumPy arrays")

    def all_finite(self, values: Array) -> bool:
        """Tell whether no value of an array on the device is NaN or infinite."""
        return bool(np.isfinite(self.numpy(values)).all())

    def not_finite(self, values: Array) -> npt.NDArray[np.bool_] | None:
        """Where values of an array on the device are NaN or infinite, in host memory; None if none is.

        The array may have been made by whoever uses the device's library, on its current stream.
        """
        bad = ~np.isfinite(self.numpy(values))
        return bad if bad.any() else None

    def moved(self, values: Array, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> Array:
        """A copy on the device in which values at some flat positions, ``targets``, are those at ``sources``."""
        raise ResourceError(f"the {self.name} device has no arrays of its own", do="give NumPy arrays")

    def put(self, values: Array, where: npt.NDArray[np.bool_], value: int) -> None:
        """Write one value to places of an array on the device; ``where`` is in host memory."""
        raise ResourceError(f"the {self.name} device has no arrays of its own", do="give NumPy arrays")

    def percentiles(self, arrays: Sequence[Array], percents: Sequence[float]) -> list[float] | None:
        """``numpy.percentile`` of all finite values, in float64 and in every bit; None if there is no such value."""
        raise ResourceError(f"the {self.name} device has no arrays of its own", do="give NumPy arrays")

    def side_by_side(self) -> tuple[Device, int]:
        """The device for a thread that computes one of several planes or slabs, and how many threads keep it busy."""
        return self, 1

    def for_thread(self) -> Device:
        """View of the device with a stream of its own: ordered within the thread, concurrent with others.

        Arrays of either are arrays of both; what was launched here is there for the thread after :meth:`synchronize`.
        """
        return self

    def with_threads(self, threads: int) -> Device:
        """The same device with another number of CPU threads, where it has such."""
        return self

    def figures(self, name: str, measure: Callable[[], dict[str, float]], *, keys: Sequence[str]) -> dict[str, float]:
        """Figures measured here under a name, a positive number for each key, now or by an earlier process."""
        return measure()

    @property
    def found_out(self) -> tuple[str, ...]:
        """Notes that a user should see, of what became known while the device worked."""
        return ()

    @contextmanager
    def recording(self) -> Iterator[LaunchRecord | None]:
        """Record of what this thread asks of the device meanwhile; None where repeating it would save nothing."""
        yield None

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for what was asked of this device (not of those :meth:`for_thread`)."""

    def stopwatch(self) -> Stopwatch:
        """By this device's own clock where it has one."""
        return Stopwatch()

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds that the device needs for what ``work`` asks of it, by its own clock where it has one."""
        self.synchronize()
        began = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - began

    @abstractmethod
    def free_memory(self) -> int | None:
        """Bytes that arrays may still take; None if the device cannot tell."""

    def release_memory(self) -> None:  # noqa: B027  (a CPU's arrays go back to the system by themselves)
        """Give memory that no array needs any more back to the system."""

    @abstractmethod
    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> BoundKernel: ...

    def kernel(self, file: str, name: str, *, defines: Mapping[str, int | str] | None = None) -> BoundKernel:
        """A kernel, compiled when it is first asked for with these macros.

        Parameters
        ----------
        file : str
            The source, such as ``"forest.cu"``.
        name : str
        defines : mapping of str to int or str, optional
            Compile-time parameters.

        Raises
        ------
        ResourceError
            If the source does not compile here.
        """
        key = (file, name, checked_defines(defines))
        bound = self._kernels.get(key)
        if bound is None:  # two threads may both bind it; the outcome is the same
            bound = self._kernels[key] = self._bind(*key)
        return bound

    def launched_files(self) -> set[str]:
        """The sources of which a kernel has been asked for."""
        return {file for file, _, _ in self._kernels}

    def launch(
        self,
        file: str,
        kernel: str,
        *,
        grid: Sequence[int],
        block: Sequence[int],
        args: Mapping[str, Any],
        defines: Mapping[str, int | str] | None = None,
    ) -> None:
        """:meth:`kernel` and the call of it in one."""
        self.kernel(file, kernel, defines=defines)(grid=grid, block=block, args=args)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was not enough, on the host or on a GPU: a smaller slab may fit.

    CuPy's own is a ``MemoryError``; libraries below it raise a ``RuntimeError`` that quotes CUDA's name of the error.
    """
    marks = ("out_of_memory", "out of memory", "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(mark in str(error) for mark in marks)
    )


def check_same_kind(values: Array, target: Array) -> None:
    """A ValueError unless the values fit the target as they are: NumPy and CuPy would broadcast and cast silently."""
    if values.shape != target.shape or values.dtype != target.dtype:
        raise ValueError(f"{values.dtype} {values.shape} cannot be copied to {target.dtype} {target.shape}")


class HostDevice(Device):
    """A device whose arrays are NumPy's, in host memory: copies are assignments, and nothing is asynchronous."""

    def array(self, values: npt.NDArray[Any]) -> Array:
        copy = self.empty(values.shape, values.dtype)
        copy[...] = values
        return copy

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def upload(self, values: npt.NDArray[Any], target: Array) -> None:
        check_same_kind(values, target)
        target[...] = values

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.empty(shape, dtype)

    def start_upload(self, values: npt.NDArray[Any], target: Array) -> None:
        self.upload(values, target)

    def start_download(self, array: Array, target: npt.NDArray[Any]) -> None:
        self.upload(array, target)

    def copy(self, values: Array, target: Array) -> None:
        self.upload(values, target)

    def numpy(self, array: Array) -> npt.NDArray[Any]:
        return array

    def synchronize(self) -> None:
        pass

    def free_memory(self) -> int | None:
        return None


class NumpyDevice(HostDevice):
    """The reference implementation; it has arrays and no kernels."""

    name = "numpy"
    runs_kernels = False

    def __init__(self, *, threads: int | None = None, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.threads = worker_count(threads)
        self.description = f"NumPy {np.__version__}, {self.threads} thread{'s' if self.threads > 1 else ''}"
        self.notes = notes

    def side_by_side(self) -> tuple[Device, int]:
        return self, self.threads

    def with_threads(self, threads: int) -> Device:
        return NumpyDevice(threads=threads, notes=self.notes)

    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> BoundKernel:
        raise ResourceError(f"the numpy device runs no kernels ({file}: {name})", do="choose the cuda or native device")
