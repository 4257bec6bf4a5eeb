"""A real specimen: a needle of layers seen by HAADF-STEM, measured by NIST and packed with the program ETSpy.

The tilt series lies in the wheel `etspy` on PyPI (licence of NIST: free use, keep the notice); volumes and truth are
given by the user, see docs/reproduce.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpu_tomoclass.studies.reproduction.case import Case
from gpu_tomoclass.studies.reproduction.given import given_case
from gpu_tomoclass.studies.reproduction.series import CLASSES

N_PAINTED = 14


def needle_cases(volumes: Sequence[str], truth: str, *, planes: tuple[int, int | None] | None = None) -> list[Case]:
    """A case for every volume; they are reconstructions of one specimen and share the truth.

    Parameters
    ----------
    volumes, truth : paths
    planes : (start, stop), optional
        Those with specimen; default all.
    """
    cases = []
    for i, volume in enumerate(volumes):
        name = "needle" if len(volumes) == 1 else f"needle_{i + 1}"
        title = f"needle, {Path(volume).stem.removeprefix('needle_')}"
        cases.append(given_case(name, title, volume, truth, names=CLASSES, n_painted=N_PAINTED, planes=planes))
    return cases
