"""The CUDA sources: where they are, their text and their fingerprint.

In a checkout and an editable install they lie at the top level, in a wheel inside the package.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gpu_tomoclass.errors import ResourceError


@dataclass(frozen=True)
class KernelSource:
    """One ``.cu`` file.

    Attributes
    ----------
    file : str
        Its name within the folder, such as ``"forest.cu"``.
    text : str
        Its text behind a ``#line`` directive, so that compilers report ``kernels/forest.cu`` and the line in it.
    digest : str
        Hexadecimal fingerprint of the text.
    """

    file: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()


def kernels_folder() -> Path:
    """The folder of the ``.cu`` files.

    Raises
    ------
    ResourceError
        If it is nowhere: the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "README.md").is_file():
            return folder
    raise ResourceError("the CUDA sources are missing", where=package, do="install gpu_tomoclass again")


def kernel_source(file: str, *, folder: Path | None = None) -> KernelSource:
    """Read one CUDA source.

    Parameters
    ----------
    file : str
        Name of the file, such as ``"forest.cu"``.
    folder : pathlib.Path, optional
        Where to look instead of :func:`kernels_folder` (the tests have kernels of their own).

    Raises
    ------
    ResourceError
        If there is no such file.
    """
    path = (kernels_folder() if folder is None else folder) / file
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"the CUDA source cannot be read ({error.strerror})", where=path, do="install gpu_tomoclass again"
        ) from error
    return KernelSource(file, f'#line 1 "kernels/{file}"\n{text}')
