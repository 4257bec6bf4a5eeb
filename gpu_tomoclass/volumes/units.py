"""Units of length as microscopes and programs spell them, in nm."""

from __future__ import annotations

import re

_NANOMETRES = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "picometre": 1e-3,
    "a": 0.1,
    "å": 0.1,
    "ang": 0.1,
    "angstrom": 0.1,
    "ångström": 0.1,
    "ångstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "centimetre": 1e7,
    "in": 2.54e7,
    "inch": 2.54e7,
    "m": 1e9,
    "meter": 1e9,
    "metre": 1e9,
}
INCH, CENTIMETRE, MILLIMETRE, MICROMETRE = (_NANOMETRES[unit] for unit in ("inch", "cm", "mm", "µm"))

# Cameras and drawing programs write 72 to 2400 dots per inch, that is 10 to 350 µm per pixel: no electron micrograph.
LARGEST_PIXEL = 5e3  # nm


def nanometres(unit: object) -> float | None:
    """Length of the unit in nm; None for pixels and for words that are no length.

    ImageJ writes characters beyond ASCII as Java escapes (``\\u00B5m``, ``\\u00C5``), EMD files put units into brackets
    (``[n_m]``), and there are two code points for the micro sign and for the Angstrom sign.
    """
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    if not isinstance(unit, str):
        return None
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit)
    text = re.sub(r"[\[\]_\s]", "", text).replace("\u03bc", "µ").replace("\u212b", "Å")
    text = text.replace("A\u030a", "Å").lower()  # A with a combining ring
    return _NANOMETRES.get(text) or _NANOMETRES.get(text.removesuffix("s"))
