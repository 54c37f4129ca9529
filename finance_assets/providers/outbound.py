# ruff: noqa: N818  (errors are named for what happened, as in errors.py)
"""Limits of everything that goes out: one deadline for a whole call, and one cap on the bytes that come back.

What belongs here: the limits of a call, sockets that keep to them, and the waiting for system calls that cannot be
interrupted. What does not: anything that knows a protocol's meaning; HTTP, SMTP and AWS clients are given the sockets.

A time-out of a socket bounds the silence between two bytes, so that a server that sends a byte a second holds a
caller for ever. Here each operation of a socket is given what is left of the call's time: name, connection, handshake,
headers, body, redirects and repetitions share one deadline. ``limited`` sets it for the thread that calls, and a
``limited`` inside another cannot outlast it.

`socket.getaddrinfo` knows no time-out and cannot be interrupted. It runs in a daemon thread, which is left behind when
the time is over and does not keep the process from ending.
"""

from __future__ import annotations

import contextvars
import functools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import ssl

    import httpcore
    import httpx

T = TypeVar("T")

#: Calls of one name that were left behind and have not ended; with so many another one is not begun.
MAX_LEFT_BEHIND = 8
#: Bytes that are unpacked at a time.
_PIECE_BYTES = 64 * 1024


class OutboundTimeout(TimeoutError):
    """A call did not end within its time."""


class AnswerTooLarge(OSError):
    """An answer is longer than its cap."""


class Limits:
    """What one call may take; see `limited`.

    Parameters
    ----------
    seconds
        Time of the whole call.
    max_bytes
        Bytes that may be received, on the wire; None for no cap.
    outer
        Limits around these, which hold too.
    clock
        Monotonic seconds; injected by tests.
    """

    def __init__(
        self,
        seconds: float,
        max_bytes: int | None = None,
        *,
        outer: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.max_bytes = max_bytes
        self.received_bytes = 0
        self.is_overrun = False
        self._outer = outer
        self._clock = clock
        self._end = clock() + seconds

    def time_left(self) -> float:
        """Return the seconds that are left, of these limits and those around them; negative when they are over."""
        left = self._end - self._clock()
        return left if self._outer is None else min(left, self._outer.time_left())

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.time_left() <= 0

    def check(self) -> None:
        """Raise where the time is over.

        Raises
        ------
        OutboundTimeout
            The call did not end within its time.
        """
        if self.is_over:
            raise OutboundTimeout(self.reason())

    def count(self, size: int) -> None:
        """Count received bytes.

        Raises
        ------
        AnswerTooLarge
            More came than the cap allows.
        """
        self.received_bytes += size
        if self.max_bytes is not None and self.received_bytes > self.max_bytes:
            self.is_overrun = True
            raise AnswerTooLarge(f"more than {self.max_bytes} bytes came")
        if self._outer is not None:
            self._outer.count(size)

    def reason(self) -> str:
        """Return in words which limit was reached; nothing where none was."""
        if self.is_overrun:
            return f"the answer is longer than {self.max_bytes} bytes"
        if self._end <= self._clock():
            return f"no end within {self.seconds:g} s"
        return "" if self._outer is None else self._outer.reason()


_current: contextvars.ContextVar[Limits | None] = contextvars.ContextVar("outbound_limits", default=None)


def new_limits(
    seconds: float | None, *, max_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
) -> Limits:
    """Return limits that begin now, inside those of the calling thread; ``seconds`` None adds none of time."""
    return Limits(threading.TIMEOUT_MAX if seconds is None else seconds, max_bytes, outer=_current.get(), clock=clock)


@contextmanager
def limited(
    seconds: float | None, *, max_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Limits]:
    """Limit what the calling thread sends and receives over sockets of this module.

    Parameters
    ----------
    seconds
        Time of everything inside, on the wall clock; None for no limit of its own.
    max_bytes
        Bytes that may be received inside; None for no cap.
    clock
        Monotonic seconds; injected by tests.
    """
    limits = new_limits(seconds, max_bytes=max_bytes, clock=clock)
    token = _current.set(limits)
    try:
        yield limits
    finally:
        _current.reset(token)


def time_left(seconds: float | None = None) -> float | None:
    """Return the shorter of ``seconds`` and what is left of the current limits; None where nothing limits.

    Raises
    ------
    OutboundTimeout
        The time of the current limits is over.
    """
    limits = _current.get()
    if limits is None:
        return seconds
    limits.check()
    left = max(limits.time_left(), 0.001)
    return left if seconds is None else min(seconds, left)


# -- calls that cannot be interrupted ------------------------------------------------------------------------------

_left_behind: Counter[str] = Counter()
_counting = threading.Lock()


def call_within(
    call: Callable[[], T], seconds: float | None, name: str, *, discard: Callable[[T], None] | None = None
) -> T:
    """Return what ``call`` returns or raise what it raises, but wait no longer than ``seconds``.

    The call runs in a daemon thread of its own. When the time is over the thread is left behind: it ends when the
    system call in it ends, or with the process.

    Parameters
    ----------
    call
        What to do; the limits of the calling thread hold in it.
    seconds
        How long to wait at most; None waits as long as the current limits allow.
    name
        What the call is, for errors; calls of one name that were left behind are counted.
    discard
        Given the result that came too late, such as a connection to close.

    Raises
    ------
    OutboundTimeout
        The call did not end in time, or `MAX_LEFT_BEHIND` earlier calls of this name have not ended.
    """
    left = time_left(seconds)
    with _counting:
        stuck = _left_behind[name]
    if stuck >= MAX_LEFT_BEHIND:
        raise OutboundTimeout(f"{name} is not tried: {stuck} earlier tries have not ended")
    ended = threading.Event()
    deciding = threading.Lock()
    outcome: list[tuple[bool, Any]] = []
    is_late = False

    def run() -> None:
        nonlocal outcome
        try:
            result: tuple[bool, Any] = (True, call())
        except BaseException as error:
            result = (False, error)
        with deciding:
            outcome.append(result)
            ended.set()
            late = is_late
        if late:
            with _counting:
                _left_behind[name] -= 1
            if discard is not None and result[0]:
                with suppress(Exception):
                    discard(result[1])

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=f"outbound: {name}", daemon=True).start()
    ended.wait(left)
    with deciding:
        if not outcome:
            is_late = True
            with _counting:
                _left_behind[name] += 1
    if is_late:
        raise OutboundTimeout(f"{name} did not end within {left:.3g} s")
    succeeded, value = outcome[0]
    if succeeded:
        result: T = value
        return result
    try:
        raise value
    finally:
        # The traceback refers to this frame, and the frame to the error.
        del value, outcome


# -- sockets -------------------------------------------------------------------------------------------------------


class Socket(socket.socket):
    """A TCP socket whose operations end with the time of the current limits, and whose bytes are counted."""

    _own_timeout: float | None = None

    def settimeout(self, value: float | None) -> None:
        """Set the time-out of one operation, which the limits may shorten."""
        self._own_timeout = value
        super().settimeout(value)

    def gettimeout(self) -> float | None:
        """Return the time-out that was set."""
        return self._own_timeout

    def _prepare(self) -> None:
        super().settimeout(time_left(self._own_timeout))

    def connect(self, address: Any) -> None:
        """Connect within the limits."""
        self._prepare()
        super().connect(address)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive within the limits."""
        self._prepare()
        data = super().recv(bufsize, flags)
        _count(len(data))
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive within the limits."""
        self._prepare()
        size = super().recv_into(buffer, nbytes, flags)
        _count(size)
        return size

    def send(self, data: Any, flags: int = 0) -> int:
        """Send within the limits."""
        self._prepare()
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything within the limits."""
        self._prepare()
        super().sendall(data, flags)


def _count(size: int) -> None:
    limits = _current.get()
    if limits is not None:
        limits.count(size)


@functools.cache
def _tls_socket() -> type[ssl.SSLSocket]:
    """Return the class of TLS sockets; made at first use, since ssl takes long to import."""
    import ssl

    class TlsSocket(ssl.SSLSocket):
        """`Socket` with TLS: the handshake counts too."""

        _own_timeout: float | None = None

        def settimeout(self, value: float | None) -> None:
            self._own_timeout = value
            super().settimeout(value)

        def gettimeout(self) -> float | None:
            return self._own_timeout

        def _prepare(self) -> None:
            super().settimeout(time_left(self._own_timeout))

        def do_handshake(self, block: bool = False) -> None:
            self._prepare()
            super().do_handshake(block)

        def read(self, len: int = 1024, buffer: Any = None) -> Any:
            # recv and recv_into of ssl.SSLSocket come here.
            self._prepare()
            found: Any = super().read(len, buffer)
            _count(found if isinstance(found, int) else found.__len__())
            return found

        def send(self, data: Any, flags: int = 0) -> int:
            # So does sendall.
            self._prepare()
            return super().send(data, flags)

    return TlsSocket


def limit_tls(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have the sockets of a TLS context keep to the limits, and return the context."""
    context.sslsocket_class = _tls_socket()
    return context


def look_up(host: str, port: int, seconds: float | None = None) -> list[Any]:
    """Return the addresses of a host, as `socket.getaddrinfo` does, within the limits.

    Raises
    ------
    OutboundTimeout
        The resolver did not answer in time.
    socket.gaierror
        There is no such name.
    """
    return call_within(
        lambda: list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)), seconds, f"the look-up of {host}"
    )


def open_connection(
    host: str,
    port: int,
    seconds: float | None = None,
    *,
    source_address: tuple[str, int] | None = None,
    options: Iterable[Any] = (),
) -> Socket:
    """Return a socket that is connected to one of a host's addresses.

    Parameters
    ----------
    host, port
        Where to.
    seconds
        Time for look-up and connection, all addresses together.
    source_address
        Address of this side.
    options
        Arguments of `socket.socket.setsockopt`, set before connecting.

    Raises
    ------
    OutboundTimeout
        No connection stood in time.
    OSError
        The last address's error.
    """
    with limited(seconds) as limits:
        addresses = look_up(host, port)
        failure: OSError = OSError(f"{host} has no address")
        for place, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = Socket(family, kind, protocol)
            try:
                for option in options:
                    connection.setsockopt(*option)
                if source_address is not None:
                    connection.bind(source_address)
                # An address that swallows everything leaves time for the others.
                connection.settimeout(max(limits.time_left(), 0.001) / (len(addresses) - place))
                connection.connect(address)
            except OSError as error:
                connection.close()
                failure = error
                if limits.is_over:
                    break
            except BaseException:
                connection.close()
                raise
            else:
                connection.settimeout(seconds)
                return connection
    try:
        raise failure
    finally:
        del failure


# -- HTTP ----------------------------------------------------------------------------------------------------------


def limit_transport(transport: httpx.HTTPTransport) -> httpx.HTTPTransport:
    """Have the connections of an httpx transport keep to the limits, and return the transport."""
    # httpx offers no way to hand a network backend to the pool that it makes.
    transport._pool._network_backend = _network_backend()
    return transport


def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """Return the body of a streamed answer, unpacked, and never more of it than ``max_bytes``.

    It is unpacked a piece at a time, so that a body that grows a thousandfold is refused before it is in memory.

    Raises
    ------
    AnswerTooLarge
        The answer says, or turns out, to be longer.
    httpx.DecodingError
        It is packed in another way than gzip or deflate, is damaged, or ends too early.
    """
    import zlib

    import httpx

    def refuse() -> AnswerTooLarge:
        return AnswerTooLarge(f"the answer is longer than {max_bytes} bytes")

    declared = response.headers.get("content-length", "").strip()
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes):
        raise refuse()
    packing = response.headers.get("content-encoding", "").strip().lower()
    body = bytearray()
    if packing in ("", "identity"):
        for piece in response.iter_raw():
            body += piece
            if len(body) > max_bytes:
                raise refuse()
        return bytes(body)
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"the answer is packed as {packing[:40]!r}, which was not asked for")
    unpacker, has_begun = zlib.decompressobj(zlib.MAX_WBITS | (0 if packing == "deflate" else 16)), False
    try:
        for piece in response.iter_raw():
            while piece and not unpacker.eof:
                try:
                    body += unpacker.decompress(piece, _PIECE_BYTES)
                except zlib.error:
                    if has_begun or packing != "deflate":
                        raise
                    # Some servers send what RFC 1951 calls deflate, without the frame of zlib.
                    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
                    body += unpacker.decompress(piece, _PIECE_BYTES)
                has_begun = True
                piece = unpacker.unconsumed_tail
                if len(body) > max_bytes:
                    raise refuse()
                time_left()
    except zlib.error as error:
        raise httpx.DecodingError(f"the answer is damaged: {error}") from None
    if has_begun and not unpacker.eof:
        raise httpx.DecodingError("the answer ends too early")
    return bytes(body)


@functools.cache
def _network_backend() -> httpcore.NetworkBackend:
    import ssl

    import httpcore

    @contextmanager
    def translated(on_timeout: type[Exception], on_error: type[Exception]) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise on_timeout(str(error)) from error
        except OSError as error:
            raise on_error(str(error)) from error

    class Stream(httpcore.NetworkStream):
        def __init__(self, connection: Any) -> None:
            self._socket = connection

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            with translated(httpcore.ReadTimeout, httpcore.ReadError):
                self._socket.settimeout(timeout)
                data: bytes = self._socket.recv(max_bytes)
                return data

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            with translated(httpcore.WriteTimeout, httpcore.WriteError):
                self._socket.settimeout(timeout)
                if buffer:
                    self._socket.sendall(buffer)

        def close(self) -> None:
            self._socket.close()

        def start_tls(
            self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
        ) -> httpcore.NetworkStream:
            try:
                with translated(httpcore.ConnectTimeout, httpcore.ConnectError):
                    self._socket.settimeout(timeout)
                    if isinstance(self._socket, ssl.SSLSocket):
                        # TLS to the server inside TLS to the proxy, which ssl itself cannot do.
                        from urllib3.util.ssltransport import SSLTransport

                        return Stream(SSLTransport(self._socket, ssl_context, server_hostname))
                    return Stream(limit_tls(ssl_context).wrap_socket(self._socket, server_hostname=server_hostname))
            except BaseException:
                self.close()
                raise

        def get_extra_info(self, info: str) -> Any:
            if info == "ssl_object":
                return self._socket if hasattr(self._socket, "selected_alpn_protocol") else None
            if info == "client_addr":
                return self._socket.getsockname()
            if info == "server_addr":
                return self._socket.getpeername()
            if info == "socket":
                return self._socket
            if info == "is_readable":
                import select

                descriptor = self._socket.fileno()
                if descriptor < 0:
                    return True  # closed
                waiting = select.poll()
                waiting.register(descriptor, select.POLLIN)
                return bool(waiting.poll(0))
            return None

    class Backend(httpcore.NetworkBackend):
        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore.NetworkStream:
            with translated(httpcore.ConnectTimeout, httpcore.ConnectError):
                return Stream(
                    open_connection(
                        host,
                        port,
                        timeout,
                        source_address=None if local_address is None else (local_address, 0),
                        options=[*(socket_options or ()), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                    )
                )

        def sleep(self, seconds: float) -> None:
            time.sleep(time_left(seconds) or 0.0)

    return Backend()
