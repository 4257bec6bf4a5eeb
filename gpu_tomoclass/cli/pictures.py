"""Pictures beside the labels that a command writes: a thumbnail, and a sweep through the planes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gpu_tomoclass.cli.options import F
from gpu_tomoclass.cli.record import wants_result
from gpu_tomoclass.cli.terminal import show_notes

if TYPE_CHECKING:
    from gpu_tomoclass.volumes import Volume


def picture_options(command: F) -> F:
    """Options for pictures: what :func:`pictures_beside` takes."""
    for option in (
        click.option("--sweep", is_flag=True, help="Also draw LABELS_sweep.gif: through the planes."),
        click.option("--thumbnail/--no-thumbnail", default=None,
                     help="Also draw LABELS_thumbnail.png, three sections; default with --result."),
    ):  # fmt: skip
        command = option(command)
    return command


def pictures_beside(
    labels: str, *, thumbnail: bool | None, sweep: bool, overwrite: bool, quiet: bool = False
) -> list[str]:
    """Names of the pictures to draw beside labels; checks that they can be written.

    Parameters
    ----------
    labels : str
        Name of the label volume.
    thumbnail : bool, optional
        Default with ``--result``: a portal shows it. One that exists then stays, with a note.
    """
    from gpu_tomoclass.outputs import check_output
    from gpu_tomoclass.volumes import split_suffix

    stem = split_suffix(labels)[0]
    drawn = f"{stem}_thumbnail.png"
    if thumbnail is None:
        thumbnail = wants_result()
        if thumbnail and os.path.lexists(drawn) and not overwrite:
            show_notes([f"{drawn} exists already and stays; --overwrite draws it anew"], quiet=quiet)
            thumbnail = False
    pictures = [drawn] * thumbnail + [f"{stem}_sweep.gif"] * sweep
    for picture in pictures:
        check_output(picture, overwrite=overwrite)
    return pictures


def draw_pictures(grey: Volume | None, labels: str, pictures: Sequence[str], *, overwrite: bool) -> None:
    """Draw what :func:`pictures_beside` names, over grey values where there are any."""
    from gpu_tomoclass.labels import save_sweep, save_thumbnail
    from gpu_tomoclass.volumes import open_volume

    if not pictures:
        return
    with open_volume(labels) as found:
        for picture in pictures:
            save = save_thumbnail if picture.endswith(".png") else save_sweep
            save(grey, found, picture, overwrite=overwrite)
