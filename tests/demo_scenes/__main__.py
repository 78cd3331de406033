"""Writes the demo's scenes: `python -m tests.demo_scenes --out refseg_core/demo/scenes`."""

import argparse
import io
import json
from pathlib import Path

from PIL import Image

from tests.demo_scenes.dataset import DEMO_CATEGORIES, draw_demo_references, draw_demo_targets, image_name, to_coco
from tests.demo_scenes.scenes import Scene

_QUALITY = 92  # of JPEG: a quarter of the lossless size


def main() -> None:
    """Writes references with boxes only, as annotators often give them, and targets with masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder for images and annotations.")
    folder: Path = parser.parse_args().out
    _write(folder, "references", draw_demo_references(), with_masks=False)
    _write(folder, "targets", draw_demo_targets(), with_masks=True)


def _write(folder: Path, name: str, scenes: tuple[Scene, ...], *, with_masks: bool) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes):
        (folder / name / image_name(name, index)).write_bytes(_to_jpeg(scene))
    coco = to_coco(scenes, DEMO_CATEGORIES, prefix=name, with_masks=with_masks)
    (folder / f"{name}.json").write_text(json.dumps(coco, separators=(",", ":")), encoding="utf-8")


def _to_jpeg(scene: Scene) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


if __name__ == "__main__":
    main()
