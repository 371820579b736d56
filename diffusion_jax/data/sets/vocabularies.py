"""Vocabularies of texts: characters, bytes, and byte-pair encoding trained on the texts."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data.sources import content_hash
from diffusion_jax.system.cache import cached
from diffusion_jax.system.runtime import cache_dir

LONG = 2**20  # characters of training texts from which byte pairs and their tokens are cached
UNKNOWN = "\ufffd"
"""Piece of the characters that no training text has."""


class Vocabulary(NamedTuple):
    """A tokeniser and the text of each of its tokens."""

    pieces: tuple[str, ...]  # as of `data.tokens.Tokens`
    encode: Callable[[str], np.ndarray]  # tokens int `[n]` of a text
    notes: tuple[str, ...] = ()  # sentences on characters or pieces that there are not


def characters(train: Sequence[str], heldout: Sequence[str], size: int) -> Vocabulary:
    """The characters of the training texts; others of held-out texts are one further piece."""
    known = np.unique(np.concatenate([np.unique(_codes(text)) for text in train]))
    counts = [(~np.isin(_codes(text), known)).sum() for text in heldout]
    pieces = list(map(chr, known))
    notes = []
    if number := int(np.sum(counts)):
        pieces.append(UNKNOWN)
        notes.append(
            f"{number:,} held-out characters that are in no training text are one piece, {UNKNOWN}"
        )

    def encode(text: str) -> np.ndarray:
        codes = _codes(text)
        found = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        return np.where(known[found] == codes, found, len(known))

    return Vocabulary(tuple(pieces), encode, tuple(notes))


def _codes(text: str) -> np.ndarray:
    """Unicode's code points uint32 of a text."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def in_bytes(train: Sequence[str], heldout: Sequence[str], size: int) -> Vocabulary:
    """All 256 bytes, of texts in UTF-8."""
    pieces = tuple(_piece(bytes([byte])) for byte in range(256))
    return Vocabulary(pieces, lambda text: np.frombuffer(text.encode(), np.uint8))


def _piece(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def byte_pairs(train: Sequence[str], heldout: Sequence[str], size: int) -> Vocabulary:
    """Byte-pair encoding of `size` pieces trained on the training texts (Sennrich et al. 2016).

    It is of bytes, within words with the blank before them (Radford et al. 2019), so that all texts
    can be encoded. Equally frequent pairs are merged in the order of their numbers. Those of long
    texts, and the tokens of these, are cached: ten million characters take half a minute.
    """
    texts, known = [*train, *heldout], {}
    if sum(map(len, train)) < LONG:
        rules = _trained(train, size)
    else:
        key = content_hash("bpe", version("tokenizers"), size, tuple(train), tuple(heldout))
        write = functools.partial(_write, train, texts, size)
        folder = cache_dir() / "vocabularies"
        rules, tokens = cached(folder, key, ".npz", _read, write, together=False)
        known = dict(zip(texts, tokens, strict=True))
    number = rules.get_vocab_size()
    byte_of = _bytes_of_signs()
    signs = {token: name for name, token in rules.get_vocab().items()}
    pieces = tuple(_piece(bytes(byte_of[sign] for sign in signs[token])) for token in range(number))
    notes = [f"the training texts give {number:,} pieces only"] if number < size else []

    def encode(text: str) -> np.ndarray:
        return known[text] if text in known else _tokens(rules, text)

    return Vocabulary(pieces, encode, tuple(notes))


def _tokens(rules: Any, text: str) -> np.ndarray:
    return np.array(rules.encode(text).ids, np.int32)


def _write(train: Sequence[str], texts: Sequence[str], size: int, path: Path) -> None:
    """Writes the rules that are trained on `train`, and the tokens of `texts`."""
    rules = _trained(train, size)
    tokens = [_tokens(rules, text) for text in texts]
    ends = np.cumsum([len(each) for each in tokens])
    with path.open("wb") as file:
        said = np.frombuffer(rules.to_str().encode(), np.uint8)
        np.savez(file, rules=said, tokens=np.concatenate(tokens), ends=ends)


def _read(path: Path) -> tuple[Any, list[np.ndarray]]:
    from tokenizers import Tokenizer

    with np.load(path) as file:
        rules = Tokenizer.from_str(file["rules"].tobytes().decode())
        return rules, np.split(file["tokens"], file["ends"][:-1])


def _trained(train: Sequence[str], size: int) -> Any:
    """The tokeniser of the library `tokenizers`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    with _in_one_thread():
        rules.train_from_iterator(train, trainer)
    return rules


@contextlib.contextmanager
def _in_one_thread() -> Iterator[None]:
    """Context: after parallel use the library warns at every fork, as of workers that read data."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _bytes_of_signs() -> dict[str, int]:
    """The byte for which each character stands in byte-level pieces (Radford et al. 2019).

    Visible characters of Latin-1 are themselves; the others follow in order from number 256.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + n): b for n, b in enumerate(others)}


TOKENIZERS: dict[str, Callable[[Sequence[str], Sequence[str], int], Vocabulary]] = {
    "characters": characters,
    "bytes": in_bytes,
    "bpe": byte_pairs,
}
"""`(training texts, held-out texts, number of pieces) -> Vocabulary`, by name."""
