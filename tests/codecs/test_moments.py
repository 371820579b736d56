"""Moments of latents that are stored: the same training as if items were encoded in every step."""

import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.latents import CODEC, FromMoments, OneByOne
from diffusion_jax.codecs.moments import MomentSource, encoded
from diffusion_jax.data import DataError, Dataset, Split, train_batches
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.layout import rows_over
from diffusion_jax.system.keys import make_key
from diffusion_jax.training.parallel import Sharded
from tests.runs import random_dataset, with_eight_devices

NETWORK = Autoencoder(channels=8, channel_mults=(1, 2), num_blocks=1, out_channels=1)
ARGS: Any = NETWORK, (4, 4, 4), 0.2
IN_STEP, STORED = OneByOne(*ARGS), FromMoments(*ARGS)


class Quick(FromMoments):
    """Its moments need no network."""

    def moments(self, frozen: Any, x: Any) -> Any:
        return frozen[CODEC]["weight"] * jnp.tile(x[:, ::2, ::2], 8)


DATA = random_dataset()


def frozen() -> Any:
    shapes = jax.eval_shape(NETWORK.init, make_key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    rng = np.random.default_rng(0)
    return {CODEC: jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape, np.float32), shapes)}


def stored(folder: Path, dataset: Dataset = DATA, weight: float = 0.5, **changes: Any) -> Any:
    said: list[str] = []
    settings = {"flip": False, "batch_size": 16, "say": said.append, **changes}
    params = {CODEC: {"weight": np.float32(weight)}}
    return encoded(dataset, Quick(*ARGS), params, folder, **settings), said


def test_two_epochs_are_those_that_are_encoded_in_the_step_to_the_bit(tmp_path: Path) -> None:
    """Also where batches cut epochs, of items of which half are mirrored."""
    decode = lambda items: jax.lax.optimization_barrier(DATA.kind.decode(items))  # noqa: E731
    encode = jax.jit(lambda params, items, keys: IN_STEP.encode(params, decode(items), keys))
    draw = jax.jit(STORED.encode)
    params, seen, said = frozen(), [], []
    for _ in range(2):  # encoded, then read
        data = encoded(DATA, STORED, params, tmp_path, flip=True, batch_size=16, say=said.append)
        assert len(said) == 2
    streams = (train_batches(d, batch_size=12, seed=3, flip=True) for d in (DATA, data))
    for step, pixels, moments in zip(range(7), *streams, strict=False):
        keys = sample_keys(make_key(step), np.arange(12))
        x_0 = encode(params, pixels["x"], keys)
        assert moments["x"].shape == (12, 4, 4, 8)
        np.testing.assert_array_equal(draw(params, moments["x"], keys), x_0)
        np.testing.assert_array_equal(moments["cond"]["label"], pixels["cond"]["label"])
        seen.append(x_0)
    # Each draw is its own: 40 items are seen twice in 84, and no two latents are the same.
    assert len(np.unique(np.concatenate(seen), axis=0)) == 84


def on_eight_devices(out: str) -> None:
    """Saves moments that were encoded over eight devices, and in a step over all of them."""
    sharded, items = Sharded(2, 1), DATA.splits["train"].source.items[:16]
    data = encoded(DATA, STORED, frozen(), Path(out).parent / "eight", flip=False, batch_size=16)
    placed = sharded.place(frozen(), donated=False)

    x = sharded.split({"x": DATA.kind.decode(items)})["x"]

    @jax.jit
    def in_step(params: Any, x_0: Any) -> Any:
        with rows_over(x.sharding):
            return IN_STEP.moments(params, x_0)

    source = data.splits["train"].source
    np.savez(out, stored=source.content[1], in_step=in_step(placed, x))


@pytest.mark.slow
def test_eight_devices_give_the_moments_of_one(tmp_path: Path) -> None:
    found = with_eight_devices("tests.codecs.test_moments.on_eight_devices", tmp_path / "eight.npz")
    one = encoded(DATA, STORED, frozen(), tmp_path / "one", flip=False, batch_size=40)
    expected = one.splits["train"].source.content[1]
    np.testing.assert_array_equal(found["stored"], expected)
    np.testing.assert_array_equal(found["in_step"], expected[:16])


def test_latents_that_are_not_mirrored_need_half_the_space(tmp_path: Path) -> None:
    data, said = stored(tmp_path)
    assert (len(said), len(list(tmp_path.iterdir()))) == (1, 1)
    assert said[0].startswith("encoding 40 images, once: 0 MB in")
    with pytest.raises(DataError, match=r"data\.flip=True mirrors images.* are latents of 4x4x8"):
        train_batches(data, batch_size=4, seed=0, flip=True)


def test_a_process_that_loads_data_opens_the_file_itself(tmp_path: Path) -> None:
    source = stored(tmp_path)[0].splits["train"].source
    sent = pickle.dumps(source)
    assert len(sent) < 500
    for mine, theirs in zip(source.gather([3, 1]), pickle.loads(sent).gather([3, 1]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_of_another_autoencoder_or_of_other_data_is_refused(tmp_path: Path) -> None:
    """Each has a file of its own; one in the place of another is not taken for it."""
    stored(tmp_path)
    (own,) = tmp_path.iterdir()
    fewer = {**DATA.splits, "train": Split(DATA.splits["heldout"].source)}
    others = {
        "autoencoder": {"weight": 0.6},
        "data": {"dataset": Dataset("b", DATA.kind, DATA.splits, fingerprint="b")},
        "shape": {"dataset": Dataset("c", DATA.kind, fewer, fingerprint="noise")},
    }
    for name, changes in others.items():
        before = {*tmp_path.iterdir()}
        stored(tmp_path, **changes)
        (other,) = {*tmp_path.iterdir()} - before
        other.write_bytes(own.read_bytes())
        with pytest.raises(DataError, match=rf"{other} has latents of {name} .*: delete it"):
            stored(tmp_path, **changes)


def test_a_file_that_is_cut_short_is_written_again(tmp_path: Path) -> None:
    whole, _ = stored(tmp_path)
    (path,) = tmp_path.iterdir()
    moments = np.array(whole.splits["train"].source.content[1])
    path.write_bytes(path.read_bytes()[:-1])
    again, said = stored(tmp_path)
    assert len(said) == 1
    np.testing.assert_array_equal(again.splits["train"].source.content[1], moments)


def test_items_that_differ_from_epoch_to_epoch_are_refused(tmp_path: Path) -> None:
    class Drawn(MomentSource):
        varies = True

    splits = {"train": Split(Drawn(tmp_path))}
    with pytest.raises(DataError, match=r"data\.name='patches' has another part.*codec\.cache=Fal"):
        stored(tmp_path, Dataset("patches", DATA.kind, splits))
