"""The doctor on machines of all kinds: what works, what does not and why, what differs; exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_cupy import CompileException, SimulatedCupy, installed

from gpu_tomoclass import doctor
from gpu_tomoclass.cli import run
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.device.sources import kernels_folder
from gpu_tomoclass.device.tolerances import largest_difference
from gpu_tomoclass.doctor import checks, examining, packages, subjects
from gpu_tomoclass.features.engine import FeatureEngine, accelerated_family
from gpu_tomoclass.features.families import FAMILIES, ORIGINAL

FEW = ("original", "neighbors")
SMALL = """
from gpu_tomoclass.doctor import checks, examining, subjects
subjects.COMPARED, checks.TIMED, checks.TIMED_SLAB, examining.PACKAGES = (2, 5, 37), (5, 37), 2, {}
kernel_of = subjects.accelerated_family
subjects.accelerated_family = lambda name: kernel_of(name) if name in ("original", "neighbors") else None
subjects.OTHERS = [name for name in subjects.OTHERS if name not in subjects.NAD_KINDS]
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little to compute: two families and the forest on small planes."""
    monkeypatch.setattr(subjects, "COMPARED", (2, 5, 37))
    monkeypatch.setattr(checks, "TIMED", (5, 37))
    monkeypatch.setattr(checks, "TIMED_SLAB", 2)
    monkeypatch.setattr(examining, "PACKAGES", {"NumPy": examining.PACKAGES["NumPy"]})
    monkeypatch.setattr(subjects, "accelerated_family", lambda name: accelerated_family(name) if name in FEW else None)


@pytest.fixture
def tiny_forest(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And few trees, for the interpreter of PTX."""
    make = subjects.random_forest
    few = {"n_trees": 3, "depth": 3, "n_features": 4}
    monkeypatch.setattr(subjects, "random_forest", lambda random, *, pure=False: make(random, pure=pure, **few))


@pytest.fixture
def interpreted(tiny_forest: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each kernel twice: the interpreter needs a minute for NAD, whose kernels have cases of their own there."""
    monkeypatch.setattr(subjects, "OTHERS", [name for name in subjects.OTHERS if name not in subjects.NAD_KINDS])
    monkeypatch.setattr(checks, "REPEATS", 1)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_every_kernel_of_the_package_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """All families, and every source for GPUs, as a GPU would be asked to run them."""
    monkeypatch.setattr(subjects, "COMPARED", (2, 33, 41))
    monkeypatch.setattr(checks, "TIMED", (9, 10))
    monkeypatch.setattr(checks, "REPEATS", 1)
    device = NativeDevice(threads=2, build="checked")
    compared = subjects.Subjects()
    compared.compute_reference(lambda: None)
    found = checks.check_device(device, compared)
    assert [check for check in found if not check.agrees] == []
    own_kernels = [name for name, row in FAMILIES.items() if not row.is_smoothed or name == subjects.SMOOTHED]
    assert all(accelerated_family(name) is not None for name in own_kernels)
    assert [check.name for check in found] == [ORIGINAL.name, *own_kernels, *subjects.OTHERS]
    sources = {path.name for path in kernels_folder().glob("*.cu") if not path.stem.endswith("_cpu")}
    assert sources <= device.launched_files()


@pytest.mark.usefixtures("small")
def test_report_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    with installed(SimulatedCupy(driver=0)):
        assert run(["doctor", "--json", "--workers", "1"]) == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert report["exit_code"] == 0
    assert report["error"] is None
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["free_bytes"] > 0
    cuda, native, numpy = report["devices"]
    assert [device["works"] for device in (cuda, native, numpy)] == [False, True, True]
    assert cuda["description"].startswith("the cuda device does not work: there is no NVIDIA driver on this machine;")
    assert cuda["checks"] == numpy["checks"] == []
    assert native["description"].endswith("1 thread")
    assert [(check["name"], check["agrees"]) for check in native["checks"]] == [
        (n, True) for n in (*FEW, *subjects.OTHERS)
    ]
    for check in native["checks"]:
        assert check["difference"] <= check["tolerance"]
        assert check["ms_per_megapixel"] > 0
    assert set(report["reference_ms_per_megapixel"]) == {*FEW, *subjects.OTHERS}
    assert report["packages"] == [{"name": "NumPy", "version": np.__version__, "problem": ""}]
    assert "doctor: 12 of 12 checks" in last_line(output.err)


@pytest.mark.usefixtures("interpreted")
def test_a_gpu_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    with installed(SimulatedCupy()) as cupy:
        assert run(["doctor", "--device", "cuda", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert (
        "the cuda device works: Simulated GPU (GPU 0, compute capability 8.0), CuPy 14.2.0, 4.0 MB of its" in output.out
    )
    rows = [line.split()[:4] for line in output.out.splitlines()]
    for name in FEW:
        assert [name, "agrees", "0", "0"] in rows
    assert ["forest", "agrees"] in [row[:2] for row in rows]
    assert {launch.file for launch in cupy.launches} >= {"neighbors.cu", "forest.cu", "labels.cu"}


NO_NVRTC = RuntimeError("CuPy failed to load libnvrtc.so.13: cannot open shared object file")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("machine", "code", "reason"),
    [
        ({"driver": 0}, 5, "there is no NVIDIA driver on this machine"),
        ({"driver": 12080}, 5, "the NVIDIA driver supports CUDA 12.8, CuPy 14.2.0 needs 13.0"),
        ({"gpus": 0}, 5, "no GPU is visible"),
        ({"failure": NO_NVRTC}, 5, "(NVRTC, CUDA's run-time compiler, is missing or does not fit:"),
        (None, 5, "CuPy is not installed; install gpu_tomoclass[cuda12] or gpu_tomoclass[cuda13]"),
    ],
    ids=["no driver", "old driver", "no GPU", "no NVRTC", "no CuPy"],
)
def test_a_gpu_that_does_not_work(
    machine: dict[str, Any] | None,
    code: int,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None if machine is None else SimulatedCupy(**machine))  # type: ignore
    assert run(["doctor", "--device", "cuda", "-q"]) == code
    output = capsys.readouterr()
    assert output.err.startswith("gpu-tomoclass: error: the cuda device does not work: ")
    assert reason in output.err
    assert reason in output.out
    assert "the native device works" in output.out
    assert "neighbors" not in output.out  # nothing that was not asked for is compared
    assert run(["doctor", "-q"]) == 0
    output = capsys.readouterr()
    assert reason in output.out
    assert output.err == ""


@pytest.mark.usefixtures("small")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with installed(SimulatedCupy()):
        assert run(["doctor", "--device", "cuda", "--gpu-id", "3", "-q"]) == 2
        assert "there is no GPU 3; 1 visible" in capsys.readouterr().err
        assert run(["doctor", "--device", "numpy", "--gpu-id", "3", "-q"]) == 0
    assert "there is no GPU 3; 1 visible" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_no_compiler(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with installed(SimulatedCupy(driver=0)):
        assert run(["doctor", "--device", "native", "-q"]) == 5
        reason = "the native device does not work: there is no C++ compiler (no-such-compiler not found); install g++"
        assert reason in capsys.readouterr().err
        assert run(["doctor", "-q"]) == 0
    output = capsys.readouterr().out
    assert reason in output
    assert "the numpy device works" in output


@pytest.mark.usefixtures("small")
def test_a_kernel_that_differs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compute = doctor.Subjects.compute_reference

    def differently(self: doctor.Subjects, advance: Any) -> None:
        compute(self, advance)
        self.expected["neighbors"][3, 1, 2, 5] *= np.float32(1.001)
        self.expected["forest"][1, 7] += 2e-7

    monkeypatch.setattr(doctor.Subjects, "compute_reference", differently)
    with installed(SimulatedCupy(driver=0)):
        assert run(["doctor", "-q"]) == 1
        output = capsys.readouterr()
        assert "kernels differ from the reference or cannot be run (native: neighbors, forest); choose" in output.err
        rows = [line.split() for line in output.out.splitlines()]
        assert ["original", "agrees"] in [row[:2] for row in rows]
        assert ["neighbors", "DIFFERS"] in [row[:2] for row in rows]
        assert run(["doctor", "--json", "-q"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 1
    checks = {check["name"]: check for check in report["devices"][1]["checks"]}
    assert 1e-5 < checks["neighbors"]["difference"] < 1.1e-3
    assert checks["original"]["agrees"]


@pytest.mark.usefixtures("interpreted")
def test_a_kernel_that_does_not_compile(capsys: pytest.CaptureFixture[str]) -> None:
    with installed(SimulatedCupy()) as cupy:
        make = cupy.RawModule

        def refuse(**kwargs: Any) -> Any:
            cupy.failure = CompileException("nvrtc: error: invalid") if "neighbors(" in kwargs["code"] else None
            return make(**kwargs)

        cupy.RawModule = refuse  # type: ignore[method-assign]
        assert run(["doctor", "--device", "cuda", "-q"]) == 1
    output = capsys.readouterr()
    assert "(cuda: neighbors)" in output.err
    assert "cuda, neighbors: ResourceError: NVRTC refuses a kernel source: nvrtc: error: invalid" in output.out
    assert ["neighbors", "FAILS"] in [line.split()[:2] for line in output.out.splitlines()]


@pytest.mark.usefixtures("small")
def test_a_device_that_breaks_on_the_way(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compute = FeatureEngine.compute

    def broken(self: FeatureEngine, planes: np.ndarray, **settings: Any) -> Any:
        if self.device.name == "native" and self.blocks[0].family == "neighbors":
            raise MemoryError("no memory\nfor this")
        return compute(self, planes, **settings)

    monkeypatch.setattr(FeatureEngine, "compute", broken)
    with installed(SimulatedCupy(driver=0)):
        assert run(["doctor", "--json", "-q"]) == 1
    (_, neighbors, forest, *_) = json.loads(capsys.readouterr().out)["devices"][1]["checks"]
    assert neighbors["problem"] == "MemoryError: no memory for this"
    assert not neighbors["agrees"]
    assert forest["agrees"]


@pytest.mark.parametrize("compiler", ["g++", "no-such-compiler"])
def test_home_cannot_be_written(compiler: str, tmp_path: Path) -> None:
    """With the real CuPy, which makes its cache folder while it is imported."""
    hidden = ("CUPY_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": "/proc/x", "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "CXX": compiler}
    program = f"{SMALL}\nimport sys; from gpu_tomoclass.cli import run; sys.exit(run(['doctor', '--json', '-q']))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    cuda, native, numpy = report["devices"]
    assert not cuda["works"]
    assert numpy["works"]
    if compiler == "g++":
        assert len(native["notes"]) == 1
        assert native["notes"][0].startswith("/proc/x/.cache/gpu_tomoclass/native is not used, because it cannot")
        assert [check["agrees"] for check in native["checks"]] == [True] * 4
    else:
        assert "there is no C++ compiler" in native["description"]


# -- packages ------------------------------------------------------------------------------------------------------
@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``install(distribution, version, module, text)`` makes a package that this process and others can import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(distribution: str, version: str, module: str, text: str = "") -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (tmp_path / f"{module}.py").write_text(text)

    return make


def test_packages_that_are_of_no_use(install: Any) -> None:
    install("cuml-cu13", "26.10.0", "cuml", "raise RuntimeError('first line\\nlibcuml.so: undefined symbol')")
    install("nvforest-cu12", "26.10.0", "nvforest", "import os; os.abort()")
    install("cucim-cu12", "26.10.0", "cucim")
    install("cucim-cu13", "26.10.0", "cucim")
    install("dask-cuda", "26.10.0", "dask_cuda", "import sys; sys.exit(3)")
    found = {name: doctor.find_package(name) for name in ("cuML", "nvForest", "cuCIM", "dask-cuda")}
    assert found["cuML"] == doctor.Package("cuML", "26.10.0", "cannot be imported: libcuml.so: undefined symbol")
    assert found["nvForest"].problem.startswith("cannot be imported: ")
    assert found["cuCIM"].problem == "cucim-cu12 and cucim-cu13 are installed and disturb each other: keep one"
    assert found["dask-cuda"].problem == "cannot be imported: the process ended with 3"


def test_packages_that_work(install: Any) -> None:
    install("dask-cuda", "26.10.0a3", "dask_cuda")
    assert doctor.find_package("dask-cuda") == doctor.Package("dask-cuda", "26.10.0a3")
    assert doctor.find_package("nvForest") == doctor.Package("nvForest", None)
    found = doctor.find_package("scikit-learn")
    assert found.version is not None
    assert found.problem == ""


def test_a_package_that_is_too_old(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["cuml-cu12>=26.10; extra == 'cuda12'", "cuml-cu13!=26.12,>=26.10; extra == 'cuda13'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: requirements)
    install("cuml-cu13", "26.8.1", "cuml")
    assert doctor.find_package("cuML") == doctor.Package("cuML", "26.8.1", "26.10 or newer is needed")


def test_an_import_that_hangs(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install("dask-cuda", "26.10.0", "dask_cuda", "import time; time.sleep(60)")
    monkeypatch.setattr(packages, "IMPORT_SECONDS", 1)
    assert doctor.find_package("dask-cuda").problem == "its import takes more than 1 seconds"


# -- differences ---------------------------------------------------------------------------------------------------
def test_largest_difference() -> None:
    expected = np.array([[100, -200, np.nan, np.inf], [0.5, 0.25, 0, 0]], np.float32)
    assert largest_difference(expected.copy(), expected) == 0
    result = expected.copy()
    result[0, 0] = 101
    assert largest_difference(result, expected) == pytest.approx(1 / 200)
    assert largest_difference(result, expected, relative=False) == pytest.approx(1)
    result[1, 1] = 0.5
    assert largest_difference(result, expected) == pytest.approx(0.5)


@pytest.mark.parametrize(("at", "value"), [((0, 0), np.nan), ((0, 2), 1), ((0, 2), np.inf), ((0, 3), -np.inf)], ids=str)
def test_missing_and_infinite_values_must_be_in_the_same_places(at: tuple[int, int], value: float) -> None:
    expected = np.array([[100, -200, np.nan, np.inf]], np.float32)
    result = expected.copy()
    result[at] = value
    assert largest_difference(result, expected) == np.inf


def test_a_difference_where_nothing_is_expected() -> None:
    assert largest_difference(np.float32([[1e-30]]), np.float32([[0]])) == np.inf
    assert largest_difference(np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)) == np.inf


# -- compile only --------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("tiny_forest")
def test_warm_compiles_every_kernel_and_compares_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor.Subjects, "compute_reference", lambda *_: pytest.fail("the reference was asked"))
    assert run(["doctor", "--warm", "--device", "native", "--workers", "1", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["seconds"]) == [*FEW, *subjects.OTHERS]
    assert found["problems"] == {}
    assert run(["doctor", "--warm", "--device", "numpy"]) == 2
    assert "the numpy device compiles nothing; choose --device cuda or native" in capsys.readouterr().err
    monkeypatch.setattr(
        subjects, "accelerated_family", lambda name: accelerated_family(name) if name == "neighbors" else None
    )
    monkeypatch.setattr(FeatureEngine, "compute", lambda *_, **__: 1 / 0)
    assert run(["doctor", "--warm", "--device", "native", "--workers", "1", "--quiet"]) == 1
    assert "kernels cannot be run: neighbors;" in capsys.readouterr().err
