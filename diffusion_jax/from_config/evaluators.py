"""What a model is measured by, from `evaluate.metrics`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.data import DataError, Dataset
from diffusion_jax.evaluation.bits import Bits
from diffusion_jax.evaluation.denoising import Denoising
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.evaluation.field import LearnedField
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.evaluation.model import Evaluator
from diffusion_jax.evaluation.names import NamesFound, names_of
from diffusion_jax.from_config.choices import Config, ConfigError, metrics_of
from diffusion_jax.from_config.extractors import make_extractor, statistics_of
from diffusion_jax.from_config.parts import make_dataset


class Means(NamedTuple):
    """What evaluators are made with, beside the config.

    Attributes:
        dataset: that of the models.
        judge: of likeness to texts; None if there is none.
        cache: folder of what is computed from data once.
        say: is told what takes long.
    """

    dataset: Dataset
    judge: Judge | None
    cache: Path
    say: Callable[[str], None]


def make_evaluators(config: Config, means: Means) -> list[Evaluator]:
    """Those asked for, in order.

    Raises:
        ConfigError: a setting is not possible, or the data is not such that it can be measured so.
    """
    return [EVALUATORS[name](config, means) for name in metrics_of(config)]


def _distances(config: Config, means: Means) -> Evaluator:
    extractor = make_extractor(
        config, means.dataset, means.cache / "extractors", means.say, means.judge
    )
    folder = means.cache / "features"
    repeats = config.evaluate.bootstrap
    return Distances(means.dataset, extractor, repeats, folder, statistics_of(config))


def _bits(config: Config, means: Means) -> Evaluator:
    settings, learned = config.evaluate.likelihood, config.objective.learned_variance
    variance = "learned" if learned else config.sample.ancestral.variance
    return Bits(settings.num_images, settings.probes, settings.noise_levels, variance)


def _names(config: Config, means: Means) -> Evaluator:
    splits, settings = means.dataset.splits, config.evaluate.names
    if splits["train"].captions is None:
        raise ConfigError(f"evaluate.names: data.name={means.dataset.name!r} has no captions")
    asked = {"train": splits["train"]}
    if splits["heldout"].captions is not None and len(splits["heldout"]):
        asked[config.data.heldout_split] = splits["heldout"]
    for name in settings.splits:
        try:
            asked[name] = make_dataset(config, heldout_split=name).splits["heldout"]
        except DataError as error:
            raise ConfigError(f"evaluate.names.splits: {error}") from None
    assert means.judge is not None  # the task has checked
    return NamesFound(means.judge, names_of(asked, settings.num))


EVALUATORS: dict[str, Callable[[Config, Means], Evaluator]] = {
    "distances": _distances,
    "denoising": lambda config, means: Denoising(config.evaluate.denoising_images),
    "likelihood": _bits,
    "names": _names,
    "field": lambda config, means: LearnedField(),
}
"""By the names in `evaluate.metrics`."""
