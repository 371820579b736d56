"""Invalid settings of samplers are refused on construction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.samplers import exponential, ode, sde
from diffusion_jax.samplers.adaptive import adaptive
from diffusion_jax.samplers.cld import cld
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.exponential import unipc
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import ghvb
from diffusion_jax.samplers.restart import restart_times
from diffusion_jax.samplers.sde import ancestral, churn

SCHEDULE = Cosine()
DDIM = ddim(SCHEDULE)

WRONG = [
    (ddim, {"eta": -0.1}),
    (ddim, {"eta": 1.5}),
    (ancestral, {"variance": "middle"}),
    (ode.heun, {"scaling": "edm"}),
    (ode.midpoint, {"scaling": "edm"}),
    (ode.rk4, {"scaling": "edm"}),
    (ode.lms, {"order": 5}),
    (ode.lms, {"scaling": ""}),
    (ode.ipndm, {"order": 0}),
    (ghvb, {"order": 5}),
    (ghvb, {"beta": 0.0}),
    (ghvb, {"scaling": "edm"}),
    (adaptive, {"rtol": -1e-3}),
    (adaptive, {"atol": 0.0}),
    (exponential.dpm_solver, {"order": 1}),
    (exponential.dpmpp_singlestep, {"order": 4}),
    (exponential.dpmpp_multistep, {"order": 4}),
    (exponential.deis, {"order": 0}),
    (exponential.deis, {"polynomial": "x"}),
    (unipc, {"order": 7}),
    (unipc, {"variant": "bh3"}),
    (sde.euler_ancestral, {"eta": 2.0}),
    (sde.euler_maruyama, {"noise": -1.0}),
    (sde.dpmpp_sde, {"eta": -0.5}),
    (sde.dpmpp_sde_multistep, {"order": 3}),
    (sde.predictor_corrector, {"corrector_steps": -1, "predictor": DDIM}),
    (sde.predictor_corrector, {"snr": 0.0, "predictor": DDIM}),
    (churn, {"steps": 0}),
    (churn, {"s_churn": -1.0, "steps": 5}),
    (churn, {"s_min": 60.0, "steps": 5}),
    (churn, {"s_noise": -1.0, "steps": 5}),
    (cld, {"order": 3}),
    (cld, {"gamma": -0.04}),
]


@pytest.mark.parametrize(("make", "given"), WRONG)
def test_wrong_settings_are_refused(make, given):
    """In a sentence that begins with the first of them, and gives its value."""
    name, value = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"^{name}={value!r} must (be|lie in) "):
        make(SCHEDULE, **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"low": 0.5}, r"low=0.5 must lie in \[0, high\) with high=0.4"),
        ({"high": 1.2}, r"high=1.2 must lie in \(0, 1\]"),
        ({"repeats": 0}, "repeats=0 must lie in"),
        ({"steps": 0}, "steps=0 must lie in"),
        ({"high": 0.95}, "high=0.95 down to low=0.1 is no interval on a grid from 0.9"),
    ],
)
def test_wrong_restarts_are_refused(given, says):
    right = {"low": 0.1, "high": 0.4, "repeats": 2, "steps": 3}
    with pytest.raises(ValueError, match=says):
        restart_times(np.linspace(0.9, 0, 10), **{**right, **given})


def test_a_wrong_number_of_kept_states_is_refused():
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="keep_every=-1 must lie in"):
        sample(lambda *_: None, DDIM, jnp.linspace(1, 0, 4), jnp.zeros((2, 3)), {}, keys, -1)
