"""Removing small objects: against scipy's labelling, hand-made neighbours; everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.labels.cleaning import clean
from gpu_tomoclass.volumes import ArrayVolume
from gpu_tomoclass.volumes.opening import create_volume, open_volume

CLASSES = (LabelClass(1, "rubber", (1, 2, 3)), LabelClass(2, "silica", (40, 50, 60)))


def blobs(shape=(19, 40, 37), *, seed=0) -> np.ndarray:
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.0)
    return np.digitize(rough, np.quantile(rough, (0.3, 0.5, 0.8))).astype(np.uint8)


def cleaned(labels, path, **options):
    """Labels after cleaning, and what was said of it."""
    result = clean(ArrayVolume(labels), path, overwrite=True, **options)
    return tifffile.imread(path).reshape(labels.shape), result


def small_objects(labels, min_size, values):
    """Mask of the voxels in objects of fewer voxels than min_size, by scipy."""
    small = np.zeros(labels.shape, bool)
    counts = {}
    for value in values:
        numbers, n = ndimage.label(labels == value, np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel(), minlength=n + 1)
        sizes[0] = min_size
        small |= (sizes < min_size)[numbers]
        counts[value] = int((sizes < min_size).sum())
    return small, counts


@pytest.mark.parametrize("slab_planes", [1, 3, 19])
@pytest.mark.parametrize("classes", [None, (2,), (0, 3)])
def test_exactly_the_small_objects_go(tmp_path, slab_planes, classes):
    labels = blobs()
    small, counts = small_objects(labels, 30, classes or (1, 2, 3))
    found, result = cleaned(labels, tmp_path / "c.tif", min_size=30, classes=classes, slab_planes=slab_planes)
    assert small.any()
    assert (~small & (labels > 0)).any()
    np.testing.assert_array_equal(found, np.where(small, 0, labels))
    assert result.objects == {value: n for value, n in counts.items() if n}
    assert result.voxels == (small & (labels > 0)).sum()


@pytest.mark.parametrize("slab_planes", [2, 5, None])
def test_filled_objects_get_the_value_at_most_of_their_faces(tmp_path, slab_planes):
    labels = blobs(seed=1)
    small, _ = small_objects(labels, 12, (1, 2, 3))
    found, _ = cleaned(labels, tmp_path / "c.tif", min_size=12, fill=True, slab_planes=slab_planes)
    np.testing.assert_array_equal(found[~small], labels[~small])
    faces = ndimage.generate_binary_structure(3, 1)
    checked = 0
    for value in (1, 2, 3):
        numbers, n = ndimage.label(labels == value, np.ones((3, 3, 3)))
        for i in range(1, n + 1):
            inside = numbers == i
            if not small[inside].all():
                continue
            assert len(np.unique(found[inside])) == 1
            votes = np.zeros(4, int)
            blocked = False
            for z, y, x in np.argwhere(inside):
                for dz, dy, dx in np.argwhere(faces) - 1:
                    p = (z + dz, y + dy, x + dx)
                    if all(0 <= c < m for c, m in zip(p, labels.shape, strict=True)) and not inside[p]:
                        blocked |= bool(small[p])
                        votes[labels[p]] += 1
            if not blocked:
                assert found[inside][0] == votes.argmax()
                checked += 1
    assert checked > 10


def test_neighbours_by_hand(tmp_path):
    labels = np.full((3, 7, 9), 2, np.uint8)
    labels[:, :, 5:] = 3
    labels[1, 3, 4] = 1  # 5 faces to class 2, 1 to class 3
    found, result = cleaned(labels, tmp_path / "c.tif", min_size=2, fill=True)
    assert found[1, 3, 4] == 2
    assert (result.objects, result.kept, result.voxels) == ({1: 1}, {2: 1, 3: 1}, 1)
    labels[1, 3, 4] = 2
    labels[1, 3, 4:6] = 1  # 5 and 5: the smaller value
    found, _ = cleaned(labels, tmp_path / "c.tif", min_size=3, fill=True)
    assert found[1, 3, 4:6].tolist() == [2, 2]


def test_a_speck_inside_a_speck_waits_for_the_outer_one(tmp_path):
    labels = np.full((7, 7, 7), 3, np.uint8)
    labels[2:5, 2:5, 2:5] = 2
    labels[3, 3, 3] = 1
    found, result = cleaned(labels, tmp_path / "c.tif", min_size=27, fill=True)
    assert (found == 3).all()
    assert result.voxels == 27


def test_unlabelled_surroundings_fill_with_0_and_a_volume_of_specks_too(tmp_path):
    labels = np.zeros((3, 5, 5), np.uint8)
    labels[1, 2, 2] = 4
    found, _ = cleaned(labels, tmp_path / "c.tif", min_size=2, fill=True)
    assert not found.any()
    labels[:] = np.arange(1, 26).reshape(5, 5)
    found, _ = cleaned(labels, tmp_path / "c.tif", min_size=100, fill=True, slab_planes=1)
    assert not found.any()


def test_holes_of_0_are_filled_where_0_is_asked_for(tmp_path):
    labels = np.full((5, 6, 7), 2, np.uint8)
    labels[2, 3, 3] = 0
    found, _ = cleaned(labels, tmp_path / "c.tif", min_size=5, fill=True, classes=(0,))
    assert (found == 2).all()


@pytest.mark.parametrize("suffix", ["tif", "ome.zarr", "mrc"])
def test_classes_metadata_and_voxel_size_stay(tmp_path, suffix):
    source = tmp_path / f"labels.{suffix}"
    with create_volume(
        source, shape=(3, 8, 9), dtype=np.uint8, voxel_size=(2.0, 1.5, 1.5), classes=CLASSES, metadata={"made_by": "x"}
    ) as writer:
        for z in range(3):
            writer.write_plane(z, np.full((8, 9), 1 + (z == 1), np.uint8))
    with open_volume(source) as labels:
        with pytest.raises(UsageError, match="is the input"):
            clean(labels, source, min_size=5, overwrite=True)
        result = clean(labels, tmp_path / f"clean.{suffix}", min_size=73)
    assert result.objects == {1: 2, 2: 1}
    with open_volume(tmp_path / f"clean.{suffix}") as found:
        assert found.classes == CLASSES
        assert found.voxel_size == pytest.approx((2.0, 1.5, 1.5))
        assert found.metadata["made_by"] == "x"
        assert found.metadata["cleaned"]["min_size"] == 73
        assert not any(plane.any() for _, plane in found.planes())
    with open_volume(source) as labels, pytest.raises(DataError, match="exists already"):
        clean(labels, tmp_path / f"clean.{suffix}", min_size=5)


def test_progress_covers_both_passes_and_a_size_below_1_is_refused(tmp_path):
    seen = []
    clean(
        ArrayVolume(blobs()), tmp_path / "c.tif", min_size=3, slab_planes=10, progress=lambda *step: seen.append(step)
    )
    assert seen == [(n, 38) for n in (0, 10, 19, 19, 29, 38)]
    with pytest.raises(UsageError, match="use 1 or more"):
        clean(ArrayVolume(blobs()), tmp_path / "d.tif", min_size=0)
