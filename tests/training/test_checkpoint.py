"""Checkpoints: which are kept, detection of damage, and full disks."""

import gc
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from diffusion_jax.training.checkpoint import METRIC, CheckpointError, Checkpoints
from diffusion_jax.training.manifest import MANIFEST, find_damage
from diffusion_jax.training.state import create_state

DAMAGES = 100
RESTORED = 10
"""Of the damages, so many are followed to the restored arrays."""


def state(step: int) -> tuple:
    """What training carries, of a network with two parameters."""
    params = {"w": jnp.full((64, 64), float(step)), "b": jnp.arange(5.0) * step}
    return create_state(params, optax.adam(0.1), ["exponential"])._replace(step=jnp.int32(step))


def save(folder: Path, steps: tuple[int, ...], **options: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(step, state(step), {"next_index": step})
    checkpoints.wait()
    return checkpoints


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"w": jnp.zeros((64, 32)), "b": jnp.zeros(5)},
            "params/w is of shape (64, 64), and here of shape (64, 32)",
        ),
        ({"w": jnp.zeros((64, 64))}, "/b is of shape (5,), and here there is none"),
        (
            {"w": jnp.zeros((64, 64)), "b": jnp.zeros(5), "c": jnp.zeros(5)},
            "params/c is not there, and here of shape (5,)",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_said_in_one_line(
    params: dict, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoints = save(tmp_path, (3,))
    other = create_state(params, optax.adam(0.1), ["exponential"])
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(other)
    assert "of step 3 in " in str(error.value)
    assert "is of another network or optimizer: " in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    gc.collect()
    assert "Traceback" not in capsys.readouterr().err


def assert_restored(folder: Path, step: int) -> None:
    found, data = Checkpoints(folder).restore(state(0))
    assert data == {"next_index": step}
    jax.tree.map(np.testing.assert_array_equal, found, state(step))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the steps 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    save(folder, (1, 2, 3))
    return folder


def damage(path: Path, rng: np.random.Generator) -> str:
    """Truncates, flips a bit of, or deletes a file."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "truncate", "delete"]) if data else "delete"
    if kind == "delete":
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(data[: rng.integers(len(data))])
    else:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
    return str(kind)


@pytest.mark.slow
def test_every_damage_is_noticed_and_the_newest_sound_one_is_used(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """At 100 random places of any file, the manifest among them.

    In 30 of them the two newest are damaged. All go as far as the choice of the step, which reads
    and hashes every file, and the removal of the damaged ones; a tenth also restores the arrays and
    saves that step again.
    """
    rng = np.random.default_rng(0)
    kinds = []
    for number in range(DAMAGES):
        folder = tmp_path / str(number)
        shutil.copytree(three, folder)
        steps = (3, 2) if number % 10 < 3 else (3,)
        names = {}
        for step in steps:
            files = sorted(p for p in (folder / str(step)).rglob("*") if p.is_file())
            # Every tenth damage is to the manifest, which is one file of twenty.
            path = folder / str(step) / MANIFEST if number % 10 == 9 else rng.choice(files)
            names[step] = path.relative_to(folder / str(step)).as_posix()
            kinds.append(damage(path, rng))
        sound = 3 - len(steps)
        checkpoints = Checkpoints(folder)
        assert checkpoints.latest() == sound, (names, kinds[-1])
        said = capsys.readouterr().err.splitlines()
        gone = [step for step in steps if not (folder / str(step) / MANIFEST).exists()]
        checkpoints.open()  # as training does
        said += capsys.readouterr().err.splitlines()
        assert sorted(said) == sorted(
            f"checkpoint of step {step} was not finished (no manifest): removed"
            if step in gone
            else f"checkpoint of step {step} is damaged (file {name}): going on from step {sound}"
            for step, name in names.items()
        )
        assert sorted(p.name for p in folder.iterdir()) == [str(s + 1) for s in range(sound)]
        if number % (DAMAGES // RESTORED) == 0:
            assert_restored(folder, sound)
            checkpoints.save(3, state(3), {"next_index": 3})
            checkpoints.wait()
            assert_restored(folder, 3)
        shutil.rmtree(folder)
    assert {"flip", "truncate", "delete"} == set(kinds)


def test_no_alarm_on_sound_checkpoints(three: Path, capsys: pytest.CaptureFixture) -> None:
    for step in (1, 2, 3):
        assert find_damage(three / str(step)) is None
    assert Checkpoints(three).latest() == 3
    assert_restored(three, 3)
    assert capsys.readouterr().err == ""


def test_a_damaged_checkpoint_that_was_asked_for_is_refused(three: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(three, tmp_path / "copy")
    (folder / "2/data/metadata").write_text("{}")
    with pytest.raises(CheckpointError, match=r"step 2 in .* is damaged .file data/metadata."):
        Checkpoints(folder).restore(state(0), 2)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 4 in .*: there are 1, 2, 3"):
        Checkpoints(folder).restore(state(0), 4)
    assert Checkpoints(folder).restore(state(0), 1)[1] == {"next_index": 1}
    for step in (1, 3):
        (folder / f"{step}/state/_METADATA").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is sound") as raised:
        Checkpoints(folder).restore(state(0))
    assert "\n" not in str(raised.value)


def test_which_checkpoints_are_kept(tmp_path: Path) -> None:
    """The last 2, the multiples of 30, the best 2; also over a restart, and never for no metric."""
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: 0.5, 50: float("nan"), 60: 4.0, 70: None, 80: 6.0}
    losses[90] = 7.0
    kept = []
    for step, loss in losses.items():
        if step in (10, 50):  # started anew
            checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=30, keep_best=2)
        metrics = {} if loss is None else {METRIC: loss, "other": 0.0}
        checkpoints.save(step, {"a": jnp.zeros(3)}, {}, metrics)
        checkpoints.wait()
        kept.append(checkpoints.steps())
    assert kept[2] == [20, 30]
    assert kept[4:] == [
        [20, 30, 40, 50],
        [20, 30, 40, 50, 60],
        [20, 30, 40, 60, 70],
        [20, 30, 40, 60, 70, 80],
        [20, 30, 40, 60, 80, 90],
    ]


def test_sampling_beside_a_training_run_touches_nothing(three: Path, tmp_path: Path) -> None:
    """Another process may be writing there."""
    folder = shutil.copytree(three, tmp_path / "copy")
    writing = folder / "5.orbax-checkpoint-tmp"
    writing.mkdir()
    shutil.copytree(three / "3", folder / "4")
    (folder / "4" / MANIFEST).unlink()
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == [1, 2, 3]
    assert checkpoints.restore(state(0))[1] == {"next_index": 3}
    assert writing.exists()
    assert (folder / "4").exists()
    # Who trains on removes what was not finished.
    checkpoints.save(4, state(4), {"next_index": 4})
    checkpoints.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]
    assert_restored(folder, 4)
    assert Checkpoints(tmp_path / "none").latest() is None
    assert not (tmp_path / "none").exists()


def test_restored_as_the_template_is_laid_out(tmp_path: Path) -> None:
    """Any pytree; what was saved in one layout comes back in another."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    tree = {"a": [jnp.arange(8.0)], "b": (np.float32(3.0), jnp.bfloat16(1.5), jnp.int32(7))}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, jax.device_put(tree, NamedSharding(mesh, PartitionSpec())), {"a": [1, "x"]})
    checkpoints.wait()
    wanted = jax.eval_shape(lambda: tree)
    wanted["a"] = [jax.ShapeDtypeStruct((8,), jnp.float32, sharding=split)]
    found, data = checkpoints.restore(wanted)
    assert data == {"a": [1, "x"]}
    assert found["a"][0].sharding == split
    assert isinstance(found["b"][1].sharding, SingleDeviceSharding)
    jax.tree.map(np.testing.assert_array_equal, found, tree)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 20 kB: a stand-in for a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def log_until_it_comes_up(checkpoints: Checkpoints) -> None:
    for _ in range(1000):
        checkpoints.check()
        time.sleep(0.01)


def test_a_failed_write_comes_up_and_costs_no_other_checkpoint(
    tmp_path: Path, small_files, capsys: pytest.CaptureFixture
) -> None:
    checkpoints = save(tmp_path, (1,), keep_last=1)
    noise = jax.random.normal(jax.random.key(0), (10_000,))
    small_files()
    checkpoints.save(2, noise, {})
    with pytest.raises(CheckpointError, match=r"step 2 .*: File too large; those of the steps 1 "):
        log_until_it_comes_up(checkpoints)
    assert Checkpoints(tmp_path).latest() == 1
    assert_restored(tmp_path, 1)
