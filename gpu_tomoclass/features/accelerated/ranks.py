"""Variance, Mean, Minimum, Maximum and Median by ``kernels/disk_sums.cu``, ``disk_extremes.cu`` and ``median*.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array, Device
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.disk import disk_footprint, disk_half_widths

GPU_BLOCK = (32, 8)
CPU_COLUMNS = 256  # that a CPU thread has in its first cache
SUM_ROWS = {True: 16, False: 4}  # rows of a block, by whether the plan is for a GPU
SMALL_COUNT = 29  # pixels of the largest disk whose median is found in registers
SORTED_ON_GPU = 4096  # pixels of the largest tile, with its margin, that a block sorts in 40 KB of shared memory
LINE = 64  # pixels along which a GPU thread slides its window, if so many fit
SHORTEST_LINE = 8  # below, forming the first window costs more than sliding it
MAX_SHARED_HALF = 22  # disks up to this half-height reuse the tiles sorted for the largest of them
CPU_TILE = (64, 256)  # rows and columns


@dataclass(frozen=True)
class Disk:
    """ImageJ's disk of some radius.

    Attributes
    ----------
    widths : tuple of int
        Half-lengths of its rows, from the top.
    """

    widths: tuple[int, ...]

    @property
    def half(self) -> int:
        return len(self.widths) // 2

    @property
    def count(self) -> int:
        """Number of pixels."""
        return sum(2 * width + 1 for width in self.widths)


@dataclass(frozen=True)
class Tiles:
    """Tiles of a plane, sorted with their margins: ``median_ranks*.cu``.

    Attributes
    ----------
    half : int
        Margin, pixels.
    ny, nx : int
        Pixels of a tile without its margin.
    """

    half: int
    ny: int
    nx: int

    @property
    def size(self) -> int:
        """Pixels of a tile with its margin."""
        return (self.ny + 2 * self.half) * (self.nx + 2 * self.half)

    @property
    def rank_type(self) -> tuple[str, type]:
        """In C and in NumPy."""
        return ("unsigned short", np.uint16) if self.size <= 2**16 else ("unsigned", np.uint32)

    def grid(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tiles along x, y and z of a slab (nz, ny, nx)."""
        nz, ny, nx = shape
        return -(-nx // self.nx), -(-ny // self.ny), nz


def variance(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.ranks.variance` in every bit."""
    _sums(source, requests, is_variance=1)


def mean(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.ranks.mean` in every bit."""
    _sums(source, requests, is_variance=0)


def minimum(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.ranks.minimum`."""
    _extremes(source, requests, is_maximum=0)


def maximum(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.ranks.maximum`."""
    _extremes(source, requests, is_maximum=1)


def median(source: DeviceSource, requests: Sequence[BlockRequest], *, sorted_on_gpu: int = SORTED_ON_GPU) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.ranks.median`.

    Parameters
    ----------
    source, requests
    sorted_on_gpu : int
        Tiles of more pixels are not sorted on a GPU.
    """
    disks = [_disk(request) for request in requests]
    near = max((disk.half for disk in disks if disk.half <= MAX_SHARED_HALF), default=0)
    for request, disk in zip(requests, disks, strict=True):
        if disk.count <= SMALL_COUNT:
            _median_small(source, request, disk, margin=_margin(disks))
            continue
        tiles = plan_tiles(
            source.shape,
            half=near if disk.half <= MAX_SHARED_HALF else disk.half,
            device=source.device,
            most=sorted_on_gpu,
        )
        if tiles is None:
            _median_large(source, request, disk, margin=_margin(disks))
        else:
            _median_sliding(source, request, disk, tiles)


def plan_tiles(shape: tuple[int, int, int], *, half: int, device: Device, most: int = SORTED_ON_GPU) -> Tiles | None:
    """Tiles for windows that reach ``half`` pixels; None if they cannot be sorted on this GPU."""
    _, ny, nx = shape
    if device.wants_gpu_plan:
        lanes = GPU_BLOCK[0]
        line = min(LINE, most // (lanes + 2 * half) - 2 * half)
        return Tiles(half, min(line, ny), lanes) if line >= SHORTEST_LINE else None
    rows, columns = (max(side, 2 * half) for side in CPU_TILE)
    return Tiles(half, -(-ny // -(-ny // rows)), -(-nx // -(-nx // columns)))


def _disk(request: BlockRequest) -> Disk:
    return _disk_of(request.parameters["radius"])


@cache
def _disk_of(radius: float) -> Disk:
    return Disk(tuple(disk_half_widths(radius)))


def _margin(disks: Sequence[Disk]) -> int:
    """Margin that :func:`_padded` needs: sums look one pixel further than the disk."""
    return max(disk.half for disk in disks) + 1


def _widths(source: DeviceSource, disk: Disk) -> Array:
    return source.workspace.constant(("disk widths", disk.widths), lambda: np.array(disk.widths, np.int32))


def _padded(source: DeviceSource, margin: int, *, keys: bool) -> Array:
    """The slab with each plane's edge pixels repeated: (nz, ny + 2 margin, nx + 2 margin).

    float32, or int32 keys: the bits of the values as integers in the same order.
    """
    nz, ny, nx = source.shape
    height, pitch = ny + 2 * margin, nx + 2 * margin
    tx, ty = GPU_BLOCK if source.device.wants_gpu_plan else (CPU_COLUMNS, 1)

    def fill(out: Array) -> None:
        source.device.launch(
            "pad.cu",
            "pad",
            grid=(-(-pitch // tx), -(-height // ty), nz),
            block=(tx, ty),
            args={"image": source.image, "result": out, "margin": margin, "ny": ny, "nx": nx},
            defines={
                "INPUT": "float",
                "OUTPUT": "int" if keys else "float",
                "TX": tx,
                "TY": ty,
                **({"KEYS": 1} if keys else {}),
            },
        )

    name = f"padded {'keys' if keys else 'values'} {margin}"
    return source.shared(name, (nz, height, pitch), np.int32 if keys else np.float32, fill)


def _sums(source: DeviceSource, requests: Sequence[BlockRequest], *, is_variance: int) -> None:
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    disks = [_disk(request) for request in requests]
    margin = _margin(disks)
    padded = _padded(source, margin, keys=False)
    lanes, groups = GPU_BLOCK if on_gpu else (1, 1)
    defines = {
        "VARIANCE": is_variance,
        "LANES": lanes,
        "GROUPS": groups,
        "ROWS": SUM_ROWS[on_gpu],
        "CHUNK": lanes if on_gpu else CPU_COLUMNS,
        **({} if on_gpu else {"ONE_THREAD": 1}),
    }
    for request, disk in zip(requests, disks, strict=True):
        source.device.launch(
            "disk_sums.cu",
            "disk_sums",
            grid=(-(-ny // SUM_ROWS[on_gpu]), nz),
            block=(lanes, groups),
            args={
                "padded": padded,
                "widths": _widths(source, disk),
                "result": request.out,
                "n_rows": len(disk.widths),
                "n_in_disk": disk.count,
                "margin": margin,
                "ny": ny,
                "nx": nx,
            },
            defines={**defines, "FRESH": int(disk.half < 2)},
        )


def _extremes(source: DeviceSource, requests: Sequence[BlockRequest], *, is_maximum: int) -> None:
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    disks = [_disk(request) for request in requests]
    margin = _margin(disks)
    height, pitch = ny + 2 * margin, nx + 2 * margin
    n_tables = max(_run(width) for disk in disks for width in disk.widths) + 1
    tables = source.workspace.array("disk extremes", (n_tables, nz, height, pitch), np.int32)
    lanes, groups = GPU_BLOCK if on_gpu else (1, 1)
    pixels = 1 if on_gpu else 2 * CPU_COLUMNS
    defines = {
        "MAXIMUM": is_maximum,
        "LANES": lanes,
        "GROUPS": groups,
        "PIXELS": pixels,
        **({} if on_gpu else {"ONE_THREAD": 1}),
    }
    source.device.launch(
        "disk_extremes.cu",
        "runs",
        grid=(height, nz),
        block=(lanes, groups),
        args={
            "keys": _padded(source, margin, keys=True),
            "tables": tables,
            "n_tables": n_tables,
            "pitch": pitch,
            "level_size": nz * height * pitch,
        },
        defines=defines,
    )
    for request, disk in zip(requests, disks, strict=True):
        offsets = source.workspace.constant(
            ("disk runs", disk.widths, pitch, nz * height),
            partial(run_offsets, disk, pitch=pitch, level_size=nz * height * pitch),
        )
        source.device.launch(
            "disk_extremes.cu",
            "disk_extremes",
            grid=(-(-nx // (lanes * pixels)), -(-ny // groups), nz),
            block=(lanes, groups),
            args={
                "tables": tables,
                "offsets": offsets,
                "result": request.out,
                "n_rows": len(disk.widths),
                "margin": margin,
                "ny": ny,
                "nx": nx,
            },
            defines=defines,
        )


def _run(width: int) -> int:
    """The largest k such that 2^k pixels fit a row of 2 width + 1."""
    return (2 * width + 1).bit_length() - 1


def run_offsets(disk: Disk, *, pitch: int, level_size: int) -> npt.NDArray[np.int64]:
    """Where ``disk_extremes.cu`` finds the two runs that make up each row of a disk: (n_rows, 2) offsets."""
    pairs = []
    for dy, width in enumerate(disk.widths, start=-disk.half):
        k = _run(width)
        start = k * level_size + dy * pitch
        pairs.append((start - width, start + width + 1 - 2**k))
    return np.array(pairs, np.int64)


def _median_small(source: DeviceSource, request: BlockRequest, disk: Disk, *, margin: int) -> None:
    nz, ny, nx = source.shape
    tx, ty = GPU_BLOCK if source.device.wants_gpu_plan else (CPU_COLUMNS, 1)
    y, x = np.nonzero(disk_footprint(request.parameters["radius"]))
    square = int(((y - disk.half) ** 2 + (x - disk.half) ** 2).max())
    source.device.launch(
        "median_small.cu",
        "median_small",
        grid=(-(-nx // tx), -(-ny // ty), nz),
        block=(tx, ty),
        args={
            "padded": _padded(source, margin, keys=True),
            "result": request.out,
            "margin": margin,
            "ny": ny,
            "nx": nx,
        },
        defines={"SQUARE": square, "HALF": disk.half, "COUNT": disk.count, "TX": tx, "TY": ty},
    )


def _median_large(source: DeviceSource, request: BlockRequest, disk: Disk, *, margin: int) -> None:
    nz, ny, nx = source.shape
    lanes, groups = GPU_BLOCK
    source.device.launch(
        "median_large.cu",
        "median_large",
        grid=(-(-nx // lanes), -(-ny // groups), nz),
        block=GPU_BLOCK,
        args={
            "padded": _padded(source, margin, keys=True),
            "widths": _widths(source, disk),
            "result": request.out,
            "n_rows": len(disk.widths),
            "n_in_disk": disk.count,
            "margin": margin,
            "ny": ny,
            "nx": nx,
        },
        defines={"LANES": lanes, "GROUPS": groups},
    )


def _median_sliding(source: DeviceSource, request: BlockRequest, disk: Disk, tiles: Tiles) -> None:
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    ranks, in_order = _sorted_tiles(source, tiles)
    tiles_x, tiles_y, _ = tiles.grid(source.shape)
    lanes = tiles.nx if on_gpu else 1
    pitch = tiles.nx + 2 * tiles.half
    along, across = (pitch, 1) if on_gpu else (1, pitch)
    edges = source.workspace.constant(
        ("median edges", disk.widths, along, across), partial(row_edges, disk, along=along, across=across)
    )
    source.device.launch(
        "median.cu",
        "median",
        grid=(tiles_x, tiles_y if on_gpu else tiles_y * tiles.ny, nz),
        block=(lanes,),
        args={
            "ranks": ranks,
            "sorted": in_order,
            "widths": _widths(source, disk),
            "edges": edges,
            "result": request.out,
            "n_rows": len(disk.widths),
            "n_in_disk": disk.count,
            "tile_y": tiles.ny,
            "tile_x": tiles.nx,
            "half": tiles.half,
            "ny": ny,
            "nx": nx,
        },
        defines={
            "LANES": lanes,
            "WORDS": _power_of_two(-(-tiles.size // (32 if on_gpu else 64))),
            "RANK": tiles.rank_type[0],
            **({} if on_gpu else {"ONE_THREAD": 1}),
        },
    )


def row_edges(disk: Disk, *, along: int, across: int) -> npt.NDArray[np.int32]:
    """Where the pixels lie that leave and enter when a disk moves by ``along``: (n_rows, 2) distances from its centre;
    the next row is ``across`` further."""
    widths = np.array(disk.widths, np.int32)
    rows = across * np.arange(-disk.half, disk.half + 1, dtype=np.int32)
    return np.stack([rows - along * widths, rows + along * (widths + 1)], axis=1)


def _sorted_tiles(source: DeviceSource, tiles: Tiles) -> tuple[Array, Array]:
    """Ranks of the pixels of all tiles, and their values in ascending order: (n_tiles, pixels of a tile) each."""
    nz, ny, nx = source.shape
    grid = tiles.grid(source.shape)
    n_tiles = grid[0] * grid[1] * nz
    shape = n_tiles, tiles.size
    c_type, rank_type = tiles.rank_type
    ranks = source.workspace.array(f"median ranks {tiles}", shape, rank_type)
    args = {
        "image": source.image,
        "ranks": ranks,
        "tile_y": tiles.ny,
        "tile_x": tiles.nx,
        "half": tiles.half,
        "ny": ny,
        "nx": nx,
    }

    def fill(out: Array) -> None:
        if source.device.wants_gpu_plan:
            threads = 256
            source.device.launch(
                "median_ranks.cu",
                "median_ranks",
                grid=grid,
                block=(threads,),
                args={**args, "sorted": out},
                defines={"SORT": max(2 * threads, _power_of_two(tiles.size)), "THREADS": threads},
            )
            return
        workers = min(n_tiles, 4 * source.device.threads)
        scratch = source.workspace.array(f"median scratch {tiles}", (workers, 2, tiles.size), np.uint64)
        source.device.launch(
            "median_ranks_cpu.cu",
            "median_ranks_cpu",
            grid=(workers,),
            block=(1,),
            args={
                **args,
                "sorted": out,
                "scratch": scratch,
                "n_tiles": n_tiles,
                "tiles_y": grid[1],
                "tiles_x": grid[0],
            },
            defines={"ONE_THREAD": 1, "RANK": c_type},
        )

    return ranks, source.shared(f"median values {tiles}", shape, np.float32, fill)


def _power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (n - 1).bit_length()
