"""The named category sets of the published benchmarks. Method, section 1.4."""

COCO_CATEGORIES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)

_FEW_SHOT = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv"),
)

_NAMED: dict[str, tuple[str, ...]] = {
    "coco": COCO_CATEGORIES,
    "default_classes": COCO_CATEGORIES,
    "few_shot_classes": _FEW_SHOT,
    **{f"coco_semantic_split_{fold}": COCO_CATEGORIES[fold - 1 :: 4] for fold in (1, 2, 3, 4)},
    "pascal_voc_split_1": ("bird", "bus", "cow", "motorbike", "sofa"),
    "pascal_voc_split_2": ("aeroplane", "bottle", "cow", "horse", "sofa"),
    "pascal_voc_split_3": ("boat", "cat", "motorbike", "sheep", "sofa"),
}

# LVIS lists its categories in its own file, with the frequency of each; None takes all of them.
LVIS_FREQUENCIES: dict[str, str | None] = {
    "lvis": None,
    "lvis_rare": "r",
    "lvis_common": "c",
    "lvis_frequent": "f",
}

# Whose categories their benchmarks call novel: AP over them is their nAP, AP50 their nAP50.
NOVEL_SPLITS = frozenset({"few_shot_classes", *(name for name in _NAMED if name.startswith("pascal_voc"))})

SPLIT_NAMES: tuple[str, ...] = (*_NAMED, *LVIS_FREQUENCIES)


def split_categories(split: str) -> tuple[str, ...]:
    """Returns the category names of a split other than LVIS's."""
    return _NAMED[split]
