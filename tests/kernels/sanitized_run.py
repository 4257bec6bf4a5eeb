"""Run in a process of its own with the address sanitizer loaded: all small sizes of a case, or one planted bug."""

from __future__ import annotations

import sys

import numpy as np
from framed import ExactDevice
from kernel_cases import all_cases
from kernel_tools import SOURCES, run_box


def main(target: str, what: str) -> None:
    if what.startswith("bug "):
        image = np.zeros((13, 70), np.float32)
        run_box(ExactDevice(build="sanitized", kernels=SOURCES), image, bug=int(what.split()[1]))
        return
    results = {}
    case = all_cases()[what]
    for plan in ("cpu", "gpu"):
        device = ExactDevice(build="sanitized", seed=1, gpu_plan=plan == "gpu", kernels=case.kernels)
        for i, size in enumerate(case.small_sizes):
            results[f"{plan} {i}"] = case.run(device, case.inputs(size))
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
