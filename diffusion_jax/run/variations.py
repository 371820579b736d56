"""The stages that vary, mix, inpaint or upscale items, and which stage a config selects."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Kind
from diffusion_jax.data.images import read_image
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.from_config.choices import group_of, named
from diffusion_jax.from_config.images import (
    INPAINTING,
    check_files,
    check_images,
    opened,
    opened_mask,
    size_of,
)
from diffusion_jax.generation.conditions import SEED
from diffusion_jax.generation.variations import inpainted, inverted, mixed, renoised
from diffusion_jax.restoration.image_conditions import LowResolution, inpainting, of_latents
from diffusion_jax.run.interpolation import interpolate
from diffusion_jax.run.sampling import sample, save_items
from diffusion_jax.run.trained import Run, Trained
from diffusion_jax.system.devices import in_batches, is_main
from diffusion_jax.system.files import path_of, write_whole
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.pictures import save_png

GREY = 127
"""Of the image on the sheet, where it is painted."""
RECORDINGS = (
    "--mode restore --restore FILE fills in a part of a recording (restore.operator='gap') and "
    "continues one ('beginning')"
)
WAYS = {"noise": renoised, "inversion": inverted}
COLUMNS = {"variants": 8, "inpainted": 5, "upscaled": 5}
"""By name of the sheet."""


def vary(run: Run) -> None:
    """Makes `sample.num_images` variants of an image or a recording, which is shown first.

    Or `sample.frames` on the way from it to another, which is shown last. They are `variants.png`,
    and `variants/`, of sounds with a page to listen to.
    """
    asked, settings, kind = run.config.sample, run.config.sample.vary, run.parts.dataset.kind
    originals = _originals(settings, kind)
    model = run.trained()
    generator, codec = model.draws, model.draws.codec
    num = asked.frames if settings.towards else asked.num_images
    index, shares = asked.first_index + np.arange(num), np.linspace(0, 1, num, dtype=np.float32)
    # A way has one noise and one condition, those of its first sample.
    of = np.full_like(index, index[0]) if settings.towards else index
    cond = _asked(run, of)
    request = model.request(of, cond)

    @jax.jit
    def program(whole: Any, each: Any) -> Any:
        params, key, x, scale, frozen = whole
        codec_keys = jnp.stack([jax.random.fold_in(key, 1 + number) for number in range(len(x))])
        x_0 = codec.encode(frozen, x, codec_keys)
        batch, share = each
        job = generator, params, key, batch._replace(scale=scale, frozen=frozen)
        if not settings.towards:
            found = WAYS[settings.by](*job, x_0[0], settings.strength)
        elif settings.by == "inversion":
            found = mixed(*job, x_0, share)
        else:
            share = share.reshape(-1, *[1] * (x_0.ndim - 1))
            found = renoised(*job, (1 - share) * x_0[0] + share * x_0[1], settings.strength)
        return codec.decode(frozen, found)

    key = make_key(asked.seed)
    whole = model.params, key, kind.decode(originals), request.scale, dict(model.frozen)
    each = request._replace(scale=None, frozen={}), shares
    items = model.encoded(in_batches(program, whole, each, asked.batch_size, "sampling"), index)
    if not is_main():
        return
    about = {**run.span(index, cond), "vary": settings.to_dict()}
    made_by = {**model.made_by(asked.seed), **about}
    folder = run.workdir / "samples" / "variants"
    save_items(run, folder, index, items, made_by, {})
    both = np.concatenate([originals[:1], items, originals[1:]])
    words = [f"{share:.0%} of the way" for share in shares] if settings.towards else []
    words = ["given", *(words or ["variant"] * num), *["given"] * (len(originals) - 1)]
    for name, page in kind.pages(both, words, both[:0, None], made_by).items():
        write_whole(folder / name, page.encode())
    columns = len(both) if settings.towards else COLUMNS["variants"]
    _save(model, "variants", both, about, columns)


def _originals(settings: Config, kind: Kind) -> np.ndarray:
    """The one or two files of `sample.vary`, as stored `[1 or 2, ...]`."""
    found = []
    for key in ("image", "towards")[: 2 if settings.towards else 1]:
        with named(f"sample.vary.{key}"):
            found.append(kind.open_file(path_of(settings[key])))
    return np.stack(found)


def inpaint(run: Run) -> None:
    """Paints an image anew where a mask is white: `inpainted.png`, with the image first.

    By the network's own way if it was trained for it, else by what is known at every step.
    """
    asked, settings, kind = run.config.sample, run.config.sample.inpaint, run.parts.dataset.kind
    original, hidden = _to_paint(settings, kind)
    model = run.trained()
    generator, codec = model.draws, model.draws.codec
    index = asked.first_index + np.arange(asked.num_images)
    cond = _asked(run, index)
    request = model.request(index, cond)
    told = INPAINTING in run.parts.task.cond

    @jax.jit
    def program(whole: Any, each: Any) -> Any:
        params, key, x, hidden, scale, frozen = whole
        of_whole, of_rest = (jax.random.fold_in(key, number)[None] for number in (1, 2))
        x_0 = codec.encode(frozen, x, of_whole)
        batch = each._replace(scale=scale, frozen=frozen)
        if told:
            given = inpainting(codec, frozen, x, hidden, of_rest)
            num = len(each.index)
            given = {name: jnp.repeat(array, num, axis=0) for name, array in given.items()}
            batch = batch._replace(cond={**each.cond, **given})
        known = 1 - of_latents(hidden, x_0.shape)[0]
        job = generator, params, key, batch, x_0[0], known
        return codec.decode(frozen, inpainted(*job, settings.strength))

    key, mask = make_key(asked.seed), hidden[None].astype(np.float32)
    picture = kind.decode(original[None])
    whole = model.params, key, picture, mask, request.scale, dict(model.frozen)
    each = request._replace(scale=None, frozen={})
    items = model.encoded(in_batches(program, whole, each, asked.batch_size, "sampling"), index)
    if not is_main():
        return
    if settings.keep:
        items = np.where(hidden, items, original)
    about = {**run.span(index, cond), "inpaint": settings.to_dict()}
    made_by = {**model.made_by(asked.seed), **about}
    save_items(run, run.workdir / "samples" / "inpainted", index, items, made_by, {})
    both = np.concatenate([np.where(hidden, np.uint8(GREY), original)[None], items])
    _save(model, "inpainted", both, about, COLUMNS["inpainted"])


def _to_paint(settings: Config, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """The image of `sample.inpaint`, uint8 [H, W, C], and where to paint it, bool [H, W, 1].

    Raises:
        ConfigError: they cannot be read, or are of other sizes.
    """
    key = "sample.inpaint.image"
    with named(key):
        picture = read_image(path_of(settings.image), 0, kind.shape[-1])
    if picture.shape != kind.shape:
        raise ConfigError(
            f"{key}={settings.image!r} is {size_of(picture.shape)} pixels, and samples are "
            f"{size_of(kind.shape)}: resize it, or with data.name='none' set "
            f"data.shape={picture.shape}"
        )
    if not settings.mask:
        raise ConfigError(
            f"{key}={settings.image!r} needs sample.inpaint.mask, a picture that is white where to "
            "paint: --mask PICTURE"
        )
    mask = opened_mask("sample.inpaint.mask", settings.mask, key, kind.shape[:2])
    return picture, mask


def _asked(run: Run, index: np.ndarray) -> dict[str, np.ndarray]:
    """Conditioning of the samples number `index` as configured; no text is the empty one."""
    if run.config.sample.prompts or not run.parts.task.reader:
        return run.conditions.asked(index)
    return run.conditions.read([""] * len(index))


def upscale(run: Run) -> None:
    """Makes `sample.num_images` upscaled versions of an image: `upscaled.png`, with it first.

    Labels and texts are conditions only if set in `sample.labels` or `sample.prompts`.
    """
    asked, conditions, kind = run.config.sample, run.conditions, run.parts.dataset.kind
    condition = run.parts.task.condition
    assert isinstance(condition, LowResolution)  # others were refused before
    factor = condition.factor
    low = opened("sample.upscale.image", asked.upscale.image, kind, factor)
    model = run.trained()
    index = asked.first_index + np.arange(asked.num_images)
    keys = sample_keys(make_key(SEED), index)
    z_0 = np.broadcast_to(kind.decode(low), (len(index), *low.shape))
    cond = jax.device_get(jax.jit(condition.of_low)(z_0, keys))
    cond |= conditions.explicit(index)
    prompts = conditions.prompts(index) if asked.prompts else None
    items, _ = model.items(asked.seed, index, cond)
    if not is_main():
        return
    about: dict[str, Any] = {"given": asked.upscale.image}
    if run.parts.task.reader:
        about["prompts"] = list(asked.prompts)
    folder, of_each = run.workdir / "samples" / "upscaled", {}
    if "label" in cond:
        of_each["label"] = cond["label"].tolist()
    if prompts:
        of_each["prompt"] = prompts
    save_items(run, folder, index, items, {**model.made_by(asked.seed), **about}, of_each)
    enlarged = low.repeat(factor, axis=0).repeat(factor, axis=1)
    both = np.concatenate([enlarged[None], items])
    _save(model, "upscaled", both, {**run.span(index, cond), **about}, COLUMNS["upscaled"])


def _save(
    model: Trained, name: str, items: np.ndarray, about: dict[str, Any], columns: int
) -> None:
    """Writes a sheet of what was given, and the samples made from it."""
    path = model.run.workdir / "samples" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = model.run.parts.dataset.kind.sheet(items, columns)
    save_png(path, sheet, {**model.made_by(model.run.config.sample.seed), **about})
    print(f"samples of step {model.step}, what was given first: {path}")


def _check(asked: Config, kind: Kind) -> None:
    """Raises a ConfigError for impossible settings of `sample`, and for unusable images."""
    if asked.vary.image and asked.vary.by == "noise" and not asked.vary.strength:
        raise ConfigError("sample.vary.strength=0.0 must be above 0 with sample.vary.by='noise'")
    if asked.vary.towards and not asked.vary.image:
        raise ConfigError(
            f"sample.vary.towards={asked.vary.towards!r} needs the other one, sample.vary.image"
        )
    if asked.interpolate and len(asked.interpolate) != 2:
        raise ConfigError(f"sample.interpolate={tuple(asked.interpolate)} must be two texts")
    if asked.inpaint.image:
        check_images("sample.inpaint.image", asked.inpaint.image, kind, RECORDINGS)
        _to_paint(asked.inpaint, kind)
        if int(asked.steps * asked.inpaint.strength) < 1:
            raise ConfigError(
                f"sample.inpaint.strength={asked.inpaint.strength} of sample.steps={asked.steps} "
                "is less than one step"
            )
    if asked.vary.image:
        check_files("sample.vary.image", asked.vary.image, kind)
    if asked.upscale.image:
        check_images("sample.upscale.image", asked.upscale.image, kind)
    for key in ("vary.image", "vary.towards", "upscale.image"):
        if file := group_of(asked, key):
            with named(f"sample.{key}"):
                kind.check_file(path_of(file))


def chosen(config: Config, kind: Kind) -> Callable[[Run, bool], None]:
    """The sampling stage that a config selects: `sample` or one of those here.

    Raises:
        ConfigError: its settings are impossible; called before a training, not after it.
    """
    asked = config.sample
    ways = [
        ("sample.vary.image", asked.vary.image or asked.vary.towards, vary),
        ("sample.inpaint.image", asked.inpaint.image, inpaint),
        ("sample.interpolate", asked.interpolate, interpolate),
        ("sample.upscale.image", asked.upscale.image, upscale),
    ]
    found = [(key, draw) for key, value, draw in ways if value]
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(key for key, _ in found)} do not go together")
    if config.image_condition.name == INPAINTING and not asked.inpaint.image:
        raise ConfigError(
            "image_condition.name='inpainting' draws only into a picture: --inpaint PICTURE --mask "
            "MASK"
        )
    _check(asked, kind)
    return (lambda run, _: found[0][1](run)) if found else sample
