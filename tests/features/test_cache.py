"""The cache gives back exactly what was computed, for exactly the same plane and parameters, or nothing."""

import threading

import numpy as np
import pytest

from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.features import cache as cache_module
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.cache import FeatureCache, block_values
from gpu_tomoclass.features.engine import FeatureEngine


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(100, 20, (30, 26)).astype(np.float32)


@pytest.fixture
def bank():
    return FeatureBank.create(["gaussian_blur", "hessian", "median"], sigma_max=4)


def values(bank, image, cache, timings=None):
    engine = FeatureEngine(NumpyDevice(), bank.blocks)
    return [v.copy() for _, v in block_values(engine, image, cache=cache, timings=timings)]


def test_second_time_is_read_and_equal(tmp_path, bank, image):
    cache = FeatureCache(tmp_path)
    first = values(bank, image, cache)
    assert (cache.hits, cache.misses) == (0, len(bank.blocks))
    timings = {}
    second = values(bank, image, cache, timings)
    assert cache.hits == len(bank.blocks)
    assert timings == {}  # nothing was computed
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
    np.testing.assert_array_equal(np.concatenate(first), bank.compute(image))


def test_another_plane_or_parameter_is_another_entry(tmp_path, bank, image):
    cache = FeatureCache(tmp_path)
    values(bank, image, cache)
    values(bank, np.nextafter(image, np.inf), cache)
    assert cache.hits == 0
    wider = FeatureBank.create(["gaussian_blur", "hessian", "median"], sigma_max=8)
    values(wider, image, cache)
    assert cache.hits == len(bank.blocks)  # the old sigmas are shared, the new one is computed


@pytest.mark.parametrize("damage", ["truncate", "text", "shape", "pickle"])
def test_a_damaged_entry_is_computed_again(tmp_path, bank, image, damage):
    cache = FeatureCache(tmp_path)
    expected = np.concatenate(values(bank, image, cache))
    for path in tmp_path.glob("*/*.npy"):
        if damage == "truncate":
            path.write_bytes(path.read_bytes()[:150])
        elif damage == "text":
            path.write_text("hello")
        elif damage == "shape":
            np.save(path, np.zeros((1, 2), np.float32))
        else:
            np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(np.concatenate(values(bank, image, cache)), expected)
    assert cache.hits == 0


def test_a_folder_that_cannot_be_written_only_notes(tmp_path, bank, image):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file" / "cache")
    assert len(values(bank, image, cache)) == len(bank.blocks)
    assert len(cache.notes) == 1
    assert "cannot be written" in cache.notes[0]


def test_a_nearly_full_disk_switches_writing_off(tmp_path, bank, image, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    cache = FeatureCache(tmp_path)
    values(bank, image, cache)
    assert list(tmp_path.glob("*/*")) == []
    assert len(cache.notes) == 1


def test_the_oldest_entries_leave_first(tmp_path, bank, image):
    cache = FeatureCache(tmp_path)
    key = cache.plane_key(image)
    for age, block in enumerate(bank.blocks):
        cache.put(key, block, np.zeros((len(block.channels), 10, 10), np.float32))
        path = next(p for p in tmp_path.glob("*/*.npy") if p.name == f"{block.key}.npy")
        cache_module.os.utime(path, (1000 + age, 1000 + age))
    sizes = [p.stat().st_size for p in tmp_path.glob("*/*.npy")]
    cache.limit = sum(sizes) // 2
    cache.trim()
    left = {p.stem for p in tmp_path.glob("*/*.npy")}
    assert 0 < len(left) < len(sizes)
    assert left == {b.key for b in bank.blocks[-len(left) :]}


def test_a_device_has_entries_of_its_own(tmp_path, bank, image):
    """The last bit of a channel may differ between devices."""

    class Other(NumpyDevice):
        name = "other"

    cache = FeatureCache(tmp_path)
    for device, hits in ((NumpyDevice(), 0), (Other(), 0), (NumpyDevice(), len(bank.blocks))):
        before = cache.hits
        list(block_values(FeatureEngine(device, bank.blocks), image, cache=cache))
        assert cache.hits - before == hits


def test_equal_planes_may_be_stored_at_the_same_time(tmp_path, bank, image, monkeypatch):
    """Two threads of one process write the same entry: neither takes the other's file away."""
    cache = FeatureCache(tmp_path)
    together = threading.Barrier(2, timeout=1200)
    save = np.save

    def slow_save(file, values, **options):
        save(file, values, **options)
        together.wait()  # both have written, neither has renamed

    monkeypatch.setattr(cache_module.np, "save", slow_save)
    block, values = bank.blocks[0], image[np.newaxis]
    threads = [threading.Thread(target=cache.put, args=("key", block, values)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.notes == []
    np.testing.assert_array_equal(cache.get("key", block), values)
    assert [path.name for path in (tmp_path / "key").iterdir()] == [f"{block.key}.npy"]


def test_threads_count_every_question(tmp_path, bank, image):
    cache = FeatureCache(tmp_path)
    cache.put("key", bank.blocks[0], image[np.newaxis])

    def ask():
        for _ in range(200):
            cache.get("key", bank.blocks[0])
            cache.get("other", bank.blocks[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (cache.hits, cache.misses) == (800, 800)
