"""Secrets stand in no output: not in what commands say, not in logs, not in a store, and not in what Prefect keeps."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from flows.config.run_config import RunConfig
from flows.pipeline import run_pipeline
from tests.support.commands import contents, done, refseg, refused, without_prefect
from tests.support.models import make_demo_tiny
from tests.support.projects.project import Project
from tests.support.servers.prefect_harness import prefect_harness
from tests.support.weight_files import MODEL

pytest_plugins = ["tests.support.projects.tiny_project"]

SECRET = "hunter2hunter2"  # of whatever kind, and in every place
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": f"AKIA{SECRET}",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": f"token-{SECRET}",
    "AWS_EC2_METADATA_DISABLED": "true",
    "REFSEG_STORE_ATTEMPTS": "1",
}
_WITH_SECRETS = [
    f"s3://user:{SECRET}@bucket/place",
    f"https://user:{SECRET}@127.0.0.1:9/place",
    f"http://{SECRET}@127.0.0.1:9/place",
    f"http://127.0.0.1:9/place?X-Amz-Signature={SECRET}",
    f"http://127.0.0.1:9/place?x=1&X-Amz-Security-Token={SECRET}&y=2",
    f"http://127.0.0.1:9/place?sig={SECRET}&se=2030",
    f"http://127.0.0.1:9/place?AWSAccessKeyId=A&Signature={SECRET}",
    f"simplecache::s3://user:{SECRET}@bucket/place",
    f"http://127.0.0.1:9/place?token={SECRET}#{SECRET}",
    f"s3://user:{SECRET}@[bucket/place",
    f"gopher9://user:{SECRET}@host/place",
]
_UNREACHABLE = [place for place in _WITH_SECRETS if "s3://" not in place or "[" in place]  # and reported at once
_KEYS = ["store", "references.images", "references.annotations", "targets.images", "targets.annotations", "pictures"]
_KEYS += ["targets.masks_from", "segmenter.weights", "encoder.weights"]


@pytest.fixture(autouse=True)
def secrets_and_commands(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Secrets in the environment, commands without Prefect, and all our logs heard."""
    without_prefect(monkeypatch)
    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.WARNING)
    for name in ("flows", "tasks", "refseg_core"):
        caplog.set_level(logging.DEBUG, name)


def _keeps_secrets(result: Result, logs: pytest.LogCaptureFixture, *folders: Path) -> None:
    """Neither what a command said, nor its logs, nor what lies in the folders holds the secret."""
    assert SECRET not in result.output
    assert SECRET not in logs.text
    for folder in folders:
        for name, data in contents(folder).items():
            assert SECRET not in name
            assert SECRET.encode() not in data, name


@pytest.mark.slow
def test_what_works_keeps_the_secrets_of_the_environment(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    store, out = project.folder / "store", project.folder / "out"
    config = project.write_config(pictures=str(out / "pictures"))
    for command in (
        *(("index", config), ("run", config), ("label", config), ("evaluate", config), ("bank", config)),
        *(("status", store), ("status", store, "--json"), ("verify", store), ("gc", store, "--yes", "--min-age", "0")),
        *(("export", store, "--out", out / form, "--format", form) for form in ("coco", "coco-results", "parquet")),
        *(("show", store, "--out", out), ("weights", "list"), ("init", out / "run.yaml")),
    ):
        result = refseg(*command)
        done(result)
        _keeps_secrets(result, caplog, project.folder)


@pytest.mark.parametrize("key", _KEYS)
@pytest.mark.slow
def test_an_address_with_a_secret_is_refused_and_not_repeated(
    key: str, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    for place in _WITH_SECRETS:
        file = project.write_config(**{key.replace(".", "__"): place})
        result = refseg("run", file)
        file.unlink()
        assert f"{key}: holds a user or password" in refused(result)
        _keeps_secrets(result, caplog, project.folder)
        result = refseg("run", project.write_config(), f"--{key}", place)
        refused(result)
        _keeps_secrets(result, caplog, project.folder)


@pytest.mark.parametrize("place", _WITH_SECRETS)
def test_mistakes_do_not_repeat_what_they_are_made_of(
    place: str, project: Project, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = project.write_config().read_text()
    file = tmp_path / "spoiled.yaml"
    for content in (
        f"{plain}\nreferences: '{place}'\n",
        f"{plain}\nlabeling: '{place}'\n",
        f"{plain}\nbatches: {{images_per_shard: '{place}'}}\n",
        f"{plain}\ndevice: ['{place}']\n",
        f"{plain}\nx: {place}: [\n",
        f"store: [{place}, '\n",
    ):
        file.write_text(content)
        for flags in ((), ("--references.images", "x"), ("--labeling.points_per_side", place)):
            result = refseg("run", file, *flags)
            assert result.exit_code == 2
            _keeps_secrets(result, caplog)
    if place not in _UNREACHABLE:
        return
    for command in ("status", "verify", "gc", "export", "show"):
        options = ("--out", "x") if command in ("export", "show") else ()
        result = refseg(command, place, *options)
        assert result.exit_code in (1, 2)
        assert isinstance(result.exception, SystemExit)
        _keeps_secrets(result, caplog)
    monkeypatch.setenv("REFSEG_WEIGHTS", place)
    for arguments in (("weights", "list"), ("weights", "pull", MODEL)):
        result = refseg(*arguments)
        assert result.exit_code in (1, 2)
        assert isinstance(result.exception, SystemExit)
        _keeps_secrets(result, caplog)


@pytest.mark.slow
def test_outputs_with_secrets_in_their_address_do_not_show_them(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(refseg("run", project.write_config()))
    for place in (*_UNREACHABLE, f"memory://user:{SECRET}@x/y"):
        for command in ("export", "show"):
            result = refseg(command, project.folder / "store", "--out", place)
            assert result.exception is None or isinstance(result.exception, SystemExit)
            _keeps_secrets(result, caplog)


@pytest.mark.slow
def test_what_prefect_keeps_of_a_run_holds_no_secret(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its parameters, its states and its logs: of a run that works, and of one that fails."""
    monkeypatch.undo()
    make_demo_tiny(monkeypatch)
    with prefect_harness(_ENVIRONMENT):
        good = project.config_with({"targets.image_ids": ["1"]})
        state, kept = _kept_of(good)
        assert state.is_completed()
        assert SECRET not in kept
        _, kept = _kept_of(project.config_with({"targets.images": "/nowhere/images"}))
        assert "/nowhere/images: not found" in kept
        assert SECRET not in kept


def _kept_of(config: RunConfig) -> tuple[State[Any], str]:
    """Returns how a run ended, and all that is kept of runs."""
    state = run_pipeline(config, return_state=True)
    with get_client(sync_client=True) as client:
        flows, tasks = client.read_flow_runs(), client.read_task_runs()
        logs = client.request("POST", "/logs/filter", json={}).json()
    return state, json.dumps([run.model_dump(mode="json") for run in (*flows, *tasks)] + logs, default=str)
