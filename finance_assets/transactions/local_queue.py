"""A real SQS and DynamoDB endpoint on this machine, for development, the demo and tests.

What belongs here: starting `ministack` (PyPI, MIT; no Docker) and creating the queue, its dead-letter queue and the
table in it. ministack pins its own botocore, so it runs in a separate environment, which ``uv tool run`` creates at the
first start (a download of 20 MB) and keeps. If uv or the package is unavailable, the error says so; the rest of the
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
#: Time limit of the first start, which downloads the package.
INSTALL_SECONDS = 240
START_SECONDS = 30
READY_SECONDS = 2.0
STOP_SECONDS = 15
POLL_SECONDS = 0.05
#: Name of the folder with the state of the local queue, inside the home folder of the platform.
FOLDER_NAME = "queue"
QUEUE_NAME = "transactions"
TABLE_NAME = "RealTimeTransactions"
#: Longer than a micro-batch takes. Messages that a killed consumer had received are delivered again after this time.
VISIBILITY_SECONDS = 30
#: Deliveries after which a message that cannot be processed moves to the dead-letter queue. Restarting a killed
#: consumer a few times does not reach this number.
MAX_RECEIVE_COUNT = 5
RETENTION_SECONDS = 14 * 24 * 3600
STATE_FILE = "local.json"
PORT_FILE = "port"
_ROOT = Path(__file__).resolve().parents[2]


class LocalQueueError(RuntimeError):
    """The local endpoint cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class LocalQueue:
    """The address of the local endpoint, and its queues and table."""

    endpoint: str
    queue_url: str
    dead_letters_url: str
    table: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make a process use this queue."""
        return {
            "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL": self.queue_url,
            "FINANCE_ASSETS_TRANSACTIONS_DLQ_URL": self.dead_letters_url,
            "FINANCE_ASSETS_TRANSACTIONS_TABLE": self.table,
        }


def find_uv() -> Path | None:
    """Return the uv that ``make setup`` installed, otherwise the one on the PATH; None if there is neither."""
    installed = _ROOT / ".tools" / "bin" / "uv"
    on_path = shutil.which("uv")
    return installed if installed.exists() else Path(on_path) if on_path else None


def build_uv_command() -> list[str]:
    """Return the start of a command line that runs a program in ministack's environment.

    Raises
    ------
    LocalQueueError
        uv was not found.
    """
    uv = find_uv()
    if uv is None:
        raise LocalQueueError(
            "the local queue needs uv, which is neither at .tools/bin/uv nor on the PATH; run make setup"
        )
    return [str(uv), "tool", "run", "--quiet", "--python", sys.executable, "--from", f"ministack=={VERSION}"]


def install_ministack(cwd: Path) -> list[str]:
    """Create ministack's environment if it does not exist; return the command that starts the endpoint.

    Installing is separate from starting, so that an unreachable registry is not reported as an endpoint that does not
    start.

    Raises
    ------
    LocalQueueError
        uv was not found, or the package cannot be installed.
    """
    uv_command = build_uv_command()
    try:
        result = subprocess.run(
            [*uv_command, "python", "-c", ""],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise LocalQueueError(f"uv did not install ministack=={VERSION} within {INSTALL_SECONDS} s") from None
    if result.returncode != 0:
        raise LocalQueueError(f"uv cannot install ministack=={VERSION}: {result.stderr.strip()[-300:]}")
    return [*uv_command, "ministack"]


def build_server_environment(port: int, temporary: Path) -> dict[str, str]:
    """Return the environment variables of the endpoint, in addition to those of this process."""
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(temporary),
    }


def is_ready(endpoint: str) -> bool:
    """Return whether an endpoint answers and is ready."""

    def request_status() -> bool:
        with urllib.request.urlopen(f"{endpoint}/_ministack/ready", timeout=READY_SECONDS) as response:
            return bool(response.status == 200)

    try:
        return call_within(request_status, READY_SECONDS, f"checking whether {endpoint} is ready")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def create_queue(
    endpoint: str,
    *,
    queue: str = QUEUE_NAME,
    table: str = TABLE_NAME,
    visibility_seconds: int = VISIBILITY_SECONDS,
    max_receive_count: int = MAX_RECEIVE_COUNT,
    pid: int = 0,
) -> LocalQueue:
    """Create a queue with its dead-letter queue, and the table; those that exist are not changed.

    Parameters
    ----------
    endpoint
        Address of the endpoint.
    queue, table
        Names. The dead-letter queue has the name of the queue followed by ``-dead-letters``.
    visibility_seconds
        Time in seconds for which a received message is invisible to other consumers.
    max_receive_count
        Number of deliveries after which a message moves to the dead-letter queue.
    pid
        Process id of the endpoint; 0 if it is unknown.
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


def find_local_queue(folder: Path) -> LocalQueue | None:
    """Return the local queue that runs in ``folder``; None if none runs or it does not answer."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        found = LocalQueue(**state)
    except (OSError, ValueError, TypeError):
        return None
    return found if is_ready(found.endpoint) else None


@contextmanager
def run_local_queue(folder: Path) -> Iterator[LocalQueue]:
    """Run the local queue for the length of a block; if one already runs in ``folder``, use it and leave it running.

    When the endpoint is stopped, the contents of the queue and the table are saved in ``folder`` and restored at the
    next start. An endpoint that is killed loses them: this queue is for development, not for storage.

    Parameters
    ----------
    folder
        Folder of the state, the log, and the file by which other processes find the endpoint.

    Raises
    ------
    LocalQueueError
        The endpoint cannot be started; the message says why and what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    existing = find_local_queue(folder)
    if existing is not None:
        yield existing
        return
    command = install_ministack(folder)
    port = _choose_port(folder)
    endpoint = f"http://127.0.0.1:{port}"
    log = folder / "ministack.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **build_server_environment(port, folder),
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
        _wait_until_ready(process, endpoint, log)
        created = create_queue(endpoint, pid=process.pid)
        temporary = state.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(created)), encoding="utf-8")
        temporary.replace(state)
        yield created
    finally:
        state.unlink(missing_ok=True)
        _stop_process_group(process)


def _choose_port(folder: Path) -> int:
    """Return the endpoint's port, the same at each start: ministack saves messages under the address of the queue."""
    file = folder / PORT_FILE
    try:
        previous = int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        previous = 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", previous))
        except OSError:
            raise LocalQueueError(
                f"port {previous} of the local queue is in use; stop the process that uses it, or remove {folder} "
                "with all messages saved there"
            ) from None
        port = int(probe.getsockname()[1])
    file.write_text(str(port), encoding="ascii")
    return port


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(endpoint):
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip()[-300:]
            status = process.poll()
            reason = f"exit status {status}" if status is not None else f"not ready after {START_SECONDS} s"
            raise LocalQueueError(f"the local queue did not start ({reason}): {last or 'no output'}; see {log}")
        time.sleep(POLL_SECONDS)


def _stop_process_group(process: subprocess.Popen[bytes]) -> None:
    """Stop the endpoint and its child processes; it is the leader of its own session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    # uv may end before the endpoint, which is still saving its state.
    while _is_group_alive(process) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_group_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # without this, a leader that has ended would keep its group alive
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
