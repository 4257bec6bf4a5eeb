"""Strokes that another program saves: model and page follow, and nothing is lost by a file that cannot be used."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import gpu_tomoclass as gt
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.interactive import watch

FEATURES = ("gaussian_blur", "variance")


def until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 1200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_model_and_page_follow_the_strokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_tomoclass.interactive.watching.PAUSE", 0.05)
    volume = gt.open_volume(np.random.default_rng(0).integers(0, 999, (6, 40, 48), dtype=np.uint16))
    marks, model, page = tmp_path / "marks.tif", tmp_path / "m.tcm", tmp_path / "m.html"
    whole = np.zeros((2, 40, 48), np.uint8)  # planes 1 and 4 of six: every third
    whole[0, 2:6, 2:30], whole[1, 20:24, 2:30] = 1, 2
    said: list[str] = []
    stop = threading.Event()
    names = ["vacuum", "rubber"]
    working = threading.Thread(target=lambda: watch(
        volume, [marks], output=model, page=page, features=FEATURES, every=3, start=1, n_trees=5, class_names=names,
        should_stop=stop.is_set, say=said.append,
    ))  # fmt: skip
    working.start()
    try:
        until(lambda: said)
        assert said[0].startswith("waiting for")
        tifffile.imwrite(marks, whole, photometric="minisblack", metadata={"axes": "ZYX"})
        until(lambda: len(said) > 1 and page.exists())
        assert said[1].startswith("224 marked pixels on 2 planes")
        same = gt.train(volume, marks, every=3, start=1, class_names=names, features=FEATURES, n_trees=5)
        assert np.array_equal(gt.load_model(model).forest.threshold, same.forest.threshold)
        text = page.read_text(encoding="utf-8")
        assert 'http-equiv="refresh"' in text
        assert len(re.findall("<img", text)) == 4
        assert "slice 2 of the sub-stack" in text
        before = model.read_bytes()
        marks.write_bytes(marks.read_bytes()[:100])  # as if it were being saved
        until(lambda: len(said) > 2)
        assert said[2].startswith("not used:")
        until(lambda: "were not used" in page.read_text(encoding="utf-8"))
        assert model.read_bytes() == before
        whole[0, 30:34, 2:30] = 2
        tifffile.imwrite(marks, whole, photometric="minisblack", metadata={"axes": "ZYX"})
        until(lambda: len(said) > 3)
        assert said[3].startswith("336 marked pixels")
        until(lambda: "were not used" not in page.read_text(encoding="utf-8"))
    finally:
        stop.set()
        working.join()
    options = {"output": model, "page": page, "should_stop": lambda: True}
    with pytest.raises(DataError, match="exists"):
        watch(volume, [marks], **options)
    assert watch(volume, [marks], **{**options, "overwrite": True}) == 0
    with pytest.raises(UsageError):
        watch(volume, [marks], **{**options, "page": tmp_path / "m.txt"})
