"""The public interface: its names and signatures are pinned, it loads late, and its page runs.

``python tests/test_public_api.py`` writes the list anew after a change that is meant.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import gpu_tomoclass as gt

PINNED = Path(__file__).parent / "data" / "public_api.txt"
OPAQUE = {
    "Device",
    "classification.Cluster",
    "interactive.Painter",
}  # handed around; what it does is the rooms' business
API = Path(__file__).parents[1] / "docs" / "api.md"
PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def signature(function: object) -> str:
    """Names and defaults of the parameters, without types."""
    found = inspect.signature(function)  # type: ignore[arg-type]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function <?\w+>? at 0x[0-9a-f]+>", "<function>", text)


def described() -> Iterator[str]:
    """A line for each name, and for what users reach from a class; then the same for the rooms."""
    for name in sorted(gt.__all__, key=str.lower):
        yield from of_name(name, getattr(gt, name))
    for here, name in sorted(room_names()):
        yield from of_name(f"{here}.{name}", getattr(import_module(f"gpu_tomoclass.{here}"), name))


def room_names() -> set[tuple[str, str]]:
    """(room, name) that the page of the Python interface shows."""
    page = API.read_text(encoding="utf-8").partition("\n## Rooms\n")[2]
    found, here = set(), ""
    for kind, name in re.findall(r"^\.\. (currentmodule|autofunction|autoclass|data):: (\S+)", page, re.MULTILINE):
        if kind == "currentmodule":
            here = name.removeprefix("gpu_tomoclass.")
        else:
            found.add((here, name))
    return found


def of_name(name: str, value: object) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"class {name}" if name in OPAQUE else f"class {name}{signature(value)}"
        if name in OPAQUE:
            return
        ours = [base for base in value.__mro__ if base.__module__.startswith("gpu_tomoclass")]
        members = {key: member for base in reversed(ours) for key, member in vars(base).items()}
        for key, member in sorted(members.items()):
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if inspect.isfunction(function) and not key.startswith("_"):
                yield f"    {key}{signature(function)}"
    elif inspect.isfunction(value):
        yield f"{name}{signature(value)}"
    else:
        yield name


def test_names_and_signatures_are_pinned() -> None:
    assert list(described()) == PINNED.read_text(encoding="utf-8").splitlines()


def test_every_name_says_what_it_is() -> None:
    for name in gt.__all__:
        assert inspect.getdoc(getattr(gt, name)), name
    for here, name in room_names():
        door = import_module(f"gpu_tomoclass.{here}")
        assert name in door.__all__, f"{here}.{name}"
        assert inspect.getdoc(getattr(door, name)), f"{here}.{name}"


def test_nothing_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, gpu_tomoclass as gt; assert 'train' in dir(gt); print('numpy' in sys.modules, gt.__version__)"
    )
    said = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True).stdout
    assert said == f"False {gt.__version__}\n"


def test_the_page_needs_only_what_the_docs_extra_brings() -> None:
    """`make docs` imports every name of the page where neither the tests nor other extras are installed."""
    project = tomllib.loads((API.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def plain(items: Iterable[str]) -> set[str]:
        return {found[0].lower().replace("-", "_") for item in items if (found := re.match(r"[\w-]+", item))}

    absent = plain(chain(*extras.values())) - plain([*project["dependencies"], *extras["docs"]])
    modules = {
        name
        for name, brought_by in packages_distributions().items()
        if {found.lower().replace("-", "_") for found in brought_by} <= absent
    }
    assert {"distributed", "rsciio"} <= modules
    names = [*(("gpu_tomoclass", name) for name in gt.__all__),
             *((f"gpu_tomoclass.{here}", name) for here, name in sorted(room_names()))]  # fmt: skip
    program = (
        "import sys; from importlib import import_module\n"
        f"sys.modules.update(dict.fromkeys({sorted(modules)}))\n"
        f"for module, name in {names}: getattr(import_module(module), name)"
    )
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """What ``gpu-tomoclass demo`` leaves, smaller."""
    from gpu_tomoclass.studies.simulation.pillar import simulate_sample
    from gpu_tomoclass.studies.strokes import draw_strokes

    sample = simulate_sample(shape=(8, 64, 56), diameter=60.0, seed=0)
    strokes = np.zeros(sample.truth.shape, np.uint8)
    for z in (1, 3, 6):
        strokes[z] = draw_strokes(sample.truth[z], per_class=4, length=12, seed=z)
    classes = gt.default_classes(sample.class_names)
    for name, array in (("sample", sample.volume), ("truth", sample.truth), ("strokes", strokes)):
        labelled = {} if name == "sample" else {"classes": classes}
        with gt.create_volume(tmp_path / "demo" / f"{name}.tif", shape=array.shape, dtype=array.dtype,
                              voxel_size=sample.voxel_size, **labelled) as writer:  # fmt: skip
            for z, plane in enumerate(array):
                writer.write_plane(z, plane)
    return tmp_path


def test_the_page_runs(demo: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) > 10
    names: dict[str, object] = {}
    before = Path.cwd()
    os.chdir(demo)
    try:
        with contextlib.redirect_stdout(None):
            for block in blocks:
                exec(compile(block, str(PAGE), "exec"), names)
    finally:
        os.chdir(before)
    assert {path.name for path in demo.iterdir()} == {
        "demo", "materials.tcm", "labels.ome.zarr", "clean.tif", "from_python.tcm", "marks.ome.zarr", "marked.tcm"
    }  # fmt: skip


if __name__ == "__main__":
    PINNED.write_text("\n".join(described()) + "\n", encoding="utf-8")
