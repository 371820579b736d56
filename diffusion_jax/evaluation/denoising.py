"""Denoising errors of held-out items compared with those of training items."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.evaluation.model import SPLITS, Evaluator, Model, Result, chosen, count, entry
from diffusion_jax.metrics.intervals import Estimate, mean, quantile, too_few, variance_of_mean
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True)
class Denoising(Evaluator):
    """Squared errors of `x_0_hat` per dimension, of training and of held-out items, by `t`.

    They are equal for a network that has learned the distribution of the data; one that has
    memorised training items denoises these better. With the items' conditioning, unguided.
    """

    num: int  # items of each split, at most, at random without replacement

    def __call__(self, model: Model) -> Result:
        """`denoising_error_train_t0.10`, `..._heldout_...` and their ratio, `denoising_gap_t0.10`.

        For each of `TIMES`; the ratio is held-out / training. Intervals are over items, for this
        network.
        """
        result: Result = {}
        about = {"reference": f"{model.dataset.name} {model.dataset.fingerprint}"}
        counts = {split: count(model.dataset, split, self.num) for split in SPLITS}
        errors = {
            split: _errors(model, split, self.num) for split in SPLITS if not too_few(counts[split])
        }
        for place, t in enumerate(TIMES):
            passport = {**model.passport, **about, "t": t}
            at = {split: each[:, place] for split, each in errors.items()}
            for split, (_, num, _) in counts.items():
                found = too_few(counts[split]) or mean(at[split])
                result[f"denoising_error_{split}_t{t:.2f}"] = entry(found, num, passport)
            gap = too_few(*counts.values()) or ratio(at["heldout"], at["train"])
            nums = counts["heldout"][1], counts["train"][1]
            made = entry(gap, nums[0], passport, n_train=nums[1])
            result[f"denoising_gap_t{t:.2f}"] = made
        return result


def _errors(model: Model, split: str, num: int) -> np.ndarray:
    """Errors `[n, times]` of up to `num` items of a split."""
    generator = model.draws

    @jax.jit
    def program(whole: Any, each: Any) -> jax.Array:
        (params, frozen, key), (x, index, cond) = whole, each
        denoise = generator.denoiser(params)
        x_0 = generator.codec.encode(frozen, x, sample_keys(key, index))

        def errors(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
            keys = sample_keys(jax.random.fold_in(key, numbered[0]), index)
            t = jnp.full(len(x_0), numbered[1])
            x_0_hat = denoise(generator.process.corrupt(x_0, t, keys), t, cond).x_0
            return jnp.mean((x_0_hat - x_0) ** 2, axis=tuple(range(1, x_0.ndim)))

        # A loop, so that the network is compiled once.
        return jax.lax.map(errors, (jnp.arange(len(TIMES)), jnp.asarray(TIMES))).T

    whole = model.params, dict(model.frozen), make_key(model.seed)
    each, doing = chosen(model, split, num), f"denoising errors, {SPLITS[split]}"
    return in_batches(program, whole, each, model.batch_size, doing)


def ratio(a: np.ndarray, b: np.ndarray) -> Estimate | str:
    """`mean a / mean b` of two independent samples of values `[N]`, `[M]`, 0 or more.

    The interval is that of the difference of the means' logarithms, whose variances are the
    relative ones of the means (delta method). A string explains why if a mean is 0.
    """
    means = float(np.mean(a)), float(np.mean(b))
    if not all(means):
        return "the errors of a split are all 0"
    relative = [variance_of_mean(x) / m**2 for x, m in zip((a, b), means, strict=True)]
    value, factor = (
        means[0] / means[1],
        float(np.exp(quantile(min(len(a), len(b))) * sum(relative) ** 0.5)),
    )
    return Estimate(value, value / factor, value * factor)
