"""PTX arithmetic in NumPy: one function per opcode, from operand values to the result.

``@operation("add", ...)`` functions take the instruction and its source operands (already of the instruction's type)
and return the destination's values. Flushing of denormals and the type conversions of operands are done by the machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ptx_parse import Instruction, PtxError, dtype_of

Operation = Callable[..., np.ndarray]
OPERATIONS: dict[str, Operation] = {}
COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
ROUNDINGS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
TINY = np.finfo(np.float32).tiny
LOGIC = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def operation(*names: str) -> Callable[[Operation], Operation]:
    def register(function: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def flush(values: np.ndarray) -> np.ndarray:
    """Denormal float32 numbers become zeros of the same sign (``.ftz``)."""
    return values * (np.abs(values) >= TINY) if values.dtype == np.float32 else values


def fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Correctly rounded float32 a * b + c: the float64 sum is rounded to odd first (Boldo and Melquiond 2008).

    That matters only where the sum lies in the middle between two float32 numbers, which is rare.
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    in_the_middle = (total.view(np.int64) & (2**29 - 1)) == 2**28
    if not (in_the_middle | (np.abs(total) < TINY)).any():
        return total.astype(np.float32)
    back = total - product
    error = (product - (total - back)) + (addend - back)
    inexact = (error != 0) & np.isfinite(total) & ((total.view(np.int64) & 1) == 0)
    if inexact.any():
        bits = total.view(np.int64).copy()
        away = (error > 0) == (total > 0)
        bits[inexact] += np.where(away, 1, -1)[inexact]
        total = bits.view(np.float64)
    return total.astype(np.float32)


def _wide(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")


def _saturated(c: Instruction, values: np.ndarray) -> np.ndarray:
    if "sat" not in c.mods:
        return values
    if values.dtype.kind != "f":
        raise PtxError(f"saturation of integers is not modelled: {c.text}")
    return np.clip(np.nan_to_num(values), 0, 1).astype(values.dtype)


@operation("add")
def _add(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _saturated(c, a + b)


@operation("sub")
def _sub(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _saturated(c, a - b)


def _high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Upper half of the product."""
    if a.dtype.itemsize == 4:
        wide = _wide(a.dtype)
        return ((a.astype(wide) * b.astype(wide)) >> wide.type(32)).astype(a.dtype)
    return np.array([int(x) * int(y) >> 64 for x, y in zip(a, b, strict=True)], dtype=a.dtype)


@operation("mul")
def _mul(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if "wide" in c.mods:
        return a.astype(_wide(a.dtype)) * b.astype(_wide(a.dtype))
    return _high(a, b) if "hi" in c.mods else _saturated(c, a * b)


@operation("mad", "fma")
def _mad(c: Instruction, a: np.ndarray, b: np.ndarray, d: np.ndarray) -> np.ndarray:
    if a.dtype == np.float32:
        return _saturated(c, fma32(a, b, d))
    if a.dtype == np.float64:
        return (a.astype(np.longdouble) * b + d).astype(np.float64)
    if "wide" in c.mods:
        return a.astype(d.dtype) * b.astype(d.dtype) + d
    return _high(a, b) + d if "hi" in c.mods else a * b + d


@operation("div")
def _div(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    quotient = np.floor_divide(a, np.where(b == 0, 1, b).astype(a.dtype))
    # C truncates towards zero, floor_divide rounds down.
    inexact = quotient * b != a
    return quotient + (inexact & ((a < 0) != (b < 0))).astype(a.dtype)


@operation("rem")
def _rem(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.fmod(a, np.where(b == 0, 1, b).astype(a.dtype))


@operation("min")
def _min(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(a, b) if "NaN" in c.mods else np.fmin(a, b)


@operation("max")
def _max(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b) if "NaN" in c.mods else np.fmax(a, b)


@operation("abs")
def _abs(c: Instruction, a: np.ndarray) -> np.ndarray:
    return np.abs(a)


@operation("neg")
def _neg(c: Instruction, a: np.ndarray) -> np.ndarray:
    return np.negative(a)


def _transcendental(function: Callable[[np.ndarray], np.ndarray]) -> Operation:
    """Correctly rounded, which the GPU's approximate instructions need not be."""

    def apply(c: Instruction, a: np.ndarray) -> np.ndarray:
        return function(a.astype(np.float64)).astype(a.dtype)

    return apply


OPERATIONS |= {
    name: _transcendental(function)
    for name, function in {
        "sqrt": np.sqrt, "rsqrt": lambda a: 1 / np.sqrt(a), "rcp": np.reciprocal, "ex2": np.exp2, "lg2": np.log2,
        "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    }.items()
}  # fmt: skip


@operation("copysign")
def _copysign(c: Instruction, sign: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    return np.copysign(magnitude, sign)


@operation("and", "or", "xor")
def _bits(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[c.op](a, b)


@operation("not")
def _not(c: Instruction, a: np.ndarray) -> np.ndarray:
    return ~a


@operation("lop3")
def _lop3(c: Instruction, a: np.ndarray, b: np.ndarray, d: np.ndarray, table: np.ndarray) -> np.ndarray:
    result = np.zeros_like(a)
    for row in range(8):
        if int(table[0]) >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (d if row & 1 else ~d)
    return result


@operation("shl", "shr")
def _shift(c: Instruction, a: np.ndarray, by: np.ndarray) -> np.ndarray:
    n = 8 * a.dtype.itemsize
    far = by >= n
    amount = np.minimum(by, n - 1).astype(a.dtype)
    result = a << amount if c.op == "shl" else a >> amount
    keeps_sign = c.op == "shr" and a.dtype.kind == "i"
    return np.where(far, result if keeps_sign else a.dtype.type(0), result)


@operation("shf")
def _funnel(c: Instruction, low: np.ndarray, high: np.ndarray, by: np.ndarray) -> np.ndarray:
    amount = (by & 31 if "wrap" in c.mods else np.minimum(by, 32)).astype(np.uint64)
    both = high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)
    result = (both << amount) >> np.uint64(32) if "l" in c.mods else both >> amount
    return (result & np.uint64(0xFFFFFFFF)).astype(np.uint32)


@operation("bfe")
def _extract(c: Instruction, a: np.ndarray, position: np.ndarray, length: np.ndarray) -> np.ndarray:
    if a.dtype != np.uint32:
        raise PtxError(f"not modelled: {c.text}")
    mask = (np.uint64(1) << (length & 255).astype(np.uint64)) - np.uint64(1)
    return ((a.astype(np.uint64) >> (position & 255).astype(np.uint64)) & mask).astype(np.uint32)


@operation("bfi")
def _insert(c: Instruction, a: np.ndarray, b: np.ndarray, position: np.ndarray, length: np.ndarray) -> np.ndarray:
    one = np.uint64(1)
    mask = ((one << (length & 255).astype(np.uint64)) - one) << (position & 255).astype(np.uint64)
    moved = a.astype(np.uint64) << (position & 255).astype(np.uint64)
    return ((b.astype(np.uint64) & ~mask) | (moved & mask)).astype(a.dtype)


@operation("popc")
def _popc(c: Instruction, a: np.ndarray) -> np.ndarray:
    return np.bitwise_count(a).astype(np.uint32)


@operation("clz")
def _clz(c: Instruction, a: np.ndarray) -> np.ndarray:
    return np.array([8 * a.dtype.itemsize - int(x).bit_length() for x in a], dtype=np.uint32)


@operation("bfind")
def _bfind(c: Instruction, a: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "u":
        raise PtxError(f"not modelled: {c.text}")
    n = 8 * a.dtype.itemsize
    position = np.array([int(x).bit_length() - 1 for x in a])
    if "shiftamt" in c.mods:  # how far to the left it would have to be moved to be the highest bit
        position = np.where(position < 0, -1, n - 1 - position)
    return position.astype(np.uint32)


@operation("brev")
def _brev(c: Instruction, a: np.ndarray) -> np.ndarray:
    n = 8 * a.dtype.itemsize
    return np.array([int(f"{int(x):0{n}b}"[::-1], 2) for x in a], dtype=a.dtype)


@operation("prmt")
def _permute(c: Instruction, a: np.ndarray, b: np.ndarray, selection: np.ndarray) -> np.ndarray:
    if c.mods[-1] != "b32" or len(c.mods) > 1:
        raise PtxError(f"not modelled: {c.text}")
    source = np.ascontiguousarray(np.stack([a, b], axis=1)).view(np.uint8).astype(np.uint32)
    result = np.zeros_like(a)
    for byte in range(4):
        choice = selection >> np.uint32(4 * byte) & 15
        value = source[np.arange(a.size), choice & 7]
        value = np.where(choice & 8, np.where(value & 128, 255, 0), value)
        result |= value.astype(np.uint32) << np.uint32(8 * byte)
    return result


def compare(c: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``setp``: ordered comparisons are false for NaN, those that end in u are true."""
    how = c.mods[0]
    unordered = np.isnan(a) | np.isnan(b) if a.dtype.kind == "f" else np.zeros(a.size, dtype=bool)
    if how in ("num", "nan"):
        return unordered if how == "nan" else ~unordered
    if how in ("equ", "neu", "ltu", "leu", "gtu", "geu"):
        return COMPARISONS[how[:2]](a, b) | unordered
    return COMPARISONS[how](a, b) & ~unordered


@operation("cvt")
def _convert(c: Instruction, a: np.ndarray) -> np.ndarray:
    to = dtype_of(c.types[0])
    if a.dtype.kind == "f":
        rounding = next((ROUNDINGS[m] for m in c.mods if m in ROUNDINGS), None)
        values = rounding(a) if rounding else a
        if to.kind == "f":
            return _saturated(c, values.astype(to))
        limits = np.iinfo(to)
        wide = values.astype(np.float64)
        low, high = wide <= float(limits.min), wide >= float(limits.max)
        inside = np.where(np.isnan(wide) | low | high, 0, wide).astype(to)
        return np.where(low, to.type(limits.min), np.where(high, to.type(limits.max), inside))
    if "sat" in c.mods and to.kind != "f":
        limits, own = np.iinfo(to), np.iinfo(a.dtype)
        a = np.clip(a, max(limits.min, own.min), min(limits.max, own.max))
    return a.astype(to)
