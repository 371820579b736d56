"""A run with a text-conditional network: training, prompts, and refusals."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import run
from diffusion_jax.data import train_batches
from diffusion_jax.types import Batch
from tests.runs import COLOURS, captioned_dataset, run_texts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("text") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert run_texts(patch, workdir, "all", captioned_dataset()) == 0
    return workdir


def batches(seed: int = 3, **more: Any) -> Any:
    embed = lambda ids: {"ids": ids}  # noqa: E731
    return train_batches(
        captioned_dataset(), batch_size=16, seed=seed, embed=embed, prefetch=0, **more
    )


def test_a_batch_has_a_text_of_each_of_its_images_and_the_same_images_as_without() -> None:
    plain = train_batches(captioned_dataset(), batch_size=16, seed=3, prefetch=0)
    texts, seen = captioned_dataset().splits["train"].captions.texts, set()
    for batch, without, _ in zip(batches(), plain, range(10), strict=False):
        np.testing.assert_array_equal(batch["x"], without["x"])
        assert without["cond"] == {}
        for x, text in zip(batch["x"], batch["cond"]["ids"], strict=True):
            assert COLOURS[texts[text].split()[0]] == round((x[0, 0, 0] + 1) * 127.5)
            seen.add(texts[text])
    assert seen == set(texts)


def test_texts_are_drawn_by_place_whatever_came_before_and_however_many_share() -> None:
    def ids(stream: Any, num: int) -> list[Batch]:
        return [next(stream)["cond"]["ids"] for _ in range(num)]

    stream = batches()
    whole = np.concatenate(ids(stream, 6))
    state = stream.get_state()
    rest = ids(stream, 2)
    stream.set_state(state)
    np.testing.assert_array_equal(ids(stream, 2), rest)
    halves = [batches(process_index=i, process_count=2) for i in range(2)]
    shared = [np.concatenate(pair) for pair in zip(*(ids(half, 3) for half in halves), strict=True)]
    np.testing.assert_array_equal(np.concatenate(shared), whole)
    assert not np.array_equal(np.concatenate(ids(batches(seed=4), 6)), whole)


def test_a_run_draws_and_measures_held_out_names(trained: Path) -> None:
    made_by = json.loads(Image.open(trained / "samples/images/000004.png").info["made_by"])
    assert made_by["prompt"] == "white"  # the second of three names, in turn
    assert made_by["prompts"] == "names of held-out images"
    assert made_by["text"].startswith("bytes")
    result = json.loads((trained / "result.json").read_text())
    assert "denoising_gap_t0.50" in result
    width = Image.open(trained / "samples/grid.png").width
    assert width > 190 + 2 * 48  # captions, and two of each name


def images(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(p)) for p in sorted(folder.glob("samples/images/*"))])


def test_prompts_and_what_guides_reach_the_samples(
    trained: Path, monkeypatch: Any, capsys: Any
) -> None:
    prompts = {"sample__prompts": ("black", "white"), "sample__guidance_scale": 2.0}
    found = []
    for more in (
        {"sample__strip": 48},
        {"sample__negative": "grey", "sample__strip": 4},
        {"sample__compose": (("grey", 1.0),)},
        {"sample__prompts": ("", "white")},
    ):
        assert (
            run_texts(monkeypatch, trained, "sample", captioned_dataset(), **{**prompts, **more})
            == 0
        )
        found.append(images(trained))
        if "sample__strip" in more:  # of 4 steps
            num = min(more["sample__strip"], 5)
            assert Image.open(trained / "samples/trajectory.png").width == 1 + num * 49
            said = "sample.strip=48: from noise to result there are 5 states"
            assert (said in capsys.readouterr().err) == (num == 5)
    black, white = found[0][::2].mean(), found[0][1::2].mean()
    assert black < 80 < 176 < white, (black, white)
    for other in found[1:]:
        assert not np.array_equal(found[0], other)
    np.testing.assert_array_equal(found[3][1::2], found[0][1::2])  # each by its own prompt
    assert not np.array_equal(found[3][::2], found[0][::2])


@pytest.mark.parametrize(
    ("changes", "captions", "says"),
    [
        ({"text__name": "none", "sample__prompts": ("a " * 5000,)}, True, "sample.prompts=.{,80} "
         "needs a network with a text input"),
        ({"text__name": "none", "sample__negative": "a", "sample__guidance_scale": 2.0}, True,
         "sample.negative=a needs a network with a text input"),
        ({}, False, "text.name='bytes' needs captions, and data.name='colours' has none"),
        ({"sample__negative": "grey"}, True, "sample.negative='grey' needs guidance"),
        ({"model__name": "dual_encoder"}, True,
         "'gaussian' does not support model.name='dual_encoder'"),
        ({"evaluate__metrics": "names"}, True,
         "evaluate.metrics: 'names' needs evaluate.names.judge, the folder"),
        ({"evaluate__metrics": "names", "evaluate__names__judge": "x",
          "image_condition__name": "masked"}, True,
         "evaluate.metrics: 'names' needs images sampled from names alone, not image_con"),
        ({"image_condition__residual": True}, True,
         "image_condition.residual=True needs an image condition: image_condition.name='none'"),
        ({"evaluate__metrics": "name"}, True, "evaluate.metrics='name' is not known: did you"),
        ({"evaluate__names__judge": "nowhere"}, True, "names.judge='nowhere': there is no run in"),
        ({"model__name": "dual_encoder", "objective__name": "contrastive", "text__name": "none"},
         True, "model.name='dual_encoder' needs texts"),
        ({"text__name": "byte"}, True, "text.name='byte' is not known: did you mean 'bytes'"),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: Any, capsys: Any, changes: Any, captions: bool, says: str
) -> None:
    assert (
        run_texts(monkeypatch, tmp_path / "run", "train", captioned_dataset(captions), **changes)
        == 2
    )
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "  ", "x" * 10_000, "😀👩‍🚀 café", "مرحبا بالعالم"])
def test_any_text_is_drawn(trained: Path, monkeypatch: Any, capsys: Any, text: str) -> None:
    changes = {"sample__prompts": (text,), "sample__num_images": 1}
    assert run_texts(monkeypatch, trained, "sample", captioned_dataset(), **changes) == 0
    made_by = json.loads(Image.open(trained / "samples/images/000000.png").info["made_by"])
    assert made_by["prompt"] == text
    said = "warning: 'xxx" in capsys.readouterr().err
    assert said == (len(text) > 1000)


JUDGE = {
    "objective__name": "contrastive",
    "model__name": "dual_encoder",
    "model__dual_encoder": {"width": 8, "channels": 4, "features": 8, "dropout": 0.0},
    "train__steps": 100,
    "train__checkpoint_every": 100,
    "train__heldout_every": 100,
    "evaluate__metrics": "names",
}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("judge") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert run_texts(patch, workdir, "all", captioned_dataset(), **JUDGE) == 0
        assert run_texts(patch, workdir, "sample", captioned_dataset(), **JUDGE) == 2
    return workdir


def test_a_dual_encoder_is_trained_by_the_same_loop_and_finds_names(judge: Path) -> None:
    rows = [json.loads(line) for line in (judge / "metrics.jsonl").read_text().splitlines()]
    assert {"heldout/loss", "heldout/accuracy"} <= {key for row in rows for key in row}
    result = json.loads((judge / "result.json").read_text())
    for split, kind in (("train", "seen in training"), ("test", "unseen pictures, of names")):
        assert result[f"top1_{split}_real"]["value"] == 1
        assert result[f"top1_{split}_real"]["passport"]["kind"].startswith(kind)
    report = judge / "report.md"
    written = report.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        assert run_texts(patch, judge, "all", captioned_dataset(), **JUDGE) == 0
    assert report.stat().st_mtime_ns == written  # nothing is measured twice
    page = report.read_text()
    assert "| seen in training (`train`) | 33.3%, 100.0% | **100.00%**" in page
    assert "sampling" not in page


def test_a_judge_measures_samples_and_leads_a_model_that_is_told_nothing(
    trained: Path, judge: Path, monkeypatch: Any
) -> None:
    by = {"evaluate__names__judge": str(judge), "evaluate__extractor": "judge"}
    by |= {"evaluate__metrics": "distances,names"}
    assert run_texts(monkeypatch, trained, "evaluate", captioned_dataset(), **by) == 0
    result = json.loads((trained / "result.json").read_text())
    assert result["top1_test"]["value"] == 1
    assert result["fd_colours_clip"]["n"] == 16
    assert "samples/names_test.png" in (trained / "report.md").read_text()

    def brightness(scale: float) -> np.ndarray:
        changes = {
            "sample__prompts": ("black", "white"),
            "sample__guidance_scale": 0.0,  # the conditioning leaves no trace
            "sample__guidance__likeness": {"judge": str(judge), "scale": scale, "max_norm": 0.0},
        }
        assert run_texts(monkeypatch, trained, "sample", captioned_dataset(), **changes) == 0
        return images(trained).mean((1, 2))

    plain, led = brightness(0.0), brightness(3.0)
    assert led[::2].mean() < plain[::2].mean() - 20
    assert led[1::2].mean() > plain[1::2].mean() + 20


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample__guidance__likeness__judge": "nowhere"}, "judge='nowhere': there is no run in"),
        ({"sample__guidance__likeness__judge": "itself"}, "it is no dual encoder"),
        ({"evaluate__extractor": "judge"}, "evaluate.extractor='judge' needs evaluate.names.judge"),
    ],
)
def test_judges_that_cannot_be_are_refused(
    trained: Path, monkeypatch: Any, capsys: Any, changes: Any, says: str
) -> None:
    changes = {key: str(trained) if v == "itself" else v for key, v in changes.items()}
    assert run_texts(monkeypatch, trained, "sample", captioned_dataset(), **changes) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("split", ["", "nowhere"])
def test_a_split_of_names_that_is_not_there_is_refused_before_anything_is_drawn(
    trained: Path, judge: Path, monkeypatch: Any, capsys: Any, split: str
) -> None:
    monkeypatch.setattr(run.evaluation, "samples", None)
    names = {"evaluate__names__judge": str(judge), "evaluate__names__splits": (split,)}
    names |= {"evaluate__metrics": "distances,names"}
    assert run_texts(monkeypatch, trained, "evaluate", captioned_dataset(), **names) == 2
    assert f"evaluate.names.splits: data.heldout_split={split!r} is" in capsys.readouterr().err
