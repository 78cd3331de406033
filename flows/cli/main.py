"""The command line. Commands read the configuration, call a flow or a task, and say what came of it.

Heavy modules are imported by the command that needs them, so that `refseg --help` stays quick.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml
from click.shell_completion import get_completion_class

from flows.cli.bench import bench
from flows.cli.benchmark import benchmark
from flows.cli.service import service
from flows.cli.store import STORE_COMMANDS
from flows.config.loading import load_config
from flows.config.run_config import Key, RunConfig, keys
from flows.config.template import template
from flows.errors import RunFailedError
from flows.prefect_session import set_prefect_defaults
from flows.run import checked_session, execute
from refseg_core.errors import ConfigurationError, RefsegError
from tasks.storage.retry import may_pass, reason

_USER_ERROR, _FAILURE = 2, 1
_SHORT = {"batches.max_memory": ("--max-memory",), "labeling.path": ("--path",)}
_KEPT = "This may pass; what is done is kept, and the same command goes on from there."


class _Commands(click.Group):
    """Turns our errors into one clear message and an exit code: 2 where the user can mend it, 1 otherwise."""

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(context)
        except RefsegError as error:
            click.secho(f"Error: {error}", fg="red", err=True)
            context.exit(_USER_ERROR)
        except RunFailedError as error:
            click.secho(f"Error: {error}", fg="red", err=True)
            context.exit(_FAILURE)
        except Exception as error:
            if not may_pass(error) or isinstance(error, BrokenPipeError):  # the reader of our output has left
                raise
            click.secho(f"Error: {reason(error)}. {_KEPT}", fg="red", err=True)
            context.exit(_FAILURE)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="refseg")
def main() -> None:
    """Finds and segments every instance of a few referenced categories in whole image datasets, with no training.

    Start with `refseg demo`, then `refseg init run.yaml` and `refseg run run.yaml` for your own images.
    """


def _config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the configuration file and a flag for each of its keys."""
    for key in reversed(list(keys())):
        names = [f"--{key.name}", *_SHORT.get(key.name, ())]
        command = click.option(*names, key.name.replace(".", "__"), metavar="VALUE", help=key.field.description)(
            command
        )
    return click.argument("config_file", metavar="CONFIG.yaml", type=click.Path(dir_okay=False))(command)


def _load(config_file: str, flags: dict[str, str | None]) -> RunConfig:
    given = {
        key.name: _parse_flag(key, value) for key in keys() if (value := flags[key.name.replace(".", "__")]) is not None
    }
    return load_config(config_file, given)


def _parse_flag(key: Key, value: str) -> Any:
    if value == "null":
        return None
    if key.is_list and not value.startswith("["):
        return [part.strip() for part in value.split(",")]
    if key.is_text:
        return value
    try:
        # Lists hold names and ids, which stay text whatever YAML would make of them.
        return yaml.load(value, yaml.BaseLoader) if key.is_list else yaml.safe_load(value)  # noqa: S506
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--{key.name}: {value!r} cannot be read: {str(error).splitlines()[0]}.") from error


@main.command()
@click.argument("file", default="run.yaml", type=click.Path(dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def init(file: str, force: bool) -> None:
    """Writes a configuration file with every key explained."""
    from tasks.storage.objects import write_uri

    path = Path(file)
    if path.exists() and not force:
        raise click.UsageError(f"{file} exists already; choose another name or pass --force.")
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is no folder; create it first.")
    write_uri(str(path.absolute()), [template().encode()])
    click.echo(f"Wrote {file}. Fill in the paths, then: refseg run {file}")


@main.command()
@_config_flags
def run(config_file: str, **flags: str | None) -> None:
    """Runs the whole pipeline from one configuration file; flags override its keys.

    What is done already is found in the store and not done again, so the same command resumes a run.
    """
    execute(_load(config_file, flags))


@main.command()
@_config_flags
def index(config_file: str, **flags: str | None) -> None:
    """Indexes references and targets, and says what they hold: counts, sizes, odd things, a picture."""
    from flows.reports.run_report import report_dataset
    from tasks.index_dataset import index_dataset

    config = _load(config_file, flags)
    sampling = config.references.sampling
    is_sampled = sampling.selection == "sampled" and config.references.annotation_ids is None
    for title, source, num_shots in (
        ("References", config.references.source, sampling.num_shots if is_sampled else None),
        ("Targets", config.targets.source, None),
    ):
        dataset = index_dataset.fn(config.store, source, conventions=config.conventions)
        report_dataset(config.store, title, source, dataset, num_shots=num_shots)


@main.command()
@_config_flags
def bank(config_file: str, **flags: str | None) -> None:
    """Samples, segments and encodes the references into prototypes."""
    config = _load(config_file, flags)
    with checked_session(config):
        from flows.pipeline import make_bank

        prototypes = make_bank(config)
    click.echo(f"{prototypes.num_rows['prototypes']} prototypes in {config.store}/{prototypes.name}")


@main.command()
@_config_flags
def label(config_file: str, **flags: str | None) -> None:
    """Labels the images that are not labeled yet; makes the bank first where it is missing."""
    config = _load(config_file, flags)
    with checked_session(config):
        from flows.pipeline import label_targets, make_bank

        plan = label_targets(config, make_bank(config))
    from flows.reports.run_report import report_labels

    report_labels(config.store, plan)


@main.command()
@_config_flags
def evaluate(config_file: str, **flags: str | None) -> None:
    """Compares the labels with the targets' ground truth; they must be complete."""
    config = _load(config_file, flags)
    if config.targets.annotations is None:
        raise click.UsageError("targets.annotations is null: there is no ground truth to compare with.")
    with checked_session(config):
        from flows.pipeline import evaluate_run

        metrics = evaluate_run(config)
    from flows.reports.run_report import report_metrics

    report_metrics(config.store, metrics)


@main.command()
@click.option("--seeds", default="33,42,13", show_default=True, help="Which references are drawn: a run for each.")
@click.option("--shots", default="1,2,5", show_default=True, help="Numbers of references per category.")
@click.option("--out", default="study", show_default=True, help="Folder for study.json and study.png.")
@_config_flags
def study(config_file: str, seeds: str, shots: str, out: str, **flags: str | None) -> None:
    """How many references are needed: runs the pipeline for each number and seed, and compares AP.

    Costs seconds per image x images x shots x seeds: 3 x 3 runs of 500 images at 2 s each are 2 h 30 min. At its
    start it says what that comes to here, where the store holds labels to tell by. What is done is kept, so that the
    same command goes on, and further seeds and shots cost only what is new. Pictures are not drawn.
    """
    set_prefect_defaults()
    from flows.reports.study_report import report_study
    from flows.study import plan_study, run_study

    wanted = [_numbers(name, given, least) for name, given, least in (("--seeds", seeds, 0), ("--shots", shots, 1))]
    configs = plan_study(_load(config_file, flags), *wanted)
    with checked_session(configs[-1]):  # the most references: what is short is told at once
        runs = run_study(configs)
    report_study(runs, Path(out))


def _numbers(flag: str, given: str, least: int) -> list[int]:
    numbers = [part.strip() for part in given.split(",")]
    if len(set(numbers)) < len(numbers) or not all(part.isdecimal() and int(part) >= least for part in numbers):
        raise ConfigurationError(f"{flag}: expected numbers of at least {least}, each once, as 1,2,5; got {given!r}.")
    return [int(part) for part in numbers]


@main.group()
def weights() -> None:
    """The published model weights: what there is, and fetching it."""


@weights.command("list")
def list_models() -> None:
    """Lists the models, their sizes and which of them are here."""
    from flows.reports.run_report import report_weights

    report_weights()


@weights.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--to", metavar="FOLDER", help="Where to keep them; by default the cache.")
def pull(names: tuple[str, ...], to: str | None) -> None:
    """Downloads weights, resuming where a download was cut, and verifies them."""
    from flows.reports.run_report import pull_with_bar

    for name in names:
        pull_with_bar(name, to)


@main.command()
@click.option("--data-only", metavar="DIR", help="Only write the demo's images, weights and run.yaml into DIR.")
@click.option("--out", default="demo-run", show_default=True, help="Folder for the demo's data, labels and pictures.")
def demo(data_only: str | None, out: str) -> None:
    """Runs everything on drawn scenes with toy models that come with refseg: no network, no GPU, two minutes."""
    set_prefect_defaults()
    from flows.demo import show_demo, write_demo

    file = write_demo(Path(data_only or out))
    if data_only is not None:
        click.echo(f"Wrote the demo's data. Next: refseg run {file}")
        return
    config = load_config(str(file))
    execute(config)
    show_demo(config.store, Path(out) / "pictures")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints the script that completes refseg's commands and flags, e.g. eval "$(refseg completion bash)"."""
    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(main, {}, "refseg", "_REFSEG_COMPLETE").source())


for command in (*STORE_COMMANDS, bench, benchmark, service):
    main.add_command(command)
