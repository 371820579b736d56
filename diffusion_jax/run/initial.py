"""Parameters that a training starts from: those of another run."""

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.identity import folder_and_step
from diffusion_jax.run.trained import open_run
from diffusion_jax.types import Array, Params


def initial_params(words: str, shapes: Params, channels: int) -> Params:
    """The parameters of `train.init_from`, FOLDER@STEP, in the average which that run samples with.

    A network that takes an image beside samples of so many `channels` may start from one that takes
    none: its input layer's weights of the new channels are 0, so that it begins as that network
    (InstructPix2Pix, Brooks et al. 2023, section 3.2).

    Raises:
        ConfigError: there are none, or their names or shapes are not `shapes`.
    """
    what = f"train.init_from={words!r}"
    folder, step = folder_and_step(words, "train.init_from")
    found = flatten_dict(open_run(folder, step=step, what=what).params, sep="/")
    own = flatten_dict(shapes, sep="/")
    both = {
        name: [tree[name].shape if name in tree else None for tree in (found, own)]
        for name in {**own, **found}
    }
    other = [name for name, (there, here) in both.items() if there != here]
    if len(other) == 1 and None not in shapes[other[0]]:
        wider = _widened(found[other[0]], own[other[0]].shape, channels)
        if wider is not None:
            return unflatten_dict({**found, other[0]: wider}, sep="/")
    for name in other:
        there, here = (f"of shape {s}" if s is not None else "not there" for s in both[name])
        raise ConfigError(f"{what}: its network is another one: {name} is {there}, here {here}")
    return unflatten_dict(found, sep="/")


def _widened(kernel: Array, shape: tuple[int, ...], channels: int) -> Array | None:
    """A kernel `[..., pixels x channels, features]` with zeros for further channels of each pixel.

    None if `shape` differs in anything else. See `layers.beside` and `layers.patchify`.
    """
    if kernel.ndim < 2 or kernel.ndim != len(shape):
        return None
    *sides, inputs, features = kernel.shape
    pixels, rest = divmod(inputs, channels)
    if rest or shape[-2] < inputs or shape != (*sides, shape[-2] // pixels * pixels, features):
        return None
    ends = [(0, 0)] * (len(sides) + 1) + [(0, shape[-2] // pixels - channels), (0, 0)]
    return jnp.pad(kernel.reshape(*sides, pixels, channels, features), ends).reshape(shape)
