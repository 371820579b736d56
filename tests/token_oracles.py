"""Laws of texts, enumerated or hidden Markov, with exact denoisers of both processes.

The code does not use the package's mathematics: of a process it calls the schedule's `lost` only.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data.sets.hidden_markov import HiddenMarkov
from diffusion_jax.types import Array, Cond


class Exact:
    """Exact networks of both processes, from `conditional`."""

    vocabulary: int

    def conditional(self, evidence: Array, others: bool = False) -> Array:
        """`p(x_i = v)` `[B, L, V]` given `evidence` `[B, L, V]`, a factor for each token.

        With `others` a token's own evidence is left out.
        """
        raise NotImplementedError

    def of_masked(self, x_t: Array, t: Array, cond: Cond) -> Array:
        """Logits of the exact network of the masked process."""
        seen = x_t[..., None] == jnp.arange(self.vocabulary)
        evidence = jnp.where(x_t[..., None] == self.vocabulary, 1.0, seen)
        return jnp.log(jnp.maximum(self.conditional(evidence), 1e-30))

    def of_replaced(self, lost, others: bool):
        """Logits of the exact network of uniform noise: from the others, or from all tokens."""

        def network(x_t: Array, t: Array, cond: Cond) -> Array:
            gone = lost(t)[:, None, None]
            seen = x_t[..., None] == jnp.arange(self.vocabulary)
            evidence = gone / self.vocabulary + (1 - gone) * seen
            return jnp.log(self.conditional(evidence, others))

        return network


@dataclasses.dataclass(frozen=True, eq=False)
class Texts(Exact):
    """A law of texts of L tokens of a vocabulary of V: all `V^L` of them."""

    p: np.ndarray  # float64 `[V^L]`
    vocabulary: int
    length: int

    @functools.cached_property
    def all(self) -> np.ndarray:
        """int32 `[V^L, L]`."""
        texts = itertools.product(range(self.vocabulary), repeat=self.length)
        return np.array(list(texts), np.int32)

    @property
    def entropy(self) -> float:
        """In nats per text."""
        return float(-np.sum(self.p * np.log(self.p)))

    def number(self, texts: np.ndarray) -> np.ndarray:
        """Places in `all` of texts `[N, L]`: `[N]`."""
        return texts @ self.vocabulary ** np.arange(self.length)[::-1]

    def sample(self, num: int, seed: int = 0) -> np.ndarray:
        """Texts int32 `[num, L]`."""
        return self.all[np.random.default_rng(seed).choice(len(self.p), num, p=self.p)]

    def conditional(self, evidence: Array, others: bool = False) -> Array:
        """`p(x_i = v)` `[B, L, V]` given `evidence` `[B, L, V]`, a factor for each token.

        With `others` a token's own evidence is left out.
        """
        each = jnp.stack([evidence[:, i, self.all[:, i]] for i in range(self.length)], 1)
        one_hot = np.eye(self.vocabulary)[self.all]  # [V^L, L, V]
        found = []
        for i in range(self.length):
            used = each.at[:, i].set(1) if others else each
            weight = jnp.asarray(self.p) * jnp.prod(used, axis=1)
            found.append(weight @ jnp.asarray(one_hot[:, i]))
        joint = jnp.stack(found, 1)
        return joint / joint.sum(-1, keepdims=True)


def chain(vocabulary: int = 3, length: int = 4) -> Texts:
    """A Markov chain."""
    draw = np.random.default_rng(7)
    first = draw.dirichlet(np.ones(vocabulary))
    step = draw.dirichlet(np.full(vocabulary, 0.5), vocabulary) * 0.95 + 0.05 / vocabulary
    texts = Texts(np.empty(0), vocabulary, length).all
    p = first[texts[:, 0]]
    for i in range(1, length):
        p = p * step[texts[:, i - 1], texts[:, i]]
    return Texts(p, vocabulary, length)


@dataclasses.dataclass(frozen=True, eq=False)
class Markov(Exact):
    """A hidden Markov source: forward and backward (Rabiner 1989), with evidence for tokens."""

    law: HiddenMarkov

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        return self.law.emission.shape[1]

    def conditional(self, evidence: Array, others: bool = False) -> Array:
        transition, emission = jnp.asarray(self.law.transition), jnp.asarray(self.law.emission)
        seen = jnp.moveaxis(evidence @ emission.T, 1, 0)  # [L, B, S]
        scaled = lambda a: a / a.sum(-1, keepdims=True)  # noqa: E731

        def forward(state, each):
            return scaled((state * each) @ transition), state

        def backward(state, each):
            return scaled((state * each) @ transition.T), state

        begin = jnp.broadcast_to(jnp.asarray(self.law.initial), seen[0].shape)
        _, before = jax.lax.scan(forward, begin, seen)
        _, after = jax.lax.scan(backward, jnp.ones_like(begin), seen, reverse=True)
        p = jnp.moveaxis(before * after, 0, 1) @ emission
        return scaled(p if others else p * evidence)
