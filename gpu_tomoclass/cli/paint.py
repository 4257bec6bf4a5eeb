"""The command with a window: paint, in a browser."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    READING,
    bank_options,
    device_options,
    intensity_option,
    make_bank,
    nan_option,
    open_device,
    overwrite_option,
    quiet_option,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.terminal import show_notes
from gpu_tomoclass.cli.training_options import BANK, FOREST, cache_options, forest_options, open_cache
from gpu_tomoclass.errors import UsageError


@command(
    short_help="Mark, look and correct in a browser",
    examples=(
        "paint volume.tif --class-names vacuum,rubber,silica",
        "paint volume.mrc materials.tcm --every 15",
        "paint volume.tif --no-browser --port 8765",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath(), required=False)
@click.option("--strokes", type=OutputPath(), metavar="STROKES.ome.zarr",
              help="Where strokes are kept, and found again; default beside the volume.")  # fmt: skip
@click.option("--marks", type=InputPath(), multiple=True, metavar="FILE",
              help="Begin with the strokes of a label image or ImageJ ROIs too; repeatable.")  # fmt: skip
@click.option("-o", "--output", type=OutputPath(), metavar="MODEL.tcm",
              help="What Save model writes; default beside the strokes.")  # fmt: skip
@click.option("--labels", type=OutputPath(), metavar="LABELS",
              help="What Classify all writes: .ome.zarr, .tif, .mrc or .nxs; default beside the strokes.")  # fmt: skip
@click.option("--every", type=click.IntRange(1), help="Show every n-th plane only..")
@click.option("--start", type=click.IntRange(0), help="..beginning with this one; default every // 2.")
@click.option("--class-names", metavar="NAME,..", help="Names of the classes 1, 2, ..")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Another address lets other machines in, without encryption; a tunnel is better.")  # fmt: skip
@click.option("--origin", "origins", multiple=True, metavar="https://HOST",
              help="Under which a proxy shows the page, such as JupyterHub's; repeatable.")  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@bank_options
@intensity_option
@nan_option
@forest_options
@volume_options
@cache_options
@device_options
@overwrite_option
@quiet_option
@click.pass_context
def paint(
    context: click.Context,
    /,
    volume: str,
    model: str | None,
    strokes: str | None,
    marks: tuple[str, ...],
    output: str | None,
    labels: str | None,
    every: int | None,
    start: int | None,
    class_names: str | None,
    port: int,
    host: str,
    origins: tuple[str, ...],
    no_browser: bool,
    intensity: str,
    nan: str,
    cache: str | None,
    no_cache: bool,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Paint strokes on planes of VOLUME in a browser, and see at once what a forest makes of them.

    The server runs where the volume is, on a node without a screen too; the browser shows the address that is printed.
    Strokes are kept while they are painted: the same command goes on with them. MODEL is one to begin with. Ctrl-C ends
    it.
    """
    from gpu_tomoclass.interactive import Painter, Session, Targets, listening_socket, origins_of, serve
    from gpu_tomoclass.volumes import open_volume

    reading = {name: options.pop(name) for name in READING}
    forest = {name: options[name] for name in FOREST}
    given = [name for name in BANK if context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT]
    if model is not None and given and "features" not in given:
        raise UsageError(
            "MODEL brings all features or none, and options of features are given",
            do="give --features too, or leave the others out",
        )
    bank = make_bank(**{name: options[name] for name in BANK}) if given else None
    features = options["features"].split(",") if given == ["features"] else bank
    beside = volume.partition("::")[0].rstrip("/\\")
    strokes = strokes or Targets.beside(beside, "_strokes.ome.zarr")
    targets = Targets(
        output or Targets.beside(beside, "_model.tcm"),
        labels or Targets.beside(beside, "_labels.ome.zarr"),
        overwrite,
    )
    names = None if class_names is None else class_names.split(",")
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with (
        listening_socket(host, port) as bound,
        open_volume(volume, **reading) as source,
        Session(
            source, strokes=strokes, model=model, class_names=names,
            features=features, every=every, start=start, intensity=intensity, nan=nan,
            cache=open_cache(cache, no_cache), device=device, **forest,
        ) as session,
    ):  # fmt: skip
        for path in marks:
            session.add_strokes(path, every=every, start=start)
        show_notes([*session.notes, f"strokes are kept in {strokes}"], quiet=quiet)
        port = bound.getsockname()[1]
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host

        def say(token: str) -> None:
            address = f"http://{name}:{port}/?token={token}"
            click.echo(f"open: {address}")
            sys.stdout.flush()
            if not no_browser and host in ("127.0.0.1", "localhost", "::1"):
                _show(address)

        painter = Painter(session, targets, name=os.path.basename(beside))
        try:
            serve(painter, bound=bound, origins=origins_of(host, port, origins), on_new_token=say)
        finally:
            painter.close()
    click.echo(f"strokes: {strokes}")


def _show(address: str) -> None:
    """Open a browser where there is a screen; what it says goes nowhere."""
    import webbrowser

    if os.name == "nt" or sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
