"""Classify a volume as a task of an Ewoks workflow (https://ewoks.esrf.fr); what the run found becomes its outputs.

python examples/ewoks_tasks.py volume.tif materials.tcm labels.tif
"""

import json
import subprocess
import sys
from pathlib import Path

from ewokscore import Task, execute_graph


class Classify(Task, input_names=["volume", "model", "labels"], optional_input_names=["options"],
               output_names=["labels", "counts", "fractions", "seconds"]):  # fmt: skip
    """``gpu-tomoclass classify``; ``options`` are more of its arguments, e.g. ``["--device", "cuda"]``."""

    def run(self) -> None:
        labels = Path(self.inputs.labels)
        result = labels.with_name(f"{labels.name}.result.json")
        done = subprocess.run(
            ["gpu-tomoclass", "classify", self.inputs.volume, self.inputs.model, "-o", labels, "--quiet",
             "--result", result, *self.get_input_value("options", [])],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.strip())  # one line: what happened, where, what to do
        found = json.loads(result.read_text(encoding="utf-8"))
        self.outputs.labels = str(labels)
        self.outputs.counts = found["values"]["counts"]
        self.outputs.fractions = found["values"]["fractions"]
        self.outputs.seconds = found["seconds"]


def workflow(volume: str, model: str, labels: str) -> dict[str, object]:
    """A graph of one task; other tasks take its outputs by links."""
    values = {"volume": volume, "model": model, "labels": labels}
    node = {
        "id": "classify",
        "task_type": "class",
        "task_identifier": f"{Classify.__module__}.Classify",
        "default_inputs": [{"name": name, "value": value} for name, value in values.items()],
    }
    return {"graph": {"id": "tomogram"}, "nodes": [node], "links": []}


if __name__ == "__main__":
    print(execute_graph(workflow(*sys.argv[1:4]), outputs=[{"all": True}]))
