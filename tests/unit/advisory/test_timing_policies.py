"""Policies of timing with dates: what a contract may say, which of them a row takes, and what people are told."""

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finance_assets.advisory.explaining import explain_row, policies_in_words
from finance_assets.advisory.performance import DEFAULT_POLICY, Policy, account_performance
from finance_assets.advisory.reading.vendor_contract import (
    VendorContract,
    VendorContractError,
    load_contracts,
    read_onboarding_sheet,
)
from finance_assets.advisory.results import policies
from finance_assets.advisory.twrr import row_return
from finance_assets.reference.flow_timings import TIMINGS

D = Decimal
TWENTY = date(2020, 1, 1)
THREE = """
timing:
  - timing: mid
  - since: 2020-01-01
    timing: eod
    large_flow_threshold: 0.08
  - since: "2022-03-31"
    timing: mixed
"""


def contract(folder: Path, text: str) -> VendorContract:
    (folder / "north.yaml").write_text(f"vendor: north\nversion: 3\n{text}\n")
    (loaded,) = load_contracts(folder)
    return loaded


def listed(*entries: str) -> str:
    return "timing: [" + ", ".join(f"{{{entry}}}" for entry in entries) + "]"


# -- what a contract may say -------------------------------------------------------------------------------------------


def test_a_list_is_policies_whose_versions_name_their_first_day(tmp_path: Path) -> None:
    assert policies([contract(tmp_path, THREE)]) == {
        "north": (
            Policy("mid", "north-3"),
            Policy("eod", "north-3@2020-01-01", D("0.08"), TWENTY),
            Policy("mixed", "north-3@2022-03-31", since=date(2022, 3, 31)),
        )
    }


@pytest.mark.parametrize("text", ["timing: eod", "timing: [{timing: eod}]"])
def test_one_timing_is_one_policy(text: str, tmp_path: Path) -> None:
    assert policies([contract(tmp_path, text)]) == {"north": Policy("eod", "north-3")}


@pytest.mark.parametrize("text", ["", "timing:"])
def test_nothing_declared_is_no_policy(text: str, tmp_path: Path) -> None:
    assert policies([contract(tmp_path, text)]) == {}


def test_the_version_of_a_policy_depends_on_no_other_entry(tmp_path: Path) -> None:
    entries = ["timing: mid", "since: 2019-05-31, timing: eod", "since: 2020-01-01, timing: sod"]
    versions = []
    for number in (1, 2, 3):
        (found,) = policies([contract(tmp_path, listed(*entries[:number]))]).values()
        versions.append([p.version for p in ([found] if isinstance(found, Policy) else found)])
    assert versions[0] == versions[2][:1]
    assert versions[1] == versions[2][:2]
    (alone,) = policies([contract(tmp_path, listed(entries[2]))]).values()
    assert alone == Policy("sod", "north-3@2020-01-01", since=TWENTY)


@pytest.mark.parametrize(
    ("written", "share"),
    [("0.08", "0.08"), ("0.1000000000000000055", "0.1000000000000000055"), ("'0.0700'", "0.07"), ("1", "1"),
     (".5", "0.5"), ("2.5e-2", "0.025"), ("0.2_5", "0.25")],
)  # fmt: skip
def test_a_threshold_is_the_decimal_that_is_written(written: str, share: str, tmp_path: Path) -> None:
    (terms,) = contract(tmp_path, listed(f"timing: eod, large_flow_threshold: {written}")).timings
    assert terms.large_flow_threshold == D(share)


ENTRY = "timing, entry 1, "
SHARE = ENTRY + "large_flow_threshold: write a share of the beginning value as a decimal number: 0.08 for 8 %"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timing: noon", "timing: Input should be 'sod', 'eod', 'mid', 'mixed' or 'flow_after_valuation'"),
        ("timing: 5", "timing: write one of sod, eod, mid, mixed, flow_after_valuation, or a list of entries"),
        ("timing: {timing: eod}", "timing: write one of sod"),
        ("timing: []", "timing: the list is empty: give it an entry, or leave the key out"),
        ("timing: [{since: 2020-01-01}]", ENTRY + "timing: Field required"),
        ("timing: [{timing: noon}]", ENTRY + "timing: Input should be 'sod'"),
        ("timing: [{timing: eod, till: 2020-01-01}]", ENTRY + "till: Extra inputs are not permitted"),
        (listed("timing: mid", "timing: eod"), "timing: entry 2 has no since: only the first entry may be without"),
        (
            listed("since: 2020-01-01, timing: mid", "timing: eod"),
            "timing: entry 2 has no since: only the first entry may be without",
        ),
        (
            listed("timing: mid", "since: 2020-01-01, timing: mid", "since: 2019-01-01, timing: eod"),
            "timing: since 2019-01-01 of entry 3 does not come after 2020-01-01 of the entry before it: put the",
        ),
        (
            listed("since: 2020-01-01, timing: mid", "since: 2020-01-01, timing: eod"),
            "timing: since 2020-01-01 of entry 2 does not come after 2020-01-01 of the entry before it: put the",
        ),
        ("timing: [{since: 2020-02-30, timing: mid}]", ENTRY + "since: Input should be a valid date"),
        ("timing: [{since: 20200101, timing: mid}]", ENTRY + "since: write a day such as 2020-01-01, or leave"),
        ("timing: [{since: '0', timing: mid}]", ENTRY + "since: write a day such as 2020-01-01, or leave"),
        ("timing: [{since: 2020-01-01 10:00:00, timing: mid}]", ENTRY + "since: write a day such as 2020-01-01"),
        *(
            (f"timing: [{{timing: mid, large_flow_threshold: {share}}}]", said)
            for share, said in {
                "0": ENTRY + "large_flow_threshold: Input should be greater than 0",
                "-0.1": ENTRY + "large_flow_threshold: Input should be greater than 0",
                "8 %": SHARE,
                ".nan": SHARE,
                ".inf": SHARE,
                "yes": SHARE,
                "": SHARE,
                "1.0e+400": ENTRY + "large_flow_threshold: Decimal input should have no more than 20 digits",
            }.items()
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_key(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(VendorContractError) as raised:
        contract(tmp_path, text)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'north.yaml'} is no contract of a vendor: {said}"), message
    assert message.endswith(". Mend it, or take it out of the folder")


def test_other_keys_are_read_as_before(tmp_path: Path) -> None:
    assert contract(tmp_path, "rhythm: {since: 2013-01-31}\nid_width: 8.0").id_width == 8
    with pytest.raises(VendorContractError, match=r"vendor: rhythm\.since: Input should be a valid date"):
        contract(tmp_path, "rhythm: {since: 2013-02-30}")


def test_a_contract_survives_being_written_out(tmp_path: Path) -> None:
    made = contract(tmp_path, THREE)
    assert VendorContract.model_validate(made.model_dump()) == made
    assert VendorContract.model_validate_json(made.model_dump_json()) == made
    assert "large_flow_threshold" in json.dumps(VendorContract.model_json_schema())


@pytest.mark.parametrize("key", ["timing", "flow_timing"])
def test_onboarding_sheets(key: str, tmp_path: Path) -> None:
    path = tmp_path / "sheet.json"

    def read(timing: Any) -> VendorContract:
        path.write_text(json.dumps({"north": {"return_unit": "percent", key: timing}}))
        (made,) = read_onboarding_sheet(path)
        return made

    assert read("eod").timing == "eod"
    assert read("as the custodian says").timing is None, "a note for people"
    several = [{"timing": "mid"}, {"since": "2020-01-01", "timing": "eod", "large_flow_threshold": 0.08}]
    assert policies([read(several)]) == {
        "north": (Policy("mid", "north-1"), Policy("eod", "north-1@2020-01-01", D("0.08"), TWENTY))
    }
    with pytest.raises(VendorContractError, match=r"sheet\.json is no .*: timing: entry 2 has no since.*\. Mend it$"):
        read([{"timing": "mid"}, {"timing": "eod"}])
    with pytest.raises(VendorContractError, match=r"sheet\.json is no .*: timing: write one of sod"):
        read({"timing": "mid"})


# -- which of them a row takes -----------------------------------------------------------------------------------------

DAYS = st.dates(date(2019, 12, 1), date(2020, 3, 31))
SHARES = st.sampled_from([D("0.05"), D("0.08"), D("0.10"), D("0.1000000001"), D("1")])


@st.composite
def declared(draw: Any) -> tuple[Policy, ...]:
    """Policies of a vendor in any order, with or without an open beginning."""
    days: list[date | None] = list(draw(st.lists(DAYS, unique=True, max_size=4)))
    if not days or draw(st.booleans()):
        days.append(None)
    return tuple(
        Policy(draw(st.sampled_from(TIMINGS)), f"v@{day}", draw(SHARES), day) for day in draw(st.permutations(days))
    )


AMOUNTS = st.sampled_from(["0", "5", "8", "10", "10.00000001", "100"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "vendor": st.sampled_from(["alpha", "bravo", "charlie"]),
            "period_end": DAYS,
            "granularity": st.sampled_from(["daily", "monthly"]),
            "beginning_market_value": st.sampled_from(["0", "100", "-3", "80"]),
            "contributions": AMOUNTS,
            "distributions": AMOUNTS,
            "ending_market_value": st.sampled_from(["0", "99", "120"]),
            # What the vendor states decides nothing.
            "return_net": st.sampled_from([None, "0.01", "0.2"]),
        }
    ),
    max_size=30,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, alpha=declared(), bravo=declared())
def test_the_policy_of_a_row_is_the_last_that_began_by_its_end(
    rows: list[dict[str, Any]], alpha: tuple[Policy, ...], bravo: tuple[Policy, ...], make_history: Any
) -> None:
    of_vendor = {"alpha": alpha, "bravo": bravo}
    history = make_history(*({**row, "account_id": f"A{place}"} for place, row in enumerate(rows)))
    for row in account_performance(history, of_vendor).to_pylist():
        chosen = DEFAULT_POLICY
        for policy in sorted(of_vendor.get(row["vendor"], ()), key=lambda each: each.since or date.min):
            if (policy.since or date.min) <= row["period_end"]:
                chosen = policy
        expected = row_return(
            row["beginning_market_value"], row["contributions"], row["distributions"], row["ending_market_value"],
            chosen.timing, large_flow_threshold=chosen.large_flow_threshold, valued_daily=row["granularity"] == "daily",
        )  # fmt: skip
        assert row["policy_version"] == chosen.version
        assert (row["timing"], row["timing_rule"], row["return_status"]) == expected[1:]
        assert (row["return_net_computed"] is None) == (expected.value is None)
        if expected.value is not None:
            assert row["return_net_computed"] == pytest.approx(float(expected.value), rel=1e-13, abs=1e-15)
        value, flow = row["beginning_market_value"], abs(row["net_flow"])
        assert row["is_large_flow"] == (value > 0 and flow > 0 and flow >= chosen.large_flow_threshold * value)


def test_the_day_itself_counts_and_the_day_before_does_not(make_history: Any) -> None:
    """Also for a period that began under the policy before."""
    ends = [TWENTY - timedelta(days=1), TWENTY, date(2020, 1, 31)]
    rows = ({"period_end": end, "granularity": "daily" if end == TWENTY else "monthly"} for end in ends)
    table = account_performance(make_history(*rows), {"alpha": (Policy("eod", "v@2020", since=TWENTY),)})
    assert {row["period_end"]: row["policy_version"] for row in table.to_pylist()} == dict(
        zip(ends, ("default-1", "v@2020", "v@2020"), strict=True)
    )


def test_two_policies_of_a_day_are_refused(make_history: Any) -> None:
    twice = (Policy("eod", "a", since=TWENTY), Policy("mid", "b", since=TWENTY), Policy(since=date(2021, 1, 1)))
    with pytest.raises(ValueError, match="alpha: two policies hold since 2020-01-01"):
        account_performance(make_history({}), {"alpha": twice})
    with pytest.raises(ValueError, match="alpha: two policies hold since the beginning"):
        account_performance(make_history({}), {"alpha": (Policy("eod"), Policy("mid"))})


# -- what people are told ----------------------------------------------------------------------------------------------


def test_the_list_of_vendors_says_since_when(tmp_path: Path) -> None:
    def words(text: str) -> list[str]:
        return policies_in_words(policies([contract(tmp_path, text)]).get("north"))

    assert words("") == ["default"]
    assert words("timing: eod") == ["eod"]
    assert words(THREE) == ["mid", "eod since 2020-01-01, large flows from 8 %", "mixed since 2022-03-31"]
    assert words(listed("since: 2020-01-01, timing: eod")) == ["default before 2020-01-01", "eod since 2020-01-01"]


@pytest.mark.parametrize(
    ("text", "end", "said"),
    [
        (
            THREE,
            date(2019, 12, 31),
            "Policy north-3: mid, since the beginning and before 2020-01-01 (by the end of the period); "
            "a net flow is large from 10 % of the beginning value",
        ),
        (
            THREE,
            date(2020, 1, 31),
            "Policy north-3@2020-01-01: eod, since 2020-01-01 and before 2022-03-31 (by the end of the period); "
            "a net flow is large from 8 % of the beginning value",
        ),
        (THREE, date(2022, 3, 31), "Policy north-3@2022-03-31: mixed, since 2022-03-31 (by the end of the period);"),
        ("timing: eod", date(2022, 3, 31), "Policy north-3: eod, since the beginning (by the end of the period);"),
        (
            listed("since: 2020-01-01, timing: eod"),
            date(2019, 12, 31),
            "Policy default-1: mid, the default because north declares a timing only since 2020-01-01 (by the end of",
        ),
        ("", date(2019, 12, 31), "Policy default-1: mid, the default because nothing is declared for north;"),
    ],
)
def test_an_explanation_says_which_policy_held(
    text: str, end: date, said: str, tmp_path: Path, make_history: Any
) -> None:
    of_vendor = policies([contract(tmp_path, text)])
    history = make_history({"vendor": "north", "period_end": end, "contributions": 9, "ending_market_value": 120})
    (row,) = account_performance(history, of_vendor).to_pylist()
    lines = explain_row(row, row, of_vendor)
    assert lines[2].startswith(said)
    assert f"policy {lines[2].removeprefix('Policy ').partition(':')[0]})" in lines[1]
    assert "materialize" not in lines[2]
    assert [lines[0], lines[1], *lines[3:]] == explain_row(row, row)


def test_an_explanation_says_when_the_table_is_behind_the_contract(tmp_path: Path, make_history: Any) -> None:
    (row,) = account_performance(
        make_history({"vendor": "north"}), policies([contract(tmp_path, "timing: mid")])
    ).to_pylist()
    behind = ". The table was computed under another one: finance-assets materialize"
    for text in (THREE, "timing: eod", ""):
        assert explain_row(row, row, policies([contract(tmp_path, text)]))[2].endswith(behind)
