"""End to end: a real `dagster dev`, a range of sessions launched through its API, and its pages in a browser.

With ``FINANCE_ASSETS_UPDATE_SCREENSHOTS=1`` all sessions of five months and every asset are made, and the pictures of
the README are taken anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.browser import Watched, watched_page
from fixtures.dagster_dev import LOCATION, REPOSITORY, ROOT, DagsterDev, dagster_dev

from finance_assets.advisory.intake import drop_sample_files
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.market import TICKER_KPIS
from finance_assets.contracts.model import Partitioning
from finance_assets.contracts.publishing import DAILY_REPORT, TICKER_DOCUMENTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Read here: each test begins with these variables removed.
UPDATE = os.environ.get("FINANCE_ASSETS_UPDATE_SCREENSHOTS") == "1"
START, FIRST, LAST = (
    ("2012-10-01", "2012-10-01", "2013-03-01") if UPDATE else ("2013-02-01", "2013-02-19", "2013-03-01")
)
SESSIONS = 103 if UPDATE else 9
INPUTS = ("raw/trading_sessions", "raw/instruments")
PARTITIONED = sorted(path for path, contract in CONTRACTS.items() if contract.partitioning is Partitioning.SESSION)
#: No queue is set here; the branch that follows one is driven in tests/integration.
QUEUED = [path for path, contract in CONTRACTS.items() if contract.group == "transactions"]
#: The report is made by the schedules of the morning, not by what follows.
OTHERS = sorted(set(CONTRACTS) - set(PARTITIONED) - set(INPUTS) - set(QUEUED) - {DAILY_REPORT.path})

ASSET_FIELDS = """
  partitionStats { numMaterialized numPartitions }
  assetMaterializations(limit: 200) { runId partition metadataEntries { label ... on IntMetadataEntry { intValue } } }
  assetChecksOrError { ... on AssetChecks { checks {
    name blocking
    executionForLatestMaterialization { status runId evaluation { success description } }
  } } }
"""
INSTIGATORS = """
{ repositoriesOrError { ... on RepositoryConnection { nodes {
  jobs { name }
  schedules { name scheduleState { status } }
  sensors { name sensorState { id status } }
  assetNodes { assetKey { path } groupName }
} } } }
"""
DAEMONS = """
{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatErrors { message } } } } }
"""
STOP_SENSOR = """
mutation Stop($id: String!) {
  stopSensor(id: $id) { __typename ... on StopSensorMutationResult { instigationState { status } } }
}
"""
START_SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on Sensor { sensorState { status } } }
}
"""
#: The automation sensor looks every 30 seconds; dbt starts in between.
AUTOMATION_SECONDS = 1200


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    home = tmp_path_factory.mktemp("dagster_dev") / "home"
    # What vendors sent lies there before anything runs: the sensor finds it, and everything after it follows by itself.
    drop_sample_files(home / "landing")
    with dagster_dev(home, {"FINANCE_ASSETS_MARKET_START": START}) as server:
        # The welcome that a new instance shows would stand before every page.
        server.graphql("mutation { setNuxSeen }")
        yield server
        everything = server.program.members()
        assert len(everything) >= 4, "web server, daemon, code server and their parent"
        server.program.end()
        assert server.program.members() == []
        assert [process for process in everything if process.is_running() and process.status() != "zombie"] == []


@pytest.fixture(scope="module")
def repository(dev: DagsterDev) -> dict[str, Any]:
    """What the code location serves when it comes up."""
    nodes = dev.graphql(INSTIGATORS)["repositoriesOrError"]["nodes"]
    assert len(nodes) == 1
    return dict(nodes[0])


@pytest.fixture(scope="module")
def run_id(dev: DagsterDev, repository: dict[str, Any]) -> str:
    """The run of the range, ended well; what it reads that has no sessions is made by itself before."""
    wait_until_made(dev, INPUTS)
    # Otherwise what follows by itself would start in between, and take the two cores from these tests.
    states = {sensor["name"]: sensor["sensorState"]["id"] for sensor in repository["sensors"]}
    stopped = dev.graphql(STOP_SENSOR, id=states["automation"])["stopSensor"]
    assert stopped["instigationState"]["status"] == "STOPPED"

    launched = dev.launch("market_sessions", tags={RANGE_START_TAG: FIRST, RANGE_END_TAG: LAST})
    ended = dev.wait_for_run(launched)
    assert ended["status"] == "SUCCESS", dev.program.output[-4000:]
    assert ended["stats"]["stepsFailed"] == 0
    if UPDATE:
        let_the_rest_follow(dev)
    return launched


def wait_until_made(dev: DagsterDev, paths: Sequence[str]) -> None:
    """Wait until each asset was made and every check of it has passed."""

    def is_good(path: str) -> bool:
        asset = dev.asset(path, ASSET_FIELDS)
        checks = [check["executionForLatestMaterialization"] for check in asset["assetChecksOrError"]["checks"]]
        return bool(asset["assetMaterializations"]) and all(each and each["status"] == "SUCCEEDED" for each in checks)

    left = list(paths)

    def all_are_good() -> bool:
        # One after the other: asking after all of them all the time takes the server's time from the runs.
        while left and is_good(left[0]):
            del left[0]
        return not left

    def looked() -> bool:
        time.sleep(1)
        return all_are_good()

    dev.program.wait_until(looked, seconds=AUTOMATION_SECONDS, what=f"made by itself: {', '.join(paths)}")


def let_the_rest_follow(dev: DagsterDev) -> None:
    """Start the automation again and wait for marts, exports and documents."""
    selector = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION, "sensorName": "automation"}
    assert dev.graphql(START_SENSOR, selector=selector)["startSensor"]["sensorState"]["status"] == "RUNNING"
    wait_until_made(dev, OTHERS)


def test_the_workspace_holds_every_asset(repository: dict[str, Any]) -> None:
    served = {"/".join(node["assetKey"]["path"]): node["groupName"] for node in repository["assetNodes"]}
    assert served == {path: contract.group for path, contract in CONTRACTS.items()}


def test_every_sensor_and_schedule_is_on(repository: dict[str, Any]) -> None:
    sensors = {sensor["name"]: sensor["sensorState"]["status"] for sensor in repository["sensors"]}
    schedules = {schedule["name"]: schedule["scheduleState"]["status"] for schedule in repository["schedules"]}
    assert {"automation", "run_failure_alerts"} <= set(sensors)
    assert "market_sessions_daily" in schedules
    assert set(sensors.values()) == {"RUNNING"}
    assert set(schedules.values()) == {"RUNNING"}


def test_no_daemon_is_missing(dev: DagsterDev) -> None:
    def unhealthy() -> list[Any]:
        statuses = dev.graphql(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return [status for status in statuses if status["required"] and not status["healthy"]]

    dev.program.wait_until(lambda: not unhealthy(), seconds=120, what="every daemon has a heartbeat")


@pytest.mark.parametrize("path", PARTITIONED)
def test_every_session_of_the_range_is_materialised_and_checked(path: str, dev: DagsterDev, run_id: str) -> None:
    asset = dev.asset(path, ASSET_FIELDS)
    made = [event["partition"] for event in asset["assetMaterializations"] if event["runId"] == run_id]
    assert (len(made), min(made), max(made)) == (SESSIONS, FIRST, LAST)
    assert asset["partitionStats"]["numMaterialized"] == SESSIONS
    assert asset["partitionStats"]["numPartitions"] >= SESSIONS + (0 if UPDATE else 5), "those before the range wait"

    checks = {check["name"]: check for check in asset["assetChecksOrError"]["checks"]}
    assert checks["honours_contract"]["blocking"]
    executions = {name: check["executionForLatestMaterialization"] for name, check in checks.items()}
    assert {name: each["status"] for name, each in executions.items()} == dict.fromkeys(checks, "SUCCEEDED")
    assert all(each["runId"] == run_id and each["evaluation"]["success"] for each in executions.values())


@pytest.mark.parametrize("path", INPUTS)
def test_what_has_no_sessions_is_made_and_checked(path: str, dev: DagsterDev, run_id: str) -> None:
    asset = dev.asset(path, ASSET_FIELDS)
    assert len(asset["assetMaterializations"]) >= 1
    statuses = [check["executionForLatestMaterialization"]["status"] for check in asset["assetChecksOrError"]["checks"]]
    assert statuses
    assert set(statuses) == {"SUCCEEDED"}


def test_the_tables_lie_in_the_lake(dev: DagsterDev, run_id: str) -> None:
    kpis = sorted(path.stem for path in (dev.home / "lake" / TICKER_KPIS.path).glob("*.parquet"))
    assert (len(kpis), kpis[0], kpis[-1]) == (SESSIONS, FIRST, LAST)


# -- the pages -----------------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a picture goes: into the working copy only when somebody asks for it."""
    folder = ROOT / "docs" / "images" if UPDATE else tmp_path
    return folder / f"{request.function.__name__.removeprefix('test_page_of_')}.png"


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    with watched_page(browser, storage={"dagster-nav-collapsed": "true"}) as page:
        yield page


@pytest.mark.browser
def test_page_of_asset_graph(dev: DagsterDev, run_id: str, browser: Browser, picture: Path) -> None:
    # Large enough for the whole graph: what lies outside of the view is not drawn.
    with watched_page(browser, width=2600, height=2000, storage={"dagster-nav-collapsed": "true"}) as watched:
        _look_at_the_graph(dev, watched, picture)


def _look_at_the_graph(dev: DagsterDev, watched: Watched, picture: Path) -> None:
    page = watched.page
    for group in sorted({contract.group for contract in CONTRACTS.values()}):
        page.goto(f"{dev.url}/locations/{REPOSITORY}@{LOCATION}/asset-groups/{group}/lineage")
        _see_every_asset(page, [path for path, contract in CONTRACTS.items() if contract.group == group])
    page.goto(f"{dev.url}/asset-groups")
    page.locator("input[placeholder^='Jump to'] >> xpath=following::button[1]").click()  # hides the list of groups
    page.get_by_text("market", exact=True).first.wait_for()
    page.keyboard.press("Alt+e")  # opens every group
    page.locator("foreignObject").first.wait_for()
    page.wait_for_load_state("networkidle")
    _bring_into_view(page)
    # Nicer to look at, and no condition: what an asset says of itself comes with the next poll.
    for _ in range(40):
        if not any("Loading" in text for text in page.locator("foreignObject").all_text_contents()):
            break
        page.wait_for_timeout(500)
    watched.picture(picture)
    assert picture.stat().st_size > 50_000
    assert watched.errors == []
    assert watched.refused == []


@pytest.mark.browser
def test_page_of_ticker_kpis(dev: DagsterDev, run_id: str, watched: Watched, picture: Path) -> None:
    page = watched.page
    page.goto(f"{dev.url}/assets/{TICKER_KPIS.path}?view=overview")
    for column in TICKER_KPIS.columns[:6]:
        page.get_by_text(column.name, exact=True).first.wait_for()
    page.get_by_text("unit: sessions").first.wait_for()
    page.get_by_text("Latest check results").first.wait_for()
    page.wait_for_load_state("networkidle")
    watched.picture(picture)

    page.goto(f"{dev.url}/assets/{TICKER_KPIS.path}?view=checks")
    page.get_by_text("honours_contract").first.wait_for()
    assert watched.errors == []
    assert watched.refused == []


def test_what_follows_is_made_by_itself_with_every_check(dev: DagsterDev, run_id: str) -> None:
    let_the_rest_follow(dev)
    documents = sorted(path.stem for path in (dev.home / "lake" / TICKER_DOCUMENTS.path).glob("*.json"))
    assert "AAPL" in documents


def _see_every_asset(page: Page, paths: Sequence[str]) -> None:
    """Zoom out until each asset has been seen: what is outside of the view is not drawn, and what is tiny has no name."""
    # Long names are shortened in the middle: stg_trad…_sessions.
    missing = {path.split("/")[1] for path in paths}
    page.locator("foreignObject").first.wait_for()
    for _ in range(60):
        texts = page.locator("foreignObject").all_text_contents()
        missing = {name for name in missing if not any(name[:4] in text and name[-9:] in text for text in texts)}
        if not missing:
            return
        page.mouse.move(1300, 1000)
        page.keyboard.down("Control")
        page.mouse.wheel(0, 10)
        page.keyboard.up("Control")
        page.wait_for_timeout(250)
    raise AssertionError(f"never drawn: {', '.join(sorted(missing))}")


def _bring_into_view(page: Page) -> None:
    """Move the graph, and shrink it where it must be, until all of it is seen."""
    size = page.viewport_size
    assert size is not None
    left, top, right, bottom = (
        70.0,
        112.0,
        size["width"] - 50.0,
        size["height"] - 4.0,
    )  # between the bars and the zoom control
    for _ in range(20):
        boxes = page.eval_on_selector_all(
            "foreignObject",
            "all => all.map(each => each.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])",
        )
        seen = [min(box[0] for box in boxes), min(box[1] for box in boxes)]
        seen += [max(box[2] for box in boxes), max(box[3] for box in boxes)]
        if seen[0] >= left and seen[1] >= top and seen[2] <= right and seen[3] <= bottom:
            return
        if seen[2] - seen[0] > right - left or seen[3] - seen[1] > bottom - top:
            page.mouse.move((left + right) / 2, (top + bottom) / 2)
            page.keyboard.down("Control")
            page.mouse.wheel(0, 40)
            page.keyboard.up("Control")
        else:
            # From a place without assets, so that none is dragged or chosen.
            x, y = _empty_place(boxes, left, top, right, bottom)
            page.mouse.move(x, y)
            page.mouse.down()
            shift = ((left + right - seen[0] - seen[2]) / 2, (top + bottom - seen[1] - seen[3]) / 2)
            page.mouse.move(x + shift[0], y + shift[1], steps=4)
            page.mouse.up()
        page.wait_for_timeout(150)
    raise AssertionError("the graph does not fit the page")


def _empty_place(boxes: list[list[float]], left: float, top: float, right: float, bottom: float) -> tuple[float, float]:
    for x in range(int(right) - 20, int(left), -20):
        for y in range(int(top) + 20, int(bottom), 20):
            if not any(box[0] - 8 <= x <= box[2] + 8 and box[1] - 8 <= y <= box[3] + 8 for box in boxes):
                return float(x), float(y)
    raise AssertionError("there is no empty place on the page")
