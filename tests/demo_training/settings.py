"""What can be set about training the demo's models. Weights of losses that were never varied lie with the losses."""

from dataclasses import dataclass, field

from tests.demo_scenes.scenes import SceneSettings


@dataclass(frozen=True)
class OptimizerSettings:
    """How long and how fast a model learns: AdamW, linear warm-up, then a half cosine down to nothing."""

    num_steps: int
    seed: int = 0
    learning_rate: float = 7e-4
    warmup_steps: int = 100
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    averaging: float = 0.995


@dataclass(frozen=True)
class _Training:
    """One step of either model: scenes of some categories."""

    optimizer: OptimizerSettings
    num_scenes: int = 4
    num_categories: int = 12
    scenes: SceneSettings = field(default_factory=SceneSettings)


@dataclass(frozen=True)
class SegmenterTraining(_Training):
    """One step of the segmenter: scenes, and prompts in each of them."""

    object_points: int = 7
    background_points: int = 4
    boxes: int = 3
    box_jitter: float = 1.5
    pointing_steps: int = 250
    grouping_weight: float = 0.1
    outside_weight: float | None = None  # of a pixel outside the object; None: outside and inside count the same


@dataclass(frozen=True)
class EncoderTraining(_Training):
    """One step of the encoder: an episode of categories, one reference each, and scenes to find them in."""

    num_scenes: int = 8
    num_categories: int = 10
    background_regions: int = 4
    temperature: float = 0.1
    none_similarity: float = 0.3
    background_similarity: float = 0.1
