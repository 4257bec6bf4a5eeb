"""ImageJ ROI files and zips, read into memory entry by entry; nothing is unpacked to disk.

The format is that of ImageJ's ``ij/io/RoiDecoder.java``. The values come from ``roifile``, but completeness is checked
here first, because a cut ROI can still be decoded, silently without its position and group.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import PurePosixPath

from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from gpu_tomoclass.annotations.roi_pixels import AREAS
from gpu_tomoclass.errors import DataError, UsageError

# The largest ROIs that ImageJ writes (65535 points with subpixel coordinates) are below 1 MB.
_MAX_ROI_BYTES = 16 << 20
_MAX_FILE_BYTES = 256 << 20
_MAX_ROIS = 100_000
_LISTED = 10


@dataclass
class RoiEntry:
    """One ROI of a file: what it is called in messages, its name, its content, and why it cannot be used (or "")."""

    title: str
    name: str
    roi: ImagejRoi = field(default_factory=ImagejRoi)
    bad: str = ""


def listed(items: Sequence[str], *, separator: str = ", ") -> str:
    """The first ten items and how many more there are."""
    more = f"{separator}and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return separator.join(items[:_LISTED]) + more


def read_roi_entries(path: str | PathLike[str], notes: list[str]) -> list[RoiEntry]:
    """Every ROI of a ``.roi`` file or a ``.zip`` of them, damaged ones included (with the reason in ``bad``).

    Raises
    ------
    UsageError
        If the file does not exist.
    DataError
        If the file cannot be read, holds no ROI, or declares sizes that ROIs never have.
    """
    path = fspath(path)
    try:
        size = os.stat(path).st_size
        if size > _MAX_FILE_BYTES:
            raise DataError(f"has {size} bytes, more than a file of ImageJ ROIs ever has", where=path)
        pairs = list(_zip_entries(path, notes)) if path.lower().endswith(".zip") else [_single(path, size)]
    except FileNotFoundError as error:
        raise UsageError("does not exist", where=path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path) from error
    if not pairs:
        raise DataError("holds no ImageJ ROI (.roi)", where=path, do="save it with More > Save.. in the ROI Manager")
    return [_entry(*pair, number=0 if len(pairs) == 1 else i) for i, pair in enumerate(pairs, start=1)]


def _entry(file_name: str, data: bytes | str, *, number: int) -> RoiEntry:
    name, roi, bad = PurePosixPath(file_name).name[: -len(".roi")], ImagejRoi(), ""
    try:
        if isinstance(data, str):
            raise DataError(data)
        roi = _decode(data)
        name = roi.name or name
    except DataError as error:
        bad = error.what
    return RoiEntry(f"'{name}' (no. {number})" if number else f"'{name}'", name, roi, bad)


def _single(path: str, size: int) -> tuple[str, bytes | str]:
    if size > _MAX_ROI_BYTES:
        raise DataError(f"has {size} bytes, more than an ImageJ ROI ever has", where=path)
    with open(path, "rb") as file:
        return os.path.basename(path), file.read(_MAX_ROI_BYTES)


def _zip_entries(path: str, notes: list[str]) -> Iterator[tuple[str, bytes | str]]:
    """(name, bytes or what is wrong with them) of every ROI; sizes are checked before anything is unpacked."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(f"is no readable zip file ({error})", where=path) from error
    with archive:
        infos = [info for info in archive.infolist() if info.filename and not info.filename.endswith("/")]
        rois = [info for info in infos if _is_roi(info.filename)]
        others = [info.filename for info in infos if not _is_roi(info.filename)]
        if len(rois) > _MAX_ROIS:
            raise DataError(f"holds {len(rois)} ROIs, more than the {_MAX_ROIS} that are read", where=path)
        largest = max(rois, key=lambda info: info.file_size, default=None)
        total = sum(info.file_size for info in rois)
        if largest is not None and (largest.file_size > _MAX_ROI_BYTES or total > _MAX_FILE_BYTES):
            what = f"would unpack to {total} bytes ('{largest.filename}' alone to {largest.file_size})"
            raise DataError(f"{what}, more than a file of ImageJ ROIs ever does", where=path)
        if others:
            notes.append(f"entries of the zip that are not ROIs are ignored: {listed(others)}")
        for info in rois:
            yield info.filename, _unpack(archive, info)


def _is_roi(name: str) -> bool:
    """Tell whether an entry is a ROI, and not what macOS puts beside each file (``._name.roi``)."""
    return name.lower().endswith(".roi") and "__MACOSX/" not in name and not PurePosixPath(name).name.startswith("._")


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | str:
    try:
        with archive.open(info) as file:
            return file.read(info.file_size)  # asking for more would unpack more than the entry declares
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        return f"is damaged in the zip file ({error})"
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression method not known here
        return f"cannot be unpacked ({error})"


def _decode(data: bytes) -> ImagejRoi:
    needed = _needed_bytes(data)
    if needed > len(data):
        raise DataError(f"is truncated: {len(data)} of {needed} bytes")
    try:
        return ImagejRoi.frombytes(data)
    except (ValueError, TypeError, struct.error) as error:
        raise DataError(f"is damaged ({error})") from error


def _needed_bytes(data: bytes) -> int:
    """Bytes that the ROI must have by its own headers (offsets: ij/io/RoiDecoder.java)."""
    if len(data) < 4 or data[:4] != b"Iout":
        raise DataError("is not an ImageJ ROI")
    if len(data) < 64:
        return 64
    version, kind = struct.unpack_from(">hB", data, 4)
    (n,) = struct.unpack_from(">H", data, 16)
    (n_long,) = struct.unpack_from(">i", data, 18)
    shape_size, subtype, options, header2 = struct.unpack_from(">i8xhh8xi", data, 36)
    has_points = kind in (*AREAS, ROI_TYPE.FREELINE, ROI_TYPE.POLYLINE, ROI_TYPE.ANGLE, ROI_TYPE.POINT)
    if kind == ROI_TYPE.NOROI or kind not in {int(known) for known in ROI_TYPE}:
        raise DataError(f"is of unknown ROI type {kind}")
    if subtype == ROI_SUBTYPE.IMAGE:
        raise DataError("is an overlay (image), not a selection")
    counts = [shape_size, n_long if has_points and n == 0 else n, header2]
    if min(counts) < 0:
        raise DataError("is damaged: a size in its header is negative")
    needed = 64
    if shape_size:
        needed += 4 * shape_size
    elif has_points and subtype != ROI_SUBTYPE.TEXT:
        needed += counts[1] * (12 if version >= 222 and options & 128 else 4)
    if not header2:
        return needed
    # ImageJ's second header has 64 bytes; roifile leaves out a second header without at least 53.
    needed = max(needed, header2 + 64)
    if needed > len(data):
        return needed
    name_at, name_length, props_at, props_length, counters_at = struct.unpack_from(">ii16xiii", data, header2 + 16)
    if min(name_at, name_length, props_at, props_length, counters_at) < 0:
        raise DataError("is damaged: an offset in its second header is negative")
    ends = [name_at + 2 * name_length, props_at + 2 * props_length]
    if counters_at and has_points:
        ends.append(counters_at + 4 * counts[1])
    return max(needed, *ends)
