"""Volumes in TIFF files: ImageJ, OME, BigTIFF, plain multi-page; opened by headers, read plane by plane.

tifffile reports most damage by logging and goes on with fewer planes or other data. So the chain of pages is walked
here too, every plane's bytes are located when the file is opened, tifffile's log is listened to, and whatever does not
add up is an error: a volume is never smaller than the file says.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import tifffile

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.outputs import size_text
from gpu_tomoclass.volumes.reordered import ReorderedVolume
from gpu_tomoclass.volumes.stored_axes import check_declared, order_notes, stored_order
from gpu_tomoclass.volumes.tiff.layout import (
    Stack,
    axes_of,
    check_same_decoding,
    choose_stack,
    contiguous_stack,
    declared_planes,
)
from gpu_tomoclass.volumes.tiff.log import LogRecords, plain, tifffile_log
from gpu_tomoclass.volumes.tiff.metadata import describe
from gpu_tomoclass.volumes.tiff.pages import PageChain, is_directory, read_page_chain
from gpu_tomoclass.volumes.volume import Volume

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

# What tifffile logs when the first page is all right but the pages after it are not.
_CHAIN_ERRORS = re.compile(
    "page offset|offset to page|tag list of page|circular reference|ImageJ series metadata|shaped series"
)

# More missing planes than this are not filled, and more planes than this must be possible for the size of the file
# before tifffile is asked to list them: a plane takes its bytes, or at least a directory of about 100 bytes.
_MOST_FILLED, _DIRECTORY_BYTES = 100_000, 100


def open_tiff(
    path: str | PathLike[str],
    *,
    axes: str | None = None,
    series: int | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
) -> Volume:
    """Open a TIFF file as a volume; arguments as :func:`gpu_tomoclass.volumes.opening.open_volume`.

    Stored axes other than Z, Y and X: a single other axis is read as z, with a note; of two, ``channel`` picks a
    position on the one that is not z. With ``axes`` where z is not the first stored axis, a plane is gathered from all
    stored planes (see :mod:`gpu_tomoclass.volumes.reordered` for the cost).

    Raises
    ------
    UsageError
        If ``axes``, ``series`` or ``channel`` name something that the file does not have.
    DataError
        If the file is damaged, or holds several images and it was not said which.
    """
    name = fspath(path)
    try:
        tif, stack, notes, chain = _open(
            name, axes=axes, series=series, channel=channel, allow_missing_planes=allow_missing_planes
        )
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
        if chain is not None:
            volume.notes.extend(_check_unreferenced(tif, stack, chain, name, fill=allow_missing_planes))
        volume.notes.extend(order_notes(axes, stack.order, order))
        return volume if order == "zyx" else ReorderedVolume(volume, order=order)
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
        lost, n = self._stack.lost(size), self.shape[0]
        if len(lost) == n or len(lost) > _MOST_FILLED:
            declared = size_text(n * self._stack.plane_bytes)
            raise DataError(
                f"damaged: declares {declared} of voxels, and the file has {size_text(size)}", where=self.path
            )
        if lost and not self.allow_missing_planes:
            raise _damaged(self.path, n - len(lost), n, "the file is too short", fillable=True)
        self._lost = frozenset(lost)
        self.mark_missing(lost)
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
            except _REFUSALS as error:
                raise DataError(f"plane {z} has a damaged directory: {plain(str(error))}", where=self.path) from error
            self._check_ratio(page)
            try:
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
        check_declared("a page", page.nbytes, sum(page.databytecounts), where=self.path)

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
    path: str, *, axes: str | None, series: int | None, channel: int | None, allow_missing_planes: bool
) -> tuple[tifffile.TiffFile, Stack, list[str], PageChain | None]:
    """The open file, the stack that was asked for, what the user should know, and the list of pages if it is whole."""
    chain = read_page_chain(path)
    with tifffile_log() as log:
        try:
            tif = tifffile.TiffFile(path)
        except _REFUSALS as error:
            raise DataError(f"damaged: no plane can be read (tifffile: {plain(str(error))})", where=path) from error
        try:
            _check_declared_planes(tif, path)
            found, reason = _find_series(tif, chain, log, path)
            if not reason:
                as_stored = axes is not None
                stack = choose_stack(found, chain, path=path, series=series, channel=channel, as_stored=as_stored)
                return tif, stack, [*dict.fromkeys(log.warnings)][:3], chain
            whole = all(_CHAIN_ERRORS.search(text) for text in log.errors)
            stack = _rescue(tif, chain, path=path, reason=reason, whole=whole, fill=allow_missing_planes)
            if series:
                raise UsageError(f"there is no series {series}, only 0", where=path)
            if channel is not None:
                raise UsageError("the file is damaged, and channels of damaged files cannot be chosen", where=path)
            return tif, stack, [f"the list of pages is damaged, but the planes were found ({reason})"], None
        except BaseException:
            tif.close()
            raise


def _check_declared_planes(tif: tifffile.TiffFile, path: str) -> None:
    """tifffile makes a list of as many planes as the metadata say, so that number must be possible."""
    try:
        first = tif.pages.first
        n, plane_bytes = declared_planes(tif, first), first.nbytes
    except _REFUSALS:
        return  # reported when the series are found
    size = tif.filehandle.size
    if first.is_ome:  # tifffile makes a list of this length, whatever the sizes of the axes
        counts = [int(n) for n in re.findall(r'PlaneCount="(\d{1,18})"', first.description)]
        n = max([n or 0, *counts])
    if n is not None and n > _MOST_FILLED and n * min(_DIRECTORY_BYTES, max(1, plane_bytes)) > size:
        raise DataError(f"damaged: declares {n} planes, and the file has {size_text(size)}", where=path)


def _check_unreferenced(tif: tifffile.TiffFile, stack: Stack, chain: PageChain, path: str, *, fill: bool) -> list[str]:
    """A chain of pages that ends too early leaves planes behind that no directory points to; notes if they may be lost.

    One zero in place of a pointer ends the chain as if it were complete, and only ImageJ, OME and tifffile say how many
    planes there should be.
    """
    size, n = tif.filehandle.size, stack.shape[0]
    if stack.kind == "imagej" and n > 1 and isinstance(stack.offsets, range):
        _check_in_one_piece(tif, stack, chain, path)
        return []
    if stack.kind in ("imagej", "ome", "shaped") or not chain.smallest:
        return []
    if isinstance(stack.offsets, range) and len(chain.offsets) < n:
        return []
    left = size - chain.referenced
    if left < max(chain.smallest, _DIRECTORY_BYTES):
        return []
    text = f"{size_text(left)} of {size_text(size)} belong to no page, and a page has {size_text(chain.smallest)}"
    if fill:
        return [f"{text}: planes may be missing"]
    raise DataError(
        f"damaged: the list of pages ends after {len(chain.offsets)}, but {text}",
        where=path,
        do="export it again, or read the pages that are there with --allow-missing-planes",
    )


def _check_in_one_piece(tif: tifffile.TiffFile, stack: Stack, chain: PageChain, path: str) -> None:
    """The second plane is where it must be if all planes of an ImageJ file lie behind the first, in one piece."""
    second = stack.page.dataoffsets[0] + stack.page.nbytes
    if len(chain.offsets) > 1:
        try:
            separate = tif.pages[1].aspage().dataoffsets[0] != second
        except _REFUSALS:
            separate = False  # a directory that is damaged itself says nothing about the planes
    else:  # the end of the chain, or a pointer that became 0
        with open(path, "rb") as file:
            separate = not tif.is_bigtiff and is_directory(file, second, order=tif.byteorder, width=stack.shape[2])
    if separate:
        found, n = len(chain.offsets), stack.shape[0]
        raise DataError(f"damaged: the list of pages ends after {found} of {n}", where=path, do="export it again")


def _find_series(tif: tifffile.TiffFile, chain: PageChain, log: LogRecords, path: str) -> tuple[list[Any], str]:
    """Series that tifffile makes of the pages, and the reason not to believe it; empty if there is none."""
    found: list[Any] = []
    failure = ""
    try:
        found = list(tif.series)
    except _REFUSALS as error:
        failure = f"tifffile: {plain(str(error)) or type(error).__name__}"
    if failure and not chain.problem:
        for number, signature in enumerate(chain.signatures):
            check_same_decoding(chain.signatures[0], signature, number, path)
    return found, chain.problem or failure or "".join(log.errors[:1])


def _rescue(tif: tifffile.TiffFile, chain: PageChain, *, path: str, reason: str, whole: bool, fill: bool) -> Stack:
    """The stack of a damaged file whose planes lie one after another behind the first page, or the error.

    ``whole`` says that the first page itself was read without complaint.
    """
    size = tif.filehandle.size
    n_planes = None
    try:
        first = tif.pages.first
        stack = contiguous_stack(tif, first, chain) if whole else None
        n_planes = declared_planes(tif, first)
    except _REFUSALS:
        stack = None
    if stack is not None:
        n, n_lost = stack.shape[0], len(stack.lost(size))
        if n_lost == 0 or (fill and n_lost < min(n, _MOST_FILLED)):
            return stack
        raise _damaged(path, n - n_lost, n, reason, fillable=True)
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
    if readable == n_planes:
        count = "its header cannot be trusted"
    do = "copy or export it again"
    if readable and fillable:
        do += ", or use --allow-missing-planes to fill the others with zeros"
    return DataError(f"damaged: {count} ({reason})", where=path, do=do)


def _format_name(tif: tifffile.TiffFile, stack: Stack) -> str:
    kind = {"imagej": "ImageJ TIFF", "ome": "OME-TIFF"}.get(stack.kind, "TIFF")
    big = " (BigTIFF)" if tif.is_bigtiff else ""
    number = stack.page.compression
    name = "" if number == 1 else f", {getattr(number, 'name', str(number)).removeprefix('ADOBE_').lower()} compression"
    return f"{kind}{big}{name}"
