"""HyperSpy's Zarr stores (``.zspy``): where the signal is, and what stands beside it about its axes."""

from __future__ import annotations

from typing import Any

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.hyperspy import SIGNALS, signal_axes
from gpu_tomoclass.volumes.ome_zarr.array import Node, read_node


def hyperspy_signal(group: Node) -> Node | None:
    """The array of the one signal in a HyperSpy store; None for other groups.

    Raises
    ------
    DataError
        If it holds several, which are listed.
    """
    signals = group.folder / SIGNALS
    if not signals.is_dir() or signals.is_symlink():
        return None
    found = []
    for folder in sorted(signals.iterdir()):
        data = folder / "data"
        node = read_node(data) if data.is_dir() and not folder.is_symlink() and not data.is_symlink() else None
        if node is not None and node.is_array:
            found.append(node)
    if len(found) > 1:
        listed = ", ".join(f"{node.folder.parent.name} ({node.content.get('shape')})" for node in found)
        raise DataError(
            f"holds {len(found)} signals: {listed}", where=group.folder, do=f"name one, as {found[0].folder}"
        )
    return found[0] if found else None


def hyperspy_axes(
    array: Node, n_axes: int, notes: list[str]
) -> tuple[list[str] | None, list[float | None], list[float | None]] | None:
    """Names, sizes and origins of the axes, see :func:`gpu_tomoclass.volumes.hyperspy.signal_axes`; None elsewhere."""
    attributes: list[dict[str, Any]] = []
    for axis in range(n_axes):
        folder = array.folder.parent / f"axis-{axis}"
        node = read_node(folder) if folder.is_dir() and not folder.is_symlink() else None
        if node is None:
            return None
        attributes.append(node.attributes)
    try:
        return signal_axes(attributes)
    except (IndexError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        notes.append(f"what the file says about its axes is damaged and was ignored: {error}")
        return None
