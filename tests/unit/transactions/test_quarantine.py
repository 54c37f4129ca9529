"""What is in quarantine can be shown, repaired, classified again and sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.transactions import NOW, delivery, transaction
from typer.testing import CliRunner

from finance_assets.cli import queue as queue_commands
from finance_assets.cli.app import app
from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.classifying import classify_lines
from finance_assets.transactions.quarantine import quarantined
from finance_assets.transactions.settlement import settle

BAD = [transaction("a", "0"), b"\xff\x00", transaction("s", "2"), b'{"transaction_id": "\\u001b[2J evil"}']


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lake with one good message and four in quarantine."""
    monkeypatch.setenv("FINANCE_ASSETS_HOME", str(tmp_path / "home"))
    made = Settings.from_env()
    received = [transaction("s", "1"), *BAD]
    write_batch(
        build_lake(made), [delivery(f"m{place}", body, second=place) for place, body in enumerate(received)], NOW
    )
    settle(build_lake(made))
    return made


class Kept:
    """A queue that keeps what it is sent."""

    name = "kept"

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def send(self, bodies: list[bytes]) -> list[str]:
        self.bodies += bodies
        return [str(place) for place in range(len(bodies))]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    monkeypatch.setattr(queue_commands, "main_queue", lambda _: kept)
    return kept


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["transactions", *arguments])


def test_the_quarantine_holds_rejected_messages_and_conflicts_byte_for_byte(settings: Settings) -> None:
    entries = list(quarantined(build_lake(settings)))
    assert [(entry["message_id"], entry["reason"]) for entry in entries] == [
        ("m1", "amount_zero"),
        ("m2", "bad_encoding"),
        ("m3", "duplicate_conflict"),
        ("m4", "user_id_missing"),
    ]
    assert [entry["message_id"] for entry in quarantined(build_lake(settings), ["amount_zero"])] == ["m1"]
    lines = [json.dumps(entry).encode() for entry in entries]
    assert [row["reason"] for row in classify_lines(lines, NOW)] == [
        "amount_zero",
        "bad_encoding",
        None,
        "user_id_missing",
    ]


def test_the_command_shows_it_inert_and_exports_it(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    shown = run("quarantine", "--export", str(target))
    assert shown.exit_code == 1
    assert "4 of 4 shown" in shown.stdout
    assert "\x1b[2J" not in shown.stdout
    assert [json.loads(line)["message_id"] for line in target.read_bytes().splitlines()] == ["m1", "m2", "m3", "m4"]
    assert "1 of 1 shown: 1 bad_encoding." in run("quarantine", "--reason", "bad_encoding").stdout
    nothing = run("quarantine", "--reason", "too_deep")
    assert (nothing.exit_code, "Nothing is in quarantine." in nothing.stdout) == (0, True)


def test_what_is_exported_is_sent_again_as_it_was_or_repaired(settings: Settings, queue: Kept, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    run("quarantine", "--export", str(target))
    done = run("replay", str(target))
    assert (done.exit_code, "sent 4 messages to kept" in done.stdout) == (0, True)
    assert queue.bodies == BAD
    target.write_bytes(target.read_bytes().replace(b'\\"amount\\": 0}', b'\\"amount\\": 7.50}'))
    run("replay", str(target))
    assert queue.bodies[4] == transaction("a", "7.50")
    again = [delivery(f"n{place}", body, second=60 + place) for place, body in enumerate(queue.bodies[4:])]
    write_batch(build_lake(settings), again, NOW)
    assert settle(build_lake(settings)).messages["accepted"] == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"message_id": "m"}', "line 1 needs either"),
        ('{"message_id": "m", "body": ""}', "an empty body"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_sent_is_not_sent_at_all(
    settings: Settings, queue: Kept, tmp_path: Path, text: str | None, complaint: str
) -> None:
    source = tmp_path / "in.jsonl"
    if text is not None:
        source.write_text(
            json.dumps({"message_id": "good", "body": "{}"}) + "\n" + text if "empty" in complaint else text
        )
    done = run("replay", str(source))
    assert (done.exit_code, complaint in done.stderr) == (2, True)
    assert queue.bodies == []
