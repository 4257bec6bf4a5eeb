"""The report: numbers as people read them, nothing from outside, written completely or not at all."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, ResourceError
from gpu_tomoclass.labels.evaluate import Confusion
from gpu_tomoclass.labels.pictures import chart_png, histogram_figure
from gpu_tomoclass.labels.report import Report


def parsed(report):
    """The page as a tree, the few unclosed elements closed, attributes without quotes quoted."""
    text = report.html().replace("<!DOCTYPE html>", "").replace("class=number", 'class="number"')
    return ElementTree.fromstring(re.sub(r"<(meta|img)([^>]*)>", r"<\1\2/>", text))


def tables(report):
    """Every table as rows of (text, is a number)."""
    return [
        [[("".join(cell.itertext()), cell.get("class") in ("number", "cell")) for cell in row] for row in table]
        for table in parsed(report).iter("table")
    ]


def test_numbers_are_set_right_and_words_left():
    report = Report("r")
    values = [3, np.int64(1234567), 0.12345, np.float32(2), float("nan"), "-1.50 %", "2nd phase", "12 x 3", True, ""]
    report.table(["name", *map(str, range(len(values)))], [["1", *values]])
    ((header, row),) = tables(report)
    assert header[0] == ("name", False)
    assert row == [
        ("1", False), ("3", True), ("1,234,567", True), ("0.123", True), ("2.000", True), ("undefined", True),
        ("-1.50 %", True), ("2nd phase", False), ("12 x 3", False), ("True", False), ("", False),
    ]  # fmt: skip


def test_tables_say_what_their_headers_belong_to():
    report = Report("r")
    report.table(("class", "Dice"), [("rubber", 0.5)])
    report.properties({"seed": 1})
    scopes = [(cell.text, cell.get("scope")) for cell in parsed(report).iter("th")]
    assert scopes == [("class", "col"), ("Dice", "col"), ("rubber", "row"), ("seed", "row")]


def test_scores_and_confusion_matrix():
    confusion = Confusion(default_classes(["rubber", "silica"]))
    confusion.update(np.array([1] * 8 + [2] * 4), np.array([1] * 6 + [2] * 2 + [2] * 3 + [1]))
    report = Report("r")
    report.confusion(confusion)
    scores, matrix = ([[text for text, _ in row] for row in table] for table in tables(report))
    # rubber: 6 right, 2 missed, 1 too many
    dice, iou, precision, recall = f"{12 / 15:.3f}", f"{6 / 9:.3f}", f"{6 / 7:.3f}", f"{6 / 8:.3f}"
    assert scores[1] == ["rubber", dice, iou, precision, recall, "66.67 %", "58.33 %"]
    assert matrix == [
        ["true class, found as", "rubber", "silica"],
        ["rubber", "75.00 %", "25.00 %"],
        ["silica", "25.00 %", "75.00 %"],
    ]


def test_voxels_without_a_class_have_their_own_column():
    confusion = Confusion(default_classes(["rubber", "silica", "never"]))
    confusion.update(np.array([1, 1, 2, 2]), np.array([1, 0, 2, 2]))
    report = Report("r")
    report.confusion(confusion)
    scores, matrix = ([[text for text, _ in row] for row in table] for table in tables(report))
    assert scores[3][:3] == ["never", "undefined", "undefined"]
    assert matrix[0][1:] == ["rubber", "silica", "never", "not classified"]
    assert matrix[1][1:] == ["50.00 %", "0.00 %", "0.00 %", "50.00 %"]
    assert matrix[2][1:] == ["0.00 %", "100.00 %", "0.00 %", "0.00 %"]
    assert matrix[3][1:] == ["0.00 %"] * 4


def test_pictures_lie_inside_pixel_for_pixel_with_a_text_for_those_who_cannot_see_them():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    report = Report("r")
    report.figures([(image, "plane 7 & its noise")])
    report.chart(
        histogram_figure(np.arange(9.0), np.ones(9), classes=default_classes(["a"])), caption="c", alt='one "class"'
    )
    picture, chart = parsed(report).iter("img")
    assert picture.get("alt") == "plane 7 & its noise"
    assert chart.get("alt") == 'one "class"'
    start = "data:image/png;base64,"
    assert picture.get("src").startswith(start)
    stored = imread(io.BytesIO(base64.b64decode(picture.get("src")[len(start) :])))
    np.testing.assert_array_equal(np.round(stored[..., :3] * 255), image)


def test_histogram_counts_every_class():
    rng = np.random.default_rng(0)
    labels = rng.choice([1, 2], size=5000, p=[0.7, 0.3])
    volume = rng.uniform(0, 10, 5000) + 20 * (labels == 2)
    classes = default_classes(["low", "high"])
    (axes,) = histogram_figure(volume, labels, classes=classes, thresholds=[12.0, 16.0]).axes
    shown = {patch.get_label(): patch for patch in axes.patches if patch.get_label()}
    assert set(shown) == {"all", "low", "high"}
    # all but the 0.1 % beyond the percentiles that the axis spans
    assert shown["all"].get_data().values.sum() == pytest.approx(5000, abs=6)
    assert shown["low"].get_data().values.sum() == pytest.approx((labels == 1).sum(), abs=4)
    assert shown["high"].get_data().edges[0] < 1
    np.testing.assert_allclose(to_rgb(shown["high"].get_edgecolor()), np.array(classes[1].colour) / 255)
    assert [line.get_xdata()[0] for line in axes.lines] == [12.0, 16.0]


def test_the_same_chart_is_the_same_file():
    volume, labels = np.arange(100.0), np.arange(100) // 50 + 1
    first, again = (chart_png(histogram_figure(volume, labels, classes=default_classes(["a", "b"]))) for _ in range(2))
    assert first == again


def test_a_constant_volume_has_a_histogram():
    chart_png(histogram_figure(np.full(10, 7), np.ones(10), classes=default_classes(["a"])))


def test_an_existing_report_is_kept_unless_asked(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    with pytest.raises(DataError, match="--overwrite"):
        Report("r").write(path)
    assert path.read_text() == "older"
    Report("r").write(path, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_older_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("older")

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        Report("r").write(path, overwrite=True)
    monkeypatch.undo()
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_letters_of_all_scripts_survive(tmp_path):
    report = Report("Ångström 断層")
    report.text("β-phase ± 0.6 µm")
    report.write(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_bytes().decode("utf-8")
    assert "Ångström 断層" in text
    assert "β-phase ± 0.6 µm" in text
    assert '<meta charset="utf-8">' in text
