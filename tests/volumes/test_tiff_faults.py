"""Damaged TIFF files: an error that names file and plane, or the exact voxels; never a smaller volume, never a crash.

tifffile itself, on such files, mostly logs and returns something: that is what these tests are about.
"""

import hashlib
import io
import logging
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_tomoclass.errors import DataError, TomoclassError, UsageError
from gpu_tomoclass.volumes.opening import open_volume

N_CUTS = 60
VOXELS = np.random.default_rng(0).integers(0, 60000, (20, 16, 24)).astype(np.uint16)


def written(*, pages: bool = False, options: dict | None = None, **writer) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **writer) as tif:
        if pages:
            for plane in VOXELS:
                tif.write(plane, contiguous=False, metadata=None, photometric="minisblack", **(options or {}))
        else:
            tif.write(VOXELS, photometric="minisblack", metadata={"axes": "ZYX"}, **(options or {}))
    return buffer.getvalue()


FLAVOURS = {
    "imagej": written(imagej=True),
    "ome": written(ome=True),
    "shaped": written(),
    "bigtiff": written(bigtiff=True),
    "pages": written(pages=True),
    "pages big-endian": written(pages=True, byteorder=">"),
    "pages zlib": written(pages=True, options={"compression": "zlib"}),
    "ome zstd": written(ome=True, options={"compression": "zstd"}),
    "lzw": written(options={"compression": "lzw"}),
    "tiles": written(options={"compression": "zlib", "tile": (16, 16)}),
}
CUT_IN_DATA = {"imagej", "shaped", "bigtiff"}  # one piece behind a first page that says how many planes there are


def read_all(path: Path, **options) -> np.ndarray:
    with open_volume(path, **options) as volume:
        return np.stack([plane for _, plane in volume.planes()])


def outcome(path: Path) -> tuple[np.ndarray | None, str]:
    """The voxels, or the error; anything but our own errors is not caught."""
    try:
        return read_all(path), ""
    except TomoclassError as error:
        return None, str(error)


def cuts(content: bytes) -> list[int]:
    """Evenly spread, and every byte near the end, where the directories of some flavours are."""
    return sorted(
        {*np.linspace(0, len(content) - 1, N_CUTS - 10).astype(int).tolist(), *range(len(content) - 10, len(content))}
    )


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_truncated_anywhere(tmp_path, flavour):
    content, path = FLAVOURS[flavour], tmp_path / "a.tif"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_all(path), VOXELS)
    with tifffile.TiffFile(path) as tif:
        # Planes in one piece are whole when only the directories behind them are cut; in files of other structure
        # nothing may be missing.
        end = tif.series[0].dataoffset + VOXELS.nbytes if flavour in CUT_IN_DATA else len(content)
    for cut in cuts(content):
        path.write_bytes(content[:cut])
        voxels, error = outcome(path)
        assert (voxels is None) == (cut < end)
        if voxels is None:
            assert error.startswith(f"{path}: ")
            assert "damaged" in error or cut == 0
            assert "\n" not in error
        else:
            np.testing.assert_array_equal(voxels, VOXELS)
        assert path.read_bytes() == content[:cut]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_truncated_with_missing_planes_allowed(tmp_path, flavour):
    content, path = FLAVOURS[flavour], tmp_path / "a.tif"
    filled = 0
    for cut in cuts(content):
        path.write_bytes(content[:cut])
        try:
            volume = open_volume(path, allow_missing_planes=True)
        except DataError:
            continue
        with volume:
            voxels = np.stack([plane for _, plane in volume.planes()])
            lost = sorted(volume.missing_planes)
            assert volume.shape == VOXELS.shape
            kept = [z for z in range(20) if z not in lost]
            np.testing.assert_array_equal(voxels[kept], VOXELS[kept])
            assert not voxels[lost].any()
            assert any("filled with zeros" in note for note in volume.notes) == bool(lost)
            filled += bool(lost)
    if flavour in CUT_IN_DATA:
        assert filled > N_CUTS // 2


def test_message_counts_the_planes(tmp_path):
    path = tmp_path / "vol.tif"
    content = FLAVOURS["imagej"]
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        start = tif.pages[0].dataoffsets[0]
    path.write_bytes(content[: start + 12 * VOXELS[0].nbytes + 5])
    with pytest.raises(DataError, match=r"vol\.tif: damaged: 12 of 20 planes readable \(.*--allow-missing-planes"):
        open_volume(path)


def test_truncated_contiguous_file_is_not_touched(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(FLAVOURS["shaped"][:5000])
    os.utime(path, ns=(10**18, 10**18))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError):
        open_volume(path)
    with open_volume(path, allow_missing_planes=True) as volume:
        volume.plane(19)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert path.stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("quiet", ["level", "disabled"])
def test_damage_is_seen_when_tifffile_is_silenced(tmp_path, quiet):
    """Other packages set tifffile's logger to CRITICAL or logging off altogether."""
    path = tmp_path / "a.tif"
    path.write_bytes(FLAVOURS["pages"][: len(FLAVOURS["pages"]) * 2 // 3])
    logger = logging.getLogger("tifffile")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        if quiet == "disabled":
            logging.disable(logging.CRITICAL)
        with pytest.raises(DataError, match="damaged"):
            open_volume(path)
        assert logger.level == logging.CRITICAL
    finally:
        logging.disable(logging.NOTSET)
        logger.setLevel(level)


def test_damage_that_is_only_logged_is_seen_when_tifffile_is_silenced(tmp_path):
    """A tag whose value lies behind the end of the file is left out by tifffile, with a log record."""
    path = tmp_path / "a.tif"
    path.write_bytes(FLAVOURS["pages zlib"])
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["XResolution"]
    with open(path, "r+b") as file:
        file.seek(tag.offset + 8)
        file.write(struct.pack("<I", 2**31))
    logger = logging.getLogger("tifffile")
    level = logger.level
    try:
        for silent in (level, logging.CRITICAL):
            logger.setLevel(silent)
            with pytest.raises(DataError, match=r"damaged: .*tifffile: invalid value offset"):
                open_volume(path)
    finally:
        logger.setLevel(level)


@pytest.mark.parametrize("flavour", ["imagej", "pages"])
def test_pages_that_store_more_than_they_declare(tmp_path, flavour):
    path = tmp_path / "a.tif"
    path.write_bytes(FLAVOURS[flavour])
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for page in tif.pages:
            page.tags["ImageLength"].overwrite(1)
    with pytest.raises(DataError, match="pages of 1 x 24 uint16 have 48 bytes, and 768 are stored"):
        open_volume(path)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits"])
def test_corrupt_strip_names_the_plane(tmp_path, compression):
    path = tmp_path / "a.tif"
    path.write_bytes(written(pages=True, options={"compression": compression}))
    with tifffile.TiffFile(path) as tif:
        start, n = tif.pages[13].dataoffsets[0], tif.pages[13].databytecounts[0]
    with open(path, "r+b") as file:
        file.seek(start)
        # LZW and PackBits have no checksum: an early end-of-data code, or only no-operations.
        file.write({"lzw": b"\x80\x40\x40" * n, "packbits": b"\x80" * n}.get(compression, b"\xa5" * n)[:n])
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.plane(12), VOXELS[12])
        with pytest.raises(DataError, match="plane 13 cannot be decoded"):
            volume.plane(13)
    with open_volume(path, allow_missing_planes=True) as volume:
        assert not volume.plane(13).any()
        np.testing.assert_array_equal(volume.plane(14), VOXELS[14])
        assert volume.missing_planes == {13}
        assert volume.notes[-1] == "1 of 20 planes cannot be read and are filled with zeros: 13"


def test_strip_that_is_not_there_is_no_zeros(tmp_path):
    """tifffile fills strips with position 0 with zeros, as GDAL's sparse files want it."""
    path = tmp_path / "a.tif"
    path.write_bytes(FLAVOURS["pages zlib"])
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[4].tags["StripByteCounts"].overwrite(0)
    with pytest.raises(DataError, match="19 of 20 planes readable"):
        open_volume(path)


def header(*, width: int, length: int, compression: int = 1, n_bytes: int = 100, total: int = 1000) -> bytes:
    """A TIFF of one page with one strip, as declared, and ``total`` bytes in all."""
    entries = [(256, 4, width), (257, 4, length), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
    entries += [(273, 4, 200), (277, 3, 1), (278, 4, length), (279, 4, n_bytes)]
    table = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in entries)
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + b"\0\0\0\0"
    return content.ljust(total, b"\0")


def test_absurd_size_is_refused_before_allocation(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(header(width=2**31, length=2**20))
    with pytest.raises(DataError, match=r"declares 2\.3 PB of voxels, and the file has 1\.0 KB"):
        open_volume(path)


def test_compressed_size_beyond_belief_is_refused_before_allocation(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(header(width=2**31, length=2**20, compression=8))
    with pytest.raises(DataError, match=r"declares a page of 2\.3 PB, stored in 100 bytes: that is not believed"):
        open_volume(path)


OME_TEXT = (
    '<OME><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="24" SizeY="16" '
    'SizeZ="{n}" SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
    '<TiffData IFD="0" PlaneCount="{n}"/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    "text", ["ImageJ=1.54f\nimages={n}\nslices={n}\n", OME_TEXT, '{{"shape": [{n}, 16, 24], "axes": "ZYX"}}']
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_absurd_number_of_planes(tmp_path, text, compression):
    """Lists of as many planes as declared would not fit in memory."""
    path = tmp_path / "a.tif"
    description = text.format(n=2_000_000_000)
    tifffile.imwrite(path, VOXELS[0], description=description, metadata=None, compression=compression)
    for allow in (False, True):
        with pytest.raises(DataError, match="declares 2000000000 planes, and the file has"):
            open_volume(path, allow_missing_planes=allow)


@pytest.mark.parametrize("back_to", [0, 150])
def test_list_of_pages_in_a_circle(tmp_path, back_to):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for _ in range(300):
            tif.write(np.zeros((2, 2), np.uint8), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tif:
        offsets = [page.offset for page in tif.pages]
    with open(path, "r+b") as file:
        file.seek(offsets[-1])
        (n_tags,) = struct.unpack("<H", file.read(2))
        file.seek(offsets[-1] + 2 + 12 * n_tags)
        file.write(struct.pack("<I", offsets[back_to]))
    with pytest.raises(DataError, match=f"after page 299 comes page {back_to} again"):
        open_volume(path)


def test_metadata_that_describe_fewer_pages_than_there_are(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, description=OME_TEXT.format(n=5), metadata=None, photometric="minisblack")
    with pytest.raises(DataError, match="holds 20 pages, and its metadata describe 5"):
        open_volume(path)


def test_metadata_that_describe_more_pages_than_there_are(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, ome=True, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        text = tif.ome_metadata
        tif.pages[0].tags["ImageDescription"].overwrite(
            text.replace('SizeZ="20"', 'SizeZ="22"').replace('"20"', '"22"')
        )
    with pytest.raises(DataError, match="20 of 22 planes readable"):
        open_volume(path)
    with open_volume(path, allow_missing_planes=True) as volume:
        assert volume.missing_planes == {20, 21}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"z,y,x\n1,2,3\n", "is a text file, not TIFF"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(100), "is a JPEG image, not TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image, not TIFF"),
        (bytes(range(128, 256)), "unknown kind of file"),
        (b"II*\0", "ends inside the TIFF header"),
        (b"II*\0\0\0\0\0", "damaged"),
        (b"II*\0\x08\0\0\0\0\0", "damaged"),
        (b"MM\0+\0\x08\0\0" + bytes(8), "damaged"),
    ],
)
def test_other_things_named_tif(tmp_path, content, reason):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        open_volume(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_folder_and_missing_file_named_tif(tmp_path):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(DataError, match="folder without TIFF planes"):
        open_volume(tmp_path / "a.tif")
    with pytest.raises(UsageError, match="there is no such file"):
        open_volume(tmp_path / "b.tif")


def test_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_bytes(FLAVOURS["imagej"])
    real = open

    def refuse(name, *args, **kwargs):
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(name, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)  # the tests may run as root, for whom every file is readable
    with pytest.raises(DataError, match=r"a\.tif: cannot be read: permission denied"):
        open_volume(path)


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flavour=st.sampled_from(sorted(FLAVOURS)),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4),
    from_end=st.booleans(),
)
def test_changed_bytes_never_crash(tmp_path, flavour, changes, from_end):
    """Whatever bytes are wrong, the outcome is a volume or one of our errors."""
    content = bytearray(FLAVOURS[flavour])
    for position, value in changes:
        place = position % len(content)
        content[-1 - place if from_end else place % 400] = value
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    voxels, error = outcome(path)
    assert (voxels is None) == (str(path) in error)
    assert path.read_bytes() == content
