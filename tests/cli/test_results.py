"""evaluate, measure, clean and simulate as commands: what they print and write, and one line per failure."""

import csv
import json
import re

import numpy as np
import pytest
import tifffile
from matplotlib.image import imread

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.cli import run
from gpu_tomoclass.studies.simulation.phantom import phantom_labels, simulate_phantom
from gpu_tomoclass.studies.simulation.tilt_series import tilt_angles
from gpu_tomoclass.volumes.opening import create_volume, open_volume

CLASSES = default_classes(("vacuum", "rubber", "silica"))


@pytest.fixture
def call(capsys):
    """call(*arguments) -> (exit code, stdout, stderr)."""

    def command(*arguments):
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def write(path, labels, **options):
    with create_volume(path, shape=labels.shape, dtype=np.uint8, **options) as writer:
        for z, plane in enumerate(labels):
            writer.write_plane(z, plane)
    return path


@pytest.fixture
def case(tmp_path):
    """Folder with labels.tif and truth.tif: two boxes of silica in rubber in vacuum, a speck, voxels of 2 nm."""
    truth = np.ones((6, 20, 24), np.uint8)
    truth[:, 3:17, 3:21] = 2
    truth[1:4, 6:10, 5:9] = truth[2:5, 11:15, 12:16] = 3
    labels = truth.copy()
    labels[3, 15, 18] = 3
    labels[:, 2, 3:21] = 2
    for name, array in (("labels", labels), ("truth", truth)):
        write(tmp_path / f"{name}.tif", array, classes=CLASSES, voxel_size=(2.0, 2.0, 2.0))
    return tmp_path


def test_evaluate_prints_and_writes_the_same_numbers(case, call):
    code, out, err = call("evaluate", case / "labels.tif", case / "truth.tif", "--halo", "rubber:vacuum", "--json")
    assert code == 0
    data = json.loads(out)
    labels, truth = (tifffile.imread(case / f"{name}.tif") for name in ("labels", "truth"))
    assert data["accuracy"] == pytest.approx((labels == truth).mean())
    assert [row["true_fraction"] for row in data["classes"]] == pytest.approx([(truth == v).mean() for v in (1, 2, 3)])
    assert data["classes"][0]["boundary"]["nm"]["mean"] > 0
    assert (data["halo"]["solid"], data["halo"]["background"]) == (2, 1)
    code, out, err = call(
        "evaluate", case / "labels.tif", case / "truth.tif", "--halo", "2:1", "-o", case / "report.html"
    )
    assert code == 0
    assert f"accuracy {100 * data['accuracy']:.2f} %" in out
    assert "border off by (nm)" in out
    assert "halo: " in out
    assert "evaluate: 6 of 6 planes" in err
    page = (case / "report.html").read_text(encoding="utf-8")
    assert "silica" in page
    code, _, err = call("evaluate", case / "labels.tif", case / "truth.tif", "-o", case / "report.html")
    assert code == 3
    assert "exists already" in err
    code, out, _ = call("evaluate", case / "labels.tif", case / "truth.tif", "--no-boundaries", "-q")
    assert code == 0
    assert "border" not in out


@pytest.mark.parametrize(
    ("halo", "message"), [("silica", "names one class"), ("silica:air", "there is no class 'air'"), ("3:3", "itself")]
)
def test_evaluate_refuses_an_impossible_halo(case, call, halo, message):
    code, _, err = call("evaluate", case / "labels.tif", case / "truth.tif", "--halo", halo)
    assert code == 2
    assert message in err


def test_measure_writes_particles_and_pictures(case, call):
    code, out, _ = call("measure", case / "labels.tif", "--class", "silica", "-o", case / "p.csv",
                        "--histograms", case / "p.png", "-q")  # fmt: skip
    assert code == 0
    assert re.search(r"silica +776 +.* 3 +0 +3 ", out), out
    with open(case / "p.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["volume_nm3"]) for row in rows] == [48 * 8, 48 * 8, 8]
    assert imread(case / "p.png").ndim == 3
    code, out, _ = call("measure", case / "labels.tif", "--class", 2, "-o", case / "q.csv", "-q")
    assert code == 0
    assert re.search(r"rubber .* 1 +1 +1 ", out), out
    code, out, _ = call("measure", case / "labels.tif", "--class", "silica", "--outside", "vacuum", "--split",
                        "--border", "half", "-o", case / "s.json", "--json", "-q")  # fmt: skip
    assert code == 0
    told = json.loads(out)
    with open_volume(case / "labels.tif") as volume:
        labels = np.stack([plane for _, plane in volume.planes()])
    silica = (labels == 3).sum() / (labels > 1).sum()
    assert [c["fraction"] for c in told["classes"]] == [None, pytest.approx(1 - silica), pytest.approx(silica)]
    assert [c.get("particles") for c in told["classes"]] == [None, None, 3]
    assert (told["split"], told["border"], told["unit"]) == ({"neck": 0.85}, "half", "nm")
    assert [p["voxels"] for p in json.loads((case / "s.json").read_text())["classes"][2]["list"]] == [48, 48, 1]
    assert call("measure", case / "labels.tif", "--neck", "0.8", "-o", case / "t.csv")[0] == 2
    for arguments, message in (
        (("--class", "silicon", "-o", case / "r.csv"), "give one of 1 vacuum, 2 rubber, 3 silica"),
        (("--class", "300", "-o", case / "r.csv"), "there is no class '300'"),
        (("--class", "silica", "-o", case / "r.csv", "--histograms", case / "r.jpg"), "ends in .png"),
    ):
        code, _, err = call("measure", case / "labels.tif", *arguments)
        assert code == 2
        assert message in err
        assert not (case / "r.csv").exists()
    assert call("measure", case / "labels.tif", "--class", "silica", "-o", case / "p.csv")[0] == 3


def test_clean_removes_the_speck_and_keeps_the_rest(case, call):
    code, out, _ = call("clean", case / "labels.tif", "-o", case / "clean.tif", "--min-size", 10, "--fill", "-q")
    assert code == 0
    assert "silica  1                2" in out
    assert "1 voxels changed" in out
    expected = tifffile.imread(case / "labels.tif")
    expected[3, 15, 18] = 2
    np.testing.assert_array_equal(tifffile.imread(case / "clean.tif"), expected)
    with open_volume(case / "clean.tif") as cleaned:
        assert cleaned.classes == CLASSES
    assert (
        call("clean", case / "labels.tif", "-o", case / "zero.tif", "--min-size", 10, "--class", "silica", "-q")[0] == 0
    )
    expected[3, 15, 18] = 0
    np.testing.assert_array_equal(tifffile.imread(case / "zero.tif"), expected)
    code, _, err = call("clean", case / "labels.tif", "-o", case / "labels.tif", "--min-size", 10, "--overwrite")
    assert code == 2
    assert "is the input" in err


def test_simulate_phantom_switches(tmp_path, call):
    """Each switch alone and all together are the options of the function; those without a value have the paper's."""
    wedge = tilt_angles(-76, 76, 2)
    for i, (flags, options) in enumerate(
        (
            ((), {}),
            (("--noise",), {"poisson": 0.5}),
            (("--shift",), {"max_shift": 1.0}),
            (("--wedge",), {"angles": wedge}),
            (("--noise", "2", "--shift", "--wedge", "--seed", "3"),
             {"poisson": 2.0, "max_shift": 1.0, "angles": wedge, "seed": 3}),
            (("--angles", "-60,60,4", "--float-sinogram", "--bits", "16"),
             {"angles": tilt_angles(-60, 60, 4), "eight_bit": False, "bits": 16}),
            (("--levels", "0,10,200,30,100"), {"levels": (0, 10, 200, 30, 100)}),
        )
    ):  # fmt: skip
        code, out, _ = call("simulate", "phantom", "-o", tmp_path / str(i), "--size", 64, "--planes", 2, *flags, "-q")
        assert code == 0
        assert f"truth: {tmp_path / str(i) / 'truth.tif'}" in out
        expected, _ = simulate_phantom(size=64, **options)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / str(i) / "phantom.tif")[0], expected)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / str(i) / "truth.tif")[1], phantom_labels(64) + 1)


def test_simulate_pillar(tmp_path, call):
    code, out, err = call("simulate", "pillar", "-o", tmp_path / "p.mrc", "--shape", "3x48x40", "--iterations", 2)
    assert code == 0
    assert "6 of 6 steps" in err
    assert f"truth: {tmp_path / 'p_truth.mrc'}" in out
    with open_volume(tmp_path / "p_truth.mrc") as truth:
        assert truth.shape == (3, 48, 40)
        assert truth.voxel_size == pytest.approx((150 / (0.86 * 40),) * 3)
        assert truth.classes == CLASSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("phantom", "--wedge", "--angles", "0,90,1"), "contradict"),
        (("phantom", "--levels", "1,2,3"), "not of the form 0,60,120,180,240"),
        (("phantom", "--levels", "5,1,2,3,4"), "background first and 0"),
        (("pillar", "--shape", "3,x,5"), "not of the form 861,428,317"),
        (("pillar", "--shape", "3,40,40", "--voxel", "1"), "does not fit"),
        (("pillar", "--angles", "10,0,2"), "no tilt angles"),
    ],
)
def test_impossible_simulations_are_one_line(tmp_path, call, arguments, message):
    code, out, err = call("simulate", *arguments, "-o", tmp_path / "s")
    assert code == 2
    assert message in err
    assert not out
    assert not (tmp_path / "s").exists()
