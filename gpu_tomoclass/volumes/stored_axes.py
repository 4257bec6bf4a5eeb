"""Order of stored axes, credible sizes, and reading by layers of planes: shared by the readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.outputs import size_text

# A layer (the planes of one row of chunks) is kept decoded up to this size, so that each chunk is decoded once.
LAYER_BYTES = 2**30

# What is larger than this must not be compressed more than so many times, or a file of a few bytes could fill the
# memory: planes of noisy grey values shrink two- to five-fold.
UNSUSPICIOUS_BYTES, LARGEST_RATIO = 2**30, 100


def check_declared(what: str, declared: int, stored: int, *, where: str | PathLike[str]) -> None:
    """Raise DataError if ``what`` would take ``declared`` bytes of memory and only ``stored`` bytes are there for it.

    The one place where a size that a file declares is believed or not; asked before memory is allocated.
    """
    if declared > UNSUSPICIOUS_BYTES and declared > LARGEST_RATIO * stored:
        raise DataError(
            f"declares {what} of {size_text(declared)}, stored in {size_text(stored)}: that is not believed",
            where=where,
            do="if it is right, let the program that wrote it save it uncompressed",
        )


@dataclass(frozen=True)
class StoredAxes:
    """Axes of a stored array that are the volume's.

    Attributes
    ----------
    order : str
        What the kept axes are, in stored order: ``"zyx"``, ``"xyz"``, ``"yx"`` for a single plane.
    kept : tuple of int
        The array's axes that ``order`` names.
    fixed : dict
        The index that is read on each other axis.
    letters : str
        All axes for people, in capitals.
    notes : list of str
    """

    order: str
    kept: tuple[int, ...]
    fixed: dict[int, int]
    letters: str
    notes: list[str] = field(default_factory=list)

    @property
    def axis_of(self) -> dict[str, int]:
        """The array's axis of each of z (not for a single plane), y and x."""
        return dict(zip(self.order, self.kept, strict=True))

    def sizes(self, stored: Sequence[float | None] | Mapping[int, float]) -> tuple[float, float, float] | None:
        """(z, y, x) of one number per stored axis; None unless there are three, all positive and finite."""
        if len(self.kept) != 3:
            return None
        values = [stored[self.axis_of[letter]] for letter in "zyx"]
        if not all(isinstance(v, (int, float, np.number)) and np.isfinite(v) and v > 0 for v in values):
            return None
        z, y, x = (float(v) for v in values)  # type: ignore[arg-type]
        return z, y, x

    def place(self, stored: Sequence[float | None]) -> list[float | None] | None:
        """(z, y, x) of one number per stored axis, whatever they are; None for a single plane."""
        return [stored[self.axis_of[letter]] for letter in "zyx"] if len(self.kept) == 3 else None


def choose_axes(
    shape: Sequence[int],
    names: Sequence[str] | None,
    *,
    axes: str | None,
    channel: int | None,
    where: str,
    what: str = "array",
) -> StoredAxes:
    """Choose the axes of an array of ``shape`` that are z, y and x, and what is read of the others.

    Parameters
    ----------
    shape : sequence of int
    names : sequence of str, or None
        What the file calls each axis; None if it does not say. A single long axis beside y and x is z, whatever
        its name.
    axes : str or None
        What the user says: three letters for the three axes that are kept, or one for every stored axis.
    channel : int or None
        Index on the one longer axis that is none of z, y, x.

    Raises
    ------
    UsageError
        If ``axes`` or ``channel`` does not fit.
    DataError
        If the array is no volume, or it must be said what is meant.
    """
    if axes is not None and len(axes) == len(shape) != 3:
        names, axes = list(axes), None
        if len(set(names)) != len(names) or not {"y", "x"} <= {name.lower() for name in names}:
            raise UsageError(f"axes {''.join(names)!r} do not name y and x, once each", where=where)
    if names is None:
        chosen = _unnamed_axes(shape, channel, where=where, what=what)
        declared, letters = "zyx"[-len(chosen.kept) :], ""
    else:
        names = [str(name).lower() for name in names]
        chosen = _named_axes(shape, names, channel, where=where)
        declared, letters = chosen.order, chosen.letters
    order, notes = declared, list(chosen.notes)
    if len(chosen.kept) == 3:
        order = stored_order(axes, declared, where=where)
        notes += order_notes(axes, declared, order)
    elif axes is not None:
        raise UsageError(f"axes '{axes}' of a single plane", where=where)
    else:
        notes.append(f"the {what} has no z axis: one plane")
    if order != declared or not letters:
        letters = order.upper()
    return StoredAxes(order, chosen.kept, chosen.fixed, letters, notes)


def _unnamed_axes(shape: Sequence[int], channel: int | None, *, where: str, what: str) -> StoredAxes:
    kept, fixed, notes = spatial_axes(shape), {}, []
    if kept is None and len(shape) == 4 and channel is not None:
        kept, fixed = (1, 2, 3), {0: checked_index(channel, shape[0], "channel", where)}
        notes.append("the first of four unnamed axes is read as channels")
    elif channel is not None:
        raise UsageError(f"channel {channel} of an {what} without channels, shape {tuple(shape)}", where=where)
    if kept is None:
        hint = "choose one with --channel, and name all axes with --axes unless they are c, z, y, x"
        do = hint if len(shape) == 4 else None
        raise DataError(f"is no volume: the {what} has the shape {tuple(shape)}", where=where, do=do)
    if len(kept) < len(shape) and not fixed:
        notes.append(f"axes of length 1 are left out of the shape {tuple(shape)}")
    fixed |= {axis: 0 for axis in range(len(shape)) if axis not in kept and axis not in fixed}
    return StoredAxes("zyx"[-len(kept) :], kept, fixed, "", notes)


def _named_axes(shape: Sequence[int], names: Sequence[str], channel: int | None, *, where: str) -> StoredAxes:
    others = [axis for axis, name in enumerate(names) if name not in ("z", "y", "x")]
    long = [axis for axis in others if shape[axis] != 1]
    fixed, notes, names = dict.fromkeys(others, 0), [], list(names)
    found = ", ".join(f"{names[axis]} of length {shape[axis]}" for axis in long)
    letters = "".join(name[:1] for name in names).upper()
    if len(long) > 1:
        raise DataError(f"has too many axes beside z, y, x: {found}", where=where, do="extract one volume first")
    if not long and channel not in (None, 0):
        raise UsageError(f"there is no channel {channel}: the image has one", where=where)
    if long and channel is not None:
        fixed[long[0]] = checked_index(channel, shape[long[0]], names[long[0]], where)
        notes.append(f"index {channel} of the axis {found} is read")
    elif long and "z" not in names:
        notes.append(f"reading axis {names[long[0]]} as z ({shape[long[0]]} planes)")
        del fixed[long[0]]
        names[long[0]] = "z"
    elif long:
        raise DataError(f"has the axis {found}", where=where, do="choose one with --channel, from 0")
    kept = tuple(axis for axis in range(len(names)) if axis not in fixed)
    return StoredAxes("".join(names[axis] for axis in kept), kept, fixed, letters, notes)


def checked_index(index: int, length: int, name: str, where: str) -> int:
    """``index``, if it is one of ``length``; else UsageError."""
    if not 0 <= index < length:
        raise UsageError(f"there is no {name} {index}, only 0 to {length - 1}", where=where)
    return index


def stored_order(axes: str | None, declared: str, *, where: str) -> str:
    """The three axes as stored, slowest first, in lower case: ``axes`` if the user gave it, else ``declared``.

    Raises
    ------
    UsageError
        If ``axes`` is not a permutation of z, y, x.
    """
    order = (declared if axes is None else axes).lower()
    if sorted(order) != ["x", "y", "z"]:
        raise UsageError(f"axes '{axes}' is not an order of z, y, x", where=where, do="for example --axes yzx")
    return order


def order_notes(axes: str | None, declared: str, order: str) -> list[str]:
    """The sentence for a volume whose planes are transposed on reading; empty for z, y, x as stored."""
    if order == "zyx" and axes is None:
        return []
    source = "as the header says" if axes is None else f"as asked (the file says {declared.upper()})"
    return [f"axes are stored as {order.upper()}, {source}; planes are read as ZYX"]


def spatial_axes(shape: Sequence[int]) -> tuple[int, ...] | None:
    """Axes that hold the image in an array without named axes: three, or two for a single plane.

    Axes of length 1 beyond the third are left out, the first ones first. None if more than three axes are longer, or
    the array has fewer than two.
    """
    kept = list(range(len(shape)))
    for axis in range(len(shape)):
        if len(kept) > 3 and shape[axis] == 1:
            kept.remove(axis)
    return tuple(kept) if 2 <= len(kept) <= 3 else None


class LayerCache:
    """Keeps the layer of planes that was read last.

    Parameters
    ----------
    n_planes, thickness : int
        Planes in the volume, and in a layer (one chunk thick).
    plane_bytes : int
        Bytes of one decoded plane; layers above ``LAYER_BYTES`` are not kept.
    """

    def __init__(self, n_planes: int, thickness: int, plane_bytes: int) -> None:
        self.n_planes, self.thickness = n_planes, max(1, thickness)
        self.fits = self.thickness * plane_bytes <= LAYER_BYTES
        self._kept: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()  # so that two threads do not decode the same layer twice

    def plane(self, z: int, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Plane z, the caller's own, of the layer that ``read(start, stop)`` returns with z as its first axis."""
        if not self.fits or self.thickness == 1:
            return read(z, z + 1)[0]
        start = z - z % self.thickness
        with self._lock:
            if self._kept is None or self._kept[0] != start:
                self._kept = None  # before reading, so that only one layer is in memory
                self._kept = start, read(start, min(start + self.thickness, self.n_planes))
            return self._kept[1][z - start].copy()

    def notes(self) -> list[str]:
        """A sentence if reading plane by plane decodes the same chunks again and again."""
        if self.fits or self.thickness == 1:
            return []
        return [
            f"chunks are {self.thickness} planes thick and a layer of them is too large to keep: reading planes in "
            f"order decodes each chunk {self.thickness} times; copy the volume with thinner chunks first"
        ]

    def clear(self) -> None:
        self._kept = None
