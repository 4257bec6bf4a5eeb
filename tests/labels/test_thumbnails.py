"""Pictures beside labels: what they show is what the arrays hold."""

import numpy as np
import pytest
from PIL import Image

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.labels import save_sweep, save_thumbnail
from gpu_tomoclass.volumes import ArrayVolume

CLASSES = (LabelClass(1, "left", (255, 0, 0)), LabelClass(2, "right", (0, 0, 255)))


def case(nz=5, ny=40, nx=60):
    """Grey everywhere the same; class 1 on the left half, 2 on the right, and nothing in the first plane."""
    labels = np.ones((nz, ny, nx), np.uint8)
    labels[:, :, nx // 2 :] = 2
    for z in range(nz):
        labels[z, :, : 3 * (z % 100)] = 0  # else GIF would hold one frame for planes that look the same
    labels[0] = 0
    found = ArrayVolume(labels)
    found.classes = CLASSES
    return ArrayVolume(np.full((nz, ny, nx), 7, np.uint16), voxel_size=(2.0, 1.0, 1.0)), found


def test_sweep_shows_each_plane(tmp_path):
    volume, labels = case()
    save_sweep(volume, labels, tmp_path / "s.gif")
    with Image.open(tmp_path / "s.gif") as animation:
        assert animation.n_frames == 5
        frames = []
        for z in range(5):
            animation.seek(z)
            frames.append(np.asarray(animation.convert("RGB")).astype(int))
    assert frames[0].shape == (40, 60, 3)
    assert not frames[0].any()  # one grey value is black, and no class covers it
    red, blue = frames[1][20, 10], frames[1][20, 50]
    # 40 % of the class's colour over black; GIF keeps 128 colours of the picture's few exactly
    assert red.tolist() == [102, 0, 0]
    assert blue.tolist() == [0, 0, 102]


def test_large_planes_and_many_are_thinned_out(tmp_path):
    volume, labels = case(nz=150, ny=30, nx=900)
    save_sweep(volume, labels, tmp_path / "s.gif")
    with Image.open(tmp_path / "s.gif") as animation:
        assert animation.n_frames == 60
        assert animation.size == (300, 10)


def test_thumbnail_shows_three_sections(tmp_path):
    volume, labels = case()
    save_thumbnail(volume, labels, tmp_path / "t.png")
    picture = np.asarray(Image.open(tmp_path / "t.png").convert("RGB")).astype(int)
    assert picture.shape == (360, 900, 3)
    third = picture.shape[1] // 3
    for n, expected in enumerate(({"red", "blue"}, {"red", "blue"}, {"blue"})):  # x = 30 lies in the right half
        part = picture[: int(0.8 * 360), n * third : (n + 1) * third]
        seen = {"red"} if (part == [102, 0, 0]).all(axis=2).any() else set()
        seen |= {"blue"} if (part == [0, 0, 102]).all(axis=2).any() else set()
        assert seen == expected, n


def test_without_grey_values_the_colours_stand_alone(tmp_path):
    _, labels = case()
    save_sweep(None, labels, tmp_path / "s.gif")
    with Image.open(tmp_path / "s.gif") as animation:
        animation.seek(1)
        frame = np.asarray(animation.convert("RGB"))
    assert [frame[20, x].tolist() for x in (1, 10, 50)] == [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    save_thumbnail(None, labels, tmp_path / "t.png")
    picture = np.asarray(Image.open(tmp_path / "t.png").convert("RGB"))
    assert all((picture == colour).all(axis=2).sum() > 1000 for colour in ([255, 0, 0], [0, 0, 255]))


def test_labels_of_a_box_lie_over_its_grey_values(tmp_path):
    _, labels = case()
    grey = np.zeros((9, 50, 70), np.uint16)
    grey[3:8, 6:46, 8:68] = 1000
    labels.metadata = {"settings": {"planes": [3, 8], "crop": "3:8,6:46,8:68"}}
    save_sweep(ArrayVolume(grey), labels, tmp_path / "s.gif")
    with Image.open(tmp_path / "s.gif") as animation:
        assert np.asarray(animation.convert("RGB")).min() == 255  # the first plane has no labels
    for crop in ("3:8,6:46,9:69x", "3:7,6:46,8:68", 5, [[1], 2]):
        labels.metadata = {"settings": {"crop": crop}}
        with pytest.raises(ModelError, match="give the labels of this volume"):
            save_sweep(ArrayVolume(grey), labels, tmp_path / "n.gif")


def test_labels_of_another_volume_are_refused(tmp_path):
    volume, _ = case()
    _, labels = case(nz=9)
    for save, name in ((save_thumbnail, "t.png"), (save_sweep, "s.gif")):
        with pytest.raises(ModelError, match="give the labels of this volume"):
            save(volume, labels, tmp_path / name)
        assert not (tmp_path / name).exists()
