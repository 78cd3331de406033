"""What labels images, whichever process and machine does it: everything but which images."""

from pydantic import Field

from refseg_core.settings import BatchSettings, LabelingSettings, Settings
from tasks.specs import ModelSettings


class LabelJob(Settings):
    """What is the same for every shard of a plan."""

    store: str = Field(description="Folder or prefix of the artifacts.")
    key: str = Field(description="The labels' key in the store.")
    prototypes: str = Field(description="The prototypes' name in the store: prototypes/<key>.")
    images: str = Field(description="Folder or prefix of the images to label.")
    labeling: LabelingSettings = Field(LabelingSettings(), description="How images are labelled.")
    batches: BatchSettings = Field(BatchSettings(), description="How the work is cut up; never changes labels.")
    segmenter: ModelSettings = Field(description="SAM2, which proposes masks.")
    encoder: ModelSettings = Field(description="DINOv2, which compares masks with references.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda' or 'cuda:1'.")
    pictures: str | None = Field(None, description="Folder or prefix for a picture of every labelled image.")
