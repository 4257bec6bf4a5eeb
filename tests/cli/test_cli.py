"""The commands as a person runs them: results, exit codes, one line per failure; some in processes of their own."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from commands import Said, run_apart, run_here

from gpu_tomoclass.cli import COMMANDS, cli
from gpu_tomoclass.device.compiler import default_cache_folder


def small_case(nz=6, ny=40, nx=44):
    """Two materials and vacuum with noise: volume uint16, truth uint8 1..3, strokes uint8 on planes 1 and 4."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:ny, :nx]
    truth = np.ones((nz, ny, nx), np.uint8)
    for z in range(nz):
        truth[z][(y - 20) ** 2 + (x - 21 - z) ** 2 < 200] = 2
        truth[z][(y - 18) ** 2 + (x - 19 - z) ** 2 < 40] = 3
    level = np.array([0, 1000, 2200, 3400])[truth]
    volume = (level + rng.normal(0, 350, truth.shape)).clip(0).astype(np.uint16)
    strokes = np.zeros_like(truth)
    for z in (1, 4):
        for row in (4, 12, 18, 21, 28, 36):
            strokes[z, row, 3:41] = truth[z, row, 3:41]
    return volume, truth, strokes


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    """Folder with volume.tif, truth.tif, strokes.tif."""
    folder = tmp_path_factory.mktemp("case")
    for name, array in zip(("volume", "truth", "strokes"), small_case(), strict=True):
        tifffile.imwrite(folder / f"{name}.tif", array, imagej=True, metadata={"axes": "ZYX"})
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Environment with a cache of features of its own.

    Compiled kernels are everybody's: to compile them takes longer than all these tests.
    """
    cache, native = tmp_path_factory.mktemp("cache"), default_cache_folder()
    if native is not None and os.name == "posix":
        native.mkdir(mode=0o700, parents=True, exist_ok=True)
        (cache / "gpu_tomoclass").mkdir(mode=0o700)
        (cache / "gpu_tomoclass" / "native").symlink_to(native)
    return {"XDG_CACHE_HOME": str(cache)}


@pytest.fixture(scope="session")
def run(cache):
    """run(*words) -> Said, in this process."""

    def call(*words):
        return run_here(*words, env=cache)

    return call


@pytest.fixture(scope="session")
def run_process(cache):
    """run_process(*words) -> Said, in a process of its own."""

    def call(*words, env=()):
        return run_apart(*words, env={**cache, **dict(env)})

    return call


@pytest.fixture(scope="session")
def model(case, run_process):
    """A model of the case, with few features and trees: what it is asked to do is not hard."""
    path = case / "model.tcm"
    done = run_process(
        "train", case / "volume.tif", case / "strokes.tif", "-o", path, "--features", "weka-default", "--sigma-max", 4,
        "--trees", 40, "--class-names", "vacuum,rubber,silica",
    )  # fmt: skip
    assert done.code == 0, done.err
    return path


def one_line(done, code):
    """The single error line of a failed command."""
    assert done.code == code, (done.code, done.err)
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if "error:" in line.lower()]
    assert len(errors) == 1, done.err
    return errors[0]


# What --help must do without; click alone takes most of its time already.
HEAVY = {
    *("numpy", "scipy", "sklearn", "zarr", "tifffile", "matplotlib", "skimage", "h5py", "rich", "dask", "lazy_loader"),
    *("asyncio", "concurrent", "socket", "json", "traceback", "logging", "subprocess"),
}


def test_help_is_light():
    """Help must not wait for numpy and friends, nor for any command (timing is not asserted: what is imported is)."""
    code = (
        "import sys\nimport click\nclicks = set(sys.modules)\n"
        "from gpu_tomoclass.cli import run\nrun(['--help'])\n"
        "print(*sorted(set(sys.modules) - clicks), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "classify" in done.stdout
    imported = done.stderr.split()
    assert not {name.partition(".")[0] for name in imported} & HEAVY
    ours = {name for name in imported if name.startswith("gpu_tomoclass.")}
    ours = {name for name in ours if not name.startswith("gpu_tomoclass.outputs.")}  # the standard library alone
    assert ours == {
        f"gpu_tomoclass.{name}" for name in ("cli", "cli.command", "cli.record", "cli.terminal", "errors", "outputs")
    }


def test_help_says_of_each_command_what_its_own_help_says():
    for rows in COMMANDS.values():
        for name, (module, summary, _) in rows.items():
            command = cli.commands[name]
            assert (command.name, command.get_short_help_str(200)) == (name, summary)
            assert command.callback.__module__ in (f"gpu_tomoclass.cli.{module}", "click.decorators"), name


def test_train_says_what_a_person_wants_to_know(model, case, run):
    done = run("train", case / "volume.tif", case / "strokes.tif", "-o", model, "--features", "weka-default",
               "--sigma-max", 4, "--trees", 40, "--class-names", "vacuum,rubber,silica", "--overwrite")  # fmt: skip
    assert done.code == 0, done.err
    assert "out-of-bag error" in done.out
    for word in ("vacuum", "rubber", "silica", "gaussian_blur", "importance"):
        assert word in done.out
    assert "came from the cache" in done.out  # the fixture computed the same planes before


def test_same_seed_same_model(model, case, run, tmp_path):
    """Same device, same seed: the same hash, whatever the number of threads."""
    hashes = set()
    for workers in (1, 2):
        path = tmp_path / f"{workers}.tcm"
        done = run("train", case / "volume.tif", case / "strokes.tif", "-o", path, "--features", "weka-default",
                   "--sigma-max", 4, "--trees", 40, "--class-names", "vacuum,rubber,silica", "--no-cache",
                   "--workers", workers, "-q")  # fmt: skip
        assert done.code == 0, done.err
        hashes.add(json.loads(run("info", path, "--json").out)["hash"])
    hashes.add(json.loads(run("info", model, "--json").out)["hash"])
    assert len(hashes) == 1


def test_classify_evaluate_and_provenance(model, case, run, run_process, tmp_path):
    output = tmp_path / "labels.tif"
    done = run_process("classify", case / "volume.tif", model, "-o", output, "--probabilities")
    assert done.code == 0, done.err
    labels, truth = tifffile.imread(output), tifffile.imread(case / "truth.tif")
    assert labels.dtype == np.uint8
    assert labels.shape == truth.shape
    accuracy = (labels == truth).mean()
    assert accuracy > 0.95  # noise of a third of the step between classes: a threshold alone gives 0.90
    score = json.loads(run("evaluate", output, case / "truth.tif", "--json").out)
    assert score["accuracy"] == pytest.approx(accuracy)
    with tifffile.TiffFile(tmp_path / "labels_probabilities.tif") as file:
        p = file.asarray().reshape(6, 3, 40, 44)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)  # float32 rounding of three numbers
    np.testing.assert_array_equal(p.argmax(axis=1) + 1, labels)
    described = json.loads(run("info", output, "--json").out)
    assert [c.split()[-1] for c in described["classes"]] == ["vacuum", "rubber", "silica"]
    text = json.dumps(described)
    assert json.loads(run("info", model, "--json").out)["hash"] in text
    assert "volume.tif" in text


@pytest.mark.parametrize("suffix", ["ome.zarr", "mrc"])
def test_every_format_gets_the_same_labels(model, case, run, tmp_path, suffix):
    done = run("classify", case / "volume.tif", model, "-o", tmp_path / "a.tif", "--planes", "2:4", "-q")
    assert done.code == 0, done.err
    done = run("classify", case / "volume.tif", model, "-o", tmp_path / f"b.{suffix}", "--planes", "2:4", "-q")
    assert done.code == 0, done.err
    score = json.loads(run("evaluate", tmp_path / f"b.{suffix}", tmp_path / "a.tif", "--json").out)
    assert score["accuracy"] == 1
    assert score["voxels"] == 2 * 40 * 44


def test_preview_and_features(model, case, run, tmp_path):
    done = run("preview", case / "volume.tif", model, "--plane", 3, "-o", tmp_path / "look.png")
    assert done.code == 0, done.err
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")
    output = tmp_path / "channels.tif"
    done = run("features", case / "volume.tif", "--plane", 2, "-o", output, "--features", "gaussian_blur,median",
               "--sigmas", "median=1,3")  # fmt: skip
    assert done.code == 0, done.err
    with tifffile.TiffFile(output) as file:
        labels = file.imagej_metadata["Labels"]
        channels = file.asarray()
    # sigma by sigma, as TWS orders them
    assert labels[:5] == ["original", "Gaussian_blur_1.0", "Median_1.0", "Gaussian_blur_2.0", "Median_3.0"]
    assert len(labels) == len(channels) == 8
    np.testing.assert_array_equal(channels[0], tifffile.imread(case / "volume.tif")[2].astype(np.float32))


def test_train_from_arff(run, tmp_path, golden):
    small = golden["small8"]
    done = run("train", "--from", small.arff_path, "-o", tmp_path / "fiji.tcm")
    assert done.code == 0, done.err
    assert "not computed" in done.out  # s/plane of a family: its values came with the table
    done = run("classify", small.image_path, tmp_path / "fiji.tcm", "-o", tmp_path / "out.tif")
    assert done.code == 0, done.err
    fiji = small.result["class_index"]
    # another forest on the same rows: most pixels agree, and training pixels nearly all
    assert (tifffile.imread(tmp_path / "out.tif").squeeze() - 1 == fiji.squeeze()).mean() > 0.9


@pytest.mark.parametrize("option", [("--z-sigma", 3), ("--features", "all"), ("--sigma-max", 8)])
def test_rows_alone_take_no_features(run, tmp_path, golden, option):
    done = run("train", "--from", golden["small8"].arff_path, "-o", tmp_path / "m.tcm", *option)
    assert option[0] in one_line(done, 2)
    assert not (tmp_path / "m.tcm").exists()


def test_features_of_a_model_are_taken_as_they_are_or_not_at_all(model, case, run, tmp_path):
    arguments = (
        "train",
        case / "volume.tif",
        case / "strokes.tif",
        "--like",
        model,
        "--trees",
        5,
        "-o",
        tmp_path / "m.tcm",
    )
    assert "give --features too" in one_line(run(*arguments, "--sigma-max", 2), 2)
    assert run(*arguments, "--sigma-max", 2, "--features", "median").code == 0


def test_substack_strokes_map_back(case, run, tmp_path):
    done = run("substack", case / "volume.tif", "-o", tmp_path / "sub.tif", "--every", 3, "--start", 1)
    assert done.code == 0, done.err
    strokes = tifffile.imread(case / "strokes.tif")[1::3]
    tifffile.imwrite(tmp_path / "sub_strokes.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    arguments = ("--features", "gaussian_blur", "--trees", 10, "-q", "--class-names", "vacuum,rubber,silica")
    done = run("train", case / "volume.tif", tmp_path / "sub_strokes.tif", "--every", 3, "--start", 1,
               "-o", tmp_path / "a.tcm", *arguments)  # fmt: skip
    assert done.code == 0, done.err
    done = run("train", case / "volume.tif", case / "strokes.tif", "-o", tmp_path / "b.tcm", *arguments)
    assert done.code == 0, done.err
    a, b = (json.loads(run("info", tmp_path / f"{n}.tcm", "--json").out)["hash"] for n in "ab")
    assert a == b


def test_exit_codes_of_processes(model, case, run_process, tmp_path):
    text = tmp_path / "text.tif"
    text.write_text("not a tiff")
    assert "text.tif" in one_line(run_process("info", text), 3)
    assert run_process("classify", "--no-such-flag").code == 2


def test_exit_codes(model, case, run, tmp_path):
    volume = case / "volume.tif"
    assert "does not exist" in one_line(run("info", tmp_path / "none.tif"), 2).lower().replace(
        "no such", "does not exist"
    )
    assert one_line(run("classify", volume, model, "-o", tmp_path / "x.tif", "--planes", "4:99"), 2)
    text = tmp_path / "text.tif"
    text.write_text("not a tiff")
    assert "text.tif" in one_line(run("info", text), 3)
    assert "text.tif" in one_line(run("classify", volume, text, "-o", tmp_path / "x.tif"), 4)
    (tmp_path / "pickle.tcm").write_bytes(b"\x80\x04\x95")
    assert "pickle" in one_line(run("classify", volume, tmp_path / "pickle.tcm", "-o", tmp_path / "x.tif"), 4).lower()
    done = run("train", volume, "-o", tmp_path / "m.tcm")
    assert done.code == 2
    done = run("classify", "--no-such-flag")
    assert done.code == 2
    done = run("train", volume, case / "strokes.tif", "-o", tmp_path / "m.tcm", "--features", "gausian")
    assert "gaussian_blur" in one_line(done, 2)
    assert not list(tmp_path.glob("x*"))


def test_existing_outputs_are_kept(model, case, run, tmp_path):
    output = tmp_path / "labels.tif"
    output.write_bytes(b"mine")
    assert "--overwrite" in one_line(run("classify", case / "volume.tif", model, "-o", output), 3)
    assert output.read_bytes() == b"mine"
    before = model.read_bytes()
    done = run("train", case / "volume.tif", case / "strokes.tif", "-o", model)
    assert "--overwrite" in one_line(done, 3)
    assert model.read_bytes() == before


def test_inputs_are_not_touched(model, case, run, tmp_path):
    names = ("volume.tif", "strokes.tif", "model.tcm")
    before = [hashlib.sha256((case / n).read_bytes()).digest() for n in names]
    assert run("classify", case / "volume.tif", model, "-o", tmp_path / "o.tif", "-q").code == 0
    assert run("preview", case / "volume.tif", model, "--plane", 0, "-o", tmp_path / "o.png", "-q").code == 0
    assert [hashlib.sha256((case / n).read_bytes()).digest() for n in names] == before


def test_nan_is_refused_filled_or_masked(case, run, tmp_path):
    volume = tifffile.imread(case / "volume.tif").astype(np.float32)
    volume[2, 20, 20] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    arguments = ("--features", "gaussian_blur", "--sigma-max", 2, "--trees", 10, "-q")
    done = run("train", tmp_path / "nan.tif", case / "strokes.tif", "-o", tmp_path / "m.tcm", *arguments)
    # the strokes' planes are clean, and only they are read
    assert done.code == 0, done.err
    classify = ("classify", tmp_path / "nan.tif", tmp_path / "m.tcm", "-q")
    assert "z=2, y=20, x=20" in one_line(run(*classify, "-o", tmp_path / "a.tif"), 3)
    assert not (tmp_path / "a.tif").exists()
    assert run(*classify, "-o", tmp_path / "b.tif", "--nan", "fill").code == 0
    assert tifffile.imread(tmp_path / "b.tif").min() == 1
    assert run(*classify, "-o", tmp_path / "c.tif", "--nan", "mask").code == 0
    masked = tifffile.imread(tmp_path / "c.tif")
    y, x = np.nonzero(masked[2] == 0)
    reach = 4  # half width of the blur kernel at sigma 2 (std 0.8, R = 5)
    assert (y.min(), y.max(), x.min(), x.max()) == (20 - reach, 20 + reach, 20 - reach, 20 + reach)
    assert (np.delete(masked, 2, axis=0) > 0).all()


def test_closed_stdout_and_plain_locale(case, run_process):
    done = subprocess.run(
        f"{sys.executable} -c 'from gpu_tomoclass.cli import main; main()' --help | head -n 1",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    done = run_process("info", case / "volume.tif", env={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.code == 0, done.err
    assert done.err.isascii()


def test_stopping_leaves_nothing_that_looks_finished(case, model, tmp_path):
    """SIGTERM twice in the middle of a run stops it at once: exit 6, nothing under the output's name."""
    code = (
        "import os, signal, sys\n"
        "from gpu_tomoclass.classification import on_device\n"
        "from gpu_tomoclass.cli import run\n"
        "classify = on_device.Classifier.classify\n"
        "sent = []\n"
        "def stop(self, planes, **rest):\n"
        "    if not sent:\n        sent.append(1)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return classify(self, planes, **rest)\n"
        "on_device.Classifier.classify = stop\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "classify", str(case / "volume.tif"), str(model), "-o", str(tmp_path / "o.tif")],
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert "stopped" in one_line(Said(done.returncode, done.stdout, done.stderr), 6)
    assert not (tmp_path / "o.tif").exists()
