"""Files of vendors that land in a bucket of an AWS endpoint on loopback."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from fixtures.aws import CREDENTIALS, client

from finance_assets.contracts.advisory import VENDOR_FILES, VENDOR_ROWS
from finance_assets.registry import intake_of
from finance_assets.settings import Settings
from finance_assets.storage.lake import LakeError, S3Options
from finance_assets.storage.landing import Landing

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
    intake = intake_of(settings)
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


def test_a_bucket_that_is_not_there_is_an_error(settings: Settings, aws_endpoint: str) -> None:
    landing = Landing("s3://no-such-bucket-at-all/x", S3Options(settings.aws_region, aws_endpoint))
    with pytest.raises(LakeError, match="cannot be listed"):
        landing.listing()
    with pytest.raises(LakeError, match=r"a\.csv in .* cannot be read"):
        landing.read("a.csv")
