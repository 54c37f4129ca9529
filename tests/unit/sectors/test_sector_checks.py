"""Checks of the composites against a lake in which one thing is wrong."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import dagster as dg
from fixtures.rows import good_row, table_of

from finance_assets.contracts.market import QUOTES
from finance_assets.contracts.publishing import SECTOR_PERFORMANCE
from finance_assets.resources import build_lake
from finance_assets.sectors.checks import composites_are_current, members_are_complete
from finance_assets.settings import Settings

THURSDAY, FRIDAY = date(2013, 2, 28), date(2013, 3, 1)


def rows(*which: tuple[str, date, int, int]) -> object:
    return table_of(
        SECTOR_PERFORMANCE,
        *(
            good_row(SECTOR_PERFORMANCE, sector=s, session_date=d, member_count=m, return_count=r)
            for s, d, m, r in which
        ),
    )


def judged(result: object) -> tuple[bool, str]:
    assert isinstance(result, dg.AssetCheckResult)
    return result.passed, str(result.description)


def test_composites_follow_the_quotes(tmp_path: Path) -> None:
    lake = build_lake(Settings(home=tmp_path))
    whole = [(sector, day, 3, 3) for sector in ("Energy", "Utilities") for day in (THURSDAY, FRIDAY)]
    quote = table_of(QUOTES, good_row(QUOTES, session_date=FRIDAY))
    lake.write_partitions(QUOTES, quote, [FRIDAY.isoformat()])
    lake.write(SECTOR_PERFORMANCE, rows(*whole))
    assert judged(composites_are_current(lake=lake)) == (True, "2 sectors on 2013-03-01")
    assert judged(members_are_complete(lake=lake)) == (True, "complete on 2013-03-01")

    lake.write(SECTOR_PERFORMANCE, rows(*[row for row in whole if row[1] == THURSDAY]))
    passed, said = judged(composites_are_current(lake=lake))
    assert (passed, said) == (False, "the newest session is 2013-02-28, that of core/quotes 2013-03-01")

    lake.write(SECTOR_PERFORMANCE, rows(*whole[:3], ("Materials", FRIDAY, 3, 2)))
    passed, said = judged(composites_are_current(lake=lake))
    assert (passed, said) == (False, "Utilities had a row on 2013-02-28 and none on 2013-03-01")
    assert judged(members_are_complete(lake=lake)) == (
        False,
        "on 2013-03-01, returns of members: Materials: 2 of 3",
    )
