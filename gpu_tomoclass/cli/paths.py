"""Paths on the command line: what is read is protected, what is written is claimed."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

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
    """A file or folder that the command writes; no two may be the same."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        claim(value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]
