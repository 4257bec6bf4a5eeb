"""The native device: the same sources in three styles agree with SciPy and NumPy; building, caching and messages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kernel_tools import (
    BOX_TOLERANCE,
    IMAGE_SHAPES,
    SOURCES,
    expected_box,
    expected_exchange,
    run_box,
    run_exchange,
    run_total,
)

from gpu_tomoclass.device.compiler import CompileError, LibraryCache, find_compiler, safe_tuning
from gpu_tomoclass.device.native import NativeDevice, cpu_source
from gpu_tomoclass.device.signature import parse_signatures
from gpu_tomoclass.device.sources import KernelSource
from gpu_tomoclass.errors import ResourceError


@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
@pytest.mark.parametrize("seed", [None, 0, 1, 2], ids=["fast", "in order", "seed 1", "seed 2"])
def test_phases(
    native: NativeDevice,
    checked: Callable[[int], NativeDevice],
    shape: tuple[int, int],
    seed: int | None,
) -> None:
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    mean = run_box(native if seed is None else checked(seed), image)
    np.testing.assert_allclose(mean, expected_box(image), atol=BOX_TOLERANCE, rtol=0)


def test_the_schedule_does_not_change_a_bit(native: NativeDevice, checked: Callable[[int], NativeDevice]) -> None:
    image = np.random.default_rng(2).normal(size=(29, 97)).astype(np.float32)
    mean = run_box(native, image)
    for device in (native.with_threads(1), checked(0), checked(5), checked(6)):
        np.testing.assert_array_equal(run_box(device, image), mean)


@pytest.mark.parametrize("seed", [None, 0, 3], ids=["fast", "in order", "seed 3"])
def test_fibers(native: NativeDevice, checked: Callable[[int], NativeDevice], seed: int | None) -> None:
    device = native if seed is None else checked(seed)
    values = np.random.default_rng(3).integers(-1000, 1000, size=1000).astype(np.int32)
    assert run_total(device, values) == values.sum()
    values = np.random.default_rng(4).integers(-(2**20), 2**20, size=256).astype(np.int32)
    values[64:128] = np.abs(values[64:128]) + 12
    values[70] = 11
    np.testing.assert_array_equal(run_exchange(device, values), expected_exchange(values))


def test_fibers_without_our_own_switch(tmp_path: Path) -> None:
    """Processors other than x86-64 change stacks through ucontext."""
    (tmp_path / "sum.cu").write_text("#define CUDA_ON_CPU_UCONTEXT 1\n" + (SOURCES / "sum_fibers.cu").read_text())
    device = NativeDevice(threads=2, kernels=tmp_path)
    values = np.arange(1000, dtype=np.int32)
    result = device.zeros(1, np.int32)
    args = {"values": values, "sum": result, "n": values.size}
    # The macro has to stand before the header, so it comes from the command line.
    device.launch("sum.cu", "total", grid=(4,), block=(256,), args=args, defines={"CUDA_ON_CPU_UCONTEXT": 1})
    assert result[0] == values.sum()


def test_launches_from_several_threads(native: NativeDevice) -> None:
    images = np.random.default_rng(5).normal(size=(8, 40, 70)).astype(np.float32)
    single = native.with_threads(1)
    with ThreadPoolExecutor(4) as pool:
        means = list(pool.map(lambda image: run_box(single, image), images))
    for image, mean in zip(images, means, strict=True):
        np.testing.assert_allclose(mean, expected_box(image), atol=BOX_TOLERANCE, rtol=0)


def test_threads_with_helpers_at_the_same_time(native: NativeDevice) -> None:
    """One caller has the helpers, the others work alone; each block of each is run once."""
    images = np.random.default_rng(5).normal(size=(40, 60, 90)).astype(np.float32)
    four = native.with_threads(4)
    with ThreadPoolExecutor(4) as pool:
        means = list(pool.map(lambda image: run_box(four, image), images))
    for image, mean in zip(images, means, strict=True):
        np.testing.assert_allclose(mean, expected_box(image), atol=BOX_TOLERANCE, rtol=0)


def test_many_short_launches_after_pauses(native: NativeDevice) -> None:
    """Helpers that look for work and helpers that sleep."""
    values = np.random.default_rng(6).integers(-9, 9, size=5000).astype(np.int32)
    three = native.with_threads(3)
    for i in range(300):
        if i % 50 == 0:
            time.sleep(0.005)
        assert run_total(three, values) == values.sum()


def test_a_forked_process_has_helpers_of_its_own() -> None:
    code = """
import os
import numpy as np
from kernel_tools import SOURCES, expected_box, run_box
from gpu_tomoclass.device.native import NativeDevice
device, image = NativeDevice(threads=3, kernels=SOURCES), np.ones((50, 200), np.float32)
run_box(device, image)
child = os.fork()
right = np.allclose(run_box(device, image), expected_box(image))
if child == 0:
    os._exit(0 if right else 3)
assert right and os.waitpid(child, 0)[1] == 0
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, timeout=1200, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()[-2000:]


def test_arrays_are_aligned_copies(native: NativeDevice) -> None:
    values = np.arange(12, dtype=np.int16).reshape(3, 4)
    array = native.array(values.T)
    assert array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(native.numpy(array), values.T)
    array[...] = 0
    assert values[1, 1] == 5
    assert native.empty((0, 3), np.float32).shape == (0, 3)
    assert not native.zeros((5,), np.float64).any()


def test_compile_error_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "broken.cu").write_text('// one\nextern "C" __global__ void f(int n) {\n    n = unknown;\n}\n')
    device = NativeDevice(kernels=tmp_path)
    with pytest.raises(CompileError, match=r"kernels/broken.cu:3:\d+: error: .*unknown"):
        device.kernel("broken.cu", "f")


def test_missing_source(native: NativeDevice) -> None:
    with pytest.raises(ResourceError, match=r"absent.cu: the CUDA source cannot be read"):
        native.kernel("absent.cu", "f")


@pytest.mark.parametrize("cxx", ["no-such-compiler", "false"])
def test_no_compiler(cxx: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", cxx)
    with pytest.raises(ResourceError, match=r"there is no C\+\+ compiler|--version failed"):
        find_compiler(LibraryCache(tmp_path))


def test_a_program_that_is_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "echo")
    with pytest.raises(ResourceError, match="echo cannot make a shared library"):
        find_compiler(LibraryCache(tmp_path))


@pytest.mark.parametrize(
    ("version", "machine", "expected"),
    [
        ("Debian clang version 14.0.6", "x86_64", False),
        ("Intel(R) oneAPI DPC++/C++ Compiler 2025.0.4", "x86_64", False),
        ("g++ (Debian 12.2.0-14) 12.2.0", "x86_64", True),
        ("Apple clang version 16.0.0", "arm64", True),
    ],
)
def test_clang_loses_registers_of_avx512(version: str, machine: str, expected: bool) -> None:
    tuning = ("-march=native",)
    assert (safe_tuning(tuning, version=version, machine=machine) == tuning) is expected
    assert safe_tuning((), version=version, machine=machine) == ()


def test_a_clang_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a script that says that it is one."""
    script = tmp_path / "clang++"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "clang version 99" || exec g++ "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    cache = LibraryCache(tmp_path / "cache")
    compiler = find_compiler(cache)
    if platform.machine() == "x86_64":
        assert compiler.options[-1] == "-mno-avx512f"
    code = """#ifdef __AVX512F__
#define ANSWER 1
#else
#define ANSWER 0
#endif
extern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }
"""
    assert cache.library(code, compiler).answer() == 0


def test_a_damaged_library_is_compiled_again(tmp_path: Path) -> None:
    source = KernelSource("f.cu", 'extern "C" __global__ void f(int* x) { x[0] = 7; }')
    code = cpu_source(source, parse_signatures(source), checked=False)
    include = f"-I{Path(sys.modules[NativeDevice.__module__].__file__ or '').parent}"
    cache = LibraryCache(tmp_path)
    compiler = find_compiler(cache)
    before = set(tmp_path.glob("*.so"))
    cache.library(code, compiler, options=(include,))
    (made,) = set(tmp_path.glob("*.so")) - before
    content = made.read_bytes()
    made.unlink()  # not written in place: this process has it mapped
    made.write_bytes(content[: len(content) // 2])
    LibraryCache(tmp_path).library(code, compiler, options=(include,))
    (again,) = set(tmp_path.glob("*.so")) - before
    assert len(again.read_bytes()) > len(content) // 2
    assert not list(tmp_path.glob("compile-*"))


def test_what_is_loaded_is_not_looked_for_again(tmp_path: Path) -> None:
    cache = LibraryCache(tmp_path)
    compiler = find_compiler(cache)
    code = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }'
    loaded = cache.library(code, compiler)
    cache.clear()
    assert cache.library(code, compiler) is loaded
    assert find_compiler(cache) is compiler
    assert not cache.entries()
    assert LibraryCache(tmp_path).library(code, compiler).answer() == 42
    assert len(cache.entries()) == 1


def test_processes_that_compile_at_once(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path; from gpu_tomoclass.device.native import NativeDevice\n"
        "d = NativeDevice(threads=1, kernels=Path(sys.argv[1])); r = d.zeros(1, np.int32)\n"
        "a = {'values': d.array(np.arange(9, dtype=np.int32)), 'sum': r, 'n': 9}\n"
        "d.launch('sum_fibers.cu', 'total', grid=(1,), block=(256,), args=a); print(r[0], d.notes)\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", program, str(SOURCES)]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate(timeout=1200)[0].strip() for run in runs] == ["36 ()"] * 3
    folder = tmp_path / "gpu_tomoclass" / "native"
    assert {path.suffix for path in folder.iterdir()} == {".so"}


def test_an_unwritable_cache_folder_is_replaced_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    device = NativeDevice(threads=1, kernels=SOURCES)
    assert len(device.notes) == 1
    assert "is not used, because it cannot be written (" in device.notes[0]
    assert run_total(device, np.arange(5, dtype=np.int32)) == 10


def test_a_library_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    cache = LibraryCache(folder)
    assert cache.folder != folder
    assert len(cache.notes) == 1
