"""Checks of a config's noise levels before training, with warnings in words."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.from_config import Config, Parts
from diffusion_jax.from_config.sampling import OPTIMISED
from diffusion_jax.training.ema import too_young

# Edges of the bands in `logsnr`. Above the first, noise is below a third of a grey level.
EDGES = (13.3, 10.0, 7.0, 4.0, 2.0, 0.0, -2.0, -4.0, -7.0, -10.0, -13.3)
QUANTILES = 20_000
FLAT = 0.02  # smallest change of `logsnr` in a useful step, relative to the grid's median
SEEN = 0.001  # smallest ratio of training to sampling share, for bands with two or more steps
PRIOR_NATS = 0.05  # largest acceptable prior KL, in nats per image
COARSE_END = 0.3  # largest noise over signal that the last of many steps may remove

# Edges in `logsnr`; shares of training and of sampling, where steps count at their start.
_Band = tuple[float, float, float, float]


class Plan(NamedTuple):
    """Figures and warnings about noise levels."""

    lines: list[str]  # figures, ready to print
    warnings: list[str]  # a sentence for each likely problem


def make_plan(config: Config, parts: Parts, second_moment: float) -> Plan:
    """Checks schedule, training times and sampling grid.

    `second_moment` is the mean of `x_0^2` over items and entries, about the origin if there is one.
    """
    assert parts.task.quantile is not None
    generator = parts.generator
    process, times = gaussian(generator.process), np.asarray(generator.times, np.float64)
    schedule, noun = process.schedule, parts.dataset.kind.noun.removesuffix("s")
    levels = np.asarray(schedule.logsnr(jnp.asarray(times)), np.float64)
    u = (np.arange(QUANTILES) + 0.5) / QUANTILES
    trained = np.asarray(schedule.logsnr(parts.task.quantile(jnp.asarray(u))), np.float64)

    dimensions = int(np.prod(generator.codec.shape))
    terminal = float(np.exp(np.asarray(schedule.logsnr(jnp.array(1.0)), np.float64)))
    start = float(np.exp(levels[0]))
    # KL(N(alpha x_0, sigma^2) || N(0, sigma^2)): information about the data that the prior lacks.
    kl = 0.5 * start * second_moment * dimensions
    left = float(np.exp(-levels[-1] / 2))
    bands = [
        (high, low, _share(trained, high, low), _share(levels[:-1], high, low))
        for high, low in zip((np.inf, *EDGES), (*EDGES, -np.inf), strict=True)
    ]
    steps = len(times) - 1
    lines = [
        f"signal to noise ratio at t = 1: {terminal:.3g}; where sampling starts: {start:.3g}",
        f"prior KL: {kl:.3g} nats per {noun}, {kl / np.log(2) / dimensions:.3g} bits per dimension",
        f"noise over signal where sampling ends: {left:.3g}",
        f"{'logsnr':>16} {'training':>9} {'sampling steps':>15}",
    ]
    for high, low, training, sampling in bands:
        if training or sampling:
            steps_there = round(sampling * steps)
            lines.append(f"{high:>7g} to {low:>5g} {training:>9.1%} {steps_there:>15}")
    searched = config.sample.grid == OPTIMISED
    if searched:
        lines.append("sampling steps are those of the uniform grid: yours is not yet optimised")
    warnings = [
        *(
            _about_origin(kl, noun, times)
            if process.residual
            else _about_start(kl, noun, times, levels, terminal)
        ),
        *_about_end(left, levels),
        *([] if searched else _about_steps(config, times, levels)),
        *_about_training(trained, bands, steps),
        *_about_shift(config),
        *too_young(parts.averages, config.train.steps),
    ]
    return Plan(lines, warnings)


def _share(levels: np.ndarray, high: float, low: float) -> float:
    return float(np.mean((levels <= high) & (levels > low)))


def _about_start(
    kl: float, noun: str, times: np.ndarray, levels: np.ndarray, terminal: float
) -> Iterator[str]:
    if kl > PRIOR_NATS:
        cure = (
            "start at t = 1 (sample.t_max=1, or another sample.grid)"
            if terminal < np.exp(levels[0]) / 2
            else "use schedule.zero_terminal_snr=True or a larger schedule.shift"
        )
        yield (
            f"x_t at {_start(times)} still contains {kl:.2g} nats about its {noun}, but samples "
            f"start from pure noise: brightness and layout will be off; {cure}"
        )


def _about_origin(kl: float, noun: str, times: np.ndarray) -> Iterator[str]:
    """Samples start about what the network is given, and the figures are of `x_0` about that."""
    if kl > PRIOR_NATS:
        yield (
            f"x_t at {_start(times)} still contains {kl:.2g} nats about how its {noun} differs "
            "from what is given, and samples start about that, as published for "
            "schedule.name='ouve'; 'bridge' leaves nothing"
        )


def _start(times: np.ndarray) -> str:
    return "t = 1" if times[0] == 1 else f"t = {times[0]:.4g}, where sampling starts,"


def _about_end(left: float, levels: np.ndarray) -> Iterator[str]:
    if left > 1 / 127.5:
        yield f"samples end with noise of {left:.2g} times their signal"
    if levels[-2] < -2 * np.log(COARSE_END) and len(levels) > 10:
        yield (
            f"the last step goes from noise {np.exp(-levels[-2] / 2):.2g} times the signal to "
            "clean at once: use another sample.grid"
        )


def _about_steps(config: Config, times: np.ndarray, levels: np.ndarray) -> Iterator[str]:
    """Steps that are omitted, and steps without effect: too small, or with invisible noise."""
    if (left_out := config.sample.steps - len(times) + 1) > 0:
        yield (
            f"{left_out} of sample.steps={config.sample.steps} are left out, as their noise is "
            "below float32's precision; use another sample.grid"
        )
    fall = np.diff(levels)  # infinite at the ends of some schedules
    flat = fall < FLAT * np.median(fall)
    if flat.any():
        yield (
            f"{flat.sum()} of {len(fall)} sampling steps hardly change the noise level, the first "
            f"at t = {times[np.argmax(flat)]:.4g}: wasted"
        )
    if idle := int(np.sum(levels[:-1] > EDGES[0])):
        yield (
            f"{idle} of {len(fall)} sampling steps start where noise is less than a third of a "
            "grey level: wasted"
        )


def _about_training(trained: np.ndarray, bands: Sequence[_Band], steps: int) -> Iterator[str]:
    for high, low, training, sampling in bands:
        if training < SEEN * sampling and sampling * steps > 1.5:
            yield (
                f"{sampling:.0%} of the sampling steps start at logsnr from {high:g} to {low:g}, "
                f"where {training:.2%} of the training is spent"
            )
    unseen = float(np.mean(trained > EDGES[0] + 4) + np.mean(trained < EDGES[-1] - 4))
    if unseen > 0.1:
        yield (
            f"{unseen:.0%} of the training is spent where there is almost no noise or almost no "
            "signal: use another time_sampling for this schedule"
        )


def _about_shift(config: Config) -> Iterator[str]:
    law, shift = config.time_sampling, config.schedule.shift
    mean = law.logit_normal.mean if law.name == "logit_normal" else 0.0
    if shift != 1 and mean:
        yield (
            f"noise levels are shifted twice in training: schedule.shift={shift:g} "
            f"and time_sampling.logit_normal.mean={mean:g} make {shift * np.exp(mean):.3g} "
            "together in flow, but sampling is shifted by the first alone"
        )
