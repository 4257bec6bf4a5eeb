"""Numbers nearer to 0 than the smallest normal float32: a GPU takes them for zeros (CuPy compiles with ``-ftz=true``).

So no table, threshold or argument may be one, and planes of zeros and denormals must give what zeros give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from budget import ptx_results
from cases_forest import NEAR_ZERO
from family_cases import Planes
from kernel_cases import Case, all_cases
from ptx_arithmetic import flush

from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.forest.arrays import thresholds_of_flushed

TINY = np.finfo(np.float32).tiny
# What a threshold at 0 becomes; flushed it is 0 again, which asks a GPU the same question.
BELOW_ZERO = np.nextafter(-TINY, np.float32(0))
# Where nothing but denormals varies a direction is one of denormals; such a family sees zeros alone.
WITH_DIRECTIONS = ("hessian",)
OF_PLANES = [name for name, case in all_cases().items() if isinstance(case.small_sizes[0], Planes)]


class ScanningDevice(NativeDevice):
    """Notes denormal numbers among tables, arguments and macros."""

    def __init__(self, *, compares_values: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.found: list[str] = []
        self._compares_values = compares_values  # of a forest, whose nodes are a threshold and a place

    def array(self, values: npt.NDArray[Any]) -> Any:
        packed = self._compares_values and values.dtype == np.uint32 and values.ndim == 2
        seen = np.ascontiguousarray(values[:, 0]).view(np.float32) if packed else values
        if seen.dtype == np.float32:
            self._note("a table", seen[seen != BELOW_ZERO])
        return super().array(values)

    def launch(self, file: str, kernel: str, **given: Any) -> None:
        signature = self.kernel(file, kernel, defines=given.get("defines")).signature
        args: Mapping[str, Any] = given["args"]
        for parameter in signature.parameters:
            if not parameter.is_pointer and parameter.dtype == np.float32:
                self._note(f"{kernel}: {parameter.name}", np.array(args[parameter.name], np.float64))
        for name, value in (given.get("defines") or {}).items():
            if str(value).endswith("f"):
                self._note(f"{kernel}: {name}", np.array(float(str(value)[:-1])))
        super().launch(file, kernel, **given)

    def _note(self, where: str, values: np.ndarray) -> None:
        denormal = values[(values != 0) & (np.abs(values) < TINY)]
        if denormal.size:
            self.found.append(f"{where}: {denormal[:3].tolist()}")


@pytest.mark.parametrize("name", list(all_cases()))
def test_no_table_or_argument_is_denormal(name: str) -> None:
    case = all_cases()[name]
    for gpu_plan in (False, True):
        settings = {"threads": 1, "kernels": case.kernels, "gpu_plan": gpu_plan}
        device = ScanningDevice(compares_values=name.startswith("large forest"), **settings)
        case.run(device, case.inputs(case.small_sizes[0]))
        assert not device.found, "; ".join(device.found)


@pytest.mark.parametrize("name", OF_PLANES)
def test_planes_of_zeros_and_denormals(name: str) -> None:
    """The reference, the CPU and PTX agree but for denormals, which are as good as zeros."""
    case = all_cases()[name]
    kind = "zeros" if name in WITH_DIRECTIONS else "denormals"
    zeros = replace(case, small_sizes=[replace(case.small_sizes[0], kind=kind)])
    inputs = zeros.inputs(zeros.small_sizes[0])
    expected = flush(case.expected(inputs))
    compare = partial(_compare, case, expected)
    compare(flush(case.run(NativeDevice(threads=1, kernels=case.kernels), inputs)))
    result, launches = ptx_results(zeros, 0)
    assert not any(launch.faults for launch in launches)
    compare(flush(result))


def _compare(case: Case, expected: np.ndarray, result: np.ndarray) -> None:
    """As the case does, but that denormals flushed on the way may have been multiplied by weights and differences.

    They are below 1.2e-38; factors of 1e6 are more than any family has, and the values that count are about 1.
    """
    if case.tolerance == 0:
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-32)
    else:
        case.compare(result, expected, case.tolerance)


def test_thresholds_ask_what_flushed_values_would_be_asked() -> None:
    values = np.concatenate([NEAR_ZERO, np.nextafter(NEAR_ZERO, np.float32(9)), np.nextafter(NEAR_ZERO, -NEAR_ZERO)])
    flushed = flush(values)
    asked = thresholds_of_flushed(values)
    np.testing.assert_array_equal(values[:, None] < asked, flushed[:, None] < values)  # on a CPU
    np.testing.assert_array_equal(flushed[:, None] < flush(asked), flushed[:, None] < values)  # on a GPU
