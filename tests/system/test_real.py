"""Real weights on real images: the original's own detections are found again, and AP is where it should be."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.protocols import evaluate
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.image_labels import ImageFrame
from refseg_core.labeling.kept.kept_table import from_row, to_row
from refseg_core.masks.rle import Rle, encode_masks, mask_ious
from refseg_core.references.segmentation import segment_boxes
from refseg_core.settings import BatchSettings, LabelingSettings, ReferenceSettings, SamplingSettings
from refseg_core.tables import Annotations, Categories, Detections, Images, Prototypes, References
from tasks.datasets.image_reader import read_images
from tasks.fill_memory_bank import fill_memory_bank
from tasks.index_dataset import index_dataset
from tasks.models.loading import load_encoder, load_segmenter
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.sample_references import sample_references
from tasks.specs import DatasetSource, Models, ModelSettings
from tasks.storage.folder import Folder
from tasks.store.store import Store

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("real"),  # a bank of real models takes minutes, one for all
]


class RealRun:
    """References of coco_tiny's train part, targets of its val part, SAM2 tiny and DINOv2 S."""

    def __init__(self, shared: Path, store: Path, annotation_ids: list[str]) -> None:
        self.store = Store(str(store))
        data = shared / "data" / "coco_tiny"
        self.segmenter = ModelSettings(model="sam2_hiera_tiny", weights=str(shared / "weights" / "sam2_hiera_tiny.pt"))
        self.encoder = ModelSettings(
            model="dinov2_vits14", weights=str(shared / "weights" / "dinov2_vits14_pretrain.pth")
        )
        self.targets = data / "val2017"
        self.annotations = data / "annotations" / "instances_val2017.json"
        references = DatasetSource(
            images=str(data / "train2017"), annotations=str(data / "annotations" / "instances_train2017.json")
        )
        self.reference_images = data / "train2017"
        self.references, self.prototypes = self._bank(references, annotation_ids)

    def _bank(self, source: DatasetSource, annotation_ids: list[str]) -> tuple[References, Prototypes]:
        dataset = index_dataset.fn(self.store, source)
        references = sample_references.fn(self.store, dataset, SamplingSettings(), annotation_ids)
        bank = fill_memory_bank.fn(
            self.store,
            dataset=dataset,
            references=references,
            images_uri=source.images,
            settings=ReferenceSettings(),
            models=Models(segmenter=self.segmenter, encoder=self.encoder, device="cpu"),
        )
        prototypes = postprocess_memory_bank.fn(self.store, references, bank)
        return self.store.load(references, References), self.store.load(prototypes, Prototypes)

    def dataset(self, image_ids: list[str]) -> tuple[Images, Annotations, Categories]:
        source = DatasetSource(images=str(self.targets), annotations=str(self.annotations), image_ids=tuple(image_ids))
        dataset = index_dataset.fn(self.store, source)
        return tuple(self.store.load(dataset, table) for table in (Images, Annotations, Categories))  # type: ignore[return-value]

    def keeping_labeler(self, prototypes: Prototypes) -> BatchLabeler:
        """By the default method, with a small grid and few crops."""
        small = {"points_per_side": 6, "max_second_looks": 4, "max_refined_masks": 2}
        settings = LabelingSettings(keep_proposals=True, guidance_thresh=0.2, **small)
        return BatchLabeler(
            load_segmenter(self.segmenter, "cpu"), load_encoder(self.encoder, "cpu"), prototypes, settings
        )

    def label(self, images: Images, points_per_side: int) -> Iterator[Detections]:
        labeler = BatchLabeler(
            load_segmenter(self.segmenter, "cpu"),
            load_encoder(self.encoder, "cpu"),
            self.prototypes,
            LabelingSettings(method="published", points_per_side=points_per_side),
            BatchSettings(),
        )
        for image in read_images(Folder(str(self.targets)), images, max_pixels=10**8):
            assert image.pixels is not None
            yield labeler.label(image.pixels, image_id=str(images.image_id[image.row])).detections


@pytest.fixture(scope="module")
def setup(golden_folder: Path) -> dict[str, Any]:
    setup: dict[str, Any] = json.loads((golden_folder / "real" / "setup.json").read_text())
    return setup


@pytest.fixture(scope="module")
def run(shared: Path, setup: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    ids = [str(annotation_id) for annotation_id in setup["references"].values()]
    return RealRun(shared, tmp_path_factory.mktemp("store"), ids)


def test_the_originals_detections_are_found_again(run: RealRun, setup: dict[str, Any], golden_folder: Path) -> None:
    """Same category, mask IoU above 0.99 and score within 0.002, for every detection; and the same AP."""
    expected = json.loads((golden_folder / "real" / "detections.json").read_text())
    images, annotations, categories = run.dataset([str(image_id) for image_id in setup["image_ids"]])
    detections = Detections.concatenate(list(run.label(images, setup["points_per_side"])))
    assert len(detections) == len(expected)
    lost = [theirs for theirs in expected if not _is_found(theirs, detections)]
    assert not lost
    wanted = categories[np.isin(categories.category_id, run.prototypes.category_id)]
    metrics = evaluate(Dataset(images, annotations, wanted), detections, conventions="original")
    overall = {
        kind: value
        for kind, metric, category, value in zip(
            metrics.iou_type, metrics.metric, metrics.category_id, metrics.value.tolist(), strict=True
        )
        if metric == "AP" and category is None
    }
    assert overall["bbox"] == pytest.approx(0.3053, abs=0.002)
    assert overall["segm"] == pytest.approx(0.3008, abs=0.002)


def test_boxes_become_the_masks_that_people_drew(run: RealRun) -> None:
    """SAM2 on the boxes of eight references: the masks overlap the dataset's own by 0.75 and more on average."""
    segmenter = load_segmenter(run.segmenter, "cpu")
    references = run.references[:8]
    ious = []
    for row in range(len(references)):
        pixels = np.array(Image.open(run.reference_images / references.file_name[row]).convert("RGB"))
        masks, _ = segment_boxes(segmenter, pixels, references.box_xyxy[row : row + 1])
        ious.append(mask_ious(encode_masks(masks), [references.mask_rle[row]])[0, 0])
    assert np.mean(ious) > 0.75


def test_labeling_by_what_is_kept_is_labeling_from_nothing(run: RealRun, setup: dict[str, Any]) -> None:
    """Other references label two images, to the last bit, though most of their points were asked by the first."""
    images, _, _ = run.dataset([str(image_id) for image_id in setup["image_ids"][:2]])
    few, many = (run.keeping_labeler(prototypes) for prototypes in (run.prototypes[:2], run.prototypes))
    num_detections = 0
    for image in read_images(Folder(str(run.targets)), images, max_pixels=10**8):
        assert image.pixels is not None
        frame = many.to_frame(image.pixels)
        _, first = few.find_kept(None, lambda frame=frame: frame)
        assert first is not None
        stored = from_row(to_row(first))
        found, added = many.find_kept(stored, lambda frame=frame: frame)
        expected, _ = many.find_kept(None, lambda frame=frame: frame)
        assert added is not None
        again, nothing = many.find_kept(stored.plus(from_row(to_row(added))), _refuse)
        assert nothing is None
        for ours in (found.labels("a"), again.labels("a")):
            assert ours.detections.equals(expected.labels("a").detections)
            assert ours[1:4] == expected.labels("a")[1:4]
        num_detections += len(found.score_n)
    assert num_detections > 2


def _refuse() -> ImageFrame:
    raise AssertionError("the image was opened")


def _is_found(theirs: dict[str, Any], detections: Detections) -> bool:
    same = detections[
        (detections.image_id == str(theirs["image_id"]))
        & (detections.category_id == theirs["category_id"])
        & (np.abs(detections.score - theirs["score"]) <= 0.002)
    ]
    segmentation = theirs["segmentation"]
    mask = Rle(tuple(segmentation["size"]), segmentation["counts"])
    return bool((mask_ious(list(same.mask_rle), [mask]) > 0.99).any())
