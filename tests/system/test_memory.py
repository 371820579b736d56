"""Memory of devices, as it is logged and shown."""

import jax
import pytest

from diffusion_jax.system.memory import device_memory, memory_words
from diffusion_jax.training.progress import Progress


class Device:
    def __init__(self, stats: dict[str, int] | None) -> None:
        self._stats = stats

    def memory_stats(self) -> dict[str, int] | None:
        return self._stats


def test_of_the_fullest_device(monkeypatch: pytest.MonkeyPatch) -> None:
    all_of = [
        {"bytes_in_use": used << 30, "peak_bytes_in_use": peak << 29, "bytes_limit": 80 << 30}
        for used, peak in ((9, 20), (5, 25))
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: list(map(Device, all_of)))
    found = device_memory()
    assert found == {
        "device_memory_gib": 5.0,
        "device_memory_peak_gib": 12.5,
        "device_memory_limit_gib": 80.0,
    }
    assert memory_words(found) == "12.5 of 80 GiB"


@pytest.mark.parametrize("terminal", [True, False])
def test_seen_while_training(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    progress = Progress(4, 0, 16, "texts")
    progress.step()
    memory = {"device_memory_peak_gib": 12.34, "device_memory_limit_gib": 80.0}
    progress.report(1, {"loss": 0.5, "items_per_second": 32.0, **memory})
    shown = progress._stage.note if terminal else capsys.readouterr().out  # the bar is drawn later
    progress.close()
    assert "12.3 of 80 GiB" in shown
    if not terminal:
        assert "2.0 steps/s  32 texts/s  00:01 left" in shown  # of 3 more steps
        Progress(4, 0, 16, "texts").report(1, {"loss": 0.5, "items_per_second": 32.0})
        assert capsys.readouterr().out.endswith(" left\n")


def test_where_the_device_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(None)])
    assert device_memory() == {}
    assert memory_words({}) == ""
    monkeypatch.setattr(jax, "local_devices", lambda: [Device({"peak_bytes_in_use": 1 << 30})])
    assert memory_words(device_memory()) == "1.0 GiB"
