"""Creates refseg's work pools, deployments and automations on a Prefect server, or updates them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from flows.config.shipped_files import deployment_files
from flows.errors import RunFailedError
from flows.execution.names import CPU_POOL, GPU_POOL
from refseg_core.errors import ConfigurationError

NOTIFY_BLOCK = "refseg-notify"
_DESCRIPTIONS = {
    CPU_POOL: "Whole runs, which plan, submit and evaluate.",
    GPU_POOL: "Groups of shards and memory banks, one at a time for each GPU.",
}


@dataclass(frozen=True)
class Deployed:
    """The names on the server, and what was left out and why."""

    deployments: list[str]
    automations: list[str]
    left_out: list[str]


def make_pools() -> None:
    """Creates the work pools that are missing."""
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for name, description in _DESCRIPTIONS.items():
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                pool = WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
                client.create_work_pool(pool)


def deploy(notify: str | None = None) -> Deployed:
    """Creates or updates everything. Raises RunFailedError if the server refuses the deployments."""
    make_pools()
    if notify is not None:
        _make_notification_block(notify)
    folder = deployment_files()
    names = _deploy_flows(folder / "prefect.yaml")
    return Deployed(names, *deploy_automations(yaml.safe_load((folder / "automations.yaml").read_text())))


def _deploy_flows(file: Path) -> list[str]:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(
        command,
        cwd=file.parent,
        env={**os.environ, "PREFECT_LOGGING_LEVEL": "WARNING"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RunFailedError(f"The Prefect server refused the deployments of {file}:\n{output}")
    content = yaml.safe_load(file.read_text())
    return [str(entry["name"]) for entry in content["deployments"]]


def deploy_automations(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Creates or replaces automations by name; returns the names, and those left out with the reason.

    `block_document_id: refseg-notify` stands for the URL of `--notify`, `deployment_id: flow/name` for that
    deployment. Actions whose block does not exist are left out, and automations without any action left.
    """
    made, left_out = [], []
    with get_client(sync_client=True) as client:
        block_id = _notification_block_id(client)
        for entry in entries:
            actions = [action for action in entry.get("actions", []) if block_id or not _notifies(action)]
            if entry.get("actions") and not actions:
                left_out.append(f"{entry['name']}: it only notifies, and no URL is given (--notify URL)")
                continue
            _replace(client, {**entry, "actions": [_resolved(client, action, block_id) for action in actions]})
            made.append(str(entry["name"]))
    return made, left_out


def _notifies(action: Mapping[str, Any]) -> bool:
    return action.get("block_document_id") == NOTIFY_BLOCK


def _resolved(client: SyncPrefectClient, action: Mapping[str, Any], block_id: str | None) -> dict[str, Any]:
    resolved = dict(action)
    if _notifies(action):
        resolved["block_document_id"] = block_id
    deployment = action.get("deployment_id")
    if isinstance(deployment, str) and "/" in deployment:
        try:
            resolved["deployment_id"] = str(client.read_deployment_by_name(deployment).id)
        except ObjectNotFound as error:
            raise ConfigurationError(f"automations.yaml: there is no deployment {deployment!r}.") from error
    return resolved


def _replace(client: SyncPrefectClient, content: Mapping[str, Any]) -> None:
    automation = Automation.model_validate(content)
    known = client.read_automations_by_name(automation.name)
    for doubled in known[1:]:
        client.delete_automation(doubled.id)
    if known:
        automation.id = known[0].id
        automation.update()
    else:
        automation.create()


def _make_notification_block(url: str) -> None:
    """Saves the block that posts {"text": ...}, as Slack, Mattermost and Rocket.Chat expect."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError("--notify: expected a URL for POST requests, beginning with https:// or http://.")
    block = CustomWebhookNotificationBlock(
        name=NOTIFY_BLOCK, url=url, json_data={"text": "{{subject}}\n{{body}}"}, allow_private_urls=True
    )
    block.save(NOTIFY_BLOCK, overwrite=True)


def _notification_block_id(client: SyncPrefectClient) -> str | None:
    slug = CustomWebhookNotificationBlock.get_block_type_slug()
    try:
        return str(client.read_block_document_by_name(NOTIFY_BLOCK, slug).id)
    except ObjectNotFound:
        return None
