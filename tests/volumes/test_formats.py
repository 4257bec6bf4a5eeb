"""The table of formats: each row keeps what it says, and no list elsewhere says something else."""

import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click import Option

from gpu_tomoclass.cli import cli
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs.inputs import STORE_MARKS
from gpu_tomoclass.volumes import formats
from gpu_tomoclass.volumes.formats import EXPORTS, FORMATS, ZARR_MARKS, product_name, split_suffix, written_format
from gpu_tomoclass.volumes.opening import create_volume, open_volume
from gpu_tomoclass.volumes.volume import VolumeWriter

REPOSITORY = Path(__file__).parents[2]
DOCS = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
WRITTEN = [suffix for row in FORMATS for suffix in row.written]


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.kind)
def test_a_row_keeps_what_it_says(row):
    taken = set(inspect.signature(formats._load(row.opener)).parameters) - {"path"}
    asked = set(inspect.signature(open_volume).parameters) - {"source", "voxel_size", "shape", "dtype", "offset"}
    assert set(row.options) <= asked
    assert taken & asked == set(row.options) or row.extra  # one opener for several libraries' files
    assert set(row.states) <= {"voxel size", "unit", "origin", "axes", "classes", "channels"}
    assert (row.writer is None) == (not row.written)
    if row.writer:
        assert issubclass(row.writer_class(), VolumeWriter)
        own = set(inspect.signature(row.writer_class()).parameters) - set(inspect.signature(create_volume).parameters)
        assert own == set(row.writer_options)
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert row.extra is None or row.extra in extras


def test_no_suffix_belongs_to_two():
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]
    assert len({*suffixes}) == len(suffixes)
    assert not {*suffixes} & {*EXPORTS}
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    assert STORE_MARKS == ZARR_MARKS  # the ground floor cannot ask


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_written_is_read_again(tmp_path, suffix):
    """Under each suffix, in capitals too: by the same format, with the same voxels."""
    name = tmp_path / f"A{suffix.upper() if suffix != '.OME.zarr' else suffix}"
    planes = np.arange(2 * 5 * 4, dtype=np.uint16).reshape(2, 5, 4)
    with create_volume(name, shape=planes.shape, dtype=planes.dtype, voxel_size=(3, 2, 2)) as writer:
        for z, plane in enumerate(planes):
            writer.write_plane(z, plane)
    with open_volume(name) as volume:
        np.testing.assert_array_equal(volume[:], planes)
        assert volume.voxel_size == pytest.approx((3, 2, 2))
    assert name.is_dir() == formats.is_folder(name)


def table() -> str:
    """The table of docs/formats.md, made of the rows."""
    lines = ["| Format | Read | Written | States | Options |", "|---|---|---|---|---|"]
    for row in FORMATS:
        read = " ".join(f"`{s}`" for s in row.suffixes) or "-"
        written = " ".join(f"`{s}`" for s in row.written) or "-"
        options = ", ".join(f"`--{o.replace('_', '-')}`" for o in row.options if o != "sparse")
        extra = f" (extra `{row.extra}`)" if row.extra else ""
        states = ", ".join(row.states) or "-"
        lines.append(f"| {row.name.removeprefix('a ')}{extra} | {read} | {written} | {states} | {options} |")
    return "\n".join(lines)


def test_the_table_of_the_docs():
    assert table() in DOCS, f"put this into docs/formats.md:\n{table()}"


def test_help_names_what_is_written():
    """Where help says what an output may be, each suffix is one that is written, and no format is left out."""
    seen = 0
    for command in cli.commands.values():
        for option in command.params:
            if not isinstance(option, Option) or option.name != "output" or ".mrc" not in (option.help or ""):
                continue
            seen += 1
            named = re.findall(r"\.[a-z][a-z.]*[a-z]", option.help)
            assert {written_format(f"a{suffix}").kind for suffix in named} == {r.kind for r in FORMATS if r.written}
    assert seen >= 4
    with pytest.raises(UsageError, match="names no format that can be written; use") as caught:
        written_format("a.png")
    assert {written_format(f"a{s}").kind for s in re.findall(r"\.[a-z.]+[a-z]", caught.value.do)} == {
        row.kind for row in FORMATS if row.written
    }


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [("a/l.ome.zarr/", "a/l", ".ome.zarr"), ("a.b/x.tif", "a.b/x", ".tif"), ("a.b/x", "a.b/x", ""),
     ("x.NII.GZ", "x", ".NII.GZ"), ("v.2.mrc", "v.2", ".mrc")],
)  # fmt: skip
def test_suffixes_of_two_parts(name, stem, suffix):
    assert split_suffix(name) == (stem, suffix)
    assert product_name(name, "p") == f"{stem}_p{suffix}"
