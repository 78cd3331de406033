"""The command line: commands read the configuration, call a flow or a task, and print the results.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from flows.cli.bank import bank
from flows.cli.bench import bench
from flows.cli.bench_accuracy import accuracy
from flows.cli.benchmark import benchmark
from flows.cli.export import export
from flows.cli.options.config_file import config_flags, load_with_flags
from flows.cli.options.kept_labels import filter_options
from flows.cli.pilot import pilot
from flows.cli.references import references
from flows.cli.review import review
from flows.cli.service import service
from flows.cli.store import STORE_COMMANDS
from flows.cli.thresholds import thresholds
from flows.config.flag_values import parse_numbers
from flows.config.loading import load_config
from flows.config.template import template
from flows.errors import RunFailedError
from flows.execution.stopping import stopped_by_signals, stopped_outcome, stopping_signal, when_stopped
from flows.run import checked_session, execute, set_prefect_defaults
from refseg_core.errors import RefsegError, printable, redact_text
from tasks.storage.retry import explain, is_transient_error, place_of, reason
from tasks.storage.uris import redact, typed

if TYPE_CHECKING:
    from tasks.store.thresholds import FilterOptions

_USER_ERROR, _FAILURE = 2, 1
_KEPT = "This may be temporary; finished work is kept, and the same command resumes."


def _on_terminal(text: str) -> str:
    return printable(text, kept="\n\t")


def _show_error(what: str) -> None:
    click.secho(_on_terminal(f"Error: {what}"), fg="red", err=True)


class _Commands(click.Group):
    """Turns errors and signals into one message and an exit code: 2 if the user can fix it, 1 otherwise.

    A signal that stops the command has the exit code of a process that it ends: 128 and its number.
    """

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        with stopped_by_signals():
            try:
                return self._invoke_until_stopped(context)
            except click.UsageError as error:
                message = error.format_message()  # it repeats what was typed, which may be an address with a password
                if (shown := _on_terminal(redact_text(message))) == message:
                    raise
                raise click.UsageError(shown, error.ctx) from None
            except RefsegError as error:
                _show_error(str(error))
                context.exit(_USER_ERROR)
            except RunFailedError as error:
                _show_error(str(error))
                context.exit(_FAILURE)
            except Exception as error:
                if isinstance(error, OSError) and (known := explain(error, place_of(error))) is not error:
                    _show_error(str(known))
                    context.exit(_USER_ERROR)
                if not is_transient_error(error) or isinstance(
                    error, BrokenPipeError
                ):  # the reader of the output has closed it
                    raise
                _show_error(f"{reason(error)}. {_KEPT}")
                context.exit(_FAILURE)

    def _invoke_until_stopped(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.exceptions.Exit, SystemExit):
            raise
        except BaseException:  # whatever became of the interrupt on its way here
            if (number := stopping_signal()) is None:
                raise
            click.secho(stopped_outcome(), fg="yellow", err=True)
            context.exit(128 + number)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="refseg")
def main() -> None:
    """Find and segment every instance of a few referenced categories in whole image datasets, with no training.

    Start with `refseg demo`, then `refseg init run.yaml` and `refseg run run.yaml` for your own images.
    """


@main.command()
@click.argument("file", default="run.yaml", type=click.Path(dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def init(file: str, force: bool) -> None:
    """Write a configuration file with every key explained."""
    from tasks.storage.objects import write_uri

    path = Path(file)
    if "://" in file:
        raise click.UsageError(f"{redact(file)} is an address; give a local file.")
    if path.exists() and not force:
        raise click.UsageError(f"{file} exists already; choose another name or pass --force.")
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is no folder; create it first.")
    write_uri(str(path.absolute()), [template().encode()])
    click.echo(f"Wrote {file}. Fill in the paths, then: refseg run {typed(file)}")


@main.command()
@config_flags
def run(config_file: str, **flags: str | None) -> None:
    """Run the whole pipeline from one configuration file; flags override its keys.

    Finished work is found in the store and not repeated, so the same command resumes a run.
    """
    execute(load_with_flags(config_file, flags))


@main.command()
@click.option("--images", "every_image", is_flag=True, help="Read every image to label whole, to find damaged ones.")
@config_flags
def index(config_file: str, every_image: bool, **flags: str | None) -> None:
    """Index references and targets, and show their counts, sizes, oddities and a picture.

    Of the images to label, some 200 headers are opened; with --images all of them are read and decoded. Weights that
    are missing, have not the published size, or are of another model are told; a damaged published file shows when
    `refseg bank` loads it.
    """
    from flows.oddities import report_leakage, report_numbering, report_unfit_weights, wanted_shots
    from flows.reports.run_report import report_dataset, report_opened
    from flows.terminal import progress_bars, results
    from refseg_core.tables import Images
    from tasks.index_dataset import index_dataset
    from tasks.outputs.opened_images import open_images
    from tasks.store.store import Store

    config = load_with_flags(config_file, flags)
    indexed = []
    for title, source, num_shots in (
        ("References", config.references.source, wanted_shots(config)),
        ("Targets", config.targets.source, None),
    ):
        dataset = index_dataset.fn(Store(config.store), source, conventions=config.conventions)
        report_dataset(config.store, title, source, dataset, num_shots=num_shots)
        indexed.append(dataset)
    images, most = Store(config.store).load(indexed[-1], Images), config.labeling.max_image_pixels
    with progress_bars():
        opened = open_images(config.targets.images, images, every=every_image, max_pixels=most)
    report_opened(opened, len(images))
    report_numbering(config, results.print, *indexed)
    report_leakage(config, results.print, *indexed)
    report_unfit_weights(config, results.print)


@main.command()
@config_flags
def label(config_file: str, **flags: str | None) -> None:
    """Label the images that are not labeled yet; build the bank first if it is missing."""
    config = load_with_flags(config_file, flags)
    with checked_session(config):
        from flows.pipeline import label_targets, make_bank

        plan = label_targets(config, make_bank(config))
    from flows.reports.run_report import report_labels

    report_labels(config.store, plan)


@main.command()
@filter_options("those that `refseg thresholds` saved, else 0.5 where another option is given")
@config_flags
def evaluate(config_file: str, kept: "FilterOptions", **flags: str | None) -> None:
    """Compare complete labels with the targets' ground truth.

    AP counts labels of every score; precision, recall and F1 are also those at the thresholds.
    """
    when_stopped("no metrics are saved", "the same command starts again")
    config = load_with_flags(config_file, flags)
    if config.targets.annotations is None:
        raise click.UsageError("targets.annotations is null: there is no ground truth to compare with.")
    with checked_session(config):
        from flows.pipeline import evaluate_run

        metrics = evaluate_run(config, kept if kept.is_given else None)
        when_stopped("the metrics are saved", "the same command shows them")
    from flows.reports.run_report import report_evaluation

    report_evaluation(config.store, metrics, by_saved=kept.thresholds in (None, "auto"))


@main.command()
@click.option("--seeds", default="33,42,13", show_default=True, help="Seeds of the references: a run for each.")
@click.option("--shots", default="1,2,5", show_default=True, help="Numbers of references per category.")
@click.option("--out", default="study", show_default=True, help="Folder for study.json and study.png.")
@config_flags
def study(config_file: str, seeds: str, shots: str, out: str, **flags: str | None) -> None:
    """Run the pipeline for each number of references and each seed, and compare AP.

    The time is seconds per image x images x shots x seeds: 3 x 3 runs of 500 images at 2 s each take 2 h 30 min. An
    estimate is shown first if the store holds labels. Finished runs are kept, so that the same command resumes, and
    further seeds and shots cost only the new runs. No pictures are drawn.
    """
    set_prefect_defaults()
    from flows.reports.study_report import report_study
    from flows.trials.study import plan_study, run_study

    lists = [parse_numbers(name, given, least) for name, given, least in (("--seeds", seeds, 0), ("--shots", shots, 1))]
    configs = plan_study(load_with_flags(config_file, flags), *lists)
    with checked_session(configs[-1]):  # the most references, so that missing ones are reported first
        runs = run_study(configs)
    report_study(runs, Path(out))


@main.group()
def weights() -> None:
    """List and download the published model weights."""


@weights.command("list")
def list_models() -> None:
    """List the models, their sizes and which are downloaded."""
    from flows.reports.run_report import report_weights

    report_weights()


@weights.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--to", metavar="FOLDER", help="Folder to download to; by default the cache.")
def pull(names: tuple[str, ...], to: str | None) -> None:
    """Download and verify weights; interrupted downloads resume."""
    from flows.reports.run_report import pull_with_bar

    when_stopped("what is downloaded is kept")
    for name in names:
        pull_with_bar(name, to)


@main.command()
@click.option("--data-only", metavar="DIR", help="Only write the demo's images, weights and run.yaml into DIR.")
@click.option("--out", default="demo-run", show_default=True, help="Folder for the demo's data, labels and pictures.")
def demo(data_only: str | None, out: str) -> None:
    """Run the pipeline on drawn scenes with toy models, all included: no network, no GPU, a minute."""
    set_prefect_defaults()
    from flows.demo import show_demo, write_demo

    file = write_demo(Path(data_only or out))
    if data_only is not None:
        click.echo(f"Wrote the demo's data. Next: refseg run {typed(file)}")
        return
    config = load_config(str(file))
    execute(config)
    show_demo(config.store, Path(out) / "pictures")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and flags, e.g. eval "$(refseg completion bash)"."""
    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(main, {}, "refseg", "_REFSEG_COMPLETE").source())


bench.add_command(accuracy)
for command in (bank, export, *STORE_COMMANDS, bench, benchmark, pilot, references, review, service, thresholds):
    main.add_command(command)
