"""A checkpoint that the disk gives back otherwise than it was written."""

from pathlib import Path

import pytest

from tests.training.test_loop import Toy, assert_same, run, weights

DAMAGES = {
    "bit": lambda content: content[:-7] + bytes([content[-7] ^ 1]) + content[-6:],
    "state": lambda content: content.replace(b'\\"step\\": 6', b'\\"step\\": 7'),
    "cut": lambda content: content[:-100],
    "emptied": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_costs_time_alone(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Toy()
    curve, _ = run(whole, tmp_path / "whole")
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        run(Toy(stop_at=8), checkpoint)
    content = checkpoint.read_bytes()
    damaged = DAMAGES[damage](content)
    assert damaged != content
    checkpoint.write_bytes(damaged)
    again = Toy()
    assert run(again, checkpoint)[0] == curve
    assert len(again.seen) == 12, "from the first step on"
    assert_same(weights(again), weights(whole))
    assert f"checkpoint {checkpoint} is damaged: training begins anew" in capsys.readouterr().out
