"""Damage inputs at random and see what reading them does.

``python tools/fuzz.py --cases 20000`` (``make fuzz``). For each kind of input a good file is made and read; then copies
with random damage (bits, bytes, runs, numbers at limits, cuts, repeated and swapped pieces, missing files of a folder)
are read in processes of their own, with a limit of time and of memory. Told apart are

* refused: an error of ours (exit codes 2 to 5), which is what should happen;
* read: the same values, other ones where the kind has no checksum (voxels are voxels), or with a note;
* FOREIGN: any other exception; CRASH: the process died; HANG: over the limit of time; MEMORY: over that of memory;
* SILENT: no error, but another shape, or other values where a checksum covers them.

The seed makes a run repeatable: ``--kind K --first N --cases 1`` repeats case N of a kind and keeps its file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (5, 24, 20)
BAD = ("FOREIGN", "CRASH", "HANG", "MEMORY", "SILENT")


def voxels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 4000, SHAPE).astype(np.uint16)


# --- good inputs -----------------------------------------------------------------------------------------------------


def write_volume(path: Path, **options: Any) -> None:
    from gpu_tomoclass.volumes import create_volume

    array = voxels()
    with create_volume(path, shape=SHAPE, dtype=array.dtype, voxel_size=(1, 1, 1), metadata={"a": [1]}, **options) as w:
        for z, plane in enumerate(array):
            w.write_plane(z, plane)


def write_tiff(path: Path, **options: Any) -> None:
    import tifffile

    tifffile.imwrite(path, voxels(), **options)


def write_planes(path: Path) -> None:
    import tifffile

    path.mkdir()
    for z, plane in enumerate(voxels()):
        tifffile.imwrite(path / f"p{z}.tif", plane)


def write_hdf5(path: Path, **options: Any) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=voxels(), **options)


def write_zarr(path: Path, **options: Any) -> None:
    import zarr

    array = zarr.create_array(path, shape=SHAPE, dtype="uint16", chunks=(1, 24, 20), **options)
    array[...] = voxels()


def write_packed(path: Path) -> None:
    import gzip

    with tempfile.TemporaryDirectory() as name:
        write_volume(Path(name, "v.mrc"))
        path.write_bytes(gzip.compress(Path(name, "v.mrc").read_bytes()))


def write_hspy(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/sample")
        group.create_dataset("data", data=voxels(), chunks=(1, 24, 20), compression="gzip")
        for i, name in enumerate("zyx"):
            axis = {"name": name, "scale": 1.5, "offset": 2.0, "units": "nm", "index_in_array": i}
            group.create_group(f"axis-{i}").attrs.update(axis)


def write_labels(path: Path) -> None:
    import tifffile

    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 3:20, 3:9], labels[1, 3:20, 11:18] = 1, 2
    tifffile.imwrite(path, labels, imagej=True, metadata={"axes": "ZYX"})


def write_rois(path: Path) -> None:
    import roifile

    with zipfile.ZipFile(path, "w") as archive:
        for number, corners in enumerate(([[2, 2], [9, 2], [9, 9]], [[3, 4], [12, 15], [4, 15]])):
            roi = roifile.ImagejRoi.frompoints(np.array(corners, np.float32), position=2, name=f"class {number + 1}")
            archive.writestr(f"class {number + 1}.roi", roi.tobytes())


def small_model() -> Any:
    from gpu_tomoclass.annotations import load_annotation
    from gpu_tomoclass.device import choose_device
    from gpu_tomoclass.features import FeatureBank
    from gpu_tomoclass.training import train
    from gpu_tomoclass.volumes import open_volume

    with tempfile.TemporaryDirectory() as name:
        write_volume(Path(name, "v.tif"))
        write_labels(Path(name, "l.tif"))
        with open_volume(Path(name, "v.tif")) as volume:
            marks = load_annotation(Path(name, "l.tif"), volume_shape=SHAPE)
            bank = FeatureBank.create(["gaussian_blur"], sigma_max=2)
            return train(volume, marks, bank=bank, n_trees=5, device=choose_device("numpy", threads=1))


def write_model(path: Path) -> None:
    from gpu_tomoclass.model import save_model

    save_model(small_model().model, path)


def write_rows(path: Path) -> None:
    from gpu_tomoclass.annotations import save_arff

    save_arff(path, small_model().table, exact=True)


def write_job(path: Path) -> None:
    path.write_text(
        'task = "convert"\noutput = "out"\nformat = ".tif"\nname = "{stem}_x"\n[[volumes]]\npath = "*.tif"\n'
        '[[volumes]]\npath = "b.mrc"\nmodel = "m.tcm"\ntask = "classify"\nslab_planes = 3\nmemory_limit = 1000000000\n'
    )
    (path.parent / "a.tif").write_bytes(b"")


# --- reading ---------------------------------------------------------------------------------------------------------


SAID: set[str] = set()  # notes of the volume that was read last


def read_volume(path: Path) -> np.ndarray:
    from gpu_tomoclass.volumes import describe_volume, open_volume

    name = f"{path}::/a" if path.suffix == ".h5" else path
    with open_volume(name) as volume:
        describe_volume(volume)
        if volume.shape[0] * volume.shape[1] * volume.shape[2] > 10**7:
            found = np.zeros(volume.shape[:1])
        else:
            found = np.stack([plane for _, plane in volume.planes()])
        SAID.clear()
        SAID.update(volume.notes)
        return found


def read_annotation(path: Path) -> Any:
    from gpu_tomoclass.annotations import load_annotation

    return len(load_annotation(path, volume_shape=SHAPE).planes())


def read_model(path: Path) -> Any:
    from gpu_tomoclass.model import describe_model, load_model

    model = load_model(path)
    json.dumps(describe_model(model))
    return model.hash


def read_rows(path: Path) -> Any:
    from gpu_tomoclass.annotations import load_arff

    return load_arff(path).values.shape


def read_job(path: Path) -> Any:
    from gpu_tomoclass.classification import load_job

    return [item.output for item in load_job(path)]


class Kind:
    """How an input is made and read, and whether a checksum covers its values."""

    def __init__(self, name: str, write: Callable[..., None], read: Callable[[Path], Any] = read_volume,
                 *, has_checksum: bool = False, **options: Any) -> None:  # fmt: skip
        self.name, self.read, self.has_checksum = name, read, has_checksum
        self.write = lambda path: write(path, **options)


KINDS = {
    f"{label}": Kind(name, write, *rest, **options)
    for label, name, write, rest, options in [
        ("imagej", "v.tif", write_volume, (), {}),
        ("ome-tiff", "v.ome.tif", write_volume, (), {}),
        ("bigtiff", "v.btf", write_tiff, (), {"bigtiff": True}),
        ("tiff-pages", "v.tif", write_tiff, (), {"photometric": "minisblack", "metadata": None}),
        ("tiff-deflate", "v.tif", write_tiff, (), {"compression": "zlib", "photometric": "minisblack"}),
        ("tiff-tiles", "v.tif", write_tiff, (), {"tile": (16, 16), "compression": "zstd", "photometric": "minisblack"}),
        ("planes", "v", write_planes, (), {}),
        ("mrc", "v.mrc", write_volume, (), {}),
        ("mrc-gz", "v.mrc.gz", write_packed, (), {"has_checksum": True}),
        ("ome-zarr-0.4", "v.ome.zarr", write_volume, (), {}),
        ("ome-zarr-0.5", "v.ome.zarr", write_volume, (), {"ome_version": "0.5", "has_checksum": True}),
        ("ome-zarr-sharded", "v.ome.zarr", write_volume, (), {"ome_version": "0.5", "sharded": True,
                                                             "has_checksum": True}),
        ("zarr-2", "v.zarr", write_zarr, (), {"zarr_format": 2}),
        ("zarr-3", "v.zarr", write_zarr, (), {"zarr_format": 3}),
        ("hdf5", "v.h5", write_hdf5, (), {}),
        ("hdf5-gzip", "v.h5", write_hdf5, (), {"chunks": (1, 24, 20), "compression": "gzip"}),
        ("hdf5-fletcher32", "v.h5", write_hdf5, (), {"chunks": (1, 24, 20), "compression": "gzip", "fletcher32": True,
                                                    "has_checksum": True}),
        ("hspy", "v.hspy", write_hspy, (), {}),
        ("labels", "l.tif", write_labels, (read_annotation,), {}),
        ("rois", "r.zip", write_rois, (read_annotation,), {}),
        ("model", "m.tcm", write_model, (read_model,), {"has_checksum": True}),
        ("arff", "rows.arff", write_rows, (read_rows,), {}),
        ("job", "job.toml", write_job, (read_job,), {}),
    ]
}  # fmt: skip


# --- damage ----------------------------------------------------------------------------------------------------------

LIMITS = [
    *(b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"),
    *(b"\x00" * 8, b"\xff" * 8, b"\x01\x00\x00\x00", b"{", b"}", b'"', b"-1", b"1e309", b"nan", b"99999999999", b"../"),
]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One to four random changes; most of them where headers are."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        where = chance.randrange(min(len(data), chance.choice((64, 512, 4096, len(data)))))
        if chance.random() < 0.3:
            where = len(data) - 1 - where
        how = chance.randrange(8)
        n = chance.choice((1, 2, 4, 8, 64, 512))
        if how <= 1:
            data[where] ^= 1 << chance.randrange(8)
        elif how == 2:
            data[where] = chance.randrange(256)
        elif how == 3:
            piece = chance.choice(LIMITS)
            data[where : where + len(piece)] = piece
        elif how == 4:
            data[where : where + n] = bytes(min(n, len(data) - where))
        elif how == 5:
            del data[where : where + chance.choice((n, len(data)))]
        elif how == 6:
            other = chance.randrange(len(data))
            data[where : where + n] = data[other : other + n]
        else:
            data[where:where] = data[where : where + n]
    return bytes(data)


def damage(path: Path, chance: random.Random) -> None:
    """A file, or one file of a folder, which may also go, move, or become a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    metadata = [p for p in files if p.suffix == ".json" or p.name.startswith(".z")]
    file = chance.choice(metadata if metadata and chance.random() < 0.6 else files)
    if path.is_dir() and chance.random() < 0.1:
        how = chance.randrange(3)
        file.unlink()
        if how == 1:
            file.mkdir()
        elif how == 2 and file in metadata:  # a whole chunk in the place of another is what nobody can see
            shutil.copy(chance.choice([f for f in files if f != file]), file)
        return
    file.write_bytes(damaged(file.read_bytes(), chance))


# --- one process, many cases -----------------------------------------------------------------------------------------


class TooLongError(BaseException):
    pass


def worker(kind_name: str, first: int, n: int, *, seed: int, seconds: int, memory: int, good: Path) -> None:
    """Read damaged copies of ``good``; a line of JSON for each case on stdout."""
    from gpu_tomoclass.errors import TomoclassError

    kind = KINDS[kind_name]
    expected, usual = kind.read(good), set(SAID)
    resource.setrlimit(resource.RLIMIT_DATA, (memory + 2**30, memory + 2**30))

    def late(*_: Any) -> None:
        raise TooLongError

    signal.signal(signal.SIGALRM, late)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not ours to read
    with tempfile.TemporaryDirectory() as name:
        Path(name, "a.tif").touch()  # which a job asks for
        for case in range(first, first + n):
            chance = random.Random(f"{seed} {kind_name} {case}")
            copy = Path(name, good.name)
            shutil.copytree(good, copy) if good.is_dir() else shutil.copy(good, copy)
            damage(copy, chance)
            print(json.dumps({"case": case, "begun": True}), file=out, flush=True)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            signal.alarm(seconds)
            try:
                found = kind.read(copy)
                result, about = "read", ""
                said = bool(SAID - usual)
                shape = getattr(found, "shape", found), getattr(expected, "shape", expected)
                fewer = kind_name == "planes" and not all((copy / f"p{z}.tif").is_file() for z in (0, 4))
                if said or fewer:  # nobody can tell how many planes a folder had
                    about = "with a note"
                elif isinstance(found, np.ndarray) and shape[0] != shape[1]:
                    result, about = "SILENT", f"shape {shape[0]}"
                elif kind.has_checksum and not np.array_equal(found, expected):
                    result, about = "SILENT", "other values"
            except TomoclassError as error:
                result, about = "refused", type(error).__name__
            except TooLongError:
                result, about = "HANG", f"over {seconds} s"
            except MemoryError as error:
                result, about = "MEMORY", str(error)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                result, about = (
                    "FOREIGN",
                    f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}",
                )
            finally:
                signal.alarm(0)
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            if result in ("read", "refused") and grown > memory:
                result, about = "MEMORY", f"{grown / 1e9:.1f} GB, {about}"
            print(json.dumps({"case": case, "result": result, "about": about[:300]}), file=out, flush=True)
            shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)


def run_batch(kind: str, first: int, n: int, options: argparse.Namespace, good: Path) -> list[dict[str, Any]]:
    """The results of n cases; a process that dies or hangs is replaced, and its case counts."""
    results: list[dict[str, Any]] = []
    while n > 0:
        command = [sys.executable, __file__, "--worker", kind, str(first), str(n), str(good)]
        for name in ("seed", "seconds", "memory"):
            command += [f"--{name}", str(getattr(options, name))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        assert process.stdout is not None
        current, late, buffer = first, False, b""
        while True:
            ready, _, _ = select.select([process.stdout], [], [], options.seconds + 60)
            if not ready:
                late = True
                os.killpg(process.pid, signal.SIGKILL)
                break
            got = os.read(process.stdout.fileno(), 65536)
            if not got:
                break
            *lines, buffer = (buffer + got).split(b"\n")
            for line in lines:
                record = json.loads(line)
                current = record["case"]
                if "result" in record:
                    results.append(record)
                    current += 1
        code = process.wait()
        process.stdout.close()
        done = current - first
        if done < n:
            about = "does not even take the signal" if late else f"exit {code}"
            results.append({"case": current, "result": "HANG" if late else "CRASH", "about": about})
            done += 1
        first, n = first + done, n - done
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20000, help="in all kinds together")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this one; repeatable")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=20, help="for one case")
    parser.add_argument("--memory", type=int, default=2 * 10**9, help="bytes that one case may take")
    parser.add_argument("--keep", type=Path, help="folder for the files of bad cases")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kind, first, n, good = options.worker
        worker(kind, int(first), int(n), seed=options.seed, seconds=options.seconds, memory=options.memory,
               good=Path(good))  # fmt: skip
        return
    kinds = options.kind or list(KINDS)
    each = -(-options.cases // len(kinds))
    total, bad = Counter[str](), 0
    began = time.monotonic()
    for name in kinds:
        with tempfile.TemporaryDirectory() as folder:
            good = Path(folder, KINDS[name].name)
            KINDS[name].write(good)
            results = run_batch(name, options.first, each, options, good)
            counts = Counter(record["result"] for record in results)
            total += counts
            print(f"{name}: {', '.join(f'{n} {result}' for result, n in sorted(counts.items()))}", flush=True)
            for result, about in sorted({(r["result"], r["about"]) for r in results if r["result"] in BAD}):
                cases = [r["case"] for r in results if (r["result"], r["about"]) == (result, about)]
                bad += len(cases)
                print(f"  {result} {about} (case {cases[0]}{f' and {len(cases) - 1} more' * (len(cases) > 1)})")
                if options.keep is not None:
                    copy = options.keep / f"{name}-{cases[0]}" / good.name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):
                        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
                    shutil.copytree(good, copy) if good.is_dir() else shutil.copy(good, copy)
                    damage(copy, random.Random(f"{options.seed} {name} {cases[0]}"))
    print(f"{sum(total.values())} cases of {len(kinds)} kinds in {time.monotonic() - began:.0f} s: "
          f"{', '.join(f'{n} {result}' for result, n in sorted(total.items()))}")  # fmt: skip
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
