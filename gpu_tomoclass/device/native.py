"""The ``native`` device: the CUDA sources compiled for this CPU, blocks spread over threads."""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.base import Array, BoundKernel, Device, HostDevice
from gpu_tomoclass.device.compiler import LibraryCache, find_compiler, shared_cache
from gpu_tomoclass.device.cores import worker_count
from gpu_tomoclass.device.launch import Dim3
from gpu_tomoclass.device.signature import KernelSignature, parse_signatures
from gpu_tomoclass.device.sources import KernelSource, kernel_source, kernels_folder
from gpu_tomoclass.errors import ResourceError

HEADERS = ("cuda_on_cpu.h", "cuda_math.h", "cuda_blocks.h", "cuda_fibers.h")
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register

# Null pointers and ends of arrays are the address sanitizer's; to check them twice takes an eighth of the compiling.
_SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize=null,object-size,pointer-overflow")
# What a build is for: speed; the plan for a GPU on a CPU, which is for comparing only and compiles in half of the time;
# finding missing barriers and unwritten shared memory; finding accesses out of bounds.
BUILDS: dict[str, tuple[str, ...]] = {
    "fast": ("-O3",),
    "compared": ("-O1",),
    "checked": ("-Og", "-DCUDA_ON_CPU_CHECKED"),
    "sanitized": (
        *("-Og", "-g1", "-DCUDA_ON_CPU_CHECKED", "-DCUDA_ON_CPU_SANITIZED", "-fno-omit-frame-pointer"),
        *(*_SANITIZERS, "-fno-sanitize-recover=all"),
    ),
}


class NativeDevice(HostDevice):
    """Kernels on the CPU.

    Parameters
    ----------
    threads : int, optional
        CPU threads of a launch; default one per usable core.
    build : {"fast", "checked", "sanitized"}
        ``checked`` runs every kernel thread by thread over poisoned shared memory; ``sanitized`` adds the address and
        undefined-behaviour sanitizers, whose runtime must have been loaded before Python.
    gpu_plan : bool, optional
        Launch kernels in the shape meant for a GPU; default for the checked builds, which imitate one.
    seed : int
        For the checked builds: 0 runs blocks and threads in order, any other number in an order of its own.
    cache : LibraryCache, optional
        Where compiled kernels are kept.
    kernels : pathlib.Path, optional
        Folder of the sources, if not the package's.

    Raises
    ------
    ResourceError
        If there is no working C++ compiler.
    """

    name = "native"

    def __init__(
        self,
        *,
        threads: int | None = None,
        build: str = "fast",
        gpu_plan: bool | None = None,
        seed: int = 0,
        cache: LibraryCache | None = None,
        kernels: Path | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if os.name != "posix":
            raise ResourceError("compiled kernels need Linux or macOS", do="choose --device numpy")
        self.threads = worker_count(threads)
        self.wants_gpu_plan = build != "fast" if gpu_plan is None else gpu_plan
        self._build = "compared" if build == "fast" and self.wants_gpu_plan else build
        self._is_checked = self._build in ("checked", "sanitized")
        self._seed, self._folder = seed, kernels
        self._cache = shared_cache() if cache is None else cache
        self._compiler = find_compiler(self._cache)
        self._libraries: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[ctypes.CDLL, dict[str, KernelSignature]]]
        self._libraries = {}
        # One lock per library, so that threads compile different ones at the same time.
        self._compiling: defaultdict[tuple[str, tuple[tuple[str, str], ...]], threading.Lock]
        self._compiling = defaultdict(threading.Lock)
        parallel = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        self.description = f"{self._compiler.version}, {parallel}"
        helpers = (Path(__file__).parent / "threads.cpp").read_text(encoding="utf-8")
        self._helpers = self._cache.library(helpers, self._compiler, options=("-O2",))  # one pool for all devices
        self.notes = (*notes, *self._cache.notes)

    def with_threads(self, threads: int) -> NativeDevice:
        """The same compiled kernels with another number of threads, for callers that run planes side by side."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._kernels = {}  # bound to this number of threads
        twin.threads = worker_count(threads)
        return twin

    def side_by_side(self) -> tuple[Device, int]:
        return self.with_threads(1), self.threads

    def figures(self, name: str, measure: Callable[[], dict[str, float]], *, keys: Sequence[str]) -> dict[str, float]:
        if self._build != "fast":  # such builds are not for speed
            return dict.fromkeys(keys, 1.0)
        sources = (path.read_text() for path in sorted(kernels_folder().glob("*.cu")))
        what = "\0".join((name, _headers_digest(), *sources))
        return self._cache.figures(what, self._compiler, measure, keys=keys)

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        kind = np.dtype(dtype)
        n = int(np.prod(shape)) * kind.itemsize
        memory = np.empty(n + ALIGNMENT, dtype=np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + n].view(kind).reshape(shape)

    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> BoundKernel:
        with self._compiling[file, defines]:
            if (file, defines) not in self._libraries:
                self._libraries[file, defines] = self._compile(kernel_source(file, folder=self._folder), defines)
        library, signatures = self._libraries[file, defines]
        if name not in signatures:
            raise KeyError(f"kernels/{file} has no kernel {name}; it has {', '.join(signatures)}")
        signature = signatures[name]
        function = library[f"launch_{name}"]
        function.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_char_p)
        function.restype = ctypes.c_char_p
        pack = struct.Struct("=" + "".join(_slot(p.is_pointer, p.dtype) for p in signature.parameters)).pack
        threads, seed = self.threads, self._seed
        run_blocks = ctypes.cast(self._helpers.run_blocks, ctypes.c_void_p)

        def run(grid: Dim3, block: Dim3, values: list[Any]) -> None:
            slots = pack(*(v.ctypes.data if isinstance(v, np.ndarray) else v for v in values))
            error = function(struct.pack("=6I", *grid, *block), threads, seed, run_blocks, slots)
            if error is not None:
                raise RuntimeError(f"{signature}: {error.decode()}")

        return BoundKernel(signature, address_of, run)

    def _compile(
        self, source: KernelSource, defines: tuple[tuple[str, str], ...]
    ) -> tuple[ctypes.CDLL, dict[str, KernelSignature]]:
        signatures = parse_signatures(source, dict(defines))
        has_fibers = any(s.style == "fibers" for s in signatures.values())
        options = (
            *BUILDS[self._build],
            *(("-DCUDA_ON_CPU_FIBERS",) if has_fibers and not self._is_checked else ()),
            *(f"-D{name}={value}" for name, value in defines),
            f"-I{Path(__file__).parent}",
        )
        code = cpu_source(source, signatures, checked=self._is_checked)
        return self._cache.library(code, self._compiler, options=options), signatures


def address_of(array: Any) -> int:
    """Address of a NumPy array.

    Raises
    ------
    TypeError
        For anything else.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"is {type(array).__name__}, not a NumPy array, which the native device takes")
    return array.ctypes.data


def cpu_source(source: KernelSource, signatures: dict[str, KernelSignature], *, checked: bool) -> str:
    """C++ text: our header, the CUDA source as it is, and one launcher per kernel."""
    launchers = []
    for signature in signatures.values():
        style = "fibers" if checked else signature.style
        values, names = [], []
        for i, p in enumerate(signature.parameters):
            c_type = f"{'const ' if p.is_const else ''}{p.c_type}{'*' if p.is_pointer else ''}"
            values.append(f"    {c_type} a{i}; memcpy(&a{i}, args + {8 * i}, sizeof a{i});")
            names.append(f"a{i}")
        launchers += [
            f'extern "C" __attribute__((visibility("default"))) const char* launch_{signature.name}(',
            "        const unsigned* shape, int threads, unsigned seed, cuda_on_cpu::RunBlocks run_blocks,",
            "        const char* args) {",
            "    cuda_on_cpu::Job job{dim3(shape[0], shape[1], shape[2]), dim3(shape[3], shape[4], shape[5]),",
            "                         threads, seed, run_blocks, nullptr};",
            *values,
            f"    cuda_on_cpu::launch_{style}(job, [=] {{ {signature.name}({', '.join(names)}); }});",
            "    return job.error;",
            "}",
        ]
    return "\n".join(
        (
            f"// headers {_headers_digest()}",
            '#include "cuda_on_cpu.h"',
            source.text,
            '#line 1 "wrapper"',
            *launchers,
            "",
        )
    )


@cache
def _headers_digest() -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in HEADERS:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _slot(is_pointer: bool, dtype: np.dtype[Any]) -> str:
    """Format of one argument in 8 bytes, for :mod:`struct`."""
    if is_pointer:
        return "Q"
    code = {"b1": "?", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}.get(dtype.str[1:])
    code = code or {"u1": "B", "u2": "H", "u4": "I", "u8": "Q"}[dtype.str[1:]]
    return f"{code}{8 - dtype.itemsize}x"
