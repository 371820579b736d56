"""The evaluator of restored recordings, as `evaluate.restored` configures it."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset, Kind
from diffusion_jax.diffusion.corruption import sample_keys, sample_noise
from diffusion_jax.evaluation.model import Evaluator, Model, count
from diffusion_jax.evaluation.sound_measures import MEASURES, Sounds, lacks_pitch
from diffusion_jax.evaluation.sound_restored import WORDS, Restore, Restored, as_conditioned
from diffusion_jax.evaluation.sound_words import WordsHeard, recognised, without
from diffusion_jax.from_config.choices import Config, ConfigError, check_known
from diffusion_jax.from_config.restoration import (
    JOINT,
    OPERATORS,
    composed,
    make_method,
    make_restoration,
    requested,
)
from diffusion_jax.from_config.task import Task
from diffusion_jax.generation.generator import Request
from diffusion_jax.metrics.intervals import too_few
from diffusion_jax.restoration.operators import Decomposed, Observation
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array

KEY = "evaluate.restored"
WAYS = ("condition", "restore")


def measures_of(config: Config) -> list[str]:
    """The names in `evaluate.restored.measures`, such as "a,b"."""
    return [name.strip() for name in config.evaluate.restored.measures.split(",") if name.strip()]


def restores_no_sounds(config: Config, task: Task, dataset: Dataset) -> str:
    """Why restored recordings cannot be measured; '' if they can.

    Raises:
        ConfigError: a measure or an operator is unknown.
    """
    kind, settings = dataset.kind, config.evaluate.restored
    if why := _draws_no_sounds(task, kind):
        return why
    assert isinstance(kind, Sounds)
    if too := too_few(count(dataset, "heldout", settings.num_sounds)):
        return f"measures held-out sounds: {too}"
    for name in measures_of(config):
        check_known(name, (*MEASURES, WORDS), f"{KEY}.measures")
        if name == WORDS:
            lacks = _without_words(kind.rate, dataset)
        else:
            lacks = MEASURES[name].lacks(kind.rate, kind.shape[0] / kind.rate)
        if lacks:
            return f"with {KEY}.measures={name!r} {lacks}"
    check_known(settings.by, WAYS, f"{KEY}.by")
    if sorted(set(settings.bands)) != list(settings.bands):
        raise ConfigError(f"{KEY}.bands={tuple(settings.bands)} must ascend")
    if settings.by == "condition":
        given = task.condition is not None
        return "" if given else f"with {KEY}.by='condition' needs an image_condition of sounds"
    return _cannot_restore(config, kind)


def _cannot_restore(config: Config, kind: Kind) -> str:
    """Why recordings cannot be restored from observations, as `restore` configures it."""
    names = config.restore.operator.split(JOINT)
    for name in names:
        check_known(name, OPERATORS, "restore.operator")
    composed(config.restore, names, kind.shape)  # raises if it does not fit
    if make_method(config).particles > 1:
        return f"with {KEY}.by='restore' needs samples, and restore.method='twisted' has particles"
    return ""


def _draws_no_sounds(task: Task, kind: Kind) -> str:
    """Why there are no samples that are sounds; '' if there are."""
    if not isinstance(kind, Sounds):
        return f"needs sounds, and these data are {kind.words}"
    return "" if task.generator else f"measures samples: {task.draws_nothing}"


def has_no_pitch(config: Config, task: Task, dataset: Dataset) -> str:
    """Why the pitch of samples cannot be measured; '' if it can."""
    kind = dataset.kind
    if why := _draws_no_sounds(task, kind):
        return why
    assert isinstance(kind, Sounds)
    return lacks_pitch(kind.rate, kind.shape[0] / kind.rate)


def says_no_words(config: Config, task: Task, dataset: Dataset) -> str:
    """Why word errors of samples cannot be measured; '' if they can.

    Raises:
        ConfigError: a class is unknown.
    """
    kind = dataset.kind
    if why := _draws_no_sounds(task, kind):
        return why
    assert isinstance(kind, Sounds)
    for name in config.evaluate.words.classes:
        check_known(name, dataset.class_names, "evaluate.words.classes")
    return _without_words(kind.rate, dataset)


def _without_words(rate: int, dataset: Dataset) -> str:
    if lacks := without(rate):
        return lacks
    if dataset.splits["heldout"].captions is None:
        return "needs transcripts, and the held-out sounds have no captions"
    return ""


def words_heard(config: Config, dataset: Dataset) -> Evaluator:
    """The evaluator of word errors of samples."""
    settings = config.evaluate.words
    of = tuple(settings.classes), settings.num_sounds, config.evaluate.bootstrap
    return WordsHeard(dataset, recognised, *of)


def restored_sounds(config: Config) -> Evaluator:
    """The evaluator of restored recordings."""
    settings, names = config.evaluate.restored, measures_of(config)
    return Restored(
        as_conditioned if settings.by == "condition" else by_method(config),
        names,
        settings.num_sounds,
        settings.samples,
        tuple(settings.bands),
        recognised if WORDS in names else None,
        config.evaluate.bootstrap,
    )


def by_method(config: Config) -> Restore:
    """Restores observations of held-out recordings by `restore.method`.

    Each is seen through `restore.operator`, with noise of `restore.sigma`. What is given is the
    observation, or its pseudo-inverse if it has another shape.
    """
    settings = config.restore

    def restore(
        model: Model, x: np.ndarray, index: np.ndarray, cond: dict[str, np.ndarray], num: int
    ) -> tuple[np.ndarray, np.ndarray]:
        shape = x.shape[1:]
        operator = composed(settings, settings.operator.split(JOINT), shape)
        keys = sample_keys(make_key(model.seed), jnp.asarray(index))
        y = operator(jnp.asarray(x))
        y = y + settings.sigma * sample_noise(keys, y.shape[1:])
        given = heard(operator, y, x)
        generator = make_restoration(config, model.draws, shape)
        each = jax.tree.map(lambda array: jnp.repeat(array, len(x), 0), operator)
        seen = Observation(y, each, jnp.full(len(x), settings.sigma))
        found = []
        for k in range(num):
            numbers = (index + k * len(index)).astype(np.int32)
            scale = config.sample.guidance_scale
            request = Request(numbers, cond, scale, {}, model.frozen)
            request = requested(config, generator, request, seen)
            batch = {"batch_size": model.batch_size}
            sample, _ = generator(model.params, model.seed, request, **batch)
            found.append(model.dataset.kind.decode(model.dataset.kind.encode(sample)))
        return given, np.stack(found, 1)

    return restore


def heard(operator: object, y: Array, x: np.ndarray) -> np.ndarray:
    """An observation as recordings like `x` `[N, T, C]`."""
    if y.shape == x.shape:
        return np.asarray(y)
    if not isinstance(operator, Decomposed):
        raise ConfigError(f"restore.operator: an observation {y.shape[1:]} is not heard as sound")
    values, _, synthesise, observed = operator.spectrum(jnp.asarray(x))
    inverse = jnp.where(values > 0, 1 / jnp.where(values > 0, values, 1), 0)
    return np.asarray(synthesise(inverse * observed(y)))
