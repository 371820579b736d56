import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.restoration.solvers import METHODS, Solver, conjugate_gradients, gmres

SHAPES = [(4, 1), (2, 3, 2, 2)]


def systems(shape, kind, seed=0):
    """Matrices `[B, D, D]`, their products on arrays `[B, ...]`, and right-hand sides."""
    rng, dim = np.random.default_rng(seed), int(np.prod(shape[1:]))
    matrices = rng.normal(size=(shape[0], dim, dim))
    if kind != "general":
        matrices = matrices @ np.swapaxes(matrices, 1, 2) + 0.1 * np.eye(dim)
    if kind == "singular":
        known = np.diag(np.arange(dim) != dim - 1)
        matrices = known @ matrices @ known
    b = np.einsum("bij,bj->bi", matrices, rng.normal(size=(shape[0], dim))).reshape(shape)
    return matrices, products(matrices), b


def products(matrices):
    return lambda v: jnp.einsum("bij,bj->bi", matrices, v.reshape(len(v), -1)).reshape(v.shape)


def run(solve, matvec, b, iterations, tolerance):
    """As one program."""
    call = functools.partial(solve, matvec, iterations=iterations, tolerance=tolerance)
    return jax.jit(call)(jnp.asarray(b))


def relative(matvec, x, b):
    flat = np.asarray(b - matvec(x)).reshape(len(b), -1)
    return np.linalg.norm(flat, axis=1) / np.linalg.norm(b.reshape(len(b), -1), axis=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("solve", "kind"),
    [(conjugate_gradients, "positive"), (gmres, "general")],
)
def test_solutions_are_those_of_linalg(x64, solve, kind, shape):
    matrices, matvec, b = systems(shape, kind)
    dim = matrices.shape[1]
    x, residual = run(solve, matvec, b, 4 * dim, 1e-13)
    exact = np.linalg.solve(matrices, b.reshape(len(b), -1, 1)).reshape(shape)
    np.testing.assert_allclose(x, exact, rtol=1e-7, atol=1e-9)
    assert np.all(residual < 1e-12)


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_residual_is_the_true_one_at_every_step(x64, solve):
    _, matvec, b = systems((3, 8), "positive")
    found = [run(solve, matvec, b, n, 0) for n in (1, 5)]
    for x, residual in found:
        np.testing.assert_allclose(residual, relative(matvec, x, b), rtol=1e-8)
    assert np.all(found[-1][1] > 1e-4)  # not solved yet


def test_gmres_has_the_least_residual_in_the_krylov_space(x64):
    matrices, matvec, b = systems((3, 8), "general")
    _, residual = run(gmres, matvec, b, 4, 0)
    for i in range(3):
        krylov = [b[i]]
        for _ in range(4):
            krylov.append(matrices[i] @ krylov[-1])
        space = np.stack(krylov[1:], 1)
        least = np.linalg.norm(b[i] - space @ np.linalg.lstsq(space, b[i])[0])
        assert residual[i] == pytest.approx(least / np.linalg.norm(b[i]), rel=1e-8)


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_singular_matrices_and_nothing_to_solve(x64, solve):
    """As with masks: in float64 to rounding, for zeros and for a matrix of zeros without NaN."""
    _, matvec, b = systems((3, 6), "singular")
    b[1] = 0
    x, residual = run(solve, matvec, b, 12, 1e-13)
    np.testing.assert_allclose(matvec(x), b, atol=1e-9)
    assert np.all(x[1] == 0)
    assert residual[1] == 0
    assert np.all(residual < 1e-12)
    x, residual = run(solve, jnp.zeros_like, b, 3, 1e-6)
    np.testing.assert_array_equal(x, 0)
    np.testing.assert_allclose(residual, [1, 0, 1])


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_a_sample_depends_neither_on_the_others_nor_on_further_steps(x64, solve):
    """The first sample is solved well enough by its first step; the others take more."""
    matrices, _, b = systems((3, 6), "positive")
    matrices[0] = 2 * np.eye(6) + 1e-4 * matrices[0]

    def solved(of, iterations):
        return run(solve, products(matrices[of]), b[of], iterations, 1e-3)

    whole = solved([0, 1, 2], 8)
    for found, alone in zip(whole, solved([0], 8), strict=True):
        np.testing.assert_allclose(found[0], alone[0], rtol=1e-12)
    assert np.all(whole[1] < 1e-3)
    np.testing.assert_array_equal(solved([0, 1, 2], 12)[0], whole[0])


def test_products_end_when_all_are_solved(x64):
    """Each product costs an evaluation of the network."""
    _, matvec, b = systems((2, 5), "positive")
    calls = []

    def counted(v):
        jax.debug.callback(lambda: calls.append(1))
        return matvec(v)

    for solve in METHODS.values():
        calls.clear()
        jax.block_until_ready(run(solve, counted, b, 30, 1e-9))
        jax.effects_barrier()
        assert 5 <= len(calls) <= 7, solve


def test_gmres_solves_what_conjugate_gradients_cannot(x64):
    """A quarter turn: `v^T M v = 0`. Conjugate gradients stay at 0 and report it."""
    matvec = products(np.array([[[0.0, -1.0], [1.0, 0.0]]]))
    b = jnp.array([[1.0, 2.0]])
    x, residual = run(gmres, matvec, b, 2, 1e-9)
    np.testing.assert_allclose(x, [[2.0, -1.0]])
    assert residual[0] < 1e-9
    x, residual = run(conjugate_gradients, matvec, b, 2, 1e-9)
    np.testing.assert_array_equal(x, 0)
    assert residual[0] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_float32_and_gradients(name):
    matrices, _, b = systems((2, 6), "positive")
    solver = Solver(name, iterations=20, tolerance=1e-5)

    @jax.jit
    def solved(b):
        (x, residual), pull = jax.vjp(lambda b: solver(products(matrices), b), b)
        return x, residual, pull((jnp.ones_like(x), 0 * residual))[0]

    x, residual, gradient = solved(jnp.asarray(b, jnp.float32))
    assert x.dtype == jnp.float32
    assert np.all(residual < 1e-5)
    np.testing.assert_allclose(x, np.linalg.solve(matrices, b[..., None])[..., 0], 1e-2, 1e-3)
    np.testing.assert_allclose(gradient, np.linalg.solve(matrices, np.ones((2, 6, 1)))[..., 0], 0.1)


@pytest.mark.parametrize(
    "wrong", [{"name": "lu"}, {"iterations": 0}, {"iterations": 2.5}, {"tolerance": 1.0}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        Solver(**wrong)
