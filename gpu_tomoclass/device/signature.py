"""Kernels and their parameters, read from the CUDA source: what a launch is checked against, and how a CPU runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpu_tomoclass.device.sources import KernelSource

SCALARS: dict[str, str] = {
    "bool": "?",
    "signed char": "i1",
    "unsigned char": "u1",
    "short": "i2",
    "unsigned short": "u2",
    "int": "i4",
    "unsigned": "u4",
    "unsigned int": "u4",
    "long long": "i8",
    "unsigned long long": "u8",
    "size_t": "u8",
    "float": "f4",
    "double": "f8",
}
# Vectors: only as the target of a pointer. The array has the element's dtype.
VECTORS: dict[str, tuple[str, int]] = {
    f"{name}{width}": (dtype, width)
    for name, dtype in {"uchar": "u1", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8"}.items()
    for width in (2, 4)
}
BARRIERS = re.compile(
    r"\b(__syncthreads\w*|__syncwarp|__cluster_barrier_\w+|__shfl\w*_sync|__ballot_sync|__any_sync|__all_sync)\s*\("
)
PHASES = "FOR_EACH_THREAD"
ONE_THREAD = "ONE_THREAD"  # this macro promises blocks of one thread
# Promises: blocks form clusters of so many along x, which share their memory; each is given so much memory at a launch.
CLUSTER, SHARED_BYTES = "CLUSTER", "SHARED_BYTES"

_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\([^{;]*?\)\s*)?void\s+')
_ATTRIBUTE = re.compile(r"\s*(?:__launch_bounds__|__cluster_dims__)\s*(?=\()")
_CLUSTERS = re.compile(r"^#ifdef CLUSTER\n(.*?)^#else\n(.*?)^#endif  // CLUSTER$", flags=re.S | re.M)
_DEVICE_FUNCTION = re.compile(r"__device__[^;{}()=]*?(\w+)\s*(?=\()")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes
    ----------
    name : str
    c_type : str
        Type without ``const`` and ``*``, macros replaced: ``"float"``, ``"long long"``, ``"float4"``.
    dtype : numpy.dtype
        Of the array's elements, or of the scalar.
    width : int
        Elements per ``c_type``: 4 for ``float4``, else 1.
    is_pointer, is_const, is_restrict : bool
    """

    name: str
    c_type: str
    dtype: np.dtype[np.generic]
    width: int
    is_pointer: bool
    is_const: bool
    is_restrict: bool


@dataclass(frozen=True)
class KernelSignature:
    """One kernel.

    Attributes
    ----------
    file, name : str
    parameters : tuple of Parameter
    style : {"single", "threads", "phases", "fibers"}
        How a CPU runs a block of it: its only thread (compiled with ``ONE_THREAD``), a plain loop over threads (no
        barrier in it), once per block with a loop in each ``FOR_EACH_THREAD``, or one fiber per thread (barriers or
        warp functions without ``FOR_EACH_THREAD``).
    """

    file: str
    name: str
    parameters: tuple[Parameter, ...]
    style: str

    def __str__(self) -> str:
        return f"kernels/{self.file}: {self.name}"


def parse_signatures(source: KernelSource, defines: Mapping[str, str] | None = None) -> dict[str, KernelSignature]:
    """The kernels of a source by name.

    Parameters
    ----------
    source : KernelSource
    defines : mapping of str to str, optional
        Compile-time macros; one that stands for a parameter's type is replaced.

    Raises
    ------
    ValueError
        Naming file and kernel, if a parameter has a type that a launch cannot check, or a rule of ``docs/devices.md``
        is broken that no compiler would report.
    """
    defines = defines or {}
    code = _without_comments(_CLUSTERS.sub(lambda part: part[1 if CLUSTER in defines else 2], source.text))
    if re.search(r"\bextern\s+__shared__", code) and SHARED_BYTES not in defines:
        raise ValueError(f"kernels/{source.file}: dynamic shared memory; give its size as the macro {SHARED_BYTES}")
    waiting = _functions_with_barrier(code)
    signatures: dict[str, KernelSignature] = {}
    for match in _KERNEL.finditer(code):
        at = match.end()
        while attribute := _ATTRIBUTE.match(code, at):
            at = _closing(code, attribute.end(), "()") + 1
        opening = code.index("(", at)
        name = code[at:opening].strip()
        closing = _closing(code, opening, "()")
        body_start = code.index("{", closing)
        body = code[body_start : _closing(code, body_start, "{}")]
        parameters = tuple(
            _parameter(text, defines, f"kernels/{source.file}: {name}")
            for text in code[opening + 1 : closing].split(",")
            if text.strip() not in ("", "void")
        )
        style = "single" if ONE_THREAD in defines else _style(body, waiting)
        signatures[name] = KernelSignature(source.file, name, parameters, style)
    styles = {s.style for s in signatures.values()}
    if {"phases", "fibers"} <= styles:
        raise ValueError(
            f"kernels/{source.file}: kernels with {PHASES} and kernels with barriers but without it need separate files"
        )
    return signatures


def _without_comments(text: str) -> str:
    """Comments replaced by a blank."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)


def _closing(code: str, opening: int, pair: str) -> int:
    """Index of the bracket that closes the one at ``opening``."""
    depth = 0
    for match in re.compile("[" + re.escape(pair) + "]").finditer(code, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"unbalanced {pair!r} in a kernel source")


def _functions_with_barrier(code: str) -> set[str]:
    """Names of the device functions that wait for other threads, themselves or through others."""
    bodies: dict[str, str] = {}
    for match in _DEVICE_FUNCTION.finditer(code):
        after = _closing(code, match.end(), "()") + 1
        opening = re.compile(r"\s*\{").match(code, after)
        if opening:
            bodies[match[1]] = code[opening.end() - 1 : _closing(code, opening.end() - 1, "{}")]
    waiting = {name for name, body in bodies.items() if BARRIERS.search(body)}
    while True:
        more = {name for name, body in bodies.items() if name not in waiting and _calls(body, waiting)}
        if not more:
            return waiting
        waiting |= more


def _calls(body: str, names: set[str]) -> bool:
    return any(re.search(rf"\b{name}\s*[(<]", body) for name in names)


def _style(body: str, waiting: set[str]) -> str:
    if PHASES in body:
        return "phases"
    return "fibers" if BARRIERS.search(body) or _calls(body, waiting) else "threads"


def _parameter(text: str, defines: Mapping[str, str], kernel: str) -> Parameter:
    words = text.replace("*", " * ").split()
    words = [word for part in words for word in defines.get(part, part).split()]
    *kind, name = words
    is_pointer = "*" in kind
    is_restrict = "__restrict__" in kind
    # The type is what stands before the star; a const behind it concerns the pointer itself.
    target = kind[: kind.index("*")] if is_pointer else kind
    c_type = " ".join(word for word in target if word not in ("const", "__restrict__"))
    dtype, width = VECTORS.get(c_type, (SCALARS.get(c_type), 1)) if is_pointer else (SCALARS.get(c_type), 1)
    if dtype is None or kind.count("*") > 1:
        raise ValueError(f"{kernel}: parameter {' '.join(words)!r} is none of the types that a launch can check")
    return Parameter(name, c_type, np.dtype(dtype), width, is_pointer, "const" in target, is_restrict)


@cache
def scalar_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest value of an integer dtype."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
