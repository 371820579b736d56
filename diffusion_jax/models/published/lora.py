"""LoRA (Hu et al. 2021): factors of changes of weights, in the files of PEFT and of kohya.

A layer's weight W [D, C] becomes W + scale B A (Eq. 3) with A [r, C] and B [D, r]. Here, where
kernels are [..., C, D], factors are a tree of the parameters' names with {"a": [..., C, r],
"b": [r, D]} in place of each changed kernel. They can be trained as parameters of their own over
frozen ones: the loss then is of `merged(params, factors)`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffusion_jax.models.published.files import PARTS
from diffusion_jax.models.weights import (
    Format,
    Stored,
    WeightsError,
    read_metadata,
    read_tensors,
    tensors_of,
    variables_from,
    write_tensors,
)
from diffusion_jax.types import Array

Names = tuple[str, ...]
"""A kernel's path in a tree of parameters."""
METADATA = "lora_adapter_metadata"
"""Diffusers' name for PEFT's configuration in a file."""
PROJECTIONS = re.compile(r"(self|text)_(q|k|v|out)|self_attn\.(q|k|v|out)_proj")


class Naming(NamedTuple):
    """How a trainer names factors: a beginning per part, the layer's name, and an end."""

    parts: Mapping[str, tuple[str, ...]]  # the first is written, all are read
    dot: str  # what stands for the dots in the layer's name
    a: str
    b: str


NAMINGS = {
    "peft": Naming(
        {"unet": ("unet.",), "text_encoder": ("text_encoder.",)},
        *(".", ".lora_A.weight", ".lora_B.weight"),
    ),
    "kohya": Naming(
        {"unet": ("lora_unet_",), "text_encoder": ("lora_te_", "lora_te1_")},
        *("_", ".lora_down.weight", ".lora_up.weight"),
    ),
}
CHANGED = tuple(NAMINGS["peft"].parts)
"""The parts of `files.PARTS` that LoRA can change."""


class Lora(NamedTuple):
    """Changes of networks: trees by part, such as 'unet', and then by names of its parameters."""

    factors: Any  # {"a", "b"} of each changed kernel
    scales: Any  # a number for each of them, alpha / r


def merged(params: Any, factors: Any, scale: Any = 1.0) -> Any:
    """Parameters W + scale a b, for all kernels with factors; differentiable in all arguments.

    `scale` is a number or a tree of them, as `Lora.scales`. Parameters without factors are the same
    arrays.

    Raises:
        ValueError: there are factors of what is no parameter.
    """
    found = dict(params)
    for name, part in factors.items():
        if name not in found:
            raise ValueError(f"LoRA has factors of {name!r}, which is not among {sorted(found)}")
        here = scale[name] if isinstance(scale, Mapping) else scale
        if part.keys() == {"a", "b"}:
            # As exact as the weights, also on devices that by default multiply with fewer digits.
            change = jnp.matmul(part["a"], part["b"], precision="highest")
            found[name] = found[name] + here * change
        else:
            found[name] = merged(found[name], part, here)
    return found


def attention_projections(path: Names) -> bool:
    """Whether a kernel is q, k, v or the output of an attention: what diffusers trains."""
    return PROJECTIONS.fullmatch(path[-2]) is not None


def lora_init(
    params: Any, rank: int, key: Array, which: Callable[[Names], bool] = attention_projections
) -> Any:
    """Factors that change nothing yet, of the kernels for whose path `which` is true.

    As in PEFT and kohya's trainer: a is uniform with bounds of 1 / sqrt(inputs), b is 0.

    Raises:
        ValueError: no kernel was chosen.
    """
    chosen = {path: leaf for path, leaf in _kernels(params) if which(path)}
    if not chosen:
        raise ValueError("LoRA was asked for no layer that the network has")

    def factors(leaf: Any, key: Array) -> dict[str, Array]:
        shape, bound = leaf.shape[:-1], math.prod(leaf.shape[:-1]) ** -0.5
        a = jax.random.uniform(key, (*shape, rank), minval=-bound, maxval=bound)
        return {"a": a, "b": jnp.zeros((rank, leaf.shape[-1]))}

    keys = jax.random.split(key, len(chosen))
    return unflatten_dict(
        {path: factors(leaf, key) for (path, leaf), key in zip(chosen.items(), keys, strict=True)}
    )


def read_lora(path: Path, templates: Mapping[str, Any], others: Sequence[str] = ()) -> Lora:
    """The factors in a file of PEFT (diffusers) or of kohya's trainer, as float32.

    `templates` has the variables, or their shapes, of each part that the file may change, `others`
    are parts whose factors are passed over. Without an alpha the scale is 1.

    Raises:
        WeightsError: one sentence that names the file and the first tensor that is wrong.
    """
    tensors, words = read_tensors(path), " and ".join(PARTS[part].words for part in templates)
    kohya = any(name.endswith(NAMINGS["kohya"].a) for name in tensors)
    naming = NAMINGS["kohya" if kohya else "peft"]
    passed_over = tuple(start for part in others for start in naming.parts[part])
    layers = {name.removesuffix(naming.a): name for name in tensors if name.endswith(naming.a)}
    known, kernels = dict(_layers(templates, naming)), _kernels_of(templates)
    names = {known[layer]: layer for layer in layers if layer in known}
    ranks = {where: tensors[layers[name]].shape[:1] for where, name in names.items()}
    template = {}
    for where, rank in ranks.items():
        *inputs, outputs = kernels[where].shape
        template[(*where, "a")] = jax.ShapeDtypeStruct((*inputs, *rank), jnp.float32)
        template[(*where, "b")] = jax.ShapeDtypeStruct((*rank, outputs), jnp.float32)
    alphas = {f"{name}.alpha": where for where, name in names.items()}
    factors = variables_from(
        tensors,
        path,
        {"lora": unflatten_dict(template)},
        f"LoRA of {words}",
        lambda name: name in alphas or name.startswith(passed_over),
        _layout(templates, names, naming),
    )["lora"]
    scales = _configured_scales(path, names, ranks)
    for name in alphas.keys() & tensors.keys():
        if tensors[name].size != 1:
            raise WeightsError(f"{path}: {name} {list(tensors[name].shape)} is no number")
        scales[alphas[name]] = float(tensors[name].item()) / ranks[alphas[name]][0]
    return Lora(factors, unflatten_dict(scales))


def with_lora(path: Path, part: str, variables: Any) -> Any:
    """The variables of a part with the changes in a file, which may change others, too.

    Raises:
        WeightsError: as `read_lora`.
    """
    if part not in CHANGED:
        return variables
    found = read_lora(path, {part: variables}, [other for other in CHANGED if other != part])
    factors, scales = (tree.get(part, {}) for tree in found)
    return {**variables, "params": merged(variables["params"], factors, scales)}


def _configured_scales(
    path: Path, names: Mapping[Names, str], ranks: Mapping[Names, Sequence[int]]
) -> dict[Names, float]:
    """The scales in the configuration of PEFT that the file may hold; 1 without."""
    try:
        found = json.loads(read_metadata(path).get(METADATA, "{}"))
    except ValueError as error:
        raise WeightsError(f"{path}: {METADATA} in its header is no JSON: {error}") from error
    scales = {}
    for where, name in names.items():
        part, (rank,) = where[0], ranks[where]
        patterns = found.get(f"{part}.alpha_pattern", {}).items()
        layer = name.removeprefix(f"{part}.")
        matching = (a for end, a in patterns if re.fullmatch(rf"(.*\.)?({end})", layer))
        alpha = next(matching, found.get(f"{part}.lora_alpha", rank))
        scales[where] = alpha / (rank**0.5 if found.get(f"{part}.use_rslora") else rank)
    return scales


def write_lora(
    path: Path,
    lora: Lora,
    templates: Mapping[str, Any],
    naming: str = "peft",
    dtype: Any = np.float32,
) -> None:
    """Writes factors as a name of `NAMINGS` has it, in float32, float16 or bfloat16.

    `templates` is as for `read_lora`. Kohya's files have an alpha per layer; PEFT's get diffusers'
    header, where scales differ from 1.
    """
    form, scales = NAMINGS[naming], flatten_dict(lora.scales)
    names: dict[Names, str] = {}
    for name, where in _layers(templates, form):
        names.setdefault(where, name)
    factors = flatten_dict(lora.factors)
    alphas = {where: scale * factors[(*where, "b")].shape[0] for where, scale in scales.items()}
    tensors = tensors_of({"lora": lora.factors}, _layout(templates, names, form), dtype)
    if naming == "kohya":
        tensors |= {f"{names[w]}.alpha": np.asarray(alpha, dtype) for w, alpha in alphas.items()}
        write_tensors(path, tensors)
        return
    if all(scale == 1 for scale in scales.values()):
        write_tensors(path, tensors)
        return
    configuration: dict[str, Any] = {}
    for part in lora.factors:
        # PEFT takes the ends of modules' names, which begin as the transformers' version has it.
        own = {
            where: names[where].removeprefix(f"{part}.").removeprefix("text_model.")
            for where in alphas
            if where[0] == part
        }
        ranks = {name: factors[(*where, "b")].shape[0] for where, name in own.items()}
        patterns = {name: alphas[where] for where, name in own.items()}
        configuration |= {
            f"{part}.r": next(iter(ranks.values())),
            f"{part}.lora_alpha": next(iter(patterns.values())),
            f"{part}.rank_pattern": ranks,
            f"{part}.alpha_pattern": patterns,
            f"{part}.target_modules": list(own.values()),
        }
    write_tensors(path, tensors, **{METADATA: json.dumps(configuration)})


def _layout(templates: Mapping[str, Any], names: Mapping[Names, str], naming: Naming) -> Format:
    """The format of factors whose layers have these names in the file."""
    forms = {part: PARTS[part].formats[0](template) for part, template in templates.items()}
    kernels = _kernels_of(templates)

    def layout(path: Names, leaf: Any) -> Stored:
        where, factor = path[:-1], path[-1]
        _, axes, (outputs, *inputs) = forms[where[0]](where[1:], kernels[where])
        if factor == "a":
            return Stored(names[where] + naming.a, axes, (leaf.shape[-1], *inputs))
        # Of a convolution, the second factor is one of 1x1.
        shape = outputs, leaf.shape[0], *(1 for _ in inputs[1:])
        return Stored(names[where] + naming.b, axes, shape)

    return layout


def _layers(templates: Mapping[str, Any], naming: Naming) -> Iterator[tuple[str, Names]]:
    """What files call layers, in all ways that are read, and their kernels; first as is written."""
    for part, template in templates.items():
        for form in PARTS[part].formats:
            layout = form(template)
            for path, leaf in _kernels(template["params"]):
                layer = layout(path, leaf).name.removesuffix(".weight")
                # transformers 5 has dropped this in memory, and with it some trainers' files
                for name in dict.fromkeys((layer, layer.removeprefix("text_model."))):
                    for beginning in naming.parts[part]:
                        yield beginning + name.replace(".", naming.dot), (part, *path)


def _kernels_of(templates: Mapping[str, Any]) -> dict[Names, Any]:
    """The kernels of all parts."""
    return {
        (part, *path): leaf
        for part, template in templates.items()
        for path, leaf in _kernels(template["params"])
    }


def _kernels(params: Any) -> Iterator[tuple[Names, Any]]:
    """The kernels in a tree of parameters."""
    return ((path, leaf) for path, leaf in flatten_dict(params).items() if path[-1] == "kernel")
