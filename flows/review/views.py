"""What the page is told, as plain values for json: instances, images and references, with outlines to draw."""

from collections.abc import Iterable
from typing import Any

from flows.review.state import ReviewState
from refseg_core.analysis.review_queue import AUDIT, REASONS
from refseg_core.errors import RefsegError
from refseg_core.masks.outlines import svg_path
from refseg_core.masks.rle import rle_boxes
from refseg_core.visualization import category_colors
from tasks.outputs.review.pictures import ReviewPictures, bounds_around


class ReviewViews:
    """Makes what the page is told of a session."""

    def __init__(self, session: ReviewState, pictures: ReviewPictures) -> None:
        self.session, self.index, self.pictures = session, session.index, pictures

    def store(self) -> dict[str, Any]:
        """Returns what stays the same during a review: categories, reasons, verdicts, labels."""
        categories = self.index.categories
        colors = category_colors(len(categories))
        return {
            "labels": self.index.run.key,
            "store": self.index.run.store.uri.rstrip("/").rpartition("/")[2],
            "num_images": len(self.index.images),
            "num_instances": len(self.index),
            "categories": [
                {"id": category, "name": str(name), "color": "#{:02x}{:02x}{:02x}".format(*color)}
                for category, name, color in zip(
                    categories.category_id.tolist(), categories.name, colors.tolist(), strict=True
                )
            ],
            "reasons": [{"name": one.name, "help": one.help} for one in (*REASONS, AUDIT)],
        }

    def progress(self) -> dict[str, Any]:
        """Returns how far the review is: verdicts, people, and precision by the audit."""
        instances = self.index.instances
        thresh_of = dict(zip(instances.category.tolist(), instances.thresh.tolist(), strict=True))
        names = dict(zip(self.index.categories.category_id.tolist(), self.index.categories.name, strict=True))
        audited = [(self.session.precision(one, thresh), str(names[one])) for one, thresh in thresh_of.items()]
        return {
            "version": self.session.version,
            "verdicts": dict(self.session.verdicts()),
            "reviewers": dict(self.session.by_reviewer.most_common()),
            "audit": [precision.describe(name) for precision, name in audited if precision.num_decided],
        }

    def cards(self, rows: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
        """Returns instances of the queue in short, each with its place in it; reads no labels."""
        return [{**self._card(row), "place": place} for row, place in rows]

    def _card(self, row: int) -> dict[str, Any]:
        instances, image = self.index.instances, self.index.images[self.index.image_at(row)]
        reason = self.session.ranking.reason_of(row)
        return {
            "id": instances.identity[row],
            "image": self.index.image_at(row),
            "file": str(self.index.dataset_images.file_name[image.row]),
            "category": int(instances.category[row]),
            "score": round(float(instances.score[row]), 4),
            "thresh": round(float(instances.thresh[row]), 4),
            "reason": reason.name,
            "state": self.state(instances.identity[row]),
        }

    def state(self, identity: str) -> dict[str, Any]:
        """Returns what is decided on an instance."""
        label, bank = (self.session.decision_on(identity, aspect) for aspect in ("label", "bank"))
        return {
            "verdict": None if label is None else str(label.verdict[0]),
            "category": None if label is None else int(label.category_id[0]),
            "by": self.session.decided_by(identity),
            "bank": None if bank is None else str(bank.verdict[0]),
        }

    def instance(self, identity: str) -> dict[str, Any]:
        """Returns an instance with its image's others, and its category's references."""
        row = self.index.row_of.get(identity)
        if row is None:
            number = self.index.image_of[str(self.session.shown(identity)["image_id"])]
            return {"id": identity, "reason": "", "thresh": 0.0, **self._added(identity), **self.image(number)}
        image = self.index.images[self.index.image_at(row)]
        bounds = bounds_around(self.index.instances.box_xyxy[row].tolist(), (image.height, image.width))
        return {
            **self._card(row),
            "bounds": bounds,
            "predicted_iou": round(float(self.index.detection(row).predicted_iou[0]), 3),
            **self.image(self.index.image_at(row), always={identity}),
        }

    def image(self, number: int, always: Iterable[str] = (), *, is_whole: bool = False) -> dict[str, Any]:
        """Returns an image with its instances: labels, those that are decided on or in `always`; all if `is_whole`."""
        image, instances, always = self.index.images[number], self.index.instances, set(always)
        detections = self.index.detections(image.rows)
        shown = [
            self._in_image(row, detections[offset : offset + 1])
            for offset, row in enumerate(image.rows)
            if is_whole
            or instances.score[row] >= instances.thresh[row]
            or self.session.is_decided[row]
            or instances.identity[row] in always
        ]
        added = [{"id": identity, **self._added(identity)} for identity in self.session.added[number]]
        return {
            "image": number,
            "file": str(self.index.dataset_images.file_name[image.row]),
            "size": [image.width, image.height],
            "instances": [*shown, *(one for one in added if one["state"]["verdict"] is not None)],
            "num_all": len(image.rows),
        }

    def _in_image(self, row: int, detection: Any) -> dict[str, Any]:
        identity = self.index.instances.identity[row]
        mask = self.session.mask_of(identity) if self.session.is_decided[row] else detection.mask_rle[0]
        return {
            "id": identity,
            "category": int(self.index.instances.category[row]),
            "score": round(float(self.index.instances.score[row]), 4),
            "is_label": bool(self.index.instances.score[row] >= self.index.instances.thresh[row]),
            "box": rle_boxes([mask])[0].tolist(),
            "path": svg_path(mask),
            "state": self.state(identity),
        }

    def _added(self, identity: str) -> dict[str, Any]:
        mask, shown = self.session.mask_of(identity), self.session.shown(identity)
        return {
            "category": int(shown["category_id"]),
            "score": None,
            "is_label": True,
            "box": rle_boxes([mask])[0].tolist(),
            "path": svg_path(mask),
            "state": self.state(identity),
        }

    def references(self, category: int) -> list[dict[str, Any]]:
        """Returns the references of a category, first shots first; those whose image cannot be read say why."""
        references = self.index.references
        rows = [row for row, one in enumerate(references.category_id.tolist()) if one == category]
        return [self._reference(row) for row in sorted(rows, key=lambda row: int(references.shot[row]))]

    def _reference(self, row: int) -> dict[str, Any]:
        references = self.index.references
        file_name = str(references.file_name[row])
        shown = self.index.added_names.get(file_name, file_name)
        named = {"row": row, "shot": int(references.shot[row]), "file": shown}
        try:
            size = self.pictures.reference_size(row)
        except RefsegError as error:
            return {**named, "error": str(error)}
        mask, box = references.mask_rle[row], references.box_xyxy[row].tolist()
        return {**named, "bounds": bounds_around(box, size), "path": "" if mask is None else svg_path(mask)}
