"""Fixtures and options shared by all tests."""

import gc
import os

# Before jax is imported: XLA is quiet and hardly optimises, as most programs of tests run once and
# briefly. Processes started by tests inherit both.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"

import jax
import pytest

from diffusion_jax.system import runtime


def pytest_configure(config):
    """Caches compiled programs in `.pytest_cache`, for other tests and the next run."""
    os.environ["XDG_CACHE_HOME"] = str(config.rootpath / ".pytest_cache")
    runtime.CACHED_SECONDS = 0
    runtime.enable_compilation_cache()


LONGEST = "law run kill golden processes sweep likelihood objectives exponential guided models"


QUICK_SCHEDULES = {"cosine", "edm", "flow"}


@pytest.hookimpl(tryfirst=True)  # before marked tests are deselected
def pytest_collection_modifyitems(items):
    """Marks tests by schedule (parameter `name`) as slow, except for three schedules.

    The longest files come first, so that no process is left with one at the end.
    """
    from tests.oracles import SCHEDULES

    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("name") in SCHEDULES.keys() - QUICK_SCHEDULES:
            item.add_marker(pytest.mark.slow)
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish():
    """Existing objects are excluded from garbage collection, which would scan them each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture
def noise(monkeypatch, tmp_path):
    """Runs train on noise, with their own classifiers, which learn next to nothing."""
    from diffusion_jax import from_config, run
    from tests.runs import random_dataset

    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: random_dataset())
    monkeypatch.setattr(run.evaluation, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr("diffusion_jax.evaluation.extractor.STEPS", 3)


@pytest.fixture
def x64():
    """Runs the test in float64: identities hold to 1e-10, and mistakes do not."""
    with jax.enable_x64(True):
        yield
