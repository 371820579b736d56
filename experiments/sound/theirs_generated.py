"""Trains a U-Net of audio-diffusion-pytorch for some minutes of one core, and draws sounds.

    PYTHONPATH=. taskset -c 0 python experiments/sound/theirs_generated.py --root sounds --set drums

Its packages are in requirements.txt beside this file. Network, objective, guidance and sampler are
the package's; sounds and their loudness are those of our trainings, and so are the optimizer's
settings, as its own are for much longer trainings. See generated.md.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch
from torch_ema import ExponentialMovingAverage

from diffusion_jax.data import Dataset, train_batches
from experiments.sound.generated import asked_for, dataset_of, dataset_parser, save
from experiments.sound.theirs_trained import fitted

NETWORK: dict[str, Any] = {
    "channels": (32, 64, 128, 128, 192),
    "factors": (4, 4, 4, 2, 2),
    "items": (1, 1, 1, 1, 2),
    "attentions": (0, 0, 0, 1, 1),
    "cross_attentions": (0, 0, 0, 1, 1),
    "attention_heads": 4,
    "attention_features": 32,
    "embedding_features": 128,
    "modulation_features": 256,
}
"""Published for music: 9 levels of up to 1,024 channels."""
BATCH, STEPS, GUIDANCE, DROPOUT = 32, 50, 2.0, 0.1
ARM = "audio-diffusion-pytorch"


class Model(torch.nn.Module):
    """The package's model of waveforms, with an embedding of classes to attend to."""

    def __init__(self, num_classes: int, sizes: dict[str, Any]) -> None:
        super().__init__()
        from audio_diffusion_pytorch import DiffusionModel, UNetV0, VDiffusion, VSampler

        self.inner = DiffusionModel(
            net_t=UNetV0,
            in_channels=1,
            diffusion_t=VDiffusion,
            sampler_t=VSampler,
            use_embedding_cfg=True,
            embedding_max_length=1,
            **sizes,
        )
        self.classes = torch.nn.Embedding(num_classes, sizes["embedding_features"])

    def loss(self, x: np.ndarray, label: np.ndarray) -> Any:
        """Of waveforms `[B, T, 1]` and classes `[B]`."""
        wave = torch.from_numpy(x).float().transpose(1, 2)
        embedding = self.classes(torch.from_numpy(label).long())[:, None]
        return self.inner(wave, embedding=embedding, embedding_mask_proba=DROPOUT)

    def draw(self, label: np.ndarray, length: int, steps: int) -> np.ndarray:
        """Waveforms `[B, T, 1]`."""
        with torch.no_grad():
            found = self.inner.sample(
                torch.randn(len(label), 1, length),
                num_steps=steps,
                embedding=self.classes(torch.from_numpy(label).long())[:, None],
                embedding_scale=GUIDANCE,
            )
        return found.transpose(1, 2).numpy()


def batches(dataset: Dataset, scale: float, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Waveforms of unit power and classes, without end."""
    for items in train_batches(dataset, batch_size=batch, seed=0):
        x = np.asarray(dataset.kind.decode(items["x"]))
        yield x / scale, np.asarray(items["cond"]["label"])


def main() -> None:
    """Trains, draws and saves."""
    parser = dataset_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=2400.0, help="of one core, for training")
    parser.add_argument("--num", type=int, default=512, help="of sounds to draw")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the sampler")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = dataset_of(options.set, options.root)
    scale = float(np.std(dataset.kind.decode(dataset.arrays("train")[0])))
    model = Model(dataset.num_classes, NETWORK)
    parameters = list(model.parameters())
    print(f"{sum(p.numel() for p in parameters):,} parameters")
    average = ExponentialMovingAverage(parameters, 0.999)
    losses = fitted(
        parameters, average, batches(dataset, scale, BATCH), model.loss, options.seconds
    )
    average.copy_to(parameters)
    labels, length = asked_for(dataset, options.num), dataset.kind.shape[0]
    parts = np.split(labels, range(BATCH, len(labels), BATCH))
    found = [model.draw(part, length, options.steps) for part in parts]
    items = dataset.kind.encode(jax.numpy.asarray(np.concatenate(found) * scale))
    out = save(options.out, options.set, ARM, np.asarray(items), labels)
    print(f"{len(losses)} steps of {BATCH}, {len(labels)} sounds: {out}")


if __name__ == "__main__":
    main()
