"""What the assembler makes of PTX instructions: machine instructions by class of throughput."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ptx_parse import Instruction, PtxKernel

# What the assembler makes of one PTX instruction, where it is more than one; counts by class.
EXPANDED: dict[str, dict[str, float]] = {
    "div.f32": {"fp32": 8, "special": 1, "integer": 3},
    "rcp.f32": {"fp32": 3, "special": 1, "integer": 2},
    "sqrt.f32": {"fp32": 6, "special": 1, "integer": 3},
    "div.f64": {"fp64": 9, "special": 1, "integer": 8},
    "rcp.f64": {"fp64": 5, "special": 1, "integer": 5},
    "sqrt.f64": {"fp64": 10, "special": 1, "integer": 6},
    "div.int": {"integer": 18, "special": 1, "convert": 2},
    "rem.int": {"integer": 18, "special": 1, "convert": 2},
    "div.int64": {"integer": 70, "special": 1, "convert": 2},
    "rem.int64": {"integer": 70, "special": 1, "convert": 2},
    "mul.int64": {"integer": 3},
    "mad.int64": {"integer": 4},
}
FREE = {"mov", "cvta", "ld.param"}
SPECIAL = {"ex2", "lg2", "sin", "cos", "tanh"}
USEFUL = ("fp32", "fp64", "special", "convert", "convert64")  # what the arithmetic of a formula consists of


def instruction_classes(op: str, mods: tuple[str, ...], types: tuple[str, ...]) -> dict[str, float]:
    """Machine instructions by class."""
    of = types[-1] if types else ""
    if op in FREE or (op == "ld" and "param" in mods):
        return {}
    if op in ("ld", "st", "atom", "red", "shfl", "vote", "match", "ldu", "redux", "activemask"):
        return {"access": 1}
    if op in ("bra", "ret", "exit", "bar", "barrier", "membar", "fence"):
        return {"control": 1}
    if op == "cvt":
        return _conversion(types)
    if op in SPECIAL or (op in ("rcp", "rsqrt", "sqrt", "div") and "approx" in mods):
        return {"special": 1}
    if of in ("f32", "f64"):
        if op in ("selp", "setp", "min", "max", "abs", "neg", "copysign", "testp", "set", "slct") and of == "f32":
            return {"integer": 1}  # these run where integers do
        return EXPANDED.get(f"{op}.{of}", {"fp32" if of == "f32" else "fp64": 1})
    wide = of in ("b64", "u64", "s64") and "wide" not in mods
    if wide:
        return EXPANDED.get(f"{op}.int64", {"integer": 2})
    if op in ("popc", "clz", "bfind", "brev"):
        return {"special": 1}
    return EXPANDED.get(f"{op}.int", {"integer": 1})


def _conversion(types: tuple[str, ...]) -> dict[str, float]:
    kinds, sizes = [t[0] for t in types], [int(t[1:]) for t in types]
    if "f" not in kinds:
        return {"integer": 1}
    return {"convert64": 1} if max(sizes) == 64 else {"convert": 1}


# -- pairs that become one -----------------------------------------------------------------------------------------
REGISTER = re.compile(r"%[a-z]+\d+")
LOGIC = {"and", "or", "xor", "not"}


def fused(kernel: PtxKernel) -> dict[int, dict[str, float]]:
    """Of each instruction (by its place) that the assembler joins with another one, what is left of it.

    An integer that only the next operation on it needs is not computed by itself: a shift before an addition is an
    ``LEA``, a product before an addition an ``IMAD`` (wide ones too), of three summands an ``IADD3``, of three logical
    operands a ``LOP3``; 0 or 1 by a predicate, added, is an addition under this predicate, and a narrow load fills a
    whole register. ``nvdisasm`` shows these in the machine code of our kernels.
    """
    uses: Counter[str] = Counter()
    maker: dict[str, int] = {}
    for i, c in enumerate(kernel.code):
        uses.update(r for text in _sources(c) for r in REGISTER.findall(text))
        if c.guard is not None:
            uses[c.guard] += 1
        to = c.operands[0] if c.operands else ""
        if REGISTER.fullmatch(to) and c.op not in ("st", "bra"):
            maker[to] = -1 if to in maker else i  # written twice: a variable
    starts = {0, *kernel.labels.values(), *kernel.block_ends.values()}
    left: dict[int, dict[str, float]] = {}
    takers = set()  # these are full
    block = 0
    for i, c in enumerate(kernel.code):
        block = i if i in starts else block
        for register in c.operands[1:]:
            at = maker.get(register, -1)
            is_alone = uses[register] == 1 and kernel.code[at].guard is None
            if block <= at < i and at not in left and at not in takers and is_alone:
                what_is_left = _joined(kernel.code[at], c)
                if what_is_left is not None:
                    left[at] = what_is_left
                    takers.add(i)
                    break
    return left


def _joined(first: Instruction, second: Instruction) -> dict[str, float] | None:
    """What is left of ``first`` when ``second`` alone uses its result; None: all."""
    ops, kinds = (first.op, second.op), (_kind(first), _kind(second))
    if "f" in (kinds[0][:1], kinds[1][:1]):
        return None
    is_sum = second.op in ("add", "sub")
    if kinds[1].endswith("64") and is_sum:
        if first.op == "mul" and "wide" in first.mods:
            return {"integer": -1}  # IMAD.WIDE is one instruction where the addition counts as two
        return {} if first.op in ("shl", "add", "sub") and kinds[0].endswith("64") else None
    if first.op == "cvt":
        return {} if first.types[-1] in ("u8", "u16") else None
    if is_sum and first.op in ("add", "sub", "shl", "mul"):
        return {} if first.op != "shl" or not REGISTER.match(first.operands[2]) else None
    if is_sum and first.op == "selp":
        return {} if first.operands[1:3] in (("1", "0"), ("-1", "0")) else None
    return {} if LOGIC.issuperset(ops) and "pred" not in kinds else None


def _kind(c: Instruction) -> str:
    return c.types[-1] if c.types else ""


def _sources(c: Instruction) -> Sequence[str]:
    return (
        c.operands if c.op in ("st", "red", "bra") or not c.operands else (*c.operands[1:], *_indirect(c.operands[0]))
    )


def _indirect(operand: str) -> tuple[str, ...]:
    return (operand,) if operand.startswith("[") else ()


def machine_classes(kernel: PtxKernel) -> list[dict[str, float]]:
    """Of each PTX instruction of a kernel its machine instructions by class."""
    classes = [instruction_classes(c.op, c.mods, c.types) for c in kernel.code]
    for i, what_is_left in fused(kernel).items():
        classes[i] = what_is_left
    return classes
