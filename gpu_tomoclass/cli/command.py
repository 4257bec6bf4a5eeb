"""A command of ours: options in groups, examples in its help, and no option given twice without a word."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import click

# Where an option stands in the help, by the name of its parameter; what is not listed stands first.
GROUPS: dict[str, tuple[str, ...]] = {
    "Strokes": ("every", "start", "also", "label_axes", "class_names", "skip_bad_rois", "like"),
    "Features": (
        "features", "sigma_min", "sigma_max", "sigmas", "membrane_thickness", "membrane_patch", "hessian", "gabor",
    ),
    "Forest": ("engine", "n_trees", "max_features", "max_depth", "min_samples_leaf", "balance", "seed"),
    "Reading the volume": (
        "axes", "series", "channel", "allow_missing_planes", "voxel_size", "shape", "dtype",
        "byte_order", "offset", "intensity", "nan", "force",
    ),
    "Where and how to compute": (
        "device_name", "gpu_id", "workers", "slab_planes", "memory_limit", "dask", "cache", "no_cache",
    ),
    "Output": ("output", "probabilities", "uncertainty", "ome_version", "sharded", "overwrite", "restart", "profile",
               "json_path", "as_json", "quiet", "verbose"),
}  # fmt: skip
PROGRAM = "gpu-tomoclass"


class Command(click.Command):
    """A click command with ``examples``: command lines without the name of the program."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for number, option in enumerate(given):
            if _takes_one_value(option) and option in given[:number] and not ctx.resilient_parsing:
                raise click.UsageError(f"{option.opts[-1]} is given twice; give it once", ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        group_of = {name: title for title, names in GROUPS.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in GROUPS}}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None and option.name is not None:
                sections[group_of.get(option.name, "Options")].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{PROGRAM} {example}\n")


class CommandTable(MutableMapping[str, click.Command]):
    """Commands by name, each imported when it is asked for.

    Parameters
    ----------
    package : str
        Where the modules are.
    sections : mapping
        Title -> name of a command -> (its module, what it does). The command is called as its function in the module,
        with dashes for underscores.
    """

    def __init__(self, package: str, sections: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
        self.sections = sections
        self._modules = {name: f"{package}.{row[0]}" for rows in sections.values() for name, row in rows.items()}
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            found = getattr(importlib.import_module(self._modules[name]), name.replace("-", "_"))
            self._loaded[name] = found
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are not taken away")

    def __iter__(self) -> Iterator[str]:
        return iter({**self._modules, **self._loaded})

    def __len__(self) -> int:
        return len({**self._modules, **self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._loaded


class Group(click.Group):
    """A click group whose commands are of :class:`Command`; those of a :class:`CommandTable` are listed as it says."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not isinstance(self.commands, CommandTable):
            super().format_commands(ctx, formatter)
            return
        widest = max(map(len, self.commands))
        formatter.write_paragraph()
        formatter.write("Commands:\n")
        for title, rows in self.commands.sections.items():
            for number, (name, (_, summary)) in enumerate(rows.items()):
                formatter.write(f"  {'' if number else title:<12} {name:<{widest}}  {summary}\n")


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` for a :class:`Command`."""
    return click.command(name, cls=Command, **attributes)


def group(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """``click.group`` for a :class:`Group`."""
    return click.group(name, cls=Group, **attributes)


def _takes_one_value(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag or parameter.count)
