"""Step 5: labels the images of one shard and commits them together."""

import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from threading import Lock
from typing import Any, NamedTuple, Self, cast

from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.errors import WeightsError
from refseg_core.labeling.batch_labeler import BatchLabeler, EncodedImage, kept_version
from refseg_core.labeling.image_labels import FoundInstances, ImageFrame
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.settings import AreaSettings, LabelingSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import CategorySimilarities, Detections, Images, LabeledImages, NegativePrototypes, Prototypes
from tasks.datasets.image_reader import ReadImage, read_images
from tasks.models.kept_images import FoundImage, find_each, kept_proposals_of
from tasks.models.loading import load_encoder, load_segmenter, models_when_needed
from tasks.models.weights import sha256_of_models
from tasks.outputs.pictures import LabelPictures
from tasks.runtime.cancellation import StoppedError, is_stopping, saved_by, working_for
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import LabelJob
from tasks.storage.folder import Folder
from tasks.storage.prefetch import prefetch
from tasks.store.label_store import STATUSES, StoredLabels
from tasks.store.shard_plans import Shard
from tasks.store.store import Artifact, Store, table_name
from tasks.store.thresholds import shown_thresholds

_FRAMED_AHEAD = _WRITTEN_AT_ONCE = 2  # images; more only take memory
_MOST_WAITING = 8  # batches of images, until the segmenter gets what there is: full ones where an eighth are prompted
_COUNTS = ("height", "width", "num_proposals", "num_detections", "num_prompts", "seconds")
_NOTHING = {**dict.fromkeys(_COUNTS, 0), "max_similarity": None}  # of an image that cannot be read
_labeling = Lock()


@retried_task("label {shard.name}")
def label_shard(job: LabelJob, shard: Shard, run_elsewhere: str | None = None) -> dict[str, int]:
    """Labels a shard, or what is not labeled of it yet. An image that cannot be read becomes a row that says why.

    Returns how many images were labeled with which status. Where the work is stopped, the finished images are
    committed; raises StoppedError then, unless these are all, or it is another process that stops its run.
    Several may be at work in a process: while one has the model, others read their first images and write labels.
    `run_elsewhere`: the run of another process that this is for, by the name with which it stops its work.
    """
    with working_for(run_elsewhere):
        try:
            return _label_shard(job, shard)
        except StoppedError:
            if run_elsewhere is None:
                raise
            return {}  # the run knows that it is stopping, and Prefect would show a failure here


def _label_shard(job: LabelJob, shard: Shard) -> dict[str, int]:
    if is_stopping():
        raise StoppedError("stopped before the shard was begun; the same run labels it")
    store = Store(job.store)
    run = StoredLabels(store, job.key)
    if (rest := run.rest_of(shard)) is None:
        return {}
    images = run.plans.images_of(rest)
    pictures = _pictures(job, run) if job.pictures else None
    label = _label_by_what_is_kept if job.labeling.keep_proposals else _label_by_models
    with _Finished(run, rest, LABELING_PATHS[job.labeling.path].is_guided) as finished:
        with closing(label(job, images, pictures)) as labeled_images:
            for image in labeled_images:
                finished.add(image)
        return finished.commit()


def _pictures(job: LabelJob, run: StoredLabels) -> LabelPictures:
    shown = LabelFilter(shown_thresholds(run))
    return LabelPictures(run.store, run.store.named(job.prototypes), str(job.pictures), shown)


@contextmanager
def borrowed_labeler(job: LabelJob) -> Iterator[BatchLabeler]:
    """Yields the labeler of a job, built at the first call, to one thread at a time.

    Raises WeightsError, also if the weights here are not those that the job's labels are made with.
    """
    with _labeling:
        yield _labeler(job)


@lru_cache(maxsize=1)
def _labeler(job: LabelJob) -> BatchLabeler:
    store = Store(job.store)
    recipe = StoredLabels(store, job.key).recipe_or_error()
    _check_weights(job, recipe["weights"])
    segmenter, encoder = models_when_needed(job) if job.labeling.keep_proposals else _models(job)
    prototypes, negatives = _references(store, store.named(job.prototypes))
    decided = _with_decided(job.labeling, recipe["settings"])
    return BatchLabeler(segmenter, encoder, prototypes, decided, job.batches, negatives=negatives)


def _with_decided(labeling: LabelingSettings, settings: Mapping[str, Any]) -> LabelingSettings:
    """Returns the settings with what the plan has decided by the references."""
    decided = {name: settings[name] for name in ("guidance_thresh",) if name in settings}
    if "area" in settings:
        decided["area"] = AreaSettings.model_validate(settings["area"])
    return labeling.model_copy(update=decided)


def _references(store: Store, prototypes: Artifact) -> tuple[Prototypes, NegativePrototypes | None]:
    has_negatives = table_name(NegativePrototypes) in prototypes.num_rows
    negatives = store.load(prototypes, NegativePrototypes) if has_negatives else None
    return store.load(prototypes, Prototypes), negatives


def _models(job: LabelJob) -> tuple[Segmenter, Encoder]:
    return load_segmenter(job.segmenter, job.device), load_encoder(job.encoder, job.device)


def _check_weights(job: LabelJob, expected: Mapping[str, str]) -> None:
    """Compares files: a plan is made on one machine, and shards are labeled on others."""
    for kind, found in sha256_of_models(job).items():
        if found != expected[kind]:
            raise WeightsError(
                f"{kind}.weights: the file on this machine has sha256 {found}, but these labels are made with "
                f"{expected[kind]}. Put the same file on every machine, or keep it in a bucket that all of them read."
            )


class _Written(NamedTuple):
    """An image's rows of the tables."""

    detections: Detections
    labeled: LabeledImages
    similarities: CategorySimilarities


class _Finished(AbstractContextManager["_Finished"]):
    """The finished images of a shard, in its order, on their way to the store.

    Where the work is stopped and the image at hand takes long, another thread commits them in the meantime.
    """

    def __init__(self, run: StoredLabels, shard: Shard, is_guided: bool) -> None:
        self._run, self._rest = run, cast(Shard | None, shard)
        self._is_guided = is_guided  # on the other paths no category is ruled out
        self._waiting: list[_Written] = []
        self._counts = Counter[str](dict.fromkeys(STATUSES, 0))
        self._lock = Lock()
        self._saved = saved_by(self._save)

    def __enter__(self) -> Self:
        self._saved.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._saved.__exit__(*raised)
        lost = len(self._waiting)  # they are labeled again
        if lost:
            report(ProgressStep.LABEL, advanced=-lost, unsaved=-lost)

    def add(self, image: _Written) -> None:
        with self._lock:
            self._waiting.append(image)
        report(ProgressStep.LABEL, advanced=1, unsaved=1)

    def commit(self) -> dict[str, int]:
        """Commits them; returns how many ended in which status. Raises StoppedError if these are not all."""
        self._save()
        if self._rest is not None:
            raise StoppedError("stopped; what is committed stays, and the same run continues from there")
        return dict(self._counts)

    def _save(self) -> None:
        """Puts them into the store, those that another run has labeled in the meantime excepted."""
        with self._lock:
            while self._waiting and self._rest is not None:
                rest = self._rest
                self._rest = self._put(rest)
                number = min(len(rest) - len(self._rest or ()), len(self._waiting))
                if number == 0:
                    return  # it takes the whole shard
                self._counts.update(image.labeled.status[0] for image in self._waiting[:number])
                del self._waiting[:number]
                report(ProgressStep.LABEL, unsaved=-number)

    def _put(self, shard: Shard) -> Shard | None:
        detections = Detections.concatenate([image.detections for image in self._waiting])
        labeled = LabeledImages.concatenate([image.labeled for image in self._waiting])
        similarities = CategorySimilarities.concatenate([image.similarities for image in self._waiting])
        return self._run.commit(shard, detections, labeled, similarities if self._is_guided else None)


class _Framed(NamedTuple):
    """An image and what the models need of it; nothing of one that cannot be read."""

    read: ReadImage
    frame: ImageFrame | None


@dataclass
class _Image:
    """An image on its way through the models: encoded until something is found; neither where it cannot be read."""

    read: ReadImage
    encoded: EncodedImage | None = None
    found: FoundInstances | None = None
    seconds: float = 0.0


def _label_by_models(job: LabelJob, images: Images, pictures: LabelPictures | None) -> Generator[_Written, None, None]:
    read = read_images(Folder(job.images), images, max_pixels=job.labeling.max_image_pixels)
    read = chain(list(islice(read, 1)), read)  # reads the first, and begins to read the next
    with borrowed_labeler(job) as labeler:
        yield from _label_each(labeler, images, read, pictures)


def _label_by_what_is_kept(
    job: LabelJob, images: Images, pictures: LabelPictures | None
) -> Generator[_Written, None, None]:
    kept = kept_proposals_of(Store(job.store), job, version=kept_version())

    def write(image: FoundImage) -> _Written:
        return _written(images, _Image(image.read, found=image.found, seconds=image.seconds), pictures)

    with (
        borrowed_labeler(job) as labeler,
        closing(find_each(labeler, kept, images, job, with_pixels=pictures is not None)) as found,
    ):
        yield from prefetch(write, found, _WRITTEN_AT_ONCE)


def _label_each(
    labeler: BatchLabeler, images: Images, read: Iterator[ReadImage], pictures: LabelPictures | None
) -> Iterator[_Written]:
    """Labels in order. While models are at work on images, threads resize the next and write down those before."""

    def frame(image: ReadImage) -> _Framed:
        if image.pixels is None:
            return _Framed(image, None)
        kept = image if pictures is not None else replace(image, pixels=None)  # they wait, and may be large
        return _Framed(kept, labeler.to_frame(image.pixels))

    def write(image: _Image) -> _Written:
        return _written(images, image, pictures)

    with closing(prefetch(frame, read, _FRAMED_AHEAD)) as framed, closing(_find_each(labeler, framed)) as found:
        yield from prefetch(write, found, _WRITTEN_AT_ONCE)


def _find_each(labeler: BatchLabeler, images: Iterator[_Framed]) -> Generator[_Image, None, None]:
    """Yields images in order, until the work is stopped. Those that need the segmenter wait until they fill a batch."""
    size, queue = labeler.images_per_batch, deque[_Image]()
    while not is_stopping() and (batch := list(islice(images, size))):
        queue.extend(_encoded(labeler, batch))
        waiting = _waiting(queue)
        if len(waiting) >= size or len(queue) >= _MOST_WAITING * size:
            _find(labeler, waiting[:size])
        while queue and queue[0].encoded is None:
            yield queue.popleft()
    _find(labeler, _waiting(queue))
    yield from queue


def _waiting(images: Iterable[_Image]) -> list[_Image]:
    return [image for image in images if image.encoded is not None]


def _encoded(labeler: BatchLabeler, batch: Sequence[_Framed]) -> list[_Image]:
    """Returns the images with what the encoder sees in them, and the time it took; those without prompts are done."""
    started = time.perf_counter()
    encoded = iter(labeler.encode([frame for _, frame in batch if frame is not None]))
    images = [_Image(read, None if frame is None else next(encoded)) for read, frame in batch]
    _share(_waiting(images), started)
    _find(labeler, [image for image in images if image.encoded is not None and not image.encoded.is_prompted])
    return images


def _find(labeler: BatchLabeler, images: Sequence[_Image]) -> None:
    """Finds the instances of images, and adds the time it took."""
    started = time.perf_counter()
    found = labeler.find_in([image.encoded for image in images if image.encoded is not None])
    _share(images, started)
    for image, instances in zip(images, found, strict=True):
        image.found, image.encoded = instances, None


def _share(images: Sequence[_Image], started: float) -> None:
    """Adds each image's share of the time since."""
    seconds = time.perf_counter() - started
    for image in images:
        image.seconds += seconds / len(images)


def _written(images: Images, image: _Image, pictures: LabelPictures | None) -> _Written:
    row = image.read.row
    named = {"image_id": str(images.image_id[row]), "version": str(images.version[row])}
    if image.found is None:
        failed = LabeledImages.row(**named, status="unreadable", error=str(image.read.error), **_NOTHING)
        return _Written(Detections.empty(), failed, CategorySimilarities.empty())
    labels, masks = image.found.labels(named["image_id"]), image.found.masks
    if pictures is not None and image.read.pixels is not None:
        pictures.write(str(images.file_name[row]), image.read.pixels, labels.detections)
    labeled = LabeledImages.row(
        **named,
        status="ok" if len(labels.detections) else "empty",
        error=None,
        height=masks.height,
        width=masks.columns_NWB.shape[1],
        num_proposals=labels.num_proposals,
        num_detections=len(labels.detections),
        num_prompts=labels.num_prompts,
        max_similarity=labels.max_similarity,
        seconds=image.seconds,
    )
    return _Written(labels.detections, labeled, labels.similarities)
