"""Posterior sampling by every method of the package, for an exact denoiser."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import fold_in, sample_keys, sample_noise
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.restoration import conditional, posterior_mean, projections
from diffusion_jax.restoration.ddrm import ddrm
from diffusion_jax.restoration.decoupled import daps, split_gibbs
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.restoration.renoising import renoising
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.restoration.twisted import twisted
from diffusion_jax.samplers import loop
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.exponential import dpmpp_multistep
from diffusion_jax.samplers.particles import Particles, systematic
from diffusion_jax.samplers.restart import restart
from diffusion_jax.samplers.sde import ancestral, dpmpp_sde_multistep
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Denoised, Denoiser, Sampler
from experiments.restoration.problems import Case, Matrix, prior

SCHEDULE = Cosine()
Setting = dict[str, Any]
Plan = tuple[Denoiser, Sampler, np.ndarray]
"""Denoiser, sampler and times."""


def times(steps: int) -> np.ndarray:
    """As the samplers of azula: the same noise levels, evenly spaced in time."""
    return np.linspace(1.0, 0.0, steps + 1)


def wrapped(method: Callable, denoise: Denoiser, seen: Observation, steps: int,
            sampler: str = "ancestral", iterations: int = 0, **options: Any) -> Plan:  # fmt: skip
    """Methods that make a denoiser of a denoiser, with any sampler."""
    if iterations:
        options["solver"] = Solver("gmres", iterations)
    taken = {f.__name__: f for f in (ancestral, ddim, dpmpp_multistep, dpmpp_sde_multistep)}
    return method(denoise, seen, SCHEDULE, **options), taken[sampler](SCHEDULE), times(steps)


def diffpir(denoise: Denoiser, seen: Observation, steps: int, weight: float, zeta: float) -> Plan:
    """The proximal denoiser, in the published sampler."""
    moved = projections.diffpir(denoise, seen, SCHEDULE, weight=weight)
    return moved, renoising(SCHEDULE, zeta), times(steps)


def in_spectrum(denoise: Denoiser, seen: Observation, steps: int, eta: float) -> Plan:
    """DDRM."""
    return denoise, ddrm(SCHEDULE, seen, eta), times(steps)


def repainted(denoise: Denoiser, seen: Observation, steps: int, passes: int) -> Plan:
    """Every step is taken `passes` times, with jumps back between."""
    grid, masked = times(steps), Mask(_known(len(seen.y[0])))
    sampler = repaint(SCHEDULE, seen.replace(operator=masked), ddim(SCHEDULE, 1.0))  # type: ignore[attr-defined]
    pairs = np.stack([grid[:-1], grid[1:]], axis=1)
    jumps = np.concatenate([np.tile(pair, passes) for pair in pairs])
    # The end of a step is the start of the next one.
    jumps = np.concatenate([jumps[:1], *(part[1:] for part in np.split(jumps, steps))])
    return denoise, restart(SCHEDULE, sampler), jumps


def decoupled(denoise: Denoiser, seen: Observation, steps: int, inner: int, draw: str = "langevin",
              data_std: float = 1.0) -> Plan:  # fmt: skip
    """DAPS, with `inner` steps of the flow in each of its own."""
    sampler = daps(SCHEDULE, seen, inner, getattr(conditional, draw), data_std)
    return denoise, sampler, times(steps)


def gibbs(denoise: Denoiser, seen: Observation, steps: int, inner: int) -> Plan:
    """Split Gibbs, with `inner` steps of ancestral sampling in each of its own."""
    return denoise, split_gibbs(SCHEDULE, seen, ddim(SCHEDULE, 1.0), inner), times(steps)


def particles(denoise: Denoiser, seen: Observation, steps: int, size: int, data_std: float,
              variance: str = "large") -> Plan:  # fmt: skip
    """The samples of one observation are the particles of a group."""
    sampler = twisted(SCHEDULE, seen, size, data_std=data_std, variance=variance)
    return denoise, sampler, times(steps)


class Method(NamedTuple):
    """How one is run."""

    plan: Callable[..., Plan]
    settings: list[Setting]  # the first is its default; the others are tried
    cost: Callable[..., int] = lambda: 1  # evaluations of a step, for a setting
    traced: tuple[str, ...] = ()  # settings of which all values share a program
    masks_only: bool = False


def _wrapped(method: Callable) -> Callable[..., Plan]:
    return functools.partial(wrapped, method)


METHODS = {
    "DPS": Method(
        _wrapped(posterior_mean.dps),
        [{"zeta": z} for z in (1.0, 0.1, 0.03, 0.01)],
        lambda: 2,
        traced=("zeta",),
    ),
    "PiGDM": Method(
        _wrapped(posterior_mean.pigdm),
        [
            *({"data_std": s} for s in (1.0, 0.5, 0.25)),
            {"data_std": 0.25, "sampler": "dpmpp_sde_multistep"},
        ],
        lambda: 2,
        traced=("data_std",),
    ),
    "TMPD": Method(
        _wrapped(posterior_mean.tmpd), [{}, {"sampler": "dpmpp_sde_multistep"}], lambda: 3
    ),
    "MMPS": Method(
        _wrapped(posterior_mean.mmps),
        [
            {"iterations": 10},
            {"iterations": 3},
            {"iterations": 8, "sampler": "dpmpp_sde_multistep"},
        ],
        lambda iterations: iterations + 2,
    ),
    "DDNM": Method(_wrapped(projections.ddnm), [{}]),
    "DiffPIR": Method(
        diffpir,
        [{"weight": w, "zeta": 0.3} for w in (7.0, 3.0, 1.0)] + [{"weight": 1.0, "zeta": 0.0}],
        traced=("weight",),
    ),
    "DDRM": Method(in_spectrum, [{"eta": e} for e in (0.85, 0.0)]),
    "RePaint": Method(
        repainted, [{"passes": n} for n in (10, 3)], lambda passes: passes, masks_only=True
    ),
    "DAPS": Method(
        decoupled,
        [{"inner": 5}, *({"inner": n, "draw": "exact", "data_std": s}
                         for n, s in ((5, 0.3), (1, 0.3), (1, 1.0)))],
        lambda inner: inner,
        traced=("data_std",),
    ),
    "split Gibbs": Method(gibbs, [{"inner": n} for n in (10, 5)], lambda inner: inner),
    "TDS": Method(
        particles,
        [*({"data_std": s} for s in (1.0, 0.5, 0.25)), {"data_std": 0.5, "variance": "small"}],
        lambda: 2,
        traced=("data_std",),
    ),
}  # fmt: skip


@functools.cache
def program(name: str, setting: tuple, dim: int, evaluations: int, size: int) -> Callable:
    """`(y [B, D, 1], operator, sigma [B], keys [B], traced settings) -> samples [B, D]`."""
    method, options = METHODS[name], dict(setting)
    of_cost = {k: v for k, v in options.items() if k in inspect.signature(method.cost).parameters}
    steps = evaluations // method.cost(**of_cost)
    if name == "TDS":
        options["size"] = size
    plain = prior(dim).denoiser(SCHEDULE)

    def denoise(x_t: jax.Array, t: jax.Array, cond: Any) -> Denoised:
        return Denoised(plain(x_t[..., 0], t, cond).x_0[..., None])

    @jax.jit
    def run(y: jax.Array, operator: Matrix, sigma: jax.Array, keys: jax.Array,
            traced: dict[str, jax.Array]) -> jax.Array:  # fmt: skip
        seen = Observation(y, operator, sigma)
        denoiser, sampler, grid = method.plan(denoise, seen, steps, **options, **traced)
        x_T = sample_noise(fold_in(keys, 0), y.shape[1:])
        x, state, _ = loop.run(
            denoiser, sampler, jnp.asarray(grid, jnp.float32), x_T, {}, fold_in(keys, 1)
        )
        if isinstance(state, Particles):  # draws of as many from them
            shares = jnp.exp(state.log_weights).reshape(-1, size)
            first = jnp.arange(0, len(x), size)[:, None]
            x = x[(first + jax.vmap(systematic)(fold_in(keys, 2)[::size], shares)).ravel()]
        return x[..., 0]

    return run


def _known(dim: int) -> jax.Array:
    return (jnp.arange(dim) < dim // 2).astype(jnp.float32)[None, :, None]


def run(
    case: Case, name: str, evaluations: int, size: int, setting: Setting, num: int = 8
) -> np.ndarray:
    """Samples `[N size, D]` of a method with at most this many evaluations per sample.

    Programs are for `num` observations, or multiples of them; fewer are repeated.
    """
    there, dim = len(case.y), case.matrix.shape[1]
    total = -(-there // num) * num * size
    y = np.zeros((there, dim, 1), np.float32)
    y[:, : case.y.shape[1], 0] = case.y
    traced = {k: jnp.float32(v) for k, v in setting.items() if k in METHODS[name].traced}
    fixed = tuple(sorted((k, v) for k, v in setting.items() if k not in traced))
    compiled = program(name, fixed, dim, evaluations, size)
    keys = sample_keys(make_key(0), jnp.arange(total))
    y, sigma = np.resize(y.repeat(size, 0), (total, dim, 1)), np.full(total, case.sigma, np.float32)
    found = compiled(jnp.asarray(y), Matrix.of(case.matrix), jnp.asarray(sigma), keys, traced)
    return np.asarray(found)[: there * size]
