"""Say to programs: the log and the result of a run, and the schemas that describe them."""

import json
import subprocess
import sys
from unittest import mock

import click
import jsonschema
import numpy as np
import pytest
import tifffile

from gpu_tomoclass.cli import cli, run
from gpu_tomoclass.cli.command import Command
from gpu_tomoclass.cli.schema import log_schema, parameter_schema, result_schema
from gpu_tomoclass.errors import DataError

FAST = ["--features", "gaussian_blur", "--sigma-max", "1", "--no-cache", "--device", "numpy", "--trees", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    volume = np.random.default_rng(2).integers(0, 200, (3, 20, 18)).astype(np.uint16)
    volume[:, 5:15, 5:12] += 300
    strokes = np.zeros(volume.shape, np.uint8)
    strokes[1, ::3] = 1
    strokes[1, 5:15, 5:12] = 2
    for name, array in (("v.tif", volume), ("s.tif", strokes)):
        tifffile.imwrite(folder / name, array, imagej=True, metadata={"axes": "ZYX"})
    assert run(["train", f"{folder}/v.tif", f"{folder}/s.tif", "-o", f"{folder}/m.tcm", "--quiet", *FAST]) == 0
    return folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def checked(path):
    """The lines of a log, each valid."""
    lines = lines_of(path)
    for line in lines:
        jsonschema.validate(line, log_schema())
    return lines


def test_a_run_is_told_from_start_to_end(folder, tmp_path):
    log, result = tmp_path / "log.jsonl", tmp_path / "result.json"
    labels = tmp_path / "labels.tif"
    arguments = ["classify", f"{folder}/v.tif", f"{folder}/m.tcm", "-o", str(labels), "--planes", "0:2",
                 "--device", "numpy", "--memory-limit", "2G", "--quiet", "--log-json", str(log),
                 "--result", str(result), "--thumbnail", "--sweep"]  # fmt: skip
    assert run(arguments) == 0
    told = checked(log)
    assert [line["event"] for line in told][:1] == ["start"]
    assert told[-1]["event"] == "end"
    assert {"task": "classify", "done": 2, "total": 2, "unit": "planes"}.items() <= told[-2].items()
    assert told[0]["arguments"] == arguments[1:]
    assert [entry["bytes"] for entry in told[0]["inputs"]] == [(folder / n).stat().st_size for n in ("v.tif", "m.tcm")]
    content = json.loads(result.read_text())
    jsonschema.validate(content, result_schema())
    assert content["status"] == "ok"
    counted = np.bincount(tifffile.imread(labels).ravel(), minlength=3)[1:]
    assert list(content["values"]["counts"].values()) == counted.tolist()
    made = [labels, tmp_path / "labels_thumbnail.png", tmp_path / "labels_sweep.gif"]
    assert [(o["path"], o["bytes"]) for o in content["outputs"]] == [(str(p), p.stat().st_size) for p in made]
    # Settings are what the schema of the parameters allows, in the notation of the command line.
    jsonschema.validate(content["settings"], parameter_schema("classify", cli.commands["classify"]))
    assert (content["settings"]["planes"], content["settings"]["memory_limit"]) == ("0:2", "2G")


def test_what_a_run_wrote_for_itself_and_removed_is_no_output(folder, tmp_path, monkeypatch):
    """As the processes of a cluster are given their model."""
    from gpu_tomoclass.outputs import atomic

    def measured(*_, **__):
        with atomic(tmp_path / "own") as temporary:
            temporary.write_text("x")
        (tmp_path / "own").unlink()
        raise DataError("enough")

    monkeypatch.setattr("gpu_tomoclass.labels.measure_classes", measured)
    result = tmp_path / "r.json"
    assert run(["measure", f"{folder}/s.tif", "-o", f"{tmp_path}/p.csv", "--result", str(result)]) == 3
    assert json.loads(result.read_text())["outputs"] == []


def test_a_failure_is_told_too_and_the_next_run_continues_the_log(folder, tmp_path):
    log, result = tmp_path / "log.jsonl", tmp_path / "result.json"
    told = ["--log-json", str(log), "--result", str(result)]
    missing = ["classify", f"{folder}/none.tif", f"{folder}/m.tcm", "-o", f"{tmp_path}/labels.tif", *told]
    assert run(missing) == 2
    end = checked(log)[-1]
    assert (end["status"], end["exit_code"], end["outputs"]) == ("failed", 2, [])
    content = json.loads(result.read_text())
    jsonschema.validate(content, result_schema())
    assert content["error"]["kind"] == "UsageError"
    assert "none.tif" in content["error"]["message"]
    assert run(["measure", f"{folder}/s.tif", "--class", "2", "-o", f"{tmp_path}/particles.csv", *told]) == 0
    events = [line["event"] for line in checked(log)]
    assert events.count("start") == events.count("end") == 2
    assert json.loads(result.read_text())["values"]["classes"][-1]["particles"] == 1


@pytest.mark.parametrize("option", ["--log-json", "--result"])
def test_no_other_file_is_written_to(option, folder, tmp_path, capsys):
    """A file that no earlier run wrote keeps its bytes, and nothing is computed."""
    for content in ("", "[]\n", '{"schema": "of somebody else"}\n', "a note\n"):
        other = tmp_path / "other.json"
        other.write_text(content)
        code = run(["info", f"{folder}/v.tif", option, str(other)])
        assert code == (0 if content == "" else 3), content
        if content:
            assert other.read_text() == content
            assert "is not of an earlier run" in capsys.readouterr().err
    for name in ("v.tif", "m.tcm"):
        before = (folder / name).read_bytes()
        code = run(
            ["classify", f"{folder}/v.tif", f"{folder}/m.tcm", "-o", f"{tmp_path}/l.tif", option, f"{folder}/{name}"]
        )
        assert code in (2, 3)
        assert (folder / name).read_bytes() == before
        assert not (tmp_path / "l.tif").exists()


def test_a_bug_and_an_interruption_are_told(folder, tmp_path, monkeypatch):
    for error, code, status in ((ZeroDivisionError("x"), 1, "failed"), (KeyboardInterrupt(), 6, "stopped")):
        monkeypatch.setattr("gpu_tomoclass.labels.measure_classes", mock.Mock(side_effect=error))
        result = tmp_path / f"{code}.json"
        arguments = ["measure", f"{folder}/s.tif", "--class", "2", "-o", f"{tmp_path}/p.csv", "--result", str(result)]
        assert run(arguments) == code
        content = json.loads(result.read_text())
        jsonschema.validate(content, result_schema())
        assert (content["status"], content["exit_code"]) == (status, code)


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if isinstance(command, Command):
            yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


@pytest.mark.parametrize(("name", "command"), list(commands(cli)), ids=[name for name, _ in commands(cli)])
def test_every_command_has_a_schema_that_is_one(name, command):
    schema = parameter_schema(name, command)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert sorted(schema["properties"]) == sorted(p.name for p in command.params)
    assert all(len(entry["description"]) > 3 and entry["x-flag"] for entry in schema["properties"].values())
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice):
            entry = schema["properties"][parameter.name]
            assert set(parameter.type.choices) <= set(entry.get("items", entry)["enum"])


def test_schema_is_printed(capsys):
    assert run(["schema", "result"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))
    assert run(["schema", "model", "import"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "gpu-tomoclass model import"
    assert run(["schema"]) == 0
    assert "baseline nad" in capsys.readouterr().out.splitlines()
    assert run(["schema", "nothing"]) == 2


def test_syslog(folder, tmp_path):
    """Start and end go to the system's log, under the program's name."""
    code = (
        "import sys, types\n"
        "said = []\n"
        "fake = types.SimpleNamespace(LOG_PID=1, LOG_ERR=3, LOG_INFO=6, openlog=lambda n, o: None,"
        " syslog=lambda level, text: said.append((level, text)))\n"
        "sys.modules['syslog'] = fake\n"
        "from gpu_tomoclass.cli import run\n"
        f"run(['info', {str(folder / 'none.tif')!r}, '--syslog'])\n"
        "print([level for level, _ in said], said[-1][1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[6, 3, 6] info ended: failed, exit code 2"
