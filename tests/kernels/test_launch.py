"""Every wrong launch is an error that names kernel and argument, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpu_tomoclass.device.native import NativeDevice

N = 24


def arguments(native: NativeDevice, **changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "values": native.array(np.arange(N, dtype=np.float32)),
        "result": native.zeros(N, np.float32),
        "factor": 0.1,
        "offset": 0.1,
        "n": N,
        "first": 0,
    }
    return {**good, **changes}


def launch(native: NativeDevice, *, grid: Any = (1,), block: Any = (32,), **changes: Any) -> np.ndarray:
    args = arguments(native, **changes)
    native.launch("scale.cu", "scale", grid=grid, block=block, args=args)
    return native.numpy(args["result"])


def test_scalars_arrive_as_declared(native: NativeDevice) -> None:
    values = np.arange(N, dtype=np.float32)
    # Exact: the sum in float64 of float32 products needs at most 53 bits here.
    expected = (np.float64(np.float32(0.1)) * values + np.float64(np.float32(0.1))).astype(np.float32)
    np.testing.assert_array_equal(launch(native), expected)
    np.testing.assert_array_equal(
        launch(native, factor=np.float64(0.1), n=np.uint8(N), offset=np.float32(0.1)), expected
    )
    np.testing.assert_array_equal(launch(native, factor=2, offset=-1, first=3)[2:5], [0, 5, 7])


def test_narrow_scalars_and_vectors(native: NativeDevice) -> None:
    values, result = native.array(np.arange(N, dtype=np.float32)), native.zeros(N, np.float32)
    args = {"values": values, "result": result, "factor": 255, "negate": True, "offset": -7, "n4": N // 4}
    native.launch("scale.cu", "scale4", grid=(1,), block=(32,), args=args)
    np.testing.assert_array_equal(result, -255 * values - 7)


READ_ONLY = np.zeros(N, np.float32)
READ_ONLY.flags.writeable = False
SHARED = np.zeros(2 * N, np.float32)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"values": np.zeros(N)}, TypeError, "argument values is float64, the kernel takes float32"),
        (
            {"result": np.zeros(2 * N, np.float32)[::2]},
            ValueError,
            r"argument result of shape \(24,\) is not C-contiguous",
        ),
        ({"values": np.zeros(0, np.float32)}, ValueError, "argument values of shape .* is empty"),
        ({"values": [1.0, 2.0]}, TypeError, "argument values: is list, not a NumPy array"),
        ({"values": None}, TypeError, "argument values: is NoneType"),
        ({"result": READ_ONLY}, ValueError, "argument result is read-only and the kernel writes it"),
        ({"values": SHARED[:N], "result": SHARED[4 : N + 4]}, ValueError, "values and result share memory"),
        ({"values": np.zeros(97, np.uint8)[1:].view(np.float32)}, ValueError, "argument values begins at address"),
        ({"n": 1.0}, TypeError, r"argument n is 1.0 \(float\), the kernel takes long long"),
        ({"n": True}, TypeError, "argument n is True"),
        ({"n": 2**63}, ValueError, "argument n is 9223372036854775808, beyond"),
        ({"first": 2**31}, ValueError, "argument first is 2147483648, beyond -2147483648..2147483647 of int"),
        ({"first": -(2**31) - 1}, ValueError, "argument first is -2147483649"),
        ({"factor": "1"}, TypeError, "argument factor is '1'"),
        ({"factor": 1e300}, ValueError, "argument factor is 1e[+]300, beyond the range of float"),
        ({"factor": 2**24 + 1}, ValueError, "argument factor is 16777217, which no float holds exactly"),
        ({"factor": np.zeros(1, np.float32)}, TypeError, "argument factor is array"),
        ({"extra": 1}, TypeError, "has no parameter extra"),
        ({"grid": (0,)}, ValueError, r"grid \(0, 1, 1\) is empty"),
        ({"block": (32, 0)}, ValueError, "is empty"),
        ({"block": (32, 64)}, ValueError, "more than 1024 threads"),
        ({"grid": (1, 65536)}, ValueError, "is beyond"),
        ({"grid": (1, 1, 1, 1)}, ValueError, "has not 1 to 3 numbers"),
    ],
)
def test_wrong_launch(native: NativeDevice, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^kernels/scale.cu: scale: .*{message}"):
        launch(native, **changes)


def test_missing_argument(native: NativeDevice) -> None:
    args = arguments(native)
    del args["n"], args["factor"]
    with pytest.raises(TypeError, match=r"kernels/scale.cu: scale: missing argument factor, n"):
        native.launch("scale.cu", "scale", grid=(1,), block=(1,), args=args)


def test_vector_argument_must_hold_whole_vectors(native: NativeDevice) -> None:
    memory = native.zeros(64, np.float32)
    args = {"values": memory[:6], "result": memory[32:40], "factor": 1, "negate": False, "offset": 0, "n4": 1}
    with pytest.raises(ValueError, match=r"values of shape .* is not a whole number of float4"):
        native.launch("scale.cu", "scale4", grid=(1,), block=(1,), args=args)
    with pytest.raises(ValueError, match=r"values begins at address .* not a multiple of 16 bytes"):
        native.launch("scale.cu", "scale4", grid=(1,), block=(1,), args={**args, "values": memory[1:9]})
    with pytest.raises(ValueError, match=r"argument factor is 256, beyond 0..255 of unsigned char"):
        native.launch("scale.cu", "scale4", grid=(1,), block=(1,), args={**args, "values": memory[:8], "factor": 256})
    with pytest.raises(TypeError, match="argument negate is 0, the kernel takes a bool"):
        native.launch("scale.cu", "scale4", grid=(1,), block=(1,), args={**args, "values": memory[:8], "negate": 0})


@pytest.mark.parametrize("defines", [{"A B": 1}, {"A": "1;x"}, {"A": '"'}, {"1A": 1}, {"A": "$(x)"}])
def test_macro_that_is_no_macro(native: NativeDevice, defines: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match="cannot be passed to a compiler"):
        native.kernel("scale.cu", "scale", defines=defines)


def test_unknown_kernel(native: NativeDevice) -> None:
    with pytest.raises(KeyError, match="has no kernel scales; it has scale, scale4"):
        native.kernel("scale.cu", "scales")
