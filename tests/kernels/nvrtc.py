"""NVRTC through ctypes: CUDA source to PTX and machine code, without a GPU and without a driver."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
CLUSTER_ARCHITECTURES = (90, 100)  # those whose blocks form clusters with as much memory as we ask for


def architectures(options: tuple[str, ...]) -> tuple[int, ...]:
    """Those that a source with these options is compiled for."""
    return CLUSTER_ARCHITECTURES if cluster_blocks(options) else ARCHITECTURES


def cluster_blocks(options: tuple[str, ...]) -> int:
    """Blocks of a cluster of a source with these options; 0 without clusters."""
    return _number(options, "CLUSTER")


def given_bytes(options: tuple[str, ...]) -> int:
    """Shared memory that a block of a source with these options is given at a launch."""
    return _number(options, "SHARED_BYTES")


def _number(options: tuple[str, ...], macro: str) -> int:
    return next((int(o.partition("=")[2]) for o in options if o.startswith(f"-D{macro}=")), 0)


# What CuPy 14 adds to the options of a RawModule, after the user's.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


@dataclass(frozen=True)
class Resources:
    """What the assembler reports of one kernel."""

    registers: int
    shared: int
    stack: int
    spills: int  # bytes of spill stores and loads


@cache
def _library() -> ctypes.CDLL:
    """libnvrtc of the nvidia-cuda-nvrtc wheel, which the ``test`` extra installs."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    found = sorted(path for folder in folders for path in folder.glob("**/libnvrtc.so.*"))
    if not found:
        raise RuntimeError("NVRTC is missing: install the test extra of gpu_tomoclass")
    # NVRTC 13.0 opens its builtins by name alone and does not look beside itself; what is loaded already it finds.
    for path in sorted(found[-1].parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(found[-1]))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def version() -> str:
    """Such as ``13.5``."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC: {_library().nvrtcGetErrorString(status).decode()}")


def _compile(text: str, options: tuple[str, ...], *, result: str) -> tuple[bytes, str]:
    """The result (``PTX`` or ``CUBIN``) and the compiler's log.

    Raises
    ------
    RuntimeError
        With the log, if the source does not compile.
    """
    library, program = _library(), ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None))
    try:
        strings = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), strings)
        log = _take(library, program, "ProgramLog").decode().strip("\0\n ")
        if status:
            raise RuntimeError(log)
        return _take(library, program, result), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _take(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library[f"nvrtcGet{what}"](program, buffer))
    return buffer.raw


@cache
def ptx(text: str, options: tuple[str, ...], architecture: int = 80) -> str:
    """The PTX of a source that CuPy would compile with these options of a RawModule.

    Raises
    ------
    RuntimeError
        With the compiler's log.
    """
    options = (*options, *CUPY_OPTIONS, f"-arch=compute_{architecture}")
    return _compile(text, options, result="PTX")[0].rstrip(b"\0").decode()


@cache
def resources(text: str, options: tuple[str, ...], architecture: int) -> dict[str, Resources]:
    """Compile to machine code; registers, shared memory and spills of each kernel by name."""
    options = (*options, *CUPY_OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v")
    code, log = _compile(text, options, result="CUBIN")
    if not code.startswith(b"\x7fELF"):
        raise RuntimeError(f"no machine code for sm_{architecture}")
    return _parse_log(log)


def _parse_log(log: str) -> dict[str, Resources]:
    found: dict[str, Resources] = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        numbers = {
            key: int(match[1]) if (match := re.search(pattern, part)) else 0
            for key, pattern in {
                "registers": r"Used (\d+) registers",
                "shared": r"(\d+) bytes smem",
                "stack": r"(\d+) bytes stack frame",
                "stores": r"(\d+) bytes spill stores",
                "loads": r"(\d+) bytes spill loads",
            }.items()
        }
        spills = numbers.pop("stores") + numbers.pop("loads")
        found[part.partition("'")[0]] = Resources(**numbers, spills=spills)
    return found
