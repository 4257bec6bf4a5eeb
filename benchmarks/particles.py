"""Are the particles that ``measure --split`` finds the spheres that the simulated pillar is made of?

    python benchmarks/particles.py [--seeds 0 1 2] [--picture docs/images/particles.png]

Pillars of low filling, whose aggregates are touching spheres of known place and radius. Labels are the truth itself,
and those of a model trained on strokes on three planes, cleaned of objects below 100 voxels. A voxel of silica belongs
to the sphere in whose power diagram it lies; spheres that keep half of their volume that way can be found at all
("visible": the others lie in one another, or beyond the pillar). A sphere is found if a particle shares more than half
of their union with it. Writes benchmarks/results/particles.json
(seeds that were not asked for stay), prints a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import gpu_tomoclass as gt
from gpu_tomoclass.labels.image_tools import CpuTools
from gpu_tomoclass.labels.splitting import NECK, split_objects
from gpu_tomoclass.studies.simulation.pillar import SampleVolume, simulate_sample
from gpu_tomoclass.studies.strokes import draw_strokes

RESULTS = Path(__file__).parent / "results" / "particles.json"
SHAPE = (48, 160, 136)
# Silica by volume, and the median radius of a sphere in nm: 7 and 13 voxels.
CASES = {"4 %": (0.04, 9.0), "6 %, large": (0.06, 16.0)}
NECKS = (None, 0.7, 0.85, 0.9, 0.95)  # None: not split
SILICA = 3
SMALLEST = 100  # voxels


def own_voxels(truth: np.ndarray, spheres: np.ndarray) -> np.ndarray:
    """Number (1..n) of the sphere that each voxel of silica belongs to, 0 elsewhere: (nz, ny, nx) int64."""
    places = np.argwhere(truth == SILICA)
    found = np.zeros(truth.shape, np.int64)
    power = np.stack([((places - s[:3]) ** 2).sum(axis=1) - s[3] ** 2 for s in spheres])
    found[tuple(places.T)] = 1 + power.argmin(axis=0)
    return found


def classified(sample: SampleVolume, *, seed: int, folder: Path) -> np.ndarray:
    """Labels of a model taught on three planes, without small objects."""
    painted = np.zeros_like(sample.truth)
    for z in (SHAPE[0] // 6, SHAPE[0] // 2, 5 * SHAPE[0] // 6):
        painted[z] = draw_strokes(sample.truth[z], per_class=8, seed=seed + z)
    z, y, x = np.nonzero(painted)
    classes = gt.default_classes(sample.class_names)
    strokes = gt.Annotation.from_voxels(z, y, x, painted[z, y, x], shape=painted.shape, classes=classes)
    model = gt.train(sample.volume, strokes, features="weka-default", n_trees=100, seed=seed, device="native")
    labels = model.predict(sample.volume, device="native").labels
    gt.clean(labels, folder / "clean.tif", min_size=SMALLEST, fill=True, overwrite=True)
    return np.asarray(gt.open_volume(folder / "clean.tif"))


def numbered(labels: np.ndarray, neck: float | None) -> np.ndarray:
    """Particles 1..n of silica."""
    tools = CpuTools()
    objects, _ = tools.components((labels == SILICA).astype(np.uint16))
    return objects if neck is None else split_objects(objects, voxel_size=(1.25, 1.25, 1.25), neck=neck, tools=tools)


def compare(own: np.ndarray, found: np.ndarray, radii: np.ndarray, *, voxel: float) -> dict:
    """Numbers and diameters (nm) of visible spheres and of particles, and how many of the spheres were found."""
    n, k = len(radii), int(found.max())
    both = np.bincount(own.ravel() * (k + 1) + found.ravel(), minlength=(n + 1) * (k + 1)).reshape(n + 1, k + 1)
    in_sphere, in_particle = both.sum(axis=1), both.sum(axis=0)
    visible = in_sphere[1:] > 2 / 3 * np.pi * radii**3
    union = in_sphere[1:, None] + in_particle[None, 1:] - both[1:, 1:]
    share = (both[1:, 1:] / union).max(axis=1, initial=0)
    sizes = {"true": in_sphere[1:][visible], "found": in_particle[1:]}
    diameters = {name: voxel * np.cbrt(6 * v / np.pi) for name, v in sizes.items()}
    return {
        "visible": int(visible.sum()),
        "hit": int((share[visible] > 0.5).sum()),
        "particles": k,
        **{f"{name}_diameters": np.round(d, 2).tolist() for name, d in diameters.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path, help="diameters of spheres and particles")
    arguments = parser.parse_args()
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [row for row in before if row["seed"] not in arguments.seeds]
    for seed in arguments.seeds:
        for case, (filling, radius) in CASES.items():
            sample = simulate_sample(shape=SHAPE, silica_fraction=filling, sphere_radius=radius, seed=seed)
            own, radii = own_voxels(sample.truth, sample.spheres), sample.spheres[:, 3]
            with tempfile.TemporaryDirectory() as folder:
                labels = {"truth": sample.truth, "classified": classified(sample, seed=seed, folder=Path(folder))}
            for name, array in labels.items():
                ours, theirs = array == SILICA, sample.truth == SILICA
                quality = {
                    "accuracy": float((array == sample.truth).mean()),
                    "silica_iou": float((ours & theirs).sum() / (ours | theirs).sum()),
                }
                for neck in NECKS:
                    found = compare(own, numbered(array, neck), radii, voxel=sample.voxel_size[0])
                    rows.append({"seed": seed, "case": case, "labels": name, "neck": neck, **quality, **found})
            print(f"seed {seed}, {case}: IoU of silica {quality['silica_iou']:.2f}", flush=True)
            RESULTS.write_text(json.dumps({"made_by": gt.__version__, "shape": SHAPE, "rows": rows}) + "\n")
    for line in table(rows):
        print(line)
    if arguments.picture:
        draw(rows, arguments.picture)


def table(rows: list[dict]) -> list[str]:
    """Lines of Markdown: sums over the seeds, medians of all diameters together."""
    lines = [
        "| labels (IoU) | silica | neck | spheres | particles | found | right | median diameter, spheres | particles |"
    ]
    lines.append("|" + "---|" * 9)
    for name in ("truth", "classified"):
        for case in CASES:
            for neck in NECKS:
                own = [r for r in rows if (r["labels"], r["case"], r["neck"]) == (name, case, neck)]
                iou = np.mean([r["silica_iou"] for r in own])
                visible, hit, particles = (sum(r[key] for r in own) for key in ("visible", "hit", "particles"))
                medians = (np.median(np.concatenate([r[f"{k}_diameters"] for r in own])) for k in ("true", "found"))
                shares = f"{100 * hit / visible:.0f} % | {100 * hit / max(1, particles):.0f} %"
                text = " | ".join(f"{m:.1f} nm" for m in medians)
                lines.append(
                    f"| {name} ({iou:.2f}) | {case} | {neck or 'not split'} | {visible} | {particles} | {shares} | "
                    f"{text} |"
                )
    return lines


def draw(rows: list[dict], path: Path) -> None:
    """Histograms of the diameters of all seeds: spheres, objects, particles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), layout="constrained")
    edges = np.arange(0, 62, 2)
    panels = [(name, case) for name in ("truth", "classified") for case in CASES]
    for axes, (name, case) in zip(figure.subplots(2, len(CASES)).ravel(), panels, strict=True):
        own = [r for r in rows if (r["labels"], r["case"]) == (name, case)]
        for neck, colour, label in ((None, "0.6", "objects, not split"), (NECK, (0, 0.447, 0.698), "particles, split")):
            values = np.concatenate([r["found_diameters"] for r in own if r["neck"] == neck])
            axes.stairs(np.histogram(np.minimum(values, 61), edges)[0], edges, fill=neck is not None, color=colour,
                        alpha=0.5 if neck else 1, label=label)  # fmt: skip
        values = np.concatenate([r["true_diameters"] for r in own if r["neck"] is None])
        axes.stairs(np.histogram(values, edges)[0], edges, color="black", linewidth=1.5, label="spheres, the truth")
        axes.set(title=f"{'true labels' if name == 'truth' else 'classified'}, {case} silica",
                 xlabel="equivalent diameter (nm); last bar: all above", ylabel="number")  # fmt: skip
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
