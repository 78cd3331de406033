"""Which format annotations are in: by the names of the files in their folder, or by how a single file begins.

Also which files of the folder look like annotations and are left out.

What is known of each format is in `refseg_core/settings/choices.py`. Not here: listing folders and what to do where
several formats fit (`tasks/datasets/annotation_files.py`).
"""

from collections.abc import Iterable, Sequence
from posixpath import splitext

from refseg_core.datasets.class_names import CLASS_FILES, COLOR_FILE
from refseg_core.datasets.image_files.names import UNUSABLE, check_file_name, is_hidden
from refseg_core.datasets.oddities import Oddity, OddityCounter
from refseg_core.images import IMAGE_SUFFIXES
from refseg_core.settings.choices import ANNOTATION_FORMATS

_BEGINNING = 1 << 16  # bytes
_IN_HIDDEN = "files of annotations in folders whose names begin with a dot: left out; rename the folders to use them"
_OTHER_IMAGES = "pictures that are no PNG files among the masks: left out; save them as PNG where they are masks"
_OTHER_FORMATS = (
    "files that look like annotations of another format: not read, since a dataset has one format; convert them to it, "
    "or add single references with `refseg bank CONFIG --add`"
)
_NOTEBOOKS = ".ipynb_checkpoints"
_TEXT_SUFFIXES = {kind.suffix for kind in ANNOTATION_FORMATS.values()} - set(IMAGE_SUFFIXES)
_SPLITS = "imagesets"  # a folder of PASCAL VOC with lists of images
_IMAGE_LISTS = {"train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt", "license.txt"}


def annotation_files(names: Iterable[str], suffix: str) -> list[str]:
    """Returns those of a folder's files that can be annotations whose names end in the suffix; by name."""
    return sorted(name for name in names if name.lower().endswith(suffix) and not _is_other(name))


def files_left_out(names: Iterable[str], suffix: str) -> tuple[Oddity, ...]:
    """Returns which of a folder's files are not read, though they look like annotations of the suffix.

    `names`: without the images that are annotated, where these lie in the same folder.
    """
    found = OddityCounter()
    for name in names:
        ending = splitext(name.lower())[1]
        if is_hidden(name):
            if _is_in_hidden_folder(name) and annotation_files([name], suffix):
                found.add(_IN_HIDDEN, name)
        elif annotation_files([name], suffix) and (reason := check_file_name(name)):
            found.add(UNUSABLE, f"{name} {reason}")
        elif suffix in IMAGE_SUFFIXES and ending in IMAGE_SUFFIXES and ending != suffix:
            found.add(_OTHER_IMAGES, name)
        elif ending != suffix and ending in _TEXT_SUFFIXES and annotation_files([name], ending):
            found.add(_OTHER_FORMATS, name)
    return found.found()


def _is_in_hidden_folder(name: str) -> bool:
    """Returns whether a folder's own name hides a file, and not one that notebooks and archives leave behind."""
    *folders, last = name.split("/")
    shown = [folder.lstrip(".") for folder in folders]
    return _NOTEBOOKS not in folders and not is_hidden("/".join([*shown, last]))


def formats_of_files(names: Sequence[str]) -> dict[str, list[str]]:
    """Returns the formats that a folder of files can be, by the suffix of its files.

    Several suffixes where files of several kinds lie there, several formats where a suffix is that of several. Formats
    that are images count only where nothing else lies there, since images and annotations can share a folder.
    """
    suffixes = {kind.suffix: annotation_files(names, kind.suffix) for kind in ANNOTATION_FORMATS.values()}
    found = [suffix for suffix, files in suffixes.items() if files]
    found = [suffix for suffix in found if suffix not in IMAGE_SUFFIXES] or found
    return {suffix: [kind.name for kind in ANNOTATION_FORMATS.values() if kind.suffix == suffix] for suffix in found}


def format_of_documents(documents: Iterable[bytes]) -> str:
    """Returns the format of files by the first whose beginning tells one, as a damaged file does not; else COCO."""
    formats = [(kind.name, kind.beginning) for kind in ANNOTATION_FORMATS.values() if kind.beginning]
    starts = (document[:_BEGINNING] for document in documents)
    return next((name for start in starts for name, beginning in formats if beginning.search(start)), "coco")


def _is_other(name: str) -> bool:
    """Returns whether a file by custom says something other than annotations."""
    *folders, last = name.lower().split("/")
    is_list = last in (*CLASS_FILES, COLOR_FILE) or last in _IMAGE_LISTS or _SPLITS in folders
    return is_list or last.startswith("readme")
