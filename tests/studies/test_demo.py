"""The demo at a small size: its files, and a report that holds everything itself."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import NumpyDevice, choose_device
from gpu_tomoclass.errors import DataError
from gpu_tomoclass.labels.pictures import class_image, grey_image, overlay_image
from gpu_tomoclass.labels.report import Report
from gpu_tomoclass.studies.demo import OUTPUTS, run_demo


def test_demo(tmp_path):
    said = []
    report = run_demo(tmp_path, device=choose_device(threads=1), say=said.append, shape=(6, 128, 124))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(OUTPUTS)
    labels, truth = tifffile.imread(tmp_path / "labels.tif"), tifffile.imread(tmp_path / "truth.tif")
    unmarked = [0, 1, 2, 4, 5]
    accuracy = (labels == truth)[unmarked].mean()
    assert accuracy > 0.85  # one marked plane only; thresholds get less than 0.8
    text = Path(report).read_text(encoding="utf-8")
    assert f"{100 * accuracy:.2f} % of the voxels" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing from outside
    assert "<script" not in text
    strokes = tifffile.imread(tmp_path / "strokes.tif")
    assert sorted(np.unique(np.nonzero(strokes)[0])) == [3]
    np.testing.assert_array_equal(strokes[strokes > 0], truth[strokes > 0])
    with pytest.raises(DataError, match="--overwrite"):
        run_demo(tmp_path, device=NumpyDevice())


class Balance(HTMLParser):
    """Every element that must be closed is."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.texts = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_report_escapes_what_it_is_given(tmp_path):
    evil = "<script>alert('x')</script> & \"quotes\""
    report = Report(evil)
    report.text(evil)
    report.heading(evil)
    report.commands([evil])
    report.table((evil, "n"), [(evil, 1.23456)])
    report.properties({evil: {evil: [evil]}})
    report.figures([(np.zeros((4, 5, 3), np.uint8), evil)])
    report.legend(default_classes([evil]))
    report.write(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert evil in parser.texts
    assert "1.235" in parser.texts


def test_pictures():
    plane = np.arange(1000, dtype=np.float64).reshape(20, 50)
    grey = grey_image(plane)
    assert grey[0, 0, 0] == 0
    assert grey[-1, -1, 2] == 255
    assert (np.diff(grey[..., 0].ravel().astype(int)) >= 0).all()
    assert grey_image(np.full((3, 3), np.nan)).max() == 0
    classes = default_classes(["a", "b"])
    labels = np.zeros((20, 50), np.uint8)
    labels[:, 25:] = 2
    colours = class_image(labels, classes)
    assert tuple(colours[0, 0]) == (0, 0, 0)
    assert tuple(colours[0, 30]) == classes[1].colour
    np.testing.assert_array_equal(overlay_image(plane, labels, classes=classes, alpha=0), grey)
    half = overlay_image(plane, labels, classes=classes, alpha=0.5)
    np.testing.assert_array_equal(half[:, :25], grey[:, :25])
    expected = np.round(0.5 * grey[:, 25:] + 0.5 * np.array(classes[1].colour))
    np.testing.assert_array_equal(half[:, 25:], expected)
