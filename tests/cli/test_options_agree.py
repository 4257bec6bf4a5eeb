"""An option has one meaning, in whatever command it stands."""

from __future__ import annotations

from collections import defaultdict

import click
import pytest

from gpu_tomoclass.cli import cli


def commands(group: click.Group, name: str = "") -> dict[str, click.Command]:
    context, found = click.Context(group), {}
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{name} {word}")
        else:
            found[f"{name} {word}".strip()] = command
    return found


@pytest.mark.parametrize(("option", "apart"), [("--json", {"batch"}), ("--group", set()), ("--folds", set())])
def test_help_is_the_same(option: str, apart: set[str]) -> None:
    texts = defaultdict(list)
    for name, command in commands(cli).items():
        for parameter in command.params:
            if option in parameter.opts and name not in apart:
                assert isinstance(parameter, click.Option)
                texts[parameter.help].append(name)
    assert len(texts) == 1, dict(texts)
    assert len(next(iter(texts.values()))) >= 3
