"""Plant small faults in the package, one at a time, and see whether the tests of their own room notice.

    python tools/mutate.py [NUMBER ...]

Works on a copy in a temporary folder. Exit code 0: every fault was noticed; 1: one was not; 2: a fault of the list fits
the code no more (mend ``tools/mutants.py``), or its tests could not run. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
COPIED = ("gpu_tomoclass", "kernels", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
NOTICED, MISSED, BROKEN = "noticed", "NOT NOTICED", "CANNOT RUN"


def main(numbers: list[int]) -> int:
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        results = []
        for number in numbers or range(1, len(MUTANTS) + 1):
            mutant = MUTANTS[number - 1]
            result, detail = try_mutant(copy, mutant)
            results.append(result)
            print(f"{number:2} {result:11} {mutant.file}: {mutant.new.strip()[:70]!r} {detail}", flush=True)
    missed, broken = results.count(MISSED), results.count(BROKEN)
    print(f"{results.count(NOTICED)} of {len(results)} planted faults noticed, {missed} missed, {broken} could not run")
    return 2 if broken else 1 if missed else 0


def try_mutant(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """Whether the tests of a room notice a fault, and a word on why."""
    file = copy / "gpu_tomoclass" / mutant.file
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(mutant.old) != 1:
        return BROKEN, f"the old text occurs {text.count(mutant.old)} times"
    tests = [f"tests/{name}" for name in mutant.tests.split()]
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        file.write_text(text, encoding="utf-8")
    last = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(("FAILED", "ERROR"))), "")
    if done.returncode == 1:
        return NOTICED, last[:110]
    return (MISSED, "") if done.returncode == 0 else (BROKEN, (done.stdout + done.stderr)[-300:])


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
