"""Units of length, as ImageJ, EMD and HyperSpy files spell them."""

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.volumes.opening import open_volume
from gpu_tomoclass.volumes.units import nanometres


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("\\u00C5", 0.1),  # ImageJ writes Java escapes
        ("Å", 0.1),
        ("\u212b", 0.1),
        ("A\u030a", 0.1),
        ("Angstroms", 0.1),
        ("\\u00B5m", 1e3),
        ("microns", 1e3),
        ("[n_m]", 1.0),  # EMD 0.2
        (b"nm", 1.0),
        ("nanometer", 1.0),
        ("pixel", None),
        ("seconds", None),
        ({}, None),
        (None, None),
    ],
)
def test_spellings(unit, expected):
    assert nanometres(unit) == expected


def imagej(path, description):
    data = np.zeros((4, 6, 5), np.uint16)
    text = f"ImageJ=1.54f\nimages=4\nslices=4\n{description}\n"
    tifffile.imwrite(path, data, description=text, metadata=None, resolution=(0.8, 0.4), photometric="minisblack")
    with open_volume(path) as volume:
        return volume.voxel_size


def test_imagej_units_of_each_axis(tmp_path):
    """``unit`` is that of x, and of y and z unless they have their own (ij/io/TiffDecoder.java)."""
    assert imagej(tmp_path / "a.tif", "unit=nm\nyunit=nm\nzunit=\\u00C5\nspacing=25.0") == (2.5, 2.5, 1.25)
    assert imagej(tmp_path / "b.tif", "unit=nm\nspacing=25.0") == (25.0, 2.5, 1.25)
    assert imagej(tmp_path / "c.tif", "unit=micron\nzunit=nm\nspacing=2.5") == (2.5, 2500.0, 1250.0)
    assert imagej(tmp_path / "d.tif", "unit=nm\nzunit=s\nspacing=2.5") is None
