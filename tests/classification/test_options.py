"""Options of a run: whoever passes them on knows every field, under its own name."""

import dataclasses
import inspect
import pickle

import click
import numpy as np
import pytest
from memory_volume import ArrayVolume

from gpu_tomoclass.classification import batch, classify_volume, job_file
from gpu_tomoclass.classification.cluster import ClusterWorkers
from gpu_tomoclass.classification.cluster_worker import Job
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.classification.workers import Work
from gpu_tomoclass.cli import cli
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.training import Adaptation
from gpu_tomoclass.volumes.opening import open_volume

FIELDS = {field.name: field.default for field in dataclasses.fields(RunOptions)}
OTHERS = {  # one value of each field that is not its default
    "probabilities": "uint8",
    "uncertainty": "entropy",
    "smooth": 1.5,
    "planes": (2, 7),
    "crop": "1:8,0:6,2:",
    "mask": "/masks/mask.tif",
    "adapt": "auto",
    "intensity": "none",
    "nan": "mask",
    "force": True,
    "forest_engine": "nvforest",
    "slab_planes": 3,
    "memory_limit": 10**12,
    "overwrite": True,
    "restart": True,
}
HERE = {"volume", "model", "output", "device", "cluster", "should_stop", "progress", "format_options"}


class Caught(Exception):
    pass


@pytest.fixture
def taken(monkeypatch):
    """Filled with the keywords of the next call of classify, which ends there."""
    found = {}

    def classify(volume, model, **options):
        found.update(options)
        raise Caught

    monkeypatch.setattr(batch, "classify", classify)
    monkeypatch.setattr("gpu_tomoclass.classification.classify", classify, raising=False)
    return found


def test_another_value_is_given_for_every_field():
    assert OTHERS.keys() == FIELDS.keys(), "a new option needs a value here, and everything below"
    assert all(OTHERS[name] != FIELDS[name] for name in FIELDS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunOptions().nan = "fill"


def test_classify_takes_every_field_and_hands_it_on(monkeypatch, sample_model):
    parameters = inspect.signature(classify_volume.classify).parameters
    assert {name: parameters[name].default for name in parameters.keys() - HERE} == FIELDS

    others = {**OTHERS, "mask": ArrayVolume(np.ones((9, 8, 8), np.uint8)), "intensity": "model"}
    adapted = Adaptation(sample_model, adapted=False, before=None, after=None, reason="a stand-in")
    monkeypatch.setattr(classify_volume, "adapted", lambda *_, **__: adapted)

    def work(volume, model, options, **_):
        assert options == RunOptions(**others)
        raise Caught

    monkeypatch.setattr(classify_volume, "Work", work)
    volume = ArrayVolume(np.zeros((9, 8, 8), np.uint16))
    with pytest.raises(Caught):
        classify_volume.classify(volume, sample_model, output="o.tif", device=NumpyDevice(), **others)


def test_the_command_line_has_every_field(taken, sample_path, sample_model, tmp_path):
    command = cli.get_command(click.Context(cli), "classify")
    assert FIELDS.keys() <= {option.name for option in command.params}
    save_model(sample_model, tmp_path / "m.tcm")
    options = []
    for name, value in OTHERS.items():
        flag = f"--{name.replace('_', '-')}"
        text = f"{value[0]}:{value[1]}" if name == "planes" else str(value)
        options += [flag] if value is True else [flag, text]
    arguments = [str(sample_path), str(tmp_path / "m.tcm"), "-o", "o.tif", "--device", "numpy", "-q", *options]
    with pytest.raises(Caught):
        command.main(arguments, standalone_mode=False)
    assert {name: taken.get(name) for name in FIELDS} == OTHERS


def test_job_files_have_every_field(taken, sample_path, sample_model, tmp_path):
    save_model(sample_model, tmp_path / "m.tcm")
    lines = ['model = "m.tcm"']
    for name, value in OTHERS.items():
        text = str(list(value) if name == "planes" else value)
        lines.append(f"{name} = {text.lower() if value is True else repr(value) if isinstance(value, str) else text}")
    job = tmp_path / "job.toml"
    job.write_text("\n".join([*lines, "[[volumes]]", f"path = '{sample_path}'"]))
    with pytest.raises(Caught):
        batch.run_job(job_file.load_job(job), open_device=lambda *_: NumpyDevice())
    assert {name: taken.get(name) for name in FIELDS} == OTHERS
    job.write_text(f"task = 'convert'\nplanes = [0, 2]\n[[volumes]]\npath = '{sample_path}'")
    with pytest.raises(UsageError, match="planes is no setting of convert"):
        job_file.load_job(job)
    job.write_text(f"model = 'm.tcm'\nplanes = [0]\n[[volumes]]\npath = '{sample_path}'")
    with pytest.raises(UsageError, match=r"planes = \[0\] is no \[first, last \+ 1\]"):
        job_file.load_job(job)


def test_workers_of_a_cluster_get_the_options_as_they_are(sample_path, sample_model, tmp_path):
    class Cluster:
        device = "numpy"

    options = RunOptions(**OTHERS)
    with open_volume(sample_path) as volume:
        work = Work(volume, sample_model, options, scale=sample_model.intensity, first=2)
        products = [Product("labels", str(tmp_path / "o.tif"), np.dtype(np.uint8), classes=sample_model.classes)]
        with Staging(
            tmp_path / "o.tif", products, shape=(5, *volume.shape[1:]), run={"input": volume.fingerprint()},
            voxel_size=None, metadata={}, format_options={},
        ) as staging:  # fmt: skip
            job = ClusterWorkers(work, staging, Cluster())._job()
    assert pickle.loads(pickle.dumps(job)).options == options
    assert FIELDS.keys().isdisjoint(field.name for field in dataclasses.fields(Job)), "an option has one place"


@pytest.mark.parametrize("name", ["probabilities", "uncertainty", "adapt", "intensity", "nan", "forest_engine"])
def test_a_value_that_is_unknown_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=f"{name} 'wrong' is unknown; choose one of"):
        RunOptions(**{name: "wrong"})


@pytest.mark.parametrize(("name", "said"), [("slab_planes", "slabs of 0 planes"), ("memory_limit", "at least 1 byte")])
def test_numbers_below_one_are_refused(name, said):
    with pytest.raises(UsageError, match=said):
        RunOptions(**{name: 0})
