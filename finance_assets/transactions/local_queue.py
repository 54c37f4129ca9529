"""A real SQS and DynamoDB endpoint on this machine, for development, the demo and tests.

What belongs here: starting `ministack` (PyPI, MIT; no Docker) and making the queue, its dead letters and the table in
it. ministack pins its own botocore, so it runs in an environment of its own, which ``uv tool run`` makes at the first
start (a download of 20 MB) and keeps. Where uv or the package is out of reach, what is raised says so; the rest of the
platform works without a queue.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from finance_assets.providers.outbound import call_within
from finance_assets.transactions.aws import make_client

VERSION = "1.5.33"
REGION = "us-east-1"
#: The first start downloads the package.
INSTALL_SECONDS = 240
START_SECONDS = 30
READY_SECONDS = 2.0
STOP_SECONDS = 15
POLL_SECONDS = 0.05
#: Folder of the local queue in the home of the platform.
FOLDER_NAME = "queue"
QUEUE_NAME = "transactions"
DEAD_LETTERS_NAME = "transactions-dead-letters"
TABLE_NAME = "RealTimeTransactions"
#: Longer than a micro-batch ever takes; what a killed consumer held comes back after so long.
VISIBILITY_SECONDS = 30
#: Deliveries after which a message on which processing itself breaks is put aside. A consumer that is killed and
#: started again a few times does not use them up.
MAX_RECEIVE_COUNT = 5
RETENTION_SECONDS = 14 * 24 * 3600
STATE_FILE = "local.json"
PORT_FILE = "port"
_ROOT = Path(__file__).resolve().parents[2]


class LocalQueueError(RuntimeError):
    """The local endpoint cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class LocalQueue:
    """Where the local endpoint is, and what was made in it."""

    endpoint: str
    queue_url: str
    dead_letters_url: str
    table: str
    pid: int

    def environment(self) -> dict[str, str]:
        """Return the variables that point a process at it."""
        return {
            "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL": self.queue_url,
            "FINANCE_ASSETS_TRANSACTIONS_DLQ_URL": self.dead_letters_url,
            "FINANCE_ASSETS_TRANSACTIONS_TABLE": self.table,
        }


def find_uv() -> Path | None:
    """Return the uv that ``make setup`` installed, or else the one on the path."""
    ours = _ROOT / ".tools" / "bin" / "uv"
    on_path = shutil.which("uv")
    return ours if ours.exists() else Path(on_path) if on_path else None


def tool_command() -> list[str]:
    """Return the words before a command that runs it in ministack's environment.

    Raises
    ------
    LocalQueueError
        There is no uv.
    """
    uv = find_uv()
    if uv is None:
        raise LocalQueueError(
            "there is no uv to run the local queue with: neither .tools/bin/uv (make setup) nor one on the path"
        )
    return [str(uv), "tool", "run", "--quiet", "--python", sys.executable, "--from", f"ministack=={VERSION}"]


def install(cwd: Path) -> list[str]:
    """Make ministack's environment, unless it is there; return the command that starts the endpoint.

    Raises
    ------
    LocalQueueError
        There is no uv, or the package cannot be had. Installing apart from running tells a registry out of reach
        from an endpoint that does not start.
    """
    before = tool_command()
    try:
        made = subprocess.run(
            [*before, "python", "-c", ""],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise LocalQueueError(f"uv did not install ministack=={VERSION} within {INSTALL_SECONDS} s") from None
    if made.returncode != 0:
        raise LocalQueueError(f"uv cannot install ministack=={VERSION}: {made.stderr.strip()[-300:]}")
    return [*before, "ministack"]


def server_environment(port: int, temporary: Path) -> dict[str, str]:
    """Return the variables that the endpoint is started with, besides those of this process."""
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(temporary),
    }


def answers(endpoint: str) -> bool:
    """Return whether an endpoint is ready."""

    def ask() -> bool:
        with urllib.request.urlopen(f"{endpoint}/_ministack/ready", timeout=READY_SECONDS) as response:
            return bool(response.status == 200)

    try:
        return call_within(ask, READY_SECONDS, f"asking {endpoint} whether it is ready")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def create(
    endpoint: str,
    *,
    queue: str = QUEUE_NAME,
    table: str = TABLE_NAME,
    visibility_seconds: int = VISIBILITY_SECONDS,
    max_receive_count: int = MAX_RECEIVE_COUNT,
    pid: int = 0,
) -> LocalQueue:
    """Make a queue with its dead letters, and the table; what is there stays as it is.

    Parameters
    ----------
    endpoint
        Address of the endpoint.
    queue, table
        Names. That of the dead letters is the queue's with ``-dead-letters``.
    visibility_seconds, max_receive_count
        For how long a received message is hidden, and after how many deliveries it is put aside.
    pid
        The endpoint's process, where it is known.
    """
    sqs = make_client("sqs", region=REGION, endpoint=endpoint)
    dynamodb = make_client("dynamodb", region=REGION, endpoint=endpoint)
    try:
        dead = sqs.create_queue(
            QueueName=f"{queue}-dead-letters", Attributes={"MessageRetentionPeriod": str(RETENTION_SECONDS)}
        )["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        url = sqs.create_queue(
            QueueName=queue,
            Attributes={
                "VisibilityTimeout": str(visibility_seconds),
                "MessageRetentionPeriod": str(RETENTION_SECONDS),
                "RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(max_receive_count)}),
            },
        )["QueueUrl"]
        with suppress(dynamodb.exceptions.ResourceInUseException):
            dynamodb.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": "transaction_id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "transaction_id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
    finally:
        sqs.close()
        dynamodb.close()
    return LocalQueue(endpoint, url, dead, table, pid)


def find(folder: Path) -> LocalQueue | None:
    """Return the local queue that runs in ``folder``, or None where none answers."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        found = LocalQueue(**state)
    except (OSError, ValueError, TypeError):
        return None
    return found if answers(found.endpoint) else None


@contextmanager
def running(folder: Path) -> Iterator[LocalQueue]:
    """Run the local queue for the length of a block; one that runs in ``folder`` already is used and left running.

    What is in the queue and the table is kept in ``folder`` when the endpoint is ended, and is there again at the
    next start. An endpoint that is killed forgets it: it is a queue for development, not for keeping.

    Parameters
    ----------
    folder
        Its state, its log, and the file by which other processes find it.

    Raises
    ------
    LocalQueueError
        It cannot be started; the message says why and what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = find(folder)
    if there is not None:
        yield there
        return
    command = install(folder)
    port = _port(folder)
    endpoint = f"http://127.0.0.1:{port}"
    log = folder / "ministack.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **server_environment(port, folder),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder / "state"),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    state = folder / STATE_FILE
    try:
        _wait(process, endpoint, log)
        made = create(endpoint, pid=process.pid)
        temporary = state.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(made)), encoding="utf-8")
        temporary.replace(state)
        yield made
    finally:
        state.unlink(missing_ok=True)
        _stop(process)


def _port(folder: Path) -> int:
    """Return the endpoint's port: the same at each start, since ministack keeps messages by the queue's address."""
    file = folder / PORT_FILE
    try:
        wanted = int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        wanted = 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            raise LocalQueueError(
                f"port {wanted} of the local queue is in use; end what uses it, or remove {folder} with all messages "
                "that are kept there"
            ) from None
        port = int(probe.getsockname()[1])
    file.write_text(str(port), encoding="ascii")
    return port


def _wait(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(endpoint):
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip()[-300:]
            why = f"ended with {process.returncode}" if process.poll() is not None else f"silent for {START_SECONDS} s"
            raise LocalQueueError(f"the local queue does not start ({why}): {last or 'it said nothing'}; see {log}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the endpoint and all that it started: it has a session of its own, of which it is the leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    # uv may end before the endpoint, which is saving its state.
    while _lives(process) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # a leader that was not waited for would keep its group alive
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
