"""Plant small faults in the package, one at a time, and see whether the tests of their own room notice.

    python tools/mutate.py [NUMBER | FIRST-LAST | TEXT ...] [--jobs N] [--list]

Numbers, ranges and parts of file names select faults of ``tools/mutants.py``; default all. Each job works on a copy of
its own in a temporary folder, so several runs may go on at the same time. Exit code 0: every fault was noticed; 1: one
was not; 2: a fault of the list fits the code no more (mend ``tools/mutants.py``), or its tests could not run. Takes
about a quarter of an hour on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
COPIED = ("gpu_tomoclass", "kernels", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
NOTICED, MISSED, BROKEN = "noticed", "NOT NOTICED", "CANNOT RUN"
TIMEOUT = 1200  # seconds for the tests of one fault; one that makes a test wait for ever is noticed, too


def main(selectors: list[str], *, jobs: int, only_list: bool) -> int:
    numbers = selected(selectors)
    if only_list:
        for number in numbers:
            mutant = MUTANTS[number - 1]
            print(f"{number:2} {mutant.file}: {mutant.old.strip()!r} -> {mutant.new.strip()!r}")
        return 0
    results = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies: queue.Queue[Path] = queue.Queue()
        for job in range(jobs):
            copies.put(copy_of_sources(Path(folder, str(job))))

        def work(number: int) -> tuple[int, str, str]:
            copy = copies.get()
            try:
                return number, *try_mutant(copy, MUTANTS[number - 1])
            finally:
                copies.put(copy)

        for done in as_completed([pool.submit(work, number) for number in numbers]):
            number, result, detail = done.result()
            results.append(result)
            mutant = MUTANTS[number - 1]
            print(f"{number:2} {result:11} {mutant.file}: {mutant.new.strip()[:70]!r} {detail}", flush=True)
    missed, broken = results.count(MISSED), results.count(BROKEN)
    print(f"{results.count(NOTICED)} of {len(results)} planted faults noticed, {missed} missed, {broken} could not run")
    return 2 if broken else 1 if missed else 0


def selected(selectors: list[str]) -> list[int]:
    """Numbers of faults, counted from 1: of numbers, ranges, and parts of file names; all without any."""
    if not selectors:
        return list(range(1, len(MUTANTS) + 1))
    found: set[int] = set()
    for text in selectors:
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", text):
            numbers = set(range(int(match[1]), int(match[2] or match[1]) + 1))
        else:
            numbers = {i for i, mutant in enumerate(MUTANTS, start=1) if text in mutant.file}
        if not numbers or not numbers <= set(range(1, len(MUTANTS) + 1)):
            raise SystemExit(f"{text!r} selects no fault; there are 1 to {len(MUTANTS)}, see --list")
        found |= numbers
    return sorted(found)


def copy_of_sources(copy: Path) -> Path:
    """What the tests need, in a new folder."""
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def try_mutant(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """Try whether the tests of a room notice a fault; the result, and a word on why."""
    file = (copy if mutant.file.startswith("kernels/") else copy / "gpu_tomoclass") / mutant.file
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(mutant.old) != 1:
        return BROKEN, f"the old text occurs {text.count(mutant.old)} times"
    tests = [f"tests/{name}" for name in mutant.tests.split()]
    only = ["-k", mutant.only] if mutant.only else []
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        done = run_tests(copy, tests + only)
    except subprocess.TimeoutExpired:
        return NOTICED, f"the tests did not end within {TIMEOUT} s"
    finally:
        file.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return MISSED, ""
    failed = re.search(r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or failed is None:
        return BROKEN, (done.stdout + done.stderr)[-300:]
    name = failed[1]  # with all its parameters, whose names may hold spaces
    if run_tests(copy, [name, *only]).returncode != 0:
        return BROKEN, f"{name} fails without the fault, too"
    return NOTICED, name


def run_tests(copy: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest on a copy until the first failure."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("selectors", nargs="*", metavar="NUMBER|FIRST-LAST|TEXT")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", dest="only_list")
    given = parser.parse_args()
    sys.exit(main(given.selectors, jobs=max(1, given.jobs), only_list=given.only_list))
