"""The ``cuda`` device: the CUDA sources through CuPy and NVRTC."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.base import Array, BoundKernel, Device, Stopwatch, check_same_kind
from gpu_tomoclass.device.cupy_package import (
    OTHERWISE,
    check_driver,
    check_gpu,
    import_cupy,
    prepare_cupy_cache,
    reason_of,
)
from gpu_tomoclass.device.launch import Dim3
from gpu_tomoclass.device.launch_record import Graphs, LaunchRecord
from gpu_tomoclass.device.signature import CLUSTER, SHARED_BYTES, KernelSignature, parse_signatures
from gpu_tomoclass.device.sources import kernel_source
from gpu_tomoclass.errors import ResourceError

# --fmad=false: a * b + c is fused only where the source says fmaf, on every device alike. CuPy itself adds -ftz=true.
OPTIONS = ("-std=c++17", "--fmad=false")
TINY = 'extern "C" __global__ void answer(int* __restrict__ result) { *result = 42; }'
# Blocks of a cluster with all memory that one may have: whether a GPU, or its part, has room for it is seen by trying.
CLUSTER_TINY = """
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) cluster_answer(int* __restrict__ result) {
    extern __shared__ int memory[];
    memory[0] = 42;
    __cluster_barrier_arrive();
    __cluster_barrier_wait();
    *(int*)__cluster_map_shared_rank(memory + 1, CLUSTER - 1 - (int)blockIdx.x) = memory[0];
    __cluster_barrier_arrive();
    __cluster_barrier_wait();
    if (blockIdx.x == 0) *result = memory[1];
}
"""
CLUSTER_ARCHITECTURES = (9, 10)  # those with clusters and 227 KB of shared memory per block
CLUSTER_SIZES = (16, 8)
PORTABLE_CLUSTER = 8  # blocks; beyond, a GPU must be told that it is meant
NON_PORTABLE_CLUSTERS = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
STREAMS = 2  # while the host prepares and takes away the slab of one, the GPU computes that of the other
LATE_ERRORS = "with CUDA_LAUNCH_BLOCKING=1 errors surface at the launch that makes them, not at a later one"


class CudaStopwatch(Stopwatch):
    """CUDA events on one stream, recorded again slab by slab."""

    def __init__(self, cupy: Any, gpu: Any, stream: Any) -> None:
        super().__init__()
        self._cupy, self._gpu, self._stream = cupy, gpu, stream

    def _new_mark(self) -> Any:
        with self._gpu:
            return self._cupy.cuda.Event()

    def _set(self, i: int) -> None:
        with self._gpu:
            self._marks[i].record(self._stream)

    def _between(self, began: Any, ended: Any) -> float:
        return float(self._cupy.cuda.get_elapsed_time(began, ended)) / 1e3


class CudaDevice(Device):
    """One GPU.

    Everything is asked of one stream, the default stream at first; CuPy's notion of a current stream, which each thread
    has for itself, is set for each call and otherwise not relied upon.

    Parameters
    ----------
    gpu_id : int
        Number of the GPU among the visible ones.
    kernels : pathlib.Path, optional
        Folder of the sources, if not the package's.

    Raises
    ------
    ResourceError
        With a plain reason, if CuPy, the driver, NVRTC or a GPU is missing or does not work.
    UsageError
        If there is no GPU of this number.
    """

    name = "cuda"
    has_own_memory = True

    def __init__(self, gpu_id: int = 0, *, kernels: Path | None = None, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.notes = (*notes, *prepare_cupy_cache())
        self._cupy = import_cupy()
        self._folder = kernels
        self._modules: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Any, dict[str, KernelSignature]]] = {}
        self._compiling = threading.Lock()
        check_driver(self._cupy)
        check_gpu(self._cupy, gpu_id)
        self.gpu_id = gpu_id
        self._gpu = self._cupy.cuda.Device(gpu_id)
        self._stream = self._cupy.cuda.Stream.null
        self.graphs, self._captures = Graphs(), False  # the default stream cannot be captured
        self._asked = threading.local()  # the record that a thread makes now
        self.description = self._try_out()

    def _try_out(self) -> str:
        """Compile and run a tiny kernel; describe the GPU."""
        try:
            with self._gpu:
                result = self._cupy.zeros((1,), np.int32)
                kernel = self._cupy.RawModule(code=TINY, options=OPTIONS).get_function("answer")
                kernel((1,), (1,), (result,))
                answer = int(self._cupy.asnumpy(result)[0])
                properties = self._cupy.cuda.runtime.getDeviceProperties(self.gpu_id)
        # CuPy, its loader, NVRTC and the driver all raise kinds of their own; any of them means "does not work here".
        except Exception as error:
            raise ResourceError(
                f"no kernel can be run on GPU {self.gpu_id}: {reason_of(error)}", do=OTHERWISE
            ) from error
        if answer != 42:
            raise ResourceError(f"GPU {self.gpu_id} computes {answer} instead of 42", do=OTHERWISE)
        self.shared_bytes = int(properties.get("sharedMemPerBlockOptin", self.shared_bytes))
        if properties["major"] in CLUSTER_ARCHITECTURES:
            self.cluster_blocks = next((n for n in CLUSTER_SIZES if self._has_clusters(n)), 0)
        name = properties["name"]
        gpu = name.decode() if isinstance(name, bytes) else str(name)
        capability = f"{properties['major']}.{properties['minor']}"
        return f"{gpu} (GPU {self.gpu_id}, compute capability {capability}), CuPy {self._cupy.__version__}"

    def _has_clusters(self, n_blocks: int) -> bool:
        """Tell whether so many blocks with all their memory can run as a cluster."""
        defines = {CLUSTER: str(n_blocks), SHARED_BYTES: str(self.shared_bytes)}
        options = (*OPTIONS, *(f"-D{name}={value}" for name, value in defines.items()))
        try:
            with self._gpu:
                result = self._cupy.zeros((1,), np.int32)
                kernel = self._cupy.RawModule(code=CLUSTER_TINY, options=options).get_function("cluster_answer")
                self._launcher(kernel, defines)((n_blocks,), (32,), (result,))
                return int(self._cupy.asnumpy(result)[0]) == 42
        except Exception:  # of any kind: kernels without clusters do the same work
            return False

    def _launcher(self, function: Any, defines: Mapping[str, str]) -> Callable[..., None]:
        """The kernel, given the shared memory, and allowed the clusters, that its macros speak of."""
        if SHARED_BYTES not in defines:
            return function
        n_bytes = int(defines[SHARED_BYTES])
        function.max_dynamic_shared_size_bytes = n_bytes
        if int(defines.get(CLUSTER, 1)) > PORTABLE_CLUSTER:
            self._cupy.cuda.driver.funcSetAttribute(function.kernel.ptr, NON_PORTABLE_CLUSTERS, 1)
        return partial(function, shared_mem=n_bytes)

    def side_by_side(self) -> tuple[Device, int]:
        return self, STREAMS

    def for_thread(self) -> CudaDevice:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._kernels = {}  # bound to the other stream
        twin._captures, twin._asked, twin.n_replaced = True, threading.local(), 0
        with self._gpu:
            # One that does not wait for the default stream, nor that for it.
            twin._stream = self._cupy.cuda.Stream(non_blocking=True)
        return twin

    def array(self, values: npt.NDArray[Any]) -> Array:
        with self._gpu, self._stream:
            return self._cupy.array(values, order="C")

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        with self._gpu, self._stream:
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        with self._once():
            return self._cupy.zeros(shape, dtype)

    def upload(self, values: npt.NDArray[Any], target: Array) -> None:
        # CUDA copies ordinary host memory to memory of its own before it returns: the values may change then.
        self.start_upload(values, target)

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        n = int(np.prod(shape))
        with self._gpu:
            memory = self._cupy.cuda.alloc_pinned_memory(n * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, n).reshape(shape)

    def start_upload(self, values: npt.NDArray[Any], target: Array) -> None:
        check_same_kind(values, target)
        with self._once():
            target.set(np.ascontiguousarray(values))

    def start_download(self, array: Array, target: npt.NDArray[Any]) -> None:
        check_same_kind(array, target)
        with self._once():
            array.get(out=target, blocking=False)

    def copy(self, values: Array, target: Array) -> None:
        check_same_kind(values, target)
        copy = partial(self._cupy.copyto, target, values)
        with self._gpu, self._stream:
            copy()
        if (record := self._record) is not None:
            record.add("a copy", copy)

    @property
    def found_out(self) -> tuple[str, ...]:
        if (problem := self.graphs.problem) is None:
            return ()
        return (f"launches cannot be captured in CUDA graphs and are repeated one by one: {reason_of(problem)}",)

    @contextmanager
    def recording(self) -> Iterator[LaunchRecord | None]:
        if self._record is not None or _is_launch_blocking():
            yield None
            return
        self._asked.record = LaunchRecord(self._gpu, self._stream, graphs=self.graphs if self._captures else None)
        try:
            yield self._asked.record
        finally:
            self._asked.record = None

    @property
    def _record(self) -> LaunchRecord | None:
        return getattr(self._asked, "record", None)

    @contextmanager
    def _once(self) -> Iterator[None]:
        """On the stream, what a record cannot repeat."""
        if (record := self._record) is not None:
            record.break_off()
        with self._gpu, self._stream:
            yield

    def holds(self, values: object) -> bool:
        return isinstance(values, self._cupy.ndarray)

    def scaled(
        self,
        values: Array,
        *,
        gain: float,
        offset: float,
        clip: tuple[float, float] | None,
        points: Sequence[tuple[float, float]] = (),
    ) -> Array:
        self._wait_for_maker()
        with self._once():
            if points or (gain, offset, clip) != (1.0, 0.0, None):
                values = values.astype(np.float64) * gain + offset
                values = values if clip is None else values.clip(*clip)
            if points:
                before, after = np.transpose(np.asarray(points, np.float64))
                slopes = np.append(np.diff(after) / np.diff(before), 0.0)
                x, y, slope = (self._cupy.array(table) for table in (before, after, slopes))
                self._stream.synchronize()
                values = values.clip(before[0], before[-1])
                part = self._cupy.searchsorted(x, values, side="right") - 1
                values = slope[part] * (values - x[part]) + y[part]
            return values.astype(np.float32, order="C")

    def _wait_for_maker(self) -> None:
        with self._gpu:
            self._cupy.cuda.get_current_stream().synchronize()  # whoever made the values asked that one

    def all_finite(self, values: Array) -> bool:
        with self._once():
            return bool(self._cupy.isfinite(values).all())

    def not_finite(self, values: Array) -> npt.NDArray[np.bool_] | None:
        self._wait_for_maker()
        with self._once():
            finite = self._cupy.isfinite(values)
            return None if bool(finite.all()) else ~self._cupy.asnumpy(finite)

    def moved(self, values: Array, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> Array:
        self._wait_for_maker()
        with self._once():
            copy = values.astype(values.dtype, order="C")
            flat, at, to = copy.reshape(-1), self._cupy.array(sources), self._cupy.array(targets)
            self._stream.synchronize()
            flat[to] = flat[at]
            return copy

    def put(self, values: Array, where: npt.NDArray[np.bool_], value: int) -> None:
        with self._once():
            places = self._cupy.array(where)
            self._stream.synchronize()
            values[places] = value

    def percentiles(self, arrays: Sequence[Array], percents: Sequence[float]) -> list[float] | None:
        self._wait_for_maker()
        with self._once():
            values = self._cupy.empty((len(arrays), *arrays[0].shape), np.float64)
            for i, array in enumerate(arrays):
                values[i] = array
            values = values[self._cupy.isfinite(values)]
            if values.size == 0:
                return None
            values.sort()
            found = []
            for percent in percents:
                # NumPy interpolates between the two values around this place; it does so here, with two values only.
                place = (values.size - 1) * (percent / 100)
                low = int(place)
                pair = self._cupy.asnumpy(values[low : low + 2])
                found.append(float(np.quantile(pair, place - low if len(pair) == 2 else 0)))
            return found

    def numpy(self, array: Array) -> npt.NDArray[Any]:
        with self._once():
            return self._cupy.asnumpy(array)

    def synchronize(self) -> None:
        with self._once():
            self._stream.synchronize()

    def stopwatch(self) -> Stopwatch:
        return CudaStopwatch(self._cupy, self._gpu, self._stream)

    def seconds(self, work: Callable[[], object]) -> float:
        """Between two events on the stream of the launches; a wait for the host in between counts too."""
        watch, found = self.stopwatch(), dict[str, float]()
        watch.start()
        work()
        watch.lap("work")
        self.synchronize()
        watch.add_to(found)
        return found["work"]

    def free_memory(self) -> int | None:
        with self._gpu:
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def release_memory(self) -> None:
        with self._gpu:
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _address_of(self, array: Any) -> int:
        if not isinstance(array, self._cupy.ndarray):
            raise TypeError(f"is {type(array).__name__}, not a CuPy array, which the cuda device takes")
        if array.device.id != self.gpu_id:
            raise TypeError(f"lies on GPU {array.device.id}, the kernel runs on GPU {self.gpu_id}")
        return int(array.data.ptr)

    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> BoundKernel:
        signature, kernel = self._function(file, name, defines)
        with self._gpu:
            function = self._launcher(kernel, dict(defines))
        gpu, stream = self._gpu, self._stream

        def run(grid: Dim3, block: Dim3, values: list[Any]) -> None:
            launch = partial(function, grid, block, tuple(values))
            try:
                with gpu, stream:
                    launch()
            except Exception as error:
                error.add_note(f"at the launch of {signature}, grid {grid}, block {block}; {LATE_ERRORS}")
                raise
            if (record := self._record) is not None:
                record.add(signature, launch)

        return BoundKernel(signature, self._address_of, run)

    def _function(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> tuple[KernelSignature, Any]:
        with self._compiling:  # or threads would compile the same source side by side
            if (file, defines) not in self._modules:
                self._modules[file, defines] = self._module(file, defines)
            module, signatures = self._modules[file, defines]
            if name not in signatures:
                raise KeyError(f"kernels/{file} has no kernel {name}; it has {', '.join(signatures)}")
            try:
                with self._gpu:
                    return signatures[name], module.get_function(name)
            except self._cupy.cuda.compiler.CompileException as error:
                raise ResourceError(
                    f"NVRTC refuses a kernel source:\n{error}\n", do=f"{OTHERWISE}, and report this"
                ) from error

    def _module(self, file: str, defines: tuple[tuple[str, str], ...]) -> tuple[Any, dict[str, KernelSignature]]:
        source = kernel_source(file, folder=self._folder)
        options = (*OPTIONS, *(f"-D{name}={value}" for name, value in defines))
        return self._cupy.RawModule(code=source.text, options=options), parse_signatures(source, dict(defines))


def _is_launch_blocking() -> bool:
    """Whoever looks for the launch of an error must see each of them."""
    return os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")
