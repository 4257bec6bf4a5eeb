"""Origin, start and old or odd MRC headers, against mrcfile."""

import mrcfile
import numpy as np
import pytest

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes import convert, open_volume, reslice, substack
from gpu_tomoclass.volumes.mrc.mrc import open_mrc
from gpu_tomoclass.volumes.opening import create_volume

SHAPE = (6, 4, 5)
DATA = np.random.default_rng(0).integers(0, 3000, SHAPE).astype(np.int16)


@pytest.fixture
def path(tmp_path):
    """Voxels of 2 x 1 x 0.5 nm (z, y, x) at (30, 20, 10) nm; the first has the number (7, 8, 9) in a larger map."""
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(DATA)
        mrc.voxel_size = (5, 10, 20)
        mrc.header.origin.x, mrc.header.origin.y, mrc.header.origin.z = 100, 200, 300
        mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = 9, 8, 7
    return tmp_path / "a.mrc"


def place(path):
    """(origin, start), each z, y, x, as mrcfile reads them."""
    with mrcfile.open(path) as mrc:
        origin, start = mrc.header.origin, mrc.nstart
        return tuple(float(origin[c]) for c in "zyx"), (int(start.z), int(start.y), int(start.x))


def test_convert_keeps_it(path, tmp_path):
    with open_volume(path) as volume:
        convert(volume, tmp_path / "b.mrc")
        convert(volume, tmp_path / "b.tif")
    assert place(tmp_path / "b.mrc") == ((300, 200, 100), (7, 8, 9))
    with open_volume(tmp_path / "b.tif") as volume:
        convert(volume, tmp_path / "c.mrc")
    assert place(tmp_path / "c.mrc") == ((300, 200, 100), (7, 8, 9))


def test_turning_exchanges_it(path, tmp_path):
    with open_volume(path) as volume:
        reslice(volume, tmp_path / "b.mrc", tilt_axis="y")
    assert place(tmp_path / "b.mrc") == ((200, 300, 100), (8, 7, 9))


def test_substack_moves_it(path, tmp_path):
    with open_volume(path) as volume:
        substack(volume, tmp_path / "b.mrc", every=2, start=1)
        substack(volume, tmp_path / "c.mrc", every=2, start=0)
    assert place(tmp_path / "b.mrc") == ((320, 200, 100), (4, 8, 9))  # plane 8 of the map is plane 4 of every second
    assert place(tmp_path / "c.mrc") == ((300, 200, 100), (0, 0, 0))  # plane 7 is none: the origin says it alone


def test_imod_counts_the_origin_the_other_way_round(path, tmp_path):
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    path.write_bytes(raw)
    with open_volume(path) as volume:
        convert(volume, tmp_path / "b.mrc")
    assert place(tmp_path / "b.mrc")[0] == (-300, -200, -100)


@pytest.mark.parametrize("stamp", [b"\0\0\0\0", b"\x44\x20\0\0", b"\x41\x44\0\0", b"\x17\x17\0\0"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_stamps_that_say_nothing(path, stamp, order):
    if order == ">":
        with mrcfile.open(path) as mrc:
            header, data = mrc.header.copy(), mrc.data.copy()
        raw = bytearray(header.byteswap().tobytes() + data.byteswap().tobytes())
    else:
        raw = bytearray(path.read_bytes())
    raw[208:216] = b"\0\0\0\0" + stamp  # as old FEI files: no "MAP " either
    path.write_bytes(raw)
    with open_mrc(path) as volume:
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), DATA)
        assert any("endian, which makes sense" in note for note in volume.notes)
    path.write_bytes(raw[:-10])
    with pytest.raises(DataError, match="machine stamp is"):
        open_mrc(path)


@pytest.mark.parametrize("kind", [b"FEI1", b"\0\0\0\0"])
def test_pixel_size_of_fei(path, kind):
    extended = bytearray(128 * 1024)
    if kind == b"FEI1":
        extended[156:164] = np.array([4.7e-10], "<f8").tobytes()
    else:
        extended[44:48] = np.array([4.7e-10], "<f4").tobytes()
    raw = bytearray(path.read_bytes())
    raw[40:52] = bytes(12)  # cell length 0: unknown
    raw[92:96] = np.array([len(extended)], "<i4").tobytes()
    raw[104:108] = kind
    path.write_bytes(raw[:1024] + extended + raw[1024:])
    with open_mrc(path) as volume:
        assert volume.voxel_size == pytest.approx((0.47, 0.47, 0.47))
        np.testing.assert_array_equal(volume.plane(5), DATA[5])


def test_extended_header_that_was_cut_off(path):
    raw = bytearray(path.read_bytes())
    raw[92:96] = np.array([100], "<i4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"exactly these are missing.*set nsymbt"):
        open_mrc(path)


def test_number_11_of_our_extended_header_is_0(tmp_path):
    """ncempy takes it for a pixel size."""
    with create_volume(tmp_path / "a.mrc", shape=(1, 2, 2), dtype="f4", metadata={"a": "b" * 50}) as writer:
        writer.write_plane(0, np.zeros((2, 2), np.float32))
    assert np.frombuffer((tmp_path / "a.mrc").read_bytes(), "<f4", 16, 1024).tolist() == [0] * 16
    with open_mrc(tmp_path / "a.mrc") as volume:
        assert volume.metadata == {"a": "b" * 50}
