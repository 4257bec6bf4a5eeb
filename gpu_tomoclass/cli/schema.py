"""Print JSON schemas of a command's parameters, of the log and of the result; check parameters that a form has."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Mapping
from typing import Any

import click

from gpu_tomoclass.cli.command import CHECKING, PROGRAM, Command, command, groups_of
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.run_record import LOG, RESULT, STATUS
from gpu_tomoclass.errors import UsageError

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
FILE_SIZE: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}


@command(
    short_help="Print what a command takes as JSON schema",
    examples=("schema classify", "schema model import", "schema result", "schema classify --check form.json"),
)
@click.argument("names", nargs=-1, metavar="[COMMAND|log|result]")
@click.option("--check", type=InputPath(), metavar="FILE.json",
              help="Check parameters, also those of a --result, and print the command line that they are.")  # fmt: skip
@click.pass_context
def schema(context: click.Context, names: tuple[str, ...], check: str | None) -> None:
    """Print a JSON schema: of the parameters of COMMAND (a portal can show it as a form), of the log, of the result.

    Without a name: the names.
    """
    commands = _commands(context.find_root().command)
    name = " ".join(names)
    if check is not None:
        if name not in commands:
            raise click.UsageError("--check needs the name of a command", context)
        words = arguments_of(commands[name], _parameters(check), where=check)
        parent = context.find_root()
        context.meta[CHECKING] = True
        for group in names[:-1]:
            parent = click.Context(parent.command.commands[group], info_name=group, parent=parent)  # type: ignore[attr-defined]
        commands[name].make_context(names[-1], list(words), parent=parent)  # refuses what the command would refuse
        click.echo(shlex.join([PROGRAM, *names, *words]))
    elif not name:
        click.echo("\n".join([*commands, "log", "result"]))
    elif name in ("log", "result"):
        click.echo(json.dumps(log_schema() if name == "log" else result_schema(), indent=2))
    elif name in commands:
        click.echo(json.dumps(parameter_schema(name, commands[name]), indent=2))
    else:
        raise click.UsageError(f"there is no command {name!r}; without a name the names are printed", context)


def parameter_schema(name: str, described: click.Command) -> dict[str, Any]:
    """Arguments and options of a command as a JSON schema; ``x-`` is for forms, see docs/facility.md."""
    group_of = groups_of(described)
    properties, required = {}, []
    for parameter in described.params:
        if parameter.name is None:
            continue
        entry = _type_of(parameter)
        entry["description"] = getattr(parameter, "help", None) or f"{parameter.human_readable_name}"
        entry["x-flag"] = parameter.opts[-1] if isinstance(parameter, click.Option) else "argument"
        if parameter.secondary_opts:
            entry["x-flag-off"] = parameter.secondary_opts[-1]
        entry["x-group"] = group_of.get(parameter.name, "Options" if isinstance(parameter, click.Option) else "Inputs")
        default = parameter.to_info_dict().get("default")
        if isinstance(default, (bool, int, float, str)) and not parameter.required:
            entry["default"] = default
        properties[parameter.name] = entry
        if parameter.required:
            required.append(parameter.name)
    return {
        "$schema": DRAFT,
        "title": f"{PROGRAM} {name}",
        "description": inspect.cleandoc(described.help or ""),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def arguments_of(described: click.Command, parameters: Mapping[str, Any], *, where: str) -> list[str]:
    """Words of a command line that mean these parameters; None and what is left out are defaults.

    Parameters
    ----------
    described : click.Command
    parameters : mapping
        As :func:`parameter_schema` describes them: name -> value.
    where : str
        The file that they are from, for errors.

    Raises
    ------
    UsageError
        If the command has no parameter of a name, or a value cannot be one.
    """
    known = {parameter.name: parameter for parameter in described.params}
    if unknown := sorted(parameters.keys() - known.keys()):
        raise UsageError(f"{unknown[0]!r} is no parameter of {described.name}", where=where)
    options, arguments = [], []
    for name, value in parameters.items():
        parameter = known[name]
        if value is None:
            continue
        values = list(value) if getattr(parameter, "multiple", False) and isinstance(value, list) else [value]
        for one in values:
            several = one if parameter.nargs != 1 and isinstance(one, list) else [one]
            if not all(isinstance(item, (str, int, float)) for item in several):
                raise UsageError(f"{name} cannot be {value!r}", where=where)
            words = [str(item) for item in several]
            if isinstance(parameter, click.Argument):
                arguments += words
            elif parameter.is_flag:  # type: ignore[attr-defined]
                if not isinstance(one, bool):
                    raise UsageError(f"{name} is true or false, not {one!r}", where=where)
                options += [parameter.opts[-1]] if one else list(parameter.secondary_opts[-1:])
            elif len(words) == 1 and parameter.opts[-1].startswith("--"):
                options.append(f"{parameter.opts[-1]}={words[0]}")  # a value may begin with a dash
            else:
                options += [parameter.opts[-1], *words]
    return [*options, "--", *arguments] if any(word.startswith("-") for word in arguments) else [*arguments, *options]


def _parameters(path: str) -> dict[str, Any]:
    """Parameters in a file, or the settings in the result of a run."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=path, do="correct the name") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is no JSON ({error})", where=path, do="give an object of names and values") from error
    if isinstance(content, dict) and content.get("schema") == RESULT:
        content = content.get("settings")
    if not isinstance(content, dict):
        raise UsageError("holds no parameters", where=path, do="give an object of names and values")
    return content


def result_schema() -> dict[str, Any]:
    """Of the file that ``--result`` writes."""
    return _object(
        {"schema": {"const": RESULT}, **_about(), **_outcome(), "notes": _list(TEXT), "error": _or_none(_error())},
        title="What came of a run",
    )


def log_schema() -> dict[str, Any]:
    """Of each line that ``--log-json`` writes."""
    progress = {"task": TEXT, "done": COUNT, "total": COUNT, "unit": TEXT}
    events: dict[str, dict[str, Any]] = {
        "start": {"schema": {"const": LOG}, "pid": COUNT, **_about()},
        "progress": progress,
        "note": {"message": TEXT},
        "error": {"kind": TEXT, "message": TEXT},
        "end": _outcome(),
    }
    lines = [
        _object({"time": {"type": "string", "format": "date-time"}, "event": {"const": name}, **content})
        for name, content in events.items()
    ]
    return {"$schema": DRAFT, "title": "One line of a log", "oneOf": lines}


def _about() -> dict[str, Any]:
    stated = {"path": TEXT, "bytes": COUNT, "modified": {"type": "string", "format": "date-time"}, "fingerprint": TEXT}
    inputs = _list({"oneOf": [_object(stated), _object({"path": TEXT, "problem": TEXT})]})
    return {
        "command": TEXT,
        "arguments": _list(TEXT),
        "settings": {"type": "object"},
        "inputs": inputs,
        "versions": {"type": "object", "additionalProperties": TEXT},
        "host": TEXT,
        "started": {"type": "string", "format": "date-time"},
    }


def _outcome() -> dict[str, Any]:
    return {
        "status": {"enum": [*STATUS.values(), "failed"]},
        "exit_code": COUNT,
        "ended": {"type": "string", "format": "date-time"},
        "seconds": NUMBER,
        "cpu_seconds": NUMBER,
        "peak_memory_bytes": FILE_SIZE,
        "outputs": _list(_object({"path": TEXT, "bytes": FILE_SIZE, "volume": _or_none(_volume())})),
        "values": {"type": "object"},
    }


def _volume() -> dict[str, Any]:
    sizes = _or_none({"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3})
    return _object(
        {
            "shape": _list(COUNT),
            "dtype": TEXT,
            "voxel_size_nm": sizes,
            "classes": {"type": "object", "additionalProperties": TEXT},
        }
    )


def _error() -> dict[str, Any]:
    return _object({"kind": TEXT, "message": TEXT})


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"$schema": DRAFT} if more else {}
    return {
        **head, **more, "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_none(content: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [content, {"type": "null"}]}


def _type_of(parameter: click.Parameter) -> dict[str, Any]:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        entry: dict[str, Any] = {"enum": list(kind.choices)}
    elif isinstance(kind, click.types.BoolParamType):
        entry = {"type": "boolean"}
    elif isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        entry = {"type": "integer" if isinstance(kind, click.types.IntParamType) else "number"}
        if isinstance(kind, (click.IntRange, click.FloatRange)):
            entry |= {} if kind.min is None else {"exclusiveMinimum" if kind.min_open else "minimum": kind.min}
            entry |= {} if kind.max is None else {"exclusiveMaximum" if kind.max_open else "maximum": kind.max}
    else:
        entry = dict(TEXT)
        if isinstance(kind, (InputPath, OutputPath)):
            entry["x-path"] = "read" if isinstance(kind, InputPath) else "written"
        elif kind.name != "text":
            entry["x-notation"] = kind.name
    several = parameter.nargs != 1
    if several:
        entry = _list(entry)
    if getattr(parameter, "multiple", False):
        entry = _list(entry)
    plain_flag = entry.get("type") == "boolean" and parameter.to_info_dict().get("default") is not None
    if not parameter.required and "type" in entry and entry["type"] != "array" and not plain_flag:
        entry["type"] = [entry["type"], "null"]
    elif not parameter.required and "enum" in entry:
        entry["enum"] = [*entry["enum"], None]
    return entry


def _commands(root: click.Command) -> dict[str, click.Command]:
    """Every command by its whole name."""
    found: dict[str, click.Command] = {}
    commands = getattr(root, "commands", {})
    for name in commands:
        inner = commands[name]
        if isinstance(inner, Command):
            found[name] = inner
        found |= {f"{name} {below}": command for below, command in _commands(inner).items()}
    return found
