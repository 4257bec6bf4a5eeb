"""The dock in a real napari on a real (virtual) screen, driven with mouse and keys (``make test-napari``)."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Labels
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog

import gpu_tomoclass as gt
from gpu_tomoclass.interactive import Event
from gpu_tomoclass.napari_plugin.arrays import PlaneArray
from gpu_tomoclass.napari_plugin.dock import Dock
from gpu_tomoclass.napari_plugin.source import Source
from gpu_tomoclass.studies.simulation.pillar import simulate_sample

SHAPE = (8, 64, 56)
PATIENCE = float(os.environ.get("PATIENCE", "1200"))  # seconds, for a busy machine
FAST = {"features": ["gaussian_blur", "hessian", "variance"], "n_trees": 20, "cache": None}

RAISED: list[BaseException] = []


def until(met: Callable[[], Any]) -> None:
    """Let the viewer work until something is so."""
    end = time.monotonic() + PATIENCE
    while not met():
        QApplication.processEvents()
        if RAISED:
            raise RAISED.pop(0)
        time.sleep(0.01)
        assert time.monotonic() < end, "it never came"


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """What the sample is made of."""
    return simulate_sample(shape=SHAPE, diameter=60.0, seed=0).truth


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    sample = simulate_sample(shape=SHAPE, diameter=60.0, seed=0).volume
    path = tmp_path / "sample.tif"
    with gt.create_volume(path, shape=sample.shape, dtype=sample.dtype, voxel_size=(0.5,) * 3) as out:
        for z, plane in enumerate(sample):
            out.write_plane(z, plane)
    return path


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    """One window for all tests."""
    made = Viewer()
    made.window.resize(1200, 800)
    QTest.qWaitForWindowExposed(made.window._qt_window)
    yield made
    made.close()
    QApplication.processEvents()


@pytest.fixture
def dock(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dock]:
    """The dock as napari's menu makes it; whatever is raised in the viewer's thread fails the test."""
    RAISED.clear()
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, tb: RAISED.append(error))
    _, widget = viewer.window.add_plugin_dock_widget("gpu_tomoclass", "Mark, look, correct")
    yield widget
    widget.end()
    ended = threading.Event()
    widget.hand.do(ended.set)
    until(ended.is_set)
    widget.hand.end()
    viewer.layers.clear()
    viewer.window.remove_dock_widget(widget)
    QApplication.processEvents()
    if RAISED:
        raise RAISED[0]


def begun(dock: Dock, volume: Path, names: str = "vacuum, rubber, silica", **options: Any) -> Dock:
    dock.first.names.setText(names)
    dock.begin(Source.of_file(str(volume)), **{**FAST, **options})
    until(lambda: dock.layers is not None)
    return dock


def screen(dock: Dock, y: float, x: float) -> QPoint:
    """Where a pixel of the plane is on the canvas."""
    canvas, camera = dock.viewer.window._qt_viewer.canvas.native, getattr(dock.viewer, "scene", dock.viewer).camera
    scale = dock.layers.strokes.scale
    right = (x * scale[2] - camera.center[2]) * camera.zoom + canvas.width() / 2
    down = (y * scale[1] - camera.center[1]) * camera.zoom + canvas.height() / 2
    return QPoint(round(right), round(down))


def drag(dock: Dock, truth: np.ndarray, value: int) -> None:
    """A stroke with the mouse, along the middle of what is of a class on the plane in view."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(truth[dock.layers.view] == value)
    y, x = (int(v) for v in np.unravel_index(int(inside.argmax()), inside.shape))
    canvas = dock.viewer.window._qt_viewer.canvas.native
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=screen(dock, y, x))
    for step in range(1, 5):
        QTest.mouseMove(canvas, screen(dock, y, x + step / 2))
        QApplication.processEvents()
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=screen(dock, y, x + 2))


def key(dock: Dock, which: Any, *modifiers: Any) -> None:
    canvas = dock.viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, which, *modifiers)
    QApplication.processEvents()


def test_mark_look_correct(dock: Dock, volume: Path, truth: np.ndarray, tmp_path: Path) -> None:
    """Three classes by mouse, the plane gets its colours, undo, strokes found again, all planes as by command."""
    begun(dock, volume)
    session, layers = dock.session, dock.layers
    assert tuple(layers.strokes.scale) == (0.5, 0.5, 0.5)
    assert {str(u) for u in layers.strokes.units} == {"nanometer"}
    np.testing.assert_array_equal(np.asarray(layers.image.data[layers.view]), session.plane(layers.view))
    until(lambda: dock.isVisible())
    for value in (1, 2, 3):
        key(dock, getattr(Qt.Key, f"Key_{value}"))
        assert layers.strokes.selected_label == value
        drag(dock, truth, value)
        until(lambda value=value: value in session.strokes.values())
    z = layers.view
    np.testing.assert_array_equal(layers.strokes.data[layers.planes.index(z)], session.strokes.labels(z))
    until(lambda: session.overlay(z) is not None and session.overlay(z).version == session.version > 0)
    until(lambda: (layers.classes.data[layers.planes.index(z)] == session.overlay(z).labels).all())
    assert (session.overlay(z).labels == truth[z]).mean() > 0.7  # by three strokes
    until(lambda: dock.work.state.text() == "up to date" and len(layers.places.data) > 0)
    assert "out-of-bag" in dock.work.scores.text()
    key(dock, Qt.Key.Key_N)
    assert (layers.view, True) == (session.suggestions()[0].z, True)
    until(lambda: session.view == layers.view)
    layers.look_at(z)

    before = session.strokes.labels(z)
    key(dock, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    until(lambda: 3 not in session.strokes.values())
    until(lambda: (layers.strokes.data[layers.planes.index(z)] == session.strokes.labels(z)).all())
    dock.work.redo.click()
    until(lambda: (layers.strokes.data[layers.planes.index(z)] == before).all())
    assert dock.work.strokes.list.topLevelItemCount() == 3

    if os.environ.get("PICTURE"):
        until(lambda: dock.work.state.text() == "up to date")
        dock.viewer.screenshot(os.environ["PICTURE"], canvas_only=False, flash=False)
    dock.copy_command()
    train, classify = QApplication.clipboard().text().splitlines()
    assert train.startswith(f"gpu-tomoclass train {volume} ")
    assert classify.startswith(f"gpu-tomoclass classify {volume} ")

    dock.save_model(str(tmp_path / "m.tcm"))
    dock.classify_all(str(tmp_path / "all.ome.zarr"))
    until(lambda: "all planes" in dock.viewer.layers)
    model = gt.load_model(tmp_path / "m.tcm")
    expected = model.predict(gt.open_volume(volume))
    np.testing.assert_array_equal(np.asarray(dock.viewer.layers["all planes"].data), expected.labels)

    dock.end()
    assert {layer.name for layer in dock.viewer.layers} == {"all planes"}
    begun(dock, volume)
    np.testing.assert_array_equal(dock.layers.strokes.data[dock.layers.planes.index(z)], before)
    assert [c.name for c in dock.session.strokes.classes] == ["vacuum", "rubber", "silica"]


def test_nothing_waits(dock: Dock, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model is saved, which takes long, the viewer goes on painting and looking; what fails is told."""
    begun(dock, volume)
    layers, going_on = dock.layers, threading.Event()

    def slow(path: str, *, overwrite: bool) -> None:
        assert going_on.wait(PATIENCE)
        raise gt.errors.DataError("is full", where=path)

    monkeypatch.setattr(dock.session, "save_model", slow)
    dock.save_model(str(tmp_path / "m.tcm"))
    layers.strokes.paint((layers.planes.index(layers.view), 20, 20), 1)
    layers.look_at(0)
    assert layers.view == 0
    assert not dock.session.strokes.planes()  # what is asked for comes in order
    going_on.set()
    until(lambda: "is full" in dock.message.text())
    until(lambda: dock.session.strokes.planes() == [4])
    until(lambda: dock.session.view == 0)


def test_what_cannot_be_painted_is_taken_back(dock: Dock, volume: Path) -> None:
    begun(dock, volume)
    strokes = dock.layers.strokes
    number = dock.layers.planes.index(dock.layers.view)
    strokes.selected_label = 9
    strokes.paint((number, 20, 20), 9)
    assert (strokes.data == 9).any()
    until(lambda: "there is no class 9" in dock.message.text())
    until(lambda: not strokes.data.any())


def test_classes_and_strokes_of_the_lists(dock: Dock, volume: Path) -> None:
    """Add, rename, remove; a class with strokes stays; a stroke is deleted."""
    begun(dock, volume)
    session, classes = dock.session, dock.work.classes

    def names() -> list[str]:
        return [c.name for c in session.strokes.classes]

    classes.add.click()
    until(lambda: len(names()) == 4 and classes.list.topLevelItemCount() == 4)
    classes.list.topLevelItem(3).setText(0, "carbon")
    until(lambda: names()[3] == "carbon")
    number = dock.layers.planes.index(dock.layers.view)
    dock.layers.choose(4)
    assert classes.value == 4
    dock.layers.strokes.paint((number, 20, 20), 4)
    until(lambda: dock.work.strokes.list.topLevelItemCount() == 1)
    classes.remove.click()
    until(lambda: "carbon has strokes" in dock.message.text())
    dock.work.strokes.list.setCurrentItem(dock.work.strokes.list.topLevelItem(0))
    dock.work.strokes.erase.click()
    until(lambda: not session.strokes.planes() and not dock.layers.strokes.data.any())
    classes.remove.click()
    until(lambda: len(names()) == 3 and classes.list.topLevelItemCount() == 3)


def test_a_layer_of_the_viewer_every_third_plane(dock: Dock, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array that is in the viewer already; planes 1, 4, 7; strokes are saved where the dialog says."""
    data = np.asarray(gt.open_volume(volume))
    dock.viewer.add_image(data, name="from memory", scale=(3, 3, 3), units=("angstrom",) * 3)
    dock.first.images.setCurrentText("from memory")
    dock.first.every.setValue(3)
    source = Source.of_layer(dock.viewer.layers["from memory"])
    dock.begin(source, **FAST)
    until(lambda: dock.layers is not None)
    layers, session = dock.layers, dock.session
    assert session.planes == [1, 4, 7]
    assert session.volume.voxel_size == pytest.approx((0.3, 0.3, 0.3))
    assert layers.strokes.scale[0] == pytest.approx(0.9)
    layers.look_at(7)
    until(lambda: session.view == 7)
    layers.strokes.paint((2, 30, 30), 1)
    until(lambda: session.strokes.planes() == [7])
    target = volume.parent / "marks.tif"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    dock.work.strokes_as.click()
    until(target.exists)
    until(lambda: "strokes saved" in dock.message.text())
    np.testing.assert_array_equal(gt.open_volume(target).plane(7), session.strokes.labels(7))
    dock.viewer.layers.remove(layers.strokes)  # ends it
    assert dock.session is None
    colours = dock.viewer.add_image(np.zeros((4, 4, 3), np.uint8), rgb=True)
    with pytest.raises(gt.errors.UsageError, match="z, y, x"):
        Source.of_layer(colours)


def test_a_model_that_was_made_before(dock: Dock, volume: Path, truth: np.ndarray, tmp_path: Path) -> None:
    """Its classes and what it makes of the planes are shown, and whether it fits."""
    marks = np.where(np.random.default_rng(0).random(truth.shape) < 0.02, truth, 0).astype(np.uint8)
    model = gt.train(gt.open_volume(volume), gt.load_annotation(marks, volume_shape=SHAPE), n_trees=10,
                     features=["gaussian_blur", "variance"])  # fmt: skip
    gt.save_model(model, tmp_path / "m.tcm")
    begun(dock, volume, names="a, b")
    dock.open_file(str(tmp_path / "m.tcm"))
    z = dock.layers.view
    until(lambda: dock.layers.classes.data[dock.layers.planes.index(z)].any())
    until(lambda: "model" in dock.work.fit.text() and dock.work.fit.isVisibleTo(dock))
    dock.open_file(str(tmp_path / "none.tcm"))
    until(lambda: "none.tcm" in dock.message.text())


def test_another_volume_begins_with_a_fresh_page(dock: Dock, volume: Path) -> None:
    """Even while the first is being classified: what is told of it later is not the second one's."""
    begun(dock, volume)
    first = dock.session
    dock._on_told((first, Event("classify", {"done": 1, "total": 8}), False))
    dock._on_told((first, Event("trained", {"oob_error": 0.5}), False))
    assert not dock.work.all.isEnabled()
    assert "50.00" in dock.work.scores.text()
    dock.work.end.click()
    begun(dock, volume)
    assert dock.session is not first
    assert dock.work.all.isEnabled()
    assert "50.00" not in dock.work.scores.text()
    dock._on_told((first, Event("classify", {"done": 2, "total": 8}), False))
    assert dock.work.all.isEnabled()
    dock._on_told((dock.session, Event("score", {"reason": "too few strokes"}), False))
    assert dock.work.scores.text() == "too few strokes"


def test_planes_as_an_array() -> None:
    """Keys as a viewer gives them, against NumPy."""
    full = np.arange(5 * 4 * 3, dtype=np.uint16).reshape(5, 4, 3)
    planes = PlaneArray(full.__getitem__, [0, 2, 4], (4, 3), full.dtype)
    whole = full[::2]
    for index in (0, -1, slice(None), (1, slice(1, 3)), (slice(0, 2), 1), (Ellipsis, 2), (slice(None, None, 2), 0, 0)):
        np.testing.assert_array_equal(planes[index], whole[index])
    np.testing.assert_array_equal(np.asarray(planes), whole)
    assert (planes.shape, planes.ndim, planes.size, len(planes)) == ((3, 4, 3), 3, 36, 3)
    with pytest.raises(IndexError):
        planes[3]


def test_the_result_layer_is_read_only(dock: Dock, volume: Path) -> None:
    begun(dock, volume)
    assert isinstance(dock.layers.classes, Labels)
    assert not dock.layers.classes.editable
