"""Whole pipelines of Stable Diffusion around diffusers' schedulers: makes `schedulers.npz`.

Run it in an environment with torch and diffusers; it writes next to itself. It has for every run
the states `x` before the first call of the scheduler and after each, and for grids of 1 to 100
steps the timesteps. Networks are exact denoisers of points in the plane: image to image and
inpainting are the latent arithmetic of diffusers' pipelines alone.

Everything is in float64, tables included (`doubled.py`); diffusers' own are float32, and the one of
Stable Diffusion is stored beside.
"""

import importlib.metadata
import json
import pathlib
from typing import Any

import diffusers
import numpy as np
import torch
from doubled import MIXTURE, doubled, posterior_mean

torch.set_default_dtype(torch.float64)

NUM, STEPS = 4, 48
SD: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "trained_betas": None,
}
PNDM = {**SD, "_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False}
PNDM |= {"clip_sample": False}  # stands in the published file, and means nothing to this class
DDIM = {**SD, "_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}
DPM = {**SD, "_class_name": "DPMSolverMultistepScheduler"}
LEADING, TRAILING = {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}
EULER = {**SD, **LEADING, "_class_name": "EulerDiscreteScheduler"}
ENDS = {"steps_offset": 0, "set_alpha_to_one": True}
RUNS: dict[str, dict[str, Any]] = {
    **{f"pndm_{steps}": {"config": PNDM, "steps": steps} for steps in (5, 20, 48, 50)},
    "ddim": {"config": DDIM},
    "ddim_clean": {"config": {**DDIM, **ENDS}},
    "ddim_trailing": {"config": {**DDIM, **TRAILING}, "steps": 50},
    "ddim_v": {"config": {**DDIM, "prediction_type": "v_prediction"}},
    "ddim_x_0": {"config": {**DDIM, "prediction_type": "sample"}},
    "ddim_clip": {"config": {**DDIM, "clip_sample": True}, "use_clipped_model_output": True},
    "dpm_leading": {"config": {**DPM, **LEADING}},
    "dpm_linspace": {"config": DPM},
    "dpm_trailing": {"config": {**DPM, **TRAILING}},
    "dpm_end": {"config": {**DPM, **LEADING, "final_sigmas_type": "sigma_min"}},
    "dpm_heun": {"config": {**DPM, **LEADING, "solver_type": "heun"}},
    "dpm_3": {"config": {**DPM, **LEADING, "solver_order": 3}},
    "dpm_v": {"config": {**DPM, **LEADING, "prediction_type": "v_prediction"}},
    "euler": {"config": EULER},
    "euler_trailing": {"config": {**EULER, **TRAILING}},
    **{
        f"{job}_{name}_{strength}": {"config": config, "strength": strength, "job": job}
        for name, config in (("pndm", PNDM), ("ddim", DDIM), ("dpm", {**DPM, **LEADING}))
        for job, strengths in (("image", (0.3, 0.58, 0.8, 1.0)), ("inpaint", (0.6, 1.0)))
        for strength in strengths
        if (name, job, strength) != ("pndm", "inpaint", 0.6)  # two levels at once, see the test
    },
}
MASK = torch.tensor([0.0, 1.0])  # the first coordinate is known


def draws(seed: int) -> torch.Tensor:
    """Normal numbers `[NUM, 2]`."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(NUM, 2)))


def run(
    config: dict[str, Any], steps: int = STEPS, strength: float = 1.0, job: str = "", **extra: Any
) -> np.ndarray:
    """States `[calls + 1, NUM, 2]` of a pipeline, as the network sees them."""
    scheduler_class = getattr(diffusers, config["_class_name"])
    with doubled(scheduler_class, draws):
        scheduler = scheduler_class.from_config(config)
        scheduler.set_timesteps(steps)
        noise, original, timesteps = draws(0), draws(1)[:1], scheduler.timesteps
        if job:
            begin = steps - min(int(steps * strength), steps)
            timesteps = timesteps[begin:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(begin)
        if job == "image" or (job == "inpaint" and strength < 1):
            x = scheduler.add_noise(original.repeat(NUM, 1), noise, timesteps[:1])
        else:
            x = noise * scheduler.init_noise_sigma
        states = []
        for i, timestep in enumerate(timesteps):
            x_t = scheduler.scale_model_input(x, timestep)
            states.append(x_t.numpy().copy())
            table = scheduler.alphas_cumprod[timestep.long()]
            alpha, sigma = table**0.5, (1 - table) ** 0.5
            x_0 = posterior_mean(x_t, alpha, sigma)
            eps = (x_t - alpha * x_0) / sigma
            output = {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0}
            y = output[scheduler.config.prediction_type]
            x = scheduler.step(y, timestep, x, **extra).prev_sample
            if job == "inpaint":
                known, last = original, i == len(timesteps) - 1
                if not last:
                    known = scheduler.add_noise(original, noise, timesteps[i + 1 : i + 2])
                x = (1 - MASK) * known + MASK * x
    assert x.dtype == torch.float64
    return np.stack([*states, x.numpy()])


def grid(config: dict[str, Any], steps: int) -> np.ndarray:
    """Timesteps of a scheduler, in its own precision."""
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.numpy().astype(np.int16)


def main() -> None:
    """Runs everything and writes `schedulers.npz`, with `about` in JSON."""
    arrays = {f"{name}/x": run(**settings) for name, settings in RUNS.items()}
    assert all(array.dtype == np.float64 for array in arrays.values())
    for name, config in (("ddim", DDIM), ("dpm", DPM)):
        for spacing in ("leading", "linspace", "trailing"):
            of_all = [grid({**config, "timestep_spacing": spacing}, n) for n in range(1, 101)]
            arrays[f"grids/{name}/{spacing}"] = np.concatenate(of_all)
            arrays[f"grids/{name}/{spacing}/lengths"] = np.array([len(g) for g in of_all], np.int16)
    arrays["table/float32"] = diffusers.DDIMScheduler.from_config(DDIM).alphas_cumprod.numpy()
    names = ("PNDM", "DDIM", "DPMSolverMultistep", "EulerDiscrete")
    classes = [getattr(diffusers, f"{name}Scheduler") for name in names]
    about = {
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "diffusers")},
        "mixture": MIXTURE,
        "runs": RUNS,
        "defaults": {kind.__name__: dict(kind().config) for kind in classes},
    }
    path = pathlib.Path(__file__).with_name("schedulers.npz")
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main()
