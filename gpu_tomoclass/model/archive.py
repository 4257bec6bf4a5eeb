"""Reading a zip of JSON and ``.npy`` members that anybody may have made: nothing is executed, nothing inflates.

What the archive claims is compared with the size of the file before anything is unpacked. The header of a ``.npy``
member is matched against the one form that NumPy writes, not evaluated. Whatever is wrong is a ModelError.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.outputs import size_text

# Forests shrink to a third or so, JSON to a tenth; deflate itself can reach 1 : 1030. Small members may shrink more.
MAX_RATIO = 100
ALWAYS_ALLOWED = 16 * 2**20
MAX_NESTING = 32

_NPY_START = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb" *\{ *'descr': *'([<>|=]?[if][1248])', *'fortran_order': *(True|False), *'shape': *\(([\d, ]{1,80})\),? *\} *\n"
)
_NUMBERS = re.compile(rb" *\d{1,30} *(?:, *\d{1,30} *)*,? *")


@contextlib.contextmanager
def open_archive(path: str | PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The zip archive at ``path``, its claims checked; what goes wrong inside the block is a ModelError with its name.

    Raises
    ------
    ModelError
        If it is damaged, cannot be read, is packed in another way than stored or deflated, claims to unpack to more
        than 100 times its size, or if the block raises a ModelError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_claims(archive, Path(path).stat().st_size)
            yield archive
    except ModelError as error:
        if error.where is not None and fspath(error.where) == fspath(path):
            raise
        raise ModelError(str(error), where=path) from error
    # zipfile has no error of its own for every kind of damage
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    except (EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=path) from error


def _damaged(path: str | PathLike[str], error: Exception) -> ModelError:
    return ModelError(
        f"is damaged ({str(error) or type(error).__name__})", where=path, do="copy it again or make it again"
    )


def _check_claims(archive: zipfile.ZipFile, n_bytes: int) -> None:
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # zipfile unpacks the other methods a whole chunk at a time, and a chunk of bzip2 can hold gigabytes
            raise ModelError(f"{info.filename:.40} is packed by method {info.compress_type}, not stored or deflated")
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > ALWAYS_ALLOWED + MAX_RATIO * n_bytes:
        raise ModelError(f"claims to hold {size_text(claimed)} in a file of {size_text(n_bytes)}")


def read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """The JSON object of a member: finite numbers, whole ones of 64 bits, text that can be encoded, no deep nesting.

    Raises
    ------
    ModelError
        Naming the member.
    """
    with archive.open(name) as member:
        data = member.read()
    try:
        value = json.loads(data, parse_constant=_no_constant, parse_int=_whole)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # refuses 1e999 and half characters
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not readable ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name} does not hold a JSON object")
    if _nesting(value) > MAX_NESTING:
        raise ModelError(f"{name} is nested more than {MAX_NESTING} deep")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= 2**63:
        raise ValueError(f"{text[:20]}.. is beyond 64 bits")
    return int(text)


def _nesting(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [c for v in level if isinstance(v, dict | list) for c in (v.values() if isinstance(v, dict) else v)]
    return depth


def read_array(archive: zipfile.ZipFile, name: str, *, dtypes: Sequence[str], n_axes: int) -> np.ndarray:
    """The array of a ``.npy`` member (version 1.0, C order), read-only.

    Parameters
    ----------
    archive : zipfile.ZipFile
        Of :func:`open_archive`.
    name : str
    dtypes : sequence of str
        Names of the accepted dtypes, in either byte order; the result has the native one.
    n_axes : int

    Raises
    ------
    ModelError
        Naming the member.
    """
    with archive.open(name) as member:
        start = member.read(10)
        if len(start) < 10 or start[:8] != _NPY_START:
            raise ModelError(f"{name} is not readable: it does not begin as a .npy file of version 1.0")
        header = _NPY_HEADER.fullmatch(member.read(int.from_bytes(start[8:], "little")))
        if header is None or not _NUMBERS.fullmatch(header[3]):
            raise ModelError(f"{name} is not readable: its header is not as NumPy writes it for plain numbers")
        try:
            dtype = np.dtype(header[1].decode())
        except (TypeError, ValueError) as error:  # there is no float of one byte
            raise ModelError(f"{name} is not readable: {error}") from error
        shape = tuple(int(n) for n in header[3].split(b",") if n.strip())
        if dtype.name not in dtypes or len(shape) != n_axes or header[2] == b"True":
            order = " in Fortran order" if header[2] == b"True" else ""
            raise ModelError(f"{name} holds {dtype} {shape}{order}, not {' or '.join(dtypes)} with {n_axes} axes")
        n_bytes = dtype.itemsize * math.prod(shape)
        data = member.read(min(n_bytes, archive.getinfo(name).file_size))
        if len(data) != n_bytes or member.read(1):
            raise ModelError(f"{name} claims {shape}, and does not hold just that")
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
