"""One Zarr array (version 2 or 3) on disk: metadata, which chunks exist, and a region of it.

The library zarr reads a missing chunk as zeros, does not bound what a chunk decodes to, and follows metadata out of
the store. Volumes are therefore read here, from the published formats
(https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html and .../v3/core/index.html, .../v3/codecs/), and the tests
compare with that library. Writing uses the library.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.ome_zarr.codecs import DECODERS, decode, encoded_limit
from gpu_tomoclass.volumes.stored_axes import check_declared

JSON_LIMIT = 64 * 2**20
CHUNK_LIMIT = 2**31  # bytes of a decoded chunk; the compressors of Zarr cannot hold more
COUNT_LIMIT = 50_000_000  # chunks; with more, the shape in the metadata is wrong

DATA_TYPES = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
DATA_TYPES += ("float16", "float32", "float64")
_EMPTY = 2**64 - 1  # offset and length of a chunk that a shard does not hold

Index = tuple[int, ...]


def refuse_link(file: Path, folder: Path) -> None:
    """Raise DataError if a file below a store's folder is a link out of it: the store may be anybody's."""
    root, place = os.path.realpath(folder), os.path.realpath(file)
    if os.path.commonpath((root, place)) != root:
        raise DataError(
            f"is a link out of the store, to {place}", where=file, do="copy what it leads to into the store"
        )


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a metadata file; a DataError names the file and the place."""
    if file.stat().st_size > JSON_LIMIT:
        raise DataError(f"is no Zarr metadata: it has {file.stat().st_size} bytes", where=file)
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"is damaged: {error}", where=file, do="copy the store again") from error
    if not isinstance(content, dict):
        raise DataError("is no JSON object", where=file)
    return content


@dataclass(frozen=True)
class Node:
    """A group or an array in a store: its folder, metadata file, content and attributes."""

    folder: Path
    file: Path
    content: dict[str, Any]
    attributes: dict[str, Any]
    zarr_format: int

    @property
    def is_array(self) -> bool:
        return self.file.name == ".zarray" or self.content.get("node_type") == "array"


def read_node(folder: Path) -> Node | None:
    """The group or array whose metadata stand in ``folder``; None if there are none."""
    for name in ("zarr.json", ".zarray", ".zgroup"):
        file = folder / name
        if not file.is_file():
            continue
        content = read_json(file)
        zarr_format = content.get("zarr_format")
        if zarr_format not in (2, 3) or (zarr_format == 3) != (name == "zarr.json"):
            raise DataError(f"field 'zarr_format' is {zarr_format!r}, it must be 2 or 3", where=file)
        if zarr_format == 2:
            attributes = read_json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
        else:
            attributes = content.get("attributes", {})
            if content.get("node_type") not in ("array", "group"):
                raise DataError(f"field 'node_type' is {content.get('node_type')!r}", where=file)
        if not isinstance(attributes, dict):
            raise DataError("field 'attributes' is no JSON object", where=file)
        return Node(folder, file, content, attributes, zarr_format)
    return None


@dataclass(frozen=True)
class Chain:
    """Steps by which an array's chunk becomes bytes: axes transposed, byte order, then bytes-to-bytes codecs."""

    transposed: Index
    dtype: np.dtype[Any]
    codecs: tuple[str, ...]

    def decode(self, data: bytes, shape: Index) -> np.ndarray:
        size = math.prod(shape) * self.dtype.itemsize
        values = np.frombuffer(decode(data, self.codecs, size), self.dtype)
        stored = values.reshape([shape[axis] for axis in self.transposed])
        return stored.transpose(np.argsort(self.transposed))


class ZarrArray:
    """An array in a local store.

    Attributes
    ----------
    shape, chunks : tuple of int
        ``chunks`` is the unit of decoding: inside shards the inner chunk.
    dtype : numpy.dtype
        As stored, byte order included.
    fill_value : numpy scalar
        What the metadata give for chunks that were not written.
    """

    def __init__(self, node: Node) -> None:
        self.node, self._content, self._file = node, node.content, node.file
        self.shape = self._lengths("shape", self._content.get("shape"), least=0)
        if node.zarr_format == 2:
            grid = self._lengths("chunks", self._content.get("chunks"))
            self.dtype = self._dtype_v2()
            separator = self._content.get("dimension_separator", ".")
            self._prefix, self._separator = "", self._checked("dimension_separator", separator, (".", "/"))
            self._chain, per_shard = self._chain_v2(), None
        else:
            grid = self._grid_v3()
            data_type = self._checked("data_type", self._content.get("data_type"), DATA_TYPES)
            self.dtype = np.dtype(data_type)
            self._prefix, self._separator = self._keys_v3()
            self._chain, per_shard = self._chain_v3(grid)
        self._grid, self.chunks = grid, grid
        self._per_shard = per_shard
        if per_shard is not None:
            self.chunks = tuple(g // n for g, n in zip(grid, per_shard, strict=True))
        self.fill_value = self._fill_value()
        self._shards: dict[Index, np.ndarray | None] = {}
        n_bytes = math.prod(self.chunks) * self.dtype.itemsize
        if n_bytes > CHUNK_LIMIT:
            raise self._error(f"chunks of {self.chunks} {self.dtype} have {n_bytes} bytes, more than {CHUNK_LIMIT}")
        n_chunks = math.prod(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))
        if n_chunks > COUNT_LIMIT:
            raise self._error(f"shape {self.shape} in chunks of {self.chunks} makes {n_chunks} chunks: absurd")

    # Reading

    def region(self, start: Sequence[int], stop: Sequence[int], *, fill_missing: bool = False) -> np.ndarray:
        """The values from ``start`` to ``stop`` (one number per axis).

        Raises
        ------
        DataError
            If a chunk is damaged, or missing unless ``fill_missing``; ``what`` begins with its name.
        """
        out = np.empty([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        ranges = [range(a // c, -(-b // c)) for a, b, c in zip(start, stop, self.chunks, strict=True)]
        for index in itertools.product(*ranges):
            corner = [i * c for i, c in zip(index, self.chunks, strict=True)]
            low = [max(a, k) for a, k in zip(start, corner, strict=True)]
            high = [min(b, k + c) for b, k, c in zip(stop, corner, self.chunks, strict=True)]
            target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            chunk = self._chunk(index)
            if chunk is not None:
                out[target] = chunk[tuple(slice(a - k, b - k) for a, b, k in zip(low, high, corner, strict=True))]
            elif fill_missing:
                out[target] = self.fill_value
            else:
                raise DataError(f"{self.name(index)} missing", where=self.node.folder)
        return out

    def missing(self, ranges: Sequence[range]) -> tuple[int, list[Index], list[Path]]:
        """Chunks that cover ``ranges`` (indices of voxels per axis) and do not exist.

        Folders are listed and the tables of shards read; no chunk is opened.

        Returns
        -------
        int, list of tuple, list of Path
            Number of chunks that should exist, indices of those that do not, and the folders that hold chunks.
        """
        absent: list[Index] = []
        names: dict[str, set[str]] = {}
        total = 0
        spans = [range(r.start // c, -(-r.stop // c)) for r, c in zip(ranges, self.chunks, strict=True)]
        for index in itertools.product(*spans):
            total += 1
            if self._per_shard is not None:
                exists = self._entry(index) is not None
            else:
                folder, _, name = self._key(index).rpartition("/")
                if folder not in names:
                    path = self.node.folder / folder
                    names[folder] = set(os.listdir(path)) if path.is_dir() else set()
                exists = name in names[folder]
            if not exists:
                absent.append(index)
        folders = {self.node.folder / folder for folder in names}
        folders |= {(self.node.folder / self._key(shard)).parent for shard in self._shards}
        return total, absent, sorted(folder for folder in folders if folder.is_dir())

    def name(self, index: Index) -> str:
        """A chunk's name for people: ``chunk c/1/0/0``, in a shard ``chunk (3, 0, 0) in shard c/0/0/0``."""
        if self._per_shard is None:
            return f"chunk {self._key(index)}"
        return f"chunk {index} in shard {self._key(self._shard(index))}"

    def _chunk(self, index: Index) -> np.ndarray | None:
        entry = self._entry(index) if self._per_shard is not None else (self._key(index), 0, None)
        if entry is None:
            return None
        key, offset, length = entry
        size = math.prod(self.chunks) * self.dtype.itemsize
        refuse_link(self.node.folder / key, self.node.folder)
        try:
            status = os.stat(self.node.folder / key)
            if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
                raise ValueError("it is no regular file")
            length = status.st_size if length is None else length
            if length > encoded_limit(size):
                raise ValueError(f"{length} bytes found for a chunk of {size}")
            check_declared(self.name(index), size, length, where=self.node.folder)
            with open(self.node.folder / key, "rb") as file:
                file.seek(offset)
                return self._chain.decode(file.read(length), self.chunks)
        except FileNotFoundError:
            return None
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{self.name(index)} is damaged: {error}", where=self.node.folder) from error

    def _shard(self, index: Index) -> Index:
        assert self._per_shard is not None
        return tuple(i // n for i, n in zip(index, self._per_shard, strict=True))

    def _entry(self, index: Index) -> tuple[str, int, int] | None:
        """File, offset and length of a chunk in a shard; None if the shard or the chunk in it does not exist."""
        assert self._per_shard is not None
        shard = self._shard(index)
        if shard not in self._shards:
            self._shards[shard] = self._read_table(shard)
        table = self._shards[shard]
        if table is None:
            return None
        offset, length = (int(n) for n in table[tuple(i % n for i, n in zip(index, self._per_shard, strict=True))])
        return None if offset == length == _EMPTY else (self._key(shard), offset, length)

    def _read_table(self, shard: Index) -> np.ndarray | None:
        """Offset and length of each chunk of a shard, shape (*chunks per shard, 2)."""
        assert self._per_shard is not None
        size = 16 * math.prod(self._per_shard)
        stored = size + 4 * len(self._table_codecs)
        path = self.node.folder / self._key(shard)
        refuse_link(path, self.node.folder)
        try:
            with open(path, "rb") as file:
                n_bytes = os.fstat(file.fileno()).st_size
                file.seek(0 if self._table_first else max(0, n_bytes - stored))
                data = decode(file.read(stored), self._table_codecs, size)
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise DataError(f"shard {self._key(shard)} is a folder, not a file", where=self.node.folder) from error
        except ValueError as error:
            raise DataError(f"shard {self._key(shard)} is damaged: {error}", where=self.node.folder) from error
        table = np.frombuffer(data, "<u8").reshape(*self._per_shard, 2)
        written = table[table[..., 0] != _EMPTY].astype(np.float64)  # sums of two uint64 could overflow
        if written.size and written.sum(axis=-1).max() > n_bytes:
            raise DataError(f"shard {self._key(shard)} is damaged or truncated", where=self.node.folder)
        return table

    def _key(self, index: Index) -> str:
        return self._prefix + self._separator.join(map(str, index))

    # Metadata

    def _error(self, what: str) -> DataError:
        return DataError(what, where=self._file)

    def _checked(self, field: str, value: Any, allowed: Sequence[Any]) -> Any:
        if value not in allowed:
            raise self._error(f"field '{field}' is {value!r}, known are {', '.join(map(str, allowed))}")
        return value

    def _lengths(self, field: str, value: Any, *, least: int = 1) -> Index:
        fits = isinstance(value, list) and all(type(n) is int and n >= least for n in value)
        if not fits or (field != "shape" and len(value) != len(self.shape)):
            raise self._error(f"field '{field}' is {value!r}, not a list of lengths")
        return tuple(value)

    def _configuration(self, field: str, value: Any) -> tuple[str, dict[str, Any]]:
        """Name and configuration of an extension point of version 3, which may be just a name."""
        if isinstance(value, str):
            return value, {}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise self._error(f"field '{field}' is {value!r}, without a name")
        configuration = value.get("configuration", {})
        if not isinstance(configuration, dict):
            raise self._error(f"field '{field}' has no configuration")
        return value["name"], configuration

    def _dtype_v2(self) -> np.dtype[Any]:
        value = self._content.get("dtype")
        try:
            dtype = np.dtype(value) if isinstance(value, str) else None
        except TypeError:
            dtype = None
        if dtype is None or dtype.name not in DATA_TYPES:
            raise self._error(f"field 'dtype' is {value!r}, no type of grey values")
        return dtype

    def _chain_v2(self) -> Chain:
        if self._content.get("filters"):
            found = [f.get("id") if isinstance(f, dict) else f for f in self._content["filters"]]
            raise self._error(f"field 'filters' holds {found}, which cannot be read")
        compressor = self._content.get("compressor")
        codecs: tuple[str, ...] = ()
        if compressor is not None:
            name = compressor.get("id") if isinstance(compressor, dict) else compressor
            codecs = (self._checked("compressor", name, [n for n in DECODERS if n != "crc32c"]),)
        axes = tuple(range(len(self.shape)))
        order = self._checked("order", self._content.get("order", "C"), ("C", "F"))
        return Chain(axes if order == "C" else axes[::-1], self.dtype, codecs)

    def _grid_v3(self) -> Index:
        if self._content.get("storage_transformers"):
            raise self._error("field 'storage_transformers' is not empty")
        name, configuration = self._configuration("chunk_grid", self._content.get("chunk_grid"))
        self._checked("chunk_grid", name, ("regular",))
        return self._lengths("chunk_shape", configuration.get("chunk_shape"))

    def _keys_v3(self) -> tuple[str, str]:
        field = "chunk_key_encoding"
        name, configuration = self._configuration(field, self._content.get(field))
        self._checked(field, name, ("default", "v2"))
        separator = configuration.get("separator", "/" if name == "default" else ".")
        self._checked("separator", separator, (".", "/"))
        return ("c" + separator if name == "default" else ""), separator

    def _chain_v3(self, grid: Index) -> tuple[Chain, Index | None]:
        """The codecs, and for a sharded array the number of chunks in a shard per axis."""
        codecs = self._codec_list("codecs", self._content.get("codecs"))
        name, configuration = codecs[0]
        if name != "sharding_indexed":
            return self._chain_of(codecs), None
        if len(codecs) > 1:
            raise self._error(f"field 'codecs' holds {codecs[1][0]} after sharding_indexed, which cannot be read")
        inner = self._lengths("chunk_shape", configuration.get("chunk_shape"))
        if any(g % c for g, c in zip(grid, inner, strict=True)):
            raise self._error(f"field 'chunk_shape': shards of {grid} are no multiple of {inner}")
        location = configuration.get("index_location", "end")
        self._table_first = self._checked("index_location", location, ("start", "end")) == "start"
        table = [n for n, _ in self._codec_list("index_codecs", configuration.get("index_codecs"))]
        self._checked("index_codecs", table, (["bytes"], ["bytes", "crc32c"]))
        self._table_codecs = tuple(table[1:])
        chain = self._chain_of(self._codec_list("codecs", configuration.get("codecs")))
        return chain, tuple(g // c for g, c in zip(grid, inner, strict=True))

    def _codec_list(self, field: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
        if not isinstance(value, list) or not value:
            raise self._error(f"field '{field}' is {value!r}, not a list of codecs")
        return [self._configuration(field, item) for item in value]

    def _chain_of(self, codecs: list[tuple[str, dict[str, Any]]]) -> Chain:
        transposed = tuple(range(len(self.shape)))
        dtype, names = None, []
        for name, configuration in codecs:
            if name == "transpose" and dtype is None:
                order = configuration.get("order")
                if not isinstance(order, list) or sorted(order) != list(range(len(self.shape))):
                    raise self._error(f"field 'order' of the codec transpose is {order!r}")
                transposed = tuple(transposed[axis] for axis in order)
            elif name == "bytes" and dtype is None:
                endian = self._checked("endian", configuration.get("endian", "little"), ("little", "big"))
                dtype = self.dtype.newbyteorder("<" if endian == "little" else ">")
            elif dtype is not None and name.removeprefix("numcodecs.") in DECODERS and name != "numcodecs.crc32c":
                names.append(name.removeprefix("numcodecs."))
            else:
                known = ", ".join(["transpose", "bytes", *DECODERS])
                raise self._error(f"field 'codecs' holds {name!r}, which cannot be read here; known are {known}")
        if dtype is None:
            raise self._error("field 'codecs' does not hold the codec 'bytes'")
        return Chain(transposed, dtype, tuple(names))

    def _fill_value(self) -> np.generic:
        value = self._content.get("fill_value")
        try:
            if isinstance(value, str) and value.startswith("0x"):  # the bits of a float, version 3
                raw = int(value, 16).to_bytes(self.dtype.itemsize, "big")
                return np.frombuffer(raw, self.dtype.newbyteorder(">"))[0]
            if isinstance(value, (int, float)) or value in ("NaN", "Infinity", "-Infinity"):
                return self.dtype.type(float(value) if isinstance(value, str) else value)
        except (ValueError, OverflowError):
            pass
        if value is None:
            return self.dtype.type(0)
        raise self._error(f"field 'fill_value' is {value!r}, which is no {self.dtype}")
