"""Arrays as volumes, and volumes as arrays: what is sliced is what NumPy would give, and only that is read."""

import dask.array
import h5py
import numpy as np
import pytest
import tifffile
import zarr
from memory_volume import CountedVolume
from simulated_cupy import SimulatedCupy

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes import ArrayVolume, create_volume, open_volume
from gpu_tomoclass.volumes.reordered import ReorderedVolume

VOXELS = np.random.default_rng(1).integers(0, 60000, (7, 5, 6)).astype(np.uint16)
INDICES = [
    np.s_[3], np.s_[-1], np.s_[2:5], np.s_[:], np.s_[5:2], np.s_[::-2], np.s_[-3:], np.s_[100:], np.s_[np.int64(2)],
    np.s_[1:4, 2], np.s_[1:4, 1:3, ::2], np.s_[0, 1, 2], np.s_[2:4, :, -1], np.s_[5:5, 1:3],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES)
def test_an_index_means_what_it_means_to_numpy(index):
    volume = CountedVolume(VOXELS)
    found = volume[index]
    assert found.dtype == VOXELS.dtype
    np.testing.assert_array_equal(found, VOXELS[index])
    first = index[0] if isinstance(index, tuple) else index
    assert volume.planes_read == np.atleast_1d(np.arange(7)[first]).tolist()


def test_indices_that_are_none():
    volume = ArrayVolume(VOXELS)
    for index, said in ((7, "no plane 7"), (-8, "no plane -8"), ([1, 2], "no index"), (np.s_[..., 1], "no index")):
        with pytest.raises(IndexError, match=said):
            volume[index]
    with pytest.raises(UsageError, match="numpy array: there is no plane 7, only 0 to 6"):
        volume[7]


def test_a_volume_is_an_array_and_a_sequence_of_planes():
    volume = CountedVolume(VOXELS)
    assert (len(volume), volume.ndim, volume.shape) == (7, 3, VOXELS.shape)
    np.testing.assert_array_equal(np.asarray(volume), VOXELS)
    assert np.asarray(volume, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.stack(list(volume)), VOXELS)
    np.testing.assert_array_equal(dask.array.from_array(volume, chunks=(2, 3, 6)).compute(), VOXELS)
    assert np.asarray(ArrayVolume(VOXELS)) is VOXELS
    assert np.array(ArrayVolume(VOXELS)) is not VOXELS


def test_of_a_file_an_array_is_always_a_copy(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, imagej=True)
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(np.asarray(volume), VOXELS)
        with pytest.raises(ValueError, match="always a copy"):
            np.asarray(volume, copy=False)


def libraries(tmp_path):
    stored = zarr.create_array(str(tmp_path / "a.zarr"), shape=VOXELS.shape, chunks=(2, 4, 4), dtype="u2")
    stored[:] = VOXELS
    file = h5py.File(tmp_path / "a.h5", "w")
    cupy = SimulatedCupy()
    return {
        "numpy": VOXELS.astype(">u2")[:, :, ::-1][:, :, ::-1],
        "zarr": stored,
        "dask": dask.array.from_array(VOXELS, chunks=(3, 2, 6)),
        "h5py": file.create_dataset("d", data=VOXELS),
        "cupy": cupy.array(VOXELS),
    }


def test_arrays_of_every_library(tmp_path):
    for name, array in libraries(tmp_path).items():
        volume = open_volume(array, voxel_size=0.5)
        assert volume.dtype == np.uint16, name
        assert type(volume.plane(3)) is np.ndarray, name
        np.testing.assert_array_equal(volume.plane(3), VOXELS[3])
        np.testing.assert_array_equal(np.asarray(volume), VOXELS)
        assert volume.fingerprint()["crc32"] == ArrayVolume(VOXELS).fingerprint()["crc32"]
        assert open_volume(volume) is volume


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (VOXELS[0], DataError, r"has 2 axes, a volume three \(z, y, x\); give array\[None\] for a single plane"),
        (VOXELS[None], DataError, "has 4 axes"),
        (VOXELS.astype(complex), DataError, "holds complex128, not real numbers"),
        (VOXELS.astype(object), DataError, "holds object"),
        (VOXELS[:0], DataError, "holds no voxels"),
        (np.ma.masked_less(VOXELS, 500), DataError, r"has a mask, which would be lost; give array.filled\(numpy.nan\)"),
        (VOXELS.tolist(), UsageError, "list is no array and no path"),
        (None, UsageError, "NoneType is no array and no path"),
    ],
)
def test_what_is_no_volume(wrong, kind, said):
    with pytest.raises(kind, match=said):
        open_volume(wrong)


def test_options_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(UsageError, match="axes='xyz' means nothing for an array"):
        open_volume(VOXELS, axes="xyz")
    with pytest.raises(UsageError, match="means nothing for a volume that is open"):
        open_volume(ArrayVolume(VOXELS), voxel_size=1)


def test_a_given_voxel_size_counts_and_is_recorded(tmp_path):
    path = tmp_path / "a.mrc"
    with create_volume(path, shape=VOXELS.shape, dtype=np.uint16, voxel_size=(1.0, 1.0, 1.0)) as writer:
        for z, plane in enumerate(VOXELS):
            writer.write_plane(z, plane)
    with open_volume(path, voxel_size=0.55) as volume:
        assert volume.voxel_size == (0.55, 0.55, 0.55)
        assert volume.metadata["voxel_size_given"] == {"nm": [0.55] * 3, "file_nm": [1.0] * 3}
        assert "the voxel size is 0.55 nm as given, the file says 1 nm" in volume.notes
        assert volume.fingerprint()["voxel_size_given"] == volume.metadata["voxel_size_given"]
        assert volume.reading["voxel_size"] == (0.55, 0.55, 0.55)
    with open_volume(path, voxel_size=(2, 1, 1)) as volume:
        assert volume.voxel_size == (2.0, 1.0, 1.0)
    with open_volume(path, voxel_size=1) as volume:
        assert not any("as given" in note for note in volume.notes)
    for wrong in (0, -1, float("nan"), (1, 2), "wide", (1, 2, float("inf"))):
        with pytest.raises(UsageError, match="positive numbers of nm"):
            open_volume(path, voxel_size=wrong)


def test_repr_tells_what_it_is():
    volume = ArrayVolume(VOXELS, name="pillar", voxel_size=(1.1, 0.55, 0.55), classes=default_classes(["a", "b"]))
    expected = "<Volume pillar: 7 x 5 x 6 (z, y, x) uint16, voxel 1.1 x 0.55 x 0.55 nm, classes 1 a, 2 b, numpy array>"
    assert repr(volume) == expected
    assert repr(ArrayVolume(VOXELS)) == "<Volume numpy array: 7 x 5 x 6 (z, y, x) uint16, voxel size unknown>"


def test_a_file_is_closed_when_nobody_holds_the_volume(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, imagej=True)
    volume = open_volume(tmp_path / "a.tif")
    ReorderedVolume(volume, order="yzx").plane(0)  # and is gone
    np.testing.assert_array_equal(volume.plane(1), VOXELS[1])
    handle = volume._file
    del volume
    assert handle.closed


def test_another_order_of_axes_takes_one_pass_for_each_slab(monkeypatch):
    read = []
    plane_of = ArrayVolume._read_plane
    monkeypatch.setattr(ArrayVolume, "_read_plane", lambda self, z: (read.append(z), plane_of(self, z))[1])
    base = ArrayVolume(VOXELS, voxel_size=(3.0, 2.0, 1.0))  # its axes are y, z, x in the other
    volume = ReorderedVolume(base, order="yzx", slab_bytes=2 * 7 * 6 * VOXELS.itemsize)
    assert volume.voxel_size == (2.0, 3.0, 1.0)
    np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), VOXELS.transpose(1, 0, 2))
    assert read == [*range(7)] * 3  # five planes, two at a time
