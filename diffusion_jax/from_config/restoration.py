"""Restoration as `restore` configures it: the operator of an item, and the method."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Codec, Resizable
from diffusion_jax.codecs.codec import Identity as Plain
from diffusion_jax.data import Kind
from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config import sound_damage
from diffusion_jax.from_config.choices import Config, ConfigError, keyed, lookup
from diffusion_jax.from_config.images import opened_mask
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.restoration.ddrm import ddrm
from diffusion_jax.restoration.decay import Decay
from diffusion_jax.restoration.decoupled import daps, split_gibbs
from diffusion_jax.restoration.encoded import encoded
from diffusion_jax.restoration.image_conditions import Encoded, observed_image
from diffusion_jax.restoration.jpeg import JPEG
from diffusion_jax.restoration.linear import (
    LUMA,
    Composed,
    Crop,
    Downscale,
    Fading,
    GaussianBlur,
    Grey,
    unmasked,
)
from diffusion_jax.restoration.nonlinear import Clipping, Gamma, Halftone
from diffusion_jax.restoration.operators import Identity, Mask, Observation, Operator
from diffusion_jax.restoration.posterior_mean import dps, mmps, pigdm, tmpd
from diffusion_jax.restoration.projections import ddnm, diffpir
from diffusion_jax.restoration.renoising import renoising
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.restoration.tiles import tiled
from diffusion_jax.restoration.twisted import twisted
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Cond, Denoiser, Sampler

SEED = 0
"""Of the noise of simulated damage, which is always the same for a shape."""
JOINT = "+"
"""Between operators that are applied one after the other."""
BEGINNING = "beginning"
"""The operator of recordings that go on beyond their end: it is the last."""
DECAY = "decay"
"""The operator of pictures that decay, so that a mask is what is known of them."""

THROUGH = (
    "; through a codec that is known for codec.name='mdct': of 'identity', of recordings that are "
    "not shorter than the network's, and without codec.mdct.rms of all operators that have one"
)
"""Where singular values are known."""


class Seen(NamedTuple):
    """A picture or a recording to restore; arrays in [-1, 1]."""

    observation: Observation  # of one item, arrays `[1, ...]`
    shape: tuple[int, ...]  # of the restored one, `[..., C]`
    truth: np.ndarray | None  # the undamaged one, if damage is simulated


def _mask(settings: Config, shape: tuple[int, ...]) -> Mask:
    """What is not white in the picture `restore.mask.image` is known.

    All is with a detector, until that is asked.
    """
    if settings.detector:
        return Mask(jnp.ones((1, *shape[:2], 1)))
    lost = opened_mask("restore.mask.image", settings.image, "the picture", shape[:2])
    return Mask(jnp.asarray(~lost, jnp.float32)[None])


def _decayed(settings: Config, truth: np.ndarray) -> Seen:
    """A picture that decays: where it is destroyed it is not seen.

    All is seen with a detector, until that is asked.
    """
    own = settings.decay
    with keyed("restore.decay"):
        decay = Decay(own.severity, tuple(own.kinds))
        image, destroyed = jax.jit(decay.__call__)(truth[None], make_key(own.seed)[None])
    mask = Mask(jnp.maximum(1 - destroyed, bool(settings.mask.detector)))
    y = mask(image) + settings.sigma * sample_noise(make_key(SEED)[None], truth.shape)
    return Seen(Observation(y, mask, jnp.full(1, settings.sigma)), truth.shape, truth)


def _per_channel(values: Any, channels: int, key: str) -> Array:
    """`[1, 1, 1, C]` of a setting with one value for each channel, or one for all."""
    if len(values) not in (1, channels):
        raise ConfigError(f"{key}={tuple(values)} must have 1 or {channels} values, one a channel")
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (1, 1, 1, channels))


def _fading(settings: Config, shape: tuple[int, ...]) -> Fading:
    each = {k: _per_channel(settings[k], shape[-1], f"restore.fading.{k}") for k in settings}
    return Fading(**each)


OPERATORS: dict[str, Callable[[Config, tuple[int, ...]], Operator]] = {
    "identity": lambda own, shape: Identity(),
    "mask": _mask,
    "blur": lambda own, shape: GaussianBlur(jnp.array([own.width])),
    "downscale": lambda own, shape: Downscale(own.factor),
    "grey": lambda own, shape: Grey(jnp.asarray(LUMA)[None]),
    "fading": _fading,
    "gamma": lambda own, shape: Gamma(jnp.array([own.exponent])),
    "clipping": lambda own, shape: Clipping(jnp.array([own.low]), jnp.array([own.high])),
    "halftone": lambda own, shape: Halftone(jnp.array([own.period]), jnp.array([own.softness])),
    "jpeg": lambda own, shape: JPEG(jnp.array([own.quality])),
    **sound_damage.OPERATORS,
}
"""By name: from the settings in its group and the shape `[..., C]` of what is whole."""
OF_ALL = {"identity", "clipping"}
OF_PICTURES = {*OPERATORS, DECAY} - {*sound_damage.OPERATORS} - OF_ALL


class Method(NamedTuple):
    """A way to restore: a denoiser given an observation, a sampler for one, or both."""

    guide: Callable[[Denoiser, Observation, Schedule], Denoiser] | None = None
    # from the configured sampler
    sampler: Callable[[Schedule, Observation, Sampler], Sampler] | None = None
    # `(observation, shape of an item) -> image`, which the network is given
    image: Callable[[Observation, tuple[int, ...]], Array] | None = None
    particles: int = 1  # this many samples are weighted particles, `Particles` of the final state


def _of_sampler(make: Callable[..., Sampler], **settings: Any) -> Method:
    """A method whose sampler replaces the configured one."""
    return Method(sampler=lambda schedule, given, _: make(schedule, given, **settings))


def _by_sampler(make: Callable[..., Sampler], **settings: Any) -> Method:
    """A method that uses the configured sampler."""
    return Method(sampler=lambda schedule, given, own: make(schedule, given, own, **settings))


def _solving(make: Callable[..., Denoiser], name: str, settings: Config) -> Method:
    """A method that solves linear systems."""
    rest = dict(settings)
    solver = Solver(name, rest.pop("iterations"), rest.pop("tolerance"))
    return Method(functools.partial(make, solver=solver, **rest))


def _of_particles(num: int, settings: Config) -> Method:
    """Samples that are weighted together."""
    return _of_sampler(twisted, size=num, **settings)._replace(particles=num)


def _as_trained(config: Config) -> Method:
    """A network that was trained to restore, given what is seen as its image condition."""
    name, operator = config.image_condition.name, config.restore.operator
    if operator not in RESTORES.get(name, ()):
        known = " or ".join(
            f"{key!r} with the operator {' or '.join(map(repr, values))}"
            for key, values in RESTORES.items()
        )
        raise ConfigError(
            f"restore.method='as_trained' needs a network of image_condition.name={known}, and "
            f"here it is {name!r} with {operator!r}"
        )
    return Method(image=functools.partial(observed_image, mask=name == "masked"))


RESTORES = {
    "masked": ("mask", "gap", BEGINNING),
    **dict.fromkeys(("decayed", *sound_damage.CONDITIONS), ("identity",)),
}
"""Image conditions that are observations, with their operators."""
METHODS: dict[str, Callable[[Config, Config], Method]] = {
    "as_trained": lambda own, config: _as_trained(config),
    "dps": lambda own, config: Method(functools.partial(dps, **own)),
    "pigdm": lambda own, config: _solving(pigdm, "cg", own),
    "tmpd": lambda own, config: Method(tmpd),
    "mmps": lambda own, config: _solving(mmps, "gmres", own),
    "ddnm": lambda own, config: Method(ddnm),
    "diffpir": lambda own, config: Method(
        functools.partial(diffpir, weight=own.weight),
        lambda schedule, given, _: renoising(schedule, own.zeta),
    ),
    "ddrm": lambda own, config: _of_sampler(ddrm, **own),
    "repaint": lambda own, config: _by_sampler(repaint),
    "daps": lambda own, config: _of_sampler(daps, **own),
    "split_gibbs": lambda own, config: _by_sampler(split_gibbs, **own),
    "twisted": lambda own, config: _of_particles(config.restore.num_samples, own),
}
"""By name: from the settings in its group, and the config of the run."""


def observe(config: Config, kind: Kind, path: Path) -> Seen:
    """A file as an observation, for a network of data of a kind; it may be of any size.

    Raises:
        ConfigError: the operator does not fit the file or the network.
        DataError: the file cannot be read, or is not of this kind.
    """
    settings, channels = config.restore, kind.shape[-1]
    names = settings.operator.split(JOINT)
    if settings.operator == DECAY:
        return _decayed(settings, kind.read_file(path))
    factor = math.prod(settings.get(name, {}).get("factor", 1) for name in names)
    x = kind.read_file(path, factor=1 if settings.simulate else factor)
    sides = x.shape[:-1]
    if settings.simulate:
        sides = tuple(side // factor * factor for side in sides)
    else:
        share = settings.beginning.share if names[-1] == BEGINNING else 1
        sides = tuple(round(side / share) * factor for side in sides)
    shape = *sides, channels
    operator = composed(settings, names, shape)
    y: Any
    truth = x[tuple(map(slice, sides))] if settings.simulate else None
    if truth is not None:
        y = operator(jnp.asarray(truth)[None])
        y += settings.sigma * sample_noise(make_key(SEED)[None], y.shape[1:])
    else:
        whole = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        seen = jax.eval_shape(operator, whole).shape
        y = (x if seen[-1] == channels else kind.read_file(path, seen[-1], factor))[None]
        y = np.pad(y, [(0, whole_ - there) for whole_, there in zip(seen, y.shape, strict=True)])
        y = unmasked(operator)[1] * y  # the rest is not of the picture
    return Seen(Observation(y, operator, jnp.full(1, settings.sigma)), shape, truth)


def composed(settings: Config, names: Sequence[str], shape: tuple[int, ...]) -> Operator:
    """The operators of these names for pictures of a `shape` `[H, W, C]`, applied in turn."""
    operator: Operator | None = None
    for name in names:
        with keyed(f"restore.{name}"):
            own = OPERATORS[name](settings.get(name, Config()), shape)
        operator = own if operator is None else Composed(own, operator)
        shape = jax.eval_shape(own, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
    assert operator is not None
    return operator


def within(observation: Observation, part: tuple[int, ...], whole: tuple[int, ...]) -> Observation:
    """The observation of the first rows and columns, `part` `[H, W, C]`, as one of the `whole`."""
    if part == whole:
        return observation
    inner, known = unmasked(observation.operator)
    if isinstance(inner, Identity):  # the rest is not seen: a mask has a spectrum
        border = [(0, 0), *((0, w - p) for w, p in zip(whole[:-1], part[:-1], strict=True)), (0, 0)]
        y, known = jnp.asarray(observation.y), jnp.asarray(known)
        y, known = (jnp.pad(a, border) for a in (y, jnp.broadcast_to(known, y.shape)))
        return dataclasses.replace(observation, y=y, operator=Mask(known))
    crop = Crop((0,) * len(part[:-1]), part[:-1])
    return dataclasses.replace(observation, operator=Composed(observation.operator, crop))


def make_method(config: Config) -> Method:
    """The method that `restore.method` selects."""
    settings = config.restore
    make = lookup(METHODS, settings.method, "restore.method")
    with keyed(f"restore.{settings.method}"):
        return make(settings.get(settings.method, Config()), config)


@contextlib.contextmanager
def _fits(method: str, codec: Codec) -> Iterator[None]:
    """Context: a ValueError of a method, for an operator or a sampler that does not suit it."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        where = "" if isinstance(codec, Plain) else THROUGH
        raise ConfigError(f"restore.method={method!r}: {error}{where}") from error


def requested(
    config: Config, generator: Generator, request: Request, observation: Observation
) -> Request:
    """A request of samples given an observation, for the `generator` of `make_restoration`."""
    request = request._replace(given={**request.given, "observation": observation})
    if (make := make_method(config).image) is None:
        return request
    x = generator.codec.decode({}, jnp.zeros((len(request.index), *generator.codec.shape)))
    cond: Cond = {"image": make(observation, x.shape[1:])}
    if not isinstance(generator.codec, Plain):
        cond = Encoded(lambda *_: cond, generator.codec)(x, x)
    return request._replace(cond={**request.cond, **cond})


def make_restoration(config: Config, generator: Generator, shape: tuple[int, ...]) -> Generator:
    """Turns a generator of samples into one of items of a `shape` given an observation.

    A request is one of `requested`. The network denoises items larger than its own in overlapping
    tiles; the method is applied to the guided denoiser. Where the network denoises what a codec
    makes of items, the observation is `encoded`.
    """
    settings, inner = config.restore, generator.guidance
    schedule, own = gaussian(generator.process).schedule, generator.codec
    assert isinstance(own, Resizable)  # by `check_restoration`
    codec, size = own.resized(shape), own.shape[:-1]
    method, overlap = make_method(config), round(settings.overlap * min(size))

    def guide(denoise: Denoiser, request: Request, times: Array) -> Denoiser:
        if codec.shape != own.shape:
            denoise = tiled(denoise, size, overlap)
        denoise = inner.guide(denoise, request, times)
        with _fits(settings.method, codec):
            given = encoded(request.given["observation"], codec)
            return method.guide(denoise, given, schedule) if method.guide else denoise

    def sampler(configured: Sampler, request: Request) -> Sampler:
        with _fits(settings.method, codec):
            given = encoded(request.given["observation"], codec)
            return method.sampler(schedule, given, configured) if method.sampler else configured

    needs = (*inner.needs, "observation")
    return dataclasses.replace(
        generator,
        codec=codec,
        guidance=inner._replace(
            guide=guide, sampler=sampler, needs=needs, group=max(inner.group, method.particles)
        ),
    )
