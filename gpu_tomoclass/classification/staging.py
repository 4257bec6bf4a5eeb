"""The unfinished output of a run: it survives any interruption, and the same command goes on with it.

Beside an output ``labels.tif`` lies the folder ``labels.tif.partial`` with one OME-Zarr store per product (labels,
probabilities, ..), ``run.json`` (what the run is), ``done.jsonl`` (one line per finished slab, with a checksum of every
plane) and ``lock``. Planes are written to the stores in any order. When all are done the outputs get their names: a
store becomes the output itself where that is OME-Zarr, else it is copied plane by plane into a TIFF or MRC file.

Only planes whose line can be parsed and whose stored values have the checksum of that line count as done, so a torn
line, a half-written chunk or lost writes cost those planes and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpu_tomoclass.classification.slab import KNOWN_PRODUCTS, Product, Slab
from gpu_tomoclass.errors import DataError, ModelError, ResourceError
from gpu_tomoclass.outputs import check_overwrite, commit, discard, temporary_name, writing
from gpu_tomoclass.volumes import Node, VoxelSize, ZarrArray, ZarrStore, create_volume, open_volume, read_node

RUN, JOURNAL, LOCK = "run.json", "done.jsonl", "lock"
MODEL = "model.tcm"  # for workers elsewhere, see cluster.py


@dataclass
class _Line:
    """What the journal says of one slab."""

    start: int
    stop: int
    crc: dict[str, list[int]]
    notes: list[str] = field(default_factory=list)


class Staging:
    """The unfinished output of one run; use it in a ``with`` block, which holds the lock.

    Parameters
    ----------
    output : path
        The first product's final name; the folder is called after it.
    products : sequence of Product
    shape : tuple of int
        (nz, ny, nx).
    run : mapping
        JSON that tells this run from any other: model, input, settings. A run that was interrupted is resumed only if
        its own is equal.
    voxel_size : tuple of float, optional
        (z, y, x) in nm.
    metadata : mapping, optional
        Kept with each product.
    format_options : mapping, optional
        Of :func:`gpu_tomoclass.volumes.opening.create_volume`: ``ome_version``, ``sharded``.
    overwrite : bool
        Whether final names that exist may be replaced, at the end.
    restart : bool
        Throw an interrupted run away instead of resuming it.

    Attributes
    ----------
    done : numpy.ndarray
        (nz,) bool: planes that are finished.
    notes : list of str
        Those recorded with finished planes.
    owner : str
        What the lock says of who holds it.

    Raises
    ------
    DataError
        If an output exists and must not be replaced.
    ModelError
        If the interrupted run was another one; names what differs.
    ResourceError
        If another process works on the same output, or the folder cannot be written.
    """

    def __init__(
        self,
        output: str | PathLike[str],
        products: Sequence[Product],
        *,
        shape: tuple[int, int, int],
        run: Mapping[str, Any],
        voxel_size: VoxelSize | None = None,
        metadata: Mapping[str, Any] | None = None,
        format_options: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        restart: bool = False,
    ) -> None:
        self.output, self.products, self.shape = fspath(output).rstrip("/\\"), tuple(products), shape
        self.run = json.loads(json.dumps(dict(run)))
        self._voxel_size, self._metadata = voxel_size, dict(metadata or {})
        self._format_options = dict(format_options or {})
        self._overwrite, self._restart = overwrite, restart
        self.folder = Path(f"{self.output}.partial")
        self.done = np.zeros(shape[0], dtype=np.bool_)
        self.notes: list[str] = []
        self.owner = ""
        self._stores: dict[str, ZarrStore] = {}
        self._nodes: dict[str, Node] = {}
        self._journal: IO[bytes] | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Staging:
        with self._stack:
            resumes = (self.folder / RUN).is_file() and not self._restart
            if not resumes:
                self._check_targets()
            with writing(self.output):
                self.folder.mkdir(parents=True, exist_ok=True)
                self.owner = self._stack.enter_context(locked(self.folder / LOCK, what=self.output))
            if resumes:
                self._check_same_run()
                self._open_stores()
                self._read_journal()
            else:
                self._begin()
            self._journal = self._stack.enter_context(self._open_journal())
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if not self.done.any():  # nothing worth keeping
            self._remove()

    @property
    def n_done(self) -> int:
        return int(self.done.sum())

    def write(self, slab: Slab) -> None:
        """Store a slab and note it in the journal.

        Raises
        ------
        ResourceError
            If the disk is full; what was finished before is kept.
        """
        self.record(slab.start, self.store(slab), notes=slab.notes)

    def store(self, slab: Slab) -> dict[str, list[int]]:
        """Write the planes of a slab to the stores; the checksum of each plane of each product."""
        with writing(self.output):
            return store_slab(self._stores, slab)

    def holds(self, start: int, crc: Mapping[str, Sequence[int]]) -> bool:
        """Whether the stored planes from ``start`` on have these checksums."""
        return all(
            self._stored_checksum(name, start + i) == value
            for name, values in crc.items()
            for i, value in enumerate(values)
        )

    def record(self, start: int, crc: Mapping[str, Sequence[int]], *, notes: Sequence[str] = ()) -> None:
        """Note stored planes as finished."""
        stop = start + len(next(iter(crc.values())))
        line = {"start": start, "stop": stop, "crc": {k: list(v) for k, v in crc.items()}, "notes": list(notes)}
        assert self._journal is not None
        with writing(self.output):
            self._journal.write(json.dumps(line).encode() + b"\n")
            self._journal.flush()
        self.done[start:stop] = True
        self.notes.extend(notes)

    def plane(self, product: str, z: int) -> np.ndarray:
        """A finished plane, from the store or, where finishing was interrupted, from the output itself."""
        if product in self._stores:
            return self._stores[product].read(z)
        (path,) = (p.path for p in self.products if p.name == product)
        with open_volume(path) as volume:
            return volume.plane(z)

    def finish(self) -> list[str]:
        """Give every product its final name and remove the folder; the names of all files made.

        Raises
        ------
        ResourceError
            If the disk is too small; everything is kept, and the same command tries again.
        """
        assert self.done.all()
        outputs: list[str] = []
        for store in self._stores.values():
            store.remove_torn_files()  # of a process elsewhere that was killed while it wrote
        for product in self.products:
            outputs += self._finish_product(product)
        self._remove()
        return outputs

    def _remove(self) -> None:
        """The folder goes in one step; what a kill leaves of it under the other name, the next run removes."""
        hidden = temporary_name(self.output)
        with contextlib.suppress(OSError):
            os.rename(self.folder, hidden)
        discard(hidden)

    def _finish_product(self, product: Product) -> list[str]:
        folder = self.folder / product.name
        if not folder.exists():  # an earlier attempt to finish got as far as this
            return [product.path]
        marker = self.folder / f"{product.name}.assembled"
        overwrite = self._overwrite or marker.exists()
        check_overwrite(product.path, overwrite=overwrite, folder=product.is_zarr)
        if product.is_zarr and not self._format_options.get("sharded"):
            with writing(product.path):
                self._stores[product.name].add_levels(Path(product.path).name, self._voxel_size, product.classes)
            commit(folder, product.path, keep_on_error=True)
            return [product.path]
        options = self._format_options if product.is_zarr else {}
        with create_volume(
            product.path,
            shape=self.shape,
            dtype=product.dtype,
            voxel_size=self._voxel_size,
            classes=product.classes,
            channels=product.channels,
            metadata=self._metadata,
            overwrite=overwrite,
            **options,
        ) as writer:
            for z in range(self.shape[0]):
                writer.write_plane(z, self._stores[product.name].read(z))
            with writing(product.path):
                marker.touch()  # from here on a file of the final name is ours
        outputs = list(writer.outputs())
        removed = folder.with_name(f"{product.name}.finished")  # in one step: half a store could not be opened
        os.rename(folder, removed)
        shutil.rmtree(removed, ignore_errors=True)
        return outputs

    def _check_targets(self) -> None:
        for product in self.products:
            check_overwrite(product.path, overwrite=self._overwrite, folder=product.is_zarr)

    def _begin(self) -> None:
        """Empty stores, and last the file that says that they are whole."""
        with writing(self.output):
            entries = [entry for entry in self.folder.iterdir() if entry.name != LOCK]
            endings = ("", ".assembled", ".finished")
            ours = {
                RUN,
                JOURNAL,
                f"{RUN}.new",
                MODEL,
                *(name + ending for name in KNOWN_PRODUCTS for ending in endings),
            }
            if foreign := sorted(entry.name for entry in entries if entry.name not in ours):
                raise DataError(
                    f"holds files that are not of an interrupted run: {', '.join(foreign[:3])}",
                    where=self.folder,
                    do="move them away, or choose another output",
                )
            for entry in entries:
                discard(entry)
            for product in self.products:
                folder = self.folder / product.name
                folder.mkdir()
                self._stores[product.name] = ZarrStore.create(
                    folder,
                    name=Path(product.path).name,
                    shape=self.shape,
                    dtype=product.dtype,
                    voxel_size=self._voxel_size,
                    classes=product.classes,
                    channels=product.channels,
                    metadata=self._metadata,
                    ome_version=self._format_options.get("ome_version", "0.4"),
                )
            temporary = self.folder / f"{RUN}.new"
            temporary.write_text(json.dumps(self.run, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.folder / RUN)

    def _check_same_run(self) -> None:
        file = self.folder / RUN
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"the interrupted run cannot be read: {error}", where=file, do="use --restart to begin anew"
            ) from error
        differences = [
            f"{name} was {_short(then)}, is {_short(now)}" for name, then, now in _differences(before, self.run)
        ]
        if differences:
            raise ModelError(
                f"holds an interrupted run of another kind: {'; '.join(differences[:4])}",
                where=self.folder,
                do="repeat the earlier command to finish it, use --restart to throw it away, or name another output",
            )

    def _open_stores(self) -> None:
        for product in self.products:
            folder = self.folder / product.name
            if folder.exists():
                node = read_node(folder / "0")
                if node is None:
                    raise DataError("the interrupted run is damaged", where=folder, do="use --restart to begin anew")
                self._nodes[product.name] = node
                store = self._stores[product.name] = ZarrStore.open(folder)
                store.remove_torn_files()

    def _read_journal(self) -> None:
        """Believe a line only where what is stored has its checksums."""
        if not self._stores:  # all products have their final names already
            self.done[:] = True
            return
        for line in self._lines():
            for z in range(line.start, line.stop):
                self.done[z] = all(
                    self._stored_checksum(name, z) == crc[z - line.start]
                    for name, crc in line.crc.items()
                    if name in self._stores
                )
            if self.done[line.start : line.stop].all():
                self.notes.extend(line.notes)

    def _stored_checksum(self, product: str, z: int) -> int | None:
        """By our own reader: the library reads a missing chunk as zeros."""
        if product not in self._nodes:
            node = read_node(self.folder / product / "0")
            assert node is not None
            self._nodes[product] = node
        array = ZarrArray(self._nodes[product])
        start, stop = [0] * len(array.shape), list(array.shape)
        start[-3], stop[-3] = z, z + 1
        try:
            return checksum(array.region(start, stop))
        except (DataError, OSError):
            return None

    def _lines(self) -> Iterator[_Line]:
        try:
            text = (self.folder / JOURNAL).read_bytes()
        except FileNotFoundError:
            return
        names = {product.name for product in self.products}
        for raw in text.split(b"\n"):
            try:
                line = _Line(**json.loads(raw))
                n = line.stop - line.start
                is_whole = set(line.crc) == names and all(len(crc) == n for crc in line.crc.values())
                if is_whole and 0 <= line.start < line.stop <= self.shape[0]:
                    yield line
            except (ValueError, TypeError):
                continue  # torn by a crash

    def _open_journal(self) -> IO[bytes]:
        with writing(self.output):
            journal = open(self.folder / JOURNAL, "ab")  # noqa: SIM115  (closed by the stack)
            if journal.tell():
                journal.write(b"\n")  # a torn last line must not swallow the next one
            return journal


def store_slab(stores: Mapping[str, ZarrStore], slab: Slab) -> dict[str, list[int]]:
    """Write the planes of a slab to the store of each product; the checksum of each plane of each product."""
    for name, values in slab.values.items():
        stores[name].write(slab.start, values)
    return {
        name: [checksum(values[..., i, :, :]) for i in range(values.shape[-3])] for name, values in slab.values.items()
    }


def checksum(plane: np.ndarray) -> int:
    """CRC-32 of the values of a plane, the same on every machine."""
    little = plane.astype(plane.dtype.newbyteorder("<"), copy=False)
    return zlib.crc32(np.ascontiguousarray(little).data)


@contextlib.contextmanager
def locked(file: Path, *, what: str) -> Iterator[str]:
    """Hold a lock that the system releases when this process ends, however it ends; what it says of the holder.

    Raises
    ------
    ResourceError
        If another process holds it; says which.
    """
    import fcntl

    with open(file, "a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read(500).decode(errors="replace").strip() or "another process"
            raise ResourceError(
                f"is being written by {owner}", where=what, do="wait for it, or choose another output"
            ) from None
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        handle.truncate(0)
        handle.write(holder.encode())
        handle.flush()
        os.fsync(handle.fileno())  # workers on other machines read it
        yield holder


def _differences(then: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield name, then, now


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
