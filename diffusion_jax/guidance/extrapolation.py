"""Guidance that extrapolates away from a weaker denoiser, and clipping of the result.

Classifier-free guidance, composition of several prompts, and autoguidance.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.conditioning import unconditional
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.guidance.scales import Scale, at, is_off, limited
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


@dataclasses.dataclass(frozen=True)
@checked(parallel="[0, 1]", max_norm="[0, inf)", rescale="[0, 1]")
class Push:
    """How differences between denoisers are added to the plain `x_0_hat`."""

    # share kept of a difference's component along the plain `x_0_hat`; 1 keeps all. That component
    # oversaturates images (eta of APG, Sadat et al. 2025). APG's momentum is left out, as denoisers
    # have no memory.
    parallel: float = 1.0
    # largest root mean square of a difference (r of APG, in units that do not depend on the size of
    # the image); 0 is no limit
    max_norm: float = 0.0
    # share of the way to the standard deviation of the plain `x_0_hat`, per sample (phi of Lin et
    # al. 2024, Eq. 15 and 16, who rescale the network's output); 0 is off
    rescale: float = 0.0

    def __call__(self, plain: Array, terms: Sequence[tuple[Array, Array]]) -> Array:
        """`plain` plus the sum of weight `[B]` times difference over `terms`; all `[B, ...]`."""
        axes, x_0 = tuple(range(1, plain.ndim)), plain
        for weight, difference in terms:
            x_0 = x_0 + per_sample(weight, plain) * self._shaped(difference, plain, axes)
        if self.rescale:
            ratio = jnp.std(plain, axes, keepdims=True) / jnp.std(x_0, axes, keepdims=True)
            x_0 = x_0 * (1 + self.rescale * (ratio - 1))
        return x_0

    def _shaped(self, difference: Array, plain: Array, axes: tuple[int, ...]) -> Array:
        difference = limited(difference, self.max_norm)
        if self.parallel != 1:
            square = jnp.maximum(jnp.sum(plain**2, axes, keepdims=True), 1e-12)
            along = jnp.sum(difference * plain, axes, keepdims=True) / square * plain
            difference = difference - (1 - self.parallel) * along
        return difference


STRAIGHT = Push()  # plain extrapolation


def classifier_free(
    denoise: Denoiser,
    scale: Scale,
    *,
    against: Cond | None = None,
    others: Sequence[tuple[Cond, Scale]] = (),
    push: Push = STRAIGHT,
) -> Denoiser:
    """`x_0 = x_0(none) + scale (x_0(cond) - x_0(none)) + sum_j w_j (x_0(c_j) - x_0(none))`.

    Without `others` this is classifier-free guidance, Eq. 6 of Ho & Salimans 2022 with
    `scale = 1 + w`. It guides `x_0_hat`, which gives the same result for every prediction type, as
    each is linear in it at given `x_t`. `others` are composed with it (Liu et al. 2022, Eq. 11):
    AND with a positive weight, NOT with a negative one; the result is the product distribution if
    the conditions are independent given noisy data. Scale 1 with all weights 0 is off and costs
    nothing; otherwise all conditionings are evaluated in one forward pass. Scales may be traced, so
    that changing them does not recompile. A learned variance is the conditional one.

    Args:
        denoise: denoiser of a network trained with and without conditioning.
        scale: guidance scale; 1 is off.
        against: conditioning `[B, ...]` to guide away from instead of none (a negative prompt).
        others: further conditionings `[B, ...]` with their weights; weight 0 is off.
        push: how the differences are added.
    """
    if is_off((scale, 1), *((weight, 0) for _, weight in others)):
        return denoise

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        less = at(scale, t) - 1
        weights = [at(weight, t) for _, weight in others]

        def pushed() -> Denoised:
            without = unconditional(cond) if against is None else {**cond, **against}
            more = [{**cond, **other} for other, _ in others]
            own, origin, *rest = _forward(denoise, x_t, t, [cond, without, *more])
            terms = [(less, own.x_0 - origin.x_0)]
            terms += [(w, r.x_0 - origin.x_0) for w, r in zip(weights, rest, strict=True)]
            return own._replace(x_0=push(own.x_0, terms))

        if not any(map(callable, (scale, *(weight for _, weight in others)))):
            return pushed()  # one network in the program, not two
        on = jnp.any(jnp.stack([less, *weights]) != 0)
        return jax.lax.cond(on, pushed, lambda: denoise(x_t, t, cond))

    return guided


def autoguidance(
    denoise: Denoiser, worse: Denoiser, scale: Scale, push: Push = STRAIGHT
) -> Denoiser:
    """`x_0 = x_0(worse) + scale (x_0 - x_0(worse))` (Karras et al. 2024).

    `worse` is a smaller or less trained denoiser of the same task, with the same conditioning.
    Scale 1 is off and costs nothing.
    """
    if is_off((scale, 1)):
        return denoise

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        less = at(scale, t) - 1
        own = denoise(x_t, t, cond)

        def pushed() -> Array:
            return push(own.x_0, [(less, own.x_0 - worse(x_t, t, cond).x_0)])

        return own._replace(x_0=jax.lax.cond(jnp.any(less != 0), pushed, lambda: own.x_0))

    return guided


@checked(limit="(0, inf)")
def clip(denoise: Denoiser, limit: float = 1.0) -> Denoiser:
    """Clips `x_0_hat` to [-limit, limit] (DDPM's `clip_denoised`); apply it after guidance."""

    def clipped(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        return denoised._replace(x_0=jnp.clip(denoised.x_0, -limit, limit))

    return clipped


def _forward(denoise: Denoiser, x_t: Array, t: Array, conds: Sequence[Cond]) -> list[Denoised]:
    """Evaluates the denoiser under each of the conditionings in one call.

    The copies of one sample are adjacent, so that a batch sharded over devices stays sharded.
    """
    num = len(conds)

    def side_by_side(*each: Array) -> Array:
        return jnp.stack(each, 1).reshape(-1, *each[0].shape[1:])

    x_t, t = (jnp.repeat(a, num, axis=0) for a in (x_t, t))
    found = denoise(x_t, t, jax.tree.map(side_by_side, *map(dict, conds)))
    return [jax.tree.map(lambda a, i=i: a[i::num], found) for i in range(num)]
