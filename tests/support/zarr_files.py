"""Small Zarr arrays and OME-Zarr images, to be damaged."""

import json

import numpy as np
import zarr

SHAPE, CHUNKS = (8, 16, 16), (2, 8, 16)  # 4 * 2 * 1 chunks


def write_array(path, *, zarr_format=3, chunks=CHUNKS, **options):
    """(8, 16, 16) uint16 values 1 to 999, which are returned; 7 where nothing is written."""
    data = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.uint16)
    array = zarr.create_array(
        path, shape=SHAPE, dtype=data.dtype, chunks=chunks, zarr_format=zarr_format, fill_value=7, **options
    )
    array[...] = data
    return data


def write_image(path):
    """OME-Zarr 0.4 image with its level in ``s0``."""
    group = zarr.create_group(
        path,
        zarr_format=2,
        attributes={"multiscales": [{"axes": [{"name": a} for a in "zyx"], "datasets": [{"path": "s0"}]}]},
    )
    group.create_array("s0", shape=SHAPE, dtype="u1", chunks=SHAPE, config={"write_empty_chunks": True})[...] = 1
    return path


def edit_json(file, change):
    """Have ``change`` change what a JSON file holds."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
