"""Which references an instance looks like, by the encoder, which is loaded when the first is asked for."""

from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import numpy as np

from flows.review.state import ReviewState
from refseg_core.masks.rle import decode_mask
from refseg_core.models.protocols import Encoder
from refseg_core.references.memory_bank import encode_image, similarities
from refseg_core.tables import MemoryBank
from tasks.outputs.review.pictures import ReviewPictures
from tasks.store.lineage import memory_bank_of

_IMAGES_ENCODED = 4  # kept: instances of an image come one after the other


class Likeness:
    """Compares instances of a session with the references of its labels, one at a time."""

    def __init__(self, session: ReviewState, load: Callable[[], Encoder], pictures: ReviewPictures) -> None:
        self._session, self._pictures = session, pictures
        self._load = lru_cache(1)(load)
        self._features = lru_cache(_IMAGES_ENCODED)(lambda number: encode_image(self._load(), pictures.pixels(number)))
        self._lock = Lock()
        run, references = session.index.run, session.index.references
        self._bank = run.store.load(memory_bank_of(run.store, run.prototypes()), MemoryBank)
        places = zip(references.category_id.tolist(), references.shot.tolist(), strict=True)
        self._row_of = {place: row for row, place in enumerate(places)}

    def of(self, identity: str) -> dict[int, float]:
        """Returns the cosine with each reference, by its row, most alike first; none where the mask is too small.

        Raises WeightsError where there is no model, ImageError or StoreError where the image cannot be read.
        """
        number = self._session.index.image_of[str(self._session.shown(identity)["image_id"])]
        with self._lock:
            features = self._features(number)
            found = similarities(features, decode_mask(self._session.mask_of(identity)), self._bank.feature)
        if found is None:
            return {}
        places = zip(self._bank.category_id.tolist(), self._bank.shot.tolist(), strict=True)
        rows = [self._row_of.get(place, -1) for place in places]
        order = np.argsort(-found, kind="stable").tolist()
        return {rows[one]: round(float(found[one]), 4) for one in order if rows[one] >= 0}
