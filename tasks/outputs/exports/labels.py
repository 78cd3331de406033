"""Exports the labels of a run in any format, and writes beside them where they came from."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from refseg_core.errors import redact_text
from refseg_core.settings.areas import OTHERS
from tasks.outputs.export_places import check_place, provenance_uri, recorded_files
from tasks.outputs.exports.exported import ExportedLabels, ExportOptions, summary_of
from tasks.outputs.exports.formats import EXPORT_FORMATS, IN_PROVENANCE, PROVENANCE_IMAGES, ExportFormat
from tasks.outputs.exports.writing import write_folder
from tasks.storage.leftovers import remove_leftovers
from tasks.storage.objects import write_uri
from tasks.storage.uris import redact
from tasks.storage.whole_folders import local_path
from tasks.store.label_store import StoredLabels
from tasks.store.store import made_by


def export_labels(run: StoredLabels, out: str, *, form: str, **options: Any) -> ExportedLabels:
    """Writes the labels of the images that were labeled last to a file, folder or URI, whole or not at all.

    `options`: those of `ExportOptions`, by name. Their provenance is written last, to the same name with
    `.provenance` behind it. Returns what was exported.
    """
    kind = EXPORT_FORMATS[form]
    labels = ExportedLabels(run, kind, ExportOptions(**options))
    images = str(run.recipe_or_error()["settings"].get("images", ""))
    check_place(out, [images, run.store.uri], is_folder=kind.is_folder)
    _remove_leftovers(out)
    if kind.is_folder:
        _write_folder(labels, kind, out, images)
    else:
        write_uri(out, _begun(out, kind, kind.load()(labels)))
    written = {"files": recorded_files(out)} if kind.is_folder else {}
    _write_provenance(out, {"complete": True} | provenance_of(labels) | written)
    return labels


def _remove_leftovers(out: str) -> None:
    """Removes what killed exports to a local place have left beside it."""
    for uri in (out, provenance_uri(out)):
        if (path := local_path(uri)) is not None:
            remove_leftovers(path)


def _write_folder(labels: ExportedLabels, kind: ExportFormat, out: str, images: str) -> None:
    files: Iterable[Any] = kind.load()(labels)
    if local_path(out) is None:  # there it comes into being file by file
        _write_unfinished(out, kind)
    else:
        files = _begun(out, kind, files)
    write_folder(out, files, images, labels.options.images)


def _begun(out: str, kind: ExportFormat, parts: Iterable[Any]) -> Iterator[Any]:
    """Yields what is written, and says last that an export takes its place: it may be ended before that is described.

    Not earlier, since what was there before is then still described by its provenance if anything fails.
    """
    yield from parts
    _write_unfinished(out, kind)


def _write_unfinished(out: str, kind: ExportFormat) -> None:
    _write_provenance(out, {"complete": False, "format": kind.name})


def _write_provenance(out: str, content: dict[str, Any]) -> None:
    write_uri(provenance_uri(out), [json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"])


def provenance_of(labels: ExportedLabels) -> dict[str, Any]:
    """Returns what is to be known of an export."""
    recipe, options = labels.run.recipe_or_error(), labels.options
    thresholds = options.kept.thresholds
    dataset = labels.run.requested()
    content: dict[str, Any] = {
        "format": labels.form.name,
        **made_by(),
        "store": redact(labels.run.store.uri),
        "labels": labels.run.key,
        "dataset": None if dataset is None else dataset.name,
        "image_folder": redact_text(redact(str(recipe["settings"].get("images", "")))),
        "inputs": recipe["inputs"],
        "weights": recipe["weights"],
        "labeled_by": recipe["refseg_version"],
        "kept": options.kept.describe(),
        "thresholds": dict(thresholds.by_name) | {OTHERS: thresholds.others},
        "filter": {
            "categories": options.kept.categories,
            "min_area": options.kept.min_area,
            "max_area": options.kept.max_area,
        },
        "options": {
            "shape": labels.shape,
            "simplify": options.simplify if labels.shape == "polygons" else None,
            "min_island": options.island_in(labels.form),
            "split": list(options.split),
            "seed": options.seed,
        },
        **summary_of(labels),
    }
    if labels.has_categories:
        content["categories"] = _categories(labels)
    if labels.form.names_images_in == IN_PROVENANCE and (numbered := labels.numbered_images()):
        content[PROVENANCE_IMAGES] = [{"id": image_id, "file_name": name} for image_id, name in numbered]
    return content


def _categories(labels: ExportedLabels) -> list[dict[str, Any]]:
    categories, renumbered = labels.categories(), labels.renumbered()
    rows = zip(categories.category_id.tolist(), categories.name, strict=True)
    return [{"id": number, "name": name, "id_in_store": renumbered.get(name, (number,))[0]} for number, name in rows]
