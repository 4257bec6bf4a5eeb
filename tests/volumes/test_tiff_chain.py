"""A chain of TIFF pages that ends too early: what is behind it belongs to no page, which can be seen."""

import struct

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.opening import open_volume
from gpu_tomoclass.volumes.tiff.pages import read_page_chain

N = 6
DATA = np.random.default_rng(0).integers(0, 60000, (N, 12, 10)).astype(np.uint16)
IMAGEJ = f"ImageJ=1.53t\nimages={N}\nslices={N}\nloop=false\n"


def write(path, kind):
    if kind in ("imagej", "ome"):  # all planes in one piece behind the first directory, or page after page
        tifffile.imwrite(path, DATA, photometric="minisblack", metadata={"axes": "ZYX"}, **{kind: True})
        return
    with tifffile.TiffWriter(path) as tif:
        for z, plane in enumerate(DATA):
            description = IMAGEJ if kind.startswith("imagej") and z == 0 else None
            compression = "zlib" if kind.endswith("zlib") else None
            tif.write(
                plane,
                contiguous=False,
                metadata=None,
                photometric="minisblack",
                description=description,
                compression=compression,
            )


def next_pointers(raw):
    """Where each directory of a little-endian classic TIFF keeps the position of the next."""
    places, (at,) = [], struct.unpack_from("<I", raw, 4)
    while at:
        (n_tags,) = struct.unpack_from("<H", raw, at)
        places.append(at + 2 + 12 * n_tags)
        (at,) = struct.unpack_from("<I", raw, places[-1])
    return places[:-1]


@pytest.mark.parametrize("kind", ["pages", "pages zlib", "imagej pages", "imagej pages zlib", "imagej", "ome"])
def test_pointer_that_became_zero(tmp_path, kind):
    path = tmp_path / "a.tif"
    write(path, kind)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), DATA)
    raw = path.read_bytes()
    refused = 0
    for place in next_pointers(raw):
        path.write_bytes(raw[:place] + bytes(4) + raw[place + 4 :])
        try:
            with open_volume(path) as volume:
                np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), DATA)
        except DataError:
            refused += 1
    assert refused == N - 1 or kind == "imagej"  # whose planes are found without the list


def test_pages_that_are_there_can_be_asked_for(tmp_path):
    path = tmp_path / "a.tif"
    write(path, "pages")
    raw = path.read_bytes()
    place = next_pointers(raw)[3]
    path.write_bytes(raw[:place] + bytes(4) + raw[place + 4 :])
    with pytest.raises(DataError, match=r"ends after 4, but .* belong to no page.*--allow-missing-planes"):
        open_volume(path)
    with open_volume(path, allow_missing_planes=True) as volume:
        assert volume.shape == (4, 12, 10)
        assert any("planes may be missing" in note for note in volume.notes)


def test_every_byte_of_whole_files_is_accounted_for(tmp_path):
    """Reduced copies inside pages, tiles, long values elsewhere: no whole file looks cut."""
    path = tmp_path / "a.tif"
    for options in (
        {"tile": (16, 16)},
        {"rowsperstrip": 3},
        {"compression": "zlib"},
        {"extratags": [(700, 1, 999, bytes(999))]},
    ):
        with tifffile.TiffWriter(path) as tif:
            for plane in DATA:
                tif.write(plane, contiguous=False, metadata=None, photometric="minisblack", subifds=1, **options)
                tif.write(plane[::2, ::2], contiguous=False, metadata=None, photometric="minisblack", subfiletype=1)
        chain = read_page_chain(str(path))
        assert 0 <= path.stat().st_size - chain.referenced < 64 * N  # alignment of directories and pixels
        with open_volume(path) as volume:
            assert volume.shape[0] == N


def test_declared_planes_and_pixels_that_are_not_believed(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, DATA[:1], ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    raw = path.read_bytes()
    assert b'PlaneCount="1"' in raw
    description = raw.replace(b'<TiffData IFD="0" PlaneCount="1"/>', b'<TiffData PlaneCount="300000000"/>')
    assert len(description) == len(raw)
    path.write_bytes(description)
    with pytest.raises(DataError, match="declares 300000000 planes"):
        open_volume(path)
    large = tmp_path / "b.tif"
    with tifffile.TiffWriter(large) as tif:
        tif.write(np.zeros((64, 64), np.uint8), compression="zlib", metadata=None, photometric="minisblack")
    with tifffile.TiffFile(large, mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages[0].tags[name].overwrite(40000)
    with pytest.raises(DataError, match=r"declares a page of 1\.6 GB, stored in .*: that is not believed"):
        open_volume(large)
