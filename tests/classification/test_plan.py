"""A plan is tested backwards: what the run then really takes is 80 to 100 % of what was predicted."""

import json
import subprocess
import sys

import numpy as np
import pytest
from simulated_cupy import ptx_device

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.needs import ProcessMemory, thread_memory
from gpu_tomoclass.classification.on_device import Classifier, used_blocks
from gpu_tomoclass.classification.plan import make_plan
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.classification.slabs import threads_within
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.memory import available_bytes, peak_bytes, resident_bytes
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (5, 300, 400)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A volume whose planes are as large as real ones, and a model with the paper's features."""
    random = np.random.default_rng(2)
    array = random.integers(0, 60000, SHAPE).astype(np.uint16)
    array[:, 100:200, 100:300] //= 3
    folder = tmp_path_factory.mktemp("large")
    with create_volume(folder / "v.tif", shape=SHAPE, dtype=array.dtype) as writer:
        for z, plane in enumerate(array):
            writer.write_plane(z, plane)
    y, x = (a.ravel() for a in np.mgrid[0:300:6, 0:400:6])
    inside = (y >= 100) & (y < 200) & (x >= 100) & (x < 300)
    annotation = Annotation.from_voxels(
        np.full(y.size, 4), y, x, 1 + inside, shape=SHAPE, classes=default_classes(["out", "in"])
    )
    with open_volume(folder / "v.tif") as volume:
        model = train(volume, annotation, bank=FeatureBank.create("paper"), n_trees=60, device=NativeDevice()).model
    save_model(model, folder / "m.tcm")
    return folder


CODE = """import sys
from gpu_tomoclass.cli import run
from gpu_tomoclass.device.memory import peak_bytes
code = run(sys.argv[1:])
print(peak_bytes(), file=sys.stderr)
sys.exit(code)"""


def peak_of(*arguments):
    """Largest resident size of the command, in bytes, and what it wrote to stdout."""
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1]), done.stdout


@pytest.mark.parametrize(
    ("workers", "options"), [(1, ()), (2, ("--probabilities", "--uncertainty"))], ids=["labels", "all"]
)
def test_memory_is_80_to_100_percent_of_the_plan(large, tmp_path, workers, options):
    common = (large / "v.tif", large / "m.tcm", "--device", "native", "--workers", workers, *options, "-q")
    _, plan = peak_of("plan", *common, "--no-time", "--json")
    predicted = json.loads(plan)["host_bytes"]
    peak, _ = peak_of("classify", *common, "-o", tmp_path / "o.ome.zarr")
    assert 0.8 * predicted <= peak <= predicted, f"{peak / 1e6:.0f} MB of {predicted / 1e6:.0f} MB"
    assert json.loads(plan)["n_threads"] == workers


@pytest.mark.parametrize("probabilities", [None, "float32"])
def test_a_dry_run_allocates_what_the_real_one_does(sample_path, sample_model, probabilities):
    """The engine's arrays, to the byte, on a CPU and on a (simulated) GPU."""
    planes = np.zeros((2, 24, 21), np.float32)
    for device in (NativeDevice(threads=1), ptx_device()[0]):
        memory = thread_memory(
            sample_model, device.name, (24, 21), products=ProductOptions(probabilities=probabilities)
        )
        device.for_thread = lambda d=device: d
        classifier = Classifier(sample_model, device)
        allocated = []
        empty = device.empty
        device.empty = lambda shape, dtype, e=empty, a=allocated: (a.append(e(shape, dtype)), a[-1])[1]
        classifier.classify(planes, want_probabilities=probabilities is not None)
        on_host = 2 + (8 * len(sample_model.classes) if probabilities else 0)  # labels, their copy; probabilities
        host = 2 * 24 * 21 * on_host if device.name == "native" else 0
        uploaded = memory.bytes(2) - host - sum(a.nbytes for a in allocated)
        assert 0 <= uploaded < 40_000  # tables of the filters and of the forest


def test_a_memory_limit_leaves_fewer_threads(large, monkeypatch):
    from gpu_tomoclass.model.reading import load_model

    taken = resident_bytes()  # else what this process allocates and frees between the plans counts as a thread's
    monkeypatch.setattr("gpu_tomoclass.classification.needs.resident_bytes", lambda: taken)

    model, device = load_model(large / "m.tcm"), NativeDevice(threads=6)
    with open_volume(large / "v.tif") as volume:
        needs = [make_plan(volume, model, device.with_threads(n), measure=False).host_bytes for n in (1, 2, 3)]
        assert needs[0] < needs[1] < needs[2]
        assert needs[2] - needs[1] == pytest.approx(needs[1] - needs[0], rel=0.01)
        needed = ProcessMemory(volume, model, device, ProductOptions())
        for n, need in enumerate(needs, start=1):
            assert threads_within(need, needed, device=device, blocks=used_blocks(model)) == n
        with pytest.raises(ResourceError, match=r"one thread needs .* of memory, the limit is 50.0 MB"):
            threads_within(50_000_000, needed, device=device, blocks=used_blocks(model))


def test_the_limit_reaches_the_run(sample_path, sample_model, tmp_path):
    with open_volume(sample_path) as volume:
        with pytest.raises(ResourceError, match="--memory-limit"):
            classify(volume, sample_model, output=tmp_path / "o.tif", device=NumpyDevice(), memory_limit=10**6)
        result = classify(
            volume, sample_model, output=tmp_path / "o.tif", device=NumpyDevice(threads=4), memory_limit=10**10
        )
    assert result.profile["threads"] == 4


def test_what_a_plan_says(sample_path, sample_model, tmp_path):
    with open_volume(sample_path) as volume:
        device = NumpyDevice(threads=2)
        plan = make_plan(volume, sample_model, device, output=tmp_path / "o.tif", planes=(2, 8))
        assert (plan.device, plan.n_threads, plan.slab_planes, plan.n_planes) == ("numpy", 2, 1, 6)
        assert plan.seconds == pytest.approx(6 * plan.seconds_per_plane)
        assert plan.device_bytes is None
        assert plan.disk_bytes == 2 * 6 * 24 * 21  # labels, unfinished and finished
        more = {"probabilities": "float32", "uncertainty": "entropy"}
        assert make_plan(volume, sample_model, device, measure=False, **more).disk_bytes == int(
            12 * 24 * 21 * (1 + 8 + 4) * 4 / 3
        )


def test_warnings(sample_path, sample_model, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_tomoclass.classification.plan.available_bytes", lambda: 1000)
    monkeypatch.setattr("gpu_tomoclass.classification.plan.free_bytes", lambda path: 10)
    with open_volume(sample_path) as volume:
        plan = make_plan(volume, sample_model, NumpyDevice(), output=tmp_path / "o.tif", measure=False)
    assert "more memory is needed, 1.0 KB are free now" in plan.warnings[0]
    assert "are needed on the disk of" in plan.warnings[1]


def test_a_gpu_gets_slabs_that_fit(sample_path, sample_model):
    device, _ = ptx_device()
    with open_volume(sample_path) as volume:
        plan = make_plan(volume, sample_model, device, measure=False)
        assert 1 <= plan.slab_planes <= 12
        assert plan.device_bytes <= device.free_memory() or plan.warnings
        assert plan.seconds is None


def test_memory_of_this_process():
    assert 0 < resident_bytes() <= peak_bytes()
    assert available_bytes() > 0
