"""Typed settings: one place, read from the environment, complete for each profile.

What belongs here: what differs between a laptop and the cloud, or between two users. Nothing here opens a file, a
socket or a secret store at import; secrets are fetched when they are used, and never printed.

Every variable is prefixed ``FINANCE_ASSETS_``. A profile without a value it needs, and a value that means nothing,
are refused with a message that names the variable; there is no silent fallback from one profile to another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSettingsError

from finance_assets.reference.exchange import EXCHANGE_ZONE
from finance_assets.reference.sample_period import SAMPLE_END, SAMPLE_NOW, SAMPLE_START
from finance_assets.text import hide_url_secrets

Clock = Callable[[], datetime]
Profile = Literal["local", "aws"]
MacroSource = Literal["sample", "fred"]
ProviderName = Literal["sample", "alpha_vantage", "yahoo"]

DEFAULT_LIVE_START = date(2016, 1, 4)

PREFIX = "FINANCE_ASSETS_"
#: DuckDB and clients of S3 read patterns, options and escapes into these.
_STRANGE_ON_S3 = frozenset("\\*?[]{}#%")
#: Secrets Manager has so long to answer, with credentials and repetitions, and answers at most 64 kB of secret.
SECRET_SECONDS = 8.0
SECRET_MAX_BYTES = 1024 * 1024


class SettingsError(UnreadableSettingsError):
    """The settings contradict each other or lack a value; the message names the variable."""


class Settings(BaseSettings):
    """All settings of one deployment.

    Attributes
    ----------
    profile
        ``local``: folder and DuckDB file. ``aws``: S3 lake.
    home
        Folder for everything that is written locally: lake, warehouse, ledger, scratch.
    lake_uri
        Where the lake is: a folder or ``s3://bucket/prefix``. Local default: ``<home>/lake``.
    warehouse_path
        The DuckDB file. Default: ``<home>/warehouse.duckdb``.
    ledger_url
        SQLAlchemy address of the ledger of files, quotas and the like. Local default: SQLite in ``<home>``.
    market_providers
        Quote providers in order of preference, separated by commas. ``sample`` stands alone.
    symbols
        Tickers to fetch, separated by commas. Empty: every instrument of the shipped universe.
    macro_provider
        ``sample`` or ``fred``. Unset: the sample with the sample's quotes, FRED where there is a key, else none.
    market_start
        First session of the daily partitions.
    risk_free_rate
        Effective annual rate, a fraction, that excess returns of the sectors are measured above.
    limit_var_99, limit_volatility_30, limit_drawdown
        Fractions. An alert is sent where a sector's 1-session loss at 99 %, its annualised volatility of 30 sessions,
        or its current drawdown is larger.
    acknowledged_jumps
        ``TICKER:YYYY-MM-DD``, separated by commas: price jumps that a person has found to be real.
    writer_wait_seconds
        How long a run waits for another process that writes the same tables of the lake.
    writer_lease_seconds
        After so long without a sign of life another process takes over from one that writes.
    now
        A fixed clock, ISO 8601 with zone. Default: the real time, and the sample's own with the sample.
    provider_timeout_seconds, provider_attempts, provider_deadline_seconds
        Time of one request, requests of one call at most, and time of the whole call with the waits between them.
    publish_timeout_seconds
        Time of one publication to PostgreSQL.
    alert_timeout_seconds
        Time of one alert at one place.
    transactions_queue_url, transactions_dlq_url
        SQS queues of transactions and of its dead letters. Without the first nothing is received.
    transactions_table
        DynamoDB table of the low-latency path.
    transactions_drain_max_messages
        Messages that one run takes off the queue at most.
    transactions_micro_batch_messages
        Messages of one file in ``raw/transactions``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    profile: Profile = "local"
    home: Path = Path(".finance_assets")
    lake_uri: str = ""
    warehouse_backend: Literal["duckdb"] = "duckdb"
    warehouse_path: Path | None = None
    writer_wait_seconds: float = Field(default=600.0, ge=0, le=86_400)
    writer_lease_seconds: float = Field(default=30.0, ge=1, le=3600)
    ledger_url: SecretStr | None = None

    # Other exchanges close at other hours in other zones, which the partitions would have to learn first.
    calendar: Literal["XNYS"] = "XNYS"
    market_providers: Annotated[tuple[ProviderName, ...], NoDecode] = ("sample",)
    symbols: Annotated[tuple[str, ...], NoDecode] = ()
    market_start: date | None = None
    now: AwareDatetime | None = None
    heal_sessions: int = Field(default=30, ge=0, le=2600)
    risk_free_rate: float = Field(default=0.0, gt=-1, lt=1)

    alpha_vantage_url: str = "https://www.alphavantage.co"
    alpha_vantage_api_key: SecretStr | None = None
    alpha_vantage_adjusted: bool = False
    alpha_vantage_daily_limit: int | None = Field(default=25, ge=1)
    yahoo_url: str | None = None
    macro_provider: MacroSource | None = None
    fred_url: str = "https://api.stlouisfed.org"
    fred_api_key: SecretStr | None = None
    provider_timeout_seconds: float = Field(default=20.0, gt=0)
    provider_attempts: int = Field(default=4, ge=1, le=10)
    provider_deadline_seconds: float = Field(default=120.0, gt=0)

    landing_uri: str = ""
    vendor_contracts: Path | None = None
    publish_url: SecretStr | None = None
    publish_timeout_seconds: float = Field(default=900.0, gt=0)

    transactions_queue_url: str | None = None
    transactions_dlq_url: str | None = None
    transactions_table: str = Field(default="RealTimeTransactions", pattern=r"^[A-Za-z0-9_.-]{3,255}$")
    transactions_drain_max_messages: int = Field(default=20_000, ge=1)
    transactions_micro_batch_messages: int = Field(default=500, ge=1, le=10_000)

    aws_region: str = "us-east-1"
    s3_endpoint_url: str | None = None
    secrets_manager_id: str | None = None

    alert_webhook_url: SecretStr | None = None
    alert_smtp_host: str | None = None
    alert_smtp_port: int = Field(default=587, ge=1, le=65535)
    alert_smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    alert_smtp_user: str | None = None
    alert_smtp_password: SecretStr | None = None
    alert_email_from: str | None = None
    alert_email_to: Annotated[tuple[str, ...], NoDecode] = ()
    alert_sns_topic: str | None = None
    # Dagster cuts a tick of a sensor after 60 s: two secrets, the alerts of a round and the last one fit in.
    alert_timeout_seconds: float = Field(default=10.0, gt=0, le=20)

    # Breached by the newest session's risk of a sector, an alert is sent; None sets no limit.
    limit_var_99: float | None = Field(default=None, gt=0, lt=1)
    limit_volatility_30: float | None = Field(default=None, gt=0)
    limit_drawdown: float | None = Field(default=None, gt=0, lt=1)

    acknowledged_jumps: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("market_providers", "symbols", "alert_email_to", "acknowledged_jumps", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(
        "ledger_url",
        "publish_url",
        "vendor_contracts",
        "warehouse_path",
        "market_start",
        "now",
        "alpha_vantage_api_key",
        "yahoo_url",
        "transactions_queue_url",
        "transactions_dlq_url",
        "macro_provider",
        "fred_api_key",
        "s3_endpoint_url",
        "secrets_manager_id",
        "alert_webhook_url",
        "alert_smtp_host",
        "alert_smtp_user",
        "alert_smtp_password",
        "alert_email_from",
        "alert_sns_topic",
        "limit_var_99",
        "limit_volatility_30",
        "limit_drawdown",
        mode="before",
    )
    @classmethod
    def _blank_is_unset(cls, value: Any) -> Any:
        # Containers are often given every variable, the unused ones empty.
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return None if isinstance(text, str) and not text.strip() else value

    @field_validator("home", mode="before")
    @classmethod
    def _somewhere(cls, value: Any) -> Any:
        if not str(value).strip():
            raise SettingsError("name a folder, or leave the variable out")
        return value

    @field_validator("market_providers")
    @classmethod
    def _once_each(cls, value: tuple[ProviderName, ...]) -> tuple[ProviderName, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("lake_uri", "landing_uri")
    @classmethod
    def _known_address(cls, value: str) -> str:
        if value.startswith("s3://"):
            if not value.removeprefix("s3://").strip("/"):
                raise SettingsError("s3:// without a bucket; write s3://bucket/prefix")
            return value.rstrip("/")
        if "://" in value:
            raise SettingsError("is neither a folder nor s3://bucket/prefix")
        return str(Path(value).absolute()) if value.strip() else ""

    @field_validator("transactions_queue_url", "transactions_dlq_url")
    @classmethod
    def _queue_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise SettingsError(
                "is no address of an SQS queue, such as https://sqs.us-east-1.amazonaws.com/123456789012/transactions"
            )
        return value

    @field_validator("transactions_queue_url", "transactions_dlq_url", "s3_endpoint_url", "ledger_url", "publish_url")
    @classmethod
    def _whole_address(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        # A sign of a password that ends it early would make a host or a port of the rest, and print it.
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is None or "://" not in text or text.startswith("sqlite:"):
            return value
        rest = text.partition("://")[2]
        authority = rest.partition("/")[0]
        if "#" in rest or authority.count("@") > 1 or ("@" in rest and "@" not in authority):
            raise SettingsError(
                "holds a sign that ends the password early; write @ as %40, / as %2F and # as %23 in it"
            )
        port = authority.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise SettingsError("has a port that is no number from 1 to 65535")
        return value

    @field_validator("ledger_url")
    @classmethod
    def _ledger_address(cls, value: SecretStr | None) -> SecretStr | None:
        kinds = ("sqlite:", "postgresql:", "postgresql+psycopg:")
        if value is not None and not value.get_secret_value().startswith(kinds):
            raise SettingsError(
                "is no address of a ledger; write sqlite:////path/to/file or postgresql+psycopg://user:password@host/database"
            )
        return value

    @field_validator("lake_uri", "landing_uri")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        strange = sorted({sign for sign in value if sign in _STRANGE_ON_S3 or not sign.isprintable()})
        if value.startswith("s3://") and strange:
            raise SettingsError(
                f"the prefix has {' '.join(map(ascii, strange))}, which tools for S3 read as more than a name; "
                "choose another prefix"
            )
        return value

    @field_validator("home", "warehouse_path", "vendor_contracts")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # Fixed once: a library that changes the working directory must not move the data.
        return None if value is None else value.absolute()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self._refuse_unusable_paths()
        if not self.market_providers:
            raise SettingsError("FINANCE_ASSETS_MARKET_PROVIDERS is empty; name at least one provider")
        if "sample" in self.market_providers and len(self.market_providers) > 1:
            raise SettingsError(
                "FINANCE_ASSETS_MARKET_PROVIDERS: 'sample' stands alone; its clock and prices end on "
                f"{SAMPLE_END} and cannot be mixed with a live provider"
            )
        if self.profile == "aws":
            if not self.lake_uri.startswith("s3://"):
                raise SettingsError("profile aws needs FINANCE_ASSETS_LAKE_URI=s3://bucket/prefix")
            if self.ledger_url is None:
                raise SettingsError(
                    "profile aws needs FINANCE_ASSETS_LEDGER_URL, a database that all workers share, "
                    "such as postgresql+psycopg://user@host/db"
                )
        else:
            for name, uri in (("LAKE_URI", self.lake_uri), ("LANDING_URI", self.landing_uri)):
                if uri.startswith("s3://"):
                    raise SettingsError(f"FINANCE_ASSETS_{name} is on S3: set FINANCE_ASSETS_PROFILE=aws to use it")
        has_key = self.alpha_vantage_api_key is not None or self.secrets_manager_id is not None
        if "alpha_vantage" in self.market_providers and not has_key:
            raise SettingsError(
                "provider alpha_vantage needs FINANCE_ASSETS_ALPHA_VANTAGE_API_KEY, or "
                "FINANCE_ASSETS_SECRETS_MANAGER_ID of a secret that holds it"
            )
        by_mail = (self.alert_smtp_host, self.alert_email_from, self.alert_email_to or None)
        if any(part is not None for part in by_mail) and None in by_mail:
            raise SettingsError(
                "alerts by e-mail need FINANCE_ASSETS_ALERT_SMTP_HOST, FINANCE_ASSETS_ALERT_EMAIL_FROM and "
                "FINANCE_ASSETS_ALERT_EMAIL_TO; set all three or none"
            )
        if self.alert_sns_topic is not None and not self.alert_sns_topic.startswith("arn:"):
            raise SettingsError("FINANCE_ASSETS_ALERT_SNS_TOPIC is no ARN; write arn:aws:sns:region:account:topic")
        if self.macro_provider == "sample" and not self.uses_sample:
            raise SettingsError("FINANCE_ASSETS_MACRO_PROVIDER=sample goes with the sample's quotes alone; use fred")
        if self.macro_provider == "fred" and self.fred_api_key is None and self.secrets_manager_id is None:
            raise SettingsError(
                "FINANCE_ASSETS_MACRO_PROVIDER=fred needs FINANCE_ASSETS_FRED_API_KEY, or "
                "FINANCE_ASSETS_SECRETS_MANAGER_ID of a secret that holds it"
            )
        if self.start > self.clock().date():
            raise SettingsError(f"FINANCE_ASSETS_MARKET_START={self.start} is in the future")
        return self

    def _refuse_unusable_paths(self) -> None:
        """Refuse the few paths that a library cannot be told, before anything is written there."""
        advice = "name another folder"
        temporary = os.environ.get("TMPDIR", "")
        for name, path, signs, why in (
            ("FINANCE_ASSETS_HOME", str(self.home), "?", "SQLite takes what follows for options"),
            ("FINANCE_ASSETS_WAREHOUSE_PATH (or HOME)", str(self.warehouse_file), "?#", "DuckDB or dbt ends it there"),
            ("TMPDIR", temporary, "?", "DuckDB ends it there"),
        ):
            found = [sign for sign in signs if sign in path]
            if found:
                raise SettingsError(f"{name}: the path {path!a} has {found[0]!r}, and {why}; {advice}")
        if not self.lake.startswith("s3://") and "\\" in self.lake and any(sign in self.lake for sign in "*?["):
            raise SettingsError(
                f"FINANCE_ASSETS_LAKE_URI (or HOME): the path {self.lake!a} has a backslash beside one of * ? [, and "
                f"DuckDB takes it for a pattern; {advice}"
            )

    @classmethod
    def from_env(cls) -> Settings:
        """Read the settings of this process from its environment.

        Raises
        ------
        SettingsError
            What is wrong, variable by variable; no value is repeated, since it may be a secret.
        """
        try:
            return cls()
        except ValidationError as error:
            found = [
                f"{_variable(entry['loc'])}{str(entry['msg']).removeprefix('Value error, ')}"
                for entry in error.errors(include_input=False, include_url=False, include_context=False)
            ]
            raise SettingsError("; ".join(found)) from None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show every field; of an address neither credentials nor tokens."""
        for name, value in super().__repr_args__():
            yield name, hide_url_secrets(value) if isinstance(value, str) else value

    @property
    def uses_sample(self) -> bool:
        """Whether quotes come from the data that ships inside packages."""
        return "sample" in self.market_providers

    @property
    def macro_source(self) -> MacroSource | None:
        """Where macro series come from; None where the deployment has no source of them."""
        if self.macro_provider is not None:
            return self.macro_provider
        if self.uses_sample:
            return "sample"
        return "fred" if self.fred_api_key is not None else None

    @property
    def home_dir(self) -> Path:
        """``home`` as an absolute path."""
        return self.home

    @property
    def lake(self) -> str:
        """Address of the lake: an absolute folder or ``s3://…``."""
        return self.lake_uri or str(self.home_dir / "lake")

    @property
    def landing(self) -> str:
        """Address where vendors' files arrive: ``landing`` in the home folder, ``incoming`` in a lake on S3."""
        if self.landing_uri:
            return self.landing_uri
        return f"{self.lake}/incoming" if self.lake.startswith("s3://") else str(self.home_dir / "landing")

    @property
    def warehouse_file(self) -> Path:
        """The DuckDB file."""
        return self.warehouse_path or self.home_dir / "warehouse.duckdb"

    @property
    def ledger(self) -> str:
        """SQLAlchemy address of the ledger; may hold a password, so it is never logged."""
        if self.ledger_url is not None:
            return self.ledger_url.get_secret_value()
        return f"sqlite:///{self.home_dir / 'ledger.sqlite'}"

    @property
    def start(self) -> date:
        """First day from which sessions are partitions."""
        return self.market_start or (SAMPLE_START if self.uses_sample else DEFAULT_LIVE_START)

    @property
    def fixed_now(self) -> datetime | None:
        """The instant at which the clock stands still, or None where it runs."""
        if self.now is not None:
            return self.now.astimezone(UTC)
        return SAMPLE_NOW if self.uses_sample else None

    @property
    def clock(self) -> Clock:
        """The injected clock: aware, in UTC. Code takes this and never asks the system."""
        fixed = self.fixed_now
        return (lambda: fixed) if fixed is not None else _system_clock

    @property
    def arrival_clock(self) -> Clock:
        """The clock of what arrives now: fixed by ``now`` alone, for what is sent today is not of the sample's time."""
        return self.clock if self.now is not None else _system_clock

    @property
    def last_day(self) -> date | None:
        """Last day on which a session may lie, where the clock stands still: the exchange's date."""
        fixed = self.fixed_now
        return fixed.astimezone(ZoneInfo(EXCHANGE_ZONE)).date() if fixed is not None else None

    def secret(self, name: str) -> str | None:
        """Return a secret: from the environment, else from AWS Secrets Manager where one is configured.

        Parameters
        ----------
        name
            Name of a secret field, such as ``alpha_vantage_api_key``. In Secrets Manager the secret
            ``secrets_manager_id`` holds a JSON object with that name as a key.

        Returns
        -------
        str or None
            The value; None where no source has it. The value is never logged.

        Raises
        ------
        SettingsError
            The field is no secret, or what Secrets Manager holds is no JSON object.
        """
        if name not in SECRETS:
            raise SettingsError(f"{name!r} is no secret; secrets are {', '.join(SECRETS)}")
        value: SecretStr | None = getattr(self, name)
        if value is not None:
            return value.get_secret_value()
        if self.secrets_manager_id is None:
            return None
        import json

        answer = self._held_secret()
        try:
            held = json.loads(answer["SecretString"])
        except (KeyError, ValueError):
            held = None
        if not isinstance(held, dict):
            # The cause is left out: a decoding error carries the text that it could not decode.
            raise SettingsError(
                f"the secret {self.secrets_manager_id!r} (FINANCE_ASSETS_SECRETS_MANAGER_ID) is no JSON object; "
                f'store one such as {{"{name}": "…"}}'
            ) from None
        found = held.get(name)
        return None if found is None else str(found)

    def _held_secret(self) -> dict[str, Any]:
        import boto3

        from finance_assets.providers.aws_clients import limit_client
        from finance_assets.providers.outbound import call_within, limited

        def fetch() -> dict[str, Any]:
            client = boto3.client("secretsmanager", region_name=self.aws_region)
            limit_client(client, seconds=SECRET_SECONDS, max_bytes=SECRET_MAX_BYTES)
            answer: dict[str, Any] = client.get_secret_value(SecretId=self.secrets_manager_id)
            return answer

        # In a thread, since what finds the credentials is botocore's own and keeps to no deadline.
        try:
            with limited(SECRET_SECONDS):
                return call_within(fetch, None, f"fetching the secret {self.secrets_manager_id!r}")
        except TimeoutError as error:
            raise SettingsError(
                f"{error}; check the network and FINANCE_ASSETS_SECRETS_MANAGER_ID, and try again"
            ) from None


#: Fields whose values are secret.
SECRETS = tuple(name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation))


def _variable(location: tuple[int | str, ...]) -> str:
    """Return the variable that an error is about, as the opening of a sentence; nothing where it is about several."""
    return f"{PREFIX}{str(location[0]).upper()}: " if location else ""


def _system_clock() -> datetime:
    return datetime.now(UTC)


def midnight_utc(day: date) -> datetime:
    """Return the first instant of ``day`` in UTC."""
    return datetime.combine(day, time(), tzinfo=UTC)
