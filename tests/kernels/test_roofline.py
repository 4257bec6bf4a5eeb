"""The prediction of times on GPUs: instructions by class, counts extended to larger planes, bytes that move."""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_forest import Size, random_forest
from ptx_parse import parse_ptx

ROOT = Path(__file__).parents[2]
VOLUME = (5, 60, 90)


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, with a small forest that takes no training."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("benchmarks.roofline.__main__")
    size = Size(n_trees=2, n_nodes=9, n_features=252, n_classes=2, n_pixels=1)
    forest = random_forest(np.random.default_rng(1), size)
    for user in ("benchmarks.roofline.counts", "benchmarks.roofline.floors"):
        monkeypatch.setattr(importlib.import_module(user), "standard_forest", lambda: forest)
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
    instructions = importlib.import_module("benchmarks.roofline.instructions")
    assert instructions.instruction_classes(op, mods, types) == expected


@pytest.mark.parametrize(
    ("code", "integers"),
    [
        ("shl.b32 %r2, %r1, 2; add.s32 %r3, %r2, %r1; st.global.u32 [%rd1], %r3;", 1),  # LEA
        ("shl.b32 %r2, %r1, 2; add.s32 %r3, %r2, %r1; st.global.u32 [%rd1], %r2;", 2),  # both are needed
        ("mul.wide.s32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r1;", 1),  # IMAD.WIDE
        ("add.s32 %r2, %r1, %r1; add.s32 %r3, %r2, 1; add.s32 %r4, %r3, %r1; st.global.u32 [%rd1], %r4;", 2),  # IADD3
        ("and.b32 %r2, %r1, 7; or.b32 %r3, %r2, %r1; st.global.u32 [%rd1], %r3;", 1),  # LOP3
        ("shl.b32 %r2, %r1, 2; bar.sync 0; add.s32 %r3, %r2, %r1; st.global.u32 [%rd1], %r3;", 2),  # in two blocks
        ("add.f32 %f2, %f1, %f1; add.f32 %f3, %f2, %f1; st.global.f32 [%rd1], %f3;", 0),
    ],
)
def test_joined_pairs(roofline: Any, code: str, integers: int) -> None:
    registers = ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>;"
    kernel = parse_ptx(f".visible .entry k(.param .u64 k_0) {{ {registers} {code} ret; }}")["k"]
    classes = importlib.import_module("benchmarks.roofline.instructions").machine_classes(kernel)
    assert sum(parts.get("integer", 0) for parts in classes) == integers


def test_work_that_problems_ask_for(roofline: Any) -> None:
    """Two of the rules, by hand."""
    floors = importlib.import_module("benchmarks.roofline.floors")
    launches = {launch.kernel: launch for launch in roofline.plan_of("kuwahara", (1, 40, 64))}
    # Five of ten lines of about 19 pixels; every pixel of a line is one candidate of 16 bytes in three criteria.
    work = floors.RULES["kuwahara_calmest"].work(launches["kuwahara_calmest"])
    assert 5 * 17 <= work.integer / 3 <= 5 * 23
    assert work.accesses / 4 == work.integer / 3
    entropy = [launch for launch in roofline.plan_of("entropy", (1, 40, 64)) if launch.kernel == "entropy"]
    assert [floors.RULES["entropy"].work(e).accesses for e in entropy] == [
        5 * 2 * (2 * radius + 1) for radius in (1, 2, 4, 8, 16)
    ]
    # A pixel meets at least the root and at most all nodes of both trees.
    assert 2 <= floors.visits_per_pixel.__wrapped__() <= 2 * 9
    seconds = floors.necessary_seconds(entropy[0], n_results=320, integer_rate=64, clocks=1e3)
    assert seconds == pytest.approx(320 * 30 / 32 / 1e3)
    assert (
        floors.necessary_seconds(roofline.plan_of("neighbors", (1, 9, 9))[0], n_results=1, integer_rate=1, clocks=1)
        == 0
    )


def test_what_is_above_the_floor(roofline: Any) -> None:
    kernels = [{"ratio": 4.0, "seconds": 0.1}, {"ratio": 2.9, "seconds": 5.0}, {"ratio": 9.0, "seconds": 0.001}]
    assert roofline.above_the_floor({"kernels": kernels, "kernels_s": 5.101}) == kernels[:1]


def test_every_class_has_a_rate_or_only_issues(roofline: Any) -> None:
    known = {*roofline.GPUS[0].per_clock, "access", "control"}
    for parts in importlib.import_module("benchmarks.roofline.instructions").EXPANDED.values():
        assert parts.keys() <= known
    for gpu in roofline.GPUS:
        assert gpu.per_clock.keys() == roofline.GPUS[0].per_clock.keys()
        # The data sheet's peak is two operations per fused multiply-add.
        teraflops = {"A100": 19.5, "H100": 67, "H200": 67, "B200": 75, "L40S": 91.6, "RTX": 82.6}[gpu.name.split()[0]]
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


def test_work_across_planes(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blur adds 2 half + 1 products along each axis; balls of radius 1 and 2 have 7 and 33 voxels."""
    volumes = importlib.import_module("benchmarks.roofline.volumes")
    monkeypatch.setattr(volumes, "SMALL_VOLUME", (4, 8, 32))
    monkeypatch.setattr(volumes, "SMALL_SIGMAS", {**volumes.SMALL_SIGMAS, "_3d": (1.0, 2.0)})
    volumes.samples.cache_clear()
    volumes.fitted.cache_clear()
    shape = (16, 64, 96)
    found = [(launch, counts) for launch, counts in volumes.volume_launches("gaussian_blur_3d", shape) if counts]
    assert [int(launch.numbers["half"]) for launch, _ in found] == [half for half in (3, 6, 12, 24) for _ in "xyz"]
    for launch, counts in found:
        n_results = volumes.results_of(launch, 0)
        arithmetic = n_results / 32 * (1 + 4 * launch.numbers["half"])
        assert counts["class fp32"] == pytest.approx(arithmetic, rel=1e-6)
        assert counts["moved store sectors"] == pytest.approx(n_results / 8, rel=1e-6)
    assert found[-1][0].read >= 4 * (16 + 2 * 24) * 64 * 96  # the pass along z reads the halo
    ball = [volumes.ball_work(launch) for launch in volumes.volume_plan("minimum_3d", (1, 10**5, 32))[1:3]]
    assert ball == [pytest.approx((5, 7), rel=1e-4), pytest.approx((13, 33), rel=1e-4)]
    rules = importlib.import_module("benchmarks.roofline.floors").RULES
    (first, *_) = volumes.volume_plan("mean_3d", (1, 10**5, 32))
    assert rules["volume_sums"].work(first).accesses == pytest.approx(7, rel=1e-4)
    volumes.samples.cache_clear()
    volumes.fitted.cache_clear()


def test_diffusion_in_clusters(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten jobs of 2 x (1 + 2 + 4 + 8 + 16) smoothings in each iteration, on all blocks of all planes."""
    clusters = importlib.import_module("benchmarks.roofline.clusters")
    gpus = {gpu.name.split()[0]: gpu for gpu in roofline.GPUS}
    for name, n_clusters in (("H100", 7), ("B200", 8)):
        assert clusters.clusters_at_once(gpus[name], 16) == n_clusters
    plan = roofline.plan_of("anisotropic_diffusion", (3, 400, 400), gpus["H100"])
    (launch,) = (launch for launch in plan if clusters.cluster_launch(launch))
    assert launch.grid == (16, 3, 10)
    for gpu, shape in (("A100", (3, 400, 400)), ("H100", (3, 500, 500))):
        plan = roofline.plan_of("anisotropic_diffusion", shape, gpus[gpu])
        assert not any(clusters.cluster_launch(launch) for launch in plan)
    # Of two blocks: 10 for the tensors of an iteration's first steps, and 4 for each step.
    monkeypatch.setattr(
        clusters, "_counts_of_two", lambda rows, nx, n: Counter({"x": 10 + 4 * n} if (rows, nx) == (25, 400) else {})
    )
    assert clusters.cluster_counts(launch)["x"] == 3 * 16 / 2 * 2 * (5 * 10 + 4 * 31)
    steps = 3 * 2 * 20 * 31  # of one job after the other
    expected = steps * 2 * clusters.BARRIER_CYCLES / gpus["H100"].clock / 7
    assert clusters.barrier_seconds(launch, gpus["H100"]) == pytest.approx(expected)


def test_a_table_keeps_what_was_not_counted(roofline: Any) -> None:
    shipping = importlib.import_module("benchmarks.roofline.shipping")
    kernel = {"part": "mean_3d", "launches": 28}
    prediction = {"slab_planes": 100, "across_slab_planes": 128, "kernels": [kernel], "parts_s": {"mean_3d": 2.0}}
    prediction |= {"cluster_blocks": 0, "shared_bytes": 1, "large_planes": {}}
    predictions = [{**prediction, "gpu": {"name": name, "memory": 1.0}} for name in shipping.NAMES.values()]
    stored = {"volume": (850, 10, 10), "predictions": predictions}
    row = {"basis": "guessed", "seconds_per_voxel": {"median": 1.0, "mean_3d": 3.0}, "launches": {"median": 2}}
    forest = {"n_trees": 1, "n_nodes": 3}
    earlier = {"forest": forest, "gpus": dict.fromkeys(shipping.NAMES, row)}
    made = json.loads(shipping.table(stored, n_trees=200, n_nodes=9, earlier=earlier))
    again = json.loads(shipping.table(stored, n_trees=200, n_nodes=9, earlier=made))
    assert again == made
    assert made["forest"] == forest
    assert made["gpus"]["h100"]["seconds_per_voxel"] == {"median": 1.0, "mean_3d": 2.353e-05}
    assert made["gpus"]["h100"]["launches"] == {"median": 2, "mean_3d": 4}
    assert made["gpus"]["h100"]["basis"] == f"guessed; families across planes: {shipping.COUNTED}"


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
        assert of_copies["memory_floor"] == of_copies["floor"]
        assert of_copies["seconds"] > of_copies["floor"]
        assert p["total_s"] >= sum(p["parts_s"].values())
    text = output.with_suffix(".md").read_text()
    assert "Predicted, not measured" in text
    assert text in capsys.readouterr().out
