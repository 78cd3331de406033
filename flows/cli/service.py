"""The commands of the service: a Prefect server, an S3 server and workers, on one machine or several.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from flows.cli.options.config_file import config_flags, load_with_flags
from flows.cli.options.numbers import WholeRange
from flows.execution.names import GPU_POOL
from flows.execution.stopping import stopping_signal, when_stopped
from flows.local_stack.state_folder import DEFAULT_FOLDER, FOLDER_VARIABLE, ServiceFolder
from flows.service.api import LOGIN_VARIABLE
from refseg_core.errors import counted
from tasks.storage.uris import typed

if TYPE_CHECKING:
    from flows.local_stack.lifecycle import Stack

_PORT = WholeRange(1, 65535)
_folder_option = click.option(
    "--folder",
    envvar=FOLDER_VARIABLE,
    default=DEFAULT_FOLDER,
    show_default=True,
    help=f"Folder for the service's data, logs and secrets; its env.sh sets {FOLDER_VARIABLE}, which names it, too.",
)


@click.group()
def service() -> None:
    """Run refseg as a service: server, storage and workers, with schedules and a UI.

    `refseg service up` starts all of it on this machine; `refseg service worker` adds another machine's GPUs.
    """


@service.command()
@_folder_option
@click.option("--port", type=_PORT, default=4200, show_default=True, help="Port of the Prefect server and its UI.")
@click.option("--s3-port", type=_PORT, default=8333, show_default=True, help="Port of the S3 server.")
@click.option("--no-s3", is_flag=True, help="Start no S3 server; stores are folders, or buckets elsewhere.")
@click.option(
    "--gpu-workers",
    type=WholeRange(0),
    metavar="N",
    help="Number of GPU workers; by default one per GPU, at least one.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for other machines too."
)
@click.option("--no-auth", is_flag=True, help="Ask for no login; only where no other machine reaches the server.")
@click.option("--database", metavar="URL", help="Database, postgresql+asyncpg://...; by default SQLite in the folder.")
@click.option("--notify", metavar="URL", help="URL to which automations post messages (Slack and others).")
@click.option("--foreground", is_flag=True, help="Stay in the foreground until a signal, as for systemd.")
def up(
    *,
    folder: str,
    port: int,
    s3_port: int,
    no_s3: bool,
    gpu_workers: int | None,
    host: str,
    no_auth: bool,
    database: str | None,
    notify: str | None,
    foreground: bool,
) -> None:
    """Start Prefect server, S3 server and workers in the background, and keep them running."""
    flag = _folder_flag(folder)
    left = f"parts of the service may still run, which `refseg service down{flag}` ends"
    when_stopped("what was started has ended", "the same command starts it again", ended=left)
    from flows.local_stack.lifecycle import running_stack, take_down
    from flows.local_stack.options import StackOptions
    from flows.terminal import messages, results

    place = ServiceFolder(folder)
    options = StackOptions(host, port, None if no_s3 else s3_port, gpu_workers, database, notify, auth=not no_auth)
    with running_stack(place, options, lambda text: messages.print(text, style="dim")) as stack:
        for line in _next_steps(place, stack, flag):
            results.print(line)
        if not foreground:
            return
        with suppress(KeyboardInterrupt):  # from here on a signal is no failure
            while place.is_held():
                time.sleep(1)
        take_down(place)
    if stopping_signal() is None:  # the supervisor has ended by itself
        raise SystemExit(1)
    click.echo("Everything has ended.")


def _folder_flag(folder: str) -> str:
    """Returns what commands need to find the folder, after a space."""
    return "" if folder == DEFAULT_FOLDER else f" --folder {typed(folder)}"


def _next_steps(place: ServiceFolder, stack: "Stack", flag: str) -> Iterator[str]:
    yield f"UI:      {stack.ui_url}"
    if stack.auth:
        yield f"Login:   {LOGIN_VARIABLE} in {place.env_file}, which the UI asks for, too"
    if stack.s3_endpoint is not None:
        yield f"S3:      {stack.s3_endpoint}, bucket s3://{stack.bucket}"
    yield f"Folder:  {place.path} (logs in {place.logs})"
    yield "Next:"
    yield f"  . {place.env_file}                 # use the service in this shell"
    yield "  refseg service label run.yaml      # label now, and show the progress"
    yield '  refseg service schedule run.yaml --cron "0 2 * * *"'
    yield f"  refseg service status{flag}; refseg service down{flag}"


@service.command()
@_folder_option
def down(folder: str) -> None:
    """End everything that `up` started. Data, runs and schedules are kept for the next `up`."""
    when_stopped("parts may still run", "the same command ends them", ended="parts may still run")
    from flows.local_stack.lifecycle import take_down

    was_up = take_down(ServiceFolder(folder))
    click.echo("Everything has ended." if was_up else "The service was not up.")


@service.command("status")
@_folder_option
def service_status(folder: str) -> None:
    """Show the parts, the online workers and the latest runs. Exit code 1 if a part does not run."""
    when_stopped("nothing is changed", "the same command starts again")
    from flows.local_stack.lifecycle import read_stack
    from flows.service.api import answers
    from flows.terminal import results

    place = ServiceFolder(folder)
    state = place.read_state()
    if state is None or not place.is_held():
        click.echo(f"The service of {place.path} is not up: refseg service up{_folder_flag(folder)}")
        click.get_current_context().exit(1)
    stack = read_stack(place)
    if stack is not None:
        os.environ["PREFECT_API_URL"] = stack.own_api_url
        if stack.auth:
            os.environ[LOGIN_VARIABLE] = place.login()
    from flows.local_stack.status import print_parts
    from flows.service.status import print_server

    print_parts(state.parts)
    if stack is None or not answers(f"{stack.own_api_url}/health"):
        results.print("The Prefect server does not answer (yet).")
        click.get_current_context().exit(1)
    results.print(f"UI {stack.ui_url}" + (f", S3 {stack.s3_endpoint}" if stack.s3_endpoint else ""))
    print_server()
    if any(part.state != "running" for part in state.parts):
        click.get_current_context().exit(1)


@service.command()
@click.option("--pool", default=GPU_POOL, show_default=True, help="Work pool to take runs from.")
@click.option("--gpus", default="all", show_default=True, help="GPUs to use, one worker each: all, or 0,1.")
@click.option("--name", help="Prefix of the workers' names; by default this machine's name.")
def worker(pool: str, gpus: str, name: str | None) -> None:
    """Run workers on this machine for the server at PREFECT_API_URL, until Ctrl-C."""
    from flows.local_stack.worker_machine import work_for
    from flows.service.api import require_api

    work_for(require_api(), pool, gpus, name)


@service.command()
@click.option("--notify", metavar="URL", help="URL to which automations post messages (Slack and others).")
def deploy(notify: str | None) -> None:
    """Create refseg's work pools, deployments and automations on the server at PREFECT_API_URL."""
    from flows.service.api import require_api

    require_api()
    from flows.service.deployments import deploy as deploy_all

    deployed = deploy_all(notify)
    number = counted(len(deployed.automations), "automation")
    click.echo(f"In place: {counted(len(deployed.deployments), 'deployment')}, {number}.")
    for reason in deployed.left_out:
        click.echo(f"Left out {reason}", err=True)


@service.command()
@click.option("--cron", required=True, help='Schedule, for example "0 2 * * *": at two every night.')
@click.option(
    "--timezone", default="UTC", show_default=True, help="Time zone of the schedule, for example Europe/Berlin."
)
@click.option("--name", help="Name of the deployment; by default that of the image folder.")
@config_flags
def schedule(config_file: str, cron: str, timezone: str, name: str | None, **flags: str | None) -> None:
    """Run CONFIG.yaml on the service by schedule; each run labels only new images. Flags override its keys."""
    from flows.service.api import require_api, ui_address

    config = load_with_flags(config_file, flags)
    api_url = require_api()
    from flows.service.schedules import schedule as schedule_run

    deployment = schedule_run(config, cron=cron, timezone=timezone, name=name)
    click.echo(f"Scheduled {deployment}: {ui_address(api_url)}/deployments")
    click.echo(f"To run it now: prefect deployment run {deployment}")


@service.command("label")
@config_flags
def label_by_service(config_file: str, **flags: str | None) -> None:
    """Label with CONFIG.yaml on the service now, show the progress, and what came of it; flags override its keys.

    Places given as flags are relative to the file's folder, as in the file.
    """
    from flows.service.api import require_api

    config = load_with_flags(config_file, flags)
    require_api()
    from flows.service.follow import label_now

    key = label_now(config)
    from flows.reports.run_report import report_stored

    report_stored(config.store, key)
