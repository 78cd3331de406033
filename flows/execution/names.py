"""Names that a Prefect server shows: work pools, deployments that this project starts, and runs of label shards."""

from collections.abc import Sequence

from tasks.storage.uris import last_name

CPU_POOL, GPU_POOL = "refseg-cpu", "refseg-gpu"  # for whole runs, and for what needs a GPU
LABEL_NOW = "refseg/label-now"
LABEL_SHARDS, BUILD_BANK = "label shards/gpu", "build bank/gpu"


def group_name(images_uri: str, shard_names: Sequence[str]) -> str:
    """Returns the name of a run that labels some shards, such as label boats 0000-00012 to 0000-00043."""
    place = last_name(images_uri) or "images"
    ends = dict.fromkeys([*shard_names[:1], *shard_names[-1:]])
    return f"label {place} {' to '.join(ends) or 'nothing'}"
