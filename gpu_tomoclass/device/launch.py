"""Checks of a launch, the same on every device.

CuPy itself checks nothing: a Python ``int`` is passed as 64 bits and a ``float`` as a double, whatever the kernel
declares; a missing argument is not noticed; an empty grid runs one block. So every launch goes through here.
A failed check is an error in this package, hence a plain ``TypeError`` or ``ValueError``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.device.signature import KernelSignature, Parameter, scalar_range

Dim3 = tuple[int, int, int]
MAX_THREADS = 1024  # per block; these limits are the same from compute capability 7.5 to 12.0
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)


def checked_defines(defines: Mapping[str, int | str] | None) -> tuple[tuple[str, str], ...]:
    """Compile-time macros as sorted (name, value) pairs.

    Raises
    ------
    ValueError
        If a name is no identifier or a value holds anything but letters, digits, blanks, points, signs and stars.
    """
    pairs = []
    for name, value in sorted((defines or {}).items()):
        text = str(value)
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or not re.fullmatch(r"[\w .+*-]*", text):
            raise ValueError(f"the macro {name}={text!r} cannot be passed to a compiler")
        pairs.append((name, text))
    return tuple(pairs)


def checked_shape(kernel: KernelSignature, *, grid: Sequence[int], block: Sequence[int]) -> tuple[Dim3, Dim3]:
    """Grid and block as three numbers each.

    Raises
    ------
    ValueError
        If one of them is empty or beyond what a GPU takes.
    """
    found = _whole_shape(kernel, "grid", grid, MAX_GRID), _whole_shape(kernel, "block", block, MAX_BLOCK)
    if math.prod(found[1]) > MAX_THREADS:
        raise ValueError(f"{kernel}: block {found[1]} has more than {MAX_THREADS} threads")
    return found


def _whole_shape(kernel: KernelSignature, what: str, given: Sequence[int], limits: Dim3) -> Dim3:
    if not 1 <= len(given) <= 3:
        raise ValueError(f"{kernel}: {what} {tuple(given)} has not 1 to 3 numbers")
    x, y, z = (*map(int, given), 1, 1)[:3]
    if x < 1 or y < 1 or z < 1:
        raise ValueError(f"{kernel}: {what} {x, y, z} is empty")
    if x > limits[0] or y > limits[1] or z > limits[2]:
        raise ValueError(f"{kernel}: {what} {x, y, z} is beyond {limits}")
    return x, y, z


def checked_arguments(
    kernel: KernelSignature, arguments: Mapping[str, Any], *, address_of: Callable[[Any], int]
) -> list[Any]:
    """The arguments in the order of the kernel's parameters: arrays as they are, scalars of exactly the declared type.

    Parameters
    ----------
    kernel : KernelSignature
    arguments : mapping of str to object
        By parameter name.
    address_of : callable
        Address of an array of the device; raises ``TypeError`` with a reason for anything else.

    Raises
    ------
    TypeError, ValueError
        Naming kernel and argument.
    """
    if len(arguments) != len(kernel.parameters) or any(p.name not in arguments for p in kernel.parameters):
        names = [p.name for p in kernel.parameters]
        if missing := [name for name in names if name not in arguments]:
            raise TypeError(f"{kernel}: missing argument {', '.join(missing)}")
        raise TypeError(f"{kernel}: has no parameter {', '.join(name for name in arguments if name not in names)}")
    values: list[Any] = []
    ranges: list[tuple[Parameter, int, int]] = []
    for parameter in kernel.parameters:
        value = arguments[parameter.name]
        if parameter.is_pointer:
            start = _checked_array(kernel, parameter, value, address_of)
            ranges.append((parameter, start, start + value.nbytes))
        else:
            value = _checked_scalar(kernel, parameter, value)
        values.append(value)
    _check_overlap(kernel, ranges)
    return values


def _checked_array(kernel: KernelSignature, parameter: Parameter, array: Any, address_of: Callable[[Any], int]) -> int:
    try:
        address = address_of(array)
    except TypeError as error:
        raise TypeError(f"{_where(kernel, parameter)}: {error}") from None
    size, step = array.size, parameter.width * parameter.dtype.itemsize
    if array.dtype != parameter.dtype:
        raise TypeError(
            f"{_where(kernel, parameter)} is {array.dtype}, the kernel takes {parameter.dtype} ({parameter.c_type})"
        )
    flags = array.flags
    if not flags.c_contiguous:
        of = f"of shape {array.shape} is not C-contiguous (strides {array.strides} bytes)"
        raise ValueError(f"{_where(kernel, parameter)} {of}")
    if size == 0:
        raise ValueError(f"{_where(kernel, parameter)} of shape {array.shape} is empty")
    if size % parameter.width:
        of = f"of shape {array.shape} is not a whole number of {parameter.c_type}"
        raise ValueError(f"{_where(kernel, parameter)} {of}")
    if address % step:
        begins = f"begins at address {address:#x}, which is not a multiple of {step} bytes"
        raise ValueError(f"{_where(kernel, parameter)} {begins}")
    # CuPy arrays are always writeable and have no such flag.
    if not parameter.is_const and not getattr(flags, "writeable", True):
        raise ValueError(f"{_where(kernel, parameter)} is read-only and the kernel writes it")
    return address


def _where(kernel: KernelSignature, parameter: Parameter) -> str:
    """The argument, for an error; launches are many and errors few, so it is not made before there is one."""
    return f"{kernel}: argument {parameter.name}"


def _checked_scalar(kernel: KernelSignature, parameter: Parameter, value: Any) -> np.generic:
    kind = parameter.dtype.kind
    if kind == "b":
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{_where(kernel, parameter)} is {value!r}, the kernel takes a bool")
        return np.bool_(value)
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if kind in "iu":
        if not is_int:
            taken = f"({type(value).__name__}), the kernel takes {parameter.c_type}"
            raise TypeError(f"{_where(kernel, parameter)} is {value!r} {taken}")
        low, high = scalar_range(parameter.dtype)
        if not low <= int(value) <= high:
            beyond = f"beyond {low}..{high} of {parameter.c_type}"
            raise ValueError(f"{_where(kernel, parameter)} is {value}, {beyond}")
        return parameter.dtype.type(int(value))
    if not is_int and not isinstance(value, (float, np.floating)):
        taken = f"({type(value).__name__}), the kernel takes {parameter.c_type}"
        raise TypeError(f"{_where(kernel, parameter)} is {value!r} {taken}")
    with np.errstate(over="ignore"):
        cast = parameter.dtype.type(value)
    if np.isinf(cast) and math.isfinite(value):
        raise ValueError(f"{_where(kernel, parameter)} is {value}, beyond the range of {parameter.c_type}")
    if is_int and int(cast) != int(value):
        raise ValueError(f"{_where(kernel, parameter)} is {value}, which no {parameter.c_type} holds exactly")
    return cast


def _check_overlap(kernel: KernelSignature, ranges: list[tuple[Parameter, int, int]]) -> None:
    """``__restrict__`` promises that nothing else points to what is written; the compilers rely on it."""
    for i, (a, a_start, a_stop) in enumerate(ranges):
        for b, b_start, b_stop in ranges[i + 1 :]:
            if b_start >= a_stop or a_start >= b_stop:
                continue
            if (a.is_restrict and not a.is_const) or (b.is_restrict and not b.is_const):
                raise ValueError(f"{kernel}: arguments {a.name} and {b.name} share memory and one of them is written")
