"""A ROI covers the pixels that ImageJ says it contains; its group or name is the class, its position the plane."""

from __future__ import annotations

import itertools
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi
from skimage import draw

from gpu_tomoclass.annotations.loading import load_annotation
from gpu_tomoclass.annotations.roi_pixels import roi_pixels
from gpu_tomoclass.annotations.rois import class_of_name, read_roi_strokes
from gpu_tomoclass.errors import DataError

ROIS = Path(__file__).parents[1] / "data" / "rois"
SHAPE = (60, 64)


def area(points, kind=ROI_TYPE.POLYGON, **fields) -> ImagejRoi:
    roi = ImagejRoi.frompoints(np.asarray(points))
    roi.roitype = kind
    roi.name = fields.pop("name", "")
    for name, value in fields.items():
        setattr(roi, name, value)
    return roi


def line(points, width=0.0, kind=ROI_TYPE.FREELINE, **fields) -> ImagejRoi:
    return area(points, kind, float_stroke_width=width, **fields)


def box(left, top, width, height, kind=ROI_TYPE.RECT, **fields) -> ImagejRoi:
    return ImagejRoi(roitype=kind, left=left, top=top, right=left + width, bottom=top + height, **fields)


def pixels(roi: ImagejRoi, shape=SHAPE) -> set[tuple[int, int]]:
    found = roi_pixels(ImagejRoi.frombytes(roi.tobytes()), shape)
    pairs = list(zip(found.y.tolist(), found.x.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs), "a pixel is listed twice"
    return set(pairs)


def as_set(rows, columns) -> set[tuple[int, int]]:
    return set(zip(np.ravel(rows).tolist(), np.ravel(columns).tolist(), strict=True))


def write_zip(path: Path, rois, names=None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, roi in enumerate(rois):
            archive.writestr((names[i] if names else f"{i + 1:04d}-0030-0030") + ".roi", roi.tobytes())
    return path


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_pixels_come_in_the_order_in_which_imagej_meets_them():
    """TWS asks a shape column by column, and a thin free line vertex by vertex; its bootstrap depends on that."""

    def in_order(roi):
        found = roi_pixels(roi, SHAPE)
        return list(zip(found.y.tolist(), found.x.tolist(), strict=True))

    assert in_order(box(9, 4, 3, 2)) == [(4, 9), (5, 9), (4, 10), (5, 10), (4, 11), (5, 11)]
    filled = in_order(area([(2, 2), (9, 3), (4, 8)]))
    assert filled == sorted(filled, key=lambda pixel: (pixel[1], pixel[0]))
    assert in_order(line([(3, 1), (4, 2), (4, 3), (3, 4)], width=1)) == [(1, 3), (2, 4), (3, 4), (4, 3)]


def test_pixels_are_those_of_imagej():
    expected = json.loads((ROIS / "imagej_pixels.json").read_text())
    strokes = read_roi_strokes(ROIS / "imagej.zip", volume_shape=(5, 40, 44))
    assert len(strokes.titles) == len(expected) == 16
    for i, title in enumerate(strokes.titles):
        mine = strokes.roi == i
        assert as_set(strokes.x[mine], strokes.y[mine]) == {tuple(p) for p in expected[title.split("'")[1]]}, title


def test_freehand_line_from_bytes():
    """A FREELINE of width 3 along y = 10 from x = 20 to 24, group 2, position 7, built byte by byte."""
    header = b"Iout" + struct.pack(
        ">hBx4hH16x", 228, 4, 10, 20, 11, 25, 3
    )  # version, type; top, left, bottom, right; n
    header += struct.pack(">hi8xhhi", 3, 0, 0, 0, 0)  # stroke width, shape size, colours, subtype, options, style
    header += struct.pack(">ii", 7, 64 + 12)  # position, second header
    points = struct.pack(">6h", 0, 2, 4, 0, 0, 0)  # x of the three points, then y, relative to the bounding box
    second = struct.pack(">30xB33x", 2)
    roi = ImagejRoi.frombytes(header + points + second)
    assert (roi.roitype, roi.group, roi.position) == (ROI_TYPE.FREELINE, 2, 7)
    assert pixels(roi) == {(y, x) for y in (9, 10, 11) for x in range(20, 25)}


@settings(max_examples=60, deadline=None)
@given(
    angles=st.lists(st.floats(0, 6.28), min_size=3, max_size=12, unique=True),
    radii=st.lists(st.floats(3, 25), min_size=12, max_size=12),
)
def test_polygon_contains_pixels_whose_centre_is_inside(angles, radii):
    angles = np.sort(np.array(angles))
    xy = np.stack(
        [30.13 + radii[: len(angles)] * np.cos(angles), 29.37 + radii[: len(angles)] * np.sin(angles)], axis=1
    )
    xy = xy.astype(np.float32)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[draw.polygon(xy[:, 1].astype(float) - 0.5, xy[:, 0].astype(float) - 0.5, SHAPE)] = True
    try:
        found = pixels(area(xy, ROI_TYPE.FREEHAND))
    except DataError:
        found = set()
    # The two may disagree about centres on the outline to within rounding; centres are at +0.5 for areas.
    outline = distance_to_path(np.vstack([xy, xy[:1]]) - 0.5)
    assert not [p for p in as_set(*np.nonzero(inside)) ^ found if outline[p] > 1e-4]


@pytest.mark.parametrize(
    ("left", "top", "width", "height"), [(3, 4, 9, 15), (10, 5, 8, 8), (0, 0, 1, 1), (20, 30, 30, 7)]
)
def test_oval_contains_pixels_whose_centre_is_inside(left, top, width, height):
    centre = (top + height / 2 - 0.5, left + width / 2 - 0.5)
    rows, columns = draw.ellipse(*centre, height / 2 + 1e-9, width / 2 + 1e-9, SHAPE)
    assert pixels(box(left, top, width, height, ROI_TYPE.OVAL)) == as_set(rows, columns)


def test_rectangle_and_points():
    assert pixels(box(5, 6, 3, 2)) == {(y, x) for y in (6, 7) for x in (5, 6, 7)}
    assert pixels(area([[5, 6], [7, 9]], ROI_TYPE.POINT)) == {(6, 5), (9, 7)}
    assert pixels(area(np.float32([[4.4, 5.6]]), ROI_TYPE.POINT)) == {(6, 4)}


def distance_to_path(path: np.ndarray) -> np.ndarray:
    """Distance of every pixel centre of the image from the path, point by point and segment by segment."""
    y, x = np.indices(SHAPE).astype(float)
    best = np.full(SHAPE, np.inf)
    for (x0, y0), (x1, y1) in itertools.pairwise(path.astype(float)):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        t = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / (length or 1.0), 0, 1)
        best = np.minimum(best, np.hypot(x - x0 - t * (x1 - x0), y - y0 - t * (y1 - y0)))
    return best


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=25),
    width=st.sampled_from([1.5, 2.0, 3.0, 4.7, 6.0]),
)
def test_stroke_contains_pixels_within_half_its_width(steps, width):
    path = np.cumsum([(30, 30), *steps], axis=0)
    assume(path.min() > 4 and path.max() < 56 and (path != path[0]).any())
    found = np.zeros(SHAPE, dtype=bool)
    found[tuple(np.array(sorted(pixels(line(path, width)))).T)] = True
    distance = distance_to_path(path)
    # 1e-5: a stroke of even width is decided by a shift of 1e-6 where a centre lies exactly on its border.
    assert not (found & (distance > width / 2 + 1e-5)).any()
    left_out = (distance < width / 2 - 1e-5) & ~found
    y, x = np.indices(SHAPE)
    beyond = np.zeros(SHAPE, dtype=bool)
    for end, inner in ((path[0], path), (path[-1], path[::-1])):
        outwards = end - inner[(inner != end).any(axis=1)][0]
        along = (x - end[0]) * outwards[0] + (y - end[1]) * outwards[1]
        beyond |= (along > 0.49 * np.hypot(*outwards)) & (np.hypot(x - end[0], y - end[1]) <= width / 2)
    assert not (left_out & ~beyond).any(), "only what lies beyond the flat ends is left out"


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8])
def test_stroke_is_as_wide_as_it_says(width):
    found = pixels(line([[10, 30], [40, 30]], width, ROI_TYPE.POLYLINE))
    assert {x for _, x in found} == set(range(10, 41)), "flat ends: nothing beyond the end points"
    assert len(found) == 31 * width


def test_narrow_line_is_the_pixels_under_the_path():
    path = [[5, 5], [20, 9], [20, 30], [8, 33]]
    under = set()
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        under |= as_set(*draw.line(y0, x0, y1, x1))
    for width in (0, 1):
        assert pixels(line(path, width)) == under


def test_straight_line_uses_its_stroke_width():
    roi = ImagejRoi(roitype=ROI_TYPE.LINE, x1=5, y1=7, x2=5, y2=20, stroke_width=3)
    assert pixels(roi) == {(y, x) for y in range(7, 21) for x in (4, 5, 6)}


def test_long_lines_are_drawn_in_pieces():
    roi = ImagejRoi(roitype=ROI_TYPE.LINE, x1=2, y1=4, x2=1990, y2=4, stroke_width=3)
    assert pixels(roi, (9, 2000)) == {(y, x) for y in (3, 4, 5) for x in range(2, 1991)}


def test_holes_of_a_composite_are_left_out():
    path = [0, 2, 2, 1, 12, 2, 1, 12, 12, 1, 2, 12, 4, 0, 5, 5, 1, 8, 5, 1, 8, 8, 1, 5, 8, 4]
    roi = box(2, 2, 10, 10, multi_coordinates=np.array(path, dtype=np.float32), shape_roi_size=len(path))
    expected = {(y, x) for y in range(2, 12) for x in range(2, 12)} - {(y, x) for y in (5, 6, 7) for x in (5, 6, 7)}
    assert pixels(roi) == expected


@settings(max_examples=40, deadline=None)
@given(dy=st.integers(-40, 70), dx=st.integers(-40, 70))
def test_clipping_is_cutting(dy, dx):
    """What is left of a shifted ROI is the part of the whole ROI that lies in the image."""
    points = np.array([[3, 1], [30, 5], [24, 28], [9, 20]])
    for make in (lambda p: area(p.astype(np.float32)), lambda p: line(p.astype(np.float32), 4)):
        whole = pixels(make(points + 100), (300, 300))
        moved = {(y - 100 + dy, x - 100 + dx) for y, x in whole}
        expected = {(y, x) for y, x in moved if 0 <= y < SHAPE[0] and 0 <= x < SHAPE[1]}
        if expected:
            assert pixels(make(points + np.array([dx, dy]))) == expected
        else:
            with pytest.raises(DataError, match="outside the image"):
                pixels(make(points + np.array([dx, dy])))


# --- class ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pore", "pore"),
        ("pore-12", "pore"),
        ("pore_3", "pore"),
        (" pore - 3", "pore"),
        ("hard phase", "hard phase"),
        ("phase 2", "phase 2"),
        ("Al2O3-0004", "Al2O3"),
        ("class 2", "class 2"),
        ("Class_2", "class 2"),
        ("class2-11", "class 2"),
        ("class-07", "class 7"),
        ("0007-0123-0200", None),
        ("0123-0200", None),
        ("0007-0123-0200-1", None),
        ("12", None),
        ("", None),
    ],
)
def test_class_of_a_name(name, expected):
    assert class_of_name(name) == expected


def labels_of(tmp_path, rois, **options) -> tuple[dict[int, int], dict[int, str], list[str]]:
    path = write_zip(tmp_path / "strokes.zip", rois)
    annotation = load_annotation(path, volume_shape=(1, *SHAPE), **options)
    return annotation.counts(), {c.value: c.name for c in annotation.classes}, annotation.notes


def test_group_is_the_class(tmp_path):
    rois = [box(1, 1, 2, 2, group=3), box(9, 1, 3, 3, group=1)]
    counts, names, _ = labels_of(tmp_path, rois, class_names={1: "pore", 3: "matrix"})
    assert (counts, names) == ({1: 9, 3: 4}, {1: "pore", 3: "matrix"})
    assert labels_of(tmp_path, rois)[1] == {1: "class 1", 3: "class 3"}


def test_names_become_classes_in_alphabetical_order(tmp_path):
    rois = [box(1, 1, 2, 2, name="pore-1"), box(9, 1, 3, 3, name="Matrix_7"), box(1, 9, 1, 1, name="pore-2")]
    counts, names, notes = labels_of(tmp_path, rois)
    assert (counts, names) == ({1: 9, 2: 5}, {1: "Matrix", 2: "pore"})
    assert any("classes by ROI name: 1 = Matrix, 2 = pore" in note for note in notes)


def test_names_are_looked_up_among_the_given_classes(tmp_path):
    rois = [box(1, 1, 2, 2, name="PORE-1"), box(9, 1, 3, 3, name="matrix"), box(20, 1, 1, 1, name="class 3-1")]
    counts, names, _ = labels_of(tmp_path, rois, class_names=["pore", "matrix", "crack"])
    assert (counts, names) == ({1: 4, 2: 9, 3: 1}, {1: "pore", 2: "matrix", 3: "crack"})


def test_numbered_classes_keep_their_numbers(tmp_path):
    rois = [box(1, 1, 2, 2, name="class 5"), box(9, 1, 3, 3, name="class 2-1")]
    assert labels_of(tmp_path, rois)[0] == {2: 9, 5: 4}


def test_groups_and_names_in_one_file_are_noted(tmp_path):
    rois = [
        box(1, 1, 2, 2, group=2, name="pore-1"),
        box(9, 1, 3, 3, name="pore-2"),
        box(20, 1, 1, 2, name="matrix"),
    ]
    counts, names, notes = labels_of(tmp_path, rois)
    assert (counts, names) == ({1: 2, 2: 13}, {1: "matrix", 2: "pore"})
    assert any("no group" in note and "'pore-2' (no. 2)" in note and "'matrix' (no. 3)" in note for note in notes)


# --- plane ------------------------------------------------------------------------------------------------------------


def planes_of(tmp_path, rois, nz=60, names=None, **options) -> list[int]:
    path = write_zip(tmp_path / "strokes.zip", [*rois, box(40, 40, 2, 2, group=9, position=rois[0].position)], names)
    annotation = load_annotation(path, volume_shape=(nz, *SHAPE), **options)
    return np.unique(annotation.z[annotation.label < 9]).tolist()


def test_position_counts_from_one(tmp_path):
    assert planes_of(tmp_path, [box(1, 1, 2, 2, group=1, position=7)]) == [6]


def test_positions_of_a_substack(tmp_path):
    rois = [box(1, 1, 2, 2, group=1, position=1), box(1, 1, 2, 2, group=1, position=3)]
    assert planes_of(tmp_path, rois, every=15, start=4) == [4, 34]
    assert planes_of(tmp_path, rois, every=15) == [7, 37]
    assert planes_of(tmp_path, rois, planes=[50, 2, 11]) == [11, 50]
    assert planes_of(tmp_path, rois, start=20) == [20, 22]


@pytest.mark.parametrize(("c", "z", "t"), [(1, 5, 1), (5, 1, 1), (1, 1, 5), (0, 5, 0), (0, 5, 1)])
def test_hyperstack_position(tmp_path, c, z, t):
    here, there = (
        {"c_position": c, "z_position": z, "t_position": t},
        {"c_position": c, "z_position": z, "t_position": t},
    )
    there.update({axis: 2 for axis, value in here.items() if value == 5})
    rois = [box(1, 1, 2, 2, group=1, **there), box(8, 8, 2, 2, group=1, **here)]
    assert planes_of(tmp_path, rois) == [1, 4]


def test_no_position(tmp_path):
    rois = [box(1, 1, 2, 2, group=1)]
    assert planes_of(tmp_path, rois, nz=1) == [0]
    assert planes_of(tmp_path, rois, planes=[33]) == [33]
    assert planes_of(tmp_path, rois, start=21) == [21]
    names = ["0005-0001-0001", "0006-0040-0040"]
    assert planes_of(tmp_path, rois, names=names) == [4]


def test_points_with_positions_of_their_own(tmp_path):
    roi = area([[3, 4], [5, 6], [7, 8]], ROI_TYPE.POINT, group=1, position=-2)
    roi.counters, roi.counter_positions = np.zeros(3, dtype=np.uint8), np.array([2, 9, 2], dtype=np.uint32)
    path = write_zip(tmp_path / "strokes.zip", [roi, box(40, 40, 2, 2, group=2, position=1)])
    annotation = load_annotation(path, volume_shape=(12, *SHAPE))
    found = annotation.label == 1
    assert [v[found].tolist() for v in (annotation.z, annotation.y, annotation.x)] == [[1, 1, 8], [4, 8, 6], [3, 7, 5]]


def test_single_roi_file(tmp_path):
    box(5, 6, 3, 2, group=4, position=2, options=ROI_OPTIONS.NONE).tofile(tmp_path / "one.roi")
    annotation = load_annotation(tmp_path / "one.roi", volume_shape=(3, *SHAPE), partial=True)
    assert (annotation.counts(), annotation.planes().tolist()) == ({4: 6}, [1])


def test_entries_that_are_no_rois_are_noted(tmp_path):
    path = write_zip(tmp_path / "strokes.zip", [box(1, 1, 2, 2, group=1), box(9, 9, 2, 2, group=2)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._0001.roi", b"x")
        archive.writestr("notes.txt", b"x")
    notes = load_annotation(path, volume_shape=(1, *SHAPE)).notes
    assert any("notes.txt" in note and "__MACOSX" in note for note in notes)
