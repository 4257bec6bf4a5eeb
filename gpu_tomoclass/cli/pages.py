"""Pages of the manual: where they are, their names, their titles.

They are the pages of the documentation. In a checkout and an editable install these lie at the top level, in a wheel
inside the package, as the CUDA sources do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpu_tomoclass.errors import ResourceError

SECTIONS = ("use", "large", "reference")  # pages that list others, in the order of the site
ELSEWHERE = {"readme", "api", "changes"}  # listed there, and shown by the site only
FEATURES = "features"


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes
    ----------
    name : str
        By which it is asked for, such as ``"model-file"``.
    section : str
        Title of the section that lists it; "Features" for the page of a family.
    path : pathlib.Path
        Its file.
    """

    name: str
    section: str
    path: Path

    @property
    def text(self) -> str:
        """The Markdown of the site."""
        return self.path.read_text(encoding="utf-8")

    @property
    def title(self) -> str:
        """The heading of the page, plain."""
        return _title(self.path)


def pages_folder() -> Path:
    """The folder of the documentation's pages.

    Raises
    ------
    ResourceError
        If it is nowhere: the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "docs", package.parent / "docs"):
        if (folder / f"{SECTIONS[0]}.md").is_file():
            return folder
    raise ResourceError("the pages of the manual are missing", where=package, do="install gpu_tomoclass again")


def all_pages() -> dict[str, Page]:
    """Pages by name, in the order in which the sections list them; then one for each family of features."""
    folder, found = pages_folder(), {}
    for section in SECTIONS:
        path = folder / f"{section}.md"
        listed = re.search(r"```{toctree}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        for target in re.findall(r"<(.+)>", listed[1] if listed else ""):
            name = target.removesuffix("/index")
            if name not in ELSEWHERE:
                found[name] = Page(name, _title(path), folder / f"{target}.md")
    for path in sorted((folder / FEATURES).glob("*.md")):
        if path.stem != "index":
            found.setdefault(path.stem, Page(path.stem, "Features", path))
    return found


def find_page(words: str) -> Page | None:
    """The page of this name or file; spaces, dashes and underscores are alike."""
    plain = _plain(words.removesuffix(".md").rpartition("/")[2])
    return next((page for name, page in all_pages().items() if _plain(name) == plain), None)


def pages_about(words: str, *, most: int = 3) -> list[str]:
    """Names of the pages that say ``words`` most often, in proportion to their length."""
    shares = {
        page.name: len(re.findall(rf"\b{re.escape(words)}", text, re.IGNORECASE)) / len(text)
        for page in all_pages().values()
        if (text := page.text)
    }
    return sorted((name for name, share in shares.items() if share), key=lambda name: -shares[name])[:most]


def _plain(name: str) -> str:
    return re.sub(r"[ _-]", "", name).lower()


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip().replace("`", "")
