"""Log-mel spectra, Griffin-Lim of librosa, and steps of sgmse's samplers: makes `sound.npz`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only
`tests/codecs/test_sound.py` and `tests/diffusion/test_bridges.py` use the result.

Noise is drawn here: complex normal of variance 1/2 in each part, as of `torch.randn_like`. In place
of a network, `x_0_hat` and the score are linear in state and observation (`estimate`, `score`).
Everything is in float64.
"""

import pathlib

import librosa
import numpy as np
import sgmse.sdes as sdes
import torch
from sgmse import sampling
from transformers import audio_utils

SHAPE, STEPS = (2, 1, 3, 4), 6
RNG = np.random.default_rng(0)
TINY = 1e-13  # in place of 1e-8, which sgmse adds to what may be 0


def drawn(*shape: int) -> np.ndarray:
    """Complex normal, of variance 1/2 in each part."""
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)) / 2**0.5


def estimate(x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """`x_0_hat`."""
    return 0.6 * x_t + torch.cos(3 * t)[:, None, None, None] * y


def score(x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The score."""
    return (0.9 * y - x_t) * (1 + torch.cos(3 * t))[:, None, None, None]


def with_noise(noise: np.ndarray):
    """Gives out the noise in place of `torch.randn_like`."""
    left = [torch.from_numpy(z) for z in noise]
    torch.randn_like = lambda x: left.pop(0)


def main() -> None:
    """Writes inputs and results."""
    torch.set_default_dtype(torch.float64)
    found: dict[str, np.ndarray] = {}
    x_0, y = drawn(*SHAPE), drawn(*SHAPE)
    found |= {"x_0": x_0, "y": y}
    x_0, y = torch.from_numpy(x_0), torch.from_numpy(y)

    ouve, bridge = sdes.OUVESDE(1.5, 0.05, 0.5, N=STEPS), sdes.SBVESDE(2.6, 0.4, STEPS, TINY)
    found["t"] = np.array([0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    for name, sde in (("ouve", ouve), ("bridge", bridge)):
        t = torch.from_numpy(found["t"])
        many = torch.broadcast_to(x_0[:1], (len(t), *SHAPE[1:])), y[:1], t
        found[f"{name}_mean"] = sde._mean(*many).numpy()
        found[f"{name}_std"] = sde._std(t).numpy()

    found["noise"] = drawn(2 * STEPS, *SHAPE)
    # If `s_1` is not 1, the first step of sgmse's ODE is wrong by `(1 - 1 / s_1) s_t sbar_t / s_1`
    # times y, whatever it adds to what may be 0: two large weights of y do not cancel.
    unit = sdes.SBVESDE(2.6, 2 * np.log(2.6) / (2.6**2 - 1), STEPS, TINY)
    for kind, sde in (("sde", bridge), ("ode", unit)):
        with_noise(found["noise"])
        sampler = sampling.get_sb_sampler(sde, estimate, y, sampler_type=kind)
        found[f"bridge_{kind}"] = sampler()[0].numpy()

    corrector = sampling.CorrectorRegistry.get_by_name("ald")(ouve, score, 0.5, 2)
    with_noise(found["noise"])
    t = torch.tensor([0.5, 0.8])
    found["corrected"] = corrector.update_fn(x_0, y, t)[0].numpy()
    predictor = sampling.PredictorRegistry.get_by_name("reverse_diffusion")(ouve, score)
    for size in (0.1, 0.05, 0.025):
        with_noise(found["noise"])
        found[f"predicted_{size}"] = predictor.update_fn(x_0, y, t, torch.tensor(size))[0].numpy()

    x = RNG.uniform(-0.5, 0.5, 1600) * np.linspace(0, 1, 1600) ** 2
    found["sound"] = x
    filters = audio_utils.mel_filter_bank(
        257, 40, 60.0, 7600.0, 16000, norm="slaney", mel_scale="slaney"
    )
    found["log_mel"] = audio_utils.spectrogram(
        *(x, audio_utils.window_function(512, "hann"), 512, 160),
        **{"power": 2.0, "mel_filters": filters, "mel_floor": 1e-10, "log_mel": "log10"},
        dtype=np.float64,
    ).T
    framing = {"hop_length": 32, "pad_mode": "reflect"}
    magnitude = np.abs(librosa.stft(x[800:], n_fft=128, **framing))
    found["griffin_lim"] = librosa.griffinlim(
        magnitude,
        n_iter=10,
        n_fft=128,
        momentum=0.99,
        init=None,
        length=800,
        dtype=np.float64,
        **framing,
    )
    path = pathlib.Path(__file__).with_name("sound.npz")
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main()
