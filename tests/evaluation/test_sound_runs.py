"""Runs that restore recordings: by a network that is given them, and by posterior methods."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_jax import from_config, run
from diffusion_jax.data import Dataset
from diffusion_jax.from_config import ConfigError, build
from tests.runs import random_dataset, tiny
from tests.sounds import recordings

OWN = {
    "model__dit__patch_size": 8,
    "train__steps": 2,
    "train__checkpoint_every": 2,
    "sample__num_images": 2,
    "evaluate__metrics": "restored",
    "evaluate__restored__measures": "snr,si_sdr_uncentred,lsd",
}


@pytest.fixture
def sounds(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    dataset = recordings(576, 6)
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: dataset)
    return dataset


def result_of(folder: Path, **changes: Any) -> Any:
    assert run.run(tiny(**{**OWN, **changes}), folder, "all") == 0
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_a_network_that_is_given_noisy_recordings_is_measured(
    sounds: Dataset, tmp_path: Path
) -> None:
    given = {"image_condition__name": "noisy", "evaluate__restored__samples": 2}
    result = result_of(tmp_path / "run", **given)
    for name in ("restored_snr", "gain_lsd", "mse_left", "gain_snr_below_0db"):
        assert {"value", "low", "high", "n"} <= result[name].keys()
    assert -5 <= result["given_snr"]["value"] <= 20
    assert result["restored_snr"]["passport"]["restored"]["by"] == "condition"
    assert (tmp_path / "run/samples/restored.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "method"),
    [("band", "ddrm"), ("decimate", "pigdm"), ("gap", "ddnm"), ("clipping", "dps"),
     ("reverberation", "mmps")],
)  # fmt: skip
def test_posterior_methods_restore_sounds_through_the_operators(
    sounds: Dataset, tmp_path: Path, operator: str, method: str
) -> None:
    asked = {
        "evaluate__restored__by": "restore",
        "restore__operator": operator,
        "restore__method": method,
        "restore__sigma": 0.01,
    }
    result = result_of(tmp_path / "run", **asked)
    assert result["restored_snr"]["value"] is not None
    assert 0 < result["given_snr"]["value"] < 60 or operator == "reverberation"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_condition__name": "noisy"}, "'noisy' is for sounds, and these data are images"),
        ({"image_condition__name": "noisy", "image_condition__noisy__noises": ("hum",)},
         r"image_condition\.noisy\.noises='hum' is not known"),
        ({"image_condition__name": "noisy", "image_condition__noisy__noises": ()},
         r"image_condition\.noisy\.noises=\(\) must be names of noises, one at least"),
    ],
)  # fmt: skip
def test_conditions_of_sounds_that_cannot_be_are_refused(
    changes: dict[str, Any], says: str
) -> None:
    dataset = recordings() if "hum" in str(changes) else random_dataset()
    with pytest.raises(ConfigError, match=says):
        build(tiny(**changes), dataset)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"operator": "decimate", "decimate__factor": 5}, r"restore\.decimate\.factor=5 must div"),
        ({"operator": "bend"}, r"restore\.operator='bend' is not known: did you mean"),
        ({"operator": "band", "method": "twisted"}, "'twisted' has particles"),
    ],
)
def test_operators_that_do_not_fit_are_refused_before_training(
    changes: dict[str, Any], says: str
) -> None:
    own = {f"restore__{key}": value for key, value in changes.items()}
    asked = {**OWN, "evaluate__restored__by": "restore", **own}
    with pytest.raises(ConfigError, match=says):
        build(tiny(**asked), recordings(576))
