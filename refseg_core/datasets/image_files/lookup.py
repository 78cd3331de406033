"""Which image an annotation file belongs to.

By its own name: the same path without suffix, and without folders that only say what lies in them, so that
`train/labels/a.txt` belongs to `train/images/a.jpg` and `Annotations/b.xml` to `b.png`; or else by the name that the
file gives, which is out of date where files were renamed together with their images.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from posixpath import basename, dirname, join, normpath, splitext

from refseg_core.datasets.image_files.names import OTHERWISE, check_file_name, plain_name, regrouped
from refseg_core.errors import Problems, listed

_KIND_FOLDERS = {
    *("images", "labels", "annotations", "masks", "jpegimages", "segmentationobject", "segmentationclass"),
    *("imgs", "img", "xmls", "jsons", "obj_train_data"),
}
_NO_IMAGE = (
    "an annotation file has no image: expected one of the same name in the image folder (folders such as images/ and "
    "labels/ do not count), or the one that it names; add it, or remove the file"
)
_OTHER_NAME = (
    "files of annotations with the name of another image than their own: taken for the image of their own name, as "
    "files that were renamed together with their images"
)
_ABSENT_NAME = (
    "annotation files that name an image that is not there, and not that of their own name: taken for the image of "
    "their own name"
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

    def find(
        self,
        annotation_file: str,
        problems: Problems,
        declared: str | None = None,
        note: Callable[[str, str], None] | None = None,
        tell: Callable[[str, str], None] | None = None,
    ) -> str | None:
        """Returns the image of an annotation file, which may name it (`declared`); adds a problem if there is none.

        `note` is told of a file that names another image than that of its own name, or is written otherwise than it;
        `tell` of one that names an image that there is not.
        """
        named = self._named(annotation_file, declared) if declared else None
        candidates = self.candidates(annotation_file)
        if len(candidates) == 1:
            if note is not None and named not in (None, candidates[0]):
                note(_OTHER_NAME, f"{annotation_file} names {named}, taken for {candidates[0]}")
            if tell is not None and named is None and declared and not _is_alike(declared, candidates[0]):
                tell(_ABSENT_NAME, f"{annotation_file} names {declared}, taken for {candidates[0]}")
            return candidates[0]
        if named is not None:
            return named
        alike = self.alike(annotation_file)
        if len(alike) == 1:
            if note is not None:
                note(OTHERWISE, f"{annotation_file} for {alike[0]}")
            return alike[0]
        if alike:
            problems.add(_SEVERAL_IMAGES, f"{annotation_file} with {listed(alike)}")
        else:
            elsewhere = self._by_last_part.get(basename(plain_name(_key(annotation_file))), [])
            meant = f"; {listed(elsewhere)}?" if elsewhere else ""
            problems.add(_NO_IMAGE, f"{annotation_file}{f' for {declared}' if declared else ''}{meant}")
        return None

    def candidates(self, path: str) -> list[str]:
        """Returns the images whose name equals a path, apart from suffix and folders that only say what they hold."""
        return self._by_key.get(_key(path), [])

    def alike(self, path: str) -> list[str]:
        """Returns the candidates or, where there are none, those that differ from them by case or accents."""
        return self.candidates(path) or self._by_plain_key.get(plain_name(_key(path)), [])

    @cached_property
    def _by_plain_key(self) -> dict[str, list[str]]:
        return regrouped(self._by_key, plain_name)

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        return regrouped(self._by_plain_key, basename)

    def _named(self, annotation_file: str, declared: str) -> str | None:
        """Returns the image that a file names, relative to itself or to the image folder; never one outside of that."""
        declared, folder = declared.replace("\\", "/"), dirname(annotation_file)
        places = (normpath(join(folder, declared)), declared, join(folder, basename(declared)))
        return next((place for place in places if place in self._known and check_file_name(place) is None), None)


def _is_alike(declared: str, image: str) -> bool:
    """Returns whether the last parts of two names are the same but for their suffixes, case and accents."""
    first, second = (splitext(basename(plain_name(name)))[0] for name in (declared, image))
    return first == second


def _key(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    *folders, last = (stem if dot and "/" not in name[len(stem) :] else name).split("/")
    return "/".join([*(folder for folder in folders if folder.lower() not in _KIND_FOLDERS), last])
