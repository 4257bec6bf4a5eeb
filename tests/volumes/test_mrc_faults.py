"""Damaged, foreign and unfinished MRC files (faults 3, 4, 5, 9, 24, 51, 53)."""

import gzip
import hashlib
import subprocess
import sys

import mrcfile
import numpy as np
import pytest

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.outputs import publishing
from gpu_tomoclass.volumes.mrc.mrc import MrcWriter, open_mrc
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (20, 8, 9)


@pytest.fixture
def path(tmp_path):
    with mrcfile.new(tmp_path / "vol.mrc") as mrc:
        mrc.set_data(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    return tmp_path / "vol.mrc"


def set_int(path, offset, value):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(np.int32(value).tobytes())


@pytest.mark.parametrize("cut", [1, 143, 144, 145, 8 * 144, 20 * 144 - 1, 20 * 144, 20 * 144 + 500, 3903])
def test_truncated_file_is_an_error_with_byte_counts(path, cut):
    raw = path.read_bytes()
    path.write_bytes(raw[:-cut])
    digest = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(DataError) as caught:
        open_volume(path)
    assert str(len(raw) - cut) in str(caught.value)
    assert hashlib.sha256(path.read_bytes()).digest() == digest


def test_truncated_file_with_missing_planes_allowed(path):
    data = mrcfile.read(path)
    path.write_bytes(path.read_bytes()[: -8 * 144 + 10])  # 12 whole planes and a piece
    with pytest.raises(DataError, match=r"expected 3904 bytes, found 2762 \(12 of 20 planes are complete\)"):
        open_mrc(path)
    vol = open_mrc(path, allow_missing_planes=True)
    assert vol.missing_planes == set(range(12, 20))
    assert any("12 to 19" in note for note in vol.notes)
    np.testing.assert_array_equal(vol.plane(11), data[11])
    assert not vol.plane(12).any()
    assert not vol.rows(12, 0, 1).any()
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(DataError, match="0 of 20"):
        open_mrc(path, allow_missing_planes=True)


def test_absurd_depth_is_not_taken_for_missing_planes(path):
    set_int(path, 8, 2**31 - 1)
    with pytest.raises(DataError, match="20 of 2147483647 planes"):
        open_mrc(path, allow_missing_planes=True)


def test_file_that_shrinks_after_opening(path):
    vol = open_mrc(path)
    path.write_bytes(path.read_bytes()[:-10])
    vol.plane(18)
    with pytest.raises(DataError, match="plane 19 ends after 134 of 144 bytes"):
        vol.plane(19)
    with pytest.raises(DataError, match="changed during the run"):
        vol.check_unchanged()


def test_bytes_behind_the_image_are_noted(path):
    data = mrcfile.read(path)
    with open(path, "ab") as file:
        file.write(b"x" * 77)
    vol = open_mrc(path)
    assert any("77 bytes behind the image (3981 instead of 3904)" in note for note in vol.notes)
    np.testing.assert_array_equal(vol.plane(19), data[19])


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (12, 99, "mode 99"),
        (12, 4, "mode 4, complex numbers"),
        (12, 16, "RGB"),
        (0, 0, "nx is 0"),
        (4, -5, "ny is -5"),
        (8, 2**31 - 1, "truncated: expected 309237646192"),
        (92, -1, "nsymbt"),
        (92, 2**30, "nsymbt"),
        (64, 7, "maps, mapr, mapc"),
    ],
)
def test_broken_header_fields(path, offset, value, words):
    set_int(path, offset, value)
    with pytest.raises(DataError, match=words):
        open_volume(path)


def test_absurd_size_is_refused_before_anything_is_allocated(path):
    for offset in (0, 4, 8):
        set_int(path, offset, 2**31 - 1)
    with pytest.raises(DataError, match="truncated: expected 198070406008959683007"):
        open_volume(path)


def test_stack_of_volumes(path):
    set_int(path, 88, 401)
    set_int(path, 36, 5)
    with pytest.raises(DataError, match="stack of volumes"):
        open_mrc(path)


def test_compressed_file_says_how_to_unpack(path, tmp_path):
    packed = tmp_path / "packed.mrc"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"compressed with gzip.*gunzip"):
        open_volume(packed)


@pytest.mark.parametrize("content", [b"hello\n", b"text " * 500, bytes(2000)])
def test_other_files_named_mrc(tmp_path, content):
    (tmp_path / "a.mrc").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mrc: is (too short for|not) an MRC"):
        open_volume(tmp_path / "a.mrc")


def test_foreign_json_in_the_extended_header(path):
    for content in (b'{"a": 1}', b"[1, 2]", b'{"gpu_tomoclass": [1]}', b'{"gpu_tomoclass": {"classes": 3}}', b"{"):
        with mrcfile.new(path, overwrite=True) as mrc:
            mrc.set_data(np.ones(SHAPE, np.int16))
            mrc.set_extended_header(np.frombuffer(content, "V1"))
            mrc.header.exttyp = b"JSON"
        vol = open_mrc(path)
        assert (vol.classes, vol.metadata) == ((), {})
        assert vol.plane(0).all()


def test_existing_file_stays_until_the_new_one_is_complete(path):
    old = path.read_bytes()
    plane = np.zeros(SHAPE[1:], np.int16)
    with pytest.raises(DataError, match="exists already"):
        MrcWriter(path, shape=SHAPE, dtype="int16")

    def write_two_planes(*, fail):
        with MrcWriter(path, shape=SHAPE, dtype="int16", overwrite=True) as writer:
            writer.write_plane(0, plane)
            writer.write_plane(2, plane)
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_two_planes(fail=True)
    with pytest.raises(UsageError, match="18 of 20 planes were not written, the first is 1"):
        write_two_planes(fail=False)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["vol.mrc"]
    with MrcWriter(path, shape=SHAPE, dtype="int16", overwrite=True) as writer:
        for z in range(SHAPE[0]):
            writer.write_plane(z, plane)
    assert not mrcfile.read(path).any()


def test_channels_appear_together_or_not_at_all(tmp_path, monkeypatch):
    def write():
        with MrcWriter(tmp_path / "p.mrc", shape=(2, 3, 4), dtype="float32", channels=["a", "b"]) as writer:
            for z in range(2):
                writer.write_plane(z, np.zeros((2, 3, 4), np.float32))

    (tmp_path / "p_b.mrc").write_bytes(b"old")
    with pytest.raises(DataError, match=r"p_b\.mrc: exists already"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["p_b.mrc"]
    (tmp_path / "p_b.mrc").unlink()

    real = publishing.publish

    def fails_on_b(temporary, target):
        if target.name == "p_b.mrc":
            raise ResourceError("the disk is full", where=target)
        real(temporary, target)

    monkeypatch.setattr(publishing, "publish", fails_on_b)
    with pytest.raises(ResourceError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_too_large_for_the_disk_is_refused_before_writing(tmp_path):
    with pytest.raises(ResourceError, match="free"):
        MrcWriter(tmp_path / "m.mrc", shape=(10**6, 10**5, 10**4), dtype="float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file size limit that raises instead of killing")
def test_write_error_is_a_sentence_and_leaves_nothing(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.volumes.mrc.mrc import MrcWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    with MrcWriter(sys.argv[1], shape=(20, 8, 9), dtype="int16") as writer:
        for z in range(20):
            writer.write_plane(z, np.ones((8, 9), np.int16))
except ResourceError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.mrc"], capture_output=True, text=True, timeout=1200
    )
    assert "m.mrc: the file grew beyond" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_class_names_of_any_length_and_alphabet(tmp_path):
    classes = default_classes(["粒子", "x" * 300, "a\nb"])
    with MrcWriter(tmp_path / "m.mrc", shape=(1, 2, 3), dtype="uint8", classes=classes) as writer:
        writer.write_plane(0, np.zeros((2, 3), np.uint8))
    assert open_mrc(tmp_path / "m.mrc").classes == classes
