"""Shape of the small volume of the stream tests, and what a folder holds, byte by byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

SHAPE = (12, 24, 21)


def digest(path: Path) -> dict[str, str]:
    """A hash of every file at or below ``path``, by relative name."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(f.relative_to(path.parent)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
