"""Label images become voxels of the volume: same values, on the planes that the sub-stack was cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from roifile import ROI_TYPE, ImagejRoi

from gpu_tomoclass.annotations.annotation import Annotation, merge_annotations
from gpu_tomoclass.annotations.label_images import SubStack, read_label_image
from gpu_tomoclass.annotations.loading import load_annotation, load_annotations
from gpu_tomoclass.classes import PALETTE, LabelClass
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volumes import ArrayVolume

SHAPE = (12, 9, 11)


def sparse(shape=SHAPE, seed=1, classes=3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.05, rng.integers(1, classes + 1, shape), 0).astype(np.uint8)


def write(path, array):
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "ZYX" if array.ndim == 3 else "YX"})
    return path


def as_image(annotation: Annotation) -> np.ndarray:
    image = np.zeros(annotation.shape, dtype=np.uint8)
    image[annotation.z, annotation.y, annotation.x] = annotation.label
    return image


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_label_image_of_the_whole_volume(tmp_path, dtype):
    labels = sparse()
    annotation = load_annotation(write(tmp_path / "l.tif", labels.astype(dtype)), volume_shape=SHAPE)
    np.testing.assert_array_equal(as_image(annotation), labels)
    assert {v.dtype.name for v in (annotation.z, annotation.y, annotation.x)} == {"int32"}
    assert annotation.label.dtype == np.uint8
    assert annotation.planes().tolist() == np.flatnonzero(labels.any(axis=(1, 2))).tolist()
    assert annotation.counts() == {v: int((labels == v).sum()) for v in (1, 2, 3)}
    assert [c.name for c in annotation.classes] == ["class 1", "class 2", "class 3"]
    assert any("float32" in note for note in annotation.notes) == (dtype == "float32")
    for z in range(SHAPE[0]):
        y, x, label = annotation.on_plane(z)
        expected = np.nonzero(labels[z])
        np.testing.assert_array_equal(np.stack([y, x]), expected, err_msg="raster order")
        np.testing.assert_array_equal(label, labels[z][expected])
        np.testing.assert_array_equal(annotation.plane_labels(z), labels[z])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), nz=st.integers(1, 40))
def test_substack_maps_back(data, nz):
    """Cutting a sub-stack out of a label volume and mapping it back keeps exactly the labels of its planes."""
    every = data.draw(st.integers(1, 12))
    start = data.draw(st.one_of(st.none(), st.integers(0, nz - 1)))
    first = min(every // 2, nz - 1) if start is None else start
    labels = sparse((nz, 4, 5), seed=nz)
    expected = np.zeros_like(labels)
    expected[first::every] = labels[first::every]
    substack = SubStack.of(nz, every=every, start=start)
    assert substack is not None
    assert substack.planes.tolist() == list(range(nz))[first::every]
    voxels = read_label_image(ArrayVolume(labels[first::every]), volume_shape=labels.shape, substack=substack)
    image = np.zeros_like(labels)
    image[voxels.z, voxels.y, voxels.x] = voxels.label
    np.testing.assert_array_equal(image, expected)


def test_substack_options_and_own_metadata(tmp_path):
    labels = sparse()
    shape = labels.shape
    own = ArrayVolume(labels[2::5], metadata={"substack": {"every": 5, "start": 2, "nz": 12}})
    assert np.unique(read_label_image(own, volume_shape=shape).z).tolist() == [2, 7]
    same = SubStack.of(12, every=5)
    assert np.unique(read_label_image(own, volume_shape=shape, substack=same).z).tolist() == [2, 7]
    with pytest.raises(UsageError, match="every 5th plane from plane 2 on, and start 3 was asked for"):
        read_label_image(own, volume_shape=shape, substack=SubStack.of(12, every=5, start=3))
    with pytest.raises(ModelError, match="cut from a volume of 12 planes, and this one has 30"):
        read_label_image(own, volume_shape=(30, 9, 11))
    # The sub-stack itself is the volume: its planes are planes 0, 1, ..
    assert np.unique(read_label_image(own, volume_shape=own.shape).z).tolist() == [0, 1]

    picked = load_annotation(write(tmp_path / "p.tif", labels[[7, 3]]), volume_shape=shape, planes=[7, 3])
    assert picked.planes().tolist() == [3, 7]
    np.testing.assert_array_equal(as_image(picked)[[3, 7]], labels[[3, 7]])
    one = load_annotation(write(tmp_path / "o.tif", labels[4]), volume_shape=shape, start=4, partial=True)
    assert one.planes().tolist() == [4]
    full = load_annotation(write(tmp_path / "f.tif", labels), volume_shape=shape, every=5)
    np.testing.assert_array_equal(as_image(full), labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every 0th"),
        ({"start": 12}, "planes 0 to 11"),
        ({"start": -1}, "planes 0 to 11"),
        ({"planes": [1, 1]}, "different"),
        ({"planes": [12]}, "not all in a volume of 12"),
        ({"planes": [1], "every": 2}, "together"),
    ],
)
def test_substack_options_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        SubStack.of(12, **options)


def test_class_names_colours_and_gaps(tmp_path):
    labels = sparse()
    labels[labels == 2] = 5
    path = write(tmp_path / "l.tif", labels)
    plain = load_annotation(path, volume_shape=SHAPE)
    assert [(c.value, c.name) for c in plain.classes] == [(1, "class 1"), (3, "class 3"), (5, "class 5")]
    assert [c.colour for c in plain.classes] == [PALETTE[0], PALETTE[2], PALETTE[4]]
    assert any("1, 3, 5" in note and "kept" in note for note in plain.notes)
    named = load_annotation(path, volume_shape=SHAPE, class_names={1: "pore", 3: "matrix", 5: "crack", 9: "unused"})
    assert [c.name for c in named.classes] == ["pore", "matrix", "crack"]
    with pytest.raises(DataError, match="holds class 5, and names are given for 1, 2, 3 only"):
        load_annotation(path, volume_shape=SHAPE, class_names=["pore", "void", "matrix"])
    for wrong in (["a", "A"], ["a", " "], [], {0: "a"}, {256: "a"}):
        with pytest.raises(UsageError, match="class"):
            load_annotation(path, volume_shape=SHAPE, class_names=wrong)


def test_classes_of_the_file_are_used():
    labels = np.zeros((2, 3, 4), dtype=np.uint8)
    labels[0, 0], labels[1, 1] = 1, 4
    classes = (LabelClass(1, "pore", (1, 2, 3)), LabelClass(2, "void", (4, 5, 6)))
    volume = ArrayVolume(labels, classes=classes)
    voxels = read_label_image(volume, volume_shape=labels.shape)
    annotation = Annotation.from_voxels(
        voxels.z, voxels.y, voxels.x, voxels.label, shape=labels.shape, classes=volume.classes
    )
    assert annotation.classes == (classes[0], LabelClass(4, "class 4", PALETTE[3]))


# --- voxels and merging -----------------------------------------------------------------------------------------------

voxel_lists = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), max_size=12)


def label_of(voxel) -> int:
    return 1 + sum(voxel) % 3


def annotation_of(voxels, **fields) -> Annotation:
    z, y, x = np.array(voxels, dtype=int).reshape(-1, 3).T
    return Annotation.from_voxels(z, y, x, np.array([label_of(v) for v in voxels], int), shape=(3, 4, 5), **fields)


@settings(max_examples=80, deadline=None)
@given(parts=st.lists(voxel_lists, min_size=1, max_size=4))
def test_merging_is_the_union(parts):
    everything = {voxel for part in parts for voxel in part}
    annotations = [annotation_of(part) for part in parts]
    if len({label_of(v) for v in everything}) < 2:
        with pytest.raises(DataError, match=r"no labels|one class only"):
            merge_annotations(annotations)
        return
    merged = merge_annotations(annotations)
    found = list(zip(merged.z.tolist(), merged.y.tolist(), merged.x.tolist(), strict=True))
    assert found == sorted(everything), "each voxel once, in raster order"
    assert merged.label.tolist() == [label_of(v) for v in found]
    assert [c.value for c in merged.classes] == sorted({label_of(v) for v in everything})
    again = merge_annotations(annotations[::-1])
    np.testing.assert_array_equal(as_image(again), as_image(merged))
    np.testing.assert_array_equal(as_image(merged.merged(merged)), as_image(merged))


@settings(max_examples=50, deadline=None)
@given(voxels=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), min_size=1, unique=True))
def test_a_voxel_with_two_classes_is_named(voxels):
    good = annotation_of(voxels, path="a.tif")
    z, y, x = min(voxels)
    bad = Annotation.from_voxels([z], [y], [x], [9], shape=(3, 4, 5), path="b.tif")
    with pytest.raises(DataError) as error:
        merge_annotations([good, bad])
    assert f"({z}, {y}, {x}): class {label_of((z, y, x))} in a.tif and class 9 in b.tif" in str(error.value)
    assert "1 voxel has two classes" in str(error.value)


def test_voxels_outside_the_volume_are_refused():
    with pytest.raises(DataError, match="y spans 0 to 4"):
        Annotation.from_voxels([0, 0], [0, 4], [0, 0], [1, 2], shape=(3, 4, 5))
    with pytest.raises(DataError, match="labels span 0 to 1"):
        Annotation.from_voxels([0, 0], [0, 1], [0, 0], [1, 0], shape=(3, 4, 5))
    with pytest.raises(ModelError, match=r"\(3, 4, 6\).*\(3, 4, 5\)"):
        merge_annotations([annotation_of([(0, 0, 0)]), Annotation.from_voxels([], [], [], [], shape=(3, 4, 6))])


def test_one_class_per_file_and_both_kinds(tmp_path):
    pore, matrix = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    pore[3, 2:5, 2:5], matrix[8, 2:5, 2:5] = 1, 2
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, left=6, top=6, right=9, bottom=8, group=3, position=4)
    roi.tofile(tmp_path / "crack.roi")
    paths = [write(tmp_path / "pore.tif", pore), write(tmp_path / "matrix.tif", matrix), tmp_path / "crack.roi"]
    merged = load_annotations(paths, volume_shape=SHAPE, class_names=["pore", "matrix", "crack"])
    assert merged.counts() == {1: 9, 2: 9, 3: 6}
    expected = pore + matrix
    expected[3, 6:8, 6:9] = 3
    np.testing.assert_array_equal(as_image(merged), expected)
    assert [c.name for c in merged.classes] == ["pore", "matrix", "crack"]


def test_names_of_classes_must_agree_between_files():
    def part(value, name, path):
        return Annotation.from_voxels(
            [value], [0], [0], [value], shape=(3, 4, 5), classes=[LabelClass(value, name, (0, 0, 0))], path=path
        )

    with pytest.raises(DataError, match=r"class 1 is 'pore' in a\.zip and 'matrix' in b\.zip"):
        merge_annotations([part(1, "pore", "a.zip"), part(1, "matrix", "b.zip")])
    with pytest.raises(DataError, match=r"class 'pore' is 1 in a\.zip and 2 in b\.zip"):
        merge_annotations([part(1, "pore", "a.zip"), part(2, "pore", "b.zip")])
    unnamed = Annotation.from_voxels([0, 0], [1, 1], [0, 1], [1, 2], shape=(3, 4, 5), path="c.tif")
    merged = merge_annotations([part(1, "pore", "a.zip"), unnamed])
    assert [c.name for c in merged.classes] == ["pore", "class 2"]
    assert any("c.tif does not name its classes; 1 as pore" in note for note in merged.notes)


def test_script_in_the_documentation(tmp_path, monkeypatch):
    """The Python block of docs/annotations.md makes both kinds of file, and they say the same."""
    text = (Path(__file__).parents[2] / "docs" / "annotations.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "annotations.md", "exec"), {})
    options = {"volume_shape": (60, 64, 64), "every": 15, "class_names": ["vacuum", "rubber"]}
    strokes = load_annotation("strokes.zip", **options)
    labels = load_annotation("labels.tif", **options)
    assert strokes.planes().tolist() == labels.planes().tolist() == [7, 22]
    assert strokes.classes == labels.classes
    np.testing.assert_array_equal(strokes.plane_labels(22), labels.plane_labels(22))
    assert strokes.counts()[2] > 3 * 21
