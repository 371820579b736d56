"""Trajectories of published samplers with a known denoiser: makes `samplers.npz`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only `test_parity.py`
uses the result, which has for every trajectory the states `x`, the `times` or `sigmas` of its
steps, and the `noise`.

The denoiser is the exact one of `oracles.three_components`, rewritten in `doubled.py`. Everything
is in float64: diffusers' tables and some of its states are float32, with errors of 3e-7 to 2e-5, so
that `float32` is replaced by `float64` in the module of a scheduler while it runs.
"""

import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import pathlib
import platform
import sys
import types
from collections.abc import Callable
from unittest import mock

import diffusers
import numpy as np
import torch
from doubled import MIXTURE, doubled, posterior_mean

# The package itself imports training code (wandb, clip, ...), and its `utils` torchvision; its
# samplers need neither.
_package = types.ModuleType("k_diffusion")
_package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
sys.modules["k_diffusion"] = _package
for _name in ("torchvision", "torchvision.transforms"):
    sys.modules[_name] = mock.MagicMock()
from k_diffusion import sampling as k_sampling  # noqa: E402

torch.set_default_dtype(torch.float64)

TABLE = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
NUM, STEPS = 4, 20
SIGMA_MAX, SIGMA_MIN = 80.0, 0.01


class Noise:
    """Draws normal noise and records it."""

    def __init__(self) -> None:
        self._rng, self.drawn = np.random.default_rng(1), []

    def __call__(self, *args: object, **kwargs: object) -> torch.Tensor:
        self.drawn.append(self._rng.normal(size=(NUM, 2)))
        return torch.from_numpy(self.drawn[-1])


def start() -> torch.Tensor:
    """The initial noise of every run, `[NUM, 2]`, with standard deviation 1."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(NUM, 2)))


def follow(
    scheduler: object,
    timesteps: torch.Tensor,
    x: torch.Tensor,
    level: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    output: Callable[..., torch.Tensor],
    **extra: object,
) -> tuple[list[float], np.ndarray]:
    """The timesteps visited, and the states there and at the end, `[steps + 1, NUM, 2]`.

    States are the network's inputs, whatever the scheduler stores. Where it visits a timestep
    twice, the first visit is a trial point (Heun, PNDM), and only the last one counts.

    Args:
        scheduler: one of diffusers', with its timesteps set.
        timesteps: the timesteps to visit.
        x: the first state, as stored by the scheduler.
        level: `timestep -> (alpha, sigma)`.
        output: `(x_t, x_0, eps, alpha, sigma) ->` the network output that the scheduler expects.
        extra: further arguments of the scheduler's `step`.
    """
    scale, states = getattr(scheduler, "scale_model_input", lambda x, timestep: x), {}
    for timestep in timesteps:
        x_t, (alpha, sigma) = scale(x, timestep), level(timestep)
        states[float(timestep)] = x_t.numpy().copy()
        x_0 = posterior_mean(x_t, alpha, sigma)
        y = output(x_t, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)
        x = scheduler.step(y, timestep, x, **extra).prev_sample
    assert x.dtype == torch.float64
    return list(states), np.stack([*states.values(), x.numpy()])


def run_table(name: str, eta: float | None = None, **config: object) -> dict:
    """A scheduler of diffusers on a table of 1,000 betas, DDPM's unless `config` says otherwise."""
    scheduler_class, noise = getattr(diffusers, name), Noise()
    with doubled(scheduler_class, noise):
        scheduler = scheduler_class(**{**TABLE, "timestep_spacing": "trailing", **config})
        scheduler.set_timesteps(STEPS)
        table = scheduler.alphas_cumprod
        keeps_alpha_1 = scheduler.init_noise_sigma != 1
        timesteps, states = follow(
            scheduler,
            scheduler.timesteps,
            start() / (table[scheduler.timesteps[0].long()] ** 0.5 if keeps_alpha_1 else 1.0),
            lambda timestep: (table[timestep.long()] ** 0.5, (1 - table[timestep.long()]) ** 0.5),
            # The second half is the variance, in [-1, 1].
            (lambda x_t, x_0, eps, *_: torch.cat([eps, torch.cos(x_t)], dim=1))
            if config.get("variance_type") == "learned_range"
            else (lambda x_t, x_0, eps, *_: eps),
            **({} if eta is None else {"eta": eta}),
        )
    to_zero = getattr(scheduler, "sigmas", [0.0])[-1] == 0  # else to the table's first entry
    times = [(timestep + 1) / 1000 for timestep in timesteps] + [0.0 if to_zero else 1 / 1000]
    return {"x": states, "times": np.array(times), "noise": np.array(noise.drawn)}


def run_cosine(name: str) -> dict:
    """A scheduler of diffusers that has its own schedule, `cos(pi t / 2)` and `sin(pi t / 2)`.

    From its second time on: at the first one alpha is 0, and x_0_hat is taken as 0.
    """
    scheduler_class = getattr(diffusers, name)
    with doubled(scheduler_class, Noise()):
        scheduler = scheduler_class()
        scheduler.set_timesteps(STEPS)
        scheduler.set_begin_index(1)
        times, states = follow(
            scheduler,
            scheduler.timesteps[1:],
            start(),
            lambda t: (torch.cos(torch.pi * t / 2), torch.sin(torch.pi * t / 2)),
            lambda x_t, x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
        )
    return {"x": states, "times": np.array([*times, 0.0])}


def run_flow(name: str) -> dict:
    """A scheduler of diffusers for flow matching, `alpha = 1 - t` and `sigma = t`, from t = 1."""
    scheduler_class = getattr(diffusers, name)
    with doubled(scheduler_class, Noise()):
        scheduler = scheduler_class()
        scheduler.set_timesteps(STEPS)
        timesteps, states = follow(
            scheduler,
            scheduler.timesteps,
            start(),
            lambda timestep: (1 - timestep / 1000, timestep / 1000),
            lambda x_t, x_0, eps, *_: eps - x_0,
        )
    return {"x": states, "times": np.array([*timesteps, 0.0]) / 1000}


def run_score_sde() -> dict:
    """The predictor of diffusers' VE SDE, `alpha` = 1, without noise in the last step."""
    scheduler_class, noise = diffusers.ScoreSdeVeScheduler, Noise()
    with doubled(scheduler_class, noise):
        scheduler = scheduler_class(STEPS, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX)
        scheduler.set_sigmas(STEPS)
        sigmas = scheduler.discrete_sigmas.flip(0)
        x = [SIGMA_MAX * start()]
        for timestep, sigma in zip(scheduler.timesteps, sigmas, strict=True):
            score = (posterior_mean(x[-1], torch.ones(()), sigma) - x[-1]) / sigma**2
            step = scheduler.step_pred(score, timestep, x[-1])
            x.append(step.prev_sample)
        x[-1] = step.prev_sample_mean
    sigmas = np.append(sigmas.numpy(), 0.0)
    return {"x": torch.stack(x).numpy(), "sigmas": sigmas, "noise": np.array(noise.drawn)}


def run_k_diffusion(name: str, **arguments: object) -> dict:
    """One of k-diffusion's samplers, with `alpha` = 1, on Karras' noise levels and then 0."""
    sampler, noise, states = getattr(k_sampling, name), Noise(), []
    sigmas = k_sampling.get_sigmas_karras(STEPS, SIGMA_MIN, SIGMA_MAX)
    if "noise_sampler" in inspect.signature(sampler).parameters:
        arguments["noise_sampler"] = noise

    def keep(seen: dict) -> None:
        """The state of a step; the argument is already at `sigma_hat` (churn)."""
        raised = float((seen["sigma_hat"] ** 2 - seen["sigma"] ** 2) ** 0.5)
        raised *= arguments.get("s_noise", 1.0)
        states.append(seen["x"].numpy() - (raised * noise.drawn[-1] if raised else 0.0))

    with mock.patch.object(torch, "randn_like", noise):
        x = sampler(
            lambda x, sigma: posterior_mean(x, torch.ones(()), sigma[0]),
            SIGMA_MAX * start(),
            sigmas,
            callback=keep,
            disable=True,
            **arguments,
        )
    assert x.dtype == torch.float64
    x = np.stack([*states, x.numpy()])
    noise = np.array(noise.drawn if "noise_sampler" in arguments or "s_churn" in arguments else [])
    return {"x": x, "sigmas": sigmas.numpy(), "noise": noise}


def run_k_solver(name: str) -> dict:
    """Steps of k-diffusion's `DPMSolver`, `alpha` = 1, on Karras' noise levels."""
    sigmas = k_sampling.get_sigmas_karras(STEPS, SIGMA_MIN, SIGMA_MAX)[:-1]
    solver = k_sampling.DPMSolver(lambda x, sigma: posterior_mean(x, torch.ones(()), sigma[0]))
    x = [SIGMA_MAX * start()]
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x.append(getattr(solver, name)(x[-1], solver.t(sigma), solver.t(sigma_next))[0])
    return {"x": torch.stack(x).numpy(), "sigmas": sigmas.numpy()}


# Spacing "leading" for DDPM: others add noise in the last step, from timestep 0.
DDPM = {"name": "DDPMScheduler", "clip_sample": False, "timestep_spacing": "leading"}
DDIM = {"name": "DDIMScheduler", "clip_sample": False}
DPM = {"name": "DPMSolverMultistepScheduler"}
UNIPC = {"name": "UniPCMultistepScheduler"}
# With bh1 UniPC's step to sigma = 0 is NaN, and with order 3 it has order 2 in the step before.
ALL_STEPS = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
K_HEUN = {"name": "sample_heun"}
RUNS: dict[str, tuple[Callable[..., dict], dict]] = {
    "ddpm_small": (run_table, {**DDPM, "variance_type": "fixed_small"}),
    "ddpm_large": (run_table, {**DDPM, "variance_type": "fixed_large"}),
    "ddpm_learned": (run_table, {**DDPM, "variance_type": "learned_range"}),
    "ddim_0": (run_table, {**DDIM, "eta": 0.0}),
    "ddim_half": (run_table, {**DDIM, "eta": 0.5}),
    "ddim_1": (run_table, {**DDIM, "eta": 1.0}),
    "euler": (run_table, {"name": "EulerDiscreteScheduler"}),
    "euler_ancestral": (run_table, {"name": "EulerAncestralDiscreteScheduler"}),
    "heun": (run_table, {"name": "HeunDiscreteScheduler"}),
    "pndm": (
        run_table,
        {"name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": True},
    ),
    "ipndm": (run_cosine, {"name": "IPNDMScheduler"}),
    "flow_euler": (run_flow, {"name": "FlowMatchEulerDiscreteScheduler"}),
    "flow_heun": (run_flow, {"name": "FlowMatchHeunDiscreteScheduler"}),
    "scaled_ddim": (run_table, {**DDIM, **SCALED, "eta": 0.0}),
    "scaled_dpmpp_2m": (run_table, {**DPM, **SCALED}),
    # From 15 steps on, multistep schedulers lower their order only in the step to sigma = 0.
    "dpmpp_2m": (run_table, {**DPM, "solver_order": 2}),
    "dpmpp_2m_heun": (run_table, {**DPM, "solver_order": 2, "solver_type": "heun"}),
    "dpmpp_3m": (run_table, {**DPM, "solver_order": 3}),
    "dpmpp_2m_sde": (run_table, {**DPM, "algorithm_type": "sde-dpmsolver++"}),
    "deis_2": (run_table, {"name": "DEISMultistepScheduler", "solver_order": 2}),
    "deis_3": (run_table, {"name": "DEISMultistepScheduler", "solver_order": 3}),
    "unipc_2_bh2": (run_table, UNIPC),
    "unipc_2_bh1": (run_table, {**UNIPC, **ALL_STEPS, "solver_type": "bh1"}),
    "unipc_3_bh1": (run_table, {**UNIPC, **ALL_STEPS, "solver_order": 3, "solver_type": "bh1"}),
    "unipc_3_bh2": (run_table, {**UNIPC, **ALL_STEPS, "solver_order": 3}),
    "score_sde": (run_score_sde, {}),
    "k_euler": (run_k_diffusion, {"name": "sample_euler"}),
    "k_euler_ancestral": (run_k_diffusion, {"name": "sample_euler_ancestral"}),
    "k_euler_ancestral_half": (run_k_diffusion, {"name": "sample_euler_ancestral", "eta": 0.5}),
    "k_heun": (run_k_diffusion, K_HEUN),
    "k_heun_churn": (
        run_k_diffusion,
        {**K_HEUN, "s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003},
    ),
    "k_lms": (run_k_diffusion, {"name": "sample_lms"}),
    "k_dpmpp_2m": (run_k_diffusion, {"name": "sample_dpmpp_2m"}),
    "k_dpmpp_2s": (run_k_diffusion, {"name": "sample_dpmpp_2s_ancestral", "eta": 0.0}),
    "k_dpm_2": (run_k_solver, {"name": "dpm_solver_2_step"}),
    "k_dpm_3": (run_k_solver, {"name": "dpm_solver_3_step"}),
    "k_dpmpp_sde": (run_k_diffusion, {"name": "sample_dpmpp_sde"}),
    "k_dpmpp_sde_half": (run_k_diffusion, {"name": "sample_dpmpp_sde", "eta": 0.5}),
    "k_dpmpp_2m_sde": (run_k_diffusion, {"name": "sample_dpmpp_2m_sde"}),
}


def main() -> None:
    """Runs everything and writes `samplers.npz`, numbers in float64 and `about` in JSON."""
    arrays = {}
    for run, (function, settings) in RUNS.items():
        arrays |= {f"{run}/{k}": v for k, v in function(**settings).items() if len(v)}
    packages = ("torch", "diffusers", "k-diffusion", "numpy", "scipy")
    about = {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "mixture": MIXTURE,
        "runs": {run: {"by": function.__name__, **rest} for run, (function, rest) in RUNS.items()},
    }
    assert all(array.dtype == np.float64 for array in arrays.values())
    path = pathlib.Path(__file__).with_name("samplers.npz")
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main()
