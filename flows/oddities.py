"""What is odd about a run's datasets, and what was guessed: told before hours are spent, in the same lines everywhere.

Commands that compute tell them in full until they have told them of a store; from then on it is one line, until what
there is to tell changes. Not here: finding it (`refseg_core/datasets/oddities.py`,
`refseg_core/analysis/dataset_summary.py`).
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from flows.config.run_config import RunConfig
from refseg_core.analysis.dataset_summary import find_oddities
from refseg_core.datasets.category_mapping import numbered_otherwise
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.oddities import EXAMPLES, Oddity
from refseg_core.errors import RefsegError
from refseg_core.settings.choices import ANNOTATION_FORMATS
from refseg_core.tables import Categories, Images
from tasks.datasets.indexed import load_dataset
from tasks.datasets.reference_edits import edit_references
from tasks.datasets.reference_images import missing_images
from tasks.datasets.shared_images import describe, image_ids_with
from tasks.models.weights import unfit_weights
from tasks.outputs.dataset_overview import FOLDER
from tasks.sample_references import sample_references
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.store import Artifact, Store

Show = Callable[[str], object]

_ODD = "Odd: "
_MOST_LOOKED_FOR = 2_000


def tell_once(store: Store, name: str, lines: Sequence[str], show: Show, afterwards: str | None = None) -> None:
    """Shows lines about the thing of that name; where the store knows that they were shown already, what comes then."""
    place, text = f"{FOLDER}/{name}.txt", "\n".join(lines).encode()
    if not lines:
        return
    if store.folder.read_if_there(place) != text:
        for line in lines:
            show(line)
        store.folder.replace(place, text)
    elif afterwards is not None:
        show(afterwards)


def report_oddities(config: RunConfig, show: Show, title: str, dataset: Artifact) -> None:
    """Shows the oddities of a run's indexed references or targets below their title; nothing where there are none.

    Those that were shown before are one line.
    """
    lines = list[str]()
    _add_oddities(config, lines.append, title, dataset)
    tell_once(Store(config.store), f"{title.lower()}-{dataset.key}", lines, show, _told_before(title, lines))


def report_comparison(config: RunConfig, show: Show, references: Artifact, targets: Artifact) -> None:
    """Shows what is odd about indexed references and annotated targets together.

    What numbers of categories mean is one line where it was shown before; which references are targets is always told.
    """
    lines = list[str]()
    report_numbering(config, lines.append, references, targets)
    name = f"both-{references.key}-{targets.key}"
    tell_once(Store(config.store), name, lines, show, _told_before("References and targets", lines))
    report_leakage(config, show, references, targets)


def _told_before(title: str, lines: Sequence[str]) -> str | None:
    count = sum(line.startswith(_ODD) for line in lines)
    kinds = "one kind of oddity" if count == 1 else f"{count} kinds of oddities"
    return f"{title}: {kinds}, told before; `refseg index` shows what." if count else None


def _add_oddities(config: RunConfig, show: Show, title: str, dataset: Artifact) -> None:
    section = config.references if title == "References" else config.targets
    kind = (Store(config.store).manifest(dataset.name) or {}).get("settings", {}).get("format")
    if section.format == "auto" and kind is not None:
        name = title.lower()
        show(f"{title} are taken for {ANNOTATION_FORMATS[kind].title}; set {name}.format to say otherwise.")
    num_shots = wanted_shots(config) if title == "References" else None
    indexed = load_dataset(Store(config.store), dataset)
    missing = find_missing(section.images, indexed) if title == "References" else []  # of targets, indexing tells
    if found := (*missing, *find_oddities(indexed, num_shots=num_shots)):
        show(f"{title}:")
        print_oddities(found, show)


def find_missing(images_uri: str, dataset: Dataset) -> list[Oddity]:
    """Returns that images with annotations are not in their folder; nothing where there are very many images."""
    images = dataset.images
    names = images.file_name[np.isin(images.image_id, dataset.annotations.image_id)].tolist()
    missing = missing_images(Folder(images_uri), names) if len(names) <= _MOST_LOOKED_FOR else []
    what = f"images with annotations that are not in {redact(images_uri)}, of {len(names)}"
    return [Oddity(what, len(missing), tuple(missing[:EXAMPLES]))] if missing else []


def report_numbering(config: RunConfig, show: Show, references: Artifact, targets: Artifact) -> None:
    """Shows which categories these indexed datasets number differently; nothing without ground truth."""
    store = Store(config.store)
    if config.targets.annotations is None:
        return
    odd = numbered_otherwise(store.load(references, Categories), store.load(targets, Categories))
    if odd is not None:
        print_oddities([odd], show)


def report_leakage(config: RunConfig, show: Show, references: Artifact, targets: Artifact) -> None:
    """Shows which annotated targets references lie in, of these indexed datasets; nothing where there are none.

    Nor where there is no ground truth, or no references can be sampled, which a run says itself.
    """
    store = Store(config.store)
    chosen = _chosen(config, store, references)
    if config.targets.annotations is None or chosen is None:
        return
    images = store.load(targets, Images)
    if shared := image_ids_with(store, *chosen, targets, images):
        show(describe(shared, len(images), are_excluded=config.evaluation.exclude_references))


def _chosen(config: RunConfig, store: Store, dataset: Artifact) -> tuple[Artifact, Artifact] | None:
    """Returns the dataset and the references of a run, with those that were added and without those dropped.

    None where its settings and annotations do not give any.
    """
    chosen, ids = config.references.sampling, config.references.named_ids
    try:
        sampled = sample_references.fn(store, dataset, chosen, ids, conventions=config.conventions)
        return edit_references(store, config.references.source, dataset, sampled)
    except RefsegError:
        return None


def print_oddities(oddities: Iterable[Oddity], show: Show) -> None:
    """Shows each oddity with its count and the first few examples."""
    for oddity in oddities:
        show(f"{_ODD}{oddity}")
        for example in oddity.examples:
            show(f"  {example}")
        if oddity.count > len(oddity.examples):
            show(f"  and {oddity.count - len(oddity.examples)} more")


def wanted_shots(config: RunConfig) -> int | None:
    """Returns how many references each category is to have; None where annotations are chosen otherwise."""
    references = config.references
    return references.sampling.num_shots if references.are_sampled else None


def report_unfit_weights(config: RunConfig, show: Show) -> None:
    """Shows which weights cannot be used, and why: datasets are indexed without them, and nothing else is made."""
    for reason in unfit_weights(config.models):
        show(f"Weights: {reason} `refseg bank` and `refseg run` are refused until then.")
