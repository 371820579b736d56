"""NVIDIA's GPUs that are not there. The only module that uses JAX's private parts.

The plugin compiles for a description of a GPU. JAX itself then asks for a live one in two places:
for the platform that "gpu" means (github.com/jax-ml/jax/issues/23971), and for what cuDNN's
attention supports. Both are answered by the description here, while a program is lowered; there is
no public way yet. Private names are imported only where a GPU is compiled for.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from jax.experimental import topologies

from diffusion_jax.plan.gpu_targets import CUDNN, GPUS, description, kind_of
from diffusion_jax.plan.hardware import Topology


def devices(topology: Topology) -> Any:
    """Devices of a topology, to compile for."""
    from jax._src import xla_bridge

    if "cuda" not in xla_bridge._backend_factories:
        # With a platform asked for that is not CUDA the plugin does not look for its libraries.
        with mock.patch.dict("os.environ", JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1"):
            from jax_plugins import xla_cuda13

            xla_cuda13.initialize()
    return topologies.get_topology_desc(
        kind_of(topology),
        platform="cuda",
        target_config=description(topology),
        topology=f"1x1x{topology.count}",  # processes, nodes, and GPUs of each
    ).devices


@contextlib.contextmanager
def as_if_present(topology: Topology) -> Iterator[None]:
    """Context: JAX lowers for a topology's GPUs as if this process had them."""
    from jax._src import xla_bridge
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    have = GPUS[kind_of(topology)].capability

    def parsed(asked: str) -> tuple[int, ...]:
        return tuple(map(int, asked.split(".")))

    platform = xla_bridge.canonicalize_platform
    major, minor, patch = CUDNN
    with (
        mock.patch.object(
            xla_bridge, "canonicalize_platform", lambda p: "cuda" if p == "gpu" else platform(p)
        ),
        mock.patch.object(
            cudnn, "check_cudnn_version", return_value=10000 * major + 100 * minor + patch
        ),
        mock.patch.object(cudnn, "check_compute_capability", lambda asked: have >= parsed(asked)),
        mock.patch.object(
            cudnn, "is_cuda_compute_capability_equal", lambda asked: have == parsed(asked)
        ),
    ):
        yield
