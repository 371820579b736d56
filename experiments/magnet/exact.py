"""Magnetises a source whose law in a field is known: exactly, naively, and with particles.

    PYTHONPATH=. python experiments/magnet/exact.py

See README.md. Writes `results.json` and `magnetisation.png` next to this file.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from diffusion_jax.guidance.scales import within
from diffusion_jax.guidance.tokens import field, magnet
from diffusion_jax.metrics.intervals import mean
from diffusion_jax.samplers.loop import run, sample
from diffusion_jax.samplers.steering import steered
from diffusion_jax.samplers.unmasking import by_count
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import enable_compilation_cache
from diffusion_jax.types import Array, Denoiser, Key, Sampler
from experiments.magnet.source import LAW, MAGNETS, PROCESS, Magnet, denoiser
from tests.tilted import Tilted, law_in_steps, log_partition, predicted, tilted
from tests.token_oracles import chain

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).parent
FIELDS = {"letters": (0.5, 1.0, 2.0), "words": (1.0, 2.0, 4.0)}
CURVES = {"letters": (-1.0, 3.0), "words": (-2.0, 6.0)}
EXACT = 16  # times as many samples that are exact, for their mean number of bits
ALONE = 4  # times as many samples of methods without particles
SEEDS = 2
PARTICLE_FIGURES = {"ess": "effective size", "log normaliser": "log E[exp(h m)], error"}
Row = dict[str, Any]
Method = Callable[[Magnet, Array], tuple[Denoiser, Sampler]]
"""From a magnet and a field strength to a denoiser and a sampler."""


def correct(magnet: Magnet, h: Array) -> tuple[Denoiser, Sampler]:
    """The exact denoiser of the source in the field."""
    return denoiser(h * magnet.field), by_count(PROCESS)


def naive(low: float, high: float) -> Method:
    """The naive field, from the time `high` down to `low`."""

    def method(source: Magnet, h: Array) -> tuple[Denoiser, Sampler]:
        scale = within(h, low, high, off=0.0)
        return magnet(denoiser(0 * source.field), source.attribute, scale), by_count(PROCESS)

    return method


def particles(size: int, proposed: bool = True) -> Method:
    """Weighted particles, with the naive field as their proposal, or none."""

    def method(source: Magnet, h: Array) -> tuple[Denoiser, Sampler]:
        push = field(source.attribute, h) if proposed else None
        reward = lambda p: h * source.attribute(p)  # noqa: E731
        sampler = steered(PROCESS, by_count(PROCESS), reward, size, push)
        return denoiser(0 * source.field), sampler

    return method


METHODS: dict[str, tuple[Method, int]] = {
    "correct field": (correct, 1),
    "naive field": (naive(0.0, 1.0), 1),
    "naive field, t above 0.5": (naive(0.5, 1.0), 1),
    "naive field, t below 0.5": (naive(0.0, 0.5), 1),
    "4 particles": (particles(4), 4),
    "16 particles": (particles(16), 16),
    "4 particles, no field in the proposal": (particles(4, proposed=False), 4),
}
"""By name: the method and the number of texts for one of its samples."""


def drawer(source: Magnet, method: Method, size: int, num: int) -> Callable[..., Any]:
    """`(h, key) -> (texts [num, size, L], weights [num, size], log of the normaliser [num])`."""
    length = len(source.field)
    times = jnp.linspace(1, 0, length + 1)  # one token at a time

    @jax.jit
    def draw(h: Array, key: Key) -> tuple[Array, Array, Array]:
        keys = jax.random.split(key, num * size)
        x_T = PROCESS.prior(keys, (length,), times[0])
        denoise, sampler = method(source, h)
        if size == 1:
            x, _ = sample(denoise, sampler, times, x_T, {}, keys)
            return x[:, None], jnp.ones((num, 1)), jnp.zeros(num)
        found = run(denoise, sampler, times, x_T, {}, keys)
        weights = jnp.exp(found.state.particles.log_weights).reshape(num, size)
        evidence = found.state.particles.log_evidence[::size]
        return found.x.reshape(num, size, -1), weights, evidence

    return draw


def log_normaliser(source: Magnet, h: Any) -> Array:
    """`log E[exp(h m)]`, by the transfer matrix."""
    return log_partition(LAW, h * jnp.asarray(source.field))


def curve(source: Magnet, fields: np.ndarray) -> dict[str, list[float]]:
    """The exact magnetisation and susceptibility, per text."""
    with jax.enable_x64(True):
        slope = jax.grad(functools.partial(log_normaliser, source))
        both = jax.jit(jax.vmap(lambda h: jax.jvp(slope, (h,), (jnp.ones_like(h),))))
        m, susceptibility = both(jnp.asarray(fields, jnp.float64))
    values = {"h": fields, "m": m, "susceptibility": susceptibility}
    return {name: [float(f"{v:.6g}") for v in value] for name, value in values.items()}


def figures(source: Magnet, x: np.ndarray, weights: np.ndarray) -> Row:
    """The attribute and bits per character of texts `[N, K, L]` with weights `[N, K]`."""
    num, size, length = x.shape
    flat = x.reshape(-1, length)
    m = source.attribute(jax.nn.one_hot(flat, PROCESS.vocabulary))
    bits = -LAW.log_prob(flat) / np.log(2) / length
    own = lambda a: np.sum(weights * np.asarray(a).reshape(num, size), axis=1)  # noqa: E731
    return {"m": mean(own(m)), "bits": mean(own(bits))}


def measure(name: str, length: int, fields: tuple[float, ...], num: int, seeds: int) -> list[Row]:
    """A row for each method and field, from `num` groups of particles of each seed."""
    source, rows = MAGNETS[name](length), []
    for h in fields:
        x = Tilted(LAW, h * source.field).sample(EXACT * num, seed=0)[:, None]
        exact = curve(source, np.array([h]))
        row = {"method": "exact", **figures(source, x, np.ones((len(x), 1)))}
        rows.append({"magnet": name, "h": h, **row, "exact": exact["m"][0]})
    for method, (make, size) in METHODS.items():
        draw = drawer(source, make, size, num * (ALONE if size == 1 else 1))
        for h in fields:
            found = [draw(h, make_key(seed)) for seed in range(seeds)]
            x, weights, evidence = (
                np.concatenate(each) for each in zip(*map(jax.device_get, found), strict=True)
            )
            row = {"magnet": name, "h": h, "method": method, **figures(source, x, weights)}
            if size > 1:
                row["ess"] = mean(1 / np.sum(weights**2, axis=1))
                row["log normaliser"] = mean(evidence - float(log_normaliser(source, h)))
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def intervals(steps: int, strength: float) -> list[Row]:
    """M of an enumerated Markov chain whose naive field is on at one side of a time only."""
    texts, members = chain(), np.array([0.0, 1.0, 0.0])
    m, times = members[texts.all].mean(1), np.linspace(1, 0, steps + 1)
    p = predicted(texts.of_masked, 3, texts.length)
    on = p * np.exp(strength * members)
    on /= on.sum(-1, keepdims=True)
    rows = []
    for c in times:
        sides = {"above": times[:-1] > c, "below": times[:-1] <= c}
        laws = {
            side: law_in_steps([on if where else p for where in here], times)
            for side, here in sides.items()
        }
        rows.append({"c": float(c), **{side: float(law @ m) for side, law in laws.items()}})
    exact = tilted(texts, strength * texts.length * m).p @ m
    return [*rows, {"exact": float(exact), "plain": float(texts.p @ m)}]


def tables(result: Row) -> list[str]:
    """The tables of README.md."""
    lines = []
    for name, fields in FIELDS.items():
        mine = [row for row in result["rows"] if row["magnet"] == name]
        lines += ["", f"| {name} | " + " | ".join(f"h = {h:g}" for h in fields) + " |"]
        lines += ["|" + "---|" * (len(fields) + 1)]
        curve = result["curves"][name]
        exact = [row["exact"] for row in mine if row["method"] == "exact"]
        slopes = np.interp(fields, curve["h"], curve["susceptibility"])
        for words, values in (("exact", exact), ("its slope, the susceptibility", slopes)):
            lines += [f"| {words} | " + " | ".join(f"{value:.2f}" for value in values) + " |"]
        for method in METHODS:
            own = [row for row in mine if row["method"] == method]
            lines += [f"| {method} | " + " | ".join(spread(row["m"]) for row in own) + " |"]
        for method in ("exact", *METHODS):
            own = [row for row in mine if row["method"] == method]
            cells = " | ".join(spread(row["bits"], 3) for row in own)
            lines += [f"| bits per character, {method} | {cells} |"]
        for figure, words in PARTICLE_FIGURES.items():
            for method in [method for method, (_, size) in METHODS.items() if size > 1]:
                own = [spread(row[figure]) for row in mine if row["method"] == method]
                lines += [f"| {words}, {method} | " + " | ".join(own) + " |"]
    rows = result["intervals"]
    lines += ["", "| the field is on | " + " | ".join(f"c = {r['c']:g}" for r in rows[:-1]) + " |"]
    lines += ["|" + "---|" * len(rows)]
    for side, words in (("above", "t above c"), ("below", "t up to c")):
        lines += [f"| {words} | " + " | ".join(f"{r[side]:.3f}" for r in rows[:-1]) + " |"]
    return lines


def spread(estimate: list[float], digits: int = 2) -> str:
    """A value with half of its 95% interval."""
    value, low, high = estimate
    return f"{value:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def draw_figure(result: Row, out: Path) -> None:
    """Magnetisation against the field by method, and against the time the field is switched."""
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for axis, (name, exact) in zip(axes, result["curves"].items(), strict=False):
        axis.plot(exact["h"], exact["m"], "k-", label="exact")
        for number, method in enumerate(METHODS):
            own = [r for r in result["rows"] if (r["magnet"], r["method"]) == (name, method)]
            value, low, high = np.transpose([row["m"] for row in own])
            at = np.array([row["h"] for row in own]) * (1 + 0.02 * (number - 3))
            axis.errorbar(at, value, [value - low, high - value], fmt="o", ms=4, label=method)
        axis.set(title=name, xlabel="field h", ylabel="m per text")
    axes[0].legend(fontsize=7)
    *rows, ends = result["intervals"]
    for side, words in (("above", "on for t above c"), ("below", "on for t up to c")):
        axes[2].plot([r["c"] for r in rows], [r[side] for r in rows], "o-", ms=4, label=words)
    for name, style in (("exact", "k-"), ("plain", "k:")):
        axes[2].plot([0, 1], [ends[name]] * 2, style, label=name)
    axes[2].set(title="naive field on an enumerated chain", xlabel="time c", ylabel="M")
    axes[2].legend(fontsize=7)
    figure.savefig(out, dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Measures everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--num", type=int, default=32, help="groups of particles of a seed")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--points", type=int, default=41, help="of the exact curves")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    enable_compilation_cache()
    result: Row = {"length": args.length, "num": args.num, "seeds": args.seeds, "curves": {}}
    result["intervals"] = intervals(8, 2.0)
    rows: list[Row] = []
    for name, fields in FIELDS.items():
        source = MAGNETS[name](args.length)
        result["curves"][name] = curve(source, np.linspace(*CURVES[name], args.points))
        rows += measure(name, args.length, fields, args.num, args.seeds)
    result["rows"] = rows
    text = ",\n  ".join(json.dumps(row) for row in rows)
    rest = json.dumps({key: value for key, value in result.items() if key != "rows"})
    (args.out / "results.json").write_text(f'{rest[:-1]}, "rows": [\n  {text}\n]}}\n')
    draw_figure(result, args.out / "magnetisation.png")
    print(*tables(result), sep="\n")


if __name__ == "__main__":
    main()
