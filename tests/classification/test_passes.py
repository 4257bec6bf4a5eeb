"""Planes in passes: where memory does not hold the features of a plane, the labels are those of the run that has it."""

from itertools import pairwise

import numpy as np
import pytest
import zarr

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification import passes as module
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.needs import within_memory
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.passes import Passes, plan_passes
from gpu_tomoclass.classification.plan import make_plan
from gpu_tomoclass.classification.predict_arrays import predict
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (2, 90, 83)
DEVICE = NativeDevice()
BANK = FeatureBank.create(("kuwahara", "hessian", "structure", "membrane_projections", "neighbors"), sigma_max=2)
DIVIDED = ("gabor", "anisotropic_diffusion", "structure")


@pytest.fixture(scope="module")
def planes():
    random = np.random.default_rng(8)
    array = random.integers(0, 3000, SHAPE).astype(np.uint16)
    array[:, 20:60, 30:70] += 900
    return array


@pytest.fixture(scope="module")
def model(planes):
    y, x = (a.ravel() for a in np.mgrid[0 : SHAPE[1] : 4, 0 : SHAPE[2] : 4])
    inside = (y >= 20) & (y < 60) & (x >= 30) & (x < 70)
    annotation = Annotation.from_voxels(
        np.ones(y.size, int), y, x, 1 + inside, shape=SHAPE, classes=default_classes(["out", "in"])
    )
    return train(open_volume(planes), annotation, bank=BANK, n_trees=40, device=DEVICE).model


def passes_of(model, room, *, depth=SHAPE[0]):
    place = Place.whole(1)
    return plan_passes(Classifier(model, DEVICE), SHAPE[1:], place=place, room=room)


@pytest.mark.parametrize("device", [DEVICE, NumpyDevice()], ids=["native", "numpy"])
def test_the_parts_of_a_block_have_its_very_values(planes, device, monkeypatch):
    """Gabor from bands of 4 rows, whose sums are those of the whole plane; one of them is cut off by the edge."""
    monkeypatch.setattr("gpu_tomoclass.features.accelerated.gabor.CPU_BAND_RESPONSES", 1)
    divided = [block for block in FeatureBank.create(DIVIDED, sigma_max=1).blocks if len(block.parts) > 1]
    assert tuple(block.family for block in divided) == DIVIDED
    plane = planes[:1].astype(np.float32)[:, :87, :61]
    for block in divided:
        whole = np.array(FeatureEngine(device, [block]).compute(plane))
        parts = block.parts
        assert [(part.start, part.stop) for part in parts[1:]] == [
            (before.stop, before.stop + len(part.channels)) for before, part in pairwise(parts)
        ]
        assert sum((part.channels for part in parts), ()) == block.channels
        np.testing.assert_array_equal(
            np.array(FeatureEngine(device, parts).compute(plane)), whole, err_msg=block.family
        )


@pytest.mark.parametrize(
    ("by", "probabilities", "uncertainty"), [("ranks", "float32", "entropy"), ("values", "uint8", "margin")]
)
def test_no_output_depends_on_passes(planes, model, tmp_path, by, probabilities, uncertainty, monkeypatch):
    """In one pass, and in as many as little memory asks for; pixels in pieces."""
    monkeypatch.setattr(module, "PIXELS", 2048)  # of 7470
    if by == "values":
        monkeypatch.setattr("gpu_tomoclass.forest.predict_on_device.ranked_nodes", lambda placed: None)
    room = 100 * SHAPE[1] * SHAPE[2] + (10**6 if by == "values" else 0)
    passes = passes_of(model, room)
    assert isinstance(passes, Passes)
    assert len(passes.groups) >= 3
    assert passes.n_bytes <= room
    monkeypatch.setattr("gpu_tomoclass.classification.classify_volume.within_memory", lambda *a, **k: (DEVICE, p))
    for p in (None, passes):
        name = f"{p is None}.ome.zarr"
        result = classify(planes, model, output=tmp_path / name, probabilities=probabilities, uncertainty=uncertainty)
        assert any("passes" in note for note in result.notes) == (p is not None)
    for product in ("", "_probabilities", "_uncertainty"):
        whole, in_passes = (zarr.open(tmp_path / f"{w}{product}.ome.zarr")["0"][:] for w in (True, False))
        np.testing.assert_array_equal(in_passes, whole, err_msg=product)


def test_a_limit_too_small_for_one_thread_leads_to_passes(planes, model, tmp_path, monkeypatch):
    """The plan, the run and the prediction of arrays agree on them; without a limit what is free is one."""
    device, volume = DEVICE, open_volume(planes)
    monkeypatch.setattr("gpu_tomoclass.classification.needs.resident_bytes", lambda: 10**8)  # else it grows meanwhile
    whole = make_plan(volume, model, device.with_threads(1), planes=(0, 1), measure=False)
    limit = whole.host_bytes - 2_000_000
    plan = make_plan(volume, model, device, output=tmp_path / "l.tif", memory_limit=limit, overwrite=True)
    assert (plan.n_threads, plan.slab_planes, whole.n_passes) == (1, 1, 1)
    assert plan.n_passes > 1
    assert plan.host_bytes <= limit
    assert plan.seconds > 0
    monkeypatch.setattr(module, "PIXELS", 4096)
    result = classify(volume, model, output=tmp_path / "l.tif", device=device, memory_limit=limit)
    assert any("is computed in" in note and "passes" in note for note in result.notes)
    with open_volume(tmp_path / "l.tif") as labels:
        found = np.stack([plane for _, plane in labels.planes()])
    np.testing.assert_array_equal(found, predict(model, planes, device=device).labels)
    assert list((tmp_path).iterdir()) == [tmp_path / "l.tif"]
    monkeypatch.setattr("gpu_tomoclass.classification.needs.available_bytes", lambda: 8_000_000)
    assert within_memory(None, volume, model, device, products=ProductOptions())[1] is not None
    with pytest.raises(ResourceError, match=r"one thread needs .*, in passes .*; the limit is 1.0 MB"):
        within_memory(1_000_000, volume, model, device, products=ProductOptions())
    with pytest.raises(ResourceError, match=r"one thread needs .* the limit is 1.0 MB"):
        within_memory(1_000_000, volume, model, NumpyDevice(), products=ProductOptions())


def test_a_full_disk_is_met_before_the_first_plane(planes, model, tmp_path, monkeypatch):
    passes = passes_of(model, 10**7)
    monkeypatch.setattr("gpu_tomoclass.classification.classify_volume.within_memory", lambda *a, **k: (DEVICE, passes))
    monkeypatch.setattr(module, "free_bytes", lambda folder: 1000)
    with pytest.raises(ResourceError, match=r"between them .* are kept on disk, 1.0 KB are free"):
        classify(planes, model, output=tmp_path / "l.tif")
    assert not list(tmp_path.iterdir())
