"""PTX instructions in which the lanes of a warp see each other, and atomic updates in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ptx_memory import distinct
from ptx_parse import Instruction, PtxError

if TYPE_CHECKING:
    from ptx_machine import Machine

UPDATES: dict[str, np.ufunc] = {
    "add": np.add, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
UINT32 = np.dtype(np.uint32)


def update_in_turn(kind: str, memory: np.ndarray, at: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """Atomic updates one thread after the other; returns what each found."""
    old = np.empty(at.size, memory.dtype)
    for i, cell in enumerate(at):
        old[i] = memory[cell]
        if kind == "exch":
            memory[cell] = values[0][i]
        elif kind == "cas":
            if memory[cell] == values[0][i]:
                memory[cell] = values[1][i]
        else:
            memory[cell] = UPDATES[kind](memory[cell], values[0][i])
    return old


def _lanes_here(machine: Machine, lanes: np.ndarray) -> np.ndarray:
    """For each thread, the bits of the lanes of its warp that are here."""
    warp = machine.threads.warp[lanes]
    bits = np.zeros(int(warp.max()) + 1, dtype=np.uint64)
    np.bitwise_or.at(bits, warp, np.uint64(1) << machine.threads.lane[lanes].astype(np.uint64))
    return bits[warp].astype(np.uint32)


def _check_mask(machine: Machine, mask: np.ndarray, lanes: np.ndarray) -> None:
    own = np.uint32(1) << machine.threads.lane[lanes].astype(np.uint32)
    if ((mask & own) == 0).any():
        raise PtxError("a lane is not named in its own warp mask", int(np.flatnonzero((mask & own) == 0)[0]))
    absent = mask & ~_lanes_here(machine, lanes)
    if absent.any():
        raise PtxError("a warp mask names lanes that are not here", int(np.flatnonzero(absent)[0]))


def shuffle(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``shfl.sync``; see its description in the PTX manual for the two fields of the third source."""
    threads = machine.threads
    mode = next(m for m in c.mods if m in ("up", "down", "bfly", "idx"))
    values = machine.get(c.operands[1], UINT32, lanes)
    by = machine.get(c.operands[2], UINT32, lanes).astype(np.int64) & 31
    limits = machine.get(c.operands[3], UINT32, lanes).astype(np.int64)
    _check_mask(machine, machine.get(c.operands[4], UINT32, lanes), lanes)
    lane = threads.lane[lanes]
    clamp, segment = limits & 31, limits >> 8 & 31
    last, first = (lane & segment) | (clamp & ~segment), lane & segment
    source, is_inside = {
        "up": (lane - by, lane - by >= last),
        "down": (lane + by, lane + by <= last),
        "bfly": (lane ^ by, (lane ^ by) <= last),
        "idx": (first | (by & ~segment), (first | (by & ~segment)) <= last),
    }[mode]
    everywhere, is_here = np.zeros(threads.n, np.uint32), np.zeros(threads.n, dtype=bool)
    everywhere[lanes], is_here[lanes] = values, True
    other = np.where(is_inside, lanes - lane + source, lanes)
    in_block = other < (threads.block[lanes] + 1) * threads.per_block
    other = np.where(in_block, other, lanes)
    if (is_inside & (~in_block | ~is_here[other])).any():
        machine.faults[f"a shuffle reads a lane that is not here: {c.text}"] += 1
    to, _, predicate = c.operands[0].partition("|")
    machine.put(to, everywhere[other], lanes)
    if predicate:
        machine.put(predicate, is_inside, lanes)


def vote(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``vote.sync.ballot``, ``.any`` and ``.all``."""
    holds = machine.get(c.operands[1], np.dtype(bool), lanes)
    mask = machine.get(c.operands[2], UINT32, lanes)
    _check_mask(machine, mask, lanes)
    warp = machine.threads.warp[lanes]
    bits = np.zeros(int(warp.max()) + 1, dtype=np.uint64)
    np.bitwise_or.at(bits, warp, holds.astype(np.uint64) << machine.threads.lane[lanes].astype(np.uint64))
    ballot = bits[warp].astype(np.uint32) & mask
    mode = next((m for m in c.mods if m in ("ballot", "any", "all")), None)
    if mode is None:
        raise PtxError("a vote that the interpreter does not know")
    machine.put(c.operands[0], {"ballot": ballot, "any": ballot != 0, "all": ballot == mask}[mode], lanes)


def meet(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    """``bar.warp.sync``: what lanes of the warp did before is there for those after it. Only for whole warps."""
    if lanes.size == 0:
        return
    mask = machine.get(c.operands[0], UINT32, lanes)
    _check_mask(machine, mask, lanes)
    if (_lanes_here(machine, lanes) & ~mask).any():
        raise PtxError("lanes of a warp meet under several masks")
    whole = lanes[mask == np.uint32(0xFFFFFFFF)]
    if whole.size:
        machine.turn[distinct(machine.threads.warp[whole])] += 1


def active_mask(machine: Machine, c: Instruction, lanes: np.ndarray) -> None:
    machine.put(c.operands[0], _lanes_here(machine, lanes), lanes)
