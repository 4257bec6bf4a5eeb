"""Missing, damaged, oversized and straying chunks of Zarr arrays (faults 4, 12 to 16, 18)."""

import os
import shutil
import subprocess
import sys
import threading
import zlib

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr_files import CHUNKS, SHAPE, edit_json, write_array

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.ome_zarr.reader import open_zarr
from gpu_tomoclass.volumes.opening import open_volume

# Missing chunks


@pytest.mark.parametrize(("zarr_format", "name"), [(3, "c/1/0/0"), (2, "1.0.0")])
def test_missing_chunks_are_counted_and_named(tmp_path, zarr_format, name):
    data = write_array(tmp_path / "a.zarr", zarr_format=zarr_format)
    for chunk in (name, name.replace("1", "3"), name[:-3] + "1" + name[-2:]):
        (tmp_path / "a.zarr" / chunk).unlink()
    with pytest.raises(DataError, match=rf"chunk {name} missing \(3 of 8\); .*--allow-missing-planes"):
        open_volume(tmp_path / "a.zarr")
    vol = open_volume(tmp_path / "a.zarr", allow_missing_planes=True)
    assert vol.missing_planes == {2, 3, 6, 7}
    assert any("3 of 8 chunks are missing" in note and "planes 2 and 3, 6 and 7" in note for note in vol.notes)
    np.testing.assert_array_equal(vol.plane(1), data[1])
    assert (vol.plane(2) == 7).all()
    np.testing.assert_array_equal(vol.plane(6)[8:], data[6, 8:])
    assert (vol.plane(6)[:8] == 7).all()


def test_chunks_that_zarr_did_not_write_because_they_are_empty(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="u1", chunks=(1, 16, 16))
    array[3] = 5
    with pytest.raises(DataError, match=r"chunk c/0/0/0 missing \(7 of 8\)"):
        open_zarr(tmp_path / "a.zarr")
    vol = open_zarr(tmp_path / "a.zarr", allow_missing_planes=True)
    assert [int(plane.max()) for _, plane in vol.planes()] == [0, 0, 0, 5, 0, 0, 0, 0]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_store_without_a_single_chunk(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="u1", chunks=CHUNKS, zarr_format=zarr_format)
    for allow in (False, True):
        with pytest.raises(DataError, match=r"missing \(8 of 8\)"):
            open_zarr(tmp_path / "a.zarr", allow_missing_planes=allow)


def test_only_chunks_of_the_chosen_channel_count(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, *SHAPE), dtype="u1", chunks=(1, *CHUNKS))
    array[1] = 5
    assert open_zarr(tmp_path / "a.zarr", channel=1).plane(0).min() == 5
    with pytest.raises(DataError, match=r"chunk c/0/0/0/0 missing \(8 of 8\)"):
        open_zarr(tmp_path / "a.zarr", channel=0)


def test_missing_shard_and_missing_chunk_in_a_shard(tmp_path):
    data = write_array(tmp_path / "a.zarr", shards=(4, 16, 16))
    array = zarr.open_array(tmp_path / "a.zarr", config={"write_empty_chunks": False})
    array[4:6, :8] = 7  # the fill value: the chunk vanishes from its shard
    with pytest.raises(DataError, match=r"chunk \(2, 0, 0\) in shard c/1/0/0 missing \(1 of 8\)"):
        open_zarr(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(DataError, match=r"chunk \(0, 0, 0\) in shard c/0/0/0 missing \(5 of 8\)"):
        open_zarr(tmp_path / "a.zarr")
    vol = open_zarr(tmp_path / "a.zarr", allow_missing_planes=True)
    assert vol.missing_planes == {0, 1, 2, 3, 4, 5}
    np.testing.assert_array_equal(vol.plane(5)[8:], data[5, 8:])
    assert (vol.plane(5)[:8] == 7).all()


def test_chunk_that_disappears_after_opening(tmp_path):
    data = write_array(tmp_path / "a.zarr")
    vol = open_zarr(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "c/3/1/0").unlink()
    np.testing.assert_array_equal(vol.plane(5), data[5])
    with pytest.raises(DataError, match="plane 6: chunk c/3/1/0 missing"):
        vol.plane(6)
    with pytest.raises(DataError, match="changed during the run"):
        vol.check_unchanged()


# Damaged chunks

CODECS = {
    "none": None,
    "zstd": [ZstdCodec()],
    "gzip": [GzipCodec()],
    "blosc": [BloscCodec(typesize=2)],
    "crc": [BloscCodec(typesize=2), Crc32cCodec()],
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("cut", [0, 1, 10, 100, -1])
def test_truncated_chunk_is_named(tmp_path, name, cut):
    data = write_array(tmp_path / "a.zarr", compressors=CODECS[name])
    chunk = tmp_path / "a.zarr" / "c/2/1/0"
    raw = chunk.read_bytes()
    chunk.write_bytes(raw[:cut])
    vol = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(vol.plane(3), data[3])
    with pytest.raises(DataError, match="plane 5: chunk c/2/1/0 is damaged: "):
        vol.plane(5)
    vol = open_volume(tmp_path / "a.zarr", allow_missing_planes=True)
    planes = np.stack([plane for _, plane in vol.planes()])
    assert vol.missing_planes == {4, 5}
    assert not planes[4:6].any()
    np.testing.assert_array_equal(planes[6:], data[6:])


@pytest.mark.parametrize("name", ["crc", "zstd checksum", "gzip"])
def test_a_flipped_bit_never_gives_wrong_values_where_there_is_a_checksum(tmp_path, name):
    if name == "zstd checksum":
        data = write_array(tmp_path / "a.zarr", zarr_format=2, compressors=numcodecs.Zstd(checksum=True))
        chunk = tmp_path / "a.zarr" / "2.1.0"
    else:
        data = write_array(tmp_path / "a.zarr", compressors=CODECS[name])
        chunk = tmp_path / "a.zarr" / "c/2/1/0"
    raw = bytearray(chunk.read_bytes())
    found = 0
    positions = np.linspace(0, len(raw) - 1, 60).astype(int)
    for position in positions:
        damaged = raw.copy()
        damaged[position] ^= 1 << int(position) % 8
        chunk.write_bytes(damaged)
        vol = open_zarr(tmp_path / "a.zarr")
        np.testing.assert_array_equal(vol.plane(0), data[0])
        try:
            np.testing.assert_array_equal(vol.plane(4), data[4])
        except DataError as error:
            found += error.what.startswith(f"plane 4: chunk {chunk.relative_to(tmp_path / 'a.zarr')} is damaged")
    # Only the CRC covers every bit; gzip and zstd have header bits that change nothing.
    assert found == 60 if name == "crc" else found > 50


def test_random_bytes_never_crash_the_decoders(tmp_path):
    rng = np.random.default_rng(6)
    for compressor in (numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.LZ4(), numcodecs.Zlib(), numcodecs.BZ2()):
        write_array(tmp_path / "a.zarr", zarr_format=2, compressors=compressor)
        chunk = tmp_path / "a.zarr" / "2.1.0"
        raw = np.frombuffer(chunk.read_bytes(), np.uint8)
        refused = 0
        for _ in range(40):
            damaged = raw.copy()
            where = rng.integers(0, raw.size, rng.integers(1, 20))
            damaged[where] = rng.integers(0, 256, where.size)
            chunk.write_bytes(damaged.tobytes())
            try:
                assert open_zarr(tmp_path / "a.zarr").plane(4).shape == SHAPE[1:]
            except DataError as error:
                refused += error.what.startswith("plane 4: chunk 2.1.0 is damaged")
        assert refused > 0
        shutil.rmtree(tmp_path / "a.zarr")


@pytest.mark.parametrize("damage", ["table", "truncated", "offset"])
def test_damaged_shard(tmp_path, damage):
    write_array(tmp_path / "a.zarr", shards=(4, 16, 16))
    shard = tmp_path / "a.zarr" / "c/1/0/0"
    raw = bytearray(shard.read_bytes())
    if damage == "table":
        raw[-20] ^= 1
    elif damage == "truncated":
        raw = raw[:-1]
    else:  # a valid table that points beyond the file
        table = np.frombuffer(raw[-68:-4], "<u8").copy()
        table[0] = 10**6
        raw[-68:-4] = table.tobytes()
        raw[-4:] = google_crc32c.value(bytes(raw[-68:-4])).to_bytes(4, "little")
    shard.write_bytes(raw)
    with pytest.raises(DataError, match="shard c/1/0/0 is damaged"):
        open_zarr(tmp_path / "a.zarr")


def test_pipe_in_place_of_a_chunk_does_not_hang(tmp_path):
    write_array(tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr" / "c/0/0/0"
    chunk.unlink()
    os.mkfifo(chunk)
    found = []

    def read():
        with pytest.raises(DataError) as caught:
            open_zarr(tmp_path / "a.zarr").plane(0)
        found.append(str(caught.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout=1200)
    assert found, "reading hangs"
    assert "no regular file" in found[0]


# Bombs


def zstd_without_size(n_bytes):
    """A zstd frame that does not declare its size: run-length blocks of 128 KB, 4 bytes each."""
    n = n_bytes // 131072
    blocks = [((131072 << 3) | (1 << 1) | (i == n - 1)).to_bytes(3, "little") + b"\0" for i in range(n)]
    return bytes.fromhex("28b52ffd 00 50") + b"".join(blocks)


BOMB_BYTES = 200_000_000
CHUNK_BYTES = 2**20


def bombs():
    zeros = bytes(BOMB_BYTES)
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    lz4 = numcodecs.LZ4().encode(zeros)
    yield "zstd", imagecodecs.zstd_encode(zeros)
    yield "zstd", zstd_without_size(BOMB_BYTES)
    yield "gzip", deflate.compress(zeros) + deflate.flush()
    yield "blosc", imagecodecs.blosc_encode(zeros, level=1, compressor="zstd", typesize=1)
    yield "lz4", lz4
    yield "lz4", CHUNK_BYTES.to_bytes(4, "little") + lz4[4:]  # lies about its size


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits memory on Linux")
def test_bombs_are_refused_with_flat_memory(tmp_path):
    names = []
    for i, (codec, content) in enumerate(bombs()):
        path = tmp_path / f"{i}_{codec}.zarr"
        shape = (1, 1024, 1024)
        zarr.create_array(path, shape=shape, dtype="u1", chunks=shape, zarr_format=2, compressors=None)
        edit_json(path / ".zarray", lambda meta, codec=codec: meta.update(compressor={"id": codec}))
        assert len(content) < CHUNK_BYTES, "a larger file is refused by its size, without decoding"
        (path / "0.0.0").write_bytes(content)
        names.append(str(path))
    code = """
import resource, sys
from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.ome_zarr.reader import open_zarr
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, used + 50_000_000))
for path in sys.argv[1:]:
    volume = open_zarr(path)
    try:
        volume.plane(0)
    except DataError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=1200)
    lines = result.stdout.splitlines()
    assert len(lines) == len(names), result.stderr
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"{name}: plane 0: chunk 0.0.0 is damaged: ")


def test_gzip_bomb_that_is_small_enough_to_be_read(tmp_path):
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = deflate.compress(bytes(50_000_000)) + deflate.flush()
    write_array(tmp_path / "a.zarr", compressors=[GzipCodec()])
    assert len(content) < 60_000
    (tmp_path / "a.zarr" / "c/0/0/0").write_bytes(content)
    with pytest.raises(
        DataError, match="chunk c/0/0/0 is damaged: gzip: it decodes to more than the expected 512 bytes"
    ):
        open_zarr(tmp_path / "a.zarr").plane(0)
