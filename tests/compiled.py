"""`jax.jit` for tests: hardly optimised, compiled faster; or fully, for what runs long.

Within pytest `jax.jit` is the first of them too: `conftest.py` sets it for all programs.
"""

import functools

import jax

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
optimised_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 2})
