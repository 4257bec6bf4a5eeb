"""Settings of a feature bank from what users ask for: names of sets and families, ranges, text such as "2,4nm"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.bank_description import Z_SIGMA
from gpu_tomoclass.features.families import FAMILIES, FEATURE_SETS, what_to_choose
from gpu_tomoclass.features.family import parse_sigmas, single

SIGMA_MAX = {2: 16.0, 3: 8.0}  # by the dimensions of the families: TWS's own defaults


def asked_settings(
    features: str | Sequence[str],
    *,
    sigma_min: float,
    sigma_max: float | None,
    sigmas: Mapping[str, Sequence[float] | str],
    z_sigma: float | str,
) -> dict[str, Any]:
    """Keywords of the bank: families, their sigmas, which of them are in nm, the sigma along z and its unit.

    Parameters are those of :meth:`gpu_tomoclass.FeatureBank.create`, and so are errors.
    """
    given_names = [features] if isinstance(features, str) else features
    names = [family for name in given_names for family in FEATURE_SETS.get(name, (name,))]
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        what = f"unknown features {', '.join(map(repr, unknown))}" if unknown else "no features chosen"
        raise UsageError(what, do=what_to_choose(unknown))
    try:
        parsed = {name: parse_sigmas(values) for name, values in sigmas.items()}
    except ValueError as error:
        raise UsageError(f"sigmas {error}", do='give numbers, or text such as "2,4nm"') from error
    given = {name: numbers for name, (numbers, _) in parsed.items()}
    along_z, z_nm = _parse_z(z_sigma)
    if (along_z, z_nm) != (Z_SIGMA, False) and not any(FAMILIES[name].is_smoothed for name in names):
        raise UsageError(
            f"a sigma along z ({z_sigma}) is for families of smoothed planes, and none is among the features",
            do="choose paper+z or families such as z_hessian, or leave the sigma out",
        )
    misplaced = [name for name in given if name not in names or not FAMILIES[name].per_sigma]
    if misplaced:
        chosen = [name for name in FAMILIES if name in names and FAMILIES[name].per_sigma]
        raise UsageError(
            f"sigmas for {', '.join(misplaced)}, which is not among the chosen features or has no sigma",
            do=f"give sigmas for some of {', '.join(chosen)}",
        )
    families = tuple(name for name in FAMILIES if name in names)
    ranges = {}
    for name in families:
        if name not in given:
            row = FAMILIES[name]
            usual = SIGMA_MAX[2 if row.is_smoothed else row.dimensions]
            most = max(sigma_min, usual) if sigma_max is None else sigma_max
            ranges[name] = row.sigmas_in_range(sigma_min, most)
    lists = {name: FAMILIES[name].sigmas_given(values) for name, values in given.items()}
    return {
        "families": families,
        "sigmas": tuple((ranges | lists)[name] for name in families),
        "nm": tuple(name for name in families if name in parsed and parsed[name][1]),
        "z_sigma": along_z,
        "z_nm": z_nm,
    }


def _parse_z(sigma: float | str) -> tuple[float, bool]:
    """The sigma along z, and whether it is in nm."""
    try:
        numbers, in_nm = parse_sigmas(sigma if isinstance(sigma, str) else (sigma,))
        (value,) = numbers
    except (TypeError, ValueError) as error:
        raise UsageError(f"the sigma along z is {sigma!r:.40}", do='give one number, or text such as "4nm"') from error
    return single(value), in_nm
