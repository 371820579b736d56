"""Identity of a workdir: settings that may change, and damaged files."""

import json
from pathlib import Path

import pytest

from diffusion_jax.data import Dataset, Record
from diffusion_jax.from_config import ConfigError, config_hash
from diffusion_jax.from_config.identity import (
    Identity,
    check_data,
    check_workdir,
    folder_and_step,
    write_config,
    write_identity,
)
from tests.runs import random_dataset, tiny

DAMAGED = ["", "{", '{"config": {"seed": 0', "[]", "null", "\0\1\2", '{"config": 3}', "\udcff"]


def write(workdir: Path, config: object, dataset: Dataset) -> None:
    workdir.mkdir(exist_ok=True)
    write_config(config, workdir)
    write_identity(Identity(config_hash(config), Record.of(dataset), []), workdir)


@pytest.mark.parametrize(
    ("key", "value", "may"),
    [
        ("optimizer.learning_rate", 0.5, False),
        ("data.caption_key", "text", False),
        ("train.accumulate", 2, False),
        ("model.dtype", "bfloat16", False),
        ("train.checkpoint_every", 1, True),
        ("ema.snapshot_every", 7, True),
        ("data.num_workers", 2, True),
        ("data.prefetch", 2, True),
        ("data.allow_changes", True, True),
        ("model.dit.remat", "full", True),
        ("model.dit.unroll", 2, True),
        ("train.steps", 7, True),
    ],
)
def test_what_does_not_change_the_training_may_change(
    key: str, value: object, may: bool, tmp_path: Path
) -> None:
    constant = {"optimizer.decay": "constant"}
    write_config(tiny(**constant), tmp_path)
    changed = tiny(**constant, **{key: value})
    assert (config_hash(changed) == config_hash(tiny(**constant))) == may
    if may:
        check_workdir(changed, tmp_path)
    else:
        with pytest.raises(ConfigError, match=rf"{key}=.* \(there: "):
            check_workdir(changed, tmp_path)


@pytest.mark.parametrize(
    ("decays", "named"),
    [
        ({"optimizer.decay": "linear"}, "optimizer.decay='linear'"),
        ({"optimizer.decay": "cosine"}, "optimizer.decay='cosine'"),
        (
            {"optimizer.decay": "constant", "optimizer.groups": {"out": {"decay": "linear"}}},
            "optimizer.groups.out.decay='linear'",
        ),
    ],
)
def test_where_the_learning_rate_decays_another_length_is_refused(
    decays: dict, named: str, tmp_path: Path
) -> None:
    write_config(tiny(**decays, **{"train.steps": 20}), tmp_path)
    for steps in (10, 40):
        changed = tiny(**decays, **{"train.steps": steps})
        with pytest.raises(ConfigError) as error:
            check_workdir(changed, tmp_path)
        said = f"train.steps=20, at which its learning rate reaches 0 ({named}): train.steps="
        assert f"{said}{steps} is" in str(error.value)
        assert f"--config.train.init_from={tmp_path}" in str(error.value)
        changed.seed = 1
        with pytest.raises(
            ConfigError, match=r"seed=1 \(there: 0\), train\.steps=.*Choose another"
        ):
            check_workdir(changed, tmp_path)


def test_another_decay_is_named_without_the_steps_that_are_the_same(tmp_path: Path) -> None:
    write_config(tiny(), tmp_path)
    with pytest.raises(ConfigError) as error:
        check_workdir(tiny(**{"optimizer.decay": "constant"}), tmp_path)
    assert "config: optimizer.decay='constant' (there: 'cosine'). Choose" in str(error.value)


def test_a_config_of_before_a_key_was_made_is_the_same_where_it_is_off(tmp_path: Path) -> None:
    write_config(tiny(), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for group, key in (("train", "init_from"), ("data", "allow_changes"), ("objective", "huber")):
        del saved["config"][group][key]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    check_workdir(tiny(), tmp_path)
    with pytest.raises(ConfigError, match=r"objective.huber=0.5 \(there: None\)"):
        check_workdir(tiny(**{"objective.huber": 0.5}), tmp_path)


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_config_is_written_again_where_it_is_known_to_be_this_one(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path, tiny(), random_dataset())
    whole = (tmp_path / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(damaged.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="it is not known whether it was of this config") as error:
        check_workdir(tiny(seed=1), tmp_path)
    assert "\n" not in str(error.value)
    check_workdir(tiny(), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == whole
    assert "config.json is damaged: written again" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "identity.json").unlink()
    with pytest.raises(ConfigError, match="delete that file, and training writes it again"):
        check_workdir(tiny(), tmp_path)


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_identity_is_said_once_and_tells_nothing(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path, tiny(), random_dataset(num_classes=3))
    path = tmp_path / "identity.json"
    path.write_bytes(damaged.encode(errors="surrogateescape"))
    for _ in range(2):
        assert Identity.read(tmp_path) is None
        assert check_data(tiny(), random_dataset(), tmp_path) == []
    said = f"warning: {path} is damaged: it is written again by the next training\n"
    assert capsys.readouterr().err == said


def test_changed_data_are_refused_unless_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path, tiny(), random_dataset())
    assert check_data(tiny(), random_dataset(), tmp_path) == []
    others = Record.of(random_dataset())
    others = Identity("", Record(**{**vars(others), "fingerprint": "other"}), [])
    write_identity(others, tmp_path)
    with pytest.raises(
        ConfigError, match=r"names\. To continue anyway, set --config\.data\.allow_ch"
    ):
        check_data(tiny(), random_dataset(), tmp_path)
    changed = check_data(tiny(**{"data.allow_changes": True}), random_dataset(), tmp_path)
    assert changed == ["as many images as before, with other contents or names"]
    assert "warning: the data of " in capsys.readouterr().err
    write(tmp_path, tiny(), random_dataset(num_classes=9))
    with pytest.raises(ConfigError, match=r"new: class '9'.* --mode sample still works"):
        check_data(tiny(**{"data.allow_changes": True}), random_dataset(), tmp_path)


def test_folders_and_steps() -> None:
    assert folder_and_step("", "k") == ("", -1)
    assert folder_and_step("@7", "k") == ("", 7)
    assert folder_and_step("runs/a", "k") == ("runs/a", -1)
    assert folder_and_step("runs/a@12", "k") == ("runs/a", 12)
    with pytest.raises(ConfigError, match="k='a@-3': '-3' is not the step of a checkpoint"):
        folder_and_step("a@-3", "k")
