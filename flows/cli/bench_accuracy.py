"""`refseg bench accuracy`: variants of labeling side by side on annotated images, over several sets of references.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.bench import demo_config, made_folder
from flows.cli.options.numbers import WholeRange
from flows.config.flag_values import parse_numbers, parse_variants
from flows.config.loading import load_config
from flows.config.run_config import RunConfig

if TYPE_CHECKING:
    from refseg_core.settings import LabelingSettings
    from tasks.models.profiling.inputs import Inputs
    from tasks.store.store import Artifact


@click.command()
@click.option(
    "--config",
    "config_file",
    metavar="RUN.yaml",
    help="Use the images, models and references of this run; by default the demo's.",
)
@click.option(
    "--variants", default="exact,guided", show_default=True, help="What to compare; the others with the first."
)
@click.option("--seeds", default="33,42,7", show_default=True, help="Seeds of the references: a set for each.")
@click.option("--shots", type=WholeRange(1), default=1, show_default=True, help="References per category.")
@click.option("--images", "num_images", type=WholeRange(1), help="Number of images; by default all.")
@click.option(
    "--timed-images", "num_timed", type=WholeRange(1), default=2, show_default=True, help="Images to take times of."
)
@click.option("--device", default="auto", show_default=True, help="'auto', 'cpu', 'cuda' or 'cuda:1'.")
@click.option("--out", default="bench", show_default=True, help="Folder for the tables, the JSON file and the chart.")
def accuracy(
    *,
    config_file: str | None,
    variants: str,
    seeds: str,
    shots: int,
    num_images: int | None,
    num_timed: int,
    device: str,
    out: str,
) -> None:
    """Compare variants of labeling: AP with paired intervals, what limits it, seconds and prompts, and a chart.

    A variant is a path, a path with other keys of `labeling`, or a name with such keys: `--variants
    exact,guided:guidance_thresh=0.3,fine:path=guided,points_per_side=64`. Seconds are measured on a few images; then
    all are labeled, and what does not depend on references is computed once per image, so that more seeds cost
    little. The same command goes on where an interrupted one was.
    """
    from flows.terminal import messages, progress_bars

    folder, given_seeds = made_folder(out), parse_numbers("--seeds", seeds, 0)
    with tempfile.TemporaryDirectory(prefix="refseg-bench-") as place, progress_bars():
        file = config_file or demo_config(Path(place))
        config = load_config(file, {} if device == "auto" else {"device": device})
        chosen = parse_variants(variants, config.labeling)
        configs = _configs(config, given_seeds, shots)
        inputs_of, artifacts = _inputs(configs, chosen, num_images)
        from tasks.models.profiling.variants import key_of, label_and_compare

        parts = folder / f"accuracy-{key_of(config.models, chosen, artifacts, num_images)}"
        if parts.exists():
            messages.print(f"Going on with the images in {parts}; remove it to begin anew.", style="dim")
        comparison = label_and_compare(inputs_of, str(parts), num_timed)
    from flows.reports.accuracy_report import report_accuracy

    report_accuracy(comparison, folder)
    shutil.rmtree(parts)


def _configs(config: RunConfig, seeds: Sequence[int], shots: int) -> list[RunConfig]:
    """Returns a run for each set of references: one for each seed, or the run itself where it names its references."""
    from flows.terminal import messages
    from flows.trials.study import check_has_truth, plan_study

    check_has_truth(config)
    if config.references.are_sampled:
        return plan_study(config, seeds, [shots])
    messages.print("The run names its references: they are the only set, and --seeds and --shots decide nothing.")
    return [config]


def _inputs(
    configs: Sequence[RunConfig], variants: dict[str, "LabelingSettings"], num_images: int | None
) -> tuple[dict[str, dict[int, "Inputs"]], dict[str, "Artifact"]]:
    """Returns what each variant labels with each seed's prototypes, and the artifacts it comes from, by name."""
    from flows.config.preflight import check
    from flows.pipeline import make_prototypes
    from tasks.index_dataset import index_dataset
    from tasks.models.profiling.inputs import inputs_of_run
    from tasks.store.store import Store

    config = configs[0]
    check(config)
    store = Store(config.store)
    artifacts = {"dataset": index_dataset.fn(store, config.targets.source, conventions=config.conventions)}
    inputs: dict[str, dict[int, Inputs]] = {}
    for name, settings in variants.items():
        spec = config.label_spec.model_copy(update={"labeling": settings})
        for one in configs:
            seed = one.references.sampling.seed
            prototypes = make_prototypes(one.model_copy(update={"labeling": settings}), store)
            artifacts[f"{name}, seed {seed}"] = prototypes
            own = inputs_of_run(
                store, dataset=artifacts["dataset"], prototypes=prototypes, spec=spec, num_images=num_images
            )
            inputs.setdefault(name, {})[seed] = own
    return inputs, artifacts
