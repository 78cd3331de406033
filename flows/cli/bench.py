"""`refseg bench`: measures speed on this machine, as a table, a JSON file and a chart.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flows.cli.options.numbers import FiniteRange, WholeRange
from flows.config.loading import load_config
from flows.execution.stopping import when_stopped
from refseg_core.errors import ConfigurationError, brief
from refseg_core.settings.labeling_paths import LABELING_PATHS, current_name

if TYPE_CHECKING:
    from tasks.models.profiling.inputs import Inputs


def _bench_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that all measurements share."""
    for option in (
        click.option("--out", default="bench", show_default=True, help="Folder for the JSON file and the chart."),
        click.option("--device", default="auto", show_default=True, help="'auto', 'cpu', 'cuda' or 'cuda:1'."),
        click.option(
            "--kept",
            type=FiniteRange(0.01, 1),
            default=0.9,
            show_default=True,
            help="With --random: the share of prompts whose masks pass; about 0.9 in real models.",
        ),
        click.option(
            "--random",
            "models",
            metavar="SAM2,DINOV2",
            help="Measure models of these names with random weights, on drawn images.",
        ),
        click.option(
            "--compiled",
            is_flag=True,
            help="Compile the path fast for this machine (batches.compiled), for GPUs.",
        ),
        click.option(
            "--config",
            "config_file",
            metavar="RUN.yaml",
            help="Measure the images, models and bank of this run; by default the demo's.",
        ),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@_bench_options
@click.option("--images", "num_images", type=WholeRange(1), default=4, show_default=True, help="Number of images.")
@click.option(
    "--paths",
    default=",".join(LABELING_PATHS),
    show_default=True,
    help="Paths to measure; the others are compared with the first.",
)
@click.pass_context
def bench(context: click.Context, /, *, paths: str, num_images: int, out: str, **what: Any) -> None:
    """Compare the labeling paths: time of every stage, memory, agreement, share of the machine's speed.

    Each image is labeled on every path in turn, in one process. On two CPU cores the path `plain` takes two minutes
    per image with SAM2 tiny; `--paths exact,fast,guided` leaves it out.
    """
    if context.invoked_subcommand is not None:
        _refuse_misplaced_flags(context)
        return
    from flows.terminal import progress_bars

    when_stopped("nothing is saved", "the same command measures again")
    chosen, folder = _chosen(paths), made_folder(out)
    with progress_bars(), _inputs(**what, num_images=num_images) as inputs:
        from tasks.models.profiling.compare_paths import compare_paths

        comparison = compare_paths(inputs, chosen)
    from flows.reports.speed_report import report_comparison

    report_comparison(comparison, folder)


def made_folder(out: str) -> Path:
    """Returns the folder, which is there before minutes are spent on what it will hold."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out: {out} cannot be used ({error.strerror}). Give another folder.") from error
    return folder


def _refuse_misplaced_flags(context: click.Context) -> None:
    """Raises UsageError for flags before the subcommand, which would not reach it."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        name = context.invoked_subcommand
        raise click.UsageError(f"{', '.join(given)}: flags of {name} belong after it: refseg bench {name} [OPTIONS].")


@bench.command()
@_bench_options
def scale(*, out: str, **what: Any) -> None:
    """Measure how the published method's cost grows with points, image size, references and images.

    On the path `guided` also with categories (1, 3, 10, 60, 1203: patches of the second image, looked for in the first)
    and with the share of images that hold any.
    """
    from flows.terminal import progress_bars

    when_stopped("nothing is saved", "the same command measures again")
    folder = made_folder(out)
    with progress_bars(), _inputs(**what, num_images=2) as inputs:
        from tasks.models.profiling.scaling import measure_growth

        growth = measure_growth(inputs)
    from flows.reports.speed_report import report_growth

    report_growth(growth, folder)


def _chosen(paths: str) -> list[str]:
    try:
        names = [current_name(name.strip()) for name in paths.split(",")]
    except ValueError as error:
        raise ConfigurationError(f"--paths: {error}.") from error
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--paths: expected paths, each once; got {brief(paths)}.")
    return names


@contextmanager
def _inputs(*, compiled: bool, **what: Any) -> Iterator["Inputs"]:
    """Yields the images and models to measure, which exist within the block."""
    with _chosen_inputs(**what) as inputs:
        yield inputs if not compiled else replace(inputs, batches=inputs.batches.model_copy(update={"compiled": True}))


@contextmanager
def _chosen_inputs(
    config_file: str | None, models: str | None, kept: float, device: str, num_images: int
) -> Iterator["Inputs"]:
    with tempfile.TemporaryDirectory(prefix="refseg-bench-") as place:
        if models is None:
            yield _of_run(config_file or demo_config(Path(place)), device, num_images)
            return
        if config_file is not None:
            raise ConfigurationError("--config and --random: choose one of the two.")
        from tasks.models.profiling.inputs import random_inputs

        segmenter, _, encoder = models.partition(",")
        yield random_inputs(
            Path(place), segmenter=segmenter, encoder=encoder, device=device, num_images=num_images, kept=kept
        )


def demo_config(folder: Path) -> str:
    """Returns the configuration file of the demo, which it writes into the folder with all that it needs."""
    from flows.demo import write_demo

    return str(write_demo(folder))


def _of_run(config_file: str, device: str, num_images: int) -> "Inputs":
    from flows.config.preflight import check
    from flows.pipeline import make_prototypes
    from tasks.index_dataset import index_dataset
    from tasks.models.profiling.inputs import inputs_of_run
    from tasks.store.store import Store

    config = load_config(config_file, {} if device == "auto" else {"device": device})
    check(config)
    store = Store(config.store)
    return inputs_of_run(
        store,
        dataset=index_dataset.fn(store, config.targets.source, conventions=config.conventions),
        prototypes=make_prototypes(config, store),
        spec=config.label_spec,
        num_images=num_images,
    )
