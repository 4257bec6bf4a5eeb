"""Say to programs what a run is doing and what came of it: ``--log-json``, ``--result``, ``--syslog``.

The log has one JSON object per line: ``start``, ``progress``, ``note``, ``error``, ``end``. The result is one JSON
object, written when the run has ended, whichever way. ``gpu-tomoclass schema log`` and ``schema result`` say what is in
them. Nothing here is computed unless one of the options is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import click
from click.core import ParameterSource

from gpu_tomoclass import __version__
from gpu_tomoclass.errors import DataError, TomoclassError, visible
from gpu_tomoclass.outputs import check_output, folder_bytes, outputs_made, refuse_inputs, write_json, writing

LOG, RESULT = "gpu_tomoclass/log/1", "gpu_tomoclass/result/1"
PROGRESS_SECONDS = 1.0  # between two lines of progress
PIECE = 1 << 20  # bytes of a file's beginning, middle and end that its fingerprint is made of
LIBRARIES = ("numpy", "scipy", "scikit-learn", "zarr", "tifffile", "h5py", "cupy-cuda12x", "cupy-cuda13x", "cuml-cu12",
             "cuml-cu13")  # fmt: skip
STATUS = {0: "ok", 6: "stopped"}  # by exit code; all others are "failed"


class Run:
    """One command under way, as it is told to programs.

    Parameters
    ----------
    command : str
        Its name, ``"model import"`` for one of a group.
    arguments : sequence of str
        As given on the command line.
    settings : mapping
        Every argument and option with its value, ready for JSON.
    inputs : sequence of str
        The files named as inputs.
    log, result : str, optional
        Where to write. An earlier log is continued, an earlier result replaced; any other file is refused.
    syslog : bool
        Also tell the system's log: start, errors and end.

    Raises
    ------
    DataError
        If a file of another kind has the name of the log or the result.
    """

    def __init__(
        self,
        command: str,
        arguments: Sequence[str],
        *,
        settings: Mapping[str, Any],
        inputs: Sequence[str],
        log: str | None = None,
        result: str | None = None,
        syslog: bool = False,
    ) -> None:
        self.has_result = result is not None
        self._result, self._log, self._syslog = result, _open_log(log), syslog
        if result is not None:
            _check_ours(result, RESULT)
            check_output(result, overwrite=True)
        self._began, self._cpu, self._last = time.perf_counter(), _cpu_seconds(), -PROGRESS_SECONDS
        self._notes: list[str] = []
        self._values: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None
        self._about = {
            "command": command,
            "arguments": list(arguments),
            "settings": dict(settings),
            "inputs": [describe_input(path) for path in inputs],
            "versions": versions(),
            "host": socket.gethostname(),
            "started": _now(),
        }
        self._emit("start", schema=LOG, pid=os.getpid(), **self._about)
        self._tell_syslog("info", f"{command} started")

    def progress(self, label: str, done: int, total: int, unit: str) -> None:
        """At most one line per second, and always the last step."""
        now = time.perf_counter()
        if self._log is not None and (now - self._last >= PROGRESS_SECONDS or done == total):
            self._last = now
            self._emit("progress", task=label, done=done, total=total, unit=unit)

    def note(self, text: str) -> None:
        """Record a note that a person is told, too."""
        self._notes.append(text)
        self._emit("note", message=text)

    def add(self, values: Mapping[str, Any]) -> None:
        """More of what the command found: counts, fractions, figures."""
        self._values.update(values)

    def fail(self, error: BaseException) -> None:
        """Record the error that stopped the run; :meth:`end` follows with the exit code."""
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        self._error = {"kind": type(error).__name__, "message": visible(said)}
        self._emit("error", **self._error)
        self._tell_syslog("error", self._error["message"])

    def end(self, exit_code: int) -> None:
        """Write the last line of the log, and the result."""
        from gpu_tomoclass.device import peak_bytes

        outcome = {
            "status": STATUS.get(exit_code, "failed"),
            "exit_code": exit_code,
            "ended": _now(),
            "seconds": round(time.perf_counter() - self._began, 3),
            "cpu_seconds": round(_cpu_seconds() - self._cpu, 3),
            "peak_memory_bytes": peak_bytes(),
            "outputs": [
                {"path": os.path.abspath(path), "bytes": _size(path), "volume": describe_output(path)}
                for path in outputs_made()
                if os.path.lexists(path)  # not what a run wrote for itself and removed
            ],
            "values": self._values,
        }
        self._emit("end", **outcome)
        if self._log is not None:
            self._log.close()
        self._tell_syslog("info", f"{self._about['command']} ended: {outcome['status']}, exit code {exit_code}")
        if self._result is not None:
            content = {"schema": RESULT, **self._about, **outcome, "notes": self._notes, "error": self._error}
            write_json(self._result, content, overwrite=True)

    def _emit(self, event: str, **content: Any) -> None:
        if self._log is not None:
            line = json.dumps({"time": _now(), "event": event, **content})
            with writing(self._log.name):
                self._log.write(line + "\n")
                self._log.flush()  # who follows the file sees it now

    def _tell_syslog(self, level: str, text: str) -> None:
        if self._syslog:
            import syslog

            syslog.openlog("gpu-tomoclass", syslog.LOG_PID)
            syslog.syslog(syslog.LOG_ERR if level == "error" else syslog.LOG_INFO, text.replace("\n", " "))


def versions() -> dict[str, str]:
    """Of this program, Python, the system, and the libraries on which values depend, as far as they are installed."""
    named = {"gpu_tomoclass": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            named[name] = metadata.version(name)
    return named


def describe_input(path: str) -> dict[str, Any]:
    """Name, size, time and fingerprint of an input, by which one file is told from another.

    The fingerprint is the SHA-256 of the size and of 1 MiB at the beginning, the middle and the end of a file; of a
    folder, that of the names and sizes of its files. It does not see a byte that changed elsewhere.
    """
    file = path if os.path.lexists(path) else path.partition("::")[0]
    try:
        status = os.stat(file)
        digest = hashlib.sha256()
        size = status.st_size
        if os.path.isdir(file):
            listing = sorted((str(p.relative_to(file)), p.stat().st_size) for p in Path(file).rglob("*") if p.is_file())
            size = sum(n for _, n in listing)
            digest.update(json.dumps(listing).encode())
        else:
            digest.update(str(size).encode())
            with open(file, "rb") as content:
                for offset in (0, max(0, size // 2 - PIECE // 2), max(0, size - PIECE)):
                    content.seek(offset)
                    digest.update(content.read(PIECE))
    except OSError as error:  # the command itself says what is wrong with it
        return {"path": path, "problem": error.strerror or str(error)}
    modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
    return {"path": os.path.abspath(path), "bytes": size, "modified": modified, "fingerprint": digest.hexdigest()}


def describe_output(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Shape, type, voxel size and classes of a volume that was written; None for anything else."""
    from gpu_tomoclass.volumes import is_written, open_any_channel

    if not is_written(path) or not os.path.lexists(path):
        return None
    try:
        with open_any_channel(path) as volume:
            return {
                "shape": list(volume.shape),
                "dtype": volume.dtype.name,
                "voxel_size_nm": None if volume.voxel_size is None else list(volume.voxel_size),
                "classes": {str(c.value): c.name for c in volume.classes},
            }
    except TomoclassError:  # a table or a folder with such a name
        return None


def settings_of(context: click.Context, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all parameters: numbers and choices as they are, what has a notation of ours as it was written."""
    settings = {}
    for parameter in context.command.params:
        name = parameter.name
        if name is None or name not in context.params:
            continue
        value = context.params[name]
        if type(parameter.type).__module__.startswith("gpu_tomoclass") and value is not None:
            source = context.get_parameter_source(name)
            if source == ParameterSource.COMMANDLINE:
                value = raw[name]
            elif source == ParameterSource.ENVIRONMENT:
                value = parameter.value_from_envvar(context)
            elif (default := parameter.to_info_dict().get("default")) is not None:
                value = default
        settings[name] = list(value) if isinstance(value, tuple) else value
    return settings


def _open_log(path: str | None) -> TextIO | None:
    if path is None:
        return None
    refuse_inputs(path)
    if os.path.lexists(path):
        _check_ours(path, LOG)
    with writing(path):
        return open(path, "a", encoding="utf-8")  # closed by end()


def _check_ours(path: str, schema: str) -> None:
    """Raise DataError for a file that an earlier run did not write: only those are continued or replaced."""
    if not os.path.lexists(path) or os.path.getsize(path) == 0:
        return
    problem = DataError("exists already and is not of an earlier run", where=path, do="choose another name")
    if not os.path.isfile(path):
        raise problem
    try:
        with open(path, encoding="utf-8") as file:
            text = file.readline(1 << 20) if schema == LOG else file.read()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        raise problem from None
    if not isinstance(content, dict) or content.get("schema") != schema:
        raise problem


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _size(path: str | os.PathLike[str]) -> int | None:
    try:
        return folder_bytes(path) if os.path.isdir(path) else os.path.getsize(path)
    except OSError:
        return None
