"""Posterior sampling of azula and deepinv, their code, for a given denoiser and linear operator."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import deepinv
import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance.diffpir import DiffPIRDenoiser
from azula.guidance.dps import DPSSampler
from azula.guidance.jfps import JFPSDenoiser
from azula.guidance.mmps import MMPSDenoiser
from azula.guidance.pgdm import PGDMSampler
from azula.guidance.repaint import RePaintSampler
from azula.guidance.tds import TDSSampler
from azula.guidance.tmpd import TMPDenoiser
from azula.linalg.covariance import FullCovariance, IsotropicCovariance
from azula.noise import CosineSchedule
from azula.sample import DDIMSampler, xEABSampler
from deepinv import sampling
from torch import Tensor


class Task(NamedTuple):
    """What is to be sampled.

    Attributes:
        denoise: `(x [B, D], alpha, sigma) -> E[x_0 | alpha x_0 + sigma eps = x]`, differentiable.
        matrix: of the operator, `[m, D]`.
        sigma: standard deviation of the noise of `y`.
        y: `[N, m]`.
        size: number of samples for each observation; those of one are consecutive.
        mean: of the prior, `[D]`.
        cov: of the prior, `[D, D]`.
    """

    denoise: Callable[[Tensor, Tensor, Tensor], Tensor]
    matrix: Tensor
    sigma: float
    y: Tensor
    size: int
    mean: Tensor
    cov: Tensor

    @property
    def repeated(self) -> Tensor:
        """The observation of each sample, `[N size, m]`."""
        return self.y.repeat_interleave(self.size, 0)

    def forward(self, x: Tensor) -> Tensor:
        """`A x`."""
        return x @ self.matrix.T


class _Counting(torch.autograd.Function):
    """The identity, which counts products with the Jacobian."""

    @staticmethod
    def forward(x: Tensor, counter: "Counted") -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.counter.calls += 1
        return grad, None


class Counted:
    """A denoiser that counts its evaluations, and the products with its Jacobian as one each."""

    def __init__(self, denoise: Callable[..., Tensor]):
        self._denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self._denoise(_Counting.apply(x, self), alpha, sigma)


def mixture_denoiser(weights: np.ndarray, means: np.ndarray, covs: np.ndarray) -> Callable:
    """The exact denoiser of `sum_k w_k N(m_k, C_k)`, in float32.

    Where `C_k = f_k I` but for a few axes, only those are multiplied with.
    """
    values, vectors = np.linalg.eigh(covs)
    excess = values - values[:, :1]
    first = int(np.argmax((excess > 1e-9 * values[:, -1:]).any(0)))
    tensor = functools.partial(torch.tensor, dtype=torch.float32)
    log_w, m, floor = tensor(np.log(weights)), tensor(means), tensor(values[:, 0])
    e, v = tensor(excess[:, first:]), tensor(vectors[:, :, first:])
    num, dim, rank = v.shape
    axes = torch.cat([v.transpose(1, 2).reshape(-1, dim), m])
    own = torch.einsum("kdr,kd->kr", v, m)
    squares = (m**2).sum(1)

    def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        along, on_means = (x @ axes.T).split([num * rank, num], dim=1)
        along = along.reshape(-1, num, rank) - alpha * own
        least = alpha**2 * floor + sigma**2
        most = least[:, None] + alpha**2 * e
        gain = alpha**2 * e / most
        square = (x**2).sum(1, keepdim=True) - 2 * alpha * on_means + alpha**2 * squares
        square = square - (gain * along**2).sum(2)
        log_det = torch.log(most / least[:, None]).sum(1) + dim * torch.log(least)
        r = torch.softmax(log_w - 0.5 * (square / least + log_det), dim=1)
        noise = r * sigma**2 / least
        along = noise[:, :, None] * (alpha * e / most) * along
        parts = torch.cat([along.reshape(len(x), -1), noise], dim=1)
        return (alpha * r * floor / least).sum(1, keepdim=True) * x + parts @ axes

    return denoise


class Exact(Denoiser):
    """The denoiser for azula."""

    def __init__(self, denoise: Callable):
        super().__init__()
        self.denoise, self.schedule = denoise, CosineSchedule()

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        return DiracPosterior(self.denoise(x_t, *self.schedule(t)))


def _azula(task: Task, sampler: Any) -> Tensor:
    """Samples from its initial noise."""
    return sampler(sampler.init((len(task.y) * task.size, task.matrix.shape[1])))


def azula_dps(task: Task, steps: int, zeta: float) -> Tensor:
    """Its norm is that of a whole batch; as an operator with one entry it is each sample's own."""

    def norms(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(task.repeated - task.forward(x), dim=1).sum()

    zero = torch.zeros(())
    return _azula(
        task, DPSSampler(Exact(task.denoise), zero, norms, zeta, steps=steps, silent=True)
    )


def azula_pgdm(task: Task, steps: int, eta: float) -> Tensor:
    """With the exact pseudo-inverse; `eta` of its DDIM."""
    inverse = torch.linalg.pinv(task.matrix)
    sampler = PGDMSampler(
        Exact(task.denoise), task.repeated, task.forward, lambda y: y @ inverse.T,
        eta=eta, steps=steps, silent=True,
    )  # fmt: skip
    return _azula(task, sampler)


def azula_wrapped(task: Task, steps: int, name: str, eta: float = 1.0, multistep: bool = False,
                  **options: Any) -> Tensor:  # fmt: skip
    """Methods that make a denoiser of a denoiser, sampled as in the author's examples."""
    exact, y, noise = Exact(task.denoise), task.repeated, task.sigma**2
    cov_y = IsotropicCovariance(torch.tensor(noise))
    if name == "mmps":
        wrapped: Any = MMPSDenoiser(exact, y, task.forward, cov_y, **options)
    elif name == "tmpd":
        wrapped = TMPDenoiser(exact, y, task.forward, noise)
    elif name == "diffpir":
        wrapped = DiffPIRDenoiser(exact, y, task.forward, noise, **options)
    else:
        values, vectors = torch.linalg.eigh(task.cov)
        cov_x = FullCovariance(vectors, values)
        wrapped = JFPSDenoiser(exact, y, task.forward, cov_y, cov_x, **options)
    if multistep:
        return _azula(task, xEABSampler(wrapped, steps=steps, silent=True))
    return _azula(task, DDIMSampler(wrapped, eta=eta, steps=steps, silent=True))


def azula_repaint(task: Task, steps: int, iterations: int) -> Tensor:
    """For masks only."""
    known = task.matrix.sum(0) > 0
    y = task.repeated @ task.matrix
    sampler = RePaintSampler(
        Exact(task.denoise), y, known, iterations, eta=1.0, steps=steps, silent=True
    )
    return _azula(task, sampler)


def azula_tds(task: Task, steps: int, std: float) -> Tensor:
    """One observation after the other: its particles are all those of a batch."""
    found = []
    for y in task.y:

        def twist(x: Tensor, ratio: Tensor, y: Tensor = y) -> Tensor:
            spread = std * ratio / torch.sqrt(std**2 + ratio**2)
            scale = torch.sqrt(task.sigma**2 + spread**2)
            return torch.distributions.Normal(task.forward(x), scale).log_prob(y)

        sampler = TDSSampler(Exact(task.denoise), twist, steps=steps, silent=True)
        found.append(_azula(task._replace(y=y[None]), sampler))
    return torch.cat(found)


class Network(torch.nn.Module):
    """The denoiser for deepinv, of `x_0 + sigma eps` on the unit interval or on [-1, 1]."""

    def __init__(self, denoise: Callable, unit: bool):
        super().__init__()
        self.denoise, self.unit = denoise, unit

    def forward(self, x: Tensor, sigma: Any, **kwargs: Any) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=torch.float32).flatten()[0]
        flat = x.reshape(len(x), -1)
        if self.unit:
            flat, sigma = 2 * flat - 1, 2 * sigma
        found = self.denoise(flat, torch.ones(()), torch.clamp(sigma, min=1e-4)).reshape(x.shape)
        return (found + 1) / 2 if self.unit else found


def _physics(task: Task, unit: bool) -> tuple[Tensor, Any]:
    """Observations and operator, with its decomposition, on the unit interval or on [-1, 1]."""
    left, values, right = torch.linalg.svd(task.matrix)
    num, dim = task.matrix.shape
    y, sigma = task.repeated, task.sigma
    if unit:  # (A x + noise + A 1) / 2 = A (x + 1) / 2 + noise / 2
        y, sigma = (y + task.matrix.sum(1)) / 2, sigma / 2
    pad = torch.nn.functional.pad
    physics = deepinv.physics.DecomposablePhysics(
        U=lambda z: z[..., :num] @ left.T.to(z),
        U_adjoint=lambda y: pad(y @ left.to(y), (0, dim - num)),
        V=lambda z: z @ right.to(z),
        V_adjoint=lambda x: x @ right.T.to(x),
        mask=pad(values, (0, dim - len(values)))[None, None, None],
        img_size=(1, 1, dim),
        noise_model=deepinv.physics.GaussianNoise(sigma),
    )
    return y[:, None, None], physics


def _restored(task: Task, unit: bool, make: Callable[[Network], Any], **call: Any) -> Tensor:
    y, physics = _physics(task, unit)
    with torch.no_grad():
        found = make(Network(task.denoise, unit))(y, physics, **call)
    found = found.reshape(len(found), -1).float()
    return 2 * found - 1 if unit else found


def deepinv_dps(task: Task, steps: int, weight: float, guidance: str = "norm") -> Tensor:
    """Its class, without the change of scale to the unit interval."""

    def make(network: Network) -> Any:
        return sampling.DPS(
            network, num_steps=steps + 1, weight=weight, guidance=guidance, minus_one_one=False
        )

    return _restored(task, False, make, x_init=(len(task.repeated), 1, 1, task.matrix.shape[1]))


def deepinv_guided(
    task: Task, steps: int, fidelity: str, alpha: float = 1.0, **options: Any
) -> Tensor:
    """Any of its noisy data fidelities, with the process and the solver of its DPS."""

    def make(network: Network) -> Any:
        solver = sampling.AncestralSolver(torch.linspace(1, 0, steps + 1))
        return sampling.PosteriorDiffusion(
            data_fidelity=getattr(sampling, fidelity)(**options),
            denoiser=network,
            sde=sampling.VariancePreservingDiffusion(alpha=alpha),
            solver=solver,
            minus_one_one=False,
        )

    return _restored(task, False, make, x_init=(len(task.repeated), 1, 1, task.matrix.shape[1]))


def deepinv_ddrm(task: Task, steps: int, eta: float) -> Tensor:
    """On the unit interval, for which its noise levels are."""
    sigmas = np.linspace(1, 0, steps)
    return _restored(task, True, lambda network: sampling.DDRM(network, sigmas, eta=eta))


def deepinv_diffpir(task: Task, steps: int, lambda_: float) -> Tensor:
    """On the unit interval, for which its noise levels are."""

    def make(network: Network) -> Any:
        fidelity = deepinv.optim.data_fidelity.L2()
        return sampling.DiffPIR(
            network, fidelity, sigma=task.sigma / 2, max_iter=steps, lambda_=lambda_
        )

    return _restored(task, True, make)


class Method(NamedTuple):
    """How one is run: `run(task, steps, **setting)`."""

    run: Callable[..., Tensor]
    settings: list[dict[str, Any]]  # the first is its default; the others are tried
    cost: Callable[..., int] = lambda: 1  # evaluations of a step, for a setting
    masks_only: bool = False


def _wrapped(name: str) -> Callable[..., Tensor]:
    return functools.partial(azula_wrapped, name=name)


def _guided(fidelity: str) -> Callable[..., Tensor]:
    return functools.partial(deepinv_guided, fidelity=fidelity)


WEIGHTS = [{"weight": w} for w in (1.0, 3.0, 10.0)]
METHODS = {
    "azula DPS": Method(azula_dps, [{"zeta": z} for z in (1.0, 0.1, 0.3)], lambda: 2),
    "azula PGDM": Method(azula_pgdm, [{"eta": e} for e in (0.0, 0.5, 1.0)], lambda: 2),
    "azula TMPD": Method(_wrapped("tmpd"), [{"eta": 1.0}, {"multistep": True}], lambda: 3),
    "azula MMPS": Method(
        _wrapped("mmps"),
        [*({"iterations": n} for n in (1, 3, 8)), {"iterations": 8, "multistep": True}],
        lambda iterations: iterations + 2,
    ),
    "azula JFPS": Method(_wrapped("jfps"), [{"iterations": n} for n in (1, 8)]),
    "azula DiffPIR": Method(
        _wrapped("diffpir"),
        [{"lmbda": 10.0}, *({"lmbda": x, "iterations": 8} for x in (0.5, 1.0))],
    ),
    "azula TDS": Method(azula_tds, [{"std": s} for s in (1.0, 0.5)], lambda: 2),
    "azula RePaint": Method(
        azula_repaint,
        [{"iterations": n} for n in (3, 1, 10)],
        lambda iterations: iterations,
        masks_only=True,
    ),
    "deepinv DPS": Method(deepinv_dps, WEIGHTS, lambda: 2),
    "deepinv DPS annealed": Method(
        functools.partial(deepinv_dps, guidance="annealed"), WEIGHTS, lambda: 2
    ),
    "deepinv PiGDM": Method(
        _guided("PiGDMDataFidelity"), [{"weight": w} for w in (1.0, 1.5, 2.0)], lambda: 2
    ),
    "deepinv moment matching": Method(
        _guided("MomentMatchingDataFidelity"),
        [{"cg_max_iter": 3}, {"cg_max_iter": 8}, {"cg_max_iter": 3, "alpha": 0.0}],
        lambda cg_max_iter: cg_max_iter + 3,  # and one for its first residual
    ),
    "deepinv DDRM": Method(deepinv_ddrm, [{"eta": e} for e in (0.85, 0.0, 0.5)]),
    "deepinv DiffPIR": Method(deepinv_diffpir, [{"lambda_": x} for x in (7.0, 1.0, 3.0)]),
}


def run(task: Task, name: str, evaluations: int, setting: dict[str, Any]) -> np.ndarray:
    """Samples `[N size, D]` of a method with at most this many evaluations per sample.

    Raises:
        RuntimeError: it took more.
    """
    method, counted = METHODS[name], Counted(task.denoise)
    of_cost = {k: v for k, v in setting.items() if k in inspect.signature(method.cost).parameters}
    steps = evaluations // method.cost(**of_cost)
    torch.manual_seed(0)
    found = method.run(task._replace(denoise=counted), steps, **setting)
    calls = counted.calls / (len(task.y) if method.run is azula_tds else 1)
    if calls > evaluations:
        raise RuntimeError(f"{name} took {calls:g} evaluations instead of {evaluations}")
    return np.asarray(found.detach())
