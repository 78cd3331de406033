"""The export formats by name: what the command line, error messages and the guides list.

A format's implementation is called with the labels (`labels.py`). It yields the pieces of one file, or where the format
is a folder its files (`writing.py`).
"""

from dataclasses import dataclass
from typing import Literal

from refseg_core.settings.choices import Choice, Choices

Shape = Literal["masks", "polygons", "boxes"]
ImageMode = Literal["auto", "link", "copy", "none"]

SPLIT_NAMES = ("train", "val", "test")
PROVENANCE_IMAGES = "image_ids"
"""The key of a provenance that lists ids of images with their file names."""
IN_PROVENANCE = f"{PROVENANCE_IMAGES} of the provenance"


@dataclass(frozen=True, kw_only=True)
class ExportFormat(Choice):
    """A format of labels. `shapes`: what instances can be written as, the first unless another is chosen.

    `is_folder`: whether it is a folder of files, and not one. `holds_images`: whether images lie among them.
    `has_splits`: whether it parts images into training, validation and test. `keeps_target_ids`: whether category ids
    are always those of the targets' own file, also 0, because the two are read together. `names_images_in`: where a
    format that has ids of images says which image each is; '' for other formats.
    `unsplit`: what is to be known of an export without shares, '' where nothing is.
    """

    shapes: tuple[Shape, ...] = ("masks",)
    is_folder: bool = False
    holds_images: bool = False
    has_splits: bool = False
    keeps_target_ids: bool = False
    names_images_in: str = ""
    unsplit: str = ""


EXPORT_FORMATS = Choices(
    "export format",
    ExportFormat(
        name="coco-results",
        help="a list of results, as COCO's evaluation takes it",
        implementation="tasks.outputs.exports.coco:write_results",
        keeps_target_ids=True,
        names_images_in=IN_PROVENANCE,
    ),
    ExportFormat(
        name="coco",
        help="a whole COCO dataset: images, categories and annotations",
        implementation="tasks.outputs.exports.coco:write_dataset",
        shapes=("masks", "polygons"),
        names_images_in="the file's images",
    ),
    ExportFormat(
        name="parquet",
        help="one table with the columns of detections, and the names of files and categories",
        implementation="tasks.outputs.exports.parquet:write_table",
    ),
    ExportFormat(
        name="yolo",
        help="a folder that Ultralytics trains from",
        implementation="tasks.outputs.exports.yolo:write_yolo",
        shapes=("polygons", "boxes"),
        is_folder=True,
        holds_images=True,
        has_splits=True,
        unsplit="data.yaml names the images of training for validation, too (val: images/train), so that a trainer's "
        "numbers are those of what it learned from; --split 0.8,0.2 sets some apart.",
    ),
    ExportFormat(
        name="voc",
        help="a folder as PASCAL VOC has it",
        implementation="tasks.outputs.exports.voc:write_voc",
        shapes=("polygons", "boxes"),
        is_folder=True,
        holds_images=True,
        has_splits=True,
    ),
    ExportFormat(
        name="labelme",
        help="a folder that labelme opens",
        implementation="tasks.outputs.exports.labelme:write_labelme",
        shapes=("polygons", "masks", "boxes"),
        is_folder=True,
        holds_images=True,
    ),
    ExportFormat(
        name="cvat",
        help="one XML file, 'CVAT for images 1.1'",
        implementation="tasks.outputs.exports.cvat:write_cvat",
        shapes=("polygons", "masks", "boxes"),
    ),
    ExportFormat(
        name="label-studio",
        help="a folder with tasks that hold predictions, and the labeling configuration",
        implementation="tasks.outputs.exports.label_studio:write_label_studio",
        shapes=("masks", "polygons", "boxes"),
        is_folder=True,
    ),
    ExportFormat(
        name="lvis",
        help="one LVIS json file, with the categories that are absent from each image",
        implementation="tasks.outputs.exports.lvis:write_lvis",
        shapes=("polygons", "masks"),
        names_images_in="the file's images",
    ),
    ExportFormat(
        name="hf",
        help="an imagefolder for Hugging Face's datasets",
        implementation="tasks.outputs.exports.hf:write_imagefolder",
        shapes=("masks", "polygons", "boxes"),
        is_folder=True,
        holds_images=True,
        has_splits=True,
        names_images_in="the metadata of each split",
    ),
    ExportFormat(
        name="masks",
        help="a folder with a PNG file for each instance, or with --label-map for each image",
        implementation="tasks.outputs.exports.masks:write_masks",
        is_folder=True,
    ),
)
