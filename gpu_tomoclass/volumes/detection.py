"""Tell formats apart, by content first, then by name; what is no volume is named."""

from __future__ import annotations

import os
import stat
from os import PathLike, fspath

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.formats import EXPORTS, FORMATS, TIFF_SUFFIXES, ZARR_MARKS, Format, format_of, readable

_OTHER_MAGIC = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip file, which must be unpacked first (gunzip)",
    b"BZh": "a bzip2 file, which must be unpacked first (bunzip2)",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
}


def detect_format(path: str | PathLike[str]) -> Format:
    """The row of :data:`gpu_tomoclass.volumes.formats.FORMATS` that a file or folder belongs to.

    HDF5 also for ``file.h5::/path``; a path inside a Zarr store is Zarr.

    Raises
    ------
    UsageError
        If there is nothing of that name.
    DataError
        If it cannot be read, is empty, or is something else; the message says what it looks like.
    """
    name = fspath(path)
    file = name if os.path.lexists(name) else name.partition("::")[0]
    try:
        mode = os.stat(file).st_mode
        if stat.S_ISDIR(mode):
            return _detect_folder(name)
        if not stat.S_ISREG(mode):
            raise DataError("is no ordinary file", where=file, do=readable())
        with open(file, "rb") as stream:
            head = stream.read(1024)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("there is no such file or folder", where=file) from error
    except OSError as error:
        raise DataError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=file) from error
    if not head:
        raise DataError("is empty (0 bytes)", where=file, do="copy or export it again")
    if "::" in name and file != name:
        if format_of("hdf5").has_magic(head):
            return format_of("hdf5")
        raise DataError(f"is {_looks_like(head)}, not HDF5, so it has no datasets", where=file, do="leave out the ::")
    return _detect_file(file, head)


def _detect_file(file: str, head: bytes) -> Format:
    """By what stands at the beginning; a mark further on may be anybody's bytes, so the suffix goes before it."""
    at_start = [row for row in FORMATS if any(place == 0 for place, _ in row.magic)]
    named = next((row for row in FORMATS if row.has_suffix(file)), None)
    for row in at_start:
        if row.has_magic(head):
            return row
    if named is not None and named not in at_start:
        return named
    suffix = os.path.splitext(file)[1].lower()
    if suffix in EXPORTS:
        what, do = EXPORTS[suffix]
        raise DataError(f"is {what}, which is not read", where=file, do=do)
    if found := next((row for row in FORMATS if row.has_magic(head)), None):
        return found
    if named is not None:
        raise DataError(f"is {_looks_like(head)}, not {named.name}", where=file, do="export it again")
    raise DataError(f"is {_looks_like(head)}, not a volume", where=file, do=readable())


def _detect_folder(name: str) -> Format:
    entries = os.listdir(name)
    if any(mark in entries for mark in ZARR_MARKS):
        return format_of("zarr")
    if any(entry.lower().endswith(TIFF_SUFFIXES) and not entry.startswith(".") for entry in entries):
        return format_of("folder")
    if "attributes.json" in entries or name.rstrip("/\\").lower().endswith(".n5"):
        raise DataError(f"is {EXPORTS['.n5'][0]}, which is not read", where=name, do=EXPORTS[".n5"][1])
    if format_of("zarr").has_suffix(name.rstrip("/\\")):
        raise DataError(f"is no Zarr store: it has none of {', '.join(ZARR_MARKS)}", where=name)
    found = f"{len(entries)} other entries" if entries else "nothing"
    raise DataError(f"is a folder without TIFF planes (it holds {found}) and no Zarr store", where=name, do=readable())


def _looks_like(head: bytes) -> str:
    for magic, what in _OTHER_MAGIC.items():
        if head.startswith(magic):
            return what
    for row in FORMATS:
        if row.has_magic(head):
            return f"a {row.name}"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "a text file" if printable > 0.95 * len(head) else f"an unknown kind of file (first bytes {head[:4].hex()})"
