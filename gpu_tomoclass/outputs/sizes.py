"""Numbers of bytes as people write them: decimal units, as disks and memory are sold."""

from __future__ import annotations

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def size_text(n_bytes: int) -> str:
    """``"12.3 GB"``: decimal units, as ``df -H`` and file managers show."""
    value, unit = float(n_bytes), "bytes"
    for larger in ("KB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{n_bytes} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def size_bytes(text: str) -> int:
    """``"4G"``, ``"800 MB"`` or ``"1000000"`` as a number of bytes; decimal units, as disks and memory are sold.

    Raises
    ------
    ValueError
        If it is no size, or less than 1 byte.
    """
    given = text.strip().upper().removesuffix("B").strip()
    unit = given[-1:] if given[-1:] in _UNITS else ""
    try:
        size = int(float(given.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a size such as 4G or 800M") from error
    if size < 1:
        raise ValueError(f"{text!r} must be at least 1 byte")
    return size
