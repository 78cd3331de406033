"""Where a run's datasets and weights lie: the settings that name places. Nothing is opened here."""

from pydantic import Field

from refseg_core.settings import AnnotationFormat, Settings


class DatasetSource(Settings):
    """Where images and annotations lie."""

    images: str = Field(description="Folder or prefix of the images: a path or any fsspec URI.")
    annotations: str | None = Field(
        None, description="COCO json, CVAT XML, or a folder of annotation files: a path or any fsspec URI."
    )
    format: AnnotationFormat = Field("auto", description="The annotations' format; 'auto' tells by what lies there.")
    masks_from: str | None = Field(
        None, description="COCO json from which annotations without a mask take theirs: a path or any fsspec URI."
    )
    image_ids: tuple[str, ...] | None = Field(None, description="Only these images; null: all.")
    with_versions: bool = Field(
        False, description="Look up annotated images in their folder too, so that changed ones are noticed."
    )


class ModelSettings(Settings):
    """Which model, and where its weights lie."""

    model: str = Field(description="Name of the model; `refseg weights list` shows all.")
    weights: str | None = Field(
        None, description="Path or URI of the weights; null takes those that `refseg weights pull` fetched."
    )
