"""Hidden names beside a target, under which outputs grow.

A killed run leaves its hidden file behind; the next run with the same target on the same machine removes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gpu_tomoclass.outputs.disk import StrPath


def temporary_name(path: StrPath) -> Path:
    """A hidden name beside ``path`` that nobody else has; what is left there the next run with this target removes."""
    target = Path(path)
    return target.with_name(f".{_stem(target)}.{_owner()}-{os.urandom(4).hex()}.partial")


def _stem(target: Path) -> str:
    """File systems allow 255 bytes for a name: a long target name is cut in the temporary one."""
    return os.fsdecode(os.fsencode(target.name)[:150])


def discard(temporary: StrPath) -> None:
    """Remove a temporary file or folder; silent when it is gone already."""
    path = Path(temporary)
    if path.is_dir() and not path.is_symlink():
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _host() -> str:
    import socket

    return socket.gethostname()[:40]


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


def remove_stale(target: StrPath) -> None:
    """Remove what killed processes of this machine left beside ``target``; a living process keeps its files."""
    for path, ending in leftovers(target):
        if ending == "old" and not os.path.lexists(target):
            os.rename(path, target)  # killed between the two renames of a folder: the old one is still the output
        else:
            discard(path)


def leftovers(target: StrPath) -> Iterator[tuple[Path, str]]:
    """(path, ``"partial"`` or ``"old"``) of what processes of this machine that have ended left beside ``target``."""
    if os.name != "posix":  # elsewhere os.kill(pid, 0) does not merely ask
        return
    target = Path(target)
    start = f".{_stem(target)}.{_host()}-"
    for name in sorted(os.listdir(target.parent)):
        rest, _, ending = name.rpartition(".")
        if not name.startswith(start) or ending not in ("partial", "old"):
            continue
        pid, _, token = rest[len(start) :].partition("-")
        if pid.isdigit() and len(token) == 8 and not _is_running(int(pid)):
            yield target.parent / name, ending


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
