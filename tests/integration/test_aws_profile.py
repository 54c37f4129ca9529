"""The profile `aws` against an AWS endpoint on loopback: the same platform, the same bytes.

Both profiles run once, side by side, in processes of their own; the tests then look at what they left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fixtures.aws import CREDENTIALS, REGION, client

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.model import Store
from finance_assets.resources import build_lake, build_warehouse
from finance_assets.settings import Settings
from finance_assets.storage.lake import LOCKS_FOLDER

pytestmark = [pytest.mark.cloud, pytest.mark.slow, pytest.mark.timeout(1200)]

#: Twenty sessions, with dividends of AAPL, IBM and MSFT among them.
START = "2013-02-01"
SESSIONS = 20
SECONDS = 1000
RUN = """
import json, sys
from dataclasses import asdict
from rich.console import Console
from finance_assets.runs.execute import run_assets
from finance_assets.settings import Settings
outcome = run_assets(Settings.from_env(), console=Console(stderr=True))
with open(sys.argv[1], "w") as file:
    json.dump({name: getattr(outcome, name) for name in ("success", "rows", "partitions", "checks", "failures")}, file)
"""


@dataclass(frozen=True)
class Deployment:
    """A profile that has run: how it was set up, where, and what it said."""

    environment: Mapping[str, str]
    home: Path
    outcome: Mapping[str, Any]
    bucket: str = ""

    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Settings:
        """Return its settings, with its environment in this process."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return Settings.from_env()


@pytest.fixture(scope="module")
def deployments(aws_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deployment]:
    """Every asset of both profiles, made at the same time."""
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    with client("s3", aws_endpoint) as s3:
        s3.create_bucket(Bucket=bucket)
    folder = tmp_path_factory.mktemp("profiles")
    environments = {
        "local": {"FINANCE_ASSETS_PROFILE": "local"},
        "aws": {
            "FINANCE_ASSETS_PROFILE": "aws",
            "FINANCE_ASSETS_LAKE_URI": f"s3://{bucket}/finance/lake",
            "FINANCE_ASSETS_S3_ENDPOINT_URL": aws_endpoint,
            "FINANCE_ASSETS_LEDGER_URL": f"sqlite:///{folder}/aws/ledger.sqlite",
            **CREDENTIALS,
        },
    }
    foreign = ("FINANCE_ASSETS_", "DAGSTER_", "AWS_", "DBT_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    started = {}
    for profile, environment in environments.items():
        home = folder / profile
        (home / "person").mkdir(parents=True)
        # HOME: whatever a person has installed or configured there must not be what makes it work.
        own = {"FINANCE_ASSETS_HOME": str(home), "FINANCE_ASSETS_MARKET_START": START, "HOME": str(home / "person")}
        environments[profile] = {**environment, **own}
        started[profile] = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RUN, str(home / "outcome.json")],
            env={**clean, **environments[profile]},
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    made = {}
    try:
        for profile, process in started.items():
            printed, _ = process.communicate(timeout=SECONDS)
            home = folder / profile
            assert process.returncode == 0, f"profile {profile}:\n{printed}"
            outcome = json.loads((home / "outcome.json").read_text())
            made[profile] = Deployment(environments[profile], home, outcome, bucket if profile == "aws" else "")
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
    return made


@pytest.fixture
def on_aws(deployments: dict[str, Deployment]) -> Deployment:
    return deployments["aws"]


def objects(aws_endpoint: str, bucket: str) -> dict[str, bytes]:
    """Return every object of the bucket by its key below the lake's prefix."""
    with client("s3", aws_endpoint) as s3:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key.removeprefix("finance/lake/"): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@pytest.mark.parametrize("profile", ["local", "aws"])
def test_every_asset_is_made_and_every_check_passes(profile: str, deployments: dict[str, Deployment]) -> None:
    outcome = deployments[profile].outcome
    assert outcome["failures"] == []
    assert [check for check in outcome["checks"] if not check[2]] == []
    assert outcome["success"]
    assert set(outcome["rows"]) == set(CONTRACTS)
    assert {path: count for path, count in outcome["partitions"].items() if count != SESSIONS} == {}
    assert len(outcome["checks"]) >= len(CONTRACTS)


def test_both_profiles_say_the_same(deployments: dict[str, Deployment]) -> None:
    local, on_aws = (deployments[profile].outcome for profile in ("local", "aws"))
    assert on_aws["rows"] == local["rows"]
    assert on_aws["checks"] == local["checks"]


def test_every_file_of_the_lake_has_the_same_bytes(aws: str, deployments: dict[str, Deployment]) -> None:
    lake = deployments["local"].home / "lake"
    local = {str(path.relative_to(lake)): path.read_bytes() for path in lake.rglob("*") if path.is_file()}
    stored = objects(aws, deployments["aws"].bucket)
    # Who wrote what is kept in another way on S3, and is no data.
    local, stored = (
        {name: data for name, data in files.items() if not name.startswith(f"{LOCKS_FOLDER}/")}
        for files in (local, stored)
    )

    assert sorted(stored) == sorted(local)
    assert [name for name in local if stored[name] != local[name]] == []
    # What was compared is all of it: every table of the lake, the documents, and the landed pages.
    folders = {name.rsplit("/", 1)[0] for name in local}
    in_lake = {contract.path for contract in CONTRACTS.values() if contract.store is not Store.WAREHOUSE}
    assert in_lake - folders <= {contract.path for contract in CONTRACTS.values() if contract.may_be_empty}
    assert {"landing/market/sample", "published/ticker_documents"} <= folders
    assert sum(name.startswith("core/ticker_kpis/") for name in local) == SESSIONS
    assert sum(name.endswith(".json") for name in local) > 20


def test_nothing_of_the_lake_lies_on_the_local_disk(on_aws: Deployment) -> None:
    assert not (on_aws.home / "lake").exists()
    assert list(on_aws.home.rglob("*.parquet")) == []


def test_the_secret_key_is_in_no_file(on_aws: Deployment) -> None:
    secret = CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode()
    holding = [path for path in on_aws.home.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert holding == []


def test_the_lake_reads_back_what_the_run_counted(
    aws: str, on_aws: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = on_aws.settings(monkeypatch)
    lake = build_lake(settings)
    for contract in CONTRACTS.values():
        if contract.store is Store.LAKE:
            assert lake.read(contract).table.num_rows == sum(lake.row_counts(contract).values())
            assert sum(lake.row_counts(contract).values()) == on_aws.outcome["rows"][contract.path], contract.path


def test_duckdb_reads_the_lake_on_s3_with_the_extension_from_its_wheel(
    aws: str, on_aws: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = on_aws.settings(monkeypatch)
    with build_warehouse(settings).connect(read_only=True) as connection:
        httpfs = connection.execute(
            "select installed, loaded from duckdb_extensions() where extension_name = 'httpfs'"
        ).fetchall()
        views = connection.execute(
            "select schema_name || '/' || view_name, sql from duckdb_views() where not internal"
        ).fetchall()
        counted = {
            contract.path: connection.execute(f'select count(*) from "{contract.layer}"."{contract.name}"').fetchall()[
                0
            ][0]
            for contract in CONTRACTS.values()
            if contract.store is Store.LAKE and contract.path in dict(views)
        }
        close = connection.execute(
            "select close from core.quotes where symbol = 'AAPL' and session_date = date '2013-03-01'"
        ).fetchall()
    assert httpfs == [(False, True)], "loaded as a file out of the wheel, never installed"
    assert not (on_aws.home / "person" / ".duckdb").exists(), "nothing was downloaded into the home of the person"
    on_s3 = [name for name, sql in views if f"s3://{on_aws.bucket}/finance/lake/{name}/" in sql]
    assert {"raw/quotes", "core/quotes", "core/ticker_kpis", "core/corporate_actions"} <= set(on_s3)
    for name in on_s3:
        assert counted[name] == on_aws.outcome["rows"][name]
    assert [str(price) for (price,) in close] == ["430.47000000"]


# -- Secrets Manager -----------------------------------------------------------------------------------------


@pytest.fixture
def aws_settings(aws: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What profile aws needs; boto3 finds the endpoint in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    return {
        "profile": "aws",
        "lake_uri": f"s3://{bucket}/lake",
        "ledger_url": f"sqlite:///{tmp_path}/ledger.sqlite",
        "aws_region": REGION,
    }


def keep_secret(endpoint: str, held: str) -> str:
    name = f"finance-assets/{uuid.uuid4().hex[:8]}"
    with client("secretsmanager", endpoint) as manager:
        manager.create_secret(Name=name, SecretString=held)
    return name


def test_a_secret_comes_from_secrets_manager(aws: str, aws_settings: dict[str, Any]) -> None:
    name = keep_secret(aws, json.dumps({"alpha_vantage_api_key": "from-the-manager"}))
    settings = Settings(**aws_settings, secrets_manager_id=name)
    assert settings.secret("alpha_vantage_api_key") == "from-the-manager"
    assert settings.secret("alert_webhook_url") is None
    assert "from-the-manager" not in repr(settings)


def test_a_secret_in_the_environment_comes_first(
    aws: str, aws_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = keep_secret(aws, json.dumps({"alpha_vantage_api_key": "from-the-manager"}))
    monkeypatch.setenv("FINANCE_ASSETS_ALPHA_VANTAGE_API_KEY", "from-the-shell")
    settings = Settings(**aws_settings, secrets_manager_id=name)
    assert settings.secret("alpha_vantage_api_key") == "from-the-shell"
    assert "from-the-shell" not in repr(settings)


def test_a_secret_that_is_not_there_is_an_error(aws: str, aws_settings: dict[str, Any]) -> None:
    settings = Settings(**aws_settings, secrets_manager_id="finance-assets/none")
    with pytest.raises(ClientError, match="ResourceNotFound"):
        settings.secret("alpha_vantage_api_key")
