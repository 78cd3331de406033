"""The page of a pilot: per category its references and its instances by falling score, then every image; one HTML file.

Pictures are in the file itself, so that it can be sent around. Not here: choosing the images and labeling them.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import RefsegError, counted
from refseg_core.images import Pixels
from refseg_core.masks.rle import Rle, mask_ious
from refseg_core.tables import Categories, Detections, Images, PilotImages
from refseg_core.visualization import Picture, instance_panel, to_small_jpeg
from tasks.datasets.image_reader import read_images
from tasks.datasets.indexed import ground_truth
from tasks.outputs.pictures import MAX_PIXELS, DrawnReference, Palette, draw_detections, draw_references
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import labeled_categories
from tasks.store.store import Artifact, Store

_SHOWN = 18  # instances of a category: of more, those at equal distances in their ranking
_IMAGE_BYTES, _PANEL_BYTES = 60_000, 9_000
_PANEL_SIDE = 160
_RIGHT_IOU = 0.5
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1300px; padding: 0 1em; color: #222; }
h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } th, td { padding: .2em .9em .2em 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.row { display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start; }
figure { margin: 0; } figcaption { font-size: 12px; color: #555; max-width: 420px; }
.threshold { width: 3px; align-self: stretch; background: #222; }
figure.below { opacity: .45; } figure.right img { outline: 3px solid #2a8f4a; }
figure.wrong img { outline: 3px solid #c0392b; } .images img { width: 410px; height: auto; }
""".strip()


@dataclass(frozen=True)
class ShownInstance:
    """An instance for the page: its picture, and what is said of it."""

    score: float
    is_kept: bool
    is_right: bool | None
    file_name: str
    panel: Picture


@dataclass(frozen=True)
class Ranking:
    """The instances of a category that are shown, by falling score, of how many, how many of all are kept, from where.

    `thresh`: the threshold of the category.
    """

    shown: Sequence[ShownInstance]
    num: int
    num_kept: int
    thresh: float

    @property
    def num_above(self) -> int:
        """How many of those shown reach the threshold."""
        return sum(bool(one.score >= np.float32(self.thresh)) for one in self.shown)

    def describe(self) -> str:
        """Returns a sentence: which instances are shown, and which of them are kept."""
        num_shown = len(self.shown)
        if not num_shown:
            return "Instances by falling score: none."
        which = f"all {num_shown}" if num_shown == self.num else f"{num_shown} of {self.num:,}, spread over the scores"
        kept = sum(one.is_kept for one in self.shown)
        of_all = "" if num_shown == self.num else f", {self.num_kept:,} of all"
        end = num_shown == self.num_above
        line = " All reach" if end else " The line is at" if self.num_above else " None reaches"
        return (
            f"Instances by falling score: {which}. {kept} of these are kept{of_all}.{line} the threshold, "
            f"{self.thresh:g}."
        )


def write_pilot_page(
    store: Store, labels_key: str, out_uri: str, *, chosen: Artifact, dataset: Artifact, kept: LabelFilter
) -> str:
    """Writes `pilot.html` into a folder; returns its address. `kept`: what is drawn; the rest is shown faintly."""
    page = _Page.of(store, labels_key, chosen, dataset, kept)
    folder = Folder(out_uri)
    folder.replace("pilot.html", page.html().encode())
    return folder.join("pilot.html")


@dataclass(frozen=True)
class _Page:
    """What the page shows. `truth`: None where the images have no ground truth."""

    store: Store
    run: StoredLabels
    images: Images
    chosen: PilotImages
    detections: Detections
    categories: Categories
    kept: LabelFilter
    truth: Dataset | None

    @classmethod
    def of(cls, store: Store, labels_key: str, chosen: Artifact, dataset: Artifact, kept: LabelFilter) -> "_Page":
        run, images = StoredLabels(store, labels_key), store.load(dataset, Images)
        detections = Detections.concatenate([part for part, _ in run.read(images)])
        prototypes = run.prototypes()
        is_annotated = dataset.num_rows.get("annotations", 0) > 0
        return cls(
            store,
            run,
            images,
            store.load(chosen, PilotImages),
            detections[np.argsort(-detections.score, kind="stable")],
            labeled_categories(store, prototypes),
            kept,
            _truth(store, dataset, prototypes) if is_annotated else None,
        )

    def html(self) -> str:
        """Returns the whole page."""
        palette = Palette(self.store, self.run.prototypes())
        is_kept = self.kept.keep(self.detections, self.categories)
        shown = self._shown()
        pictures, panels = self._draw(palette, is_kept, {row for rows in shown.values() for row in rows})
        instances = {row: self._instance(row, panel, bool(is_kept[row])) for row, panel in panels.items()}
        references = draw_references(self.store, self.run.prototypes(), palette, side=_PANEL_SIDE)
        body = [*self._head(is_kept)]
        for category_id, name in palette.name_of.items():
            own = [one for one in references if one.category_id == category_id]
            listed = [instances[row] for row in shown[category_id] if row in instances]
            is_kept_of_own = is_kept[self.detections.category_id == category_id]
            ranking = Ranking(listed, len(is_kept_of_own), int(is_kept_of_own.sum()), self.kept.thresholds.of(name))
            body += category_section(name, own, ranking)
        body += self._image_section(pictures)
        return _document("\n".join(body))

    def _shown(self) -> dict[int, list[int]]:
        """Returns for each category the rows of the instances to show, by falling score."""
        shown = {}
        for category_id in self.categories.category_id.tolist():
            rows = np.flatnonzero(self.detections.category_id == category_id)
            places = np.unique(np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).round().astype(np.int64))
            shown[category_id] = rows[places].tolist()
        return shown

    def _draw(
        self, palette: Palette, is_kept: "np.typing.NDArray[np.bool_]", wanted: set[int]
    ) -> tuple[dict[str, Picture], dict[int, Picture]]:
        """Returns each image with its kept instances, by id, and the wanted instances in their surroundings, by row."""
        pictures, panels = dict[str, Picture](), dict[int, Picture]()
        source = Folder(self.run.recipe_or_error()["settings"]["images"])
        report(ProgressStep.DRAW_PICTURES, total=len(self.images))
        for image in read_images(source, self.images, max_pixels=MAX_PIXELS):
            report(ProgressStep.DRAW_PICTURES, advanced=1)
            if image.pixels is not None:
                image_id = str(self.images.image_id[image.row])
                is_here = self.detections.image_id == image_id
                pictures[image_id] = draw_detections(image.pixels, self.detections[is_here & is_kept], palette)
                for row in np.flatnonzero(is_here).tolist():
                    if row in wanted:
                        panels[row] = self._panel(image.pixels, row, palette)
        return pictures, panels

    def _panel(self, pixels: Pixels, row: int, palette: Palette) -> Picture:
        one = self.detections[row : row + 1]
        (color,) = palette.colors(one.category_id)
        details = f"{one.score[0]:.2f}"
        name = palette.names(one.category_id)[0]
        return instance_panel(
            pixels, one.box_xyxy[0], one.mask_rle[0], name=name, details=details, color_index=color, side=_PANEL_SIDE
        )

    def _instance(self, row: int, panel: Picture, is_kept: bool) -> ShownInstance:
        one = self.detections[row : row + 1]
        (place,) = np.flatnonzero(self.images.image_id == one.image_id[0]).tolist()
        return ShownInstance(
            float(one.score[0]), is_kept, self._is_right(one), str(self.images.file_name[place]), panel
        )

    def _is_right(self, one: Detections) -> bool | None:
        """Returns whether an instance lies on one of the ground truth, of its category; None where nothing says it."""
        if self.truth is None:
            return None
        truth = self.truth.annotations
        is_same = (truth.image_id == one.image_id[0]) & (truth.category_id == one.category_id[0]) & truth.has_mask
        masks: Sequence[Rle] = list(truth.mask_rle[is_same])
        return bool(masks) and bool((mask_ious([one.mask_rle[0]], masks) > _RIGHT_IOU).any())

    def _head(self, is_kept: "np.typing.NDArray[np.bool_]") -> Iterator[str]:
        yield f"<h1>Pilot of {counted(len(self.images), 'image')}</h1>"
        shown = escape(self.kept.describe())
        outline = " Green: on an instance of the ground truth; red: not." if self.truth is not None else ""
        yield f"<p>Labels <code>{self.run.key}</code>. Kept: {shown}; the rest is faint.{outline}</p>"
        yield "<table><tr><th>category</th><th>kept</th><th>in images</th><th>left out</th><th>best score</th></tr>"
        for category_id, name in zip(self.categories.category_id.tolist(), self.categories.name, strict=True):
            is_own = self.detections.category_id == category_id
            own = self.detections[is_own & is_kept]
            best = f"{self.detections.score[is_own].max():.2f}" if is_own.any() else "-"
            cells = (escape(str(name)), len(own), len(set(own.image_id)), int((is_own & ~is_kept).sum()), best)
            yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        yield "</table>"

    def _image_section(self, pictures: Mapping[str, Picture]) -> Iterator[str]:
        yield '<h2>Images</h2><p>In the order in which they were chosen.</p><div class="row images">'
        name_of = dict(zip(self.images.image_id, self.images.file_name, strict=True))
        category_of = dict(zip(self.categories.category_id.tolist(), self.categories.name, strict=True))
        for row in range(len(self.chosen)):
            one = self.chosen[row : row + 1]
            image_id = str(one.image_id[0])
            if image_id in pictures:
                which = "likely" if one.is_likely_present[0] else "unlikely"
                category = category_of.get(int(one.category_id[0]), "a category that is gone")
                why = f"{name_of[image_id]}: {which} to show {category} ({one.similarity[0]:.2f})"
                yield _figure(pictures[image_id], why, most_bytes=_IMAGE_BYTES)
        yield "</div>"


def _truth(store: Store, dataset: Artifact, prototypes: Artifact) -> Dataset | None:
    try:
        return ground_truth(store, dataset, prototypes)
    except RefsegError:  # other categories than the references'
        return None


def category_section(name: str, references: Sequence[DrawnReference], ranking: Ranking) -> Iterator[str]:
    """Yields the part of a category: its references, and its instances with a line where the threshold lies."""
    yield f"<h2>{escape(name)}</h2><p>References, each with the id for <code>refseg bank --drop</code></p>"
    yield '<div class="row">'
    yield from (_figure(one.panel, one.annotation_id, most_bytes=_PANEL_BYTES) for one in references)
    yield f'</div><p>{ranking.describe()}</p><div class="row">'
    for place, one in enumerate(ranking.shown):
        if 0 < place == ranking.num_above:
            yield '<div class="threshold"></div>'
        verdict = {None: "", True: " right", False: " wrong"}[one.is_right]
        kind = f"{'' if one.is_kept else 'below'}{verdict}"
        yield _figure(one.panel, one.file_name, kind, most_bytes=_PANEL_BYTES)
    yield "</div>"


def _figure(picture: Picture, caption: str, kind: str = "", *, most_bytes: int) -> str:
    data = b64encode(to_small_jpeg(picture, most_bytes)).decode()
    return (
        f'<figure class="{kind.strip()}"><img src="data:image/jpeg;base64,{data}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _document(body: str) -> str:
    head = f'<meta charset="utf-8"><title>refseg pilot</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>\n{body}\n</body></html>\n"
