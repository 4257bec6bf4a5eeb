"""What every kernel costs on GPUs, as far as a compiler and an interpreter can tell, kept in ``budgets/<case>.json``.

``python tests/kernels/budget.py [CASE ..]`` measures again and writes the files; look at the difference before
committing it. A file also names the source that was compiled: what the same compiler makes of the same source for seven
architectures is taken from the file, unless GPU_TOMOCLASS_EXHAUSTIVE is set (make test-exhaustive).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from functools import lru_cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import nvrtc
from kernel_cases import Case, all_cases
from simulated_cupy import LaunchRecord, ptx_device

FOLDER = Path(__file__).parent / "budgets"
# Counts of the interpreter and registers vary with NVRTC's version; below, only a clear loss is one.
OTHER_VERSION = 1.25
# Compute capability: warps, blocks and bytes of shared memory per multiprocessor, bytes that each block costs on top;
# from the table of technical specifications in the CUDA C++ Programming Guide. All have 65536 registers.
LIMITS = {
    75: (32, 16, 65536, 0),
    80: (64, 32, 167936, 1024),
    86: (48, 16, 102400, 1024),
    89: (48, 24, 102400, 1024),
    90: (64, 32, 233472, 1024),
    100: (64, 32, 233472, 1024),
    120: (48, 24, 102400, 1024),
}
# For each figure whether more is worse (True) or better.
MORE_IS_WORSE = {
    "registers": True,
    "shared": True,
    "stack": True,
    "spills": True,
    "occupancy": False,
    "instructions per thread": True,
    "lane use": False,
    "sectors per load": True,
    "sectors per store": True,
    "shared wavefronts per access": True,
    "local accesses": True,
    "atomics": True,
    "barriers": True,
    "launches": True,
}


@lru_cache(maxsize=4)
def ptx_results(case: Case, i: int, *, counted: bool = False) -> tuple[np.ndarray, list[LaunchRecord]]:
    """The result of a small size on the simulated GPU, and what was launched."""
    device, cupy = ptx_device(kernels=case.kernels, counted=counted)
    cupy.launches.clear()  # the device's own first try
    result = case.run(device, case.inputs(case.small_sizes[i]))
    return result, cupy.launches


def occupancy(architecture: int, *, registers: int, shared: int, threads: int) -> float:
    """Share of a multiprocessor's warps that are resident."""
    max_warps, max_blocks, max_shared, per_block = LIMITS[architecture]
    warps = ceil(threads / 32)
    by_registers = 65536 // (ceil(registers * 32 / 256) * 256) // warps  # given to warps in steps of 256
    by_shared = max_shared // (ceil((shared + per_block) / 128) * 128) if shared + per_block else max_blocks
    return min(max_blocks, max_warps // warps, by_registers, by_shared) * warps / max_warps


def measure(case: Case, known: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Figures of each kernel that the first small size launches, by ``file: kernel``, and how it was compiled.

    ``known`` is what a budget file holds: registers and the like of an unchanged source are taken from there.
    """
    by_kernel: dict[str, list[LaunchRecord]] = {}
    for launch in ptx_results(case, 0, counted=True)[1]:
        macros = " ".join(o.removeprefix("-D") for o in launch.options if o.startswith("-D"))
        by_kernel.setdefault(f"{launch.file}: {launch.kernel} {macros}".strip(), []).append(launch)
    compiled = known["kernels"] if known and known["nvrtc"] == nvrtc.version() else {}
    return {
        key: {**_counts(launches), **_resources(launches[0], compiled.get(key, {}))}
        for key, launches in by_kernel.items()
    }


def _counts(launches: list[LaunchRecord]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for launch in launches:
        total.update(launch.counts)
    n_threads = sum(prod(launch.grid) * prod(launch.block) for launch in launches)
    ratios = {
        "instructions per thread": total["warp instructions"] * 32 / n_threads,
        "lane use": total["thread instructions"] / (32 * total["warp instructions"]),
        "sectors per load": total["load sectors"] / max(1, total["load requests"]),
        "sectors per store": total["store sectors"] / max(1, total["store requests"]),
        "shared wavefronts per access": total["shared wavefronts"] / max(1, total["shared wavefronts needed"]),
    }
    exact = {key: total[key] for key in ("local accesses", "atomics", "barriers")}
    return {"launches": len(launches), **{k: round(v, 3) for k, v in ratios.items()}, **exact}


def _resources(launch: LaunchRecord, known: dict[str, Any]) -> dict[str, Any]:
    """Compiled for every architecture, unless ``known`` holds the figures of this very source."""
    compiled = "\0".join(
        [launch.text, *launch.options, *nvrtc.CUPY_OPTIONS, *map(str, nvrtc.architectures(launch.options))]
    )
    found: dict[str, Any] = {"source": hashlib.blake2b(compiled.encode(), digest_size=8).hexdigest()}
    names = [f"sm_{architecture}" for architecture in nvrtc.architectures(launch.options)]
    if known.get("source") == found["source"] and known.keys() >= set(names):
        return found | {name: known[name] for name in names}
    for architecture in nvrtc.architectures(launch.options):
        used = nvrtc.resources(launch.text, launch.options, architecture)[launch.kernel]
        shared = used.shared + nvrtc.given_bytes(launch.options)
        resident = occupancy(architecture, registers=used.registers, shared=shared, threads=prod(launch.block))
        found[f"sm_{architecture}"] = {**vars(used), "occupancy": round(resident, 3)}
    return found


def check_budget(case: Case) -> None:
    """AssertionError naming every figure that is worse than in ``budgets/<name>.json``."""
    name = case.name
    file = budget_file(name)
    refresh = f"; if that is meant, run python tests/kernels/budget.py '{name}' and commit {file.name}"
    assert file.exists(), f"{name} has no budget{refresh}"
    stored = stored_budget(name)
    measured = measure(case, None if os.environ.get("GPU_TOMOCLASS_EXHAUSTIVE") else stored)
    slack = 1.0 if stored["nvrtc"] == nvrtc.version() else OTHER_VERSION
    budget = stored["kernels"]
    assert budget.keys() == measured.keys(), f"{name} launches other kernels than {file.name} has{refresh}"
    worse = [
        f"{key}, {figure}: {now}, budget {allowed}"
        for key in measured
        for figure, now, allowed in _pairs(measured[key], budget[key])
        if _is_worse(figure.rpartition(" | ")[2], now, allowed, slack)
    ]
    assert not worse, "\n".join(worse) + refresh


def _pairs(measured: dict[str, Any], budget: dict[str, Any], prefix: str = "") -> list[tuple[str, float, float]]:
    pairs = []
    for figure, now in measured.items():
        if isinstance(now, dict):
            pairs += _pairs(now, budget[figure], f"{figure} | ")
        elif figure != "source":
            pairs.append((prefix + figure, now, budget[figure]))
    return pairs


def _is_worse(figure: str, now: float, allowed: float, slack: float) -> bool:
    if figure == "spills":
        return now > allowed  # never, by any compiler
    if MORE_IS_WORSE[figure]:
        return now > allowed * slack + 1e-9
    return now < allowed / slack - 1e-9


def budget_file(name: str) -> Path:
    return FOLDER / f"{name.replace(' ', '_')}.json"


def stored_budget(name: str) -> dict[str, Any]:
    """What the file of a case holds: the version of NVRTC, and figures of its kernels."""
    return json.loads(budget_file(name).read_text())


def refresh(names: list[str]) -> None:
    """Measure these cases, or all, and write their files."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or sorted(all_cases()):
        stored = {"nvrtc": nvrtc.version(), "kernels": measure(all_cases()[name])}
        budget_file(name).write_text(json.dumps(stored, indent=1) + "\n")
    if not names:
        for stale in set(FOLDER.glob("*.json")) - {budget_file(name) for name in all_cases()}:
            stale.unlink()


if __name__ == "__main__":
    refresh(sys.argv[1:])
