"""The scripts of docs/facility.md, run as they are with a stand-in for SLURM; the Apptainer recipe."""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from distributed.cli import dask_scheduler, dask_worker

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.cli import cli
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.volumes.opening import open_volume

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "facility.md").read_text(encoding="utf-8")
SCRIPTS = {text.splitlines()[1].split("sbatch ")[1].split()[-3 if "array.sh" in text else 0]: text
           for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)}  # fmt: skip
RECIPE = (ROOT / "packaging" / "gpu_tomoclass.def").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", RECIPE, re.DOTALL | re.MULTILINE))


def check_shell(text, folder):
    file = folder / "script.sh"
    file.write_text(text)
    checked = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert not checked.stderr


def test_shell_is_shell(tmp_path):
    assert set(SCRIPTS) == {"tomoclass.sh", "array.sh", "nodes.sh"}
    for text in [*SCRIPTS.values(), *re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]:
        check_shell(text, tmp_path)
    for name in ("post", "environment", "runscript", "test"):
        check_shell(SECTIONS[name], tmp_path)


def commands(text):
    """Words of each command of ours or of Dask, continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|\s|/)(gpu-tomoclass|dask (?:cuda )?worker|dask scheduler) (.*)", line)
        if found and not line.lstrip().startswith(("#", "gpu_tomoclass:")):
            yield found[1], shlex.split(re.split(r"\s&$|\s#", found[2])[0])


def test_options_exist():
    known = {
        "dask scheduler": dask_scheduler.main,
        "dask worker": dask_worker.main,
        "dask cuda worker": dask_worker.main,
    }
    blocks = "\n".join([*SCRIPTS.values(), *re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL), *SECTIONS.values()])
    found = list(commands(blocks))
    assert len(found) >= 9
    for program, words in found:
        command = cli.commands[words[0]] if program == "gpu-tomoclass" and words[0] in cli.commands else cli
        command = known.get(program, command)
        with click.Context(command) as context:
            flags = {flag for option in command.get_params(context) for flag in (*option.opts, *option.secondary_opts)}
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word not in flags]
        assert not unknown, (program, words)


@pytest.fixture
def site(sample_path, sample_model, tmp_path):
    """A folder with a volume and a model, and a PATH with stand-ins for SLURM's commands and ours of this Python."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "python": f'exec {sys.executable} -P "$@"',
        "gpu-tomoclass": f'exec {sys.executable} -P -c "from gpu_tomoclass.cli import main; main()" "$@"',
        "dask": f'exec {sys.executable} -P -c "from dask.__main__ import main; main()" "$@"',
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "scontrol": 'echo "$@" > scontrol.txt',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy2(sample_path, work / "volume.tif")
    save_model(sample_model, work / "m.tcm")
    return work


def start(site, name, arguments, **environment):
    """A script as it is in the page, but for the device and the number of processes."""
    text = SCRIPTS[name]
    assert "--device cuda" in text
    text = text.replace("--device cuda", "--device numpy").replace("local:4", "local:2")
    text = text.replace("dask cuda worker", "dask worker --no-nanny")
    (site / name).write_text(text)
    return subprocess.Popen(
        ["bash", name, *arguments],
        cwd=site,
        env={
            **os.environ,
            "PATH": f"{site.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "42",
            "SLURM_CPUS_PER_TASK": "2",
            **environment,
        },
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ends(process, code):
    """The exit code, once nothing of the job is left."""
    _, said = process.communicate(timeout=1200)
    assert process.returncode == code, said
    deadline = time.monotonic() + 1200
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        pytest.fail("processes of the job are left")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_job_that_is_stopped_is_queued_again(site):
    """Processes on one node; SIGTERM goes to the script alone, as --signal=B: says."""
    arguments = ["volume.tif", "m.tcm", "labels.tif"]
    process = start(site, "tomoclass.sh", arguments)
    deadline = time.monotonic() + 1200
    while not (site / "labels.tif.partial" / "run.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGTERM)
    ends(process, 6)
    assert (site / "scontrol.txt").read_text() == "requeue 42\n"
    # The same run goes on on many nodes, and its file is that of one process.
    ends(start(site, "nodes.sh", arguments), 0)
    with open_volume(site / "volume.tif") as volume:
        classify(volume, load_model(site / "m.tcm"), output=site / "plain.tif", device=NumpyDevice())
    assert digest(site / "labels.tif") == digest(site / "plain.tif")
    assert not list(site.glob("dask-*"))


def test_an_array_leaves_alone_what_is_done(site):
    (site / "volumes.txt").write_text("missing.tif\nvolume.tif\n")
    for task, code in ((1, 0), (1, 0), (0, 2)):
        ends(start(site, "array.sh", ["m.tcm", "labels"], SLURM_ARRAY_TASK_ID=str(task)), code)
    assert [path.name for path in (site / "labels").iterdir()] == ["volume.ome.zarr"]


def test_the_recipe_copies_what_a_wheel_needs(tmp_path):
    """From the files that it names, and no others, a wheel is built."""
    for line in SECTIONS["files"].split("\n"):
        if line.strip():
            source, target = line.split()
            copied = tmp_path / Path(target).relative_to("/opt/gpu_tomoclass")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copied, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / source, copied)
    build = "from hatchling.build import build_wheel; print(build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("gpu_tomoclass-*.whl"))
