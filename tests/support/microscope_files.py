"""Minimal files of DigitalMicrograph (dm3, dm4) and of TIA (ser), laid out as their public descriptions say.

dm3, dm4: "Digital Micrograph 3 file format" (P. Cueva, R. Hovden; G. Jefferis): big-endian tags around little-endian
values. ser: "TIA series file format" (C. B. Boothroyd). RosettaSciIO and ncempy read what is written here alike.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Element types of tags, and DataType of images.
_ELEMENTS = {"int16": 2, "int32": 3, "uint16": 4, "uint32": 5, "float32": 6, "float64": 7, "int8": 9, "uint8": 10}
_IMAGES = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "int8": 9, "uint16": 10, "uint32": 11, "float64": 12}
_SERIES = {"uint8": 1, "uint16": 2, "uint32": 3, "int8": 4, "int16": 5, "int32": 6, "float32": 7, "float64": 8}


class _Tags:
    def __init__(self, version: int) -> None:
        self.long = ">i" if version == 3 else ">q"
        self.version = version

    def number(self, value: int) -> bytes:
        return struct.pack(self.long, value)

    def group(self, entries: Sequence[tuple[str, Any]], *, root: bool = False) -> bytes:
        body = b"".join(self.entry(name, value) for name, value in entries)
        size = self.number(len(body)) if self.version == 4 and not root else b""
        return b"\1\0" + size + self.number(len(entries)) + body

    def entry(self, name: str, value: Any) -> bytes:
        kind, content = (20, self.group(value)) if isinstance(value, list) else (21, self.data(value))
        head = struct.pack(">bh", kind, len(name)) + name.encode("latin-1")
        if self.version == 4 and kind == 21:
            head += struct.pack(">q", len(content))
        return head + content

    def data(self, value: Any) -> bytes:
        if isinstance(value, str):
            value = np.frombuffer(value.encode("utf-16-le"), "<u2")
        array = np.asarray(value)
        element, content = _ELEMENTS[array.dtype.name], array.astype(array.dtype.newbyteorder("<")).tobytes()
        info = [20, element, array.size] if array.ndim else [element]
        return b"%%%%" + self.number(len(info)) + b"".join(map(self.number, info)) + content


def write_dm(
    path: Path,
    array: np.ndarray,
    *,
    voxel: Sequence[float],
    units: Sequence[str] = ("nm", "nm", "nm"),
    origin: Sequence[float] = (0, 0, 0),
) -> None:
    """An image (z, y, x) with its pixel sizes and units, in files with a thumbnail before it as the program writes.

    ``origin`` counts in pixels, as DigitalMicrograph does. The suffix says which version.
    """
    tags = _Tags(4 if path.suffix == ".dm4" else 3)

    def image(data: np.ndarray, scales: Sequence[float], names: Sequence[str], at: Sequence[float]) -> list[Any]:
        dimension = [
            ("", [("Origin", np.float32(o)), ("Scale", np.float32(s)), ("Units", u)])
            for s, u, o in zip(scales[::-1], names[::-1], at[::-1], strict=True)  # x first
        ]
        brightness = [("Origin", np.float32(0)), ("Scale", np.float32(1)), ("Units", "")]
        return [
            (
                "ImageData",
                [
                    ("Calibrations", [("Brightness", brightness), ("Dimension", dimension)]),
                    ("Data", data.ravel()),
                    ("DataType", np.uint32(_IMAGES[data.dtype.name])),
                    ("Dimensions", [("", np.uint32(n)) for n in data.shape[::-1]]),
                    ("PixelDepth", np.uint32(data.dtype.itemsize)),
                ],
            ),
            ("ImageTags", [("Session", "made for a test")]),
            ("Name", "made for a test"),
        ]

    thumbnail = image(np.zeros((4, 4), np.int32), (1, 1), ("", ""), (0, 0))
    content = tags.group(
        [
            ("ImageList", [("", thumbnail), ("", image(array, voxel, units, origin))]),
            ("Thumbnails", [("", [("ImageIndex", np.uint32(0))])]),
        ],
        root=True,
    )
    head = struct.pack(">i", tags.version) + tags.number(len(content) + 4) + struct.pack(">i", 1)
    path.write_bytes(head + content + bytes(8))


def write_ser(path: Path, array: np.ndarray, *, pixel: Sequence[float], version: int = 0x0220) -> None:
    """A series of images (z, y, x), pixel size (y, x) in nm; rows are stored from below, as TIA does."""
    pointer = "<q" if version >= 0x0220 else "<i"
    nz, ny, nx = array.shape
    description, unit = b"Number", b""
    head = struct.pack("<HHHIIII", 0x4949, 0x0197, version, 0x4122, 0x4152, nz, nz)
    dimension = struct.pack("<IddII", nz, 0.0, 1.0, 0, len(description)) + description
    dimension += struct.pack("<I", len(unit)) + unit
    offsets = len(head) + struct.calcsize(pointer) + 4 + len(dimension)
    place = offsets + 2 * nz * struct.calcsize(pointer)
    data, data_at, tags_at = b"", [], []
    for plane in array:
        dy, dx = (1e-9 * n for n in pixel)
        element = struct.pack("<ddIddIHII", -dx * nx / 2, dx, 0, -dy * ny / 2, dy, 0, _SERIES[array.dtype.name], nx, ny)
        element += plane[::-1].astype(plane.dtype.newbyteorder("<")).tobytes()
        data_at.append(place + len(data))
        tags_at.append(place + len(data) + len(element))
        data += element + struct.pack("<HHI", 0x4152, 0, 1_400_000_000)
    table = b"".join(struct.pack(pointer, n) for n in (*data_at, *tags_at))
    path.write_bytes(head + struct.pack(pointer, offsets) + struct.pack("<I", 1) + dimension + table + data)
