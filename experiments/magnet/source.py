"""The small language of `data/sets/hidden_markov.py` in a field: attributes and exact denoisers."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffusion_jax.data.sets.hidden_markov import ALPHABET, language
from diffusion_jax.diffusion.tokens import Attribute, Masked, Polynomial
from diffusion_jax.guidance.tokens import of_tokens, of_words
from diffusion_jax.types import Array, Denoised, Denoiser

LAW = language()
LETTER = LAW.emission.argmax(1)
"""The only letter of each state `[S]`."""
LETTERS = "sea"
WORDS = ("sea", "ship", "fish")
PROCESS = Masked(Polynomial(), len(ALPHABET))


@dataclasses.dataclass(frozen=True)
class Magnet:
    """An attribute of texts, and the same as a sum over the states of a path."""

    attribute: Attribute
    field: np.ndarray  # `[L, S]`


def letters(length: int) -> Magnet:
    """The number of the letters s, e and a."""
    members = np.isin(list(ALPHABET), list(LETTERS)).astype(np.float32)
    field = np.broadcast_to(members[LETTER], (length, len(LETTER)))
    return Magnet(of_tokens(jnp.asarray(members)), field)


def words(length: int) -> Magnet:
    """The number of the words sea, ship and fish that are whole, with a blank on both sides."""
    spelled = [[ALPHABET.index(letter) for letter in f" {word} "] for word in WORDS]
    field = np.zeros((length, len(LETTER)), np.float32)
    # A word is a chain of states with one way through it: it is counted at its first letter.
    begins = np.flatnonzero(LAW.transition[LETTER == 0].sum(0) > 0)
    for state in begins:
        end = state + np.argmax(LETTER[state:] == 0)
        word = "".join(ALPHABET[letter] for letter in LETTER[state:end])
        if word in WORDS:
            field[1 : length - len(word), state] = 1
    return Magnet(of_words(spelled), field)


MAGNETS: dict[str, Callable[[int], Magnet]] = {"letters": letters, "words": words}


def denoiser(field: ArrayLike) -> Denoiser:
    """The exact denoiser of `p(path) exp(sum_i field[i, s_i])`, for `field` `[L, S]`.

    Forward and backward (Rabiner 1989), with the few transitions that the language has: to the next
    letter of the word, or after its blank to a word, by one of five distributions.
    """
    blank = LETTER == 0
    onwards = jnp.asarray(~blank, jnp.float32)
    kinds, kind = np.unique(LAW.transition[blank], axis=0, return_inverse=True)
    ends = np.zeros((len(LETTER), len(kinds)), np.float32)
    ends[np.flatnonzero(blank), kind.ravel()] = 1
    kinds = kinds.astype(np.float32)
    spelled = jax.nn.one_hot(LETTER, len(ALPHABET))

    def scaled(a: Array) -> Array:
        return a / jnp.sum(a, axis=-1, keepdims=True)

    def weigh(state: Array, token: Array, weight: Array) -> Array:
        fits = (token[:, None] == jnp.asarray(LETTER)) | (token[:, None] == PROCESS.mask)
        return jnp.where(fits, state * weight, 0)

    def forward(state: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        joint = weigh(state, *at)
        moved = jnp.roll(joint * onwards, 1, axis=-1) + joint @ ends @ kinds
        return scaled(moved), joint

    def backward(message: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        token, weight, joint = at
        p = scaled(joint * message @ spelled)
        seen = weigh(message, token, weight)
        moved = onwards * jnp.roll(seen, -1, axis=-1) + seen @ kinds.T @ ends.T
        return scaled(moved), jnp.log(jnp.maximum(p, 1e-30))

    def denoise(x_t: Array, t: Array, cond: object) -> Denoised:
        weights = jnp.exp(jnp.asarray(field, jnp.float32))
        begin = jnp.broadcast_to(jnp.asarray(LAW.initial, jnp.float32), (len(x_t), len(LETTER)))
        _, joint = jax.lax.scan(forward, begin, (x_t.T, weights))
        _, log_p = jax.lax.scan(
            backward, jnp.ones_like(begin), (x_t.T, weights, joint), reverse=True
        )
        return Denoised(jnp.moveaxis(log_p, 0, 1))

    return denoise
