"""boto3 clients whose requests keep to a deadline and a cap of bytes.

What belongs here: making such clients, and giving one the sockets of `finance_assets.providers.outbound`. What a
service means, and what its errors mean to a person, stands where it is used. boto3 is imported when a client is made.
"""

from __future__ import annotations

import functools
import socket
from typing import Any

from finance_assets.providers.outbound import limit_tls, limited, open_connection

#: A connection that takes longer is a network that is down, not slow.
CONNECT_SECONDS = 3.0
#: Time of one request, besides the time that it was asked to wait.
REQUEST_SECONDS = 10.0
#: Requests of one call, with botocore's own back-off (at most 1, 2, … s) between them.
ATTEMPTS = 3
#: Far above what a service answers to one request: ten messages of SQS, a thousand keys of S3, 16 MB of DynamoDB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


def make_limited_client(
    service: str,
    *,
    region: str | None,
    endpoint: str | None = None,
    seconds: float = REQUEST_SECONDS,
    attempts: int = ATTEMPTS,
    max_bytes: int = MAX_ANSWER_BYTES,
    **config: Any,
) -> Any:
    """Return a boto3 client each of whose requests ends in time.

    Parameters
    ----------
    service
        Such as ``sns``.
    region
        AWS region; None takes that of the environment.
    endpoint
        Address of an endpoint other than AWS's. None: as the environment says.
    seconds
        Time of one request, from the look-up of the name to the last byte of the answer.
    attempts
        Requests of one call at most.
    max_bytes
        Longest answer that is read.
    config
        Further settings of `botocore.config.Config`.

    Raises
    ------
    botocore.exceptions.BotoCoreError, ValueError
        There is no region, or the address is none.
    """
    import boto3
    from botocore.config import Config

    client = boto3.client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=min(CONNECT_SECONDS, seconds),
            read_timeout=seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            **config,
        ),
    )
    limit_client(client, seconds=seconds, max_bytes=max_bytes)
    return client


def limit_client(client: Any, *, seconds: float = REQUEST_SECONDS, max_bytes: int = MAX_ANSWER_BYTES) -> None:
    """Have each request of a boto3 client end in time, and its answer stay small.

    Parameters
    ----------
    client
        The client; one without an endpoint, which stands for a service in a test, is left as it is.
    seconds
        Time of one request, from the look-up of the name to the last byte of the answer.
    max_bytes
        Longest answer that is read.
    """
    # botocore has no setting for the class of its HTTP session.
    endpoint = getattr(client, "_endpoint", None)
    if endpoint is not None:
        endpoint.http_session = _LimitedSession(endpoint.http_session, seconds, max_bytes)


class _LimitedSession:
    """Sends the requests of a botocore client, each within its limits.

    Parameters
    ----------
    session
        The session that botocore made; its connections are replaced by those that keep to limits.
    seconds, max_bytes
        Of one request.
    """

    def __init__(self, session: Any, seconds: float, max_bytes: int) -> None:
        # Changed in place: the managers of proxies are given this mapping too.
        session._pool_classes_by_scheme.update(_pool_classes())
        self._session = session
        self._seconds = seconds
        self._max_bytes = max_bytes

    def send(self, request: Any) -> Any:
        """Send a request and return the answer.

        Raises
        ------
        botocore.exceptions.HTTPClientError
            No answer, one that is too long or too late, or one that was cut off.
        """
        from botocore.exceptions import ConnectionClosedError, HTTPClientError

        with limited(self._seconds, max_bytes=self._max_bytes) as limits:
            try:
                answer = self._session.send(request)
            except HTTPClientError:
                if limits.is_overrun:
                    raise HTTPClientError(error=limits.reason()) from None
                raise
        if answer.status_code < 200:
            # http.client takes what is said before an answer, such as early hints, for the answer. What follows on that
            # connection belongs to no other request.
            self._session.close()
            raise HTTPClientError(error=f"the server said {answer.status_code} and gave no answer")
        if request.stream_output or request.method == "HEAD":
            return answer
        declared = str(answer.headers.get("content-length", "")).strip()
        if declared.isascii() and declared.isdigit() and len(answer.content) < int(declared):
            # botocore would read what came as an empty answer.
            self._session.close()
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error="the answer was cut off")
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


@functools.cache
def _pool_classes() -> dict[str, type[Any]]:
    """Return urllib3's pools of connections, by scheme, as botocore has them but with sockets that keep to limits."""
    from botocore.awsrequest import (
        AWSHTTPConnection,
        AWSHTTPConnectionPool,
        AWSHTTPSConnection,
        AWSHTTPSConnectionPool,
    )
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    def connect(connection: Any) -> socket.socket:
        try:
            return open_connection(
                connection._dns_host,
                connection.port,
                connection.timeout,
                source_address=connection.source_address,
                options=connection.socket_options or (),
            )
        except socket.gaierror as error:
            raise NameResolutionError(connection.host, connection, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(connection, f"no connection to {connection.host}: {error}") from error
        except OSError as error:
            raise NewConnectionError(connection, f"no connection to {connection.host}: {error}") from error

    class LimitedConnection(AWSHTTPConnection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class LimitedTlsConnection(AWSHTTPSConnection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            if self.ssl_context is not None:
                limit_tls(self.ssl_context)
            return connect(self)

    class LimitedPool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = LimitedConnection

    class LimitedTlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = LimitedTlsConnection

    return {"http": LimitedPool, "https": LimitedTlsPool}
