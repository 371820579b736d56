"""Descriptions of NVIDIA's GPUs, for the compiler that has none at hand."""

import dataclasses

from diffusion_jax.plan.hardware import Topology

CUDNN = (9, 10, 0)  # any version that supports all kernels asked for


@dataclasses.dataclass(frozen=True)
class Description:
    """What a GPU's compiler asks for, of NVIDIA's tuning guides and its CUDA programming guide."""

    name: str
    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    units: int  # float32 units of each
    clock: float  # GHz
    cache: int  # of level 2, MB
    shared: int  # shared memory of a multiprocessor, KB; a block has 1 less
    registers: int = 65536


GPUS = {
    "a100-40": Description("NVIDIA A100-SXM4-40GB", (8, 0), 108, 64, 1.41, 40, 164),
    "a100-80": Description("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 40, 164),
    "h100": Description("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 50, 228),
    "h200": Description("NVIDIA H200", (9, 0), 132, 128, 1.98, 50, 228),
    "b200": Description("NVIDIA B200", (10, 0), 148, 128, 1.965, 126, 228),
}


def kind_of(topology: Topology) -> str:
    """Name of a topology's GPUs."""
    return topology.name.partition(":")[0]


def is_known(topology: Topology) -> bool:
    """Whether a topology can be described: of these GPUs, within one node."""
    return kind_of(topology) in GPUS and topology.count <= topology.hardware.node


def capability(topology: Topology) -> float:
    """Compute capability of a topology's GPUs."""
    major, minor = GPUS[kind_of(topology)].capability
    return major + minor / 10


def description(topology: Topology) -> str:
    """A topology's GPU as XLA's `GpuTargetConfigProto`, in text."""
    gpu, hardware = GPUS[kind_of(topology)], topology.hardware
    major, minor, patch = CUDNN
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "threads_per_core_limit": 2048,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "shared_memory_per_block": 48 * 2**10,
        "shared_memory_per_block_optin": (gpu.shared - 1) * 2**10,
        "shared_memory_per_core": gpu.shared * 2**10,
        "registers_per_core_limit": gpu.registers,
        "registers_per_block_limit": gpu.registers,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.units,
        "clock_rate_ghz": gpu.clock,
        "l2_cache_size": gpu.cache * 2**20,
        "memory_bandwidth": int(hardware.bandwidth),
        "device_memory_size": int(hardware.memory),
        "device_address_bits": 64,
    }
    names = {
        "name": gpu.name,
        "device_vendor": "NVIDIA Corporation",
        "platform_version": f"Compute Capability {gpu.capability[0]}.{gpu.capability[1]}",
        "driver_version": "13.0.0",
        "runtime_version": "13.0.0",
        "compile_time_toolkit_version": "13.0.0",
        "dnn_version": f"{major}.{minor}.{patch}",
    }
    info = [f"{key}: {value}" for key, value in fields.items()]
    info += [f'{key}: "{value}"' for key, value in names.items()]
    features = " feature_extension: ACCELERATED_FEATURES" if gpu.capability >= (9, 0) else ""
    info.append(
        "cuda_compute_capability "
        f"{{ major: {gpu.capability[0]} minor: {gpu.capability[1]}{features} }}"
    )
    return (
        "gpu_device_info {\n  " + "\n  ".join(info) + "\n}\n"
        'platform_name: "CUDA"\n'
        f"dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}\n"
        f'device_description_str: "{gpu.name}"\n'
    )
