"""The quick start, small."""

from pathlib import Path
from typing import Any

import pytest

from configs import digits
from diffusion_jax import run
from tests.experiments.common import SMALL


@pytest.fixture
def small_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The quick start, with a small network and one step."""
    plain = digits.get_config

    def get_config() -> Any:
        config = plain()
        config.update_from_flattened_dict({**SMALL, "evaluate.num_samples": 20})
        return config

    monkeypatch.setattr(digits, "get_config", get_config)
    monkeypatch.setattr(run.evaluation, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr("diffusion_jax.evaluation.extractor.STEPS", 1)
