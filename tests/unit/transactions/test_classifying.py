"""``finance-assets transactions classify``: a line in, a line out."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures.transactions import transaction
from typer.testing import CliRunner

from finance_assets.cli.app import app
from finance_assets.transactions import classifying
from finance_assets.transactions.classifying import LineError, classify_lines

NOW = datetime(2025, 2, 1, tzinfo=UTC)
KEYS = ["message_id", "outcome", "transaction_id", "category", "amount", "currency", "timestamp_utc", "reason"]


def line(message_id: str, body: bytes, **more: Any) -> bytes:
    try:
        return json.dumps({"message_id": message_id, "body": body.decode(), **more}).encode()
    except UnicodeDecodeError:
        return json.dumps({"message_id": message_id, "body_b64": base64.b64encode(body).decode(), **more}).encode()


LINES = [
    line("m1", transaction("t", "250.00", timestamp="2025-01-13T06:01:44.5+05:30", merchant="Café"), batch=1),
    b"",
    line("m2", b'{"merchant": "caf\xe9"}', batch=1),
    line("m3", transaction("t", "250", timestamp="2025-01-13T00:31:44.5Z", merchant="Café"), batch=2),
    line("m4", transaction("t", "2500"), batch=2),
    line("m5", transaction("u", "1e3", currency="jpy")),
    line("m6", transaction(" r ", "0")),
]


def test_each_line_has_an_answer_in_order() -> None:
    found = list(classify_lines(LINES, NOW))
    assert all(list(row) == KEYS for row in found)
    assert [tuple(row.values()) for row in found] == [
        ("m1", "accept", "t", "medium_value", "250.00", "USD", "2025-01-13T00:31:44.500000+00:00", None),
        ("m2", "reject", None, None, None, None, None, "bad_encoding"),
        ("m3", "duplicate", "t", None, None, None, None, None),
        ("m4", "conflict", "t", None, None, None, None, "duplicate_conflict"),
        ("m5", "accept", "u", "high_value", "1000", "JPY", "2025-01-15T10:30:00+00:00", None),
        ("m6", "reject", " r ", None, None, None, None, "amount_zero"),
    ]


def test_what_stands_is_known_in_later_pieces_of_a_long_file(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(classify_lines(LINES, NOW))
    monkeypatch.setattr(classifying, "_LINES_AT_ONCE", 1)
    assert list(classify_lines(LINES, NOW)) == whole


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (b"{", "line 2 is not JSON"),
        (b"\xff", "line 2 is not JSON"),
        (b"[]", "line 2 is no object with a message_id"),
        (b'{"body": "x"}', "line 2 is no object with a message_id"),
        (b'{"message_id": 5, "body": "x"}', "line 2 is no object with a message_id"),
        (b'{"message_id": "m"}', "line 2 needs either a body or a body_b64"),
        (b'{"message_id": "m", "body": {}}', "line 2 needs either"),
        (b'{"message_id": "m", "body": "x", "body_b64": "eA=="}', "line 2 needs either"),
        (b'{"message_id": "m", "body_b64": "x"}', "line 2: body_b64 is not base64"),
    ],
)
def test_a_line_that_is_no_message_is_named(bad: bytes, complaint: str) -> None:
    with pytest.raises(LineError, match=complaint):
        list(classify_lines([LINES[0], bad], NOW))


def test_half_a_character_in_a_line_is_bad_encoding() -> None:
    assert [row["reason"] for row in classify_lines([b'{"message_id": "m", "body": "\\ud800"}'], NOW)] == [
        "bad_encoding"
    ]


def command(*arguments: str, stdin: bytes = b"") -> Any:
    return CliRunner().invoke(app, ["transactions", "classify", *arguments], input=stdin)


def test_the_command_writes_a_file_and_counts(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\n".join(LINES))
    done = command("--now", "2025-02-01T00:00:00Z", str(source), str(target))
    assert (done.exit_code, "6 messages: 2 accept, 1 duplicate, 1 conflict, 2 reject" in done.stdout) == (0, True)
    assert [json.loads(text) for text in target.read_bytes().splitlines()] == list(classify_lines(LINES, NOW))
    again = target.read_bytes()
    assert command("--now", "2025-02-01T09:00:00+09:00", str(source), str(target)).exit_code == 0
    assert target.read_bytes() == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_the_clock_is_the_real_one_unless_it_is_given(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(line("m", transaction("t", timestamp="2025-01-15T10:30:00Z")))
    for arguments, outcome in ((("--now", "2025-01-15T10:24:59Z"), "reject"), ((), "accept")):
        assert command(*arguments, str(source), str(target)).exit_code == 0
        assert json.loads(target.read_bytes())["outcome"] == outcome


def test_standard_input_to_standard_output() -> None:
    done = command("--now", "2025-02-01T00:00:00Z", "-", "-", stdin=b"\n".join(LINES))
    assert done.exit_code == 0
    assert [json.loads(text)["message_id"] for text in done.stdout.splitlines()] == ["m1", "m2", "m3", "m4", "m5", "m6"]
    assert "6 messages" in done.stderr


def test_a_file_with_a_bad_line_leaves_the_output_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(LINES[0] + b"\n{\n")
    target.write_text("what was there")
    done = command(str(source), str(target))
    assert (done.exit_code, "line 2 is not JSON" in done.stderr) == (2, True)
    assert target.read_text() == "what was there"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--now", "yesterday", "a", "b"), "--now takes an instant"),
        (("--now", "2025-02-01T00:00:00", "a", "b"), "--now needs a zone"),
        (("/nowhere/at/all", "b"), "No such file"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(arguments: tuple[str, ...], complaint: str) -> None:
    done = command(*arguments)
    assert (done.exit_code, complaint in done.stderr) == (2, True)
