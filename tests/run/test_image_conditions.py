"""Image conditioning: closed forms, its place in the loss, and a small run."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.conditioning import drop
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.time_sampling import uniform
from diffusion_jax.objectives.gaussian import Error, GaussianLoss
from diffusion_jax.objectives.parts import Conditioning, Times
from diffusion_jax.restoration.image_conditions import (
    LEVEL_WIDTH,
    LowResolution,
    Masked,
)
from diffusion_jax.restoration.linear import Downscale
from tests.oracles import SCHEDULES
from tests.runs import (
    COLOURS,
    TEXT,
    captioned_dataset,
    context_of,
    random_dataset,
    run_texts,
    tiny,
)

FLOW = SCHEDULES["flow"]
CLEAN = LowResolution(FLOW, 2, 0.0, 0.0)  # flow has no noise at all at time 0
BOXES = Masked(3, 0.2, 0.6)


def keys(num: int, first: int = 0) -> jax.Array:
    return sample_keys(jax.random.key(0), jnp.arange(first, first + num))


def pictures(num: int, size: int = 8) -> np.ndarray:
    shape = (num, size, size, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def test_a_ramp_is_averaged_to_the_middles_of_its_parts_and_resized_back_to_itself() -> None:
    down, right = np.mgrid[:24, :24] / 24.0
    ramp = (down + 2 * right).astype(np.float32)[None, ..., None]
    middles = np.arange(8) * 3 + 1.0
    low = Downscale(3)(ramp)
    expected = (middles[:, None] + 2 * middles) / 24
    np.testing.assert_allclose(low[0, ..., 0], expected, rtol=1e-6)
    made = LowResolution(FLOW, 3, 0.0, 0.0)(ramp, keys(1))["image"]
    inside = slice(6, -6)  # two low pixels from the edges, beyond which nothing is known
    np.testing.assert_allclose(made[:, inside, inside], ramp[:, inside, inside], atol=1e-5)
    flat = CLEAN(np.full((1, 8, 8, 1), 0.3, np.float32), keys(1))["image"]
    np.testing.assert_allclose(flat, 0.3, atol=1e-6)


def level_of(embedded: Any) -> np.ndarray:
    """The level that an embedding tells, from its slowest sine, of less than one turn."""
    slowest = 1000 * 1e4 ** -((LEVEL_WIDTH // 2 - 1) / (LEVEL_WIDTH // 2))
    return np.arcsin(np.asarray(embedded, np.float64)[:, -1]) / slowest


def test_noise_is_of_the_level_that_the_network_is_told_and_levels_are_drawn_evenly() -> None:
    num, low, high = 4000, 0.1, 0.7
    schedule = SCHEDULES["cosine"]
    z_0 = np.full((num, 4, 4, 1), 0.5, np.float32)
    found = LowResolution(schedule, 1, low, high).of_low(z_0, keys(num))  # factor 1: no resizing
    s = level_of(found["level"])
    # The largest distance of an empirical law of 4000 values: 1.6 / sqrt(4000) in 99% of cases.
    rank = (np.arange(num) + 0.5) / num
    assert np.abs((np.sort(s) - low) / (high - low) - rank).max() < 1.63 / num**0.5
    alpha, sigma = (
        np.asarray(f(jnp.asarray(s)))[:, None] for f in (schedule.alpha, schedule.sigma)
    )
    eps = (np.asarray(found["image"]).reshape(num, -1) - alpha * 0.5) / sigma
    for group in np.array_split(np.argsort(s), 4):  # each quarter of the levels has its own noise
        assert abs(eps[group].mean()) < 4 / eps[group].size ** 0.5
        assert abs(eps[group].var() - 1) < 4 * (2 / eps[group].size) ** 0.5


def test_the_lowest_level_is_another_than_no_picture() -> None:
    found = CLEAN(pictures(2), keys(2))["level"]
    half = LEVEL_WIDTH // 2
    np.testing.assert_array_equal(found, np.repeat([[1.0] * half + [0.0] * half], 2, 0))
    many = LowResolution(FLOW, 2, 0.0, 1.0)(pictures(50), keys(50))["level"]
    np.testing.assert_allclose(np.sum(np.square(many), 1), half, rtol=1e-5)  # sin^2 + cos^2


def test_a_picture_is_dropped_with_its_level() -> None:
    num = 400
    cond = {"label": jnp.zeros(num, jnp.int32), **CLEAN(pictures(num, 2), keys(num))}
    found = drop(cond, keys(num), 0.0, {"image": 0.5})
    no_image = np.all(np.asarray(found["image"]) == 0, axis=(1, 2, 3))
    np.testing.assert_array_equal(np.all(np.asarray(found["level"]) == 0, axis=1), no_image)
    assert 0.4 < no_image.mean() < 0.6
    np.testing.assert_array_equal(found["label"], 0)


def test_hidden_pixels_are_zero_and_known_ones_as_they_are() -> None:
    x_0 = pictures(200)
    found = np.asarray(BOXES(x_0, keys(200))["image"])
    known = found[..., 3]
    assert set(np.unique(known)) == {0.0, 1.0}
    np.testing.assert_array_equal(found[..., :3][known == 0], 0.0)
    np.testing.assert_array_equal(found[..., :3][known == 1], x_0[known == 1])
    assert len({row.tobytes() for row in known}) > 150
    # A rectangle of half the sides has a quarter of the pixels, in its bounding box.
    one = np.asarray(Masked(1, 0.5, 0.5)(x_0, keys(200))["image"])[..., 3] == 0
    np.testing.assert_array_equal(one.sum((1, 2)), 16)
    np.testing.assert_array_equal(one.any(1).sum(1) * one.any(2).sum(1), 16)
    # Its corner lies on rows 0 to 4, as likely each but for the two ends, which have half as much.
    corner = np.bincount(one.any(2).argmax(1), minlength=5) / 200
    np.testing.assert_allclose(corner, np.array([1, 2, 2, 2, 1]) / 8, atol=0.14)  # 4 deviations
    np.testing.assert_array_equal(Masked(1, 1.0, 1.0)(x_0, keys(200))["image"], 0.0)


@pytest.mark.parametrize("condition", [LowResolution(FLOW, 2, 0.1, 0.5), BOXES])
def test_a_sample_s_condition_is_of_its_own_picture_and_key(condition: Any) -> None:
    x_0 = pictures(6)
    whole, part = condition(x_0, keys(6)), condition(x_0[4:], keys(2, 4))
    other = condition(x_0 * np.arange(6.0, dtype=np.float32)[:, None, None, None], keys(6))
    for name, array in whole.items():
        np.testing.assert_allclose(array[4:], part[name], atol=1e-6)
        np.testing.assert_allclose(array[1], other[name][1], atol=1e-6)
    assert len({row.tobytes() for row in np.asarray(whole["image"])}) == 6


def seen_by_network(condition: Any, rows: slice = slice(None)) -> tuple[Any, ...]:
    """What a loss hands to its network, of some rows of a batch of 8."""
    seen: list[Any] = []

    def apply(params: Any, x_t: Any, t: Any, cond: Any, key: Any) -> Any:
        seen.extend((x_t, t, cond))
        return x_t

    process, codec = Gaussian(FLOW, PREDICTIONS["v"]), Identity((8, 8, 3))
    told = Conditioning(condition, dropout=0.5)
    loss = GaussianLoss(apply, process, codec, Times(uniform(), 8), Error(process.prediction), told)
    batch = {"x": pictures(8), "cond": {"label": np.arange(8)}, "index": np.arange(8)}
    loss({}, jax.tree.map(lambda a: jnp.asarray(a[rows]), batch), context_of(jax.random.key(3)))
    return tuple(seen)


def test_within_the_loss_a_condition_changes_nothing_else_and_follows_the_sample() -> None:
    x_t, t, cond = seen_by_network(LowResolution(FLOW, 2, 0.0, 0.5))
    plain = seen_by_network(None)
    for a, b in zip((x_t, t, cond["label"]), (*plain[:2], plain[2]["label"]), strict=True):
        np.testing.assert_array_equal(a, b)
    off = np.asarray(cond["label"]) == -1
    assert 0 < off.sum() < 8
    for name in ("image", "level"):
        flat = np.asarray(cond[name]).reshape(8, -1)
        np.testing.assert_array_equal(np.all(flat == 0, axis=1), off)
    assert len(set(level_of(cond["level"])[~off])) == (~off).sum()
    assert not off[2:].all()
    rest = seen_by_network(LowResolution(FLOW, 2, 0.0, 0.5), slice(2, None))[2]
    for name in cond:
        np.testing.assert_allclose(rest[name], cond[name][2:], atol=1e-6)


GIVEN = {
    **TEXT,
    "image_condition__name": "low_resolution",
    "sample__upscale__noise": 0.1,
    "sample__num_images": 6,
    "objective__cond_dropout": 0.0,
    "objective__part_dropout__text": 0.5,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("upscale") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert run_texts(patch, workdir, "all", captioned_dataset(), **GIVEN) == 0
    return workdir


def made_by(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Image.open(path).info["made_by"])
    return found


@pytest.mark.slow
def test_a_run_is_given_held_out_pictures_and_their_names(trained: Path) -> None:
    about = made_by(trained / "samples/images/000003.png")
    assert about["given"] == "low_resolution of heldout pictures"
    assert about["noise"] == 0.1
    names = [made_by(p)["prompt"] for p in sorted((trained / "samples/images").iterdir())]
    assert names == ["grey", "white", "black"] * 2
    result = json.loads((trained / "result.json").read_text())
    assert "denoising_gap_t0.50" in result
    assert "heldout/loss" in (trained / "metrics.jsonl").read_text()
    sheet = np.asarray(Image.open(trained / "samples/grid.png"))
    assert sheet.shape == (2 * 49 + 1, 12 * 49 + 1)  # four samples a row, between two pictures
    originals = [sheet[20, 49 * (3 * i + 2) + 20] for i in range(4)]
    assert originals == [COLOURS[name] for name in names[:4]]
    samples = [int(sheet[20, 49 * (3 * i + 1) + 20]) for i in range(4)]
    np.testing.assert_allclose(samples, originals, atol=60)


@pytest.mark.parametrize("prompts", [(), ("white",)])
@pytest.mark.slow
def test_a_picture_is_enlarged(
    trained: Path, tmp_path: Path, monkeypatch: Any, prompts: tuple[str, ...]
) -> None:
    low = np.full((4, 4), 30, np.uint8)
    low[0] = 10
    Image.fromarray(low).save(tmp_path / "low.png")
    changes = {"sample__upscale__image": str(tmp_path / "low.png"), "sample__prompts": prompts}
    assert (
        run_texts(monkeypatch, trained, "sample", captioned_dataset(), **{**GIVEN, **changes}) == 0
    )
    sheet = np.asarray(Image.open(trained / "samples/upscaled.png"))
    assert sheet.shape == (2 * 49 + 1, 5 * 49 + 1)  # the picture, and six of it
    first = sheet[1:49:6, 1:49:6]
    np.testing.assert_array_equal(first, low.repeat(2, 0).repeat(2, 1))
    singles = sorted((trained / "samples/upscaled").iterdir())
    assert len(singles) == 6
    about = made_by(singles[2])
    assert (about["index"], about["given"]) == (2, str(tmp_path / "low.png"))
    assert (about.get("prompt"), about["prompts"]) == (prompts[0] if prompts else None, [*prompts])
    assert np.mean([np.asarray(Image.open(p)).mean() for p in singles]) < 100  # not white


def test_a_masked_picture_comes_with_its_own_label() -> None:
    data = random_dataset()
    config = tiny(image_condition__name="masked")
    parts = from_config.build(config, data)
    conditions = run.Run(config, Path("none"), parts).conditions
    found = conditions.cond(np.array([0, 7, 20, 27]))  # of 20 held-out pictures
    assert found["image"].shape == (4, 8, 8, 2)
    np.testing.assert_array_equal(found["image"][:2], found["image"][2:])
    images, labels = data.splits["heldout"].gather(np.array([0, 7]))
    np.testing.assert_array_equal(found["label"][:2], labels)
    known = found["image"][:2, ..., 1] == 1
    pixels = images[known][:, 0] / 127.5 - 1
    np.testing.assert_allclose(found["image"][:2, ..., 0][known], pixels, atol=1e-6)
    batch = {"x": jnp.zeros((2, 8, 8, 1)), "cond": {}, "index": jnp.arange(2)}
    params = jax.eval_shape(parts.task.init, jax.random.key(0))
    loss = parts.task.loss
    assert jax.eval_shape(loss, params, batch, context_of(jax.random.key(0)))[0].shape == (2,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "low_res"}, "image_condition.name='low_res' is not known: did you mean"),
        ({"low_resolution__factor": 3}, "factor=3 must divide .*, 8 x 8"),
        ({"low_resolution__factor": 1}, r"factor=1 must lie in \[2, inf\)"),
        ({"low_resolution__max_noise": 1.5}, r"max_noise=1.5 must lie in \[0, 1\]"),
        (
            {"low_resolution__max_noise": 0.05},
            r"upscale.noise=0.1 must lie in \[0, .*\] with max_noise=0.05",
        ),
        ({"name": "masked", "masked__boxes": 0}, r"boxes=0 must lie in \[1, inf\)"),
        (
            {"name": "masked", "masked__least": 0.7},
            r"least=0.7 must lie in \(0, most\] with most=0.6",
        ),
        (
            {"name": "decayed", "decayed__kinds": ("dust", "rust")},
            r"image_condition.decayed.kinds=\('dust', 'rust'\) must be some of blur, fading",
        ),
        ({"name": "masked", "file": "a.png"}, "name is 'masked', not 'low_resolution'"),
        ({"name": "none", "file": "a.png"}, "upscale.image='a.png' needs a network trained"),
    ],
)
def test_what_cannot_be_given_is_refused(changes: dict[str, Any], says: str) -> None:
    file = changes.pop("file", "")
    settings = {f"image_condition__{key}": value for key, value in changes.items()}
    settings = {**GIVEN, "text__name": "none", "sample__upscale__image": file, **settings}
    with pytest.raises(from_config.ConfigError, match=says) as error:
        from_config.build(tiny(**settings), captioned_dataset())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "sample.upscale.image: none.png cannot be read: No such file"),
        ({"sample__upscale__image": __file__}, "cannot be read: it is no picture"),
        ({"sample__vary__image": "a.png"}, "sample.vary.image and sample.upscale.image do not go"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_enlarged_is_one_line(
    trained: Path, monkeypatch: Any, capsys: Any, changes: dict[str, Any], says: str
) -> None:
    changes = {**GIVEN, "sample__upscale__image": "none.png", **changes}
    assert run_texts(monkeypatch, trained, "sample", captioned_dataset(), **changes) == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.count("\n") == 1
