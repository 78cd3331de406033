"""`refseg benchmark`: runs a published benchmark and compares its numbers with the published ones.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from flows.cli.options.config_file import parse_changes
from flows.run import prefect_session, set_prefect_defaults
from refseg_core.errors import ConfigurationError, brief
from tasks.storage.uris import scheme


def _complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from flows.benchmarks.spec import benchmark_names

    return [name for name in benchmark_names() if name.startswith(incomplete)]


@click.command()
@click.argument("name", required=False, shell_complete=_complete_name)
@click.option("--data", metavar="DIR", help="Folder that holds the benchmark's data.")
@click.option(
    "--out", default="benchmarks", show_default=True, help="Folder or prefix for results, one below it per benchmark."
)
@click.option(
    "--only", multiple=True, metavar="AXIS=VALUES", help="Run only these values, such as shots=1,5 or seed=33."
)
@click.option("--corrected", is_flag=True, help="Use corrected conventions instead of the published code's.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Override a key of the run configuration.")
def benchmark(
    *,
    name: str | None,
    data: str | None,
    out: str,
    only: Sequence[str],
    corrected: bool,
    changes: Sequence[str],
) -> None:
    """Run a published benchmark and compare with the paper's numbers. Without NAME: list all benchmarks.

    Missing data is reported before anything runs. The same command resumes.
    """
    if name is None:
        from flows.reports.benchmark_report import report_benchmarks

        report_benchmarks()
        return
    from flows.benchmarks.spec import load_benchmark

    load_benchmark(name)  # an unknown one is said to be before anything else
    if data is None:
        raise click.UsageError("--data is missing: the folder that holds the benchmark's data.")
    chosen = {
        axis: tuple(int(part) if part.lstrip("-").isdigit() else part for part in values.split(","))
        for axis, values in map(_pair, only)
    }
    given = parse_changes(map(_pair, changes))
    store = (out if scheme(out) else str(Path(out).absolute())).rstrip("/") + f"/{name}"
    set_prefect_defaults()
    from flows.benchmarks.run import plan_benchmark, run_plan

    plan = plan_benchmark(name, str(Path(data).absolute()), store, chosen=chosen, corrected=corrected, changes=given)
    with prefect_session():
        table = run_plan(plan)
    from flows.reports.benchmark_report import report_benchmark

    report_benchmark(store, table)


def _pair(text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not sign or not left or not right:
        raise ConfigurationError(f"{brief(text)}: expected NAME=VALUE.")
    return left, right
