"""Put the figures of benchmarks/results into the pages that state them: make docs-numbers.

A page marks a figure (or a table) as ``<!-- =name -->97.6 %<!-- / -->``; what stands between the two comments is made
here from the results. `tests/test_packaging.py` fails where a page and the results differ.
"""

import json
import re
import runpy
import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARK = re.compile(r"<!-- =([\w-]+) -->(.*?)<!-- / -->", re.DOTALL)


@cache
def result(name: str) -> Any:
    """A file of results; its keys and numbers."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def percent(shares: list[float]) -> str:
    """Mean and scatter of several seeds."""
    return f"{100 * statistics.mean(shares):.2f} ± {100 * statistics.pstdev(shares):.2f} %"


def minutes(seconds: float) -> str:
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def on_gpu(gpu: str, file: str = "roofline") -> dict[str, Any]:
    """What is predicted."""
    (found,) = (p for p in result(file)["predictions"] if p["gpu"]["name"].startswith(gpu))
    return found


def kernels_on(gpu: str) -> float:
    """Seconds, predicted."""
    return on_gpu(gpu)["total_s"]


def table_of(benchmark: str, content: Any, *, function: str = "table") -> str:
    """The table that a benchmark prints of its results."""
    lines = runpy.run_path(str(ROOT / "benchmarks" / f"{benchmark}.py"))[function](content)
    return "\n".join(["", "", *lines, "", ""])


def named() -> dict[str, Callable[[], str]]:
    """Every figure that a page may state."""
    engines, run = result("forest_engines"), result("main_run")
    figures: dict[str, Callable[[], str]] = {
        "peers": lambda: table_of("peers", result("peers")),
        "part-way": lambda: table_of("part_way_tables", result("part_way")),
        "added-steps": lambda: table_of("added_steps", result("added_steps")),
        "peers-seeds": lambda: f"{len({row['seed'] for row in result('peers')['rows']})}",
        "loop-operator": lambda: table_of("loop_operator", RESULTS / "loop_operator.json"),
        "particles": lambda: table_of("particles", result("particles")["rows"]),
        "plane": lambda: f"{result('plane')['ms']['native, one plane with all threads']['min'] / 1000:.2f} s",
        "plane-avx2": lambda: f"{result('plane_avx2')['ms']['native, one plane with all threads']['min'] / 1000:.2f} s",
        "loop-first": lambda: f"{result('loop')['first']['wall_min']:.2f} s",
        "loop-in-view": lambda: f"{result('loop')['first, in view']['wall_min']:.2f} s",
        "loop-cached": lambda: f"{result('loop')['cached']['wall_min']:.2f} s",
        "train": lambda: f"{run['steps']['train']['seconds']:.0f} s",
        "classify": lambda: f"{minutes(run['seconds_for_the_volume'])}, {run['peak_MB']} MB",
        "memory": lambda: f"{result('stream')['memory']['paper']['peak_MB']['volume']} MB",
        "h100": lambda: f"{kernels_on('H100'):.1f} s",
        "a100": lambda: f"{kernels_on('A100'):.1f} s",
        "rtx4090": lambda: f"{kernels_on('RTX 4090'):.0f} s",
        "h100-diffusion": lambda: f"{on_gpu('H100')['parts_s']['anisotropic_diffusion']:.2f} s",
        "h100-diffusion-plain": lambda: f"{on_gpu('H100')['large_planes']['anisotropic_diffusion']['seconds']:.2f} s",
    }
    for gpu in ("H100", "A100"):
        figures[f"{gpu.lower()}-large-forest"] = lambda gpu=gpu: (
            f"{on_gpu(gpu, 'roofline_forest_100000')['kernels_s']:.2f} s"
        )
    python = result("launches")["milliseconds"]
    figures["launches-graphs"] = lambda: f"{python['graphs']:.1f} ms"
    figures["launches-checked"] = lambda: f"{python['every launch checked anew']:.0f} ms"
    left_off = result("loop")["left off, wall"]
    figures["left-off-half"] = lambda: f"{left_off['p50']:.2f} s"
    figures["left-off-most"] = lambda: f"{left_off['p95']:.2f} s"
    standard = result("forest_native_avx2")["forests"]["standard"]["engines"]
    figures["forest-avx2"] = lambda: f"{standard['scikit-learn']['min_s'] / standard['native']['min_s']:.0f}"
    page = result("page")
    figures["page-frame"] = lambda: (
        f"{max(page[kind]['main_thread_cpu'] for kind in ('pan', 'zoom', 'brush', 'contrast')):.1f} ms"
    )
    figures["page-planes"] = lambda: f"{page['planes']['main_thread_cpu']:.0f} ms"
    figures["page-gaps"] = lambda: (
        f"{max(page[kind]['between_frames_p95'] for kind in ('pan', 'zoom', 'brush', 'contrast', 'planes')):.0f} ms"
    )
    for case, found in engines["accuracy"].items():
        figures[f"{case}-rows"] = lambda found=found: f"{found['rows']:,}"
        for engine in ("weka", "sklearn", "binned"):
            figures[f"{case}-{engine}"] = lambda shares=found[engine]["accuracy"]: percent(shares)
    for rows, digits in (("5000", 2), ("50000", 1)):
        for engine, seconds in engines["seconds"][rows].items():
            figures[f"{rows}-{engine}"] = lambda s=seconds, digits=digits: f"{min(s):.{digits}f}"
    for kind in ("table", "adapted_table", "cases_table"):
        figures[f"transfer-{kind.replace('_', '-')}"] = lambda kind=kind: table_of(
            "transfer_tables", result("transfer"), function=kind
        )
    of_transfer = runpy.run_path(str(ROOT / "benchmarks" / "transfer_tables.py"))["figures"](result("transfer"))
    of_parts = runpy.run_path(str(ROOT / "benchmarks" / "part_way_tables.py"))["figures"](result("part_way"))
    figures |= {f"part-way-{name}": lambda said=said: said for name, said in of_parts.items()}
    figures |= {f"transfer-{name}": lambda said=said: said for name, said in of_transfer.items()}
    return figures


def filled(text: str) -> str:
    """The page with the figures of the results.

    Raises
    ------
    KeyError
        If a mark has a name that is not one of ours.
    """
    figures = named()
    return MARK.sub(lambda mark: f"<!-- ={mark[1]} -->{figures[mark[1]]()}<!-- / -->", text)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))
