"""Run in a process of its own with the address sanitizer loaded: small sizes of some cases, one planted bug, or planes
that are not finite."""

from __future__ import annotations

import os
import sys

import numpy as np
from framed import ExactDevice
from kernel_cases import Case, all_cases
from kernel_tools import SOURCES, run_box


def sanitized_sizes(case: Case, plan: str) -> range:
    """Indices of the small sizes that run: all with the plan for a CPU, the first with the plan for a GPU.

    Every size of the latter is interpreted as PTX, which notices any access out of bounds, so it need not be compiled
    once more; GPU_TOMOCLASS_EXHAUSTIVE (make test-exhaustive) does it nevertheless, for overflows and shifts.
    """
    everything = plan == "cpu" or os.environ.get("GPU_TOMOCLASS_EXHAUSTIVE")
    return range(len(case.small_sizes) if everything else 1)


def main(target: str, *names: str) -> None:
    os.environ.pop("LD_PRELOAD", None)  # it is loaded; the compiler would take three times as long with it
    what = names[0]
    if what.startswith("bug "):
        image = np.zeros((13, 70), np.float32)
        run_box(ExactDevice(build="sanitized", kernels=SOURCES), image, bug=int(what.split()[1]))
        return
    if what.startswith("not finite "):
        run_not_finite(what.split()[2:])
        return
    results = {}
    for name in names:
        print(name, flush=True)  # the last one printed is the one that fails
        case = all_cases()[name]
        for plan in ("cpu", "gpu"):
            device = ExactDevice(build="sanitized", seed=1, gpu_plan=plan == "gpu", kernels=case.kernels)
            for i in sanitized_sizes(case, plan):
                results[f"{name} | {plan} | {i}"] = case.run(device, case.inputs(case.small_sizes[i]))
    np.savez(target, **results)


def run_not_finite(names: list[str]) -> None:
    """The first small size of some families' cases, with NaN and infinite pixels among the others and everywhere."""
    for name in names:
        case = all_cases()[name]
        inputs = case.inputs(case.small_sizes[0])
        random = np.random.default_rng(5)
        for share in (0.05, 1.0):
            planes = inputs["planes"].copy()
            is_bad = random.random(planes.shape) < share
            planes[is_bad] = random.choice([np.nan, -np.nan, np.inf, -np.inf], size=int(is_bad.sum()))
            for gpu_plan in (False, True):
                device = ExactDevice(build="sanitized", gpu_plan=gpu_plan, kernels=case.kernels)
                case.run(device, {**inputs, "planes": planes})
        print(name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
