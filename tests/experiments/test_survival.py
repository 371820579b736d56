"""Experiments on killed runs and wrong commands run small."""

from pathlib import Path

import pytest

from configs import digits
from diffusion_jax import run
from tests.experiments.common import experiment


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_survival(tmp_path: Path) -> None:
    """What is compared after the kills; `tests/run/test_kill.py` kills."""
    kill, config = experiment("survival/kill"), digits.get_config()
    assert run.run(config, tmp_path, "train") == 0
    found = kill.carried(config, tmp_path)
    kill.assert_same_bits(found, kill.carried(config, tmp_path))
    other = [*found[:-1], -found[-1]]
    with pytest.raises(AssertionError, match=r"1 of .* arrays differ"):
        kill.assert_same_bits(found, other)


def test_survival_in_stores(tmp_path: Path) -> None:
    """What needs no store; `tests/run/test_store_runs.py` has the rest."""
    stores, emulators = experiment("survival/stores"), experiment("survival/emulators")
    stores.make_data(tmp_path / "data")
    assert len(list((tmp_path / "data").glob("?/*.png"))) == stores.IMAGES
    ((returned, there),) = stores.time_checkpoints(tmp_path / "timed", 100, 1)
    assert 0 < returned <= there
    assert set(emulators.missing("s3")) <= {"s3fs", "moto", "flask"}


def test_mutated_commands(tmp_path: Path) -> None:
    """Every kind of them is made, the same by the same seed, and none is run."""
    mutate = experiment("faults/mutate")
    mutate.write_pictures(tmp_path / "pictures", 6, 2, mutate.random.Random(0))
    for name in ("run", "pictures_run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" * 10)
    for kind, _ in mutate.KINDS:
        found = []
        for _ in range(2):
            folder = tmp_path / "case"
            folder.mkdir()
            found.append(kind(mutate.random.Random(3), folder))
            mutate.shutil.rmtree(folder)
        assert found[0] == found[1]
        said, arguments = found[0]
        assert said
        assert arguments[0] == "--config"
    assert mutate.outcome(2, "warning: x\nerror: y\n") == "refused in one line"
    assert mutate.outcome(1, "Traceback (most recent call last):\n") == "stack trace"
    assert mutate.outcome(1, "what?\n") == "ended without a line"
