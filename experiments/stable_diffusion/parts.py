"""How far one forward of each part is from diffusers', at full size, in float32.

    PYTHONPATH=. python experiments/stable_diffusion/parts.py FOLDER --theirs-python PYTHON

`FOLDER` is that of bench.py. Prints for each part, and each size of the picture, the largest
difference over the largest value. See README.md.
"""

import functools
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import sd15
from diffusion_jax.codecs.latents import CODEC
from diffusion_jax.data import Images
from diffusion_jax.from_config import Config
from diffusion_jax.from_config.codecs import make_codec
from diffusion_jax.from_config.text import tokeniser_file
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published.files import read_part
from diffusion_jax.models.unet import UNet
from diffusion_jax.system.keys import make_key
from diffusion_jax.text import load_tokeniser
from experiments.stable_diffusion.bench import parser_of

HERE = Path(__file__).parent
Arrays = dict[str, Any]
INDEX = 500  # of the noise level in the published table


def inputs(config: Config, sizes: list[tuple[int, int]]) -> Arrays:
    """Random inputs of all parts; `sizes` are the height and width of pictures."""
    rng, clip = np.random.default_rng(0), config.text.clip
    known = load_tokeniser(tokeniser_file(config)).vocabulary
    factor = 2 ** (len(config.codec.autoencoder.channel_mults) - 1)
    found = {
        "tokens": rng.integers(0, known, (1, config.text.length)),
        "index": np.array([INDEX]),
        "text": rng.standard_normal((1, config.text.length, clip.width), np.float32),
    }
    for high, wide in sizes:
        picture = rng.uniform(-1, 1, (1, high, wide, 3))
        found[f"picture {high}x{wide}"] = picture.astype(np.float32)
        shape = (1, high // factor, wide // factor, config.codec.autoencoder.latent_channels)
        found[f"latents {high}x{wide}"] = rng.standard_normal(shape, np.float32)
    return found


def outputs(config: Config, given: Arrays) -> Arrays:
    """The results of each part of `weights.source`, of which one is in memory at a time."""
    return text(config, given) | autoencoder(config, given) | noise(config, given)


def of_size(given: Arrays, kind: str) -> Arrays:
    """The inputs of a kind by the size of the picture."""
    split = {name: name.split(" ") for name in given}
    return {size[0]: given[name] for name, (first, *size) in split.items() if first == kind}


def text(config: Config, given: Arrays) -> Arrays:
    """Features of the tokens."""
    tokens = given["tokens"].astype(np.int32)
    known = load_tokeniser(tokeniser_file(config)).vocabulary
    net = TextTower(**config.text.clip, vocabulary=known)
    return {"text": np.asarray(forward(config, "text_encoder", net)(tokens)[0])}


def autoencoder(config: Config, given: Arrays) -> Arrays:
    """Laws of the latents of pictures, and pictures of latents."""
    codec, frozen = make_codec(config, Images(config.data.shape))
    params = {CODEC: jax.device_put(frozen[CODEC].load())}
    found = {}
    for size, x in of_size(given, "picture").items():
        moments = np.asarray(jax.jit(codec.moments)(params, x))  # type: ignore[attr-defined]
        found[f"mean {size}"], found[f"log-variance {size}"] = np.split(moments, 2, axis=-1)
    for size, z in of_size(given, "latents").items():
        scaled = z * config.codec.autoencoder.scale
        found[f"decoded {size}"] = np.asarray(jax.jit(codec.decode)(params, scaled))
    return found


def noise(config: Config, given: Arrays) -> Arrays:
    """The noise that the U-Net finds in latents."""
    width, channels = config.text.clip.width, config.codec.autoencoder.latent_channels
    net = UNet(**config.model.unet, context_dim=width, out_channels=channels)
    index, cond = given["index"].astype(np.float32), {"text": given["text"]}
    found, run = {}, None
    for size, z in of_size(given, "latents").items():
        run = run or forward(config, "unet", net, z, index, cond)
        found[f"noise {size}"] = np.asarray(run(z, index, cond))
    return found


def forward(config: Config, part: str, net: Any, *example: Any) -> Callable[..., Any]:
    """A network with its published weights."""
    example = example or (np.zeros((1, config.text.length), np.int32),)
    template = jax.eval_shape(net.init, make_key(0), *example)
    variables = jax.device_put(read_part(Path(config.weights.source), part, template))
    return functools.partial(jax.jit(net.apply), variables)


def compare(config: Config, theirs_python: str, sizes: list[tuple[int, int]]) -> list[str]:
    """The rows of the table."""
    given = inputs(config, sizes)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{name}.npz") for name in ("inputs", "theirs")]
        np.savez(files[0], **given)
        script = HERE / "theirs_parts.py"
        command = [theirs_python, script, config.weights.source, *files]
        subprocess.run(command, check=True)
        theirs = dict(np.load(files[1]))
    rows = []
    for name, ours in outputs(config, given).items():
        apart = np.abs(ours - theirs[name]).max() / np.abs(theirs[name]).max()
        kind, _, size = name.partition(" ")
        rows.append(f"| {kind} | {size} | {apart:.1e} |")
    return rows


def main() -> None:
    """Prints the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "512x768"], help="of pictures")
    asked = parser.parse_args()
    config = sd15.get_config()
    config.weights.source = asked.folder
    sizes = [(int(high), int(wide)) for high, wide in (size.split("x") for size in asked.sizes)]
    print("| result | picture | largest difference / largest value |\n|---|---|---|")
    print("\n".join(compare(config, asked.theirs_python, sizes)), flush=True)


if __name__ == "__main__":
    main()
