"""What is proven about every kernel, as a table that grows with the package.

A module ``cases_<subject>.py`` in this folder has a list ``CASES``. Each case runs the package's own Python code on a
device and says what must come out; the tests take it through every device and every kind of check.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.device import Device

Inputs = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One computation on devices.

    Attributes
    ----------
    name : str
        Unique; also names the file in ``budgets/``.
    make : callable
        ``make(random, size)`` gives the inputs; ``random`` is a :class:`numpy.random.Generator`.
    run : callable
        ``run(device, inputs)`` gives a NumPy array.
    expected : callable
        ``expected(inputs)`` gives what must come out, by other means: the reference, SciPy, scikit-learn.
    sizes : sequence
        What ``make`` accepts: realistic and awkward ones. All run on the CPU as compiled for speed.
    small_sizes : sequence
        Those that also run thread by thread, under the sanitizers and in the interpreter of PTX (keep each below a
        second there). The first one is measured for the budget.
    tolerance : float
        Largest absolute difference from ``expected``; 0 asks for equal bits.
    relative : bool
        Tolerances are shares of the largest absolute value expected in each channel (the first axis).
    why : str
        The reason for this tolerance.
    ptx_tolerance : float
        Largest absolute difference between PTX and the CPU. 0, unless the kernel calls ``expf``, ``sinf`` or the like,
        which the two compilers have different code for.
    kernels : pathlib.Path, optional
        Folder of the sources, if not the package's.
    needs_clusters : bool
        Whether a real GPU must have clusters of thread blocks for it.
    naive : callable, optional
        A plain float32 evaluation; then up to twice its own difference from ``expected`` is tolerated instead.
    """

    name: str
    make: Callable[[np.random.Generator, Any], Inputs]
    run: Callable[[Device, Inputs], np.ndarray]
    expected: Callable[[Inputs], np.ndarray]
    sizes: Sequence[Any]
    small_sizes: Sequence[Any]
    tolerance: float
    why: str
    ptx_tolerance: float = 0.0
    relative: bool = False
    kernels: Path | None = None
    needs_clusters: bool = False
    naive: Callable[[Inputs], np.ndarray] | None = None

    def inputs(self, size: Any) -> Inputs:
        """The same inputs every time."""
        return self.make(np.random.default_rng(len(self.name)), size)

    def check(self, inputs: Inputs, *results: np.ndarray) -> None:
        """Compare with what is expected; NaN must be where it is expected and nowhere else."""
        expected = self.expected(inputs)
        assert np.isfinite(self.tolerance)
        tolerance = self.tolerance
        if self.naive is not None:
            tolerance = 2 * float(np.nanmax(np.abs(self.naive(inputs).astype(np.float64) - expected)))
        for result in results:
            assert result.shape == expected.shape
            self.compare(result, expected, tolerance)

    def compare(self, result: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
        """AssertionError unless the two agree; NaN must be in the same places."""
        if tolerance == 0:
            np.testing.assert_array_equal(result, expected, strict=True)
            return
        limit = np.full(len(expected), tolerance)
        if self.relative:
            finite = np.where(np.isfinite(expected), np.abs(expected), 0).reshape(len(expected), -1)
            limit = limit * finite.max(axis=1)
        for channel, (ours, theirs, atol) in enumerate(zip(result, expected, limit, strict=True)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=f"channel {channel}")


@cache
def all_cases() -> dict[str, Case]:
    """Every case by name."""
    found: dict[str, Case] = {}
    for path in sorted(Path(__file__).parent.glob("cases_*.py")):
        for case in importlib.import_module(path.stem).CASES:
            if case.name in found:
                raise ValueError(f"two cases are called {case.name}")
            found[case.name] = case
    return found


def case_sizes(which: str) -> list[tuple[str, int]]:
    """(name, index of the size) of all ``sizes`` or ``small_sizes``, as parameters of a test."""
    return [(name, i) for name, case in all_cases().items() for i in range(len(getattr(case, which)))]
