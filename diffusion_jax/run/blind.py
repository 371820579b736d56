"""Parameters of a picture's damage, found from the picture itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.from_config.restoration import Seen, make_restoration, requested, within
from diffusion_jax.restoration.blind import (
    Estimate,
    Windows,
    expectation_maximisation,
    parameters,
)
from diffusion_jax.restoration.linear import masked, unmasked
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.run.trained import Trained
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array

LEAST_NOISE = 0.1
"""That is added to windows in the second half of the rounds."""


def estimated(model: Trained, seen: Seen) -> Estimate:
    """Parameters of the operator and sigma, from windows spread at random over the picture.

    Raises:
        SamplingError: samples are not finite.
    """
    config, own = model.run.config, model.draws.codec.shape
    settings, num, seed = config.restore.blind, config.restore.blind.windows, config.sample.seed
    operator, whole = unmasked(seen.observation.operator)
    y = np.asarray(seen.observation.y[0])
    known = np.broadcast_to(whole, (1, *y.shape))[0]
    # A picture smaller than the network's is one window.
    part = *map(min, seen.shape[:-1], own[:-1]), own[-1]
    sides = jax.eval_shape(operator, jax.ShapeDtypeStruct((1, *part), y.dtype)).shape[1:-1]
    generator = make_restoration(config, model.draws, own)

    def windows(number: int) -> Windows:
        rng = np.random.default_rng((seed, number))
        corners = rng.integers(0, np.subtract(y.shape[:-1], sides) + 1, (num, 2))
        places = [tuple(map(slice, corner, corner + sides)) for corner in corners]
        return Windows(*(jnp.asarray(np.stack([a[place] for place in places])) for a in (y, known)))

    def draw(observation: Observation, number: int) -> Array:
        index = number * num + np.arange(num)
        each = jax.tree.map(lambda a: np.repeat(np.asarray(a), num // len(a), 0), observation)
        request = model.request(index, model.run.conditions.explicit(index))
        request = requested(config, generator, request, within(each, part, own))
        x, _ = generator(model.params, seed, request, batch_size=config.sample.batch_size)
        model.encoded(x, index)  # raises if they are not finite
        return jnp.asarray(x[:, : part[0], : part[1]])

    half = settings.rounds // 2
    levels = [*np.geomspace(settings.noise, LEAST_NOISE, half + 1)[:-1]]
    levels += [LEAST_NOISE] * (settings.rounds - half)
    return expectation_maximisation(
        *(draw, windows, operator, config.restore.sigma, levels, make_key(seed)),
        average=settings.rounds - half,
    )


def with_estimate(seen: Seen, found: Estimate) -> Seen:
    """The picture with the operator and the noise that were found."""
    operator = masked(found.operator, unmasked(seen.observation.operator)[1])
    found_all = dataclasses.replace(seen.observation, operator=operator, sigma=found.sigma[None])
    return seen._replace(observation=found_all)


def described(found: Estimate) -> str:
    """Each value that was found, with its standard deviation over the rounds of the mean."""
    last = found.average
    words = [
        f"{name} {_numbers(values[-last:].mean(0))} +- {_numbers(values[-last:].std(0))}"
        for name, values in found.rounds.items()
    ]
    return f"found {', '.join(words)} (mean and standard deviation of the last {last} rounds)"


def values_of(found: Estimate) -> dict[str, list[float]]:
    """What was found by name, as lists of numbers."""
    values = {**parameters(found.operator), "sigma": found.sigma}
    return {name: np.ravel(value).tolist() for name, value in values.items()}


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3g}" for value in np.ravel(values))
