"""What pictures are compared by, from `evaluate.extractor` and `evaluate.weights`."""

from collections.abc import Callable
from pathlib import Path

from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.extractor import Extractor, entries, get_extractor
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.evaluation.pretrained import PRETRAINED, load_pretrained, packaged
from diffusion_jax.evaluation.references import Statistics, read_statistics
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, weights_path
from diffusion_jax.system.files import path_of

OWN, JUDGE, ENTRIES = "classifier", "judge", "entries"
EXTRACTORS = (OWN, JUDGE, ENTRIES, *PRETRAINED)


def weights_file(config: Config) -> Path | None:
    """The file of the weights of the extractor asked for; None for what is trained on the data."""
    name, given = config.evaluate.extractor, config.evaluate.weights
    check_known(name, EXTRACTORS, "evaluate.extractor")
    if name == JUDGE and not config.evaluate.names.judge:
        raise ConfigError(f"evaluate.extractor={JUDGE!r} needs evaluate.names.judge, its folder")
    if name not in PRETRAINED:
        if given:
            raise ConfigError(
                f"evaluate.weights={given} is of no use to evaluate.extractor={name!r}, which has "
                f"none of its own; others are {', '.join(PRETRAINED)}"
            )
        return None
    net = PRETRAINED[name]
    return weights_path(config, "evaluate.extractor", packaged(net), net.file, net.package)


def statistics_of(config: Config) -> Statistics | None:
    """Moments of another reference set, if one is asked for.

    Raises:
        DataError: one sentence on what is wrong with the file.
    """
    file = config.evaluate.reference
    return read_statistics(path_of(file)) if file else None


def make_extractor(
    config: Config,
    dataset: Dataset,
    cache: Path,
    say: Callable[[str], None],
    judge: Judge | None = None,
) -> Extractor | None:
    """The extractor asked for; None is the own classifier of data without classes.

    Raises:
        ConfigError: as for `weights_file`, or it cannot look at such data.
        WeightsError: the file holds other weights.
    """
    path, name, kind = weights_file(config), config.evaluate.extractor, dataset.kind
    if name == ENTRIES:
        return entries(kind)
    if judge and name == JUDGE:
        return judge.extractor
    if len(kind.shape) != 3:
        raise ConfigError(
            f"evaluate.extractor={name!r} looks at images, and {dataset.name} has {kind.words}: "
            f"use evaluate.extractor={ENTRIES!r}, or leave 'distances' out of evaluate.metrics"
        )
    if path is None:
        return get_extractor(dataset, cache, say) if dataset.num_classes else None
    if kind.shape[-1] not in (1, 3):
        raise ConfigError(
            f"evaluate.extractor={name!r} looks at images of 1 or 3 channels; those of "
            f"{dataset.name} have {kind.shape[-1]}"
        )
    return load_pretrained(name, path)
