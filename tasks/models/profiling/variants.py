"""Labels the same images by variants of the settings, each with several sets of references, and says what they cost.

Each image is labeled by all of them before the next, with models that compute once what they share
(`shared_models.py`). What was labeled is written image by image, so that a run that is interrupted goes on where it
was. Seconds are measured apart, with the models as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from refseg_core.errors import DatasetError, counted
from refseg_core.evaluation.comparison import Scores, compare_scores, difference, score
from refseg_core.evaluation.curves import NO_VALUE
from refseg_core.labeling.batch_labeler import BatchLabeler, version_of
from refseg_core.settings import LabelingSettings
from refseg_core.table_schema import Array
from refseg_core.tables import VariantImages, VariantLabels, VariantNumbers
from tasks.models.profiling.compare_paths import LabelingRun, label_in_turn
from tasks.models.profiling.inputs import Inputs
from tasks.models.profiling.machine_limits import describe_machine
from tasks.models.profiling.proposal_coverage import true_masks
from tasks.models.profiling.shared_models import SharedModels
from tasks.models.weights import sha256_of_models
from tasks.runtime.progress import ProgressStep, report
from tasks.specs import Models
from tasks.storage.folder import Folder
from tasks.store.parquet import table_from_parquet, table_to_parquet
from tasks.store.store import Artifact, Recipe

Variants = Mapping[str, LabelingSettings]
InputsBySeed = Mapping[int, Inputs]
"""The same images and models with the prototypes of each seed's references."""

InputsOfVariants = Mapping[str, InputsBySeed]
"""The same images and models with each variant's settings and prototypes."""

NOTHING_COMPARED = "none"  # where others have bbox or segm: the number is a cost
PROPOSED = ("proposed", "proposed_s", "proposed_m", "proposed_l")

_Part = tuple[VariantLabels, VariantImages]


@dataclass(frozen=True)
class VariantComparison:
    """Variants side by side: what was compared on what, all numbers, and what each image took."""

    machine: str
    variants: Mapping[str, LabelingSettings]
    seeds: tuple[int, ...]
    num_images: int
    num_timed: int
    numbers: VariantNumbers
    images: VariantImages


def label_and_compare(inputs_of: InputsOfVariants, parts: str, num_timed: int) -> VariantComparison:
    """Times the variants on the first images, labels all, and evaluates; `parts`: a folder for what is labeled.

    Raises DatasetError where the images hold no instance of the referenced categories.
    """
    first_of = {name: next(iter(own.values())) for name, own in inputs_of.items()}
    inputs, by_seed = next(iter(first_of.values())), next(iter(inputs_of.values()))
    _require_truth(inputs)
    num_timed = min(num_timed, len(inputs.images))
    times = time_variants(first_of, num_timed)
    labels, images = label_variants(inputs_of, Folder(parts))
    numbers = VariantNumbers.concatenate([evaluate_variants(by_seed, list(inputs_of), labels, images), times])
    machine, variants = describe_machine(inputs.device), {name: own.labeling for name, own in first_of.items()}
    return VariantComparison(machine, variants, tuple(by_seed), len(inputs.images), num_timed, numbers, images)


def key_of(models: Models, variants: Variants, artifacts: Mapping[str, Artifact], num_images: int | None) -> str:
    """Returns the key of what decides labels: a run with another one does not go on with these."""
    settings = {name: {"version": version_of(one), **one.model_dump()} for name, one in variants.items()}
    inputs = {name: artifact.name for name, artifact in artifacts.items()}
    recipe = Recipe(
        "bench accuracy",
        "bench",
        version=1,
        settings={"variants": settings, "num_images": num_images},
        inputs=inputs,
        weights=sha256_of_models(models),
    )
    return recipe.key


def time_variants(inputs_of: Mapping[str, Inputs], num_images: int) -> VariantNumbers:
    """Returns the seconds of the first images, means of all stages together and of each, and memory at most."""
    runs = {name: LabelingRun(inputs, name, doing="timing") for name, inputs in inputs_of.items()}
    report(ProgressStep.BENCH, total=len(runs) * num_images)
    label_in_turn(list(runs.values()), num_images)
    first, *_ = costs = [_costs(run) for run in runs.values()]
    return VariantNumbers.concatenate(
        [
            _mean(name, NOTHING_COMPARED, metric, own[metric], first[metric])
            for name, own in zip(runs, costs, strict=True)
            for metric in own
        ]
    )


def _costs(run: LabelingRun) -> dict[str, float]:
    totals = [sum(stages) for stages in zip(*run.seconds.values(), strict=True)]
    of_stages = {f"seconds of {stage}": fmean(seconds) for stage, seconds in run.seconds.items()}
    return {"seconds": fmean(totals), **of_stages, "peak_bytes": float(run.peak_bytes)}


def _mean(variant: str, iou_type: str, metric: str, value: float, of_first: float) -> VariantNumbers:
    return VariantNumbers.row(
        variant=variant,
        seed=None,
        iou_type=iou_type,
        metric=metric,
        value=value,
        difference=difference(value, of_first),
        low=None,
        high=None,
    )


def label_variants(inputs_of: InputsOfVariants, parts: Folder) -> _Part:
    """Labels every image by every variant with every seed's references, except images that `parts` holds already."""
    labelers = _SharedLabelers(inputs_of)
    num_images = len(labelers.images)
    done = dict(_parts(parts, num_images))
    per_image = sum(map(len, inputs_of.values()))
    report(ProgressStep.BENCH_ACCURACY, total=per_image * (num_images - len(done)))
    for row in range(num_images):
        if row not in done:
            done[row] = labelers.label(row)
            for suffix, table in zip(_SUFFIXES, done[row], strict=True):
                parts.replace(f"{row:06d}{suffix}", table_to_parquet(table))
    labels, images = zip(*(done[row] for row in sorted(done)), strict=True)
    return VariantLabels.concatenate(labels), VariantImages.concatenate(images)


_SUFFIXES = ".labels.parquet", ".images.parquet"  # the second is written last: with it an image is done


def _parts(parts: Folder, num_images: int) -> Iterator[tuple[int, _Part]]:
    names = [f"{row:06d}{suffix}" for row in range(num_images) for suffix in _SUFFIXES]
    read = list(parts.read_many(names))
    for row, (labels, images) in enumerate(zip(read[::2], read[1::2], strict=True)):
        if labels is not None and images is not None:
            yield row, (table_from_parquet(labels, VariantLabels), table_from_parquet(images, VariantImages))


class _SharedLabelers:
    """A labeler for each variant and seed, on shared models."""

    def __init__(self, inputs_of: InputsOfVariants) -> None:
        by_seed = next(iter(inputs_of.values()))
        self._inputs = next(iter(by_seed.values()))
        self.images = self._inputs.images
        self._truth_of = {seed: true_masks(inputs.truth) for seed, inputs in by_seed.items() if inputs.truth}
        self._models = SharedModels(self._inputs.segmenter, self._inputs.encoder)
        self._labelers = {
            (name, seed): BatchLabeler(
                self._models.segmenter, self._models.encoder, inputs.prototypes, inputs.labeling, inputs.batches
            )
            for name, own in inputs_of.items()
            for seed, inputs in own.items()
        }

    def label(self, row: int) -> _Part:
        """Labels the image of that row."""
        self._models.next_image()
        inputs = self._inputs
        pixels = inputs.decode(inputs.folder.read(str(inputs.images.file_name[row])), row)
        labels, images = zip(
            *(self._label(str(inputs.images.image_id[row]), pixels, *key) for key in self._labelers), strict=True
        )
        return VariantLabels.concatenate(labels), VariantImages.concatenate(images)

    def _label(self, image_id: str, pixels: Array, variant: str, seed: int) -> _Part:
        report(ProgressStep.BENCH_ACCURACY, doing=f"image {image_id}, {variant}, seed {seed}")
        labeler = self._labelers[variant, seed]
        found = labeler.label(pixels, image_id=image_id)
        truth, masks = self._truth_of[seed][image_id], self._models.take_masks()
        report(ProgressStep.BENCH_ACCURACY, advanced=1)
        num = len(found.detections)
        named = {"variant": np.full(num, variant, dtype=object), "seed": np.full(num, seed)}
        columns = {name: getattr(found.detections, name) for name in found.detections.schema().names}
        return VariantLabels(**columns, **named), VariantImages.row(
            variant=variant,
            seed=seed,
            image_id=image_id,
            num_prompts=found.num_prompts,
            prompt_share=found.num_prompts / labeler.settings.points_per_side**2,
            num_proposals=found.num_proposals,
            num_detections=num,
            num_instances=truth.num_instances,
            num_proposed=truth.num_covered(masks),
        )


def evaluate_variants(
    inputs_of: InputsBySeed, names: Sequence[str], labels: VariantLabels, images: VariantImages
) -> VariantNumbers:
    """Returns AP, what limits it, and how many prompts and images the variants asked for; all over the images given."""
    report(ProgressStep.BENCH_ACCURACY, doing="evaluating")
    scores: dict[str, list[Scores]] = {}
    for name in names:
        for seed, inputs in inputs_of.items():
            assert inputs.truth is not None  # see _require_truth
            own = labels[(labels.variant == name) & (labels.seed == seed)]
            scores.setdefault(name, []).append(score(inputs.truth, own.detections))
    of_images = {name: images[images.variant == name] for name in names}
    scored = compare_scores(scores, list(inputs_of))
    proposed = _means(of_images, str(scored.iou_type[-1]), _proposed)
    return VariantNumbers.concatenate([scored, *proposed, *_means(of_images, NOTHING_COMPARED, _asked)])


def _means(
    images: Mapping[str, VariantImages], iou_type: str, mean_of: Callable[[VariantImages], dict[str, float]]
) -> Iterator[VariantNumbers]:
    """Yields the means over images and seeds."""
    means = {name: mean_of(own) for name, own in images.items()}
    first = next(iter(means.values()))
    for name, own in means.items():
        for metric, value in own.items():
            yield _mean(name, iou_type, metric, value, first[metric])


def _asked(images: VariantImages) -> dict[str, float]:
    return {
        "num_prompts": float(images.num_prompts.mean()),
        "prompt_share": float(images.prompt_share.mean()),
        "skipped_share": float((images.num_prompts == 0).mean()),
    }


def _proposed(images: VariantImages) -> dict[str, float]:
    nums = zip(images.num_proposed.sum(axis=0).tolist(), images.num_instances.sum(axis=0).tolist(), strict=True)
    return {
        name: num_proposed / num if num else NO_VALUE for name, (num_proposed, num) in zip(PROPOSED, nums, strict=True)
    }


def _require_truth(inputs: Inputs) -> None:
    """Raises DatasetError where the images hold no instance of the referenced categories."""
    truth = inputs.truth
    if truth is not None:
        is_here = np.isin(truth.annotations.image_id, truth.images.image_id) & ~truth.annotations.is_crowd
        if np.isin(truth.annotations.category_id[is_here], truth.categories.category_id).any():
            return
    raise DatasetError(
        f"targets.annotations: none of {counted(len(inputs.images), 'image')} holds an instance of the referenced "
        "categories, so that labels cannot be evaluated. Take more images, or other categories."
    )
