"""The tables of ``benchmarks/roofline`` as text."""

from __future__ import annotations

from typing import Any

from benchmarks.roofline.floors import RULES, WHY_ABOVE
from benchmarks.roofline.gpus import ASSUMPTIONS
from benchmarks.roofline.instructions import EXPANDED

GOAL_RATIO = 3.0  # a kernel's time to its floor
SMALL_SHARE = 0.001  # what takes a smaller share of all kernels' time is not worth an algorithm


def above_the_floor(prediction: dict[str, Any]) -> list[dict[str, Any]]:
    """The kernels of a GPU that miss the goal."""
    least = SMALL_SHARE * (prediction["kernels_s"] + prediction.get("across_s", 0.0))
    return [k for k in prediction["kernels"] if k["ratio"] > GOAL_RATIO and k["seconds"] >= least]


def short_name(kernel: dict[str, Any]) -> str:
    """Of a kernel without its file."""
    return str(kernel["kernel"]).split(": ")[-1]


def markdown(stored: dict[str, Any]) -> str:
    """The tables as text."""
    found = stored["predictions"]
    names = [p["gpu"]["name"] for p in found]
    z, y, x = stored["volume"]
    lines = [
        "# Predicted times on GPUs",
        "",
        f"Predicted, not measured: {z} planes of {y} x {x}; all: {stored['n_channels']} channels of planes, 200 trees"
        f" of {stored.get('forest_rows', 5000)} training rows."
        f" Made by `benchmarks/roofline` with NVRTC {stored['nvrtc']}; gpu_tomoclass {stored['gpu_tomoclass']}.",
        "",
        "The floor of a kernel is what its launches' arrays need at full bandwidth, or their floating-point arithmetic"
        " and conversions at the full rate, or the comparisons, integers and accesses to caches that its problem asks"
        ' for (listed at the end), whichever is most. "x memory" compares with the bandwidth alone.',
        "",
        "| predicted seconds | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for label, key in (("all", "total_s"), ("kernels", "kernels_s"), ("host, launching meanwhile", "launching_s"),
                       ("to the GPU", "h2d_s"), ("from the GPU", "d2h_s")):  # fmt: skip
        if found[0]["kernels_s"]:  # else only families across planes were counted
            lines.append(f"| {label} | " + " | ".join(f"{p[key]:.2f}" for p in found) + " |")
    lines.append(
        "| across planes, each family for itself | " + " | ".join(f"{p['across_s']:.2f}" for p in found) + " |"
    )
    lines.append("| planes in a slab | " + " | ".join(str(p["slab_planes"]) for p in found) + " |")
    lines.append("| ... across planes | " + " | ".join(str(p["across_slab_planes"]) for p in found) + " |")
    for part in found[0]["parts_s"]:
        lines.append(f"| {part} | " + " | ".join(f"{p['parts_s'][part]:.2f}" for p in found) + " |")
    for p in found:
        lines += [
            "",
            f"## {p['gpu']['name']}, by kernel (predicted)",
            "",
            "| part | kernel | launches | seconds | bound by | x floor | floor | x memory | occupancy | registers |"
            " shared |",
            "|---|---|---:|---:|---|---:|---|---:|---:|---:|---:|",
        ]
        for k in p["kernels"]:
            kernel = k["kernel"].replace(": ", " ")
            lines.append(
                f"| {k['part']} | {kernel} | {k['launches']} | {k['seconds']:.3f} | {k['bound']}"
                f" | {k['ratio']:.1f} | {k['floor_of']} | {k['memory_ratio']:.1f} | {k['occupancy']:.2f}"
                f" | {k['registers']} | {k['shared']} |"
            )
        high = above_the_floor(p)
        lines += [
            "",
            f"Above {GOAL_RATIO:g} x the floor: {len(high)} kernels, {sum(k['seconds'] for k in high):.2f} s"
            f" (not counted: those below {SMALL_SHARE:.1%} of all, which are mostly launching)"
            f"{''.join(sorted({f'; {short_name(k)}' for k in high}))}.",
        ]
    all_high = {short_name(k) for p in found for k in above_the_floor(p)}
    if all_high:
        lines += ["", f"## Why kernels are above {GOAL_RATIO:g} x their floors", ""]
        lines += [f"- {name}: {WHY_ABOVE.get(name, 'not known')}." for name in sorted(all_high)]
    lines += ["", "## Assumptions", ""]
    lines += [f"- {text}" for text in ASSUMPTIONS]
    lines += [f"- {p['gpu']['name']}: {p['gpu']['source']}." for p in found]
    lines += ["- More than one machine instruction, by class: " + "; ".join(
        f"{op} {', '.join(f'{n} {kind}' for kind, n in parts.items())}" for op, parts in EXPANDED.items()
    ) + "."]  # fmt: skip
    lines += ["", "## Comparisons, integers and accesses that problems ask for", ""]
    lines += [f"- {name}: {rule.why}." for name, rule in RULES.items()]
    return "\n".join(lines) + "\n"
