"""A trained model, the classifier of its data, and ways to sample from anywhere."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import run
from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.evaluation.extractor import Extractor, get_extractor
from diffusion_jax.generation.generator import Guidance, Request
from diffusion_jax.generation.starts import NORMAL, Start
from diffusion_jax.guidance.extrapolation import classifier_free, clip
from diffusion_jax.metrics.intervals import Estimate, wilson
from diffusion_jax.run import Trained
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.ode import heun
from diffusion_jax.samplers.sde import ancestral, dpmpp_sde_multistep
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.types import Array, Denoiser, Sampler

BATCH = 512
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ddim": ddim,
    "heun": heun,
    "ancestral": functools.partial(ancestral, variance="small"),
    "sde": dpmpp_sde_multistep,
}
"""Two without noise on the way, and two with it."""


def _guide(denoise: Denoiser, request: Request, times: Array) -> Denoiser:
    others = request.given.get("others", ())
    return clip(classifier_free(denoise, request.scale, others=[(cond, 1.0) for cond in others]))


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """What all claims are measured with."""

    model: Trained
    look: Extractor  # the classifier of the data set

    @property
    def schedule(self) -> Schedule:
        """Of the noise."""
        return gaussian(self.model.draws.process).schedule

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture."""
        return self.model.run.parts.dataset.kind.shape

    def arrays(self, split: str, num: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 `[N, H, W, C]` and labels of "train" or "heldout", in fixed disorder."""
        items, labels = self.model.run.parts.dataset.arrays(split)
        order = np.random.default_rng(0).permutation(len(items))[:num]
        return items[order], labels[order]

    def start(self, num: int, start: Start = NORMAL, seed: int = 0, t: float = 1.0) -> np.ndarray:
        """`x_T` `[num, H, W, C]` at time `t`."""
        generator = self.model.draws
        keys, _ = generator.keys(make_key(seed), jnp.arange(num))
        return np.asarray(start.draw(generator.process, keys, self.shape, jnp.array(t)))

    def noisy(self, images: np.ndarray, t: float, seed: int = 0) -> np.ndarray:
        """`x_t` of pictures uint8."""
        keys = sample_keys(make_key(1000 + seed), jnp.arange(len(images)))
        x_0 = jnp.asarray(to_float(images))
        return np.asarray(self.model.draws.process.corrupt(x_0, jnp.full(len(images), t), keys))

    def go_on(
        self,
        x: np.ndarray,
        times: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        sampler: str = "ddim",
        scale: float = 1.0,
        others: Sequence[np.ndarray] = (),
        keep: int = 0,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Where states `x` `[N, ...]` come to along `times`, and kept states `[K, N, ...]`.

        Of the `labels` `[N]`, -1 being none, as all are without any, together with those of
        `others`.
        """
        num = len(x)
        labels = np.full(num, -1) if labels is None else labels
        each = np.asarray(x, np.float32), np.arange(num), _label(labels), [*map(_label, others)]
        whole = self.model.params, jnp.asarray(times, jnp.float32), scale
        x_0, kept = in_batches(self._program(sampler, keep), whole, each, BATCH, "sampling")
        return x_0, None if kept is None else kept.swapaxes(0, 1)

    @functools.cache  # noqa: B019  # one compilation for all times of a number
    def _program(self, sampler: str, keep: int) -> Any:
        made = dataclasses.replace(
            self.model.draws, sampler=SAMPLERS[sampler](self.schedule), guidance=Guidance(_guide)
        )

        @jax.jit
        def program(whole: Any, each: Any) -> Any:
            (params, times, scale), (x, index, cond, others) = whole, each
            generator = dataclasses.replace(made, times=times)
            request = Request(index, cond, scale, {"others": others})
            _, keys = generator.keys(make_key(0), index)
            x_0, kept = generator.go_on(params, x, keys, request, keep)
            return x_0, None if kept is None else kept.swapaxes(0, 1)

        return program

    def down(
        self,
        x: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        t: float = 1.0,
        steps: int = 40,
        **settings: Any,
    ) -> np.ndarray:
        """Pictures uint8 `[N, ...]` from states `x` at time `t`, as `go_on`."""
        return to_uint8(self.go_on(x, np.linspace(t, 0, steps + 1), labels, **settings)[0])

    def denoised(self, x_t: np.ndarray, t: float) -> np.ndarray:
        """`x_0_hat` `[N, ...]` of states `x_t`, of no label."""
        found: np.ndarray = in_batches(
            self._denoise, (self.model.params, jnp.float32(t)), np.asarray(x_t), BATCH, "denoising"
        )
        return found

    @functools.cached_property
    def _denoise(self) -> Any:
        @jax.jit
        def program(whole: Any, x_t: Any) -> Array:
            (params, t), none = whole, {"label": jnp.full(len(x_t), -1)}
            denoise = clip(self.model.draws.denoiser(params))
            return denoise(x_t, jnp.full(len(x_t), t), none).x_0

        return program

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Of the classes, `[N, K]`, as the classifier has it of pictures uint8."""
        logits = self.look(images)[0]
        assert logits is not None
        p = np.exp(logits - logits.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    def classes(self, images: np.ndarray) -> np.ndarray:
        """The most probable of them, `[N]`."""
        return self.probabilities(images).argmax(1)


def _label(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {"label": np.asarray(labels, np.int32)}


def opened(workdir: Path) -> Bench:
    """The model of a run in a folder."""
    model = run.open_run(workdir)
    dataset = model.run.parts.dataset
    return Bench(model, get_extractor(dataset, cache_dir() / "extractors", print))


def share(hits: np.ndarray) -> Estimate:
    """How often something is so, with Wilson's interval."""
    return wilson(float(np.mean(hits)), len(hits))


def entropy(p: np.ndarray) -> np.ndarray:
    """In bits, `[N]`, of probabilities `[N, K]`."""
    return -(p * np.log2(np.maximum(p, 1e-12))).sum(1)


def rounded(tree: Any, digits: int = 4) -> Any:
    """Estimates as `{"value", "low", "high"}`, numbers rounded."""
    if isinstance(tree, Estimate):
        return rounded(tree._asdict(), digits)
    if isinstance(tree, Mapping):
        return {str(key): rounded(value, digits) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [rounded(value, digits) for value in tree]
    if isinstance(tree, float | np.floating):
        return float(f"{tree:.{digits}g}")
    return int(tree) if isinstance(tree, np.integer) else tree
