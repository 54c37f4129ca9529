"""AWS clients of the transaction branch, and what their errors mean to a person.

What belongs here: what a boto3 client of this branch is made with, for AWS or for an endpoint on this machine, and
turning botocore's exceptions into sentences that say what to do. boto3 is imported when a client is made.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from finance_assets.providers.aws_clients import make_limited_client
from finance_assets.text import hide_url_secrets

#: A request and its answer may take so long, besides the time that a long poll was asked to wait.
READ_SECONDS = 10.0
#: Written out, because botocore otherwise puts it together anew for each request, twice.
USER_AGENT = "finance-assets-transactions"

_MISSING = ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "ResourceNotFoundException")
_DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
_BUSY = (
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "LimitExceededException",
    "OverLimit",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingError",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
)


class AwsError(RuntimeError):
    """A service did not do what it was asked; the message says which, why, and what to do.

    Attributes
    ----------
    is_passing
        Whether waiting may help: the service is out of reach, throttles, or is ill.
    """

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.is_passing = is_passing


def origin_of(url: str) -> str | None:
    """Return ``scheme://host:port`` of an address that is not AWS's own; None for AWS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return None
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(url: str | None) -> bool:
    """Return whether an address is on this machine."""
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def make_client(
    service: str,
    *,
    region: str | None,
    endpoint: str | None = None,
    read_seconds: float = READ_SECONDS,
    connections: int = 10,
) -> Any:
    """Return a boto3 client; botocore repeats a request that failed, and the callers wait longer where waiting helps.

    Parameters
    ----------
    service
        ``sqs`` or ``dynamodb``.
    region
        AWS region; None takes that of the environment.
    endpoint
        Address of an endpoint other than AWS's. None: ``AWS_ENDPOINT_URL`` where it is set, else AWS.
    read_seconds
        Time of one request, from the look-up of the name to the last byte of the answer.
    connections
        Connections kept open: one for each thread that uses the client.

    Raises
    ------
    AwsError
        There is no region, or the address is none.
    """
    from botocore import UNSIGNED
    from botocore.exceptions import BotoCoreError

    named = endpoint or os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        return make_limited_client(
            service,
            region=region,
            endpoint=endpoint,
            seconds=read_seconds,
            max_pool_connections=connections,
            tcp_keepalive=True,
            # What is sent is built here, and checked again by the service.
            parameter_validation=False,
            user_agent=USER_AGENT,
            # An endpoint on this machine asks for no credentials, and is never shown those of a real account.
            signature_version=UNSIGNED if is_loopback(named) else None,
        )
    except (BotoCoreError, ValueError) as error:
        raise AwsError(hide_url_secrets(f"no client of {service}: {error}")) from None


def explained(error: Exception, doing: str, *, setting: str) -> AwsError:
    """Return what a person needs to know of a botocore exception.

    Parameters
    ----------
    error
        What botocore raised.
    doing
        What was tried, and on what: ``receiving from https://…``.
    setting
        The variable that names what was used.
    """
    from botocore.exceptions import (
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return AwsError(
            f"{doing}: there are no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or give the task a role"
        )
    if isinstance(error, (HTTPClientError, ConnectionError)):
        return AwsError(
            f"{doing}: no answer ({type(error).__name__}); is {setting} right, is the network up, and does a local "
            "queue run (finance-assets transactions queue)?",
            is_passing=True,
        )
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        if code in _MISSING:
            return AwsError(f"{doing}: there is nothing by that name in this account and region; check {setting}")
        if code in _DENIED:
            return AwsError(f"{doing}: refused ({code}); check the credentials and what their role allows")
        if code in _BUSY or status >= 500 or status == 429:
            return AwsError(f"{doing}: the service is busy ({code or status}); try again later", is_passing=True)
        return AwsError(hide_url_secrets(f"{doing}: {code}: {error.response.get('Error', {}).get('Message', '')}"))
    return AwsError(hide_url_secrets(f"{doing}: {type(error).__name__}: {error}"))
