"""Build sdist and wheel, install each in a fresh environment of every Python found, and run the demo there.

The conda recipe is read and rendered by rattler-build, which is what conda-forge builds it with.

    make dist                                             # python3.11 .. python3.14 on the PATH
    python tools/try_packages.py /opt/python3.13/bin/python3.13

Ends with an error if one of them fails; `dist/` holds what was built.
"""

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RENDER = """
import sys
from rattler_build import RenderConfig, Stage0Recipe, VariantConfig
print("conda recipe:", *Stage0Recipe.from_file(sys.argv[1]).render(VariantConfig(), RenderConfig()))
"""
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")


def build(folder: Path) -> list[Path]:
    """The wheel and the sdist of this checkout, built by the declared backend in an environment of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "build", "py-rattler-build"], check=True)
        subprocess.run([python, "-c", RENDER, ROOT / "packaging" / "recipe" / "recipe.yaml"], check=True)
        subprocess.run([python, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.iterdir())


def runs(python: str) -> bool:
    """Whether a Python of this name is there; a version manager's name for one that is not chosen fails."""
    return shutil.which(python) is not None and not subprocess.run([python, "-c", ""], capture_output=True).returncode


def try_package(python: str, package: Path) -> str:
    """What happened: "ok", or the command that failed with the end of what it said."""
    with (
        tempfile.TemporaryDirectory() as place
    ):  # far from the checkout: nothing can be imported from there by accident
        scripts = Path(place, "env", "bin")
        for command in (
            [python, "-m", "venv", Path(place, "env")],
            [scripts / "python", "-m", "pip", "install", "--quiet", package],
            [scripts / "gpu-tomoclass", "help", "quality"],
            [scripts / "gpu-tomoclass", "doctor", "--device", "numpy"],
            [scripts / "gpu-tomoclass", "demo", "--output", Path(place, "demo")],
        ):
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{' '.join(map(str, command))}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"
    return "ok"


def main() -> int:
    asked = sys.argv[1:]
    pythons = asked or [name for name in PYTHONS if runs(name)]
    failed = 0
    for package in build(ROOT / "dist"):
        for python in pythons:
            outcome = try_package(python, package)
            failed += outcome != "ok"
            print(f"{package.name}, {python}: {outcome}", flush=True)
    if not asked:
        print("not on this machine: " + (", ".join(name for name in PYTHONS if name not in pythons) or "none"))
    return 1 if failed or not pythons else 0


if __name__ == "__main__":
    sys.exit(main())
