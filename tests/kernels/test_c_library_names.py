"""Headers of the native device define no name that a C library has, or will have: CUDA had some functions first."""

from __future__ import annotations

import re
from pathlib import Path

import gpu_tomoclass.device as device

# ISO/IEC 9899:2024, 7.12: what <math.h> gains over C17. glibc 2.42 has them, and g++ shows them to every program.
C23 = {
    "acospi", "asinpi", "atan2pi", "atanpi", "canonicalize", "compoundn", "cospi", "exp10", "exp10m1", "exp2m1", "fadd",
    "fdiv", "ffma", "fmaximum", "fmaximum_mag", "fmaximum_mag_num", "fmaximum_num", "fminimum", "fminimum_mag",
    "fminimum_mag_num", "fminimum_num", "fmul", "fromfp", "fromfpx", "fsqrt", "fsub", "llogb", "log10p1", "log2p1",
    "logp1", "nextdown", "nextup", "pown", "powr", "rootn", "roundeven", "rsqrt", "sinpi", "tanpi", "ufromfp",
    "ufromfpx",
}  # fmt: skip
DEFINED = re.compile(r"\binline\s+(?:\w+[\s*&]+)+(\w+)\s*\(")


def test_headers_define_no_function_of_c23():
    """`static inline float rsqrtf` made every kernel fail to compile with glibc 2.42."""
    found = {
        name
        for header in Path(device.__file__).parent.glob("*.h")
        for name in DEFINED.findall(header.read_text(encoding="utf-8"))
    }
    assert {"__ldg", "__popc", "min"} <= found
    assert not found & (C23 | {f"{name}{suffix}" for name in C23 for suffix in "fl"})
