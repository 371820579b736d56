"""Fine-tuning of a small Stable Diffusion: whole, LoRA, and vectors of a new word."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from diffusion_jax import run
from diffusion_jax.from_config import Config, ConfigError, Parts, build
from diffusion_jax.from_config.adapters import TABLE
from diffusion_jax.from_config.published import network_params
from diffusion_jax.from_config.task import BASE
from diffusion_jax.from_config.text import make_text_encoder
from diffusion_jax.models.clip import TOKENS
from diffusion_jax.models.weights import read_tensors
from diffusion_jax.types import Context
from tests.stable_diffusion import livelier, settings, write_small
from tests.texts import VOCABULARY

WORD = "<thing>"
LORA = {"adapter__name": "lora", "adapter__lora__rank": 2, "adapter__lora__alpha": 3.0}
INVERSION = {
    "adapter__name": "textual_inversion",
    "adapter__textual_inversion__token": WORD,
    "adapter__textual_inversion__vectors": 2,
    "adapter__textual_inversion__initial": "house",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("published") / "small", livelier)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 16 x 24 pixels with captions."""
    found, rng, lines = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for i in range(6):
        pixels = np.full((16, 24, 3), 40 * i) + rng.integers(0, 20, (16, 24, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(found / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a picture of a {WORD}"}))
    (found / "metadata.jsonl").write_text("\n".join(lines))
    return found


def training(source: Path, pictures: Path, **changes: Any) -> Config:
    own = {"data__name": "folder", "data__dir": str(pictures), "data__shape": ()}
    train = {"train__batch_size": 4, "train__steps": 3}
    train |= {"optimizer__learning_rate": 0.1, "optimizer__warmup_steps": 0}
    never = dict.fromkeys(("train__heldout_every", "train__sample_every"), 0)
    prompts = {"sample__prompts": (f"a {WORD}",)}
    return settings(source, **{**own, **train, **never, **prompts, **changes})


def changed(parts: Parts) -> tuple[Any, Any, Any]:
    """Parameters of an adapter that are not the initial ones, the base, and both together."""
    adapter = parts.task.adapter
    assert adapter
    base, trained = adapter.base.load(), parts.task.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    trained = jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape), trained)
    return trained, base, adapter.whole(base, trained)


def assert_equal(first: Any, second: Any, **how: Any) -> None:
    first, second = flatten_dict(first), flatten_dict(second)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], err_msg=str(name), **how)


def test_lora_is_little_and_changes_nothing_at_first(folder: Path, pictures: Path) -> None:
    task = build(training(folder, pictures, **LORA)).task
    assert task.adapter
    base, trained = task.adapter.base.load(), task.init(jax.random.key(0))
    assert_equal(task.whole(trained, {BASE: base}), base, rtol=0)
    kernels = {path[:-1] for path in flatten_dict(trained)}
    # q, k, v and output of two attentions in each of the four transformers
    assert len(kernels) == 4 * 8
    assert {path[-1] for path in kernels} == {"kernel"}


def test_sizes_that_do_not_divide_are_refused_before_anything_is_adapted(
    folder: Path, pictures: Path
) -> None:
    wrong = {"data__image_size": 18, "model__unet__channel_mults": (1, 1)}
    with pytest.raises(ConfigError, match=r"size 9x9 must be .* \(for images of 18x18x3\)$"):
        build(training(folder, pictures, **wrong, **LORA))


def test_lora_is_written_and_merged_into_what_is_read(
    folder: Path, pictures: Path, tmp_path: Path
) -> None:
    parts = build(training(folder, pictures, **LORA))
    trained, base, whole = changed(parts)
    assert parts.task.adapter
    files = parts.task.adapter.write(tmp_path, base, trained)
    assert [path.name for path in files] == [
        "pytorch_lora_weights.safetensors",
        "kohya_lora.safetensors",
    ]
    alpha = [v for name, v in read_tensors(files[1]).items() if name.endswith(".alpha")]
    assert {float(a) for a in alpha} == {3.0}
    for path in files:
        config = settings(folder, weights__lora=(str(path),))
        assert_equal(network_params(config, parts.task.adapter.base.shapes, ()), whole, atol=1e-6)
        # Another part than those that it changes is as it was.
        config = training(folder, pictures, weights__lora=(str(path),))
        assert make_text_encoder(config).digest != make_text_encoder(settings(folder)).digest


def test_vectors_of_a_new_word_are_written_and_read(
    folder: Path, pictures: Path, tmp_path: Path
) -> None:
    parts = build(training(folder, pictures, **INVERSION))
    task = parts.task
    trained, base, whole = changed(parts)
    assert task.adapter
    assert task.reader
    assert jax.tree.map(jnp.shape, trained) == {"vectors": (2, 16)}
    ids = task.reader([f"a {WORD} house"])["tokens"][0]
    new, end = [VOCABULARY, VOCABULARY + 1], task.reader.tokeniser.end
    place = ids.tolist().index(VOCABULARY)
    assert ids[place : place + 2].tolist() == new
    assert set(ids[list(ids).index(end) :]) == {end}
    first = task.whole(task.init(jax.random.key(0)), {BASE: base})
    table = np.asarray(flatten_dict(first)[TABLE])
    house = task.reader.tokeniser.rules.encode("house").ids[1:-1]
    np.testing.assert_array_equal(table[new], table[np.resize(house, 2)])
    np.testing.assert_array_equal(table[:VOCABULARY], flatten_dict(base)[TABLE])

    (path,) = task.adapter.write(tmp_path, base, trained)
    assert {name: v.shape for name, v in read_tensors(path).items()} == {WORD: (2, 16)}
    encoder = make_text_encoder(settings(folder, weights__embeddings=(str(path),)))
    assert encoder
    np.testing.assert_array_equal(encoder.tokens([f"a {WORD} house"]).ids[0], ids)
    found = encoder.variables["params"][TOKENS]["embedding"]
    np.testing.assert_allclose(found, flatten_dict(whole)[TABLE], atol=1e-6)
    assert encoder.identity != make_text_encoder(settings(folder)).identity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter__name": "dora"}, r"adapter\.name='dora' is not known"),
        ({**LORA, "weights__source": ""}, "model.name='unet' needs published weights"),
        ({**LORA, "train__init_from": "runs/x@1"}, "train.init_from='runs/x@1' must be ''"),
        ({**LORA, "adapter__lora__layers": "some"}, "adapter.lora.layers='some' is not known"),
        ({**LORA, "objective__name": "masked"}, "adapter.name='lora' needs objective.name='gau"),
        ({**INVERSION, "text__weights": "x"}, "needs the text encoder of weights.source"),
        (
            {**INVERSION, "adapter__textual_inversion__token": "two words"},
            r"textual_inversion\.token='two words' must be one word",
        ),
        (
            {**INVERSION, "adapter__textual_inversion__token": "<|endoftext|>"},
            "must be a new token, and the tokeniser has it",
        ),
        (
            {**INVERSION, "adapter__textual_inversion__initial": " "},
            "textual_inversion.initial=' ' must be a word that is near",
        ),
        ({**INVERSION, "weights__embeddings": ("x",)}, "weights.embeddings must be ()"),
        ({"weights__lora": ("/nowhere",)}, "weights.lora: there is no file /nowhere"),
        ({"data__mix__dir": "x", "data__name": "digits"}, "data.mix.dir is for folders"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    changes: dict[str, Any], words: str, folder: Path, pictures: Path
) -> None:
    with pytest.raises(ConfigError) as found:
        build(training(folder, pictures, **changes))
    assert words.replace("\\", "") in str(found.value)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, LORA, INVERSION], ids=["whole", "lora", "inversion"])
def test_the_loss_of_a_batch_falls(changes: dict[str, Any], folder: Path, pictures: Path) -> None:
    config = training(folder, pictures, **changes)
    parts = build(config)
    task, reader = parts.task, parts.task.reader
    assert reader
    items, _ = parts.dataset.arrays("train", 4)
    x = jnp.asarray(parts.dataset.kind.decode(items))
    batch = {"x": x, "cond": reader([f"a {WORD}"] * len(x)), "index": jnp.arange(len(x))}
    frozen = {name: params.load() for name, params in task.frozen.items()}
    init = (
        task.init(jax.random.key(0)) if changes else network_params(config, task.shapes, task.sizes)
    )
    optimizer = optax.adam(0.02)

    @jax.jit
    def step(params: Any, state: Any, frozen: Any) -> Any:
        def loss(params: Any) -> Any:
            context = Context(jax.random.key(3), jnp.zeros((), jnp.int32), {}, frozen)
            return task.loss(params, batch, context)[0].mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state, losses = init, optimizer.init(init), []
    for _ in range(30):
        params, state, value = step(params, state, frozen)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "file", "setting"),
    [
        (LORA, "pytorch_lora_weights.safetensors", "weights__lora"),
        (INVERSION, "learned_embeds.safetensors", "weights__embeddings"),
    ],
    ids=["lora", "inversion"],
)
def test_a_trained_adapter_draws_as_its_file_does(
    changes: dict[str, Any], file: str, setting: str, folder: Path, pictures: Path, tmp_path: Path
) -> None:
    config, workdir = training(folder, pictures, **changes), tmp_path / "run"
    assert run.run(config, workdir, "train") == 0
    assert run.run(config, workdir, "sample") == 0
    assert run.run(config, workdir, "export") == 0
    path = str(workdir / "published" / file)
    prompts = {"sample__prompts": (f"a {WORD}",)}
    again = settings(folder, **{setting: (path,), **prompts})
    assert run.run(again, tmp_path / "again", "sample") == 0
    plain = settings(folder, **prompts)
    assert run.run(plain, tmp_path / "plain", "sample") == 0
    first, second, other = (
        np.asarray(Image.open(root / "samples/images/000000.png"), int)
        for root in (workdir, tmp_path / "again", tmp_path / "plain")
    )
    assert np.abs(first - second).max() <= 1
    assert np.abs(first - other).max() > 1
