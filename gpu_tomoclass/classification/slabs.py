"""Decide which planes are computed at once: what memory holds, less after it ran out, and only planes that are missing.

The decision is made here and nowhere else. A plan asks before the run, workers while planes are given out, and
whoever has met an error of memory says so here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import FeatureBlock
from gpu_tomoclass.outputs import size_text

MAX_SLAB = 128  # planes on a GPU; beyond, launches cost nothing any more beside the work
CPU_SLAB_BYTES = 640 * 2**20  # of features across planes at once on a CPU, and at most so many planes: the halo of a
CPU_SLAB = 32  # slab of one plane would cost many times what the plane does
MEMORY_SHARE = 0.8  # used of a GPU's free memory; fragments and other programs need the rest

Needed = Callable[[int, int], int]  # (threads, planes that each has at once) -> bytes of the process


@dataclass(frozen=True)
class SlabMemory:
    """Bytes that computing threads allocate.

    Attributes
    ----------
    shared : int
        On the device, once for all threads: the forest.
    fixed, per_plane : int
        On the device, for each thread, and that for each plane at once.
    host_per_plane : int
        Beside a GPU's memory, for each thread and plane at once: its pinned memory and what is made of it.
    """

    shared: int
    fixed: int
    per_plane: int
    host_per_plane: int = 0

    def bytes(self, n_planes: int, *, n_threads: int = 1) -> int:
        """On the device."""
        return self.shared + n_threads * (self.fixed + n_planes * self.per_plane)


def side_by_side(device: Device, blocks: Sequence[FeatureBlock]) -> tuple[Device, int]:
    """The device for a thread that computes one of several slabs, and how many threads keep it busy.

    Across planes compiled kernels take one slab after the other, each with all cores: halos of slabs side by side would
    take memory, and kernels of a slab have enough to do.
    """
    if device.name == "native" and any(block.dimensions == 3 for block in blocks):
        return device, 1
    return device.side_by_side()


def cpu_planes(blocks: Sequence[FeatureBlock], plane_pixels: int) -> int:
    """Planes that a CPU computes at once: one, unless these blocks look across planes."""
    if all(block.dimensions == 2 for block in blocks):
        return 1
    n_channels = sum(len(block.channels) for block in blocks)
    return max(1, min(CPU_SLAB, CPU_SLAB_BYTES // (4 * n_channels * plane_pixels)))


def gpu_planes(memory: SlabMemory, *, free: int, n_threads: int = 1, limit: int | None = None) -> int:
    """Planes at once for each of some threads on a GPU; at least one.

    Parameters
    ----------
    memory : SlabMemory
        Measured or planned.
    free : int
        Bytes that this run could have, those that it has already included.
    n_threads : int
    limit : int, optional
        Bytes that the user allows; they are used up, of free memory only a share.
    """
    usable = MEMORY_SHARE * (free - memory.shared) if limit is None else min(free, limit) - memory.shared
    of_thread = int(usable) // n_threads - memory.fixed
    return max(1, min(MAX_SLAB, of_thread // memory.per_plane))


def threads_within(limit: int, needed: Needed, *, device: Device, blocks: Sequence[FeatureBlock]) -> int:
    """Number of threads of a CPU device that keep the process within ``limit`` bytes.

    Raises
    ------
    ResourceError
        If not even one does.
    """
    _, most = device.side_by_side()
    slabs_at_once = side_by_side(device, blocks)[1]
    fitting = [n for n in range(1, slabs_at_once + 1) if needed(n, 1) <= limit]
    if not fitting:
        raise ResourceError(
            f"one thread needs {size_text(needed(1, 1))} of memory, the limit is {size_text(limit)}",
            do="raise --memory-limit, or train with fewer features",
        )
    return fitting[-1] if slabs_at_once == most else most


def planes_within(limit: int, needed: Needed, *, most: int) -> int:
    """Number of planes at once, at most so many, that keep one thread of a CPU within ``limit`` bytes; at least one."""
    return next((n for n in range(most, 1, -1) if needed(1, n) <= limit), 1)


class SlabSize:
    """Number of planes that each thread computes at once in a run: chosen once, then only made smaller.

    Parameters
    ----------
    device : Device
    blocks : sequence of FeatureBlock
        What is computed.
    n_threads : int
        How many compute at the same time.
    plane_pixels : int, optional
        Of the planes, for the choice on a CPU; without it a CPU takes one plane at a time.
    fixed : int, optional
        A number of planes that the user asked for, which is never changed.
    memory_limit : int, optional
        Bytes of a GPU's memory that the choice has to fit; default a share of what is free.
    most : int, optional
        Never more planes than this.

    Attributes
    ----------
    n_threads : int
        How many may compute at the same time now.
    """

    def __init__(
        self,
        device: Device,
        blocks: Sequence[FeatureBlock],
        *,
        n_threads: int = 1,
        plane_pixels: int | None = None,
        fixed: int | None = None,
        memory_limit: int | None = None,
        most: int = MAX_SLAB,
    ) -> None:
        self.n_threads, self.fixed = n_threads, fixed
        self._device, self._limit, self._most = device, memory_limit, most
        self._on_cpu = 1 if plane_pixels is None else cpu_planes(blocks, plane_pixels)
        self._chosen: int | None = None

    def planes(self, measured: SlabMemory | None = None) -> int:
        """Planes to compute at once; on a GPU one, until it is ``measured`` what a plane takes there."""
        if self.fixed is not None:
            return self.fixed
        if not self._device.has_own_memory:
            return min(self._on_cpu, self._most)
        if measured is None:
            return 1
        if self._chosen is None:
            free = (self._device.free_memory() or 0) + measured.bytes(1, n_threads=self.n_threads)
            self._chosen = gpu_planes(measured, free=free, n_threads=self.n_threads, limit=self._limit)
        return min(self._chosen, self._most)

    def take_less(self, n_planes: int, *, n_threads: int = 1) -> str | None:
        """Take smaller slabs, or where they cannot be smaller fewer threads, from now on.

        Parameters
        ----------
        n_planes : int
            How many were computed at once when memory ran out.
        n_threads : int
            How many threads ran then.

        Returns
        -------
        str or None
            What was changed, for a note; None if nothing can be: one thread has too little for one plane, or for the
            slab that the user fixed.
        """
        if self.fixed is None and n_planes > 1:
            half = (n_planes + 1) // 2
            self._most = min(self._most, half)
            return f"slabs are halved to {half} planes"
        if n_threads > 1:
            self.n_threads = min(self.n_threads, n_threads - 1)
            return f"going on with {self.n_threads} thread{'s' if self.n_threads > 1 else ''}"
        return None


def runs(todo: np.ndarray, *, most: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Split planes into runs that follow each other without a gap.

    Parameters
    ----------
    todo : numpy.ndarray
        Rising numbers of planes.
    most : callable
        Planes that are left -> how many the next run may have; asked anew for each run.

    Yields
    ------
    (start, stop)
    """
    i = 0
    while i < todo.size:
        most_now, n = most(todo.size - i), 1
        while n < most_now and i + n < todo.size and todo[i + n] == todo[i] + n:
            n += 1
        yield int(todo[i]), int(todo[i]) + n
        i += n


def planes_to_share(n_left: int, *, preferred: Iterable[int], n_slabs: int, fixed: int | None = None) -> int:
    """Planes to give at once to workers elsewhere: what the least of them holds, fewer towards the end.

    Parameters
    ----------
    n_left : int
        Planes that nobody has yet.
    preferred : iterable of int
        What each worker has said that its memory holds.
    n_slabs : int
        How many slabs are given out at the same time; with the last planes shared among them, all end together.
    fixed : int, optional
        A number that the user asked for.
    """
    if fixed is not None:
        return fixed
    return max(1, min(min(preferred, default=1), n_left // n_slabs))
