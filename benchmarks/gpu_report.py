"""``bench_gpu.py --report DIR``: all that is worth knowing about a GPU, in one call of at most eight minutes.

Steps run in order of their value, each in a process of its own with a limit of its own; when one fails or takes too
long the next goes on. DIR gets ``report.html``, ``report.json`` and the output of each step. It needs no network, no
cuML and no files but the repository.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_tomoclass import __version__
from gpu_tomoclass.labels import Report

ROOT = Path(__file__).parents[1]
TOTAL_SECONDS = 480
KERNELS = {  # by value; each with the launch that is looked at
    "diffusion_step": 40, "diffusion_tensor": 2, "gabor_filter": 20, "forest": 1, "forest_ranks": 1, "entropy": 5,
    "median": 3, "kuwahara_calmest": 1,
}  # fmt: skip
SANITIZED = "forest or gabor or median or entropy or anisotropic"
SECTIONS = ("SpeedOfLight", "Occupancy", "WarpStateStats", "MemoryWorkloadAnalysis")


@dataclass(frozen=True)
class Step:
    """A command, and the seconds that it may take."""

    name: str
    command: list[str]
    limit: float


@dataclass(frozen=True)
class Outcome:
    """What became of a step: ``"ok"``, ``"failed (exit code)"``, ``"stopped at its limit"`` or ``"no time left"``."""

    name: str
    result: str
    seconds: float


def steps(folder: Path, *, device: str, gpu_id: int, quick: bool, ncu: bool, sanitize: bool) -> list[Step]:
    """In order of value."""
    python, bench = sys.executable, str(ROOT / "benchmarks" / "bench_gpu.py")
    common = ["--device", device, "--gpu-id", str(gpu_id)]
    small = ["--shape", "24,40", "--slab", "2", "--repeats", "2", "--families", "gaussian_blur"] if quick else []
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
    if quick:
        tests += ["-k", "pinned or doctor"]
    elif importlib.util.find_spec("xdist") is not None:
        tests += ["-n", "6"]
    doctor = [python, "-m", "gpu_tomoclass", "doctor", *common, "--json", "--quiet"]
    if quick:
        doctor = [python, bench, *common, "--step", "doctor", "--json", str(folder / "doctor.json"), "--quick"]
    parts = [python, bench, *common, *small, "--planes", "0", "--json", str(folder / "parts.json"), *_few(quick)]
    found = [Step("doctor", doctor, 90), Step("tests", tests, 120), Step("parts", parts, 60)]
    for name, limit in (("forests", 80), ("launches", 20), ("whole", 100), ("rivals", 50)):
        target = str(folder / f"{name}.json")
        found.append(Step(name, [python, bench, *common, "--step", name, "--json", target, *_few(quick)], limit))
    one_slab = [python, bench, *common, "--slab", "16", "--planes", "0", "--repeats", "1"]
    if sanitize:
        tool = ["compute-sanitizer", "--tool", "memcheck", "--leak-check", "no", "--error-exitcode", "3"]
        found.append(Step("sanitizer", [*tool, *tests[:5], tests[5], "-k", SANITIZED], 90))
    if ncu:
        for kernel, number in KERNELS.items():
            sections = [word for section in SECTIONS for word in ("--section", section)]
            which = ["--kernel-id", f"::regex:^{kernel}$:{number}", "--log-file", str(folder / f"ncu_{kernel}.csv")]
            tool = ["ncu", "--clock-control", "none", "--csv", "--page", "raw", *sections, *which]
            found.append(Step(f"ncu {kernel}", [*tool, *one_slab], 25))
    return found


def _few(quick: bool) -> list[str]:
    return ["--quick"] if quick else []


def run_steps(todo: list[Step], folder: Path, *, total: float = TOTAL_SECONDS) -> list[Outcome]:
    """One after the other; nothing a step does keeps the next from running."""
    began, outcomes = time.monotonic(), []
    for step in todo:
        left = total - (time.monotonic() - began)
        if left < 5:
            outcomes.append(Outcome(step.name, "no time left", 0.0))
            continue
        if shutil.which(step.command[0]) is None:
            outcomes.append(Outcome(step.name, f"{step.command[0]} is not installed", 0.0))
            continue
        outcomes.append(_run(step, folder, min(step.limit, left)))
        print(f"{step.name}: {outcomes[-1].result}, {outcomes[-1].seconds:.1f} s", flush=True)
    return outcomes


def _run(step: Step, folder: Path, limit: float) -> Outcome:
    paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    name = step.name.replace(" ", "_")
    with open(folder / f"{name}.out", "wb") as out, open(folder / f"{name}.err", "wb") as err:
        process = subprocess.Popen(
            step.command, stdout=out, stderr=err, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            result = "ok" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            process.wait()
            result = "stopped at its limit"
    return Outcome(step.name, result, time.monotonic() - began)


def collected(folder: Path, outcomes: list[Outcome], *, device: str, quick: bool) -> dict[str, Any]:
    """All that the steps have left, as one dictionary for JSON."""
    found: dict[str, Any] = {
        "what": "measured by benchmarks/bench_gpu.py --report",
        "gpu_tomoclass": __version__,
        "device": device,
        "quick": quick,
        "python": platform.python_version(),
        "system": platform.platform(),
        "steps": [asdict(outcome) for outcome in outcomes],
    }
    for name in ("parts", "forests", "launches", "whole", "rivals"):
        found[name] = _json(folder / f"{name}.json")
    found["doctor"] = _json(folder / "doctor.out")  # one line when all is quick
    said = folder / "tests.out"
    lines = said.read_text(errors="replace").splitlines() if said.exists() else []
    found["tests"] = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))] + lines[-1:]
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # the step was stopped before it wrote anything


def page(found: dict[str, Any]) -> Report:
    """Everything on one page."""
    parts, doctor = found["parts"] or {}, found["doctor"] or {}
    report = Report(f"gpu_tomoclass on {parts.get('device', found['device'])}")
    if found["quick"]:
        report.text("Tiny sizes, to try the script itself: no time here means anything.", big=True)
    report.heading("Steps")
    report.table(("step", "result", "seconds"), [(s["name"], s["result"], s["seconds"]) for s in found["steps"]])
    report.heading("Agreement with the reference")
    rows = [
        (c["name"], d["name"], "agrees" if c["agrees"] else c["problem"] or "DIFFERS", f"{c['difference'] or 0:.1e}")
        for d in doctor.get("devices", ())
        for c in d["checks"]
    ]
    if rows:
        report.table(("family", "device", "result", "difference"), rows)
    report.text("Tests on the GPU: " + (found["tests"][-1] if found["tests"] else "nothing was said."))
    report.commands(found["tests"][:-1])
    if parts:
        report.heading("Milliseconds per plane, part by part")
        predicted = parts.get("predicted") or {}
        rows = [
            (name, f["min_ms"], f["median_ms"], predicted.get(name, "-"))
            for name, f in {**parts["parts"], **parts["files"]}.items()
        ]
        report.table(("part", "least", "median", "predicted"), rows)
    if found["forests"]:
        report.heading("Forests of 200 trees, milliseconds per plane")
        rows = [(f"{r['rows']} rows", r["nodes"], r["walk"], r["min_ms"], r["median_ms"]) for r in found["forests"]]
        report.table(("grown from", "nodes", "compares", "least", "median"), rows)
    if found["launches"]:
        report.heading("One plane to its labels, milliseconds of wall time")
        rows = [(r["launches"], r["min_ms"], r["median_ms"], "; ".join(r["notes"])) for r in found["launches"]]
        report.table(("launches", "least", "median", "notes"), rows)
    if found["whole"]:
        report.heading("Whole volumes, file to file, in seconds")
        names = list(dict.fromkeys(stage for r in found["whole"] for stage in r["profile"]["seconds"]))
        rows = [
            (r["output"], r["seconds"], *(r["profile"]["seconds"].get(n, "-") for n in names),
             _gigabytes(r["device_bytes"]), _gigabytes(r["host_peak_bytes"]))
            for r in found["whole"]
        ]  # fmt: skip
        report.table(("output", "all", *names, "device GB", "host GB"), rows)
    if found["rivals"]:
        report.heading("Rivals on the same GPU, milliseconds per plane")
        rows = [
            (r["rival"], r.get("min_ms", "-"), r.get("median_ms", "-"), r.get("problem", "")) for r in found["rivals"]
        ]
        report.table(("rival", "least", "median", "problem"), rows)
    report.heading("Machine")
    report.properties({key: found[key] for key in ("gpu_tomoclass", "python", "system")})
    return report


def _gigabytes(n: int | None) -> float | str:
    return "-" if n is None else n / 1e9


def make_report(
    folder: Path, *, device: str, gpu_id: int, quick: bool, ncu: bool, sanitize: bool, total: float = TOTAL_SECONDS
) -> dict[str, Any]:
    """Run all steps and write the page; what they have found."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = steps(folder.absolute(), device=device, gpu_id=gpu_id, quick=quick, ncu=ncu, sanitize=sanitize)
    found = collected(folder, run_steps(todo, folder, total=total), device=device, quick=quick)
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    page(found).write(folder / "report.html", overwrite=True)
    return found
