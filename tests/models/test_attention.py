"""Forward-mode derivatives of attention: kernels with a JVP are used, and are correct."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pallas
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from diffusion_jax.models import attention as attention_module
from diffusion_jax.models.attention import BLOCK, attention, fits_cudnn
from diffusion_jax.models.layout import alone, rows_over
from diffusion_jax.models.platform import computing_on, differentiated_forwards

LENGTHS = np.array([2, 5], np.int32)


def exact(q, k, v, lengths):
    """Attention of two heads in NumPy."""
    q, k, v = (a.reshape(*a.shape[:2], 2, -1) for a in (q, k, v))
    weights = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]))
    if lengths is not None:
        weights *= (np.arange(k.shape[1]) < lengths[:, None])[:, None, None]
    out = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
    return out.reshape(*out.shape[:2], -1)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["plain", "checkpoint"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize(("platform", "atol"), [("cpu", 1e-9), ("gpu", 1e-6)])
def test_forward_derivatives_are_central_differences(platform, atol, lengths, wrap):
    """In double precision, but for the library's softmax, which is in single."""
    rng = np.random.default_rng(0)
    places = [rng.standard_normal((2, length, 6)) for length in (3, 5, 5)]
    along = [rng.standard_normal(a.shape) for a in places]
    up, down = (
        exact(*(a + h * d for a, d in zip(places, along, strict=True)), lengths)
        for h in (1e-5, -1e-5)
    )
    with jax.enable_x64(True), computing_on(platform), differentiated_forwards():
        y, dy = jax.jvp(wrap(lambda *a: attention(*a, 2, lengths)), places, along)
    np.testing.assert_allclose(y, exact(*places, lengths), atol=atol)
    np.testing.assert_allclose(dy, (up - down) / 2e-5, atol=atol)


def test_a_kernel_without_a_jvp_is_not_taken_where_one_is_needed(monkeypatch):
    taken = []
    library = jax.nn.dot_product_attention

    def called(q, k, v, implementation, **lengths):
        taken.append(implementation)
        return library(q, k, v, **lengths)

    monkeypatch.setattr(attention_module, "has_cudnn", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", called)
    heads = jax.random.normal(jax.random.key(0), (2, 16, 64), jnp.bfloat16)
    with computing_on("gpu"):
        outside = attention(heads, heads, heads, 4)
        assert taken == ["cudnn"]
        with differentiated_forwards():
            inside, _ = jax.jvp(lambda x: attention(x, x, x, 4), [heads], [heads])
        assert set(taken[1:]) == {"xla"}
        attention(heads, heads, heads, 4)
        assert taken[-1] == "cudnn"
    np.testing.assert_array_equal(inside, outside)


@pytest.mark.parametrize(
    ("capability", "widths"),
    [(8.0, [40, 80, 128]), *((new, [40, 80, 128, 136, 160, 256]) for new in (9.0, 10.0))],
)
def test_heads_of_stable_diffusion_are_for_cudnn_from_hopper_on(capability, widths):
    """Its heads are of 40, 80 and 160; Ampere's kernel takes 128 at most, Hopper's 256."""

    def fits(width, dtype):
        with computing_on("gpu", capability):
            return fits_cudnn(jax.ShapeDtypeStruct((2, 16, 8, width), dtype))

    tried = (12, 40, 80, 128, 136, 160, 164, 256, 264)
    for dtype in (jnp.bfloat16, jnp.float16):
        assert [width for width in tried if fits(width, dtype)] == widths
    assert not any(fits(width, jnp.float32) for width in tried)


def half(length, batch=1, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, length, 16), jnp.bfloat16)


@pytest.mark.slow
def test_the_kernel_for_tpus_is_attention_and_so_is_its_gradient():
    """Interpreted on this platform; in half precision, beside float32."""
    *arrays, change = (half(2 * BLOCK, seed=i) for i in range(4))

    def gradients(q, k, v, change):
        y, backwards = jax.vjp(lambda *a: attention(*a, 2), q, k, v)
        return y, *backwards(change)

    with computing_on("tpu"), alone(), pallas.force_tpu_interpret_mode():
        assert "pallas_call" in str(jax.make_jaxpr(gradients)(*arrays, change))
        found = gradients(*arrays, change)
    exact = gradients(*(a.astype(jnp.float32) for a in (*arrays, change)))
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=0.01 * np.abs(other).max())


def test_the_kernel_for_tpus_is_for_long_sequences_of_a_known_part_of_the_batch(monkeypatch):
    taken = []

    def kernel(q, k, v):
        taken.append(q.shape)
        return v

    monkeypatch.setattr(attention_module, "_pallas_attention", kernel)

    def heads_in_kernel(x, **more):
        taken.clear()
        jax.eval_shape(lambda x: attention(x, x, x, 4, **more), x)
        return [*taken]

    long = half(2 * BLOCK, batch=8)
    with computing_on("tpu"):
        assert heads_in_kernel(long) == []  # XLA might partition the program
        with alone():
            assert heads_in_kernel(long) == [(8, 2 * BLOCK, 4, 4)]
            assert heads_in_kernel(long[:, : BLOCK // 2]) == []
            assert heads_in_kernel(long[:, :-1]) == []
            assert heads_in_kernel(long.astype(jnp.float32)) == []
            assert heads_in_kernel(long, lengths=jnp.full(8, 7)) == []
            with differentiated_forwards():
                assert heads_in_kernel(long) == []
        for shape, local in (((4, 2), (2, 2 * BLOCK, 2, 4)), ((1, 8), (8, 2 * BLOCK, 4, 4))):
            mesh = AbstractMesh(shape, ("data", "model"), (AxisType.Auto,) * 2)
            with rows_over(NamedSharding(mesh, PartitionSpec("data"))):
                assert heads_in_kernel(long) == [local]  # heads that 8 divides are needed for 8
    with alone():
        assert heads_in_kernel(long) == []  # on another platform
