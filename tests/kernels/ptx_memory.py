"""Memory of a simulated launch: exact bounds, races, reads of what nobody wrote, sectors and bank conflicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ptx_parse import PtxError

SECTOR = 32  # bytes: what device memory and caches move at once
BANKS = 32
SHARED_TAG, LOCAL_TAG = 1 << 44, 1 << 45  # generic addresses of the two spaces lie there
RANK_BIT = 24  # from here, addresses in shared memory have 1 + the number of a block in its cluster; 0 is the own block
FIRST_ADDRESS = 0x7F0000000000
NOBODY, SEVERAL, ATOMICALLY, HOST = -1, -2, -3, -4


class Threads:
    """Who is who: thread i of the launch is thread ``i % per_block`` of block ``i // per_block``."""

    def __init__(self, n_blocks: int, per_block: int, *, cluster: int = 1) -> None:
        self.n_blocks, self.per_block, self.n = n_blocks, per_block, n_blocks * per_block
        index = np.arange(self.n)
        self.all = index
        self.block = index // per_block
        self.n_cluster, self.cluster = cluster, self.block // cluster
        self.in_block = index % per_block
        self.lane = self.in_block % 32
        self.warp = self.block * -(-per_block // 32) + self.in_block // 32


class Moment(NamedTuple):
    """Who does something, and when: threads with their blocks, warps and clusters; barriers of the block so far,
    ``__syncwarp`` of the warp, barriers of the cluster."""

    me: np.ndarray
    block: np.ndarray
    warp: np.ndarray
    cluster: np.ndarray
    epoch: np.ndarray
    turn: np.ndarray
    meeting: np.ndarray


class Shadow:
    """For each granule of a memory: who wrote it last and who read it, and before which barrier.

    Two threads conflict if one of them writes and no barrier of their block stands between them, nor a ``__syncwarp``
    where they are of one warp; threads of two blocks conflict always, but where they are of one cluster and one of its
    barriers stands between them. Atomic accesses do not conflict with each other.
    """

    def __init__(self, n_bytes: int, granule: int, threads: Threads) -> None:
        n = -(-n_bytes // granule)
        self.granule, self.threads, self.in_clusters = granule, threads, threads.n_cluster > 1
        self.is_constant = self.is_written = False  # as some access in this launch has it
        self.writer = np.full(n, NOBODY)
        self.writer_block = np.full(n, NOBODY)
        self.writer_warp = np.full(n, NOBODY)
        self.writer_epoch = np.full(n, -1)
        self.writer_turn = np.full(n, -1)
        self.reader = np.full(n, NOBODY)
        self.reader_block = np.full(n, NOBODY)
        self.reader_warp = np.full(n, NOBODY)
        self.reader_epoch = np.full(n, -1)
        self.reader_turn = np.full(n, -1)
        if self.in_clusters:
            self.writer_cluster, self.reader_cluster = np.full(n, NOBODY), np.full(n, NOBODY)
            self.writer_meeting, self.reader_meeting = np.full(n, -1), np.full(n, -1)

    def cells(self, offset: np.ndarray, size: int) -> list[np.ndarray]:
        """The granules of accesses at byte offsets, one array per granule of an access."""
        first = offset // self.granule
        return [first + i for i in range(max(1, size // self.granule))]

    def read(self, cell: np.ndarray, now: Moment) -> dict[str, int]:
        found = {
            "read of what another thread writes": self._conflicts(cell, now, written=True, is_atomic=False),
            "read of memory that nobody wrote": int((self.writer[cell] == NOBODY).sum()),
        }
        me, block, warp, cluster = now.me, now.block, now.warp, now.cluster
        fresh = (self.reader_epoch[cell] != now.epoch) & (self.reader_block[cell] == block)
        fresh |= (self.reader_turn[cell] != now.turn) & (self.reader_warp[cell] == warp)
        if self.in_clusters:
            fresh |= (self.reader_meeting[cell] != now.meeting) & (self.reader_cluster[cell] == cluster)
        fresh |= self.reader[cell] == NOBODY
        same = fresh | (self.reader[cell] == me)
        other_block = ~fresh & (self.reader_block[cell] != block)
        other_warp = ~fresh & (self.reader_warp[cell] != warp)
        self.reader[cell] = np.where(same, me, SEVERAL)
        self.reader_block[cell] = np.where(other_block, SEVERAL, block)
        self.reader_warp[cell] = np.where(other_warp, SEVERAL, warp)
        self.reader_epoch[cell], self.reader_turn[cell] = now.epoch, now.turn
        if self.in_clusters:
            self.reader_cluster[cell] = np.where(~fresh & (self.reader_cluster[cell] != cluster), SEVERAL, cluster)
            self.reader_meeting[cell] = now.meeting
        if (cell[1:] > cell[:-1]).all():
            return found
        # Several threads may read one granule in one instruction; the last assignment won, so mark those.
        order = np.argsort(cell, kind="stable")
        equal = cell[order][1:] == cell[order][:-1]
        if equal.any():
            first, second = order[:-1][equal], order[1:][equal]
            self.reader[cell[first[me[first] != me[second]]]] = SEVERAL
            self.reader_block[cell[first[block[first] != block[second]]]] = SEVERAL
            self.reader_warp[cell[first[warp[first] != warp[second]]]] = SEVERAL
            if self.in_clusters:
                self.reader_cluster[cell[first[cluster[first] != cluster[second]]]] = SEVERAL
        return found

    def write(self, cell: np.ndarray, now: Moment) -> dict[str, int]:
        found = {
            "write of what another thread writes": self._conflicts(cell, now, written=True, is_atomic=False)
            + cell.size - n_distinct(cell),
            "write of what another thread reads": self._conflicts(cell, now, written=False, is_atomic=False),
        }  # fmt: skip
        self.writer[cell], self.writer_block[cell], self.writer_warp[cell] = now.me, now.block, now.warp
        self.writer_epoch[cell], self.writer_turn[cell] = now.epoch, now.turn
        if self.in_clusters:
            self.writer_cluster[cell], self.writer_meeting[cell] = now.cluster, now.meeting
        return found

    def update(self, cell: np.ndarray, now: Moment) -> dict[str, int]:
        """An atomic access."""
        found = {
            "atomic access to what another thread writes": self._conflicts(cell, now, written=True, is_atomic=True),
            "atomic access to what another thread reads": self._conflicts(cell, now, written=False, is_atomic=True),
            "atomic access to memory that nobody wrote": int((self.writer[cell] == NOBODY).sum()),
        }
        block, warp, cluster = now.block, now.warp, now.cluster
        is_atomic = self.writer[cell] == ATOMICALLY
        same_epoch = self.writer_epoch[cell] == now.epoch  # an earlier one is past for every warp of the block
        shared = is_atomic & (self.writer_block[cell] != block)
        if self.in_clusters:
            shared &= (self.writer_cluster[cell] != cluster) | (self.writer_meeting[cell] == now.meeting)
        of_warps = is_atomic & (self.writer_warp[cell] != warp) & (same_epoch | shared)
        self.writer[cell] = ATOMICALLY
        self.writer_block[cell] = np.where(shared, SEVERAL, block)
        self.writer_warp[cell] = np.where(of_warps, SEVERAL, warp)
        self.writer_epoch[cell], self.writer_turn[cell] = now.epoch, now.turn
        if self.in_clusters:
            self.writer_cluster[cell] = np.where(shared & (self.writer_cluster[cell] != cluster), SEVERAL, cluster)
            self.writer_meeting[cell] = now.meeting
        order = np.argsort(cell, kind="stable")
        equal = cell[order][1:] == cell[order][:-1]
        self.writer_block[cell[order][1:][equal & (block[order][1:] != block[order][:-1])]] = SEVERAL
        self.writer_warp[cell[order][1:][equal & (warp[order][1:] != warp[order][:-1])]] = SEVERAL
        if self.in_clusters:
            self.writer_cluster[cell[order][1:][equal & (cluster[order][1:] != cluster[order][:-1])]] = SEVERAL
        return found

    def _conflicts(self, cell: np.ndarray, now: Moment, *, written: bool, is_atomic: bool) -> int:
        who = (self.writer if written else self.reader)[cell]
        concerned = (who != NOBODY) & (who != HOST) & (who != now.me)
        if is_atomic:
            concerned &= who != ATOMICALLY
        if not concerned.any():
            return 0
        of = "writer" if written else "reader"
        block, warp, epoch, turn = (getattr(self, f"{of}_{what}")[cell] for what in ("block", "warp", "epoch", "turn"))
        met = (warp == now.warp) & (turn != now.turn)  # of one warp, with a __syncwarp between them
        concerned &= ~met
        apart = block != now.block
        if self.in_clusters:  # a barrier of the cluster may stand between two blocks
            cluster, meeting = (getattr(self, f"{of}_{what}")[cell] for what in ("cluster", "meeting"))
            concerned &= ~apart | (cluster != now.cluster) | (meeting == now.meeting)
        return int((concerned & (apart | (epoch == now.epoch))).sum())


@dataclass
class Buffer:
    """An array of device memory at a simulated address."""

    name: str
    base: int
    content: np.ndarray  # flat bytes
    shadow: Shadow | None


class GlobalMemory:
    """Arrays at addresses far apart; every access outside of them is an error."""

    def __init__(self, arrays: dict[str, np.ndarray], threads: Threads, *, constant: set[str]) -> None:
        self.buffers: list[Buffer] = []
        address = FIRST_ADDRESS
        for name, array in arrays.items():
            content = array.reshape(-1).view(np.uint8)
            shadow = None
            if name not in constant:
                shadow = Shadow(array.nbytes, min(array.dtype.itemsize, 4), threads)
                shadow.writer[:] = HOST  # before the launch
            self.buffers.append(Buffer(name, address, content, shadow))
            address += -(-array.nbytes // 4096) * 4096 + 4096
        self.bases = np.array([b.base for b in self.buffers], dtype=np.int64)

    def address(self, name: str) -> int:
        return next(b.base for b in self.buffers if b.name == name)

    def locate(self, address: np.ndarray, size: int) -> list[tuple[Buffer, slice | np.ndarray, np.ndarray]]:
        """(buffer, which accesses, byte offsets) for each buffer that is accessed.

        Raises
        ------
        PtxError
            If an access is misaligned or not wholly inside a buffer; ``.args[1]`` is the number of that access.
        """
        if (address % size).any():
            raise PtxError(f"misaligned access of {size} bytes", int(np.flatnonzero(address % size)[0]))
        number = np.searchsorted(self.bases, address, side="right") - 1
        if (number == number[0]).all():  # nearly always: one instruction, one array
            return [self._within(int(number[0]), slice(None), address, size)]
        return [self._within(int(k), np.flatnonzero(number == k), address, size) for k in distinct(number)]

    def _within(
        self, k: int, which: slice | np.ndarray, address: np.ndarray, size: int
    ) -> tuple[Buffer, slice | np.ndarray, np.ndarray]:
        buffer = self.buffers[max(k, 0)]
        offset = address[which] - buffer.base  # negative below the first buffer, where k is -1
        wrong = (offset < 0) | (offset + size > buffer.content.size)
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            place = f"byte {int(offset[i])} of {buffer.name!r}, which has {buffer.content.size}"
            at = f"access out of bounds: {place}" if k >= 0 else f"access at address {int(address[which][i])}"
            raise PtxError(at, int(np.arange(address.size)[which][i]))
        return buffer, which, offset


class SharedMemory:
    """One piece per block, poisoned with NaN."""

    def __init__(self, n_bytes: int, threads: Threads, *, granule: int) -> None:
        self.n_bytes, self.threads = n_bytes, threads
        self.stride = -(-n_bytes // 16) * 16
        self.content = np.full(threads.n_blocks * self.stride, 0xFF, np.uint8)
        self.shadow = Shadow(self.content.size, granule, threads)

    def locate(self, offset: np.ndarray, size: int, me: np.ndarray) -> np.ndarray:
        """Byte offsets in ``content``.

        Raises
        ------
        PtxError
            If an access is misaligned or out of bounds.
        """
        rank, offset = offset >> RANK_BIT, offset & (2**RANK_BIT - 1)
        if (rank > self.threads.n_cluster).any():
            i = int(np.flatnonzero(rank > self.threads.n_cluster)[0])
            raise PtxError(f"shared access to block {int(rank[i]) - 1} of a cluster of {self.threads.n_cluster}", i)
        wrong = (offset % size != 0) | (offset < 0) | (offset + size > self.n_bytes)
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise PtxError(f"shared access of {size} bytes at byte {int(offset[i])} of {self.n_bytes}", i)
        own, n = self.threads.block[me], self.threads.n_cluster
        return np.where(rank > 0, own // n * n + rank - 1, own) * self.stride + offset


def distinct(values: np.ndarray) -> np.ndarray:
    """As numpy.unique, which puts values into a table: for few of them sorting is several times as fast."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if values.size else values


def n_distinct(values: np.ndarray) -> int:
    values = np.sort(values)
    return int(np.count_nonzero(values[1:] != values[:-1])) + (values.size > 0)


def count_sectors(counts: Counter[str], kind: str, address: np.ndarray, warp: np.ndarray) -> None:
    """Sectors of device memory per request of a warp, as if there were no cache."""
    sector = address // SECTOR  # aligned accesses of at most 16 bytes: each within one
    counts[f"{kind} sectors"] += n_distinct((warp << 43) | sector)  # addresses have less than 48 bits
    counts[f"{kind} requests"] += n_distinct(warp)


def count_conflicts(counts: Counter[str], offset: np.ndarray, size: int, warp: np.ndarray, lane: np.ndarray) -> None:
    """Wavefronts of shared memory: 32 lanes at once, 16 for 8 bytes each, 8 for 16 bytes each."""
    lanes_at_once = 32 * 4 // max(size, 4)
    group = warp * 8 + lane // lanes_at_once
    words = distinct(np.concatenate([(group << 20) | (offset // 4 + i) for i in range(max(1, size // 4))]))
    group_bank, n_words = np.unique((words >> 20) * BANKS + words % BANKS, return_counts=True)
    groups, start = np.unique(group_bank // BANKS, return_index=True)
    counts["shared wavefronts"] += int(np.maximum.reduceat(n_words, start).sum())
    counts["shared wavefronts needed"] += groups.size
