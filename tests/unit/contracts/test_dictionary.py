"""The data dictionary says of every table what its contract says."""

from __future__ import annotations

from pathlib import Path

import pytest

from finance_assets.contracts import CONTRACTS, market, sectors
from finance_assets.contracts.dictionary import DICTIONARY_PATH, data_dictionary, write_data_dictionary


def test_every_table_and_column_is_in_it() -> None:
    text = data_dictionary(CONTRACTS.values())
    for contract in CONTRACTS.values():
        start = text.index(f"\n### {contract.path}\n")
        end = text.find("\n### ", start + 1)
        section = text[start : end if end > 0 else None]
        assert contract.grain in section
        assert contract.source in section
        for column in contract.columns:
            [line] = [line for line in section.splitlines() if f"`{column.name}`" in line.split("|")[1:2].__str__()]
            assert column.unit in line
            assert column.sql_type in line
        for rule in contract.rules:
            assert rule.name in section


def test_a_table_reads_as_a_person_would_want_it() -> None:
    text = data_dictionary([market.QUOTES])
    assert "- **One row**: One ticker on one exchange session." in text
    assert "- **Key**: `symbol`, `session_date`" in text
    assert "one Parquet file per exchange session, by `session_date`" in text
    assert "| `close` | decimal(18,8) | currency | no | > 0 |" in text
    assert "- no price of the day is above the highest (`high_bounds`: `high >= close and high >= open`)" in text
    assert "built by dbt" in data_dictionary([sectors.MART_SECTOR_PERFORMANCE])


def test_the_overview_links_to_every_table() -> None:
    text = data_dictionary(CONTRACTS.values())
    for contract in CONTRACTS.values():
        assert f"[{contract.name}](#{contract.layer}{contract.name})" in text


def test_it_is_written_only_where_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "data_dictionary.md"
    assert write_data_dictionary(path)
    assert not write_data_dictionary(path)
    path.write_text("old")
    assert write_data_dictionary(path)


def test_the_kept_dictionary_is_up_to_date() -> None:
    if not DICTIONARY_PATH.exists():
        pytest.skip(f"{DICTIONARY_PATH} was never written")
    assert DICTIONARY_PATH.read_text(encoding="utf-8") == data_dictionary(CONTRACTS.values()), "run make generate"
