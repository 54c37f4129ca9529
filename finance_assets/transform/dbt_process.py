"""dbt as a process that ends with the one that started it.

What belongs here: what runs in that process. A step whose process is killed leaves its children alive, and dbt would
go on writing to the warehouse, whose file it locks, while the next run is told that nobody does. The parent keeps a
pipe to this process's standard input open; when the parent is gone, however it ended, the pipe reaches its end.
"""

import os
import sys
import threading

#: As of a process that SIGTERM ended.
ENDED_WITH_PARENT = 143


def end_with_parent() -> None:
    """Wait for the end of standard input, then end this process at once; what is not committed is not written."""
    while os.read(0, 1024):
        pass
    os._exit(ENDED_WITH_PARENT)


def main() -> None:
    """Run dbt's command line."""
    threading.Thread(target=end_with_parent, name="end-with-parent", daemon=True).start()
    from dbt.cli.main import cli

    sys.argv[0] = "dbt"
    cli()


if __name__ == "__main__":
    main()
