"""``classify --forest-engine nvforest``: another program walks the same trees, and the labels say so."""

import sys

import numpy as np
import nvforest_stand_in
import pytest
from late_gpu import late_gpu

from gpu_tomoclass.classification import classify_volume, predict
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.cli import run
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.model import save_model
from gpu_tomoclass.volumes import open_volume


@pytest.fixture
def nvforest(monkeypatch):
    module = nvforest_stand_in.module()
    monkeypatch.setitem(sys.modules, "nvforest", module)
    return module


def labels_of(path):
    with open_volume(path) as volume:
        return np.stack([plane for _, plane in volume.planes()]), volume.metadata


def assert_same_opinion(labels, expected):
    """But for pixels whose two best classes are equally likely: votes are summed in another order and type."""
    best = np.sort(expected.probabilities, axis=0)
    differs = labels != expected.labels
    assert not (differs & (best[-1] - best[-2] > 1e-5)).any()
    assert differs.mean() < 0.01


@pytest.mark.parametrize("device", ["numpy", "native"])
def test_labels_are_those_of_the_kernels(nvforest, sample_path, sample_model, tmp_path, device):
    result = classify(sample_path, sample_model, output=tmp_path / "o.tif", device=device, forest_engine="nvforest")
    labels, metadata = labels_of(result.path)
    assert_same_opinion(labels, predict(sample_model, sample_path, device="numpy"))
    assert metadata["settings"]["forest_engine"] == "nvforest 26.10.0"
    assert nvforest.asked == [("cpu", None)]  # once, for all threads


def test_on_a_gpu(nvforest, sample_path, sample_model, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_tomoclass.classification.on_device.SECOND_PIXELS", 100)  # several portions
    with late_gpu("mixed", 1) as (device, _):
        result = classify(sample_path, sample_model, output=tmp_path / "o.tif", device=device, forest_engine="nvforest")
    assert_same_opinion(labels_of(result.path)[0], predict(sample_model, sample_path, device="numpy"))
    assert nvforest.asked == [("gpu", 0)]


def test_our_own_walk_is_not_mentioned(sample_path, sample_model, tmp_path):
    result = classify(sample_path, sample_model, output=tmp_path / "o.tif", device="numpy")
    assert "forest_engine" not in labels_of(result.path)[1]["settings"]


def test_without_nvforest_nothing_is_begun(monkeypatch, sample_path, sample_model, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "nvforest", None)
    save_model(sample_model, tmp_path / "m.tcm")
    arguments = ["classify", str(sample_path), str(tmp_path / "m.tcm"), "-o", str(tmp_path / "o.tif")]
    assert run([*arguments, "--device", "numpy", "-q", "--forest-engine", "nvforest"]) == 5
    assert "nvForest is not installed; pip install" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.tcm"]


def test_a_run_goes_on_with_the_same_engine_only(nvforest, sample_path, sample_model, tmp_path):
    """Its labels may differ, so an interrupted run of the other engine is another run."""
    output = tmp_path / "o.tif"
    stops = iter([False, True, True, True, True])
    with pytest.raises(Exception, match="stopped"):
        classify(
            sample_path, sample_model, output=output, device=choose_device("native", threads=1), slab_planes=1,
            should_stop=lambda: next(stops, True),
        )  # fmt: skip
    with pytest.raises(Exception, match="forest_engine"):
        classify(sample_path, sample_model, output=output, device="native", forest_engine="nvforest")


def test_memory_for_all_features_is_needed(nvforest, sample_path, sample_model, tmp_path, monkeypatch):
    monkeypatch.setattr(classify_volume, "within_memory", lambda *_, **__: (choose_device("native"), object()))
    with pytest.raises(ResourceError, match="nvforest wants all of them at once"):
        classify(sample_path, sample_model, output=tmp_path / "o.tif", forest_engine="nvforest")
