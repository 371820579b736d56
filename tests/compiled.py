"""`jax.jit` for tests, most of whose time is compilation: hardly optimised, compiled faster."""

import functools

import jax

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
