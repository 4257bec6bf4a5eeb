"""One table of volume formats: how a file is known, who reads it, who writes it, what it can say beside its voxels.

:data:`FORMATS` has a row per format; :data:`EXPORTS` names what people have that is not read, with the way to
something that is. All lists of suffixes, in code and in docs, come from here or are tested against it.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.volumes.volume import Volume, VolumeWriter

# What a format can state, see Format.states.
VOXEL_SIZE, UNIT, ORIGIN, AXES, CLASSES, CHANNELS = "voxel size", "unit", "origin", "axes", "classes", "channels"


@dataclass(frozen=True)
class Format:
    """A row of :data:`FORMATS`.

    Attributes
    ----------
    kind : str
        Short name for code: ``"tiff"``.
    name : str
        Name for people: ``"TIFF"``.
    suffixes : tuple of str
        Of names that are read, in lower case.
    opener : str
        ``module:function`` within this room; takes the path and, by keyword, ``options``.
    options : tuple of str
        Options of :func:`gpu_tomoclass.volumes.opening.open_volume` that it understands; others are refused.
    magic : tuple of (int, bytes)
        What stands at a place in the file. Empty where the suffix decides.
    marks : tuple of str
        Names of entries by which a folder is known.
    states : tuple of str
        What a file can say beside its voxels and we read: some of ``VOXEL_SIZE``, ``UNIT``, ``ORIGIN``, ``AXES``,
        ``CLASSES``, ``CHANNELS``.
    writer : str or None
        ``module:class`` within this room, a :class:`~gpu_tomoclass.volumes.volume.VolumeWriter`; None: not written.
    written : tuple of str
        Suffixes of names that the writer makes.
    writer_options : tuple of str
        Options of :func:`gpu_tomoclass.volumes.opening.create_volume` that only this format knows.
    is_folder : bool
        Whether an output is a folder.
    extra : str or None
        The extra of our package that brings the library it is read with; None: read without one.
    """

    kind: str
    name: str
    suffixes: tuple[str, ...]
    opener: str
    options: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...] = ()
    marks: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    writer: str | None = None
    written: tuple[str, ...] = ()
    writer_options: tuple[str, ...] = ()
    is_folder: bool = False
    extra: str | None = None

    def has_suffix(self, name: str) -> bool:
        """Tell whether a file of that name says that it is of this format."""
        return name.lower().endswith(self.suffixes) if self.suffixes else False

    def has_magic(self, head: bytes) -> bool:
        """Tell whether a file that begins so is of this format."""
        return any(head.startswith(mark, at) for at, mark in self.magic)

    def open(self, path: str | PathLike[str], **options: Any) -> Volume:
        """Open a file; options as :func:`gpu_tomoclass.volumes.opening.open_volume`, those of this format."""
        return _load(self.opener)(path, **options)

    def writer_class(self) -> type[VolumeWriter]:
        """The class that writes it."""
        assert self.writer is not None
        return _load(self.writer)

    def create(self, path: str | PathLike[str], **arguments: Any) -> VolumeWriter:
        """Begin an output; arguments as :func:`gpu_tomoclass.volumes.opening.create_volume`."""
        assert self.writer is not None
        return _load(self.writer)(path, **arguments)


_MRC_SUFFIXES = (".mrc", ".rec", ".map", ".st", ".ali", ".mrcs")

FORMATS = (
    Format(
        kind="tiff",
        name="TIFF",
        suffixes=(".tif", ".tiff", ".btf", ".tf8", ".tf2"),
        magic=((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
        opener="tiff.reader:open_tiff",
        options=("axes", "series", "channel", "allow_missing_planes"),
        states=(VOXEL_SIZE, UNIT, ORIGIN, AXES, CLASSES, CHANNELS),
        writer="tiff.writer:TiffWriter",
        written=(".tif", ".tiff", ".btf", ".tf8", ".tf2"),
    ),
    Format(
        kind="folder",
        name="a folder of TIFF planes",
        suffixes=(),
        opener="folder:open_folder",
        options=("axes", "channel", "allow_missing_planes"),
        states=(VOXEL_SIZE, UNIT),
    ),
    Format(
        kind="mrc",
        name="MRC",
        suffixes=_MRC_SUFFIXES,
        magic=((208, b"MAP "),),
        opener="mrc.mrc:open_mrc",
        options=("axes", "allow_missing_planes"),
        states=(VOXEL_SIZE, ORIGIN, AXES, CLASSES),
        writer="mrc.mrc:MrcWriter",
        written=(".mrc", ".rec", ".map"),
    ),
    Format(
        kind="mrc.gz",
        name="MRC in gzip",
        suffixes=tuple(f"{suffix}.gz" for suffix in _MRC_SUFFIXES),
        opener="mrc.compressed:open_compressed_mrc",
        options=("axes", "allow_missing_planes"),
        states=(VOXEL_SIZE, ORIGIN, AXES, CLASSES),
    ),
    Format(
        kind="zarr",
        name="Zarr",
        suffixes=(".zarr", ".zspy"),
        marks=("zarr.json", ".zgroup", ".zarray"),
        opener="ome_zarr.reader:open_zarr",
        options=("axes", "channel", "allow_missing_planes", "sparse"),
        states=(VOXEL_SIZE, UNIT, ORIGIN, AXES, CLASSES, CHANNELS),
        writer="ome_zarr.writer:ZarrWriter",
        written=(".ome.zarr", ".zarr"),
        writer_options=("ome_version", "sharded", "portal"),
        is_folder=True,
    ),
    Format(
        kind="hdf5",
        name="HDF5",
        suffixes=(".h5", ".hdf5", ".hdf", ".nxs", ".hspy", ".emd"),
        magic=((0, b"\x89HDF\r\n\x1a\n"),),
        opener="hdf5.reader:open_hdf5",
        options=("axes", "channel", "allow_missing_planes", "sparse"),
        states=(VOXEL_SIZE, UNIT, ORIGIN, AXES, CLASSES),
        writer="hdf5.nexus:NexusWriter",
        written=(".nxs",),
    ),
    Format(
        kind="npy",
        name="NumPy array",
        suffixes=(".npy",),
        magic=((0, b"\x93NUMPY"),),
        opener="array_files:open_npy",
        options=("axes", "channel"),
    ),
    Format(
        kind="dm",
        name="DigitalMicrograph",
        suffixes=(".dm3", ".dm4"),
        opener="library_files:open_microscope_file",
        options=("axes", "series", "channel"),
        states=(VOXEL_SIZE, UNIT, ORIGIN),
        extra="formats",
    ),
    Format(
        kind="ser",
        name="TIA series",
        suffixes=(".ser",),
        opener="library_files:open_microscope_file",
        options=("axes", "series", "channel"),
        states=(VOXEL_SIZE, UNIT),
        extra="formats",
    ),
    Format(
        kind="nrrd",
        name="NRRD",
        suffixes=(".nrrd",),
        opener="library_files:open_itk_file",
        options=("axes", "channel"),
        states=(VOXEL_SIZE, ORIGIN),
        extra="formats",
    ),
    Format(
        kind="metaimage",
        name="MetaImage",
        suffixes=(".mha",),
        opener="library_files:open_itk_file",
        options=("axes", "channel"),
        states=(VOXEL_SIZE, ORIGIN),
        extra="formats",
    ),
    Format(
        kind="nifti",
        name="NIfTI",
        suffixes=(".nii", ".nii.gz"),
        opener="library_files:open_itk_file",
        options=("axes", "channel"),
        states=(VOXEL_SIZE, UNIT, ORIGIN),
        extra="formats",
    ),
)

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
    ".vol": ("raw voxels", "say what they are: --shape 850,400,400 --dtype uint16"),
    ".raw": ("raw voxels", "say what they are: --shape 850,400,400 --dtype uint16"),
    ".zip": ("a ZIP archive", "unpack it: of ImageJ it holds a TIFF, as .zarr.zip a Zarr store; ROIs are annotations"),
    ".ozx": ("a zipped OME-Zarr store", "unpack it (unzip) and open the folder"),
    ".n5": ("an N5 store", "export it as OME-Zarr or TIFF from Fiji"),
}

# Suffixes of two parts, which count as one in names made after a file: labels.ome.zarr, labels_probabilities.ome.zarr.
_LONG = (".ome.zarr", ".ome.tiff", ".ome.tif", *(s for row in FORMATS for s in row.suffixes if s.count(".") > 1))


def format_of(kind: str) -> Format:
    """The row of that kind."""
    return next(row for row in FORMATS if row.kind == kind)


def named_format(path: str | PathLike[str]) -> Format:
    """The row that the suffix of a file names.

    Raises
    ------
    KeyError
        If it names none.
    """
    name = fspath(path)
    found = next((row for row in FORMATS if row.has_suffix(name)), None)
    if found is None:
        raise KeyError(name)
    return found


TIFF_SUFFIXES = format_of("tiff").suffixes
ZARR_MARKS = format_of("zarr").marks


def written_format(path: str | PathLike[str]) -> Format:
    """The format that the suffix of a name to be written names.

    Raises
    ------
    UsageError
        If the suffix names none that can be written.
    """
    found = next((row for row in FORMATS if _ends_in(path, row.written)), None)
    if found is None:
        suffix = split_suffix(path)[1].lower()
        raise UsageError(
            f"the suffix {suffix!r} names no format that can be written",
            where=path,
            do="use .ome.zarr, .tif, .mrc or .nxs",
        )
    return found


def split_suffix(path: str | PathLike[str]) -> tuple[str, str]:
    """``("a/labels", ".ome.zarr")`` of ``a/labels.ome.zarr/``: the suffix of a name, also where it has two parts."""
    name = fspath(path).rstrip("/\\")
    long = next((suffix for suffix in _LONG if name.lower().endswith(suffix)), "")
    return (name[: -len(long)], name[-len(long) :]) if long else os.path.splitext(name)


def product_name(output: str | PathLike[str], product: str) -> str:
    """``labels.ome.zarr`` and ``"probabilities"`` -> ``labels_probabilities.ome.zarr``."""
    stem, suffix = split_suffix(output)
    return f"{stem}_{product}{suffix}"


def is_folder(output: str | PathLike[str]) -> bool:
    """Tell whether an output of that name will be a folder."""
    return any(row.is_folder and _ends_in(output, row.written) for row in FORMATS)


def is_written(path: str | PathLike[str]) -> bool:
    """Tell whether the suffix of a name is one of a format that is written."""
    return any(_ends_in(path, row.written) for row in FORMATS)


def refuse_options(path: str | PathLike[str], *, format: str, options: dict[str, object]) -> None:
    """Raise UsageError if an option that ``format`` does not know was set: nothing a user asks for is ignored."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}={value!r} means nothing for {format}", where=path, do=f"leave out {name}")


def readable() -> str:
    """The formats that are read, as a sentence for errors."""
    names = ", ".join(row.name for row in FORMATS)
    return f"read are {names}, and raw voxels with --shape and --dtype"


def _ends_in(path: str | PathLike[str], suffixes: tuple[str, ...]) -> bool:
    """Tell whether a name has one of the suffixes and something before it."""
    name = os.path.basename(fspath(path).rstrip("/\\")).lower()
    return any(name.endswith(suffix) and name != suffix for suffix in suffixes)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"gpu_tomoclass.volumes.{module}"), name)
