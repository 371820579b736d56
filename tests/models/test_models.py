"""Networks: published sizes, exact gradients, conditioning, clear errors."""

import itertools
import math
import pathlib
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import attention as attention_module
from diffusion_jax.models.applied import Applied
from diffusion_jax.models.attention import attention
from diffusion_jax.models.dit import DiT, position_embedding
from diffusion_jax.models.flops import count_flops
from diffusion_jax.models.layers import (
    Conv,
    GroupNorm,
    downsample,
    num_groups,
    patchify,
    unpatchify,
    upsample,
)
from diffusion_jax.models.platform import computing_on
from diffusion_jax.models.products import (
    conv_by_matmul,
    conv_by_patches,
    conv_for_cpu,
    matmul,
    matmul_for_cpu,
    plain_conv,
)
from diffusion_jax.models.published.unet import diffusers
from diffusion_jax.models.remat import REMAT
from diffusion_jax.models.unet import UNet
from diffusion_jax.system.keys import make_key
from tests.published import drawn_variables

ADM_64 = UNet(
    channels=192,
    channel_mults=(1, 2, 3, 4),
    num_blocks=3,
    attention_levels=(1, 2, 3),
    head_dim=64,
    scale_shift=True,
    resblock_updown=True,
    num_classes=1000,
    out_channels=6,
)
DIT_S = DiT(num_classes=1000, out_channels=8)
DIT_XL = DiT(2, 1152, 28, 16, num_classes=1000, out_channels=8)

SMALL = {"channels": 8, "channel_mults": (1, 2), "num_blocks": 1, "attention_levels": (1,)}
SMALL_NETS = {
    "ddpm": UNet(**SMALL),
    "adm": UNet(**SMALL, head_dim=8, scale_shift=True, resblock_updown=True),
    "patched": UNet(**SMALL | {"attention_levels": (0,)}, patch_size=2),
    "dit": DiT(hidden_size=32, depth=2, num_heads=4, remat="full"),
}

SD_15 = UNet(
    channels=320,
    channel_mults=(1, 2, 4, 4),
    num_blocks=2,
    attention_levels=(0, 1, 2),
    num_heads=8,
    context_dim=768,
    symmetric_padding=True,
    dropout=0.0,
    out_channels=4,
)

X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
T = jnp.array([100.0, 900.0])


def random_params(net):
    """Random parameters: the initial ones have zeros that hide what most tests look for."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), X, T, {})
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: 0.2 * rng.standard_normal(a.shape, np.float32), shapes)


@pytest.mark.parametrize(
    ("net", "size", "channels", "millions", "gigaflops"),
    [
        (UNet(), 32, 3, 35.7, 12.4),
        (ADM_64, 64, 3, 295.9, 219),
        (DIT_S, 32, 4, 33, 12.1),
        (DIT_XL, 32, 4, 675, 237),
    ],
    ids=["ddpm_cifar10", "adm_imagenet64", "dit_s2", "dit_xl2"],
)
@pytest.mark.slow
def test_parameters_and_flops_are_the_published_ones(net, size, channels, millions, gigaflops):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x, t, {})
    count = sum(math.prod(a.shape) for a in jax.tree.leaves(params))
    assert count / 1e6 == pytest.approx(millions, rel=5e-3)
    assert count_flops(net.apply, params, x, t, {}) / 1e9 == pytest.approx(gigaflops, rel=5e-3)


@pytest.mark.slow
def test_stable_diffusions_unet_has_its_parameters_and_flops():
    """Version 1-5: what diffusers counts; 401.6 G multiply-adds for 512 x 512 pixels."""
    x, t = jax.ShapeDtypeStruct((1, 64, 64, 4), jnp.float32), jax.ShapeDtypeStruct((1,), np.float32)
    cond = {"text": jax.ShapeDtypeStruct((1, 77, 768), jnp.float32)}
    params = jax.eval_shape(SD_15.init, jax.random.key(0), x, t, cond)
    assert sum(math.prod(a.shape) for a in jax.tree.leaves(params)) == 859_520_964
    assert count_flops(SD_15.apply, params, x, t, cond) / 1e9 == pytest.approx(803, rel=5e-3)


def test_unet_with_text_agrees_with_diffusers():
    """Made by `reference/make_unet.py`, which draws its weights by their names as is done here."""
    reference = np.load(pathlib.Path(__file__).parents[1] / "reference" / "unet.npz")
    net = UNet(
        channels=128,
        channel_mults=(1, 2),
        num_blocks=1,
        attention_levels=(0,),
        num_heads=4,
        context_dim=24,
        symmetric_padding=True,
        dropout=0.0,
        out_channels=4,
    )
    args = reference["x"], 1000 * reference["t"], {"text": reference["text"]}
    template = jax.eval_shape(net.init, jax.random.key(0), *args)
    y = jax.jit(net.apply)(drawn_variables(template, diffusers(template)), *args)
    assert np.abs(reference["y"]).max() > 0.3
    np.testing.assert_allclose(y, reference["y"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [
        UNet(8, (1,), 1, (), dropout=0.5),
        UNet(8, (1,), 1, (), dropout=0.0, context_dim=3),
        DiT(hidden_size=16, depth=2, num_heads=2),
    ],
    ids=["unet", "text", "dit"],
)
def test_gradients_are_the_same_whatever_is_recomputed(net):
    cond = {"text": jnp.ones((2, 5, 3))}
    shapes = jax.eval_shape(net.init, jax.random.key(0), X, T, cond)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.2 * rng.standard_normal(a.shape, np.float32), shapes)

    def program(policy):
        def loss(params):
            keys = {"dropout": jax.random.key(1, impl="rbg")}
            return jnp.sum(net.clone(remat=policy).apply(params, X, T, cond, True, rngs=keys) ** 2)

        return jax.grad(loss)

    flops = {policy: count_flops(program(policy), params) for policy in REMAT}
    assert flops["none"] <= flops["dots_saveable"] <= flops["dots_with_no_batch_dims_saveable"]
    assert flops["dots_with_no_batch_dims_saveable"] <= flops["full"]
    assert 1.15 * flops["none"] < flops["full"] < 1.4 * flops["none"]
    one, other = (jax.jit(program(policy))(params) for policy in ("none", "full"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), one, other)


def test_flops_of_known_programs():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    product = 2 * 3 * 4 * 5
    assert count_flops(jnp.matmul, a, b) == product
    assert count_flops(jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), (0, 1)), a, b) == 3 * product
    assert count_flops(jax.jit(jax.checkpoint(jnp.matmul)), a, b) == product
    square = jnp.ones((3, 3))
    power = lambda c: jax.lax.scan(lambda c, _: (c @ square, None), c, length=7)[0]  # noqa: E731
    assert count_flops(power, square) == 7 * 2 * 27
    branches = (lambda a, b: a @ b, lambda a, b: a @ b + (2 * a) @ b)
    assert count_flops(lambda i: jax.lax.switch(i, branches, a, b), 0) == 2 * product
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    assert count_flops(plain_conv, x, kernel) == 2 * (2 * 8 * 8 * 5) * (9 * 3)
    depthwise = nn.Conv(6, (3, 3), feature_group_count=3)
    params = depthwise.init(jax.random.key(0), x)
    assert count_flops(depthwise.apply, params, x) == 2 * (2 * 8 * 8 * 6) * 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "library", "shape", "kernel"),
    [
        (conv_for_cpu, plain_conv, (4, 8, 7, 3), (3, 3, 3, 4)),
        (conv_for_cpu, plain_conv, (4, 16, 16, 32), (3, 3, 32, 33)),  # large: by `conv_by_matmul`
        (
            partial(conv_for_cpu, stride=2),
            partial(plain_conv, stride=2),
            (2, 9, 8, 3),
            (3, 3, 3, 4),
        ),
        (conv_for_cpu, plain_conv, (2, 3, 2, 32), (3, 3, 32, 32)),  # by `conv_by_patches`
        (conv_by_patches, plain_conv, (2, 5, 4, 3), (3, 3, 3, 4)),
        (conv_by_patches, plain_conv, (2, 5, 3), (4, 3, 4)),
        (conv_by_matmul, plain_conv, (4, 32, 31, 3), (3, 3, 3, 4)),
        (conv_by_matmul, plain_conv, (1, 2, 3, 2), (5, 5, 2, 4)),
        (conv_by_matmul, plain_conv, (3, 7, 5, 2), (4, 1, 2, 3)),
        (conv_by_matmul, plain_conv, (3, 2, 7, 2), (4, 4, 2, 3)),
        (conv_by_matmul, plain_conv, (4, 32, 3), (3, 3, 4)),
        (conv_by_matmul, plain_conv, (3, 9, 2), (4, 2, 3)),
        (conv_by_matmul, plain_conv, (2, 4, 5, 6, 2), (3, 3, 3, 2, 4)),
        (conv_by_matmul, plain_conv, (2, 3, 2, 5, 2), (2, 5, 4, 2, 3)),
        (partial(conv_for_cpu, stride=2), partial(plain_conv, stride=2), (2, 9, 3), (3, 3, 4)),
        (matmul_for_cpu, jnp.matmul, (4, 512, 2, 3), (3, 5)),
        (matmul_for_cpu, jnp.matmul, (3, 7, 3), (3, 5)),
    ],
)
def test_derivatives_of_products_for_cpu(ours, library, shape, kernel):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), kernel)

    def derivatives(product):
        def loss(x, kernel):
            return jnp.mean(jnp.sin(product(jnp.tanh(x), kernel)))

        gradient = jax.grad(loss, (0, 1))
        tangents = (x, kernel)
        _, forward_over_reverse = jax.jvp(gradient, tangents, tangents)
        _, forward = jax.jvp(loss, tangents, tangents)
        per_sample = jax.vmap(gradient, (0, None))(x[:, None], kernel)
        return gradient(*tangents), forward_over_reverse, forward, per_sample

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        jax.jit(derivatives, static_argnums=0)(ours),
        jax.jit(derivatives, static_argnums=0)(library),
    )


def test_derivatives_of_a_convolution_in_bfloat16_are_rounded_once():
    """The gradient is a sum over 64 chunks, which bfloat16 would round by a percent on the way."""
    x = jax.random.uniform(jax.random.key(0), (64, 4, 3, 2), jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3), jnp.bfloat16)
    product = partial(conv_by_matmul, positions=12)

    def derivatives(product, x, kernel):
        y, pull = jax.vjp(product, x, kernel)
        return jax.jvp(product, (x, kernel), (x, kernel))[1], *pull(jnp.ones_like(y))

    found = jax.jit(derivatives, static_argnums=0)(product, x, kernel)
    exact = jax.jit(derivatives, static_argnums=0)(
        plain_conv, x.astype(float), kernel.astype(float)
    )
    for ours, theirs, atol in zip(found, exact, (0.1, 0.1, 0), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(float), theirs, rtol=2**-8, atol=atol)


def test_group_norm_attention_and_resampling_agree_with_the_library():
    x = 3.0 + jax.random.normal(jax.random.key(0), (2, 4, 6, 48))
    norm, theirs = GroupNorm(), nn.GroupNorm(num_groups(48), epsilon=1e-5)
    params = {"params": {"scale": jnp.arange(48.0), "bias": jnp.ones(48)}}
    np.testing.assert_allclose(norm.apply(params, x), theirs.apply(params, x), rtol=2e-5, atol=1e-4)
    assert [num_groups(c) for c in (3, 16, 48, 64, 128, 192)] == [1, 4, 12, 16, 32, 32]

    q, k, v = x.reshape(3, 2, 64, 6).swapaxes(2, 3)
    heads = [a.reshape(2, 6, 4, 16) for a in (q, k, v)]
    expected = jax.nn.dot_product_attention(*heads).reshape(2, 6, 64)
    np.testing.assert_allclose(attention(q, k, v, 4), expected, atol=1e-5)

    np.testing.assert_allclose(upsample(x), jax.image.resize(x, (2, 8, 12, 48), "nearest"))
    pooled = nn.avg_pool(x, (2, 2), strides=(2, 2))
    np.testing.assert_allclose(downsample(x), pooled, atol=1e-6)


def test_another_platform_is_traced_for_as_told(monkeypatch):
    """Where cuDNN takes the arrays, a GPU that is not here is traced for without the weights."""

    def recomputes(dtype, width=64):
        heads = jax.ShapeDtypeStruct((2, 16, width), dtype)
        jaxpr = jax.make_jaxpr(lambda *a: attention(*a, 4))(heads, heads, heads)
        return any("prevent_cse" in eqn.params for eqn in jaxpr.eqns)

    fused = []
    library = jax.nn.dot_product_attention

    def called(q, k, v, implementation=None, **lengths):
        fused.append(implementation)
        return library(q, k, v, **lengths)

    assert not recomputes(jnp.bfloat16)
    with computing_on("gpu"):
        assert recomputes(jnp.bfloat16)
        assert not recomputes(jnp.float32)
        assert not recomputes(jnp.bfloat16, 4 * 12)
        monkeypatch.setattr(attention_module, "has_cudnn", lambda: True)
        monkeypatch.setattr(jax.nn, "dot_product_attention", called)
        recomputes(jnp.bfloat16)
        assert fused == ["cudnn"]
    with computing_on("tpu"):
        jaxpr = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(matmul(x, x))))(jnp.ones((8, 8))))
        assert "optimization_barrier" not in jaxpr
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(matmul(x, x))))(jnp.ones((8, 8))))
    assert "optimization_barrier" in jaxpr


@pytest.mark.slow
def test_conv_layer_is_the_same_at_every_stride_and_size():
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 4, 2))
    for axes, size, stride in itertools.product((1, 2, 3), (1, 3), (1, 2)):
        x = x.reshape(1, *[4] * axes, -1)
        ours = Conv(5, size, stride)
        theirs = nn.Conv(5, [size] * axes, strides=stride)
        params = ours.init(jax.random.key(0), x)
        np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_NETS)
def test_output_is_zero_at_initialisation_and_reads_every_input_after(name):
    net = SMALL_NETS[name]
    key = jax.random.key(0, impl="rbg")  # threefry takes long to compile
    output, _ = jax.jit(net.init_with_output)(key, X, T, {})
    assert output.shape == X.shape
    assert output.dtype == jnp.float32
    assert not output.any()

    params, apply = random_params(net), jax.jit(net.apply)
    output = apply(params, X, T, {})
    assert jnp.abs(output - apply(params, X + 0.1, T, {})).max() > 1e-3
    assert jnp.abs(output - apply(params, X, T / 2, {})).max() > 1e-3
    corner = apply(params, X.at[:, 0, 0].add(1.0), T, {})
    assert jnp.abs(output - corner)[:, -1, -1].max() > 1e-4  # attention reaches everywhere


@pytest.mark.parametrize(
    "net", [UNet(**SMALL, num_classes=3), DiT(hidden_size=32, depth=1, num_heads=4, num_classes=3)]
)
def test_label_minus_one_is_no_label(net):
    params, apply = random_params(net), jax.jit(net.apply)
    none = apply(params, X, T, {})
    np.testing.assert_array_equal(none, apply(params, X, T, {"label": jnp.array([-1, -1])}))
    mixed = apply(params, X, T, {"label": jnp.array([-1, 2])})
    np.testing.assert_allclose(mixed[0], none[0], atol=1e-6)
    assert jnp.abs(mixed[1] - none[1]).max() > 1e-3
    other = apply(params, X, T, {"label": jnp.array([-1, 0])})
    assert jnp.abs(mixed[1] - other[1]).max() > 1e-3
    assert jnp.abs(none[1] - other[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["adm", "dit"])
@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_returns_float32(name):
    net = SMALL_NETS[name]
    params = random_params(net)
    half = net.clone(dtype=jnp.bfloat16)
    jaxpr = str(jax.make_jaxpr(half.apply)(params, X, T, {}))
    assert "dot_general" in jaxpr
    assert all(
        "bf16" in line
        for line in jaxpr.splitlines()
        if "= dot_general" in line or "= conv_general_dilated" in line
    )
    output = jax.jit(half.apply)(params, X, T, {})
    assert output.dtype == jnp.float32
    expected = jax.jit(net.apply)(params, X, T, {})
    assert 0 < jnp.abs(output - expected).max() < 0.1 * jnp.abs(expected).max()


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_dropout_is_on_in_training_only(name):
    net = UNet(**SMALL, dropout=0.5) if name == "unet" else DiT(2, 8, 2, 2, dropout=0.5)
    params = random_params(net)
    apply = jax.jit(net.apply, static_argnames="train")
    outputs = [
        apply(params, X, T, {}, train=True, rngs={"dropout": jax.random.key(i, impl="rbg")})
        for i in (0, 0, 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert jnp.abs(outputs[0] - outputs[2]).max() > 1e-3
    assert jnp.abs(outputs[0] - apply(params, X, T, {})).max() > 1e-3
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(lambda: net.apply(params, X, T, {}, train=True))


def test_dropout_of_another_generator_has_the_same_rate_and_other_bits():
    x = jnp.ones((1, 4, 4, 3))
    shares = {}
    for generator in ("threefry2x32", "rbg"):
        model = Applied(_Dropped(), (x,), generator)
        y = model.train({}, jnp.ones((1, 200, 200, 3)), make_key(0))
        again = model.train({}, jnp.ones((1, 200, 200, 3)), make_key(0))
        np.testing.assert_array_equal(y, again)
        shares[generator] = np.asarray(y == 0)
        assert abs(shares[generator].mean() - 0.25) < 0.005  # 4 standard deviations
    first, second = shares.values()
    assert abs((first & second).mean() - 0.25**2) < 0.004  # independent


class _Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.25, deterministic=not train)(x)


@pytest.mark.parametrize(
    ("net", "size", "message"),
    [
        (UNet(**SMALL), 9, r"9x8.*multiples of 2:.*model.unet.channel_mults=\(1, 2\)"),
        (UNet(), 12, r"12x8.*multiples of 8:.*4 levels"),
        (UNet(**SMALL, patch_size=4), 12, r"12x8.*multiples of 8:.*model.unet.patch_size=4"),
        (UNet(8, (1, 2), 1, (0, 2)), 8, r"model.unet.attention_levels=\(0, 2\).*2 levels.* to 1"),
        (UNet(8, (1, 2), 1, (-1,)), 8, r"model.unet.attention_levels=\(-1,\)"),
        (UNet(**SMALL, num_heads=3), 8, r"model.unet.num_heads=3"),
        (UNet(**SMALL, head_dim=24), 8, r"model.unet.head_dim=24"),
        (DiT(), 9, r"9x8.*model.dit.patch_size=2"),
        (DiT(num_heads=7), 8, r"model.dit.hidden_size=384.*model.dit.num_heads=7"),
        (DiT(hidden_size=6), 8, r"model.dit.hidden_size=6"),
    ],
)
def test_impossible_sizes_are_refused_by_name(net, size, message):
    x = jax.ShapeDtypeStruct((2, size, 8, 3), jnp.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), x, T, {})


@pytest.mark.slow
def test_patches_are_the_pixels_of_a_patched_unet():
    patches = patchify(X, 2)
    np.testing.assert_array_equal(patches[:, 1, 2], X[:, 2:4, 4:6].reshape(2, -1))
    np.testing.assert_array_equal(unpatchify(patches, 2), X)

    net = SMALL_NETS["patched"]
    params = random_params(net)
    plain = net.clone(patch_size=1, out_channels=12)
    expected = unpatchify(plain.apply(params, patches, T, {}), 2)
    np.testing.assert_array_equal(net.apply(params, X, T, {}), expected)


def test_position_embedding_tells_rows_from_columns():
    table = position_embedding((2, 3), 8).reshape(2, 3, 2, 2, 2)  # row, column, half, sin/cos, freq
    np.testing.assert_allclose(table[1, 2, 0, 0], np.sin([2.0, 0.02]), atol=1e-6)
    np.testing.assert_allclose(table[1, 2, 1, 1], np.cos([1.0, 0.01]), atol=1e-6)
