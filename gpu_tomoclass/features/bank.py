"""The feature bank: families with their parameters, as an ordered list of channels.

Nothing outside this module and :mod:`gpu_tomoclass.features.families`, the table of families, knows a sigma. Names,
order and values of the channels are those of Trainable Weka Segmentation (TWS) 4.0.0, as
:mod:`gpu_tomoclass.features.reference` defines them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features.asked_settings import asked_settings
from gpu_tomoclass.features.bank_description import GABORS, HESSIANS, WHERE, Z_SIGMA, settings_of
from gpu_tomoclass.features.block import FeatureBlock, halo, row_of, volume_source
from gpu_tomoclass.features.channel_names import VOLUME_PREFIX, implied_settings
from gpu_tomoclass.features.families import FAMILIES, ORIGINAL
from gpu_tomoclass.features.family import NM, SIGMA_LIMITS, Family, Request, number
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.source import FeatureSource
from gpu_tomoclass.features.reference.volume_source import CUBES, Aspect

PATCH_LIMITS = (3, 255)
Z_LIMITS = (0.01, 32.0)  # voxels
SOURCE_BYTES = 4 + 2  # per pixel: the plane as float32 and as bytes, by its own and by the display range


@dataclass(frozen=True)
class FeatureBank:
    """Feature families with their parameters. Channel 0 is always the plane itself, ``original``.

    Made by :meth:`create`, :meth:`from_dict` or :meth:`from_channels`. ``FeatureBank("weka-default")`` and
    ``FeatureBank(["median", "hessian"])`` are banks with TWS's sigmas 1, 2, .. 16, as :meth:`create` makes them.

    Attributes
    ----------
    families : tuple of str
        Names of :data:`FAMILIES`, in the order of that table.
    sigmas : tuple of tuple of float
        For each family its sigmas, rising; empty for families with fixed parameters. Values are float32, as in TWS.
    nm : tuple of str
        Families whose sigmas are lengths in nm, along every axis. The size of a volume's voxels makes voxels of them.
    membrane_thickness, membrane_patch : int
        TWS's membrane settings in pixels: used by Membrane_projections; the thickness also by Anisotropic_diffusion (as
        its edge threshold), the patch size also by Kuwahara.
    hessian : {"current", "legacy"}
        The formula of the Hessian's eigenvalues: that of TWS since 3.2.25, or the one before. The names of the channels
        are the same. ``"current"`` if the bank has no Hessian.
    gabor : {"fast", "exact"}
        Gabor to 1e-5 of a channel's standard deviation, or TWS's very bits, by its own Fourier transform: seconds per
        plane, on the CPU. ``"fast"`` if the bank has no Gabor.
    z_sigma : float
        By how much planes are smoothed along z for the families ``z_..``: a standard deviation in voxels of x, whatever
        the voxels' length along z; or in nm. 2 if the bank has none of them.
    z_nm : bool
        Whether that is in nm.

    Raises
    ------
    UsageError
        If a family, sigma or setting is not possible; the message names what is.
    """

    families: tuple[str, ...]
    sigmas: tuple[tuple[float, ...], ...] = ()
    membrane_thickness: int = 1
    membrane_patch: int = 19
    hessian: str = "current"
    gabor: str = "fast"
    nm: tuple[str, ...] = ()
    z_sigma: float = Z_SIGMA
    z_nm: bool = False

    def __post_init__(self) -> None:
        if self.families and not self.sigmas:
            made = FeatureBank.create(self.families)
            object.__setattr__(self, "families", made.families)
            object.__setattr__(self, "sigmas", made.sigmas)
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown:
            raise UsageError(f"unknown feature families {unknown}", do=f"choose from {', '.join(FAMILIES)}")
        if list(self.families) != [name for name in FAMILIES if name in self.families]:
            raise UsageError(f"families must each be named once, in the order of the table, not {self.families}")
        if len(self.sigmas) != len(self.families):
            raise UsageError(f"{len(self.families)} families need as many sigma lists, not {len(self.sigmas)}")
        for name, sigmas in zip(self.families, self.sigmas, strict=True):
            FAMILIES[name].check_sigmas(sigmas, nm=name in self.nm)
        patch, thickness = self.membrane_patch, self.membrane_thickness
        low, high = PATCH_LIMITS
        if not (isinstance(patch, int) and low <= patch <= high and patch % 2 == 1):
            raise UsageError(f"the membrane patch must be an odd number from {low} to {high}, not {patch}")
        if not (isinstance(thickness, int) and 1 <= thickness < patch):
            raise UsageError(f"the membrane thickness must be 1 to {patch - 1} for a patch of {patch}, not {thickness}")
        for family, ways in (("hessian", HESSIANS), ("gabor", GABORS)):
            way = getattr(self, family)
            if way not in ways:
                raise UsageError(f"{family} must be one of {', '.join(ways)}, not {way!r:.40}")
            if not {family, f"z_{family}"} & set(self.families):
                object.__setattr__(self, family, ways[0])
        if not self._smooths:
            object.__setattr__(self, "z_sigma", Z_SIGMA)
            object.__setattr__(self, "z_nm", False)
        least, most = SIGMA_LIMITS if self.z_nm else Z_LIMITS
        if not least <= self.z_sigma <= most:
            unit = "nm" if self.z_nm else "voxels"
            raise UsageError(f"planes are smoothed along z by {least:g} to {most:g} {unit}, not {self.z_sigma:g}")

    @classmethod
    def create(
        cls,
        features: str | Sequence[str] = "paper",
        *,
        sigma_min: float = 1.0,
        sigma_max: float | None = None,
        sigmas: Mapping[str, Sequence[float] | str] | None = None,
        membrane_thickness: int = 1,
        membrane_patch: int = 19,
        hessian: str = "current",
        gabor: str = "fast",
        z_sigma: float | str = Z_SIGMA,
    ) -> FeatureBank:
        """A bank with sigmas sigma_min, 2 sigma_min, 4 sigma_min ... up to sigma_max, as TWS makes them.

        Parameters
        ----------
        features : str or sequence of str
            Names of :data:`FEATURE_SETS` and of families, in any order.
        sigma_min, sigma_max : float
            TWS's sigma range in pixels; the largest is by default TWS's: 16, or 8 for families that look across planes.
            Sobel_filter and Hessian also get sigma 0 (no blur) if sigma_min < 2. Families
            that need whole pixels cut the fraction off, and leave out what is less than 1.
        sigmas : mapping of str to sequence of float or str, optional
            Explicit sigmas for some families, instead of that range. 0 where the family has it. ``"2,4nm"``: lengths in
            nm, for families made of Gaussians.
        membrane_thickness, membrane_patch, hessian, gabor
            See the class.
        z_sigma : float or str
            See the class; ``"4nm"``: in nm. Only with families ``z_..``.

        Raises
        ------
        UsageError
            If anything asked for is not possible.
        """
        return cls(
            **asked_settings(features, sigma_min=sigma_min, sigma_max=sigma_max, sigmas=sigmas or {}, z_sigma=z_sigma),
            membrane_thickness=membrane_thickness,
            membrane_patch=membrane_patch,
            hessian=hessian,
            gabor=gabor,
        )

    @property
    def _smooths(self) -> bool:
        return any(FAMILIES[name].is_smoothed for name in self.families)

    def sigmas_of(self, family: str) -> tuple[float, ...]:
        """The sigmas of one of the bank's families."""
        return self.sigmas[self.families.index(family)]

    @cached_property
    def blocks(self) -> tuple[FeatureBlock, ...]:
        """All blocks in channel order, that of TWS's multi-threaded code; those across planes come last."""
        order = [(ORIGINAL, 0.0), *self._order(2), *self._order(3)]
        prefix = VOLUME_PREFIX if len(self.dimensions) == 2 else ""
        blocks: list[FeatureBlock] = []
        start = 0
        for row, sigma in order:
            smaller = tuple(s for s in self.sigmas_of(row.name) if s < sigma) if row.per_sigma else ()
            ways = self.hessian == "legacy", self.gabor == "exact"
            least = self.sigmas_of(row.name)[0] if row.name in self.nm else 0.0
            along_z = (self.z_sigma, self.z_nm) if row.is_smoothed else ()
            request = Request(sigma, smaller, self.membrane_thickness, self.membrane_patch, *ways, least, *along_z)
            parameters = row.parameters(request) | ({NM: True} if least else {})
            channels = tuple((prefix if row.dimensions == 3 else "") + name for name in row.labels(**parameters))
            if channels:  # the smallest sigma has no difference of Gaussians
                stop = start + len(channels)
                at = sigma if row.per_sigma else None
                blocks.append(FeatureBlock(row.name, at, tuple(parameters.items()), channels, start, stop))
                start = stop
        return tuple(blocks)

    def _order(self, dimensions: int) -> list[tuple[Family, float]]:
        """Families of so many dimensions with their sigmas, as TWS orders them."""
        chosen = [FAMILIES[name] for name in self.families if FAMILIES[name].dimensions == dimensions]
        middle = sorted({s for row in chosen if row.place == "middle" for s in self.sigmas_of(row.name)})
        order = [(row, s) for row in chosen if row.place == "first" for s in self.sigmas_of(row.name) or (0.0,)]
        order += [(row, s) for s in middle for row in chosen if row.place == "middle" and s in self.sigmas_of(row.name)]
        order += [(row, s) for row in chosen if row.place == "last" for s in self.sigmas_of(row.name) or (0.0,)]
        return order

    @property
    def dimensions(self) -> frozenset[int]:
        """2 if it has families of planes, 3 if it has families that look across planes."""
        return frozenset(FAMILIES[name].dimensions for name in self.families)

    @property
    def fits_any_voxels(self) -> bool:
        """Tell whether all sizes are in nm and none in pixels, so that values do not depend on the voxels."""
        return all(name in self.nm and (self.z_nm or not FAMILIES[name].is_smoothed) for name in self.families)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """TWS's names of the channels, in order; with a prefix across planes if there are others, too."""
        return tuple(name for block in self.blocks for name in block.channels)

    @property
    def n_channels(self) -> int:
        return len(self.channels)

    @property
    def reach(self) -> int:
        """Largest distance in pixels over which any filter looks."""
        return max(block.reach for block in self.blocks)

    @property
    def radius(self) -> int | None:
        """Support radius in pixels; None where a family's values depend on the whole plane."""
        radii = [block.radius for block in self.blocks]
        finite = [radius for radius in radii if radius is not None]
        return max(finite) if len(finite) == len(radii) else None

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that :meth:`compute` needs at most per pixel of a plane, its result included."""
        blurs = {  # derivatives over a sigma in nm have blurs of their own, and so have smoothed planes
            (s, name if name in self.nm else "", FAMILIES[name].is_smoothed)
            for name, sigmas in zip(self.families, self.sigmas, strict=True)
            for s in sigmas
        }
        block = max(block.reference_bytes for block in self.blocks)
        return 4 * self.n_channels + block + 4 * len(blurs) + SOURCE_BYTES

    def invalid_sigmas(self, shape: tuple[int, int], *, aspect: Aspect = CUBES) -> list[tuple[str, float | None]]:
        """Blocks, as (family, sigma), whose filter reaches further than the plane (ny, nx) is long.

        They are computed all the same, by the family's border rule, but say more about the border than about the plane.
        Neighbors is missing (NaN) where a mirrored position still lies outside, as in TWS.
        """
        return [(block.family, block.sigma) for block in self.blocks if block.reaches(aspect)[2] >= min(shape)]

    def subset(self, channels: Iterable[str]) -> tuple[FeatureBlock, ...]:
        """The blocks that make these channels, in channel order.

        Raises
        ------
        UsageError
            If the bank has no such channel.
        """
        wanted = set(channels)
        unknown = sorted(wanted.difference(self.channels))
        if unknown:
            raise UsageError(f"the feature bank has no channels {unknown}")
        return tuple(block for block in self.blocks if wanted.intersection(block.channels))

    def z_reach(self, aspect: Aspect = CUBES) -> int:
        """Number of planes on both sides of a plane that its features look at; 0 if none looks across planes."""
        return halo(self.blocks, aspect)

    def compute_volume(
        self,
        planes: np.ndarray,
        *,
        place: Place | None = None,
        aspect: Aspect = CUBES,
        display_range: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """The channels of planes of a volume.

        Parameters
        ----------
        planes : ndarray
            (nz, ny, nx), any integer or float dtype, finite.
        place : Place, optional
            Where they lie in the volume, and which of them are wanted; default: they are the volume.
        aspect : Aspect
            Of its voxels, without a place; see :func:`gpu_tomoclass.features.place.aspect_of`.
        display_range : (float, float), optional
            See :class:`~gpu_tomoclass.features.reference.source.FeatureSource`.

        Returns
        -------
        ndarray
            (n_channels, planes that are wanted, ny, nx) float32.
        """
        place = Place.whole(len(planes), aspect=aspect) if place is None else place
        out = np.empty((self.n_channels, place.n_wanted, *planes.shape[1:]), np.float32)
        by_plane = [FeatureSource(plane, display_range=display_range) for plane in planes[place.wanted]]
        volume = volume_source(planes, place)
        for block in self.blocks:
            if block.dimensions == 3:
                out[block.start : block.stop] = row_of(block.family).compute(volume, block.in_voxels(place.aspect))
            else:
                for z, source in enumerate(by_plane):
                    out[block.start : block.stop, z] = self.compute_block(source, block, aspect=place.aspect)
        return out

    def compute_block(self, source: FeatureSource, block: FeatureBlock, *, aspect: Aspect = CUBES) -> np.ndarray:
        """The channels of one block on voxels of this aspect: (n, ny, nx) float32, maybe read-only."""
        return row_of(block.family).compute(source, block.in_voxels(aspect))

    def compute(
        self,
        plane: np.ndarray,
        *,
        aspect: Aspect = CUBES,
        display_range: tuple[float, float] | None = None,
        blocks: Sequence[FeatureBlock] | None = None,
        timings: MutableMapping[str, float] | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The channels of one plane; :meth:`compute_volume` has those that look across planes.

        Parameters
        ----------
        plane : ndarray
            (ny, nx), any integer or float dtype, finite.
        aspect : Aspect
            Of its voxels, which sigmas in nm need.
        display_range : (float, float), optional
            See :class:`~gpu_tomoclass.features.reference.source.FeatureSource`.
        blocks : sequence of FeatureBlock, optional
            Compute these only, in this order.
        timings : dict, optional
            Seconds are added per family. A Gaussian blur counts for the family that needs it first.
        out : ndarray, optional
            float32 (n_channels, ny, nx) to write to.

        Returns
        -------
        ndarray
            (n_channels, ny, nx) float32.
        """
        blocks = self.blocks if blocks is None else blocks
        across = [block.family for block in blocks if block.dimensions == 3]
        if across:
            raise UsageError(f"{across[0]} looks across planes", do="give compute_volume a volume")
        source = FeatureSource(plane, display_range=display_range)
        shape = (sum(len(block.channels) for block in blocks), *source.shape)
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise UsageError(f"the output array must be float32 {shape}, not {out.dtype} {out.shape}")
        start = 0
        for block in blocks:
            began = time.perf_counter()
            stop = start + len(block.channels)
            out[start:stop] = self.compute_block(source, block, aspect=aspect)
            start = stop
            if timings is not None:
                timings[block.family] = timings.get(block.family, 0.0) + time.perf_counter() - began
        return out

    @property
    def definition_version(self) -> int:
        """The definition version that last changed the values of any channel; banks that it left alone stay valid."""
        return max(block.definition_version for block in self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; :meth:`from_dict` reads it back."""
        return {
            "definition_version": self.definition_version,
            "families": {
                name: [float(number(s)) for s in sigmas]
                for name, sigmas in zip(self.families, self.sigmas, strict=True)
            },
            "membrane_thickness": self.membrane_thickness,
            "membrane_patch": self.membrane_patch,
            **({} if self.hessian == HESSIANS[0] else {"hessian": self.hessian}),
            **({} if self.gabor == GABORS[0] else {"gabor": self.gabor}),
            **({NM: list(self.nm)} if self.nm else {}),
            **({"z_sigma": float(number(self.z_sigma))} if self._smooths else {}),
            **({"z_nm": True} if self.z_nm else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureBank:
        """The bank that :meth:`to_dict` described.

        Raises
        ------
        ModelError
            If a field is missing, unknown or impossible, if the definition is a newer one, or if the values of a
            channel have changed since.
        """
        settings, version = settings_of(data)
        try:
            bank = cls(**settings)
        except UsageError as error:
            raise ModelError(error.what, where=WHERE) from error
        changed = [name for block in bank.blocks if block.definition_version > version for name in block.channels]
        if changed:
            more = f" and {len(changed) - 1} more channels have" if changed[1:] else " has"
            raise ModelError(
                f"{changed[0]}{more} other values now (definition_version {version}, here {bank.definition_version})",
                where=WHERE,
                do="classify with the version of gpu_tomoclass that made it, or train or import again",
            )
        return bank

    @classmethod
    def from_channels(
        cls,
        names: Sequence[str],
        *,
        hessian: str = "current",
        gabor: str = "fast",
        dimensions: int | None = None,
    ) -> tuple[FeatureBank, np.ndarray]:
        """The bank that a list of TWS channel names (of an ARFF file or a ``.model``) implies.

        Parameters
        ----------
        names : sequence of str
            TWS's names without the class attribute, in any order; TWS itself has two, Gabor coming before
            Anisotropic_diffusion or after Kuwahara.
        hessian, gabor : str
            See the class; the names do not tell.
        dimensions : {2, 3}, optional
            Whether TWS 2D or 3D made them; by default the names and their order decide.

        Returns
        -------
        bank : FeatureBank
            Its channels are exactly ``names``, in the bank's order.
        order : ndarray
            intp (n_channels,), so that ``names[order[i]] == bank.channels[i]``.

        Raises
        ------
        ModelError
            If a name is unknown or twice there, a family is not complete, or membrane settings contradict each other.
        """
        where = "channel names"
        names = list(names)
        try:
            bank = cls(**implied_settings(names, dimensions=dimensions), hessian=hessian, gabor=gabor)
        except UsageError as error:
            raise ModelError(error.what, where=where) from error
        problems = {
            "twice there": [name for i, name in enumerate(names) if name in names[:i]],
            "unknown": [name for name in names if name not in bank.channels],
            "missing, though others of the family are there": [name for name in bank.channels if name not in names],
        }
        for problem, found in problems.items():
            if found:
                some = ", ".join(repr(name) for name in found[:5]) + (
                    f" and {len(found) - 5} more" if found[5:] else ""
                )
                raise ModelError(f"{some}: {problem}", where=where, do="the grey features of TWS are expected")
        return bank, np.array([names.index(name) for name in bank.channels], dtype=np.intp)
