"""Smoothed probabilities are SciPy's of the whole volume, in every bit the same for any slab size and thread."""

import numpy as np
import pytest
from memory_volume import CountedVolume
from scipy.ndimage import correlate1d, gaussian_filter1d
from small_volume import SHAPE

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.smoothing import Smoother, planes_around
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes.opening import open_volume


def classified(path, model, folder, *, device, **options):
    with open_volume(path) as volume:
        found = classify(volume, model, output=folder / "o.tif", probabilities="float32", device=device,
                         overwrite=True, **options)  # fmt: skip
    with open_volume(found.path) as labels:
        planes = np.asarray(labels)
    p = []
    for channel in range(len(model.classes)):
        with open_volume(folder / "o_probabilities.tif", channel=channel) as file:
            p.append(np.asarray(file))
    return planes, np.stack(p)


def along_z(p, sigma, reach):
    """By SciPy: weights of planes outside of the volume are left out."""
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    total = correlate1d(p.astype(np.float64), weights, axis=-3, mode="constant")
    return total / correlate1d(np.ones(p.shape[-3]), weights, mode="constant")[:, None, None]


def test_probabilities_are_smoothed_as_scipy_does_it_and_labels_follow(sample_path, sample_model, tmp_path):
    device = NumpyDevice(threads=1)
    _, plain = classified(sample_path, sample_model, tmp_path, device=device)
    labels, p = classified(sample_path, sample_model, tmp_path, device=device, smooth=1.2)
    within = plain
    for axis in (2, 3):
        within = gaussian_filter1d(within, 1.2, axis=axis, mode="nearest", truncate=3)
    assert planes_around(1.2) == 4
    np.testing.assert_allclose(p, along_z(within, 1.2, 4), atol=3e-7)  # some roundings of float32 near 1
    np.testing.assert_array_equal(labels, np.array([c.value for c in sample_model.classes])[p.argmax(axis=0)])
    some = classified(sample_path, sample_model, tmp_path, device=device, smooth=1.2, crop="3:8,2:,:15")
    np.testing.assert_array_equal(some[0], labels[3:8, 2:, :15])


@pytest.mark.parametrize(("slab_planes", "threads"), [(1, 3), (2, 2), (5, 1), (99, 2)])
def test_slabs_and_threads_change_no_bit(sample_path, sample_model, tmp_path, slab_planes, threads):
    one = classified(sample_path, sample_model, tmp_path, device=NativeDevice(threads=1), smooth=0.9)
    found = classified(sample_path, sample_model, tmp_path, device=NativeDevice(threads=threads), smooth=0.9,
                       slab_planes=slab_planes)  # fmt: skip
    for a, b in zip(one, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_plane_is_classified_once_and_only_those_near_are_kept():
    smoother, asked = Smoother((1.0, 0.0, 0.0)), []

    def compute(first, last):
        asked.extend(range(first, last))
        return [np.full((2, 1, 1), z, np.float32) for z in range(first, last)]

    for z in range(20):
        smoother.smoothed(z, z + 1, depth=20, compute=compute)
        assert len(smoother._planes) <= 2 * smoother.reach + 1
    assert asked == list(range(20))


def test_after_a_failure_the_planes_are_computed_again():
    smoother, failing = Smoother((1.0, 0.0, 0.0)), [True]

    def compute(first, last):
        if failing:
            failing.clear()
            raise MemoryError
        return [np.ones((2, 1, 1), np.float32)] * (last - first)

    with pytest.raises(MemoryError):
        smoother.smoothed(0, 2, depth=9, compute=compute)
    assert smoother.smoothed(0, 2, depth=9, compute=compute)[0].max() == 1


def test_planes_that_cannot_be_read_have_no_weight(sample_path, sample_model, tmp_path):
    with open_volume(sample_path) as file:
        volume = CountedVolume(np.asarray(file), voxel_size=(1.0, 1.0, 1.0), allow_missing_planes=True)
    volume.broken = {4}
    found = classify(volume, sample_model, output=tmp_path / "o.tif", smooth=1.0, device=NumpyDevice(threads=1))
    with open_volume(found.path) as file:
        labels = np.asarray(file)
    assert (labels[4] == 0).all()
    assert labels[3].all()
    assert labels[5].all()


@pytest.mark.parametrize(("nm", "size", "said"), [(1.0, None, "--voxel-size"), (40.0, (1.0, 1.0, 1.0), "40 voxels")])
def test_a_sigma_that_cannot_be_is_refused(sample_model, tmp_path, nm, size, said):
    volume = CountedVolume(np.zeros(SHAPE, np.uint16), voxel_size=size)
    with pytest.raises(UsageError, match=said):
        classify(volume, sample_model, output=tmp_path / "o.tif", smooth=nm, device=NumpyDevice(), force=True)
