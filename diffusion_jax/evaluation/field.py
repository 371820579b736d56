"""The vector field that a network has learned, in few dimensions, beside the exact one.

The field is the score of the noisy data, which a denoiser states as (Tweedie's formula)

    s(x, t) = (alpha_t x_0_hat(x, t) - x) / sigma_t^2

and which is drawn in units of the noise: `sigma_t s = -eps_hat`, and `sigma_t^2 div s`. The latter
is `-D + (alpha_t / sigma_t)^2 tr Cov(x_0 | x_t)` for D dimensions: -D where the field leads to a
point, -D + 1 where it leads to a curve, above 0 where paths part.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data.sets.points import Law
from diffusion_jax.diffusion.corruption import diffuse, sample_keys, sample_noise
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.metrics.intervals import Estimate, normal, variance_of_mean, wilson
from diffusion_jax.metrics.neighbours import two_nearest
from diffusion_jax.report import fields
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Array, Cond, Denoised, Denoiser, Params

Result = dict[str, dict[str, Any]]
TIMES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Noise levels at which the distance from the exact score is measured."""
DRAWN = (0.05, 0.1, 0.2, 0.5)
"""Noise levels of the pictures."""
MOST_DIMS = 3
MOST_PARTS = 4
"""Conditions that the field is drawn under."""
GRID = 80
"""Places per axis at which the field is drawn and from which paths start."""
BASIN = 2.5
"""They start within so many standard deviations of the noise."""
PARTICLES = 1000
FRAMES = 32
"""Of the animation, or a few more."""


class Field(NamedTuple):
    """A denoiser as `make(made_of)`: compiled programs are handed the arrays as an argument."""

    make: Callable[[Any], Denoiser]
    made_of: Any

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(denoiser, *args)`, compiled; arrays of NumPy."""
        program = jax.jit(lambda made_of, *args: function(self.make(made_of), *args))
        return jax.device_get(program(self.made_of, *args))


def exact_denoiser(law: Law, schedule: Schedule) -> Denoiser:
    """`E[x_0 | x_t]` of a mixture of Gaussians, given the part `cond['label']` where it is not -1.

    With `v = alpha^2 std^2 + sigma^2` the component k has the posterior probability
    `r_k ~ N(x_t; alpha m_k, v I)`, and the mean is `(alpha std^2 x_t + sigma^2 sum_k r_k m_k) / v`.
    """

    def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
        alpha, sigma = (per_sample(c(t), x_t) for c in (schedule.alpha, schedule.sigma))
        means = jnp.asarray(law.means, x_t.dtype)
        variance = alpha**2 * law.std**2 + sigma**2
        # Not by |x|^2 - 2 x m + |m|^2, which cancels where there is little noise.
        square = sum((x_t[:, d, None] - alpha * means[:, d]) ** 2 for d in range(means.shape[1]))
        logits = -square / (2 * variance)
        if "label" in cond:
            label = cond["label"][:, None]
            logits = jnp.where((label < 0) | (label == law.labels), logits, -jnp.inf)
        shares = jnp.exp(logits - jax.nn.logsumexp(logits, axis=1, keepdims=True))
        centre = jnp.matmul(shares, means, precision="highest")
        return Denoised((alpha * law.std**2 * x_t + sigma**2 * centre) / variance)

    return denoise


def score_and_divergence(
    denoise: Denoiser, schedule: Schedule, x: Array, t: Array, cond: Cond
) -> tuple[Array, Array]:
    """`s` `[B, D]` at `x` `[B, D]`, `t` `[]`, and `div s = sum_d ds_d / dx_d` `[B]` by D JVPs."""

    def score(x: Array) -> Array:
        x_0 = denoise(x, jnp.full(len(x), t), cond).x_0
        return (schedule.alpha(t) * x_0 - x) / schedule.sigma(t) ** 2

    value, change = jax.linearize(score, x)
    axes = jnp.eye(x.shape[1], dtype=x.dtype)
    return value, sum(change(jnp.broadcast_to(e, x.shape)) @ e for e in axes)


def follow(
    denoise: Denoiser, times: Array, x_T: Array, schedule: Schedule, keep_every: int = 0
) -> tuple[Array, Array | None]:
    """Where the probability-flow ODE leads from `x_T` `[B, D]`, by Heun's method along `times`.

    Returns:
        `[B, D]`, and the states on the way `[K, B, D]`, as `samplers.loop.sample` keeps them.
    """
    keys = sample_keys(jax.random.key(0), jnp.arange(len(x_T)))  # nothing is drawn
    return sample(denoise, heun(schedule), times, x_T, {}, keys, keep_every)


def nearest_parts(x: np.ndarray, x_0: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label `[B]` of the point of the data `x_0` `[N, D]` that is nearest to each of `x`."""
    return labels[two_nearest(x, x_0)[1][:, 0]]


def score_errors(
    denoise: Denoiser, exact: Denoiser, schedule: Schedule, x_0: Array, cond: Cond, seed: int
) -> Array:
    """`sigma_t^2 |s_hat - s|^2 / D` at noisy data, `[T, N]` for `TIMES` and `x_0` `[N, D]`.

    That is the squared distance per dimension of `eps_hat` from the best possible one.
    """

    def at(numbered: tuple[Array, Array]) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), numbered[0])
        t = jnp.full(len(x_0), numbered[1])
        eps = sample_noise(sample_keys(key, jnp.arange(len(x_0))), x_0.shape[1:])
        x_t = diffuse(schedule, x_0, eps, t)
        off = denoise(x_t, t, cond).x_0 - exact(x_t, t, cond).x_0
        return jnp.exp(schedule.logsnr(t)) * jnp.mean(off**2, axis=1)

    found: Array = jax.lax.map(at, (jnp.arange(len(TIMES)), jnp.asarray(TIMES)))
    return found


def root_mean_square(squares: np.ndarray) -> Estimate:
    """The root of the mean of `[N]` squares, with the roots of the ends of the mean's interval."""
    mean = normal(float(squares.mean(dtype=np.float64)), variance_of_mean(squares))
    return Estimate(*(max(end, 0.0) ** 0.5 for end in mean))


def field(
    make: Callable[[Params], Denoiser],
    params: Params,
    schedule: Schedule,
    times: Array,
    x_0: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[str],
    law: Law | None,
    folder: Path,
    *,
    seed: int,
    passport: Mapping[str, Any],
) -> Result:
    """Measures a learned field in up to three dimensions, and draws it in two.

    Args:
        make: from parameters to the network's denoiser, without guidance and clipping.
        params: of the network.
        schedule: noise schedule.
        times: `[steps + 1]`, descending, of the paths.
        x_0: data float32 `[N, D]`.
        labels: int32 `[N]`, the part that each belongs to; all 0 where there are none.
        parts: names of the labels; empty for data without them, and there is no condition then.
        law: of the data, if it is known; else there is only the learned field, and no result.
        folder: for `field.png`, `conditions.png`, `basins.png` and `particles.gif`.
        seed: of noise and particles.
        passport: how the network was trained.

    Returns:
        Entries as in `result.json`. `field_error_t0.10`: root mean square of `sigma_t (s_hat - s)`
        per dimension, the error of `eps_hat`, over noisy data of a time, without a condition;
        `field_error_label_t0.10` given each point's own label. `basin_agreement`: the share of
        particles that the learned and the exact field lead to the same part.

    Raises:
        ValueError: there are more than three dimensions.
    """
    dims = x_0.shape[1]
    if dims > MOST_DIMS:
        raise ValueError(f"a field of {dims} dimensions: {MOST_DIMS} at most can be looked at")
    looked = {"learned": Field(make, params)}
    result: Result = {}

    def put(name: str, value: Estimate, num: int, **more: Any) -> None:
        result[name] = {**value._asdict(), "n": num, "passport": {**passport, **more}}

    if law:
        looked["exact"] = Field(lambda law: exact_denoiser(law, schedule), law._replace(parts=()))
        conds: dict[str, Any] = {"": {}, "_label": {"label": labels}} if parts else {"": {}}
        for suffix, cond in conds.items():
            squares = _errors(looked, schedule, x_0, cond, seed)
            for t, each in zip(TIMES, squares, strict=True):
                put(f"field_error{suffix}_t{t:.2f}", root_mean_square(each), len(x_0), t=t)

    half = BASIN * float(schedule.sigma(times[0]))
    keys = sample_keys(jax.random.key(seed), jnp.arange(PARTICLES))
    x_T = schedule.sigma(times[0]) * sample_noise(keys, x_0.shape[1:])
    every = max(1, (len(times) - 1) // FRAMES)
    go = partial(follow, schedule=schedule, keep_every=every)
    starts = jnp.concatenate([x_T, _grid(half)]) if dims == 2 else x_T  # one program for both
    walked = {name: one.run(go, times, starts) for name, one in looked.items()}
    ends = {name: nearest_parts(end, x_0, labels) for name, (end, _) in walked.items()}
    if law and parts:
        same = (ends["learned"] == ends["exact"])[:PARTICLES]
        put("basin_agreement", wilson(float(same.mean()), PARTICLES), PARTICLES)
    if dims == 2:
        folder.mkdir(parents=True, exist_ok=True)
        _draw_fields(looked, schedule, x_0, labels, parts, folder, seed)
        side = 1.1 * float(np.abs(x_0).max())
        row = [fields.Panel("data", half=side, cloud=x_0, labels=labels)]
        for name, end in ends.items():
            row.append(fields.Panel(f"{name}: where $x_T$ flows to", end[PARTICLES:], half))
        fields.draw(folder / "basins.png", {"": row}, parts)
        paths = {name: kept[:, :PARTICLES] for name, (_, kept) in walked.items()}
        clock = np.append(np.asarray(times)[:-1:every], times[-1])
        fields.animate(folder / "particles.gif", paths, ends, x_0, clock)
    return result


def _errors(
    looked: Mapping[str, Field], schedule: Schedule, x_0: np.ndarray, cond: Cond, seed: int
) -> np.ndarray:
    learned, exact = looked["learned"], looked["exact"]

    def errors(denoise: Denoiser, made_of: Any, x_0: Array, cond: Cond) -> Array:
        return score_errors(denoise, exact.make(made_of), schedule, x_0, cond, seed)

    squares: np.ndarray = learned.run(errors, exact.made_of, x_0, cond)
    return squares


def _grid(half: float) -> np.ndarray:
    """Places float32 `[GRID^2, 2]` of the plane from `-half` to `half`, in rows upwards."""
    y, x = np.meshgrid(*[np.linspace(-half, half, GRID, dtype=np.float32)] * 2, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _draw_fields(
    looked: Mapping[str, Field],
    schedule: Schedule,
    x_0: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[str],
    folder: Path,
    seed: int,
) -> None:
    """`field.png`, and `conditions.png` where there are parts."""
    alphas, sigmas = (np.asarray(c(jnp.asarray(DRAWN))) for c in (schedule.alpha, schedule.sigma))
    halves = alphas * float(np.abs(x_0).max()) + 1.25 * sigmas
    eps = sample_noise(sample_keys(jax.random.key(seed), jnp.arange(len(x_0))), x_0.shape[1:])
    given = {"no condition": -1} | {name: label for label, name in enumerate(parts[:MOST_PARTS])}
    asked = [(i, label) for i in range(len(DRAWN)) for label in given.values()]
    level, label = np.array(asked, np.int32).T

    def at_all(denoise: Denoiser, *asked: Array) -> Any:
        def at(one: tuple[Array, Array, Array]) -> Any:
            places, t, label = one
            cond = {"label": jnp.full(GRID**2, label)} if parts else {}
            return score_and_divergence(denoise, schedule, places, t, cond)

        return jax.lax.map(at, asked)

    places, times = np.stack([_grid(half) for half in halves]), np.array(DRAWN, np.float32)
    found = {
        name: one.run(at_all, places[level], times[level], label) for name, one in looked.items()
    }
    sheet: dict[str, list[fields.Panel]] = {}
    conditions: dict[str, list[fields.Panel]] = {}
    for i, (t, alpha, sigma) in enumerate(zip(DRAWN, alphas, sigmas, strict=True)):
        row = rf"t = {t:g}: $\alpha$ {alpha:.2f}, $\sigma$ {sigma:.2f}"
        first, cloud = i * len(given), alpha * x_0 + sigma * np.asarray(eps)
        panel = partial(fields.Panel, half=halves[i])
        both = {name: sigma * scores[first] for name, (scores, _) in found.items()}
        learned, divergence = both["learned"], sigma**2 * found["learned"][1][first]
        norm = np.linalg.norm(learned, axis=1)
        sheet[row] = [
            *(
                panel(rf"{name}: $\sigma s$", f, cloud=cloud, labels=labels)
                for name, f in both.items()
            ),
            panel(r"learned: $\sigma^2$ div s", divergence, heat=("RdBu", -3, 3)),
            panel(r"learned: $\sigma$ |s|", norm, heat=("viridis", 0, np.quantile(norm, 0.98))),
        ]
        if "exact" in both:
            off = np.linalg.norm(learned - both["exact"], axis=1)
            sheet[row].append(panel(r"$\sigma$ |learned - exact|", off, heat=("magma_r", 0, 0.5)))
        conditions[row] = [
            panel(name, sigma * scores, cloud=cloud[shown], labels=labels[shown])
            for name, scores in zip(given, found["learned"][0][first:], strict=False)
            for shown in [(labels == given[name]) | (given[name] < 0)]
        ]
    fields.draw(folder / "field.png", sheet)
    if parts:
        fields.draw(folder / "conditions.png", conditions)
