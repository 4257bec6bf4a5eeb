"""PTX instructions that access memory: loads, stores and atomic updates, with bounds, races and counts."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import ptx_warp
from ptx_memory import RANK_BIT, SHARED_TAG, Moment, Shadow, count_conflicts, count_sectors
from ptx_parse import Instruction, PtxError, dtype_of, split_operands

if TYPE_CHECKING:
    from ptx_machine import Machine

INT64 = np.dtype(np.int64)


class Cells:
    """Where some threads access an array: byte offsets in ``content``, one per thread."""

    def __init__(self, content: np.ndarray, shadow: Shadow | None, offset: np.ndarray, threads: np.ndarray) -> None:
        self.content, self.shadow, self.offset, self.threads = content, shadow, offset, threads

    def typed(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """The array as ``dtype``, and the indices accessed."""
        whole = self.content.size // dtype.itemsize * dtype.itemsize
        return self.content[:whole].view(dtype), self.offset // dtype.itemsize

    def note(self, machine: Machine, c: Instruction, how: str) -> None:
        """Tell the shadow how they are accessed; count the faults that it finds."""
        if self.shadow is None:
            return
        self.shadow.is_written |= how != "read"
        if how == "read" and "nc" in c.mods:  # the compiler was told that nobody writes there during the launch
            self.shadow.is_constant = True
        if self.shadow.is_constant and self.shadow.is_written:
            machine.faults[f"an array is written to that is read as constant: {c.text}"] += 1
        if "nc" in c.mods:
            return
        size = dtype_of(c.types[-1]).itemsize
        of, me = machine.threads, self.threads
        block, warp, cluster = of.block[me], of.warp[me], of.cluster[me]
        now = Moment(me, block, warp, cluster, machine.epoch[block], machine.turn[warp], machine.meeting[cluster])
        for cell in self.shadow.cells(self.offset, size):
            found = getattr(self.shadow, how)(cell, now)
            for fault, n in found.items():
                if n:
                    machine.faults[f"{fault}: {c.text}"] += n


@lru_cache(maxsize=4096)
def _parse_address(operand: str) -> tuple[str, int]:
    """``[%rd1+16]`` -> ``%rd1``, 16."""
    match = re.match(r"\[([^+\-\]]+?)\s*(?:\+\s*(-?\d+))?\]$", operand)
    if match is None:
        raise PtxError(f"an address that the interpreter does not know: {operand}")
    return match[1].strip(), int(match[2] or 0)


def _locate(machine: Machine, operand: str, space: str, lanes: np.ndarray) -> tuple[np.ndarray, str]:
    """Address within its space, and the space; generic addresses carry it in their upper bits."""
    base, offset = _parse_address(operand)
    address = machine.get(base, INT64, lanes) + offset
    if space == "generic":
        space = {1: "shared", 2: "local"}.get(int(address[0]) >> 44, "global")
    if space == "const":
        space = "global"
    return (address if space == "global" else address & (SHARED_TAG - 1)), space


def _count(machine: Machine, what: str, space: str, address: np.ndarray, size: int, lanes: np.ndarray) -> None:
    if (address % size).any():
        raise PtxError(f"misaligned access of {size} bytes", int(np.flatnonzero(address % size)[0]))
    if not machine.counted:
        return
    threads = machine.threads
    if space == "global":
        count_sectors(machine.counts, what, address, threads.warp[lanes])
    elif space == "shared":
        machine.counts["accesses to other blocks"] += int((address >> RANK_BIT > 0).sum())
        count_conflicts(machine.counts, address & (2**RANK_BIT - 1), size, threads.warp[lanes], threads.lane[lanes])
    else:
        machine.counts["local accesses"] += lanes.size


def _pieces(
    machine: Machine, space: str, address: np.ndarray, size: int, lanes: np.ndarray
) -> list[tuple[slice | np.ndarray, Cells]]:
    """(which of the threads, their cells) for every array that is accessed."""
    if space == "global":
        return [
            (which, Cells(buffer.content, buffer.shadow, offset, lanes[which]))
            for buffer, which, offset in machine.memory.locate(address, size)
        ]
    everybody = slice(None)
    if space == "shared":
        offset = machine.shared.locate(address, size, lanes)
        return [(everybody, Cells(machine.shared.content, machine.shared.shadow, offset, lanes))]
    per_thread = machine.local.shape[1]
    if (address < 0).any() or (address + size > per_thread).any():
        raise PtxError("local access out of bounds")
    return [(everybody, Cells(machine.local.reshape(-1), None, lanes * per_thread + address, lanes))]


def load(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``ld``, also of vectors; parameters are the same for all threads."""
    registers = split_operands(c.operands[0].strip("{}"))
    dtype = dtype_of(c.types[-1])
    space = c.space("param", "global", "shared", "local", "const")
    if space == "param":
        name, offset = _parse_address(c.operands[1])
        for i, register in enumerate(registers):
            raw = machine.parameters[name][offset + i * dtype.itemsize : offset + (i + 1) * dtype.itemsize]
            machine.put(register, np.full(lanes.size, np.frombuffer(raw, dtype)[0]), lanes)
        return
    address, space = _locate(machine, c.operands[1], space, lanes)
    _count(machine, "load", space, address, dtype.itemsize * len(registers), lanes)
    for i, register in enumerate(registers):
        values = np.empty(lanes.size, dtype)
        for which, cells in _pieces(machine, space, address + i * dtype.itemsize, dtype.itemsize, lanes):
            memory, at = cells.typed(dtype)
            values[which] = memory[at]
            cells.note(machine, c, "read")
        machine.put(register, values, lanes)


def store(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``st``, also of vectors."""
    registers = split_operands(c.operands[1].strip("{}"))
    dtype = dtype_of(c.types[-1])
    address, space = _locate(machine, c.operands[0], c.space("global", "shared", "local"), lanes)
    _count(machine, "store", space, address, dtype.itemsize * len(registers), lanes)
    for i, register in enumerate(registers):
        values = machine.get(register, dtype, lanes)
        for which, cells in _pieces(machine, space, address + i * dtype.itemsize, dtype.itemsize, lanes):
            memory, at = cells.typed(dtype)
            memory[at] = values[which]
            cells.note(machine, c, "write")


def atomic(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``atom`` and ``red``."""
    operands = c.operands if c.op == "atom" else ("_", *c.operands)
    to, where, *sources = operands
    dtype = dtype_of(c.types[-1])
    address, space = _locate(machine, where, c.space("global", "shared"), lanes)
    values = [machine.get(source, dtype, lanes) for source in sources]
    kind = next(m for m in c.mods if m in ptx_warp.UPDATES or m in ("exch", "cas"))
    machine.counts["atomics"] += lanes.size
    old = np.empty(lanes.size, dtype)
    for which, cells in _pieces(machine, space, address, dtype.itemsize, lanes):
        memory, at = cells.typed(dtype)
        if to == "_" and kind in ptx_warp.UPDATES:
            ptx_warp.UPDATES[kind].at(memory, at, values[0][which])
        else:
            old[which] = ptx_warp.update_in_turn(kind, memory, at, [v[which] for v in values])
        cells.note(machine, c, "update")
    machine.put(to, old, lanes)
