"""The small kernels of these tests, as a case of each style."""

from __future__ import annotations

import numpy as np
from kernel_cases import Case
from kernel_tools import BOX_TOLERANCE, IMAGE_SHAPES, SOURCES, expected_box, expected_exchange, run_box, run_exchange

CASES = [
    Case(
        name="test box",
        make=lambda random, shape: {"image": random.normal(size=shape).astype(np.float32)},
        run=lambda device, inputs: run_box(device, inputs["image"]),
        expected=lambda inputs: expected_box(inputs["image"]),
        sizes=IMAGE_SHAPES,
        small_sizes=((31, 37), (1, 101), (2, 3)),
        tolerance=BOX_TOLERANCE,
        why="49 additions in float32 of values below 5",
        kernels=SOURCES,
    ),
    Case(
        name="test exchange",
        make=lambda random, n: {"values": random.integers(-(2**20), 2**20, size=n).astype(np.int32)},
        run=lambda device, inputs: run_exchange(device, inputs["values"]),
        expected=lambda inputs: expected_exchange(inputs["values"]),
        sizes=(64, 1024),
        small_sizes=(128,),
        tolerance=0,
        why="integers",
        kernels=SOURCES,
    ),
]
