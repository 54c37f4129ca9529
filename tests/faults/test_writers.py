"""Two writers on one lake: at the same time, one killed, one stopped for longer than its lease."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from fixtures.faults import SCALE, Account, healing
from fixtures.writer_process import Writers

from finance_assets.advisory.generating import vendor_files
from finance_assets.advisory.intake import SAMPLE_LAST_MONTH, SAMPLE_SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 * SCALE)]

PLACES = ("file", "version", "write", "commit")


def land(folder: Path) -> None:
    import os

    folder.mkdir(parents=True)
    for number, file in enumerate(vendor_files(SAMPLE_SEED, 2, 3, SAMPLE_LAST_MONTH)):
        path = folder / file.name
        path.write_bytes(file.data)
        os.utime(path, (1_360_000_000 + number,) * 2)


def settings(folder: Path, home: str, **more: object) -> dict[str, object]:
    """A deployment of its own, home and ledger, over the common lake and landing zone."""
    return {
        "home": str(folder / home), "lake_uri": str(folder / "lake"), "landing_uri": str(folder / "landing"),
        "market_start": "2013-02-19", **more,
    }  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "lake").glob("*/*/*.parquet"))
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone")
    land(folder / "landing")
    from finance_assets.registry import build_definitions
    from finance_assets.settings import Settings

    made = build_definitions(Settings(**settings(folder, "home")))  # type: ignore[arg-type]
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        done = made.resolve_job_def("advisory_performance").execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
    assert done.success
    return files(folder)


@pytest.mark.parametrize("seed", range(2 * SCALE))
def test_at_the_same_time(
    seed: int, writers: Writers, tmp_path: Path, alone: dict[str, bytes], account: Account
) -> None:
    chance = random.Random(seed)
    land(tmp_path / "landing")
    with account.of("two writers at the same time") as injected:
        both = [
            writers.start(
                "advisory",
                settings=settings(tmp_path, f"home{number}"),
                pauses={place: [chance.choice((0, 0, 0.02, 0.1)) for _ in range(12)] for place in PLACES},
                unlocked=bool(seed % 2),
            )
            for number in range(2)
        ]
        injected.faults += 1
        assert [writer.end() for writer in both] == [0, 0], [writer.errors for writer in both]
        assert files(tmp_path) == alone
        injected.survived += 1
        injected.rows += len(alone)


@pytest.mark.parametrize("seed", range(2 * SCALE))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_of_them_is_gone(
    number: signal.Signals, seed: int, writers: Writers, tmp_path: Path, alone: dict[str, bytes], account: Account
) -> None:
    chance = random.Random(seed)
    land(tmp_path / "landing")
    with account.of(f"two writers, one of them {'killed' if number is signal.SIGKILL else 'stopped'}") as injected:
        place = chance.choice(PLACES)
        first = writers.start(
            "advisory",
            settings=settings(tmp_path, "home0", writer_lease_seconds=1),
            hold=[place],
            skip=chance.randint(0, 3),
        )
        first.wait_at(place)
        first.send(number)
        injected.faults += 1
        with healing(injected):
            second = writers.start("advisory", settings=settings(tmp_path, "home1", writer_lease_seconds=1))
            assert second.end() == 0, second.errors
        if number is signal.SIGSTOP:
            first.let_go()
            first.send(signal.SIGCONT)
            assert first.end() == 1
            assert "WriterLostError" in first.errors
        assert files(tmp_path) == alone
        injected.survived += 1
        injected.rows += len(alone)
