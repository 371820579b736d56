"""A classifier is trained, and guides samples of tokens that come with their weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.from_config import ConfigError
from tests.from_config.test_token_tasks import config_of
from tests.runs import random_texts

pytestmark = pytest.mark.slow

GUIDED = {
    "train.steps": 4,
    "train.checkpoint_every": 4,
    "sample.steps": 8,
    "sample.num_images": 8,
    "sample.batch_size": 8,
    "sample.labels": "none",
    "evaluate.metrics": "bits",
    "evaluate.bits.num_texts": 8,
    "evaluate.bits.levels": 2,
}
OTHER = {"data.length": 4}  # of which data have another length here


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = lambda *a, length=0, **k: random_texts(length or 8, 5)  # noqa: E731
    monkeypatch.setattr(from_config.data, "load_dataset", data)


def run_of(workdir: Path, mode: str, of: str = "masked", **changes: Any) -> int:
    config = config_of(of)
    metrics = {"evaluate.metrics": "classes"} if of == "classified" else {}
    config.update_from_flattened_dict({**GUIDED, **metrics, **changes})
    return run.run(config, workdir, mode)


@pytest.mark.usefixtures("texts")
def test_from_a_trained_classifier_to_weighted_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, model, short = (tmp_path / name for name in ("judge", "model", "short"))
    assert run_of(judge, "all", "classified") == 0
    assert "class_accuracy_t0.50" in json.loads((judge / "result.json").read_text())
    assert run_of(judge, "sample", "classified") == 2
    assert "tells the classes of texts and draws none" in capsys.readouterr().err
    assert run_of(short, "train", "classified", **OTHER) == 0
    assert run_of(model, "all") == 0

    by = {"sample.guidance.classifier.judge": f"{judge}@4"}
    samples = model / "samples/images/samples.md"
    assert run_of(model, "sample", **by, **{"sample.guidance.classifier.scale": 50.0}) == 0
    guided = samples.read_text()
    assert "at step 4, EMA" in guided
    assert "weight" not in guided

    steered = {"sample.particles.size": 4, "sample.unmasking.cached": False}
    for words in ({"sample.guidance.magnet.words": ("# ", "!")}, {}):
        assert run_of(model, "sample", **by, **steered, **words) == 0
        assert "the samples are weighted, and worth" in capsys.readouterr().out
        lines = samples.read_text().splitlines()
        weights = [json.loads(line)["weight"] for line in lines if line.startswith('{"weight"')]
        assert len(weights) == 8
        assert sum(weights) == pytest.approx(1)
        common = json.loads("\n".join(lines[3 : lines.index("```", 3)]))
        assert common["effective_size"] == pytest.approx(1 / np.sum(np.square(weights)))
        assert common["particles"] == "particles(resample_below=0.5, size=4)"
        assert ("words=('# ', '!')" in common["guidance"]) == bool(words)

    for changes, says in (
        ({"sample.guidance.classifier.judge": str(model)}, "it is no classifier"),
        ({"sample.guidance.classifier.judge": str(short)}, "texts of 4 characters), not of noise"),
        ({"sample.guidance.classifier.judge": "nowhere"}, "there is no run in"),
        ({"sample.guidance.classifier.judge": f"{judge}@x"}, "'x' is not the step"),
        ({**by, "sample.guidance.classifier.label": 3}, "label=3 must be one of 0 (0), 1 (1), 2"),
    ):
        assert run_of(model, "sample", **changes) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    noisy = tmp_path / "noisy"
    uniform = {"sample.sampler": "replacement", **by}
    assert run_of(noisy, "train", "replaced", **uniform) == 2
    assert "tokens that are masked, and here they are replaced" in capsys.readouterr().err
    uncached = {"sample.unmasking.cached": False, **by}
    assert run_of(noisy, "train", "masked_by_token", **uncached) == 2
    assert "earlier than others, which no classifier is trained for" in capsys.readouterr().err
    texts = {"evaluate.metrics": "texts", "sample.guidance.magnet.words": ("!",)}
    assert run_of(model, "all", **steered, **texts) == 2
    assert "'texts' measures samples without weights" in capsys.readouterr().err

    guidance = {"magnet": {"words": ("!",)}}
    more = {"particles": {"size": 4}, "unmasking": {"cached": False}}
    weighted = run.open_run(model, guidance=guidance, **more)
    with pytest.raises(ConfigError, match="particles are samples only with their weights"):
        weighted.draw(4)
    found = weighted.drawn(0, np.arange(8), {"label": np.full(8, -1)})
    assert found.log_weights is not None
    assert found.log_weights.shape == (8,)
    assert run.open_run(model).drawn(0, np.arange(2), {}).log_weights is None
