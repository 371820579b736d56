"""Linear systems `M x = b` given by products with `M`, one for each sample of a batch.

Each sample has its own step lengths, and stays as it is from the step at which it is solved: it
does not depend on the rest of its batch. When all are solved, no products are computed any more.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

Matvec = Callable[[Array], Array]
"""`v -> M v`, `[B, ...] -> [B, ...]`, where M maps each sample on its own."""

State = tuple[Array, ...]


def conjugate_gradients(
    matvec: Matvec, b: Array, *, iterations: int, tolerance: float
) -> tuple[Array, Array]:
    """Conjugate gradients (Hestenes & Stiefel 1952), for symmetric positive semidefinite `M`.

    A singular system is solved if `b` is in the range. A sample also stays as it is from the step
    at which `M` turns out not to be positive, `p^T M p <= 0`.

    Args:
        matvec: products with `M`.
        b: the right-hand sides, `[B, ...]`.
        iterations: the largest number of steps, and of products.
        tolerance: relative residual from which a sample is solved.

    Returns:
        `x`, shaped like `b`, and the relative residual `|b - M x| / |b|` `[B]`, 0 for `b = 0`, as
        it is updated along with `x`.
    """
    b, scale = _normalised(b)
    start: State = jnp.zeros_like(b), b, b, _dot(b, b)

    def advance(x: Array, r: Array, p: Array, square: Array) -> State:
        q = matvec(p)
        curvature = _dot(p, q)
        on = (square > tolerance**2) & (curvature > 0)
        length = per_sample(jnp.where(on, square / jnp.where(on, curvature, 1), 0), b)
        x, r = x + length * p, r - length * q
        left = _dot(r, r)
        turn = per_sample(left / jnp.where(on, square, 1), b)
        return x, r, jnp.where(per_sample(on, b), r + turn * p, p), left

    def step(state: State, _: None) -> tuple[State, None]:
        unsolved = jnp.any(state[-1] > tolerance**2)
        return jax.lax.cond(unsolved, advance, lambda *state: state, *state), None

    (x, _, _, square), _ = jax.lax.scan(step, start, length=iterations)
    return per_sample(scale, b) * x, jnp.sqrt(square)


def gmres(matvec: Matvec, b: Array, *, iterations: int, tolerance: float) -> tuple[Array, Array]:
    """The least residual in the Krylov space (Saad & Schultz 1986), for any `M`.

    The basis is kept: `iterations + 1` arrays like `b`. Arguments and results are those of
    `conjugate_gradients`.

    With an orthonormal basis V and `M V_k = V_{k+1} H` the residual is the part of b along the one
    direction n of the basis that is orthogonal to the columns of H, `|b| |n_0| / |n|`: its entries
    follow one from the other (as in Sec. 6.5.3 of Saad 2003, without rotations).
    """
    b, scale = _normalised(b)
    least = jnp.finfo(b.dtype).eps
    basis = jnp.zeros((iterations + 1, *b.shape), b.dtype).at[0].set(b)
    hessenberg = jnp.zeros((len(b), iterations + 1, iterations), b.dtype)
    normal = jnp.zeros((len(b), iterations + 1), b.dtype).at[:, 0].set(1)

    def advance(j: Array, basis: Array, hessenberg: Array, normal: Array) -> State:
        v = matvec(basis[j])
        column = jnp.zeros_like(normal)
        for _ in range(2):  # once is not orthogonal in rounded arithmetic, twice is
            along = jax.vmap(_dot, (0, None), 1)(basis, v)
            v = v - _combined(along, basis)
            column = column + along
        size = jnp.sqrt(_dot(v, v))
        whole = jnp.hypot(size, jnp.linalg.norm(column, axis=1))
        on = _residual(normal) > tolerance
        new = on & (size > 10 * least * whole)  # else the space is complete
        v = v / per_sample(jnp.where(new, size, 1), v)
        basis = basis.at[j + 1].set(jnp.where(per_sample(new, v), v, 0))
        column = column.at[:, j + 1].set(jnp.where(new, size, 0))
        hessenberg = hessenberg.at[:, :, j].set(jnp.where(on[:, None], column, 0))
        # Not infinite where the space is complete and the system solved.
        floor = jnp.where(whole > 0, least * whole, 1)
        entry = -jnp.sum(normal * column, axis=1) / jnp.maximum(size, floor)
        return basis, hessenberg, normal.at[:, j + 1].set(jnp.where(on, entry, 0))

    def step(state: State, j: Array) -> tuple[State, None]:
        unsolved = jnp.any(_residual(state[-1]) > tolerance)
        keep = lambda _, *state: state  # noqa: E731
        return jax.lax.cond(unsolved, advance, keep, j, *state), None

    state: State = basis, hessenberg, normal
    state, _ = jax.lax.scan(step, state, jnp.arange(iterations))
    basis, hessenberg, normal = state
    # The least squares of |b| e_0 - H c; columns of solved samples, and of zeros, get 0.
    c = jnp.linalg.pinv(hessenberg)[:, :, 0]
    x = _combined(c, basis[:-1])
    return per_sample(scale, b) * x, jnp.where(scale > 0, _residual(normal), 0)


METHODS = {"cg": conjugate_gradients, "gmres": gmres}


@dataclasses.dataclass(frozen=True)
@checked(name=tuple(METHODS), iterations="[1, inf)", tolerance="[0, 1)")
class Solver:
    """How linear systems are solved: `(matvec, b) -> (x, relative residual [B])`."""

    name: str = "cg"  # conjugate gradients, or GMRES for matrices that are not quite symmetric
    iterations: int = 10  # the largest number of products with the matrix
    tolerance: float = 1e-4  # relative residual from which a sample is solved

    def __call__(self, matvec: Matvec, b: Array) -> tuple[Array, Array]:
        return METHODS[self.name](matvec, b, iterations=self.iterations, tolerance=self.tolerance)


CG, GMRES = Solver(), Solver("gmres")


def _dot(a: Array, b: Array) -> Array:
    """Inner products of samples `[B, ...]`: `[B]`."""
    return jnp.sum(a * b, axis=range(1, a.ndim))


def _normalised(b: Array) -> tuple[Array, Array]:
    """`b / |b|` `[B, ...]`, or 0, and `|b|` `[B]`."""
    scale = jnp.sqrt(_dot(b, b))
    return b / per_sample(jnp.where(scale > 0, scale, 1), b), scale


def _residual(normal: Array) -> Array:
    """`|n_0| / |n|` `[B]`, of n `[B, k + 1]` with `n_0 = 1`."""
    return 1 / jnp.linalg.norm(normal, axis=1)


def _combined(c: Array, basis: Array) -> Array:
    """`sum_k c_k v_k` `[B, ...]` of `c` `[B, k]` and `basis` `[k, B, ...]`."""
    return jnp.einsum("bk,kb...->b...", c, basis, precision="highest")
