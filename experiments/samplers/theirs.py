"""Schedulers of diffusers and samplers of k-diffusion, for a given denoiser."""

import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from unittest import mock

import diffusers
import numpy as np
import torch

# The package itself imports training code (wandb, clip, ...), and its `utils` torchvision; its
# samplers need neither.
_spec, _package = importlib.util.find_spec("k_diffusion"), types.ModuleType("k_diffusion")
if _spec is None or _spec.submodule_search_locations is None:
    raise ImportError("k_diffusion is not installed: see requirements.txt", name="k_diffusion")
_package.__path__ = list(_spec.submodule_search_locations)
sys.modules["k_diffusion"] = _package
for _name in ("torchvision", "torchvision.transforms"):
    sys.modules[_name] = mock.MagicMock()
from k_diffusion import sampling as k_sampling  # noqa: E402

TABLE = 1000
REFUSALS = (ValueError, TypeError, IndexError, RuntimeError, AssertionError)
"""Exceptions for settings or numbers of steps that a scheduler does not support."""
Denoise = Callable[[np.ndarray, float], np.ndarray]
"""`(x_t, ratio) -> x_0_hat` for `x_t` of variance 1 with noise over signal `ratio`."""
Job = Callable[..., tuple[np.ndarray, int]]
"""`(denoise, x) -> samples` and the number of evaluations."""


class Counted:
    """A denoiser for tensors that counts its calls."""

    def __init__(self, denoise: Denoise):
        self._denoise, self.calls = denoise, 0

    def __call__(self, x_t: torch.Tensor, ratio: float) -> torch.Tensor:
        self.calls += 1
        return torch.from_numpy(np.array(self._denoise(x_t.numpy(), ratio)))


def run_diffusers(
    denoise: Denoise, ratios: np.ndarray, x: np.ndarray, steps: int, name: str, config: dict
) -> tuple[np.ndarray, int]:
    """Samples of a scheduler, and its number of evaluations.

    Args:
        denoise: the denoiser.
        ratios: noise over signal of the schedule at `i / TABLE`, `i = 1 .. TABLE`.
        x: standard normal noise.
        steps: `num_inference_steps`.
        name: name of the class.
        config: its settings.
    """
    counted = Counted(denoise)
    bars = np.concatenate([[1.0], 1 / (1 + ratios**2)])
    if name == "IPNDMScheduler":  # always uses its own cosine schedule
        scheduler = diffusers.IPNDMScheduler()
    else:
        scheduler = getattr(diffusers, name)(
            trained_betas=1 - bars[1:] / bars[:-1], prediction_type="v_prediction", **config
        )
    scheduler.set_timesteps(steps)
    x_t = torch.from_numpy(x.copy()) * scheduler.init_noise_sigma
    scale = getattr(scheduler, "scale_model_input", lambda x_t, timestep: x_t)
    for timestep in scheduler.timesteps:
        if name == "IPNDMScheduler":
            ratio = float(np.tan(np.clip(float(timestep), 0, 1 - 1e-5) * np.pi / 2))
        else:  # timesteps may lie between two entries
            at = np.interp(float(timestep), np.arange(TABLE), np.log(ratios))
            ratio = float(np.exp(at))
        seen = scale(x_t, timestep)
        alpha = 1 / (1 + ratio**2) ** 0.5
        x_0 = counted(seen.float(), ratio)
        eps = (seen - alpha * x_0) / (alpha * ratio)
        v = alpha * eps - alpha * ratio * x_0
        x_t = scheduler.step(v, timestep, x_t).prev_sample
    return x_t.numpy(), counted.calls


def run_k_diffusion(
    denoise: Denoise, sigmas: np.ndarray, x: np.ndarray, name: str, arguments: dict
) -> tuple[np.ndarray, int]:
    """Samples on the noise levels `sigmas` (with alpha = 1), and the number of evaluations."""
    counted = Counted(denoise)

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = float(sigma[0])
        return counted(x / (1 + level**2) ** 0.5, level)

    start = torch.from_numpy(x.copy()) * float(sigmas[0])
    levels = torch.from_numpy(sigmas.astype(np.float32))
    if name == "sample_dpm_fast":
        low, high = float(levels[-2]), float(levels[0])
        found = k_sampling.sample_dpm_fast(
            model, start, low, high, len(sigmas) - 1, disable=True, eta=0.0
        )
    else:
        found = getattr(k_sampling, name)(model, start, levels, disable=True, **arguments)
    return found.numpy(), counted.calls


SPACED: list[dict] = [{"timestep_spacing": s} for s in ("trailing", "linspace", "leading")]
SIGMAS: list[dict] = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]
DIFFUSERS: dict[str, tuple[str, list[dict]]] = {
    "DDIM": ("DDIMScheduler", [{"clip_sample": False, **s} for s in SPACED]),
    "Euler": ("EulerDiscreteScheduler", [*SPACED, *SIGMAS]),
    "Heun": ("HeunDiscreteScheduler", [*SPACED, *SIGMAS]),
    "KDPM2": ("KDPM2DiscreteScheduler", [*SPACED, *SIGMAS]),
    "LMS": ("LMSDiscreteScheduler", [*SPACED, *SIGMAS]),
    "PNDM": ("PNDMScheduler", [{"skip_prk_steps": True, **s} for s in SPACED]),
    "IPNDM": ("IPNDMScheduler", [{}]),
    **{
        f"{label}-{order}": (
            name,
            [{"solver_order": order, **s} for s in [*SPACED, *SIGMAS, *more]],
        )
        for label, name, more in (
            ("DPM++ multistep", "DPMSolverMultistepScheduler", [{"use_lu_lambdas": True}]),
            ("DPM++ singlestep", "DPMSolverSinglestepScheduler", []),
            ("DEIS", "DEISMultistepScheduler", []),
            ("UniPC", "UniPCMultistepScheduler", []),
        )
        for order in (2, 3)
    },
}
K_DIFFUSION: dict[str, dict] = {
    "sample_euler": {},
    "sample_heun": {},
    "sample_dpm_2": {},
    "sample_lms": {},
    "sample_dpm_fast": {},
    "sample_dpmpp_2m": {},
    "sample_dpmpp_2s_ancestral": {"eta": 0.0},
    "sample_dpmpp_2m_sde": {"eta": 0.0},
    "sample_dpmpp_3m_sde": {"eta": 0.0},
}


def k_grids(steps: int, high: float) -> dict[str, np.ndarray]:
    """k-diffusion's noise levels `[steps + 1]`, ending in 0; `high` is the largest available."""
    low, high = 0.002, min(80.0, high)
    return {
        "karras": k_sampling.get_sigmas_karras(steps, low, high).numpy(),
        "karras, sigma_min 0.03": k_sampling.get_sigmas_karras(steps, 0.03, high).numpy(),
        "exponential": k_sampling.get_sigmas_exponential(steps, low, high).numpy(),
        "polyexponential": k_sampling.get_sigmas_polyexponential(steps, low, high, 2.0).numpy(),
    }


def all_runs(
    denoise: Denoise, ratios: np.ndarray, x: np.ndarray, evaluations: int
) -> Iterator[tuple[str, str, str, np.ndarray, Callable[..., np.ndarray]]]:
    """All methods with exactly this many evaluations, with every grid that they offer.

    As steps cost one to three evaluations, and the last one fewer, all numbers of steps are tried.

    Yields:
        Package, method, settings in words, its samples from `x`, and `(denoise, x) -> samples`.
    """
    jobs: list[tuple[str, str, str, Job]] = []
    for steps in range(evaluations // 3 + 1, evaluations + 1):
        for label, (name, configs) in DIFFUSERS.items():
            for config in configs:
                words = ", ".join(f"{k}={v}" for k, v in config.items() if k != "solver_order")
                job: Job = functools.partial(
                    run_diffusers, ratios=ratios, steps=steps, name=name, config=config
                )
                jobs.append(("diffusers", label, words, job))
        for name, arguments in K_DIFFUSION.items():
            for grid, sigmas in k_grids(steps, float(ratios[-1])).items():
                job = functools.partial(
                    run_k_diffusion, sigmas=sigmas, name=name, arguments=arguments
                )
                jobs.append(("k-diffusion", name.removeprefix("sample_"), grid, job))
    for package, label, words, run in jobs:
        try:
            cost = run(lambda x_t, ratio: 0 * x_t, x=x[:2])[1]
        except REFUSALS:
            continue
        if cost == evaluations:
            again = lambda denoise, x, run=run: run(denoise, x=x)[0]  # noqa: E731
            yield package, label, words, again(denoise, x), again
