"""Training and sampling speed of networks of published sizes on this machine, with synthetic data.

    train dit_xl2 | adm64    a training step: time, share of the measured matrix peak, and with
                             batches from the input pipeline instead of a fixed one
    start dit_xl2 | adm64    time until the first step is ready, and until its end: with an empty
                             and then a filled compilation cache
    sample                   pictures of Stable Diffusion v1-5, guided, with random weights
    depth                    compilation time of DiT-XL/2's step at depths 7, 14 and 28; with
                             --topology v5e:1x1 for a TPU, by libtpu

On a CPU the networks are smaller (`REDUCED`) and in float32. See README.md.
"""

import argparse
import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from diffusion_jax.system.runtime import enable_compilation_cache, tune_cpu_allocator

tune_cpu_allocator()

import jax  # noqa: E402  the allocator comes first
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from configs import imagenet64_adm, imagenet256_dit  # noqa: E402
from diffusion_jax.codecs.latents import CODEC, Latents  # noqa: E402
from diffusion_jax.data import ArraySource, Split, train_batches  # noqa: E402
from diffusion_jax.diffusion.prediction import PREDICTIONS  # noqa: E402
from diffusion_jax.diffusion.process import TIME_INPUTS, Gaussian  # noqa: E402
from diffusion_jax.diffusion.schedules import ScaledLinear  # noqa: E402
from diffusion_jax.diffusion.time_grids import leading  # noqa: E402
from diffusion_jax.from_config import planned_dataset  # noqa: E402
from diffusion_jax.generation.generator import Generator, Request, as_they_are  # noqa: E402
from diffusion_jax.models.applied import Applied  # noqa: E402
from diffusion_jax.models.autoencoder import Autoencoder  # noqa: E402
from diffusion_jax.models.flops import count_flops  # noqa: E402
from diffusion_jax.models.platform import computing_on  # noqa: E402
from diffusion_jax.models.unet import UNet  # noqa: E402
from diffusion_jax.plan import parse_topology  # noqa: E402
from diffusion_jax.plan.ahead_of_time import compile_step  # noqa: E402
from diffusion_jax.plan.measured import Steps, matrix_peak, seconds  # noqa: E402
from diffusion_jax.plan.program import Program  # noqa: E402
from diffusion_jax.samplers.ode import pndm  # noqa: E402
from diffusion_jax.system.keys import make_key  # noqa: E402
from diffusion_jax.types import Params  # noqa: E402
from experiments.speed.bench import describe  # noqa: E402

DIT_XL2 = {
    "codec.name": "identity",  # latents are taken as they are
    "plan.shape": (32, 32, 4),
    "model.dit.remat": "none",
    "train.batch_size": 64,
}
NETWORKS = {
    "dit_xl2": (imagenet256_dit, DIT_XL2),
    "adm64": (imagenet64_adm, {"train.batch_size": 48}),
}
REDUCED = {
    "dit_xl2": {
        "model.dtype": "float32",
        "model.dit.hidden_size": 576,
        "model.dit.depth": 6,
        "model.dit.num_heads": 8,
        "model.dit.unroll": 6,
        "train.batch_size": 8,
    },
    "adm64": {
        "model.dtype": "float32",
        "model.unet.channels": 64,
        "model.unet.num_blocks": 1,
        "model.unet.head_dim": 32,
        "train.batch_size": 4,
    },
}
SAMPLING_STEPS = 48


def program(
    network: str, batch: int, changes: dict[str, Any] | None = None, reduced: bool | None = None
) -> Program:
    """A network's config on the available devices; `batch` 0 selects the table's.

    It is `reduced` on a CPU, if nothing else is said.
    """
    module, sizes = NETWORKS[network]
    config = module.get_config()
    config.update_from_flattened_dict(sizes)
    if jax.default_backend() == "cpu" if reduced is None else reduced:
        config.update_from_flattened_dict(REDUCED[network])
    config.update_from_flattened_dict(changes or {})
    if batch:
        config.train.batch_size = batch
    return Program(config, planned_dataset(config), jax.device_count(), jax.default_backend())


def train(network: str, batch: int, rounds: int) -> None:
    """Prints the time of a step with and without the input pipeline, interleaved."""
    found = program(network, batch)
    size, dtype = found.config.train.batch_size, jnp.dtype(found.config.model.dtype)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4096, *found.dataset.kind.shape), np.uint8)
    labels = rng.integers(0, found.dataset.num_classes, 4096).astype(np.int32)
    splits = {**found.dataset.splits, "train": Split(ArraySource(images, labels))}
    dataset = dataclasses.replace(found.dataset, splits=splits)
    print(
        f"{network}: {found.parameters:,} parameters, batch {size}, {dtype}, "
        f"{jax.devices()[0].device_kind}"
    )
    cores = found.devices if found.platform == "cpu" else 1  # CPU devices share one machine
    steps, batches = Steps(found), train_batches(dataset, batch_size=size, seed=0, flip=True)
    print(f"  the first step took {steps.take():.1f} s, compilation included", flush=True)
    steps.take(batches)  # starts the pipeline
    rows = []
    for _ in range(rounds):
        peak = matrix_peak(dtype, rounds=2) * found.devices / cores
        rows.append((peak, steps.take(), steps.take(batches)))
    batches.close()
    peaks, plain, fed = (np.array(column) for column in zip(*rows, strict=True))
    for name, values in {
        "matrix peak, TFLOP/s": peaks / 1e12,
        "step, s": plain,
        "images/s": size / plain,
        "**step / matrix peak**": found.model_flops / plain / peaks,
        "**step with the input pipeline / without**": fed / plain,
    }.items():
        print(describe(f"{network} {name}", list(values)))


def start(network: str, batch: int, rounds: int) -> None:
    """Prints the seconds until a new process is ready for its first step, and until its end."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            found.append([_first_step(network, batch, cache) for _ in ("empty", "filled")])
    times = np.array(found)  # [round, empty or filled, ready or taken]
    for i, name in enumerate(("reached", "taken")):
        empty, filled = times[:, :, i].T
        print(describe(f"{network} first step {name}, empty cache, s", list(empty)))
        print(describe(f"{network} first step {name}, filled cache, s", list(filled)))
        print(describe(f"{network} **first step {name}, empty / filled**", list(empty / filled)))


def _first_step(network: str, batch: int, cache: str) -> tuple[float, float]:
    """Seconds from the start of a process until its step is compiled, and until one is taken."""
    command = [sys.executable, __file__, "first", network, "--batch", str(batch)]
    env = {**os.environ, "XDG_CACHE_HOME": cache}
    began = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        reached, taken = [time.perf_counter() - began for _ in process.stdout]
    return reached, taken


def first(network: str, batch: int) -> None:
    """Takes the first step and ends; prints a line before and after it."""
    enable_compilation_cache()
    steps = Steps(program(network, batch))
    steps.compile()
    print("reached", flush=True)
    steps.take()
    print("taken", flush=True)


def stable_diffusion(dtype: Any, **sizes: Any) -> tuple[Generator, Params, Request]:
    """Stable Diffusion v1-5 with random weights, and a request of one picture."""
    shape, key = (64, 64, 4), make_key(0)
    net = UNet(
        **sizes,
        channel_mults=(1, 2, 4, 4),
        num_blocks=2,
        attention_levels=(0, 1, 2),
        context_dim=768,
        symmetric_padding=True,
        dropout=0.0,
        out_channels=4,
        dtype=dtype,
    )
    decoder = Autoencoder()
    cond = {"text": np.asarray(jax.random.normal(key, (1, 77, 768)))}
    model = Applied(net, (jnp.zeros((1, *shape)), jnp.zeros(1), cond))
    rng = np.random.default_rng(0)  # compiling the initialisation would take longer than the rest
    params, frozen = (
        jax.tree.map(lambda a: jnp.asarray(0.02 * rng.standard_normal(a.shape, np.float32)), shapes)
        for shapes in (
            jax.eval_shape(model.init, key),
            jax.eval_shape(decoder.init, key, jnp.zeros((1, 512, 512, 3)))["params"],
        )
    )
    schedule = ScaledLinear()
    process = Gaussian(schedule, PREDICTIONS["eps"], time_input=TIME_INPUTS["table_index"])
    generator = Generator(
        *(model, process, Latents(decoder, shape, 0.18215), pndm(schedule)),
        leading(SAMPLING_STEPS, offset=1, end=0.001),
        ready=model.ready,
    )
    request = Request(np.zeros(1, np.int32), cond, 7.5, frozen={CODEC: frozen})
    return generator, params, request


def guided_sampling(rounds: int) -> None:
    """Prints evaluations per second of PLMS with guidance, for one picture of 512 x 512.

    Evaluations are of the guided network, two forward passes each; also with parameters that are
    cast at every one of them, and with the decoder.
    """
    cpu = jax.default_backend() == "cpu"
    small: dict[str, int] = {"channels": 64, "num_heads": 4}
    sizes = small if cpu else {"channels": 320, "num_heads": 8}
    dtype = jnp.float32 if cpu else jnp.bfloat16
    generator, params, request = stable_diffusion(dtype, **sizes)
    if cpu:
        generator = dataclasses.replace(generator, times=generator.times[::12])
    x, cond = jnp.zeros((1, *generator.codec.shape)), request.cond
    with computing_on("tpu"):
        flops = count_flops(generator.apply, params, x, jnp.zeros(1), cond)
    print(
        f"{sum(a.size for a in jax.tree.leaves(params)):,} parameters, {flops / 1e9:.1f} GFLOP per "
        f"forward, {jax.devices()[0].device_kind}",
        flush=True,
    )

    def latents(generator: Generator) -> Callable[[], Any]:
        _, steps = generator.keys(make_key(0), jnp.zeros(1, jnp.int32))
        draw = jax.jit(lambda *args: generator.run(*args).x)
        return lambda: jax.block_until_ready(draw(params, x, steps, request))

    jobs = {
        "": latents(generator),
        "casting at each": latents(dataclasses.replace(generator, ready=as_they_are)),
        "with the decoder": lambda: generator(params, 0, request, batch_size=1)[0],
    }
    if cpu:  # in float32 nothing is cast
        del jobs["casting at each"]
    for name, job in jobs.items():
        print(f"{name or 'sampling'}: the first run took {seconds(job):.1f} s", flush=True)
    evaluations = len(generator.times)  # the first step of PLMS takes two
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            taken[name].append(seconds(job))
    for name, each in taken.items():
        print(describe(f"evaluations/s {name}", [evaluations / t for t in each]))
        print(describe(f"TFLOP/s {name}", [2 * flops * evaluations / t / 1e12 for t in each]))
        print(describe(f"s per picture {name}", each))


def depth(topology: str, depths: list[int]) -> None:
    """Prints the time to lower and compile the step at several depths."""
    for blocks in depths:
        changes = {**DIT_XL2, "model.dit.depth": blocks, "model.dit.unroll": 1}
        if topology:
            changes |= {"model.dtype": "bfloat16", "train.batch_size": 4}
        else:
            changes |= {"model.dit.hidden_size": 288, "train.batch_size": 4}
        found = program("dit_xl2", 0, changes, reduced=False if topology else None)
        target = parse_topology(topology or "v5e:1x1")
        found = dataclasses.replace(found, devices=target.count if topology else found.devices)
        steps = None if topology else Steps(found)
        found.state  # noqa: B018  traced before the clock runs
        began = time.process_time()
        if steps:  # the first, which compiles, minus the second
            wall = steps.take() - steps.take()
        else:
            wall = seconds(functools.partial(compile_step, found, target))
        print(
            f"depth {blocks}: {found.parameters:,} parameters, {wall:.1f} s, "
            f"{time.process_time() - began:.1f} s of processor time",
            flush=True,
        )


def main() -> None:
    """Runs the selected measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=["train", "start", "first", "sample", "depth"])
    parser.add_argument("network", choices=NETWORKS, nargs="?", default="dit_xl2")
    parser.add_argument("--batch", type=int, default=0, help="0: the table's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--topology", default="", help="of depth: compile for it")
    parser.add_argument("--depths", type=int, nargs="+", default=[7, 14, 28])
    args = parser.parse_args()
    if args.job == "train":
        train(args.network, args.batch, args.rounds)
    elif args.job == "start":
        start(args.network, args.batch, args.rounds)
    elif args.job == "first":
        first(args.network, args.batch)
    elif args.job == "sample":
        guided_sampling(args.rounds)
    else:
        depth(args.topology, args.depths)


if __name__ == "__main__":
    main()
