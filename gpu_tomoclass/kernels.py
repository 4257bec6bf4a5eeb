"""Where the CUDA sources are: in a checkout and an editable install at the top level, in a wheel inside the package."""

from __future__ import annotations

from pathlib import Path

from gpu_tomoclass.errors import ResourceError


def kernels_folder() -> Path:
    """The folder of the ``.cu`` files.

    Raises
    ------
    ResourceError
        If it is nowhere: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "README.md").is_file():
            return folder
    raise ResourceError("the CUDA sources are missing", where=package, do="install gpu_tomoclass again")
