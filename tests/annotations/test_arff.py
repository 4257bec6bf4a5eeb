"""Training rows go from Fiji's ARFF into a table and back without a difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import arff as scipy_arff

from gpu_tomoclass.annotations.arff import TWS_RELATION, TrainingTable, load_arff, match_channels, save_arff
from gpu_tomoclass.errors import DataError, ModelError, UsageError

HEADER = """% a comment
@RELATION 'made by hand'

@attribute original NUMERIC
@ATTRIBUTE 'Kuwahara_19_ 10_0' real
@attribute "x, y" integer
@attribute class {'class 1', pore , "it's"}
@DATA
"""


def read(tmp_path, text: str | bytes) -> TrainingTable:
    path = tmp_path / "data.arff"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_arff(path)


def test_rows_of_tws_are_its_features_at_the_labelled_pixels(golden):
    """Rows are the labelled pixels in raster order, values to six decimals."""
    tws = golden["small8"]
    table = load_arff(tws.arff_path)
    y, x = np.nonzero(tws.label_image)
    assert table.relation == TWS_RELATION
    assert table.class_names == ("class 1", "class 2", "class 3")
    assert table.channels == tws.channels
    np.testing.assert_array_equal(table.label, tws.label_image[y, x])
    expected = tws.features[:, y, x].T.astype(np.float64)
    # Half a unit of the sixth decimal, and the rounding of what was read to float32.
    tolerance = 0.5e-6 + np.spacing(np.abs(expected).astype(np.float32))
    assert (np.abs(table.values - expected) <= tolerance).all()
    assert not np.isnan(table.values).any()


def test_writing_is_byte_for_byte_what_tws_writes(golden, tmp_path):
    tws = golden["small8"]
    written = tws.arff_path.read_bytes()
    save_arff(tmp_path / "again.arff", load_arff(tws.arff_path))
    assert (tmp_path / "again.arff").read_bytes() == written
    y, x = np.nonzero(tws.label_image)
    names = ("class 1", "class 2", "class 3")
    table = TrainingTable(tws.features[:, y, x].T, tws.label_image[y, x], tws.channels, names)
    save_arff(tmp_path / "features.arff", table)
    assert (tmp_path / "features.arff").read_bytes() == written


def test_scipy_reads_the_same(golden):
    data, meta = scipy_arff.loadarff(golden["small8"].arff_path)
    table = load_arff(golden["small8"].arff_path)
    assert tuple(meta.names()[:-1]) == table.channels
    columns = np.stack([data[name] for name in meta.names()[:-1]], axis=1)
    np.testing.assert_array_equal(table.values, columns.astype(np.float32))
    assert [table.class_names[v - 1].encode() for v in table.label] == data["class"].tolist()


# All that may need quotes, other ends of lines, characters of 1 to 4 bytes: looking up all of Unicode takes seconds.
CHARACTERS = "".join(map(chr, range(0x250))) + "\u2028\u2029\u3000\u4e2d\ufeff\ufffd\U0001f600\U0010ffff"


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        np.float32, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.floats(allow_infinity=False, width=32)
    ),
    names=st.lists(st.text(CHARACTERS, min_size=1, max_size=12), min_size=6, max_size=6),
)
def test_round_trip_of_any_table(tmp_path_factory, values, names):
    names = [f"{i}{name}" for i, name in enumerate(names)]
    n, k = values.shape
    classes = tuple(f"{name}." for name in names[k:])  # blanks at the ends of class names are not kept
    label = (np.arange(n) % len(classes) + 1).astype(np.uint8)
    table = TrainingTable(values, label, tuple(names[:k]), classes, relation=names[-1])
    path = tmp_path_factory.mktemp("arff") / "t.arff"
    save_arff(path, table)
    again = load_arff(path)
    assert (again.channels, again.class_names, again.relation) == (table.channels, table.class_names, table.relation)
    np.testing.assert_array_equal(again.label, label)
    np.testing.assert_array_equal(np.isnan(again.values), np.isnan(values))
    wanted, found = (np.nan_to_num(v).astype(np.float64) for v in (values, again.values))
    # Half a unit of the sixth decimal, and one float32 step of rounding.
    assert (np.abs(found - wanted) <= 0.5e-6 + np.abs(wanted) * 2**-23).all()


@settings(max_examples=60, deadline=None)
@given(values=hnp.arrays(np.float32, (4, 3), elements=st.floats(allow_infinity=False, width=32)))
def test_exact_files_give_every_bit_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("arff") / "t.arff"
    save_arff(path, TrainingTable(values, np.uint8([1, 2, 2, 1]), ("a", "b b", "c"), ("p", "q")), exact=True)
    again = load_arff(path)
    np.testing.assert_array_equal(again.values, values)
    # Java reads doubles and rounds them to float32, as SciPy's reader and NumPy do here
    data, _ = scipy_arff.loadarff(path)
    np.testing.assert_array_equal(np.stack([data[n] for n in ("a", "b b", "c")], 1).astype(np.float32), values)


def test_numbers_of_exact_files(tmp_path):
    """Forms that java.lang.Double.valueOf reads; from such a file FastRandomForest grew the trees of train_weka."""
    values = np.float32([[1 / 3, 1e-30, 16777216, -0.1, np.nan], [0, 1, 2, 3, 3.4e38]])
    table = TrainingTable(values, np.uint8([1, 2]), tuple("abcde"), ("p", "q"))
    save_arff(tmp_path / "n.arff", table, exact=True)
    rows = (tmp_path / "n.arff").read_text().splitlines()[-2:]
    assert rows == ["0.333333343,1e-30,16777216,-0.100000001,?,p", "0,1,2,3,3.39999995e+38,q"]


def test_classes_of_one_name_are_not_written(tmp_path):
    table = TrainingTable(np.float32([[1], [2]]), np.uint8([1, 2]), ("a",), ("p", " p"))
    with pytest.raises(UsageError, match="cannot be told apart"):
        save_arff(tmp_path / "n.arff", table)


def test_numbers_are_printed_as_weka_does(tmp_path):
    values = [1.0, -1e-9, 0.0078125, -0.0078125, 1e-6, 123.456, 13114165690368.0, np.nan, 0.1, -2.5e-7]
    table = TrainingTable(np.float32([values, values]), np.uint8([1, 2]), tuple("abcdefghij"), ("p", "q r"))
    save_arff(tmp_path / "n.arff", table)
    row = (tmp_path / "n.arff").read_text().splitlines()[-1]
    assert row == "1,-0,0.007813,-0.007813,0.000001,123.456001,13114165690368,?,0.1,-0,'q r'"


def test_hand_made_file(tmp_path):
    table = read(tmp_path, HEADER + "1,2,3,'class 1'\n\n% more\n -4.5e1 , ?,0 , pore\r\n7,8,9,'it\\'s'\n")
    assert table.relation == "made by hand"
    assert table.channels == ("original", "Kuwahara_19_ 10_0", "x, y")
    assert table.class_names == ("class 1", "pore", "it's")
    np.testing.assert_array_equal(table.values, np.float32([[1, 2, 3], [-45, np.nan, 0], [7, 8, 9]]))
    assert table.label.tolist() == [1, 2, 3]
    assert any("very few rows: class 1: 1" in note for note in table.notes)


def test_many_rows(tmp_path):
    """More rows than are parsed at once; a bad one far down is still named."""
    names = ("'class 1'", "pore", "pore")
    rows = [f"{i},0.5,{-i},{names[i % 3]}" for i in range(10_000)]
    table = read(tmp_path, HEADER.replace(', "it\'s"', "") + "\n".join(rows))
    np.testing.assert_array_equal(table.values[:, 0], np.arange(10_000, dtype=np.float32))
    np.testing.assert_array_equal(table.label == 2, np.arange(10_000) % 3 > 0)
    rows[9000] = "1,zwei,3,pore"
    with pytest.raises(DataError, match=r"line 9009: value 2 is 'zwei', not a number"):
        read(tmp_path, HEADER + "\n".join(rows))


def test_class_names_in_another_encoding(tmp_path):
    text = HEADER.replace("pore", "Löcher") + "1,2,3,Löcher\n4,5,6,'class 1'\n"
    for encoding in ("utf-8", "latin-1"):
        assert read(tmp_path, text.encode(encoding)).class_names[1] == "Löcher"


def test_channels_with_little_left_are_noted(tmp_path):
    more = read(tmp_path, HEADER + "1,0.0000123,3,pore\n1,-0.0001,3,'class 1'\n").notes
    assert not any("six decimals" in note for note in more)  # this file has more of them
    notes = read(tmp_path, HEADER + "1,0.000012,3,pore\n1,-0.0001,3,'class 1'\n").notes
    assert any("below 0.001" in note and note.endswith("Kuwahara_19_ 10_0") for note in notes)


# --- matching channels ------------------------------------------------------------------------------------------------


def table_with(*channels: str) -> TrainingTable:
    n = len(channels)
    return TrainingTable(np.arange(2 * n, dtype=np.float32).reshape(2, n), np.uint8([1, 2]), channels, ("a", "b"))


@given(order=st.permutations(["original", "Mean_1.0", "Mean_2.0", "Median_1.0", "Entropy_1_32"]))
def test_columns_are_reordered_by_name(order):
    table = table_with("original", "Mean_1.0", "Mean_2.0", "Median_1.0", "Entropy_1_32")
    columns = match_channels(table, order)
    assert [table.channels[i] for i in columns] == order
    np.testing.assert_array_equal(table.values[:, columns][0], [table.channels.index(name) for name in order])


def test_differences_are_listed():
    with pytest.raises(ModelError) as error:
        match_channels(table_with("original", "Mean_1.0", "Mean_2.0"), ["original", "Mean_2.0", "Mean_4.0", "Mean_8.0"])
    text = str(error.value)
    assert "the table has 3 channels, 4 are expected" in text
    assert "missing: Mean_4.0, Mean_8.0; not expected: Mean_1.0" in text
    assert "first difference at channel 1: Mean_1.0 instead of Mean_2.0" in text
    assert error.value.exit_code == 4


def test_infinite_values_are_not_written(tmp_path):
    table = TrainingTable(np.float32([[np.inf], [0]]), np.uint8([1, 2]), ("a",), ("p", "q"))
    with pytest.raises(UsageError, match="infinite"):
        save_arff(tmp_path / "i.arff", table)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept(tmp_path):
    path = tmp_path / "t.arff"
    path.write_text("mine")
    with pytest.raises(DataError, match="exists"):
        save_arff(path, table_with("a"))
    assert path.read_text() == "mine"
    save_arff(path, table_with("a"), overwrite=True)
    assert load_arff(path).channels == ("a",)


def test_byte_order_mark(tmp_path):
    text = "@relation r\n@attribute original numeric\n@attribute class {a,b}\n@data\n1,a\n2,b\n"
    (tmp_path / "a.arff").write_bytes(text.encode("utf-8-sig"))
    assert load_arff(tmp_path / "a.arff").channels == ("original",)
