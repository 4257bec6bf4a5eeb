"""What the results of benchmarks/transfer.py say: verdicts by the rules of today, tables and figures for the pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpu_tomoclass.training.adapt_model import keeps_map
from gpu_tomoclass.training.drift import LOST_ACCURACY, Drift, verdict_of

CHOSEN = 0, 1000, 3000  # seeds that the verdicts' limits were chosen on
CHOSEN_MAPS = *CHOSEN, 6000, 7000  # those that it was chosen on which map is kept
MISSED = {"pillar": 0.015, "phantom": 0.015, "needle": 0.01}  # of accuracy, compared with the own model
COMPOSITION = {"pillar a", "pillar b", "less silica", "more silica"}  # alike in all else
NOISELESS = {"plain", "wedge"}  # the same with every seed: counted once


def drift_of(figures: dict) -> Drift:
    """The inverse of :func:`figures_of`, without a verdict."""
    known = {name: value for name, value in figures.items() if name != "worst_family"}
    return Drift(verdict="", per_family={"worst": figures["worst_family"]}, planes=[], **known)


def judge(pairs: list[dict]) -> None:
    """Add what the rules of today say of each pair: the verdict, and whether the map is kept."""
    for pair in pairs:
        before = drift_of(pair["before"])
        after = None if pair["after"] is None else drift_of(pair["after"])
        loss = before.trained_margin - before.mean_margin
        pair["verdict"] = verdict = verdict_of(before.drift, loss, before.moved, before.surer)
        pair["without"] = verdict_of(before.drift, loss)  # a model that does not remember grey values
        pair["adapted"] = after is not None and keeps_map(replace(before, verdict=verdict), after)[0]


def lost(pair: dict, accuracy: float) -> float:
    """So much less than the volume's own model."""
    return float(np.mean(pair["own"])) - accuracy


def as_given(pair: dict) -> float:
    return pair["accuracy"]


def mapped(pair: dict) -> float:
    """Accuracy with the map, whatever the rules say."""
    return pair["accuracy"] if pair["mapped"] is None else pair["mapped"]


def final(pair: dict) -> float:
    """Accuracy of what ``adapt`` gives."""
    return mapped(pair) if pair["adapted"] else pair["accuracy"]


def composition(pair: dict) -> bool:
    """Whether the two volumes differ in how much there is of a class, and in nothing else but the noise."""
    both = {pair["trained_on"], pair["applied_to"]}
    return both <= COMPOSITION and bool(both & {"less silica", "more silica"})


def transfers(record: dict, *, chosen: bool, group: str | None = None, seeds: Sequence[int] = CHOSEN) -> list[dict]:
    """Pairs of different volumes, each once: of the seeds that rules were chosen on, or of others."""
    return [
        pair
        for pair in record["pairs"]
        if pair["trained_on"] != pair["applied_to"]
        and (pair["seed"] in seeds) == chosen
        and (pair["seed"] == CHOSEN[0] or not {pair["trained_on"], pair["applied_to"]} <= NOISELESS)
        and group in (None, pair["group"])
    ]


def bad(pair: dict) -> bool:
    return lost(pair, pair["accuracy"]) > LOST_ACCURACY


def table(record: dict) -> list[str]:
    """Lines of Markdown: good and bad pairs by verdict, with the witness of what adapting would move and without."""
    lines = ["| Pairs | Fits | Most lost there | Doubtful | Does not fit |", "|---|---|---|---|---|"]
    for name, chosen in (("to choose", True), ("not seen before", False)):
        pairs = transfers(record, chosen=chosen)
        for how, key in (("", "verdict"), (", without the witness", "without")):
            cells = []
            for verdict in ("fits", "doubtful", "does not fit"):
                of_verdict = [pair for pair in pairs if pair[key] == verdict]
                wrong = sum(map(bad, of_verdict))
                share = f" ({100 * len(of_verdict) / max(1, len(pairs)):.0f} %)"
                cells.append(f"{len(of_verdict) - wrong} + {wrong}{share}")
                if verdict == "fits":
                    most = max((lost(pair, pair["accuracy"]) for pair in of_verdict), default=0.0)
                    cells.append(f"{100 * most:.1f} points")
            lines.append(f"| {name}{how} | {' | '.join(cells)} |")
    return lines


def adapted_table(record: dict) -> list[str]:
    """Lines of Markdown: how many pairs miss the own model, and by how much."""
    lines = [
        "| Pairs | Missed by more than | As given | Adapted | Map always kept | Mean miss: as given | Adapted"
        " | Lost over half a point by adapting, at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group, far in MISSED.items():
        for name, chosen in (("to choose", True), ("not seen before", False)):
            pairs = transfers(record, chosen=chosen, group=group, seeds=CHOSEN_MAPS)
            if not pairs:
                continue
            kinds = [[lost(pair, value(pair)) for pair in pairs] for value in (as_given, final, mapped)]
            harm = [pair["accuracy"] - final(pair) for pair in pairs]
            cells = [f"{sum(miss > far for miss in kind)} of {len(kind)}" for kind in kinds]
            means = [f"{100 * np.mean(kind):.1f}" for kind in kinds[:2]]
            worst = f"{sum(h > 0.005 for h in harm)}, {100 * max(0.0, *harm):.1f} points"
            lines.append(f"| {group}, {name} | {100 * far:g} | {' | '.join([*cells, *means, worst])} |")
    return lines


def cases_table(record: dict) -> list[str]:
    """Lines of Markdown: mean accuracy over all seeds from the first pillar or phantom to each other, and back."""
    lines = ["| Trained on | Applied to | Pairs | Own | As given | Adapted |", "|---|---|---|---|---|---|"]
    of_case: dict[tuple[str, str], list[dict]] = {}
    for pair in [*transfers(record, chosen=True), *transfers(record, chosen=False)]:
        if {"pillar a", "plain"} & {pair["trained_on"], pair["applied_to"]} or pair["group"] == "needle":
            of_case.setdefault((pair["trained_on"], pair["applied_to"]), []).append(pair)
    for (old, new), pairs in of_case.items():
        means = [np.mean(pair["own"]) for pair in pairs], list(map(as_given, pairs)), list(map(final, pairs))
        lines.append(f"| {old} | {new} | {len(pairs)} | {' | '.join(f'{100 * np.mean(m):.1f}' for m in means)} |")
    return lines


def figures(record: dict) -> dict[str, str]:
    """What pages say in a sentence, of pairs not seen before."""
    pairs = transfers(record, chosen=False)
    verdicts = [pair["verdict"] for pair in pairs]
    wrong = [mapped(pair) - pair["accuracy"] for pair in pairs if pair["verdict"] == "fits" and bad(pair)]
    called = [pair for pair in pairs if pair["verdict"] == "does not fit" and not bad(pair)]
    others = [pair for pair in transfers(record, chosen=False, seeds=CHOSEN_MAPS) if composition(pair)]
    changed = [pair["accuracy"] - final(pair) for pair in others]
    kept = [pair["accuracy"] - mapped(pair) for pair in others]
    own = {(p["seed"], p["applied_to"]): p["own"] for p in record["pairs"] if p["group"] == "pillar"}
    apart = [abs(of_volume[0] - of_volume[-1]) for of_volume in own.values()]
    alike = [
        lost(p, final(p)) for p in record["pairs"] if {p["trained_on"], p["applied_to"]} == {"pillar a", "pillar b"}
    ]
    selves = [p["verdict"] for p in record["pairs"] if p["trained_on"] == p["applied_to"]]
    return {
        "false-alarms": f"{len(called)}",
        "false-alarms-lost": f"{100 * np.mean([lost(p, p['accuracy']) for p in called] or [0]):.1f} points",
        "false-alarms-gain": f"{100 * np.mean([mapped(p) - p['accuracy'] for p in called] or [0]):.1f} points",
        "wrong-fits": f"{100 * len(wrong) / max(1, verdicts.count('fits')):.1f} %",
        "doubtful": f"{100 * verdicts.count('doubtful') / max(1, len(pairs)):.1f} %",
        "wrong-fits-gain": f"{100 * min(wrong, default=0.0):.1f} to {100 * max(wrong, default=0.0):.1f} points",
        "composition": f"{len(changed)}",
        "composition-harm": f"{100 * max(changed, default=0.0):.1f} points",
        "composition-harmed": f"{sum(h > 0.005 for h in changed)}",
        "composition-always": f"{100 * max(kept, default=0.0):.1f} points",
        "strokes-apart": f"{100 * np.mean(apart):.1f} points",
        "strokes-far": f"{sum(a > MISSED['pillar'] for a in apart)} of {len(apart)}",
        "alike": f"{100 * np.mean(alike or [0]):.1f} points",
        "selves": f"{selves.count('fits')} of {len(selves)}",
    }
