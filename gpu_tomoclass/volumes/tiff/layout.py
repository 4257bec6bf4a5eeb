"""Stored planes of a TIFF that make up the volume, and where their bytes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.tiff.pages import PageChain

# The order of images in an ImageJ hyperstack, slowest first, by the value of its "order" (czt where it is not given).
_IMAGEJ_ORDERS = {"czt": "TZC", "ctz": "ZTC", "zct": "TCZ", "ztc": "CTZ", "tcz": "ZCT", "tzc": "CZT"}

_AXIS_NAMES = {"C": "channels", "T": "time points", "S": "colour samples"}


@dataclass(frozen=True)
class Stack:
    """Planes of one image series, in stored order.

    Attributes
    ----------
    shape : tuple of int
        (n planes, rows, columns) as stored.
    letters : str
        All stored axes that are longer than 1, slowest first.
    order : str
        What the file says the three axes of ``shape`` are, for example ``"zyx"``.
    page : tifffile.TiffPage
        The page that says how all are decoded.
    offsets : sequence of int or None
        Where each plane starts, for uncompressed planes in one piece; a range where they are evenly spaced.
    pages : tuple
        Per plane the page and the index into its array; None for a page that is not in the file.
    """

    shape: tuple[int, int, int]
    letters: str
    order: str
    kind: str
    page: Any
    offsets: Sequence[int] | None
    pages: tuple[tuple[Any, tuple[Any, ...]] | None, ...]
    notes: tuple[str, ...] = ()
    series: int = 0
    n_series: int = 1

    @property
    def plane_bytes(self) -> int:
        """Bytes of a decoded plane."""
        return self.shape[1] * self.shape[2] * int(self.page.dtype.itemsize)

    def lost(self, size: int) -> Sequence[int]:
        """The planes that are not, or not wholly, in a file of ``size`` bytes."""
        n = self.shape[0]
        if isinstance(self.offsets, range):  # may be declared to be billions of planes
            whole = (size - self.plane_bytes - self.offsets.start) // self.offsets.step + 1
            return range(min(max(whole, 0), n), n)
        if self.offsets is not None:
            return [k for k in range(n) if not 0 < self.offsets[k] <= size - self.plane_bytes]
        ends = [None if entry is None else _page_end(entry[0]) for entry in self.pages]
        return [k for k, end in enumerate(ends) if end is None or end > size]


def choose_stack(
    found: Sequence[Any], chain: PageChain, *, path: str, series: int | None, channel: int | None, as_stored: bool
) -> Stack:
    """The stack that ``series`` and ``channel`` mean.

    Parameters
    ----------
    found : sequence of tifffile.TiffPageSeries
    chain : PageChain
    as_stored : bool
        The user says what three stored axes are, so colour planes (which tifffile writes for three planes unless told
        otherwise) may be planes of a volume.

    Raises
    ------
    UsageError
        If there is no such series or channel.
    DataError
        If it must be said which one is meant, or the pages do not make up a volume.
    """
    if not found:
        raise DataError("holds no image", where=path)
    if series is None and len(found) > 1:
        listed = "; ".join(f"{i}: {_size(s.axes, s.shape)} {s.dtype}" for i, s in enumerate(found[:8]))
        more = " ..." if len(found) > 8 else ""
        raise DataError(f"holds {len(found)} images ({listed}{more})", where=path, do="choose one with --series")
    number = series or 0
    if not 0 <= number < len(found):
        raise UsageError(f"there is no series {number}, only 0 to {len(found) - 1}", where=path)
    chosen, page = found[number], found[number].keyframe
    _check_kind(chosen, path)

    full = axes_of(chosen.axes, chosen.shape)  # tifffile leaves out axes of length 1, but never Y and X
    inner = axes_of(page.axes, page.shape)
    fits = [n for _, n in full[len(full) - len(inner) :]] == [n for _, n in inner]
    if not fits and chosen.dataoffset is not None and {letter for letter, _ in full[-2:]} == {"Y", "X"}:
        inner = full[-2:]  # tifffile stores planes of one column or row in pages of another form
    elif not fits:
        raise DataError(f"its axes {_size(chosen.axes, chosen.shape)} do not fit pages of {page.shape}", where=path)
    outer = full[: len(full) - len(inner)]
    _check_page_count(found, chain, path)
    _check_page_bytes(page, path)

    in_plane = [len(outer) + i for i, (letter, _) in enumerate(inner) if letter in "YX"]
    z, picked, notes = _choose_axes(full, in_plane, path=path, channel=channel, as_stored=as_stored)
    if len(chosen.levels) > 1:
        notes.append(f"read at full resolution; the file also holds {len(chosen.levels) - 1} reduced copies")
    sizes = [n for _, n in full]
    n = 1 if z is None else sizes[z]

    def index_of(k: int) -> list[Any]:
        return [picked.get(axis, slice(None) if axis in in_plane else k) for axis in range(len(full))]

    plane_bytes = sizes[in_plane[0]] * sizes[in_plane[1]] * page.dtype.itemsize
    in_one_piece = page.is_final and in_plane == [len(full) - 2, len(full) - 1]
    entries: list[tuple[Any, tuple[Any, ...]] | None] = []
    offsets: Sequence[int] | None = None
    if in_one_piece and chosen.dataoffset is not None:
        starts = [chosen.dataoffset + _flat(index_of(k)[:-2], sizes[:-2]) * plane_bytes for k in range(min(n, 2))]
        step = starts[1] - starts[0] if n > 1 else plane_bytes
        offsets = range(starts[0], starts[0] + n * step, step)
    else:
        signatures = dict(zip(chain.offsets, chain.signatures, strict=True))
        found_offsets: list[int] = []
        for k in range(n):
            index = index_of(k)
            number_in_series = _flat(index[: len(outer)], sizes[: len(outer)])
            try:
                stored = chosen[number_in_series]
            except IndexError as error:
                raise DataError(
                    f"damaged: page {number_in_series} of {len(chosen)} is not in the list of pages", where=path
                ) from error
            if stored is None:
                found_offsets.append(0)
                entries.append(None)
                continue
            check_same_decoding(signatures.get(page.offset), signatures.get(stored.offset), number_in_series, path)
            entries.append((stored, tuple(index[len(outer) :])))
            in_one_piece = in_one_piece and _in_one_piece(stored, page.nbytes)
            if in_one_piece:
                before = _flat(index[len(outer) : -2], sizes[len(outer) : -2]) * plane_bytes
                found_offsets.append(stored.dataoffsets[0] + before)
        offsets = found_offsets if in_one_piece else None
    letters = "".join(letter for letter, _ in full)
    return Stack(
        shape=(n, sizes[in_plane[0]], sizes[in_plane[1]]),
        letters=letters,
        order=_order(("Z" if z is None else letters[z]) + letters[in_plane[0]] + letters[in_plane[1]]),
        kind=chosen.kind,
        page=page,
        offsets=offsets,
        pages=tuple(entries),
        notes=tuple(notes),
        series=number,
        n_series=len(found),
    )


def contiguous_stack(tif: tifffile.TiffFile, first: Any, chain: PageChain) -> Stack | None:
    """The stack that the first page describes, if its planes lie one after another behind the first one.

    For files whose list of pages is damaged: ImageJ and tifffile write all planes in one piece behind the first page's
    directory and the other directories last. None for anything that is not certainly so.
    """
    declared = _declared_axes(tif, first)
    if declared is None or not first.is_final or len(first.shape) != 2 or not first.dataoffsets:
        return None
    extra = [(letter, n) for letter, n in declared if n > 1]
    if len(extra) != 1 or first.dtype is None or first.dtype.kind not in "uif":
        return None
    letter, n = extra[0]
    start, plane_bytes = first.dataoffsets[0], first.nbytes
    following = chain.offsets[1] if len(chain.offsets) > 1 else chain.next_offset
    if not _in_one_piece(first, plane_bytes) or 0 < following < start + n * plane_bytes:
        return None
    kind = "imagej" if first.is_imagej else "ome" if first.is_ome else "shaped"
    note = () if letter == "Z" else (f"reading axis {letter} as z ({n} planes)",)
    offsets = range(start, start + n * plane_bytes, plane_bytes)
    return Stack((n, *first.shape), f"{letter}YX", "zyx", kind, first, offsets, (), note)


def declared_planes(tif: tifffile.TiffFile, first: Any) -> int | None:
    """Number of planes that the metadata of the first page announce; None if they say nothing."""
    declared = _declared_axes(tif, first)
    return None if declared is None else math.prod(n for _, n in declared)


def _declared_axes(tif: tifffile.TiffFile, first: Any) -> list[tuple[str, int]] | None:
    """Letters and lengths of the axes other than Y and X, from ImageJ's, OME's or tifffile's description."""
    if first.is_imagej:
        text = dict(line.split("=", 1) for line in first.imagej_description.splitlines() if "=" in line)
        lengths = {
            axis: int(text.get(key, 1)) for axis, key in zip("TZC", ("frames", "slices", "channels"), strict=True)
        }
        order = _IMAGEJ_ORDERS.get(text.get("order", "czt").lower(), "TZC")
        if math.prod(lengths.values()) == 1:
            return [("I", int(text.get("images", 1)))]
        return [(letter, lengths[letter]) for letter in order]
    if first.is_ome:
        try:
            root = ElementTree.fromstring(first.description)
        except ElementTree.ParseError:
            return None
        pixels = [e.attrib for e in root.iter() if e.tag.endswith("Pixels")]
        if len(pixels) != 1 or (int(pixels[0]["SizeY"]), int(pixels[0]["SizeX"])) != first.shape:
            return None
        order = pixels[0].get("DimensionOrder", "XYZCT")[:1:-1]
        return [(letter, int(pixels[0].get(f"Size{letter}", 1))) for letter in order]
    if first.is_shaped and tif.shaped_metadata:
        shape = [int(n) for n in tif.shaped_metadata[0]["shape"]]
        letters = str(tif.shaped_metadata[0].get("axes", "Q" * (len(shape) - 2) + "YX"))
        if len(letters) == len(shape) and letters.endswith("YX") and tuple(shape[-2:]) == first.shape:
            return list(zip(letters[:-2], shape[:-2], strict=True))
    return None


def _choose_axes(
    full: list[tuple[str, int]], in_plane: list[int], *, path: str, channel: int | None, as_stored: bool
) -> tuple[int | None, dict[int, int], list[str]]:
    """(axis that is z or None, {axis: index} of the one that ``channel`` picks, notes)."""
    letters = [letter for letter, _ in full]
    sizes = [n for _, n in full]
    extra = [axis for axis in range(len(full)) if axis not in in_plane]
    found = _size(letters, sizes)

    selected: int | None = None
    samples = [axis for axis in extra if letters[axis] == "S"]
    planar = extra == [0] and bool(samples)
    if planar and as_stored and channel is None:
        pass  # the samples are z
    elif samples:
        selected = samples[0]
    elif len(extra) > 1:
        others = [axis for axis in extra if letters[axis] != "Z"]
        channels = [axis for axis in others if letters[axis] == "C"]
        selected = (channels or others or extra)[0]
    elif extra and channel is not None and letters[extra[0]] != "Z":
        selected = extra[0]
    rest = [axis for axis in extra if axis != selected]
    if len(rest) > 1:
        raise DataError(
            f"has {len(full)} axes ({found}), and a volume has three", where=path, do="save one time point and channel"
        )
    if selected is None:
        if channel is not None:
            raise UsageError(f"has no channels to choose from ({found})", where=path, do="leave out channel")
    else:
        n, name = sizes[selected], _AXIS_NAMES.get(letters[selected], f"positions on axis {letters[selected]}")
        if channel is None:
            kind = "is a colour image with" if letters[selected] == "S" else "holds"
            do = f"choose one with --channel 0 to {n - 1}" + (
                ", or read them as planes with --axes zyx" if planar else ""
            )
            raise DataError(f"{kind} {n} {name} ({found})", where=path, do=do)
        if not 0 <= channel < n:
            raise UsageError(f"there is no channel {channel}, only 0 to {n - 1} ({found})", where=path)
    notes = []
    if selected is not None:
        notes.append(f"reading number {channel} (counted from 0) of {sizes[selected]} {name}")
    if not rest:
        notes.append("a single image, read as a volume of one plane")
    elif letters[rest[0]] not in "ZYX":
        notes.append(f"reading axis {letters[rest[0]]} as z ({sizes[rest[0]]} planes)")
    return (rest[0] if rest else None), ({} if selected is None else {selected: channel or 0}), notes


def _check_kind(series: Any, path: str) -> None:
    page = series.keyframe
    if series.is_multifile:
        raise DataError(
            "is one file of a multi-file OME-TIFF", where=path, do="save the set as one file, or open its folder"
        )
    if page.dtype is None or page.dtype.kind not in "uifb":
        kind = f"{page.bitspersample}-bit samples of format {page.sampleformat}" if page.dtype is None else page.dtype
        raise DataError(f"holds {kind}, which are no grey values", where=path)
    if page.dtype != series.dtype or series.transform is not None:
        raise DataError(f"is a {series.kind} file, whose values need a conversion", where=path, do="save it as TIFF")


def _check_page_count(found: Sequence[Any], chain: PageChain, path: str) -> None:
    """The metadata account for every page of the file."""
    if any(s.kind not in ("imagej", "ome", "shaped") for s in found):
        return  # made up of the pages that were found
    described = 0
    for level in (level for s in found for level in s.levels):
        described += math.prod(level.shape) // max(1, math.prod(level.keyframe.shape))
    if described < len(chain.offsets):
        raise DataError(
            f"holds {len(chain.offsets)} pages, and its metadata describe {described}", where=path, do="export it again"
        )


def _check_page_bytes(page: Any, path: str) -> None:
    """A page that stores a row more than it should has lost its true size."""
    if page.is_final and not page.is_tiled:
        stored, row = sum(page.databytecounts), page.nbytes // max(1, page.imagelength)
        if stored >= page.nbytes + row:
            size = " x ".join(map(str, page.shape))
            raise DataError(
                f"damaged: pages of {size} {page.dtype} have {page.nbytes} bytes, and {stored} are stored", where=path
            )


def check_same_decoding(
    first: tuple[tuple[int, int], ...] | None, other: tuple[tuple[int, int], ...] | None, number: int, path: str
) -> None:
    """tifffile decodes the pages of some series like the first, without looking."""
    if first is not None and other is not None and first != other:
        codes = dict(sorted(set(first) ^ set(other)))
        names = ", ".join(tifffile.TIFF.TAGS.get(code, str(code)) for code in codes)
        raise DataError(f"page {number} differs from page 0 in {names}", where=path, do="save the stack again")


def axes_of(letters: str, sizes: Sequence[int]) -> list[tuple[str, int]]:
    """The axes that matter: Y and X, and those longer than 1."""
    return [(letter, int(n)) for letter, n in zip(letters, sizes, strict=True) if n != 1 or letter in "YX"]


def _order(letters: str) -> str:
    """Names of three stored axes: as named where the names are Z, Y and X, otherwise z first."""
    if sorted(letters) == ["X", "Y", "Z"]:
        return letters.lower()
    return "zxy" if letters[1:] == "XY" else "zyx"


def _size(letters: Sequence[str], sizes: Sequence[int]) -> str:
    return f"{''.join(letters)} {' x '.join(map(str, sizes))}"


def _flat(index: Sequence[int], sizes: Sequence[int]) -> int:
    return int(np.ravel_multi_index(tuple(index), tuple(sizes))) if index else 0


def _in_one_piece(page: Any, n_bytes: int) -> bool:
    """Tell whether the strips or tiles of an uncompressed page follow each other and hold at least ``n_bytes``."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts) or sum(counts) < n_bytes:
        return False
    return all(offsets[i] + counts[i] == offsets[i + 1] for i in range(len(offsets) - 1))


def _page_end(page: Any) -> int | None:
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts) or min(offsets) <= 0 or min(counts) <= 0:
        return None  # a strip that is not there, which tifffile would fill with zeros
    form = page.keyframe
    if form.compression == 1 and form.bitspersample == 8 * form.dtype.itemsize and sum(counts) < form.nbytes:
        return None
    return max(start + n for start, n in zip(offsets, counts, strict=True))
