"""Laws of texts in a field, `p(x) exp(h m(x))`, and of the samplers of the masked process.

Enumerated, and of hidden Markov sources by the transfer matrix. The code does not use the package's
mathematics.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data.sets.hidden_markov import HiddenMarkov
from diffusion_jax.types import Array, Cond
from tests.token_oracles import Exact, Markov, Texts


def tilted(texts: Texts, log_weight: np.ndarray) -> Texts:
    """The law `p(x) exp(log_weight(x))`, `[V^L]`."""
    p = texts.p * np.exp(log_weight)
    return dataclasses.replace(texts, p=p / p.sum())


def log_partition(law: HiddenMarkov, field: Array) -> Array:
    """`log sum_s p(s) exp(sum_i field[i, s_i])`, `field` `[L, S]`, by the transfer matrix."""

    def forward(carry: tuple[Array, Array], each: Array) -> tuple[tuple[Array, Array], None]:
        state, total = carry
        joint = state * jnp.exp(each)
        return ((joint / joint.sum()) @ transition, total + jnp.log(joint.sum())), None

    transition = jnp.asarray(law.transition)
    start = jnp.asarray(law.initial), jnp.zeros(())
    return jax.lax.scan(forward, start, field)[0][1]


def magnetisation(law: HiddenMarkov, field: Array, h: float) -> tuple[float, float]:
    """`M = E[m] / L` in the field `h field`, `[L, S]`, and the susceptibility `dM/dh`."""
    log_z = lambda h: log_partition(law, h * field) / len(field)  # noqa: E731
    return float(jax.grad(log_z)(h)), float(jax.grad(jax.grad(log_z))(h))


def on_tokens(law: HiddenMarkov, log_weights: np.ndarray, length: int) -> "Tilted":
    """The source with weights `exp(sum_i log_weights[x_i])`, `[V]`."""
    emission = law.emission * np.exp(log_weights)
    total = emission.sum(1)
    field = np.broadcast_to(np.log(total), (length, len(total)))
    return Tilted(HiddenMarkov(law.transition, emission / total[:, None]), field)


@dataclasses.dataclass(frozen=True, eq=False)
class Tilted(Exact):
    """A hidden Markov source whose paths have weights `p(s) exp(sum_i field[i, s_i])`.

    It is a hidden Markov source again, with transitions that depend on the place.
    """

    law: HiddenMarkov
    field: np.ndarray  # `[L, S]`

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        return self.law.emission.shape[1]

    def conditional(self, evidence: Array, others: bool = False) -> Array:
        if others:
            raise NotImplementedError
        emission = jnp.asarray(self.law.emission)
        seen = evidence @ emission.T  # [B, L, S]
        paths = Markov(HiddenMarkov(self.law.transition, np.eye(len(emission))))
        p = paths.conditional(seen * jnp.exp(jnp.asarray(self.field)))
        return (p / jnp.where(seen > 0, seen, 1)) @ emission * evidence

    def sample(self, num: int, seed: int) -> np.ndarray:
        """Texts int32 `[num, L]`: states forward in place, by backward messages."""
        transition, weight = self.law.transition, np.exp(self.field)
        after = [np.ones(len(transition))]
        for each in weight[:0:-1]:
            message = transition @ (each * after[-1])
            after.append(message / message.max())
        draw = np.random.default_rng(seed)
        p = np.broadcast_to(self.law.initial, (num, len(transition)))
        tokens = np.empty((num, len(weight)), np.int32)
        for i, (each, message) in enumerate(zip(weight, after[::-1], strict=True)):
            state = _drawn(p * each * message, draw)
            tokens[:, i] = _drawn(self.law.emission[state], draw)
            p = transition[state]
        return tokens


def _drawn(weights: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    cumulative = np.cumsum(weights, axis=1)
    u = draw.random(len(weights))[:, None] * cumulative[:, -1:]
    return np.minimum((cumulative <= u).sum(1), weights.shape[1] - 1)


def every(symbols: int, length: int) -> np.ndarray:
    """All rows of `length` symbols, as many as `symbols^length`."""
    return np.array(list(itertools.product(range(symbols), repeat=length)), np.int32)


def predicted(network: Callable[[Array, Array, Cond], Array], vocabulary: int, length: int):
    """Laws of tokens of all masked texts, `[(V + 1)^L, L, V]`, by a network's logits."""
    states = jnp.asarray(every(vocabulary + 1, length))
    return np.asarray(jax.nn.softmax(network(states, jnp.ones(len(states)), {})), np.float64)


def table(p: np.ndarray) -> Callable[[Array, Array, Cond], Array]:
    """A network that looks its logits up in laws of all masked texts."""
    length, vocabulary = p.shape[1:]
    logits = jnp.log(jnp.maximum(jnp.asarray(p), 1e-30))
    powers = (vocabulary + 1) ** jnp.arange(length)[::-1]
    return lambda x_t, t, cond: logits[x_t @ powers]


def law_in_steps(laws: Iterable[np.ndarray], lost: np.ndarray, strength: float = 0.0) -> np.ndarray:
    """The law `[V^L]` of ancestral steps, with `1 - alpha` `[K + 1]` and the laws of each step.

    `strength` is that of remasking, as a share of its maximum.
    """
    now = None
    for p, a, b in zip(laws, lost[:-1], lost[1:], strict=True):
        length, vocabulary = p.shape[1:]
        states = every(vocabulary + 1, length)
        masked = states == vocabulary
        now = np.all(masked, axis=1).astype(float) if now is None else now
        again = strength * min(1, b / max(1 - a, 1e-300))
        fill = (a - b + again * (1 - a)) / a
        found = np.concatenate([fill * p, np.full((*p.shape[:2], 1), 1 - fill)], axis=-1)
        kept = (1 - again) * np.eye(vocabulary + 1)[states]
        kept[..., -1] += again
        each = np.where(masked[..., None], found, kept)
        now = now @ np.prod([each[:, i][:, states[:, i]] for i in range(length)], axis=0)
    return now[~masked.any(axis=1)]


def law_one_at_a_time(p: np.ndarray) -> np.ndarray:
    """The law `[V^L]` of masks that are filled one at a time, in random order."""
    length, vocabulary = p.shape[1:]
    states = every(vocabulary + 1, length)
    masked = states == vocabulary
    powers = (vocabulary + 1) ** np.arange(length)[::-1]
    step = np.zeros((len(states), len(states)))
    for number, i in np.argwhere(masked):
        share = p[number, i] / masked[number].sum()
        np.add.at(step[number], number - (vocabulary - np.arange(vocabulary)) * powers[i], share)
    now = np.all(masked, axis=1).astype(float)
    for _ in range(length):
        now = now @ step
    return now[~masked.any(axis=1)]
