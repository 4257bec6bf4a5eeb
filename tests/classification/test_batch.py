"""A job file: what is done, what is skipped, what fails, and that a failure does not stop the others."""

import json
import os

import numpy as np
import pytest

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.batch import run_job
from gpu_tomoclass.classification.job_file import load_job
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import StoppedError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.conversion import convert
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (3, 20, 18)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three volumes and a model."""
    folder = tmp_path_factory.mktemp("job")
    random = np.random.default_rng(1)
    for name in ("a.tif", "b.mrc", "c.ome.zarr"):
        array = random.integers(0, 200, SHAPE).astype(np.uint16)
        array[:, 5:15, 5:12] += 300
        with create_volume(folder / name, shape=SHAPE, dtype=array.dtype) as writer:
            for z, plane in enumerate(array):
                writer.write_plane(z, plane)
    z, y, x = (a.ravel() for a in np.meshgrid([1], np.arange(20), np.arange(18), indexing="ij"))
    inside = (y >= 5) & (y < 15) & (x >= 5) & (x < 12)
    for seed, name in enumerate(("m.tcm", "other.tcm")):
        annotation = Annotation.from_voxels(z, y, x, 1 + inside, shape=SHAPE, classes=default_classes(["out", "in"]))
        with open_volume(folder / "a.tif") as volume:
            bank = FeatureBank.create(["gaussian_blur"], sigma_max=2)
            model = train(volume, annotation, bank=bank, n_trees=5, device=NumpyDevice(), seed=seed).model
        save_model(model, folder / name)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """The same, to be changed."""
    import shutil

    shutil.copytree(made, tmp_path / "job")
    return tmp_path / "job"


def job(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return path


def run(items, **options):
    return run_job(items, open_device=lambda name, gpu, workers: NumpyDevice(threads=1), **options)


CLASSIFY = """
model = "m.tcm"
output = "labels"
format = ".tif"

[[volumes]]
path = "*.tif"

[[volumes]]
path = "b.mrc"
model = "other.tcm"
name = "{stem}_special"
format = ".mrc"

[[volumes]]
path = "c.ome.zarr"
probabilities = "uint8"
format = ".ome.zarr"
"""


def test_classifies_all_and_skips_them_the_second_time(folder):
    items = load_job(job(folder, CLASSIFY))
    said = []
    first = run(items, say=said.append)
    assert [o.status for o in first] == ["done"] * 3
    assert sorted(p.name for p in (folder / "labels").iterdir()) == [
        "a_labels.tif", "b_special.mrc", "c_labels.ome.zarr", "c_labels_probabilities.ome.zarr"
    ]  # fmt: skip
    with open_volume(folder / "labels" / "a_labels.tif") as labels:
        assert set(np.unique(labels.plane(1))) == {1, 2}
    assert "1 of 3: classify" in said[0]
    stamp = (folder / "labels" / "a_labels.tif").stat().st_mtime_ns
    second = run(items)
    assert [o.status for o in second] == ["skipped"] * 3
    assert (folder / "labels" / "a_labels.tif").stat().st_mtime_ns == stamp


def test_a_failure_does_not_stop_the_others(folder, command):
    (folder / "b.mrc").write_bytes((folder / "b.mrc").read_bytes()[:-100])
    summary = folder / "summary.json"
    done = command("batch", job(folder, CLASSIFY), "--json", summary)
    assert done.code == 3, done.err
    assert "2 done, 1 failed" in done.out
    outcomes = json.loads(summary.read_text())
    assert [o["status"] for o in outcomes] == ["done", "failed", "done"]
    assert "bytes" in outcomes[1]["message"]
    assert outcomes[1]["exit_code"] == 3
    assert sum(outcomes[0]["counts"].values()) == np.prod(SHAPE)


def test_an_output_of_another_model_is_not_taken_for_done(folder):
    run(load_job(job(folder, CLASSIFY)))
    changed = load_job(job(folder, CLASSIFY.replace('"m.tcm"', '"other.tcm"', 1)))
    outcomes = run(changed)
    assert [o.status for o in outcomes] == ["failed", "skipped", "failed"]
    assert "was made from another model" in outcomes[0].message
    again = load_job(job(folder, "overwrite = true\n" + CLASSIFY.replace('"m.tcm"', '"other.tcm"', 1)))
    assert [o.status for o in run(again)] == ["done"] * 3


def test_conversions_between_all_formats(folder):
    text = "\n".join(
        f'[[volumes]]\ntask = "convert"\npath = "{source}"\noutput = "converted"\nformat = "{suffix}"\n'
        for source, suffix in (("a.tif", ".ome.zarr"), ("b.mrc", ".tif"), ("c.ome.zarr", ".mrc"))
    )
    items = load_job(job(folder, text))
    assert [o.status for o in run(items)] == ["done"] * 3
    for item in items:
        with open_volume(item.source) as source, open_volume(item.output) as target:
            for z in range(SHAPE[0]):
                np.testing.assert_array_equal(source.plane(z), target.plane(z))
    assert [o.status for o in run(items)] == ["skipped"] * 3
    # Another volume under the output's name is not "converted before".
    with create_volume(folder / "converted" / "b.tif", shape=(1, 2, 2), dtype=np.uint8, overwrite=True) as writer:
        writer.write_plane(0, np.zeros((2, 2), np.uint8))
    assert [o.status for o in run(items)] == ["skipped", "failed", "skipped"]


def test_stopping_leaves_the_volume_resumable(folder):
    items = load_job(job(folder, CLASSIFY))
    done = []

    def progress(n, total):
        done.append(n)

    with pytest.raises(StoppedError):
        run(items, progress=progress, should_stop=lambda: len(done) > 5)
    assert [o.status for o in run(items)] in (["skipped", "done", "done"], ["skipped", "skipped", "done"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "is not TOML"),
        ('model = "m.tcm"', r"has no \[\[volumes\]\]"),
        ('volumes = "a"', r"has no \[\[volumes\]\]"),
        ('[[volumes]]\nmodel = "m.tcm"', "volumes entry 1: has no path"),
        ('[[volumes]]\npath = "a.tif"', "has no model"),
        ('modle = "m.tcm"\n[[volumes]]\npath = "a.tif"', "unknown setting 'modle'; known are task, model"),
        ('workers = "2"\n[[volumes]]\npath = "a.tif"', "workers = '2' is not a whole number"),
        ('overwrite = 1\n[[volumes]]\npath = "a.tif"', "overwrite = 1 is not true or false"),
        ('task = "melt"\n[[volumes]]\npath = "a.tif"', "task 'melt' is unknown; choose classify, convert"),
        ('device = "gpu"\n[[volumes]]\npath = "a.tif"', "device 'gpu' is unknown"),
        ('model = "m.tcm"\n[[volumes]]\npath = "*.h5"', r"nothing matches '\*.h5'"),
        (
            'model = "m.tcm"\nname = "x"\n[[volumes]]\npath = "*.tif"\n[[volumes]]\npath = "b.mrc"',
            "would both be written",
        ),
        ('task = "convert"\nformat = ".tif"\n[[volumes]]\npath = "a.tif"', "is the input"),
        ('task = "clean"\n[[volumes]]\npath = "a.tif"', "has no min_size"),
        ('task = "evaluate"\n[[volumes]]\npath = "a.tif"', "has no truth"),
        ('[[volumes]]\ntask = "measure"\npath = "a.tif"\nfill = true', "fill is no setting of measure"),
        ('planes = [0, 1]\n[[volumes]]\ntask = "convert"\npath = "a.tif"', "planes is no setting of convert"),
        ('border = "some"\n[[volumes]]\npath = "a.tif"', "border 'some' is unknown; choose count, exclude, half"),
        ('neck = 1.0\n[[volumes]]\npath = "a.tif"', "neck = 1.0 is no share"),
        ('map = [[1, "x"]]\n[[volumes]]\npath = "a.tif"', r"map has \[1, 'x'\]"),
        ('halo = ["in"]\n[[volumes]]\npath = "a.tif"', "are not two classes"),
        ('classes = [1.5]\n[[volumes]]\npath = "a.tif"', "are no names or label values"),
        (
            'model = "m.tcm"\nname = "{nmae}"\n[[volumes]]\npath = "a.tif"',
            "{nmae} is unknown; use {stem}, {name}",
        ),
    ],
)
def test_job_files_that_make_no_sense(folder, text, said, command):
    with pytest.raises(UsageError, match=said):
        load_job(job(folder, text))
    assert command("batch", folder / "nothing.toml").code == 2


def test_dry_run(folder, command):
    done = command("batch", job(folder, CLASSIFY), "--dry-run", "-q")
    assert done.code == 0, done.err
    assert done.out.count("classify") == 3
    assert "3 ready, 0 failed" in done.out
    assert not (folder / "labels").exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda text: text.replace('"m.tcm"', '"none.tcm"', 1), 2, "none.tcm: does not exist"),
        (lambda text: text.replace('".tif"', '".png"', 1), 2, "the suffix '.png' names no format"),
        (lambda text: 'ome_version = "0.5"\n' + text, 2, "ome_version='0.5' means nothing for TIFF"),
        (lambda text: "channel = 1\n" + text, 2, "channel=1 means nothing for MRC"),
    ],
)
def test_a_dry_run_fails_where_the_run_would(folder, command, change, code, said):
    text = change(CLASSIFY)
    done = command("batch", job(folder, text), "--dry-run", "--json", folder / "s.json")
    assert done.code == code, done.out
    failed = [o for o in json.loads((folder / "s.json").read_text()) if o["status"] == "failed"]
    assert any(said in o["message"] for o in failed), failed
    assert not (folder / "labels").exists()


@pytest.mark.parametrize("sigmas", [{"sigmas": {"z_hessian": "1,2nm"}}, {"z_sigma": "2nm", "sigma_max": 2}])
def test_a_dry_run_misses_the_size_of_voxels_for_sigmas_in_nm(folder, command, sigmas):
    z, y, x = (a.ravel() for a in np.indices((1, 20, 18)))
    annotation = Annotation.from_voxels(z, y, x, 1 + (x > 9), shape=SHAPE, classes=default_classes(["out", "in"]))
    with open_volume(folder / "a.tif", voxel_size=(1, 1, 1)) as volume:
        bank = FeatureBank.create(["z_hessian"], **sigmas)
        save_model(train(volume, annotation, bank=bank, n_trees=5, device=NumpyDevice()).model, folder / "nm.tcm")
    text = CLASSIFY.replace('"m.tcm"', '"nm.tcm"', 1)
    done = command("batch", job(folder, text), "--dry-run")
    assert done.code == 2
    assert "the size of the voxels is not known; give voxel_size, in nm" in done.out + done.err
    done = command("batch", job(folder, "voxel_size = [1, 1, 1]\n" + text), "--dry-run")
    assert done.code == 0, done.out + done.err


def test_a_cut_volume_is_found_by_a_dry_run(folder, command):
    (folder / "b.mrc").write_bytes((folder / "b.mrc").read_bytes()[:-100])
    done = command("batch", job(folder, CLASSIFY), "--dry-run")
    assert done.code == 3
    assert "2 ready, 1 failed" in done.out


def test_sizes_and_words_of_a_job_file(folder):
    (item, *_) = load_job(job(folder, 'memory_limit = "2.5G"\n' + CLASSIFY))
    assert item.settings["memory_limit"] == 2_500_000_000
    with pytest.raises(UsageError, match="memory_limit: 'much' is not a size such as 4G"):
        load_job(job(folder, 'memory_limit = "much"\n' + CLASSIFY))
    with pytest.raises(UsageError, match="probabilities 'float' is unknown; choose one of float32, uint8"):
        load_job(job(folder, 'probabilities = "float"\n' + CLASSIFY.replace('probabilities = "uint8"', "")))
    outcomes = run(load_job(job(folder, "memory_limit = 1000\n" + CLASSIFY)))
    assert {o.status for o in outcomes} == {"failed"}
    assert all("raise memory_limit" in o.message for o in outcomes)


@pytest.mark.parametrize(("source", "target"), [("a.tif", "x.ome.zarr"), ("c.ome.zarr", "x.tif"), ("b.mrc", "x.zarr")])
def test_convert_command(folder, source, target, command):
    options = ["--ome-version", "0.5", "--sharded"] if target == "x.zarr" else []
    done = command("convert", folder / source, "-o", folder / target, *options)
    assert done.code == 0, done.err
    with open_volume(folder / source) as before, open_volume(folder / target) as after:
        assert (before.shape, before.dtype, before.voxel_size) == (after.shape, after.dtype, after.voxel_size)
        np.testing.assert_array_equal(before.plane(2), after.plane(2))
    with open_volume(folder / source) as volume, pytest.raises(UsageError, match="is the input"):
        convert(volume, folder / source, overwrite=True)


@pytest.mark.parametrize(
    "name", ["{stem:>999999999}", "{stem.x}", "{stem!r}", "{0}", "{", "a}", "{stem[0]}", "{{stem}}"]
)
def test_names_know_nothing_of_format(folder, name):
    """Braces hold one of a few names; a width of a thousand million must not be filled."""
    text = f'task = "convert"\nformat = ".tif"\nname = "{name}"\n[[volumes]]\npath = "b.mrc"'
    with pytest.raises(UsageError, match=r"is unknown; use \{stem\}, \{name\}, \{suffix\}, \{task\}"):
        load_job(job(folder, text))


def test_names_that_are_known(folder):
    text = 'task = "convert"\nformat = ".tif"\nname = "{task} {suffix} {stem}"\n[[volumes]]\npath = "c.ome.zarr"'
    assert [item.output.rpartition("/")[2] for item in load_job(job(folder, text))] == ["convert ome.zarr c.tif"]


LABELS = """
output = "out"
format = ".tif"

[[volumes]]
model = "m.tcm"
path = "a.tif"

[[volumes]]
task = "clean"
path = "out/*_labels.tif"
min_size = 3
fill = true

[[volumes]]
task = "measure"
path = "out/*_labels_clean.tif"
classes = ["in"]
split = true
border = "half"
histograms = true

[[volumes]]
task = "evaluate"
path = "out/a_labels_clean.tif"
truth = "{stem}_truth.tif"
boundaries = false
table = ".json"
"""


def test_labels_are_cleaned_measured_and_compared_after_they_are_made(folder, command):
    """One file for the whole way, with what the functions give; then everything is there already."""
    truth = np.ones(SHAPE, np.uint8)
    truth[:, 5:15, 5:12] = 2
    with create_volume(folder / "a_labels_clean_truth.tif", shape=SHAPE, dtype=np.uint8) as writer:
        for z, plane in enumerate(truth):
            writer.write_plane(z, plane)
    path = job(folder, LABELS)
    dry = command("batch", path, "--dry-run")
    assert dry.code == 0, dry.err
    assert "4 ready" in dry.out
    assert not (folder / "out").exists()
    done = command("batch", path, "--json", folder / "summary.json")
    assert done.code == 0, done.err
    assert [o["status"] for o in json.loads((folder / "summary.json").read_text())] == ["done"] * 4
    out = folder / "out"
    names = ["a_labels.tif", "a_labels_clean.tif", "a_labels_clean_particles.csv", "a_labels_clean_particles.png"]
    assert sorted(p.name for p in out.iterdir()) == [*names, "a_labels_clean_scores.json"]
    with open_volume(out / "a_labels_clean.tif") as cleaned:
        labels = np.stack([plane for _, plane in cleaned.planes()])
        assert cleaned.metadata["cleaned"]["min_size"] == 3
    assert (out / names[2]).read_text().splitlines()[1].startswith(f"in,1,{(labels == 2).sum()},")
    scores = json.loads((out / "a_labels_clean_scores.json").read_text())
    assert scores["accuracy"] == pytest.approx((labels == truth).mean())
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = command("batch", path)
    assert (again.code, "4 skipped" in again.out) == (0, True), again.out
    os.utime(out / "a_labels_clean.tif", (2e9, 2e9))  # made anew after it was measured
    later = command("batch", path)
    assert later.code == 3
    assert "2 skipped, 2 failed" in later.out
    assert "exists already and is older than" in later.err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_tasks_on_labels_leave_inputs_and_are_stopped(folder):
    (folder / "a.csv").touch()
    for text in ('task = "clean"\nmin_size = 2\nformat = ".tif"', 'task = "evaluate"\ntruth = "{stem}.csv"'):
        with pytest.raises(UsageError, match="is the input"):
            load_job(job(folder, f'{text}\nname = "{{stem}}"\n[[volumes]]\npath = "a.tif"'))
    with create_volume(folder / "l.tif", shape=SHAPE, dtype=np.uint8) as writer:
        for z in range(SHAPE[0]):
            writer.write_plane(z, np.full(SHAPE[1:], z, np.uint8))
    for text in ('"clean"\nmin_size = 2\nformat = ".tif"', '"measure"', '"evaluate"\ntruth = "l.tif"'):
        items = load_job(job(folder, f'task = {text}\n[[volumes]]\npath = "l.tif"'))
        with pytest.raises(StoppedError):
            run(items, should_stop=lambda: True)
        assert not os.path.exists(items[0].output)
