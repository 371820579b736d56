"""Forward-mode derivatives of attention: kernels with a JVP are used, and are correct."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import attention as attention_module
from diffusion_jax.models.attention import attention, fits_cudnn
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
