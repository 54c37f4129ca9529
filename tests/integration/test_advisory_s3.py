"""Files of vendors that land in a bucket of an AWS endpoint on loopback."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fixtures.aws import CREDENTIALS, client

from finance_assets.advisory.intake import MODIFIED_IN_FUTURE
from finance_assets.advisory.resources import build_intake
from finance_assets.contracts.advisory import QUARANTINED_FILES, VENDOR_FILES, VENDOR_ROWS
from finance_assets.settings import Settings
from finance_assets.storage.lake import LakeError, S3Options
from finance_assets.storage.landing import Landing
from finance_assets.storage.ledger import FileStatus

pytestmark = [pytest.mark.cloud]

FILE = b"""account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return
A1,2012-12-31,USD,1000.00,0.00,0.00,1010.00,0.01
A1,2013-01-31,USD,1010.00,0.00,0.00,1020.10,0.01
"""


@pytest.fixture
def settings(aws_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = f"advisory-{uuid.uuid4().hex[:12]}"
    with client("s3", aws_endpoint) as s3:
        s3.create_bucket(Bucket=bucket)
    return Settings(
        profile="aws",
        home=tmp_path,
        lake_uri=f"s3://{bucket}/lake",
        ledger_url=f"sqlite:///{tmp_path}/ledger.sqlite",
        s3_endpoint_url=aws_endpoint,
    )


def test_an_object_is_read_once_and_a_changed_one_again(settings: Settings, aws_endpoint: str) -> None:
    bucket = settings.lake_uri.removeprefix("s3://").split("/")[0]
    intake = build_intake(settings)
    assert intake.landing.uri == f"s3://{bucket}/lake/incoming"
    with client("s3", aws_endpoint) as s3:
        for key, body in (("a.csv", FILE), ("deep/b.part", FILE), ("deep/", b"")):
            s3.put_object(Bucket=bucket, Key=f"lake/incoming/{key}", Body=body)
        (file,) = intake.pending()
        assert (file.identity.key, file.identity.size) == ("a.csv", len(FILE))
        assert file.identity.fingerprint.startswith("etag:")
        (taken,) = intake.take([file])
        assert (taken.action, taken.rows) == ("accept", 2)
        assert intake.pending() == []
        s3.put_object(Bucket=bucket, Key="lake/incoming/a.csv", Body=FILE.replace(b"1020.10", b"1020.11"))
    (changed,) = intake.pending()
    intake.take([changed])
    assert intake.lake.read(VENDOR_FILES).table.num_rows == 2
    assert intake.lake.read(VENDOR_ROWS).table.num_rows == 4
    intake.ledger.close()


ODD_KEYS = (
    "/leading.csv", "a//b.csv", "back\\slash.csv", "new\nline.csv", "escape\x1b[31m.csv", "right\u202eleft.csv", "é.csv",
    "plus+space %20&?#.csv", "UPPER.csv", "upper.csv", "k" * (1024 - len("lake/incoming/")), "<xml>&amp;.csv",
)  # fmt: skip


def test_every_key_is_judged_by_itself(settings: Settings, aws_endpoint: str) -> None:
    intake = build_intake(settings)
    bucket = settings.lake_uri.removeprefix("s3://").split("/")[0]
    with client("s3", aws_endpoint) as s3:
        for number, key in enumerate(ODD_KEYS):
            body = FILE.replace(b"A1", b"N%d" % number)
            s3.put_object(Bucket=bucket, Key=f"lake/incoming/{key}", Body=body)
        for key, body in (("a/../b.csv", FILE), ("../b.csv", FILE), ("marker/", FILE), ("empty marker/", b"")):
            s3.put_object(Bucket=bucket, Key=f"lake/incoming/{key}", Body=body)
    taken = {one.key: one.action for one in intake.take(intake.pending())}
    assert taken == dict.fromkeys(ODD_KEYS, "accept")
    reasons = {row["landing_key"]: row["reason"] for row in intake.lake.read(QUARANTINED_FILES).table.to_pylist()}
    assert {key: reason.partition(":")[0] for key, reason in reasons.items()} == {
        "a/../b.csv": "relative_key", "../b.csv": "relative_key", "marker/": "folder_with_bytes"
    }  # fmt: skip
    assert (intake.pending(), intake.is_noted()) == ([], True)
    intake.ledger.close()


class Refusing:
    """A client of S3 that refuses some objects."""

    def __init__(self, real: Any, refusals: dict[str, tuple[str, int]]) -> None:
        self.real, self.refusals = real, refusals

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_object(self, **asked: Any) -> Any:
        if (refusal := self.refusals.get(asked["Key"].rpartition("/")[2])) is not None:
            code, status = refusal
            raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]
        return self.real.get_object(**asked)


def test_an_object_that_cannot_be_had_holds_up_no_other(settings: Settings, aws_endpoint: str) -> None:
    intake = build_intake(settings)
    bucket = settings.lake_uri.removeprefix("s3://").split("/")[0]
    names = ["archived", "denied", "gone", "good", "overwritten", "broken"]
    with client("s3", aws_endpoint) as s3:
        for name in names:
            s3.put_object(Bucket=bucket, Key=f"lake/incoming/{name}", Body=FILE.replace(b"A1", name.encode()))
        pending = intake.pending()
        assert len(pending) == 6
        s3.delete_object(Bucket=bucket, Key="lake/incoming/gone")
        s3.put_object(Bucket=bucket, Key="lake/incoming/overwritten", Body=FILE)
        refusals = {
            "archived": ("InvalidObjectState", 403), "denied": ("AccessDenied", 403), "broken": ("InternalError", 500)
        }  # fmt: skip
        refusing = Refusing(intake.landing._client(), refusals)
        intake.landing._clients[:] = [refusing]
        taken = {one.key: one for one in intake.take(pending)}
        assert {key: one.action for key, one in taken.items()} == {
            "archived": "failed", "denied": "failed", "gone": "failed", "good": "accept", "overwritten": "changed",
            "broken": "failed",
        }  # fmt: skip
        assert "is archived" in str(taken["archived"].reason)
        assert {one.attempts for one in intake.ledger.files(FileStatus.FAILED)} == {0}
        noted = {row["landing_key"] for row in intake.lake.read(QUARANTINED_FILES).table.to_pylist()}
        assert noted == {"archived", "denied", "broken"}
        refusals.clear()
        assert {one.key: one.action for one in intake.take(intake.pending())} == dict.fromkeys(
            ["archived", "denied", "overwritten", "broken"], "accept"
        )
        assert intake.lake.read(QUARANTINED_FILES).table.num_rows == 0
    intake.ledger.close()


def test_a_service_that_is_down_is_not_asked_for_every_object(settings: Settings, aws_endpoint: str) -> None:
    intake = build_intake(settings)
    bucket = settings.lake_uri.removeprefix("s3://").split("/")[0]
    with client("s3", aws_endpoint) as s3:
        for number in range(8):
            s3.put_object(Bucket=bucket, Key=f"lake/incoming/{number}", Body=FILE.replace(b"A1", b"N%d" % number))
    pending = intake.pending()
    refusals = {str(number): ("SlowDown", 503) for number in range(8)}
    intake.landing._clients[:] = [Refusing(intake.landing._client(), refusals)]
    assert [one.action for one in intake.take(pending)] == ["failed"] * 2
    refusals.clear()
    assert [one.action for one in intake.take(intake.pending())] == ["accept"] * 8
    intake.ledger.close()


def test_an_object_of_the_future_is_read_now(settings: Settings, aws_endpoint: str) -> None:
    intake = build_intake(settings)
    bucket = settings.lake_uri.removeprefix("s3://").split("/")[0]
    with client("s3", aws_endpoint) as s3:
        s3.put_object(Bucket=bucket, Key="lake/incoming/a.csv", Body=FILE)
    now = datetime.now(UTC) - timedelta(days=3)
    intake.clock = lambda: now
    assert [one.action for one in intake.take(intake.pending())] == ["accept_with_warnings"]
    (line,) = intake.lake.read(VENDOR_FILES).table.to_pylist()
    assert (line["warnings"], line["received_ts_utc"]) == (MODIFIED_IN_FUTURE, now)
    intake.ledger.close()


def test_a_bucket_that_is_not_there_is_an_error(settings: Settings, aws_endpoint: str) -> None:
    landing = Landing("s3://no-such-bucket-at-all/x", S3Options(settings.aws_region, aws_endpoint))
    with pytest.raises(LakeError, match="cannot be listed"):
        landing.listing()
    with pytest.raises(LakeError, match=r"a\.csv in .* cannot be read"):
        landing.read("a.csv")
