"""Training rows come in the order in which TWS meets the pixels: its bootstrap, so every tree, depends on that.

The orders expected here follow WekaSegmentation.java of TWS 4.0.0: ``createTrainingInstances`` (classes, slices, ROIs;
rectangles and shapes column by column, thin free lines vertex by vertex), ``addLabeledData`` (raster order) and
``trainClassifier`` (traces before loaded data).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from golden_sets import GoldenSet
from roifile import ROI_TYPE, ImagejRoi

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.annotations.loading import load_annotation, load_annotations
from gpu_tomoclass.device.base import NumpyDevice
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.model.fiji.classifier import load_fiji_model
from gpu_tomoclass.training.rows import collect_rows
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (3, 12, 16)


def box(left: int, top: int, width: int, height: int, *, group: int, position: int) -> ImagejRoi:
    right, bottom = left + width, top + height
    return ImagejRoi(
        roitype=ROI_TYPE.RECT, left=left, top=top, right=right, bottom=bottom, group=group, position=position
    )


def line(points: list[tuple[int, int]], *, group: int, position: int) -> ImagejRoi:
    roi = ImagejRoi.frompoints(np.array(points))
    roi.roitype, roi.group, roi.position, roi.stroke_width = ROI_TYPE.FREELINE, group, position, 1
    return roi


def zipped(path: Path, *rois: ImagejRoi) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, roi in enumerate(rois):
            archive.writestr(f"{i}.roi", roi.tobytes())
    return path


def in_order(annotation: Annotation) -> list[tuple[int, int, int, int]]:
    """(class, z, y, x) of the rows."""
    rows = annotation.row_order()
    columns = (annotation.label[rows], annotation.z[rows], annotation.y[rows], annotation.x[rows])
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture
def strokes(tmp_path: Path) -> Path:
    """Drawn in no order of classes and planes."""
    return zipped(
        tmp_path / "strokes.zip",
        box(9, 4, 2, 2, group=2, position=3),
        line([(3, 1), (4, 2), (4, 3), (3, 4), (2, 4)], group=1, position=2),
        box(5, 0, 2, 3, group=1, position=1),
        box(8, 7, 1, 2, group=2, position=1),
        box(1, 6, 2, 1, group=1, position=2),
        box(6, 1, 2, 1, group=1, position=1),  # pixel (1, 6) for the second time
    )


EXPECTED = [
    *((1, 0, y, x) for x in (5, 6) for y in (0, 1, 2)),
    (1, 0, 1, 7),
    *((1, 1, y, x) for x, y in [(3, 1), (4, 2), (4, 3), (3, 4), (2, 4)]),
    *((1, 1, 6, x) for x in (1, 2)),
    *((2, 0, y, 8) for y in (7, 8)),
    *((2, 2, y, x) for x in (9, 10) for y in (4, 5)),
]


def test_rois_class_by_class_plane_by_plane(strokes: Path) -> None:
    assert in_order(load_annotation(strokes, volume_shape=SHAPE)) == EXPECTED


def test_label_images_in_raster_order(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    tifffile.imwrite(tmp_path / "labels.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    expected = [(int(labels[at]), *(int(v) for v in at)) for at in zip(*np.nonzero(labels), strict=True)]
    assert in_order(load_annotation(tmp_path / "labels.tif", volume_shape=SHAPE)) == expected


def test_rois_come_before_label_images_and_file_after_file(strokes: Path, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 11, 15], labels[0, 0, 5], labels[0, 11, 15] = 2, 1, 1  # the second one is marked by a ROI, too
    tifffile.imwrite(tmp_path / "labels.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    more = zipped(tmp_path / "more.zip", box(0, 0, 1, 1, group=1, position=1), box(0, 0, 1, 1, group=2, position=3))
    merged = load_annotations([tmp_path / "labels.tif", strokes, more], volume_shape=SHAPE)
    expected = [*EXPECTED]
    expected.insert(7, (1, 0, 0, 0))
    expected += [(2, 2, 0, 0), (1, 0, 11, 15), (2, 1, 11, 15)]
    assert in_order(merged) == expected


def test_rows_follow_that_order(strokes: Path, tmp_path: Path) -> None:
    """Volume after volume, left out where voxels are masked; values belong to their places."""
    image = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    image[0, 1, 5] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZYX"})
    with open_volume(tmp_path / "a.tif") as volume:
        annotation = load_annotation(strokes, volume_shape=SHAPE)
        rows = collect_rows(
            [(volume, annotation), (volume, annotation)],
            bank=FeatureBank.create(["neighbors"], sigmas={"neighbors": [1]}),
            intensity="none",
            nan="mask",
            device=NumpyDevice(threads=2),
        )
    kept = [row for row in EXPECTED if row[1:] != (0, 1, 5)]
    found = np.column_stack([rows.labels, rows.places[:, 1:]]).tolist()
    assert [tuple(row) for row in found] == kept * 2
    assert rows.places[:, 0].tolist() == [0] * len(kept) + [1] * len(kept)
    np.testing.assert_array_equal(rows.values[:, 0], [image[row[1:]] for row in kept * 2])


def test_from_image_and_labels_fijis_very_forest(golden: dict[str, GoldenSet]) -> None:
    """Every node of the 200 trees that TWS grew from the same pixels, its own Gabor included."""
    small = golden["small8"]
    bank = FeatureBank.create("all", gabor="exact")
    with open_volume(small.image_path) as volume:
        annotation = load_annotation(small.labels_path, volume_shape=volume.shape)
        grown = train(volume, annotation, bank=bank, intensity="none", engine="weka", seed=42).model.forest
    fijis = load_fiji_model(small.model_path).forest
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(grown, name), getattr(fijis, name), err_msg=name)
