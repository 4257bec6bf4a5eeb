"""ImageJ ROIs as strokes: the class of a ROI is its group or name, its plane its position.

The file is read in :mod:`gpu_tomoclass.annotations.roi_file`, the pixels come from
:mod:`gpu_tomoclass.annotations.roi_pixels`. A ROI is used entirely or refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from gpu_tomoclass.annotations.roi_file import RoiEntry, listed, read_roi_entries
from gpu_tomoclass.annotations.roi_pixels import STROKES, Pixels, roi_pixels, stroke_width
from gpu_tomoclass.errors import DataError


@dataclass(frozen=True)
class RoiStrokes:
    """Pixels of all usable ROIs of a file, ROI by ROI, each in the order of
    :class:`~gpu_tomoclass.annotations.roi_pixels.Pixels`.

    Attributes
    ----------
    z, y, x : numpy.ndarray
        (n,) int64; z is the plane of the volume.
    label : numpy.ndarray
        (n,) uint8, class values.
    roi : numpy.ndarray
        (n,) int64: index into ``titles`` of the ROI that each pixel comes from.
    titles : tuple of str
        How each ROI of the file is called in messages.
    class_names : dict
        Value -> name, where names were found or given.
    notes : list of str
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    label: np.ndarray
    roi: np.ndarray
    titles: tuple[str, ...]
    class_names: Mapping[int, str]
    notes: list[str]


def read_roi_strokes(
    path: str | PathLike[str],
    *,
    volume_shape: tuple[int, int, int],
    substack: np.ndarray | None = None,
    first_plane: int | None = None,
    class_names: Mapping[int, str] | None = None,
    skip_bad_rois: bool = False,
) -> RoiStrokes:
    """Read an ImageJ ``.roi`` file or a ``.zip`` of them.

    Parameters
    ----------
    path : str or path
    volume_shape : tuple of int
        (nz, ny, nx) of the volume that the strokes are for.
    substack : numpy.ndarray, optional
        Planes of the volume that positions 1, 2, .. stand for; default all of them.
    first_plane : int, optional
        The plane of a file in which no ROI has a position (strokes on a single image).
    class_names : mapping, optional
        Value -> name. Names of ROIs must then be among them.
    skip_bad_rois : bool
        Leave unusable ROIs out, with a note, instead of refusing the file.

    Raises
    ------
    UsageError
        If the file does not exist.
    DataError
        If the file cannot be read, holds no usable ROI, or holds an unusable one that may not be skipped.
    """
    notes: list[str] = []
    entries = read_roi_entries(path, notes)
    labels = _classes(entries, given=class_names, where=fspath(path), notes=notes)
    planes = np.arange(volume_shape[0]) if substack is None else substack
    placed = _Planes(entries, planes=planes, nz=volume_shape[0], first_plane=first_plane, notes=notes)
    parts: list[tuple[np.ndarray, Pixels, int, int]] = []
    clipped = []
    for index, entry in enumerate(entries):
        if entry.bad:
            continue
        try:
            pixels = roi_pixels(entry.roi, volume_shape[1:])
            parts.append((placed.of(entry, pixels), pixels, labels.value[entry.title], index))
        except DataError as error:
            entry.bad = error.what
            continue
        if pixels.clipped:
            clipped.append(entry.title)
    if clipped:
        notes.append(f"parts of these ROIs lie outside the image and are not used: {listed(clipped)}")
    _report_bad(entries, where=fspath(path), skip=skip_bad_rois, notes=notes)
    sizes = [pixels.y.size for _, pixels, _, _ in parts]
    _note_widths(entries, parts, labels, notes)
    return RoiStrokes(
        z=np.concatenate([z for z, _, _, _ in parts]),
        y=np.concatenate([pixels.y for _, pixels, _, _ in parts]),
        x=np.concatenate([pixels.x for _, pixels, _, _ in parts]),
        label=np.repeat(np.array([value for _, _, value, _ in parts], dtype=np.uint8), sizes),
        roi=np.repeat(np.array([index for _, _, _, index in parts], dtype=np.int64), sizes),
        titles=tuple(entry.title for entry in entries),
        class_names=labels.name,
        notes=notes,
    )


def _note_widths(
    entries: Sequence[RoiEntry],
    parts: Sequence[tuple[np.ndarray, Pixels, int, int]],
    labels: _Labels,
    notes: list[str],
) -> None:
    """Note on lines without a width of their own, by class: one pixel wide is rarely what was meant."""
    lines = [entries[index].roi for _, _, _, index in parts if entries[index].roi.roitype in STROKES]
    thin = sum(stroke_width(roi) == 0 for roi in lines)
    if not thin:
        return
    counts: dict[int, int] = {}
    for _, pixels, value, _ in parts:
        counts[value] = counts.get(value, 0) + pixels.y.size
    got = ", ".join(f"{labels.name.get(v, f'class {v}')}: {n}" for v, n in sorted(counts.items()))
    notes.append(
        f"{thin} of {len(lines)} line ROIs carry no width and are one pixel wide (Edit > Options > Line Width sets it "
        f"before drawing); pixels by class: {got}"
    )


def _report_bad(entries: Sequence[RoiEntry], *, where: str, skip: bool, notes: list[str]) -> None:
    bad = [f"{entry.title} {entry.bad}" for entry in entries if entry.bad]
    if not bad:
        return
    share, reasons = f"{len(bad)} of {len(entries)} ROIs", listed(bad, separator="; ")
    if skip and len(bad) < len(entries):
        notes.append(f"{share} were left out: {reasons}")
        return
    do = "correct them in Fiji's ROI Manager" + ("" if skip else ", or leave them out with --skip-bad-rois")
    raise DataError(f"{share} cannot be used: {reasons}", where=where, do=do)


# --- the class --------------------------------------------------------------------------------------------------------


def class_of_name(name: str) -> str | None:
    """The class that the name of a ROI stands for, or None.

    A trailing ``-12`` or ``_3`` is a counter: ``pore``, ``pore-12`` and ``pore_3`` are class ``pore``. ``class 2``,
    ``class-2``, ``Class_2`` and ``class2-7`` are class 2. Names without a letter, such as the ROI Manager's
    ``0007-0123-0200``, stand for no class.
    """
    name = name.strip()
    if not re.search(r"[^\W\d_]", name):
        return None
    numbered = re.fullmatch(r"class[ _-]*(\d{1,3})([-_]\d+)?", name, re.IGNORECASE)
    if numbered:
        return f"class {int(numbered[1])}"
    counted = re.fullmatch(r"(.*[^\s_-])\s*[-_]\s*\d+", name)
    return counted[1] if counted else name


@dataclass
class _Labels:
    value: dict[str, int]  # by title of the ROI
    name: dict[int, str]


def _classes(entries: Sequence[RoiEntry], *, given: Mapping[int, str] | None, where: str, notes: list[str]) -> _Labels:
    """The class of every usable ROI: its group, else its name. ROIs without one are marked bad."""
    labels = _Labels({}, dict(given or {}))
    known = {name.casefold(): value for value, name in labels.name.items()}
    usable = [entry for entry in entries if not entry.bad]
    grouped = [entry for entry in usable if entry.roi.group > 0]
    named = [entry for entry in usable if entry.roi.group <= 0]
    _by_group(grouped, labels, known, strict=given is not None)
    fresh: dict[str, list[RoiEntry]] = {}
    for entry in named:
        whole, name = entry.name.strip(), class_of_name(entry.name)
        value = known.get(whole.casefold()) or known.get((name or "").casefold())
        if value:
            labels.value[entry.title] = value
        elif name is None:
            entry.bad = "has no class: set its group, or put the class into its name (Rename..)"
        elif (number := _class_number(name)) and (given is None or number in given):
            labels.value[entry.title] = number
        elif given is not None:
            entry.bad = f"is named after class '{name}', which is not one of {', '.join(given.values())}"
        else:
            fresh.setdefault(name.casefold(), []).append(entry)
    _number_fresh(fresh, labels, where=where)
    if fresh:
        pairs = sorted({labels.value[entries[0].title] for entries in fresh.values()})
        notes.append("classes by ROI name: " + ", ".join(f"{value} = {labels.name[value]}" for value in pairs))
    by_name = [entry.title for entry in named if entry.title in labels.value]
    if by_name and any(entry.title in labels.value for entry in grouped):
        notes.append(f"these ROIs have no group, unlike others, so their name is their class: {listed(by_name)}")
    return labels


def _by_group(entries: Sequence[RoiEntry], labels: _Labels, known: dict[str, int], *, strict: bool) -> None:
    """Classes of ROIs with a group; a name shared by all ROIs of one group, and by no other, names the class."""
    names: dict[int, set[str]] = {}
    for entry in entries:
        group, name = int(entry.roi.group), class_of_name(entry.name) or ""
        meant = known.get(entry.name.strip().casefold()) or known.get(name.casefold())
        if group > 255:
            entry.bad = f"is in group {group}; classes go from 1 to 255"
        elif strict and meant and meant != group:
            entry.bad = f"is in group {group} but named after class {meant} ({labels.name[meant]})"
        else:
            labels.value[entry.title] = group
            names.setdefault(group, set()).add(name)
    if strict:
        return
    for group, found in names.items():
        (name, *others) = found
        if name and not others and not any(name in names[other] for other in names if other != group):
            labels.name[group] = name
            known[name.casefold()] = group


def _number_fresh(fresh: Mapping[str, Sequence[RoiEntry]], labels: _Labels, *, where: str) -> None:
    """Names that no list of classes explains get the free values in alphabetical order."""
    taken = set(labels.value.values())
    free = [value for value in range(1, 256) if value not in taken]
    if len(fresh) > len(free):
        raise DataError(f"the names of the ROIs stand for {len(fresh)} classes; there can be 255", where=where)
    for value, key in zip(free, sorted(fresh), strict=False):
        labels.name[value] = class_of_name(fresh[key][0].name) or ""
        labels.value.update({entry.title: value for entry in fresh[key]})


def _class_number(name: str) -> int:
    """k for ``class k``, else 0."""
    match = re.fullmatch(r"class (\d{1,3})", name)
    return int(match[1]) if match and 1 <= int(match[1]) <= 255 else 0


# --- the plane --------------------------------------------------------------------------------------------------------


class _Planes:
    """Where ROIs lie: position p (from 1) is plane ``planes[p - 1]`` of the volume."""

    def __init__(
        self, entries: Sequence[RoiEntry], *, planes: np.ndarray, nz: int, first_plane: int | None, notes: list[str]
    ) -> None:
        self.planes, self.nz, self.notes = planes, nz, notes
        self.axis = _hyperstack_axis(entries, notes)
        self.default = int(planes[0]) if len(planes) == 1 else None
        if self.default is None and first_plane is not None and not any(map(_has_position, entries)):
            self.default = first_plane
            notes.append(f"no ROI has a position; all are taken as strokes on plane {first_plane}")

    def of(self, entry: RoiEntry, pixels: Pixels) -> np.ndarray:
        """Plane of each pixel, (n,) int64."""
        roi = entry.roi
        if roi.roitype == ROI_TYPE.POINT and roi.counters is not None and np.unique(roi.counters).size > 1:
            what = "has points of several counters, which are not classes here"
            raise DataError(f"{what}: use one multi-point ROI per class and set its group")
        position = _position(roi, self.axis)
        if pixels.point is None or roi.counter_positions is None or not roi.counter_positions.any():
            return np.full(pixels.y.size, self._plane(position or self._from_name(entry.name)), dtype=np.int64)
        own = roi.counter_positions[pixels.point]
        return np.array([self._plane(int(p) or max(position, 0)) for p in own], dtype=np.int64)

    def _plane(self, position: int) -> int:
        if position == 0 and self.default is not None:
            return self.default
        n = len(self.planes)
        stack = f"a stack of {n} plane{'s' if n != 1 else ''}"
        if n != self.nz:
            stack += f" (of a volume of {self.nz})"
        if position == 0:
            raise DataError(f"has no position (slice) in {stack}")
        if not 1 <= position <= n:
            raise DataError(f"is on slice {position} of {stack}")
        return int(self.planes[position - 1])

    def _from_name(self, name: str) -> int:
        """Slice from a name like 0007-0123-0200, which is where old ImageJ versions keep it."""
        match = re.fullmatch(r"(\d{4,6})-\d{4,6}-\d{4,6}(-\d+)?", name)
        if self.default is not None or match is None:
            return 0
        note = "ROIs without a position are placed by the slice number in their name (0007-0123-0200: slice 7)"
        if note not in self.notes:
            self.notes.append(note)
        return int(match[1])


def _has_position(entry: RoiEntry) -> bool:
    roi = entry.roi
    return any((roi.position, roi.c_position, roi.z_position, roi.t_position))


def _hyperstack_axis(entries: Sequence[RoiEntry], notes: list[str]) -> int | None:
    """Axis (0 channel, 1 slice, 2 frame) that is the plane for all ROIs of a file; None if it cannot be told.

    Stacks of planes are often hyperstacks whose planes count as channels or frames. Where the ROIs lie on several
    slices, the slice is the plane; where they lie on several channels only, the channel is.
    """
    places = {_place(entry.roi) for entry in entries if not entry.roi.position and any(_place(entry.roi))}
    used = [axis for axis in range(3) if any(place[axis] > 1 for place in places)]
    if len(used) <= 1:
        axis = used[0] if used else 1
        # Slice 1 throughout, and one channel: either is the plane, and strokes on one plane do not tell.
        alone = axis != 1 and all(place[1] == 1 for place in places) and len({place[axis] for place in places}) == 1
        return None if alone else axis
    slices = {place[1] for place in places}
    if 1 in used and len(slices) > 1:
        notes.append(
            "ROIs lie on several slices and channels or frames of a hyperstack: the slice is taken as the plane"
        )
        return 1
    return None


def _place(roi: ImagejRoi) -> tuple[int, int, int]:
    return int(roi.c_position), int(roi.z_position), int(roi.t_position)


def _position(roi: ImagejRoi, axis: int | None) -> int:
    """Position in the stack from 1; 0 for none, negative where every point has its own."""
    if roi.position:
        return int(roi.position)
    place = _place(roi)
    if any(place) and axis is None:
        raise DataError(
            f"lies at channel {place[0]}, slice {place[1]}, frame {place[2]}, and it is not clear which is the plane: "
            "save the image as a plain stack and draw on that"
        )
    return max(place) if axis is None or not place[axis] else place[axis]
