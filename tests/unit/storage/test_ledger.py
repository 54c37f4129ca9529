"""The ledger on SQLite and on a real PostgreSQL: what is written stays, and no quota is overspent by anyone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from fixtures.postgres import postgres_server as postgres_server
from fixtures.postgres import postgres_url as postgres_url

from finance_assets.storage import ledger as ledger_module
from finance_assets.storage.ledger import FileIdentity, FileStatus, Ledger, Outcome

NOON = datetime(2013, 1, 2, 12, tzinfo=UTC)
TODAY = date(2013, 1, 2)
SECRET = "s3cr3t/of:nobody"


class Clock:
    """A clock that a test moves; in a zone other than UTC, as a clock may be."""

    def __init__(self) -> None:
        self.now = NOON.astimezone(timezone(timedelta(hours=-5)))

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/below/ledger.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(url: str, clock: Clock) -> Iterator[Ledger]:
    made = Ledger(url, clock)
    yield made
    made.close()


def landed(key: str = "vendor/a.csv", size: int = 10, fingerprint: str = "sha256:aa") -> FileIdentity:
    return FileIdentity(key, size, fingerprint)


# -- files ---------------------------------------------------------------------------------------------------


def test_a_file_is_recorded_with_its_fate(ledger: Ledger) -> None:
    ledger.record(landed(), FileStatus.PROCESSED, run_id="run-1")
    ledger.record(landed("vendor/b.csv"), FileStatus.QUARANTINED, reason='it\'s no CSV; "really"')
    processed, quarantined = ledger.files()
    assert (processed.identity, processed.status, processed.attempts) == (landed(), FileStatus.PROCESSED, 1)
    assert (processed.reason, processed.run_id, processed.recorded_ts_utc) == (None, "run-1", NOON)
    assert processed.recorded_ts_utc.tzinfo is not None
    assert (quarantined.reason, quarantined.run_id) == ('it\'s no CSV; "really"', None)
    assert ledger.files(FileStatus.QUARANTINED) == [quarantined]
    assert ledger.files(FileStatus.FAILED) == []


def test_a_large_file_has_a_size_too(ledger: Ledger) -> None:
    ledger.record(landed(size=2**40), FileStatus.PROCESSED)
    assert ledger.files()[0].identity.size == 2**40


def test_saying_it_again_counts_an_attempt_and_replaces_the_rest(ledger: Ledger, clock: Clock) -> None:
    ledger.record(landed(), FileStatus.FAILED, reason="no header", run_id="run-1")
    clock.now += timedelta(hours=1)
    ledger.record(landed(), FileStatus.PROCESSED, run_id="run-2")
    (record,) = ledger.files()
    assert (record.status, record.attempts, record.reason, record.run_id) == (FileStatus.PROCESSED, 2, None, "run-2")
    assert record.recorded_ts_utc == NOON + timedelta(hours=1)


def test_what_is_still_to_be_done_comes_in_the_order_of_the_listing(ledger: Ledger) -> None:
    done, refused, failed, new = (landed(name) for name in ("d", "r", "f", "n"))
    ledger.record(done, FileStatus.PROCESSED)
    ledger.record(refused, FileStatus.QUARANTINED, reason="no CSV")
    ledger.record(failed, FileStatus.FAILED)
    assert ledger.unseen([new, refused, failed, done, new]) == [new, failed]
    assert ledger.unseen([]) == []


def test_a_failed_file_is_tried_so_many_times_and_no_more(ledger: Ledger) -> None:
    for attempts in range(1, 4):
        assert ledger.unseen([landed()], max_attempts=3) == [landed()], f"after {attempts - 1} attempts"
        ledger.record(landed(), FileStatus.FAILED)
    assert ledger.unseen([landed()], max_attempts=3) == []
    assert ledger.unseen([landed()], max_attempts=4) == [landed()]


def test_a_file_that_changed_is_another_file(ledger: Ledger) -> None:
    ledger.record(landed(), FileStatus.PROCESSED)
    longer, other = landed(size=11), landed(fingerprint="sha256:bb")
    assert ledger.unseen([landed(), longer, other]) == [longer, other]
    ledger.record(longer, FileStatus.FAILED)
    assert len(ledger.files()) == 2


def test_a_long_listing_is_looked_up_in_pieces_and_nothing_else_is_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEYS_AT_ONCE", 3)
    listing = [landed(f"vendor/{number:02}") for number in range(10)]
    for identity in listing[::2]:
        ledger.record(identity, FileStatus.PROCESSED)
    for number in range(20):
        ledger.record(landed(f"old/{number}"), FileStatus.PROCESSED)
    looked_up: list[int] = []
    records = Ledger._records

    def counted(self: Ledger, *conditions: object) -> list[object]:
        found = records(self, *conditions)  # type: ignore[arg-type]
        looked_up.append(len(found))
        return list(found)

    monkeypatch.setattr(Ledger, "_records", counted)
    assert ledger.unseen(listing) == listing[1::2]
    assert (len(looked_up), sum(looked_up)) == (4, 5)


# -- quotas --------------------------------------------------------------------------------------------------


def test_a_quota_is_taken_until_it_is_gone(ledger: Ledger) -> None:
    assert ledger.used("alpha_vantage", TODAY) == 0
    assert [ledger.try_acquire("alpha_vantage", TODAY, 3) for _ in range(5)] == [True, True, True, False, False]
    assert ledger.used("alpha_vantage", TODAY) == 3, "a refusal costs nothing"


def test_quotas_are_of_a_provider_and_a_day(ledger: Ledger) -> None:
    assert ledger.try_acquire("alpha_vantage", TODAY, 1)
    assert ledger.try_acquire("yahoo", TODAY, 1)
    assert ledger.try_acquire("alpha_vantage", TODAY + timedelta(days=1), 1)
    assert not ledger.try_acquire("alpha_vantage", TODAY, 1)


def test_without_a_limit_requests_are_counted_and_never_refused(ledger: Ledger) -> None:
    assert all(ledger.try_acquire("yahoo", TODAY, None) for _ in range(5))
    assert ledger.used("yahoo", TODAY) == 5
    assert not ledger.try_acquire("yahoo", TODAY, 5), "a limit set later counts what was spent before"
    assert ledger.try_acquire("yahoo", TODAY, 6)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_quota_of_nothing_gives_nothing(ledger: Ledger, limit: int) -> None:
    assert not ledger.try_acquire("alpha_vantage", TODAY, limit)
    assert ledger.used("alpha_vantage", TODAY) == 0


def test_threads_do_not_overspend(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: ledger.try_acquire("alpha_vantage", TODAY, 25), range(80)))
    assert sum(taken) == 25 == ledger.used("alpha_vantage", TODAY)


SPENDER = """
import sys, time
from datetime import UTC, date, datetime
import sqlalchemy.dialects.postgresql, sqlalchemy.dialects.sqlite
from finance_assets.storage.ledger import FileIdentity, FileStatus, Ledger
ledger = Ledger(sys.argv[1], lambda: datetime(2013, 1, 2, tzinfo=UTC))
print("ready", flush=True)
sys.stdin.readline()
taken = 0
for number in range(20):
    taken += ledger.try_acquire("alpha_vantage", date(2013, 1, 2), 60)
    ledger.record(FileIdentity("shared.csv", 1, "x"), FileStatus.FAILED)
print(taken)
"""


def test_eight_processes_that_begin_at_once_do_not_overspend(url: str, clock: Clock) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SPENDER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(8)
    ]
    # All have imported; now they make the tables of an empty database together.
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        answers.append(int(out))
    ledger = Ledger(url, clock)
    assert sum(answers) == 60 == ledger.used("alpha_vantage", TODAY)
    assert ledger.files()[0].attempts == 160, "no attempt was lost"
    ledger.close()


# -- the database --------------------------------------------------------------------------------------------


def test_a_restart_keeps_everything(url: str, clock: Clock) -> None:
    before = Ledger(url, clock)
    before.record(landed(), FileStatus.FAILED, reason="no header")
    before.try_acquire("alpha_vantage", TODAY, 25)
    known = before.files()
    before.close()
    after = Ledger(url, clock)
    assert after.files() == known
    assert after.used("alpha_vantage", TODAY) == 1
    after.close()
    assert after.used("alpha_vantage", TODAY) == 1, "a closed ledger opens again"
    after.close()
    after.close()


def test_nothing_is_opened_before_it_is_used(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/none/ledger.sqlite", clock)
    assert repr(ledger) == f"Ledger('sqlite:///{tmp_path}/none/ledger.sqlite')"
    ledger.close()
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_on_the_disk(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite", clock)
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2, "full"
    ledger.close()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_no_password_is_shown(driver: str, clock: Clock) -> None:
    from urllib.parse import quote

    ledger = Ledger(f"{driver}://user:{quote(SECRET, safe='')}@127.0.0.1:9/none", clock)
    assert repr(ledger) == "Ledger('postgresql+psycopg://user:***@127.0.0.1:9/none')"
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
        ledger.files()
    assert SECRET not in str(caught.value)
    ledger.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (f"no address {SECRET}", "FINANCE_ASSETS_LEDGER_URL is no address of a database"),
        (f"postgresql://user:{SECRET}@host:port/x", "FINANCE_ASSETS_LEDGER_URL is no address of a database"),
        (f"mysql://user:{SECRET}@host/x", "the ledger runs on sqlite or postgresql, not on mysql"),
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_it(url: str, complaint: str, clock: Clock) -> None:
    import traceback

    ledger = Ledger(url, clock)
    for act in (ledger.files, lambda: repr(ledger)):
        with pytest.raises(ValueError, match=complaint) as caught:
            act()
        shown = traceback.format_exception(type(caught.value), caught.value, None)
        assert not any(piece in "".join(shown) for piece in (SECRET, *SECRET.split("/")))


# -- faults of our own -----------------------------------------------------------------------------------------------


def test_a_fault_is_no_attempt_and_waits_ever_longer(ledger: Ledger) -> None:
    now, pauses = NOON, []
    for faults in range(1, 12):
        retry = ledger.record_fault(landed(), reason="no space", now=now)
        pauses.append((retry - now).total_seconds())
        (record,) = ledger.files(FileStatus.FAILED)
        assert (record.attempts, record.faults, record.retry_ts_utc) == (0, faults, retry)
        assert ledger.unseen([landed()], now=retry) == [landed()]
        if retry > now:
            assert ledger.unseen([landed()], now=retry - timedelta(seconds=1)) == []
        assert ledger.unseen([landed()]) == [landed()], "who does not ask for the time is told all"
        now = retry
    assert pauses == [0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    ledger.record(landed(), FileStatus.PROCESSED)
    (record,) = ledger.files()
    assert (record.attempts, record.faults, record.retry_ts_utc, record.reason) == (1, 0, None, None)


def test_a_verdict_after_faults_counts_from_one(ledger: Ledger) -> None:
    for _ in range(5):
        ledger.record_fault(landed(), reason="disk", now=NOON)
    for attempts in range(1, 4):
        assert ledger.unseen([landed()], now=NOON + timedelta(hours=1)) == [landed()]
        ledger.record(landed(), FileStatus.FAILED, reason="reader")
        assert ledger.files()[0].attempts == attempts
    assert ledger.unseen([landed()], now=NOON) == []
    ledger.record_fault(landed("b"), reason="disk", now=NOON)
    ledger.record(landed("c"), FileStatus.PROCESSED)
    ledger.try_again([landed(), landed("b"), landed("c"), landed("unknown")])
    assert ledger.unseen([landed(), landed("b"), landed("c")], now=NOON) == [landed(), landed("b")]


def test_many_files_are_recorded_at_once_or_not_at_all(ledger: Ledger) -> None:
    import sqlalchemy as sa

    outcomes = [Outcome(landed(f"{n:04}"), FileStatus.PROCESSED, run_id="run") for n in range(1200)]
    statements: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    sa.event.listen(ledger._engine, "before_cursor_execute", count)
    ledger.record_all(outcomes)
    assert len([one for one in statements if one.lower().startswith("insert")]) <= 5
    assert len(ledger.files()) == 1200
    ledger.record_all([])
    nameless = FileIdentity("y", None, "z")  # type: ignore[arg-type]
    broken = [Outcome(landed("x"), FileStatus.PROCESSED), Outcome(nameless, FileStatus.PROCESSED)]
    with pytest.raises(sa.exc.IntegrityError):
        ledger.record_all(broken)
    assert len(ledger.files()) == 1200


def test_a_reason_that_is_no_text_is_stored_escaped(ledger: Ledger) -> None:
    ledger.record(landed(), FileStatus.FAILED, reason="a\udce9b\x00c" + "x" * 9999)
    (record,) = ledger.files()
    assert str(record.reason).startswith("a\\udce9b\\x00cxxx")
    assert len(str(record.reason)) == 500


OLD_TABLE = """create table ledger_files (
    key varchar not null, size bigint not null, fingerprint varchar not null, status varchar not null,
    attempts integer not null, reason varchar, run_id varchar, recorded_ts_utc varchar not null,
    primary key (key, size, fingerprint))"""


def test_a_database_of_an_earlier_release_is_upgraded_in_place(url: str, clock: Clock) -> None:
    import sqlalchemy as sa

    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    engine = sa.create_engine(url)
    insert = (
        "insert into ledger_files (key, size, fingerprint, status, attempts, recorded_ts_utc) "
        "values ('{}', 10, 'sha256:aa', '{}', {}, '2013-01-01T00:00:00+00:00')"
    )
    with engine.begin() as connection:
        connection.execute(sa.text(OLD_TABLE))
        connection.execute(sa.text(insert.format("vendor/a.csv", "processed", 1)))
        connection.execute(sa.text(insert.format("vendor/b.csv", "failed", 2)))
    ledgers = [Ledger(url, clock) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        # All of them upgrade it at once.
        found = list(pool.map(lambda one: one.files(), ledgers))
    assert all(
        [(f.attempts, f.faults, f.retry_ts_utc) for f in files] == [(1, 0, None), (2, 0, None)] for files in found
    )
    ledgers[0].record_fault(landed("vendor/b.csv"), reason="disk", now=NOON)
    assert [(f.attempts, f.faults) for f in ledgers[1].files()] == [(1, 0), (2, 1)]
    with engine.begin() as connection:
        # The earlier release still writes.
        connection.execute(sa.text(insert.format("vendor/c.csv", "processed", 1)))
    engine.dispose()
    assert len(ledgers[2].files()) == 3
    for one in ledgers:
        one.close()
