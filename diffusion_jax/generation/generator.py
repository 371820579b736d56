"""Samples from a seed, by one jitted program per generator, over all devices."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.codecs.codec import Codec
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.process import Process
from diffusion_jax.generation.starts import NORMAL, Start
from diffusion_jax.guidance.extrapolation import classifier_free, clip
from diffusion_jax.models.layout import alone
from diffusion_jax.samplers.loop import Outcome, run
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Denoiser, Key, Params, Sampler


class SamplingError(Exception):
    """Samples are not finite."""


class Request(NamedTuple):
    """The samples to make; arrays of JAX or NumPy."""

    index: Any  # int32 `[B]`, their numbers; with a key they determine the noise
    cond: Mapping[str, Any]  # their conditioning, arrays `[B, ...]`
    scale: Any = 1.0  # guidance scale; 1 is off
    # further inputs of guidance for each sample, trees of arrays `[B, ...]` by name
    given: Mapping[str, Any] = {}
    # parameters of further networks by name: of the codec, and of those that guide
    frozen: Mapping[str, Params] = {}


def _unchanged(sampler: Sampler, request: Request) -> Sampler:
    return sampler


class Guidance(NamedTuple):
    """Makes the denoiser to sample with from that of the network, and the sampler if need be."""

    # `(denoiser, request, times [steps + 1]) -> denoiser`
    guide: Callable[[Denoiser, Request, Array], Denoiser]
    needs: tuple[str, ...] = ()  # names that a request must have in `given` or in `frozen`
    group: int = 1  # this many consecutive samples influence each other
    limit: float = 0.0  # guided `x_0_hat` is clipped to [-limit, limit]; 0: no clipping
    # `(configured sampler, request) -> sampler`: a method that draws is one for an observation
    sampler: Callable[[Sampler, Request], Sampler] = _unchanged
    # of the sampler's final state `[B]`, if the samples have weights; up to a constant
    log_weights: Callable[[Any], Array] | None = None


def _classifier_free(denoise: Denoiser, request: Request, times: Array) -> Denoiser:
    return classifier_free(denoise, request.scale, against=request.given.get("negative"))


WithParams = Callable[[Sampler, Params, Request, bool], Sampler]
"""`(sampler, params, request, guided) -> sampler`: one that needs the network's parameters.

`guided`: whether the denoiser is not that of the network alone, or guidance has its own sampler. A
sampler that has been put in the place of the configured one stays as it is.
"""


def as_configured(sampler: Sampler, params: Params, request: Request, guided: bool) -> Sampler:
    """The configured sampler itself, which needs no parameters."""
    return sampler


def as_they_are(params: Params) -> Params:
    """The parameters."""
    return params


CLASSIFIER_FREE = Guidance(_classifier_free)
"""By the request's scale, away from its `negative` conditioning if it has one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Turns parameters, a key and indices into samples."""

    apply: Callable[..., Array]  # the network, `(params, x_t, time, cond) -> y`
    process: Process  # from data to noise
    codec: Codec  # from diffused arrays to items
    sampler: Sampler
    times: Array  # `[steps + 1]` times, descending
    guidance: Guidance = CLASSIFIER_FREE  # applied to the denoiser before the sampler
    # whether the time to which a step goes is an input of the network, `cond["until"]`
    tells_until: bool = False
    start: Start = NORMAL  # distribution of `x_T`
    with_params: WithParams = as_configured  # applied to the sampler before that of guidance
    ready: Callable[[Params], Params] = as_they_are  # parameters for many calls of the network

    def denoiser(self, params: Params) -> Denoiser:
        """The network with these parameters, without guidance and clipping."""
        return self.process.denoiser(functools.partial(self.apply, params))

    def draw(
        self, params: Params, key: Key, request: Request, keep_every: int = 0
    ) -> tuple[Array, Array | None]:
        """Items `[B, ...]` from `key`, each independent of the others in the batch.

        And every `keep_every`-th state, decoded, `[K, B, ...]` or None.
        """
        return self.draw_with_state(params, key, request, keep_every)[:2]

    def draw_with_state(
        self, params: Params, key: Key, request: Request, keep_every: int = 0
    ) -> tuple[Array, Array | None, Any]:
        """As `draw`, and the state that the sampler ends with.

        Of particles these are their weights; without them the items are no samples.
        """
        x, state, kept = self._drawn(params, key, request, keep_every)
        decode = functools.partial(self.codec.decode, request.frozen)
        return decode(x), None if kept is None else jax.lax.map(decode, kept), state

    def _drawn(self, params: Params, key: Key, request: Request, keep_every: int = 0) -> Outcome:
        keys, step_keys = self.keys(key, request.index)
        noise = self.start.draw(self.process, keys, self.codec.shape, self.times[0])
        x_T = self.process.placed(noise, self.times[0], request.cond)
        return self.run(params, x_T, step_keys, request, keep_every)

    def keys(self, key: Key, index: Array) -> tuple[Array, Array]:
        """Keys of the initial noise `[B]` and of the steps `[B]`, one of each per sample."""
        noise, steps = (sample_keys(k, index) for k in jax.random.split(key))
        return noise, steps

    def go_on(
        self, params: Params, x: Array, keys: Array, request: Request, keep_every: int = 0
    ) -> tuple[Array, Array | None]:
        """Samples from `x` `[B, *shape]` at the first of the times along all of them, not decoded.

        Raises:
            ValueError: the request lacks something that guidance needs.
        """
        outcome = self.run(params, x, keys, request, keep_every)
        return outcome.x, outcome.kept

    def run(
        self, params: Params, x: Array, keys: Array, request: Request, keep_every: int = 0
    ) -> Outcome:
        """As `go_on`, with the sampler's final state."""
        for name in self.guidance.needs:
            if name not in request.given and name not in request.frozen:
                raise ValueError(f"guidance needs {name!r}, and the request has none")
        params = self.ready(params)
        network = self.denoiser(params)
        denoise = self.guidance.guide(network, request, self.times)
        if self.guidance.limit:
            denoise = clip(denoise, self.guidance.limit)
        guided = denoise is not network or self.guidance.sampler is not _unchanged
        sampler = self.with_params(self.sampler, params, request, guided)
        sampler = self.guidance.sampler(sampler, request)
        return run(
            *(denoise, sampler, self.times, x, request.cond, keys, keep_every),
            tells_until=self.tells_until,
        )

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(self.draw, static_argnames="keep_every")

    @functools.cached_property
    def _jitted_with_state(self) -> Any:
        return jax.jit(self.draw_with_state, static_argnames="keep_every")

    def __call__(
        self, params: Params, seed: int, request: Request, *, batch_size: int, keep_every: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Items from `seed`, float32 `[N, ...]`, in batches sharded over the devices.

        Also states `[K, N, ...]` or None, as for `draw`. At most `batch_size` are sampled at once;
        smaller requests are one batch. If samples influence each other, the last group is filled up
        with the next numbers.
        """
        draw = functools.partial(self._jitted, keep_every=keep_every)
        return self._in_batches(draw, params, seed, request, batch_size)

    def with_state(
        self, params: Params, seed: int, request: Request, *, batch_size: int, keep_every: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None, Any]:
        """As a call, with the sampler's final state, a tree of arrays `[N, ...]`."""
        draw = functools.partial(self._jitted_with_state, keep_every=keep_every)
        return self._in_batches(draw, params, seed, request, batch_size)

    def _in_batches(
        self, draw: Callable[..., Any], params: Params, seed: int, request: Request, batch_size: int
    ) -> Any:
        """What `draw(params, key, request)` gives of the request: `(x, states, ...)`."""
        index, group = request.index, self.guidance.group
        num, extra = len(index), -len(index) % group
        index = np.append(index, index[-1] + 1 + np.arange(extra)).astype(np.int32)
        filled = jax.tree.map(
            lambda array: np.concatenate([array, np.repeat(array[-1:], extra, axis=0)]),
            (dict(request.cond), dict(request.given)),
        )
        whole = params, make_key(seed), float(request.scale), dict(request.frozen)

        def draw_batch(whole: Any, each: Any) -> Any:
            (params, key, scale, frozen), (index, (cond, given)) = whole, each
            x, kept, *rest = draw(params, key, Request(index, cond, scale, given, frozen))
            return x, None if kept is None else kept.swapaxes(0, 1), *rest

        with alone() if jax.device_count() == 1 else contextlib.nullcontext():
            found = in_batches(draw_batch, whole, (index, filled), batch_size, "sampling", group)
        x, kept, *rest = jax.tree.map(lambda array: array[:num], found)
        return x, None if kept is None else kept.swapaxes(0, 1), *rest


def check_finite(
    x: np.ndarray, index: np.ndarray, params: Params, of: str, causes: Sequence[str]
) -> None:
    """Raises a SamplingError if samples `x` `[N, ...]` with the numbers `index` are not finite.

    Saved as images they would just be black. The message names what they are `of`, and the cause:
    `params` of the network that are not finite, or else possibly one of the `causes`.
    """
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not bad.any():
        return
    if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        why = f"the cause may be {', '.join(causes[:-1])} or {causes[-1]}"
    else:
        why = "nor are the parameters, so that it is the training that failed"
    first = index[np.argmax(bad)]
    raise SamplingError(
        f"{bad.sum()} of {len(x)} samples of {of} are not finite, number {first} the first: {why}"
    )
