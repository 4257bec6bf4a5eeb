"""Particles: against scipy's labelling, analytic balls and boxes, whatever the slabs; CSV and histograms."""

from __future__ import annotations

import csv
import json
import tracemalloc

import numpy as np
import pytest
from matplotlib.image import imread
from memory_volume import CountedVolume
from scipy import ndimage

import gpu_tomoclass.labels.objects
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.labels.objects import BYTES_PER_VOXEL, ObjectFinder
from gpu_tomoclass.labels.particle_files import save_histograms, save_particles
from gpu_tomoclass.labels.particles import measure_classes, measure_particles, surface_weights

TOUCHING = np.ones((3, 3, 3))  # 26 neighbours


def blobs(shape=(23, 40, 37), *, seed=0, cuts=(0.55, 0.8)) -> np.ndarray:
    """Random labels 0, 1, 2 in blobs of many sizes."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.2)
    return np.digitize(rough, np.quantile(rough, cuts)).astype(np.uint8)


def ball(radius, *, voxel_size=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    counts = [int(2 * radius / v) + 7 for v in voxel_size]
    axes = np.ogrid[tuple(slice(0, n) for n in counts)]
    squares = [((a - (n - 1) / 2 - s) * v) ** 2 for a, n, s, v in zip(axes, counts, shift, voxel_size, strict=True)]
    return (sum(squares) < radius**2).astype(np.uint8)


def scipy_objects(mask: np.ndarray) -> list[tuple[int, tuple[float, ...], bool]]:
    """Voxels, centre and border contact of every object in the order of its first voxel."""
    numbers, n = ndimage.label(mask, TOUCHING)
    rim = np.ones(mask.shape, bool)
    rim[1:-1, 1:-1, 1:-1] = False
    first = [np.flatnonzero(numbers == i + 1)[0] for i in range(n)]
    found = []
    for i in np.argsort(first) + 1:
        inside = numbers == i
        found.append((int(inside.sum()), ndimage.center_of_mass(inside), bool((inside & rim).any())))
    return found


@pytest.mark.parametrize("slab_planes", [1, 2, 7, 23, None])
@pytest.mark.parametrize("value", [0, 1, 2])
def test_objects_are_those_of_scipy_whatever_the_slabs(slab_planes, value):
    labels = blobs()
    found = measure_particles(CountedVolume(labels), value=value, slab_planes=slab_planes)
    expected = scipy_objects(labels == value)
    assert len(found) == len(expected) > 3
    assert found.voxels.tolist() == [voxels for voxels, _, _ in expected]
    np.testing.assert_allclose(found.centre, [centre for _, centre, _ in expected], atol=1e-9)
    assert found.touches_border.tolist() == [border for _, _, border in expected]
    whole = measure_particles(CountedVolume(labels), value=value, slab_planes=23)
    # float32 sums of a voxel's surface come in another order at most
    np.testing.assert_allclose(found.surface, whole.surface, rtol=1e-6)


def test_every_step_across_two_slabs_joins():
    """Two voxels that touch by face, edge or corner across planes are one object; a third class between them is not."""
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            labels = np.zeros((2, 3, 3), np.uint8)
            labels[0, 1, 1] = labels[1, 1 + dy, 1 + dx] = 5
            assert measure_particles(CountedVolume(labels), value=5, slab_planes=1).voxels.tolist() == [2]
    labels = np.zeros((3, 5, 5), np.uint8)
    labels[0, 0, 0] = labels[1, 2, 2] = labels[2, 4, 4] = 5
    assert measure_particles(CountedVolume(labels), value=5, slab_planes=1).voxels.tolist() == [1, 1, 1]


def test_branches_that_join_in_a_later_slab_are_one_object():
    """A comb: teeth are separate for many planes, and its back lies in the last."""
    labels = np.zeros((9, 4, 21), np.uint8)
    labels[:8, 1, ::2] = 3
    labels[8, 1] = 3
    assert measure_particles(CountedVolume(labels), value=3, slab_planes=2).voxels.tolist() == [8 * 11 + 21]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_labels_of_any_type_with_values_up_to_255(dtype):
    labels = np.zeros((4, 5, 6), dtype)
    labels[1, 2, 2:4] = 255
    assert measure_particles(CountedVolume(labels), value=255).voxels.tolist() == [2]
    with pytest.raises(DataError, match="0 to 255"):
        measure_particles(CountedVolume(labels + np.float32(0.5)), value=1)


@pytest.mark.parametrize(("radius", "tolerance"), [(3, 0.04), (5, 0.03), (8, 0.01), (15, 0.005), (25, 0.003)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0.5, 0.5), (0.2, -0.4, 0.1)])
def test_balls_have_their_volume_diameter_and_surface(radius, tolerance, shift):
    """The documented accuracy, against the ball of equal volume (faces of voxels would count 50 % too much)."""
    labels = CountedVolume(ball(radius, shift=shift), voxel_size=(2.0, 2.0, 2.0))
    found = measure_particles(labels, value=1, slab_planes=6)
    assert found.unit == "nm"
    assert found.volume[0] == 8 * labels.array.sum()
    assert found.diameter[0] == pytest.approx((6 / np.pi * found.volume[0]) ** (1 / 3))
    assert found.surface[0] == pytest.approx(np.pi * found.diameter[0] ** 2, rel=tolerance)
    assert not found.touches_border[0]
    if shift[0] == 0.2:  # centres of symmetry are where voxels represent a ball worst, by up to 20 % of its volume
        assert found.surface[0] == pytest.approx(4 * np.pi * (2 * radius) ** 2, rel=max(tolerance, 0.2 / radius**1.5))
        assert found.diameter[0] == pytest.approx(4 * radius, rel=0.01)


def test_a_ball_of_flat_voxels():
    size = (2.0, 1.0, 0.5)
    found = measure_particles(CountedVolume(ball(20, voxel_size=size), voxel_size=size), value=1, slab_planes=3)
    assert found.surface[0] == pytest.approx(4 * np.pi * 400, rel=0.02)
    assert found.volume[0] == pytest.approx(4 / 3 * np.pi * 8000, rel=0.01)
    middle = (np.array(ball(20, voxel_size=size).shape) - 1) / 2 * size
    np.testing.assert_allclose(found.centre[0], middle, atol=1e-9)


def test_flat_faces_count_as_documented_and_the_border_of_the_volume_is_no_surface():
    labels = np.zeros((10, 80, 80), np.uint8)
    labels[:5] = 1  # one face of 80 x 80 inside; the others lie on the border
    surface = measure_particles(CountedVolume(labels), value=1, slab_planes=4).surface[0]
    # 0.927, less a row or two in 80 that slanted lines miss at the sides
    assert 0.905 < surface / 80**2 < 0.925
    assert measure_particles(CountedVolume(np.ones((4, 5, 6), np.uint8)), value=1).surface.tolist() == [0]


def test_surface_weights_give_every_direction_its_area_on_average():
    """Lines of step k cross a face of area 1 and normal n |n . k| / V times; over all n this must count for 1."""
    normals = np.random.default_rng(0).standard_normal((200_000, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    for size in ((1, 1, 1), (2, 1, 1), (0.7, 1, 0.5)):
        steps, weights = zip(*surface_weights(size).items(), strict=True)
        assert len(steps) == 13
        area = np.abs(normals @ (np.array(steps) * size).T) @ weights / np.prod(size)
        assert area.mean() == pytest.approx(1, abs=0.002)  # standard error 0.0002
        if size == (1, 1, 1):
            assert (area.min(), area.max()) == (pytest.approx(0.927, abs=0.001), pytest.approx(1.023, abs=0.001))
        if size == (2, 1, 1):
            assert (area.min(), area.max()) == (pytest.approx(0.875, abs=0.001), pytest.approx(1.094, abs=0.001))


def test_nearest_neighbours_in_nm():
    labels = np.zeros((5, 30, 30), np.uint8)
    labels[2, 5, 5] = labels[2, 5, 9] = labels[4, 25, 25] = 1
    found = measure_particles(CountedVolume(labels, voxel_size=(3.0, 2.0, 1.0)), value=1)
    far = np.sqrt((2 * 3) ** 2 + (20 * 2) ** 2 + 16**2)
    np.testing.assert_allclose(found.neighbour, [4, 4, far])
    labels[4] = labels[2, 5, 9] = 0
    assert np.isnan(measure_particles(CountedVolume(labels), value=1).neighbour).all()


def test_a_class_without_voxels_has_no_particles(tmp_path):
    found = measure_classes(CountedVolume(np.zeros((3, 4, 5), np.uint8)), values=[1])
    assert len(found.particles[1]) == 0
    assert found.particles[1].summary()["diameter"] is None
    save_particles(found, tmp_path / "none.csv")
    assert len((tmp_path / "none.csv").read_text().splitlines()) == 1
    save_histograms(found, tmp_path / "none.png", title="none")
    assert imread(tmp_path / "none.png").shape[2] == 4


def test_memory_is_that_of_a_slab_and_is_asked_for_first(monkeypatch):
    planes = np.ones((2, 200, 150), np.uint8)

    class Deep(CountedVolume):
        """The same plane again and again."""

        def _read_plane(self, z):
            return planes[z % 2]

    volume = Deep(planes)
    volume.shape = (120, 200, 150)
    tracemalloc.start()
    measure_particles(volume, value=1, slab_planes=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    finder = ObjectFinder(volume, classes=(1,), slab_planes=10)
    assert finder.needed_bytes == BYTES_PER_VOXEL * 12 * 200 * 150
    assert 0.3 * finder.needed_bytes < peak < finder.needed_bytes + 3_000_000  # weights and imports
    monkeypatch.setattr(gpu_tomoclass.labels.objects, "available_bytes", lambda: 1_000_000)
    volume.planes_read.clear()
    with pytest.raises(ResourceError, match=r"needs 28.8 MB of memory, and 1.0 MB are free"):
        measure_particles(volume, value=1, slab_planes=10)
    assert not volume.planes_read


def test_progress_ends_at_all_planes():
    seen = []
    measure_particles(CountedVolume(blobs()), value=1, slab_planes=10, progress=lambda *p: seen.append(p))
    assert seen == [(0, 23), (10, 23), (20, 23), (23, 23)]


@pytest.mark.parametrize("classes", [(), (256,), (-1,)])
def test_impossible_requests_are_refused(classes):
    with pytest.raises(UsageError, match="label values"):
        ObjectFinder(CountedVolume(blobs()), classes=classes)
    with pytest.raises(UsageError, match="slabs of 0"):
        ObjectFinder(CountedVolume(blobs()), classes=(1,), slab_planes=0)


def test_csv_says_what_was_measured(tmp_path):
    measured = measure_classes(CountedVolume(blobs(), voxel_size=(2.0, 2.0, 2.0)), values=[2])
    found = measured.particles[2]
    save_particles(measured, tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["particle"]) for row in rows] == list(range(1, len(found) + 1))
    assert [int(row["voxels"]) for row in rows] == found.voxels.tolist()
    for column, values in {
        "volume_nm3": found.volume,
        "equivalent_diameter_nm": found.diameter,
        "surface_nm2": found.surface,
        "centre_z_nm": found.centre[:, 0],
        "centre_x_nm": found.centre[:, 2],
        "nearest_neighbour_nm": found.neighbour,
    }.items():
        np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-5)
    assert [row["touches_border"] == "yes" for row in rows] == found.touches_border.tolist()
    with pytest.raises(DataError, match="exists already"):
        save_particles(measured, tmp_path / "p.csv")
    save_particles(measured, tmp_path / "p.json")
    (_, _, entry) = json.loads((tmp_path / "p.json").read_text())["classes"]
    for row, same in zip(rows, entry["list"], strict=True):
        assert [row["class"], row["voxels"], float(row["surface_nm2"])] == [
            same["class"], str(same["voxels"]), same["surface_nm2"]
        ]  # fmt: skip
    header = ["class", "particle", "voxels", "volume_voxel3"]
    save_particles(measure_classes(CountedVolume(blobs()), values=[2]), tmp_path / "p.csv", overwrite=True)
    assert (tmp_path / "p.csv").read_text().splitlines()[0].split(",")[:4] == header


@pytest.mark.parametrize(("name", "begins"), [("h.png", b"\x89PNG"), ("h.svg", b"<?xml"), ("h.PDF", b"%PDF")])
def test_histograms_are_what_their_name_says(tmp_path, name, begins):
    measured = measure_classes(CountedVolume(blobs()), values=[1])
    save_histograms(measured, tmp_path / name, title="sizes")
    assert (tmp_path / name).read_bytes().startswith(begins)
    with pytest.raises(UsageError, match=r"ends in \.png, \.svg or \.pdf"):
        save_histograms(measured, tmp_path / "h.jpg", title="sizes")
