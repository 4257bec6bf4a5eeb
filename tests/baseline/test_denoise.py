"""NAD of volumes on disk: the same as in memory whatever the slabs, bounded memory, nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_volume import CountedVolume

import gpu_tomoclass.baseline.denoise
from gpu_tomoclass.baseline import NadParameters, nad_planes, nad_volume, write_nad
from gpu_tomoclass.baseline.denoise import as_dtype
from gpu_tomoclass.baseline.nad_volume_reference import nad_volume as reference
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.volumes.opening import open_volume

PARAMETERS = NadParameters(
    dimensions=3, noise_area=(3, 4, 5), iterations=3, structure_sigma=0.5, sigma=0.4, balance=0.6
)


class OwnMemory(NativeDevice):
    """A CPU that is used as a GPU is: volumes are copied to it, and its memory counts, not that of the process."""

    has_own_memory = True
    free = 10**9

    def upload(self, values, target):
        assert not np.shares_memory(values, target)
        super().upload(values, target)

    def free_memory(self):
        return self.free


DEVICES = {
    "numpy": NumpyDevice(threads=1),
    "native": NativeDevice(threads=1),
    "own memory": OwnMemory(threads=1, gpu_plan=True),
}


def sample(shape=(17, 12, 15), seed=0, dtype=np.uint16):
    rng = np.random.default_rng(seed)
    return (2000 + 800 * (np.arange(shape[2]) > 7) + rng.normal(0, 100, shape)).astype(dtype)


def read(path):
    with open_volume(path) as volume:
        return np.stack([plane for _, plane in volume.planes()])


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=8, deadline=None)
@given(slab=st.integers(1, 20), nz=st.integers(1, 17), contrast=st.sampled_from([None, 90.0]))
def test_the_result_does_not_depend_on_the_slabs(tmp_path_factory, name, slab, nz, contrast):
    folder = tmp_path_factory.mktemp("nad")
    image = sample((nz, 12, 15))
    parameters = NadParameters(**{**vars(PARAMETERS), "noise_area": (3, 4, nz // 2), "contrast": contrast})
    done = write_nad(
        CountedVolume(image), folder / "n.tif", parameters=parameters, device=DEVICES[name], slab_planes=slab
    )
    assert done.in_files
    assert done.slab_planes == min(slab, nz)
    np.testing.assert_array_equal(
        read(folder / "n.tif"), nad_volume(image, device=DEVICES[name], parameters=parameters), strict=True
    )
    assert [path.name for path in folder.iterdir()] == ["n.tif"]


@pytest.mark.parametrize("name", ["numpy", "native"])
def test_memory_decides_and_changes_nothing(tmp_path, monkeypatch, name):
    image = sample((60, 12, 15))
    expected = nad_volume(image, device=DEVICES[name], parameters=PARAMETERS)
    if name == "numpy":
        np.testing.assert_array_equal(expected, reference(image, PARAMETERS).astype(np.float32))
    found = set()
    # The machine has enough for all at once; for the volume and a slab; for a slab.
    for limit in (10**9, 625_000 if name == "native" else 3_100_000, 312_000 if name == "native" else 1_250_000):
        monkeypatch.setattr(gpu_tomoclass.baseline.denoise, "available_bytes", lambda limit=limit: limit)
        done = write_nad(
            CountedVolume(image), tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES[name], overwrite=True
        )
        found.add((done.slab_planes == 60, done.in_files))
        np.testing.assert_array_equal(read(tmp_path / "n.tif"), expected)
    assert found == {(True, False), (False, False), (False, True)}


def test_too_little_memory_is_refused_before_the_work(tmp_path, monkeypatch):
    volume = CountedVolume(sample())
    monkeypatch.setattr(gpu_tomoclass.baseline.denoise, "available_bytes", lambda: 20_000)
    for dimensions, area in ((3, (3, 4, 5)), (2, (3, 4))):
        parameters = NadParameters(dimensions=dimensions, noise_area=area)
        with pytest.raises(ResourceError, match=r"of memory, and 16\.0 KB may be used"):
            write_nad(volume, tmp_path / "n.tif", parameters=parameters, device=DEVICES["numpy"])
    assert list(tmp_path.iterdir()) == []
    assert volume.planes_read == []


def test_the_memory_of_the_device_decides(tmp_path):
    image = sample((60, 12, 15))
    expected = nad_volume(image, device=DEVICES["native"], parameters=PARAMETERS)
    device = OwnMemory(threads=1)
    for free, limit, in_files in ((10**9, None, False), (312_000, None, True), (10**9, 250_000, True)):
        device.free = free
        done = write_nad(CountedVolume(image), tmp_path / "n.tif", parameters=PARAMETERS, device=device,
                         memory_limit=limit, overwrite=True)  # fmt: skip
        assert done.in_files == in_files
        np.testing.assert_array_equal(read(tmp_path / "n.tif"), expected)
    device.free = 400_000  # of which four fifths are used, by 44 bytes per pixel
    planes = NadParameters(noise_area=(3, 4), iterations=1)
    done = write_nad(CountedVolume(image), tmp_path / "n.tif", parameters=planes, device=device, overwrite=True)
    assert done.slab_planes == 32
    device.free = 100_000
    done = write_nad(CountedVolume(image), tmp_path / "m.tif", parameters=planes, device=device)
    assert done.slab_planes == 80_000 // (44 * 12 * 15)
    np.testing.assert_array_equal(read(tmp_path / "m.tif"), read(tmp_path / "n.tif"))


def test_what_a_killed_run_left_is_removed(tmp_path):
    program = f"from gpu_tomoclass.outputs import temporary_name; temporary_name({str(tmp_path / 'n.tif')!r}).mkdir()"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert len(list(tmp_path.iterdir())) == 1
    write_nad(
        CountedVolume(sample()), tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES["numpy"], slab_planes=9
    )
    assert [path.name for path in tmp_path.iterdir()] == ["n.tif"]


def test_a_limit_counts_what_the_process_has_already(tmp_path):
    with pytest.raises(ResourceError, match="raise --memory-limit"):
        write_nad(CountedVolume(sample()), tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES["numpy"],
                  memory_limit=1000)  # fmt: skip


class DeepVolume(CountedVolume):
    """So many planes of noise that exist only while they are read."""

    def __init__(self, nz, ny, nx):
        super().__init__(np.zeros((1, ny, nx), np.uint16))
        self.shape = (nz, ny, nx)

    def _read_plane(self, z):
        return np.random.default_rng(z).integers(1000, 3000, self.shape[1:]).astype(np.uint16)


@pytest.mark.parametrize("name", ["numpy", "native"])
def test_memory_does_not_grow_with_the_depth(tmp_path, name):
    parameters = NadParameters(dimensions=3, noise_area=(16, 16, 3), iterations=1, structure_sigma=0.5)
    peaks = []
    for nz in (24, 96):
        volume = DeepVolume(nz, 30, 32)
        options = {"parameters": parameters, "device": DEVICES[name], "slab_planes": 6, "overwrite": True}
        write_nad(volume, tmp_path / "n.ome.zarr", **options)  # what is made once
        tracemalloc.start()
        write_nad(volume, tmp_path / "n.ome.zarr", **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    plane = 30 * 32
    assert peaks[1] < peaks[0] + 30 * plane  # 72 planes more; less than half a byte for each of their voxels


def test_planes_each_for_itself(tmp_path):
    image = sample((7, 12, 15), dtype=np.int16)
    parameters = NadParameters(noise_area=(3, 4), iterations=2)
    seen: list[tuple[int, int]] = []
    source = CountedVolume(image, voxel_size=(1.0, 2.0, 3.0), metadata={"of": "a test"})
    done = write_nad(source, tmp_path / "n.ome.zarr",
                     parameters=parameters, device=DEVICES["numpy"], slab_planes=3,
                     progress=lambda *p: seen.append(p))  # fmt: skip
    assert not done.in_files
    assert seen == [(i + 1, 14) for i in range(14)]
    with open_volume(tmp_path / "n.ome.zarr") as volume:
        assert volume.dtype == np.float32
        assert volume.voxel_size == (1.0, 2.0, 3.0)
        assert volume.metadata["of"] == "a test"
        assert volume.metadata["nad"]["noise_area"] == [3, 4]
    expected = nad_planes(image, device=DEVICES["numpy"], parameters=parameters)
    np.testing.assert_array_equal(read(tmp_path / "n.ome.zarr"), expected)


def test_progress_counts_every_step(tmp_path):
    seen: list[tuple[int, int]] = []
    write_nad(CountedVolume(sample()), tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES["numpy"],
              slab_planes=5, progress=lambda *p: seen.append(p))  # fmt: skip
    assert [total for _, total in seen] == [17 * 5] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == 17 * 5


def test_the_type_of_the_input(tmp_path):
    image = sample(dtype=np.uint8)  # wraps around: steps of all sizes
    options = {"parameters": PARAMETERS, "device": DEVICES["numpy"]}
    write_nad(CountedVolume(image), tmp_path / "f.tif", **options)
    write_nad(CountedVolume(image), tmp_path / "i.tif", dtype="input", **options)
    exact, rounded = read(tmp_path / "f.tif"), read(tmp_path / "i.tif")
    assert (exact.dtype, rounded.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(rounded, np.rint(exact).clip(0, 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float32])
def test_as_dtype_rounds_and_limits(dtype):
    plane = np.array([[-1e30, -3.6, 0.4, 0.6, 100.5, 1e30]], np.float32)
    result = as_dtype(plane, np.dtype(dtype))
    assert result.dtype == dtype
    if np.dtype(dtype).kind == "f":
        np.testing.assert_array_equal(result, plane)
        return
    limits = np.iinfo(dtype)
    assert result[0].tolist()[1:5] == [max(limits.min, -4), 0, 1, 100]
    assert result[0, 0] == limits.min
    assert int(result[0, 5]) > 0.99 * limits.max


def test_non_finite_voxels(tmp_path):
    image = sample().astype(np.float32)
    image[3, 4, 5] = np.nan
    options = {"parameters": PARAMETERS, "device": DEVICES["numpy"]}
    with pytest.raises(DataError, match="1 voxels are NaN or infinite"):
        write_nad(CountedVolume(image), tmp_path / "n.tif", **options)
    assert list(tmp_path.iterdir()) == []
    done = write_nad(CountedVolume(image), tmp_path / "n.tif", nan="fill", **options)
    assert done.notes == ("plane 3: 1 non-finite voxels took the value of their nearest neighbour",)
    assert np.isfinite(read(tmp_path / "n.tif")).all()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_nothing_is_left_when_it_ends_early(tmp_path, stop):
    def progress(done, total):
        assert len(list(tmp_path.iterdir())) == 2  # the unfinished output, the volume between steps
        if done > 17 + 20:
            raise stop

    with pytest.raises(stop):
        write_nad(CountedVolume(sample()), tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES["numpy"],
                  slab_planes=5, progress=progress)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    options = {"parameters": PARAMETERS, "device": DEVICES["numpy"], "slab_planes": 5}
    # found out before the work
    monkeypatch.setattr("gpu_tomoclass.outputs.disk.free_bytes", lambda target: 30_000)  # enough for the output
    with pytest.raises(ResourceError, match=r"needs 49\.0 KB, and 30\.0 KB are free"):
        write_nad(CountedVolume(sample()), tmp_path / "n.tif", **options)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()

    def full(self, where, planes):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(gpu_tomoclass.baseline.denoise._PlaneFile, "__setitem__", full)
    with pytest.raises(ResourceError, match=r"the disk is full; the output needs 49\.0 KB"):
        write_nad(CountedVolume(sample()), tmp_path / "n.tif", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "uint8"}, UsageError, "dtype 'uint8' is unknown"),
        ({"nan": "mask"}, UsageError, "policy for NaN 'mask' is unknown"),
        ({"slab_planes": 0}, UsageError, "slabs of 0 planes"),
        ({"parameters": NadParameters(dimensions=3, noise_area=(50, 0, 0))}, UsageError, "outside of a volume"),
        ({"parameters": NadParameters(noise_area=(3, 40))}, UsageError, "outside of planes of 12 x 15"),
    ],
)
def test_refused_options(tmp_path, options, error, message):
    volume = CountedVolume(sample())
    with pytest.raises(error, match=message):
        write_nad(volume, tmp_path / "n.tif", **{"parameters": PARAMETERS, "device": DEVICES["numpy"], **options})
    assert volume.planes_read == []
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_never_replaced(tmp_path):
    write_nad(CountedVolume(sample()), tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES["numpy"])
    before = (tmp_path / "n.tif").read_bytes()
    with open_volume(tmp_path / "n.tif") as volume, pytest.raises(UsageError, match="is the input"):
        write_nad(volume, tmp_path / "n.tif", parameters=PARAMETERS, device=DEVICES["numpy"], overwrite=True)
    assert (tmp_path / "n.tif").read_bytes() == before
