"""Open and create volumes: the format is recognised by content first, then by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes.array import ArrayVolume, Planes
from gpu_tomoclass.volumes.binned import NO_BIN, BinnedVolume, checked_bin
from gpu_tomoclass.volumes.detection import detect_format
from gpu_tomoclass.volumes.formats import refuse_options, written_format
from gpu_tomoclass.volumes.volume import Volume, VolumeWriter, VoxelSize, checked_voxel_size, voxel_text

VolumeLike = str | PathLike[str] | Volume | Planes


def open_volume(
    source: VolumeLike,
    *,
    voxel_size: float | Sequence[float] | None = None,
    axes: str | None = None,
    series: int | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
    sparse: bool = False,
    shape: Sequence[int] | None = None,
    dtype: Any = None,
    offset: int | None = None,
    bin: int | Sequence[int] | None = None,
) -> Volume:
    """Open a volume of any format that can be read, of which only headers are read; or make a volume of an array.

    Parameters
    ----------
    source : str, path, array or Volume
        A TIFF file, a folder of single-plane TIFF files, an MRC file, a Zarr store or a path inside one, or
        ``file.h5::/path/to/dataset``: the content decides, then the suffix. Or an array (nz, ny, nx) of NumPy, CuPy,
        Zarr, Dask, h5py, see :class:`~gpu_tomoclass.volumes.array.ArrayVolume`. A volume that is open comes back as it
        is.
    voxel_size : float or sequence of float, optional
        Edge of a voxel, or its three edges (z, y, x), in nm; counts instead of what the file says, and is recorded in
        ``metadata["voxel_size_given"]`` and in the provenance of all that is made of the volume.
    axes : str, optional
        What the stored axes are, slowest first, where the file is wrong or does not say: ``"xyz"`` says that the first
        stored axis is x and the last z.
    series : int, optional
        Which image of a TIFF with several, from 0.
    channel : int, optional
        Which channel (or colour, or time point) of an image with four axes, from 0.
    allow_missing_planes : bool
        Fill planes that cannot be read with zeros and list them in ``missing_planes``, instead of refusing the volume.
    sparse : bool
        Chunks of Zarr and HDF5 that were never written hold the fill value, instead of being missing: their writers
        leave out empty chunks of label images.
    shape, dtype, offset : sequence of int, dtype, int, optional
        Of raw voxels in a file of any kind: its shape, slowest axis first, type (``"uint16"``, ``">f4"``) and the bytes
        before the first voxel.
    bin : int or (int, int, int), optional
        Read means of boxes of so many voxels (along z, y, x) as voxels, see
        :class:`~gpu_tomoclass.volumes.binned.BinnedVolume`; voxel size and origin follow. All other options are about
        the volume as stored.

    Raises
    ------
    UsageError
        If there is no such file, an option was set that the format does not know, or labels are to be binned.
    DataError
        If the file cannot be read, is damaged, or does not say which of several images is meant.
    """
    edges = None if voxel_size is None else checked_voxel_size(voxel_size)
    boxes = NO_BIN if bin is None else checked_bin(bin)
    options: dict[str, Any] = {"axes": axes, "series": series, "channel": channel}
    if isinstance(source, (str, PathLike)):
        gaps: dict[str, Any] = {"allow_missing_planes": allow_missing_planes, "sparse": sparse}
        raw = {"shape": shape, "dtype": dtype, "offset": offset}
        if any(value is not None for value in raw.values()):
            from gpu_tomoclass.volumes.array_files import open_raw

            refuse_options(source, format="raw voxels", options={"series": series})
            volume = open_raw(source, axes=axes, channel=channel, **raw)
        else:
            raw = {}
            volume = _open(source, options=options, gaps=gaps)
        volume.reading = {"voxel_size": edges, **options, **gaps, **raw}
    elif isinstance(source, Volume):
        refuse_options(source.path, format="a volume that is open", options={"voxel_size": edges, **options})
        return source if boxes == NO_BIN else BinnedVolume(source, boxes)
    else:
        volume = ArrayVolume(source, allow_missing_planes=allow_missing_planes)
        refuse_options(volume.path, format="an array", options=options)
    if edges is not None:
        said = volume.voxel_size
        if said is not None and not np.allclose(said, edges, rtol=1e-6, atol=0):
            volume.notes.append(f"the voxel size is {voxel_text(edges)} as given, the file says {voxel_text(said)}")
        volume.metadata["voxel_size_given"] = {"nm": list(edges), "file_nm": None if said is None else list(said)}
        volume.voxel_size = edges
    if boxes != NO_BIN:
        binned = BinnedVolume(volume, boxes)
        binned.reading = None if volume.reading is None else {**volume.reading, "bin": boxes}
        return binned
    return volume


def _open(path: str | PathLike[str], *, options: dict[str, Any], gaps: dict[str, bool]) -> Volume:
    """Open by the row of the format; of ``gaps`` each format takes what can happen to it."""
    row = detect_format(path)
    unknown = {name: value for name, value in options.items() if name not in row.options}
    refuse_options(path, format=row.name, options=unknown)
    known = {name: value for name, value in {**options, **gaps}.items() if name in row.options}
    return row.open(path, **known)


def create_volume(
    path: str | PathLike[str],
    *,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any] | type[Any] | str,
    voxel_size: VoxelSize | None = None,
    classes: Sequence[LabelClass] = (),
    channels: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    inputs: Iterable[str | PathLike[str]] = (),
    **options: Any,
) -> VolumeWriter:
    """Start a new volume; the suffix of ``path`` chooses the format.

    ``.tif`` and ``.tiff`` are ImageJ TIFF (``.ome.tif``, ``.btf`` and anything too large or of a type that ImageJ does
    not know are OME-TIFF), ``.mrc``, ``.rec`` and ``.map`` MRC, ``.zarr`` and ``.ome.zarr`` OME-Zarr.

    Parameters
    ----------
    path : str or path
        A missing parent folder is created.
    shape : tuple of int
        (nz, ny, nx).
    dtype : numpy.dtype
    voxel_size : tuple of float, optional
        (z, y, x) in nm.
    classes : sequence of LabelClass
        For uint8 label volumes: names and colours, shown by viewers where the format can say it.
    channels : sequence of str
        Names; planes are then (n_channels, ny, nx).
    metadata : mapping, optional
        Kept with the volume; must be JSON.
    overwrite : bool
        Whether an existing file may be replaced, once the new one is complete.
    inputs : iterable of path
        What it is made from, in whose place it must not come; see :func:`gpu_tomoclass.outputs.refuse_inputs`.
    **options
        Of the format: ``ome_version="0.4"`` or ``"0.5"`` for Zarr.

    Raises
    ------
    UsageError
        If the suffix, an option or the kind of data is not one of the format, or the output is an input.
    DataError
        If the file exists and ``overwrite`` is not set.
    ResourceError
        If the disk is full or the folder cannot be written to.
    """
    common: dict[str, Any] = {
        "shape": tuple(int(n) for n in shape),
        "dtype": np.dtype(dtype),
        "voxel_size": voxel_size,
        "classes": tuple(classes),
        "channels": tuple(channels),
        "metadata": dict(metadata or {}),
        "overwrite": overwrite,
        "inputs": tuple(fspath(name) for name in inputs),
    }
    if len(common["shape"]) != 3 or min(common["shape"]) < 1:
        raise UsageError(f"shape {shape} is not three positive numbers (z, y, x)", where=path)
    if classes and (common["dtype"] != np.uint8 or channels):
        raise UsageError("classes belong to uint8 label volumes without channels", where=path)
    row = written_format(path)
    unknown = {name: value for name, value in options.items() if name not in row.writer_options}
    refuse_options(path, format=row.name, options=unknown)
    return row.create(path, **common, **options)
