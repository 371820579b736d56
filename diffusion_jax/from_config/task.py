"""A task: one kind of training, with what trainer, plan and runs need of it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.codecs.latents import FromMoments
from diffusion_jax.codecs.moments import Moments
from diffusion_jax.data import Kind
from diffusion_jax.diffusion.time_sampling import Quantile
from diffusion_jax.diffusion.tokens import Masked, Replaced
from diffusion_jax.generation.generator import Generator, Guidance
from diffusion_jax.models.dual_encoder import Likeness
from diffusion_jax.objectives.autoencoder import Coder
from diffusion_jax.text import Reader
from diffusion_jax.types import (
    Array,
    Batch,
    Cond,
    Condition,
    Context,
    Key,
    LossFn,
    Metrics,
    Params,
)


class Classifier(NamedTuple):
    """A classifier of noisy tokens."""

    # `(params, one-hot x_t [B, L, V + 1], t [B]) -> logits [B, C]`; laws of tokens are inputs, too
    logits: Callable[[Params, Array, Array], Array]
    process: Masked | Replaced  # the noise that it knows


class Frozen(NamedTuple):
    """Parameters that are not trained: an argument of every compiled program, never saved."""

    shapes: Any  # tree of `jax.ShapeDtypeStruct`
    load: Callable[[], Params]


BASE = "base"
"""Name of the parameters that an adapter changes among those that are not trained."""


class Adapter(NamedTuple):
    """A trained change of a network whose own parameters are not trained."""

    init: Callable[[Key], Params]  # parameters that change nothing yet
    whole: Callable[[Params, Params], Params]  # from the base and them to the network's parameters
    base: Frozen
    # `(folder, base, them)`: writes them for other programs, and returns the files
    write: Callable[[Path, Params, Params], list[Path]]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network with its objective and, if it draws samples, its generator."""

    init: Callable[[Key], Params]  # of what is trained
    apply: Callable[..., Any]  # the network, `(whole params, *inputs) -> outputs`
    inputs: tuple[Any, ...]  # example inputs for one item, with switched-off conditioning
    loss: LossFn
    heldout_loss: LossFn  # without dropout of any kind, with conditioning as in sampling
    generator: Generator | None = None  # None for networks that draw no samples
    guide: Callable[..., Guidance] | None = None  # from other models by name to the guidance
    draws_nothing: str = ""  # why there is no generator, for messages
    likeness: Callable[[Params, Array, Cond], Likeness] | None = None  # of items and texts
    # log odds that pixels of images are destroyed, `[B, H, W, C] -> [B, H, W, 1]`
    damage: Callable[[Params, Array], Array] | None = None
    classifier: Classifier | None = None  # of texts
    noise: str = ""  # how data become noise, in words, if they do
    learned: Callable[[Params], str] = lambda params: ""  # what of that is learned, in words
    quantile: Quantile | None = None  # of the distribution of training times, if there are times
    coder: Coder | None = None  # the autoencoder that is trained
    groups: tuple[str, ...] = ()  # of the parameters' top level, each of which must move
    rivals: tuple[str, ...] = ()  # groups with a loss, and so an optimizer, of their own
    # picture of what the network does, for tasks that draw no samples
    sheet: Callable[[Params], np.ndarray] | None = None
    # writes the trained network to a folder in a published format, and says what it wrote
    publish: Callable[[Params, Path], str] | None = None
    reader: Reader | None = None  # reader of texts, if the network has a text input
    condition: Condition | None = None  # conditioning computed from items in sampling, if any
    frozen: Mapping[str, Frozen] = dataclasses.field(default_factory=dict)  # by name
    # codec of which the moments of the training items are computed once, and trained on
    cached: FromMoments | None = None
    adapter: Adapter | None = None  # what is trained in place of the network, if it is not

    @functools.cached_property
    def shapes(self) -> Params:
        """Shapes of what is trained. To trace a large network takes seconds: it is done once."""
        return jax.eval_shape(self.init, jax.eval_shape(jax.random.key, 0))

    def trained_on(self, kind: Kind) -> Kind:
        """Kind of the items of training batches, for a data set of a kind."""
        return Moments(self.cached.moments_shape) if self.cached else kind

    def whole(self, params: Params, frozen: Mapping[str, Params]) -> Params:
        """The network's parameters, from those that are trained and those that are not."""
        return self.adapter.whole(frozen[BASE], params) if self.adapter else params

    def adapted(self, adapter: Adapter) -> "Task":
        """The task of training an adapter of the network, by the same losses."""

        def of(loss: LossFn) -> LossFn:
            def of_whole(params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
                return loss(adapter.whole(context.frozen[BASE], params), batch, context)

            return of_whole

        return dataclasses.replace(
            self,
            init=adapter.init,
            loss=of(self.loss),
            heldout_loss=of(self.heldout_loss),
            frozen={**self.frozen, BASE: adapter.base},
            adapter=adapter,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The axes of the network's first input between batch and channels."""
        sizes: tuple[int, ...] = self.inputs[0].shape[1:-1]
        return sizes

    @property
    def cond(self) -> Mapping[str, np.ndarray]:
        """Switched-off conditioning of one item, arrays `[1, ...]`: all inputs of the network."""
        cond: Mapping[str, np.ndarray] = self.inputs[-1]
        return cond
