"""The loop of a person without a window: what is shown is what the commands give, and nothing has to be waited for."""

from __future__ import annotations

import shlex
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Commands

import gpu_tomoclass as gt
from gpu_tomoclass.cli.paint import paint
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features import FeatureBank, FeatureEngine
from gpu_tomoclass.interactive.commands import Recipe
from gpu_tomoclass.interactive.overlays import NumberedForest
from gpu_tomoclass.studies.simulation.pillar import simulate_sample

FEATURES = ("gaussian_blur", "hessian", "variance")
NAMES = ["vacuum", "rubber", "silica"]


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """A small volume and its truth."""
    made = simulate_sample(shape=(8, 64, 56), diameter=60.0, seed=0)
    return made.volume, made.truth


@pytest.fixture
def path(sample: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    whole = {"shape": sample[0].shape, "dtype": sample[0].dtype, "voxel_size": (0.5, 0.5, 0.5)}
    with gt.create_volume(tmp_path / "sample.tif", **whole) as out:
        for z, plane in enumerate(sample[0]):
            out.write_plane(z, plane)
    return tmp_path / "sample.tif"


def mark(session: gt.Session, truth: np.ndarray, z: int, *, seed: int = 0) -> None:
    """Some patches of each class, as painted."""
    random = np.random.default_rng(seed)
    for value in np.unique(truth[z]):
        y, x = np.nonzero(truth[z] == value)
        for i in random.integers(y.size, size=4):
            patch = np.zeros(truth[z].shape, bool)
            patch[y[i] : y[i] + 3, x[i] : x[i] + 6] = True
            session.paint(z, patch & (truth[z] == value), int(value))


def test_what_is_shown_is_what_the_commands_give(
    sample: tuple[np.ndarray, np.ndarray], path: Path, tmp_path: Path, command: Commands
) -> None:
    """Live forest, saved model, classified volume: the same as of the commands that the session gives."""
    truth = sample[1]
    events: list[gt.Event] = []
    strokes, cache = tmp_path / "marks.ome.zarr", tmp_path / "cache"
    with gt.Session(path, strokes=strokes, class_names=NAMES, features=FEATURES, n_trees=20, cache=cache) as session:
        session.listen(events.append)
        session.look_at(5)
        mark(session, truth, 2)
        mark(session, truth, 5, seed=1)
        assert session.wait(1200)
        shown = {z: session.overlay(z) for z in (2, 5)}
        session.save_model(tmp_path / "saved.tcm")
        session.classify(tmp_path / "labels.tif")
        session.wait_for_labels()
        recipe = session.recipe(model=str(tmp_path / "typed.tcm"), labels=str(tmp_path / "typed.tif"))
    kinds = [event.kind for event in events]
    assert {"strokes", "trained", "overlay", "score", "suggestions", "classify", "saved", "work"} <= set(kinds)
    assert "trouble" not in kinds
    first = next(e for e in events if e.kind == "overlay")
    assert first.data["z"] == 5  # the plane in view first
    score = next(e for e in events if e.kind == "score")
    assert 0.5 < score.data["mean_dice"] <= 1
    for line in recipe.command().splitlines():
        assert command(*shlex.split(line)[1:], *(["--cache", str(cache)] if " train " in line else [])).code == 0
    saved, typed = (gt.load_model(tmp_path / f"{name}.tcm") for name in ("saved", "typed"))
    assert np.array_equal(saved.forest.threshold, typed.forest.threshold)
    assert [c.name for c in typed.classes] == NAMES
    here, there = (gt.open_volume(tmp_path / f"{name}.tif") for name in ("labels", "typed"))
    assert np.array_equal(np.asarray(here), np.asarray(there))
    for z, overlay in shown.items():
        assert overlay is not None
        assert np.array_equal(overlay.labels, there[z])
        preview = gt.preview(typed, path, plane=z)
        assert np.abs(1 - overlay.uncertainty / 255 - preview.confidence).max() <= 0.5 / 255 + 1e-6
    names: dict[str, object] = {}
    exec(recipe.python().replace("typed.", "script."), names)
    assert np.array_equal(np.asarray(gt.open_volume(tmp_path / "script.tif")), np.asarray(there))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"features": "weka-default", "sigma_max": 4}, ["--sigma-max", "4.0"]),
        ({"features": "all", "sigma_min": 1.4, "hessian": "legacy"}, ["--hessian", "legacy", "--sigma-min", "1.4"]),
        ({"features": "all", "gabor": "exact", "membrane_patch": 21, "membrane_thickness": 3}, ["--gabor", "exact"]),
        ({"features": ["hessian", "gaussian_blur_3d"], "sigmas": {"gaussian_blur_3d": "2.5,4nm", "hessian": "0,3"}},
         ["--sigmas", "gaussian_blur_3d=2.5,4nm"]),
        ({"features": "weka-3d"}, []),
    ],
)  # fmt: skip
def test_a_recipe_has_the_sigmas_and_settings_of_the_bank(asked: dict[str, Any], said: list[str]) -> None:
    """Read by the parser of ``train`` itself, and as Python, it gives the same bank."""
    from gpu_tomoclass.cli.options import make_bank
    from gpu_tomoclass.cli.training import train
    from gpu_tomoclass.cli.training_options import BANK

    bank = gt.FeatureBank.create(**asked)
    recipe = Recipe("v.tif", "s.zip", "m.tcm", "l.tif", {"features": bank, "n_trees": 3})
    words = shlex.split(recipe.command().splitlines()[0])[2:]
    assert " ".join(said) in " ".join(words)
    with train.make_context("train", words) as context:
        assert make_bank(**{name: context.params[name] for name in BANK}) == bank
    given = eval(recipe.python().partition("features=")[2].partition(", n_trees")[0], {"gt": gt})
    assert (gt.FeatureBank.create(given) if isinstance(given, list) else given) == bank


def test_what_needs_the_size_of_voxels_is_refused_before_a_stroke() -> None:
    bank = FeatureBank.create("paper+z", z_sigma="4nm")
    with pytest.raises(UsageError, match="the size of the voxels is not known"):
        gt.Session(np.zeros((3, 20, 20), np.uint8), features=bank)


def test_features_of_a_model_are_painted_with_as_they_are_or_not_at_all(tmp_path: Path) -> None:
    volume, model = tmp_path / "v.tif", tmp_path / "m.tcm"  # neither is opened
    volume.touch()
    model.touch()
    with pytest.raises(UsageError, match="give --features too"):
        paint.main([str(volume), str(model), "--sigma-max", "4"], standalone_mode=False)


def test_strokes_are_found_again_and_learnt_from(sample: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    strokes = path.with_name("marks.ome.zarr")
    with gt.Session(path, strokes=strokes, class_names=NAMES, features=FEATURES, n_trees=5) as session:
        mark(session, sample[1], 3)
        counts = session.strokes.counts()
    with gt.Session(path, strokes=strokes, features=FEATURES, n_trees=5) as session:
        assert session.strokes.counts() == counts
        assert [c.name for c in session.strokes.classes] == NAMES
        assert "of an earlier session" in session.notes[-1]
        assert session.wait(1200)
        assert session.overlay(3) is not None
        assert session.undo() == []


def test_once_learns_only_when_asked(sample: tuple[np.ndarray, np.ndarray]) -> None:
    with gt.Session(sample[0], class_names=NAMES, features=FEATURES, n_trees=5) as session:
        session.live = False
        mark(session, sample[1], 3)
        assert session.wait(1200)
        assert session.version == 0
        session.learn_once()
        assert session.wait(1200)
        assert session.version == 1


def test_a_new_stroke_ends_what_is_outdated(
    sample: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old overlay stays while the new forest grows; work on other planes is left off for it."""
    began, go_on, left = threading.Event(), threading.Event(), threading.Event()
    probabilities = NumberedForest._probabilities

    def slow(self: NumberedForest, band: np.ndarray) -> np.ndarray:
        if not go_on.is_set():
            began.set()
            go_on.wait(1200)
            left.set()
        return probabilities(self, band)

    monkeypatch.setattr("gpu_tomoclass.interactive.plane_features.BAND_PIXELS", 256)
    with gt.Session(sample[0], class_names=NAMES, features=FEATURES, n_trees=5) as session:
        session.look_at(3)
        mark(session, sample[1], 3)
        deadline = time.monotonic() + 1200
        while session.overlay(3) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        old = session.overlay(3)
        assert old is not None
        monkeypatch.setattr(NumberedForest, "_probabilities", slow)
        assert began.wait(1200)  # on a neighbour, or on this plane again
        session.stroke(3, [(10.0, 10.0), (20.0, 30.0)], value=2, width=3)
        assert session.overlay(3) is old
        order: list[str] = []
        session.listen(lambda event: order.append(event.kind))
        go_on.set()
        assert left.wait(1200)
        assert session.wait(1200)
        new = session.overlay(3)
    assert new is not None
    assert new.version > old.version
    assert order.index("trained") < order.index("overlay")  # the plane that was in work did not come to its end


def test_features_of_the_plane_in_view_are_ready_before_the_stroke_ends(sample: tuple[np.ndarray, np.ndarray]) -> None:
    computed: list[int] = []
    compute = FeatureEngine.compute

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureEngine, "compute", lambda self, *a, **k: (computed.append(1), compute(self, *a, **k))[1])
        with gt.Session(sample[0], class_names=NAMES, features=FEATURES, n_trees=5) as session:
            session.look_at(3)
            assert session.wait(1200)
            assert len(computed) <= 2  # the plane in view at first, and this one
            before = len(computed)
            session.live = False
            mark(session, sample[1], 3)
            session.learn_once()
            assert session.wait(1200)
            assert session.overlay(3) is not None
            assert len(computed) == before + 4  # neighbours only


def test_a_plane_that_cannot_be_used_is_said_and_the_others_go_on(sample: tuple[np.ndarray, np.ndarray]) -> None:
    volume = sample[0].astype(np.float32)
    volume[4, 3, 3] = np.nan
    said: list[str] = []
    with gt.Session(volume, class_names=NAMES, features=FEATURES, n_trees=5) as session:
        session.listen(lambda event: said.append(event.data["message"]) if event.kind == "trouble" else None)
        session.look_at(2)
        mark(session, sample[1], 2)
        assert session.wait(1200)
        assert session.overlay(3) is not None
        assert session.overlay(4) is None
    assert any("NaN" in message for message in said), said
    assert len(said) < 4


def test_a_model_shows_what_it_makes_of_another_volume(sample: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    marks = np.zeros_like(sample[1])
    marks[3, 5:60:7, 5:50] = sample[1][3, 5:60:7, 5:50]
    model = gt.train(sample[0], marks, features=FEATURES, n_trees=5, class_names=NAMES)
    events: list[gt.Event] = []
    with gt.Session(sample[0], model=model) as session:
        session.listen(events.append)
        session.look_at(6)
        assert session.wait(1200)
        overlay = session.overlay(6)
        assert overlay is not None
        assert np.array_equal(overlay.labels, gt.preview(model, sample[0], plane=6).labels)
        assert session.model() is model
        assert "train" not in session.recipe().command()
        assert [e.data["verdict"] for e in events if e.kind == "fit"] == ["fits"]
        session.add_strokes(gt.load_annotation(marks, volume_shape=marks.shape))
        assert session.wait(1200)
        assert session.overlay(6) is not overlay


def test_a_model_is_adapted_and_then_taught_with_the_scale_of_this_volume(
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    """Grey values of another detector; what is learnt here is what a training here gives, to the bit."""
    marks = np.zeros_like(sample[1])
    marks[3, 5:60:7, 5:50] = sample[1][3, 5:60:7, 5:50]
    options = {"features": FEATURES, "n_trees": 5, "class_names": NAMES}
    model = gt.train(sample[0], marks, **options)
    other = (sample[0] * 0.45 + 9000).astype(np.uint16)
    fits: list[dict] = []  # type: ignore[type-arg]
    with gt.Session(other, model=model, n_trees=5) as session:
        session.listen(lambda event: fits.append(event.data) if event.kind == "fit" else None)
        session.look_at(3)
        assert session.wait(1200)
        before = session.overlay(3)
        assert before is not None
        session.adapt()
        session.wait_for_labels()
        assert session.wait(1200)
        adapted = session.overlay(3)
        assert adapted is not None
        assert (adapted.labels == sample[1][3]).mean() > (before.labels == sample[1][3]).mean()
        assert any("adapted" in fit.get("reason", "") for fit in fits)
        session.add_strokes(gt.load_annotation(marks, volume_shape=marks.shape, class_names=NAMES))
        assert session.wait(1200)
        taught = session.overlay(3)
        assert taught is not None
        assert np.array_equal(taught.labels, gt.preview(gt.train(other, marks, **options), other, plane=3).labels)


def test_a_damaged_model_is_called_damaged_wherever_it_is_opened(
    sample: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    for name, content in (("m.tcm", b"PK\x03\x04 and no more"), ("m.bin", b"PK\x03\x04 and no more"), ("n.tcm", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            gt.Session(sample[0], model=path, device="numpy")
        assert "Fiji" not in caught.value.what
        with gt.Session(sample[0], device="numpy") as session, pytest.raises(ModelError) as caught:
            session.open_model(path)
        assert "Fiji" not in caught.value.what
    (tmp_path / "m.model").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="Fiji"):
        gt.Session(sample[0], model=tmp_path / "m.model", device="numpy")
