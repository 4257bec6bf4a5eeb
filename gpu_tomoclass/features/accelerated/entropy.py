"""Entropy by ``kernels/entropy.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource

OUTSIDE = 256  # the level of pixels outside of the plane
PAD_BLOCK = {True: (32, 8), False: (256, 1)}  # by whether the plan is for a GPU
LANES = 32  # columns of a block on a GPU
LINE = 128  # rows that a GPU thread slides over, at most; its first disk costs as much as 13 of them, for radius 16
CPU_LINE = 1024  # columns of a CPU task
DOUBLE_ERROR = 2.5e-13  # bound for 256 terms of p log2(p) added in double: 256 (2^-51 + 0.8 2^-52)


def entropy(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.entropy.entropy` in every bit."""
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    constant = source.workspace.constant
    radii = [int(request.parameters["radius"]) for request in requests]
    margin = max(radii) + 1
    levels = _padded_levels(source, margin)
    for request, radius in zip(requests, radii, strict=True):
        n = int((2 * half_widths(radius) + 1).sum())
        bits = fraction_bits(n)
        pitch = nx + 2 * margin
        along, across = (pitch, 1) if on_gpu else (1, pitch)
        if on_gpu:
            lanes, line = LANES, -(-ny // -(-ny // max(LINE, 2 * radius)))
            grid = (-(-nx // lanes), -(-ny // line), nz)
        else:
            lanes, line = 1, max(CPU_LINE, 2 * radius)
            grid = (-(-nx // line), ny, nz)
        source.device.launch(
            "entropy.cu",
            "entropy",
            grid=grid,
            block=(lanes,),
            args={
                "levels": levels,
                "widths": constant(("entropy widths", radius), partial(half_widths, radius)),
                "edges": constant(
                    ("entropy edges", radius, along, across),
                    partial(row_edges, radius, along=along, across=across),
                ),
                "table": constant(("entropy table", n), partial(count_table, n, bits)),
                "steps": constant(("entropy steps", n), partial(count_steps, n, bits)),
                "scales": constant(("entropy scales", n), partial(inverse_counts, n, bits)),
                "result": request.out,
                "count_bits": n.bit_length(),
                "n_rows": 2 * radius + 1,
                "line": line,
                "margin": margin,
                "ny": ny,
                "nx": nx,
            },
            defines={
                "LANES": lanes,
                "COUNT": "unsigned short" if n < 2**16 else "unsigned",
                **({} if on_gpu else {"ONE_THREAD": 1}),
            },
        )


def half_widths(radius: int) -> npt.NDArray[np.int32]:
    """Half-length of each row of the disk dx^2 + dy^2 <= (radius + 0.5)^2."""
    return np.array([math.isqrt(radius * radius + radius - dy * dy) for dy in range(-radius, radius + 1)], np.int32)


def row_edges(radius: int, *, along: int, across: int) -> npt.NDArray[np.int32]:
    """Where the pixels lie that leave and enter when a disk moves by ``along``: (n_rows, 2) distances from its first
    row's middle; the next row is ``across`` further."""
    widths = half_widths(radius)
    rows = across * np.arange(widths.size, dtype=np.int32)
    return np.stack([rows - along * widths, rows + along * (widths + 1)], axis=1).astype(np.int32)


def fraction_bits(n: int) -> int:
    """Number of binary digits behind the point that leave ``n log2(n)`` below 2^62 with ``n`` in the same number."""
    return 62 - max(1, math.ceil(n * math.log2(n))).bit_length() - n.bit_length()


def count_table(n: int, bits: int) -> npt.NDArray[np.int64]:
    """``c log2(c) 2^bits``, rounded, for c = 0 .. n; in extended precision where the machine has it."""
    count = np.arange(n + 1).astype(np.longdouble)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = count * np.log2(count)
    values[0] = 0
    return np.rint(np.ldexp(values, bits)).astype(np.int64)


def count_steps(n: int, bits: int) -> npt.NDArray[np.int64]:
    """From each entry of :func:`count_table` to the next, above a 1 for the count itself: n numbers."""
    return np.diff(count_table(n, bits)) * 2 ** n.bit_length() + 1


def inverse_counts(n: int, bits: int) -> npt.NDArray[np.float64]:
    """For c = 0 .. n, ``2^-bits / c`` (0 for c = 0), and what an entropy of c pixels can be off by: (n + 1, 2).

    The sum of :func:`count_table`, by half a unit for each of the at most 256 levels and for c; the reference's, by
    :data:`DOUBLE_ERROR`.
    """
    count = np.arange(n + 1)
    factors = np.zeros(n + 1)
    factors[1:] = np.ldexp(1.0 / count[1:], -bits)
    return np.stack([factors, DOUBLE_ERROR + 0.5 * (np.minimum(count, 256) + 1) * factors], axis=1)


def _padded_levels(source: DeviceSource, margin: int) -> Array:
    """The bytes of :meth:`DeviceSource.bytes_own` within :data:`OUTSIDE`: (nz, ny + 2 margin, nx + 2 margin) uint16."""
    nz, ny, nx = source.shape
    height, pitch = ny + 2 * margin, nx + 2 * margin
    tx, ty = PAD_BLOCK[source.device.wants_gpu_plan]

    def fill(out: Array) -> None:
        source.device.launch(
            "pad.cu",
            "pad",
            grid=(-(-pitch // tx), -(-height // ty), nz),
            block=(tx, ty),
            args={"image": source.bytes_own(), "result": out, "margin": margin, "ny": ny, "nx": nx},
            defines={"INPUT": "unsigned char", "OUTPUT": "unsigned short", "OUTSIDE": OUTSIDE, "TX": tx, "TY": ty},
        )

    return source.shared(f"padded levels {margin}", (nz, height, pitch), np.uint16, fill)
