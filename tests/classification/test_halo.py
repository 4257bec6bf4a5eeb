"""Features that look across planes: slabs bring their halo, and labels do not depend on how the planes are run."""

import dataclasses

import across_planes
import numpy as np
import pytest
from memory_volume import ArrayVolume
from small_volume import digest

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.backoff import influenced
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.plan import make_plan
from gpu_tomoclass.classification.preview_plane import preview
from gpu_tomoclass.device import NumpyDevice, choose_device
from gpu_tomoclass.errors import DataError, StoppedError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.cache import FeatureCache, block_values
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.prepare import prepare_slab
from gpu_tomoclass.features.reference.volume_source import Aspect
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.training import check_drift
from gpu_tomoclass.training.selection import measure_costs, slab_to_time
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (11, 18, 16)
DEVICES = ("numpy", "native")


@pytest.fixture(scope="module", autouse=True)
def family():
    with pytest.MonkeyPatch.context() as patch:
        across_planes.register(patch)
        yield


@pytest.fixture(scope="module")
def bank():
    return FeatureBank.create(["gaussian_blur", across_planes.NAME], sigma_max=2)


@pytest.fixture(scope="module")
def array():
    return np.random.default_rng(5).integers(0, 1000, SHAPE).astype(np.uint16)


@pytest.fixture(scope="module")
def path(array, tmp_path_factory):
    found = tmp_path_factory.mktemp("halo") / "volume.tif"
    with create_volume(found, shape=SHAPE, dtype=array.dtype, voxel_size=(1.0, 1.0, 1.0)) as writer:
        for z, plane in enumerate(array):
            writer.write_plane(z, plane)
    return found


@pytest.fixture(scope="module")
def model(path, bank, array):
    """Classes by the sum of five planes, which no feature of one plane knows."""
    z, y, x = (a.ravel() for a in np.meshgrid([0, 4, 9], np.arange(18), np.arange(16), indexing="ij"))
    sums = across_planes.expected(array, radius=2)[z, y, x]
    classes = default_classes(["low", "high"])
    annotation = Annotation.from_voxels(z, y, x, 1 + (sums > 2500), shape=SHAPE, classes=classes)
    with open_volume(path) as volume:
        found = train(volume, annotation, bank=bank, n_trees=12, device=NumpyDevice()).model
    assert across_planes.NAME in {block.family for block in Classifier(found, NumpyDevice()).blocks}
    return found


@pytest.fixture(scope="module")
def labels(path, model, tmp_path_factory):
    """Folder with the outputs of an ordinary run."""
    folder = tmp_path_factory.mktemp("whole")
    run(path, model, folder / "labels.tif", device=NumpyDevice(threads=1))
    return folder


def run(path, model, output, **options):
    with open_volume(path) as volume:
        return classify(volume, model, output=output, probabilities="float32", **options)


def outputs(folder):
    return {k: v for path in sorted(folder.iterdir()) for k, v in digest(path).items()}


def test_the_bank_knows_its_halo(bank):
    assert bank.z_reach() == 2
    assert bank.z_reach(Aspect(0.5)) == 1  # voxels twice as long along z
    assert FeatureBank.create("all").z_reach() == 0


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 11), (3, 5), (10, 11)])
def test_the_engine_computes_with_the_halo_and_returns_the_core(array, bank, name, start, stop):
    """The right values: SciPy on the whole volume for what looks across planes, plane by plane for the rest."""
    slab = prepare_slab(ArrayVolume(array), start, stop, halo=2, scale=IntensityScale())
    engine = FeatureEngine(choose_device(name), bank.blocks)
    found = engine.device.numpy(engine.compute(slab.images, place=slab.place))
    assert found.shape == (bank.n_channels, stop - start, *SHAPE[1:])
    narrow = FeatureBank.create(["gaussian_blur"], sigma_max=2)
    for block in bank.blocks:
        values = found[block.start : block.stop]
        if block.family == across_planes.NAME:
            right = across_planes.expected(array, radius=block.sigma)[start:stop]
            np.testing.assert_array_equal(values[0], right)
        else:
            plane = np.stack([narrow.compute(p) for p in array[start:stop]], axis=1)
            np.testing.assert_array_equal(values, plane[list(narrow.channels).index(block.channels[0])][np.newaxis])


def test_a_halo_that_is_too_small_is_an_error_not_a_wrong_value(array, bank):
    slab = prepare_slab(ArrayVolume(array), 4, 6, halo=1, scale=IntensityScale())
    with pytest.raises(ValueError, match="planes 2 to 7 are needed of a slab from 3 to 6"):
        FeatureEngine(NumpyDevice(), bank.blocks).compute(slab.images, place=slab.place)
    with pytest.raises(UsageError, match="box_across looks across planes"):
        bank.compute(array[0])


def test_marked_planes_are_trained_with_their_halo(path, model, labels, array):
    """Labels are those of the forest on features of the whole volume."""
    channels = np.concatenate(
        [np.stack([model.bank.compute(p, blocks=[b]) for p in array], axis=1) for b in model.bank.blocks[:3]]
        + [across_planes.expected(array, radius=r)[np.newaxis] for r in (1, 2)]
    )
    order = [i for b in model.bank.blocks for i in range(b.start, b.stop)]
    assert order == list(range(5))
    assert [b.family for b in model.bank.blocks[3:]] == [across_planes.NAME] * 2
    right = predict_probabilities(model.forest, channels.reshape(5, -1)).reshape(2, *SHAPE)
    with open_volume(labels / "labels.tif") as found:
        np.testing.assert_array_equal(np.stack([p for _, p in found.planes()]), 1 + np.argmax(right, axis=0))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(("threads", "slab_planes"), [(1, 1), (1, 3), (2, 1), (3, 4), (2, 11)])
def test_labels_do_not_depend_on_slabs_or_threads(path, model, labels, tmp_path, name, threads, slab_planes):
    device = choose_device(name, threads=threads)
    run(path, model, tmp_path / "labels.tif", device=device, slab_planes=slab_planes)
    assert outputs(tmp_path) == outputs(labels)


@pytest.mark.parametrize("after", [1, 3, 5])
def test_labels_do_not_depend_on_interruption(path, model, labels, tmp_path, after):
    done = 0

    def progress(n, total):
        nonlocal done
        done = n

    options = {"device": NumpyDevice(threads=1), "slab_planes": 1}
    with pytest.raises(StoppedError):
        run(path, model, tmp_path / "labels.tif", progress=progress, should_stop=lambda: done >= after, **options)
    result = run(path, model, tmp_path / "labels.tif", device=NumpyDevice(threads=2), slab_planes=3)
    assert result.n_resumed >= after
    assert outputs(tmp_path) == outputs(labels)


def test_a_range_of_planes_sees_those_around_it(path, model, labels, tmp_path):
    run(path, model, tmp_path / "some.tif", planes=(3, 7), device=NumpyDevice())
    with open_volume(tmp_path / "some.tif") as some, open_volume(labels / "labels.tif") as whole:
        for z in range(4):
            np.testing.assert_array_equal(some.plane(z), whole.plane(3 + z))


def test_a_preview_is_the_plane_of_the_run(path, model, labels, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    with open_volume(path) as volume, open_volume(labels / "labels.tif") as whole:
        for z in (0, 5):
            for _ in range(2):  # computed, then from the cache
                found = preview(model, volume, plane=z, cache=cache, device=NumpyDevice())
                np.testing.assert_array_equal(found.labels, whole.plane(z))
    assert cache.hits == cache.misses > 0


def test_the_cache_sees_a_change_in_the_halo(array, bank, tmp_path):
    cache = FeatureCache(tmp_path)
    engine = FeatureEngine(NumpyDevice(), bank.blocks)

    def misses(changed):
        slab = prepare_slab(ArrayVolume(changed), 5, 6, halo=2, scale=IntensityScale())
        before = cache.misses
        values = {block.key: np.array(v) for block, v in block_values(engine, slab, cache=cache)}
        for block in bank.blocks[3:]:
            right = across_planes.expected(changed, radius=block.sigma)[5]
            np.testing.assert_array_equal(values[block.key][0], right)
        return cache.misses - before

    assert misses(array) == len(bank.blocks)
    assert misses(array) == 0
    for z, n in ((2, 0), (3, 1), (4, 2), (6, 2), (7, 1), (8, 0)):  # blocks that look at plane z from plane 5
        other = array.copy()
        other[z, 3, 4] += 1
        assert misses(other) == n, z
    assert misses(array[1:]) > 0  # other planes around it


def test_the_mask_grows_along_z(path, model):
    """A filled voxel unlabels what looks at it, across planes too; its own reach there, not that along x."""
    volume = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    volume[5, 9, 8] = np.nan
    slab = prepare_slab(ArrayVolume(volume), 0, 11, halo=2, scale=IntensityScale(), nan="mask")
    bank = FeatureBank.create([across_planes.NAME], sigma_max=2)
    found = influenced(slab, bank.blocks)
    z, y, x = np.nonzero(found)
    assert (set(z), set(y), set(x)) == (set(range(3, 8)), set(range(7, 12)), set(range(6, 11)))
    part = influenced(slab.part(6, 9, halo=2), bank.blocks)
    np.testing.assert_array_equal(part, found[6:9])


def test_a_plane_that_cannot_be_read_is_neither_labelled_nor_zeros_to_its_neighbours(model, array, tmp_path):
    class Broken(ArrayVolume):
        def _read_plane(self, z):
            if z == 5:
                raise DataError("plane 5 is damaged", where=self.path)
            return super()._read_plane(z)

    found = {}
    for slab_planes in (1, 4):
        volume = Broken(array, allow_missing_planes=True, voxel_size=(1.0, 1.0, 1.0))
        output = tmp_path / f"{slab_planes}.tif"
        classify(volume, model, output=output, device=NumpyDevice(threads=1), slab_planes=slab_planes)
        with open_volume(output) as labels:
            found[slab_planes] = np.stack([p for _, p in labels.planes()])
    np.testing.assert_array_equal(found[1], found[4])
    assert not found[1][5].any()
    assert found[1][[4, 6]].all()
    repeated = array.copy()
    repeated[5] = array[4]  # the nearest, the one before where two are as near
    classify(ArrayVolume(repeated, voxel_size=(1.0, 1.0, 1.0)), model, output=tmp_path / "r.tif", device=NumpyDevice())
    with open_volume(tmp_path / "r.tif") as labels:
        for z in (3, 4, 6, 7):
            np.testing.assert_array_equal(found[1][z], labels.plane(z))


def test_plan_drift_and_costs_take_the_halo_from_the_bank(path, model):
    with open_volume(path) as volume:
        planned = make_plan(volume, model, NumpyDevice(), measure=True)
        assert planned.seconds_per_plane > 0
        found = check_drift(model, volume, device=NumpyDevice(), n_planes=3)
        # Planes without their neighbours have other distributions. The verdict is not asked for: of noise, the map that
        # would adapt the model says nothing.
        assert found.drift < 0.03
        assert found.trained_margin - found.mean_margin < 0.03
        slab = slab_to_time(model.bank, volume, 4, scale=model.intensity)
        assert (slab.place.first, slab.place.n_planes, slab.place.n_wanted) == (2, 9, 7)
        assert set(measure_costs(model.bank, slab, device=NumpyDevice())) == set(model.bank.families)


def test_a_place_that_cannot_be_is_refused():
    place = Place.with_halo(2, 4, depth=10, halo=3)
    assert (place.first, place.n_planes, place.wanted) == (0, 7, slice(2, 4))
    assert place.part(3, 4, halo=1) == Place(2, 3, 10, 3, 4)
    for wrong in ({"start": 4}, {"stop": 8}, {"n_planes": 11}, {"first": -1}):
        with pytest.raises(ValueError, match="cannot lie like this"):
            dataclasses.replace(place, **wrong)
