"""Write a volume as a TIFF that Fiji shows: ImageJ hyperstack, or OME-TIFF for what ImageJ's format cannot hold.

The file is laid out at once with tifffile (directories first page, room for all planes, other directories), and planes
are written into their places, in any order, so memory does not depend on depth. ImageJ's own format is classic TIFF,
whose byte positions have 32 bits; larger volumes become BigTIFF with OME metadata, which Fiji opens by Bio-Formats and
every other TIFF reader sees whole (ImageJ's own trick for large stacks, one directory for all planes, looks like a
single plane to them).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import SyncAhead, atomic, check_space, writing
from gpu_tomoclass.volumes.place import position
from gpu_tomoclass.volumes.ranges import ChannelRanges
from gpu_tomoclass.volumes.tiff.metadata import KEY, own_text
from gpu_tomoclass.volumes.units import CENTIMETRE, MICROMETRE
from gpu_tomoclass.volumes.volume import VolumeWriter, VoxelSize, ranges_text

CLASSIC_BYTES = 2**32 - 2**25  # 4 GiB less room for directories and labels
IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")
OME_DTYPES = {
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "float32": "float",
    "float64": "double",
}
OME_SUFFIXES = (".ome.tif", ".ome.tiff", ".btf", ".tf8", ".tf2")
_OME_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


class TiffWriter(VolumeWriter):
    """A TIFF being written; arguments as :func:`gpu_tomoclass.volumes.opening.create_volume`.

    Planes may come in any order.

    Raises
    ------
    UsageError
        If TIFF cannot hold the dtype or the metadata are not JSON.
    DataError
        If the file exists and ``overwrite`` is not set.
    ResourceError
        If the disk is too small or the folder cannot be written to.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size: VoxelSize | None = None,
        classes: Sequence[LabelClass] = (),
        channels: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        inputs: Sequence[str] = (),
    ) -> None:
        self.path, self.shape = fspath(path), shape
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.check(path, dtype=self._dtype)
        try:
            own = own_text(classes=classes, channels=channels, metadata=metadata or {})
        except (TypeError, ValueError) as error:
            raise UsageError(f"the metadata are not JSON: {error}", where=path) from error
        self._plane_shape = (*((len(channels),) if channels else ()), *shape[1:])
        self._plane_bytes = math.prod(self._plane_shape) * self._dtype.itemsize
        self._n_bytes = shape[0] * self._plane_bytes
        self._written = np.zeros(shape[0], np.bool_)
        self._ranges, self._ranges_at = ChannelRanges(len(channels)), 0
        self._place = position(metadata or {}, voxel_size)
        self._lock = threading.Lock()
        check_space(path, self._n_bytes)
        self._output = atomic(path, inputs=inputs, overwrite=overwrite)
        try:
            with writing(path, needed_bytes=self._n_bytes):
                self._offset = self._lay_out(voxel_size, classes, channels, own)
                self._file = open(self._output.temporary, "r+b", buffering=0)  # noqa: SIM115  (closed in finish or discard)
                self._sync = SyncAhead(self._file)
        except BaseException:
            self._output.discard()
            raise

    @classmethod
    def check(
        cls, path: str | PathLike[str], *, dtype: np.dtype[Any], classes: Sequence[LabelClass] = (), **options: Any
    ) -> None:
        if dtype.name not in OME_DTYPES:
            raise UsageError(
                f"TIFF holds no {dtype.name} that other programs read", where=path, do="write .ome.zarr instead"
            )

    def _lay_out(
        self, voxel_size: VoxelSize | None, classes: Sequence[LabelClass], channels: Sequence[str], own: str
    ) -> int:
        """Write everything but the voxels; the byte position of the first plane."""
        fits = self._n_bytes <= CLASSIC_BYTES
        ome = not fits or self._dtype.name not in IMAGEJ_DTYPES or self.path.lower().endswith(OME_SUFFIXES)
        layout: dict[str, Any] = {
            "shape": (self.shape[0], *self._plane_shape),
            "dtype": self._dtype,
            "photometric": "minisblack",
            "software": f"gpu_tomoclass {__version__}",
            "returnoffset": True,
        }
        if classes:
            # Grey values with a ColorMap: as a palette image, ITK, VTK and OpenCV would read colours instead of labels;
            # ImageJ and Bio-Formats show the colours all the same.
            layout["extratags"] = [(320, 3, 768, colour_map(classes).ravel(), True)]
        if voxel_size is not None:  # OME: pixels per cm, since readers take a resolution without a unit for inches
            unit = CENTIMETRE if ome else MICROMETRE
            layout["resolution"] = (unit / voxel_size[2], unit / voxel_size[1])
            layout["resolutionunit"] = "CENTIMETER" if ome else "NONE"
        if ome:
            layout["description"] = self._ome_xml(voxel_size, channels, own)
            layout["metadata"] = None
        else:
            # All six of ImageJ's axes: with fewer, tifffile takes a width of 1 for a number of samples.
            layout["shape"] = (1, self.shape[0], max(1, len(channels)), *self.shape[1:], 1)
            layout["metadata"] = self._imagej_metadata(voxel_size, channels, own)
        with tifffile.TiffWriter(self._output.temporary, bigtiff=not fits, imagej=not ome, byteorder="<") as tif:
            place = tif.write(None, **layout)
        assert place is not None  # because of returnoffset
        if channels and not ome:
            self._ranges_at = ranges_offset(self._output.temporary)
        return int(place[0])

    def _imagej_metadata(self, voxel_size: VoxelSize | None, channels: Sequence[str], own: str) -> dict[str, Any]:
        data: dict[str, Any] = {"axes": "TZCYXS"}
        if channels:
            data["Labels"] = list(channels) * self.shape[0]
            data["Ranges"] = [0.0, 1.0] * len(channels)  # room for those of finish
        if voxel_size is not None:
            # Bio-Formats and HyperSpy understand micrometres; of "unit=nm" they take z for micrometres, or nothing.
            data.update(spacing=voxel_size[0] / MICROMETRE, unit="micron")
            if self._place is not None:  # in pixels: which one lies at position 0
                origin = [-at / size for at, size in zip(self._place, voxel_size, strict=True)]
                data.update(zip(("zorigin", "yorigin", "xorigin"), origin, strict=True))
        if own:
            data["Info"] = own
        return data

    def _ome_xml(self, voxel_size: VoxelSize | None, channels: Sequence[str], own: str) -> str:
        nz, ny, nx = self.shape
        names = list(channels) or ["0"]
        ome = ElementTree.Element("OME", xmlns=_OME_NAMESPACE, Creator=f"gpu_tomoclass {__version__}")
        image = ElementTree.SubElement(ome, "Image", ID="Image:0", Name="volume")
        sizes = {"SizeX": nx, "SizeY": ny, "SizeC": len(names), "SizeZ": nz, "SizeT": 1}
        pixels = ElementTree.SubElement(
            image,
            "Pixels",
            {name: str(n) for name, n in sizes.items()},
            ID="Pixels:0",
            DimensionOrder="XYCZT",
            Type=OME_DTYPES[self._dtype.name],
            BigEndian="false",
        )
        for letter, size in zip("ZYX", voxel_size or (), strict=False):
            pixels.set(f"PhysicalSize{letter}", repr(float(size)))
            pixels.set(f"PhysicalSize{letter}Unit", "nm")
        for i, name in enumerate(names):
            channel = ElementTree.SubElement(pixels, "Channel", ID=f"Channel:0:{i}", SamplesPerPixel="1")
            if channels:
                channel.set("Name", name)
        ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount=str(nz * len(names)))
        if self._place is not None:
            first = ElementTree.SubElement(pixels, "Plane", TheC="0", TheZ="0", TheT="0")
            for letter, at in zip("ZYX", self._place, strict=True):
                first.set(f"Position{letter}", repr(float(at)))
                first.set(f"Position{letter}Unit", "nm")
        if own:
            ElementTree.SubElement(image, "AnnotationRef", ID="Annotation:0")
            annotations = ElementTree.SubElement(ome, "StructuredAnnotations")
            comment = ElementTree.SubElement(annotations, "CommentAnnotation", ID="Annotation:0", Namespace=KEY)
            ElementTree.SubElement(comment, "Value").text = own
        # The tag is ASCII: other characters become XML character references.
        return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(ome, encoding="us-ascii").decode()

    def write_plane(self, z: int, plane: np.ndarray) -> None:
        if not 0 <= z < self.shape[0]:
            raise UsageError(f"there is no plane {z} to write, only 0 to {self.shape[0] - 1}", where=self.path)
        if plane.shape != self._plane_shape or plane.dtype.newbyteorder("<") != self._dtype:
            expected = f"{self._dtype.name} {self._plane_shape}"
            raise UsageError(f"plane {z} is {plane.dtype} {plane.shape}, expected {expected}", where=self.path)
        self._ranges.add(plane)
        data = np.ascontiguousarray(plane, self._dtype).reshape(-1).view(np.uint8).data
        with self._lock, writing(self.path, needed_bytes=self._n_bytes):
            self._file.seek(self._offset + z * self._plane_bytes)
            done = 0
            while done < len(data):  # a single write takes at most 2 GiB
                done += self._file.write(data[done:]) or 0
        self._sync.wrote(self._plane_bytes)
        self._written[z] = True

    def finish(self) -> None:
        if not self._written.all():
            missing = ranges_text(np.flatnonzero(~self._written).tolist())
            self.discard()
            raise UsageError(f"cannot be finished, because planes were not written: {missing}", where=self.path)
        with writing(self.path, needed_bytes=self._n_bytes):
            if self._ranges_at:
                self._file.seek(self._ranges_at)
                self._file.write(np.array(self._ranges.shown(), "<f8").tobytes())
            self._file.close()
        self._output.commit()

    def discard(self) -> None:
        self._file.close()
        self._output.discard()


def ranges_offset(path: str | PathLike[str]) -> int:
    """Byte position of the display ranges of the channels in an ImageJ TIFF: two float64 for each.

    ImageJ keeps blocks of several kinds in tag 50839; tag 50838 has the length of their directory, and of each block
    (ij/io/TiffDecoder.java, getMetaData).
    """
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages.first.tags
        counts, at = tags[50838].value, tags[50839].valueoffset
        tif.filehandle.seek(at)
        directory = tif.filehandle.read(counts[0])
    at, block = at + counts[0], 1
    kinds = [(directory[i : i + 4], int.from_bytes(directory[i + 4 : i + 8], "little")) for i in range(4, counts[0], 8)]
    for kind, n in kinds:
        if kind in (b"rang", b"gnar"):  # the order of bytes is the file's
            return int(at)
        at += sum(counts[block : block + n])
        block += n
    raise AssertionError("tifffile wrote no ranges")


def colour_map(classes: Sequence[LabelClass]) -> np.ndarray:
    """The TIFF ColorMap of a label image: (3, 256) uint16, black but for the class values."""
    table = np.zeros((3, 256), np.uint16)
    for c in classes:
        table[:, c.value] = np.array(c.colour, np.uint16) * 257  # 255 -> 65535
    return table
