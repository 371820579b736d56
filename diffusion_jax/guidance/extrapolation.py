"""Guidance away from a worse denoiser: classifier-free, by several prompts, and autoguidance.

And clipping, for where it leads out of the range of the data.
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
    """How far the guided `x_0_hat` goes from the plain one, along which of the differences."""

    # share that is kept of a difference's part along the plain `x_0_hat`; 1 is all. That part makes
    # pictures glare (eta of APG, Sadat et al. 2025). Their momentum is not here: a denoiser has no
    # memory.
    parallel: float = 1.0
    # largest norm of a difference, per root of its dimensions (r of APG, in units that do not
    # depend on the size of the picture); 0 is no limit
    max_norm: float = 0.0
    # share of the way to the standard deviation of the plain `x_0_hat`, of each sample (phi of Lin
    # et al. 2024, Eq. 15 and 16, who rescale the network's output); 0 is off
    rescale: float = 0.0

    def __call__(self, plain: Array, terms: Sequence[tuple[Array, Array]]) -> Array:
        """`plain` plus each of the `terms`, a weight `[B]` times a difference; all `[B, ...]`."""
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


STRAIGHT = Push()  # the whole of the differences


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
    `scale = 1 + w`. The guided quantity is `x_0_hat`: as every prediction type is linear in it at
    given `x_t`, this is the same guidance for all of them. `others` are composed with it (Liu et
    al. 2022, Eq. 11): AND with a positive weight, NOT with a negative one; the result is the
    product law where, given noisy data, the conditions are independent. Scale 1 is off, and then
    costs nothing, if all weights are 0 too; else all are evaluated by one forward. Scales may be
    traced, so that another one does not compile again. A learned variance is the conditional one.

    Args:
        denoise: of a network that was trained with and without conditioning.
        scale: guidance scale; 1 is off.
        against: conditioning `[B, ...]` in place of none, from which guidance leads away (a
            negative prompt).
        others: more conditionings `[B, ...]`, with their weights; 0 is off.
        push: what becomes of the differences.
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

        on = jnp.any(jnp.stack([less, *weights]) != 0)
        return jax.lax.cond(on, pushed, lambda: denoise(x_t, t, cond))

    return guided


def autoguidance(
    denoise: Denoiser, worse: Denoiser, scale: Scale, push: Push = STRAIGHT
) -> Denoiser:
    """`x_0 = x_0(worse) + scale (x_0 - x_0(worse))`: a bad version of itself (Karras et al. 2024).

    `worse` is a smaller or less trained one of the same task, given the same conditioning. Scale 1
    is off, and costs nothing.
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
    """Clips `x_0_hat` to [-limit, limit] (DDPM's `clip_denoised`); apply it outside of guidance."""

    def clipped(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        return denoised._replace(x_0=jnp.clip(denoised.x_0, -limit, limit))

    return clipped


def _forward(denoise: Denoiser, x_t: Array, t: Array, conds: Sequence[Cond]) -> list[Denoised]:
    """The denoiser under each of the conditionings, by one call.

    Those of one sample lie side by side, so that a batch that is split over devices stays split.
    """
    num = len(conds)

    def side_by_side(*each: Array) -> Array:
        return jnp.stack(each, 1).reshape(-1, *each[0].shape[1:])

    x_t, t = (jnp.repeat(a, num, axis=0) for a in (x_t, t))
    found = denoise(x_t, t, jax.tree.map(side_by_side, *map(dict, conds)))
    return [jax.tree.map(lambda a, i=i: a[i::num], found) for i in range(num)]
