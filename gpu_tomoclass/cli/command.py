"""A command of ours: options in groups, examples in its help, and no option given twice without a word."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import click

from gpu_tomoclass.errors import TomoclassError

# Where an option stands in the help, by the name of its parameter; what is not listed stands first. A title in
# ONLY_WITH is one of commands with that parameter: the seed of a simulation is no part of a forest.
GROUPS: dict[str, tuple[str, ...]] = {
    "Strokes": ("every", "start", "also", "label_axes", "class_names", "skip_bad_rois", "like"),
    "Features": (
        "features", "sigma_min", "sigma_max", "sigmas", "membrane_thickness", "membrane_patch", "hessian", "gabor",
        "z_sigma",
    ),
    "Forest": ("engine", "n_trees", "max_features", "max_depth", "min_samples_leaf", "balance", "seed"),
    "Reading the volume": (
        "axes", "series", "channel", "allow_missing_planes", "voxel_size", "shape", "dtype",
        "byte_order", "offset", "intensity", "nan", "force",
    ),
    "Where and how to compute": (
        "device_name", "device", "gpu_id", "workers", "slab_planes", "memory_limit", "dask", "cache", "no_cache",
    ),
    "Output": ("output", "probabilities", "uncertainty", "ome_version", "sharded", "portal", "overwrite", "restart",
               "profile", "thumbnail", "sweep", "json_path", "as_json", "quiet", "verbose"),
    "For programs": ("log_json", "result", "syslog"),
}  # fmt: skip
ONLY_WITH = {"Strokes": "every", "Forest": "n_trees"}
PROGRAM = "gpu-tomoclass"
HELP = {
    "help": ("", "All commands, and the pages of the manual"),
    "help quality": ("", "That page; help train, or train --help: a command"),
}
TITLES = 12  # columns of titles
CHECKING = f"{__name__}.checking"  # in a context: nothing will be run
RAW, ARGUMENTS = f"{__name__}.raw", f"{__name__}.arguments"  # in a context: the options as they were written


class Command(click.Command):
    """A click command with ``examples``: command lines without the name of the program."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        from gpu_tomoclass.cli.paths import InputPath, OutputPath

        if any(isinstance(parameter.type, (InputPath, OutputPath)) for parameter in self.params):
            self.params += _for_programs()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return self._parsed(ctx, args)
        except (click.UsageError, TomoclassError):
            if not ctx.resilient_parsing and CHECKING not in ctx.meta:
                self._begin_refused(ctx, given)
            raise

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        raw, _, given = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[RAW], ctx.meta[ARGUMENTS] = raw, list(args)
        for number, option in enumerate(given):
            if _takes_one_value(option) and option in given[:number] and not ctx.resilient_parsing:
                raise click.UsageError(f"{option.opts[-1]} is given twice; give it once", ctx)
        return super().parse_args(ctx, args)

    def _begin_refused(self, ctx: click.Context, args: list[str]) -> None:
        """Let programs hear of a command line that is refused, where it names a log or a result of theirs."""
        asked = {flag: _value_of(flag, args) for flag in ("--log-json", "--result")}
        if not any(asked.values()) or not any(p.name == "result" for p in self.params):
            return
        from gpu_tomoclass.cli.record import begin
        from gpu_tomoclass.cli.run_record import Run

        name = ctx.command_path.removeprefix(PROGRAM).strip()
        with suppress(TomoclassError):  # the file is somebody else's; the first error is the one to tell
            begin(Run(name, args, settings={}, inputs=[], log=asked["--log-json"], result=asked["--result"]))

    def invoke(self, ctx: click.Context) -> Any:
        asked = {name: ctx.params.pop(name, None) for name in ("log_json", "result", "syslog")}
        if not any(asked.values()):
            return super().invoke(ctx)
        from gpu_tomoclass.cli.paths import InputPath
        from gpu_tomoclass.cli.record import begin
        from gpu_tomoclass.cli.run_record import Run, settings_of

        name = ctx.command_path.removeprefix(PROGRAM).strip()
        files = [p.name for p in self.params if isinstance(p.type, InputPath) and ctx.params.get(p.name or "")]
        named = [ctx.params[name] for name in files if name is not None]
        run = Run(
            name,
            ctx.meta[ARGUMENTS],
            settings=settings_of(ctx, ctx.meta[RAW]),
            inputs=[path for value in named for path in ((value,) if isinstance(value, str) else _paths(value))],
            log=asked["log_json"],
            result=asked["result"],
            syslog=bool(asked["syslog"]),
        )
        begin(run)  # ends with the exit code, which is known outside
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        group_of = groups_of(self)
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
        _format_page(ctx, formatter)


class CommandTable(MutableMapping[str, click.Command]):
    """Commands by name, each imported when it is asked for.

    Parameters
    ----------
    package : str
        Where the modules are.
    sections : mapping
        Title -> name of a command -> (its module, what it does, the page that tells more). The command is called as its
        function in the module, with dashes for underscores.
    everyday : collection of str
        The commands that ``--help`` explains; it only names the others.
    """

    def __init__(
        self,
        package: str,
        sections: Mapping[str, Mapping[str, tuple[str, str, str]]],
        *,
        everyday: Collection[str],
    ) -> None:
        self.sections, self.everyday = sections, everyday
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

    def page_of(self, name: str) -> str | None:
        """The page of the manual that tells more of a command."""
        return next((rows[name][2] for rows in self.sections.values() if name in rows), None)

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._loaded


class Group(click.Group):
    """A click group whose commands are of :class:`Command`; those of a :class:`CommandTable` are listed as it says."""

    command_class = Command

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show a command table on one screen; options that every program has are not worth lines of it."""
        if not isinstance(self.commands, CommandTable):
            super().format_help(ctx, formatter)
            return
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        formatter.write_paragraph()
        table = self.commands
        write_sections(formatter, table.sections, only=table.everyday)
        also = [name for rows in table.sections.values() for name in rows if name not in {*table.everyday, "help"}]
        formatter.write(fill(", ".join(also), formatter.width, title="Also"))
        formatter.write_paragraph()
        write_sections(formatter, {"More": HELP})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the whole first sentence of each; click would cut it."""
        rows = [(name, found.get_short_help_str(limit=1000)) for name, found in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _format_page(ctx, formatter)


def groups_of(described: click.Command) -> dict[str, str]:
    """Name of a parameter -> the title under which the help of this command shows it."""
    names = {parameter.name for parameter in described.params}
    titles = [title for title in GROUPS if ONLY_WITH.get(title) in {None, *names}]
    return {name: title for title in titles for name in GROUPS[title]}


def write_sections(
    formatter: click.HelpFormatter,
    sections: Mapping[str, Mapping[str, tuple[str, ...]]],
    *,
    only: Collection[str] | None = None,
) -> None:
    """Write names with a line each, under titles; the line is the second item of a row."""
    shown = {
        title: {name: row[1] for name, row in rows.items() if only is None or name in only}
        for title, rows in sections.items()
    }
    widest = max(len(name) for rows in shown.values() for name in rows)
    margin = max(TITLES, *map(len, shown))
    for title, lines in shown.items():
        for number, (name, line) in enumerate(lines.items()):
            formatter.write(f"  {'' if number else title:<{margin}} {name:<{widest}}  {line}".rstrip() + "\n")


def fill(text: str, width: int, *, title: str) -> str:
    """Wrap words beside a title, as :func:`write_sections` has it."""
    margin = f"  {title:<{max(TITLES, len(title))}} "
    return textwrap.fill(text, width, initial_indent=margin, subsequent_indent=" " * len(margin),
                         break_on_hyphens=False) + "\n"  # fmt: skip


def _format_page(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Name the page that tells more, in the help of a command of the program."""
    table = getattr(ctx.find_root().command, "commands", None)
    name = ctx.command_path.removeprefix(PROGRAM).split()[:1]
    page = table.page_of(*name) if isinstance(table, CommandTable) and name else None
    if page is not None and isinstance(table, CommandTable):
        formatter.write_paragraph()
        formatter.write(f"More: {PROGRAM} help {'--page ' if page in table else ''}{page}\n")


def _for_programs() -> list[click.Parameter]:
    from gpu_tomoclass.cli.paths import OutputPath

    return [
        click.Option(
            ["--log-json"], type=OutputPath(), metavar="FILE", help="Append what happens, a JSON object per line."
        ),
        click.Option(
            ["--result"], type=OutputPath(), metavar="FILE.json", help="Write what came of it, also of a failure."
        ),
        click.Option(["--syslog"], is_flag=True, help="Tell the system's log of start, errors and end."),
    ]


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    """Value of an option in words that may make no sense otherwise; None if it is not there, or twice."""
    found = [word.partition("=")[2] for word in args if word.startswith(f"{flag}=")]
    found += [value for word, value in pairwise(args) if word == flag]
    return found[0] if len(found) == 1 else None


def _paths(value: Any) -> Iterator[str]:
    """The paths in the value of a repeatable option, whose items may be pairs."""
    for item in value:
        yield from (item,) if isinstance(item, str) else _paths(item)


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` for a :class:`Command`."""
    return click.command(name, cls=Command, **attributes)


def group(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """``click.group`` for a :class:`Group`."""
    return click.group(name, cls=Group, **attributes)


def _takes_one_value(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag or parameter.count)
