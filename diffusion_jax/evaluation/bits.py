"""Bits per dimension of held-out and of training items, by three estimates."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.evaluation.likelihood import (
    ancestral_bound,
    bits_per_dimension,
    dequantise,
    ode_nll,
    variational_bound,
)
from diffusion_jax.evaluation.model import SPLITS, Evaluator, Model, Result, chosen, count, entry
from diffusion_jax.metrics.intervals import mean, too_few
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key


@dataclasses.dataclass(frozen=True)
class Bits(Evaluator):
    """Bits per dimension under the model, without guidance and clipping, of conditioned items.

    For continuous data they are those of a density, without a bound of the ancestral sampler.
    """

    num: int  # items of each split, at most
    probes: int  # of Hutchinson's estimate, per item
    noise_levels: int  # per item, at which the continuous-time bound is evaluated
    variance: str  # of the ancestral sampler

    def __call__(self, model: Model) -> Result:
        """`bits_ode_heldout`, `bits_bound_...`, `bits_ancestral_...`, and the same of `train`.

        A split needs `LEAST` items or more.
        """
        generator = model.draws
        schedule, codec = gaussian(generator.process).schedule, generator.codec
        times = jnp.unique(generator.times)[::-1]  # Restart visits some of them repeatedly
        size, levels = int(np.prod(codec.shape)), codec.levels
        of_x_0 = codec.log_scale / np.log(2)  # bits more of `x_0` than of the items

        @jax.jit
        def program(whole: Any, each: Any) -> dict[str, Any]:
            (params, frozen, key), (x, index, cond) = whole, each
            denoiser = generator.denoiser(params)
            keys = [sample_keys(k, index) for k in jax.random.split(key, 4)]
            x_0 = codec.encode(frozen, x, sample_keys(jax.random.fold_in(key, 4), index))
            smooth = dequantise(x_0, keys[0], levels)
            ode = ode_nll(denoiser, schedule, smooth, cond, keys[1], self.probes)
            bound = variational_bound(
                denoiser, schedule, x_0, cond, keys[2], levels, self.noise_levels
            )
            found = {
                "ode": bits_per_dimension(ode.by_probe, size, levels),
                "bound": bits_per_dimension(bound.total, size),
                "solver_steps": jnp.full(len(x_0), ode.steps),
            }
            if levels:
                of = denoiser, schedule, times, x_0, cond, keys[3], self.variance, levels
                found["ancestral"] = bits_per_dimension(ancestral_bound(*of).total, size)
            return found

        result: Result = {}
        for split in SPLITS:
            if why := too_few(counted := count(model.dataset, split, self.num)):
                for name in ("ode", "bound", *["ancestral"] * bool(levels)):
                    result[f"bits_{name}_{split}"] = entry(why, counted[1], model.passport)
                continue
            each = chosen(model, split, self.num)
            whole = model.params, dict(model.frozen), make_key(model.seed)
            doing = f"likelihood, {SPLITS[split]}"
            found = in_batches(program, whole, each, model.batch_size, doing)
            evaluations = 6 * found.pop("solver_steps").max() + 3
            cost: dict[str, dict[str, Any]] = {
                "ode": {"evaluations": f"{evaluations}, each with {self.probes} derivative(s)"},
                "bound": {"evaluations": self.noise_levels},
                "ancestral": {"evaluations": len(times) - 1, "variance": self.variance},
            }
            if self.probes > 1 and np.isfinite(found["ode"]).all():
                # Of the mean over items, due to the probes alone; the interval includes it.
                error = np.sqrt(found["ode"].var(1, ddof=1).mean() / found["ode"].size)
                cost["ode"]["hutchinson_standard_error"] = float(error)
            about = f"{model.dataset.name} {split} {model.dataset.fingerprint}"
            for name, bits in found.items():
                bits = bits.reshape(len(bits), -1).mean(1) - of_x_0
                made = entry(mean(bits), len(bits), model.passport, reference=about, **cost[name])
                result[f"bits_{name}_{split}"] = made
        return result
