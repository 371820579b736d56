"""How often a classifier of noisy tokens finds the class of held-out texts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import fold_in, sample_keys
from diffusion_jax.diffusion.process import Process
from diffusion_jax.evaluation.model import Evaluator, Model, Result, chosen, entry
from diffusion_jax.metrics.intervals import mean, wilson
from diffusion_jax.objectives.classified import judged
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Params

TIMES = (0.0, 0.25, 0.5, 0.75)


@dataclasses.dataclass(frozen=True)
class ClassesFound(Evaluator):
    """Accuracy and cross-entropy of the classes of held-out texts, clean and noisy."""

    # `(params, one-hot x_t [B, L, V + 1], t [B]) -> logits [B, C]`
    logits: Callable[[Params, Array, Array], Array]
    process: Process
    num: int  # of texts, at most

    def __call__(self, model: Model) -> Result:
        """`class_accuracy` and `class_cross_entropy` in nats; with `_tX` at a time X.

        Without it texts are clean. The passport has the share of the most frequent class, which is
        what a guess would find.
        """
        x, index, cond = chosen(model, "heldout", self.num)
        vocabulary = model.dataset.kind.vocabulary

        @jax.jit
        def program(whole: Any, each: Any) -> tuple[Array, Array]:
            (params, key), (x, index, label) = whole, each
            keys = sample_keys(key, index)

            def at(time: float, number: int) -> tuple[Array, Array]:
                t = jnp.full(len(x), time)
                x_t = self.process.corrupt(x, t, fold_in(keys, number))
                signal = jax.nn.one_hot(x_t, vocabulary + 1)
                return judged(self.logits(params, signal, t), label)

            found = [at(time, number) for number, time in enumerate(TIMES)]
            lost, right = zip(*found, strict=True)
            return jnp.stack(lost, axis=1), jnp.stack(right, axis=1)

        whole, each = (model.params, make_key(model.seed)), (x, index, cond["label"])
        lost, right = in_batches(program, whole, each, model.batch_size, "finding classes")
        guess = np.max(np.bincount(cond["label"])) / len(x)
        result: Result = {}
        for column, time in enumerate(TIMES):
            end, about = f"_t{time:.2f}" * (time > 0), {"t": time, "guess": float(guess)}
            for name, value in (
                ("accuracy", wilson(float(right[:, column].mean()), len(x))),
                ("cross_entropy", mean(lost[:, column].astype(np.float64))),
            ):
                result[f"class_{name}{end}"] = entry(value, len(x), model.passport, **about)
        return result
