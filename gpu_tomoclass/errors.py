"""Errors say what happened, where, and what to do; each kind has the exit code of the command line."""

from __future__ import annotations

import re
from os import PathLike

# Control characters (but tab and newline), what turns the direction of text, and what cannot be seen at all.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Text from a file as it may be shown: characters that would command a terminal become ``\\x1b`` and the like."""
    return _COMMANDS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class TomoclassError(Exception):
    """Base of every error that a user can cause or meet.

    Parameters
    ----------
    what : str
        What happened, with the values found and the values expected.
    where : str or path, optional
        The file, plane, field or option that it happened in; printed first.
    do : str, optional
        What the reader can do about it; printed last.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | PathLike[str] | None = None, do: str | None = None) -> None:
        self.what, self.where, self.do = what, where, do
        message = f"{where}: {what}" if where is not None else what
        super().__init__(f"{message}; {do}" if do else message)


class UsageError(TomoclassError, ValueError):
    """The request makes no sense: an unknown option value, a file that does not exist, a bad combination."""

    exit_code = 2


class DataError(TomoclassError, ValueError):
    """A file is damaged, ambiguous, of a wrong kind, or holds values that cannot be used."""

    exit_code = 3


class ModelError(TomoclassError, ValueError):
    """A model (or labels, or training table) does not fit the data or this version, or is no model."""

    exit_code = 4


class ResourceError(TomoclassError, RuntimeError):
    """Memory, disk, device or permission to write is missing."""

    exit_code = 5


class StoppedError(TomoclassError):
    """The user or the scheduler stopped the run; it can be resumed."""

    exit_code = 6
