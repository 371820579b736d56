"""Tokens of plain texts, from a published tokeniser or as bytes."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.models.weights import WeightsError
from diffusion_jax.system.files import local_copy

BYTE_START, BYTE_END, BYTE_VOCABULARY = 256, 257, 258
"""Start and end tokens of `byte_tokens`, and the number of tokens."""
NONE = -1  # padding
CLIP_END = "<|endoftext|>"


class Tokens(NamedTuple):
    """Texts as tokens."""

    ids: np.ndarray  # int32 [N, L]: a start token, the text, an end token, then `NONE`
    cut: np.ndarray  # bool [N], whether a text was cut because it was too long; the end token stays


def pad(sequences: Sequence[Sequence[int]], length: int) -> Tokens:
    """Pads or cuts token sequences to rows of `length`; if cut, the last token is kept."""
    ids, cut = np.full((len(sequences), length), NONE, np.int32), np.zeros(len(sequences), bool)
    for row, sequence in enumerate(sequences):
        cut[row] = len(sequence) > length
        kept = [*sequence[: length - 1], sequence[-1]] if cut[row] else sequence
        ids[row, : len(kept)] = kept
    return Tokens(ids, cut)


def utf8(text: str) -> bytes:
    """The text in UTF-8; unpaired surrogates, which it cannot encode, become question marks."""
    return text.encode("utf-8", "replace")


def byte_tokens(texts: Sequence[str], length: int) -> Tokens:
    """UTF-8 bytes of texts between start and end tokens, `length` >= 3 tokens in all at most.

    Any Unicode is allowed, and no character is cut in two.
    """
    whole = [utf8(text) for text in texts]
    cut = np.array([len(data) > length - 2 for data in whole], bool)
    kept = (_beginning(text, length).encode() for text in texts)
    return Tokens(pad([[BYTE_START, *data, BYTE_END] for data in kept], length).ids, cut)


def byte_rest(text: str, length: int) -> str:
    """The end of a text that has no room in `length` tokens of `byte_tokens`."""
    return text[len(_beginning(text, length)) :]


def _beginning(text: str, length: int) -> str:
    """What of a text has room between start and end tokens."""
    return utf8(text)[: length - 2].decode("utf-8", "ignore")


@dataclasses.dataclass(frozen=True)
class Tokeniser:
    """A published tokeniser."""

    digest: str  # short hash of its files
    rules: Any  # tokeniser of the library `tokenizers`, without padding and truncation
    learned: tuple[
        tuple[str, ...], ...
    ] = ()  # names of new tokens, several where they are one word

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.rules.get_vocab_size()

    @functools.cached_property
    def end(self) -> int:
        """The token that ends every text."""
        return self.rules.encode("").ids[-1]

    def __call__(self, texts: Sequence[str], length: int) -> Tokens:
        """Tokens of texts, at most `length` of each."""
        # One by one: after parallel use the library warns at every fork.
        return pad([self._encoded(text).ids for text in texts], length)

    def filled(self, texts: Sequence[str], length: int) -> Tokens:
        """The same, padded with the last token, as in CLIP's training."""
        ids, cut = self(texts, length)
        return Tokens(np.where(ids == NONE, self.end, ids), cut)

    def with_learned(self, words: Mapping[str, int], digest: str = "") -> "Tokeniser":
        """With new tokens behind the others: for each of the `words` so many, of which it consists.

        As diffusers does, a word of three vectors is the tokens `word`, `word_1` and `word_2`.
        `digest` is that of their vectors, if they are known.

        Raises:
            ValueError: there is such a token, or a word is not one.
        """
        from tokenizers import AddedToken, Tokenizer

        rules = Tokenizer.from_str(self.rules.to_str())
        learned = tuple(
            (word, *(f"{word}_{i}" for i in range(1, num))) for word, num in words.items()
        )
        for names in learned:
            if not names[0] or any(letter.isspace() for letter in names[0]):
                raise ValueError(f"{names[0]!r} must be one word, the name of a new token")
            for name in names:
                if rules.token_to_id(name) is not None:
                    raise ValueError(f"{name!r} must be a new token, and the tokeniser has it")
                rules.add_tokens([AddedToken(name)])
        whole = hashlib.sha256(repr((self.digest, learned, digest)).encode()).hexdigest()[:12]
        return Tokeniser(whole, rules, (*self.learned, *learned))

    def rest(self, text: str, length: int) -> str:
        """The end of a text that has no room in `length` tokens."""
        found = self._encoded(text)
        if len(found.ids) <= length:
            return ""
        first, _ = found.offsets[length - 1]  # of the first token that is lost to the end token
        return text[first:]

    def _encoded(self, text: str) -> Any:
        for word, *more in self.learned:
            text = text.replace(word, " ".join((word, *more)))
        return self.rules.encode(utf8(text).decode())


def load_tokeniser(path: Path) -> Tokeniser:
    """Loads a `tokenizer.json`, or CLIP's `vocab.json` with `merges.txt` in the same folder.

    Raises:
        WeightsError: one sentence that names the file and what is wrong with it.
    """
    from tokenizers import Tokenizer

    merges = path.with_name("merges.txt")
    files = (path, merges) if path.name == "vocab.json" else (path,)
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{file}: no such file, which the tokeniser needs")
        digest.update(file.read_bytes())
    try:
        with contextlib.ExitStack() as stack:
            here = [stack.enter_context(local_copy(file)) for file in files]
            rules = clip_rules(*here) if len(here) == 2 else Tokenizer.from_file(str(here[0]))
        rules.no_padding()
        rules.no_truncation()
        empty = rules.encode("").ids
    except Exception as error:  # the library has no exception class of its own
        raise WeightsError(f"{path}: not a readable tokeniser ({error})") from error
    if len(empty) != 2:
        wrong = f"makes {len(empty)} tokens of an empty text, not the 2 of start and end"
        raise WeightsError(f"{path}: this tokeniser {wrong}")
    return Tokeniser(digest.hexdigest()[:12], rules)


def clip_rules(vocabulary: Path, merges: Path) -> Any:
    """CLIP's byte-pair encoding from its two files, as in OpenAI's `tokenizer.json`.

    Texts are normalised (NFC), with single spaces and in lower case; then letters, single digits,
    English endings with an apostrophe and the rest are encoded separately
    (`clip/simple_tokenizer.py`).
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import RobertaProcessing

    ends = start, end = CLIP_END.replace("end", "start"), CLIP_END
    files = str(vocabulary), str(merges)
    rules = Tokenizer(models.BPE.from_file(*files, unk_token=end, end_of_word_suffix="</w>"))
    first, last = map(rules.token_to_id, ends)
    if first is None or last is None:
        raise WeightsError(f"it has no {start} or no {end}")
    rules.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    special = "|".join(name.replace("|", r"\|") for name in ends)
    words = rf"{special}|'(?:[stmd]|re|ve|ll)|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"
    split = pre_tokenizers.Split(Regex(words), "removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    rules.add_special_tokens([AddedToken(name, special=True) for name in ends])
    rules.post_processor = RobertaProcessing(
        (end, last), (start, first), trim_offsets=False, add_prefix_space=False
    )
    return rules
