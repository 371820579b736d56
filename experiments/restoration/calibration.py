"""Simulation-based calibration of the methods of restoration. See calibration.md.

The truth is drawn from the model itself, by many steps of its own sampler, and observed; its ranks
among samples given the observation are uniform if the method is calibrated for this model.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import logging

from configs import default
from diffusion_jax.diffusion.corruption import fold_in, sample_keys, sample_noise
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.diffusion.schedules import Cosine, Schedule
from diffusion_jax.from_config.restoration import make_method
from diffusion_jax.guidance.extrapolation import clip
from diffusion_jax.metrics.calibration import coverage, histogram, ranks, spread, uniformity
from diffusion_jax.restoration.linear import Downscale, GaussianBlur
from diffusion_jax.restoration.operators import Decomposed, Mask, Observation
from diffusion_jax.run import open_run
from diffusion_jax.run.trained import Trained
from diffusion_jax.samplers import loop
from diffusion_jax.samplers.ode import heun
from diffusion_jax.samplers.particles import Particles, systematic
from diffusion_jax.samplers.restart import restart
from diffusion_jax.samplers.sde import ancestral, dpmpp_sde_multistep
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import enable_compilation_cache
from diffusion_jax.types import Array, Denoised, Denoiser, Params, Sampler
from tests.oracles import three_components

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).parent
SAMPLES = 19
"""Of each posterior: 20 ranks, of which half and nine tenths lie in the middle."""
TOGETHER = 20
"""Observations in one batch."""
STEPS = 50
"""Of Heun's method, for the truth: 100 evaluations."""
FEATURES = 16
"""Random projections, and coordinates that are not seen."""
SEEN = 0.1
"""Coordinates count as not seen if their singular value is at most this, the largest being 1."""
RESOLUTION = 1 / 32
"""Of features, a quarter of a grey level of the data: smaller differences are ties."""
SIGMA = 0.1
LEVELS = 0.5, 0.9
SHARES = tuple(f"{level:.0%}" for level in LEVELS)
MOST = 10  # larger spreads are not told from it: the samples' mean is not known well enough
KINDS = "all", "seen", "unseen"
NONE, MASK, EXACT = "no observation", "mask", "exact posterior"
SAMPLERS: dict[str, Callable[[Schedule], Sampler]] = {
    "ancestral": functools.partial(ancestral, variance="small"),
    "dpmpp_sde": dpmpp_sde_multistep,
}


class Model(NamedTuple):
    """A denoiser, and draws of what it takes for the truth."""

    denoiser: Callable[[Params], Denoiser]
    params: Params
    schedule: Schedule
    shape: tuple[int, ...]  # of one sample, `[..., C]`
    limit: float  # `x_0_hat` and samples are clipped to it; 0: no clipping
    truth: Callable[[int, int], np.ndarray]  # `(num, seed) -> [num, *shape]`


class Setting(NamedTuple):
    """A method with its settings, and how its evaluations are spent."""

    method: str  # "": none, samples of the model itself
    cost: int  # evaluations of a step: a forward pass is one, a backward pass another
    own: Mapping[str, Any] = MappingProxyType({})  # that differ from the defaults
    sampler: str = "ancestral"
    passes: int = 1  # through every step, with jumps back between
    particles: int = SAMPLES  # for each observation, so that the cost is as many times as high
    tuned: bool = False  # whether it is told the standard deviation of the data


SETTINGS = {
    NONE: Setting("", 1),
    "DPS": Setting("dps", 2),
    "PiGDM": Setting("pigdm", 2, sampler="dpmpp_sde", tuned=True),
    "TMPD": Setting("tmpd", 3, sampler="dpmpp_sde"),
    "MMPS": Setting("mmps", 4, {"iterations": 2}, "dpmpp_sde"),
    "DDNM": Setting("ddnm", 1),
    "DiffPIR": Setting("diffpir", 1),
    "DDRM": Setting("ddrm", 1),
    "RePaint": Setting("repaint", 4, passes=4),
    "DAPS": Setting("daps", 5, tuned=True),
    "split Gibbs": Setting("split_gibbs", 5, {"steps": 5}),
    "TDS": Setting("twisted", 2, tuned=True),
    "TDS, 8 times": Setting("twisted", 2, particles=8 * SAMPLES, tuned=True),
}
"""By the name in the table."""
CHECKS = [EXACT, NONE, "DPS", "PiGDM", "MMPS", "TDS", "TDS, 8 times"]
"""On the mixture, whose posterior is known."""


def of_run(workdir: Path) -> Model:
    """The network trained in a folder, without labels; its own sampler is Heun's method."""
    return of_trained(open_run(workdir, sampler="heun", steps=STEPS))


def of_trained(trained: Trained) -> Model:
    """An open run, without labels."""
    draws = trained.draws
    schedule = gaussian(draws.process).schedule
    model = Model(
        *(draws.denoiser, trained.params, schedule, draws.codec.shape, draws.guidance.limit),
        truth=lambda num, seed: _drawn(model, num, seed),
    )
    return model


def of_mixture() -> Model:
    """Three Gaussians in the plane, with the exact denoiser and exact samples."""
    law, schedule = three_components(), Cosine()
    exact = law.denoiser(schedule)

    def denoise(x_t: Array, t: Array, cond: Any) -> Denoised:
        return Denoised(exact(x_t[..., 0], t, cond).x_0[..., None])

    def truth(num: int, seed: int) -> np.ndarray:
        return np.asarray(law.sample(make_key(seed), num), np.float32)[..., None]

    return Model(lambda params: denoise, (), schedule, (2, 1), 0.0, truth)


def _drawn(model: Model, num: int, seed: int) -> np.ndarray:
    """Samples of the model `[num, *shape]`."""

    @jax.jit
    def draw(params: Params, keys: Array) -> Array:
        x_T = sample_noise(fold_in(keys, 0), model.shape)
        denoise, times = clip(model.denoiser(params), model.limit), jnp.linspace(1, 0, STEPS + 1)
        return loop.sample(denoise, heun(model.schedule), times, x_T, {}, fold_in(keys, 1))[0]

    return np.asarray(draw(model.params, sample_keys(make_key(seed), jnp.arange(num))))


def operators(model: Model) -> dict[str, Decomposed]:
    """Those of one observation; halves are along the first axis."""
    half = jnp.arange(model.shape[0]) < model.shape[0] // 2
    known = half.astype(jnp.float32).reshape(1, -1, *(1,) * (len(model.shape) - 1))
    found: dict[str, Decomposed] = {MASK: Mask(known)}
    if model.shape[0] > 2:
        found |= {"downscale": Downscale(2), "blur": GaussianBlur(jnp.ones(1))}
    return found


def observed(operator: Decomposed, x: np.ndarray, seed: int) -> np.ndarray:
    """`y = A(x) + SIGMA eps` for each `x` `[N, *shape]`."""
    y = np.asarray(operator(jnp.asarray(x)))
    return y + np.float32(SIGMA) * np.random.default_rng(seed).normal(size=y.shape).astype(
        "float32"
    )


def sampler_of(
    model: Model, setting: Setting, evaluations: int, std: float
) -> Callable[[Observation, Array], Array]:
    """`(observation of B, keys [B particles]) -> samples [B, particles, *shape]`."""
    config = default.get_config()
    config.restore.update(method=setting.method, num_samples=setting.particles)
    if setting.method == "as_trained":
        config.image_condition.name, config.restore.operator = "decayed", "identity"
    own = config.restore.get(setting.method, {})
    own.update(setting.own)
    if setting.tuned:
        own.data_std = std
    steps, size = evaluations // setting.cost, setting.particles
    grid = np.linspace(1, 0, steps + 1)
    pairs = np.repeat(np.stack([grid[:-1], grid[1:]], 1), setting.passes, 0).ravel()
    times = pairs[np.append(np.diff(pairs) != 0, True)]  # where a pair begins the last one ended

    @jax.jit
    def run(params: Params, given: Observation, keys: Array) -> Array:
        given, keys = jax.tree.map(lambda a: jnp.repeat(a, size, 0), given), keys.ravel()
        denoise, sampler = model.denoiser(params), SAMPLERS[setting.sampler](model.schedule)
        if setting.method:
            method = make_method(config)
            if method.guide:
                denoise = method.guide(denoise, given, model.schedule)
            if method.sampler:
                sampler = method.sampler(model.schedule, given, sampler)
        if model.limit:
            denoise = clip(denoise, model.limit)
        if setting.passes > 1:
            sampler = restart(model.schedule, sampler)
        x_T = sample_noise(fold_in(keys, 0), model.shape)
        x, state, _ = loop.run(
            denoise, sampler, jnp.asarray(times, jnp.float32), x_T, {}, fold_in(keys, 1)
        )
        x = x.reshape(-1, size, *model.shape)
        if isinstance(state, Particles):  # as many draws from them
            shares = jnp.exp(state.log_weights).reshape(-1, size)
            taken = jax.vmap(systematic)(fold_in(keys, 2)[::size], shares)
            x = jax.vmap(lambda x, i: x[i])(x, taken)
        return x

    return functools.partial(run, model.params)


def posterior_samples(
    model: Model,
    setting: Setting,
    y: np.ndarray,
    operator: Decomposed,
    evaluations: int,
    std: float,
) -> np.ndarray:
    """`[N, SAMPLES, *shape]`."""
    run, found = sampler_of(model, setting, evaluations, std), []
    operator, sigma = jax.tree.map(
        lambda a: jnp.repeat(a, TOGETHER, 0), (operator, jnp.array([SIGMA]))
    )
    for start in range(0, len(y), TOGETHER):
        batch = np.resize(y[start : start + TOGETHER], (TOGETHER, *y.shape[1:]))
        index = np.arange(start * setting.particles, (start + TOGETHER) * setting.particles)
        keys = sample_keys(make_key(1), jnp.asarray(index))
        x = np.asarray(run(Observation(jnp.asarray(batch), operator, sigma), keys))
        # Equal draws of many particles are neighbours.
        some = np.random.default_rng(start).permutation(setting.particles)[:SAMPLES]
        found.append(x[:, some])
    return np.concatenate(found)[: len(y)]


def exact_samples(y: np.ndarray) -> np.ndarray:
    """Of the mixture, whose first coordinate is seen: `[N, SAMPLES, 2, 1]` for `[N, 2, 1]`."""
    found, rng = [], np.random.default_rng(1)
    for one in y:
        law = three_components().posterior(np.eye(2)[:1], one[:1, 0], SIGMA)
        component = rng.choice(len(law.weights), SAMPLES, p=law.weights)
        roots = np.linalg.cholesky(law.covs)[component]
        noise = rng.normal(size=(SAMPLES, 2))
        found.append(law.means[component] + np.einsum("kij,kj->ki", roots, noise))
    return np.stack(found)[..., None]


def features(operator: Decomposed, x: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """By kind, `[B, *shape] -> [B, F]`: random projections, coordinates seen, and not seen.

    Those coordinates that vary most in samples `x` of the model; of masks they are pixels.
    """
    lines = np.random.default_rng(0).normal(size=(x[0].size, FEATURES))
    lines /= np.linalg.norm(lines, axis=0)

    def coordinates(x: np.ndarray) -> np.ndarray:
        each = jnp.asarray(x)
        return np.asarray(operator.spectrum(each).analyse(each)).reshape(len(x), -1)

    values = operator.spectrum(jnp.asarray(x)).values
    values = np.broadcast_to(np.asarray(values), x.shape)[0].ravel()
    largest = np.argsort(-coordinates(x).std(0))
    is_seen = (values > SEEN * values.max())[largest]

    def some(chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: coordinates(x)[:, chosen[:FEATURES]]

    ways = lambda x: x.reshape(len(x), -1) @ lines, some(largest[is_seen]), some(largest[~is_seen])
    return dict(zip(KINDS, ways, strict=True))


def measured(model: Model, operator: Decomposed, x: np.ndarray, samples: np.ndarray) -> dict:
    """For each kind of features: coverage, spread, p-value and rank histogram."""
    if model.limit:
        x, samples = (np.clip(a, -model.limit, model.limit) for a in (x, samples))
    found = {}
    for kind, of in features(operator, x).items():
        truth = np.round(of(x) / RESOLUTION) * RESOLUTION
        each = of(samples.reshape(-1, *x.shape[1:])).reshape(*samples.shape[:2], -1)
        each = np.round(each / RESOLUTION) * RESOLUTION
        order = ranks(truth, each)
        found[kind] = {
            **{name: coverage(order, SAMPLES, p) for name, p in zip(SHARES, LEVELS, strict=True)},
            "spread": spread(truth, each),
            "p": uniformity(order, SAMPLES),
            "histogram": histogram(order, SAMPLES, SAMPLES + 1).mean(0),
        }
    return found


def compare(
    model: Model, names: list[str], num: int, evaluations: int, seed: int = 0
) -> dict[str, dict]:
    """What is measured of each operator and method, for `num` truths."""
    x = model.truth(num, seed)
    found: dict[str, dict] = {}
    std = float(np.sqrt(x.var(0).mean()))
    for damage, operator in operators(model).items():
        y = observed(operator, x, seed)
        found[damage] = {}
        for name in names:
            if damage != MASK and name in (NONE, "RePaint"):
                continue
            start = time.monotonic()
            if name == EXACT:
                samples = exact_samples(y)
            else:
                samples = posterior_samples(model, SETTINGS[name], y, operator, evaluations, std)
            found[damage][name] = measured(model, operator, x, samples)
            seconds = round(time.monotonic() - start, 1)
            found[damage][name]["seconds"] = seconds
            print(damage, name, f"{seconds} s", flush=True)
    return found


def threshold(results: dict[str, dict]) -> tuple[float, int]:
    """P-value below which uniform ranks are rejected (Bonferroni), and the number of tests."""
    tests = sum(len(KINDS) for methods in results.values() for _ in methods)
    return 0.05 / tests, tests


def verdict(cell: dict, least: float) -> str:
    """In words: of which features ranks are not uniform, or else which shares are not nominal.

    Calibrated is a method none of whose tests rejects, and all of whose 95% intervals of coverage
    hold the nominal share.
    """
    wrong = []
    for kind in KINDS:
        _, low, high = cell[kind]["spread"]
        held, most = cell[kind][SHARES[-1]][0], LEVELS[-1]
        if cell[kind]["p"] < least:
            # Samples off the truth may be wide, and yet hold it too seldom.
            narrow, wide = high < 1 and held < most, low > 1 and held > most
            how = "too narrow" if narrow else "too wide" if wide else "of another shape"
            wrong.append((how, kind))
    found = [
        f"{how} ({', '.join(kind for each, kind in wrong if each == how)})"
        for how in dict.fromkeys(how for how, _ in wrong)
    ]
    off = [
        f"{kind} {name}"
        for kind in KINDS
        for name, level in zip(SHARES, LEVELS, strict=True)
        if not cell[kind][name][1] <= level <= cell[kind][name][2]
    ]
    almost = f"not rejected, but for {', '.join(off)}" if off else "calibrated"
    return "; ".join(found) or almost


def tables(results: dict[str, dict]) -> str:
    """Markdown: a table for each operator, with a row for each method."""
    least, _ = threshold(results)
    columns = [f"{kind}: {what}" for kind in KINDS[1:] for what in (*SHARES, "spread")]
    columns = ["method", *columns, "p: " + ", ".join(KINDS), "verdict"]
    lines = []
    for damage, methods in results.items():
        lines += ["", f"**{damage}**", "", _row(columns), "|---" * len(columns) + "|"]
        for name, cell in methods.items():
            row = [estimate_of(cell[kind][k]) for kind in KINDS[1:] for k in (*SHARES, "spread")]
            p_values = ", ".join(p_of(cell[kind]["p"]) for kind in KINDS)
            lines.append(_row([name, *row, p_values, verdict(cell, least)]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def estimate_of(estimate: Sequence[float]) -> str:
    """A number with its interval in a table."""
    if not estimate[0] < MOST:
        return f"> {MOST}"
    return "{:.2f} ({:.2f} to {:.2f})".format(*estimate)


def p_of(value: float) -> str:
    """A p-value in a table."""
    return "< 1e-6" if value < 1e-6 else f"{value:.1g}"


def draw(results: dict[str, dict], path: Path) -> None:
    """Rank histograms of each kind of features, a row for each operator."""
    names = list(dict.fromkeys(name for methods in results.values() for name in methods))
    size = 1.15 * len(names), 1.2 * len(results)
    figure, axes = pyplot.subplots(len(results), len(names), figsize=size, squeeze=False)
    bins = np.arange(SAMPLES + 1)
    for row, (damage, methods) in zip(axes, results.items(), strict=True):
        for axis, name in zip(row, names, strict=True):
            axis.set(xticks=[], yticks=[], ylim=(0, 3))
            if damage == next(iter(results)):
                axis.set_title(name, fontsize=7)
            if name not in methods:
                axis.axis("off")
                continue
            for kind, colour in zip(KINDS, ("0.6", "C0", "C3"), strict=True):
                density = np.array(methods[name][kind]["histogram"]) * len(bins)
                axis.step(bins, density, where="mid", color=colour, linewidth=1)
            axis.axhline(1, color="black", linewidth=0.5)
        row[0].set_ylabel(damage, fontsize=7)
        row[0].axis("on")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def rounded(tree: Any) -> Any:
    """With four significant digits, and without arrays."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, str):
        return tree
    return [rounded(each) for each in tree] if np.ndim(tree) else float(f"{tree:.4g}")


def main() -> None:
    """Writes `calibration.json` and `calibration.png` next to this file, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, help="of a trained network; else only the mixture")
    parser.add_argument("--num", type=int, default=200, help="truths")
    parser.add_argument("--evaluations", type=int, default=100, help="of each sample")
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    enable_compilation_cache()
    name = "digits" if args.workdir else "mixture"
    if args.workdir:
        found = compare(of_run(args.workdir), args.methods, args.num, args.evaluations)
    else:
        found = compare(of_mixture(), CHECKS, args.num, args.evaluations)
    path = args.out / "calibration.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for damage, methods in rounded(found).items():
        results.setdefault(name, {}).setdefault(damage, {}).update(methods)
    path.write_text(json.dumps(results, indent=1) + "\n")
    least, tests = threshold(results[name])
    print(f"\n{name}: of {tests} tests, those with p below {least:.1g} reject")
    print(tables(results[name]))
    if args.workdir:
        draw(results[name], args.out / "calibration.png")


if __name__ == "__main__":
    main()
