"""The feature extractor selected by `evaluate.extractor` and `evaluate.weights`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.extractor import Extractor, entries, get_extractor, unlearnable
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.evaluation.pretrained import PRETRAINED, load_pretrained, packaged
from diffusion_jax.evaluation.references import Statistics, read_statistics
from diffusion_jax.evaluation.sound_extractor import NAME as MEL
from diffusion_jax.evaluation.sound_extractor import mel_statistics
from diffusion_jax.evaluation.sound_measures import Sounds
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, weights_path
from diffusion_jax.system.files import path_of

OWN, JUDGE, ENTRIES = "classifier", "judge", "entries"
EXTRACTORS = (OWN, JUDGE, ENTRIES, MEL, *PRETRAINED)
PACKAGED = tuple(name for name, net in PRETRAINED.items() if net.package)


def weights_file(config: Config) -> Path | None:
    """Weights of the selected extractor; None for one that is trained on the data."""
    name, given = config.evaluate.extractor, config.evaluate.weights
    check_known(name, EXTRACTORS, "evaluate.extractor")
    if name == JUDGE and not config.evaluate.names.judge:
        raise ConfigError(
            f"evaluate.extractor={JUDGE!r} needs evaluate.names.judge, the folder of a run that "
            "trained one"
        )
    if name not in PRETRAINED:
        if given:
            raise ConfigError(
                f"evaluate.weights={given} has no effect with evaluate.extractor={name!r}; it is "
                f"for {', '.join(PRETRAINED)}"
            )
        return None
    net = PRETRAINED[name]
    return weights_path(config, "evaluate.extractor", packaged(net), net.file, net.package)


def statistics_of(config: Config) -> Statistics | None:
    """Moments of another reference set, if one is given.

    Raises:
        DataError: the file is unusable; one sentence says why.
    """
    file = config.evaluate.reference
    return read_statistics(path_of(file)) if file else None


def check_extractor(config: Config, dataset: Dataset) -> str:
    """Why there is no extractor (the data set's own classifier could not learn), or ''.

    Raises:
        ConfigError: as for `weights_file`, or the extractor does not apply to such data.
    """
    path, name, kind = weights_file(config), config.evaluate.extractor, dataset.kind
    if name in (ENTRIES, JUDGE):
        return ""
    heard = isinstance(kind, Sounds)
    if name == MEL:
        if not heard:
            raise ConfigError(f"evaluate.extractor={MEL!r} needs sounds, not {kind.words}")
        return ""
    if len(kind.view.shape if path is None else kind.shape) != 3:
        raise ConfigError(
            f"evaluate.extractor={name!r} needs images, and {dataset.name} has {kind.words}: "
            f"use evaluate.extractor={MEL if heard else ENTRIES!r}, or leave 'distances' out of "
            "evaluate.metrics"
        )
    if path is None:
        why = unlearnable(dataset)
        others = MEL if heard else " or ".join((ENTRIES, *PACKAGED))
        return why and f"{why}; evaluate.extractor={others} needs none"
    if kind.shape[-1] not in (1, 3):
        raise ConfigError(
            f"evaluate.extractor={name!r} needs images of 1 or 3 channels; those of "
            f"{dataset.name} have {kind.shape[-1]}"
        )
    return ""


def make_extractor(
    config: Config,
    dataset: Dataset,
    cache: Path,
    say: Callable[[str], None],
    judge: Judge | None = None,
) -> Extractor | str:
    """The selected extractor, or why there is none.

    Raises:
        ConfigError: as for `check_extractor`.
        WeightsError: the file holds other weights.
    """
    if why := check_extractor(config, dataset):
        return why
    path, name = weights_file(config), config.evaluate.extractor
    if name == ENTRIES:
        return entries(dataset.kind)
    if judge and name == JUDGE:
        return judge.extractor
    if path is not None:
        return load_pretrained(name, path)
    found = mel_statistics(dataset.kind) if name == MEL else get_extractor(dataset, cache, say)
    if level := config.data.loudness:
        words = f"{found.preprocessing}; recordings at {level:g} dB"
        return dataclasses.replace(found, preprocessing=words)
    return found
