"""The size that a TIA series (``.ser``) says it has, compared with the file before anything is read.

RosettaSciIO, which reads such files, asks for as much memory as the header says. Layout: C. Boothroyd's description of
the format (ER-C, Juelich), as far as it is needed here; little endian.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.outputs import size_text
from gpu_tomoclass.volumes.stored_axes import check_declared

_BEGINNING = (0x4949, 0x0197)
_SPECTRA = 0x4120  # else images
_LAST_OF_32_BITS = 0x0210  # version; later ones have pointers of 64 bits
_ITEM_BYTES = {1: 1, 2: 2, 3: 4, 4: 1, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 16}


def check_series_size(path: str) -> None:
    """Raise DataError if the file is smaller than what it says it holds.

    A header that is cut or unknown is left to the reader, which says what is wrong with it.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        try:
            n_elements, element_bytes, grid = _declared(file, size)
        except struct.error:
            return
    if n_elements * element_bytes > size:
        raise DataError(
            f"is cut or damaged: it says that it holds {n_elements} x {size_text(element_bytes)}, and is"
            f" {size_text(size)} long",
            where=path,
            do="copy it anew",
        )
    check_declared("a grid", grid * element_bytes, size, where=path)  # what was not recorded of it becomes zeros


def _declared(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Elements that are stored, bytes of each, and elements of the whole grid."""
    order, series, version, kind, _, _, n_elements = _next(file, "<HHHIIII")
    if (order, series) != _BEGINNING:
        return 0, 0, 0
    pointer = "<I" if version <= _LAST_OF_32_BITS else "<Q"
    (table,) = _next(file, pointer)
    (n_dimensions,) = _next(file, "<I")
    grid = 1
    for _ in range(n_dimensions):  # ends at the end of the file at the latest
        length, *_ = _next(file, "<IddI")
        grid *= length
        for _ in ("description", "unit"):
            (n_bytes,) = _next(file, "<I")
            if n_bytes > size:
                return 1, n_bytes, 0
            file.seek(n_bytes, os.SEEK_CUR)
    file.seek(min(table, size))
    (first,) = _next(file, pointer)
    file.seek(min(first, size))
    *_, item, n_items = _next(file, "<ddIHI" if kind == _SPECTRA else "<ddIddIHI")
    if kind != _SPECTRA:
        n_items *= _next(file, "<I")[0]
    return n_elements, file.tell() - first + n_items * _ITEM_BYTES.get(item, 0), grid


def _next(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
