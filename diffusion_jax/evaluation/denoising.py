"""Whether a network denoises items that it never saw as well as those that it was trained on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.evaluation.model import Evaluator, Model, Result, chosen, entry
from diffusion_jax.metrics.intervals import Z
from diffusion_jax.system.devices import in_batches

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True)
class Denoising(Evaluator):
    """Squared errors of `x_0_hat` per dimension, of training and of held-out items, by `t`.

    A network that has learned the law of the data has the same of both; one that has learned its
    training items denoises these better. Given the items' own conditioning, without guidance.

    Attributes:
        num: items of each split, at random without replacement, as far as there are so many.
    """

    num: int

    def __call__(self, model: Model) -> Result:
        """For each of `TIMES` the errors, `denoising_error_train_t0.10` and `..._heldout_...`.

        Also their ratio, `denoising_gap_t0.10`, held-out over training. Intervals are over items,
        with this network given.
        """
        if not len(model.dataset.splits["heldout"]):
            return {}
        seen, unseen = (_errors(model, split, self.num) for split in ("train", "heldout"))
        result: Result = {}
        reference = f"{model.dataset.name} {model.dataset.fingerprint}"
        for t, a, b in zip(TIMES, seen.T, unseen.T, strict=True):
            figures = {
                "error_train": (mean(a), len(a), {}),
                "error_heldout": (mean(b), len(b), {}),
                "gap": (ratio(b, a), len(b), {"n_train": len(a)}),
            }
            for name, (found, num, more) in figures.items():
                result[f"denoising_{name}_t{t:.2f}"] = entry(
                    found, num, model.passport, reference=reference, t=t, **more
                )
        return result


def _errors(model: Model, split: str, num: int) -> np.ndarray:
    """Errors `[n, times]` of up to `num` items of a split."""
    generator = model.draws
    process, codec = generator.process, generator.codec

    @jax.jit
    def program(whole: Any, each: Any) -> jax.Array:
        (params, frozen, key), (x, index, cond) = whole, each
        denoise = generator.denoiser(params)
        x_0 = codec.encode(frozen, x, sample_keys(key, index))

        def errors(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
            keys = sample_keys(jax.random.fold_in(key, numbered[0]), index)
            t = jnp.full(len(x_0), numbered[1])
            x_0_hat = denoise(process.corrupt(x_0, t, keys), t, cond).x_0
            return jnp.mean((x_0_hat - x_0) ** 2, axis=tuple(range(1, x_0.ndim)))

        # In a loop, so that the network is compiled once.
        return jax.lax.map(errors, (jnp.arange(len(TIMES)), jnp.asarray(TIMES))).T

    found = chosen(model, split, num)
    whole = model.params, dict(model.frozen), jax.random.key(model.seed)
    errors: np.ndarray = in_batches(program, whole, found, model.batch_size)
    return errors


def ratio(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """`(mean a / mean b, low, high)` of two independent samples of positive values `[N]`, `[M]`.

    The interval is that of the difference of the means' logarithms, whose variances are the
    relative ones of the means (delta method).
    """
    relative = [np.var(x, ddof=1) / len(x) / np.mean(x) ** 2 for x in (a, b)]
    value, half = float(np.mean(a) / np.mean(b)), Z * float(np.sqrt(sum(relative)))
    return value, value * float(np.exp(-half)), value * float(np.exp(half))


def mean(values: np.ndarray) -> tuple[float, float, float]:
    """`(mean, low, high)` of independent values `[N]`."""
    value, half = float(values.mean()), Z * float(values.std(ddof=1)) / len(values) ** 0.5
    return value, value - half, value + half
