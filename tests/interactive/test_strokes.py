"""Strokes while they are painted, and their way to disk."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpu_tomoclass as gt
from gpu_tomoclass.classes import LabelClass, default_classes
from gpu_tomoclass.errors import ModelError, ResourceError, UsageError
from gpu_tomoclass.interactive import Strokes, brush_pixels
from gpu_tomoclass.interactive.store import StrokeStore
from gpu_tomoclass.interactive.suggestions import grey_description, patch_size, patches_to_mark, suggest_places

SHAPE = (4, 20, 30)
CLASSES = default_classes(["rubber", "silica"])


def flat(*pixels: tuple[int, int]) -> np.ndarray:
    return np.ravel_multi_index(np.array(pixels).T, SHAPE[1:])


def test_a_brush_covers_the_pixels_whose_centres_it_reaches() -> None:
    """Distances of centres from the way, one by one."""
    points = [(3.2, 4.0), (10.0, 22.5), (10.0, 5.0)]
    y, x = np.mgrid[:20, :30] + 0.5
    expected = np.zeros((20, 30), bool)
    for (ay, ax), (by, bx) in itertools.pairwise(points):
        for t in np.linspace(0, 1, 4001):
            cy, cx = ay + t * (by - ay), ax + t * (bx - ax)
            low, high = int(cy) - 4, int(cy) + 5
            part = (slice(max(0, low), high), slice(max(0, int(cx) - 4), int(cx) + 5))
            expected[part] |= (y[part] - cy) ** 2 + (x[part] - cx) ** 2 <= 2.65**2
    found = np.zeros((20, 30), bool)
    found.ravel()[brush_pixels(points, width=5.3, shape=(20, 30))] = True
    assert np.array_equal(found, expected)
    assert brush_pixels([(7.9, 3.1)], width=0.2, shape=(20, 30)).tolist() == [7 * 30 + 3]
    assert brush_pixels([(-9.0, 3.0)], width=2, shape=(20, 30)).size == 0
    for points, width in (([], 3), ([(1, np.nan)], 3), ([(1, 1)], 0)):
        with pytest.raises(UsageError):
            brush_pixels(points, width=width, shape=(20, 30))


def test_undo_and_redo_bring_back_every_state() -> None:
    strokes, random = Strokes(SHAPE, CLASSES), np.random.default_rng(0)
    states = [np.stack([strokes.labels(z) for z in range(4)])]
    for i in range(30):
        pixels = random.integers(600, size=40)
        if i == 20:
            strokes.delete(strokes.listed()[0].number)
        else:
            strokes.paint(int(random.integers(4)), pixels, int(random.integers(3)), planes=[0, 2] if i % 7 == 0 else ())
        state = np.stack([strokes.labels(z) for z in range(4)])
        if strokes.can_undo and not np.array_equal(state, states[-1]):
            states.append(state)
    for state in reversed(states[:-1]):
        while True:
            assert strokes.undo()
            if not np.array_equal(np.stack([strokes.labels(z) for z in range(4)]), states[-1]):
                break
        assert np.array_equal(np.stack([strokes.labels(z) for z in range(4)]), state)
        states[-1] = state
    assert not strokes.can_undo
    while strokes.redo():
        pass
    counts = {z: {v: int((strokes.labels(z) == v).sum()) for v in (1, 2)} for z in range(4)}
    assert strokes.counts() == {z: {v: n for v, n in c.items() if n} for z, c in counts.items() if sum(c.values())}
    whole = np.stack([strokes.labels(z) for z in range(4)])
    assert strokes.class_counts() == {v: int((whole == v).sum()) for v in np.unique(whole[whole > 0]).tolist()}


def test_a_stroke_can_be_found_and_deleted_under_a_later_one() -> None:
    strokes = Strokes(SHAPE, CLASSES)
    strokes.paint(1, flat((2, 2), (2, 3), (2, 4)), 1)
    strokes.paint(1, flat((2, 4), (2, 5)), 2)
    assert [(s.z, s.value, s.pixels) for s in strokes.listed()] == [(1, 1, 2), (1, 2, 2)]
    strokes.delete(strokes.listed()[0].number)
    assert strokes.counts() == {1: {2: 2}}
    strokes.undo()
    assert strokes.counts() == {1: {1: 2, 2: 2}}
    again = Strokes(SHAPE, CLASSES)
    again.put(strokes.annotation())
    assert [(s.z, s.value, s.pixels) for s in again.listed()] == [(1, 1, 2), (1, 2, 2)]


def test_what_cannot_be_is_refused() -> None:
    strokes = Strokes(SHAPE, CLASSES)
    for z, pixels, value in ((0, [600], 1), (4, [1], 1), (-1, [1], 1), (0, [1], 3)):
        with pytest.raises(UsageError):
            strokes.paint(z, np.array(pixels), value)
    strokes.paint(0, flat((1, 1)), 2)
    with pytest.raises(UsageError, match="silica has strokes"):
        strokes.set_classes(CLASSES[:1])
    with pytest.raises(UsageError):
        strokes.set_classes([*CLASSES, LabelClass(3, "Rubber", (0, 0, 0))])


def test_strokes_survive_a_kill(tmp_path: Path) -> None:
    """A process paints, says so, and is killed without warning; what it wrote is a label image like any other."""
    program = f"""
import os, signal, numpy as np, gpu_tomoclass as gt
from gpu_tomoclass.interactive.store import StrokeStore
from gpu_tomoclass.interactive import Strokes
volume = gt.open_volume(np.zeros({SHAPE}, np.uint8))
classes = gt.default_classes(["rubber", "silica"])
store = StrokeStore({str(tmp_path / "marks.ome.zarr")!r}, volume, classes, on_error=print)
strokes = Strokes(volume.shape, classes)
strokes.set_classes([*classes, gt.LabelClass(3, "vacuum", (1, 2, 3))])
store.save(strokes, strokes.paint(1, np.arange(5), 1) + strokes.paint(3, np.arange(50, 60), 3))
assert store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=False).returncode == -9
    volume = gt.open_volume(np.zeros(SHAPE, np.uint8))
    store = StrokeStore(tmp_path / "marks.ome.zarr", volume, CLASSES, on_error=print)
    assert [(c.value, c.name, c.colour) for c in store.classes][2] == (3, "vacuum", (1, 2, 3))
    assert store.found is not None
    assert store.found.counts() == {1: 5, 3: 10}
    with pytest.raises(ResourceError, match="is being written by"):
        StrokeStore(tmp_path / "marks.ome.zarr", volume, CLASSES, on_error=print)
    store.close()
    with pytest.raises(ModelError, match="holds strokes on"):
        StrokeStore(tmp_path / "marks.ome.zarr", gt.open_volume(np.zeros((4, 20, 31))), CLASSES, on_error=print)
    marks = gt.load_annotation(tmp_path / "marks.ome.zarr", volume_shape=SHAPE)
    assert marks.counts() == {1: 5, 3: 10}
    assert [c.name for c in marks.classes] == ["rubber", "vacuum"]


def test_a_class_that_was_removed_comes_back_with_its_strokes() -> None:
    strokes = Strokes(SHAPE, CLASSES)
    third = LabelClass(3, "carbon", (1, 2, 3))
    strokes.set_classes([*CLASSES, third])
    strokes.paint(1, np.arange(9), 3)
    strokes.undo()
    strokes.set_classes(CLASSES)
    assert strokes.redo() == [1]
    assert strokes.classes == (*CLASSES, third)
    strokes.undo()
    strokes.set_classes([*CLASSES[:-1], dataclasses.replace(CLASSES[-1], name="Carbon")])
    strokes.redo()
    assert [c.name for c in strokes.classes[-2:]] == ["Carbon", "carbon 3"]


def test_a_disk_that_fails_is_said_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    store = StrokeStore(tmp_path / "marks.ome.zarr", gt.open_volume(np.zeros(SHAPE, np.uint8)), CLASSES,
                        on_error=lambda error: said.append(str(error)))  # fmt: skip
    monkeypatch.setattr("gpu_tomoclass.interactive.store.RETRY", 0.05)
    write, fails = store._store.write, [True]

    def failing(start: int, planes: np.ndarray) -> None:
        if fails:
            fails.clear()
            raise OSError(28, "No space left on device")
        write(start, planes)

    monkeypatch.setattr(store._store, "write", failing)
    strokes = Strokes(SHAPE, CLASSES)
    store.save(strokes, strokes.paint(2, np.arange(7), 2))
    store._thread.join(0.3)
    assert store.flush()
    assert len(said) == 1
    assert "the disk is full" in said[0]
    store.close()
    assert gt.load_annotation(tmp_path / "marks.ome.zarr", volume_shape=SHAPE, partial=True).counts() == {2: 7}


def test_suggestions_are_uncertain_patches_each_unlike_those_before_and_unlike_what_is_marked() -> None:
    """As ``suggest`` ranks them: of two kinds of doubtful places both come, however much there is of one."""
    grey = np.zeros((200, 240), np.float32)
    grey[:, 24:72], grey[:, 72:] = 100, 200
    size = patch_size(grey.shape)
    assert (size, patch_size((3, 64, 56))) == (24, 7)
    uncertainty = np.zeros(grey.shape, np.uint8)
    uncertainty[:, :24], uncertainty[:, 24:72], uncertainty[:, 72:96] = 200, 200, 150
    labels = np.ones(grey.shape, np.uint8)
    marked = np.zeros(grey.shape, bool)
    marked[:, 30:40] = True  # of the middle kind
    patches = patches_to_mark(5, uncertainty, labels, grey_description(grey), marked, values=[1, 2])
    assert len(patches) == 8 * 10
    found = suggest_places(patches, size=size, n=2)
    assert [s.z for s in found] == [5, 5]
    assert {s.x // size for s in found} == {0, 3}, "one dark, one bright; the middle kind was marked"
    assert found[0].uncertainty == pytest.approx((200 if found[0].x < size else 150) / 255)
    assert all((s.y % size, s.x % size) == (size // 2, size // 2) for s in found), "the middle of a patch"
    tiny = np.zeros((5, 5), np.uint8)
    assert (
        suggest_places(patches_to_mark(0, tiny, tiny + 1, grey_description(tiny), tiny > 0, values=[1]), size=4) == []
    )
