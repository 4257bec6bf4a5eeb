"""Make the README one that PyPI can show: its links and pictures name files that only the repository holds."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = "https://github.com/gpu-tomoclass/gpu_tomoclass/blob/main/"
PICTURES = "https://raw.githubusercontent.com/gpu-tomoclass/gpu_tomoclass/main/"
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)")


class Readme(MetadataHookInterface):
    """Hatchling asks for the README when it builds a package."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        whole = LINK.sub(lambda link: f"{link[1]}{link[2]}({PICTURES if link[1] else PAGES}{link[3]})", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": whole}
