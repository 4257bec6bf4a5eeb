"""Decoding the bytes of a Zarr chunk into at most as many bytes as the chunk may hold.

Zarr's own decoders allocate what the compressed data ask for (a 16 KB zstd chunk can ask for hundreds of MB) and the
Blosc decoder reads beyond a truncated chunk; here every decoder gets a limit and checks the length it was given.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Sequence

import google_crc32c
import imagecodecs

Bytes = bytes | bytearray
Decoder = Callable[[Bytes, int], Bytes]

# What the decoders below raise for bytes that they cannot decode.
DECODE_ERRORS = (RuntimeError, ValueError, OSError, EOFError, zlib.error)


def decode(data: Bytes, codecs: Sequence[str], size: int) -> Bytes:
    """Undo ``codecs`` (in the order of encoding) and return exactly ``size`` bytes.

    Raises
    ------
    ValueError
        If the data are damaged, or do not decode to ``size`` bytes.
    """
    for position in reversed(range(len(codecs))):
        name = codecs[position]
        # The result of the first codec must be the array; what others compressed again may be slightly larger.
        limit = size if position == 0 else encoded_limit(size)
        try:
            data = DECODERS[name](data, limit)
        except DECODE_ERRORS as error:
            raise ValueError(f"{name}: {error}") from error
    if len(data) != size:
        raise ValueError(f"it holds {len(data)} instead of {size} bytes")
    return data


def encoded_limit(size: int) -> int:
    """The most bytes that ``size`` bytes can take when encoded: the formats' worst cases are below 1 % and headers."""
    return size + size // 50 + 65536


def _zstd(data: Bytes, limit: int) -> Bytes:
    return imagecodecs.zstd_decode(data, out=limit)


def _blosc(data: Bytes, limit: int) -> Bytes:
    # Header: version, version of the codec, flags, type size, then nbytes, block size and cbytes as uint32.
    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError(f"{len(data)} bytes found, the Blosc header says {int.from_bytes(data[12:16], 'little')}")
    if (n_bytes := int.from_bytes(data[4:8], "little")) > limit:
        raise ValueError(f"it would decode to {n_bytes} bytes, expected {limit}")
    return imagecodecs.blosc_decode(data, out=limit)


def _lz4(data: Bytes, limit: int) -> Bytes:
    if (n_bytes := int.from_bytes(data[:4], "little")) > limit:
        raise ValueError(f"it would decode to {n_bytes} bytes, expected {limit}")
    return imagecodecs.lz4_decode(data, header=True)


def _inflate(wbits: int) -> Decoder:
    def decode_stream(data: Bytes, limit: int) -> Bytes:
        stream = zlib.decompressobj(wbits)
        return _whole(stream.decompress(data, limit + 1), stream.eof, limit)

    return decode_stream


def _bz2(data: Bytes, limit: int) -> Bytes:
    stream = bz2.BZ2Decompressor()
    return _whole(stream.decompress(data, limit + 1), stream.eof, limit)


def _whole(decoded: Bytes, at_end: bool, limit: int) -> Bytes:
    if len(decoded) > limit:
        raise ValueError(f"it decodes to more than the expected {limit} bytes")
    if not at_end:
        raise ValueError(f"it ends early, after {len(decoded)} decoded bytes")
    return decoded


def _crc32c(data: Bytes, limit: int) -> Bytes:
    content, stored = data[:-4], data[-4:]
    if google_crc32c.value(bytes(content)) != int.from_bytes(stored, "little") or len(data) < 4:
        raise ValueError("the checksum does not match")
    return content


DECODERS: dict[str, Decoder] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "gzip": _inflate(31),
    "zlib": _inflate(15),
    "lz4": _lz4,
    "bz2": _bz2,
    "crc32c": _crc32c,
}
