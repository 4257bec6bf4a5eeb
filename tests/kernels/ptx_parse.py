"""PTX text to instructions: the part of the language that NVRTC writes for kernels without calls."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np

TYPE = re.compile(r"^(?:[busf](?:8|16|32|64)|pred)$")
# After these a basic block ends.
BRANCHES = frozenset({"bra", "ret", "exit", "bar", "barrier", "trap"})


class PtxError(RuntimeError):
    """What a GPU would do wrong silently, or what this interpreter does not know."""


@dataclass(frozen=True)
class Instruction:
    """``@!%p1 op.mods a, b, c;``"""

    text: str
    op: str
    mods: tuple[str, ...]
    types: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str | None
    guard_negated: bool

    def space(self, *known: str) -> str:
        """The state space among ``known`` that a memory instruction names, or ``generic``."""
        return next((m for m in self.mods if m.partition("::")[0] in known), "generic").partition("::")[0]


@dataclass(eq=False)
class PtxKernel:
    """One entry: its parameters (name to bytes), code, and declared memory (name to offset and bytes)."""

    name: str
    parameters: dict[str, int]
    max_threads: int | None
    cluster: int = 1  # blocks along x
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    register_types: dict[str, str] = field(default_factory=dict)
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)
    given: int | None = None  # where the shared memory begins whose size a launch says
    local: dict[str, tuple[int, int]] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    block_ends: dict[int, int] = field(default_factory=dict)

    def register_type(self, register: str) -> str:
        found = self.register_types.get(register)
        return found if found is not None else self.register_types[register.rstrip("0123456789")]

    def has_narrow_shared_access(self) -> bool:
        return any("shared" in c.mods and c.types and c.types[-1][1:] in ("8", "16") for c in self.code)


@cache
def dtype_of(ptx_type: str) -> np.dtype:
    """numpy's dtype of a PTX type; untyped bits are unsigned integers."""
    if ptx_type == "pred":
        return np.dtype(bool)
    kind = {"b": "u", "u": "u", "s": "i", "f": "f"}[ptx_type[0]]
    return np.dtype(f"{kind}{int(ptx_type[1:]) // 8}")


@lru_cache(maxsize=64)
def parse_ptx(text: str) -> dict[str, PtxKernel]:
    """All kernels of a PTX module by name."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    constants = _constants(text)
    kernels = {}
    for match in re.finditer(r"\.entry\s+([\w$]+)\s*\((.*?)\)\s*([^{]*)\{", text, flags=re.S):
        name, parameters, directives = match.groups()
        limit = re.search(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", directives)
        threads = int(np.prod([int(n or 1) for n in limit.groups()])) if limit else None
        blocks = re.search(r"\.reqnctapercluster\s+(\d+)", directives)
        kernel = PtxKernel(name, _parameters(parameters), threads, int(blocks[1]) if blocks else 1, constants=constants)
        for declaration in re.finditer(r"^\s*(?:\.extern\s+)?\.shared[^;]*;", text[: match.start()], flags=re.M):
            _declare(declaration[0].strip(), kernel.shared)
        kernel.given = next((start for start, size in kernel.shared.values() if not size), None)
        end, depth = match.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        for statement in re.split(r"(?<=;)|(?<=:)\s|\n", text[match.end() : end - 1]):
            if statement.strip():
                _read_statement(kernel, statement.strip())
        _find_blocks(kernel)
        kernels[name] = kernel
    return kernels


@lru_cache(maxsize=4096)
def split_operands(text: str) -> tuple[str, ...]:
    """Split at commas that are not within brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return (*parts, current.strip()) if current.strip() else tuple(parts)


def _constants(text: str) -> dict[str, np.ndarray]:
    constants = {}
    pattern = (
        r"\.(?:global|const)\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?\s*(?:=\s*(\{[^}]*\}|[^;]+))?;"
    )
    for match in re.finditer(pattern, text):
        values = np.zeros(int(match[3] or 1), dtype_of(match[1]))
        if match[4]:
            numbers = [_number(n.strip(), values.dtype) for n in match[4].strip("{}").split(",") if n.strip()]
            values[: len(numbers)] = numbers
        constants[match[2]] = values
    return constants


def _number(text: str, dtype: np.dtype) -> np.generic:
    value = literal(text)
    if value is not None:
        return value.astype(dtype)
    return (
        np.array(int(text, 0) & (2 ** (8 * dtype.itemsize) - 1), np.uint64).astype(f"u{dtype.itemsize}").view(dtype)[()]
    )


def literal(text: str) -> np.generic | None:
    """A floating-point literal (``0f3F800000``, ``0d...``), or None."""
    if text[:2] in ("0f", "0F"):
        return np.frombuffer(bytes.fromhex(text[2:])[::-1], np.float32)[0]
    if text[:2] in ("0d", "0D") and len(text) == 18:
        return np.frombuffer(bytes.fromhex(text[2:])[::-1], np.float64)[0]
    return None


def _parameters(text: str) -> dict[str, int]:
    parameters = {}
    for part in text.split(","):
        match = re.match(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+).*?([\w$]+)(?:\[(\d+)\])?$", part.strip(), flags=re.S)
        if match:
            parameters[match[2]] = int(match[1][1:]) // 8 * int(match[3] or 1)
    return parameters


def _declare(line: str, table: dict[str, tuple[int, int]]) -> None:
    """``.shared .align 4 .b8 name[128];``"""
    match = re.match(
        r"(?:\.extern\s+)?\.(?:shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?", line
    )
    if match is None or (match[4] == "" and not line.startswith(".extern")):
        raise PtxError(f"memory of unknown size: {line}")
    alignment = int(match[1] or 16)
    size = 0 if match[4] == "" else int(match[2][1:]) // 8 * int(match[4] or 1)
    offset = max((start + length for start, length in table.values()), default=0)
    table[match[3]] = (-(-offset // alignment) * alignment, size)


def _read_statement(kernel: PtxKernel, line: str) -> None:
    label = re.match(r"^(\$?[\w$]+):\s*(.*)$", line)
    if label and not line.startswith("."):
        kernel.labels[label[1]] = len(kernel.code)
        line = label[2]
    line = re.sub(r"^\{\s+", "", line)  # a scope of its own, for registers of one name and type
    if line.startswith(".reg"):
        _, kind, names = line.split(None, 2)
        for name in names.rstrip(";").split(","):
            kernel.register_types[name.strip().partition("<")[0]] = kind.lstrip(".")
    elif line.startswith(".shared"):
        _declare(line, kernel.shared)
    elif line.startswith(".local"):
        _declare(line, kernel.local)
    elif line and not line.startswith(".") and line not in "{}":
        kernel.code.append(_instruction(line))


def _instruction(line: str) -> Instruction:
    guard = re.match(r"^@(!?)(%\w+)\s+(.*)$", line)
    rest = guard[3] if guard else line
    head, _, operands = rest.rstrip(";").strip().replace("\t", " ").partition(" ")
    op, *mods = head.strip().split(".")
    return Instruction(
        text=line,
        op=op,
        mods=tuple(mods),
        types=tuple(m for m in mods if TYPE.match(m)),
        operands=split_operands(operands.strip()),
        guard=guard[2] if guard else None,
        guard_negated=bool(guard and guard[1]),
    )


def _find_blocks(kernel: PtxKernel) -> None:
    """For each instruction that can be jumped to: where the straight run that begins there ends."""
    n = len(kernel.code)
    leaders = {0, n, *kernel.labels.values()}
    leaders |= {i + 1 for i, c in enumerate(kernel.code) if c.op in BRANCHES}
    ordered = sorted(leaders)
    kernel.block_ends = dict(pairwise(ordered))
