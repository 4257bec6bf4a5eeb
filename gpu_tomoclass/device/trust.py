"""Checks that only we can change a file: what we load as a program must come from a place that only we can write."""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

NOBODY = 65534  # owner of what a user namespace (a container) has no name for, such as the host's root


def stranger(folder: Path) -> str | None:
    """Why somebody else could put a file into ``folder`` or replace a folder above it; None if nobody can.

    From the root down, every folder, and every link on the way, must belong to root or to us and be writable by nobody
    else. A group in which we are alone counts as us. In a sticky folder such as ``/tmp`` others cannot touch what is
    ours.
    """
    place = Path(os.path.abspath(folder))
    for path in (*reversed(place.parents), place):
        if path.is_symlink() and path.lstat().st_uid not in owners():
            return f"{path} is somebody else's link"
    place = Path(os.path.realpath(place))
    for path in (*reversed(place.parents), place):
        status = path.stat()
        if status.st_uid not in owners():
            return f"{path} belongs to somebody else"
        by_others = status.st_mode & stat.S_IWOTH or (
            status.st_mode & stat.S_IWGRP and not is_private_group(status.st_gid)
        )
        if by_others and (path == place or not status.st_mode & stat.S_ISVTX):
            return f"others may write into {path}"
    return None


def is_ours(status: os.stat_result) -> bool:
    """Tell whether a file is a plain one that only we (or root) can have written."""
    by_others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not is_private_group(status.st_gid))
    return stat.S_ISREG(status.st_mode) and status.st_uid in owners() and not by_others


@cache
def owners() -> frozenset[int]:
    """Root, us, and within a user namespace those whom it cannot name."""
    try:
        mapped = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        mapped = []
    inside = bool(mapped) and mapped != ["0", "0", "4294967295"]
    return frozenset({0, os.getuid(), *({NOBODY} if inside else ())})


@cache
def is_private_group(group: int) -> bool:
    """Tell whether a group holds nobody but us: many systems give each user one, of the user's name."""
    try:
        import grp
        import pwd

        entry, me = grp.getgrgid(group), pwd.getpwuid(os.getuid())
    except (ImportError, KeyError):
        return False
    return group == me.pw_gid and entry.gr_name == me.pw_name and set(entry.gr_mem) <= {me.pw_name}


def is_usable(folder: Path) -> bool:
    """Create the folder; True if files can be made in it and nobody else can put one there."""
    return reason_against(folder) is None


def reason_against(folder: Path) -> str | None:
    """Create the folder; None if it is usable, else why files cannot be made in it or who else could put one there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
        problem = stranger(folder) if os.name == "posix" else None
    except OSError as error:
        return f"it cannot be written ({error.strerror or error})"
    return None if problem is None else with_remedy(problem)


def with_remedy(problem: str) -> str:
    """A sentence of :func:`stranger` with the command that mends it, where we may give it."""
    _, found, folder = problem.partition("others may write into ")
    mends = found and Path(folder).stat().st_uid == os.getuid()
    return f"{problem} (mended by: chmod go-w {folder})" if mends else problem


def temporary_folder() -> Path:
    """One folder per user, so that the next process finds what is in it; a fresh one if that name is taken."""
    shared = Path(tempfile.gettempdir()) / f"gpu_tomoclass-{os.getuid() if os.name == 'posix' else 'user'}"
    if is_usable(shared):
        return shared
    return Path(tempfile.mkdtemp(prefix="gpu_tomoclass-"))
