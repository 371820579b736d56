"""What a model is measured by, from `evaluate.metrics`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.data import DataError, Dataset, Kind
from diffusion_jax.evaluation.bits import Bits
from diffusion_jax.evaluation.denoising import Denoising
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.evaluation.field import MOST_DIMS, LearnedField
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.evaluation.model import Evaluator
from diffusion_jax.evaluation.names import NamesFound, names_of
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, metrics_of
from diffusion_jax.from_config.data import make_dataset
from diffusion_jax.from_config.extractors import make_extractor, statistics_of
from diffusion_jax.from_config.task import Task


class Means(NamedTuple):
    """What evaluators are made with, beside the config."""

    dataset: Dataset  # that of the models
    judge: Judge | None  # of likeness to texts, if there is one
    cache: Path  # folder of what is computed from data once
    say: Callable[[str], None]  # is told what takes long


def make_evaluators(config: Config, means: Means) -> list[Evaluator]:
    """Those asked for, in order."""
    return [EVALUATORS[name].make(config, means) for name in metrics_of(config)]


def check_metrics(config: Config, task: Task, kind: Kind) -> None:
    """Raises a ConfigError if a task with data of a kind cannot be measured as asked for."""
    for name in metrics_of(config):
        check_known(name, EVALUATORS, "evaluate.metrics")
        if why := EVALUATORS[name].unfit(config, task, kind):
            raise ConfigError(f"evaluate.metrics: {name!r} {why}")


def _draws_nothing(config: Config, task: Task, kind: Kind) -> str:
    return "" if task.generator else f"measures samples: {task.draws_nothing}"


def _has_no_judge(config: Config, task: Task, kind: Kind) -> str:
    judged = config.evaluate.names.judge or task.likeness
    return "" if judged else "needs evaluate.names.judge, its folder"


def _has_many_dimensions(config: Config, task: Task, kind: Kind) -> str:
    few = len(kind.shape) == 1 and kind.shape[0] <= MOST_DIMS
    why = f"is of vectors of up to {MOST_DIMS} dimensions, and these data are {kind.words}"
    return _draws_nothing(config, task, kind) if few else why


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
    asked = {config.data.train_split: splits["train"]}
    if splits["heldout"].captions is not None and len(splits["heldout"]):
        asked[config.data.heldout_split] = splits["heldout"]
    for name in settings.splits:
        try:
            asked[name] = make_dataset(config, heldout_split=name).splits["heldout"]
        except DataError as error:
            raise ConfigError(f"evaluate.names.splits: {error}") from None
    assert means.judge is not None  # or it was refused
    return NamesFound(means.judge, names_of(asked, settings.num))


class Measure(NamedTuple):
    """How an evaluator is made, and why a task cannot be measured by it: '' if it can."""

    make: Callable[[Config, Means], Evaluator]
    unfit: Callable[[Config, Task, Kind], str] = _draws_nothing


EVALUATORS = {
    "distances": Measure(_distances),
    "denoising": Measure(lambda config, _: Denoising(config.evaluate.denoising_images)),
    "likelihood": Measure(_bits),
    "names": Measure(_names, _has_no_judge),
    "field": Measure(lambda *_: LearnedField(), _has_many_dimensions),
}
"""By the names in `evaluate.metrics`."""
