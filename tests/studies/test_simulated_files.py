"""Simulated tomograms as files: the same as in memory, bounded memory, names; particles found in a pillar."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

import gpu_tomoclass.studies.simulation.pillar
from gpu_tomoclass.baseline import otsu_thresholds, threshold_labels
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.labels.cleaning import clean
from gpu_tomoclass.labels.particles import measure_particles
from gpu_tomoclass.studies.simulation.files import simulated_names, write_phantom, write_pillar
from gpu_tomoclass.studies.simulation.phantom import PHANTOM_CLASSES, phantom_labels, phantom_planes, simulate_phantom
from gpu_tomoclass.studies.simulation.pillar import SAMPLE_CLASSES, PillarRecipe, make_pillar, simulate_sample
from gpu_tomoclass.studies.simulation.tilt_series import tilt_angles
from gpu_tomoclass.volumes import ArrayVolume
from gpu_tomoclass.volumes.opening import open_volume

SMALL = {"shape": (6, 72, 64), "diameter": 75.0, "voxel": 1.25}


def read(path):
    with open_volume(path) as volume:
        return np.stack([plane for _, plane in volume.planes()]), volume


def test_names():
    assert simulated_names("runs/a.ome.zarr", name="pillar") == ("runs/a.ome.zarr", "runs/a_truth.ome.zarr")
    assert simulated_names("a.tif", name="pillar") == ("a.tif", "a_truth.tif")
    assert simulated_names("a.mrc", name="pillar") == ("a.mrc", "a_truth.mrc")
    assert simulated_names("runs/v1.2", name="pillar") == ("runs/v1.2/pillar.tif", "runs/v1.2/truth.tif")


def test_the_first_plane_is_the_phantom_and_the_others_differ_by_their_noise_alone():
    options = {"size": 96, "poisson": 0.5, "max_shift": 1.0, "seed": 3}
    planes = list(phantom_planes(3, **options))
    np.testing.assert_array_equal(planes[0], simulate_phantom(**options)[0])
    assert (planes[1] != planes[2]).mean() > 0.3
    # without noise nothing differs, shifts included: a projection is one picture of all planes
    a, b = phantom_planes(2, **options | {"poisson": 0.0})
    np.testing.assert_array_equal(a, b)
    still = next(phantom_planes(1, **options | {"poisson": 0.0, "max_shift": 0.0}))
    assert (a != still).mean() > 0.3
    # noise is independent from plane to plane, shifts are not: halves of many planes have the same mean but for noise
    many = np.array(list(phantom_planes(24, **options)), float)
    unshifted = np.array(list(phantom_planes(24, **options | {"max_shift": 0.0})), float).mean(axis=0)
    one, half, other = many[0], many[:12].mean(axis=0), many[12:].mean(axis=0)
    assert (half - other).std() < 0.5 * (one - many[1]).std()
    assert (half - other).std() < 0.5 * (half - unshifted).std()
    with pytest.raises(UsageError, match="use 1 or more"):
        phantom_planes(0)


def test_phantom_files(tmp_path):
    angles = tilt_angles(-76, 76, 2)
    names = write_phantom(tmp_path / "w.tif", n_planes=3, size=64, angles=angles, poisson=0.5, seed=2)
    volume, opened = read(names[0])
    truth, opened_truth = read(names[1])
    np.testing.assert_array_equal(volume[0], simulate_phantom(size=64, angles=angles, poisson=0.5, seed=2)[0])
    np.testing.assert_array_equal(truth, np.stack([phantom_labels(64) + 1] * 3))
    assert tuple(c.name for c in opened_truth.classes) == PHANTOM_CLASSES
    assert "-76 to 76, 77" in opened.metadata["simulation"]["tilt angles (degrees)"]
    with pytest.raises(DataError, match="exists already"):
        write_phantom(tmp_path / "w.tif", size=64)


@pytest.mark.parametrize("slab_pixels", [2**24, 40_000])
def test_a_pillar_in_files_is_the_pillar_in_memory_whatever_the_slabs(tmp_path, monkeypatch, slab_pixels):
    sample = simulate_sample(**SMALL, seed=4)
    monkeypatch.setattr(gpu_tomoclass.studies.simulation.pillar, "_SLAB_PIXELS", slab_pixels)  # 40,000: two planes
    steps = []
    names = write_pillar(tmp_path / "p", **SMALL, seed=4, progress=lambda *step: steps.append(step))
    assert steps[0] == (0, 12)
    assert steps[-1] == (12, 12)
    volume, opened = read(names[0])
    truth, opened_truth = read(names[1])
    assert volume.dtype == np.uint16
    # the texture's sums in another order may move a grey value of 65,535 by one
    np.testing.assert_allclose(volume.astype(int), sample.volume.astype(int), atol=1)
    np.testing.assert_array_equal(truth, sample.truth)
    assert opened.voxel_size == pytest.approx((1.25, 1.25, 1.25))
    assert tuple(c.name for c in opened_truth.classes) == SAMPLE_CLASSES
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["pillar.tif", "truth.tif"]
    with pytest.raises(DataError, match="exists already"):
        write_pillar(tmp_path / "p", **SMALL)


def test_memory_does_not_grow_with_the_planes(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_tomoclass.studies.simulation.pillar, "_SLAB_PIXELS", 40_000)
    peaks = []
    for nz in (6, 48):
        tracemalloc.start()
        write_pillar(tmp_path / f"{nz}.tif", shape=(nz, 72, 64), iterations=2, angles=tilt_angles(-70, 70, 10))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 42 planes more have 0.09 MB each on the fine grid and as projections, in temporary files
    assert peaks[1] < peaks[0] + 1_000_000


def test_the_default_voxel_is_the_papers():
    made = PillarRecipe(shape=(861, 428, 317), voxel=150 / (0.86 * 317))
    assert made.voxel == pytest.approx(0.55, abs=0.001)
    assert (made.tilt_angles[0], made.tilt_angles[-1], len(made.tilt_angles)) == (-76, 70, 74)


def test_noise_and_shifts_of_the_pillar_can_be_switched_off():
    still = {"max_shift": 0.0, "counts": 0.0}
    images = [simulate_sample(**SMALL, seed=1, **still | {key: 20.0 if key == "counts" else 3.0 for key in keys}).volume
              for keys in ((), ("counts",), ("max_shift",), ("counts", "max_shift"))]  # fmt: skip
    truth = simulate_sample(**SMALL, seed=1).truth
    noise = [image[truth == 1].std() / (image[truth == 3].mean() - image[truth == 1].mean()) for image in images]
    assert noise[0] < noise[2] < noise[1]
    assert noise[1] < 1.1 * noise[3]


@pytest.mark.parametrize(
    "options", [{"counts": -1.0}, {"max_shift": -0.1}, {"iterations": 0}, {"voxel": 0.0}, {"shape": (0, 80, 80)}]
)
def test_impossible_pillars_are_refused(options):
    with pytest.raises(UsageError):
        PillarRecipe(**options)


def test_the_grey_range_is_numpys_percentiles():
    pixels = np.random.default_rng(0).standard_normal((7, 50, 61)).astype(np.float32)
    expected = np.percentile(pixels.astype(np.float64), (0.01, 99.99))
    for slab in (1, 3, 7):
        np.testing.assert_allclose(
            gpu_tomoclass.studies.simulation.pillar._grey_range(pixels, slab=slab), expected, rtol=1e-12
        )


def test_particle_sizes_recovered_from_a_pillar_are_those_of_the_truth(tmp_path):
    """Few aggregates, so that they lie apart: thresholds, cleaning and measuring find their size distribution."""
    made = make_pillar(
        PillarRecipe(shape=(48, 128, 120), voxel=1.45, silica_fraction=0.035, counts=3000, max_shift=0, iterations=60,
                     seed=5, angles=tilt_angles(0, 178, 2), levels=(1.0, 2.5))
    )  # fmt: skip
    planes = range(48)
    truth = np.stack([made.truth_plane(z) for z in planes])
    numbers, _ = ndimage.label(truth == 3, np.ones((3, 3, 3)))
    true_volumes = np.bincount(numbers.ravel())[1:] * 1.45**3
    measured = measure_particles(ArrayVolume(truth, voxel_size=(1.45,) * 3), value=3, slab_planes=5)
    np.testing.assert_allclose(np.sort(measured.volume), np.sort(true_volumes))

    volume = np.stack([made.volume_plane(z) for z in planes])
    labels = threshold_labels(volume, otsu_thresholds(volume, levels=3))
    clean(ArrayVolume(labels, voxel_size=(1.45,) * 3), tmp_path / "clean.tif", min_size=60, fill=True)
    with open_volume(tmp_path / "clean.tif") as cleaned:
        found = measure_particles(cleaned, value=3, slab_planes=5)
    large = np.sort(np.cbrt(6 / np.pi * true_volumes[true_volumes >= 60 * 1.45**3]))
    assert len(large) >= 4
    assert len(found) == len(large)
    np.testing.assert_allclose(np.sort(found.diameter), large, rtol=0.06)
