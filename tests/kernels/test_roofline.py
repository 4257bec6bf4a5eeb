"""The prediction of times on GPUs: instructions by class, counts extended to larger planes, bytes that move."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_forest import Size, random_forest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
VOLUME = (5, 60, 90)


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, with a small forest that takes no training."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("roofline")
    size = Size(n_trees=2, n_nodes=9, n_features=252, n_classes=2, n_pixels=1)
    forest = random_forest(np.random.default_rng(1), size)
    monkeypatch.setattr(module, "standard_forest", lambda: forest)
    return module


@pytest.mark.parametrize(
    ("op", "mods", "types", "expected"),
    [
        ("fma", ("rn",), ("f32",), {"fp32": 1}),
        ("add", ("rn",), ("f64",), {"fp64": 1}),
        ("setp", ("lt",), ("f32",), {"integer": 1}),
        ("setp", ("lt",), ("f64",), {"fp64": 1}),
        ("div", ("rn",), ("f64",), {"fp64": 9, "special": 1, "integer": 8}),
        ("div", ("approx",), ("f32",), {"special": 1}),
        ("ex2", ("approx",), ("f32",), {"special": 1}),
        ("add", (), ("s32",), {"integer": 1}),
        ("add", (), ("s64",), {"integer": 2}),
        ("mul", ("wide",), ("s32",), {"integer": 1}),
        ("cvt", (), ("f64", "f32"), {"convert64": 1}),
        ("cvt", (), ("f32", "s32"), {"convert": 1}),
        ("cvt", (), ("s64", "s32"), {"integer": 1}),
        ("ld", ("param",), ("u64",), {}),
        ("ld", ("global", "nc"), ("f32",), {"access": 1}),
        ("bra", (), (), {"control": 1}),
    ],
)
def test_classes(roofline: Any, op: str, mods: tuple[str, ...], types: tuple[str, ...], expected: dict) -> None:
    assert roofline.instruction_classes(op, mods, types) == expected


def test_every_class_has_a_rate_or_only_issues(roofline: Any) -> None:
    known = {*roofline.GPUS[0].per_clock, "access", "control"}
    for parts in roofline.EXPANDED.values():
        assert parts.keys() <= known
    for gpu in roofline.GPUS:
        assert gpu.per_clock.keys() == roofline.GPUS[0].per_clock.keys()
        # The data sheet's peak is two operations per fused multiply-add.
        teraflops = {"A100": 19.5, "H100": 67, "RTX": 82.6}[gpu.name.split()[0]]
        assert 2 * gpu.per_clock["fp32"] * gpu.multiprocessors * gpu.clock / 1e12 == pytest.approx(teraflops, rel=0.01)


def test_counts_grow_with_the_pixels(roofline: Any) -> None:
    """Neighbors copies: per pixel one load and eight stores in each of five launches, and nothing per plane."""
    roofline.extended.cache_clear()
    rows = roofline.extended("neighbors")
    assert [name for name, _ in rows] == ["neighbors.cu: neighbors"] * 5
    for _, row in rows:
        fixed, per_pixel = row["store sectors"]
        # A row of 64 or 128 pixels begins with a whole sector: exactly one for eight pixels of each of 8 channels.
        assert per_pixel == pytest.approx(1.0)
        assert fixed == pytest.approx(0.0, abs=1e-6)


def test_small_volume(roofline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "roofline.json"
    roofline.main(["--families", "original,neighbors", "--volume", ",".join(map(str, VOLUME)), "--output", str(output)])
    stored = json.loads(output.read_text())
    assert [p["gpu"]["name"] for p in stored["predictions"]] == [gpu.name for gpu in roofline.GPUS]
    n_voxels = math.prod(VOLUME)
    for p in stored["predictions"]:
        by_name = {k["kernel"]: k for k in p["kernels"]}
        assert by_name.keys() == {"copy", "neighbors.cu: neighbors"}
        of_copies = by_name["neighbors.cu: neighbors"]
        assert of_copies["launches"] == 5
        assert of_copies["spills"] == 0
        assert of_copies["floor"] == pytest.approx(5 * 9 * 4 * n_voxels / p["gpu"]["bandwidth"], rel=1e-6)
        assert of_copies["seconds"] > of_copies["floor"]
        assert p["total_s"] >= sum(p["parts_s"].values())
    text = output.with_suffix(".md").read_text()
    assert "Predicted, not measured" in text
    assert text in capsys.readouterr().out
