"""Guidance of a config: from a network's denoiser to the one that is sampled from."""

from collections.abc import Callable

import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, keyed
from diffusion_jax.generation.generator import Guidance, Request
from diffusion_jax.guidance import scales
from diffusion_jax.guidance.extrapolation import Push, autoguidance, classifier_free, clip
from diffusion_jax.guidance.gradients import by_gradient
from diffusion_jax.guidance.particles import flock
from diffusion_jax.models.dual_encoder import Likeness
from diffusion_jax.system.arguments import check as check_arguments
from diffusion_jax.types import Array, Cond, Denoiser, Params

PLUS_PLUS = "plus_plus"
"""The guidance schedule that depends on DDIM's steps (CFG++)."""


def make_guidance(
    config: Config,
    schedule: Schedule,
    limit: float | None,
    worse: Callable[[Params], Denoiser] | None = None,
    look: Callable[[Params, Array], Likeness] | None = None,
) -> Guidance:
    """Composes all guidance of a config, starting with autoguidance or classifier-free guidance.

    Args:
        config: checked config of the run.
        schedule: the noise schedule.
        limit: largest absolute value of the data, for `sample.clip=-1`; None is no limit.
        worse: from the parameters `worse` of a request to the worse model of autoguidance, which
            then replaces classifier-free guidance.
        look: from the parameters `judge` of a request and images `[B, ...]` to the judge's
            embeddings, which are compared with the request's `towards` `[B, E]`.
    """
    sample, settings = config.sample, config.sample.guidance
    clipped = limit if sample.clip < 0 else sample.clip
    low, high = settings.interval
    push = Push(settings.parallel, settings.max_norm, settings.rescale)
    birds, likeness = settings.flock, settings.likeness
    strengths = {
        name: scales.within(birds[name], low, high, 0.0)
        for name in ("separation", "cohesion", "alignment")
        if birds.size and birds[name]
    }
    # Whether guidance is compiled is decided here, as the scale is only known at run time.
    weights = [scales.within(weight, low, high, 0.0) for _, weight in sample.compose]
    free = sample.guidance_scale != 1 or settings.schedule == PLUS_PLUS or bool(weights)
    free = free and not settings.worse  # previews in training have no worse model
    pull = scales.within(likeness.scale, low, high, 0.0)

    def guide(denoise: Denoiser, request: Request, times: Array) -> Denoiser:
        if settings.schedule == PLUS_PLUS:
            course = scales.plus_plus(request.scale, schedule, times)
        else:
            course = scales.SCHEDULES[settings.schedule](request.scale)
        course = scales.within(course, low, high)
        if worse is not None:
            denoise = autoguidance(denoise, worse(request.frozen["worse"]), course, push)
        elif free:
            others = list(zip(request.given.get("others", ()), weights, strict=True))
            against = request.given.get("negative")
            denoise = classifier_free(denoise, course, against=against, others=others, push=push)
        if look is not None and likeness.scale and "towards" in request.given:

            def log_prob(x_t: Array, t: Array, cond: Cond, x_0_hat: Array) -> Array:
                seen = look(request.frozen["judge"], x_0_hat)
                return seen.scale * jnp.sum(seen.images * request.given["towards"], axis=-1)

            denoise = by_gradient(denoise, log_prob, schedule, pull, likeness.max_norm)
        if strengths:
            denoise = flock(denoise, schedule, birds.size, **strengths)
        return denoise

    needs = ["worse"] * bool(worse) + ["judge"] * bool(look)
    needs += (["others"] * bool(weights) + ["negative"] * bool(sample.negative)) * free
    return Guidance(guide, tuple(needs), max(birds.size, 1), clipped or 0.0)


def check(config: Config) -> None:
    """Raises a ConfigError for invalid guidance."""
    sample, settings = config.sample, config.sample.guidance
    check_known(settings.schedule, (*scales.SCHEDULES, PLUS_PLUS), "sample.guidance.schedule")
    if len(settings.interval) != 2:
        raise ConfigError(
            f"sample.guidance.interval={tuple(settings.interval)} must be two times, such as (0, 1)"
        )
    with keyed("sample.guidance.interval"):
        low, high = settings.interval
        scales.within(1.0, low, high)
    with keyed("sample.guidance"):
        Push(settings.parallel, settings.max_norm, settings.rescale)
    with keyed("sample.guidance.likeness"):
        check_arguments(by_gradient, **settings.likeness)
    if sample.clip not in (0, -1):
        with keyed("sample", limit="sample.clip"):
            check_arguments(clip, limit=sample.clip)
    if size := settings.flock.size:
        with keyed("sample.guidance.flock"):
            check_arguments(flock, size=size)
        for key in ("first_index", "batch_size"):  # batches contain whole groups
            if sample[key] % size:
                raise ConfigError(
                    f"sample.{key}={sample[key]} must be a multiple of "
                    f"sample.guidance.flock.size={size}"
                )
    for pair in sample.compose:
        if not isinstance(pair, tuple | list) or [type(v) for v in pair[:1]] != [str]:
            pair = (pair,)
        if len(pair) != 2 or not isinstance(pair[1], int | float):
            raise ConfigError(
                f"sample.compose={tuple(sample.compose)} must be pairs of a text and its weight, "
                "such as (('a hat', 1.5),)"
            )
    if settings.schedule == PLUS_PLUS:
        noisy = sample.sampler != "ddim" or sample.ddim.eta or sample.restart.repeats
        if noisy or not 0 <= sample.guidance_scale <= 1:
            raise ConfigError(
                "sample.guidance.schedule='plus_plus' is for sample.sampler='ddim' without noise "
                "and sample.guidance_scale in [0, 1]"
            )
    on = sample.guidance_scale != 1 or settings.schedule == PLUS_PLUS
    for key, value in (("negative", sample.negative), ("guidance.worse", settings.worse)):
        if value and not on:
            raise ConfigError(
                f"sample.{key}={value!r} needs guidance, which is off at sample.guidance_scale=1"
            )
    if settings.worse and (sample.negative or sample.compose):
        raise ConfigError(
            f"sample.guidance.worse={settings.worse!r} replaces the unconditional model: it "
            "cannot be combined with sample.negative or sample.compose"
        )
    if (on or sample.compose) and not settings.worse and not config.objective.cond_dropout:
        raise ConfigError(
            f"sample.guidance_scale={sample.guidance_scale} needs a network trained without "
            "conditioning too: objective.cond_dropout > 0"
        )
