"""Breaking things on purpose, in small counts; `python -m scripts.torture` has the large ones."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from scripts.torture import faults, forgery, limits, power, sums
from scripts.torture.disk import ShimUnavailable
from scripts.torture.streams import torture

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = re.findall(
        r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/security.md").read_text(encoding="utf-8")
    )
    assert len(named) > 20
    for file, function in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {function or 'test_'}" in text, (file, function)


@pytest.mark.usefixtures("real_kdf")
@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_and_second_tabs_lose_and_repeat_no_byte(
    workers: int, tmp_path: Path, cache: Path
) -> None:
    result = torture(tmp_path, 10, 0, workers, seed=5, cache=cache)
    assert (result["not_a_beginning"], result["not_byte_equal"]) == (0, 0)
    assert result["model_calls"] == result["replies"] == 2


def test_a_kill_leaves_what_was_shown(tmp_path: Path, cache: Path) -> None:
    result = torture(tmp_path, 0, 2, 1, seed=9, cache=cache)
    assert (result["lost_what_was_promised"], result["not_marked_as_cut_short"]) == (0, 0)
    assert result["asks_again"]


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="root reads the memory of a server"
)
@pytest.mark.usefixtures("real_kdf")
def test_no_key_and_no_passphrase_stays_after_the_last_sign_out() -> None:
    figures = limits.run(partial(limits.keys_after_sign_out, passphrase_seconds=2))
    assert (figures["master_and_data_key"], figures["passphrases"]) == ([0, 0], 0)
    assert not figures["failed"]


def test_everything_sealed_is_refused_when_it_is_changed_or_moved(tmp_path: Path) -> None:
    result = forgery.torture(tmp_path, stride=23)
    assert (result["not_refused"], result["refused_as_something_else"], result["plain"]) == (
        0,
        0,
        0,
    )
    assert result["wrong_trials"] == []


@pytest.mark.usefixtures("real_kdf")
def test_what_is_put_back_is_noticed_and_nothing_else(tmp_path: Path) -> None:
    result = sums.torture(tmp_path, trials=30, runs=6, seed=3)
    assert (result["row"], result["link"], result["log"], result["missed"]) == (10, 10, 10, 0)
    assert (result["runs"], result["alarms"], result["alarms_after"]) == (6, 0, [])


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    try:
        result = power.torture(tmp_path, 18, seed=3, share=0.3)
    except ShimUnavailable as reason:
        pytest.skip(str(reason))
    assert result["by_kind"] == dict.fromkeys(power.SECONDS_OF_A_RUN, 3)
    assert result["acknowledged"]
    assert (result["wrong"], result["plain"]) == ({}, 0)


def test_a_disk_that_fills_up_or_breaks_is_told_in_a_sentence_and_loses_nothing(
    tmp_path: Path,
) -> None:
    try:
        result = faults.torture(tmp_path, step=41, seed=4, ways=("full", "hiccup"))
    except ShimUnavailable as reason:
        pytest.skip(str(reason))
    assert result["told_in_a_sentence"]
    assert (result["wrong"], result["plain"]) == ({}, 0)


def test_a_stolen_disk_opens_nothing(tmp_path: Path) -> None:
    # In a process of its own: other tests of this run may have a Playwright open.
    command = [
        sys.executable,
        "-m",
        "scripts.torture.disk_theft",
        "--words",
        "10000",
        "--every",
        "20",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(ran.stdout)
    assert (result["opened"], result["confirmed"], result["plain"]) == (0, 0, 0)
    assert result["with_the_keys"]  # the same trials succeed for somebody who has them
    for mode in ("session", "cookie"):
        assert result[mode]["sessions"]
        assert result[mode]["secrets_tried"] > 500
