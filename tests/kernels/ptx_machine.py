"""Executes a PTX kernel: all threads in lockstep, one NumPy operation per instruction.

Each thread has a program counter; the lowest one among the runnable threads is executed for all threads that stand
there, which brings diverged threads of structured code together again. What a GPU would do wrong silently is an error
(out of bounds, wrong warp masks, divergent barriers) or a counted fault (races, reads of unwritten shared memory).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import ptx_access
import ptx_warp
from ptx_arithmetic import LOGIC, OPERATIONS, compare, flush
from ptx_memory import LOCAL_TAG, RANK_BIT, SHARED_TAG, GlobalMemory, SharedMemory, Threads, n_distinct
from ptx_parse import Instruction, PtxError, PtxKernel, dtype_of, literal, split_operands
from ptx_warp import UINT32

MAX_STEPS = 5_000_000
RUNNING, WAITING, DONE, MEETING = 0, 1, 2, 3  # waiting for the block; for the cluster
BOOL = np.dtype(bool)
CONTROL = frozenset({"bra", "ret", "exit", "bar", "barrier", "membar", "fence"})  # fences do nothing here
Reader = Callable[[np.ndarray], np.ndarray]  # of some threads: their values
Step = Callable[[np.ndarray, np.ndarray], None]
# Sources whose type is not the instruction's last one.
SHIFT_AMOUNTS = {"shl": (1,), "shr": (1,), "shf": (2,), "bfe": (1, 2), "bfi": (2, 3)}


class Machine:
    """One launch.

    Parameters
    ----------
    kernel : PtxKernel
    grid, block : (x, y, z)
    arguments : sequence
        In the order of the parameters: names of ``arrays``, and NumPy scalars.
    arrays : dict of str to numpy.ndarray
        Device memory; written in place.
    counted : bool
        Whether sectors and bank conflicts are counted, which takes a third of the time.
    given : int
        Bytes of shared memory that each block is given.

    Attributes
    ----------
    counts : Counter
        Instructions, sectors, conflicts, barriers.
    faults : Counter
        Races and reads of unwritten shared memory, with the instruction.
    """

    def __init__(
        self,
        kernel: PtxKernel,
        *,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        arrays: dict[str, np.ndarray],
        counted: bool = True,
        given: int = 0,
    ) -> None:
        self.kernel, self.counted = kernel, counted
        per_block, n_blocks = int(np.prod(block)), int(np.prod(grid))
        if kernel.max_threads is not None and per_block > kernel.max_threads:
            raise PtxError(f"{kernel.name}: {per_block} threads, __launch_bounds__ says {kernel.max_threads}")
        if grid[0] % kernel.cluster:
            raise PtxError(f"{kernel.name}: {grid[0]} blocks along x are no multiple of the cluster's {kernel.cluster}")
        self.threads = Threads(n_blocks, per_block, cluster=kernel.cluster)
        self.special = _special_registers(self.threads, grid, block)
        constants = {f"constant {name}": values.copy() for name, values in kernel.constants.items()}
        self.memory = GlobalMemory({**arrays, **constants}, self.threads, constant=set(constants))
        n_shared = max((start + size for start, size in kernel.shared.values()), default=0)
        n_shared = n_shared if kernel.given is None else max(n_shared, kernel.given + given)
        self.shared = SharedMemory(n_shared, self.threads, granule=1 if kernel.has_narrow_shared_access() else 4)
        n_local = max((start + size for start, size in kernel.local.values()), default=0)
        self.local = np.full((self.threads.n, -(-n_local // 16) * 16), 0xFF, np.uint8)
        self.epoch = np.zeros(n_blocks, dtype=np.int64)  # barriers so far
        self.meeting = np.zeros(n_blocks // kernel.cluster, dtype=np.int64)  # barriers of clusters so far
        self.turn = np.zeros(int(self.threads.warp[-1]) + 1, dtype=np.int64)  # of warps: __syncwarp so far
        self.parameters = self._parameters(arguments)
        self.registers: dict[str, np.ndarray] = {}
        self.readers: dict[tuple[str, int], Reader] = {}
        self.steps: list[Step | None] = [None] * len(kernel.code)  # what was executed before need not be read again
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.counter = np.zeros(self.threads.n, dtype=np.int64)
        self.state = np.full(self.threads.n, RUNNING, dtype=np.int8)

    def _parameters(self, arguments: Sequence[Any]) -> dict[str, bytes]:
        sizes = self.kernel.parameters
        if len(arguments) != len(sizes):
            raise PtxError(f"{self.kernel.name}: {len(arguments)} arguments for {len(sizes)} parameters")
        values = {}
        for (name, size), argument in zip(sizes.items(), arguments, strict=True):
            value = np.uint64(self.memory.address(argument)) if isinstance(argument, str) else argument
            raw = np.asarray(value).tobytes()
            if len(raw) != size:
                raise PtxError(f"{self.kernel.name}: {name} is given {len(raw)} bytes and takes {size}")
            values[name] = raw
        return values

    # -- the loop ----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Run all threads to their end."""
        code, steps = self.kernel.code, 0
        with np.errstate(all="ignore"):
            while True:
                running = self.state == RUNNING
                if not running.any():
                    if (self.state == DONE).all():
                        return
                    self._release_barrier()
                    continue
                at = int(self.counter[running].min())
                lanes = np.flatnonzero(running & (self.counter == at))
                if at >= len(code):
                    self.state[lanes] = DONE
                    continue
                end = self.kernel.block_ends[at]
                steps += end - at
                if steps > MAX_STEPS:
                    raise PtxError(f"{self.kernel.name}: more than {MAX_STEPS} steps")
                self._run_block(at, end, lanes)

    def _run_block(self, at: int, end: int, lanes: np.ndarray) -> None:
        code, steps = self.kernel.code, self.steps
        self.counts["warp instructions"] += (end - at) * n_distinct(self.threads.warp[lanes])
        self.counts["thread instructions"] += (end - at) * lanes.size
        self.counter[lanes] = end
        for i in range(at, end):
            c, active = code[i], lanes
            try:
                if c.guard is not None:
                    holds = self.get(c.guard, BOOL, lanes)
                    active = lanes[~holds if c.guard_negated else holds]
                step = steps[i]
                if step is None:
                    step = steps[i] = self._step_of(c)
                step(active, lanes)
            except PtxError as error:
                message, *which = error.args
                if which:
                    thread = active[which[0]]
                    block, inside = self.threads.block[thread], self.threads.in_block[thread]
                    message = f"{message} by thread {inside} of block {block}"
                raise PtxError(f"{self.kernel.name}: {message}: {c.text}") from None

    def _step_of(self, c: Instruction) -> Step:
        """What an instruction does, given the threads that its guard lets through and all that stand there."""
        if c.op in CONTROL:
            return partial(self._control, c)
        execute = self._execution_of(c)

        def step(active: np.ndarray, lanes: np.ndarray) -> None:
            if active.size:
                execute(active)

        return step

    def _control(self, c: Instruction, active: np.ndarray, lanes: np.ndarray) -> None:
        if c.op == "bra":
            self.counter[active] = self.kernel.labels[c.operands[0]]
        elif c.op in ("ret", "exit"):
            self.state[active] = DONE
        elif c.op in ("bar", "barrier"):
            if "warp" in c.mods:
                ptx_warp.meet(self, c, active)
            elif "cluster" in c.mods:
                self._meet_in_cluster(c, active, lanes)
            elif active.size != lanes.size:
                raise PtxError("a barrier that only some threads reach")
            else:
                self.state[active] = WAITING

    def _meet_in_cluster(self, c: Instruction, active: np.ndarray, lanes: np.ndarray) -> None:
        """``barrier.cluster``: arriving and waiting are one, as nothing may stand between them in our kernels."""
        if active.size != lanes.size:
            raise PtxError("a barrier that only some threads reach")
        after = self.kernel.code[int(self.counter[active[0]])]
        if "arrive" not in c.mods:
            self.state[active] = MEETING
        elif after.op != "barrier" or "wait" not in after.mods:
            raise PtxError("arrival at a barrier of the cluster that is not waited for at once")

    def _release_cluster(self) -> None:
        threads, meeting = self.threads, self.state == MEETING
        for cluster in np.unique(threads.cluster[meeting]):
            inside = threads.cluster == cluster
            if (self.state[inside] == DONE).any():
                self.faults["a barrier that a part of the cluster has left behind"] += 1
            self.meeting[cluster] += 1
            self.epoch[np.unique(threads.block[inside])] += 1
            self.counts["cluster barriers"] += 1
        self.state[meeting] = RUNNING

    def _release_barrier(self) -> None:
        waiting = self.state == WAITING
        if not waiting.any():
            self._release_cluster()
            return
        for block in np.unique(self.threads.block[waiting]):
            part = slice(block * self.threads.per_block, (block + 1) * self.threads.per_block)
            if (self.state[part] == DONE).any():
                self.faults["a barrier that a part of the block has left behind"] += 1
            if np.unique(self.counter[part][self.state[part] == WAITING]).size > 1:
                raise PtxError(f"{self.kernel.name}: the threads of block {block} wait at different barriers")
            self.epoch[block] += 1
            self.counts["barriers"] += 1
        self.state[waiting] = RUNNING

    # -- operands ----------------------------------------------------------------------------------------------------
    def get(self, operand: str, dtype: np.dtype, lanes: np.ndarray) -> np.ndarray:
        """Values of an operand as ``dtype`` for some threads; not to be written to."""
        return self._reader_of(operand, dtype)(lanes)

    def _reader_of(self, operand: str, dtype: np.dtype) -> Reader:
        reader = self.readers.get((operand, dtype.num))
        if reader is None:
            reader = self.readers[operand, dtype.num] = self._new_reader(operand, dtype)
        return reader

    def _new_reader(self, operand: str, dtype: np.dtype) -> Reader:
        if operand.startswith("!"):
            plain = self._reader_of(operand[1:], dtype)
            return lambda lanes: ~plain(lanes)
        registers, n = self.registers, self.threads.n
        if not operand.startswith("%") and operand not in self.special:
            everywhere = np.full(n, self._immediate(operand, dtype))
            everywhere.flags.writeable = False
            return lambda lanes: everywhere[: lanes.size]
        fixed = self.special.get(operand)

        def read(lanes: np.ndarray) -> np.ndarray:
            stored = registers.get(operand, fixed)
            if stored is None:
                raise PtxError(f"read of the register {operand}, which nobody wrote")
            values = stored if lanes.size == n else stored[lanes]
            return values if values.dtype == dtype else _as_type(values, dtype)

        return read

    def _immediate(self, operand: str, dtype: np.dtype) -> np.generic:
        number = literal(operand)
        if number is None:
            if operand in self.kernel.shared:
                number = np.uint64(self.kernel.shared[operand][0] | SHARED_TAG)
            elif operand in self.kernel.local:
                number = np.uint64(self.kernel.local[operand][0] | LOCAL_TAG)
            elif operand in self.kernel.constants:
                number = np.uint64(self.memory.address(f"constant {operand}"))
            elif dtype.kind == "b":
                number = np.bool_(int(operand, 0) != 0)
            else:
                bits = int(operand.rstrip("U"), 0) & (2 ** (8 * dtype.itemsize) - 1)
                number = np.array(bits, np.uint64).astype(f"u{dtype.itemsize}").view(dtype)[()]
        return _as_type(np.full(1, number), dtype)[0] if number.dtype != dtype else number

    def put(self, register: str, values: np.ndarray, lanes: np.ndarray) -> None:
        """Write a register of some threads."""
        if register == "_":
            return
        stored = self.registers.get(register)
        if stored is None:
            stored = np.zeros(self.threads.n, dtype_of(self.kernel.register_type(register)))
            self.registers[register] = stored
        if values.dtype != stored.dtype:
            values = _as_type(values, stored.dtype)
        if lanes.size == stored.size:
            stored[:] = values
        else:
            stored[lanes] = values

    # -- instructions ------------------------------------------------------------------------------------------------
    def _execution_of(self, c: Instruction) -> Callable[[np.ndarray], None]:
        special = _SPECIAL.get(c.op)
        if special is not None:
            return partial(special, self, c)
        function = OPERATIONS.get(c.op)
        if function is None:
            raise PtxError("an instruction that the interpreter does not know")
        to, *operands = c.operands
        if c.types[-1:] == ("pred",):
            logic = np.logical_not if c.op == "not" else LOGIC[c.op]
            bits = [self._reader_of(o, BOOL) for o in operands]
            return lambda lanes: self.put(to, logic(*(read(lanes) for read in bits)), lanes)
        dtype, amounts = dtype_of(c.types[-1]), SHIFT_AMOUNTS.get(c.op, ())
        sources = [self._reader_of(o, self._source_type(c, i, dtype, amounts)) for i, o in enumerate(operands)]
        if "ftz" in c.mods:
            return lambda lanes: self.put(to, flush(function(c, *(flush(read(lanes)) for read in sources))), lanes)
        return lambda lanes: self.put(to, function(c, *(read(lanes) for read in sources)), lanes)

    @staticmethod
    def _source_type(c: Instruction, i: int, dtype: np.dtype, amounts: tuple[int, ...]) -> np.dtype:
        if i in amounts:
            return np.dtype(np.uint32)
        if i == 2 and "wide" in c.mods:
            return np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
        return dtype

    def move(self, c: Instruction, lanes: np.ndarray) -> None:
        """``mov``, which also packs ``{a, b}`` into a wider register and the other way round."""
        to, source = c.operands[0], c.operands[1]
        dtype = dtype_of(c.types[-1])
        if to.startswith("{"):
            parts = split_operands(to.strip("{}"))
            narrow = np.dtype(f"u{dtype.itemsize // len(parts)}")
            values = np.ascontiguousarray(self.get(source, dtype, lanes)).view(narrow).reshape(lanes.size, len(parts))
            for i, register in enumerate(parts):
                self.put(register, values[:, i], lanes)
        elif source.startswith("{"):
            parts = split_operands(source.strip("{}"))
            narrow = np.dtype(f"u{dtype.itemsize // len(parts)}")
            values = np.stack([self.get(p, narrow, lanes) for p in parts], axis=1)
            self.put(to, np.ascontiguousarray(values).view(dtype)[:, 0], lanes)
        else:
            self.put(to, self.get(source, dtype, lanes), lanes)

    def set_predicate(self, c: Instruction, lanes: np.ndarray) -> None:
        dtype = dtype_of(c.types[-1])
        a, b = (self.get(o, dtype, lanes) for o in c.operands[1:3])
        if "ftz" in c.mods:
            a, b = flush(a), flush(b)
        holds = compare(c, a, b)
        fails = ~holds
        combine = next((LOGIC[m] for m in c.mods[1:] if m in LOGIC), None)
        if combine is not None:
            other = self.get(c.operands[3], BOOL, lanes)
            holds, fails = combine(holds, other), combine(fails, other)
        first, _, second = c.operands[0].partition("|")
        self.put(first, holds, lanes)
        if second:
            self.put(second, fails, lanes)

    def select(self, c: Instruction, lanes: np.ndarray) -> None:
        dtype = dtype_of(c.types[-1])
        a, b = (self.get(o, dtype, lanes) for o in c.operands[1:3])
        self.put(c.operands[0], np.where(self.get(c.operands[3], BOOL, lanes), a, b), lanes)


def _special_registers(threads: Threads, grid: Sequence[int], block: Sequence[int]) -> dict[str, np.ndarray]:
    t, b = threads.in_block, threads.block
    values = {"%laneid": threads.lane, "%warpid": t // 32, "WARP_SZ": np.full(threads.n, 32)}
    for axis, i in zip("xyz", range(3), strict=True):
        values[f"%tid.{axis}"] = t // int(np.prod(block[:i])) % block[i]
        values[f"%ctaid.{axis}"] = b // int(np.prod(grid[:i])) % grid[i]
        values[f"%ntid.{axis}"] = np.full(threads.n, block[i])
        values[f"%nctaid.{axis}"] = np.full(threads.n, grid[i])
    return {name: v.astype(np.uint32) for name, v in values.items()}


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same bits; a wider register gives its lower part, a narrower one is extended."""
    own = values.dtype
    if (own.kind == "b") != (dtype.kind == "b"):
        raise PtxError("a predicate used as a number")
    if own.itemsize == dtype.itemsize:
        return np.ascontiguousarray(values).view(dtype)
    if own.itemsize > dtype.itemsize:
        return np.ascontiguousarray(values).view(f"u{own.itemsize}").astype(f"u{dtype.itemsize}").view(dtype)
    if dtype.kind == "f":
        raise PtxError(f"{own} used as {dtype}")
    return np.ascontiguousarray(values).view(f"{dtype.kind}{own.itemsize}").astype(dtype)


def _move_address(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    address = machine.get(c.operands[1], np.dtype(np.uint64), lanes)
    if c.mods[:1] == ("shared",):  # of shared memory, to a generic one
        address = address | np.uint64(SHARED_TAG)
    machine.put(c.operands[0], address, lanes)


def _map_address(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``mapa``: the same place in another block of the cluster."""
    address, rank = machine.get(c.operands[1], np.dtype(np.uint64), lanes), machine.get(c.operands[2], UINT32, lanes)
    rank = np.minimum(rank, 2**6)  # what a cluster does not have is an error where it is accessed
    own = np.uint64(2**RANK_BIT - 1 | SHARED_TAG)
    machine.put(c.operands[0], address & own | (rank.astype(np.uint64) + np.uint64(1)) << np.uint64(RANK_BIT), lanes)


_SPECIAL: dict[str, Callable[[Machine, Instruction, np.ndarray], None]] = {
    "mov": Machine.move,
    "cvta": _move_address,
    "mapa": _map_address,
    "setp": Machine.set_predicate,
    "selp": Machine.select,
    "ld": ptx_access.load,
    "ldu": ptx_access.load,
    "st": ptx_access.store,
    "atom": ptx_access.atomic,
    "red": ptx_access.atomic,
    "shfl": ptx_warp.shuffle,
    "vote": ptx_warp.vote,
    "activemask": ptx_warp.active_mask,
}
