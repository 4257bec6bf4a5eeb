"""Descriptions of feature banks in model files, which may come from strangers: checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.features.families import FAMILIES
from gpu_tomoclass.features.family import NM, SIGMA_LIMITS, single

DEFINITION_VERSION = 2
"""Goes up whenever the values of any channel change; :attr:`FeatureBank.definition_version` says for which banks.

2: blurs of sigma above 21.25 add in the order of ImageJ 1.54; the last bits differ. The legacy Hessian and
the exact Gabor are new.
"""

HESSIANS = ("current", "legacy")
GABORS = ("fast", "exact")
Z_SIGMA = 2.0
"""Standard deviation, in voxels of x, by which planes are smoothed along z."""
WHERE = "feature bank"


def settings_of(data: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Keywords of the bank that :meth:`FeatureBank.to_dict` described, and its definition version.

    Raises
    ------
    ModelError
        If a field is missing, unknown or of another kind, or the definition is a newer one.
    """
    expected = {"definition_version", "families", "membrane_thickness", "membrane_patch"}
    if not isinstance(data, Mapping) or set(data) - {"hessian", "gabor", NM, "z_sigma", "z_nm"} != expected:
        found = ", ".join(map(str, data)) if isinstance(data, Mapping) else repr(data)
        raise ModelError(f"expected the fields {', '.join(sorted(expected))}, found {found:.200}", where=WHERE)
    for field in sorted(expected - {"families"}):
        if type(data[field]) is not int:
            raise ModelError(f"{field} must be a whole number, not {data[field]!r:.60}", where=WHERE)
    along_z = data.get("z_sigma", Z_SIGMA)
    if type(along_z) not in (int, float) or not 0 < along_z <= SIGMA_LIMITS[1]:
        raise ModelError(f"z_sigma must be a number above 0, not {along_z!r:.60}", where=WHERE)
    if type(data.get("z_nm", False)) is not bool:
        raise ModelError(f"z_nm must be true or false, not {data['z_nm']!r:.60}", where=WHERE)
    version, families = data["definition_version"], data["families"]
    if not 1 <= version <= DEFINITION_VERSION:
        raise ModelError(
            f"definition_version {version} is unknown, this is version {DEFINITION_VERSION}",
            where=WHERE,
            do="use the version of gpu_tomoclass that made it, or a newer one" if version > 0 else None,
        )
    if not isinstance(families, Mapping):
        raise ModelError(f"families must be a mapping, not {families!r:.60}", where=WHERE)
    in_nm = data.get(NM, [])
    if not (isinstance(in_nm, list) and all(isinstance(name, str) and name in families for name in in_nm)):
        raise ModelError(f"{NM} must list families of the bank, not {in_nm!r:.60}", where=WHERE)
    for name, sigmas in families.items():
        if name not in FAMILIES:
            raise ModelError(f"families: unknown feature family {name!r:.60}", where=WHERE)
        if not (
            isinstance(sigmas, list) and all(type(s) in (int, float) and 0 <= s <= SIGMA_LIMITS[1] for s in sigmas)
        ):
            raise ModelError(f"families: {name} needs a list of sigmas, not {sigmas!r:.60}", where=WHERE)
    names = tuple(name for name in FAMILIES if name in families)
    settings = {
        "families": names,
        "sigmas": tuple(tuple(single(s) for s in families[name]) for name in names),
        "membrane_thickness": data["membrane_thickness"],
        "membrane_patch": data["membrane_patch"],
        "hessian": data.get("hessian", HESSIANS[0]),
        "gabor": data.get("gabor", GABORS[0]),
        "nm": tuple(name for name in names if name in in_nm),
        "z_sigma": single(along_z),
        "z_nm": data.get("z_nm", False),
    }
    return settings, version
