"""Commands that label by the service: flags override keys, and without a terminal progress comes as lines."""

import io
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_UI_URL, temporary_settings

from flows import terminal
from flows.cli.main import main
from flows.config.run_config import RunConfig
from flows.service import follow
from flows.service.follow import _shown_progress
from tests.support.projects.project import Project

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture
def labeled(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configurations that the service was asked to label with."""
    labeled: list[RunConfig] = []
    monkeypatch.setattr("flows.service.api.require_api", lambda: "http://box:4200/api")
    monkeypatch.setattr(follow, "label_now", labeled.append)
    return labeled


def test_flags_override_keys(project: Project, labeled: list[RunConfig], tmp_path: Path) -> None:
    file = project.write_config()
    flags = ["--labeling.points_per_side", "3", "--targets.limit", "2", "--store", str(tmp_path / "trial")]
    done = CliRunner().invoke(main, ["service", "label", str(file), *flags])
    assert done.exit_code == 0, done.output
    (config,) = labeled
    assert (config.labeling.points_per_side, config.targets.limit) == (3, 2)
    assert config.store == str(tmp_path / "trial")
    assert f"The results are in {tmp_path / 'trial'}" in done.output


def test_schedules_take_flags_too(project: Project, labeled: list[RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled: list[Any] = []
    monkeypatch.setattr(
        "flows.service.schedules.schedule", lambda config, **_: scheduled.append(config) or "refseg/boats-nightly"
    )
    flags = ["--cron", "0 2 * * *", "--labeling.points_per_side", "3"]
    done = CliRunner().invoke(main, ["service", "schedule", str(project.write_config()), *flags])
    assert done.exit_code == 0, done.output
    assert scheduled[0].labeling.points_per_side == 3


def test_ctrl_c_leaves_the_run_to_the_service_and_says_how_to_cancel_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FlowRun(flow_id=uuid4(), name="quick-otter")
    monkeypatch.setattr("flows.service.api.require_api", lambda: "http://box:4200/api")
    monkeypatch.setattr(follow, "_start", lambda _: run)
    monkeypatch.setattr(follow, "workers_online", lambda: {"refseg-gpu": 1})
    monkeypatch.setattr(follow, "_follow", lambda *_: signal.raise_signal(signal.SIGINT))
    done = CliRunner().invoke(main, ["service", "label", str(project.write_config())])
    assert done.exit_code == 130
    assert done.output.endswith(
        f"Stopped: the run continues on the service; to cancel it: prefect flow-run cancel {run.id}.\n"
    )


def test_without_a_terminal_progress_comes_as_lines_now_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "SECONDS_BETWEEN_LINES", 3600)
    with terminal.messages.capture() as captured, _shown_progress() as show:
        show(None, "scheduled")
        show(12.4, "10 of 83 images, 2 images/s")
        monkeypatch.setattr(follow, "SECONDS_BETWEEN_LINES", 0)
        show(12.4, "10 of 83 images, 2 images/s")
    assert captured.get().splitlines() == ["scheduled", "12 %: 10 of 83 images, 2 images/s"]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ('{"default_ui": "v2", "v1_base_url": "/", "v2_base_url": "/v2"}', "/v2"),
        ('{"default_ui": "v1", "v1_base_url": "/", "v2_base_url": "/v2"}', ""),
        ('{"api_url": "http://box:4200/api"}', ""),
        ("<html>", ""),
        (None, ""),
    ],
)
def test_a_runs_link_leads_to_the_ui_that_asks_for_a_login(
    settings: str | None, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(url: str, **_: float) -> io.BytesIO:
        assert url == "http://box:4200/ui-settings"
        if settings is None:
            raise OSError("nobody answers")
        return io.BytesIO(settings.encode())

    monkeypatch.setattr("urllib.request.urlopen", answer)
    run = FlowRun(flow_id=uuid4(), name="quick-otter")
    with temporary_settings({PREFECT_UI_URL: "http://box:4200"}):
        assert follow._page_of(run) == f"http://box:4200{path}/runs/flow-run/{run.id}"
