"""The evaluators selected by `evaluate.metrics`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.data import DataError, Dataset
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.evaluation import distances, sentences
from diffusion_jax.evaluation.bits import Bits
from diffusion_jax.evaluation.classified import ClassesFound
from diffusion_jax.evaluation.damage import DamageFound
from diffusion_jax.evaluation.denoising import Denoising
from diffusion_jax.evaluation.distances import Distances, lacking
from diffusion_jax.evaluation.field import MOST_DIMS, LearnedField
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.evaluation.model import LEAST as FEWEST
from diffusion_jax.evaluation.model import SPLITS, Evaluator, count
from diffusion_jax.evaluation.names import NamesFound, names_of
from diffusion_jax.evaluation.perceptual import PACKAGE, load_stlpips
from diffusion_jax.evaluation.reconstruction import Reconstruction
from diffusion_jax.evaluation.sentences import SentenceDistance, load_minilm
from diffusion_jax.evaluation.sound_pitch import Pitches
from diffusion_jax.evaluation.texts import TextSamples
from diffusion_jax.evaluation.token_bits import TokenBits
from diffusion_jax.from_config.autoencoder import stlpips_file, unlike_photographs
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, metrics_of
from diffusion_jax.from_config.damage import make_decay
from diffusion_jax.from_config.data import make_dataset
from diffusion_jax.from_config.extractors import (
    check_extractor,
    make_extractor,
    statistics_of,
)
from diffusion_jax.from_config.sounds import (
    has_no_pitch,
    restored_sounds,
    restores_no_sounds,
    says_no_words,
    words_heard,
)
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.token_families import FAMILIES
from diffusion_jax.metrics import retrieval
from diffusion_jax.metrics.estimates import LEAST
from diffusion_jax.metrics.intervals import too_few


class Means(NamedTuple):
    """Inputs of evaluators other than the config."""

    dataset: Dataset  # data set of the models
    task: Task
    judge: Judge | None  # image-text model, if there is one
    cache: Path  # folder for results that are computed from data once
    say: Callable[[str], None]  # reports slow work


def make_evaluators(config: Config, means: Means) -> list[Evaluator]:
    """The selected evaluators, in order."""
    return [EVALUATORS[name].make(config, means) for name in metrics_of(config)]


def check_metrics(config: Config, task: Task, dataset: Dataset) -> None:
    """Raises a ConfigError if the selected metrics do not apply to the task and data set."""
    asked = metrics_of(config)
    if not asked or len(set(asked)) < len(asked):
        raise ConfigError(
            f"evaluate.metrics={config.evaluate.metrics!r} must name one or more of "
            f"{', '.join(EVALUATORS)}, each once; use --mode train or sample to evaluate nothing"
        )
    for name in asked:
        check_known(name, EVALUATORS, "evaluate.metrics")
        if why := EVALUATORS[name].unfit(config, task, dataset):
            raise ConfigError(f"evaluate.metrics: {name!r} {why}")


def check_weights(config: Config, task: Task) -> None:
    """Raises a ConfigError if samples that the selected metrics measure have weights."""
    asked = [name for name in metrics_of(config) if name in OF_SAMPLES]
    if asked and task.generator and task.generator.guidance.log_weights:
        raise ConfigError(
            f"evaluate.metrics: {asked[0]!r} measures samples without weights: set "
            "sample.particles.size=0, or draw them with --mode sample alone"
        )


def figures_of(config: Config, dataset: Dataset) -> dict[str, str]:
    """Name prefixes of all figures, and why a run omits them; '' if it does not."""
    found: dict[str, str] = {}
    for name, measure in EVALUATORS.items():
        asked = name in metrics_of(config)
        found |= dict.fromkeys(measure.figures, "" if asked else f"evaluate.metrics lacks {name!r}")
        found |= measure.lacks(config, dataset) if asked else {}
    return found


def _draws_nothing(config: Config, task: Task, dataset: Dataset) -> str:
    return "" if task.generator else f"measures samples: {task.draws_nothing}"


def _is_not_gaussian(config: Config, task: Task, dataset: Dataset) -> str:
    if why := _draws_nothing(config, task, dataset):
        return why
    assert task.generator is not None
    with_noise = isinstance(task.generator.process, Gaussian)
    return "" if with_noise else f"needs objective.name='gaussian', not {config.objective.name!r}"


def _has_no_tokens(config: Config, task: Task, dataset: Dataset) -> str:
    needed = " or ".join(map(repr, FAMILIES))
    fits = config.objective.name in FAMILIES
    return "" if fits else f"needs objective.name={needed}, not {config.objective.name!r}"


def _has_no_texts(config: Config, task: Task, dataset: Dataset) -> str:
    if isinstance(dataset.kind, Tokens):
        return _has_no_tokens(config, task, dataset)
    return f"needs texts, and these data are {dataset.kind.words}"


def _cannot_be_compared(config: Config, task: Task, dataset: Dataset) -> str:
    if why := _draws_nothing(config, task, dataset):
        return why
    without = check_extractor(config, dataset)
    asked = without and config.evaluate.reference
    return f"with evaluate.reference={asked} needs an extractor: {without}" if asked else ""


def _has_no_judge(config: Config, task: Task, dataset: Dataset) -> str:
    if dataset.splits["train"].captions is None:
        return f"needs captions, and data.name={dataset.name!r} has none"
    judged = config.evaluate.names.judge or task.likeness
    return "" if judged else "needs evaluate.names.judge, the folder of a run that trained one"


def _has_many_dimensions(config: Config, task: Task, dataset: Dataset) -> str:
    kind = dataset.kind
    few = len(kind.shape) == 1 and kind.shape[0] <= MOST_DIMS
    why = f"needs vectors of at most {MOST_DIMS} dimensions, and these data are {kind.words}"
    return _draws_nothing(config, task, dataset) if few else why


def _finds_no_damage(config: Config, task: Task, dataset: Dataset) -> str:
    if too := too_few(count(dataset, "heldout", config.evaluate.damage.num_images)):
        return f"measures held-out images: {too}"
    return "" if task.damage else "needs objective.name='damage'"


def _finds_no_classes(config: Config, task: Task, dataset: Dataset) -> str:
    if too := too_few(count(dataset, "heldout", config.evaluate.classes.num_texts)):
        return f"measures held-out texts: {too}"
    return "" if task.classifier else "needs objective.name='classified'"


def _reconstructs_nothing(config: Config, task: Task, dataset: Dataset) -> str:
    if too := too_few(count(dataset, "heldout", config.evaluate.reconstruction.num_images)):
        return f"measures held-out items: {too}"
    return "" if task.coder else "needs objective.name='autoencoder'"


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
    asked = {config.data.train_split: splits["train"]}
    if splits["heldout"].captions is not None and len(splits["heldout"]):
        asked[config.data.heldout_split] = splits["heldout"]
    for name in settings.splits:
        try:
            asked[name] = make_dataset(config, heldout_split=name).splits["heldout"]
        except DataError as error:
            raise ConfigError(f"evaluate.names.splits: {error}") from None
    assert means.judge is not None  # by `_has_no_judge`
    return NamesFound(means.judge, names_of(asked, settings.num))


def _damage(config: Config, means: Means) -> Evaluator:
    odds, settings = means.task.damage, config.evaluate
    assert odds is not None  # by `_finds_no_damage`
    return DamageFound(odds, make_decay(config), settings.damage.num_images, settings.bootstrap)


def _reconstruction(config: Config, means: Means) -> Evaluator:
    settings, kind, file = config.evaluate, means.dataset.kind, stlpips_file(config)
    missing = f"ST-LPIPS needs its weights: pip install --no-deps {PACKAGE}"
    distance = unlike_photographs(kind) or (load_stlpips(file) if file else missing)
    assert means.task.coder is not None  # by `_reconstructs_nothing`
    num = settings.reconstruction.num_images
    return Reconstruction(means.task.coder, distance, num, settings.bootstrap)


def _classes(config: Config, means: Means) -> Evaluator:
    assert means.task.classifier is not None  # by `_finds_no_classes`
    return ClassesFound(*means.task.classifier, config.evaluate.classes.num_texts)


def _token_bits(config: Config, means: Means) -> Evaluator:
    settings, family = config.evaluate.bits, FAMILIES[config.objective.name]
    assert means.task.generator is not None  # by `_has_no_tokens`
    others = family.likelihoods(config, means.task.generator.process, settings.levels)
    levels = 0 if others else settings.levels
    return TokenBits(settings.num_texts, levels, config.evaluate.bootstrap, others)


def _texts(config: Config, means: Means) -> Evaluator:
    dataset, settings = means.dataset, config.evaluate
    source, kind = dataset.splits["train"].source, dataset.kind
    assert isinstance(kind, Tokens)  # by `_has_no_texts`
    whole = getattr(source, "tokens", None)  # of windows of texts; others have no whole
    items = dataset.arrays("train", REFERENCE)[0] if whole is None else whole[None]
    reference = "\n".join(kind.text(items))
    return TextSamples(dataset, reference, settings.num_samples, settings.bootstrap)


def _sentences(config: Config, means: Means) -> Evaluator:
    folder = means.cache / "sentences"
    return SentenceDistance(means.dataset, load_minilm(), config.evaluate.num_samples, folder)


def _pitch(config: Config, means: Means) -> Evaluator:
    return Pitches(means.dataset, config.evaluate.num_samples, config.evaluate.bootstrap)


Reasons = dict[str, str]
"""Reasons for omitting figures, by name prefix; '' for those that are not omitted."""


def _of_samples(config: Config, dataset: Dataset) -> Reasons:
    without, other = check_extractor(config, dataset), config.evaluate.reference
    num, noun = config.evaluate.num_samples, dataset.kind.noun
    train, heldout = (len(dataset.splits[split]) for split in ("train", "heldout"))
    found = {name: lacking(name, noun, num, train, heldout) for name in distances.LEAST}
    for name in LEAST:
        if other and not name.startswith(("frechet", "inception", "accuracy")):
            found[name] = f"evaluate.reference={other} gives the Frechet distance only"
        found[name] = without or found[name]
    return found


def _of_errors(config: Config, dataset: Dataset) -> Reasons:
    num = config.evaluate.denoising_images
    counts = {split: count(dataset, split, num) for split in SPLITS}
    each = {f"denoising_error_{split}": too_few(counted) for split, counted in counts.items()}
    return {**each, "denoising_gap": too_few(*counts.values())}


def _of_bits(config: Config, dataset: Dataset) -> Reasons:
    num = config.evaluate.likelihood.num_images
    each = {split: too_few(count(dataset, split, num)) for split in SPLITS}
    return {name: each[name.rpartition("_")[2]] for name in BITS}


def _of_sentences(config: Config, dataset: Dataset) -> Reasons:
    num = config.evaluate.num_samples
    each = {"": ("samples", num, FEWEST), "_train": count(dataset, "train", num)}
    without, heldout = sentences.without(), count(dataset, "heldout", num)
    return {f"{sentences.NAME}{of}": without or too_few(has, heldout) for of, has in each.items()}


ERRORS = (*(f"denoising_error_{split}" for split in SPLITS), "denoising_gap")
REFERENCE = 4096  # training texts that stand for a source without end
RESTORED = "restored", "given", "original", "gain", "mse"
CODED = "psnr", "stlpips", "kl_bits", "latent_std"
PITCH = "pitch_voiced", "pitch_low", "pitch_median", "pitch_high"
TEXTS = "entropy", "real_words", "copied"
BITS = tuple(f"bits_{name}_{split}" for name in ("ode", "bound", "ancestral") for split in SPLITS)


class Measure(NamedTuple):
    """How an evaluator is made, and the figures that it gives."""

    make: Callable[[Config, Means], Evaluator]
    figures: tuple[str, ...]  # name prefixes; a Frechet distance may also be named `fd`
    lacks: Callable[[Config, Dataset], Reasons] = lambda *_: {}  # figures that are omitted
    # Why the evaluator does not apply to a task; '' if it does.
    unfit: Callable[[Config, Task, Dataset], str] = _draws_nothing


EVALUATORS = {
    "distances": Measure(_distances, tuple(distances.LEAST), _of_samples, _cannot_be_compared),
    "denoising": Measure(
        lambda config, _: Denoising(config.evaluate.denoising_images),
        *(ERRORS, _of_errors, _is_not_gaussian),
    ),
    "likelihood": Measure(_bits, BITS, _of_bits, _is_not_gaussian),
    "names": Measure(_names, tuple(retrieval.LEAST), unfit=_has_no_judge),
    "field": Measure(
        lambda *_: LearnedField(), ("field_error", "basin_agreement"), unfit=_has_many_dimensions
    ),
    "bits": Measure(_token_bits, ("bits", "regret"), unfit=_has_no_tokens),
    "texts": Measure(_texts, TEXTS, unfit=_has_no_texts),
    "classes": Measure(
        _classes, ("class_accuracy", "class_cross_entropy"), unfit=_finds_no_classes
    ),
    "sentences": Measure(_sentences, (sentences.NAME,), _of_sentences, _has_no_texts),
    "damage": Measure(_damage, ("average_precision", "iou"), unfit=_finds_no_damage),
    "reconstruction": Measure(_reconstruction, CODED, unfit=_reconstructs_nothing),
    "restored": Measure(
        lambda config, _: restored_sounds(config), RESTORED, unfit=restores_no_sounds
    ),
    "pitch": Measure(_pitch, PITCH, unfit=has_no_pitch),
    "words": Measure(
        lambda config, means: words_heard(config, means.dataset),
        ("word_error",),
        unfit=says_no_words,
    ),
}
"""By name in `evaluate.metrics`."""
OF_SAMPLES = ("distances", "names", "texts", "pitch", "words")
"""Those that measure samples."""
