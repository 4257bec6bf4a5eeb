"""The chain of page directories (IFDs) of a TIFF, walked without tifffile, which only logs when the chain is broken.

TIFF 6.0 specification, section 2: a header points to the first directory; each directory is a count, that many tags
and the position of the next one, 0 after the last. BigTIFF has wider counts and positions.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from gpu_tomoclass.errors import DataError

MAX_TAGS = 4096  # tifffile's limit too; real directories have tens

# Tags that decide how pixels are decoded: width, length, bits, compression, fill order, samples, planar configuration,
# predictor, tile width and length, sample format. Pages of one stack must agree in them.
_DECODING_TAGS = frozenset((256, 257, 258, 259, 266, 277, 284, 317, 322, 323, 339))
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_PIXEL_BYTES = (279, 325)  # StripByteCounts, TileByteCounts
_INNER = 330  # SubIFDs
MAX_INNER, MAX_STRIPS = 64, 2**24


@dataclass(frozen=True)
class PageChain:
    """The page directories of a file.

    Attributes
    ----------
    offsets : tuple of int
        Byte position of each complete directory.
    signatures : tuple
        Per directory, the single-valued tags that decide how its pixels are decoded, as (code, value).
    next_offset : int
        Where the directory after the last complete one should be; 0 if there is none.
    problem : str
        Why the chain breaks off; empty if it ends as it should.
    referenced : int
        Bytes of the file that the directories account for: themselves, their values, and the pixels they point to.
    smallest : int
        Bytes of the pixels of the smallest page, as stored.
    """

    offsets: tuple[int, ...]
    signatures: tuple[tuple[tuple[int, int], ...], ...]
    next_offset: int
    problem: str
    referenced: int = 0
    smallest: int = 0


def read_page_chain(path: str) -> PageChain:
    """Walk the chain of page directories of a TIFF file.

    Raises
    ------
    DataError
        If the header is incomplete, or the chain runs in a circle.
    OSError
        If the file cannot be read.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        header = file.read(16)
        order = "<" if header[:2] == b"II" else ">"
        big = header[2:4] in (b"+\0", b"\0+")
        if len(header) < (16 if big else 8):
            raise DataError(f"is damaged: it ends inside the TIFF header, after {len(header)} bytes", where=path)
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), header, 8 if big else 4)
        offsets: list[int] = []
        signatures: list[tuple[tuple[int, int], ...]] = []
        seen: set[int] = set()
        problem = ""
        referenced, smallest = 16 if big else 8, size
        while offset:
            if offset in seen:  # tifffile would follow a large circle for ever
                where = offsets.index(offset)
                raise DataError(f"damaged: after page {len(offsets) - 1} comes page {where} again", where=path)
            if offset >= size:
                problem = f"page {len(offsets)} should start at byte {offset}, and the file ends at byte {size}"
                break
            directory = _read_directory(file, offset, order=order, big=big)
            if directory is None:
                problem = f"the directory of page {len(offsets)} at byte {offset} is incomplete or no directory"
                break
            seen.add(offset)
            offsets.append(offset)
            signatures.append(directory.signature)
            referenced += directory.own_bytes + directory.pixel_bytes
            smallest = min(smallest, directory.pixel_bytes)
            for inner in directory.inner[:MAX_INNER]:  # reduced copies, thumbnails
                below = _read_directory(file, inner, order=order, big=big) if 0 < inner < size else None
                referenced += below.own_bytes + below.pixel_bytes if below else 0
            offset = directory.next_offset
    if not offsets and not problem:
        problem = "it has no page"
    return PageChain(tuple(offsets), tuple(signatures), offset, problem, referenced, smallest)


@dataclass(frozen=True)
class _Directory:
    signature: tuple[tuple[int, int], ...]
    next_offset: int
    own_bytes: int  # with the values that stand elsewhere
    pixel_bytes: int
    inner: tuple[int, ...]  # directories inside this page


def _read_directory(file: BinaryIO, offset: int, *, order: str, big: bool) -> _Directory | None:
    """A directory, or None if it is not all there."""
    count_format, entry_size, next_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    file.seek(offset)
    head = file.read(struct.calcsize(count_format))
    if len(head) < struct.calcsize(count_format):
        return None
    (n_tags,) = struct.unpack(order + count_format, head)
    if not 0 < n_tags <= MAX_TAGS:
        return None
    table = file.read(n_tags * entry_size + struct.calcsize(next_format))
    if len(table) < n_tags * entry_size + struct.calcsize(next_format):
        return None
    signature, own_bytes, pixel_bytes = [], len(head) + len(table), 0
    inner: tuple[int, ...] = ()
    entry = struct.Struct(order + ("HHQ" if big else "HHI"))
    inline = entry_size - entry.size
    for position in range(0, n_tags * entry_size, entry_size):
        code, kind, count = entry.unpack_from(table, position)
        n_bytes = count * _TYPE_BYTES.get(kind, 0)
        own_bytes += n_bytes if n_bytes > inline else 0
        if code in _DECODING_TAGS and count == 1 and kind in _INTEGER_TYPES:
            (value,) = struct.unpack_from(order + _INTEGER_TYPES[kind], table, position + entry.size)
            signature.append((code, value))
        elif code in _PIXEL_BYTES or code == _INNER:
            raw = table[position + entry.size : position + entry_size]
            numbers = _numbers(file, raw, kind, count, order=order)
            if code == _INNER:
                inner = numbers
            else:
                pixel_bytes += sum(numbers)
    (next_offset,) = struct.unpack_from(order + next_format, table, n_tags * entry_size)
    return _Directory(tuple(signature), next_offset, own_bytes, pixel_bytes, inner)


def _numbers(file: BinaryIO, raw: bytes, kind: int, count: int, *, order: str) -> tuple[int, ...]:
    """The integers of a tag whose table entry holds ``raw``: the values, or where they stand."""
    code, size = _INTEGER_TYPES.get({13: 4, 18: 16}.get(kind, kind)), _TYPE_BYTES.get(kind, 0)
    if code is None or not 0 < count <= MAX_STRIPS:
        return ()
    if count * size > len(raw):
        file.seek(struct.unpack(order + ("Q" if len(raw) == 8 else "I"), raw)[0])
        raw = file.read(count * size)
        if len(raw) < count * size:
            return ()
    return struct.unpack_from(f"{order}{count}{code}", raw)


def is_directory(file: BinaryIO, offset: int, *, order: str, width: int) -> bool:
    """Tell whether a directory of an image so wide stands at a byte of a classic TIFF: nothing that pixels could be."""
    file.seek(offset)
    head = file.read(2)
    (n_tags,) = struct.unpack(order + "H", head) if len(head) == 2 else (0,)
    table = file.read(12 * n_tags) if 6 <= n_tags <= 100 else b""
    if len(table) < 12 * n_tags or not table:
        return False
    codes = [struct.unpack_from(order + "H", table, at)[0] for at in range(0, len(table), 12)]
    directory = _read_directory(file, offset, order=order, big=False)
    return codes == sorted(set(codes)) and directory is not None and (256, width) in directory.signature
