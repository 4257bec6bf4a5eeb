"""What the results of benchmarks/part_way.py say: tables and figures for the pages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CHANGES = "a quarter of the dose", "less contrast", "less silica", "60 iterations"  # of transfer.py's pillars
# Seeds that the rule was chosen on.
CHOSEN = {"corrected": (0, 1, 2), "few": (0, 1000, 12000), "phantom": (0,), "needle": (0,)}


def adapted(pair: dict) -> dict:
    """Scores of what ``adapt`` gives."""
    return pair["part"] if pair["kept"] else pair["given"]


def formerly(pair: dict) -> dict:
    """Scores of what it gave before: the whole map, or none."""
    return pair["whole"] if pair["kept"] else pair["given"]


def gains(pairs: list[dict], of: Callable[[dict], dict], key: str = "accuracy") -> np.ndarray:
    """Points by which models are better than as given."""
    return np.array([100 * (of(pair)[key] - pair["given"][key]) for pair in pairs])


def table(record: dict) -> list[str]:
    """Lines of Markdown: gains over the model as given, before and with the rule, of seeds seen and unseen."""
    lines = [
        "| Model, change | Pairs | As given (%) | Whole map or none: gain (least) | IoU | Part way: gain (least) | IoU"
        " | Shares used |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, chosen in CHOSEN.items():
        for seen in (True, False):
            of_kind = [p for p in record["pairs"] if p["kind"] == kind and (p["seed"] in chosen) == seen]
            changes = [*dict.fromkeys(p["change"] for p in of_kind)] if kind == "corrected" else []
            for change in [*changes, None] if of_kind else []:
                pairs = [p for p in of_kind if change in (None, p["change"])]
                cells = []
                for of in (formerly, adapted):
                    points, iou = gains(pairs, of), gains(pairs, of, "iou")
                    cells += [f"{points.mean():+.2f} ({points.min():+.2f})", f"{iou.mean():+.1f}"]
                shares = [p["share"] for p in pairs if p["kept"] and p["share"] < 1]
                said = f"{len(shares)}: {min(shares):.2f} to {max(shares):.2f}" if shares else "0"
                given = 100 * np.mean([p["given"]["accuracy"] for p in pairs])
                name = f"{kind}, {'to choose' if seen else 'not seen before'}: {change or 'all'}"
                lines.append(f"| {name} | {len(pairs)} | {given:.1f} | {' | '.join(cells)} | {said} |")
    return lines


def figures(record: dict) -> dict[str, str]:
    """What pages say in a sentence, of pairs not seen before."""
    found = {}
    unseen = [p for p in record["pairs"] if p["seed"] not in CHOSEN[p["kind"]]]
    for name, pairs in (("", unseen), ("dose-", [p for p in unseen if p["change"] == CHANGES[0]])):
        for way, of in (("before", formerly), ("now", adapted)):
            points = gains(pairs, of)
            found[f"{name}{way}"] = f"{points.mean():+.1f} points"
            found[f"{name}{way}-harmed"] = f"{(points < -0.5).sum()} of {len(pairs)}"
            found[f"{name}{way}-least"] = f"{points.min():+.1f} points"
    less = [p for p in unseen if p["kept"] and p["share"] < 1]
    found["pairs"], found["used"] = f"{len(unseen)}", f"{len(less)}"
    found["better"] = f"{(gains(less, adapted) > gains(less, formerly)).sum()}"
    return found
