"""Invalid settings of guidance are refused on construction; scales may be traced."""

import jax
import pytest

from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.diffusion.time_grids import uniform
from diffusion_jax.guidance import scales
from diffusion_jax.guidance.extrapolation import Push, clip
from diffusion_jax.guidance.gradients import by_gradient
from diffusion_jax.guidance.particles import flock
from diffusion_jax.guidance.tokens import by_classifier
from diffusion_jax.types import Denoised


def plain(x_t, t, cond):
    """Gives the noisy data back."""
    return Denoised(x_t)


GRADIENT = {"denoise": plain, "log_prob": lambda *_: 0.0, "schedule": Cosine(), "scale": 1.0}

WRONG = [
    (Push, {"parallel": 3}),
    (Push, {"parallel": -0.1}),
    (Push, {"rescale": 2.0}),
    (Push, {"max_norm": -1.0}),
    (clip, {"limit": 0.0, "denoise": plain}),
    (clip, {"limit": -1.0, "denoise": plain}),
    (flock, {"size": 1, "denoise": plain, "schedule": Cosine()}),
    (by_gradient, {"max_norm": -1.0, **GRADIENT}),
    (by_gradient, {"scale": -1.0, **{k: v for k, v in GRADIENT.items() if k != "scale"}}),
    (by_classifier, {"at_once": 0, "denoise": plain, "log_prob": plain, "scale": 1.0}),
    (by_classifier, {"scale": -1.0, "denoise": plain, "log_prob": plain}),
    (scales.within, {"low": 0.7, "high": 0.2, "scale": 1.0}),
    (scales.within, {"low": -0.1, "high": 0.2, "scale": 1.0}),
    (scales.within, {"high": 1.2, "low": 0.2, "scale": 1.0}),
    (scales.plus_plus, {"scale": 7.5, "schedule": Cosine(), "times": uniform(4)}),
]


@pytest.mark.parametrize(("make", "given"), WRONG)
def test_wrong_settings_are_refused(make, given):
    """In a sentence that begins with the first of them, and gives its value."""
    name, value = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"^{name}={value} must lie in "):
        make(**given)


def test_traced_scales_are_not_looked_at():
    def at_half(scale):
        return scales.plus_plus(scale, Cosine(), uniform(4))(jax.numpy.array([0.5]))[0]

    assert jax.jit(at_half)(7.5) == pytest.approx(7.5 * float(jax.jit(at_half)(1.0)))
