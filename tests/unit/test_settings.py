"""Settings are complete for their profile or refused by the name of a variable, and no secret is ever shown."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures.paths import NASTY_FOLDERS
from pydantic import ValidationError

from finance_assets.reference.sample_period import SAMPLE_END, SAMPLE_NOW, SAMPLE_START
from finance_assets.settings import DEFAULT_LIVE_START, SECRETS, Settings, SettingsError, midnight_utc

SECRET = "s3cr3t-of-nobody"
LEDGER = f"postgresql+psycopg://ledger:{SECRET}@db.example/ledger"
AWS = {"PROFILE": "aws", "LAKE_URI": "s3://bucket/prefix", "LEDGER_URL": LEDGER}

Environment = Callable[..., Settings]


@pytest.fixture
def from_env(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Read settings from nothing but the given variables, named without their prefix."""

    def read(**variables: str) -> Settings:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("FINANCE_ASSETS_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(f"FINANCE_ASSETS_{name}", value)
            return Settings.from_env()

    return read


# -- profiles ------------------------------------------------------------------------------------------------


def test_a_laptop_needs_no_variable(from_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = from_env()
    assert settings.profile == "local"
    assert settings.lake == str(tmp_path / ".finance_assets" / "lake")
    assert settings.warehouse_file == tmp_path / ".finance_assets" / "warehouse.duckdb"
    assert settings.ledger == f"sqlite:///{tmp_path}/.finance_assets/ledger.sqlite"
    assert settings.uses_sample
    assert not (tmp_path / ".finance_assets").exists(), "nothing is made by reading settings"


def test_no_folder_moves_with_the_working_directory(
    from_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = from_env(LAKE_URI="some/lake", HOME="own", WAREHOUSE_PATH="w.duckdb")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert settings.lake == str(tmp_path / "some" / "lake")
    assert settings.home_dir == tmp_path / "own"
    assert settings.warehouse_file == tmp_path / "w.duckdb"


def test_the_cloud_is_described_by_its_variables(from_env: Environment) -> None:
    settings = from_env(**AWS | {"LAKE_URI": "s3://bucket/prefix/"}, AWS_REGION="eu-central-1")
    assert (settings.profile, settings.lake, settings.ledger) == ("aws", "s3://bucket/prefix", LEDGER)
    assert settings.aws_region == "eu-central-1"


def test_what_arrives_now_is_not_of_the_sample_s_time(from_env: Environment) -> None:
    sample = from_env()
    assert sample.clock() == SAMPLE_NOW
    assert abs(sample.arrival_clock() - datetime.now(UTC)) < timedelta(seconds=5)
    assert from_env(NOW="2025-02-01T00:00:00Z").arrival_clock() == datetime(2025, 2, 1, tzinfo=UTC)


def test_a_variable_that_is_there_and_empty_counts_as_not_there(from_env: Environment) -> None:
    optional = {
        "LEDGER_URL",
        "WAREHOUSE_PATH",
        "LAKE_URI",
        "MARKET_START",
        "NOW",
        "SYMBOLS",
        "ALPHA_VANTAGE_API_KEY",
        "YAHOO_URL",
        "TRANSACTIONS_QUEUE_URL",
        "TRANSACTIONS_DLQ_URL",
        "S3_ENDPOINT_URL",
        "SECRETS_MANAGER_ID",
        "ALERT_WEBHOOK_URL",
    }
    empty = from_env(**dict.fromkeys(optional, " "))
    assert empty == from_env()
    assert empty.secret("alpha_vantage_api_key") is None


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"PROFILE": "prod"}, "FINANCE_ASSETS_PROFILE: Input should be 'local' or 'aws'"),
        ({"PROFILE": "aws"}, "FINANCE_ASSETS_LAKE_URI=s3://bucket/prefix"),
        (AWS | {"LAKE_URI": "/some/folder"}, "FINANCE_ASSETS_LAKE_URI=s3://bucket/prefix"),
        (AWS | {"LEDGER_URL": ""}, "FINANCE_ASSETS_LEDGER_URL"),
        ({"LAKE_URI": "s3://bucket"}, "FINANCE_ASSETS_LAKE_URI is on S3: set FINANCE_ASSETS_PROFILE=aws"),
        ({"LAKE_URI": "s3:///"}, "FINANCE_ASSETS_LAKE_URI: s3:// without a bucket"),
        ({"LAKE_URI": "gs://bucket"}, "FINANCE_ASSETS_LAKE_URI: is neither a folder nor s3://bucket/prefix"),
        ({"HOME": " "}, "FINANCE_ASSETS_HOME: name a folder"),
        ({"HOME": "/a?b"}, "FINANCE_ASSETS_HOME: the path '/a?b' has '?', and SQLite"),
        ({"HOME": "/a#b"}, "FINANCE_ASSETS_WAREHOUSE_PATH (or HOME): the path '/a#b/warehouse.duckdb' has '#'"),
        ({"WAREHOUSE_PATH": "/a?.duckdb"}, "FINANCE_ASSETS_WAREHOUSE_PATH (or HOME): the path '/a?.duckdb' has '?'"),
        ({"HOME": "/a\\[b]"}, "FINANCE_ASSETS_LAKE_URI (or HOME): the path '/a\\\\[b]/lake' has a backslash beside"),
        (AWS | {"LAKE_URI": "s3://bucket/a*b"}, "FINANCE_ASSETS_LAKE_URI: the prefix has '*', which tools for S3"),
        (AWS | {"LANDING_URI": "s3://bucket/a%20b\n"}, "FINANCE_ASSETS_LANDING_URI: the prefix has '\\n' '%', which"),
        ({"TRANSACTIONS_QUEUE_URL": "transactions"}, "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL: is no address of an SQS"),
        ({"TRANSACTIONS_DLQ_URL": "arn:aws:sqs:x"}, "FINANCE_ASSETS_TRANSACTIONS_DLQ_URL: is no address of an SQS"),
        ({"TRANSACTIONS_TABLE": "no table!"}, "FINANCE_ASSETS_TRANSACTIONS_TABLE: "),
        ({"TRANSACTIONS_MICRO_BATCH_MESSAGES": "0"}, "FINANCE_ASSETS_TRANSACTIONS_MICRO_BATCH_MESSAGES: "),
        ({"WAREHOUSE_BACKEND": "oracle"}, "FINANCE_ASSETS_WAREHOUSE_BACKEND: Input should be 'duckdb'"),
        ({"CALENDAR": "XLON"}, "FINANCE_ASSETS_CALENDAR: Input should be 'XNYS'"),
        ({"MARKET_PROVIDERS": ""}, "FINANCE_ASSETS_MARKET_PROVIDERS is empty"),
        ({"MARKET_PROVIDERS": "yahu"}, "FINANCE_ASSETS_MARKET_PROVIDERS: Input should be 'sample'"),
        ({"MARKET_PROVIDERS": "yahoo,sample"}, "FINANCE_ASSETS_MARKET_PROVIDERS: 'sample' stands alone"),
        ({"MARKET_PROVIDERS": "alpha_vantage"}, "FINANCE_ASSETS_ALPHA_VANTAGE_API_KEY, or FINANCE_ASSETS_SECRETS"),
        ({"MARKET_START": "2013-03-02"}, "FINANCE_ASSETS_MARKET_START=2013-03-02 is in the future"),
        ({"MARKET_START": "yesterday"}, "FINANCE_ASSETS_MARKET_START: Input should be a valid date"),
        ({"NOW": "2013-01-02T12:00:00"}, "FINANCE_ASSETS_NOW: Input should have timezone info"),
        ({"HEAL_SESSIONS": "-1"}, "FINANCE_ASSETS_HEAL_SESSIONS: Input should be greater than or equal to 0"),
        ({"ALPHA_VANTAGE_DAILY_LIMIT": "0"}, "FINANCE_ASSETS_ALPHA_VANTAGE_DAILY_LIMIT"),
        ({"PROVIDER_TIMEOUT_SECONDS": "0"}, "FINANCE_ASSETS_PROVIDER_TIMEOUT_SECONDS"),
        ({"PROVIDER_ATTEMPTS": "11"}, "FINANCE_ASSETS_PROVIDER_ATTEMPTS"),
    ],
)
def test_a_wrong_setting_is_refused_by_the_name_of_its_variable(
    from_env: Environment, variables: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        from_env(**variables)
    assert complaint in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_folder_for_temporary_files_that_duckdb_cannot_use_is_refused(
    from_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/wh?t")
    with pytest.raises(SettingsError, match=r"TMPDIR: the path '/tmp/wh\?t' has '\?'.*name another folder"):
        from_env()


@pytest.mark.parametrize("name", NASTY_FOLDERS)
def test_other_folders_may_have_any_name(from_env: Environment, name: str) -> None:
    read = from_env(HOME=f"/x/{name}", WAREHOUSE_PATH="/x/w.duckdb", LANDING_URI=f"/y/{name}")
    assert (str(read.home_dir), read.lake, read.landing) == (f"/x/{name}", f"/x/{name}/lake", f"/y/{name}")


def test_several_wrong_settings_are_all_told(from_env: Environment) -> None:
    with pytest.raises(SettingsError) as caught:
        from_env(PROFILE="prod", HEAL_SESSIONS="many")
    assert "FINANCE_ASSETS_PROFILE" in str(caught.value)
    assert "; FINANCE_ASSETS_HEAL_SESSIONS" in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().profile = "aws"  # type: ignore[misc]


# -- providers and the clock ---------------------------------------------------------------------------------


def test_lists_are_separated_by_commas(from_env: Environment) -> None:
    settings = from_env(
        MARKET_PROVIDERS=" yahoo, alpha_vantage ,yahoo", SYMBOLS="AAPL, ^GSPC,", ALPHA_VANTAGE_API_KEY="k"
    )
    assert settings.market_providers == ("yahoo", "alpha_vantage")
    assert settings.symbols == ("AAPL", "^GSPC")


def test_the_sample_stands_still_at_its_last_session(from_env: Environment) -> None:
    settings = from_env()
    assert settings.clock() == SAMPLE_NOW == settings.clock()
    assert (settings.start, settings.last_day) == (SAMPLE_START, SAMPLE_END)
    assert SAMPLE_NOW.tzinfo is UTC


def test_live_settings_have_the_running_clock(from_env: Environment) -> None:
    settings = from_env(MARKET_PROVIDERS="yahoo")
    before = datetime.now(UTC)
    assert before <= settings.clock() <= before + timedelta(seconds=30)
    assert settings.clock().tzinfo is UTC
    assert (settings.start, settings.last_day, settings.fixed_now) == (DEFAULT_LIVE_START, None, None)


def test_a_fixed_clock_is_in_utc_and_its_last_day_is_the_exchanges(from_env: Environment) -> None:
    settings = from_env(MARKET_PROVIDERS="yahoo", NOW="2020-03-03T01:30:00+01:00")
    assert settings.clock() == datetime(2020, 3, 3, 0, 30, tzinfo=UTC)
    assert settings.clock().tzinfo is UTC
    assert settings.last_day == date(2020, 3, 2), "it is still Monday evening in New York"


def test_midnight_is_the_first_instant_of_a_day() -> None:
    assert midnight_utc(date(2013, 3, 1)) == datetime(2013, 3, 1, tzinfo=UTC)


# -- secrets -------------------------------------------------------------------------------------------------


def test_no_secret_is_shown_in_any_form(from_env: Environment) -> None:
    settings = from_env(
        **AWS,
        ALPHA_VANTAGE_API_KEY=SECRET,
        ALERT_WEBHOOK_URL=f"https://hooks.example/{SECRET}",
        FRED_API_KEY=SECRET,
        ALERT_SMTP_PASSWORD=SECRET,
        PUBLISH_URL=f"postgresql://user:{SECRET}@host/db",
    )
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]
    shown += [f"{settings.ledger_url}", repr(settings.alpha_vantage_api_key)]
    assert all(SECRET not in text for text in shown)
    assert settings.secret("alpha_vantage_api_key") == SECRET
    assert SECRET in settings.ledger
    assert set(SECRETS) == {
        "ledger_url",
        "alpha_vantage_api_key",
        "alert_smtp_password",
        "alert_webhook_url",
        "fred_api_key",
        "publish_url",
    }


def test_what_is_no_secret_cannot_be_asked_for_as_one() -> None:
    for name in ("profile", "model_fields", "nothing"):
        with pytest.raises(SettingsError, match=f"'{name}' is no secret; secrets are ledger_url"):
            Settings().secret(name)


class FakeManager:
    """Stands for boto3: gives one answer, and remembers what it was asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def client(self, service: str, **options: Any) -> FakeManager:
        self.asked.append((service, options))
        return self

    def get_secret_value(self, **options: Any) -> dict[str, Any]:
        self.asked.append(options)
        return self.answer


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], FakeManager]:
    def install(answer: dict[str, Any]) -> FakeManager:
        fake = FakeManager(answer)
        monkeypatch.setattr("boto3.client", fake.client)
        return fake

    return install


def test_a_secret_that_is_not_in_the_environment_comes_from_the_manager(
    from_env: Environment, manager: Callable[[dict[str, Any]], FakeManager]
) -> None:
    fake = manager({"SecretString": json.dumps({"alpha_vantage_api_key": SECRET, "alert_webhook_url": None})})
    settings = from_env(
        MARKET_PROVIDERS="alpha_vantage", SECRETS_MANAGER_ID="finance-assets/prod", AWS_REGION="eu-west-1"
    )
    assert fake.asked == [], "nothing is asked before it is needed"
    assert settings.secret("alpha_vantage_api_key") == SECRET
    assert fake.asked == [("secretsmanager", {"region_name": "eu-west-1"}), {"SecretId": "finance-assets/prod"}]
    assert settings.secret("alert_webhook_url") is None
    assert settings.secret("ledger_url") is None


def test_the_environment_comes_first_and_the_manager_is_not_asked(
    from_env: Environment, manager: Callable[[dict[str, Any]], FakeManager]
) -> None:
    fake = manager({"SecretString": "{}"})
    settings = from_env(ALPHA_VANTAGE_API_KEY=SECRET, SECRETS_MANAGER_ID="some/id")
    assert settings.secret("alpha_vantage_api_key") == SECRET
    assert fake.asked == []


@pytest.mark.parametrize("answer", [{"SecretString": SECRET}, {"SecretString": f'["{SECRET}"]'}, {"SecretBinary": b""}])
def test_a_secret_in_another_shape_is_refused_without_showing_it(
    from_env: Environment, manager: Callable[[dict[str, Any]], FakeManager], answer: dict[str, Any]
) -> None:
    manager(answer)
    settings = from_env(SECRETS_MANAGER_ID="some/id")
    with pytest.raises(
        SettingsError, match=r"'some/id' \(FINANCE_ASSETS_SECRETS_MANAGER_ID\) is no JSON object"
    ) as caught:
        settings.secret("alpha_vantage_api_key")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
