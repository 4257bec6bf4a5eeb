"""The MRC header (MRC2014 with IMOD's additions): what it says about axes, values and voxel size, and making one.

Fields: https://www.ccpem.ac.uk/mrc-format/mrc2014/ and IMOD's mrc_format.txt (imodStamp, imodFlags, mode 101).
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.place import read_place
from gpu_tomoclass.volumes.volume import VoxelSize

HEADER_BYTES = 1024
MODE_DTYPES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16", 101: "uint8"}
UNREADABLE_MODES = {3: "complex integers", 4: "complex numbers (a Fourier transform)", 16: "RGB colours"}

# MRC2014 gives 44 44 and 11 11; IMOD and CCP4 write 44 41.
ByteOrder = Literal["<", ">"]
MACHINE_STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}

# Two int32 inside the header's second "extra" field, bytes 152 to 159 of the file.
IMOD_STAMP, IMOD_STAMP_OFFSET, IMOD_SIGNED_BYTES, IMOD_ORIGIN_INVERTED = 1146047817, 152, 1, 4

# Our extended header: JSON of at most this size, so that a foreign header of gigabytes is not read.
EXTENDED_TYPE, EXTENDED_LIMIT = b"JSON", 2**24
LABELS, LABEL_BYTES = 10, 80


def read_header(raw: bytes, n_bytes: int, path: str) -> tuple[np.void, ByteOrder]:
    """The checked header and its byte order, ``"<"`` or ``">"``, of a file of ``n_bytes`` that begins with ``raw``."""
    for magic, name, tool in ((b"\x1f\x8b", "gzip", "gunzip"), (b"BZh", "bzip2", "bunzip2")):
        if raw.startswith(magic):
            raise DataError(
                f"is compressed with {name}, so planes cannot be found in it", where=path, do=f"unpack it with {tool}"
            )
    if len(raw) < HEADER_BYTES:
        raise DataError(f"is too short for an MRC header: {n_bytes} of {HEADER_BYTES} bytes", where=path)
    stamp = raw[212:216]
    swap = MACHINE_STAMPS.get(stamp[:2]) or plausible_order(raw, n_bytes)
    if swap is None:
        raise DataError(
            f"is not an MRC file, or a damaged one: its machine stamp is {stamp.hex(' ')}, "
            "not 44 44 or 44 41 (little-endian) or 11 11 (big-endian)",
            where=path,
        )
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(swap))[0]
    mode = int(header["mode"])
    if mode in UNREADABLE_MODES:
        raise DataError(f"has mode {mode}, {UNREADABLE_MODES[mode]}, which is no grey-value image", where=path)
    if mode not in MODE_DTYPES:
        raise DataError(f"has mode {mode}; known are {', '.join(map(str, MODE_DTYPES))}", where=path)
    for name in ("nx", "ny", "nz"):
        if header[name] < 1:
            raise DataError(f"header field {name} is {header[name]}, it must be at least 1", where=path)
    if not 0 <= header["nsymbt"] <= n_bytes:
        raise DataError(
            f"header field nsymbt (bytes of extended header) is {header['nsymbt']}, the file has {n_bytes} bytes",
            where=path,
        )
    if header["ispg"] >= 401 and 0 < header["mz"] < header["nz"]:
        raise DataError(
            f"is a stack of volumes ({header['nz']} planes in volumes of {header['mz']}, space group {header['ispg']})",
            where=path,
            do="extract one volume first",
        )
    return header, swap


def plausible_order(raw: bytes, n_bytes: int) -> ByteOrder | None:
    """The one byte order in which sizes, mode, axes and file length make sense; old FEI files have no machine stamp."""
    found: list[ByteOrder] = []
    for order in ("<", ">"):
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        sizes = [int(header[name]) for name in ("nx", "ny", "nz")]
        axes = sorted(int(header[name]) for name in ("mapc", "mapr", "maps"))
        mode, extended = int(header["mode"]), int(header["nsymbt"])
        if mode not in MODE_DTYPES or min(sizes) < 1 or max(sizes) > 2**24 or axes not in ([0, 0, 0], [1, 2, 3]):
            continue
        row = (sizes[0] + 1) // 2 if mode == 101 else sizes[0] * np.dtype(MODE_DTYPES[mode]).itemsize
        if extended >= 0 and HEADER_BYTES + extended + row * sizes[1] * sizes[2] <= n_bytes:
            found.append("<" if order == "<" else ">")
    return found[0] if len(found) == 1 else None


def stamp_notes(header: np.void, swap: ByteOrder) -> list[str]:
    """A sentence where the byte order is a guess."""
    stamp = bytes(header["machst"])
    if stamp[:2] in MACHINE_STAMPS:
        return []
    order = "little" if swap == "<" else "big"
    return [f"the machine stamp is {stamp.hex(' ')}, which says nothing; read as {order}-endian, which makes sense"]


def fei_pixel_size(path: str, header: np.void, swap: ByteOrder) -> float | None:
    """Pixel size in nm from the extended header of FEI (Thermo Fisher); None where there is none.

    FEI1 and FEI2 (MRC2014, "FEI extended header"): float64 metres at byte 156. Before that: records of 128 bytes of
    float32, without a type, of which number 11 is the pixel size in metres.
    """
    kind, size = bytes(header["exttyp"]), int(header["nsymbt"])
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES)
        raw = file.read(min(size, 768))
    if kind in (b"FEI1", b"FEI2") and len(raw) >= 164:
        metres = float(np.frombuffer(raw, np.dtype("f8").newbyteorder(swap), 1, 156)[0])
    elif not kind.strip(b"\0 ") and size == 1024 * 128 and len(raw) >= 48:
        metres = float(np.frombuffer(raw, np.dtype("f4").newbyteorder(swap), 1, 44)[0])
    else:
        return None
    return metres * 1e9 if 1e-12 < metres < 1e-6 else None


def stored_place(header: np.void, swap: ByteOrder) -> dict[str, list[Any]] | None:
    """Origin (nm) and start along z, y, x; None where all are 0. See :mod:`gpu_tomoclass.volumes.place`."""
    start = [int(header[f"n{letter}start"]) for letter in "zyx"]
    origin = [float(header["origin"][letter]) / 10 for letter in "zyx"]
    if not all(math.isfinite(n) for n in origin):
        origin = [0.0, 0.0, 0.0]
    stamp, flags = np.frombuffer(header.tobytes(), np.dtype("i4").newbyteorder(swap), 2, IMOD_STAMP_OFFSET)
    if stamp == IMOD_STAMP and not flags & IMOD_ORIGIN_INVERTED:
        origin = [-n if n else 0.0 for n in origin]  # IMOD counts from the first voxel to the origin
    return {"origin_nm": origin, "start": start} if any(origin) or any(start) else None


def read_own_header(path: str, header: np.void) -> dict[str, Any]:
    """Metadata that :func:`make_header` put into the extended header; empty for other files."""
    size = int(header["nsymbt"])
    if header["exttyp"] != EXTENDED_TYPE or not 0 < size <= EXTENDED_LIMIT:
        return {}
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES)
        raw = file.read(size)
    try:
        content = json.loads(raw.strip(b"\0 "))["gpu_tomoclass"]
        [LabelClass.from_dict(c) for c in content.get("classes", ())]
        return {**content, "metadata": dict(content.get("metadata") or {})}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # JSON of another program


def voxel_bytes(header: np.void) -> int:
    """Bytes of the image, without headers."""
    nx, ny, nz = (int(header[name]) for name in ("nx", "ny", "nz"))
    mode = int(header["mode"])
    return nz * ny * ((nx + 1) // 2 if mode == 101 else nx * np.dtype(MODE_DTYPES[mode]).itemsize)


def plane_dtype(header: np.void, swap: ByteOrder, ours: dict[str, Any]) -> tuple[np.dtype[Any], list[str]]:
    """The dtype of the planes; for mode 0 with the sentence that says why its bytes are signed or unsigned."""
    mode = int(header["mode"])
    if mode == 101:
        return np.dtype("uint8"), ["mode 101: 4-bit values, read as 0 to 15"]
    if mode != 0:
        return np.dtype(MODE_DTYPES[mode]), []
    if ours.get("dtype") in ("int8", "uint8"):
        return np.dtype(ours["dtype"]), []
    stamp, flags = np.frombuffer(header.tobytes(), np.dtype("i4").newbyteorder(swap), 2, IMOD_STAMP_OFFSET)
    if stamp == IMOD_STAMP:
        signed = bool(flags & IMOD_SIGNED_BYTES)
        return np.dtype("int8" if signed else "uint8"), [
            f"mode 0: bytes are {'signed' if signed else 'unsigned'}, as the IMOD flag in the header says"
        ]
    if header["dmin"] >= 0 and 127 < header["dmax"] <= 255:
        return np.dtype("uint8"), [
            f"mode 0: bytes are read as unsigned, because the header gives a maximum of {header['dmax']:g}"
        ]
    return np.dtype("int8"), ["mode 0: bytes are read as signed, as MRC2014 says (no IMOD flag in the header)"]


def declared_order(header: np.void, path: str) -> tuple[str, list[str]]:
    """The axes as stored, slowest first, from maps, mapr, mapc."""
    numbers = tuple(int(header[name]) for name in ("maps", "mapr", "mapc"))
    if numbers == (0, 0, 0):
        return "zyx", ["the header does not name its axes (mapc, mapr, maps are 0): columns are x, rows y, sections z"]
    if sorted(numbers) != [1, 2, 3]:
        raise DataError(f"header fields maps, mapr, mapc are {numbers}, not an order of 1, 2, 3", where=path)
    return "".join(" xyz"[n] for n in numbers), []


def stored_voxel_size(header: np.void, declared: str) -> tuple[VoxelSize | None, list[str]]:
    """Voxel size in nm along the three axes as stored: cell length (Angstrom) / number of intervals / 10."""
    sizes = {}
    for letter in "zyx":
        length, intervals = float(header["cella"][letter]), int(header[f"m{letter}"])
        sizes[letter] = length / intervals / 10 if intervals > 0 and math.isfinite(length) else 0.0
    if all(size == 0 for size in sizes.values()):
        return None, []
    if min(sizes.values()) <= 0:
        found = ", ".join(f"{letter} {size:g}" for letter, size in sizes.items())
        return None, [f"voxel size ignored, because the header gives it only in part ({found} nm)"]
    notes = []
    if all(math.isclose(size, 0.1, rel_tol=1e-6) for size in sizes.values()):
        notes.append(
            "voxel size is exactly 1 Angstrom, which many programs write when they do not know it: check it,"
            " and mend it with --voxel-size"
        )
    n_sections, mz = int(header["nz"]), int(header["mz"])
    if declared[0] == "z" and mz != n_sections and not math.isclose(sizes["z"], sizes["x"], rel_tol=0.01):
        notes.append(
            f"voxel size along z is {sizes['z']:g} nm and along x {sizes['x']:g} nm; the header counts {mz} intervals "
            f"for {n_sections} planes, so check it"
        )
    return (sizes[declared[0]], sizes[declared[1]], sizes[declared[2]]), notes


def make_header(
    *,
    shape: tuple[int, int, int],
    mode: int,
    voxel_size: VoxelSize | None,
    classes: tuple[LabelClass, ...],
    content: dict[str, Any] | None,
) -> tuple[np.ndarray, bytes]:
    """A little-endian header, still without statistics, and the extended header that follows it.

    Parameters
    ----------
    shape : tuple of int
        (nz, ny, nx).
    mode : int
        MRC mode.
    voxel_size : tuple of float or None
        (z, y, x) in nm.
    classes : tuple of LabelClass
        Written into the header's text labels as far as they fit.
    content : dict or None
        JSON content of the extended header; no extended header if None.

    Returns
    -------
    numpy.ndarray, bytes
        0-d structured array of ``mrcfile.dtypes.HEADER_DTYPE``; 64 zeros, then JSON padded
        with spaces to a multiple of 1024 bytes.
    """
    extended = b""
    if content is not None:
        # Zeros first: ncempy and py4DSTEM take number 11 of any extended header for FEI's pixel size.
        extended = bytes(64) + json.dumps({"gpu_tomoclass": content}).encode("ascii")
        extended += b" " * (-len(extended) % 1024)
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    # 20141 is the version of the format that has mode 12.
    header["mode"], header["ispg"], header["nversion"] = mode, 1, 20141 if mode == 12 else 20140
    for letter, length, size in zip("zyx", shape, voxel_size or (0.0, 0.0, 0.0), strict=True):
        header[f"n{letter}"] = header[f"m{letter}"] = length
        header["cella"][letter] = 10 * size * length
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    place = read_place((content or {}).get("metadata") or {})
    place = place or {"origin_nm": [0.0] * 3, "start": [0] * 3}
    for i, letter in enumerate("zyx"):
        header["origin"][letter] = 10 * place["origin_nm"][i]
        header[f"n{letter}start"] = place["start"][i]
    header["map"], header["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    header["nsymbt"], header["exttyp"] = len(extended), EXTENDED_TYPE if extended else b""
    texts = [f"gpu_tomoclass {__version__}", *(f"label {c.value} = {c.name}" for c in classes)][:LABELS]
    header["nlabl"] = len(texts)
    for i, text in enumerate(texts):
        header["label"][i] = text.encode("ascii", "replace")[:LABEL_BYTES].ljust(LABEL_BYTES)
    return header, extended


def stamp_signed_bytes(header: np.ndarray) -> None:
    """Say in IMOD's field that the bytes of mode 0 are signed (as MRC2014 has them; IMOD's own default is unsigned)."""
    raw = header.reshape(1).view(np.uint8)
    raw[IMOD_STAMP_OFFSET : IMOD_STAMP_OFFSET + 8] = np.array(
        [IMOD_STAMP, IMOD_SIGNED_BYTES | IMOD_ORIGIN_INVERTED], "<i4"
    ).view(np.uint8)
