"""Volumes in TIFF files: ImageJ, OME, BigTIFF, plain multi-page; opened by headers, read plane by plane.

tifffile reports most damage by logging and goes on with fewer planes or other data. So the chain of pages is walked
here too, every plane's bytes are located when the file is opened, tifffile's log is listened to, and whatever does not
add up is an error: a volume is never smaller than the file says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import tifffile

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.io.partial import size_text
from gpu_tomoclass.io.stored import order_notes, stored_order
from gpu_tomoclass.io.tiff_layout import (
    Stack,
    axes_of,
    check_same_decoding,
    choose_stack,
    contiguous_stack,
    declared_planes,
)
from gpu_tomoclass.io.tiff_log import plain, tifffile_log
from gpu_tomoclass.io.tiff_metadata import describe
from gpu_tomoclass.io.tiff_structure import PageChain, read_page_chain
from gpu_tomoclass.io.turned import TurnedVolume
from gpu_tomoclass.volume import Volume

# What tifffile and its codecs raise on files that are not as they should be. imagecodecs' errors are RuntimeErrors.
_REFUSALS = (
    ValueError,  # and tifffile.TiffFileError
    RuntimeError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    struct.error,
)

# Pages above this size must not be compressed more than so many times, or a file of a few bytes could fill the memory;
# zlib cannot exceed 1032:1.
_UNSUSPICIOUS_BYTES, _LARGEST_RATIO = 2**30, 2000


def open_tiff(
    path: str | PathLike[str],
    *,
    axes: str | None = None,
    series: int | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
) -> Volume:
    """Open a TIFF file as a volume; arguments as :func:`gpu_tomoclass.volume.open_volume`.

    Stored axes other than Z, Y and X: a single other axis is read as z, with a note; of two, ``channel`` picks a
    position on the one that is not z. With ``axes`` where z is not the first stored axis, a plane is gathered from all
    stored planes (see :mod:`gpu_tomoclass.io.turned` for the cost).

    Raises
    ------
    UsageError
        If ``axes``, ``series`` or ``channel`` name something that the file does not have.
    DataError
        If the file is damaged, or holds several images and it was not said which.
    """
    name = fspath(path)
    try:
        tif, stack, notes = _open(name, series=series, channel=channel, allow_missing_planes=allow_missing_planes)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=name) from error
    try:
        order = stored_order(axes, stack.order, where=name)
        if allow_missing_planes and order[0] != "z":
            raise UsageError(
                f"missing planes cannot be filled when the axes are {order}: each is a row of every plane",
                where=name,
                do="leave out allow_missing_planes",
            )
        volume = TiffVolume(name, tif=tif, stack=stack, notes=notes, allow_missing_planes=allow_missing_planes)
        volume.notes.extend(order_notes(axes, stack.order, order))
        return volume if order == "zyx" else TurnedVolume(volume, order=order)
    except BaseException:
        tif.close()
        raise


class TiffVolume(Volume):
    """A stack of planes in a TIFF file, in the order stored; made by :func:`open_tiff`."""

    def __init__(
        self, path: str, *, tif: tifffile.TiffFile, stack: Stack, notes: Sequence[str], allow_missing_planes: bool
    ) -> None:
        found = describe(tif, stack.page, series=stack.series, n_series=stack.n_series)
        super().__init__(
            path,
            shape=stack.shape,
            dtype=np.dtype(np.uint8) if stack.page.dtype == np.bool_ else stack.page.dtype,
            format=_format_name(tif, stack),
            axes=stack.letters,
            voxel_size=found.voxel_size,
            notes=[*notes, *stack.notes, *found.notes],
            classes=found.classes,
            metadata=found.metadata,
            allow_missing_planes=allow_missing_planes,
        )
        self._tif, self._stack = tif, stack
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed in close)
        self._check_extents()

    def _check_extents(self) -> None:
        """Every plane lies inside the file and is as large as declared, before any memory is allocated for it."""
        size = self._file.seek(0, os.SEEK_END)
        row_bytes = self.shape[2] * self._stack.page.dtype.itemsize
        plane_bytes = self.shape[1] * row_bytes
        ends = [self._stack.extent(k, plane_bytes) for k in range(self.shape[0])]
        lost = [k for k, end in enumerate(ends) if end is None or end > size]
        if lost and len(lost) == self.shape[0]:
            declared, found = size_text(self.shape[0] * plane_bytes), size_text(size)
            raise DataError(f"damaged: declares {declared} of voxels, and the file has {found}", where=self.path)
        if lost and not self.allow_missing_planes:
            raise _damaged(self.path, len(ends) - len(lost), len(ends), "the file is too short", fillable=True)
        self._lost = frozenset(lost)
        self._mark_missing(lost)
        if self._stack.offsets is None:
            self._check_ratio(self._stack.page)

    def _read_plane(self, z: int) -> np.ndarray:
        if z in self._lost:
            raise DataError(f"plane {z} is not in the file, or only partly", where=self.path)
        with self._lock:
            if self._stack.offsets is not None:
                return self._read_rows(z, 0, self.shape[1])
            return self._decode(z)

    def rows(self, z: int, start: int, stop: int) -> np.ndarray:
        if self._stack.offsets is None or z in self._lost or not 0 <= start < stop <= self.shape[1]:
            return super().rows(z, start, stop)
        shape = (stop - start, self.shape[2])
        return self._guarded(z, lambda: self._read_rows(z, start, stop), shape=shape)

    def _read_rows(self, z: int, start: int, stop: int) -> np.ndarray:
        """Rows of an uncompressed plane, straight from the file."""
        assert self._stack.offsets is not None
        stored = np.empty((stop - start, self.shape[2]), self.dtype.newbyteorder(self._tif.byteorder))
        with self._lock:
            self._file.seek(self._stack.offsets[z] + start * self.shape[2] * stored.itemsize)
            buffer = stored.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(buffer):  # a single read returns at most 2 GiB
                n = self._file.readinto(buffer[done:])
                if not n:
                    raise DataError(f"plane {z} ends after {done} of {len(buffer)} bytes", where=self.path)
                done += n
        return stored.astype(self.dtype, copy=False)

    def _decode(self, z: int) -> np.ndarray:
        entry = self._stack.pages[z]
        assert entry is not None  # those planes are in _lost
        page, index = entry
        with tifffile_log() as log:
            try:
                page = page.aspage()  # with its own tags: tifffile's frames are decoded like the first page
                self._check_ratio(page)
                image = page.asarray(maxworkers=1)
            except _REFUSALS as error:
                raise DataError(f"plane {z} cannot be decoded: {plain(str(error))}", where=self.path) from error
        if log.errors or log.warnings:
            raise DataError(f"plane {z} is damaged ({(log.errors + log.warnings)[0]})", where=self.path)
        # A length of 1 is no reason to lose an axis, so the shape is restored before the sample or section is picked.
        axes = axes_of(page.axes, page.shape)
        plane = image.reshape([n for _, n in axes])[index]
        return plane.astype(np.uint8) if plane.dtype == np.bool_ else plane

    def _check_ratio(self, page: tifffile.TiffPage) -> None:
        packed = sum(page.databytecounts)
        if page.nbytes > _UNSUSPICIOUS_BYTES and page.nbytes > _LARGEST_RATIO * packed:
            declared = f"declares a page of {size_text(page.nbytes)}, compressed to {size_text(packed)}"
            raise DataError(f"{declared}: that is not believed", where=self.path)

    def _reopen(self) -> None:
        with self._lock:
            self._file.close()
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115  (closed in close)
            self._tif.filehandle.close()
            self._tif.filehandle.open()

    def close(self) -> None:
        self._file.close()
        self._tif.close()


def _open(
    path: str, *, series: int | None, channel: int | None, allow_missing_planes: bool
) -> tuple[tifffile.TiffFile, Stack, list[str]]:
    """The open file, the stack that was asked for, and what the user should know; or an error that says why not."""
    size = os.path.getsize(path)
    chain = read_page_chain(path)
    tif: tifffile.TiffFile | None = None
    found: list[Any] = []
    failure = ""
    with tifffile_log() as log:
        try:
            tif = tifffile.TiffFile(path)
            found = list(tif.series)
        except _REFUSALS as error:
            failure = f"tifffile: {plain(str(error)) or type(error).__name__}"
        try:
            if tif is None:
                raise DataError(f"damaged: no plane can be read ({failure})", where=path)
            reason = chain.problem or failure or "".join(log.errors[:1])
            if not reason:
                stack = choose_stack(found, chain, path=path, series=series, channel=channel)
                return tif, stack, [*dict.fromkeys(log.warnings)][:3]
            if failure and not chain.problem:
                for number, signature in enumerate(chain.signatures):
                    check_same_decoding(chain.signatures[0], signature, number, path)
            stack = _rescue(tif, chain, size, path=path, reason=reason, fill=allow_missing_planes)
            if series:
                raise UsageError(f"there is no series {series}, only 0", where=path)
            if channel is not None:
                raise UsageError("the file is damaged, and channels of damaged files cannot be chosen", where=path)
            return tif, stack, [f"the list of pages is damaged, but the planes were found ({reason})"]
        except BaseException:
            if tif is not None:
                tif.close()
            raise


def _rescue(tif: tifffile.TiffFile, chain: PageChain, size: int, *, path: str, reason: str, fill: bool) -> Stack:
    """The stack of a damaged file whose planes lie one after another behind the first page, or the error."""
    n_planes = None
    try:
        first = tif.pages.first
        stack = contiguous_stack(tif, first, chain)
        n_planes = declared_planes(tif, first)
    except _REFUSALS:
        stack = None
    if stack is not None:
        plane_bytes = stack.shape[1] * stack.shape[2] * stack.page.dtype.itemsize
        ends = [stack.extent(k, plane_bytes) for k in range(stack.shape[0])]
        readable = sum(end is not None and end <= size for end in ends)
        if readable == len(ends) or (fill and readable):
            return stack
        raise _damaged(path, readable, len(ends), reason, fillable=True)
    readable = 0
    for number in range(len(chain.offsets)):
        try:
            page = tif.pages[number].aspage()
            inside = all(start + n <= size for start, n in zip(page.dataoffsets, page.databytecounts, strict=True))
            readable += inside and len(page.dataoffsets) > 0
        except _REFUSALS:
            break
    raise _damaged(path, readable, n_planes, reason, fillable=False)


def _damaged(path: str, readable: int, n_planes: int | None, reason: str, *, fillable: bool) -> DataError:
    count = f"{readable} of {n_planes} planes readable" if n_planes else f"{readable} planes readable"
    do = "copy or export it again"
    if readable and fillable:
        do += ", or use --allow-missing-planes to fill the others with zeros"
    return DataError(f"damaged: {count} ({reason})", where=path, do=do)


def _format_name(tif: tifffile.TiffFile, stack: Stack) -> str:
    kind = {"imagej": "ImageJ TIFF", "ome": "OME-TIFF"}.get(stack.kind, "TIFF")
    big = " (BigTIFF)" if tif.is_bigtiff else ""
    compression = "" if stack.page.compression == 1 else f", {stack.page.compression.name.lower()} compression"
    return f"{kind}{big}{compression}"
