"""Zarr stores that cannot be written, or must not be replaced."""

import subprocess
import sys

import numpy as np
import pytest
from zarr_files import write_array

from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.outputs import wait_for_removals
from gpu_tomoclass.volumes.ome_zarr.writer import ZarrWriter
from gpu_tomoclass.volumes.opening import open_volume


def write_planes(path, *, planes, error=None, **options):
    with ZarrWriter(path, shape=(3, 4, 5), dtype="uint8", **options) as writer:
        for z in planes:
            writer.write_plane(z, np.full((4, 5), z + 1, np.uint8))
        if error is not None:
            raise error


def test_existing_store_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.zarr"
    data = write_array(path)
    with pytest.raises(DataError, match="exists already"):
        write_planes(path, planes=range(3))
    with pytest.raises(KeyboardInterrupt):
        write_planes(path, planes=[0], error=KeyboardInterrupt(), overwrite=True)
    with pytest.raises(UsageError, match="2 of 3 planes were not written, the first is 0"):
        write_planes(path, planes=[1], overwrite=True)
    np.testing.assert_array_equal(open_volume(path).plane(3), data[3])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    write_planes(path, planes=[2, 0, 1], overwrite=True)
    assert [int(plane.max()) for _, plane in open_volume(path).planes()] == [1, 2, 3]
    wait_for_removals()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_folder_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.doc").write_text("x")
    with pytest.raises(DataError, match="folder of other files"):
        write_planes(tmp_path / "a.zarr", planes=range(3), overwrite=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file size limit that raises instead of killing")
def test_write_error_is_a_sentence_and_leaves_nothing(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.volumes.ome_zarr.writer import ZarrWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with ZarrWriter(sys.argv[1], shape=(3, 100, 100), dtype="uint8") as writer:
        writer.write_plane(0, np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8))
except ResourceError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, tmp_path / "m.zarr"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert "m.zarr: the file grew beyond" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="is a file, not a folder to write into"):
        write_planes(tmp_path / "file" / "a.zarr", planes=range(3))
