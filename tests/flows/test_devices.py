"""No device for two, none left behind, none waited for in vain."""

from pathlib import Path

import pytest

from flows import devices
from flows import process_group as processes
from flows.devices import held_devices


def never() -> None:
    raise AssertionError("nothing to wait for")


def test_a_second_holder_gets_what_is_free(tmp_path: Path) -> None:
    with held_devices(("0", "1", "2"), 2, tmp_path, never) as first:
        assert first == ("0", "1")
        with held_devices(("0", "1", "2"), 1, tmp_path, never) as second:
            assert second == ("2",)
    with held_devices(("0", "1", "2"), 3, tmp_path, never) as again:
        assert again == ("0", "1", "2")


def test_who_finds_too_few_waits_and_holds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "LOOK_SECONDS", 0.01)
    with held_devices(("0", "1"), 1, tmp_path, never):

        def look() -> None:
            with held_devices(("1",), 1, tmp_path, never) as free:
                assert free == ("1",)
            told.append("waiting")
            stop.set()

        told: list[str] = []
        stop = processes.threading.Event()
        monkeypatch.setattr(devices, "STOP", stop)
        with pytest.raises(processes.Stopped), held_devices(("0", "1"), 2, tmp_path, look):
            raise AssertionError
        assert told == ["waiting"]


def test_more_than_there_are_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 8 devices"), held_devices(("0",), 8, tmp_path, never):
        raise AssertionError


def test_without_devices_there_is_nothing_to_hold(tmp_path: Path) -> None:
    with held_devices((), 8, tmp_path, never) as none:
        assert none == ()
