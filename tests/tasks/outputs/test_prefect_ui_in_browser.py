"""A real browser opens the Prefect UI and follows a run to what it shows: progress, tables, pictures, numbers.

REFSEG_PICTURES=FOLDER keeps the pictures that it takes, for people to look at.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows.config.loading import load_config
from flows.demo import write_demo
from tasks.outputs.prefect_ui.keys import artifact_name
from tests.support.commands import refseg_process
from tests.support.servers.browser import Page, any_browser
from tests.support.servers.prefect_server import PrefectServer, prefect_server

pytest_plugins = ["tests.support.servers.browser_pictures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectServer]:
    """A Prefect server of the test's own."""
    with prefect_server(tmp_path, asks_for_login=False) as running:  # else the page does, of a person
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's page."""
    with any_browser(width=1400, height=1000) as opened:
        yield opened


def _run_demo(folder: Path, server: PrefectServer) -> str:
    """Runs it with fewer points and images; returns what its artifacts' keys begin with."""
    file = write_demo(folder / "harbour")
    flags = ["--labeling.points_per_side", "8", "--batches.images_per_shard", "8"]
    result = refseg_process("run", file, *flags, environment=server.environment)
    assert result.returncode == 0, result.stderr
    return artifact_name(load_config(str(file)).store)


def _open(page: Page, server: PrefectServer, key: str) -> None:
    """Goes to the newest artifact of the key."""
    with server.client() as client:
        newest = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.CREATED_DESC
        )[0]
    page.open(f"{server.url}/artifacts/artifact/{newest.id}")


def test_a_run_can_be_followed_to_its_pictures_and_numbers(
    server: PrefectServer, page: Page, pictures: Path, tmp_path: Path
) -> None:
    name = _run_demo(tmp_path, server)
    page.open(f"{server.url}/runs")
    page.wait_for_text("refseg targets")
    page.picture(pictures / "runs.jpg")
    page.click("refseg targets")
    page.wait_for_text("label")
    page.picture(pictures / "run.jpg")
    page.open(f"{server.url}/artifacts")
    for kind in ("progress", "shards", "categories", "references", "certain", "metrics"):
        page.wait_for_text(f"{name}-{kind}")
    page.picture(pictures / "artifacts.jpg")
    for kind, shown in (("progress", "100%"), ("shards", "0000-00000"), ("metrics", "AP50")):
        _open(page, server, f"{name}-{kind}")
        page.wait_for_text(shown)
        page.picture(pictures / f"{kind}.jpg")
    for kind in ("references", "certain", "uncertain"):
        _open(page, server, f"{name}-{kind}")
        page.wait_for("[...document.images].some(image => image.complete && image.naturalWidth > 300)")
        file = page.picture(pictures / f"{kind}.jpg")
        with Image.open(file) as shot:
            assert len(shot.convert("RGB").resize((64, 64)).getcolors(maxcolors=4096) or []) > 50  # no empty page
