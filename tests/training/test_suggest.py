"""Places to mark next: where the forest hesitates, of which there is much, unlike what is marked; files to open."""

import csv
import re

import numpy as np
import pytest
from click.testing import CliRunner
from roifile import ROI_TYPE, roiread

from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.cli import cli
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.model import save_model
from gpu_tomoclass.training.suggest_places import suggest
from gpu_tomoclass.training.suggestion_files import save_suggestions
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes import create_volume

DEVICE = NumpyDevice(threads=1)
SHAPE = (4, 48, 48)


@pytest.fixture(scope="module")
def volume():
    """Dark and bright, and between them by half two kinds that nobody has marked: smooth grey, and a checkerboard."""
    array = np.random.default_rng(0).normal(10000, 500, SHAPE)
    array[:, :, 12:24] += 20000
    array[:, :24, 24:] += 10000
    array[:, 24:, 24:] += 20000 * (np.indices((24, 24)).sum(axis=0) % 2)
    return array.astype(np.uint16)


@pytest.fixture(scope="module")
def strokes():
    z, y, x = (a.ravel() for a in np.meshgrid([0, 2], np.arange(4, 44), [4, 5, 6, 16, 17, 18], indexing="ij"))
    return Annotation.from_voxels(z, y, x, 1 + (x > 10), shape=SHAPE, classes=default_classes(["dark", "bright"]))


@pytest.fixture(scope="module")
def model(volume, strokes):
    bank = FeatureBank.create(["gaussian_blur", "variance"], sigma_max=4)
    return train(volume_of(volume), strokes, bank=bank, n_trees=20, device=DEVICE).model


def volume_of(array):
    from gpu_tomoclass.volumes import ArrayVolume

    return ArrayVolume(array, voxel_size=(1.0, 1.0, 1.0))


def test_what_is_unlike_all_marks_comes_first_each_kind_once(volume, strokes, model):
    found = suggest(model, volume, strokes, n=2, patch=12, device=DEVICE)
    assert all(s.x >= 24 for s in found), "the rest is marked"
    assert {s.y >= 24 for s in found} == {True, False}, "both kinds"
    assert all(0 < s.alike < 1 and 0 < s.novelty <= 1 for s in found)
    assert all(s.image.shape == s.labels.shape == (12, 12) for s in found)
    np.testing.assert_array_equal(found[0].image, volume[found[0].z, found[0].y :, found[0].x :][:12, :12])
    assert {c.name for c in found[0].classes} == {"dark", "bright"}


def test_marked_patches_are_not_suggested_again(volume, model):
    z, y, x = (a.ravel() for a in np.meshgrid(np.arange(4), np.arange(48), np.arange(24, 48), indexing="ij"))
    label = 1 + (x + y) % 2
    everything = Annotation.from_voxels(z, y, x, label, shape=SHAPE, classes=default_classes("ab"))
    assert all(s.x < 24 for s in suggest(model, volume, everything, n=8, patch=12, device=DEVICE))
    only = suggest(model, volume, None, n=99, patch=12, crop=":,:24,24:", n_planes=2, device=DEVICE)
    assert len(only) == 2 * 4
    assert all(s.y < 24 <= s.x for s in only)


def test_planes_are_ranked_by_what_is_on_them(volume, model):
    array = np.full(SHAPE, 10000, np.uint16)
    array[2] = volume[2]
    (found,) = suggest(model, array, n=1, whole_planes=True, patch=12, device=DEVICE)
    assert (found.z, found.y, found.x, found.height, found.width) == (2, 0, 0, 48, 48)


def test_files_are_what_fiji_and_tables_read(volume, strokes, model, tmp_path):
    found = suggest(model, volume, strokes, n=3, patch=12, device=DEVICE)
    paths = save_suggestions(found, tmp_path / "places", classes=model.classes)
    assert [path.suffix for path in paths] == [".zip", ".csv", ".html"]
    rois = roiread(paths[0])
    assert [(r.top, r.left, r.bottom, r.right, r.position) for r in rois] == [
        (s.y, s.x, s.y + 12, s.x + 12, s.z + 1) for s in found
    ]
    assert all(r.roitype == ROI_TYPE.RECT for r in rois)
    rows = list(csv.DictReader(paths[1].open()))
    assert [(int(r["rank"]), int(r["z"]), int(r["x"])) for r in rows] == [
        (i + 1, s.z, s.x) for i, s in enumerate(found)
    ]
    page = paths[2].read_text()
    assert len(re.findall("<img ", page)) == 3
    assert "http" not in page
    with pytest.raises(DataError, match="exist"):
        save_suggestions(found, tmp_path / "places.csv", classes=model.classes)
    with pytest.raises(UsageError, match="not written as"):
        save_suggestions(found, tmp_path / "places.png", classes=model.classes)


def test_the_command(volume, strokes, model, tmp_path):
    save_model(model, tmp_path / "m.tcm")
    painted = np.zeros(SHAPE, np.uint8)
    painted[strokes.z, strokes.y, strokes.x] = strokes.label
    for name, array in (("volume", volume), ("strokes", painted)):
        with create_volume(tmp_path / f"{name}.tif", shape=SHAPE, dtype=array.dtype, voxel_size=(1.0,) * 3) as writer:
            for z, plane in enumerate(array):
                writer.write_plane(z, plane)
    said = CliRunner().invoke(
        cli, ["suggest", *(str(tmp_path / n) for n in ("volume.tif", "m.tcm", "strokes.tif")), "-n", "2", "--patch",
              "12", "-o", str(tmp_path / "p"), "--device", "numpy", "-q"])  # fmt: skip
    assert said.exit_code == 0, said.output
    expected = suggest(model, volume, strokes, n=2, patch=12, device=DEVICE)
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [(int(r["z"]), int(r["y"])) for r in rows] == [(s.z, s.y) for s in expected]


@pytest.mark.parametrize("wrong", [{"n": 0}, {"patch": 2}, {"planes": (3, 2)}])
def test_what_cannot_be_looked_at_is_refused(volume, model, wrong):
    with pytest.raises(UsageError):
        suggest(model, volume, device=DEVICE, **wrong)
