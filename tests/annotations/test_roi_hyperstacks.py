"""ROIs of hyperstacks, outlines that ImageJ keeps as polygons, line widths, and odd zip files."""

import struct
import zipfile

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi, roiwrite

from gpu_tomoclass.annotations.loading import load_annotation
from gpu_tomoclass.annotations.roi_pixels import roi_pixels
from gpu_tomoclass.errors import DataError

SHAPE = (6, 40, 44)


def box(left, group, **position):
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        left=left,
        top=3,
        right=left + 3,
        bottom=6,
        group=group,
        options=ROI_OPTIONS.NONE,
        **position,
    )


def planes(tmp_path, rois):
    path = tmp_path / "strokes.zip"
    roiwrite(path, rois, mode="w", name=[f"r{i}" for i in range(len(rois))])
    return load_annotation(path, volume_shape=SHAPE)


def place(c, z, t):
    return {"c_position": c, "z_position": z, "t_position": t}


def test_channel_and_slice(tmp_path):
    """Drawn on channel 2 of slice 1, and on channel 1 of slice 4: the slice is the plane."""
    found = planes(tmp_path, [box(3, 1, **place(2, 1, 1)), box(9, 2, **place(1, 4, 1))])
    assert found.planes().tolist() == [0, 3]
    assert any("the slice is taken as the plane" in note for note in found.notes)


def test_planes_that_count_as_channels(tmp_path):
    found = planes(tmp_path, [box(3, 1, **place(2, 1, 1)), box(9, 2, **place(4, 1, 1))])
    assert found.planes().tolist() == [1, 3]


@pytest.mark.parametrize(
    "places",
    [[(2, 1, 1), (2, 1, 1)], [(2, 1, 1), (1, 1, 3)], [(2, 3, 1), (4, 3, 1)]],
    ids=["one channel", "c and t", "c"],
)
def test_what_is_not_clear_is_refused(tmp_path, places):
    with pytest.raises(DataError, match="not clear which is the plane"):
        planes(tmp_path, [box(3 + 6 * i, 1 + i, **place(*where)) for i, where in enumerate(places)])


def outline(subtype, xy):
    roi = ImagejRoi.frompoints(xy)
    roi.roitype, roi.subtype = ROI_TYPE.FREEHAND, subtype
    return ImagejRoi.frombytes(roi.tobytes())


def test_ellipse_and_rotated_rectangle_are_their_polygons():
    """Pixel centres inside, against matplotlib; the coordinates keep every centre away from an edge."""
    angle = np.arange(72) * np.pi / 36
    turned = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    ellipse = np.stack([13.1 * np.cos(angle), 7.3 * np.sin(angle)], axis=1) @ turned.T + (20.17, 19.41)
    rectangle = np.array([[-11.2, -5.3], [11.2, -5.3], [11.2, 5.3], [-11.2, 5.3]]) @ turned.T + (21.37, 18.93)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    for subtype, xy in ((ROI_SUBTYPE.ELLIPSE, ellipse), (ROI_SUBTYPE.ROTATED_RECT, rectangle)):
        found = np.zeros(SHAPE[1:], bool)
        pixels = roi_pixels(outline(subtype, xy.astype(np.float32)), SHAPE[1:])
        found[pixels.y, pixels.x] = True
        np.testing.assert_array_equal(found, Outline(xy).contains_points(centres).reshape(SHAPE[1:]))
        assert found.sum() > 200


def test_outlines_are_rounded_as_imagej_keeps_them():
    """ImageJ counts an outline's coordinates from its bounds, as float32: 1006.5 - 0.01 becomes 1006.48999, so that the
    right edge lies left of the centre of column 1006, which ``Roi.getMask`` leaves out; in float64 it would be in."""
    left = np.float32(0.01)
    xy = np.array([[left, 2], [1006.5, 2], [1006.5, 5], [left, 5]], np.float32)
    right = np.float64(left) + np.float64(np.float32(1006.5 - np.float64(left)))
    assert right < 1006.5 - 1e-6
    pixels = roi_pixels(outline(ROI_SUBTYPE.UNDEFINED, xy), (8, 1010))
    assert pixels.x.max() == 1005


def test_lines_without_a_width_are_counted(tmp_path):
    line = ImagejRoi.frompoints(np.array([[3, 10], [30, 10]]))
    line.roitype, line.group, line.position = ROI_TYPE.POLYLINE, 1, 2
    wide = ImagejRoi.frompoints(np.array([[3, 20], [30, 20]]))
    wide.roitype, wide.group, wide.position, wide.stroke_width = ROI_TYPE.POLYLINE, 2, 2, 5
    found = planes(tmp_path, [line, wide])
    counts = found.counts()
    assert counts[1] == 28
    note = next(note for note in found.notes if "carry no width" in note)
    assert "1 of 2 line ROIs" in note
    assert f"28, class 2: {counts[2]}" in note or "28" in note


def test_what_macs_put_into_zips_is_left_out(tmp_path):
    path = tmp_path / "strokes.zip"
    roiwrite(path, [box(3, 1, position=1), box(9, 2, position=2)], mode="w", name=["a", "b"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("folder/._a.roi", b"\0\5\x16\7 resource fork")
    assert load_annotation(path, volume_shape=SHAPE).planes().tolist() == [0, 1]


def test_names_in_the_zip_that_are_no_text(tmp_path):
    path = tmp_path / "strokes.zip"
    roiwrite(path, [box(3, 1, position=1), box(9, 2, position=2)], mode="w", name=["aaaa", "bbbb"])
    raw = path.read_bytes()
    central = raw.index(b"PK\1\2")
    (length,) = struct.unpack_from("<H", raw, central + 28)
    assert raw[central + 46 : central + 46 + length] == b"aaaa.roi"
    local = bytearray(raw)
    local[6:8] = struct.pack("<H", struct.unpack_from("<H", raw, 6)[0] | 0x800)  # "the name is UTF-8", in one header
    local[30:32] = b"\xee\x61"
    path.write_bytes(local)
    with pytest.raises(DataError, match="damaged in the zip file"):
        load_annotation(path, volume_shape=SHAPE)
    empty = bytearray(raw)
    empty[central + 28 : central + 30] = bytes(2)  # an entry without a name
    path.write_bytes(empty)
    with pytest.raises(DataError):
        load_annotation(path, volume_shape=SHAPE)
