"""Bounds, probabilities and masks of published models of tokens: makes `tokens.npz`.

Run it with `requirements.txt`, jax and flax installed, and a folder as its argument that holds
checkouts of the repositories in `COMMITS`; it writes next to itself. Only `test_token_parity.py`
uses the result: in float64, for the logits, texts and noisy texts that it stores too.

Their functions run as they are. What surrounds them (training, networks, downloads) is not
imported, and what would be random is given: `x_t`, and the times.
"""

import importlib.util
import json
import pathlib
import sys
import types
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch

COMMITS = {
    "google-deepmind/md4": "b9fbf29216f818cccff46cb5727199f86f35593e",
    "kuleshov-group/mdlm": "c112c526d193436838c98d81455ee51f90309470",
    "s-sahoo/duo": "7c9b498f5b717de064d6fad7e2509c866e6cb620",
    "kuleshov-group/remdm": "f830d659fb98d9b2c79ff71bfa12d578312b688a",
    "kuleshov-group/bd3lms": "1c3e8f43d88dfbcee5ff2aa6932a9e74b31ae1d7",
    "louaaron/Score-Entropy-Discrete-Diffusion": "0605786da5ccb5747545e26d66fdf477187598b6",
}
FOLDER = pathlib.Path(sys.argv[1])
BATCH, LENGTH, VOCABULARY, BLOCK = 4, 6, 5, 3
STEPS = 10  # of bounds in steps
SIZES = [(4, 1), (6, 2), (6, 3), (8, 4), (5, 5)]  # lengths and blocks of attention masks
REMASKED = {
    "cap": {"sampler": "remdm-cap", "eta": 0.1},
    "rescale": {"sampler": "remdm-rescale", "eta": 0.4},
    "ancestral": {"sampler": "mdlm"},
}
LOOP = {"sampler": "remdm-loop", "eta": 0.02, "t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9}

torch.set_default_dtype(torch.float64)
jax.config.update("jax_enable_x64", True)


class Hollow(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def load(path: str, *hollow: str, **given: object) -> types.ModuleType:
    """The module of a file of the repositories, which imports `hollow` and what is `given`."""
    modules = {name: Hollow(name) for name in hollow} | given
    for name in hollow:  # as attributes of their packages too
        *package, last = name.split(".")
        if package:
            setattr(modules[".".join(package)], last, modules[name])
    spec = importlib.util.spec_from_file_location(path.replace("/", "_")[:-3], FOLDER / path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {**modules, module.__name__: module}):
        spec.loader.exec_module(module)
    return module


TRAINING = ("hydra", "hydra.utils", "lightning", "torchmetrics", "torchmetrics.aggregation")
TRAINING += ("transformers", "dataloader", "models", "metrics", "tqdm", "fsspec", "trainer_base")
TRAINING += ("omegaconf", "huggingface_hub", "einops")

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(BATCH, LENGTH, VOCABULARY)) * 2
X_0 = rng.integers(VOCABULARY, size=(BATCH, LENGTH))
T = np.array([0.2, 0.5, 0.7, 0.9])
MASKS = rng.random((BATCH, LENGTH)) < 0.6
X_MASKED = np.where(MASKS, VOCABULARY, X_0)
X_REPLACED = np.where(MASKS, rng.integers(VOCABULARY, size=X_0.shape), X_0)
BLOCK_T = np.array([[0.3, 0.8], [0.6, 0.1], [1.0, 0.5], [0.4, 0.9]])  # of each block
LOG_P = np.array(jax.nn.log_softmax(LOGITS))

x_0, x_masked, x_replaced, t = map(torch.from_numpy, (X_0, X_MASKED, X_REPLACED, T))
with_mask = torch.from_numpy(np.concatenate([LOGITS, np.zeros_like(LOGITS[..., :1])], -1))


def diffusion(folder: str) -> tuple[types.ModuleType, types.ModuleType]:
    """`diffusion.py` and `noise_schedule.py` of a repository."""
    utils = types.SimpleNamespace(print_nans=lambda *_: None)
    noise = load(f"{folder}/noise_schedule.py")
    return load(f"{folder}/diffusion.py", *TRAINING, utils=utils, noise_schedule=noise), noise


def mdlm() -> dict[str, np.ndarray]:
    """`_forward_pass_diffusion` with the parametrisation `subs`: nats `[B, L]` of each token."""
    module, noise = diffusion("mdlm")

    def loss(schedule: object, steps: int = 0) -> np.ndarray:
        model = types.SimpleNamespace(
            # With steps, it rounds uniform times up to the next.
            _sample_t=lambda n, device: t - 0.5 / steps if steps else t,
            T=steps,
            change_of_variables=False,
            importance_sampling=False,
            parameterization="subs",
            noise=schedule,
            mask_index=VOCABULARY,
            neg_infinity=-1e6,
            q_xt=lambda x, chance: x_masked,
        )
        theirs = module.Diffusion
        model._d3pm_loss = lambda **given: theirs._d3pm_loss(model, **given)
        model.forward = lambda x, _: theirs._subs_parameterization(model, with_mask.clone(), x)
        return theirs._forward_pass_diffusion(model, x_0).numpy()

    return {
        "mdlm/loglinear": loss(noise.LogLinearNoise()),
        "mdlm/cosine": loss(noise.CosineNoise()),
        "mdlm/steps": loss(noise.LogLinearNoise(), STEPS),
    }


def bd3lm() -> dict[str, np.ndarray]:
    """Attention masks, and `_forward_pass_diffusion` with a time for each block."""
    module, noise = diffusion("bd3lms")
    with mock.patch.object(torch, "compile", return_value=lambda function: function):
        dit = load("bd3lms/models/dit.py", *TRAINING)
    masks = {}
    for n, block in SIZES:
        place = torch.arange(2 * n)
        masks[f"bd3lm/mask_{n}_{block}"] = dit.block_diff_mask(
            *(None, None, place[:, None], place[None]), block_size=block, n=n
        ).numpy()
    model = types.SimpleNamespace(
        noise=noise.get_noise(None, "loglinear"),
        _sigma_from_p=lambda p: p,  # not an input of the network
        mdlm_loss_scale=False,
        q_xt=lambda *_, **__: x_masked,
        ignore_bos=False,
        cross_attn=False,
        parameterization="subs",
        mask_index=VOCABULARY,
        neg_infinity=-1e6,
    )
    theirs = module.Diffusion
    model.forward = lambda x, sigma: theirs._subs_parameterization(model, with_mask.clone(), x)
    times = torch.from_numpy(np.repeat(BLOCK_T, BLOCK, axis=1))
    return {**masks, "bd3lm/loss": theirs._forward_pass_diffusion(model, x_0, times).numpy()}


def md4() -> dict[str, np.ndarray]:
    """`diffusion_loss` of MD4 and of GenMD4: nats `[B]` of a text."""
    utils = types.SimpleNamespace(
        reverse_broadcast=lambda t, n: t.reshape(t.shape + (1,) * (n - t.ndim)),
        constant_init=lambda value: lambda key, shape: jnp.full(shape, value),
    )
    backward = types.SimpleNamespace(DiscreteClassifier=lambda **_: None)
    names = ("tensorflow_probability", "tensorflow_probability.substrates")
    names += ("tensorflow_probability.substrates.jax", "md4", "md4.models")
    found = {}
    for name in ("md4", "genmd4"):
        hollow = {key: Hollow(key) for key in names}
        hollow["tensorflow_probability"].substrates = hollow[names[1]]
        hollow[names[1]].jax = hollow[names[2]]
        hollow["md4"].utils, hollow["md4"].binary_search = utils, None
        hollow["md4.models"].backward = backward
        found[name] = load(f"md4/md4/models/diffusion/{name}.py", **hollow)

    def loss(kind: type[nn.Module], params: dict, **settings: object) -> np.ndarray:
        model = kind(data_shape=(LENGTH,), vocab_size=VOCABULARY, classes=0, **settings)
        given = {
            "forward_sample": lambda self, x, t: jnp.asarray(X_MASKED),
            "predict_x": lambda self, *_, **__: (jnp.asarray(LOGITS), None),
        }
        with mock.patch.multiple(kind, **given):
            return model.apply(params, jnp.asarray(T), jnp.asarray(X_0), method="diffusion_loss")

    arrays = {}
    for schedule in ("linear", "cosine", "poly3"):
        for steps in (0, STEPS):
            settings = {"cont_time": not steps, "timesteps": steps}
            if steps:  # times are rounded up to the next
                settings["timesteps"] = steps
            value = loss(found["md4"].MD4, {}, noise_schedule_type=schedule, **settings)
            arrays[f"md4/{schedule}{'_steps' if steps else ''}"] = np.array(value)
    raw = np.linspace(-1, 2, VOCABULARY)  # the powers are its softplus
    params = {"params": {"noise_schedule": {"w": raw}}}
    value, _ = loss(found["genmd4"].GenMD4, params, cont_time=True)
    return {**arrays, "genmd4/loss": np.array(value), "genmd4/powers": np.log1p(np.exp(raw))}


def duo() -> dict[str, np.ndarray]:
    """`nll_per_token` of uniform noise, with `alpha = 1 - t` and with a cosine: nats `[B, L]`."""
    module = load("duo/algo.py", *TRAINING, "utils")
    model = types.SimpleNamespace(vocab_size=VOCABULARY)
    log_p, at = torch.from_numpy(LOG_P), t[:, None]
    half = torch.pi / 2
    schedules = {
        "linear": (1 - at, -torch.ones_like(at)),
        "cosine": (1 - torch.sin(half * at), -half * torch.cos(half * at)),
    }
    return {
        f"duo/{name}": module.DUO_BASE.nll_per_token(model, log_p, x_replaced, x_0, *pair).numpy()
        for name, pair in schedules.items()
    }


def sedd() -> dict[str, np.ndarray]:
    """`score_entropy` of both graphs times the rate of noise, log-linear: nats `[B, L]`.

    Scores are those of a prediction `p` of each token from all others: of the masks
    `p_j alpha / (1 - alpha)`, and of a token z `q_j / q_z` with `q = alpha p + (1 - alpha) / V`.
    """
    catsample = load("Score-Entropy-Discrete-Diffusion/catsample.py")
    graphs = load("Score-Entropy-Discrete-Diffusion/graph_lib.py", catsample=catsample)
    noise = load("Score-Entropy-Discrete-Diffusion/noise_lib.py").LogLinearNoise()
    sigma, rate = (a[:, None] for a in noise(t))
    alpha = torch.exp(-sigma)[..., None]
    p = torch.from_numpy(np.exp(LOG_P))
    score = torch.log(torch.cat([p, p[..., :1]], -1) * alpha / (1 - alpha))
    absorb = graphs.Absorbing(VOCABULARY).score_entropy(score, sigma, x_masked, x_0)
    bar = alpha * p + (1 - alpha) / VOCABULARY
    score = torch.log(bar / torch.gather(bar, -1, x_replaced[..., None]))
    uniform = graphs.Uniform(VOCABULARY).score_entropy(score, sigma, x_replaced, x_0)
    return {"sedd/absorb": (rate * absorb).numpy(), "sedd/uniform": (rate * uniform).numpy()}


def remdm() -> dict[str, np.ndarray]:
    """`_ddpm_caching_update`: the probabilities `[B, L, V + 1]` that it draws from."""
    module, noise = diffusion("remdm")
    probabilities = torch.softmax(torch.from_numpy(LOGITS), -1)
    own = torch.nn.functional.one_hot(x_0, VOCABULARY).to(probabilities)
    p = torch.where((x_masked == VOCABULARY)[..., None], probabilities, own)
    p = torch.cat([p, torch.zeros_like(p[..., :1])], -1)

    def drawn(t: float, dt: float, sampling: dict) -> np.ndarray:
        config = types.SimpleNamespace(
            noise=types.SimpleNamespace(type="loglinear"),
            sampling=types.SimpleNamespace(nucleus_p=1.0, **sampling),
        )
        model = types.SimpleNamespace(
            config=config, noise=noise.LogLinearNoise(), mask_index=VOCABULARY
        )
        model.time_conditioning = True  # no cache
        seen = []
        record = lambda q: seen.append(q) or q.argmax(-1)  # noqa: E731
        with mock.patch.object(module, "_sample_categorical", record):
            times = torch.full((BATCH, 1), t)
            module.Diffusion._ddpm_caching_update(model, x_masked, times, dt, p_x0=p.clone())
        return seen[0].numpy()

    arrays = {
        f"remdm/{name}_{number}": drawn(at, 0.1, sampling)
        for name, sampling in REMASKED.items()
        for number, at in enumerate((0.9, 0.4))
    }
    # Before, in, and after the loop.
    for number, at in enumerate((0.8, 0.3, 0.04)):
        arrays[f"remdm/loop_{number}"] = drawn(at, 0.01, LOOP)
    return arrays


def main() -> None:
    """Runs everything and writes `tokens.npz`, and `about` in JSON."""
    arrays = {
        "logits": LOGITS,
        "x_0": X_0.astype(np.int32),
        "x_masked": X_MASKED.astype(np.int32),
        "x_replaced": X_REPLACED.astype(np.int32),
        "t": T,
        "block_t": BLOCK_T,
    }
    for make in (mdlm, bd3lm, md4, duo, sedd, remdm):
        arrays |= make()
    about = {"commits": COMMITS, "torch": torch.__version__, "jax": jax.__version__}
    assert all(a.dtype in (np.float64, np.int32, bool) for a in arrays.values())
    path = pathlib.Path(__file__).with_name("tokens.npz")
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main()
