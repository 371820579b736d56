"""Cost of drawing samples on given devices, in words: for networks that are not trained here."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.from_config import Config, Parts, build
from diffusion_jax.generation.generator import Request
from diffusion_jax.models.flops import count_flops, count_peak_memory
from diffusion_jax.models.platform import computing_on
from diffusion_jax.plan.absent import has_compiler
from diffusion_jax.plan.ahead_of_time import Compiled, compile_call
from diffusion_jax.plan.hardware import Topology, find_hardware
from diffusion_jax.plan.measured import matrix_peak, memory_of
from diffusion_jax.plan.memory import USABLE, about_memory, about_traffic
from diffusion_jax.plan.program import size_of
from diffusion_jax.plan.roofline import Times, duration, in_two_readings, peak_of
from diffusion_jax.text import Reader


def plan_sampling(config: Config, dataset: Dataset, topology: Topology | None) -> list[str]:
    """Lines about the cost of samples: products, memory, and the least time on one device.

    On this process's device, whose speed is measured, or on one of a topology, for which it is
    compiled if its compiler can be imported.

    Raises:
        ConfigError: the config draws nothing, or a file is missing.
        TopologyError: the compiler does not support the topology.
    """
    parts = build(config, dataset, 1)
    sample, generator = config.sample, parts.generator
    network, decoder = products(config, parts)
    num = generator.sampler.total(len(generator.times) - 1)
    whole = num * network + decoder
    noun = dataset.kind.noun.removesuffix("s")
    if topology:
        hardware: Any = topology.hardware
        peak, limit = peak_of(hardware, config.model.dtype), hardware.memory
        told = "the published peak"
        platform = hardware.platform
    else:
        device = jax.local_devices()[0]
        hardware, platform = find_hardware(device.device_kind), device.platform
        peak, limit = matrix_peak(jnp.dtype(config.model.dtype)), memory_of(device)
        told = "the matrix peak as measured"
    compiled = Compiled()
    if topology and has_compiler(topology):
        compiled = compile_call(*_whole(config, parts), topology)
    size, held = sample.batch_size, memory(config, parts, platform)
    found_by = "estimated from lifetimes"
    if compiled.traffic:
        held["activations"], held["program"] = compiled.temporary, compiled.code
        found_by = "as compiled"
    how = f"{found_by}, {size} at a time"
    return [
        f"one {noun}: {num} evaluations of the network in {sample.steps} steps of "
        f"{sample.sampler}, {network / 1e9:.4g} GFLOP each at sample.guidance_scale="
        f"{sample.guidance_scale}, and {decoder / 1e9:.4g} GFLOP to decode: {whole / 1e12:.4g} "
        "TFLOP",
        *about_texts(parts.task.reader),
        *about_memory(held, how, compiled.refused, hardware, limit * USABLE[platform]),
        f"it takes no less than {duration(whole / peak)} at {told}, {peak / 1e12:.3g} TFLOP/s",
        *_about_batch(compiled, hardware, size * whole / peak, f"a batch of {size}"),
    ]


def _about_batch(compiled: Compiled, hardware: Any, computation: float, many: str) -> list[str]:
    """Lines about the bytes of a batch as compiled, and its time in two readings."""
    if not compiled.traffic:
        return []
    times = Times(computation, compiled.traffic.whole / hardware.bandwidth, 0.0)
    return [
        *about_traffic(compiled.traffic, hardware.platform, many),
        in_two_readings(many, times, ("computation", "memory")),
    ]


def about_texts(reader: Reader | None) -> list[str]:
    """A line about a frozen text encoder, if there is one."""
    if not (reader and reader.encoder):
        return []
    encoder = reader.encoder
    tokens = jax.ShapeDtypeStruct((1, encoder.length), jnp.int32)
    with computing_on("tpu"):
        cost = count_flops(encoder.forward, encoder.variables, tokens)
    return [f"each text is encoded once: {cost / 1e9:.4g} GFLOP"]


def products(config: Config, parts: Parts) -> tuple[int, int]:
    """FLOPs of a guided evaluation of the network and of the decoder, for one sample."""
    with computing_on("tpu"):  # products inside fused kernels cannot be counted
        guided, decode, args = _programs(config, parts, 1)
        return count_flops(guided, *args), count_flops(decode, *args)


def memory(config: Config, parts: Parts, platform: str) -> dict[str, int]:
    """Bytes of the parameters, and of what is computed with them for a batch of samples."""
    with computing_on(platform):
        params, frozen, *_ = _programs(config, parts, 1)[-1]
    return {
        "parameters": size_of(params),
        "parameters of the codec and of other networks": size_of(frozen),
        "activations": drawing(config, parts, platform, config.sample.batch_size),
    }


def drawing(config: Config, parts: Parts, platform: str, num: int) -> int:
    """Bytes that are computed to draw `num` samples at once, or to decode them."""
    with computing_on(platform):
        guided, decode, args = _programs(config, parts, num)
        return max(count_peak_memory(program, *args) for program in (guided, decode))


def _whole(config: Config, parts: Parts) -> tuple[Any, tuple[Any, ...]]:
    """Drawing a batch of samples, and the shapes of its arguments."""
    num = config.sample.batch_size
    params, frozen, _, _, cond = _programs(config, parts, num)[-1]

    def draw(params: Any, frozen: Any, cond: Any, key: Any, scale: Any) -> Any:
        return parts.generator.draw(params, key, Request(jnp.arange(num), cond, scale, {}, frozen))

    key, scale = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((), jnp.float32)
    return draw, (params, frozen, cond, key, scale)


def _programs(config: Config, parts: Parts, num: int) -> tuple[Any, Any, tuple[Any, ...]]:
    """A guided evaluation of the network and the decoder, and the shapes of their arguments."""
    generator, task = parts.generator, parts.task

    def shaped(array: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num, *array.shape[1:]), array.dtype)

    def guided(params: Any, frozen: Any, x_t: Any, t: Any, cond: Any) -> Any:
        request = Request(jnp.arange(num), cond, config.sample.guidance_scale, {}, frozen)
        denoise = generator.guidance.guide(generator.denoiser(params), request, generator.times)
        return denoise(x_t, t, cond).x_0

    def decode(params: Any, frozen: Any, x_0: Any, t: Any, cond: Any) -> Any:
        return generator.codec.decode(frozen, x_0)

    x_t, t, cond = jax.tree.map(shaped, task.inputs)
    frozen = {name: own.shapes for name, own in task.frozen.items()}
    return guided, decode, (task.shapes, frozen, x_t, t, cond)
