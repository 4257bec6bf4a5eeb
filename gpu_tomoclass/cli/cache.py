"""Commands about what is kept between runs: cache info, cache clear."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.command import group
from gpu_tomoclass.cli.options import json_option
from gpu_tomoclass.cli.paths import OutputPath
from gpu_tomoclass.cli.terminal import show_notes, table

if TYPE_CHECKING:
    from gpu_tomoclass.device import LibraryCache
    from gpu_tomoclass.features import FeatureCache

folder_option = click.option(
    "--cache", "folder", type=OutputPath(), metavar="FOLDER", help="Of computed features, as given to train."
)


@group(short_help="Show or clear what is kept between runs")
def cache() -> None:
    """Show or clear what is kept between runs: computed features and compiled kernels.

    Features take at most 20 GiB and kernels 1 GiB; what was not used for longest goes first. Both can be computed
    again at any time.
    """


@cache.command(examples=("cache info",))
@folder_option
@json_option
def info(folder: str | None, as_json: bool) -> None:
    """Say where the caches are, what they take and what they may take."""
    from gpu_tomoclass.outputs import size_text

    features, kernels = _caches(folder)
    found: dict[str, Any] = {}
    for name, place in (("features", features), ("kernels", kernels)):
        sizes = [path.stat().st_size for path in place.entries()]
        found[name] = {"folder": str(place.folder), "entries": len(sizes), "bytes": sum(sizes), "limit": place.limit}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [("", "entries", "size", "at most", "folder")]
    for name, about in found.items():
        size, limit = size_text(about["bytes"]), size_text(about["limit"])
        rows.append((name, str(about["entries"]), size, limit, about["folder"]))
    click.echo(table(rows))
    show_notes([*features.notes, *kernels.notes])


@cache.command(examples=("cache clear --only kernels",))
@folder_option
@click.option("--only", type=click.Choice(["features", "kernels"]), help="Leave the other as it is.")
def clear(folder: str | None, only: str | None) -> None:
    """Remove computed features and compiled kernels; a run that uses them goes on."""
    from gpu_tomoclass.outputs import size_text

    features, kernels = _caches(folder)
    places: tuple[tuple[str, FeatureCache | LibraryCache], ...] = (("features", features), ("kernels", kernels))
    for name, place in places:
        if only in (None, name):
            size = sum(path.stat().st_size for path in place.entries())
            place.clear()
            click.echo(f"{name}: {size_text(size)} removed from {place.folder}")


def _caches(folder: str | None) -> tuple[FeatureCache, LibraryCache]:
    from gpu_tomoclass.device import LibraryCache
    from gpu_tomoclass.features import FeatureCache, default_cache_folder

    return FeatureCache(folder if folder is not None else default_cache_folder()), LibraryCache()
