"""Properties of this machine's GPUs, asked in a process of its own that ends before others begin.

Whoever tries a GPU holds a context on it until the process ends. Where a GPU is set to take one process at a time
(``EXCLUSIVE_PROCESS``, usual on clusters), the process that starts workers would so shut the first of them out.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from gpu_tomoclass import errors
from gpu_tomoclass.device.choice import choose_device
from gpu_tomoclass.errors import ResourceError, TomoclassError

SECONDS = 120  # CuPy's import and NVRTC from a cold network disk


def probe_device(name: str, *, threads: int | None = None) -> tuple[str, list[str]]:
    """Find the device that a name means here, and the GPUs if it is ``cuda``; no GPU is touched by this process.

    Parameters
    ----------
    name : {"auto", "cuda", "native", "numpy"}
    threads : int, optional
        As for :func:`~gpu_tomoclass.device.choice.choose_device`.

    Returns
    -------
    name : str
    gpus : list of str
        What CUDA_VISIBLE_DEVICES calls each GPU; empty for other devices.

    Raises
    ------
    ResourceError
        If the named device does not work here.
    UsageError
        If the name is unknown.
    """
    if name not in ("auto", "cuda") or importlib.util.find_spec("cupy") is None:
        return choose_device(name, threads=threads).name, []
    command = [sys.executable, "-m", __name__, json.dumps([name, threads])]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        answer = json.loads(run.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"the GPUs cannot be asked for: {error}", do="choose --device native or numpy") from error
    except ValueError as error:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise ResourceError(f"the GPUs cannot be asked for: {last}", do="choose --device native or numpy") from error
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["what"], do=answer["do"])
    return answer["name"], answer["gpus"]


def main(arguments: list[str]) -> None:
    """Print what :func:`probe_device` reads."""
    from gpu_tomoclass.device.cupy_package import visible_gpus

    name, threads = json.loads(arguments[0])
    found: dict[str, str | list[str] | None]
    try:
        chosen = choose_device(name, threads=threads).name
        found = {"name": chosen, "gpus": visible_gpus() if chosen == "cuda" else []}
    except TomoclassError as error:
        found = {"error": type(error).__name__, "what": error.what, "do": error.do}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
