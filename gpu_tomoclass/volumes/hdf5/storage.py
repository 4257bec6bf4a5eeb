"""Where the values of an HDF5 dataset lie in its file, and decoding them.

The HDF5 library finds a chunk through an index without a checksum: one flipped bit there, and it answers with the fill
value, without a word, or ends the process. So all chunks are listed when a dataset is opened and must be exactly those
of its shape; and those of the usual compressors are read and decoded here, where memory has a limit. Format:
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numcodecs.fletcher32
import numcodecs.shuffle
import numpy as np

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.ome_zarr.codecs import DECODE_ERRORS, DECODERS
from gpu_tomoclass.volumes.stored_axes import check_declared

CHUNK_COUNT_LIMIT = 50_000_000  # with more, the shape is wrong
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_DECODED_HERE = {_DEFLATE, _SHUFFLE, _FLETCHER32}

Index = tuple[int, ...]


class ChunkTable:
    """All chunks of a dataset: first index, place in the file, size.

    Attributes
    ----------
    missing : list of tuple
        First index of every chunk that was never written.
    total : int
        Chunks that the shape needs.
    """

    def __init__(self, dataset: h5py.Dataset, path: str) -> None:
        self._path = path
        self.shape, self.chunks, self.dtype = dataset.shape, dataset.chunks, dataset.dtype
        self.fill_value = dataset.fillvalue
        properties = dataset.id.get_create_plist()
        self._filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        self._file_name = dataset.file.filename
        self._n_bytes = os.path.getsize(self._file_name)
        self.decoded_here = set(self._filters) <= _DECODED_HERE and dataset.file.userblock_size == 0
        counts = [-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True)]
        self.total = math.prod(counts)
        if self.total > CHUNK_COUNT_LIMIT:
            raise DataError(
                f"shape {self.shape} in chunks of {self.chunks} makes {self.total} chunks: absurd", where=path
            )
        self._bytes = math.prod(self.chunks) * self.dtype.itemsize
        self._found: dict[Index, tuple[int, int, int]] = {}
        dataset.id.chunk_iter(self._add)
        self._check_places()
        corners = itertools.product(*(range(0, n, c) for n, c in zip(self.shape, self.chunks, strict=True)))
        self.missing = [] if len(self._found) == self.total else [c for c in corners if c not in self._found]

    def _add(self, info: Any) -> None:
        corner = tuple(int(i) for i in info.chunk_offset)
        fits = all(i < n and i % c == 0 for i, n, c in zip(corner, self.shape, self.chunks, strict=True))
        if not fits or corner in self._found or len(self._found) >= self.total:
            raise DataError(f"its index of chunks is damaged: it lists a chunk at {corner}", where=self._path)
        if info.size < 1:
            raise DataError(f"its index of chunks is damaged: the chunk at {corner} has no bytes", where=self._path)
        if info.byte_offset + info.size > self._n_bytes:
            raise DataError("its index of chunks is damaged: it leads beyond the end of the file", where=self._path)
        check_declared(f"a chunk (at {corner})", self._bytes, int(info.size), where=self._path)
        self._found[corner] = int(info.byte_offset), int(info.size), int(info.filter_mask)

    def _check_places(self) -> None:
        """No two chunks share bytes."""
        if not self._found:
            return
        places = np.array([entry[:2] for entry in self._found.values()], np.int64)
        places = places[np.argsort(places[:, 0])]
        ends = places.sum(axis=1)
        if (ends[:-1] > places[1:, 0]).any():
            raise DataError("its index of chunks is damaged: two chunks lie at one place in the file", where=self._path)

    def corners(self, low: Sequence[int], high: Sequence[int]) -> Iterable[Index]:
        """First indices of the chunks that hold the region from ``low`` to ``high``."""
        return itertools.product(*(range(a - a % c, b, c) for a, b, c in zip(low, high, self.chunks, strict=True)))

    def region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        """The values from ``low`` to ``high``; only where ``decoded_here``. Missing chunks are the fill value."""
        out = np.empty([b - a for a, b in zip(low, high, strict=True)], self.dtype)
        with open(self._file_name, "rb") as file:
            for corner in self.corners(low, high):
                start = [max(a, k) for a, k in zip(low, corner, strict=True)]
                stop = [min(b, k + c) for b, k, c in zip(high, corner, self.chunks, strict=True)]
                target = tuple(slice(a - s, b - s) for a, b, s in zip(start, stop, low, strict=True))
                if corner not in self._found:
                    out[target] = self.fill_value
                    continue
                offset, size, mask = self._found[corner]
                file.seek(offset)
                try:
                    chunk = self._decode(file.read(size), size, mask)
                except DECODE_ERRORS as error:
                    if isinstance(error, OSError) and error.errno:
                        raise
                    raise DataError(f"the chunk at {corner} is damaged: {error}", where=self._path) from error
                out[target] = chunk[tuple(slice(a - k, b - k) for a, b, k in zip(start, stop, corner, strict=True))]
        return out

    def check_found(self, dataset: h5py.Dataset, low: Sequence[int], high: Sequence[int]) -> None:
        """That the library, which is to decode a region, finds the chunks where the list has them."""
        for corner in self.corners(low, high):
            if corner in self._found:
                info = dataset.id.get_chunk_info_by_coord(corner)
                if (info.byte_offset, info.size) != self._found[corner][:2]:
                    raise DataError(
                        f"its index of chunks is damaged: the chunk at {corner} is not found", where=self._path
                    )

    def _decode(self, data: bytes | bytearray, size: int, mask: int) -> np.ndarray:
        if len(data) != size:
            raise ValueError(f"it ends after {len(data)} of {size} bytes")
        for position in reversed(range(len(self._filters))):
            number, skipped = self._filters[position], bool(mask >> position & 1)
            if skipped and number != _DEFLATE:  # which is left out where it does not make a chunk smaller
                raise ValueError(f"its filter {number} is said to have been left out")
            if skipped:
                continue
            if number == _DEFLATE:
                data = DECODERS["zlib"](data, self._bytes + 4 * len(self._filters))
            elif number == _FLETCHER32:
                data = numcodecs.fletcher32.Fletcher32().decode(data)
            else:
                data = numcodecs.shuffle.Shuffle(self.dtype.itemsize).decode(data)
        if len(data) != self._bytes:
            raise ValueError(f"it holds {len(data)} instead of {self._bytes} bytes")
        return np.frombuffer(data, self.dtype).reshape(self.chunks)


def check_filters(dataset: h5py.Dataset, path: str) -> None:
    """Raise DataError if a compressor of the dataset is not installed."""
    properties = dataset.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        number, _, _, name = properties.get_filter(i)
        if not _filter_is_known(number):
            raise DataError(
                f"is compressed with the HDF5 filter {number} ({name.decode(errors='replace') or 'without a name'}), "
                "which is not installed",
                where=path,
                do="pip install hdf5plugin",
            )


def _filter_is_known(number: int) -> bool:
    if not h5py.h5z.filter_avail(number):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # which registers its filters
    return bool(h5py.h5z.filter_avail(number))
