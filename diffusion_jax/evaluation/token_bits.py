"""Bits per character of held-out and of training texts, and their regret over a known source."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binom

from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion.corruption import fold_in, sample_keys
from diffusion_jax.diffusion.process import Process
from diffusion_jax.diffusion.tokens import Masked, found_share
from diffusion_jax.evaluation.model import SPLITS, Evaluator, Model, Result, chosen, count, entry
from diffusion_jax.evaluation.texts import tokeniser_of
from diffusion_jax.metrics.intervals import too_few
from diffusion_jax.metrics.texts import bits_per_character
from diffusion_jax.objectives.tokens import by_count, masked_bound
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Cond, Denoiser, Params


class Likelihood(NamedTuple):
    """An estimate of `-log p` of texts."""

    # `(params, denoiser, x_0 [B, L], cond, keys [B]) -> nats per text [B]`
    nats: Callable[[Params, Denoiser, Array, Cond, Array], Array]
    words: str  # how it is estimated, for passports
    evaluations: int  # of the denoiser, per text


Bound = Callable[[Denoiser, Array, Cond, Array, Array], tuple[Array, Array]]
"""`(denoiser, x_0 [B, L], cond, u [B], keys [B]) -> (nats per token [B], times [B])`."""
COUNTED = "all tokens of a window, the first without context, and no other tokens"


def masked(process: Process) -> Masked:
    """The process itself, if it is `Masked`; for bounds that need it.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(process, Masked):
        raise ValueError(f"the bound by the number of masks needs the masked process: {process}")
    return process


def spread(
    bound: Bound, levels: int, denoiser: Denoiser, x_0: Array, cond: Cond, keys: Array
) -> tuple[Array, Array]:
    """A bound at `levels` evenly spread `u` for each text: nats and times, `[levels, B]`.

    Their mean over `levels` is an unbiased estimate for every text.
    """
    first = jax.vmap(jax.random.uniform)(fold_in(keys, 0))
    below_one = 1 - jnp.finfo(first.dtype).epsneg

    def at(number: Array) -> tuple[Array, Array]:
        u = jnp.minimum((number + first) / levels, below_one)
        return bound(denoiser, x_0, cond, u, fold_in(keys, number + 1))

    return jax.lax.map(at, jnp.arange(levels))


def step_weights(process: Masked, times: Array, length: int) -> np.ndarray:
    """Weights `[L + 1]` of numbers of masks in the bound of the ancestral sampler.

    With `S_k` the expected summed cross-entropy of exactly k masks, the bound is `sum_k w_k S_k`,

        w_k = sum_i (alpha_s - alpha_t) / (1 - alpha_t) Binomial(k; L, 1 - alpha_t),

    over its steps from `t = t_i` to `s = t_(i + 1)` (Eq. 4, Sahoo et al. 2024, in which a step
    depends on noise through the number of masks alone). They become `1 / k`, those of the
    continuous-time bound, with infinitely many steps.
    """
    lost = np.asarray(process.schedule.lost(times[:-1]), np.float64)
    share = np.asarray(found_share(process.schedule, times[:-1], times[1:]), np.float64)
    found: np.ndarray = share @ binom.pmf(np.arange(length + 1), length, lost[:, None])
    return found


@dataclasses.dataclass(frozen=True)
class TokenBits(Evaluator):
    """Bits per character under the model, without guidance, of conditioned texts."""

    num: int  # texts of each split, at most
    # evaluations per text of the bound of a masked network, at evenly spread numbers of masks;
    # 0 for networks that have none
    levels: int
    bootstrap_repeats: int  # for intervals
    others: Mapping[str, Likelihood] = dataclasses.field(default_factory=dict)  # by name

    def __call__(self, model: Model) -> Result:
        """`bits_NAME_heldout` and `bits_NAME_train`, and `regret_NAME_...` over a known source.

        NAME is `bound` and `ancestral` of masked networks, and the names of `others`. Of a source
        with a known law `bits_source_...` are those under that law, and the regret is what a model
        needs more, text by text. A split needs `LEAST` texts or more.
        """
        kind = model.dataset.kind
        assert isinstance(kind, Tokens)
        names = self._names(len(model.draws.times) - 1)
        about = {"tokeniser": tokeniser_of(kind), "window": kind.words, "counted": COUNTED}
        about["unit"] = kind.unit
        result: Result = {}
        counted = {split: count(model.dataset, split, self.num) for split in SPLITS}
        found = self.nats(model, [split for split in SPLITS if not too_few(counted[split])])
        for split in SPLITS:
            if why := too_few(counted[split]):
                few = {f"bits_{name}_{split}": of for name, of in names.items()}
                num, passport = counted[split][1], {**model.passport, **about}
                result |= {key: entry(why, num, passport, **of) for key, of in few.items()}
                continue
            result |= self._entries(model, split, *found[split], names, about)
        return result

    def nats(
        self, model: Model, splits: Sequence[str]
    ) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
        """By split: texts `[N, L]`, and the estimates of their `-log p` `[N]` by name."""
        generator = model.draws
        (length,) = model.dataset.kind.shape
        if self.levels:
            process = masked(generator.process)
            weights = jnp.asarray(step_weights(process, generator.times, length), jnp.float32)

        @jax.jit
        def program(whole: Any, each: Any) -> dict[str, Array]:
            (params, key), (x_0, index, cond) = whole, each
            denoiser, keys = generator.denoiser(params), sample_keys(key, index)
            found = {
                name: other.nats(params, denoiser, x_0, cond, fold_in(keys, number + 1))
                for number, (name, other) in enumerate(self.others.items())
            }
            if self.levels:
                bound = lambda *of: masked_bound(process, by_count, *of)  # noqa: E731
                nats, t = spread(bound, self.levels, denoiser, x_0, cond, fold_in(keys, 0))
                num = jnp.round(process.schedule.lost(t) * length).astype(int)  # of masks
                found["bound"] = length * jnp.mean(nats, axis=0)
                found["ancestral"] = length * jnp.mean(nats * num * weights[num], axis=0)
            return found

        def of_split(split: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            each = chosen(model, split, self.num)
            whole = model.params, make_key(model.seed)
            doing = f"bits per character, {SPLITS[split]}"
            return each[0], in_batches(program, whole, each, model.batch_size, doing)

        return {split: of_split(split) for split in splits}

    def _names(self, num_steps: int) -> dict[str, dict[str, Any]]:
        """What each estimate is, for its passport, by name."""
        bounds = {
            "bound": "continuous-time bound, by the number of masks",
            "ancestral": f"bound of the ancestral sampler with {num_steps} steps",
        }
        found = {
            name: {"estimator": words, "evaluations": self.levels}
            for name, words in bounds.items()
            if self.levels
        }
        others = {
            name: {"estimator": other.words, "evaluations": other.evaluations}
            for name, other in self.others.items()
        }
        return {**found, **others}

    def _entries(
        self,
        model: Model,
        split: str,
        x: np.ndarray,
        nats: Mapping[str, np.ndarray],
        names: Mapping[str, Mapping[str, Any]],
        about: Mapping[str, Any],
    ) -> Result:
        """The entries of texts `x` `[N, L]` of a split, whose estimates are `nats` `[N]`."""
        dataset, num = model.dataset, len(x)
        kind = dataset.kind
        assert isinstance(kind, Tokens)
        characters = kind.lengths(kind.encode(x))
        reference = f"{dataset.name} {split} {dataset.fingerprint}"
        passport = {**model.passport, **about, "reference": reference}

        def made(values: np.ndarray, of: Mapping[str, Any]) -> Any:
            estimate = bits_per_character(values, characters, self.bootstrap_repeats)
            return entry(estimate, num, passport, **of)

        found = {f"bits_{name}_{split}": made(nats[name], of) for name, of in names.items()}
        law = getattr(dataset.splits[split].source, "law", None)
        if law is not None:
            exact = -law.log_prob(x)
            of_law = {"estimator": "exact, of the source", "evaluations": 0}
            found[f"bits_source_{split}"] = made(exact, of_law)
            for name, of in names.items():
                found[f"regret_{name}_{split}"] = made(nats[name] - exact, of)
        return found
