"""Readers and writers, one module per format; this file only tells formats apart, by content first, then by name."""

from __future__ import annotations

import os
import stat
from os import PathLike, fspath

from gpu_tomoclass.errors import DataError, UsageError

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".tf2")
MRC_SUFFIXES = (".mrc", ".rec", ".map", ".st", ".ali", ".mrcs")
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".hspy")
ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
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
_READABLE = (
    "TIFF, a folder of TIFF planes, MRC, Zarr, HDF5 and .npy can be read, others as raw voxels with shape and dtype"
)
NPY_MAGIC = b"\x93NUMPY"
# By name: read by libraries of the extra "formats".
LIBRARY_SUFFIXES = {".dm3": "microscope", ".dm4": "microscope", ".ser": "microscope"}
LIBRARY_SUFFIXES |= {".nrrd": "itk", ".mha": "itk", ".nii": "itk", ".nii.gz": "itk"}
# What people have that is not read: what it is, and the way to something that is.
EXPORTS = {
    ".am": ("an Amira or Avizo mesh", "export it as TIFF, MRC or raw data from Amira"),
    ".ilp": ("an ilastik project", "export the input or the labels as HDF5 from ilastik (Prediction Export)"),
    ".labeling": ("a Labkit labeling", "save it as TIFF from Labkit (Save Labeling)"),
    ".classifier": ("a Labkit classifier", "train one here with the same labels, saved as TIFF"),
    ".npz": ("a NumPy archive of several arrays", "save the array alone, with numpy.save"),
    ".mod": ("an IMOD model", "make a label volume of it with imodmop or imodauto"),
    ".mhd": ("a MetaImage header beside its voxels", "save it as one .mha file from the program that wrote it"),
    ".nhdr": ("an NRRD header beside its voxels", "save it as one .nrrd file from the program that wrote it"),
    ".emi": ("the header of a TIA series", "open the .ser file beside it"),
    ".czi": ("a Zeiss file", "export it as OME-TIFF from ZEN or Bio-Formats"),
    ".vol": ("raw voxels", "give shape and dtype"),
    ".raw": ("raw voxels", "give shape and dtype"),
    ".n5": ("an N5 store", "export it as OME-Zarr or TIFF from Fiji"),
}


def detect_format(path: str | PathLike[str]) -> str:
    """``"tiff"``, ``"folder"``, ``"mrc"``, ``"zarr"``, ``"hdf5"``, ``"npy"``, ``"microscope"`` or ``"itk"``.

    ``"hdf5"`` also for ``file.h5::/path``; a path inside a Zarr store is ``"zarr"``.

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
            raise DataError("is no ordinary file", where=file, do=_READABLE)
        with open(file, "rb") as stream:
            head = stream.read(1024)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("there is no such file or folder", where=file) from error
    except OSError as error:
        raise DataError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=file) from error
    if not head:
        raise DataError("is empty (0 bytes)", where=file, do="copy or export it again")
    if "::" in name and file != name:
        if head.startswith(_HDF5_MAGIC):
            return "hdf5"
        raise DataError(f"is {_looks_like(head)}, not HDF5, so it has no datasets", where=file, do="leave out the ::")
    if head.startswith(_TIFF_MAGIC):
        return "tiff"
    if head.startswith(_HDF5_MAGIC):
        return "hdf5"
    if head.startswith(NPY_MAGIC):
        return "npy"
    if kind := next((kind for end, kind in LIBRARY_SUFFIXES.items() if file.lower().endswith(end)), None):
        return kind
    suffix = os.path.splitext(file)[1].lower()
    if suffix in EXPORTS:
        what, do = EXPORTS[suffix]
        raise DataError(f"is {what}, which is not read", where=file, do=do)
    if suffix in MRC_SUFFIXES or head[208:212] == b"MAP ":
        return "mrc"
    expected = "TIFF" if suffix in TIFF_SUFFIXES else "HDF5" if suffix in HDF5_SUFFIXES else ""
    if expected:
        raise DataError(f"is {_looks_like(head)}, not {expected}", where=file, do="export it again")
    raise DataError(f"is {_looks_like(head)}, not a volume", where=file, do=_READABLE)


def refuse_options(path: str | PathLike[str], *, format: str, options: dict[str, object]) -> None:
    """Raise UsageError if an option that ``format`` does not know was set: nothing a user asks for is ignored."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}={value!r} means nothing for {format}", where=path, do=f"leave out {name}")


def _detect_folder(name: str) -> str:
    entries = os.listdir(name)
    if any(mark in entries for mark in ZARR_MARKS):
        return "zarr"
    if any(entry.lower().endswith(TIFF_SUFFIXES) and not entry.startswith(".") for entry in entries):
        return "folder"
    if "attributes.json" in entries or name.rstrip("/\\").lower().endswith(".n5"):
        raise DataError(f"is {EXPORTS['.n5'][0]}, which is not read", where=name, do=EXPORTS[".n5"][1])
    if name.rstrip("/\\").lower().endswith(".zarr"):
        raise DataError(f"is no Zarr store: it has none of {', '.join(ZARR_MARKS)}", where=name)
    found = f"{len(entries)} other entries" if entries else "nothing"
    raise DataError(f"is a folder without TIFF planes (it holds {found}) and no Zarr store", where=name, do=_READABLE)


def _looks_like(head: bytes) -> str:
    for magic, what in _OTHER_MAGIC.items():
        if head.startswith(magic):
            return what
    if head.startswith(_TIFF_MAGIC):
        return "a TIFF"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "a text file" if printable > 0.95 * len(head) else f"an unknown kind of file (first bytes {head[:4].hex()})"
