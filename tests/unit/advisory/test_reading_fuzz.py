"""Whatever is delivered: no crash, no hang, no personal data."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
import time

import pytest
from fixtures.spreadsheets import WRITERS, parts_of, zipped
from fixtures.vendor_files import HEADER, RECEIVED, csv, line, read, truth, workbook
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finance_assets.advisory.reading.outcome import QUARANTINED, ROWS

#: Long enough to be no coincidence.
PIECE = 7
SECRETS = ("900-12-3456", "jane.smith@example.com", "1961-04-09")
ACTIONS = {"accept", "accept_with_warnings", "quarantine_file"}


def sound(data: bytes) -> None:
    reading = read(data)
    assert reading.action in ACTIONS
    assert reading.rows.schema == ROWS
    assert reading.quarantined.schema == QUARANTINED
    assert (reading.action == "quarantine_file") == bool(reading.file_reason)
    if reading.action == "quarantine_file":
        assert reading.rows.num_rows == 0
    assert reading.rows["account_id"].null_count == reading.rows["period_end"].null_count == 0
    assert all(d <= RECEIVED.date() for d in reading.rows["period_end"].to_pylist())
    blob = (
        str(reading.rows.to_pylist())
        + str(reading.quarantined.to_pylist())
        + str(reading.warnings)
        + str(reading.skipped)
    )
    assert not [s for s in SECRETS if s in blob]
    # Nor a piece of one, beside another cell in a damaged line.
    told = str(reading.quarantined.drop_columns("line").to_pylist()) + str(reading.file_reason)
    assert not [s[i : i + PIECE] for s in SECRETS for i in range(len(s) - PIECE + 1) if s[i : i + PIECE] in told]


def originals() -> list[bytes]:
    rows = truth()
    text = "\n".join([HEADER + ",ssn,email,birth date", *(f"{line(t)},{','.join(SECRETS)}" for t in rows)]) + "\n"
    objects = [
        {
            "account": t.account,
            "date": str(t.end),
            "emv": float(t.emv),
            "bmv": float(t.bmv),
            "net_flow": float(t.net),
            "twr": float(t.ret),
            "ssn": SECRETS[0],
        }
        for t in rows
    ]
    grid = [
        ["Title"],
        HEADER.split(","),
        *([t.account, t.end, "USD", float(t.bmv), 0, 0, 0, float(t.emv), float(t.ret)] for t in rows),
    ]
    return [
        text.encode(),
        csv(sep=";").encode("utf-16"),
        json.dumps(objects).encode(),
        "\n".join(map(json.dumps, objects)).encode(),
        gzip.compress(csv().encode()),
        workbook({"S": grid}),
    ]


def other_kinds() -> dict[str, bytes]:
    """A sample of each kind that is no text and no xlsx, with personal data in it."""
    rows = truth()
    head = [*HEADER.split(","), "ssn", "email", "birth date"]
    grid = [
        head,
        *([t.account, t.end, "USD", float(t.bmv), 0, 0, 0, float(t.emv), float(t.ret), *SECRETS] for t in rows),
    ]
    records = "".join(
        f"<Row id='{n}'><Account>{t.account}</Account><Date>{t.end}</Date><Bmv>{t.bmv}</Bmv><NetFlow>{t.net}</NetFlow>"
        f"<Emv>{t.emv}</Emv><Twr>{t.ret}</Twr><Ssn>{SECRETS[0]}</Ssn><Email>{SECRETS[1]}</Email></Row>\n"
        for n, t in enumerate(rows)
    )
    balances = "".join(
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy='EUR'>{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd>"
        f"<Dt><Dt>{day}</Dt></Dt></Bal>"
        for code, amount, day in (("OPBD", "5.00", "2024-01-01"), ("CLBD", "7.50", "2024-01-31"))
    )
    entry = (
        "<Ntry><Amt Ccy='EUR'>2.50</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts>BOOK</Sts><BookgDt><Dt>2024-01-05</Dt></BookgDt>"
        f"<AddtlNtryInf>{SECRETS[1]}</AddtlNtryInf></Ntry>"
    )
    camt = (
        f"<Stmt><Id>1</Id><Acct><Id><IBAN>DE89370400440532013000</IBAN></Id><Ownr><Nm>{SECRETS[0]}</Nm></Ownr></Acct>"
        f"{balances}{entry}</Stmt>"
    )
    return {
        **{kind: write({"S": grid, "T": [["note"]]}) for kind, write in WRITERS.items()},
        "records": f"<?xml version='1.0'?><Report>{records}</Report>".encode(),
        "camt": f"<Document><BkToCstmrStmt>{camt * 3}</BkToCstmrStmt></Document>".encode(),
    }


def mutated(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(max(1, len(out)))
        kind = chance.randrange(5)
        if kind == 0 and out:
            out[place] = chance.randrange(256)
        elif kind == 1:
            del out[place : place + chance.randint(1, 30)]
        elif kind == 2:
            out[place:place] = chance.choice(
                [b",", b'"', b"\n", b"\r", b";", b"0", b"-", b"%", b"1e400", b"\x00", b"{", b"]", "é".encode("cp1252")]
            )
        elif kind == 3:
            out[place:place] = out[place : place + chance.randint(1, 80)]
        else:
            out = out[: place + 1]
    return bytes(out)


@pytest.mark.parametrize("seed", range(6))
def test_mutations(seed):
    chance = random.Random(seed)
    original = originals()[seed]
    sound(original)
    end = time.monotonic() + 1.5
    for _ in range(60):
        sound(mutated(original, chance))
        if time.monotonic() > end:
            break


@pytest.mark.parametrize("kind", sorted([*WRITERS, "records", "camt"]))
def test_mutations_of_workbooks_and_xml(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chance = random.Random(kind)
    original = other_kinds()[kind]
    sound(original)
    assert read(original).rows.num_rows
    end = time.monotonic() + 1.5
    for _ in range(150):
        data = original
        if kind in {"xlsb", "ods"} and chance.random() < 0.8:
            # Damage within the archive; from outside nearly all of it is seen by the archive.
            parts = parts_of(original)
            part = chance.choice(sorted(parts))
            parts[part] = mutated(bytes(parts[part]), chance)
            data = zipped(parts)
        else:
            data = mutated(original, chance)
        sound(data)
        if time.monotonic() > end:
            break
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(st.sampled_from(["", "1.5", "2024-01-31", "A1"]).map(lambda t: f">{t}"), lambda c: st.lists(st.tuples(st.sampled_from(["account", "date", "emv", "bmv", "row", "x"]), c), max_size=4).map(lambda kids: ' id="7">' + "".join(f"<{n}{inner}</{n}>" for n, inner in kids)), max_leaves=20))  # fmt: skip
def test_any_xml(inner):
    sound(f"<r{inner}</r>".encode())


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.binary(max_size=400), st.text(max_size=300).map(str.encode), st.lists(st.lists(st.text("0123456789.,-%$ ()aAE/é", max_size=10), min_size=9, max_size=9), max_size=6).map(
    lambda rows: "\n".join([HEADER, *(",".join(f'"{c}"' for c in r) for r in rows)]).encode())))  # fmt: skip
def test_anything(data):
    sound(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=4) | st.dictionaries(st.sampled_from(["account", "date", "emv", "bmv", "children", "rows", "x", "2024-01"]), c, max_size=4), max_leaves=20))  # fmt: skip
def test_any_json(document):
    sound(json.dumps(document).encode())


def test_deep_and_wide_documents_end():
    start = time.monotonic()
    for data in (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'"' * 200_001,
        b"," * 300_000,
        b"a,b\n" * 50_000,
        b"\n" * 300_000,
        b"(" * 20_000 + b",date,emv\n",
        b"<a>" * 100_000,
        b"<" * 200_000,
        b"<a " + b"b='1' " * 50_000 + b"/>",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 200_000,
        b"\x09\x08\x10\x00" + b"\xff" * 200_000,
    ):
        sound(data)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("damaged", "account"),
    [
        # Cut within the tax id, or the commas before it are gone: nothing says where the account ends.
        ("001234567900-12-3456,jane.smith@example.com", ""),
        ("0012-3456,jane.smith@example.com,1961-04-09", ""),
        ("xample.com,1961-04-09", ""),
        ("A-1;900-12-34", ""),
        ("4111 1111 1111 1111,x", ""),
        # An account of the file is one.
        ("{known},2024-01-31", "{known}"),
    ],
)
def test_a_damaged_line_shows_no_piece_of_another_cell(damaged: str, account: str) -> None:
    known, lines = truth()[0].account, csv().splitlines()
    damaged_line = damaged.replace("{known}", known)
    reading = read("\n".join([*lines[:3], damaged_line, *lines[3:]]) + "\n")
    assert [(row["reason"], row["account_id"]) for row in reading.quarantined.to_pylist()] == [
        ("wrong_field_count", account.replace("{known}", known))
    ]
