"""From a seed to pictures: one jitted program per generator, over all devices."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from diffusion_jax.diffusion.corruption import sample_keys, sample_noise
from diffusion_jax.diffusion.prediction import Prediction, denoiser
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.guidance.extrapolation import classifier_free
from diffusion_jax.samplers.loop import sample
from diffusion_jax.system.devices import everywhere, gather, lies_over, mesh_of, put
from diffusion_jax.types import Array, Cond, Denoiser, Key, Params, Sampler


class Beside(NamedTuple):
    """What samples are guided by beside their own conditioning.

    Attributes:
        against: conditioning `[B, ...]` in place of none, from which guidance leads away.
        others: more conditionings `[B, ...]`, to be composed with their own.
        towards: vectors `[B, E]` of what pictures are to be like.
        networks: parameters of further networks by name: `worse`, that of autoguidance, and
            `judge`, which compares pictures with `towards`.
    """

    against: Cond | None = None
    others: tuple[Cond, ...] = ()
    towards: Any = None
    networks: Mapping[str, Params] = {}


ALONE = Beside()


class Wanted(NamedTuple):
    """Which samples are wanted; arrays of JAX or NumPy.

    Attributes:
        index: int32 `[B]`, their numbers; with a key they pick the noise.
        cond: their conditioning, arrays `[B, ...]`.
        scale: guidance scale; 1 is off.
        beside: what else guides them.
    """

    index: Any
    cond: Mapping[str, Any]
    scale: Any = 1.0
    beside: Beside = ALONE


Guide = Callable[[Denoiser, Wanted, Array], Denoiser]
"""`(denoiser of the network, samples, times [steps + 1])` to the denoiser that is sampled."""


def only_classifier_free(denoise: Denoiser, wanted: Wanted, times: Array) -> Denoiser:
    """A `Guide` of one part."""
    return classifier_free(denoise, wanted.scale, against=wanted.beside.against)


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """What turns parameters, a key and indices into samples.

    Attributes:
        apply: the network, `(params, x_t, t, cond) -> y`.
        schedule: noise schedule.
        prediction: what `y` stands for.
        sampler: the method.
        times: `[steps + 1]` times, descending.
        shape: of one sample.
        learned_variance: whether `y` has a variance for each channel.
        guide: makes of the denoiser what the sampler sees.
        group: so many samples in a row see each other.
    """

    apply: Callable[..., Array]
    schedule: Schedule
    prediction: Prediction
    sampler: Sampler
    times: Array
    shape: tuple[int, ...]
    learned_variance: bool = False
    guide: Guide = only_classifier_free
    group: int = 1

    def denoiser(self, params: Params) -> Denoiser:
        """The network with these parameters, without guidance and clipping."""
        network = functools.partial(self.apply, params)
        return denoiser(network, self.schedule, self.prediction, self.learned_variance)

    def draw(
        self, params: Params, key: Key, wanted: Wanted, keep_every: int = 0
    ) -> tuple[Array, Array | None]:
        """Samples of `key`, each the same whatever the others.

        Returns:
            `[B, *shape]`, and every `keep_every`-th state `[K, B, *shape]` or None.
        """
        eps, step_keys = self.noise(key, wanted.index)
        x_T = self.schedule.sigma(self.times[0]) * eps
        return self.go_on(params, x_T, step_keys, wanted, keep_every)

    def noise(self, key: Key, index: Array) -> tuple[Array, Array]:
        """Standard normal noise `[B, *shape]` of samples number `index`, and their keys `[B]`."""
        prior_keys, step_keys = (sample_keys(k, index) for k in jax.random.split(key))
        return sample_noise(prior_keys, self.shape), step_keys

    def go_on(
        self, params: Params, x: Array, keys: Array, wanted: Wanted, keep_every: int = 0
    ) -> tuple[Array, Array | None]:
        """From `x` `[B, *shape]` at the first of the times along all of them, as `draw`."""
        denoise = self.guide(self.denoiser(params), wanted, self.times)
        return sample(denoise, self.sampler, self.times, x, wanted.cond, keys, keep_every)

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(self.draw, static_argnames="keep_every")

    def __call__(
        self,
        params: Params,
        seed: int,
        wanted: Wanted,
        *,
        batch_size: int,
        keep_every: int = 0,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples of `seed`, in batches split over the devices.

        Where samples see each other, the last group is filled up with the next numbers.

        Args:
            params: of the network.
            seed: picks the noise, together with each number.
            wanted: N samples.
            batch_size: at most so many at once; smaller jobs are one batch.
            keep_every: as for `draw`.

        Returns:
            float32 `[N, *shape]`, and the kept states `[K, N, *shape]` or None.
        """
        index, beside = wanted.index, wanted.beside
        num, extra = len(index), -len(index) % self.group
        index = np.append(index, index[-1] + 1 + np.arange(extra)).astype(np.int32)
        each = (
            index,
            *jax.tree.map(
                lambda array: np.concatenate([array, np.repeat(array[-1:], extra, axis=0)]),
                (dict(wanted.cond), beside.against, beside.others, beside.towards),
            ),
        )
        whole = params, jax.random.key(seed), float(wanted.scale), dict(beside.networks)

        def draw(whole: Any, each: Any) -> tuple[Array, Array | None]:
            params, key, scale, networks = whole
            index, cond, against, others, towards = each
            beside = Beside(against, others, towards, networks)
            batch = Wanted(index, cond, scale, beside)
            final, kept = self._jitted(params, key, batch, keep_every=keep_every)
            return final, None if kept is None else kept.swapaxes(0, 1)

        x, kept = in_batches(draw, whole, each, batch_size, self.group)
        return x[:num], None if kept is None else kept[:num].swapaxes(0, 1)


def as_cond(labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Conditioning on labels `[N]`, if there are any."""
    return {} if labels is None else {"label": np.asarray(labels, np.int32)}


CondOf = Callable[[str, np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""`(split, rows [N], labels [N])` of images of a data set to their conditioning; the split is
"train" or "heldout"."""


def by_label(num_classes: int) -> CondOf:
    """Conditioning on labels alone, if there are classes."""
    return lambda split, rows, labels: as_cond(labels if num_classes else None)


def in_batches(
    program: Callable[[Any, Any], Any], whole: Any, each: Any, batch_size: int, group: int = 1
) -> Any:
    """`program(whole, each)` in batches split over the devices of all processes.

    Args:
        program: jitted; gives a tree of `[B, ...]`.
        whole: tree of what all batches need; what is cut over all devices stays so.
        each: tree of `[N, ...]`, the same in all processes.
        batch_size: at most so many at once; smaller jobs are one batch.
        group: batches are multiples of this, of which `N` is one too.

    Returns:
        The tree of `[N, ...]`, NumPy, in all processes.
    """
    num = len(jax.tree.leaves(each)[0])
    mesh = mesh_of(whole)
    multiple = math.lcm(mesh.size, group)
    batch_size = -(-min(batch_size, num) // multiple) * multiple
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = jax.tree.map(lambda a: a if lies_over(a, mesh) else put(a, everywhere(mesh)), whole)
    found = []
    for start in range(0, num, batch_size):
        # The last batch is filled up, so that there is one shape and one program.
        rows = np.arange(start, start + batch_size) % num
        batch = jax.tree.map(lambda array, rows=rows: put(array[rows], split), each)
        found.append(gather(program(whole, batch)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *found)


def cycle_labels(spec: str, num_classes: int, index: np.ndarray) -> np.ndarray | None:
    """Labels of the samples with numbers `index`.

    Args:
        spec: "all" classes in turn, "none" (-1, unconditional), or a list such as "3,5" in turn.
        num_classes: 0 for data without classes, which have no labels (None).
        index: numbers of the samples.

    Raises:
        ValueError: a label is not one of the classes.
    """
    if not num_classes:
        return None
    if spec == "none":
        return np.full(len(index), -1, np.int32)
    choices = range(num_classes) if spec == "all" else [_as_label(part) for part in spec.split(",")]
    if not all(0 <= label < num_classes for label in choices):
        raise ValueError(
            f"sample.labels={spec!r}: allowed are all, none, or classes from 0 to "
            f"{num_classes - 1} separated by commas"
        )
    return np.array(choices, np.int32)[index % len(choices)]


def _as_label(text: str) -> int:
    return int(text) if text.strip().isdecimal() else -1


def proportional_labels(labels: np.ndarray, num_classes: int, num: int) -> np.ndarray:
    """`num` labels in the proportions of `labels` (largest remainders), int32, in class order."""
    share = num * np.bincount(labels, minlength=num_classes) / len(labels)
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: num - counts.sum()]] += 1
    return np.repeat(np.arange(num_classes, dtype=np.int32), counts)
