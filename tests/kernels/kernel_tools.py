"""What the tests of kernels share: their own small sources, and how to run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from gpu_tomoclass.device import Device

SOURCES = Path(__file__).parent / "sources"
TX, TY, RADIUS = 32, 4, 3
# Whole tiles, one pixel more or less, primes, smaller than the window.
IMAGE_SHAPES = ((8, 64), (7, 65), (31, 37), (1, 101), (101, 1), (1, 1), (2, 3))


def run_box(device: Device, image: np.ndarray, *, bug: int = 0) -> np.ndarray:
    """The mean over 7 x 7 pixels by ``box_phases.cu``."""
    ny, nx = image.shape
    mean = device.array(np.full(image.shape, np.nan, np.float32))
    device.launch(
        "box_phases.cu",
        "box",
        grid=(-(-nx // TX), -(-ny // TY)),
        block=(TX, TY),
        args={"values": device.array(image), "mean": mean, "ny": ny, "nx": nx},
        defines={"TX": TX, "TY": TY, "RADIUS": RADIUS, "BUG": bug},
    )
    return device.numpy(mean)


def expected_box(image: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(image.astype(np.float64), 2 * RADIUS + 1, mode="nearest")


# 49 sums and one product of values below 5 in float32, each with an error of at most half a unit in the last place.
BOX_TOLERANCE = 1e-5


def run_total(device: Device, values: np.ndarray, *, bug: int = 0) -> int:
    """The sum of int32 values by ``sum_fibers.cu``."""
    result = device.zeros(1, np.int32)
    device.launch(
        "sum_fibers.cu",
        "total",
        grid=(-(-values.size // 256),),
        block=(256,),
        args={"values": device.array(values), "sum": result, "n": values.size},
        defines={"BUG": bug},
    )
    return int(device.numpy(result)[0])


def run_exchange(device: Device, values: np.ndarray) -> np.ndarray:
    """All functions that exchange values within a warp; ``values`` holds whole blocks of 64."""
    return _run_two_warps(device, "sum_fibers.cu", "exchange", values)


def _run_two_warps(
    device: Device, file: str, kernel: str, values: np.ndarray, defines: dict[str, int] | None = None
) -> np.ndarray:
    """A kernel that takes ``values`` by blocks of 64 and gives as many."""
    result = device.zeros(values.size, np.int32)
    args = {"values": device.array(values), "result": result}
    device.launch(file, kernel, grid=(values.size // 64,), block=(64,), args=args, defines=defines)
    return device.numpy(result)


def expected_exchange(values: np.ndarray) -> np.ndarray:
    v = values.reshape(-1, 32).astype(np.int64)
    lane = np.arange(32)
    r = v[:, lane ^ 5] + 3 * v[:, np.where(lane >= 2, lane - 2, lane)] + 5 * v[:, (lane & 16) + 7]
    ballot = ((v & 1) << lane).sum(axis=1, keepdims=True)
    r += ballot + (v == 11).any(axis=1, keepdims=True) + 2 * (v >= 0).all(axis=1, keepdims=True)
    bits = np.unpackbits(values.astype(np.uint32).view(np.uint8).reshape(-1, 4), axis=1).sum(axis=1).reshape(v.shape)
    leading = np.array([32 - int(x & 0xFFFFFFFF).bit_length() for x in v.ravel()]).reshape(v.shape)
    return (r + bits + leading).astype(np.uint32).view(np.int32).ravel()


def run_turns(device: Device, values: np.ndarray, *, bug: int = 0) -> np.ndarray:
    """Lanes that see each other through shared memory by ``warp_turns.cu``; ``values`` holds whole blocks of 64."""
    return _run_two_warps(device, "warp_turns.cu", "turns", values, {"BUG": bug})


def expected_turns(values: np.ndarray) -> np.ndarray:
    v = values.reshape(-1, 32)
    return (np.roll(v, -1, axis=1) + v + 100 * (v % 2 == 0).sum(axis=1, keepdims=True)).ravel()
