"""Training rows as Fiji's Trainable Weka Segmentation saves them (ARFF), read and written.

The part of ARFF that TWS uses: numeric attributes, one nominal class attribute at the end, comma-separated rows, ``?``
for a missing value. Weka prints numbers with at most six decimals, so its ARFF is lossy: a value below 5e-7 becomes 0.
Weka reads more digits than it prints, so ours need not be.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import BinaryIO

import numpy as np

from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.outputs import atomic, check_output

# What TWS 4 writes and checks for when it loads rows.
TWS_RELATION = "TWS-2D-v4.0.0-grayscale"
TWS_3D_RELATION = "TWS-3D-v4.0.0-grayscale"
MIXED_RELATION = "planes-and-volumes-grayscale"  # for features that TWS does not have together
OLD_RELATION = "segment"  # by which TWS's window knows classifiers of its version 3.2.24 and before

_ROWS_AT_ONCE = 4096
_FEW_ROWS = 5
_EPSILON = 2.0**-23  # float32 holds a number to half of this part of it
_SMALL = 1e-3  # channels below this everywhere have at most three significant digits left
_TOKEN = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,'\"{}]+"
_ATTRIBUTE = re.compile(rf"@attribute\s+({_TOKEN})\s+(.+)", re.IGNORECASE)
_LAST_VALUE = re.compile(rf"(.*),\s*({_TOKEN})\s*")
_TRAILING_ZEROS = re.compile(r"\.0{6},|0+,")  # behind exactly six decimals
# weka.core.Utils.quote: what makes a name need quotes (and any other blank), and what is escaped inside.
_NEEDS_QUOTES = re.compile(r"[\s,{}%'\"\\\x00-\x1f]|^\??$")
_ESCAPES = {"\\": "\\\\", "'": "\\'", '"': '\\"', "\t": "\\t", "\n": "\\n", "\r": "\\r", "%": "\\%", "\x1e": "\\u001E"}


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """Feature values of labelled pixels.

    Attributes
    ----------
    values : numpy.ndarray
        (n, n_channels) float32; NaN where missing.
    label : numpy.ndarray
        (n,) uint8, 1..k: class ``class_names[label - 1]``.
    channels : tuple of str
        Channel names, as TWS spells them.
    class_names : tuple of str
    relation : str
        The name that the file gives itself: TWS and its version, 2D or 3D.
    notes : list of str
    path : str
        Of the file, for messages.
    """

    values: np.ndarray
    label: np.ndarray
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    relation: str = TWS_RELATION
    notes: list[str] = field(default_factory=list)
    path: str = ""


def pooled_tables(tables: Sequence[TrainingTable]) -> TrainingTable:
    """The rows of several tables, one after the other, with the channels and classes in the order of the first.

    Raises
    ------
    DataError
        If the channels, the classes or the kinds of the tables differ; names the file.
    """
    first, *others = tables
    values, labels, notes = [first.values], [first.label], list(first.notes)
    for other in others:
        if sorted(other.channels) != sorted(first.channels):
            differing = sorted(set(other.channels) ^ set(first.channels))
            raise DataError(f"has other channels than {first.path}, such as {differing[0]}", where=other.path)
        if sorted(other.class_names) != sorted(first.class_names):
            raise DataError(
                f"has classes {', '.join(other.class_names)}, {first.path} has {', '.join(first.class_names)}",
                where=other.path,
            )
        if other.relation != first.relation:
            raise DataError(f"is of {other.relation!r}, {first.path} of {first.relation!r}", where=other.path)
        values.append(other.values[:, [other.channels.index(name) for name in first.channels]])
        number = np.array([0, *(1 + first.class_names.index(name) for name in other.class_names)], np.uint8)
        labels.append(number[other.label])
        notes += other.notes
    if not others:
        return first
    pooled = np.concatenate(values), np.concatenate(labels)
    return replace(first, values=pooled[0], label=pooled[1], notes=notes, path=", ".join(t.path for t in tables))


def match_channels(table: TrainingTable, channels: Sequence[str]) -> np.ndarray:
    """Columns of the table in the order of ``channels``: ``table.values[:, match_channels(table, channels)]``.

    Returns
    -------
    numpy.ndarray
        (n_channels,) int64 permutation.

    Raises
    ------
    ModelError
        If the names are not exactly the same set; the differences are listed.
    """
    column = {name: i for i, name in enumerate(table.channels)}
    wanted = set(channels)
    missing = [name for name in channels if name not in column]
    unknown = [name for name in table.channels if name not in wanted]
    if missing or unknown or len(channels) != len(wanted):
        text = f"the table has {len(table.channels)} channels, {len(channels)} are expected"
        for what, names in (("missing", missing), ("not expected", unknown)):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                text += f"; {what}: {', '.join(names[:5])}{more}"
        order = next((i for i, (a, b) in enumerate(zip(table.channels, channels, strict=False)) if a != b), None)
        if order is not None:
            text += f"; first difference at channel {order}: {table.channels[order]} instead of {channels[order]}"
        raise ModelError(text, do="use the feature settings that the table was made with")
    return np.array([column[name] for name in channels], dtype=np.int64)


def load_arff(path: str | PathLike[str]) -> TrainingTable:
    """Read training rows from an ARFF file.

    Raises
    ------
    UsageError
        If there is no such file.
    DataError
        If the file is not such an ARFF (the line is named) or holds fewer than two classes.
    """
    path = fspath(path)
    try:
        with open(path, "rb") as file:
            return _read(file, path)
    except FileNotFoundError as error:
        raise UsageError("does not exist", where=path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path) from error


def _read(file: BinaryIO, path: str) -> TrainingTable:
    lines = _content(file)
    relation, channels, class_names, data_line = _header(lines, path)
    value_of = {name: i for i, name in enumerate(class_names, start=1)}
    values: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    rows: list[tuple[int, str]] = []
    for number, line in lines:
        rows.append((number, line))
        if len(rows) == _ROWS_AT_ONCE:
            _parse(rows, len(channels), value_of, path, values, labels)
            rows = []
    if rows:
        _parse(rows, len(channels), value_of, path, values, labels)
    if not labels:
        raise DataError(f"has no rows after @data (line {data_line})", where=path)
    label = np.concatenate(labels)
    table = TrainingTable(np.concatenate(values), label, channels, class_names, relation, path=path)
    _add_notes(table, path)
    return table


def _add_notes(table: TrainingTable, path: str) -> None:
    counts = np.bincount(table.label, minlength=len(table.class_names) + 1)[1:]
    used = np.flatnonzero(counts)
    if used.size < 2:
        what = f"has rows of one class only: {counts[used[0]]} of '{table.class_names[used[0]]}'"
        raise DataError(what, where=path, do="training needs two classes")
    few = [f"{name}: {n}" for name, n in zip(table.class_names, counts.tolist(), strict=True) if n < _FEW_ROWS]
    if few:
        table.notes.append(f"classes with very few rows: {', '.join(few)}")
    largest = np.nanmax(np.abs(np.nan_to_num(table.values)), axis=0)
    small = [name for name, v in zip(table.channels, largest.tolist(), strict=True) if v < _SMALL]
    millionths = np.nan_to_num(table.values[:, largest < _SMALL]).astype(np.float64) * 1e6
    has_six_decimals = (np.abs(millionths - np.rint(millionths)) <= _EPSILON * np.abs(millionths)).all()
    if small and has_six_decimals:
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        table.notes.append(
            f"ARFF keeps six decimals; these channels are below {_SMALL} everywhere, so little of them is left: "
            f"{', '.join(small[:5])}{more}"
        )


def _content(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of the lines that are neither blank nor comments."""
    for number, raw in enumerate(file, start=1):
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)  # which Windows editors put first
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            line = raw.decode("latin-1").strip()  # TWS before 4 wrote in the encoding of the computer
        if line and not line.startswith("%"):
            yield number, line


def _header(lines: Iterator[tuple[int, str]], path: str) -> tuple[str, tuple[str, ...], tuple[str, ...], int]:
    """Relation, channel names, class names, line number of @data."""
    relation: str | None = None
    channels: list[str] = []
    class_names: tuple[str, ...] = ()
    for number, line in lines:
        keyword = line.split(None, 1)[0].lower()
        if relation is None and keyword != "@relation":
            raise DataError(f"line {number} is not @relation: this is no ARFF file", where=path)
        if keyword == "@relation":
            relation = _unquote(line[len(keyword) :].strip())
        elif keyword == "@attribute":
            match = _ATTRIBUTE.fullmatch(line)
            if match is None:
                raise DataError(f"line {number}: attribute cannot be read: {line[:60]}", where=path)
            name, kind = _unquote(match[1]), match[2].strip()
            if class_names:
                raise DataError(
                    f"line {number}: attribute '{name}' comes after the class, which must be last", where=path
                )
            if kind.startswith("{"):
                class_names = _nominal(kind, number, path)
            elif kind.lower() in ("numeric", "real", "integer"):
                channels.append(name)
            else:
                raise DataError(f"line {number}: attribute '{name}' is of type {kind}, not numeric", where=path)
        elif keyword == "@data":
            if not class_names or not channels:
                raise DataError("has no class attribute or no channels before @data", where=path)
            if len(set(channels)) != len(channels):
                twice = next(name for name in channels if channels.count(name) > 1)
                raise DataError(f"has the attribute '{twice}' twice", where=path)
            return relation or "", tuple(channels), class_names, number
        else:
            raise DataError(f"line {number}: unknown declaration {keyword[:40]}", where=path)
    raise DataError("ends before @data: the file is truncated or no ARFF file", where=path)


def _nominal(kind: str, number: int, path: str) -> tuple[str, ...]:
    """Class names of ``{'class 1','class 2'}``."""
    if not re.fullmatch(rf"\{{\s*(?:{_TOKEN})(?:\s*,\s*(?:{_TOKEN}))*\s*\}}", kind):
        raise DataError(f"line {number}: classes cannot be read: {kind[:60]}", where=path)
    # TWS trims class names when it loads them.
    names = tuple(_unquote(token).strip() for token in re.findall(_TOKEN, kind[1:-1]))
    if len(names) > 255 or len(set(names)) != len(names):
        raise DataError(f"line {number}: {len(names)} classes, more than 255 or some of them equal", where=path)
    return names


def _parse(
    rows: Sequence[tuple[int, str]],
    n_channels: int,
    value_of: dict[str, int],
    path: str,
    values: list[np.ndarray],
    labels: list[np.ndarray],
) -> None:
    """Append the values and labels of some rows; a bad row is a DataError that names its line."""
    label = np.empty(len(rows), dtype=np.uint8)
    numbers: list[str] = []
    for i, (number, line) in enumerate(rows):
        match = _LAST_VALUE.fullmatch(line)
        if line.startswith("{") or match is None:
            what = "a sparse row" if line.startswith("{") else "no comma-separated row with a class at its end"
            raise DataError(f"line {number} is {what}: {line[:40]}", where=path)
        name = _unquote(match[2]).strip()
        if name not in value_of:
            raise DataError(f"line {number} has class '{name[:40]}', not one of {', '.join(value_of)}", where=path)
        label[i] = value_of[name]
        numbers.append(match[1].replace("?", "nan"))
    try:
        block = np.loadtxt(numbers, delimiter=",", dtype=np.float64, ndmin=2, comments=None)
    except ValueError:
        block = np.empty((0, 0))
    if block.shape != (len(rows), n_channels):
        raise DataError(_first_bad_row(rows, numbers, n_channels), where=path)
    values.append(block.astype(np.float32))
    labels.append(label)


def _first_bad_row(rows: Sequence[tuple[int, str]], numbers: Sequence[str], n_channels: int) -> str:
    for (number, _), line in zip(rows, numbers, strict=True):
        fields = line.split(",")
        if len(fields) != n_channels:
            return f"line {number} has {len(fields)} values and a class; the header declares {n_channels} channels"
        for i, text in enumerate(fields):
            try:
                float(text)
            except ValueError:
                return f"line {number}: value {i + 1} is '{text[:40]}', not a number"
    return "holds numbers that cannot be read"


def _unquote(token: str) -> str:
    """weka.core.Utils.unquote and unbackQuoteChars."""
    if len(token) < 2 or token[0] not in "'\"" or token[-1] != token[0]:
        return token
    back = {escaped: plain for plain, escaped in _ESCAPES.items()}
    return re.sub(r"\\u001E|\\.", lambda m: back.get(m[0], m[0][1:]), token[1:-1])


def _quote(name: str) -> str:
    """weka.core.Utils.quote: quotes only where they are needed."""
    if not _NEEDS_QUOTES.search(name):
        return name
    return "'" + "".join(_ESCAPES.get(c, c) for c in name) + "'"


def check_arff_target(path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse before hours of training what :func:`save_arff` would refuse after them.

    Raises
    ------
    UsageError
        If the name does not end in ``.arff``.
    DataError
        If it exists and ``overwrite`` is not set.
    """
    if not fspath(path).lower().endswith(".arff"):
        raise UsageError("a file of training rows ends in .arff", where=fspath(path))
    check_output(path, overwrite=overwrite)


def save_arff(path: str | PathLike[str], table: TrainingTable, *, exact: bool = False, overwrite: bool = False) -> None:
    """Write a table so that Weka and TWS load it.

    Parameters
    ----------
    path : str or path
    table : TrainingTable
    exact : bool
        Nine significant digits, from which every float32 comes back, instead of the bytes that TWS writes for the same
        values: six decimals at most. (Beyond about 1e15 the last digits that Java prints depend on its version; the
        number read back does not.)
    overwrite : bool

    Raises
    ------
    UsageError
        If the table holds infinite values, which Weka cannot read, or two classes of one name.
    DataError, ResourceError
        If the file exists (without ``overwrite``) or cannot be written.
    """
    if np.isinf(table.values).any():
        raise UsageError("infinite feature values cannot be written to an ARFF file", where=fspath(path))
    if len({name.strip() for name in table.class_names}) != len(table.class_names):
        raise UsageError(
            f"classes of one name cannot be told apart: {', '.join(table.class_names)}", where=fspath(path)
        )
    numbers = _exact_numbers if exact else _numbers
    classes = [_quote(name) for name in table.class_names]
    header = [f"@relation {_quote(table.relation)}", ""]
    header += [f"@attribute {_quote(name)} numeric" for name in table.channels]
    header += [f"@attribute class {{{','.join(classes)}}}", "", "@data", ""]
    with (
        atomic(path, overwrite=overwrite) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write("\n".join(header))
        for row, label in zip(table.values, table.label.tolist(), strict=True):
            file.write(numbers(row) + classes[label - 1] + "\n")


def _numbers(row: np.ndarray) -> str:
    """Comma-separated numbers as Weka 3.9 prints them: up to six decimals, half rounded away from zero, ? for NaN."""
    wide = row.astype(np.float64)
    # Only odd multiples of 1/128 lie half-way between two six-digit decimals; C would round those to even.
    half = np.abs(wide) * 128 % 2 == 1
    wide[half] = np.nextafter(wide[half], np.copysign(np.inf, wide[half]))
    text = ("%.6f," * wide.size) % tuple(wide.tolist())
    return _TRAILING_ZEROS.sub(",", text).replace("nan,", "?,")


def _exact_numbers(row: np.ndarray) -> str:
    """Comma-separated numbers of nine significant digits, ? for NaN."""
    return (("%.9g," * row.size) % tuple(row.tolist())).replace("nan,", "?,")
