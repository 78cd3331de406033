"""Opens a review: reads what there is of labels and decisions, and makes the server of it."""

import socket
from dataclasses import dataclass

import uvicorn

from flows.review.likeness import Likeness
from flows.review.models import ReviewModels
from flows.review.segmenting import Segmenting
from flows.review.server import bind, create_app, new_server, new_token
from flows.review.session import ReviewSession
from refseg_core.analysis.label_filter import ScoreThresholds
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.outputs.review.pictures import ReviewPictures
from tasks.specs import Models
from tasks.store.label_store import StoredLabels
from tasks.store.reviews import StoredReview


@dataclass(frozen=True)
class OpenReview:
    """A review that is ready to be served, and where."""

    session: ReviewSession
    server: uvicorn.Server
    listening: socket.socket
    link: str

    def serve(self) -> None:
        """Answers until Ctrl-C."""
        with self.listening:
            self.server.run(sockets=[self.listening])


def open_review(
    run: StoredLabels,
    thresholds: ScoreThresholds,
    *,
    models: Models | None = None,
    port: int = 0,
    token: str | None = None,
) -> OpenReview:
    """Returns a review of labels. `models`: draw and compare; None: the published ones that made the labels.

    Raises StoreError where labels or decisions cannot be read, ConfigurationError where the port cannot be used.
    """
    listening = bind(port)
    try:
        index = InstanceIndex(run, thresholds)
        session, pictures = ReviewSession(index, StoredReview.open(run)), ReviewPictures(index)
    except BaseException:
        listening.close()
        raise
    token = token or new_token()
    own = ReviewModels(run, models)
    likeness = Likeness(session, own.encoder, pictures)
    app = create_app(session, Segmenting(own.segmenter, pictures), likeness, pictures, token)
    link = f"http://127.0.0.1:{listening.getsockname()[1]}/?token={token}"
    return OpenReview(session, new_server(app), listening, link)


def open_segmenting(index: InstanceIndex, models: Models | None) -> Segmenting:
    """Returns what makes masks in the images of labels; loads nothing before it is asked. `models`: as above."""
    return Segmenting(ReviewModels(index.run, models).segmenter, ReviewPictures(index))
