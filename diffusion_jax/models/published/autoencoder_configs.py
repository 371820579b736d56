"""`config.json` of diffusers' `AutoencoderKL`: an autoencoder's sizes and its latents' law."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.layers import num_groups

SCALE = 0.18215
"""Factor of latents where a file has none: Stable Diffusion v1's."""
DEFAULTS: dict[str, Any] = {
    **{"in_channels": 3, "out_channels": 3, "block_out_channels": [64], "layers_per_block": 1},
    **{"latent_channels": 4, "norm_num_groups": 32, "mid_block_add_attention": True},
    **{"scaling_factor": SCALE, "shift_factor": None, "latents_mean": None, "latents_std": None},
}
"""Of diffusers, where a file has no value."""
FIXED = {"act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True}
"""Settings of which our network has one value only."""


class AutoencoderConfig(NamedTuple):
    """An autoencoder, and how its latents `z` become `x_0 = scale (z - mean)` of variance 1."""

    network: Autoencoder
    mean: tuple[float, ...]  # of each channel
    scale: tuple[float, ...]  # of each channel


def read(settings: Mapping[str, Any], file: str) -> AutoencoderConfig:
    """The autoencoder of a `config.json`, named `file` in messages.

    As diffusers' pipelines apply them, `x_0 = scaling_factor (z - latents_mean) / latents_std` or
    `scaling_factor (z - shift_factor)`.

    Raises:
        ValueError: it is another kind of network, or some values contradict each other.
    """
    found = {**DEFAULTS, **FIXED, **settings}
    if (kind := found.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
        raise ValueError(f"{file}: _class_name={kind!r} is not AutoencoderKL")
    for key, value in FIXED.items():
        if found[key] != value:
            raise ValueError(f"{file}: {key}={found[key]!r} is not supported: only {value!r} is")
    widths, channels = found["block_out_channels"], found["latent_channels"]
    if found["in_channels"] != found["out_channels"] or any(each % widths[0] for each in widths):
        raise ValueError(
            f"{file}: in_channels={found['in_channels']}, out_channels={found['out_channels']}, "
            f"block_out_channels={widths}: as many channels must come out as go in, and widths be "
            "multiples of the first"
        )
    network = Autoencoder(
        channels=widths[0],
        channel_mults=tuple(each // widths[0] for each in widths),
        num_blocks=found["layers_per_block"],
        latent_channels=channels,
        out_channels=found["out_channels"],
        attention=found["mid_block_add_attention"],
        norm_groups=found["norm_num_groups"],
    )
    mean = found["latents_mean"] or [found["shift_factor"] or 0.0] * channels
    std = found["latents_std"] or [1.0] * channels
    if len(mean) != channels or len(std) != channels or not all(each > 0 for each in std):
        raise ValueError(
            f"{file}: latents_mean={mean} and latents_std={std} must have a value for each of "
            f"latent_channels={channels}, and the latter be positive"
        )
    scale = tuple(found["scaling_factor"] / each for each in std)
    return AutoencoderConfig(network, tuple(map(float, mean)), scale)


def write(
    network: Autoencoder,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int,
    scale: float = 1.0,
) -> dict[str, Any]:
    """The `config.json` of an autoencoder of pictures whose larger side is `size`.

    `mean` and `std` are those of each channel of its latents, or None where one `scale` stands for
    them, as in Stable Diffusion v1.

    Raises:
        ValueError: its group norms differ in their numbers of groups, as a file cannot say.
    """
    levels = len(network.channel_mults)
    return {
        "_class_name": "AutoencoderKL",
        **FIXED,
        "in_channels": network.out_channels,
        "out_channels": network.out_channels,
        "block_out_channels": _widths(network),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": network.num_blocks,
        "latent_channels": network.latent_channels,
        "norm_num_groups": groups_of(network),
        "mid_block_add_attention": network.attention,
        "sample_size": size,
        "scaling_factor": scale,
        "latents_mean": None if mean is None else [float(each) for each in mean],
        "latents_std": None if std is None else [float(each) for each in std],
    }


def _widths(network: Autoencoder) -> list[int]:
    return [network.channels * mult for mult in network.channel_mults]


def groups_of(network: Autoencoder) -> int:
    """The number of groups of all its norms.

    Raises:
        ValueError: they are not the same, or do not divide the channels.
    """
    widths = _widths(network)
    found = {network.norm_groups or num_groups(width) for width in widths}
    if len(found) > 1 or any(width % groups for width in widths for groups in found):
        raise ValueError(
            f"norm_groups={network.norm_groups} must divide all widths {widths} of the levels, for "
            "diffusers' format has one number of groups for all norms: set it, to 8 or so"
        )
    return found.pop()
