"""The ground floor: sizes as people write them, classes by name or value."""

import pytest

from gpu_tomoclass.classes import class_value, default_classes
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1", 1),
        ("1000000", 10**6),
        ("2K", 2000),
        ("800 MB", 800 * 10**6),
        ("1.5g", 1_500_000_000),
        (" 4T ", 4 * 10**12),
    ],
)
def test_sizes_are_decimal_as_disks_are_sold(text, n_bytes):
    assert size_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "-1G", "G", "4 Gi", "many", "1e999"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"is not a size|must be at least 1 byte"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KB"), (12_345_678_901, "12.3 GB"), (10**21, "1000.0 EB")],
)
def test_sizes_for_people(n_bytes, text):
    assert size_text(n_bytes) == text


def test_a_class_is_meant_by_its_name_or_by_its_value():
    classes = default_classes(["pore", "3", "wall"])
    assert class_value("wall", classes) == 3
    assert class_value("3", classes) == 2  # a name comes first
    assert class_value("255", classes) == 255
    assert class_value("0", ()) == 0
    for text in ("256", "-1", "Wall", "1.0"):
        with pytest.raises(UsageError, match="1 pore, 2 3, 3 wall"):
            class_value(text, classes)
