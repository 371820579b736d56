"""The vector field learned by a network, in few dimensions, compared with the exact one.

The field is the score of the noisy data, computed from a denoiser by Tweedie's formula

    s(x, t) = (alpha_t x_0_hat(x, t) - x) / sigma_t^2

and plotted in units of the noise: `sigma_t s = -eps_hat`, and `sigma_t^2 div s`. The latter
is `-D + (alpha_t / sigma_t)^2 tr Cov(x_0 | x_t)` for D dimensions: -D where the field leads to a
point, -D + 1 where it leads to a curve, above 0 where paths diverge.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import sample_keys, sample_noise
from diffusion_jax.diffusion.mixture import exact_denoiser
from diffusion_jax.diffusion.process import Gaussian, gaussian
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.evaluation.model import Evaluator, Model, Result, entry
from diffusion_jax.generation.generator import check_finite
from diffusion_jax.metrics.intervals import Estimate, normal, variance_of_mean, wilson
from diffusion_jax.metrics.neighbours import two_nearest
from diffusion_jax.report import fields
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.progress import stage
from diffusion_jax.types import Array, Cond, Denoiser

TIMES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # at which distances from the exact score are measured
DRAWN = (0.05, 0.1, 0.2, 0.5)  # times of the plots
MOST_DIMS = 3
POINTS = 4096  # data points to which noise is added
MOST_PARTS = 4  # conditions for which the field is plotted
GRID = 80  # points per axis at which the field is plotted and paths start
BASIN = 2.5  # paths start within this many standard deviations of the noise
PARTICLES = 1000
FRAMES = 32  # of the animation, approximately


class Field(NamedTuple):
    """A denoiser as `make(made_of)`, so that compiled programs take its arrays as an argument."""

    make: Callable[[Any], Denoiser]
    made_of: Any

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(denoiser, *args)`, compiled; NumPy arrays."""
        program = jax.jit(lambda made_of, *args: function(self.make(made_of), *args))
        return jax.device_get(program(self.made_of, *args))


Looked = dict[str, Field]  # `learned`, and `exact` if the distribution of the data is known


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


def score_errors(
    denoise: Denoiser, exact: Denoiser, process: Gaussian, x_0: Array, cond: Cond, seed: int
) -> Array:
    """`sigma_t^2 |s_hat - s|^2 / D` at noisy data, `[T, N]` for `TIMES` and `x_0` `[N, D]`.

    This is the squared distance per dimension of `eps_hat` from the exact one.
    """

    def at(numbered: tuple[Array, Array]) -> Array:
        key = jax.random.fold_in(make_key(seed), numbered[0])
        t = jnp.full(len(x_0), numbered[1])
        x_t = process.corrupt(x_0, t, sample_keys(key, jnp.arange(len(x_0))))
        off = denoise(x_t, t, cond).x_0 - exact(x_t, t, cond).x_0
        return jnp.exp(process.schedule.logsnr(t)) * jnp.mean(off**2, axis=1)

    return jax.lax.map(at, (jnp.arange(len(TIMES)), jnp.asarray(TIMES)))


def root_mean_square(squares: np.ndarray) -> Estimate:
    """The root of the mean of `[N]` squares, with the roots of the ends of the mean's interval."""
    mean = normal(float(squares.mean(dtype=np.float64)), variance_of_mean(squares), len(squares))
    return Estimate(*(max(end, 0.0) ** 0.5 for end in mean))


class LearnedField(Evaluator):
    """Measures a learned field in up to `MOST_DIMS` dimensions, and plots it in two."""

    pictures = (
        ("field.png", "The field by noise level: learned, exact, divergence, norm, distance"),
        ("conditions.png", "The learned field by noise level, without a condition and under some"),
        ("basins.png", "Which part of the data each starting point flows to"),
        ("particles.gif", "Particles on their way from noise to data"),
    )

    def __call__(self, model: Model) -> Result:
        """Errors of the field, and plots; plots alone if the data's distribution is not known.

        Returns:
            `field_error_t0.10`: root mean square of `sigma_t (s_hat - s)` per dimension, the error
            of `eps_hat`, over noisy data at one time, without a condition;
            `field_error_label_t0.10` given each point's own label. `basin_agreement`: the share of
            particles that the learned and the exact field lead to the same part.

        Raises:
            ValueError: there are more than three dimensions.
        """
        split, process = model.dataset.splits["train"], gaussian(model.draws.process)
        schedule = process.schedule
        items, labels = split.gather(np.arange(min(POINTS, len(split))))
        x_0, parts = model.dataset.kind.decode(items), model.dataset.class_names
        if (dims := x_0.shape[1]) > MOST_DIMS:
            raise ValueError(f"a field of {dims} dimensions: {MOST_DIMS} at most can be looked at")
        looked = {"learned": Field(model.draws.denoiser, model.params)}
        result: Result = {}
        if law := getattr(split.source, "law", None):
            make: Callable[[Any], Denoiser] = partial(exact_denoiser, schedule=schedule)
            looked["exact"] = Field(make, law._replace(parts=()))

            def errors(denoise: Denoiser, law: Any, x_0: Array, cond: Cond) -> Array:
                return score_errors(denoise, make(law), process, x_0, cond, model.seed)

            conds: dict[str, Any] = {"": {}} | ({"_label": {"label": labels}} if parts else {})
            for suffix, cond in conds.items():
                with stage("errors of the field", 1):
                    squares = looked["learned"].run(errors, looked["exact"].made_of, x_0, cond)
                for t, each in zip(TIMES, squares, strict=True):
                    found = entry(root_mean_square(each), len(x_0), model.passport, t=t)
                    result[f"field_error{suffix}_t{t:.2f}"] = found
        if dims == 2:
            model.folder.mkdir(parents=True, exist_ok=True)
            with stage("pictures of the field", 1):
                _draw_fields(looked, schedule, x_0, labels, model)
        with stage("particles", 1):
            ends = _follow_particles(looked, schedule, x_0, labels, model)
        if law and parts:
            agreement = wilson(float((ends["learned"] == ends["exact"]).mean()), PARTICLES)
            result["basin_agreement"] = entry(agreement, PARTICLES, model.passport)
        return result


def _follow_particles(
    looked: Looked, schedule: Schedule, x_0: np.ndarray, labels: np.ndarray, model: Model
) -> dict[str, np.ndarray]:
    """The part `[PARTICLES]` that each reaches in each field; `basins.png`, `particles.gif`."""
    times = model.draws.times
    keys = sample_keys(make_key(model.seed), jnp.arange(PARTICLES + GRID**2))
    starts = schedule.sigma(times[0]) * sample_noise(keys[:PARTICLES], x_0.shape[1:])
    flat, half = x_0.shape[1] == 2, BASIN * float(schedule.sigma(times[0]))
    if flat:  # one program for both
        starts = jnp.concatenate([starts, _grid(half)])
    every = max(1, (len(times) - 1) // FRAMES)

    def follow(denoise: Denoiser, times: Array, x_T: Array) -> Any:
        """The probability-flow ODE by Heun's method, which does not use the keys."""
        return sample(denoise, heun(schedule), times, x_T, {}, keys[: len(x_T)], every)

    walked = {name: one.run(follow, times, starts) for name, one in looked.items()}
    x, numbers = walked["learned"][0], np.arange(len(starts))
    check_finite(x, numbers, model.params, "Heun's method", ("sample.grid", "sample.t_max"))
    ends = {name: labels[two_nearest(x, x_0)[1][:, 0]] for name, (x, _) in walked.items()}
    if flat:
        side = 1.1 * float(np.abs(x_0).max())
        row = [fields.Panel("data", half=side, cloud=x_0, labels=labels)]
        for name, end in ends.items():
            row.append(fields.Panel(f"{name}: where $x_T$ flows to", end[PARTICLES:], half))
        fields.draw(model.folder / "basins.png", {"": row}, model.dataset.class_names)
        paths = {name: kept[:, :PARTICLES] for name, (_, kept) in walked.items()}
        clock = np.append(np.asarray(times)[:-1:every], times[-1])
        fields.animate(model.folder / "particles.gif", paths, ends, x_0, clock)
    return {name: end[:PARTICLES] for name, end in ends.items()}


def _grid(half: float) -> np.ndarray:
    """Points float32 `[GRID^2, 2]` of the plane from `-half` to `half`, in rows upwards."""
    y, x = np.meshgrid(*[np.linspace(-half, half, GRID, dtype=np.float32)] * 2, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _draw_fields(
    looked: Looked, schedule: Schedule, x_0: np.ndarray, labels: np.ndarray, model: Model
) -> None:
    """`field.png`, and `conditions.png` if the data have parts."""
    parts = model.dataset.class_names
    alphas, sigmas = (np.asarray(scale) for scale in schedule.scales(jnp.asarray(DRAWN)))
    halves = alphas * float(np.abs(x_0).max()) + 1.25 * sigmas
    keys = sample_keys(make_key(model.seed), jnp.arange(len(x_0)))
    eps = np.asarray(sample_noise(keys, x_0.shape[1:]))
    given = {"no condition": -1} | {name: label for label, name in enumerate(parts[:MOST_PARTS])}

    def at_all(denoise: Denoiser, *asked: Array) -> Any:
        def at(one: tuple[Array, Array, Array]) -> Any:
            places, t, label = one
            cond = {"label": jnp.full(GRID**2, label)} if parts else {}
            return score_and_divergence(denoise, schedule, places, t, cond)

        return jax.lax.map(at, asked)

    # Each level with each of the conditions, in one loop.
    num, per_level = len(given), partial(np.repeat, repeats=len(given), axis=0)
    asked = (
        per_level(np.stack([_grid(half) for half in halves])),
        per_level(np.array(DRAWN, np.float32)),
        np.tile(np.array(list(given.values()), np.int32), len(DRAWN)),
    )
    found = {name: one.run(at_all, *asked) for name, one in looked.items()}
    sheet: dict[str, list[fields.Panel]] = {}
    conditions: dict[str, list[fields.Panel]] = {}
    for i, (t, alpha, sigma) in enumerate(zip(DRAWN, alphas, sigmas, strict=True)):
        row = rf"t = {t:g}: $\alpha$ {alpha:.2f}, $\sigma$ {sigma:.2f}"
        first, cloud = i * num, alpha * x_0 + sigma * eps
        panel = partial(fields.Panel, half=halves[i])
        both = {name: sigma * scores[first] for name, (scores, _) in found.items()}
        learned, divergence = both["learned"], sigma**2 * found["learned"][1][first]
        norm = np.linalg.norm(learned, axis=1)
        sheet[row] = [
            panel(rf"{name}: $\sigma s$", f, cloud=cloud, labels=labels) for name, f in both.items()
        ]
        heats = {
            r"learned: $\sigma^2$ div s": (divergence, ("RdBu", -3, 3)),
            r"learned: $\sigma$ |s|": (norm, ("viridis", 0, np.quantile(norm, 0.98))),
        }
        if "exact" in both:
            off = np.linalg.norm(learned - both["exact"], axis=1)
            heats[r"$\sigma$ |learned - exact|"] = off, ("magma_r", 0, 0.5)
        sheet[row] += [panel(title, values, heat=heat) for title, (values, heat) in heats.items()]
        conditions[row] = [
            panel(name, sigma * scores, cloud=cloud[shown], labels=labels[shown])
            for name, scores in zip(given, found["learned"][0][first:], strict=False)
            for shown in [(labels == given[name]) | (given[name] < 0)]
        ]
    fields.draw(model.folder / "field.png", sheet)
    if parts:
        fields.draw(model.folder / "conditions.png", conditions)
