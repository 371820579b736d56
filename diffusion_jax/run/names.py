"""How well pictures fit their names: of what was seen in training, and of what was not."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data import Captions, DataError, Source
from diffusion_jax.evaluation.evaluate import Result
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.from_config import Config, ConfigError, split_dataset
from diffusion_jax.metrics.retrieval import TOP, text_estimates
from diffusion_jax.report.pictures import captioned, save_png
from diffusion_jax.run.job import Job
from diffusion_jax.system.devices import is_main

SHOWN = 16
"""Names of a split whose real picture and sample are shown."""


class Names(NamedTuple):
    """Names of one split, one of each concept, with a picture that has it.

    Attributes:
        split: where they are from.
        kind: what training has seen of them, in words.
        texts: N of them.
        images: uint8 `[N, H, W, C]`.
    """

    split: str
    kind: str
    texts: list[str]
    images: np.ndarray


def names_asked(settings: Config) -> dict[str, Any]:
    """The group `evaluate.names` as JSON has it, for passports."""
    return {"names": {**settings.to_dict(), "splits": list(settings.splits)}}


def names_of(job: Job) -> list[Names]:
    """Names of training images, of held-out ones and of other splits: as many of each.

    Raises:
        ConfigError: the data has no captions, or not these splits.
    """
    dataset, settings = job.parts.dataset, job.config.evaluate.names
    if dataset.train_captions is None:
        raise ConfigError(f"evaluate.names: data.name={dataset.name!r} has no captions")
    splits = [("train", dataset.train, dataset.train_captions)]
    if dataset.heldout_captions is not None and len(dataset.heldout):
        splits.append((job.config.data.heldout_split, dataset.heldout, dataset.heldout_captions))
    for split in settings.splits:
        try:
            other = split_dataset(job.config, split)
        except DataError as error:
            raise ConfigError(f"evaluate.names.splits: {error}") from None
        assert other.heldout_captions is not None
        splits.append((split, other.heldout, other.heldout_captions))
    chosen = [_one_of_each(captions) for _, _, captions in splits]
    num = min(settings.num, *map(len, chosen))
    known = set(dataset.train_captions.texts), set(_concepts(dataset.train_captions))
    return [
        _names(split, source, captions, rows[:num], *known)
        for (split, source, captions), rows in zip(splits, chosen, strict=True)
    ]


def _names(
    split: str,
    source: Source,
    captions: Captions,
    rows: np.ndarray,
    known: set[str],
    seen: set[str],
) -> Names:
    """Of images `rows`, where texts are `known` and concepts `seen` from training."""
    texts = [captions.texts[number] for number in captions.first(rows)]
    concepts = _concepts(captions)
    share = float(np.mean([concepts[row] in seen for row in rows]))
    if split == "train":
        kind = "seen in training"
    elif known.issuperset(texts):
        kind = "unseen pictures, of names seen in training"
    elif share in (0, 1):
        kind = "unseen combinations of seen concepts" if share else "unseen concepts"
    else:
        kind = f"held out, {share:.0%} of the concepts seen"
    return Names(split, kind, texts, source.gather(rows)[0])


def _concepts(captions: Captions) -> list[str]:
    """What each image shows; where that is not known, its name."""
    rows = np.arange(len(captions))
    return list(captions.concepts) or [captions.texts[i] for i in captions.first(rows)]


def _one_of_each(captions: Captions) -> np.ndarray:
    """The first image of each concept, in random order."""
    first = np.unique(_concepts(captions), return_index=True)[1]
    rows: np.ndarray = np.random.default_rng(0).permutation(first)
    return rows


def measure_names(
    job: Job, judge: Judge, splits: Sequence[Names], params: Any, passport: Mapping[str, Any]
) -> Result:
    """Retrieval and CLIP score of real pictures, and of a sample for each name.

    Args:
        job: the run; if its network draws nothing, there are real pictures alone.
        judge: of the likeness.
        splits: what to draw, as `names_of` has it.
        params: of the job's network.
        passport: how samples are made.

    Returns:
        `top1_SPLIT`, `top5_SPLIT` and `clip_score_SPLIT`, and the same with `_real`.
    """
    result: Result = {}
    folder = job.workdir / "samples"
    for number, names in enumerate(splits):
        num, texts = len(names.texts), judge.texts(names.texts)
        of = {
            **{"judge": judge.words, "split": names.split, "kind": names.kind, "num_names": num},
            "chance": {f"top{k}": min(k / num, 1.0) for k in TOP},
        }
        pictures = {"_real": names.images}
        if job.parts.draws:
            index = number * num + np.arange(num)
            cond = job.conditions.read(names.texts)
            pictures[""] = job.draw(params, job.config.evaluate.seed, index, cond)[0]
            pairs = np.stack([names.images, pictures[""]], 1)[:SHOWN]
            sheet = captioned(pairs.reshape(-1, *pairs.shape[2:]), names.texts[:SHOWN], 2)
            if is_main():
                save_png(folder / f"names_{names.split}.png", sheet, {**passport, **of})
        for suffix, images in pictures.items():
            for name, value in text_estimates(judge.images(images), texts).items():
                result[f"{name}_{names.split}{suffix}"] = {
                    **value._asdict(), "n": num, "passport": {**passport, **of}
                }  # fmt: skip
    return result
