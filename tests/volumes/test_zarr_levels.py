"""Chunks that are written here are the library's, byte for byte; levels made on the way are those made at the end."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import zarr
from small_volume import digest

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.volumes.ome_zarr import store as store_module
from gpu_tomoclass.volumes.ome_zarr.level import Level
from gpu_tomoclass.volumes.ome_zarr.pyramid import means
from gpu_tomoclass.volumes.ome_zarr.store import ZarrStore

SHAPE = (5, 21, 13)
VERSIONS = ["0.4", "0.5"]


def planes(dtype, channels=()):
    values = np.random.default_rng(3).integers(0, 250, (*((len(channels),) if channels else ()), *SHAPE))
    return values.astype(dtype)


def made(folder, values, *, channels=(), ome_version="0.4"):
    folder.mkdir()
    how = {"channels": channels, "ome_version": ome_version}
    return ZarrStore.create(folder, name="a", shape=SHAPE, dtype=values.dtype, **how)


@pytest.mark.parametrize("ome_version", VERSIONS)
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", ()), ("float32", ("a", "b")), ("uint16", ())])
def test_chunks_are_those_of_the_library(tmp_path, monkeypatch, dtype, channels, ome_version):
    monkeypatch.setattr(store_module, "TILE", 8)  # several chunks per plane, those at the edge are filled up
    values = planes(dtype, channels)
    ours = made(tmp_path / "ours", values, channels=channels, ome_version=ome_version)
    made(tmp_path / "theirs", values, channels=channels, ome_version=ome_version)
    ours.write(0, values)
    zarr.open_array(tmp_path / "theirs" / "0", mode="r+", config={"write_empty_chunks": True})[:] = values
    assert list(digest(tmp_path / "ours").values()) == list(digest(tmp_path / "theirs").values())
    np.testing.assert_array_equal(ours.stored(4), values[..., 4, :, :])


@pytest.mark.parametrize("ome_version", VERSIONS)
@pytest.mark.parametrize("is_labels", [True, False])
def test_levels_made_on_the_way(tmp_path, monkeypatch, is_labels, ome_version):
    """In any order, from stored planes that an earlier run wrote too: the same as all at the end."""
    monkeypatch.setattr("gpu_tomoclass.volumes.ome_zarr.metadata.LARGEST_COARSE", 6)
    monkeypatch.setattr("gpu_tomoclass.volumes.ome_zarr.metadata.SHORT", 3)
    channels = () if is_labels else ("a", "b")
    classes = default_classes(["out", "in"]) if is_labels else ()
    values = planes("uint8", channels)
    at_the_end = made(tmp_path / "end", values, channels=channels, ome_version=ome_version)
    at_the_end.write(0, values)
    at_the_end.add_levels("a", None, classes, channels=channels)
    on_the_way = made(tmp_path / "way", values, channels=channels, ome_version=ome_version)
    on_the_way.write(2, values[..., 2:3, :, :])
    on_the_way.begin_pyramid(nearest=is_labels, written=np.arange(5) == 2)
    for z in (3, 0, 4, 1):
        on_the_way.write_through(z, values[..., z : z + 1, :, :])
    assert (tmp_path / "way" / "2").is_dir()
    coarse = sorted(str(p.relative_to(tmp_path / "way")) for p in (tmp_path / "way" / "1").rglob("*") if p.is_file())
    on_the_way.add_levels("a", None, classes, channels=channels)
    assert list(digest(tmp_path / "way").values()) == list(digest(tmp_path / "end").values())
    there = sorted(str(p.relative_to(tmp_path / "way")) for p in (tmp_path / "way" / "1").rglob("*") if p.is_file())
    assert coarse == there  # nothing was left for the end


def test_planes_that_come_together_are_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_tomoclass.volumes.ome_zarr.metadata.LARGEST_COARSE", 6)
    monkeypatch.setattr("gpu_tomoclass.volumes.ome_zarr.metadata.SHORT", 3)
    values, read, of_disk = planes("float32"), [], Level.read

    def counted(self, z):
        read.append((self.folder[-1], z))
        return of_disk(self, z)

    store = made(tmp_path / "a", values)
    store.begin_pyramid(nearest=False, written=np.zeros(5, bool))
    monkeypatch.setattr(Level, "read", counted)
    for start, stop in ((0, 3), (3, 5)):
        store.write_through(start, values[start:stop])
    store.add_levels("a", None, ())
    assert read == [("0", 2)]  # of the slab before


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_means(dtype):
    values = planes(dtype)[:2]
    found = means(values, (2, 2, 2))
    whole = np.pad(values, ((0, 0), (0, 1), (0, 1)), mode="edge").astype(np.float64)
    expected = whole.reshape(1, 2, 11, 2, 7, 2).mean(axis=(1, 3, 5))
    np.testing.assert_array_equal(found, (np.rint(expected) if dtype != "float32" else expected).astype(dtype))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)])
def test_means_of_64_bits(dtype, step):
    """By Python's integers and fractions, at both ends of the type and where float64 has no odd numbers any more."""
    random, limits = np.random.default_rng(4), np.iinfo(dtype)
    values = random.integers(limits.min, limits.max, (3, 4, 5), dtype, endpoint=True)
    values[:2, :2, :2], values[:2, 2:, :2] = limits.max, limits.min
    values[:2, :, 2:4] = 2**53 + random.integers(0, 9, (2, 4, 2))
    found = means(values, step)
    assert found.dtype == values.dtype
    for place in np.ndindex(found.shape):
        pairs = [[min(f * i + k, n - 1) for k in range(f)] for i, f, n in zip(place, step, values.shape, strict=True)]
        box = [int(values[of]) for of in itertools.product(*pairs)]
        assert found[place] == round(Fraction(sum(box), len(box)))  # half to even


def test_a_changed_file_has_another_stamp(tmp_path):
    values = planes("uint8")
    store = made(tmp_path / "a", values)
    store.write(0, values)
    before = store.stamp(1)
    assert before == store.stamp(1)
    store.write(1, values[1:2])
    assert store.stamp(1) != before
    (tmp_path / "a" / "0" / "1" / "0" / "0").unlink()
    assert store.stamp(1) is None


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    values = planes("uint8")
    store = made(tmp_path / "a", values)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        store.write(0, values)
    assert not list((tmp_path / "a").rglob("*.partial"))
    assert isinstance(store._level, Level)
