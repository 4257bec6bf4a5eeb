"""The records of every command: what a pipeline reads of a run that succeeds, fails, or is stopped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import click
import jsonschema
import numpy as np
import pytest
import tifffile
from PIL import Image

from gpu_tomoclass.cli import cli, run
from gpu_tomoclass.cli.run_record import Run
from gpu_tomoclass.cli.schema import log_schema, parameter_schema, result_schema

CPU = "--device numpy --workers 1"
FEATURES = "--features gaussian_blur,mean --sigma-max 1 --trees 3 --no-cache"
# A command, its words, and what the result holds beyond what all have.
RUNS = {
    "info": ("v.tif --stats --picture o.png", {"shape", "dtype", "voxel_size_nm", "all_planes"}),
    "reslice": ("v.tif -o o.tif --tilt-axis y", set()),
    "substack": ("v.tif -o o.tif --every 2", set()),
    "convert": ("v.tif -o o.ome.zarr", set()),
    "features": (f"v.tif --plane 1 -o o.tif --features gaussian_blur {CPU}", {"channels", "seconds_per_family"}),
    "train": (f"v.tif s.tif -o o.tcm {FEATURES} {CPU}", {"oob_error", "counts", "trees"}),
    "preview": (f"v.tif m.tcm --plane 1 -o o.png --no-cache {CPU}", {"counts"}),
    "cross-validate": (f"v.tif s.tif --folds 2 {FEATURES} {CPU}", {"fold_accuracy", "oob_error"}),
    "select-features": (f"v.tif s.tif --folds 2 -o o.png {FEATURES} {CPU}", {"chosen", "arguments"}),
    "tune": (
        f"v.tif s.tif --folds 2 --features gaussian_blur --trees 1 --smooth 0 -o o.json --no-cache {CPU}",
        {"chosen"},
    ),
    "check": (f"v.tif m.tcm {CPU}", {"verdict", "drift"}),
    "suggest": (f"v.tif m.tcm -o o.csv --patch 8 {CPU}", {"places"}),
    "adapt": (f"v.tif m.tcm -o o.tcm {CPU}", {"adapted", "reason", "before"}),
    "model import": ("c.model -o o.tcm", {"trees", "channels", "classes"}),
    "model info": ("m.tcm", {"hash", "classes"}),
    "plan": (f"v.tif m.tcm -o o.tif --no-time {CPU}", {"host_bytes", "disk_bytes"}),
    "classify": (f"v.tif m.tcm -o o.tif {CPU}", {"counts", "fractions", "planes", "device"}),
    "batch": ("job.toml", {"volumes"}),
    "evaluate": ("t.tif t.tif --no-boundaries -o o.json", {"accuracy", "classes"}),
    "figure": ("v.tif t.tif --planes 1 --dpi 50 -o o.png", set()),
    "measure": ("t.tif --class 2 -o o.csv", {"classes", "unit"}),
    "clean": ("t.tif -o o.tif --min-size 2", {"voxels_changed", "objects"}),
    "baseline nad": (f"v.tif -o o.tif --iterations 1 --noise-area 1,1 {CPU}", {"slab_planes", "device"}),
    "baseline otsu": ("v.tif -o o.tif --levels 2", {"thresholds", "counts", "fractions"}),
    "schema": ("classify --check form.json", set()),
    "simulate phantom": ("-o o --size 16", set()),
    "simulate pillar": ("-o o --shape 4,24,24 --iterations 1", set()),
}
# The first two end when a person ends them, the others are minutes of work made of the commands above.
NOT_RUN = {"paint", "watch", "demo", "reproduce"}
STEPLESS = {"schema", "preview", "model import", "model info", "figure", "plan"}  # no progress is told of them
LABELS = {"classify", "clean", "baseline otsu"}


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    found = {}
    for name, command in group.commands.items():
        inner = commands(command, f"{name} ") if isinstance(command, click.Group) else {name: command}
        found |= {f"{prefix}{key}": value for key, value in inner.items()}
    return found


FORM = {"volume": "v.tif", "model": "m.tcm", "output": "o.tif"}
COMMANDS = commands(cli)
LINE, RESULT = (jsonschema.Draft202012Validator(content) for content in (log_schema(), result_schema()))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    volume = np.random.default_rng(2).integers(0, 200, (4, 24, 22)).astype(np.uint16)
    volume[:, 5:15, 5:12] += 300
    truth = np.ones(volume.shape, np.uint8)
    truth[:, 5:15, 5:12] = 2
    strokes = truth.copy()
    strokes[:, 1::3] = 0
    strokes[::2] = 0
    for name, array in (("v.tif", volume), ("s.tif", strokes), ("t.tif", truth)):
        tifffile.imwrite(folder / name, array, imagej=True, metadata={"axes": "ZYX"})
    assert run(["train", f"{folder}/v.tif", f"{folder}/s.tif", "-o", f"{folder}/m.tcm", "-q",
                *FEATURES.split(), *CPU.split()]) == 0  # fmt: skip
    shutil.copy(next((Path(__file__).parents[1] / "data").rglob("*.model")), folder / "c.model")
    (folder / "job.toml").write_text('model = "m.tcm"\ndevice = "numpy"\nworkers = 1\n[[volumes]]\npath = "v.tif"\n')
    (folder / "form.json").write_text(json.dumps(FORM))
    return folder


@pytest.fixture
def place(inputs, tmp_path, monkeypatch):
    shutil.copytree(inputs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def told(name: str, words: str) -> tuple[int, list, dict]:
    """Exit code, lines of the log and the result of a run, all as their schemas say."""
    code = run([*name.split(), *words.split(), "--log-json", "../log.jsonl", "--result", "../result.json"])
    lines = [json.loads(line) for line in Path("../log.jsonl").read_text().splitlines()]
    for line in lines:
        LINE.validate(line)
    result = json.loads(Path("../result.json").read_text())
    RESULT.validate(result)
    assert (lines[0]["event"], lines[-1]["event"]) == ("start", "end")
    for event in (lines[0], lines[-1]):
        assert {key: result[key] for key in event.keys() & result.keys() - {"schema"}}.items() <= event.items()
    assert (result["command"], result["exit_code"]) == (name, code)
    jsonschema.Draft202012Validator(parameter_schema(name, COMMANDS[name])).validate(result["settings"])
    assert result["versions"].keys() >= {"gpu_tomoclass", "python", "numpy", "scipy", "scikit-learn"}
    return code, lines, result


def test_every_command_that_reads_or_writes_files_is_here():
    recording = {name for name, command in COMMANDS.items() if any(p.name == "result" for p in command.params)}
    assert recording - {"cache info", "cache clear"} == RUNS.keys() | NOT_RUN


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_succeeds(name, place):
    before = {path.name for path in place.iterdir()}
    code, lines, result = told(name, RUNS[name][0])
    assert (code, result["status"], result["error"]) == (0, "ok", None)
    assert result["values"].keys() >= RUNS[name][1]
    assert all(entry["fingerprint"] for entry in result["inputs"])
    assert bool(result["inputs"]) == (not name.startswith("simulate"))
    assert result["peak_memory_bytes"] > 1e6
    assert 0 < result["seconds"] < 600
    made = {path.name for path in place.iterdir()} - before
    assert {Path(entry["path"]).relative_to(place).parts[0] for entry in result["outputs"]} == made
    for entry in result["outputs"]:
        assert entry["bytes"] > 0
        suffix = Path(entry["path"]).suffix
        assert (entry["volume"] is None) == (suffix not in (".tif", ".zarr"))
    fractions = result["values"].get("fractions")
    if fractions is not None:
        assert sum(fractions.values()) == pytest.approx(1)
    progress = [line for line in lines if line["event"] == "progress"]
    assert all(line["done"] <= line["total"] for line in progress)
    if progress:
        assert progress[-1]["done"] == progress[-1]["total"]
    if name in LABELS:
        assert made == {"o.tif", "o_thumbnail.png"}
        labels = next(entry for entry in result["outputs"] if entry["path"].endswith("o.tif"))
        assert labels["volume"]["dtype"] == "uint8"
        assert labels["volume"]["classes"].keys() == ({"1", "2"} if name != "clean" else set())  # t.tif names none
        assert labels["volume"]["shape"] == [4, 24, 22]


@pytest.mark.parametrize("name", RUNS)
def test_settings_of_a_result_are_parameters_again(name, place, command, monkeypatch):
    """The command line that they are means what was recorded; nothing is computed for that."""
    callback = COMMANDS[name].callback
    monkeypatch.setattr(COMMANDS[name], "callback", lambda **_: None)
    _, _, first = told(name, RUNS[name][0])
    monkeypatch.setattr(COMMANDS[name], "callback", callback)
    done = command("schema", *name.split(), "--check", "../result.json")
    assert done.code == 0, done.err
    program, *words = shlex.split(done.out)
    assert program == "gpu-tomoclass"
    monkeypatch.setattr(COMMANDS[name], "callback", lambda **_: None)
    Path("../log.jsonl").unlink()
    _, _, second = told(name, " ".join(words[len(name.split()) :]))
    assert second["settings"] == first["settings"]


@pytest.mark.parametrize("name", [name for name in RUNS if not name.startswith("simulate") and name != "schema"])
def test_a_run_whose_input_is_damaged(name, place):
    first = RUNS[name][0].split()[0]
    with open(first, "r+b") as file:
        file.truncate(os.path.getsize(first) // 2 if first != "job.toml" else 10)
    before = {path.name for path in place.iterdir()}
    code, lines, result = told(name, RUNS[name][0])
    assert code == (4 if name.startswith("model") else 2 if name == "batch" else 3)
    assert result["status"] == "failed"
    assert result["outputs"] == []
    assert first in result["error"]["message"]
    assert lines[-2]["event"] == "error"
    assert {path.name for path in place.iterdir()} == before


@pytest.mark.parametrize("name", [name for name in RUNS if "-o o" in RUNS[name][0] and name not in ("adapt", "plan")])
def test_a_run_whose_output_exists(name, place):
    words = RUNS[name][0].split()
    there = Path(words[words.index("-o") + 1])
    if name.startswith("simulate"):
        there.mkdir()
        there /= "truth.tif"
    there.write_bytes(b"of somebody else")
    code, _, result = told(name, RUNS[name][0])
    assert (code, result["status"], result["outputs"]) == (3, "failed", [])
    assert "exists" in result["error"]["message"]
    assert there.read_bytes() == b"of somebody else"


@pytest.mark.parametrize("name", [name for name in RUNS if name not in STEPLESS])
def test_a_run_that_is_stopped(name, place, monkeypatch):
    """SIGTERM comes with the first step of its work."""
    progress = Run.progress

    def stop(run: Run, *step: object) -> None:
        monkeypatch.setattr(Run, "progress", progress)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "progress", stop)
    code, _, result = told(name, RUNS[name][0])
    assert Run.progress is progress, "no step was told"
    assert (code, result["status"]) == (6, "stopped")
    assert result["error"]["kind"] == "StoppedError"
    assert result["outputs"] == []
    assert not list(place.glob("o.*"))


@pytest.mark.parametrize("name", sorted(LABELS))
def test_pictures_beside_labels(name, place, command):
    """On request, and the thumbnail with a result; one that exists is not replaced unless that is asked for."""
    words = [*name.split(), *RUNS[name][0].split(), "-q"]
    assert command(*words).code == 0
    assert not list(place.glob("o_*"))
    done = command(*words, "--overwrite", "--thumbnail", "--sweep")
    assert done.code == 0, done.err
    assert "picture: o_thumbnail.png\npicture: o_sweep.gif" in done.out
    with Image.open("o_sweep.gif") as sweep:
        assert sweep.size == (22, 24)
    for path in (Path("o.tif"), Path("o_sweep.gif")):
        path.unlink()
    Path("o_thumbnail.png").write_bytes(b"mine")
    assert command(*words, "--thumbnail").code == 3
    done = command(*words[:-1], "--result", "../r.json")
    assert done.code == 0
    assert "o_thumbnail.png exists already and stays" in done.err
    assert Path("o_thumbnail.png").read_bytes() == b"mine"
    Path("o_thumbnail.png").unlink()
    assert command(*words, "--overwrite", "--result", "../r.json", "--no-thumbnail").code == 0
    assert not list(place.glob("o_*"))


def test_pictures_of_a_part(place, command):
    """Labels of a box lie over the grey values of this box."""
    words = RUNS["classify"][0].split()
    done = command("classify", *words, "--crop", "1:3,4:20,2:20", "--sweep", "--thumbnail", "-q")
    assert done.code == 0, done.err
    with Image.open("o_sweep.gif") as sweep:
        assert sweep.size == (18, 16)
        shown = np.asarray(sweep.convert("RGB")).astype(int).sum(axis=2)
    grey = tifffile.imread("v.tif")[1, 4:20, 2:20].astype(int)
    assert np.corrcoef(shown.ravel(), grey.ravel())[0, 1] > 0.8
    assert command("figure", "v.tif", "o.tif", "--planes", "2", "-o", "f.png").code == 0


def test_pictures_of_a_batch(place, command):
    assert command("batch", "job.toml", "-q", "--sweep", "--result", "../r.json").code == 0
    assert {"v_labels_thumbnail.png", "v_labels_sweep.gif"} <= {path.name for path in place.iterdir()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("classify v.tif m.tcm -o o.tif --plans 0:2", "No such option"),
        ("classify v.tif m.tcm", "Missing option"),
        ("classify v.tif m.tcm -o o.tif --workers 0", "--workers"),
        ("classify v.tif m.tcm -o none/o.tif", "its folder does not exist"),
        ("classify v.tif m.tcm -o v.tif", "is the input"),
        ("model info", "Missing argument"),
        ("baseline nad v.tif -o o.tif --dim 2 --dim 3", "given twice"),
    ],
)
def test_a_command_line_that_is_refused(words, said, place, command):
    for option, file in (("--result=../r.json", "r.json"), ("--log-json=../l.jsonl", "l.jsonl")):
        done = command(*words.split(), option)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
        text = (place.parent / file).read_text()
        content = json.loads(text.splitlines()[-1] if file == "l.jsonl" else text)
        (LINE if file == "l.jsonl" else RESULT).validate(content)
        assert (content["status"], content["exit_code"], content["outputs"]) == ("failed", 2, [])
        if file == "r.json":
            assert said in content["error"]["message"]
            assert content["arguments"][-1] == option
    before = (place / "v.tif").read_bytes()
    assert command(*words.split(), "--result", "v.tif").code == 2
    assert (place / "v.tif").read_bytes() == before


def test_a_check_records_nothing(place, command):
    Path("form.json").write_text(json.dumps(FORM | {"workers": 0, "result": "../r.json", "log_json": "../l.jsonl"}))
    assert command("schema", "classify", "--check", "form.json").code == 2
    assert {path.name for path in place.parent.iterdir()} == {"here"}


def test_settings_from_the_environment(place, monkeypatch):
    """They are recorded as they were written, like those of the command line; defaults as well."""
    monkeypatch.setenv("GPU_TOMOCLASS_CLASSIFY_PLANES", "0:2")
    monkeypatch.setenv("GPU_TOMOCLASS_CLASSIFY_MEMORY_LIMIT", "2G")
    _, _, result = told("classify", RUNS["classify"][0])
    assert (result["settings"]["planes"], result["settings"]["memory_limit"]) == ("0:2", "2G")
    assert result["values"]["planes"] == 2
    Path("../log.jsonl").unlink()
    Path("p").mkdir()
    shutil.copy("t.tif", "p/truth.tif")
    code, _, result = told("simulate pillar", "-o p")  # refused at once
    assert (code, result["settings"]["voxels"]) == (3, "24,160,136")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({}, "gpu-tomoclass classify v.tif m.tcm --output=o.tif"),
        ({"thumbnail": False, "sweep": False, "quiet": True}, "--no-thumbnail --quiet"),
        ({"planes": "0:2", "workers": 2, "smooth": 1.5}, "--planes=0:2 --workers=2 --smooth=1.5"),
        ({"probabilities": "uint8", "nan": None}, "--output=o.tif --probabilities=uint8"),
        ({"workers": 0}, None),
        ({"workers": "two"}, None),
        ({"device_name": "tpu"}, None),
        ({"quiet": "yes"}, None),
        ({"planes": ["0:2"]}, None),
        ({"planess": "0:2"}, None),
        ({"smooth": -1}, None),
        ({"output": None}, None),
    ],
)
def test_a_form_is_checked_as_its_schema_says(more, line, place, command):
    """What the schema refuses, the command refuses as well, and the other way round."""
    Path("form.json").write_text(json.dumps(FORM | more))
    done = command("schema", "classify", "--check", "form.json")
    schema = json.loads(command("schema", "classify").out)
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(FORM | more))
    assert bool(errors) == (line is None), errors
    if line is None:
        assert (done.code, done.out) == (2, ""), done
    else:
        assert done.code == 0, done.err
        assert line in done.out


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"schema": "gpu_tomoclass/result/1"}'])
def test_a_file_that_is_no_form(text, place, command):
    Path("form.json").write_text(text)
    assert command("schema", "classify", "--check", "form.json").code == 2
    assert command("schema", "log", "--check", "form.json").code == 2


def test_a_form_that_is_not_there(place, command):
    done = command("schema", "classify", "--check", "absent.json")
    assert done.code == 2
    assert "absent.json: cannot be read (No such file or directory); correct the name" in done.err
