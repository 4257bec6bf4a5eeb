"""Mistakes planted in small kernels are found when their PTX is interpreted or launched: tests of the tests.

Each is found for its own reason, and the same kernel without the mistake is not accused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import nvrtc
import pytest
from kernel_tools import (
    BOX_TOLERANCE,
    SOURCES,
    expected_box,
    expected_exchange,
    expected_turns,
    run_box,
    run_exchange,
    run_total,
    run_turns,
)
from ptx_constant import doubtful_reads
from ptx_parse import PtxError, parse_ptx
from simulated_cupy import ptx_device

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.sources import kernel_source

IMAGE = np.random.default_rng(1).normal(size=(9, 70)).astype(np.float32)
VALUES = np.random.default_rng(2).integers(0, 7, size=150).astype(np.int32)  # no 7: that bin is only cleared and read
LANES = np.arange(128, dtype=np.int32) * 7 % 31
FIRST, STEP = 40_000, 65_537  # first * step is beyond 32 bits


def faults(run: Callable[[Device], object]) -> str:
    """What the interpreter counts while ``run`` launches something on the simulated GPU."""
    device, cupy = ptx_device(kernels=SOURCES)
    cupy.launches.clear()  # the device's own first try
    run(device)
    assert cupy.launches
    return "\n".join(fault for launch in cupy.launches for fault in launch.faults)


def run_tally(device: Device, *, bug: int = 0) -> np.ndarray:
    counts = device.zeros(8, np.int32)
    device.launch(
        "tally.cu",
        "tally",
        grid=(-(-VALUES.size // 64),),
        block=(64,),
        args={"values": device.array(VALUES), "counts": counts, "n": VALUES.size, "first": FIRST, "step": STEP},
        defines={"BUG": bug},
    )
    return device.numpy(counts)


def test_correct_kernels_are_not_accused() -> None:
    device, cupy = ptx_device(kernels=SOURCES)
    np.testing.assert_allclose(run_box(device, IMAGE), expected_box(IMAGE), atol=BOX_TOLERANCE, rtol=0)
    assert run_total(device, np.arange(1000, dtype=np.int32)) == 499500
    values = np.arange(-64, 64, dtype=np.int32)
    np.testing.assert_array_equal(run_exchange(device, values), expected_exchange(values))
    picked = VALUES[(FIRST + np.arange(VALUES.size, dtype=np.int64)) * STEP % VALUES.size]
    np.testing.assert_array_equal(run_tally(device), np.bincount(picked, minlength=8))
    np.testing.assert_array_equal(run_turns(device, LANES), expected_turns(LANES))
    assert len(cupy.launches) == 6
    assert not any(launch.faults for launch in cupy.launches)


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (partial(run_box, image=IMAGE, bug=1), "read of what another thread writes: ld.shared"),
        (partial(run_box, image=IMAGE, bug=2), "read of what another thread writes: ld.shared"),
        (partial(run_box, image=IMAGE, bug=6), "a barrier that a part of the block has left behind"),
        (partial(run_total, values=VALUES, bug=1), "read of what another thread writes: ld.shared"),
        (partial(run_turns, values=LANES, bug=1), "read of what another thread writes: ld.shared"),
        (partial(run_turns, values=LANES, bug=2), "write of what another thread reads: st.shared"),
        (partial(run_turns, values=LANES, bug=3), "read of what another thread writes: ld.shared"),
        (partial(run_turns, values=LANES, bug=4), "read of what another thread writes: ld.shared"),
        (partial(run_tally, bug=1), "read of memory that nobody wrote: ld.shared"),
        (partial(run_tally, bug=1), "atomic access to memory that nobody wrote: atom.shared"),
        (partial(run_tally, bug=2), "write of what another thread writes: st.shared"),
        (partial(run_tally, bug=3), "write of what another thread writes: st.global"),
    ],
    ids=[
        "first barrier removed",
        "second barrier removed",
        "threads that leave before a barrier",
        "barrier of a reduction removed",
        "first meeting of a warp removed",
        "second meeting of a warp removed",
        "shared memory of the next warp",
        "meeting of a warp after a tally removed",
        "unwritten shared memory read",
        "unwritten shared memory counted up",
        "sum in shared memory without atomics",
        "sum of blocks without atomics",
    ],
)
def test_faults(run: Callable[[Device], object], fault: str) -> None:
    assert fault in faults(run)


def test_an_array_that_is_read_as_constant_and_written_to() -> None:
    """``const .. __restrict__`` has it read through a cache that does not see what is written; past the typed launch,
    which refuses one array in both places."""
    device, cupy = ptx_device(kernels=SOURCES)
    values, other = device.array(np.arange(24, dtype=np.float32)), device.zeros(24, np.float32)
    function = cupy.RawModule(code=kernel_source("scale.cu", folder=SOURCES).text, options=()).get_function("scale")
    for result, is_fault in ((other, False), (values, True)):
        function((1,), (32,), (values, result, np.float32(2), np.float64(1), np.int64(24), np.int32(0)))
        found = "\n".join(cupy.launches[-1].faults)
        assert ("an array is written to that is read as constant: st.global" in found) == is_fault


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_choice_between_constant_and_written_memory(pixels: int) -> None:
    """Lipschitz as it was: with several pixels a thread, NVRTC 13.5 takes the second sweep's pointer for constant."""
    text = kernel_source("lipschitz.cu").text
    options = ("-std=c++17", "--fmad=false", f"-DPIXELS={pixels}", "-DTHREADS=352")
    as_it_was = text.replace("char* grey", "char* __restrict__ grey").replace("char* cover", "char* __restrict__ cover")
    assert as_it_was.count("__restrict__") == text.count("__restrict__") + 2
    assert not doubtful_reads(parse_ptx(nvrtc.ptx(text, options, 80))["lipschitz"])
    found = doubtful_reads(parse_ptx(nvrtc.ptx(as_it_was, options, 80))["lipschitz"])
    assert nvrtc.version() != "13.5" or len(found) == (6 if pixels == 3 else 0)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (partial(run_box, image=IMAGE, bug=3), r"box: access out of bounds: byte \d+ of 'argument 1', .* by thread"),
        (partial(run_box, image=IMAGE, bug=4), r"box: access out of bounds: byte \d+ of 'argument 1', .* by thread"),
        (partial(run_tally, bug=4), r"tally: access (at address|out of bounds).* by thread \d+ of block"),
        (partial(run_total, values=VALUES, bug=2), "total: a lane is not named in its own warp mask"),
        (partial(run_total, values=VALUES, bug=3), "total: the threads of block 0 wait at different barriers"),
    ],
    ids=[
        "swapped indices",
        "bounds check removed",
        "index of 32 bits overflows",
        "mask of half a warp",
        "threads at different barriers",
    ],
)
def test_errors(run: Callable[[Device], object], message: str) -> None:
    with pytest.raises(PtxError, match=message):
        faults(run)


def test_shared_array_too_short() -> None:
    """Its end lies in the next array of the block, whose owners notice, or behind all of them."""
    try:
        found = faults(partial(run_box, image=IMAGE, bug=5))
    except PtxError as error:
        found = str(error)
    assert "another thread" in found or "shared access" in found


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", np.float32(24), r"scale: argument n is .*, the kernel takes long long"),
        ("first", 2**31, r"scale: argument first is 2147483648, beyond -2147483648..2147483647 of int"),
        ("factor", 1e39, r"scale: argument factor is 1e\+39, beyond the range of float"),
        ("values", np.zeros(24, np.float32), r"scale: argument values: is ndarray, not a CuPy array"),
        ("result", None, r"scale: argument result: is NoneType"),
    ],
)
def test_typed_launch(name: str, value: object, message: str) -> None:
    device, cupy = ptx_device(kernels=SOURCES)
    args = {
        "values": device.array(np.arange(24, dtype=np.float32)),
        "result": device.zeros(24, np.float32),
        "factor": 2,
        "offset": 1,
        "n": 24,
        "first": 0,
    }
    device.launch("scale.cu", "scale", grid=(1,), block=(32,), args=args)
    np.testing.assert_array_equal(device.numpy(args["result"]), 2 * np.arange(24) + 1)
    cupy.launches.clear()
    with pytest.raises((TypeError, ValueError), match=message):
        device.launch("scale.cu", "scale", grid=(1,), block=(32,), args={**args, name: value})
    assert not cupy.launches


@pytest.mark.parametrize(
    ("n", "kind", "message"),
    [
        (np.int64(150), PtxError, "tally: .* is given 8 bytes and takes 4"),
        (150, TypeError, "CuPy would pass 150 with a type of its own choice"),
    ],
    ids=["64 bits", "Python number"],
)
def test_scalars_of_the_wrong_width_past_the_typed_launch(n: object, kind: type[Exception], message: str) -> None:
    """What a launch by CuPy itself would let through."""
    device, cupy = ptx_device(kernels=SOURCES)
    values, counts = device.array(VALUES), device.zeros(8, np.int32)
    function = cupy.RawModule(code=kernel_source("tally.cu", folder=SOURCES).text, options=()).get_function("tally")
    function((3,), (64,), (values, counts, np.int32(150), np.int32(FIRST), np.int32(STEP)))
    with pytest.raises(kind, match=message):
        function((3,), (64,), (values, counts, n, np.int32(FIRST), np.int32(STEP)))


def test_an_argument_too_few_past_the_typed_launch() -> None:
    device, cupy = ptx_device(kernels=SOURCES)
    function = cupy.RawModule(code=kernel_source("tally.cu", folder=SOURCES).text, options=()).get_function("tally")
    with pytest.raises(PtxError, match="tally: 2 arguments for 5 parameters"):
        function((3,), (64,), (device.array(VALUES), device.zeros(8, np.int32)))
