"""baseline nad and baseline otsu as commands."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.baseline import NadParameters, nad_planes, nad_volume, otsu_thresholds, threshold_labels
from gpu_tomoclass.cli import run
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.volumes.opening import create_volume, open_volume


@pytest.fixture
def call(capsys):
    """call(*arguments) -> (exit code, stdout, stderr)."""

    def command(*arguments):
        capsys.readouterr()
        code = run([str(a) for a in ("baseline", *arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def sample(tmp_path):
    """(path, array) of a volume: dark with noise, bright on the right, 16 bit."""
    image = 2000 + 800 * (np.arange(20) > 9) + np.random.default_rng(0).normal(0, 60, (6, 18, 20))
    image = image.astype(np.uint16)
    with create_volume(tmp_path / "v.tif", shape=image.shape, dtype=image.dtype) as writer:
        for z, plane in enumerate(image):
            writer.write_plane(z, plane)
    return tmp_path / "v.tif", image


def read(path):
    with open_volume(path) as volume:
        return np.stack([plane for _, plane in volume.planes()])


def test_nad_of_planes_and_of_the_volume(sample, call, tmp_path):
    path, image = sample
    common = ("--iterations", 2, "--device", "numpy", "-q")
    code, out, _ = call("nad", path, "-o", tmp_path / "n.tif", "--noise-area", "4,9", *common)
    assert code == 0
    assert f"denoised: {tmp_path / 'n.tif'}" in out
    expected = nad_planes(image, device=NumpyDevice(), parameters=NadParameters(iterations=2, noise_area=(4, 9)))
    np.testing.assert_array_equal(read(tmp_path / "n.tif"), expected)
    code, out, _ = call("nad", path, "-o", tmp_path / "n3.ome.zarr", "--dim", 3, "--noise-area", "4,9,2",
                        "--balance", 0.7, "--second-eigenvector", 0.2, "--grey-level", 0.1, "--sigma", 0.6,
                        "--structure-sigma", 1, "--ht", 0.15, "--contrast", 90, "--structure", 5e4,
                        "--output-dtype", "input", *common)  # fmt: skip
    assert code == 0
    assert "the volume in memory" in out
    parameters = NadParameters(
        dimensions=3, iterations=2, noise_area=(4, 9, 2), balance=0.7, second_eigenvector=0.2, grey_level=0.1,
        sigma=0.6, structure_sigma=1.0, time_step=0.15, contrast=90.0, structure=5e4,
    )  # fmt: skip
    expected = nad_volume(image, device=NumpyDevice(), parameters=parameters)
    np.testing.assert_array_equal(read(tmp_path / "n3.ome.zarr"), np.rint(expected).astype(np.uint16), strict=True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--noise-area", "4,9", "--ht", 0.3), 2, "stable above 0 up to 1/4"),
        (("--noise-area", "4,9,2", "--dim", 3, "--ht", 0.2), 2, "stable above 0 up to 1/6"),
        ((), 2, "was given no noise area"),
        (("--noise-area", "4"), 2, "in 2 dimensions is x, y"),
        (("--noise-area", "a,b"), 2, "is not of the form 180,230,1"),
        (("--noise-area", "40,9"), 2, "is outside of planes"),
        (("--noise-area", "4,9", "--contrast", 0), 2, "contrast of NAD must be above 0"),
        (("--noise-area", "4,9", "--memory-limit", "1K"), 5, "raise --memory-limit"),
    ],
)
def test_nad_refuses(sample, call, tmp_path, options, code, message):
    found, _, err = call("nad", sample[0], "-o", tmp_path / "n.tif", "--device", "numpy", *options)
    assert found == code
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.tif"]


def test_otsu(sample, call, tmp_path):
    path, image = sample
    code, out, err = call("otsu", path, "-o", tmp_path / "l.tif", "--levels", 2, "--names", "dark, bright")
    assert code == 0
    thresholds = otsu_thresholds(image, levels=2)
    expected = threshold_labels(image, thresholds)
    np.testing.assert_array_equal(read(tmp_path / "l.tif"), expected)
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == ["dark", str((expected == 1).sum())]
    assert rows[2] == ["bright", f"{thresholds[0]:g}", str((expected == 2).sum())]
    assert "thresholds: 12 of 12 planes" in err
    with open_volume(tmp_path / "l.tif") as labels:
        assert [c.name for c in labels.classes] == ["dark", "bright"]
    assert call("otsu", path, "-o", tmp_path / "l.tif")[0] == 3


def test_otsu_with_given_thresholds(sample, call, tmp_path):
    path, image = sample
    code, out, _ = call("otsu", path, "-o", tmp_path / "l.tif", "--thresholds", "2100,2600.5", "-q")
    assert code == 0
    assert "grey 3" in out
    np.testing.assert_array_equal(read(tmp_path / "l.tif"), threshold_labels(image, (2100, 2600.5)))
    for wrong, message in (("5,3", "ascending numbers"), ("a", "is not of the form 100,150.5")):
        code, _, err = call("otsu", path, "-o", tmp_path / "m.tif", "--thresholds", wrong)
        assert code == 2
        assert message in err
