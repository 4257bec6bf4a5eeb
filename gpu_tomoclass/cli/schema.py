"""Print JSON schemas: of a command's parameters, of the log and of the result."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click

from gpu_tomoclass.cli.command import GROUPS, PROGRAM, Command, command
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.run_record import LOG, RESULT, STATUS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
FILE_SIZE: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}


@command(
    short_help="Print what a command takes as JSON schema",
    examples=("schema classify", "schema model import", "schema result"),
)
@click.argument("names", nargs=-1, metavar="[COMMAND|log|result]")
@click.pass_context
def schema(context: click.Context, names: tuple[str, ...]) -> None:
    """Print a JSON schema: of the parameters of COMMAND (a portal can show it as a form), of the log, of the result.

    Without a name: the names.
    """
    commands = _commands(context.find_root().command)
    name = " ".join(names)
    if not name:
        click.echo("\n".join([*commands, "log", "result"]))
    elif name in ("log", "result"):
        click.echo(json.dumps(log_schema() if name == "log" else result_schema(), indent=2))
    elif name in commands:
        click.echo(json.dumps(parameter_schema(name, commands[name]), indent=2))
    else:
        raise click.UsageError(f"there is no command {name!r}; without a name the names are printed", context)


def parameter_schema(name: str, described: click.Command) -> dict[str, Any]:
    """Arguments and options of a command as a JSON schema; ``x-flag``, ``x-group``, ``x-path`` are for forms."""
    group_of = {option: title for title, options in GROUPS.items() for option in options}
    properties, required = {}, []
    for parameter in described.params:
        if parameter.name is None:
            continue
        entry = _type_of(parameter)
        entry["description"] = getattr(parameter, "help", None) or f"{parameter.human_readable_name}"
        entry["x-flag"] = parameter.opts[-1] if isinstance(parameter, click.Option) else "argument"
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
