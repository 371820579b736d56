"""Trains sgmse for some minutes of one core, and denoises the test recordings. See README.md.

    PYTHONPATH=. taskset -c 0 python experiments/sound/theirs_trained.py --seconds 1200

Its packages are in requirements.txt beside this file. Processes, losses, network and samplers are
the package's; windows and noise are those of our trainings, and so are the optimizer's settings,
as its own are for much longer trainings.
"""

import argparse
import json
import math
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from configs import speech_enhanced
from diffusion_jax.data import load_dataset, train_batches
from diffusion_jax.data.sound_reading import read_sound
from diffusion_jax.from_config.sound_damage import condition_of_sounds
from diffusion_jax.system.keys import make_key
from experiments.sound.arms import noise_of
from experiments.sound.folders import written

WITHOUT = {"pesq": "pesq", "torch_pesq": "PesqLoss", "torchaudio": "load", "librosa": "resample"}
"""Modules and what sgmse imports of them, to read files and to measure: neither is used here."""
FRAMES, HOP = 256, 128
LENGTH = (FRAMES - 1) * HOP  # samples of a window
NETWORK = {"nf": 16, "ch_mult": (1, 1, 2, 2), "num_res_blocks": 1, "attn_resolutions": ()}
"""Published: 128, (1, 1, 2, 2, 2, 2, 2), 2, (16,): 65 M parameters and 100 times the work."""
ARMS: dict[str, dict[str, Any]] = {
    "sgmse bridge": {
        "sde": "sbve",
        "loss_type": "data_prediction",
        "k": 2.6,
        "c": 0.4,
        "N": 20,
    },
    "sgmse OUVE": {
        "sde": "ouve",
        "loss_type": "score_matching",
        "network_scaling": "1/sigma",
        "theta": 1.5,
        "sigma_min": 0.05,
        "sigma_max": 0.5,
        "N": 15,
    },
}
"""As published, but for fewer steps of the samplers: an evaluation of this network costs several of
ours. OUVE evaluates it twice in a step."""
RATE_OF_LEARNING, WARMUP, CLIP = 1e-3, 0.04, 1.0
BATCH = 2


def sgmse() -> Any:
    """The package's module of models."""
    import pytorch_lightning  # noqa: F401  which looks for some of these itself

    for name, has in WITHOUT.items():
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            setattr(sys.modules[name], has, None)
    from sgmse import model

    return model


def network(arm: str, sizes: dict[str, Any]) -> Any:
    """A model that is not trained."""
    module = sgmse()
    from sgmse.data_module import SpecsDataModule

    torch.manual_seed(0)
    settings = {**ARMS[arm], **sizes, "base_dir": "", "gpus": 0}
    return module.ScoreModel("ncsnpp_v2", data_module_cls=SpecsDataModule, **settings)


def windows(data: Path, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clean and noisy windows `[B, T]`, made as in a training of ours."""
    config = speech_enhanced.get_config()
    config.update_from_flattened_dict(noise_of(data))
    dataset = load_dataset("recordings", data_dir=str(data / "train"), cut="padded", length=LENGTH)
    noisy = jax.jit(condition_of_sounds("noisy", config.image_condition.noisy, dataset))
    for step, items in enumerate(train_batches(dataset, batch_size=batch, seed=0)):
        keys = jax.random.split(jax.random.fold_in(make_key(0), step), batch)
        x = items["x"]
        yield np.array(x[..., 0]), np.array(noisy(x, keys)["image"][..., 0])


def spectra(model: Any, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """Both `[B, T]` as the model takes them, at the scale of the noisy ones."""
    scale = np.abs(y).max(1, keepdims=True)
    both = (torch.from_numpy(each / scale).float() for each in (x, y))
    of_x, of_y = (model._forward_transform(model._stft(each))[:, None] for each in both)
    return of_x, of_y


def trained(model: Any, data: Path, seconds: float, batch: int) -> list[float]:
    """Trains for so many seconds of CPU time; returns the loss of each step."""
    model.train(True)
    return fitted(
        list(model.dnn.parameters()),
        model.ema,
        windows(data, batch),
        lambda x, y: model._step(spectra(model, x, y), 0),
        seconds,
    )


def fitted(
    parameters: list[Any],
    average: Any,
    source: Iterator[Any],
    loss_of: Callable[..., Any],
    seconds: float,
) -> list[float]:
    """Trains parameters for so many seconds of CPU time; returns the loss of each step.

    Args:
        parameters: tensors.
        average: of them, of torch_ema.
        source: of the arguments of `loss_of`.
        loss_of: a batch.
        seconds: data are ready when they begin.
    """
    optimizer = torch.optim.AdamW(parameters, lr=RATE_OF_LEARNING, weight_decay=0)
    first, losses = next(source), list[float]()
    start = time.process_time()  # JAX has compiled
    for one in (one for several in ([first], source) for one in several):
        done = (time.process_time() - start) / seconds
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE_OF_LEARNING * min(done / WARMUP, (1 + math.cos(math.pi * done)) / 2)
        loss = loss_of(*one)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        average.update(parameters)
        losses.append(loss.item())
        if len(losses) % 20 == 0:
            print(f"step {len(losses)}  {done:.0%}  loss {np.mean(losses[-20:]):.4f}", flush=True)
    return losses


def sample(model: Any, y: np.ndarray) -> np.ndarray:
    """A sample `[T]` given a recording, as `ScoreModel.enhance` draws it, which needs a GPU."""
    from sgmse.util.other import pad_spec

    scale = float(np.abs(y).max())
    spectrum = pad_spec(spectra(model, y[None], y[None])[1])
    if type(model.sde).__name__ == "SBVESDE":
        sampler = model.get_sb_sampler(sde=model.sde, y=spectrum, sampler_type="ode")
    else:
        sampler = model.get_pc_sampler("reverse_diffusion", "ald", spectrum, snr=0.5)
    with torch.no_grad():
        found = model.to_audio(sampler()[0].squeeze(), len(y))
    return found.numpy() * scale


def main() -> None:
    """Trains an arm and restores the recordings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    parser.add_argument("--arm", choices=[*ARMS], default="sgmse bridge")
    parser.add_argument("--seconds", type=float, default=1200.0, help="of one core, for training")
    parser.add_argument("--batch", type=int, default=BATCH)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = network(options.arm, NETWORK)
    print(f"{sum(p.numel() for p in model.dnn.parameters()):,} parameters")
    losses = trained(model, options.data, options.seconds, options.batch)
    model.eval()
    out = options.data / "restored" / options.arm
    out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), options.data / f"{options.arm}.pt")
    rows = json.loads((options.data / "test" / "test.json").read_text(encoding="utf-8"))
    for number, row in enumerate(rows):
        torch.manual_seed(number)
        y = read_sound(options.data / "test" / "noisy" / f"{row['name']}.wav")[0][:, 0]
        about = {"method": options.arm, "steps": len(losses), **row}
        written(out / f"{row['name']}.wav", sample(model, y), about)
    print(f"{options.arm}: {len(losses)} steps of {options.batch}, {len(rows)} recordings: {out}")


if __name__ == "__main__":
    main()
