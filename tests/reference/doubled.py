"""diffusers' schedulers in float64, and the exact denoiser of `oracles.three_components`."""

import contextlib
import sys
import types
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch

MIXTURE = {
    "weights": [0.5, 0.3, 0.2],
    "means": [[-1.0, 0.5], [1.0, 1.0], [0.2, -1.2]],
    "covs": [
        [[0.10, 0.04], [0.04, 0.06]],
        [[0.05, -0.03], [-0.03, 0.12]],
        [[0.2, 0.0], [0.0, 0.04]],
    ],
}


def posterior_mean(x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """`E[x_0 | x_t]` `[B, 2]` for `x_t = alpha x_0 + sigma eps` and x_0 of the mixture."""
    weights, means, covs = (torch.tensor(MIXTURE[k]) for k in ("weights", "means", "covs"))
    marginal = alpha**2 * covs + sigma**2 * torch.eye(2)  # [K, 2, 2]
    rest = x[:, None] - alpha * means  # [B, K, 2]
    solved = torch.einsum("kij,bkj->bki", torch.linalg.inv(marginal), rest)
    logits = weights.log() - 0.5 * ((rest * solved).sum(-1) + torch.logdet(marginal))
    return torch.einsum(
        "bk,bki->bi", logits.softmax(-1), means + alpha * torch.einsum("kij,bkj->bki", covs, solved)
    )


class InDouble:
    """`torch` or `numpy` as a scheduler's module sees it: `float32` is `float64`."""

    def __init__(self, module: types.ModuleType):
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, "float64" if name == "float32" else name)


def doubled(
    scheduler_class: type, noise: Callable[..., torch.Tensor]
) -> contextlib.AbstractContextManager:
    """Context: the class' module works in float64 and takes its noise from `noise`."""
    module = sys.modules[scheduler_class.__module__]
    names = {"torch": InDouble(torch), "np": InDouble(np), "randn_tensor": noise}
    return mock.patch.multiple(module, **{k: v for k, v in names.items() if hasattr(module, k)})
