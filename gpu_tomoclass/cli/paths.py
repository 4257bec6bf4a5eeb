"""Paths on the command line: what is read is protected, what is written is claimed."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import claim, protect


class InputPath(click.ParamType):
    """A file or folder that the command reads: nothing that it writes may take its place."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        protect(value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class OutputPath(click.ParamType):
    """A file or folder that the command writes; no two may be the same, and the folder around it must be there: one
    that is not is misspelt more often than meant."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        folder = os.path.dirname(os.path.abspath(os.fspath(value).rstrip("/\\")))
        if not os.path.lexists(folder) and not os.path.isfile(os.path.dirname(folder)):
            raise UsageError(
                "cannot be made: its folder does not exist", where=value, do=f"correct the name, or make {folder}"
            )
        claim(value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]
