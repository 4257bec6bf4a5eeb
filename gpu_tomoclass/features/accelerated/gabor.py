"""Gabor by ``kernels/gabor*.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.gabor import BANKS, N_ANGLES, GaborBank, kernel

ALL_BANKS = tuple(range(len(BANKS)))
MARGIN = max(bank.size for bank in BANKS) // 2  # pixels around a plane
TILE = 32  # pixels: rows of responses and of padded planes are whole tiles
FILTER_BLOCK = (8, 16)  # threads on a GPU, of PIXELS neighbours each
PIXELS = 4
THREADS = 256  # per block of the kernels that go pixel by pixel
PARTS = 32  # per plane, in which its mean is summed
BAND = 4  # rows that a CPU thread filters at a time
CPU_BAND_RESPONSES = 64 << 20  # bytes of one bank, where memory is short
CPU_RESPONSES = 512 << 20  # bytes; on a CPU that many responses of a plane are held at once, and on a GPU one bank's


class BankGroup(NamedTuple):
    """Banks whose kernels have the same size and phase; they share sums over mirrored pixels."""

    reach: int
    phase: int
    banks: tuple[int, ...]


def gabor(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Close to :func:`gpu_tomoclass.features.reference.gabor.gabor`: products are summed in float32.

    On planes of a few pixels, whose mirrored repetition many kernels hardly respond to, rounding errors of that are
    brought to standard deviation 1 with the rest: up to 0.001 on 5 x 3 pixels.
    """
    for request in requests:
        banks = request.parameters.get("banks")
        if banks is None:
            gabor_banks(source, ALL_BANKS, out=request.out)
        elif source.device.wants_gpu_plan:
            for i, bank in enumerate(banks):
                gabor_banks(source, (bank,), out=request.out[2 * i :], first=bank)
        else:
            for i, bank in enumerate(banks):
                _bank_by_bands(source, bank, out=request.out[2 * i : 2 * i + 2])


def gabor_banks(source: DeviceSource, banks: tuple[int, ...], *, out: Array, first: int = 0) -> None:
    """The channels of some banks.

    Parameters
    ----------
    source : DeviceSource
    banks : tuple of int
        Places in :data:`~gpu_tomoclass.features.reference.gabor.BANKS`.
    out : array on the device
        (channels, nz, ny, nx) float32; of bank i, channels 2 (i - first) and the next one are filled.
    first : int
    """
    nz, ny, nx = source.shape
    padded, means = _padded_planes(source)
    pitch = whole_tiles(nx)
    # A CPU shares work among banks and takes plane after plane; a GPU takes all planes, bank after bank.
    on_gpu = source.device.wants_gpu_plan
    at_once = 1 if on_gpu else min(MOST_BANKS, max(1, CPU_RESPONSES // (4 * N_ANGLES * ny * pitch)))
    nz_at_once = nz if on_gpu else 1
    held = source.workspace.array("gabor responses", (at_once, N_ANGLES, nz_at_once, ny, pitch), np.float32)
    for group in bank_groups(banks):
        for start in range(0, len(group.banks), at_once):
            part = group._replace(banks=group.banks[start : start + at_once])
            responses = held[: len(part.banks)]
            for z in range(0, nz, nz_at_once):
                planes = slice(z, z + nz_at_once)
                partial = _filter(source, part, padded[planes], responses=responses)
                statistics = _statistics(source, part, partial, means=means, planes=planes)
                channels = tuple(2 * (i - first) for i in part.banks)
                _extremes(source, channels, responses, statistics=statistics, plane=z, out=out)


def _bank_by_bands(source: DeviceSource, bank: int, *, out: Array) -> None:
    """The channels (2, nz, ny, nx) of a bank on a CPU that has no memory for its responses.

    They are computed twice, some rows at a time: for their statistics, and for their extremes. Equal to those of
    :func:`gabor_banks` in every bit.
    """
    nz, ny, nx = source.shape
    workspace, pitch = source.workspace, whole_tiles(nx)
    padded, means = _padded_planes(source)
    (group,) = bank_groups((bank,))
    n_rows = min(ny, max(BAND, CPU_BAND_RESPONSES // (4 * N_ANGLES * pitch) // BAND * BAND))
    bands = [slice(y, min(y + n_rows, ny)) for y in range(0, ny, n_rows)]
    held = workspace.array("gabor responses of rows", (N_ANGLES * n_rows * pitch,), np.float32)
    made = workspace.array("gabor extremes of rows", (2 * n_rows * nx,), np.float32)
    partial = workspace.array("gabor parts of all rows", (1, N_ANGLES, 1, -(-ny // BAND), 2), np.float64)

    def responses(z: int, rows: slice) -> tuple[Array, Array]:
        found = held[: N_ANGLES * (rows.stop - rows.start) * pitch].reshape(1, N_ANGLES, 1, -1, pitch)
        around = padded[z : z + 1, rows.start : rows.stop + 2 * MARGIN]
        return found, _filter(source, group, around, responses=found)

    for z in range(nz):
        for rows in bands:
            _, of_rows = responses(z, rows)
            source.device.copy(of_rows, partial[..., rows.start // BAND : -(-rows.stop // BAND), :])
        statistics = _statistics(source, group, partial, means=means, planes=slice(z, z + 1))
        for rows in bands:
            found, _ = responses(z, rows)
            extremes = made[: 2 * (rows.stop - rows.start) * nx].reshape(2, 1, -1, nx)
            _extremes(source, (0,), found, statistics=statistics, plane=0, out=extremes)
            source.device.copy(extremes[:, 0], out[:, z, rows])


@cache
def bank_groups(banks: tuple[int, ...]) -> tuple[BankGroup, ...]:
    """Banks by size and phase."""
    kind = {i: (BANKS[i].size // 2, BANKS[i].phase) for i in banks}
    return tuple(BankGroup(*k, tuple(i for i in banks if kind[i] == k)) for k in sorted(set(kind.values())))


MOST_BANKS = max(len(group.banks) for group in bank_groups(ALL_BANKS))


def whole_tiles(n: int) -> int:
    """``n`` pixels rounded up to tiles."""
    return -(-n // TILE) * TILE


def mirror_parts(bank: GaborBank, step: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The parts of a kernel that are even and odd in x, as weights of the four pixels (±dx, ±dy).

    Parameters
    ----------
    bank : GaborBank
    step : int
        Angle in units of 18 degrees, 0..5.

    Returns
    -------
    even, odd : ndarray
        (reach + 1, reach + 1) float64, [dy, dx]; for a correlation, and half as large at offsets 0, where the kernels
        of ``gabor.cu`` count pixels twice.
    """
    taps, reach = kernel(bank, step), bank.size // 2
    if bank.phase == 2:  # odd about its centre: the response is a convolution
        taps = -taps
    right, left = taps[reach:, reach:], taps[reach:, reach::-1]
    halves = np.ones((reach + 1, reach + 1))
    halves[0] *= 0.5
    halves[:, 0] *= 0.5
    return 0.5 * (right + left) * halves, 0.5 * (right - left) * halves


def quarter_taps(bank: GaborBank) -> npt.NDArray[np.float32]:
    """Weights of ``gabor.cu``: (reach + 1, reach + 1, 10), [dy, dx, sum]."""
    parts = [mirror_parts(bank, step) for step in range(6)]
    even, odd = (range(6), range(1, 5)) if bank.phase == 0 else (range(1, 6), range(5))
    return np.stack([parts[i][0] for i in even] + [parts[i][1] for i in odd], axis=-1).astype(np.float32)


def octant_taps(bank: GaborBank) -> npt.NDArray[np.float32]:
    """Weights of ``gabor_cpu.cu``: (n_offsets, 10), from far to near.

    In phase 0 offsets are (dy, dx <= dy): the kernel of 90 degrees - angle is the transposed one, so sums and
    differences of mirrored offsets serve both. In phase 2 they are those of :func:`quarter_taps`.
    """
    if bank.phase == 2:
        return quarter_taps(bank).reshape(-1, N_ANGLES)[::-1]
    parts = [mirror_parts(bank, step) for step in range(3)]
    dy, dx = np.tril_indices(bank.size // 2 + 1)
    share = np.where(dy == dx, 0.25, 0.5)  # pixels on the diagonal are counted twice
    even = [p[0] for p in parts]
    odd = [p[1] for p in parts[1:]]
    same = {name: [share * (p[dy, dx] + p[dx, dy]) for p in ps] for name, ps in (("even", even), ("odd", odd))}
    other = {name: [share * (p[dy, dx] - p[dx, dy]) for p in ps] for name, ps in (("even", even), ("odd", odd))}
    return np.stack([*same["even"], *other["even"], *same["odd"], *other["odd"]], axis=-1)[::-1].astype(np.float32)


def tap_sums(banks: Sequence[int]) -> npt.NDArray[np.float64]:
    """Sum of the absolute taps of each kernel: (n_banks * 10,)."""
    return np.array([np.abs(kernel(BANKS[i], angle)).sum() for i in banks for angle in range(N_ANGLES)])


def _padded_planes(source: DeviceSource) -> tuple[Array, Array]:
    """The planes less a mean, mirrored, and their means, (nz, 2) float64: of the pixels; the one subtracted."""
    nz, ny, nx = source.shape
    device, workspace = source.device, source.workspace
    threads = THREADS if device.wants_gpu_plan else 1
    defines = {"THREADS": threads} if device.wants_gpu_plan else {"THREADS": 1, "ONE_THREAD": 1}
    partial = workspace.array("gabor parts of means", (nz, PARTS, 2), np.float64)
    device.launch(
        "gabor_statistics.cu",
        "gabor_sums",
        grid=(PARTS, nz),
        block=(threads,),
        args={"image": source.image, "partial": partial, "ny": ny, "nx": nx},
        defines=defines,
    )
    means = workspace.array("gabor means", (nz, 2), np.float64)
    device.launch(
        "gabor_statistics.cu",
        "gabor_means",
        grid=(nz,),
        block=(1,),
        args={"partial": partial, "means": means, "n_parts": PARTS, "ny": ny, "nx": nx},
        defines=defines,
    )
    shape = nz, ny + 2 * MARGIN, whole_tiles(nx) + whole_tiles(2 * MARGIN)
    padded = workspace.array("gabor padded", shape, np.float32)
    device.launch(
        "gabor_planes.cu",
        "gabor_pad",
        grid=(-(-shape[2] // THREADS), shape[1], nz),
        block=(THREADS,),
        args={"image": source.image, "means": means, "padded": padded, "ny": ny, "nx": nx, "pitch": shape[2]},
        defines={"THREADS": THREADS, "MARGIN": MARGIN},
    )
    return padded, means


def _filter(source: DeviceSource, group: BankGroup, padded: Array, *, responses: Array) -> Array:
    """Fill (n_banks, 10, nz, ny, pitch) float32; sums of them and of their squares: (n_banks, 10, nz, n_parts, 2)."""
    (nz, high, _), nx = padded.shape, source.shape[2]
    ny = high - 2 * MARGIN  # rows of a plane, or of the part of it that is computed
    on_gpu, n_banks = source.device.wants_gpu_plan, len(group.banks)
    if on_gpu:
        tx, ty = FILTER_BLOCK
        grid: tuple[int, ...] = (-(-nx // (tx * PIXELS)), -(-ny // ty), nz)
        n_parts = grid[0] * grid[1]
        plan = {"TX": tx, "TY": ty, "PIXELS": PIXELS}
    else:
        n_parts = -(-ny // BAND)
        grid = (n_parts,)
        plan = {"ONE_THREAD": 1, "BANKS": n_banks, "BAND": BAND}
    partial = source.workspace.array("gabor parts", (MOST_BANKS, N_ANGLES, nz, n_parts, 2), np.float64)[:n_banks]
    taps = source.workspace.constant(
        ("gabor taps", on_gpu, group),
        lambda: np.stack([(quarter_taps if on_gpu else octant_taps)(BANKS[i]) for i in group.banks]),
    )
    source.device.launch(
        "gabor.cu" if on_gpu else "gabor_cpu.cu",
        "gabor_filter" if on_gpu else "gabor_filter_cpu",
        grid=grid,
        block=FILTER_BLOCK if on_gpu else (1,),
        args={
            "padded": padded,
            "taps": taps,
            "responses": responses,
            "partial": partial,
            "ny": ny,
            "nx": nx,
            "padded_pitch": padded.shape[2],
            "pitch": responses.shape[-1],
        },
        defines={**plan, "REACH": group.reach, "PHASE": group.phase, "MARGIN": MARGIN},
    )
    return partial


def _statistics(source: DeviceSource, group: BankGroup, partial: Array, *, means: Array, planes: slice) -> Array:
    """Mean and 1 / standard deviation of each response: (n_banks, 10, nz, 2) float32."""
    n_banks, _, nz, n_parts, _ = partial.shape
    _, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    threads = 32 if on_gpu else 1
    statistics = source.workspace.array("gabor statistics", (MOST_BANKS, N_ANGLES, nz, 2), np.float32)[:n_banks]
    source.device.launch(
        "gabor_statistics.cu",
        "gabor_statistics",
        grid=(n_banks * N_ANGLES, nz),
        block=(threads,),
        args={
            "partial": partial,
            "means": means[planes],
            "extremes": source.extremes()[planes],
            "weights": source.workspace.constant(("gabor tap sums", group.banks), lambda: tap_sums(group.banks)),
            "statistics": statistics,
            "n_parts": n_parts,
            "n_pixels": ny * nx,
        },
        defines={"THREADS": threads} if on_gpu else {"THREADS": 1, "ONE_THREAD": 1},
    )
    return statistics


def _extremes(
    source: DeviceSource, channels: tuple[int, ...], responses: Array, *, statistics: Array, plane: int, out: Array
) -> None:
    """The channels of the banks, in the planes from ``plane`` on; ``channels`` has the first of each bank."""
    n_banks, _, nz, ny, pitch = responses.shape
    _, n_planes, _, nx = out.shape
    source.device.launch(
        "gabor_planes.cu",
        "gabor_extremes",
        grid=(-(-nx // THREADS), ny, n_banks * nz),
        block=(THREADS,),
        args={
            "responses": responses,
            "statistics": statistics,
            "channels": source.workspace.constant(("gabor channels", channels), lambda: np.array(channels, np.int32)),
            "result": out,
            "nz": nz,
            "first_plane": plane,
            "n_planes": n_planes,
            "nx": nx,
            "pitch": pitch,
        },
        defines={"THREADS": THREADS, "MARGIN": MARGIN},
    )
