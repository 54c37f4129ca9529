"""Landed entries that are no files, files made to cost much, and names that would act on a terminal."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fixtures import bombs
from fixtures.faults import SCALE, Account, healing
from fixtures.landing_zone import put_bad_entries, put_odd_names
from fixtures.quotes import fake_settings

from finance_assets.advisory.resources import build_intake
from finance_assets.contracts.advisory import VENDOR_FILES, VENDOR_ROWS

pytestmark = pytest.mark.timeout(300 * SCALE)

HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"
GOOD = f"{HEADER}\nA1,2012-12-31,USD,1000.00,0.00,0.00,1010.00,0.01\n"
#: Processor time of one file that is made to cost much.
SECONDS = 8.0
#: The quick ones; all of them at the full size.
BOMBS = list(bombs.BOMBS.values())[:: 4 if SCALE == 1 else 1]


def age(folder: Path) -> None:
    """Date every file of a folder back: one that was just written waits until it is whole."""
    for entry in os.scandir(os.fsencode(folder)):
        os.utime(entry.path, (1_360_000_000,) * 2, follow_symlinks=False)


def test_entries_that_are_no_files(tmp_path: Path, account: Account) -> None:
    with account.of("landing zone: entries that are no files") as injected:
        intake = build_intake(fake_settings(tmp_path / "home"))
        folder = Path(intake.landing.uri)
        folder.mkdir(parents=True)
        (folder / "good.csv").write_text(GOOD)
        bad = put_bad_entries(folder, tmp_path / "outside")
        age(folder)
        injected.faults += len(bad)
        with healing(injected):
            taken = {one.key: one.action for one in intake.take(intake.pending(settle=True))}
        assert taken == {"good.csv": "accept"}
        refused = {entry.key: entry.reason.partition(":")[0] for entry in intake.look().unread.refused}
        assert refused == bad
        assert intake.take(intake.pending(settle=True)) == []
        injected.survived += len(bad)
        injected.rows += intake.lake.read(VENDOR_ROWS).table.num_rows
        intake.ledger.close()


def test_names_that_act_on_a_terminal(tmp_path: Path, account: Account) -> None:
    from finance_assets.text import escape_controls, escape_name, unescape_name

    with account.of("landing zone: names that act on a terminal") as injected:
        intake = build_intake(fake_settings(tmp_path / "home"))
        folder = Path(intake.landing.uri)
        folder.mkdir(parents=True)
        put_odd_names(folder, GOOD.encode())
        age(folder)
        lines: list[str] = []
        with healing(injected):
            taken = intake.take(intake.pending(settle=True), log=lines.append)
        injected.faults += len(taken)
        assert len(taken) > 3
        assert [line for line in lines if escape_controls(line) != line] == []
        for row in intake.lake.read(VENDOR_FILES).table.to_pylist():
            shown = escape_name(row["landing_key"])
            assert escape_controls(shown) == shown
            assert unescape_name(shown) == row["landing_key"]
        injected.survived += len(taken)
        intake.ledger.close()


@pytest.mark.parametrize("bomb", BOMBS)
def test_files_made_to_cost_much(bomb: bombs.Bomb, tmp_path: Path, account: Account) -> None:
    with account.of("files made to cost much") as injected:
        intake = build_intake(fake_settings(tmp_path / "home"))
        folder = Path(intake.landing.uri)
        folder.mkdir(parents=True)
        (folder / f"a_{bomb.make.__name__}").write_bytes(bomb.make())
        (folder / "b.csv").write_text(GOOD)
        age(folder)
        injected.faults += 1
        begun = time.process_time()
        with healing(injected):
            taken = intake.take(intake.pending(settle=True))
        assert time.process_time() - begun < SECONDS + 1
        assert [one.action for one in taken if one.key == "b.csv"] == ["accept"]
        (other,) = [one for one in taken if one.key != "b.csv"]
        assert other.action != "failed", other.reason
        if None not in bomb.reasons:
            assert other.action == "quarantine_file"
        injected.survived += 1
        injected.rows += 1
        intake.ledger.close()
