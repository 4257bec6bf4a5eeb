"""The rooms of the package: who may import whom, and only through the door (``docs/architecture.md``)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gpu_tomoclass"
GROUND = {"errors", "classes", "types", "outputs"}
USES = {  # a room and those it may import, beside the ground floor
    "device": set(),
    "volumes": set(),
    "annotations": {"volumes"},
    "labels": {"device", "volumes"},
    "features": {"device", "volumes"},
    "forest": {"device"},
    "model": {"features", "forest", "volumes"},
    "training": {"annotations", "device", "features", "forest", "labels", "model", "volumes"},
    "classification": {"device", "features", "forest", "labels", "model", "training", "volumes"},
    "baseline": {"device", "features", "volumes"},
}
USES["api"] = set(USES)
USES["interactive"] = set(USES) - {"api", "baseline"}
EVERYTHING = {*USES, "studies", "doctor"}
USES |= {"studies": set(USES), "doctor": set(USES), "cli": EVERYTHING, "__main__": {"cli"}}
USES["napari_plugin"] = USES["doctor"] - {"api", "baseline"}
# By the front door come the version, and whoever stands above all rooms. One arrow goes up: a model's method, which
# users expect on it, is a function of rooms above the model's.
FRONT = {"model.model": {"predict", "Prediction"}}
# Studies are users: all else they take by the front door, as proof that it is enough.
STUDIES_MAY = {"baseline", "labels", "volumes.is_folder", "volumes.is_written", "volumes.product_name", *GROUND}
# Inside classification: what keeps planes on disk, and who may know it; all other modules compute and do not.
KEEPING = {"staging", "run_folder", "journal", "product_stores"}
KEEPING |= {"products", "finished_files", "lock", "outputs_ahead", "plane_file"}
KNOW_THE_DISK = KEEPING | {"classify_volume", "cluster", "cluster_worker", "plan", "batch"}


def modules() -> dict[str, Path]:
    """Dotted names within the package, such as ``volumes.mrc.header``; doors are ``volumes``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and dotted names (within the package) of what a module imports, wherever in the file."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("gpu_tomoclass"), f"{path}:{node.lineno}: say from .. import .."
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            base, _, rest = (node.module or "").partition(".")
            if base == "gpu_tomoclass":
                for alias in node.names:
                    inner = f"{rest}.{alias.name}" if rest else alias.name
                    yield node.lineno, inner if inner in MODULES else rest or f":{alias.name}"


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_is_known() -> None:
    assert {room(name) for name in MODULES} - {""} == {*USES, *GROUND}


def test_few_modules_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    here = room(name)
    allowed = {"errors"} if here in GROUND else {*GROUND, *USES[here]}
    for line, imported in imports(MODULES[name]):
        where = f"{MODULES[name].relative_to(PACKAGE)}:{line}"
        other = room(imported)
        if other == here:
            continue
        if imported.startswith(":"):  # by the front door
            above = here in ("studies", "cli", "doctor", "napari_plugin")
            assert above or imported[1:] in {"__version__", *FRONT.get(name, ())}, where
            continue
        assert other in allowed, f"{where}: {here} may not use {other}"
        assert imported == other, f"{where}: import from gpu_tomoclass.{other}, not from {imported} inside it"


def test_only_the_plugin_knows_napari() -> None:
    """Whoever has no window needs no Qt; a plugin says qtpy, whichever Qt its user has."""
    for name, path in MODULES.items():
        for node in nodes(path):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                for other in found:
                    assert room(other) not in {"PyQt5", "PyQt6", "PySide2", "PySide6"}, path
                    assert room(other) not in {"napari", "qtpy"} or room(name) == "napari_plugin", path


def test_studies_use_what_users_use() -> None:
    for name, path in MODULES.items():
        if room(name) == "studies":
            for node in nodes(path):
                base = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
                if base.startswith("gpu_tomoclass.") and room(base.partition(".")[2]) != "studies":
                    here = base.partition(".")[2]
                    taken = {here} if here in STUDIES_MAY else {f"{here}.{alias.name}" for alias in node.names}
                    assert taken <= STUDIES_MAY, f"{path}:{node.lineno}: take {taken} by the front door"


@cache
def reached() -> dict[str, set[str]]:
    """For each module those that it imports, itself or through others; doors stand for nothing, since they are lazy."""
    uses = {name: {other for _, other in imports(path) if other in MODULES} for name, path in MODULES.items()}

    def of(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in uses[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    return {name: of(name) for name in uses if name}


def test_no_circles() -> None:
    """No module imports itself through others, at once or later."""
    assert [name for name, others in reached().items() if name in others] == []


def test_computing_does_not_know_the_disk() -> None:
    """Finished slabs are handed to whoever keeps them: a file's staging, arrays, another process."""
    keeping = {f"classification.{name}" for name in KEEPING}
    assert keeping <= reached()["classification.classify_volume"]  # the names are those of modules
    computing = [name for name in MODULES if room(name) == "classification" and name.partition(".")[2]]
    for name in computing:
        assert name.partition(".")[2] in KNOW_THE_DISK or not reached()[name] & keeping, name


@pytest.mark.parametrize(
    "name", sorted({room(name) for name in MODULES} & {*USES, "outputs"} - {"cli", "napari_plugin", "__main__"})
)
def test_a_door_opens(name: str) -> None:
    """Every name of a door's list can be had, and is what its module holds."""
    door = __import__(f"gpu_tomoclass.{name}", fromlist=["_"])
    for exported in door.__all__:
        value = getattr(door, exported)
        assert not hasattr(value, "__path__"), f"{exported} is a module that hides a name"


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    for name, path in MODULES.items():
        for node in nodes(path):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                first = (ast.get_docstring(node) or ".").split()[0]
                assert first not in {"What", "Whether", "Which", "How", "Who"}, f"{name}: {getattr(node, 'name', '')}"


def documented() -> set[tuple[str, str]]:
    """(room, name) of the second half of ``docs/api.md``."""
    page = (PACKAGE.parent / "docs" / "api.md").read_text(encoding="utf-8")
    found, here = set(), ""
    for kind, name in re.findall(r"^\.\. (currentmodule|autofunction|autoclass|data):: (\S+)", page, re.MULTILINE):
        if kind == "currentmodule":
            here = name.partition(".")[2]
        elif here:
            found.add((here, name))
    return found


def test_the_command_line_uses_what_users_can_use() -> None:
    """Names of the front door, or of a room's door that the page of the Python interface shows."""
    import gpu_tomoclass

    public = documented()
    for path in (PACKAGE / "cli").glob("*.py"):
        for node in nodes(path):
            base = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            here = room(base.partition(".")[2])
            if base.startswith("gpu_tomoclass.") and here not in {"cli", *GROUND}:
                door = import_module(base)
                for alias in node.names:
                    front = getattr(gpu_tomoclass, alias.name) if alias.name in gpu_tomoclass.__all__ else None
                    is_public = (here, alias.name) in public or front is getattr(door, alias.name)
                    assert is_public, f"{path}:{node.lineno}: {here}.{alias.name} is not public"
