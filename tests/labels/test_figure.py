"""The figure of a paper: its pixels, the length of its bar, its size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from commands import Commands
from matplotlib.image import imread

import gpu_tomoclass as gt
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.labels import class_image, label_figure

CLASSES = gt.default_classes(["rubber", "silica"])


@pytest.fixture
def pair() -> tuple[gt.Volume, gt.Volume]:
    """Five grey planes of 40 x 60 pixels of 2 nm with a square of each class."""
    labels = np.zeros((5, 40, 60), np.uint8)
    labels[:, 5:20, 10:30], labels[:, 22:38, 31:55] = 1, 2
    grey = np.full((5, 40, 60), 100, np.uint8)
    grey[:, ::2] = 50
    return gt.ArrayVolume(grey, voxel_size=(2, 2, 2)), gt.ArrayVolume(labels, classes=CLASSES)


def drawn(figure, dpi: int = 254) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(height, width, 3) 0..255; 254 dpi are 10 pixels per mm."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    buffer.seek(0)
    return np.rint(255 * imread(buffer)[..., :3]).astype(int)


def test_panels_have_the_pixels_of_the_planes(pair: tuple[gt.Volume, gt.Volume]) -> None:
    """One panel of labels, 10 screen pixels per pixel: every middle has the colour of its class."""
    figure = label_figure(*pair, planes=[2], panels=["labels"], scale_nm=0, width_mm=60, letters=False, titles=False,
                          legend=False)  # fmt: skip
    picture = drawn(figure)
    assert picture.shape == (400, 600, 3)
    assert np.array_equal(picture[5::10, 5::10], class_image(pair[1].plane(2), CLASSES))


def test_the_bar_is_as_long_as_it_says(pair: tuple[gt.Volume, gt.Volume]) -> None:
    for nm, pixels in ((30.0, 150), (None, 100)):  # 60 mm are 120 nm; a round length of at most a quarter is 20 nm
        figure = label_figure(*pair, planes=[0], panels=["image"], scale_nm=nm, width_mm=60, letters=False,
                              titles=False, legend=False)  # fmt: skip
        white = (drawn(figure) == 255).all(axis=2)[378:384]
        columns = np.flatnonzero(white.any(axis=0))
        assert abs(columns.size - pixels) <= 2  # its ends may share a pixel


def test_rows_columns_and_crop(pair: tuple[gt.Volume, gt.Volume]) -> None:
    figure = label_figure(*pair, planes=[0, 4], panels=["image", "overlay", "outlines"], width_mm=100,
                          crop=(slice(0, 20), slice(10, 30)))  # fmt: skip
    assert len(figure.axes) == 6
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rubber"]  # silica is not in this part
    assert [axes.get_title() for axes in figure.axes[:2]] == ["plane 0", "plane 4"]


def test_labels_of_some_planes_are_found(pair: tuple[gt.Volume, gt.Volume]) -> None:
    part = gt.ArrayVolume(np.asarray(pair[1])[2:4], classes=CLASSES, metadata={"settings": {"planes": [2, 4]}})
    label_figure(pair[0], part, planes=[3])
    with pytest.raises(UsageError, match="no plane"):
        label_figure(pair[0], part, planes=[1])
    with pytest.raises(ModelError):
        label_figure(pair[0], gt.ArrayVolume(np.zeros((3, 40, 60), np.uint8)), planes=[1])
    for wrong in ({"planes": []}, {"planes": [0], "panels": ["x"]}, {"planes": [9]}, {"planes": [0], "width_mm": 1}):
        with pytest.raises(UsageError):
            label_figure(*pair, **wrong)
    with pytest.raises(UsageError, match="voxel size"):
        label_figure(gt.ArrayVolume(np.asarray(pair[0])), pair[1], planes=[0], scale_nm=5)


def test_the_command(pair: tuple[gt.Volume, gt.Volume], tmp_path: Path, command: Commands) -> None:
    for name, volume in zip(("volume", "labels"), pair, strict=True):
        with gt.create_volume(tmp_path / f"{name}.tif", shape=volume.shape, dtype="uint8", classes=volume.classes,
                              voxel_size=volume.voxel_size) as out:  # fmt: skip
            for z, plane in volume.planes():
                out.write_plane(z, plane)
    words = ("figure", str(tmp_path / "volume.tif"), str(tmp_path / "labels.tif"), "--planes", "1,3", "-o")
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        done = command(*words, str(tmp_path / f"figure.{ending}"), "--rows", "2:30", "--scale-bar", "10")
        assert done.code == 0, done.err
        assert (tmp_path / f"figure.{ending}").read_bytes().startswith(start)
    assert command(*words, str(tmp_path / "figure.png")).code == 3
    assert command(*words, str(tmp_path / "b.png"), "--rows", "30:2").code == 2
