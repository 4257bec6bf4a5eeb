"""Computed features on disk, so that retraining with more strokes costs seconds.

The key is the content: a hash of the prepared plane and of the others that the block looks at, the definition version,
the device and the block's own key. A changed file, scale or parameter is another key, so nothing can go stale; the
least recently used entries leave when the folder is full. Devices have entries of their own because the last bit of
some channels may differ between them. An entry counts only if nobody else can have written it and its checksum, which
covers its name, is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.device import is_ours, temporary_folder
from gpu_tomoclass.features.bank_description import DEFINITION_VERSION
from gpu_tomoclass.features.block import FeatureBlock, halo
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.prepare import PreparedPlane, PreparedSlab
from gpu_tomoclass.outputs import refuse_inputs

DEFAULT_LIMIT = 20 * 2**30
ENTRY = re.compile("[0-9a-f]{32}")
MARK = "gpu_tomoclass crc32 "
TORN_AGE = 86400  # seconds after which a half-written file is nobody's
KEEP_FREE = 2 * 2**30  # a cache must never be what fills a disk


def default_cache_folder() -> Path:
    """``$XDG_CACHE_HOME/gpu_tomoclass`` or ``~/.cache/gpu_tomoclass``; a folder of the user where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "gpu_tomoclass"
    try:
        return Path.home() / ".cache" / "gpu_tomoclass"
    except RuntimeError:
        return temporary_folder()


class FeatureCache:
    """Feature blocks by plane content.

    Parameters
    ----------
    folder : path
        Made if it does not exist. If it cannot be written, nothing is cached and ``notes`` says so.
    limit : int
        Bytes; the oldest entries are removed beyond it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.notes: list[str] = []
        self.hits = self.misses = 0
        self._counting = threading.Lock()
        self._writable = True
        refuse_inputs(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            self._stop(f"features are not cached: {self.folder} cannot be written ({error.strerror})")

    def _stop(self, reason: str) -> None:
        self._writable = False
        self.notes.append(reason)

    def plane_key(self, image: np.ndarray, *, device: str = "numpy") -> str:
        """Key of a prepared plane (ny, nx) float32 on a device, to be given to :meth:`get` and :meth:`put`."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{__version__}/{DEFINITION_VERSION}/{device}/{image.shape}".encode())
        digest.update(image.tobytes())
        return digest.hexdigest()

    def _path(self, plane_key: str, block: FeatureBlock) -> Path:
        return self.folder / plane_key / f"{block.key}.npy"

    def get(self, plane_key: str, block: FeatureBlock) -> np.ndarray | None:
        """The block's channels (n, ny, nx), float32, mapped read-only; None if they are not there or not as stored."""
        path = self._path(plane_key, block)
        try:
            with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
                if not is_ours(os.fstat(file.fileno())):
                    raise ValueError(f"{path} may be somebody else's")
                values = _mapped(file, name=_name(path), n_channels=len(block.channels))
            os.utime(path)
        except (OSError, ValueError, EOFError):  # absent, torn or foreign: compute it again
            with self._counting:
                self.misses += 1
            return None
        with self._counting:
            self.hits += 1
        return values

    def holds(self, plane_key: str, block: FeatureBlock) -> bool:
        """Tell whether there is an entry, sound or not."""
        return self._path(plane_key, block).exists()

    def put(self, plane_key: str, block: FeatureBlock, values: np.ndarray) -> None:
        """Store a block; a full or failing disk switches the cache off with a note, never fails the run."""
        if not self._writable:
            return
        path = self._path(plane_key, block)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # equal planes have one name
        try:
            if shutil.disk_usage(self.folder).free < KEEP_FREE + values.nbytes:
                self._stop(f"features are not cached any more: less than 2 GiB free in {self.folder}")
                return
            path.parent.mkdir(exist_ok=True, mode=0o700)
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                np.save(file, np.ascontiguousarray(values), allow_pickle=False)
                file.write(_trailer(_name(path), values))
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self._stop(f"features are not cached any more: {error}")

    def entries(self) -> list[Path]:
        """The files of the cache: only what is named as we name it, and what killed processes left for a day."""
        found = [path for path in self.folder.glob("*/*.npy") if ENTRY.fullmatch(path.parent.name)]
        torn = [path for path in self.folder.glob("*/.*.partial") if ENTRY.fullmatch(path.parent.name)]
        for path in torn:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > TORN_AGE:
                    found.append(path)
        return found

    def clear(self) -> None:
        """Remove all entries."""
        for path in self.entries():
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                path.parent.rmdir()

    def trim(self) -> None:
        """Remove the least recently used entries until the folder is within its limit."""
        entries = []
        for path in self.entries():
            try:
                status = path.stat()
            except OSError:  # another process trims too
                continue
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size
            try:
                path.parent.rmdir()
            except OSError:  # not empty
                continue


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _trailer(name: str, values: np.ndarray) -> bytes:
    """Bytes that follow the array in a file: a checksum of its name and values, so that none stands for another."""
    return f"{MARK}{zlib.crc32(np.ascontiguousarray(values).data, zlib.crc32(name.encode())):08x}".encode()


def _mapped(file: IO[bytes], *, name: str, n_channels: int) -> np.ndarray:
    """The array of an open file, mapped; ValueError unless it is what was stored under this name."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is no array of ours")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.float32 or is_fortran or len(shape) != 3 or shape[0] != n_channels:
        raise ValueError(f"{name} holds {dtype} {shape}")
    start = file.tell()
    values = np.memmap(file, dtype=dtype, mode="r", offset=start, shape=shape)
    file.seek(start + values.nbytes)
    if file.read(100) != _trailer(name, values):
        raise ValueError(f"{name} is damaged")
    return values


def block_values(
    engine: FeatureEngine,
    slab: PreparedSlab | np.ndarray,
    *,
    cache: FeatureCache | None = None,
    timings: dict[str, float] | None = None,
) -> Iterator[tuple[FeatureBlock, np.ndarray]]:
    """(block, channels (n, ny, nx) float32) for each block of the engine, from the cache where it has them.

    Parameters
    ----------
    engine : FeatureEngine
        What is not in the cache is computed by it, all at once; the values are valid until its next slab.
    slab : PreparedSlab or numpy.ndarray
        Of one wanted plane; or a prepared plane (ny, nx), float32, that is a volume of its own.
    cache : FeatureCache, optional
        Asked first and given what was computed.
    timings : dict, optional
        Seconds per family are added for what was computed.
    """
    if isinstance(slab, np.ndarray):
        slab = PreparedSlab([PreparedPlane(slab)], Place.whole(1))
    shape = slab.planes[0].image.shape
    keys: dict[FeatureBlock, str] = {}
    if cache is not None:
        of_slab = SlabKeys(cache, slab, device=engine.device.name)
        keys = {block: of_slab.key(block) for block in engine.blocks}
    found = {block: cache.get(keys[block], block) if cache is not None else None for block in engine.blocks}
    missing = [block for block, values in found.items() if values is None]
    computed = np.empty((0, *shape), np.float32)
    if missing:
        needed = slab.part(slab.place.start, slab.place.stop, halo=halo(missing, slab.place.aspect))
        watch = engine.device.stopwatch()
        watch.start()
        channels = engine.compute(needed.images, place=needed.place, blocks=missing, watch=watch)
        computed = engine.device.numpy(channels)[:, 0]
        if timings is not None:
            watch.add_to(timings)
    start = 0
    for block, values in found.items():
        if values is None:
            values = computed[start : start + len(block.channels)]
            start += len(block.channels)
            if cache is not None:
                cache.put(keys[block], block, values)
        yield block, values


class SlabKeys:
    """Keys of blocks on the one wanted plane of a slab: the content of all planes that they look at."""

    def __init__(self, cache: FeatureCache, slab: PreparedSlab, *, device: str) -> None:
        self._cache, self._slab, self._device = cache, slab, device
        self._of_plane: dict[int, str] = {}

    def key(self, block: FeatureBlock) -> str:
        place = self._slab.place
        reach = block.reaches(place.aspect)[0]
        size = f"/{place.aspect.nm}" if block.is_in_nm else ""
        if block.dimensions == 2:
            return self._hashed(f"{self._plane(place.start)}{size}") if size else self._plane(place.start)
        part = place.part(place.start, place.stop, halo=reach)
        planes = [self._plane(z) for z in range(part.first, part.first + part.n_planes)]
        # Kernels are cut to the depth of a volume that is not deeper than they are long.
        depth = min(place.depth, 2 * reach + 2)
        text = f"{place.start - part.first}/{depth}/{place.aspect.axes}{size}/{' '.join(planes)}"
        return self._hashed(text)

    @staticmethod
    def _hashed(text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _plane(self, z: int) -> str:
        if z not in self._of_plane:
            image = self._slab.planes[z - self._slab.place.first].image
            self._of_plane[z] = self._cache.plane_key(image, device=self._device)
        return self._of_plane[z]
