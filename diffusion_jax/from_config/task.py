"""One kind of training, as the trainer, the plan and the stages of a run see it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusion_jax.diffusion.time_sampling import Quantile
from diffusion_jax.generation.generator import Generator, Guidance
from diffusion_jax.models.dual_encoder import Likeness
from diffusion_jax.text import Reader
from diffusion_jax.types import Array, Cond, Condition, Key, LossFn, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network with its objective, and how it draws."""

    init: Callable[[Key], Params]
    apply: Callable[..., Any]  # the network, `(params, *inputs) -> outputs`
    inputs: tuple[Any, ...]  # of the network for one item, with conditioning that is off
    loss: LossFn
    heldout_loss: LossFn  # without dropout of any kind, given items as samples are
    generator: Generator | None = None  # None for networks that draw nothing
    guide: Callable[..., Guidance] | None = None  # `(worse, look) -> guidance` of it, by models
    draws_nothing: str = ""  # why that is so, for messages
    likeness: Callable[[Params, Array, Cond], Likeness] | None = None  # of items and texts
    quantile: Quantile | None = None  # of the law of training times, if there are times
    reader: Reader | None = None  # of texts, if there are any to be read
    condition: Condition | None = None  # from items to what samples are given of them, if anything
    frozen: Mapping[str, Params] = dataclasses.field(default_factory=dict)  # not trained, by name

    @property
    def cond(self) -> Mapping[str, np.ndarray]:
        """Conditioning of one item, arrays `[1, ...]`, off: what the network reads."""
        cond: Mapping[str, np.ndarray] = self.inputs[-1]
        return cond
