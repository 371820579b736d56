"""A lock in a store: one process holds it, and it is released if that is killed."""

import json
import os
import threading
import time

import pytest

from diffusion_jax.system import beats
from diffusion_jax.system.beats import beating
from diffusion_jax.system.files import path_of
from tests.stores import in_memory

HERE = {"host": "here", "process": os.getpid()}
THERE = {"host": "there", "process": 1}


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch):
    in_memory(monkeypatch)
    for name, seconds in (("BEAT", 0.05), ("PATIENCE", 0.4), ("LOOK", 0.02), ("RACE", 0.1)):
        monkeypatch.setattr(beats, f"{name}_SECONDS", seconds)
    return path_of("s3://bucket/run/.training.lock")


def test_the_second_is_told_who_holds_it(lock) -> None:
    with beating(lock, THERE) as holder:
        assert holder is None
        with beating(lock, HERE) as holder:
            assert (holder["host"], holder["process"]) == ("there", 1)
        assert json.loads(lock.read_bytes())["host"] == "there"
    assert not lock.exists()
    with beating(lock, HERE) as holder:
        assert holder is None


def test_a_lock_that_stays_as_it_is_was_left_over(lock) -> None:
    lock.write_bytes(json.dumps({**THERE, "token": "killed", "beat": 3}).encode())
    began = time.monotonic()
    with beating(lock, HERE) as holder:
        assert holder is None
    assert time.monotonic() - began >= beats.PATIENCE_SECONDS


@pytest.mark.parametrize("process", [os.getpid(), 4194304], ids=["own", "beyond the highest"])
def test_a_killed_process_of_this_machine_is_known_at_once(lock, process: int, monkeypatch) -> None:
    monkeypatch.setattr(beats, "PATIENCE_SECONDS", 60.0)
    lock.write_bytes(json.dumps({**HERE, "process": process, "token": "killed"}).encode())
    began = time.monotonic()
    with beating(lock, HERE) as holder:
        assert holder is None
    assert time.monotonic() - began < 5


def test_of_several_that_find_one_left_over_one_gets_it(lock) -> None:
    lock.write_bytes(b"cut sho")
    held, ready = [], threading.Barrier(4)

    def work(number: int) -> None:
        ready.wait()
        with beating(lock, {"host": f"host {number}", "process": number}) as holder:
            if holder is None:
                held.append(number)
                time.sleep(0.5)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
