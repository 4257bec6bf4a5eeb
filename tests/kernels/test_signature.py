"""Signatures read from CUDA sources, compared with what stands in them."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_tools import SOURCES

from gpu_tomoclass.device.signature import parse_signatures
from gpu_tomoclass.device.sources import KernelSource, kernel_source


def signatures(text: str, **defines: str):
    return parse_signatures(KernelSource("t.cu", text), defines)


def test_types_names_and_qualifiers() -> None:
    parsed = parse_signatures(kernel_source("scale.cu", folder=SOURCES))
    assert list(parsed) == ["scale", "scale4"]
    rows = [
        (p.name, p.c_type, p.dtype, p.width, p.is_pointer, p.is_const, p.is_restrict)
        for p in parsed["scale"].parameters
    ]
    f4 = np.dtype(np.float32)
    assert rows == [
        ("values", "float", f4, 1, True, True, True),
        ("result", "float", f4, 1, True, False, True),
        ("factor", "float", f4, 1, False, False, False),
        ("offset", "double", np.dtype(np.float64), 1, False, False, False),
        ("n", "long long", np.dtype(np.int64), 1, False, False, False),
        ("first", "int", np.dtype(np.int32), 1, False, False, False),
    ]
    of_vector = parsed["scale4"].parameters
    assert [(p.c_type, p.width, p.is_restrict) for p in of_vector[:2]] == [("float4", 4, False), ("float4", 4, True)]
    assert [p.dtype for p in of_vector[2:]] == [np.uint8, np.bool_, np.int16, np.uint64]


def test_macros_for_types_comments_and_launch_bounds() -> None:
    parsed = signatures(
        """
        // extern "C" __global__ void not_me(int n) {}
        /* extern "C" __global__ void nor_me(int n) {} */
        extern "C" __global__ void __launch_bounds__(8 * (TX + 1))
        one(const PIXEL* __restrict__ x /* in, put */, unsigned n) { }
        extern "C" __global__ __launch_bounds__(32, 2) void two(double const* x, float* const y) { { } }
        extern "C" __global__ void three() { }
        """,
        PIXEL="unsigned short",
    )
    assert list(parsed) == ["one", "two", "three"]
    assert [(p.name, p.c_type) for p in parsed["one"].parameters] == [("x", "unsigned short"), ("n", "unsigned")]
    assert [(p.is_const, p.c_type) for p in parsed["two"].parameters] == [(True, "double"), (False, "float")]
    assert parsed["three"].parameters == ()


@pytest.mark.parametrize("parameter", ["half x", "float** x", "char x", "long n", "float4 x", "Node* x", "wchar_t* x"])
def test_unknown_type_is_named(parameter: str) -> None:
    with pytest.raises(ValueError, match=r"kernels/t.cu: f: parameter .* none of the types"):
        signatures(f'extern "C" __global__ void f({parameter}) {{ }}')


def test_style_of_execution() -> None:
    parsed = parse_signatures(kernel_source("box_phases.cu", folder=SOURCES))
    assert parsed["box"].style == "phases"
    parsed = parse_signatures(kernel_source("sum_fibers.cu", folder=SOURCES))
    assert {k: s.style for k, s in parsed.items()} == {"total": "fibers", "exchange": "fibers"}
    parsed = signatures(
        """
        __device__ void inner() { __syncthreads(); }
        template <int N> __device__ __forceinline__ void outer() { inner(); }
        __device__ int plain(int a) { return a; }
        extern "C" __global__ void waits() { outer<3>(); }
        extern "C" __global__ void goes(int n) { plain(n); }
        """
    )
    assert {k: s.style for k, s in parsed.items()} == {"waits": "fibers", "goes": "threads"}


def test_rules_that_no_compiler_reports() -> None:
    with pytest.raises(ValueError, match="dynamic shared memory"):
        signatures('extern "C" __global__ void f(int n) { extern __shared__ float tile[]; }')
    parsed = parse_signatures(
        KernelSource("x.cu", 'extern "C" __global__ void f(int n) { extern __shared__ float tile[]; }'),
        {"SHARED_BYTES": "64"},
    )
    assert parsed["f"].style == "threads"
    with pytest.raises(ValueError, match="separate files"):
        signatures(
            """extern "C" __global__ void f() { FOR_EACH_THREAD { } }
            extern "C" __global__ void g() { __syncthreads(); }"""
        )
