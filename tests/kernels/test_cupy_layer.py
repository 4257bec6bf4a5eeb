"""The layer above CuPy: every call that it makes exists in the installed CuPy with these arguments; what it says and
does when a GPU, a driver, NVRTC or CuPy itself is missing or wrong.

CuPy imports without a driver. Its Python functions have signatures; its compiled classes have none, but their
docstrings begin with one.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from cases_forest import Size, make
from family_cases import Planes, make_planes
from simulated_cupy import Call, SimulatedArray, SimulatedCupy, installed, ptx_device

from gpu_tomoclass.device import launch_record
from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.device.cupy_package import cupys_own_allocator, free_cupys_pool
from gpu_tomoclass.errors import ResourceError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.forest.predict_on_device import DeviceForest

# C types in the docstrings of compiled functions, and what may be passed for them.
DOCUMENTED_TYPES = {"str": str, "tuple": tuple, "int": (int, np.integer), "bool": bool, "size_t": int}


@pytest.fixture(scope="module")
def cupy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The installed CuPy; it needs a folder that it can write to."""
    os.environ.setdefault("CUPY_CACHE_DIR", str(tmp_path_factory.mktemp("cupy")))
    return importlib.import_module("cupy")


@pytest.fixture
def calls() -> list[Call]:
    """Everything that our code asks of CuPy when it computes features and class probabilities."""
    main, simulated = ptx_device()
    device = main.for_thread()
    bank = FeatureBank.create(["neighbors", "lipschitz"], sigma_max=2)
    planes = make_planes(np.random.default_rng(1), Planes(2, 3, 35))
    watch, seconds = device.stopwatch(), dict[str, float]()
    watch.start()
    engine = FeatureEngine(device, bank.blocks)
    with mock.patch.object(launch_record, "LEAST_STEPS", 1):
        for _ in range(2):  # the second time in graphs
            features = engine.compute(planes, display_range=(0, 60000), watch=watch)
    engine.workspace.on_host("features", features)
    engine.workspace.synchronize()
    watch.add_to(seconds)
    assert set(seconds) == {"host to device", "original", *bank.families}
    inputs = make(np.random.default_rng(2), Size(n_trees=2, n_nodes=5, n_features=3, n_classes=2, n_pixels=7))
    DeviceForest(inputs["forest"], device).probabilities(device.array(inputs["features"]))
    device.copy(features, device.zeros(features.shape, np.float32))
    device.numpy(features)
    assert device.all_finite(device.scaled(device.array(planes), gain=2.0, offset=1.0, clip=(0.0, 9.0)))
    moved = device.moved(device.array(planes), np.array([0]), np.array([5]))
    device.put(moved, np.zeros(planes.shape, np.bool_), 0)
    assert device.not_finite(moved) is None
    assert device.percentiles([moved], (50.0,)) == [float(np.percentile(moved, 50.0))]
    device.scaled(moved, gain=1.0, offset=0.0, clip=None, points=((0.0, 1.0), (3.0, 9.0)))
    assert device.seconds(lambda: time.sleep(0.01)) >= 0.01
    device.free_memory()
    device.release_memory()
    with installed(simulated), cupys_own_allocator():
        free_cupys_pool()
    with installed(SimulatedCupy(architecture=90)) as with_clusters:
        CudaDevice()
    return simulated.calls + with_clusters.calls


def documented(function: Any) -> tuple[inspect.Signature, dict[str, str]]:
    """Signature and C types from the beginning of a docstring: ``RawModule(str code=None, *, tuple options=())``."""
    text = inspect.getdoc(function) or ""
    opening = text.index("(")
    depth, closing = 0, None
    for i in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            closing = i
            break
    assert closing is not None, text
    parameters, types, kind = [], {}, inspect.Parameter.POSITIONAL_OR_KEYWORD
    # Defaults hold no commas in what we use, except within brackets.
    for part in re.split(r",\s*(?![^(]*\))", text[opening + 1 : closing]):
        declared, _, default = part.partition("=")
        words = declared.split()
        if not words:
            continue
        name = words[-1]
        if name == "/":  # what comes before has no name, which nobody here uses
            continue
        if name in ("*", "\\*"):  # ufuncs escape it
            kind = inspect.Parameter.KEYWORD_ONLY
        elif name.startswith("**"):
            parameters.append(inspect.Parameter(name[2:], inspect.Parameter.VAR_KEYWORD))
        else:
            parameters.append(inspect.Parameter(name, kind, default=default or inspect.Parameter.empty))
            types[name] = " ".join(words[:-1])
    return inspect.Signature(parameters), types


def check_call(cupy: Any, call: Call) -> None:
    """An AssertionError or TypeError unless CuPy has this name and takes these arguments."""
    function = cupy
    for part in call.name.split("."):
        assert hasattr(function, part), f"CuPy {cupy.__version__} has no {call.name}"
        function = getattr(function, part)
    try:
        signature, types = inspect.signature(function), {}
    except ValueError:
        signature, types = documented(function)
    bound = signature.bind(*call.args, **call.kwargs)
    for name, value in bound.arguments.items():
        wanted = DOCUMENTED_TYPES.get(types.get(name, ""))
        assert wanted is None or isinstance(value, wanted), f"{call.name}: {name} is {value!r}, not {types[name]}"


def test_every_call_fits_the_installed_cupy(cupy: Any, calls: list[Call]) -> None:
    wrong = []
    for call in calls:
        try:
            check_call(cupy, call)
        except (AssertionError, TypeError) as error:
            wrong.append(f"{call.name}: {error}")
    assert not wrong, "\n".join(wrong)
    # What a computation cannot do without; a rename in the stand-in would otherwise hide a call from this test.
    assert {call.name for call in calls} >= {
        "RawKernel.__call__",
        "RawModule",
        "RawModule.get_function",
        "array",
        "asnumpy",
        "copyto",
        "cuda.Device",
        "cuda.Event",
        "cuda.Graph.launch",
        "cuda.Stream.begin_capture",
        "cuda.Stream.end_capture",
        "cuda.Event.record",
        "cuda.MemoryPool.free_all_blocks",
        "cuda.MemoryPool.free_bytes",
        "cuda.PinnedMemoryPool.free_all_blocks",
        "cuda.Stream.__init__",
        "cuda.Stream.synchronize",
        "cuda.alloc_pinned_memory",
        "cuda.driver.funcSetAttribute",
        "cuda.get_allocator",
        "cuda.get_elapsed_time",
        "cuda.runtime.driverGetVersion",
        "cuda.runtime.getDeviceCount",
        "cuda.runtime.getDeviceProperties",
        "cuda.runtime.memGetInfo",
        "cuda.runtime.runtimeGetVersion",
        "cuda.set_allocator",
        "empty",
        "get_default_memory_pool",
        "get_default_pinned_memory_pool",
        "ndarray.get",
        "ndarray.set",
        "zeros",
    }


def test_a_kernel_can_be_given_memory_and_clusters(cupy: Any) -> None:
    """Attributes that no call shows."""
    assert hasattr(cupy.RawKernel, "max_dynamic_shared_size_bytes")
    assert hasattr(cupy.RawKernel, "kernel")
    assert hasattr(cupy.cuda.Function, "ptr")
    assert "shared_mem=0" in (inspect.getdoc(cupy.RawKernel.__call__) or "")


@pytest.mark.parametrize(
    "name",
    [
        "ndarray.data",
        "ndarray.device",
        "ndarray.dtype",
        "ndarray.flags",
        "ndarray.nbytes",
        "ndarray.ndim",
        "ndarray.reshape",
        "ndarray.shape",
        "ndarray.size",
        "ndarray.strides",
        "ndarray.__getitem__",
        "ndarray.__setitem__",
        "ndarray.sort",
        "cuda.Device.__enter__",
        "cuda.Device.__exit__",
        "cuda.Device.id",
        "cuda.Stream.__enter__",
        "cuda.Stream.__exit__",
        "cuda.Stream.null",
        "cuda.PinnedMemoryPointer.mem",
        "cuda.MemoryPointer.ptr",
        "cuda.MemoryPool.malloc",
        "cuda.MemoryPool.get_limit",
        "cuda.MemoryPool.set_limit",
        "cuda.MemoryPool.used_bytes",
        "_core.flags.Flags.c_contiguous",
    ],
)
def test_attributes(cupy: Any, name: str) -> None:
    found = cupy
    for part in name.split("."):
        found = getattr(found, part)
    assert found is not None


def test_kinds_of_errors(cupy: Any) -> None:
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(cupy.cuda.compiler.CompileException, Exception)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


@pytest.mark.parametrize(
    "call",
    [
        Call("arrays", (1,), {}),
        Call("zeros", (), {}),
        Call("asnumpy", (1,), {"streams": None}),
        Call("RawModule", (), {"code": "", "option": ()}),
        Call("RawModule", (), {"code": "", "options": ["-std=c++17"]}),
        Call("RawModule", ("", ()), {}),
        Call("RawKernel.__call__", (1, (1,), (1,)), {}),
        Call("cuda.Device", (0, 0), {}),
        Call("cuda.runtime.memGetInfo", (0,), {}),
        Call("cuda.runtime.getDeviceProperties", ("0",), {}),
        Call("ndarray.set", (1,), {}),
        Call("ndarray.get", (1,), {"output": 1, "blocking": False}),
        Call("cuda.Stream.__init__", (1,), {"nonblocking": True}),
        Call("cuda.Stream.wait_event", (1,), {}),
        Call("cuda.Event.record", (1, 2, 3), {}),
        Call("cuda.alloc_pinned_memory", (1.5,), {}),
    ],
    ids=lambda call: f"{call.name} {len(call.args)} {','.join(call.kwargs)}",
)
def test_a_call_that_cupy_does_not_take_is_found(cupy: Any, call: Call) -> None:
    with pytest.raises((AssertionError, TypeError)):
        check_call(cupy, call)


# -- what does not work, and how it is said ------------------------------------------------------------------------
LIBRARY_MISSING = RuntimeError("CuPy failed to load libnvrtc.so.13: cannot open shared object file\nmore")


@pytest.mark.parametrize(
    ("machine", "visible", "kind", "message"),
    [
        ({"driver": 0}, None, ResourceError, "^there is no NVIDIA driver on this machine; choose --device native"),
        (
            {"driver": 12080},
            None,
            ResourceError,
            r"^the NVIDIA driver supports CUDA 12.8, CuPy 14.2.0 needs 13.0; install CuPy for CUDA 12, or a newer ",
        ),
        ({"gpus": 0}, "", ResourceError, r"^no GPU is visible \(CUDA_VISIBLE_DEVICES is ''\); choose"),
        ({"gpus": 0}, None, ResourceError, r"^no GPU is visible; choose"),
        ({"gpus": -1}, "7", ResourceError, r"^no GPU can be used \(CUDA_VISIBLE_DEVICES is '7'\): CUDARuntimeError: "),
        ({"gpus": 2}, None, UsageError, r"^there is no GPU 2; 2 visible; give --gpu-id 0 to 1$"),
        (
            {"gpus": 3, "failure": LIBRARY_MISSING},
            None,
            ResourceError,
            r"^no kernel can be run on GPU 2: RuntimeError: CuPy failed to load libnvrtc.so.13: cannot open shared "
            r"object file \(NVRTC, CUDA's run-time compiler, is missing or does not fit: install cupy with the "
            r"\[ctk\] extra\);",
        ),
        (
            {"gpus": 3, "failure": OSError()},
            None,
            ResourceError,
            r"^no kernel can be run on GPU 2: OSError; choose --device native or numpy$",
        ),
    ],
    ids=["no driver", "old driver", "hidden", "none", "broken", "bad number", "no NVRTC", "error without a message"],
)
def test_a_gpu_that_does_not_work(
    machine: dict[str, Any], visible: str | None, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with installed(SimulatedCupy(**machine)), pytest.raises(kind, match=message):
        CudaDevice(2)


def test_a_newer_driver_and_an_older_minor_version_work() -> None:
    for driver in (13000, 14010):
        with installed(SimulatedCupy(driver=driver, gpus=2)):
            device = CudaDevice(1)
        assert device.description == "Simulated GPU (GPU 1, compute capability 8.0), CuPy 14.2.0"


def test_a_gpu_that_computes_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedCupy, "asnumpy", lambda self, array: np.array([41]))
    with installed(SimulatedCupy()), pytest.raises(ResourceError, match=r"^GPU 0 computes 41 instead of 42; choose"):
        CudaDevice()


def test_cupy_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ResourceError, match=r"^CuPy is not installed; install gpu_tomoclass\[cuda12\] or"):
        CudaDevice()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise OSError('libcudart.so.13: wrong ELF class')", "OSError: libcudart.so.13: wrong ELF class"),
        ("import no_such_part_of_cupy", "ModuleNotFoundError: No module named 'no_such_part_of_cupy'"),
    ],
)
def test_cupy_is_broken(text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cupy.py").write_text(text)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(ResourceError, match=f"^CuPy cannot be imported: {reason}; install CuPy again$"):
        CudaDevice()


def test_home_cannot_be_written(tmp_path: Path) -> None:
    """The real CuPy makes its cache folder while it is imported."""
    program = (
        "import os, sys\n"
        "from gpu_tomoclass.device.cuda import CudaDevice\n"
        "from gpu_tomoclass.errors import ResourceError\n"
        "try: CudaDevice()\n"
        "except ResourceError as error: print(error)\n"
        "print('cupy' in sys.modules, os.environ['CUPY_CACHE_DIR'])\n"
    )
    hidden = ("CUPY_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": "/proc/x", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=1200
    )
    why, cache = run.stdout.splitlines()
    assert re.match(r"there is no NVIDIA driver on this machine;|no GPU ", why)
    assert cache.startswith(f"True {tmp_path}")


def test_a_source_that_does_not_compile(tmp_path: Path) -> None:
    (tmp_path / "broken.cu").write_text('// one\nextern "C" __global__ void f(int n) {\n    n = unknown;\n}\n')
    device, _ = ptx_device(kernels=tmp_path)
    message = (
        r'(?s)^NVRTC refuses a kernel source:\n.*kernels/broken.cu\(3\): error: identifier "unknown" is undefined.*'
    )
    with pytest.raises(ResourceError, match=message + "; choose --device native or numpy, and report this$"):
        device.kernel("broken.cu", "f")


def test_a_kernel_that_does_not_exist() -> None:
    device, _ = ptx_device()
    with pytest.raises(KeyError, match=r"kernels/neighbors.cu has no kernel neighbor; it has neighbors"):
        device.kernel("neighbors.cu", "neighbor")


class OtherGpu(SimulatedArray):
    gpu = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda array: np.asarray(array), "argument image: is ndarray, not a CuPy array, which the cuda device takes"),
        (lambda array: array.tolist(), "argument image: is list, not a CuPy array"),
        (lambda array: array.view(OtherGpu), "argument image: lies on GPU 1, the kernel runs on GPU 0"),
        (lambda array: array.astype(np.float64), "argument image is float64, the kernel takes float32"),
    ],
    ids=["host array", "list", "other GPU", "other dtype"],
)
def test_an_array_of_another_kind(change: Any, message: str) -> None:
    device, simulated = ptx_device()
    simulated.launches.clear()
    image, result = device.zeros((1, 4, 5), np.float32), device.empty((8, 1, 4, 5), np.float32)
    kernel = device.kernel("neighbors.cu", "neighbors", defines={"TX": 32, "TY": 1})
    shape: dict[str, Any] = {"grid": (1, 4, 1), "block": (32, 1)}
    args = {"image": image, "result": result, "distance": 1, "ny": 4, "nx": 5}
    kernel(**shape, args=args)
    assert len(simulated.launches) == 1
    with pytest.raises(TypeError, match=f"kernels/neighbors.cu: neighbors: {message}"):
        kernel(**shape, args={**args, "image": change(image)})
    assert len(simulated.launches) == 1


def test_uploads_and_copies_must_fit() -> None:
    device, _ = ptx_device()
    target = device.empty((2, 3), np.float32)
    device.upload(np.ones((3, 2), np.float32).T, target)  # made contiguous on the way
    np.testing.assert_array_equal(device.numpy(target), np.ones((2, 3)))
    for wrong in (np.ones((2, 3)), np.ones(3, np.float32)):
        with pytest.raises(ValueError, match=r"cannot be copied to float32 \(2, 3\)"):
            device.upload(wrong, target)
        with pytest.raises(ValueError, match=r"cannot be copied to float32 \(2, 3\)"):
            device.copy(device.array(wrong), target)
