"""Which image an annotation file belongs to.

By the name that the file gives, or else by its own: the same path without suffix, and without folders that only say
what lies in them, so that `train/labels/a.txt` belongs to `train/images/a.jpg` and `Annotations/b.xml` to `b.png`.
"""

from collections import defaultdict
from collections.abc import Iterable
from posixpath import basename, dirname, join, normpath

from refseg_core.datasets.image_files.names import check_file_name
from refseg_core.errors import Problems

_KIND_FOLDERS = {
    *("images", "labels", "annotations", "masks", "jpegimages", "segmentationobject", "segmentationclass"),
    *("imgs", "img", "xmls", "jsons", "obj_train_data"),
}
_NO_IMAGE = (
    "an annotation file has no image: expected one of the same name in the image folder (folders such as images/ and "
    "labels/ do not count), or the one that it names; add it, or remove the file"
)
_SEVERAL_IMAGES = "an annotation file has several images of its name: expected one; rename the others"


class ImageNames:
    """The images of a folder, by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)
        self._known = set(self.names)
        self._by_key: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_key[_key(name)].append(name)

    def find(self, annotation_file: str, problems: Problems, declared: str | None = None) -> str | None:
        """Returns the image of an annotation file, which may name it (`declared`); adds a problem if there is none."""
        if declared and (named := self._named(annotation_file, declared)):
            return named
        candidates = self.candidates(annotation_file)
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            problems.add(_SEVERAL_IMAGES, f"{annotation_file} with {', '.join(candidates)}")
        else:
            problems.add(_NO_IMAGE, f"{annotation_file}{f' for {declared}' if declared else ''}")
        return None

    def candidates(self, path: str) -> list[str]:
        """Returns the images whose name equals a path, apart from suffix and folders that only say what they hold."""
        return self._by_key.get(_key(path), [])

    def _named(self, annotation_file: str, declared: str) -> str | None:
        """Returns the image that a file names, relative to itself or to the image folder; never one outside of that."""
        declared, folder = declared.replace("\\", "/"), dirname(annotation_file)
        places = (normpath(join(folder, declared)), declared, join(folder, basename(declared)))
        return next((place for place in places if place in self._known and check_file_name(place) is None), None)


def _key(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    *folders, last = (stem if dot and "/" not in name[len(stem) :] else name).split("/")
    return "/".join([*(folder for folder in folders if folder.lower() not in _KIND_FOLDERS), last])
