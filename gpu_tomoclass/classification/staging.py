"""The unfinished output of a run: it survives any interruption, and the same command goes on with it.

Beside an output ``labels.tif`` lies the folder ``labels.tif.partial`` with one store per product (labels,
probabilities, ..; ``product_stores.py``), ``run.json`` (what the run is; ``run_folder.py``), ``done.jsonl`` (one line
per finished slab, with a checksum of every plane; ``journal.py``) and ``lock``. Planes are written to the stores in any
order. When all are done the outputs get their names. What can be made of the outputs while planes pass is in
:mod:`gpu_tomoclass.classification.outputs_ahead`.

Only planes whose line can be parsed and whose stored values have the checksum of that line count as done, so a torn
line, a half-written chunk or lost writes cost those planes and nothing else. The checksum of every plane is compared
once more before an output gets its name. The lock is held until the folder is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpu_tomoclass.classification.finished_files import FinishedFiles, checksum
from gpu_tomoclass.classification.journal import add_line, journal_lines, open_journal
from gpu_tomoclass.classification.lock import LOCK, held, holds_lock
from gpu_tomoclass.classification.outputs_ahead import OutputsAhead
from gpu_tomoclass.classification.pipeline import n_writers
from gpu_tomoclass.classification.product_stores import ProductStores, checksums
from gpu_tomoclass.classification.products import Product, check_products
from gpu_tomoclass.classification.run_folder import (
    RUN,
    check_same_run,
    empty_folder,
    finished_before,
    remove_folder,
    write_run,
)
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.errors import DataError, TomoclassError
from gpu_tomoclass.outputs import check_output, publish, refuse_inputs, remove_stale, writing
from gpu_tomoclass.volumes import VolumeWriter, VoxelSize, ZarrStore, create_volume

VERSION = 2  # of what the folder holds


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
        Of :func:`gpu_tomoclass.volumes.opening.create_volume`: ``ome_version``, ``sharded``, ``portal``.
    inputs : iterable of path
        What the outputs are made from; see :func:`gpu_tomoclass.outputs.refuse_inputs`.
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
    UsageError
        If an output is an input.
    DataError
        If an output exists and must not be replaced, or what an interrupted run has left is damaged.
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
        inputs: Iterable[str | PathLike[str]] = (),
        overwrite: bool = False,
        restart: bool = False,
    ) -> None:
        self.output, self.products, self.shape = fspath(output).rstrip("/\\"), tuple(products), shape
        self.run = json.loads(json.dumps({**run, "staging": VERSION}))
        self._voxel_size, self._metadata = voxel_size, dict(metadata or {})
        self._format_options = dict(format_options or {})
        self._inputs, self._overwrite, self._restart = tuple(inputs), overwrite, restart
        self.folder = Path(f"{self.output}.partial")
        self.done = np.zeros(shape[0], dtype=np.bool_)
        self.notes: list[str] = []
        self.owner = ""
        self._stores = ProductStores(
            self.folder, self.products, in_order=any(self._format_options.get(name) for name in ("sharded", "portal"))
        )
        self._written_elsewhere = False
        self._noted = np.zeros(shape[0], dtype=np.bool_)  # planes that the journal has checksums of
        self._crc = {product.name: np.zeros(shape[0], dtype=np.uint32) for product in products}
        self._ahead: OutputsAhead | None = None
        self._lock = threading.Lock()
        self._journal: IO[bytes] | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Staging:
        refuse_inputs(self.folder, self._inputs)
        if self.folder.is_symlink():
            raise DataError("is a symbolic link, which is not written through", where=self.folder, do="remove it")
        with self._stack:
            finished = None if self._restart else finished_before(self.folder, self.output, self.run)
            if finished is None and not self._resumes():
                self._check_targets()
            with writing(self.output):
                self.owner = self._stack.enter_context(held(self.folder, what=self.output))
                if finished is not None and not self._resumes():
                    os.rename(finished, self.folder / RUN)
            if self._resumes():
                check_same_run(self.folder, self.run)
                self._stores.open()
                self._read_journal()
                self._check_finished()
                if not self.done.all():  # planes are computed for all products together
                    with writing(self.output):
                        self._stores.restore(self.shape, done=self.done, **self._of_stores)
            else:
                self._check_targets()
                self._begin()
            with writing(self.output):
                self._journal = self._stack.enter_context(open_journal(self.folder))
                self._ahead = OutputsAhead(
                    self.products,
                    self._stores,
                    done=self.done,
                    create=lambda product: self._file(product, overwrite=self._overwrite),
                )
            self._stack.callback(self._ahead.discard)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:  # the lock is released last
            if self.done.any() or not self._is_ours():
                return
            (self.folder / RUN).unlink(missing_ok=True)  # what is left of it after a kill is no run to go on with
            remove_folder(self.folder, self.output)

    def _resumes(self) -> bool:
        return (self.folder / RUN).is_file() and not self._restart

    def _is_ours(self) -> bool:
        """Tell whether the folder is still the one whose lock is held."""
        return holds_lock(self.folder / LOCK, self.owner)

    go_on = "repeat the same command, which goes on with the others"

    @staticmethod
    def n_writers(*, on_gpu: bool) -> int:
        """Threads that should call :meth:`write` at the same time."""
        return n_writers(on_gpu=on_gpu)

    @property
    def kept(self) -> str:
        """Where finished planes are, for messages."""
        return f"kept in {self.folder}"

    @property
    def stores(self) -> dict[str, str]:
        """Of each product the name of its store in the folder."""
        return {product.name: self._stores.place(product).name for product in self.products}

    @property
    def n_done(self) -> int:
        return int(self.done.sum())

    def write(self, slab: Slab) -> None:
        """Store a slab, put it into the outputs under way and note it in the journal; several threads may do so.

        Raises
        ------
        ResourceError
            If the disk is full; what was finished before is kept.
        """
        assert self._ahead is not None
        crc = checksums(slab)
        with writing(self.output):
            for name, values in slab.values.items():
                if not self._ahead.makes(name):
                    self._stores[name].write(slab.start, values)
                self._ahead.add(name, slab.start, values)
        for name in filter(self._ahead.makes, crc):  # which becomes the output
            for i, value in enumerate(crc[name]):
                if self._stores.stored_checksum(name, slab.start + i) != value:
                    raise DataError(
                        f"plane {slab.start + i} of the {name} is not what was written just now",
                        where=self.folder,
                        do="see whether the disk is sound",
                    )
        self.record(slab.start, crc, notes=slab.notes)

    def adopt(self, start: int, crc: Mapping[str, Sequence[int]]) -> bool:
        """Put planes that a worker elsewhere has stored into the outputs under way; False if they have not these
        checksums."""
        assert self._ahead is not None
        # Stamps first: what changes a plane after it was read must change its stamp.
        stamps = {name: self._ahead.stamps(name, start, len(values)) for name, values in crc.items()}
        planes = {
            name: [self._stores.stored(name, start + i) for i in range(len(values))] for name, values in crc.items()
        }
        for name, values in crc.items():
            for plane, value in zip(planes[name], values, strict=True):
                if plane is None or checksum(plane) != value:
                    return False
        self._written_elsewhere = True
        with writing(self.output):
            for name, found in planes.items():
                whole = np.stack([plane for plane in found if plane is not None], axis=-3)
                self._ahead.add(name, start, whole, stamps=stamps[name])
        return True

    def record(self, start: int, crc: Mapping[str, Sequence[int]], *, notes: Sequence[str] = ()) -> None:
        """Note stored planes as finished."""
        assert self._journal is not None
        with self._lock, writing(self.output):
            stop = add_line(self._journal, start, crc, notes=notes)
            self.done[start:stop] = True
            for name, values in crc.items():
                self._crc[name][start:stop] = values
            self.notes.extend(notes)

    def plane(self, product: str, z: int) -> np.ndarray:
        """A finished plane, from the store or, where finishing was interrupted, from the output itself.

        Raises
        ------
        DataError
            If it has not the checksum it was stored with.
        """
        if product not in self._stores:
            (found,) = (p for p in self.products if p.name == product)
            with FinishedFiles(found) as volume:
                return volume.plane(z)
        plane = self._stores.stored(product, z)
        if plane is None or checksum(plane) != self._crc[product][z]:
            raise DataError(
                f"plane {z} of the {product} was damaged or removed after it had been stored",
                where=self.folder,
                do="repeat the same command, which computes it again",
            )
        return plane

    def finished_planes(self) -> Iterator[np.ndarray]:
        """Labels of the planes that are done."""
        for z in np.flatnonzero(self.done):
            yield self.plane("labels", int(z))

    def finish(self) -> list[str]:
        """Give every product its final name and remove the folder; the names of all files made.

        Raises
        ------
        DataError
            If a stored plane is not what it was; the next run computes it again.
        ResourceError
            If the disk is too small; everything is kept, and the same command tries again.
        """
        assert self.done.all()
        if not self._is_ours():
            raise DataError(
                "was moved, removed or replaced while the run was at work", where=self.folder, do="run it again"
            )
        outputs: list[str] = []
        for store in self._stores.values() if self._written_elsewhere else ():
            if isinstance(store, ZarrStore):
                store.remove_torn_files()  # of a process that was killed while it wrote
        for product in self.products:
            outputs += self._finish_product(product)
        for path in outputs:
            remove_stale(path)  # of earlier attempts that were killed
        remove_folder(self.folder, self.output)
        return outputs

    def _finish_product(self, product: Product) -> list[str]:
        assert self._ahead is not None
        stored, paths = self._stores.place(product), product.paths
        if not stored.exists():  # an earlier attempt to finish got as far as this
            return paths
        overwrite = self._overwrite or self._has_made(product)
        for path in paths:
            check_output(path, inputs=self._inputs, overwrite=overwrite, folder=product.is_zarr)
        store = self._stores[product.name]
        if isinstance(store, ZarrStore):
            if foreign := store.foreign_entries():
                raise DataError(
                    f"holds what is not of this run: {', '.join(foreign[:3])}",
                    where=stored,
                    do="move it away and repeat the same command",
                )
            for z in range(self.shape[0]):
                if not self._ahead.is_unchanged(product.name, z):
                    self.plane(product.name, z)
            with writing(product.path):
                store.add_levels(
                    Path(product.path).name,
                    self._voxel_size,
                    product.classes,
                    channels=product.channels,
                    metadata=self._metadata,
                )
            publish(stored, product.path, synced=store.synced)
            return paths
        file, written = self._ahead.file(product.name)
        with file or self._file(product, overwrite=overwrite) as writer:
            for z in np.flatnonzero(~written).tolist():
                writer.write_plane(z, self.plane(product.name, z))
        with writing(stored):
            stored.unlink()
        return paths

    def _file(self, product: Product, *, overwrite: bool) -> VolumeWriter:
        """The output under its hidden name."""
        return create_volume(
            product.path,
            shape=self.shape,
            dtype=product.dtype,
            voxel_size=self._voxel_size,
            classes=product.classes,
            channels=product.channels,
            metadata=self._metadata,
            inputs=self._inputs,
            overwrite=overwrite,
            **(self._format_options if product.is_zarr else {}),
        )

    def _has_made(self, product: Product) -> bool:
        """Tell whether what has the final names was put there by a run that was killed just then."""
        there = [path for path in product.paths if os.path.lexists(path)]
        if not there:
            return False
        try:
            with FinishedFiles(product, only=there) as volume:
                return volume.shape == self.shape and all(
                    volume.channel_checksums(z) == volume.channel_checksums_of(self.plane(product.name, z))
                    for z in range(self.shape[0])
                )
        except TomoclassError:
            return False

    def _check_finished(self) -> None:
        """Products that got their names before the interruption must still be there."""
        for product in self.products:
            if product.name in self._stores:
                continue
            expected, problem = self._crc[product.name], ""
            try:
                with FinishedFiles(product) as volume:
                    if volume.shape != self.shape:
                        problem = f"is another volume now, of {volume.shape} voxels"
                    else:
                        noted = np.flatnonzero(self._noted).tolist()
                        changed = [z for z in noted if checksum(volume.plane(z)) != expected[z]]
                        problem = f"holds other planes now, the first is {changed[0]}" if changed else ""
            except TomoclassError as error:
                problem = f"cannot be used now: {error.what}" if os.path.lexists(product.path) else "is gone now"
            if problem:
                raise DataError(
                    f"was finished by the interrupted run and {problem}",
                    where=product.path,
                    do="put it back, or use --restart to begin anew (with --overwrite if something else is there)",
                )

    def _check_targets(self) -> None:
        how: dict[str, Any] = {"inputs": self._inputs, "overwrite": self._overwrite, **self._format_options}
        check_products(self.products, shape=self.shape, **how)

    def _begin(self) -> None:
        """Empty stores, and last the file that says that they are whole."""
        with writing(self.output):
            empty_folder(self.folder)
            self._stores.create(self.shape, **self._of_stores)
            write_run(self.folder, self.run)

    @property
    def _of_stores(self) -> dict[str, Any]:
        return {
            "voxel_size": self._voxel_size,
            "metadata": self._metadata,
            "ome_version": self._format_options.get("ome_version", "0.4"),
        }

    def _read_journal(self) -> None:
        """Believe a line only where what is stored has its checksums."""
        names = [product.name for product in self.products]
        for line in journal_lines(self.folder, products=names, n_planes=self.shape[0]):
            self._noted[line.start : line.stop] = True
            for name, crc in line.crc.items():
                self._crc[name][line.start : line.stop] = crc
            for z in range(line.start, line.stop):
                self.done[z] = all(
                    self._stores.stored_checksum(name, z) == crc[z - line.start]
                    for name, crc in line.crc.items()
                    if name in self._stores
                )
            if self.done[line.start : line.stop].all():
                self.notes.extend(line.notes)
        if not self._stores:  # all products have their final names already, and perhaps the journal is gone
            self.done[:] = True
