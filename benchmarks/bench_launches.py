"""What Python does for one plane on a GPU: launches of a ``cuda`` device whose CuPy launches nothing.

    python benchmarks/bench_launches.py [--size 400] [--repeats 30]

All 252 channels and a forest of 200 trees, one plane at a time, as in training, previews and the interactive loop; of a
slab of many planes each takes its part of this. The time is that of our code alone: CuPy, the driver and the GPU are
left out, so it is the least that a real one would need. Writes benchmarks/results/launches.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from bench_forest import training_rows
from shared import processor
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn
from gpu_tomoclass.model.model import Model

RESULTS = Path(__file__).parent / "results" / "launches.json"


class _Array(np.ndarray):
    """As CuPy's, as far as launches ask."""

    device = SimpleNamespace(id=0)

    @property
    def data(self) -> Any:  # type: ignore[override]
        return self

    @property
    def ptr(self) -> int:
        return int(self.__array_interface__["data"][0])

    def set(self, values: Any) -> None:
        pass

    def get(self, *, out: Any, blocking: bool) -> None:
        pass


class _Context:
    """A GPU, a stream, an event or a graph: nothing happens."""

    id = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def record(self, stream: Any) -> None:
        pass

    def begin_capture(self) -> None:
        pass

    def end_capture(self) -> _Context:
        return self

    def launch(self, stream: Any = None) -> None:
        IdleCupy.graphs += 1


class IdleCupy:
    """Stands in for CuPy: has arrays, and launches nothing.

    Attributes
    ----------
    launches, graphs : int
        Asked for so far.
    """

    graphs = 0

    __version__ = "none: nothing is launched"
    ndarray = _Array

    def __init__(self) -> None:
        self.launches = 0
        stream = _Context
        stream.null = _Context()  # type: ignore[attr-defined]
        self.cuda = SimpleNamespace(
            Device=_Context,
            Stream=stream,
            Event=_Context,
            get_elapsed_time=lambda *_: 0.0,
            alloc_pinned_memory=bytearray,
            runtime=SimpleNamespace(
                driverGetVersion=lambda: 13000,
                runtimeGetVersion=lambda: 13000,
                getDeviceCount=lambda: 1,
                getDeviceProperties=lambda _: {"name": "none", "major": 9, "minor": 0},
            ),
            compiler=SimpleNamespace(CompileException=RuntimeError),
        )

    def empty(self, shape: Any, dtype: Any) -> _Array:
        return np.empty(shape, dtype).view(_Array)

    zeros = empty

    def array(self, values: np.ndarray, order: str) -> _Array:
        return np.array(values).view(_Array)

    def asnumpy(self, array: _Array) -> np.ndarray:
        return np.full(array.shape, 42, array.dtype)

    def copyto(self, target: Any, values: Any) -> None:
        self.launches += 1

    def RawModule(self, **_: Any) -> Any:
        return SimpleNamespace(get_function=lambda name: self._launch)

    def _launch(self, grid: Any, block: Any, args: Any) -> None:
        self.launches += 1


def model_of(n_trees: int) -> Model:
    bank = FeatureBank.create("paper")
    values, labels = training_rows(5000, 0.01, n_planes=1)
    grown = RandomForestClassifier(n_trees, criterion="entropy", max_features=2, random_state=42, n_jobs=-1)
    forest = forest_from_sklearn(grown.fit(values, labels))
    classes = default_classes([f"class {i}" for i in range(forest.n_classes)])
    return Model(forest=forest, bank=bank, classes=classes, intensity=IntensityScale())


def milliseconds(classify: Callable[[], object], repeats: int) -> float:
    """Median of so many planes."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        classify()
        found.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(found), 2)


def measured(size: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of Python per plane, and what was asked of CuPy."""
    cupy = IdleCupy()
    with mock.patch.dict(sys.modules, {"cupy": cupy}):  # type: ignore[dict-item]
        device = CudaDevice()
    plane = np.random.default_rng(1).random((1, size, size), np.float32)
    model, found, asked = model_of(200), dict[str, float](), dict[str, int]()

    def by(way: str) -> None:
        classifier = Classifier(model, device)
        for _ in range(3):  # "compiles", is recorded, is captured
            classifier.classify(plane)
        cupy.launches = IdleCupy.graphs = 0
        classifier.classify(plane, timings={})
        asked[way] = cupy.launches + IdleCupy.graphs
        found[way] = milliseconds(lambda: classifier.classify(plane, timings={}), repeats)

    by("graphs")
    with mock.patch.object(device.graphs, "problem", RuntimeError("not wanted")):
        by("launches repeated one by one")
    with mock.patch.dict("os.environ", {"CUDA_LAUNCH_BLOCKING": "1"}):
        by("every launch checked anew")
    return {"launches": asked["every launch checked anew"], "asked of CuPy": asked, "milliseconds": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=400, help="rows and columns of the plane")
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    result = {
        "what": "milliseconds of our Python per plane of 252 channels and 200 trees, with a CuPy that launches nothing",
        "gpu_tomoclass": __version__,
        "machine": processor(),
        "plane": [given.size, given.size],
        **measured(given.size, given.repeats),
    }
    print(json.dumps(result, indent=1))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
