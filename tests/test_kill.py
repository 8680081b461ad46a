"""Nothing that was acknowledged is lost, however hard it is tried. `python -m scripts.torture` tries it for hours."""

from pathlib import Path

from scripts.torture import kill, rotation, users


def test_nothing_acknowledged_is_lost_or_half_done_after_a_kill(
    tmp_path: Path, cache: Path
) -> None:
    result = kill.torture(tmp_path, 8, seed=7, cache=cache)
    assert result["acknowledged"]
    assert result["by_kind"].keys() == kill.SHARES.keys()
    assert result["wrong"] == {}
    assert (result["lost"], result["half"], result["damaged"], result["plain"]) == (0, 0, 0, 0)
    assert result["two_epochs"] == 0


def test_a_kill_while_the_key_is_changed_loses_nothing(tmp_path: Path, cache: Path) -> None:
    result = rotation.torture(tmp_path, 2, seed=5, cache=cache)
    assert result["changes"]
    assert (result["lost"], result["half"], result["damaged"], result["plain"]) == (0, 0, 0, 0)
    assert (result["keys"], result["epochs"]) == (1, 1)


def test_many_writers_at_once_lose_and_cross_nothing(tmp_path: Path) -> None:
    result = users.torture(tmp_path, 10, 20)
    assert result["writes"] == 200
    assert (result["lost"], result["crossed"], result["not_refused"]) == (0, 0, 0)
