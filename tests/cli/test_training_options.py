"""Options of the bank reach it by name: their order means nothing."""

import inspect

import pytest

from gpu_tomoclass.cli.options import make_bank
from gpu_tomoclass.cli.training_options import BANK

CHOSEN = {
    "features": "membrane_projections,kuwahara,hessian,gabor,z_median",
    "sigma_min": 2.0,
    "sigma_max": 8.0,
    "sigmas": [("hessian", (1.0, 3.0))],
    "membrane_thickness": 3,
    "membrane_patch": 11,
    "hessian": "legacy",
    "gabor": "exact",
    "z_sigma": "4nm",
}


def test_the_list_of_options_is_that_of_the_bank():
    parameters = inspect.signature(make_bank).parameters
    assert set(BANK) == set(parameters) == set(CHOSEN)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


@pytest.mark.parametrize("names", [BANK, tuple(reversed(BANK))])
def test_every_option_arrives(names):
    bank = make_bank(**{name: CHOSEN[name] for name in names})
    assert bank.families == ("gabor", "kuwahara", "hessian", "membrane_projections", "z_median")
    assert (bank.membrane_thickness, bank.membrane_patch, bank.hessian, bank.gabor) == (3, 11, "legacy", "exact")
    assert (bank.z_sigma, bank.z_nm) == (4.0, True)
    assert bank.sigmas_of("hessian") == (1.0, 3.0)
