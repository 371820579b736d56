"""One kind of training, as the trainer, the plan and the stages of a run see it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusion_jax.diffusion.time_sampling import Quantile
from diffusion_jax.generation.generator import Generator
from diffusion_jax.models.dual_encoder import Likeness
from diffusion_jax.text import Reader
from diffusion_jax.types import Array, Cond, Condition, Key, LossFn, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network with its objective, and how it draws.

    Attributes:
        init: key -> parameters.
        apply: the network, `(params, *inputs) -> outputs`.
        inputs: of the network for one item, with conditioning that is off.
        loss: the training objective.
        heldout_loss: the same without dropout of any kind, given items as samples are.
        generator: from parameters to samples; None for networks that draw nothing.
        draws_nothing: why that is so, for messages.
        likeness: for networks that compare items with texts, `(params, x, cond) -> Likeness`.
        quantile: of the law of training times; None where there are none.
        reader: of texts; None where there are none to be read.
        condition: from items to what samples are given of them; None where that is nothing.
        frozen: parameters of its networks that are not trained, by name.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Any]
    inputs: tuple[Any, ...]
    loss: LossFn
    heldout_loss: LossFn
    generator: Generator | None = None
    draws_nothing: str = ""
    likeness: Callable[[Params, Array, Cond], Likeness] | None = None
    quantile: Quantile | None = None
    reader: Reader | None = None
    condition: Condition | None = None
    frozen: Mapping[str, Params] = dataclasses.field(default_factory=dict)

    @property
    def cond(self) -> Mapping[str, np.ndarray]:
        """Conditioning of one item, arrays `[1, ...]`, off: what the network reads."""
        cond: Mapping[str, np.ndarray] = self.inputs[-1]
        return cond
