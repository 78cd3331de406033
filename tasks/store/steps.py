"""The steps that leave artifacts in a store, each with the folder that its artifacts lie in, in the order of a run.

`status`, `verify` and `gc` know the folders from here, so that a step listed here is seen by all of them.
"""

from typing import NamedTuple


class Step(NamedTuple):
    """A step's name in recipes, and its folder below the store."""

    name: str
    folder: str


INDEX_DATASET = Step("index_dataset", "dataset")
ADD_REFERENCES = Step("add_references", "dataset")
SAMPLE_REFERENCES = Step("sample_references", "references")
EDIT_REFERENCES = Step("edit_references", "references")
SEGMENT_REFERENCES = Step("segment_references", "references")
ENCODE_IMAGE = Step("encode_image", "image_features")
FILL_MEMORY_BANK = Step("fill_memory_bank", "memory_bank")
POSTPROCESS_MEMORY_BANK = Step("postprocess_memory_bank", "prototypes")
ASSESS_REFERENCES = Step("assess_references", "reference_quality")
CHOOSE_GUIDANCE = Step("choose_guidance_thresh", "guidance")
CHOOSE_PILOT = Step("choose_pilot", "pilots")
KEEP_PROPOSALS = Step("keep_proposals", "proposals")
LABEL_SHARD = Step("label_shard", "labels")
FIND_GONE_LABELS = Step("find_gone_labels", "gone_labels")
EVALUATE = Step("evaluate", "metrics")
PROPOSE_THRESHOLDS = Step("propose_thresholds", "thresholds")
BENCHMARK = Step("benchmark", "benchmarks")
REVIEW = Step("review", "reviews")

STEPS = tuple(step for step in list(globals().values()) if isinstance(step, Step))
# Labels and reviews lie otherwise than artifacts: see `label_store.py` and `reviews.py`.
ARTIFACT_FOLDERS = tuple(dict.fromkeys(step.folder for step in STEPS if step not in (LABEL_SHARD, REVIEW)))
