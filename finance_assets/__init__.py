"""finance_assets: a Dagster platform whose every number is right, exact, explained and reproducible.

Each domain is a package of its own (``market``, ``sectors``, …); ``registry`` says where everything lives. This
module imports nothing that takes time, so that ``import finance_assets`` costs nothing.
"""

import os

if os.name == "posix" and (os.uname().sysname, os.uname().machine) == ("Linux", "x86_64"):
    # Large tables come and go: jemalloc keeps their memory for the next one, where Arrow's default gives it back to the
    # system and pays for new pages each time. Arrow looks when it is first imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
