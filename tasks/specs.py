"""What tasks work on and with: datasets, models, and what is the same for every shard of a run.

Not here: opening any of it, and the configuration of a whole run (`flows/config/run_config.py`).
"""

from pydantic import Field

from refseg_core.settings import BatchSettings, BoxForm, FormatName, LabelingSettings, Settings


class DatasetSource(Settings):
    """Where images and annotations lie."""

    images: str = Field(description="Folder or prefix of the images: a path or any fsspec URI.")
    annotations: str | None = Field(None, description="A file or a folder of annotations: a path or any fsspec URI.")
    format: FormatName = Field("auto", description="The annotations' format; 'auto' detects it.")
    masks_from: str | None = Field(
        None, description="COCO json from which annotations without a mask take theirs: a path or any fsspec URI."
    )
    boxes: BoxForm = Field("auto", description="How boxes are written; 'auto': as the format has them.")
    white: int | None = Field(None, description="The value of 16-bit grayscale that is white; null: by some images.")
    image_ids: tuple[str, ...] | None = Field(None, description="Only these images; null: all.")
    limit: int | None = Field(None, ge=1, description="Only the first so many of them; null: all.")
    with_versions: bool = Field(
        False, description="Look up annotated images in their folder too, so that changed ones are noticed."
    )


class ModelSettings(Settings):
    """Which model, and where its weights lie."""

    model: str = Field(description="Name of the model; `refseg weights list` shows all.")
    weights: str | None = Field(
        None, description="Path or URI of the weights; null takes those that `refseg weights pull` fetched."
    )


class Models(Settings):
    """The models of a run, and the device that they run on."""

    segmenter: ModelSettings = Field(description="SAM2, which proposes masks.")
    encoder: ModelSettings = Field(description="DINOv2, which compares masks with references.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda' or 'cuda:1'.")


class LabelSpec(Models):
    """Which images are labeled, with what, and how."""

    images: str = Field(description="Folder or prefix of the images to label.")
    labeling: LabelingSettings = Field(LabelingSettings(), description="How images are labeled.")
    batches: BatchSettings = Field(BatchSettings(), description="How the work is cut up; never changes labels.")
    pictures: str | None = Field(None, description="Folder or prefix for a picture of every labeled image.")


class LabelJob(LabelSpec):
    """What every shard of a plan has in common: the parameter of the flows that label shards."""

    store: str = Field(description="Folder or prefix of the artifacts.")
    key: str = Field(description="The labels' key in the store.")
    prototypes: str = Field(description="The prototypes' name in the store: prototypes/<key>.")
