"""ESTOI by pystoi, STFT distances by auraloss, torch's LSTM: makes `sound_metrics.json`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only `test_sound.py`,
`test_sound_estoi.py` and `test_sound_speaker.py` use the result. `pairs` and `small_lstm` are used
there, too: only results are stored.

    python make_sound_metrics.py [FILE.g722 ...]

Given recordings of speech it also prints how far `diffusion_jax` is from pystoi on these.
"""

import json
import pathlib
import sys

import numpy as np

RATES = (8_000, 10_000, 16_000, 44_100)


def voiced(rate: int, seed: int) -> np.ndarray:
    """Something like speech, 2 s: gliding harmonics in syllables, with pauses, `[T]`."""
    rng = np.random.default_rng(seed)
    t = np.arange(2 * rate) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    harmonics = [np.cos(k * phase) * rng.uniform(0.2, 1) / k for k in range(1, 20)]
    syllables = np.clip(np.sin(2 * np.pi * (3 + seed % 3) * t), 0, 1) * (np.abs(t - 1) > 0.15)
    return 0.1 * syllables * np.sum(harmonics, 0) + 1e-5 * rng.standard_normal(len(t))


def pairs(rate: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Recordings beside noisy ones, `[T]` each, from clean to nothing but noise."""
    found = []
    for seed, snr in enumerate((30, 5, -5, -20)):
        x = voiced(rate, seed)
        noise = np.random.default_rng(100 + seed).standard_normal(len(x))
        noise *= np.sqrt(np.mean(x**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
        found.append((x, x + noise))
    return found


def small_lstm() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Weights of two layers of four cells with torch's names, and two sequences `[2, 5, 3]`."""
    rng, weights = np.random.default_rng(0), {}
    for layer, inputs in enumerate((3, 4)):
        for name, shape in (("weight_ih", (16, inputs)), ("weight_hh", (16, 4))):
            weights[f"lstm.{name}_l{layer}"] = rng.normal(size=shape)
        for name in ("bias_ih", "bias_hh"):
            weights[f"lstm.{name}_l{layer}"] = rng.normal(size=16)
    return weights, rng.normal(size=(2, 5, 3))


def main() -> None:
    """Writes the results; prints errors on speech."""
    import torch
    from auraloss.freq import MultiResolutionSTFTLoss
    from pystoi import stoi

    loss = MultiResolutionSTFTLoss()

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        x, y = (torch.from_numpy(each)[None, None] for each in (x, y))
        return float(loss.double()(y, x))

    found = {
        "estoi": {
            str(rate): [float(stoi(x, y, rate, extended=True)) for x, y in pairs(rate)]
            for rate in RATES
        },
        "stft": [distance(x, y) for x, y in pairs(16_000)],
        "lstm": _lstm(),
    }
    path = pathlib.Path(__file__).with_name("sound_metrics.json")
    path.write_text(json.dumps(found, indent=1) + "\n")
    if sys.argv[1:]:
        _compare(sys.argv[1:])


def _lstm() -> list[list[float]]:
    """The last state of `small_lstm`."""
    import torch

    weights, x = small_lstm()
    network = torch.nn.LSTM(3, 4, 2, batch_first=True).double()
    network.load_state_dict(
        {name.removeprefix("lstm."): torch.from_numpy(value) for name, value in weights.items()}
    )
    found: list[list[float]] = network(torch.from_numpy(x))[1][0][-1].tolist()
    return found


def _compare(files: list[str]) -> None:
    """Prints the largest difference from pystoi on recordings of speech with noise."""
    import G722
    from pystoi import stoi

    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    from diffusion_jax.metrics.sound_estoi import estoi

    errors, rng = [], np.random.default_rng(0)
    for number, file in enumerate(files):
        data = pathlib.Path(file).read_bytes()
        x = np.asarray(G722.G722(16_000, 64_000).decode(data), np.float64) / 2**15
        y = x + np.std(x) * 10 ** (-(number % 6) / 4) * rng.standard_normal(len(x))
        mine = estoi(x[None, :, None], y[None, :, None], 16_000)[0]
        if np.isfinite(mine):  # long enough
            errors.append(abs(mine - stoi(x, y, 16_000, extended=True)))
    print(f"ESTOI of {len(errors)} recordings is within {max(errors):.1e} of pystoi's")


if __name__ == "__main__":
    main()
