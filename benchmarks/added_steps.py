"""What each step beyond the paper adds on simulated pillars: ``gpu-tomoclass reproduce``, several seeds.

    python benchmarks/added_steps.py [--seeds 0 1 2 3 4] [--shape 60,214,160]
    python benchmarks/added_steps.py --table  # the docs' table, of what is there

Each seed is a specimen with a noise and strokes of its own. Results are added to benchmarks/results/added_steps.json,
seed by seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_tomoclass import __version__

RESULTS = Path(__file__).parent / "results" / "added_steps.json"
KEPT = ("title", "pixels", "planes", "accuracy", "mean_iou", "specks_per_plane")
COLUMNS = ("Pixels painted", "Accuracy (%)", "Mean IoU", "Specks")


def run(seed: int, shape: str) -> dict:
    """Rows of one seed, by name, as ``reproduce`` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "study"
        command = ("-m", "gpu_tomoclass", "reproduce", "-o", str(output), "--only", "pillar", "--quiet")
        subprocess.run((sys.executable, *command, "--pillar-shape", shape, "--seed", str(seed)), check=True)
        found = json.loads((output / "numbers.json").read_text())["added_steps"]
    return {name: {key: row[key] for key in KEPT} for name, row in found.items()}


def table(kept: dict) -> list[str]:
    """Means over the seeds; accuracy with the least and the most."""
    seeds = list(kept["seeds"].values())
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in seeds[0].items():
        pixels, accuracy, iou, specks = (
            [rows[name][key] for rows in seeds] for key in ("pixels", "accuracy", "mean_iou", "specks_per_plane")
        )
        mean = [sum(values) / len(values) for values in (pixels, accuracy, iou, specks)]
        spread = f"{100 * min(accuracy):.1f} to {100 * max(accuracy):.1f}"
        lines.append(
            f"| {row['title']} | {mean[0]:.0f} | {100 * mean[1]:.1f} ({spread}) | {mean[2]:.3f} | {mean[3]:.0f} |"
        )
    return lines


def main() -> None:
    """Run the seeds that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--shape", default="60,214,160", help="Of the pillar: planes, rows, columns.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="Run nothing.")
    options = parser.parse_args()
    kept = json.loads(options.results.read_text()) if options.results.exists() else {}
    if not options.table:
        if kept.get("shape") != options.shape or kept.get("version") != __version__:
            kept = {"shape": options.shape, "version": __version__, "seeds": {}}
        for seed in options.seeds:
            if str(seed) not in kept["seeds"]:
                kept["seeds"][str(seed)] = run(seed, options.shape)
                options.results.write_text(json.dumps(kept, indent=1) + "\n")
    print("\n".join(table(kept)))


if __name__ == "__main__":
    main()
