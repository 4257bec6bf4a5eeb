"""MRC files compressed by gzip, as EMDB gives them out: unpacked once into a scratch file.

Gzip leads to a plane only through all before it, and planes are asked for in any order: reading the stream anew for
each would be quadratic, and keeping it in memory takes the whole volume. The scratch file lies in ``TMPDIR`` and goes
when the volume is closed, or the process ends by itself.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
import weakref
import zlib
from os import PathLike, fspath

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.outputs import check_space, writing
from gpu_tomoclass.volumes.mrc import header as mrc_header
from gpu_tomoclass.volumes.mrc.mrc import MrcVolume, in_volume_order
from gpu_tomoclass.volumes.volume import Volume

_PIECE = 2**22
_LOOSE_BYTES = 2**20  # behind the image, which some programs write
_AGAIN = "copy it again, or fill the missing planes with zeros: --allow-missing-planes"


def open_compressed_mrc(
    path: str | PathLike[str], *, axes: str | None = None, allow_missing_planes: bool = False
) -> Volume:
    """Open an MRC file in gzip; options as :func:`gpu_tomoclass.volumes.mrc.mrc.open_mrc`.

    Raises
    ------
    UsageError
        If the file does not exist or ``axes`` is no permutation of ``"zyx"``.
    DataError
        If the file is no gzip file, damaged, holds more than its header says, or no MRC file.
    ResourceError
        If the scratch folder has not the room.
    """
    name = fspath(path)
    scratch = _unpacked(name, cut_is_allowed=allow_missing_planes)
    try:
        volume = _CompressedMrcVolume(name, axes=axes, allow_missing_planes=allow_missing_planes, unpacked=scratch)
    except BaseException:
        _remove(scratch)
        raise
    return in_volume_order(volume)


class _CompressedMrcVolume(MrcVolume):
    def __init__(self, path: str, *, axes: str | None, allow_missing_planes: bool, unpacked: str) -> None:
        super().__init__(path, axes=axes, allow_missing_planes=allow_missing_planes, unpacked=unpacked)
        self.format += " in gzip"
        self._finalize = weakref.finalize(self, _remove, unpacked)  # at the end of the process, too

    def close(self) -> None:
        self._finalize()


def _unpacked(name: str, *, cut_is_allowed: bool) -> str:
    """A scratch file with the content of ``name``, of which no more is unpacked than its header declares."""
    if not os.path.isfile(name):
        raise UsageError("there is no such file", where=name)
    folder = tempfile.gettempdir()
    with gzip.open(name, "rb") as stream:
        head = _read(stream, mrc_header.HEADER_BYTES, name)
        # How long it will be is not known yet: the byte order of a file without a stamp must be plausible without it.
        header, _ = mrc_header.read_header(head, 2**62, name)
        declared = mrc_header.HEADER_BYTES + int(header["nsymbt"]) + mrc_header.voxel_bytes(header)
        check_space(os.path.join(folder, "scratch"), declared)
        handle, scratch = tempfile.mkstemp(prefix="gpu_tomoclass-", suffix=".mrc", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                piece = head
                while piece:
                    with writing(scratch, needed_bytes=declared):
                        out.write(piece)
                        out.flush()
                    if out.tell() > declared + _LOOSE_BYTES:
                        raise DataError(
                            f"unpacks to more than the {declared} bytes that its header declares", where=name
                        )
                    piece = _read(stream, _PIECE, name, cut_is_allowed=cut_is_allowed)
        except BaseException:
            _remove(scratch)
            raise
    return scratch


def _read(stream: gzip.GzipFile, n_bytes: int, name: str, *, cut_is_allowed: bool = False) -> bytes:
    """The next bytes; where the file was cut and that is allowed, none."""
    try:
        return stream.read1(n_bytes) if cut_is_allowed else stream.read(n_bytes)  # read1: all there is before a cut
    except EOFError as error:
        if cut_is_allowed:
            return b""
        raise DataError("is truncated: gzip's end is missing", where=name, do=_AGAIN) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is damaged: {error}", where=name, do="copy it again") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=name) from error


def _remove(scratch: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(scratch)
