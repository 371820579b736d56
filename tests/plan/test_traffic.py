"""Bytes by kind of compiled programs, against closed forms: compiled here, and stored texts."""

from pathlib import Path

import jax
import pytest

from diffusion_jax.plan.collectives import exchanged_bytes
from diffusion_jax.plan.hlo import Program, parse, split
from diffusion_jax.plan.traffic import read_traffic
from tests.plan import programs

HLO = Path(__file__).parent.parent / "reference" / "hlo"
X, W, Q = 4 * 512 * 256, 4 * 256 * 256, 2 * 4 * 256 * 128  # rows, weights, queries in bytes
PRODUCT = {"products": X + 4 * W + 4 * X}
CAST, TRANSPOSED = {"casts": X + X // 2}, {"copies": 6 * X}
SCALARS = 300  # bytes of counters that closed forms leave out


def stored(name):
    return (HLO / f"{name}.txt").read_text()


def assert_bytes(text, expected):
    found = read_traffic(text)
    assert set(expected) <= set(found.bytes)
    for kind, size in found.bytes.items():
        assert abs(size - expected.get(kind, 0)) < SCALARS, (kind, size, expected)
    return found


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (programs.product, PRODUCT),
        (programs.cast, CAST),
        (programs.transposed, TRANSPOSED),
    ],
)
def test_simple_programs_move_what_goes_in_and_out(made, expected):
    function, args = made()
    assert_bytes(jax.jit(function).lower(*args).compile().as_text(), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpu_product", PRODUCT),
        ("tpu_product", PRODUCT),  # one operand goes through VMEM
        ("gpu_cast", CAST),
        ("tpu_cast", CAST),
        ("gpu_transposed", TRANSPOSED),
        ("tpu_transposed", TRANSPOSED),
        # Zeros into the stack of 5, five times a read and a slice written, and the first cotangent;
        # the argument is copied. In each iteration forwards and backwards: sin, and three factors.
        ("gpu_stacked", {"stacks of the scan": 16 * X, "copies": 2 * X, "rest": 5 * (2 + 3) * X}),
        # Two products in 4 and 8 parts, whose sum is taken apart, or with the update: it reads
        # the parts of the gradient and 4 arrays, and writes 4.
        ("gpu_step", {"products": 7 * X + 9 * W, "rest": 5 * X, "optimizer and averages": 16 * W}),
        # All of it is one fusion with the product.
        ("tpu_step", {"products": X + 8 * W}),
    ],
)
def test_stored_programs_have_the_bytes_of_closed_forms(name, expected):
    found = assert_bytes(stored(name), expected)
    assert found.fused_attention == 0


def test_what_stays_in_vmem_is_not_counted():
    """A scan whose stack fits there: x is read, and its gradient written."""
    assert read_traffic(stored("tpu_stacked")).whole == pytest.approx(2 * X, abs=SCALARS)
    assert read_traffic(stored("tpu_attending")).whole == 4 * Q


def test_attention_is_known_by_its_kernel_or_by_its_name():
    fused = read_traffic(stored("gpu_attending"))
    assert fused.fused_attention == 1
    assert fused.bytes["attention"] == 4 * Q
    function, args = programs.attending()
    plain = read_traffic(jax.jit(function).lower(*args).compile().as_text())
    assert plain.fused_attention == plain.bytes["products"] == plain.bytes["rest"] == 0
    weights = 4 * 2 * 256 * 256 * 4
    assert plain.bytes["attention"] > 2 * weights + 4 * Q  # written, and read by the softmax


def test_a_step_on_this_cpu_is_its_products_and_its_update():
    function, args = programs.step()
    text = jax.jit(function, donate_argnums=0).lower(*args).compile().as_text()
    found = read_traffic(text).bytes
    assert found["products"] == 4 * X + 2 * W
    # At least the gradient and four arrays read, and four written.
    assert 9 * W <= found["optimizer and averages"] < 16 * W
    assert found["exchange"] == found["attention"] == found["stacks of the scan"] == 0


LOOP = """HloModule loops

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,4] get-tuple-element(%p), index=1
  %y = f32[8,4] exponential(%x)
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %y)
}

%less (a: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %n = s32[] constant(7)
  ROOT %lt = pred[] compare(%a, %n), direction=LT
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %p = (s32[], f32[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %f = pred[] fusion(%i), kind=kLoop, calls=%less
}

%small (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4] parameter(0)
  ROOT %n = f32[8,4] negate(%x)
}

%large (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4] parameter(0)
  %s = f32[8,4] sine(%x)
  ROOT %n = f32[8,4] negate(%s)
}

ENTRY %main (x: f32[8,4], b: pred[]) -> f32[8,4] {
  %x = f32[8,4] parameter(0)
  %b = pred[] parameter(1)
  %start = (s32[], f32[8,4]) tuple(%zero, %x)
  %loop = (s32[], f32[8,4]) while(%start), condition=%condition, body=%bodyNOTE
  %y = f32[8,4] get-tuple-element(%loop), index=1
  ROOT %c = f32[8,4] conditional(%b, %y, %y), branch_computations={%small, %large}
}
"""


@pytest.mark.parametrize(
    ("note", "trips"), [("", 7), (', backend_config={"known_trip_count":{"n":"5"}}', 5)]
)
def test_loops_count_as_often_as_they_run_and_conditionals_as_their_longest(note, trips):
    """The compiler's own number is taken first, else the number in the condition."""
    array = 4 * 8 * 4
    found = read_traffic(LOOP.replace("NOTE", note))
    assert found.whole == found.bytes["rest"] == (trips + 2) * 2 * array
    assert found.kernels == trips + 2


def test_lines_of_all_three_compilers_are_parsed():
    tpu = parse(
        "  ROOT %copy-start = (f32[256,8]{1,0:T(8,128)S(1)}, f32[256,8]{1,0:T(8,128)}, "
        'u32[]{:S(2)}) copy-start(%b.1), metadata={op_name="jit(f)/dot[a=(1, 2)]"}'
    )
    assert (tpu.kind, tpu.operands, tpu.root) == ("copy-start", ("b.1",), True)
    assert [(a.shape, a.space, a.bytes) for a in tpu.results] == [((256, 8), 1, 8192)]
    assert tpu.scope == "jit(f)/dot[a=(1, 2)]"
    gpu = parse(
        "  %s = ((s32[], bf16[32,16]{1,0}), bf16[2,32]{1,0}, u32[]) fusion-start(%a, /*index=1*/%b)"
        ", kind=kLoop, calls=%f"
    )
    assert (gpu.operands, gpu.called) == (("a", "b"), ("f",))
    assert [(a.dtype, a.bytes) for a in gpu.results] == [("bf16", 128)]
    small = parse("  c = (f8e4m3fn[3]{0}, s4[8]{0}, pred[5], token[], c64[2]) custom-call(), x")
    assert [a.bytes for a in small.results] == [3, 4, 5, 0, 16]
    assert split("((a[1], b[2]), c[3])") == ["(a[1], b[2])", "c[3]"]
    assert parse("}") is None
    assert Program(stored("gpu_step")).donated == frozenset(range(5))


SCATTERED = """HloModule step

%cut (a: bf16[128,512], b: bf16[64]) -> (bf16[32,512], bf16[16]) {
  %a = bf16[128,512] parameter(0)
  %b = bf16[64] parameter(1)
  %sum = (bf16[128,512], bf16[64]) all-reduce(%a, %b), channel_id=1, replica_groups=GROUPS
  %one = bf16[128,512] get-tuple-element(%sum), index=0
  %two = bf16[64] get-tuple-element(%sum), index=1
  %first = bf16[32,512] dynamic-slice(%one, %i, %z), dynamic_slice_sizes={32,512}
  %second = bf16[16] dynamic-slice(%two, %i), dynamic_slice_sizes={16}
  ROOT %t = (bf16[32,512], bf16[16]) tuple(%first, %second)
}

%part (a: bf16[4]) -> bf16[16] {
  %a = bf16[4] parameter(0)
  ROOT %g = bf16[16] all-gather(%a), channel_id=2, replica_groups=GROUPS, dimensions={0}
}

ENTRY %main (a: bf16[128,512], b: bf16[64]) -> bf16[16,512] {
  %a = bf16[128,512] parameter(0)
  %b = bf16[64] parameter(1)
  %c = bf16[4] parameter(2)
  %once = (bf16[32,512], bf16[16]) fusion(%a, %b), kind=kCustom, calls=%cut
  %again = (bf16[32,512], bf16[16]) fusion(%a, %b), kind=kCustom, calls=%cut
  %start = bf16[16] fusion(%c), kind=kCustom, calls=%part
  %done = bf16[16] fusion(%c), kind=kCustom, calls=%part
  %whole = bf16[128,512] all-reduce(%a), channel_id=3, replica_groups=GROUPS
  ROOT %slice = bf16[32,512] dynamic-slice(%whole, %i, %z), dynamic_slice_sizes={32,512}
}
"""


@pytest.mark.parametrize(
    ("groups", "n", "axes"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4, 2),
        ("[2,4]<=[8]", 4, 2),
        ("[4,2]<=[8]", 2, 1),
        ("[4,2]<=[2,4]T(1,0)", 2, 1),
        ("mesh['a'=2,'b'=4] {'b'}", 4, 2),
        ("mesh['a'=2,'b'=4] {'b':(1)2}", 2, 1),
        ("mesh['a'=2,'b'=4] {'b':(2)2}", 2, 1),
        ("mesh['a'=2,'b'=4] {'a','b'}", 8, 2),
    ],
)
def test_a_sum_cut_in_a_fusion_is_a_reduce_scatter_along_its_axes(groups, n, axes):
    """In a grid of 2 x 4; the sum that is cut outside of one is sent whole."""
    places = [(device % 2, device // 2) for device in range(8)]
    summed, small = 2 * 128 * 512, 2 * 64
    sent = 2 * (summed + small) + 2 * 16 + 2 * summed  # cut twice, gathered once, summed
    text = SCATTERED.replace("GROUPS", groups)
    assert exchanged_bytes(text, places) == {axes: sent * (n - 1) // n}
    assert exchanged_bytes(text) == {1: sent * (n - 1) // n}
    assert read_traffic(text).bytes["exchange"] > 0
