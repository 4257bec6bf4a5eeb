"""Sigmas in nm: lengths along every axis, whatever the voxels; against SciPy and volumes sampled in two ways."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from scipy import ndimage

from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.cli import cli
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features import (
    CUBES,
    FAMILIES,
    FEATURE_SETS,
    FeatureBank,
    FeatureCache,
    FeatureEngine,
    IntensityScale,
    Place,
    aspect_of,
    prepare_slab,
)
from gpu_tomoclass.features.cache import SlabKeys
from gpu_tomoclass.model import fits_volume, load_model, save_model
from gpu_tomoclass.training import train
from gpu_tomoclass.volumes import open_volume

ACROSS = [name for name, row in FAMILIES.items() if row.in_nm and row.dimensions == 3 and not row.is_smoothed]
PLANES = [name for name, row in FAMILIES.items() if row.in_nm and row.dimensions == 2]
VOXELS = (2.0, 0.8, 1.25)  # nm along z, y, x
RANDOM = np.random.default_rng(14)
IMAGE = RANDOM.normal(0, 200, (23, 40, 36)).astype(np.float32)
INSIDE = np.s_[7:-7, 13:-13, 10:-10]  # no filter of these sees the border, which SciPy does not treat as TWS does


def _bank(*families: str, nm: str = "1.5,3nm") -> FeatureBank:
    return FeatureBank.create(list(families), sigmas=dict.fromkeys(families, nm))


def _channel(bank: FeatureBank, name: str, image: np.ndarray = IMAGE, voxels=VOXELS) -> np.ndarray:
    return bank.compute_volume(image, aspect=aspect_of(voxels))[bank.channels.index(name)]


def _scipy(sigma: float, order: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Gaussian derivative over one sigma, by SciPy."""
    std = [sigma / length for length in VOXELS]
    found = ndimage.gaussian_filter(IMAGE.astype(np.float64), std, order=order, mode="mirror", truncate=6)
    return found * np.prod(np.power(std, order))


def _close(found: np.ndarray, expected: np.ndarray, share: float) -> None:
    assert np.abs(found - expected)[INSIDE].max() < share * expected[INSIDE].std()


def test_blurs_are_those_of_scipy_with_a_sigma_per_axis() -> None:
    bank = _bank("gaussian_blur_3d", "difference_of_gaussian_3d")
    # Kernels of TWS end at three standard deviations, SciPy's here at six: 0.3 % of the weight lies between.
    _close(_channel(bank, "Gaussian_blur_3.0nm"), _scipy(3.0), 0.05)
    _close(_channel(bank, "Difference_of_Gaussian_1.5nm_3.0nm"), _scipy(3.0) - _scipy(1.5), 0.05)


def test_derivatives_are_those_of_scipy_over_one_sigma() -> None:
    bank = _bank("derivatives_3d", "laplacian_3d", "edges_3d", "hessian_3d")
    first = [_scipy(3.0, order) for order in ((0, 0, 1), (0, 1, 0), (1, 0, 0))]
    second = [_scipy(3.0, order) for order in ((0, 0, 2), (0, 2, 0), (2, 0, 0))]
    # Kernels of TWS are samples of the derivative that end at four standard deviations; SciPy's are normalised.
    _close(_channel(bank, "Edges_3.0nm"), np.sqrt(sum(g * g for g in first)), 0.05)
    _close(_channel(bank, "Laplacian_3.0nm"), sum(second), 0.05)
    _close(_channel(bank, "Derivatives_1_1_1_3.0nm"), _scipy(3.0, (1, 1, 1)), 0.05)
    mixed = {(i, j): _scipy(3.0, tuple(int(k in (i, j)) for k in range(3))) for i, j in ((0, 1), (0, 2), (1, 2))}
    matrix = np.stack(
        [
            np.stack([second[2 - i] if i == j else mixed[min(i, j), max(i, j)] for j in range(3)], axis=-1)
            for i in range(3)
        ],
        axis=-1,
    )
    largest = np.abs(np.linalg.eigvalsh(matrix[INSIDE])).max(axis=-1)
    assert np.abs(_channel(bank, "Hessian_largest_3.0nm_true")[INSIDE] - largest).max() < 0.1 * largest.std()


def test_planes_are_those_of_scipy() -> None:
    """Standard deviations, without the factor 0.4 of sigmas in pixels; derivatives over one of them."""
    bank = _bank(*PLANES, nm="2,4nm")
    found = dict(zip(bank.channels, bank.compute(IMAGE[0], aspect=aspect_of((9.0, 0.8, 0.8))), strict=True))

    def scipy(nm: float, order: tuple[int, int] = (0, 0)) -> np.ndarray:
        std = nm / 0.8
        return ndimage.gaussian_filter(IMAGE[0].astype(np.float64), std, order, mode="mirror", truncate=6) * std ** sum(
            order
        )

    def close(name: str, expected: np.ndarray, share: float) -> None:
        inside = np.s_[14:-14, 14:-14]
        assert np.abs(found[name] - expected)[inside].max() < share * np.abs(expected).max(), name

    close("Gaussian_blur_2.0nm", scipy(2), 0.01)  # TWS's kernel ends in a parabola
    close("Difference_of_gaussians_4.0nm_2.0nm", scipy(2) - scipy(4), 0.02)
    close("Laplacian_2.0nm", scipy(2, (2, 0)) + scipy(2, (0, 2)), 0.01)  # kernels that end at 4 standard deviations
    close("Derivatives_2_2_2.0nm", scipy(2, (2, 2)), 0.02)
    sobel = [2.5 * ndimage.sobel(scipy(2), axis) for axis in (0, 1)]
    close("Sobel_filter_2.0nm", np.hypot(*sobel), 0.01)
    close("Hessian_Trace_2.0nm", sum(2.5 * ndimage.sobel(image, axis) for axis, image in enumerate(sobel)), 0.02)
    gradient = scipy(2, (1, 0)), scipy(2, (0, 1))
    tensor = [ndimage.gaussian_filter(a * b, 2 / 0.8, mode="mirror") for a in gradient for b in gradient]
    largest = np.linalg.eigvalsh(np.stack(tensor, axis=-1).reshape(*IMAGE[0].shape, 2, 2))[..., 1]
    close("Structure_largest_2.0nm_2.0nm", largest, 0.02)


@pytest.mark.parametrize(
    ("families", "size"),
    [([name for name in ACROSS if not name.startswith("z_")], (2.0, 1.0, 1.0)), (PLANES, (1.0, 1.0, 1.0))],
)
def test_other_voxels_give_the_same_values(families: list[str], size: tuple[float, float, float]) -> None:
    """A blob of 6 nm sampled at two sizes of voxels; derivatives and averages at the places that both have."""
    bank = _bank(*families, nm="2,4nm")
    assert bank.fits_any_voxels

    def values(voxels: tuple[float, float, float]) -> np.ndarray:
        at = np.meshgrid(*(np.arange(-24, 24.1, length) for length in voxels), indexing="ij")
        image = (1000 * np.exp(-sum((a - c) ** 2 for a, c in zip(at, (1, -2, 3), strict=True)) / 72)).astype(np.float32)
        step = [round(2 / length) for length in voxels]
        n = [round(24 / length) for length in voxels]
        place = Place.whole(len(image), aspect=aspect_of(voxels))
        found = FeatureEngine(NativeDevice(), bank.blocks).compute(image, place=place)
        middle = tuple(slice(k - 3 * s, k + 3 * s + 1, s) for k, s in zip(n, step, strict=True))
        return found[(slice(None), *middle)]

    def factors(name: str) -> int:
        """Derivatives that are multiplied, each of them near."""
        return 4 if "Square" in name else 2 if "Determinant" in name or "Normalized" in name else 1

    coarse, fine = values(size), values((1.0, 0.5, size[0] / 2))
    for name, a, b in zip(bank.channels, coarse, fine, strict=True):
        high = name.startswith(("Derivatives_3", "Derivatives_4", "Derivatives_5"))  # of order 9 to 15: samples differ
        if not high and "Orientation" not in name:  # which jumps
            # Twice a filter of 3 x 3 pixels sees another 1 pixel^2 of variance where sigma is 2 of them.
            assert np.abs(a - b).max() < 0.035 * factors(name) * np.abs(b).max(), name


def test_voxels_of_one_nm_are_the_unit_of_tws() -> None:
    families = [name for name in ACROSS if FAMILIES[name].in_nm == "as is"]
    nm, px = _bank(*families, nm="1,2nm"), FeatureBank.create(families, sigmas=dict.fromkeys(families, (1.0, 2.0)))
    found, expected = (bank.compute_volume(IMAGE, aspect=aspect_of((2.0, 1.0, 1.0))) for bank in (nm, px))
    np.testing.assert_array_equal(found, expected)
    assert not set(nm.channels[1:]) & set(px.channels)


@pytest.mark.parametrize(
    ("families", "voxels", "core"),
    [
        (ACROSS, VOXELS, (0, 23)),
        (ACROSS, VOXELS, (9, 12)),
        (PLANES, (2.0, 0.8, 0.8), (0, 2)),
        ([f"z_{name}" for name in PLANES], (2.0, 0.8, 0.8), (9, 11)),
        (PLANES, (2.0, 0.2, 0.2), (3, 4)),
    ],
)
def test_kernels_compute_the_same(families: list[str], voxels, core: tuple[int, int]) -> None:
    """On voxels of 0.2 nm blurs are done on reduced lines."""
    bank, aspect = _bank(*families), aspect_of(voxels)
    place = Place.with_halo(*core, depth=23, halo=bank.z_reach(aspect), aspect=aspect)
    slab = IMAGE[place.first : place.first + place.n_planes]
    found = FeatureEngine(NativeDevice(), bank.blocks).compute(slab, place=place)
    expected = bank.compute_volume(IMAGE, aspect=aspect)[:, core[0] : core[1]]
    for name, a, b in zip(bank.channels, found, expected, strict=True):
        near = 1.2e-7 * np.abs(b).max() if name.startswith(("Hessian", "Structure")) else 0  # cosines: the last bit
        np.testing.assert_allclose(a, b, rtol=0, atol=near, err_msg=name)


def test_sigmas_in_nm_need_voxels_that_fit_them() -> None:
    bank = _bank("gaussian_blur_3d", nm="3nm")
    with pytest.raises(UsageError, match="in nm, and the size of the voxels is not known"):
        bank.compute_volume(IMAGE)
    with pytest.raises(UsageError, match="in nm, and the size of the voxels is not known"):
        bank.z_reach(CUBES)
    with pytest.raises(UsageError, match=r"3\.0 nm is 300 voxels of 0\.01 nm"):
        bank.z_reach(aspect_of((0.01, 0.01, 0.01)))
    assert [bank.z_reach(aspect_of((z, 1.0, 1.0))) for z in (1.0, 3.0)] == [9, 3]  # three sigmas


def test_planes_need_square_voxels_and_lengths_above_0() -> None:
    bank = _bank(*PLANES)
    with pytest.raises(UsageError, match=r"0\.8 x 1\.25 nm \(y, x\)") as refused:
        bank.compute_volume(IMAGE[:1], aspect=aspect_of(VOXELS))
    assert "gaussian_blur_3d" in str(refused.value)
    with pytest.raises(UsageError, match="size of the voxels is not known"):
        bank.compute(IMAGE[0])
    with pytest.raises(UsageError, match="sobel_filter has no sigma of 0 nm"):
        _bank("sobel_filter", nm="0,2nm")
    block = _bank("gaussian_blur", nm="2nm").blocks[1]
    assert block.in_voxels(aspect_of((1.0, 0.8, 0.8))) == {"sigma": 6.25}  # 2.5 pixels
    with pytest.raises(UsageError, match=r"2\.0 nm is 200 voxels of 0\.01 nm, not 0\.004 to 102\.4"):
        block.in_voxels(aspect_of((1.0, 0.01, 0.01)))


def test_who_has_sigmas_in_nm() -> None:
    for family in ("mean_3d", "median", "entropy"):
        with pytest.raises(UsageError, match=f"{family} has no sigmas in nm"):
            _bank(family, nm="2,3nm")
    with pytest.raises(UsageError, match="2,4nm"):
        _bank("gaussian_blur_3d", nm="2;4nm")
    for name in FEATURE_SETS:
        assert FeatureBank.create(name).nm == ()
    with pytest.raises(ModelError, match="a sigma in nm"):
        FeatureBank.from_channels(_bank("gaussian_blur_3d").channels)
    with pytest.raises(ModelError, match="nm must list families"):
        FeatureBank.from_dict(_bank("gaussian_blur_3d").to_dict() | {"nm": ["edges_3d"]})


def test_a_cache_tells_voxels_apart(tmp_path) -> None:
    bank = _bank("gaussian_blur")

    def keys(voxels: tuple[float, float, float]) -> list[str]:
        volume = open_volume(IMAGE[:1], voxel_size=voxels)
        slab = prepare_slab(volume, 0, 1, scale=IntensityScale.for_volume(volume))
        of_slab = SlabKeys(FeatureCache(tmp_path), slab, device="numpy")
        return [of_slab.key(block) for block in bank.blocks]

    (plane, *blurs), (same, *others) = keys((2.0, 0.8, 0.8)), keys((2.0, 1.6, 1.6))
    assert plane == same
    assert not set(blurs) & set(others)


@pytest.mark.parametrize(
    ("families", "voxels"),
    [(("gaussian_blur_3d", "edges_3d"), VOXELS), (("gaussian_blur", "sobel_filter", "structure"), (2.0, 0.8, 0.8))],
)
def test_a_model_records_them_and_takes_other_voxels(tmp_path, families: tuple[str, ...], voxels) -> None:
    image = (IMAGE + 1000 + 500 * (np.arange(36) > 18)).clip(0).astype(np.uint16)
    y, x = (a.ravel() for a in np.mgrid[0:40:5, 0:36:5])
    strokes = Annotation.from_voxels(
        np.full_like(y, 11), y, x, 1 + (x > 18), shape=image.shape, classes=default_classes(["left", "right"])
    )
    volume = open_volume(image, voxel_size=voxels)
    bank = _bank(*families)
    with pytest.raises(UsageError, match="--voxel-size"):
        train(open_volume(image), strokes, bank=bank, n_trees=3)
    save_model(train(volume, strokes, bank=bank, n_trees=3).model, tmp_path / "m.tcm")
    model = load_model(tmp_path / "m.tcm")
    assert model.bank == bank
    assert fits_volume(model, volume) == []
    other = open_volume(image, voxel_size=(1.0, 1.0, 1.0))
    assert "are those of voxels of" in fits_volume(model, other)[0]
    labels = {size: model.predict(image, voxel_size=size).labels for size in (voxels, (1.0, 1.0, 1.0))}
    assert not np.array_equal(labels[voxels], labels[1.0, 1.0, 1.0])
    mixed = FeatureBank.create([families[0], "mean"], sigmas={families[0]: "3nm", "mean": [1.0]})
    with pytest.raises(ModelError, match="sizes in pixels"):
        fits_volume(dataclasses.replace(train(volume, strokes, bank=mixed, n_trees=3).model), other)


@pytest.mark.parametrize(("family", "voxels"), [("gaussian_blur_3d", "2,0.8,1.25"), ("gaussian_blur", "2,0.8,0.8")])
def test_on_the_command_line(tmp_path, family: str, voxels: str) -> None:
    np.save(tmp_path / "v.npy", IMAGE[:8])
    command = ["features", str(tmp_path / "v.npy"), "--plane", "4", "--features", family, "--sigmas"]
    command += [f"{family}=1.5,3nm", "-o", str(tmp_path / "f.tif"), "--device", "numpy"]
    run = CliRunner().invoke
    assert "the size of the voxels is not known" in str(run(cli, command).exception)
    done = run(cli, [*command, "--voxel-size", voxels])
    assert done.exit_code == 0, done.output
    with tifffile.TiffFile(tmp_path / "f.tif") as file:
        assert "Gaussian_blur_3.0nm" in file.imagej_metadata["Labels"]
