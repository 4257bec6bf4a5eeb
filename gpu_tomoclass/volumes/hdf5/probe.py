"""Open HDF5 files in a process of their own first: libhdf5 believes what it reads.

Most of an HDF5 file's structure has no checksum. Some kinds of damage in it (seen: in attributes and in the index of
chunks) make the library read or write where it must not, which ends the process (a napari session with its unsaved
strokes, a batch of a hundred volumes), or go round in a circle for ever. So everything that opening does with the
library is done in a helper process first, which has a limit of computing time; if it dies, the file is an error like
any other. The helper starts with the first HDF5 file (half a second), serves this process as long as it lives, and ends
with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from gpu_tomoclass.errors import DataError

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
    "from gpu_tomoclass.volumes.hdf5 import probe, reader\n"
    "probe.serve(reader.open_hdf5)"
)
CPU_SECONDS = 120  # for one file; ten million chunks are listed in a tenth of it
_XCPU = 24  # the signal of a process that has used its time; signal.SIGXCPU is not on every system
_inside = False  # whether this is the helper process


class _Helper:
    """The process, started when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()
        self._passed: set[str] = set()

    def check(self, file_name: str, request: dict[str, Any]) -> None:
        """Raise DataError if opening ends the process; each file with each request is tried once."""
        status = os.stat(file_name)
        key = json.dumps([os.path.realpath(file_name), status.st_size, status.st_mtime_ns, request])
        with self._lock:
            if key in self._passed:
                return
            code = self._ask(request)
            if code:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                what = f"ends the process that does it ({how})" if code != -_XCPU else "goes round in a circle"
                raise DataError(
                    f"is damaged: reading its structure {what}",
                    where=file_name,
                    do="copy or export it again",
                )
            self._passed.add(key)

    def _ask(self, request: dict[str, Any]) -> int:
        """0, or how the process ended."""
        process = self._running()
        if process is None:  # a machine where no process can be started: as without the helper
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answered = process.stdout.readline()
        except BrokenPipeError:
            answered = b""
        except BaseException:  # Ctrl-C: the answer would be taken for that of the next file
            self.stop()
            raise
        if answered:
            return 0
        code = process.wait()
        self.stop()
        return code

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            command = [sys.executable, "-c", _CODE, json.dumps(sys.path)]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            try:
                self._process = subprocess.Popen(command, start_new_session=True, **pipes)
            except OSError:
                return None
            self._owner = os.getpid()
            assert self._process.stdout is not None
            if not self._process.stdout.readline():  # it could not even import this
                self.stop()
        return self._process

    def stop(self) -> None:
        """End the process, if it is ours."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


_helper = _Helper()
atexit.register(_helper.stop)


def check_survives(path: str, **options: Any) -> None:
    """Raise DataError if :func:`gpu_tomoclass.volumes.hdf5.reader.open_hdf5` ends the process that calls it.

    Every other fault is left for the caller to find again.
    """
    file_name = path.partition("::")[0]
    if not _inside and os.path.exists(file_name):
        _helper.check(file_name, {"path": os.path.abspath(file_name) + path[len(file_name) :], **options})


def serve(open_file: Callable[..., Any]) -> None:
    """Open by ``open_file`` what is asked for, a line of JSON on stdin each, and answer with a line when it is done."""
    global _inside
    _inside = True
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    answers.write(b"ready\n")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_time()
        with contextlib.suppress(Exception):  # which the caller meets again
            open_file(request.pop("path"), **request)
        answers.write(b"done\n")


def _limit_time() -> None:
    """Let the system end this process when it has computed for too long from now on; waiting for a disk is free."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + CPU_SECONDS, most))
