"""Put the lines of changelog.d into CHANGELOG.md, under the unreleased version: make changelog."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNRELEASED = "(unreleased)\n\n"


def gathered(changelog: str, fragments: list[str]) -> str:
    """The changelog with a dash and a line for each fragment, before the older lines of the unreleased version.

    Raises
    ------
    ValueError
        If the changelog has no unreleased version, or a fragment holds no text.
    """
    head, mark, rest = changelog.partition(UNRELEASED)
    if not mark:
        raise ValueError(f"CHANGELOG.md has no version with {UNRELEASED.strip()!r}")
    if any(not text.strip() for text in fragments):
        raise ValueError("a fragment holds no text")
    lines = ["- " + "\n  ".join(line.strip() for line in text.strip().splitlines()) + "\n" for text in fragments]
    return head + mark + "".join(lines) + rest


def main(root: Path = ROOT) -> int:
    """Gather what is there; returns 0, or 1 where something is wrong."""
    files = sorted(path for path in (root / "changelog.d").glob("*.md") if path.name != "README.md")
    changelog = root / "CHANGELOG.md"
    try:
        text = gathered(changelog.read_text(encoding="utf-8"), [path.read_text(encoding="utf-8") for path in files])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    changelog.write_text(text, encoding="utf-8")
    for path in files:
        path.unlink()
    print(f"{len(files)} changes put into CHANGELOG.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
