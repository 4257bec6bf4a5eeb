"""Messages to a page: planes as compressed bytes, labels as runs, all else as JSON."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 1  # of zlib: noise does not shrink further, and a plane of 2048 x 2048 takes 0.1 s


def runs(labels: npt.NDArray[np.uint8]) -> bytes:
    """Labels as runs in raster order: their number and ends (uint32), then their values (uint8); little-endian."""
    flat = labels.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size).astype("<u4")
    return struct.pack("<I", ends.size) + ends.tobytes() + flat[ends - 1].tobytes()


def binary(header: dict[str, Any], *parts: bytes) -> bytes:
    """A message: the length of its header (uint32, little-endian), the header as JSON, and the parts by deflate.

    The header gets ``lengths``, those of the parts before compression.
    """
    text = json.dumps({**header, "lengths": [len(part) for part in parts]}).encode()
    return struct.pack("<I", len(text)) + text + zlib.compress(b"".join(parts), LEVEL)
