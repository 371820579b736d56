"""How well samples match their names: for concepts seen in training, and for unseen ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data import Captions, Split
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.evaluation.model import Evaluator, Model, Result, entry
from diffusion_jax.metrics.intervals import too_few
from diffusion_jax.metrics.retrieval import LEAST, TOP, text_estimates

SHOWN = 16  # names of a split whose real image and sample are shown


class Names(NamedTuple):
    """Names of one split, one of each concept, each with an image of that name."""

    split: str  # of the data set
    kind: str  # which of them training has seen, in words
    texts: list[str]
    items: np.ndarray  # as stored, one for each text


def names_of(splits: Mapping[str, Split], num: int) -> list[Names]:
    """Up to `num` names of each split; the first split is that of the training items."""
    captions = [split.captions for split in splits.values() if split.captions is not None]
    rows = [  # the first item of each concept, in random order
        np.random.default_rng(0).permutation(np.unique(_concepts(each), return_index=True)[1])
        for each in captions
    ]
    num = min(num, *map(len, rows))
    known, seen = set(captions[0].texts), set(_concepts(captions[0]))
    found = []
    for number, (name, split) in enumerate(splits.items()):
        few = rows[number][:num]
        texts, concepts = split.names(few), _concepts(captions[number])
        share = float(np.mean([concepts[row] in seen for row in few]))
        if number == 0:
            kind = "seen in training"
        elif known.issuperset(texts):
            kind = "unseen pictures, of names seen in training"
        elif share in (0, 1):
            kind = "unseen combinations of seen concepts" if share else "unseen concepts"
        else:
            kind = f"held out, {share:.0%} of the concepts seen"
        found.append(Names(name, kind, texts, split.gather(few)[0]))
    return found


def _concepts(captions: Captions) -> list[str]:
    """The concept of each item; its name if that is not known."""
    rows = np.arange(len(captions))
    return list(captions.concepts) or [captions.texts[i] for i in captions.first(rows)]


class NamesFound(Evaluator):
    """Retrieval and CLIP score of real items and, if the model can sample, of a sample per name."""

    def __init__(self, judge: Judge, splits: Sequence[Names]) -> None:
        self._judge, self._splits = judge, splits
        caption = "Names from split {0.split} ({0.kind}): the real picture, then a sample"
        self.pictures = [(f"names_{each.split}.png", caption.format(each)) for each in splits]

    def __call__(self, model: Model) -> Result:
        """`top1_SPLIT`, `top5_SPLIT` and `clip_score_SPLIT`, and the same with `_real`."""
        result: Result = {}
        for number, names in enumerate(self._splits):
            num, texts = len(names.texts), self._judge.texts(names.texts)
            of: dict[str, Any] = {
                **{"judge": self._judge.words, "split": names.split, "kind": names.kind},
                "num_names": num,
                "chance": {f"top{k}": min(k / num, 1.0) for k in TOP},
            }
            items = {"_real": names.items}
            if model.generator:
                index = number * num + np.arange(num)
                items[""] = model.draw(index, model.read(names.texts))
                pairs = np.stack([names.items, items[""]], 1)[:SHOWN]
                pairs = pairs.reshape(-1, *pairs.shape[2:])
                sheet = model.dataset.kind.sheet(pairs, 2, names.texts[:SHOWN])
                model.show(self.pictures[number][0], sheet, **of)
            for suffix, looked_at in items.items():
                for name, value in text_estimates(self._judge.images(looked_at), texts).items():
                    why = too_few(("names", num, LEAST[name]))
                    made = entry(value or why, num, model.passport, **of)
                    result[f"{name}_{names.split}{suffix}"] = made
        return result
