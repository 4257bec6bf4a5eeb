"""Annotations that cannot be used: the user is told which, where and what to do (faults of labels, ROIs and ARFF)."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from roifile import ROI_TYPE, ImagejRoi

from gpu_tomoclass.annotations.arff import load_arff
from gpu_tomoclass.annotations.loading import load_annotation, load_annotations
from gpu_tomoclass.annotations.rois import read_roi_strokes
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volumes.conversion import substack
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (30, 20, 16)
ROIS = Path(__file__).parents[1] / "data" / "rois"


def labels(shape=SHAPE, dtype=np.uint8) -> np.ndarray:
    array = np.zeros(shape, dtype=dtype)
    array[:, 2:5, 2:5], array[:, 8:12, 8:12] = 1, 2
    return array


def tiff(tmp_path, array, name="labels.tif") -> Path:
    tifffile.imwrite(tmp_path / name, array, photometric="minisblack", metadata={"axes": "ZYX"})
    return tmp_path / name


def refusal(path, kind=DataError, shape=SHAPE, **options) -> str:
    with pytest.raises(kind) as error:
        load_annotation(path, volume_shape=shape, **options)
    assert "\n" not in str(error.value), "one line"
    assert str(path) in str(error.value)
    return str(error.value)


# --- the shape (row 26) -----------------------------------------------------------------------------------------------


def test_transposed_labels(tmp_path):
    text = refusal(tiff(tmp_path, labels().transpose(2, 1, 0)), ModelError)
    assert "(16, 20, 30)" in text
    assert "(30, 20, 16)" in text
    assert "did you mean --label-axes xyz?" in text
    turned = load_annotation(tmp_path / "labels.tif", volume_shape=SHAPE, axes="xyz")
    assert turned.counts() == {1: 270, 2: 480}


@pytest.mark.parametrize(
    ("order", "axes"), [((0, 2, 1), "zxy"), ((1, 0, 2), "yzx"), ((1, 2, 0), "yxz"), ((2, 0, 1), "xzy")]
)
def test_every_order_of_axes_is_recognised(tmp_path, order, axes):
    path = tiff(tmp_path, labels().transpose(order))
    assert f"did you mean --label-axes {axes}?" in refusal(path, ModelError)
    np.testing.assert_array_equal(load_annotation(path, volume_shape=SHAPE, axes=axes).plane_labels(3), labels()[3])


def test_labels_of_another_image(tmp_path):
    text = refusal(tiff(tmp_path, labels((30, 20, 17))), ModelError)
    assert "(30, 20, 17)" in text
    assert "axes" not in text
    assert ModelError.exit_code == 4


def test_unannounced_substack_gets_a_hint(tmp_path):
    text = refusal(tiff(tmp_path, labels((3, 20, 16))), ModelError)
    assert "Every 8, 9, 10, .. would give 3 planes: give --every and --start" in text
    assert "Give --start" in refusal(tiff(tmp_path, labels((1, 20, 16))), ModelError)
    assert "Give --start, the plane it begins with" in refusal(tiff(tmp_path, labels((29, 20, 16))), ModelError)


def test_substack_with_the_wrong_number_of_planes(tmp_path):
    text = refusal(tiff(tmp_path, labels((4, 20, 16))), ModelError, every=15)
    assert "the labels have shape (4, 20, 16), the volume (30, 20, 16), so its sub-stack (2, 20, 16)" in text
    refusal(tiff(tmp_path, labels((4, 20, 16))), ModelError, planes=[1, 2, 3])
    refusal(tiff(tmp_path, labels((4, 20, 16))), ModelError, start=27)


def test_strokes_on_a_written_substack_are_found_again(tmp_path):
    """``substack`` notes where its planes come from; labels painted on it need no options."""
    source = tiff(tmp_path, labels(dtype=np.uint8), "volume.tif")
    with open_volume(source) as volume:
        substack(volume, tmp_path / "sub.tif", every=15)
    found = load_annotation(tmp_path / "sub.tif", volume_shape=SHAPE)
    assert found.planes().tolist() == [7, 22]
    assert "cut from a volume of 30 planes" in refusal(tmp_path / "sub.tif", ModelError, shape=(45, 20, 16))


# --- the values (rows 27 and 28) --------------------------------------------------------------------------------------


def test_no_labels_and_one_class(tmp_path):
    assert "holds no labels" in refusal(tiff(tmp_path, np.zeros(SHAPE, np.uint8)))
    one = labels()
    one[one == 2] = 0
    text = refusal(tiff(tmp_path, one))
    assert "one class only: 270 voxels of class 1" in text
    with pytest.raises(DataError, match="one class only"):
        load_annotations([tmp_path / "labels.tif"] * 2, volume_shape=SHAPE)


def test_few_voxels_are_noted_with_their_number(tmp_path):
    few = labels()
    few[0, 0, :4] = 3
    notes = load_annotation(tiff(tmp_path, few), volume_shape=SHAPE, class_names=["pore", "matrix", "crack"]).notes
    assert any("few" in note and "crack: 4" in note and "pore" not in note for note in notes)
    few[0, 0, 4] = 3
    assert not load_annotation(tiff(tmp_path, few), volume_shape=SHAPE).notes


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("float32", 1.5, "1.5"),
        ("float32", np.nan, "nan"),
        ("float32", np.inf, "inf"),
        ("int16", -1, "-1"),
        ("uint16", 256, "256"),
    ],
)
def test_values_that_are_no_labels(tmp_path, dtype, value, shown):
    wrong = labels(dtype=dtype)
    wrong[4, 7, 3] = wrong[9, 9, 9] = value
    assert f"plane 4 holds {shown} at (y, x) = (7, 3)" in refusal(tiff(tmp_path, wrong))


def test_gaps_are_kept_and_shown(tmp_path):
    gap = labels()
    gap[gap == 2] = 5
    annotation = load_annotation(tiff(tmp_path, gap), volume_shape=SHAPE)
    assert annotation.counts() == {1: 270, 5: 480}
    assert any("label values are 1, 5; they are kept" in note for note in annotation.notes)


def test_files_that_are_no_annotation(tmp_path, golden):
    assert "ARFF" in refusal(golden["small8"].arff_path, UsageError)
    for name in ("missing.tif", "missing.zip", "missing.roi"):
        refusal(tmp_path / name, UsageError)
    for name in ("text.tif", "text.zip", "text.roi"):
        (tmp_path / name).write_text("no annotation")
        refusal(tmp_path / name)
    (tmp_path / "folder.zip").mkdir()
    refusal(tmp_path / "folder.zip")
    (tmp_path / "empty.zip").write_bytes(b"")
    refusal(tmp_path / "empty.zip")


def test_a_grey_image_is_no_label_image(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    with pytest.raises(DataError, match=r"holds 255 values, and \d+ % of its voxels are not 0: this is a grey"):
        load_annotation(grey, volume_shape=SHAPE)
    many = np.zeros(SHAPE, np.uint8)
    many.ravel()[:200] = np.arange(1, 201)  # many classes, little marked
    assert len(load_annotation(many, volume_shape=SHAPE).counts()) == 200
    dense = 1 + (grey > 90) + (grey > 200)  # everything marked, few classes
    assert len(load_annotation(dense.astype(np.uint8), volume_shape=SHAPE).counts()) == 3


# --- ROIs (row 29) ----------------------------------------------------------------------------------------------------


def box(left, top, width, height, **fields) -> ImagejRoi:
    fields = {"group": 1, "position": 5, **fields}
    return ImagejRoi(roitype=ROI_TYPE.RECT, left=left, top=top, right=left + width, bottom=top + height, **fields)


def roi_zip(tmp_path, rois: dict[str, ImagejRoi | bytes]) -> Path:
    with zipfile.ZipFile(tmp_path / "rois.zip", "w") as archive:
        for name, roi in rois.items():
            archive.writestr(f"{name}.roi", roi if isinstance(roi, bytes) else roi.tobytes())
    return tmp_path / "rois.zip"


GOOD = {"a": box(1, 1, 3, 3), "b": box(6, 6, 3, 3, group=2)}

BAD = {
    "outside": (box(16, 3, 4, 4), "lies outside the image of 20 rows and 16 columns (it spans x 16 to 20, y 3 to 7)"),
    "no position": (box(3, 3, 4, 4, position=0), "has no position (slice) in a stack of 30 planes"),
    "too deep": (box(3, 3, 4, 4, position=31), "is on slice 31 of a stack of 30 planes"),
    "two axes": (box(3, 3, 4, 4, position=0, z_position=4, t_position=2), "lies at channel 0, slice 4, frame 2"),
    "empty": (box(3, 3, 0, 4), "covers no pixel centre"),
    "group": (box(3, 3, 4, 4, group=300), "is in group 300; classes go from 1 to 255"),
    "0005-0003-0003": (box(3, 3, 4, 4, group=0), "has no class: set its group"),
    "kind": (box(3, 3, 4, 4).tobytes()[:6] + b"\x0c" + box(3, 3, 4, 4).tobytes()[7:], "is of unknown ROI type 12"),
    "truncated": (box(3, 3, 4, 4).tobytes()[:100], "is truncated: 100 of 128 bytes"),
    "nothing": (b"", "is not an ImageJ ROI"),
    "text": (b"Hello, this is no ROI at all", "is not an ImageJ ROI"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_roi_is_named_with_its_reason(tmp_path, name):
    roi, reason = BAD[name]
    path = roi_zip(tmp_path, {"a": GOOD["a"], name: roi, "b": GOOD["b"]})
    text = refusal(path)
    assert f"1 of 3 ROIs cannot be used: '{name}' (no. 2) {reason}" in text
    assert "--skip-bad-rois" in text
    skipped = load_annotation(path, volume_shape=SHAPE, skip_bad_rois=True)
    assert skipped.counts() == {1: 9, 2: 9}
    assert any(f"1 of 3 ROIs were left out: '{name}' (no. 2) {reason}" in note for note in skipped.notes)


def test_kinds_that_are_refused_are_named():
    text = refusal(ROIS / "imagej_refused.zip", shape=(5, 40, 44))
    for reason in (
        "'text' (no. 3) is an overlay (text)",
        "'arrow' (no. 4) is an overlay (arrow)",
        "'rounded' (no. 5) is a rounded rectangle",
        "'angle' (no. 6) is an angle",
        "'spline' (no. 7) is spline-fitted, which is not used: Edit > Selection > Create Mask, then Edit >",
        "'curved-composite' (no. 8) is a composite with curved edges",
    ):
        assert reason in text
    for name in ("good", "ellipse", "rotated-rectangle"):
        assert f"'{name}'" not in text


def test_first_ten_bad_rois_are_listed(tmp_path):
    rois = {f"{i}": box(50, 3, 4, 4) for i in range(14)}
    text = refusal(roi_zip(tmp_path, rois), skip_bad_rois=True)
    assert "14 of 14 ROIs cannot be used" in text
    assert "'9' (no. 10)" in text
    assert "'10' (no. 11)" not in text
    assert "and 4 more" in text


def test_names_and_classes_that_contradict(tmp_path):
    names = {"class_names": ["pore", "matrix"]}
    path = roi_zip(tmp_path, {**GOOD, "x": box(11, 11, 2, 2, group=1, name="matrix-4")})
    assert "'matrix-4' (no. 3) is in group 1 but named after class 2 (matrix)" in refusal(path, **names)
    path = roi_zip(tmp_path, {**GOOD, "x": box(11, 11, 2, 2, group=0, name="void-4")})
    assert "is named after class 'void', which is not one of pore, matrix" in refusal(path, **names)


def test_points_with_several_counters(tmp_path):
    roi = ImagejRoi.frompoints([[3, 3], [5, 5]])
    roi.roitype, roi.name, roi.group, roi.position = ROI_TYPE.POINT, "", 1, 3
    roi.counters, roi.counter_positions = np.uint8([0, 1]), np.uint32([3, 3])
    assert "several counters" in refusal(roi_zip(tmp_path, {**GOOD, "points": roi}))


def test_two_classes_on_one_pixel_name_both_rois(tmp_path):
    path = roi_zip(tmp_path, {**GOOD, "c": box(8, 8, 3, 3, group=3)})
    text = refusal(path, skip_bad_rois=True)
    assert "1 voxel has two classes, first at (z, y, x) = (4, 8, 8)" in text
    assert "class 2 in ROI 'b' (no. 2) and class 3 in ROI 'c' (no. 3)" in text
    same = load_annotation(roi_zip(tmp_path, {**GOOD, "c": box(8, 8, 3, 3, group=2)}), volume_shape=SHAPE)
    assert same.counts() == {1: 9, 2: 17}
    other_plane = {**GOOD, "c": box(8, 8, 3, 3, group=3, position=6)}
    assert load_annotation(roi_zip(tmp_path, other_plane), volume_shape=SHAPE).counts() == {1: 9, 2: 9, 3: 9}


def test_roi_partly_outside_is_cut_with_a_note(tmp_path):
    path = roi_zip(tmp_path, {**GOOD, "edge": box(14, 18, 5, 5, group=2)})
    annotation = load_annotation(path, volume_shape=SHAPE)
    assert annotation.counts() == {1: 9, 2: 13}
    assert any("outside the image" in note and "'edge' (no. 3)" in note for note in annotation.notes)


def test_truncated_roi_never_loses_its_class_or_plane(tmp_path):
    """Cut at every byte, a ROI is refused; decoders take many of these cuts for a whole ROI without group or name."""
    roi = ImagejRoi.frompoints(np.float32([[3, 3], [9, 4], [5, 9]]), name="pore-1")
    roi.group, roi.position, roi.props = 2, 4, "key: value\n"
    data = roi.tobytes()
    whole = load_annotation(roi_zip(tmp_path, {"whole": roi, **GOOD}), volume_shape=SHAPE)
    assert 3 in whole.planes()
    for n in range(len(data)):
        text = refusal(roi_zip(tmp_path, {"cut": data[:n], **GOOD}))
        assert "truncated" in text or "not an ImageJ ROI" in text


def test_damaged_rois_never_crash(tmp_path):
    """A thousand ROIs with a few random bytes: usable, or refused by name."""
    rng = np.random.default_rng(5)
    with zipfile.ZipFile(ROIS / "imagej.zip") as archive:
        originals = [archive.read(name) for name in archive.namelist()]
    rois = {}
    for i in range(1000):
        data = np.frombuffer(originals[i % len(originals)], dtype=np.uint8).copy()
        data[rng.integers(4, len(data), 3)] = rng.integers(0, 256, 3)
        rois[f"{i}"] = data.tobytes()
    rois["good"] = box(15, 39, 1, 1, group=250)
    strokes = read_roi_strokes(roi_zip(tmp_path, rois), volume_shape=(5, 40, 44), skip_bad_rois=True)
    assert any("were left out" in note for note in strokes.notes)
    assert strokes.titles[strokes.roi[-1]] == "'good' (no. 1001)"
    for values, n in zip((strokes.z, strokes.y, strokes.x), (5, 40, 44), strict=True):
        assert 0 <= values.min() <= values.max() < n


# --- zip bombs and damaged zips (row 15) ------------------------------------------------------------------------------


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", GOOD["a"].tobytes())
        with archive.open("bomb.roi", "w") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
    tracemalloc.start()
    text = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "would unpack to 209715" in text
    assert "'bomb.roi'" in text
    assert peak < 8 << 20, "the bomb has 200 MiB"


def test_zip_that_lies_about_its_sizes(tmp_path):
    """An entry that declares 200 bytes and unpacks to 50 MiB yields an error and no 50 MiB."""
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("liar.roi", bytes(50 << 20))
    data = path.read_bytes().replace(struct.pack("<I", 50 << 20), struct.pack("<I", 200))
    path.write_bytes(data)
    tracemalloc.start()
    text = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is damaged in the zip file" in text
    assert peak < 8 << 20


def test_many_entries_and_huge_files(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_tomoclass.annotations.roi_file._MAX_ROIS", 3)
    assert "holds 4 ROIs" in refusal(roi_zip(tmp_path, {f"{i}": GOOD["a"] for i in range(4)}))
    huge = tmp_path / "huge.zip"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    assert "has 1099511627776 bytes" in refusal(huge)
    huge.rename(tmp_path / "huge.roi")
    assert "has 1099511627776 bytes" in refusal(tmp_path / "huge.roi")


def test_damaged_entry_is_named(tmp_path):
    path = roi_zip(tmp_path, GOOD)
    data = bytearray(path.read_bytes())
    data[data.index(b"Iout") + 70] ^= 1
    path.write_bytes(data)
    assert "1 of 2 ROIs cannot be used: 'a' (no. 1) is damaged in the zip file" in refusal(path)


def test_truncated_zip(tmp_path):
    data = roi_zip(tmp_path, GOOD).read_bytes()
    for n in range(0, len(data), 7):
        (tmp_path / "cut.zip").write_bytes(data[:n])
        refusal(tmp_path / "cut.zip")


def test_zip_without_rois(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "holds no ImageJ ROI" in refusal(tmp_path / "other.zip")


def test_inputs_are_not_changed(tmp_path):
    paths = [roi_zip(tmp_path, GOOD), tiff(tmp_path, labels())]
    before = [zlib.crc32(path.read_bytes()) for path in paths]
    for path in paths:
        load_annotation(path, volume_shape=SHAPE)
    assert [zlib.crc32(path.read_bytes()) for path in paths] == before


# --- ARFF -------------------------------------------------------------------------------------------------------------

HEAD = "@relation r\n@attribute a numeric\n@attribute 'b c' numeric\n@attribute class {p,'q r'}\n@data\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends before @data"),
        ("PNG\x00\x01", "line 1 is not @relation"),
        ("@relation r\n@attribute a numeric\n", "ends before @data"),
        ("@relation r\n@attribute a string\n", "line 2: attribute 'a' is of type string, not numeric"),
        ("@relation r\n@attribute\n", "line 2: attribute cannot be read"),
        ("@relation r\n@attribute class {a,b\n", "line 2: classes cannot be read"),
        ("@relation r\n@attribute class {a,a}\n", "line 2: 2 classes, more than 255 or some of them equal"),
        ("@relation r\n@attribute c {a,b}\n@attribute d numeric\n", "line 3: attribute 'd' comes after the class"),
        ("@relation r\n@attribute c {a,b}\n@data\n", "no class attribute or no channels"),
        ("@relation r\n@attribute a numeric\n@data\n1\n", "no class attribute or no channels"),
        ("@relation r\n@attribute a numeric\n@attribute a real\n@attribute c {a,b}\n@data\n", "'a' twice"),
        ("@relation r\n@bogus\n", "line 2: unknown declaration @bogus"),
        (HEAD, "has no rows after @data (line 5)"),
        (HEAD + "1,2,p\n", "rows of one class only: 1 of 'p'"),
        (HEAD + "1,2,p\n1,2,3,p\n", "line 7 has 3 values and a class; the header declares 2 channels"),
        (HEAD + "1,2,p\n1,'q r'\n", "line 7 has 1 values and a class; the header declares 2 channels"),
        (HEAD + "1,2,p\n1,x,'q r'\n", "line 7: value 2 is 'x', not a number"),
        (HEAD + "1,2,p\n1,2,z\n", "line 7 has class 'z', not one of p, q r"),
        (HEAD + "1,2,p\n1,2,?\n", "line 7 has class '?'"),
        (HEAD + "1,2,p\n{0 1, 2 p}\n", "line 7 is a sparse row"),
        (HEAD + "1,2,p\n1,2,p,{3}\n", "line 7 is no comma-separated row"),
        (HEAD + "1,2,p\n1 2 p\n", "line 7 is no comma-separated row"),
    ],
)
def test_arff_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "data.arff"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        load_arff(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_arff_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_arff(tmp_path / "missing.arff")
    with pytest.raises(DataError, match="cannot be read"):
        load_arff(tmp_path)


def test_truncated_arff_is_refused_or_ends_with_a_whole_row(tmp_path, golden):
    """Cut anywhere, the file is refused or a prefix of its rows; a cut row never counts."""
    data = golden["small8"].arff_path.read_bytes()
    whole = load_arff(golden["small8"].arff_path)
    rng = np.random.default_rng(2)
    refused = 0
    for n in [*rng.integers(0, len(data), 40).tolist(), len(data) - 1]:
        (tmp_path / "cut.arff").write_bytes(data[:n])
        with contextlib.suppress(DataError):
            refused += 1
            table = load_arff(tmp_path / "cut.arff")
            refused -= 1
            np.testing.assert_array_equal(table.values, whole.values[: len(table.label)])
    assert refused >= 35, "only cuts at the end of a row leave a whole file"
