"""Features that look across planes, from training to labels: halos must not show in any result."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_volume import ArrayVolume

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.backoff import influenced
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.plan import make_plan
from gpu_tomoclass.classification.preview_plane import preview
from gpu_tomoclass.classification.slab import UNLABELLED
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import StoppedError
from gpu_tomoclass.features import Aspect
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.cache import FeatureCache
from gpu_tomoclass.features.feature_file import write_features
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.prepare import PreparedPlane, PreparedSlab
from gpu_tomoclass.model.model import Model, save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (13, 14, 15)
VOXEL = (2.0, 1.0, 1.0)  # nm; half the sigma along z
BANK = FeatureBank.create(["mean", "structure_3d", "median_3d", "gaussian_blur_3d"], sigma_max=2.0)


@pytest.fixture(scope="module")
def volume_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two materials that one plane does not tell apart: noise, smooth along z in a box."""
    random = np.random.default_rng(3)
    values = random.integers(0, 3000, SHAPE)
    values[:, 4:11, 4:11] = random.integers(0, 3000, SHAPE[1:])[4:11, 4:11]
    path = tmp_path_factory.mktemp("across") / "volume.tif"
    with create_volume(path, shape=SHAPE, dtype=np.dtype(np.uint16), voxel_size=VOXEL) as writer:
        for z, plane in enumerate(values.astype(np.uint16)):
            writer.write_plane(z, plane)
    return path


def annotation() -> Annotation:
    z, y, x = (a.ravel() for a in np.meshgrid([2, 7], np.arange(14), np.arange(15), indexing="ij"))
    inside = (y >= 4) & (y < 11) & (x >= 4) & (x < 11)
    return Annotation.from_voxels(z, y, x, 1 + inside, shape=SHAPE, classes=default_classes(["noise", "columns"]))


@pytest.fixture(scope="module")
def model(volume_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Read back from its file."""
    with open_volume(volume_path) as volume:
        trained = train(volume, annotation(), bank=BANK, n_trees=6, max_depth=5, device=NumpyDevice()).model
    path = tmp_path_factory.mktemp("model") / "model.tcm"
    save_model(trained, path)
    return load_model(path)


@pytest.fixture(scope="module")
def expected(volume_path: Path, model: Model) -> np.ndarray:
    """Labels from the features of the whole volume at once."""
    with open_volume(volume_path) as volume:
        values = np.stack([plane for _, plane in volume.planes()]).astype(np.float32)
    classifier = Classifier(model, NumpyDevice())
    labels, _ = classifier.classify(values, place=Place.whole(len(values), aspect=Aspect(0.5)))
    return labels


def classified(path: Path, model: Model, *, stops: tuple[int, ...] = (), **options: object) -> np.ndarray:
    """Labels after interruptions once so many planes are done."""
    with tempfile.TemporaryDirectory() as folder, open_volume(path) as volume:
        output = Path(folder) / "labels.tif"
        for limit in (*stops, None):
            done = [0]

            def progress(n: int, total: int, done: list[int] = done) -> None:
                done[0] = n

            def should_stop(limit: int | None = limit, done: list[int] = done) -> bool:
                return limit is not None and done[0] >= limit

            try:
                classify(volume, model, output=output, should_stop=should_stop, progress=progress, **options)  # type: ignore[arg-type]
                break
            except StoppedError:
                continue
        with open_volume(output) as labels:
            return np.stack([plane for _, plane in labels.planes()])


@settings(max_examples=12, deadline=None)
@given(
    slab_planes=st.none() | st.integers(1, 14),
    threads=st.integers(1, 3),
    stops=st.lists(st.integers(0, 12), max_size=2),
    native=st.booleans(),
)
def test_labels_do_not_depend_on_how_they_are_run(
    volume_path: Path,
    model: Model,
    expected: np.ndarray,
    slab_planes: int | None,
    threads: int,
    stops: list[int],
    native: bool,
) -> None:
    device = NativeDevice(threads=threads) if native else NumpyDevice(threads=threads)
    labels = classified(volume_path, model, device=device, slab_planes=slab_planes, stops=tuple(stops))
    np.testing.assert_array_equal(labels, expected)


def test_planes_of_a_range_see_those_around_it(volume_path: Path, model: Model, expected: np.ndarray) -> None:
    labels = classified(volume_path, model, device=NativeDevice(threads=1), planes=(5, 8))
    np.testing.assert_array_equal(labels, expected[5:8])


def test_preview_with_and_without_cache_is_the_plane_of_the_volume(
    tmp_path: Path, volume_path: Path, model: Model, expected: np.ndarray
) -> None:
    cache = FeatureCache(tmp_path)
    with open_volume(volume_path) as volume:
        for given_cache in (None, cache, cache):
            found = preview(model, volume, plane=6, cache=given_cache, device=NumpyDevice())
            np.testing.assert_array_equal(found.labels, expected[6])
    assert cache.hits == cache.misses > 0


def test_the_cache_notices_a_changed_neighbour_and_another_voxel_size(tmp_path: Path, model: Model) -> None:
    """But not a plane out of reach, nor does a feature of the plane alone."""
    values = np.random.default_rng(1).integers(0, 9, (41, 6, 7)).astype(np.uint16)
    cache = FeatureCache(tmp_path)

    def misses(volume: np.ndarray, voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> int:
        before = cache.misses
        preview(model, ArrayVolume(volume, voxel_size=voxel_size), plane=20, cache=cache, force=True)
        return cache.misses - before

    first = misses(values)
    across = sum(block.dimensions == 3 for block in Classifier(model, NumpyDevice()).blocks)
    assert first > across > 0
    assert misses(values) == 0
    far, near = values.copy(), values.copy()
    far[0] += 1
    near[19] += 1
    assert misses(near) == across
    assert misses(values, (2.0, 1.0, 1.0)) == across
    assert misses(far) == 0


def test_training_with_a_cache_gives_the_same_rows(tmp_path: Path, volume_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    options = {"bank": BANK, "n_trees": 2, "device": NumpyDevice()}
    with open_volume(volume_path) as volume:
        tables = [train(volume, annotation(), cache=c, **options).table.values for c in (None, cache, cache)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(tables[1], tables[0])
    np.testing.assert_array_equal(tables[2], tables[0])
    assert cache.hits


def test_rows_of_training_are_those_of_the_volume(volume_path: Path) -> None:
    with open_volume(volume_path) as volume:
        values = np.stack([plane for _, plane in volume.planes()])
        rows = train(volume, annotation(), bank=BANK, n_trees=2, device=NumpyDevice()).table.values
    whole = BANK.compute_volume(values, aspect=Aspect(0.5))
    np.testing.assert_array_equal(rows, whole[:, [2, 7]].reshape(BANK.n_channels, -1).T)


def test_every_plane_of_features_as_a_file(tmp_path: Path, volume_path: Path) -> None:
    with open_volume(volume_path) as volume:
        values = np.stack([plane for _, plane in volume.planes()])
        for name, plane in (("all.tif", None), ("one.tif", 4)):
            result = write_features(volume, BANK, plane=plane, output=tmp_path / name, device=NumpyDevice())
            assert result.n_planes == (SHAPE[0] if plane is None else 1)
    whole = BANK.compute_volume(values, aspect=Aspect(0.5))
    for channel in (0, 1, BANK.n_channels - 1):
        with open_volume(tmp_path / "all.tif", channel=channel) as found:
            np.testing.assert_array_equal(np.stack([p for _, p in found.planes()]), whole[channel])
            assert found.voxel_size == VOXEL
        with open_volume(tmp_path / "one.tif", channel=channel) as found:
            np.testing.assert_array_equal(found.plane(0), whole[channel, 4])


def test_what_looks_at_a_filled_voxel_is_masked_along_z_too() -> None:
    filled = np.zeros((9, 9), bool)
    filled[4, 4] = True
    planes = [PreparedPlane(np.zeros((9, 9), np.float32), filled if z == 4 else None) for z in range(9)]
    slab = PreparedSlab(planes, Place.whole(9, aspect=Aspect(0.5)))
    bank = FeatureBank.create(["mean", "minimum_3d"], sigmas={"mean": (1.0,), "minimum_3d": (2.0,)})
    mask = influenced(slab, bank.blocks)
    expected = np.zeros((9, 9, 9), bool)
    expected[3:6, 2:7, 2:7] = True  # a ball of radius 2 whose radius along z is 1
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(influenced(slab.part(3, 5, halo=1), bank.blocks), expected[3:5])


def test_masked_labels_do_not_depend_on_slabs(tmp_path: Path, model: Model) -> None:
    values = np.random.default_rng(2).normal(size=(25, 8, 9)).astype(np.float32)
    values[12, 3, 4] = np.nan
    volume = ArrayVolume(values, voxel_size=VOXEL)
    model = replace(model, training={k: v for k, v in model.training.items() if k != "dtype"})  # for any kind of values
    options = {"nan": "mask", "force": True, "intensity": "none", "device": NumpyDevice()}
    found = []
    for slab_planes in (1, 4, 25):
        output = tmp_path / f"{slab_planes}.tif"
        classify(volume, model, output=output, slab_planes=slab_planes, **options)  # type: ignore[arg-type]
        with open_volume(output) as labels:
            found.append(np.stack([plane for _, plane in labels.planes()]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    masked = (found[0] == UNLABELLED).any(axis=(1, 2))
    assert masked[12]
    assert 1 < masked.sum() < 25


def test_a_plan_asks_for_more_than_a_plane_and_holds(volume_path: Path, model: Model) -> None:
    device = NativeDevice(threads=2)
    with open_volume(volume_path) as volume:
        plan = make_plan(volume, model, device, measure=False)
    assert plan.n_threads == 1  # one slab after the other, each with all threads
    assert plan.slab_planes == SHAPE[0]


def test_a_gpu_that_is_not_here_has_a_time_for_them(volume_path: Path, model: Model) -> None:
    with open_volume(volume_path) as volume:
        time = make_plan(volume, model, gpu="h100").predicted
    assert time is not None
    assert time.kernels > 0
    said = " ".join(time.assumptions)
    assert "families across planes each for itself" in said
    assert time.assumptions[-1].endswith("dearest family: mean")  # a family of planes that the paper does not use
