"""Guidance of tokens of a config: the magnet, a classifier, and weighted particles of either."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.data.tokens import BLANK, Tokens
from diffusion_jax.diffusion.tokens import Attribute, laws
from diffusion_jax.from_config.choices import Config, ConfigError, keyed, lookup, named
from diffusion_jax.from_config.task import Classifier, Task
from diffusion_jax.generation.generator import Guidance, Request
from diffusion_jax.guidance import scales
from diffusion_jax.guidance.scales import Scale
from diffusion_jax.guidance.tokens import (
    Laws,
    LogProb,
    all_uncertain,
    by_classifier,
    from_left,
    magnet,
    of_class,
    of_words,
)
from diffusion_jax.samplers.steering import Steered, steered
from diffusion_jax.types import Array, Cond, Denoised, Denoiser, Sampler

JUDGE = "sample.guidance.classifier.judge"
CLASSIFIER = "classifier"
"""Name in a request's `frozen` of the parameters of `sample.guidance.classifier.judge`."""
LAWS: dict[str, Callable[[Config], Laws]] = {
    "masked": lambda config: laws,
    "masked_by_token": lambda config: laws,
    "block": lambda config: from_left(config.objective.block.size),
    "replaced": lambda config: all_uncertain,
    "autoregressive": lambda config: from_left(1),
}
"""The laws of tokens that a network knows at a time, by `objective.name`."""
STEERED = ("unmasking", "by_count", "remasking")
"""Samplers that particles may have: those that do not look at a token to choose its place."""


Pull = Callable[[float], Scale]
"""A scale in the times of `sample.guidance.interval`."""


class Tilt(NamedTuple):
    """What tilts the law of texts to `p(x) exp(reward(x))`, given the parameters of a request."""

    guide: Callable[[Request, Denoiser], Denoiser]  # leads there, on the way
    reward: Callable[[Request], Attribute]
    drawn: bool = False  # whether the reward is of texts, and that of laws far off


def _first_order(denoise: Denoiser, log_prob: LogProb, scale: Scale, laws_of: Laws) -> Denoiser:
    return by_classifier(denoise, log_prob, scale, first_order=True)


def _exact(denoise: Denoiser, log_prob: LogProb, scale: Scale, laws_of: Laws) -> Denoiser:
    return by_classifier(denoise, log_prob, scale)


def _field(denoise: Denoiser, log_prob: LogProb, scale: Scale, laws_of: Laws) -> Denoiser:
    return magnet(denoise, of_class(log_prob), scale, laws_of)


BY = {"first_order": _first_order, "exact": _exact, "field": _field}
"""How a classifier guides, by `sample.guidance.classifier.by`."""


def settings_of(config: Config, key: str) -> Config:
    """The group `key` of `config.sample`; empty in a run of an earlier version, which lacks it."""
    found: Any = config.sample
    for name in key.split("."):
        found = found.get(name, Config())
    return found


def is_on(config: Config) -> dict[str, Any]:
    """The settings that switch guidance of tokens on, by key; empty if all are off."""
    switches = {"guidance.magnet": "words", "guidance.classifier": "judge", "particles": "size"}
    found = {}
    for group, name in switches.items():
        own = settings_of(config, group)
        if own.get(name) and own.get("scale", 1):
            value = own[name]
            found[f"sample.{group}.{name}"] = tuple(value) if isinstance(value, list) else value
    return found


def check_off(config: Config) -> None:
    """Raises a ConfigError if guidance of tokens is on where there are none."""
    for key, value in is_on(config).items():
        raise ConfigError(
            f"{key}={value!r} is for tokens, and objective.name={config.objective.name!r} has none"
        )


def check(config: Config) -> None:
    """Raises a ConfigError for invalid guidance of tokens, before there are data."""
    on, sample = is_on(config), config.sample
    if JUDGE in on:
        lookup(BY, sample.guidance.classifier.by, "sample.guidance.classifier.by")
    if not (size := on.get("sample.particles.size", 0)):
        return
    what = f"sample.particles.size={size}"
    if len(on) == 1:
        raise ConfigError(
            f"{what} needs a reward: sample.guidance.magnet.words or {JUDGE}, with a scale that is "
            "not 0"
        )
    if (name := config.objective.name) != "masked":
        raise ConfigError(f"{what} is for objective.name='masked', not {name!r}")
    by_outcome = sample.sampler == "by_count" and sample.by_count.order == "confidence"
    if sample.sampler not in STEERED or by_outcome:
        order = ".order='confidence'" if by_outcome else ""
        raise ConfigError(
            f"{what} cannot be combined with sample.sampler={sample.sampler!r}{order}: use "
            "unmasking, by_count in another order, or remasking"
        )
    for key in ("first_index", "batch_size", "num_images"):  # batches contain whole groups
        if sample[key] % size:
            raise ConfigError(f"sample.{key}={sample[key]} must be a multiple of {what}")


def in_time(config: Config) -> str:
    """The setting by which guidance depends on time, as samplers with a cache must know; or ''."""
    settings, on = config.sample.guidance, [key for key in is_on(config) if "guidance" in key]
    if config.sample.guidance_scale != 1:
        on.append("sample.guidance_scale")
        if settings.schedule != "constant":
            return f"sample.guidance.schedule={settings.schedule!r}"
    always = tuple(settings.interval) == (0, 1)
    return "" if always or not on else f"sample.guidance.interval={tuple(settings.interval)}"


def check_classifier(
    config: Config, theirs: Task, there: Dataset, own: Task, here: Dataset
) -> None:
    """Raises a ConfigError if the classifier of another run cannot guide this one."""
    classifier, generator = theirs.classifier, own.generator
    if classifier is None:
        raise ConfigError("it is no classifier, as objective.name='classified' trains one")
    if (there.name, there.kind) != (here.name, here.kind):
        raise ConfigError(
            f"it tells the classes of {there.name} ({there.kind.words}), not of {here.name} "
            f"({here.kind.words}): data, vocabulary and length must be the same"
        )
    if config.objective.name == "masked_by_token":
        raise ConfigError(
            "objective.name='masked_by_token' masks some tokens earlier than others, which no "
            "classifier is trained for"
        )
    noise = [type(one.process).__name__.lower() for one in (classifier, generator) if one]
    if len({*noise}) > 1:
        raise ConfigError(
            f"it knows tokens that are {noise[0]}, and here they are {noise[1]}: "
            "objective.classified.replaced selects its noise"
        )
    label, names = config.sample.guidance.classifier.label, there.class_names
    if label >= len(names):
        listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
        raise ConfigError(f"sample.guidance.classifier.label={label} must be one of {listed}")


def make_tilts(config: Config, dataset: Dataset) -> Callable[[Classifier | None], list[Tilt]]:
    """Checks guidance of tokens with the data, and returns the function that makes it.

    It is given the classifier, if there is one.
    """
    on, settings = is_on(config), config.sample.guidance
    low, high = settings.interval
    pull = functools.partial(scales.within, low=low, high=high, off=0.0)
    laws_of = LAWS[config.objective.name](config)
    words = on.get("sample.guidance.magnet.words", ())
    attribute = of_words([_tokens(word, dataset) for word in words]) if words else None
    if "sample.particles.size" in on and dataset.num_classes:
        labels = config.sample.labels
        if labels == "all" or "," in labels:
            raise ConfigError(
                f"sample.particles.size={config.sample.particles.size} needs samples of one class "
                f"in a group: sample.labels='none' or one class, not {labels!r}"
            )

    def make(classify: Classifier | None) -> list[Tilt]:
        tilts = []
        if attribute is not None:
            tilts.append(_of_words(attribute, settings.magnet.scale, pull, laws_of))
        if classify is not None and JUDGE in on:
            tilts.append(_of_class(classify, settings.classifier, pull, laws_of))
        return tilts

    return make


def _of_words(attribute: Attribute, scale: float, pull: Pull, laws_of: Laws) -> Tilt:
    return Tilt(
        lambda request, denoise: magnet(denoise, attribute, pull(scale), laws_of),
        lambda request: lambda p: scale * attribute(p),
    )


def _of_class(classify: Classifier, own: Config, pull: Pull, laws_of: Laws) -> Tilt:
    def log_prob_of(request: Request) -> LogProb:
        def log_prob(signal: Array, t: Array, cond: Cond) -> Array:
            logits = classify.logits(request.frozen[CLASSIFIER], signal, t)
            return jax.nn.log_softmax(logits)[:, own.label]

        return log_prob

    return Tilt(
        lambda request, denoise: BY[own.by](
            denoise, log_prob_of(request), pull(own.scale), laws_of
        ),
        lambda request: lambda p: own.scale * of_class(log_prob_of(request))(p),
        drawn=True,
    )


def with_tilts(guidance: Guidance, process: Any, tilts: list[Tilt], own: Config) -> Guidance:
    """Guidance with tilts: on the way, or as the proposal of particles if `own.size` is not 0.

    Without tilts it is as it was.
    """
    needs = (*guidance.needs, *[CLASSIFIER] * any(tilt.drawn for tilt in tilts))
    if not tilts:
        return guidance

    def tilted(request: Request, denoise: Denoiser) -> Denoiser:
        return functools.reduce(lambda inner, tilt: tilt.guide(request, inner), tilts, denoise)

    if not own.get("size"):

        def guide(denoise: Denoiser, request: Request, times: Array) -> Denoiser:
            return tilted(request, guidance.guide(denoise, request, times))

        return guidance._replace(guide=guide, needs=needs)

    def sampler(configured: Sampler, request: Request) -> Sampler:
        def proposal(x_t: Array, t: Array, log_p: Array) -> Array:
            return tilted(request, lambda *_: Denoised(log_p))(x_t, t, {}).x_0

        def reward(p: Array) -> Array:
            return sum((tilt.reward(request)(p) for tilt in tilts), jnp.zeros(len(p), p.dtype))

        with keyed("sample.particles"):
            return steered(
                *(process, guidance.sampler(configured, request), reward, own.size, proposal),
                drawn=any(tilt.drawn for tilt in tilts),
                resample_below=own.resample_below,
            )

    def log_weights(state: Steered) -> Array:
        return state.particles.log_weights + state.particles.log_evidence

    return guidance._replace(
        sampler=sampler,
        needs=needs,
        group=max(guidance.group, own.size),
        log_weights=log_weights,
    )


def _tokens(word: str, dataset: Dataset) -> tuple[int, ...]:
    """The tokens of a word of the magnet."""
    what, kind = f"sample.guidance.magnet.words: {word!r}", dataset.kind
    assert isinstance(kind, Tokens)  # by the task
    if max(map(len, kind.pieces)) > 1:
        raise ConfigError(
            f"{what} can be written in several ways in {kind.words}: words need "
            "data.tokenizer='characters' or 'bytes'"
        )
    if not word or BLANK in word:
        raise ConfigError(f"{what} must be one or more characters, none of them {BLANK!r}")
    with named(what):
        tokens = kind.read(word)
    return tuple(tokens[tokens < kind.vocabulary].tolist())
