"""Minimum, Maximum, Mean, Median and Variance over balls by ``kernels/volume_{extremes,sums,median}*.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.reference.volume_ball import BallRow, ball_rows, ball_size

GPU_BLOCK = (32, 4)
CPU_LINE = 256  # voxels of a block along x
SHORT_RANKS = 65535  # voxels of a tile that ranks of 16 bits are enough for, one of them for all voxels outside
TILE_SHARES = (3.0, 2.5, 2.0, 1.5, 1.0)  # of the ball's half-sizes, the longest that does for ranks of 16 bits
LARGE_BALL = 20  # voxels: from here on a warp that goes along a line has less to do than threads that count
LINES = 8  # per block of volume_median_lines.cu
LEAST_LINES = 8192  # that keep a GPU busy; lines are cut into parts where there are fewer, which are never shorter than
LEAST_STEPS = 64  # voxels, as each part begins with all of its ball
LEVEL_PARTS, LEVEL_THREADS = 256, 256
LEAST_TILE = 8  # voxels along each axis; small balls want few voxels to sort, large ones a small margin


class Ball(NamedTuple):
    """A ball and its half-sizes."""

    rows: tuple[BallRow, ...]
    half_z: int
    half_y: int
    half_x: int


def minimum(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.volume_ranks.minimum`."""
    _extremes(source, requests, is_maximum=0)


def maximum(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.volume_ranks.maximum`."""
    _extremes(source, requests, is_maximum=1)


def sums(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """``Mean`` and ``Variance``, equal to :mod:`gpu_tomoclass.features.reference.volume_ranks` in every bit."""
    balls = {float(request.parameters["radius"]): _ball(source, request) for request in requests}
    reach, margin = max(b.half_z for b in balls.values()), max(b.half_x for b in balls.values())
    first, planes = source.planes(reach)
    n_planes, ny, nx = planes.shape
    squares = int(any(request.family == "variance_3d" for request in requests))
    on_gpu = source.device.wants_gpu_plan
    tx, ty = GPU_BLOCK if on_gpu else (CPU_LINE, 1)
    block = GPU_BLOCK if on_gpu else (1, 1)
    defines = {"INPUT": "float" if on_gpu else "double", "SQUARES": squares, "TX": tx, "TY": ty}
    defines |= {} if on_gpu else {"ONE_THREAD": 1}
    image, level_size = planes, 0
    if not on_gpu:
        level_size = n_planes * ny * (nx + 2 * margin)
        # Vectors read beyond the end of a row: at its end into the next one, at the last into what is behind it.
        image = source.workspace.array("volume widened", (2 * level_size + CPU_LINE,), np.float64)
        source.device.launch(
            "volume_widen_cpu.cu",
            "volume_widen_cpu",
            grid=(n_planes * ny,),
            block=(1,),
            args={"image": planes, "widened": image, "margin": margin, "nx": nx},
            defines={"SQUARES": squares, "ONE_THREAD": 1},
        )
    in_order = sorted(requests, key=lambda request: float(request.parameters["radius"]))
    for radius, of_radius in groupby(in_order, key=lambda request: float(request.parameters["radius"])):
        out = {request.family: request.out for request in of_radius}
        unwanted = source.scratch("unwanted", source.shape[0])
        ball = balls[radius]
        source.device.launch(
            "volume_sums.cu",
            "volume_sums",
            grid=(-(-nx // tx), -(-ny // ty), source.shape[0]),
            block=block,
            args={
                "image": image,
                "ball": source.ball(ball.rows),
                "mean": out.get("mean_3d", unwanted),
                "variance": out.get("variance_3d", unwanted),
                "n_rows": len(ball.rows),
                "widest": ball.half_x,
                "margin": margin,
                "level_size": level_size,
                **_places(source, first),
            },
            defines=defines,
        )


def median(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.volume_ranks.median`."""
    reach = max(_ball(source, request).half_z for request in requests)
    for request in requests:
        ball = _ball(source, request)
        first, planes = source.planes(ball.half_z)
        if not source.device.wants_gpu_plan:
            _median_by_ranks(source, ball, planes, first, request.out)
        elif ball_size(ball.rows) < LARGE_BALL:
            n, ny, nx = source.shape
            tx, ty = GPU_BLOCK
            source.device.launch(
                "volume_median.cu",
                "volume_median",
                grid=(-(-nx // tx), -(-ny // ty), n),
                block=GPU_BLOCK,
                args={
                    "image": planes,
                    "ball": source.ball(ball.rows),
                    "result": request.out,
                    "n_rows": len(ball.rows),
                    **_places(source, first),
                },
                defines={"TX": tx, "TY": ty},
            )
        else:
            _median_by_lines(source, ball, planes, first, request.out, levels=_levels(source, reach))


def _median_by_lines(
    source: VolumeDeviceSource, ball: Ball, planes: Array, first: int, out: Array, *, levels: Array
) -> None:
    n, ny, nx = source.shape
    parts = min(-(-LEAST_LINES // (n * ny)), max(1, nx // LEAST_STEPS))
    n_steps = -(-nx // parts)
    source.device.launch(
        "volume_median_lines.cu",
        "volume_median_lines",
        grid=(-(-nx // n_steps), -(-ny // LINES), n),
        block=(32, LINES),
        args={
            "image": planes,
            "ball": source.ball(ball.rows),
            "levels": levels,
            "result": out,
            "n_rows": len(ball.rows),
            "widest": ball.half_x,
            "n_steps": n_steps,
            **_places(source, first),
        },
        defines={"WARPS": LINES},
    )


def _levels(source: VolumeDeviceSource, reach: int) -> Array:
    """Figures of :file:`volume_levels.cu` of the planes within this reach: (3,) float32."""
    _, planes = source.planes(reach)

    def fill(out: Array) -> None:
        parts = source.workspace.array("volume levels of parts", (LEVEL_PARTS, 3), np.float32)
        defines = {"THREADS": LEVEL_THREADS}
        source.device.launch(
            "volume_levels.cu",
            "volume_levels_of_parts",
            grid=(LEVEL_PARTS,),
            block=(LEVEL_THREADS,),
            args={"image": planes, "parts": parts, "n_voxels": int(planes.size)},
            defines=defines,
        )
        source.device.launch(
            "volume_levels.cu",
            "volume_levels",
            grid=(1,),
            block=(LEVEL_THREADS,),
            args={"parts": parts, "levels": out, "n_parts": LEVEL_PARTS},
            defines=defines,
        )

    return source.shared("levels", (3,), np.float32, fill)


def _ball(source: VolumeDeviceSource, request: BlockRequest) -> Ball:
    rows = ball_rows(request.parameters["radius"], source.aspect)
    return Ball(rows, *(max(row[i] for row in rows) for i in range(3)))


def _places(source: VolumeDeviceSource, first: int) -> dict[str, int]:
    """Where slab and results lie in the volume."""
    _, ny, nx = source.shape
    return {"first": first, "depth": source.depth, "start": source.start, "ny": ny, "nx": nx}


def _extremes(source: VolumeDeviceSource, requests: Sequence[BlockRequest], *, is_maximum: int) -> None:
    balls = [_ball(source, request) for request in requests]
    reach, margin = max(b.half_z for b in balls), max(b.half_x for b in balls)
    first, planes = source.planes(reach)
    n_planes, ny, nx = planes.shape
    n_tables = (2 * margin + 1).bit_length()
    level_size = n_planes * ny * (nx + 2 * margin)
    tables = source.workspace.array("volume extremes", (n_tables, n_planes, ny, nx + 2 * margin), np.float32)
    on_gpu = source.device.wants_gpu_plan
    (tx, ty), pixels = (GPU_BLOCK, 1) if on_gpu else ((1, 1), CPU_LINE)
    defines = {"MAXIMUM": is_maximum, "TX": tx, "TY": ty, "PIXELS": pixels, **({} if on_gpu else {"ONE_THREAD": 1})}
    source.device.launch(
        "volume_extremes.cu",
        "volume_runs",
        grid=(ny, n_planes),
        block=(tx, ty),
        args={
            "image": planes,
            "tables": tables,
            "n_tables": n_tables,
            "margin": margin,
            "level_size": level_size,
            "nx": nx,
        },
        defines=defines,
    )
    for request, ball in zip(requests, balls, strict=True):
        source.device.launch(
            "volume_extremes.cu",
            "volume_extremes",
            grid=(-(-nx // (tx * pixels)), -(-ny // ty), source.shape[0]),
            block=(tx, ty),
            args={
                "tables": tables,
                "ball": source.ball(ball.rows),
                "result": request.out,
                "n_rows": len(ball.rows),
                "margin": margin,
                "level_size": level_size,
                **_places(source, first),
            },
            defines=defines,
        )


def _median_by_ranks(source: VolumeDeviceSource, ball: Ball, planes: Array, first: int, out: Array) -> None:
    n, ny, nx = source.shape
    tile = median_tile(ball)
    size = _with_margin(tile, ball)
    tiles = [-(-length // edge) for length, edge in zip((n, ny, nx), tile, strict=True)]
    n_tiles = math.prod(tiles)
    workers = min(n_tiles, 2 * getattr(source.device, "threads", 1))
    rank, rank_type = ("unsigned short", np.uint16) if size <= SHORT_RANKS else ("unsigned", np.uint32)
    array, constant = source.workspace.array, source.workspace.constant
    dy, dx = tile[1] + 2 * ball.half_y, tile[2] + 2 * ball.half_x
    middles, edges = (
        constant((what, ball.rows, dy, dx), partial(make, ball.rows, dy=dy, dx=dx))
        for what, make in (("ball middles", row_middles), ("ball edges", row_edges))
    )
    source.device.launch(
        "volume_median_cpu.cu",
        "volume_median_cpu",
        grid=(workers,),
        block=(1,),
        args={
            "image": planes,
            "ball": source.ball(ball.rows),
            "edges": edges,
            "offsets": middles,
            "scratch": array("volume median items", (workers, 2, size), np.uint64),
            "ranks": array(f"volume median {rank}", (workers, size), rank_type),
            "sorted": array("volume median values", (workers, size), np.float32),
            "result": out,
            "n_rows": len(ball.rows),
            "n_in_ball": ball_size(ball.rows),
            "n_tiles": n_tiles,
            "tiles_y": tiles[1],
            "tiles_x": tiles[2],
            "tile_z": tile[0],
            "tile_y": tile[1],
            "tile_x": tile[2],
            "half_z": ball.half_z,
            "half_y": ball.half_y,
            "half_x": ball.half_x,
            **_places(source, first),
            "nz": n,
        },
        defines={"ONE_THREAD": 1, "RANK": rank, "WORDS": size // 64 + 1},
    )


def median_tile(ball: Ball) -> tuple[int, int, int]:
    """Voxels of a tile along z, y, x: the margin should not be much larger, and ranks of 16 bits are enough if they can
    be; windows slide along x, which should be long."""
    z, y, x = ball.half_z, ball.half_y, ball.half_x
    for share in TILE_SHARES:
        tile = (
            max(LEAST_TILE, math.ceil(share * z)),
            max(LEAST_TILE, math.ceil(share * y)),
            max(LEAST_TILE, math.ceil(2 * share * x)),
        )
        if _with_margin(tile, ball) <= SHORT_RANKS:
            return tile
    return tile


def _with_margin(tile: tuple[int, int, int], ball: Ball) -> int:
    halves = (ball.half_z, ball.half_y, ball.half_x)
    return math.prod(edge + 2 * half for edge, half in zip(tile, halves, strict=True))


def row_middles(rows: Sequence[BallRow], *, dy: int, dx: int) -> npt.NDArray[np.int32]:
    """Distance of the middle of each row from the centre in a tile of ``dy`` rows of ``dx`` voxels: (n_rows,)."""
    return np.array([(row.dz * dy + row.dy) * dx for row in rows], np.int32)


def row_edges(rows: Sequence[BallRow], *, dy: int, dx: int) -> npt.NDArray[np.int32]:
    """Where the voxels lie, from the centre, that leave each row and enter it in a step along x: (n_rows, 2)."""
    widths = np.array([row.width for row in rows], np.int32)
    middles = row_middles(rows, dy=dy, dx=dx)
    return np.stack([middles - widths, middles + widths + 1], axis=1)
