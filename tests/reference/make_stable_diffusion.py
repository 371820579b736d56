"""Float64 outputs of the networks of Stable Diffusion: makes `stable_diffusion.npz`.

Run it in an environment with `requirements.txt`, with transformers as for `make_text.py`; it writes
next to itself. Only `test_stable_diffusion.py` uses the result. Weights and inputs are those of
`small_stable_diffusion.py`.
"""

import pathlib
from unittest import mock

import numpy as np
import small_stable_diffusion as small
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from transformers import CLIPTextConfig, CLIPTextModel


def loaded(net: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
    """`net` in float64 with the weights of their names in the files."""
    net = net.double().eval()
    state = {
        name: torch.from_numpy(small.drawn(prefix + name, tuple(value.shape)))
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return net


def first(x: np.ndarray) -> torch.Tensor:
    """Channels first."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def last(x: torch.Tensor) -> np.ndarray:
    """Channels last."""
    return np.moveaxis(x.numpy(), 1, -1)


def pictures(config: dict, name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """The law of the latents of pictures, and what its mean is decoded to."""
    net = loaded(AutoencoderKL(**config))
    law = net.encode(first(x)).latent_dist
    found = {"mean": law.mean, "logvar": law.logvar, "picture": net.decode(law.mean).sample}
    return {f"{name}_{key}": last(value) for key, value in found.items()}


def texts(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Features of the text encoder, without and with CLIP skip as diffusers' pipelines do it."""
    net = loaded(CLIPTextModel(CLIPTextConfig(**small.TEXT)), "text_model.")
    out = net(torch.from_numpy(tokens), output_hidden_states=True)
    final = getattr(net, "text_model", net).final_layer_norm
    skipped = {f"text_skip_{skip}": final(out.hidden_states[-(skip + 1)]) for skip in (1, 2)}
    both = {"text": out.last_hidden_state, **skipped}
    return {name: value.numpy() for name, value in both.items()}


def main() -> None:
    """Writes the outputs."""
    given = small.inputs()
    unet = loaded(UNet2DConditionModel(**small.UNET))
    # Embeddings of time are float32 in diffusers, which alone would be a difference of 1e-5.
    with torch.no_grad(), mock.patch.object(torch, "float32", torch.float64):
        embedding = get_timestep_embedding(
            torch.tensor(small.INDICES), 32, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        noise = unet(
            first(given["x_t"]), torch.from_numpy(given["index"]), torch.from_numpy(given["text"])
        ).sample
        arrays = {
            "embedding": embedding.numpy(),
            "noise": last(noise),
            **pictures(small.AUTOENCODER, "autoencoder", given["picture"]),
            **pictures(small.LEAST_AUTOENCODER, "least_autoencoder", given["picture"]),
            **texts(given["tokens"]),
        }
    for name, array in arrays.items():
        assert array.dtype == np.float64, name
        print(name, array.shape, np.abs(array).max(), array.std())
    np.savez(pathlib.Path(__file__).with_name("stable_diffusion.npz"), **arrays)


if __name__ == "__main__":
    main()
