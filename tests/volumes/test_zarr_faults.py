"""Missing, damaged, oversized and straying Zarr chunks and metadata (faults 4, 12 to 16, 18, 24, 51, 53)."""

import json
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

from gpu_tomoclass.annotations import load_annotation
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.volumes.ome_zarr.reader import open_zarr
from gpu_tomoclass.volumes.ome_zarr.writer import ZarrWriter
from gpu_tomoclass.volumes.opening import open_volume

SHAPE, CHUNKS = (8, 16, 16), (2, 8, 16)  # 4 * 2 * 1 chunks


def write_array(path, *, zarr_format=3, chunks=CHUNKS, **options):
    data = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.uint16)
    array = zarr.create_array(
        path, shape=SHAPE, dtype=data.dtype, chunks=chunks, zarr_format=zarr_format, fill_value=7, **options
    )
    array[...] = data
    return data


def write_image(path):
    """OME-Zarr 0.4 image with its level in ``s0``."""
    group = zarr.create_group(
        path,
        zarr_format=2,
        attributes={"multiscales": [{"axes": [{"name": a} for a in "zyx"], "datasets": [{"path": "s0"}]}]},
    )
    group.create_array("s0", shape=SHAPE, dtype="u1", chunks=SHAPE, config={"write_empty_chunks": True})[...] = 1
    return path


def edit_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


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


# Metadata


@pytest.mark.parametrize("cut", [0, 1, 20, 200, -1])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_truncated_metadata(tmp_path, zarr_format, cut):
    write_array(tmp_path / "a.zarr", zarr_format=zarr_format)
    file = tmp_path / "a.zarr" / ("zarr.json" if zarr_format == 3 else ".zarray")
    file.write_text(file.read_text().rstrip()[:cut])
    with pytest.raises(DataError, match=rf"{file.name}: is damaged: "):
        open_volume(tmp_path / "a.zarr")


def first_codec(**change):
    return lambda meta: meta["codecs"][0].update(change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(zarr_format=4), "'zarr_format' is 4"),
        (lambda m: m.update(node_type="table"), "'node_type' is 'table'"),
        (lambda m: m.update(data_type="complex64"), "'data_type' is 'complex64'"),
        (lambda m: m.update(data_type={"name": "numpy.datetime64"}), "'data_type' is {"),
        (lambda m: m.pop("shape"), "'shape' is None"),
        (lambda m: m.update(shape=[8, -1, 16]), r"'shape' is \[8, -1, 16\]"),
        (lambda m: m.update(shape=[8, 16.0, 16]), r"'shape' is \[8, 16.0, 16\]"),
        (lambda m: m.update(shape=[8, 16]), "'chunk_shape' is"),
        (lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[2, 0, 16]), "'chunk_shape' is"),
        (lambda m: m["chunk_grid"].update(name="rectangular"), "'chunk_grid' is 'rectangular'"),
        (lambda m: m["chunk_grid"].update(configuration=[]), "'chunk_grid' has no configuration"),
        (lambda m: m["chunk_key_encoding"].update(name="suffix"), "'chunk_key_encoding' is 'suffix'"),
        (lambda m: m["chunk_key_encoding"]["configuration"].update(separator="../"), r"'separator' is '../'"),
        (lambda m: m.update(codecs=[]), r"'codecs' is \[\]"),
        (lambda m: m.update(codecs=[{"name": "zstd"}]), "'codecs' holds 'zstd'"),
        (lambda m: m["codecs"].append({"name": "pcodec"}), "'codecs' holds 'pcodec', which cannot be read here"),
        (first_codec(configuration={"endian": "middle"}), "'endian' is 'middle'"),
        (first_codec(name="vlen-bytes"), "'codecs' holds 'vlen-bytes'"),
        (first_codec(name="transpose", configuration={"order": [0, 0, 1]}), "'order' of the codec transpose"),
        (lambda m: m.update(fill_value="seven"), "'fill_value' is 'seven'"),
        (lambda m: m.update(fill_value=70000), "'fill_value' is 70000"),
        (lambda m: m.update(storage_transformers=[{"name": "x"}]), "'storage_transformers' is not empty"),
        (lambda m: m.update(attributes=3), "'attributes' is no JSON object"),
        (lambda m: m.update(shape=[2**31, 2**20, 1]), "makes .* chunks: absurd"),
        (
            lambda m: m.update(
                shape=[2**31, 2**20, 1],
                chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2**31, 2**20, 1]}},
            ),
            "4503599627370496 bytes, more than",
        ),
    ],
)
def test_broken_metadata_of_version_3(tmp_path, change, words):
    write_array(tmp_path / "a.zarr")
    edit_json(tmp_path / "a.zarr" / "zarr.json", change)
    with pytest.raises(DataError, match=rf"zarr\.json: field {words}|zarr\.json: .*{words}"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(zarr_format=3), "'zarr_format' is 3"),
        (lambda m: m.update(dtype="<c8"), "'dtype' is '<c8'"),
        (lambda m: m.update(dtype="<U8"), "'dtype' is '<U8'"),
        (lambda m: m.update(dtype="nonsense"), "'dtype' is 'nonsense'"),
        (lambda m: m.update(dtype=[["a", "<u2"]]), "'dtype' is"),
        (lambda m: m.update(order="K"), "'order' is 'K'"),
        (lambda m: m.update(chunks=[2, 8]), "'chunks' is"),
        (lambda m: m.update(compressor={"id": "snappy"}), "'compressor' is 'snappy'"),
        (lambda m: m.update(compressor="zstd!"), "'compressor' is 'zstd!'"),
        (lambda m: m.update(filters=[{"id": "delta", "dtype": "<u2"}]), r"'filters' holds \['delta'\]"),
        (lambda m: m.update(dimension_separator="-"), "'dimension_separator' is '-'"),
    ],
)
def test_broken_metadata_of_version_2(tmp_path, change, words):
    write_array(tmp_path / "a.zarr", zarr_format=2)
    edit_json(tmp_path / "a.zarr" / ".zarray", change)
    with pytest.raises(DataError, match=rf"\.zarray: field {words}"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ms: ms.clear(), "'multiscales' is damaged"),
        (lambda ms: ms[0].pop("datasets"), "'multiscales' is damaged: KeyError"),
        (lambda ms: ms[0].update(datasets=[]), "'multiscales' is damaged"),
        (lambda ms: ms[0].update(axes=[{"type": "space"}] * 3), "'multiscales' is damaged"),
        (lambda ms: ms[0].update(axes=3), "'multiscales' is damaged"),
        (lambda ms: ms[0].update(axes=["y", "x"]), r"'axes' names \['y', 'x'\] for an array of shape \(8, 16, 16\)"),
        (lambda ms: ms[0].update(axes=["z", "y", "y"]), "'axes' names"),
        (lambda ms: ms[0]["datasets"][0].update(path="s1"), "'datasets': there is no array at 's1'"),
        (lambda ms: ms[0]["datasets"][0].update(path=""), "'datasets': there is no array at ''"),
    ],
)
def test_broken_multiscales(tmp_path, change, words):
    write_image(tmp_path / "i.zarr")
    edit_json(tmp_path / "i.zarr" / ".zattrs", lambda attributes: change(attributes["multiscales"]))
    with pytest.raises(DataError, match=rf"\.zattrs: field {words}"):
        open_volume(tmp_path / "i.zarr")


def test_broken_scale_costs_only_the_voxel_size(tmp_path):
    for transforms in (3, [3], [{"type": "scale", "scale": [1]}], [{"type": "scale", "scale": ["a", 1, 1]}], [{}]):
        path = write_image(tmp_path / "i.zarr")
        edit_json(
            path / ".zattrs",
            lambda a, t=transforms: a["multiscales"][0]["datasets"][0].update(coordinateTransformations=t),
        )
        vol = open_zarr(path)
        assert vol.voxel_size is None
        assert any("'coordinateTransformations' is damaged" in note for note in vol.notes)
        shutil.rmtree(path)


@pytest.mark.parametrize(
    "path", ["../other.zarr", "{tmp}/other.zarr", "s0/../../other.zarr", "link", "link/x", 5, "s0\0"]
)
def test_paths_must_not_leave_the_store(tmp_path, path):
    write_array(tmp_path / "other.zarr", zarr_format=2)
    shutil.copytree(tmp_path / "other.zarr", tmp_path / "other.zarr" / "x")
    image = write_image(tmp_path / "i.zarr")
    (image / "link").symlink_to(tmp_path / "other.zarr")
    target = path.format(tmp=tmp_path) if isinstance(path, str) else path
    edit_json(image / ".zattrs", lambda a: a["multiscales"][0]["datasets"][0].update(path=target))
    with pytest.raises(DataError, match="leaves the store"):
        open_volume(image)


def test_link_to_the_store_itself_is_followed(tmp_path):
    image = write_image(tmp_path / "i.zarr")
    (image / "s1").symlink_to(image / "s0")
    edit_json(image / ".zattrs", lambda a: a["multiscales"][0]["datasets"][0].update(path="s1"))
    (tmp_path / "link.zarr").symlink_to(image)
    assert open_volume(tmp_path / "link.zarr").plane(0).all()


def test_things_that_are_no_store(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        open_zarr(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").write_text("x")
    with pytest.raises(DataError, match=r"is a text file, not|but a file"):
        open_volume(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(DataError, match="no Zarr store"):
        open_zarr(tmp_path / "b.zarr")


# Writing


def write_planes(path, *, planes, error=None, **options):
    with ZarrWriter(path, shape=(3, 4, 5), dtype="uint8", **options) as writer:
        for z in planes:
            writer.write_plane(z, np.full((4, 5), z + 1, np.uint8))
        if error is not None:
            raise error


def test_existing_store_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.zarr"
    data = write_array(path)
    with pytest.raises(DataError, match="exists already"):
        write_planes(path, planes=range(3))
    with pytest.raises(KeyboardInterrupt):
        write_planes(path, planes=[0], error=KeyboardInterrupt(), overwrite=True)
    with pytest.raises(UsageError, match="2 of 3 planes were not written, the first is 0"):
        write_planes(path, planes=[1], overwrite=True)
    np.testing.assert_array_equal(open_volume(path).plane(3), data[3])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    write_planes(path, planes=[2, 0, 1], overwrite=True)
    assert [int(plane.max()) for _, plane in open_volume(path).planes()] == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_folder_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.doc").write_text("x")
    with pytest.raises(DataError, match="folder of other files"):
        write_planes(tmp_path / "a.zarr", planes=range(3), overwrite=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file size limit that raises instead of killing")
def test_write_error_is_a_sentence_and_leaves_nothing(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.volumes.ome_zarr.writer import ZarrWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with ZarrWriter(sys.argv[1], shape=(3, 100, 100), dtype="uint8") as writer:
        writer.write_plane(0, np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8))
except ResourceError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, tmp_path / "m.zarr"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert "m.zarr: the file grew beyond" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_planes(tmp_path / "file" / "a.zarr", planes=range(3))


# Structures that JSON and file systems allow


def test_odd_values_in_metadata_are_named_or_cost_only_the_voxel_size(tmp_path):
    path = write_image(tmp_path / "a.zarr")

    def odd_unit(content):
        content["multiscales"][0]["axes"][0]["unit"] = {"a": 1}
        content["multiscales"][0]["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2, 1, 1]}]

    edit_json(path / ".zattrs", odd_unit)
    with open_zarr(path) as volume:
        assert volume.voxel_size is None
        assert any("the voxel size is ignored" in note for note in volume.notes)
    edit_json(path / ".zattrs", lambda c: c["multiscales"][0]["datasets"][0].update(path="\ud800"))
    with pytest.raises(DataError, match="leaves the store"):
        open_zarr(path)
    edit_json(path / ".zattrs", lambda c: c.update(multiscales=[]))
    with pytest.raises(DataError, match="field 'multiscales' is damaged: an empty list"):
        open_zarr(path)


def test_shard_that_is_a_folder(tmp_path):
    write_array(tmp_path / "a.zarr", chunks=(1, 16, 16), shards=(4, 16, 16))
    (tmp_path / "a.zarr/c/1/0/0").unlink()
    (tmp_path / "a.zarr/c/1/0/0").mkdir()
    with pytest.raises(DataError, match="shard c/1/0/0 is a folder"):
        open_zarr(tmp_path / "a.zarr")


def test_version_0_6_is_named(tmp_path):
    path = write_image(tmp_path / "a.zarr")

    def newer(content):
        image = content["multiscales"][0]
        image.update(version="0.6.dev2", coordinateSystems=[{"name": "physical", "axes": image.pop("axes")}])

    edit_json(path / ".zattrs", newer)
    with pytest.raises(DataError, match=r"is OME-Zarr 0\.6\.dev2, whose axes stand in 'coordinateSystems'.*open the"):
        open_zarr(path)


def test_large_chunks_are_not_believed_to_come_from_a_few_bytes(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(1, 40000, 40000), dtype="u1", chunks=(1, 40000, 40000), fill_value=1)
    (tmp_path / "a.zarr/c/0/0").mkdir(parents=True)
    (tmp_path / "a.zarr/c/0/0/0").write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"declares planes of 1\.6 GB, stored in"):
        open_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_sparse_label_images(tmp_path, zarr_format):
    """Zarr's writers leave out chunks of nothing but the fill value; zarr-python reads such a store as written."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 4:6], labels[6, 2:9] = 1, 2
    path = tmp_path / "l.zarr"
    zarr.create_array(path, data=labels, chunks=(1, 16, 16), zarr_format=zarr_format)
    with pytest.raises(DataError, match="missing"):
        open_volume(path)
    with open_volume(path, sparse=True) as volume:
        assert not volume.missing_planes
        assert any("6 of 8 chunks are not there and hold the fill value 0" in note for note in volume.notes)
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), zarr.open_array(path)[...])
    annotation = load_annotation(path, volume_shape=SHAPE)
    assert annotation.counts() == {1: 32, 2: 112}


def test_time_points_are_planes_where_there_is_no_z(tmp_path):
    path = write_image(tmp_path / "a.zarr")
    edit_json(path / ".zattrs", lambda c: c["multiscales"][0]["axes"][0].update(name="t"))
    with open_zarr(path) as volume:
        assert volume.shape == SHAPE
        assert any("reading axis t as z (8 planes)" in note for note in volume.notes)
    with open_zarr(path, channel=3) as volume:
        assert volume.shape == (1, *SHAPE[1:])


@pytest.mark.parametrize("name", ["plain", "sharded"])
@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_chunk_that_is_a_link_out_of_the_store(tmp_path, name, link):
    """A store from elsewhere must not make a plane of any file of the reader; links within it are its own affair."""
    options = {"shards": (4, 16, 16)} if name == "sharded" else {}
    data = write_array(tmp_path / "a.zarr", compressors=None, **options)
    (tmp_path / "secret").mkdir()
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    moved = chunk if link == "file" else chunk.parent
    moved.rename(tmp_path / "secret" / "it")
    moved.symlink_to(tmp_path / "secret" / "it")
    with pytest.raises(DataError, match="is a link out of the store"):  # of shards, tables are read at opening
        open_volume(tmp_path / "a.zarr").plane(0)
    moved.unlink()
    (tmp_path / "secret" / "it").rename(tmp_path / "a.zarr" / "inside")
    moved.symlink_to(tmp_path / "a.zarr" / "inside")
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume.plane(0), data[0])
