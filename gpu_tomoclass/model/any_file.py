"""A model from a file of either kind, for windows in which people choose one."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from gpu_tomoclass.model.fiji.classifier import import_fiji_model
from gpu_tomoclass.model.model import MODEL_SUFFIX, Model
from gpu_tomoclass.model.reading import load_model


def model_of_file(path: str | PathLike[str]) -> Model:
    """The model of a file of ours, or of one that Fiji saved.

    What has our ending, or is an archive as our models are, is taken for ours: if it is damaged, that is what is said,
    and not that it is no classifier of Fiji.

    Raises
    ------
    ModelError
        If it cannot be read or used.
    UsageError
        If it does not exist.
    """
    file = Path(path)
    if file.suffix.lower() == MODEL_SUFFIX or (file.is_file() and _begins(file, b"PK\x03\x04")):
        return load_model(file)
    return import_fiji_model(file)


def _begins(file: Path, start: bytes) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(start)) == start
    except OSError:
        return False  # the reader says what is wrong with it
