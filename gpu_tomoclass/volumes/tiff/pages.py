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
    """

    offsets: tuple[int, ...]
    signatures: tuple[tuple[tuple[int, int], ...], ...]
    next_offset: int
    problem: str


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
            signatures.append(directory[0])
            offset = directory[1]
    if not offsets and not problem:
        problem = "it has no page"
    return PageChain(tuple(offsets), tuple(signatures), offset, problem)


def _read_directory(
    file: BinaryIO, offset: int, *, order: str, big: bool
) -> tuple[tuple[tuple[int, int], ...], int] | None:
    """(signature, offset of the next directory), or None if the directory is not all there."""
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
    signature = []
    entry = struct.Struct(order + ("HHQ" if big else "HHI"))
    for position in range(0, n_tags * entry_size, entry_size):
        code, kind, count = entry.unpack_from(table, position)
        if code in _DECODING_TAGS and count == 1 and kind in _INTEGER_TYPES:
            (value,) = struct.unpack_from(order + _INTEGER_TYPES[kind], table, position + entry.size)
            signature.append((code, value))
    (next_offset,) = struct.unpack_from(order + next_format, table, n_tags * entry_size)
    return tuple(signature), next_offset
