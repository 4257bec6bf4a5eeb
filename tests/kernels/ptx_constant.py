"""Which loads of a PTX kernel go through the cache for constants, and whether the kernel writes to what they read.

``ld.global.nc`` is for memory that nobody writes to during the launch. NVRTC chooses it for what
``const .. __restrict__`` promises, and also where it takes a choice between such a pointer and a written one for the
constant one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

from ptx_parse import Instruction, PtxKernel

REGISTER = re.compile(r"%\w+")
WITHOUT_ADDRESS = frozenset({"st", "red", "ld", "ldu", "atom", "bra", "bar", "barrier", "setp"})  # in what they give


def origins(kernel: PtxKernel) -> dict[str, set[str]]:
    """For each register the pointer parameters that its values may be computed from, whatever way is taken."""
    loaded = {c.operands[0]: c.operands[1].strip("[]") for c in kernel.code if c.op == "ld" and "param" in c.mods}
    # Numbers of 64 bits are no addresses: only those are taken to global memory.
    pointers = {loaded[c.operands[1]] for c in kernel.code if c.op == "cvta" and c.operands[1] in loaded}
    found: defaultdict[str, set[str]] = defaultdict(set)
    found.update({register: {name} & pointers for register, name in loaded.items()})
    changed = True
    while changed:
        changed = False
        for c in kernel.code:
            if c.op not in WITHOUT_ADDRESS and c.operands:
                known = set().union(*(found[r] for o in c.operands[1:] for r in REGISTER.findall(o)))
                for to in REGISTER.findall(c.operands[0]):
                    changed |= not known <= found[to]
                    found[to] |= known
    return found


@cache
def doubtful_reads(kernel: PtxKernel) -> list[str]:
    """Loads through the cache for constants from where the kernel may also write."""
    known = origins(kernel)

    def of(c: Instruction, operand: int) -> set[str]:
        return set().union(*(known[r] for r in REGISTER.findall(c.operands[operand])))

    written = set().union(
        *(of(c, 0) for c in kernel.code if c.op in ("st", "red")), *(of(c, 1) for c in kernel.code if c.op == "atom")
    )
    return [c.text for c in kernel.code if c.op == "ld" and "nc" in c.mods and of(c, 1) & written]
