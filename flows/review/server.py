"""The addresses of the review page. Each answers from memory, and reads only what is shown."""

import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, Field
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from flows.review.guard import Guard
from flows.review.likeness import Likeness
from flows.review.queue import QueueFilter, ReviewQueue, Sorting, State
from flows.review.segmenting import Segmenting
from flows.review.session import Decision, ReviewSession
from flows.review.views import ReviewViews
from refseg_core.analysis.review_queue import AUDIT, REASONS
from refseg_core.errors import ConfigurationError, ConflictError, RefsegError, brief
from refseg_core.masks.outlines import svg_path
from refseg_core.masks.rle import rle_boxes
from tasks.outputs.review.pictures import ReviewPictures

logger = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page"
_PARTS = [file.name for file in _PAGE.iterdir() if file.suffix in (".js", ".css")]
_FILES = {"/": "index.html"} | {f"/{name}": name for name in _PARTS}
_REFRESH_SECONDS = 2.0  # between looks at what other processes decide
_MOST_CARDS = 100
_IMAGE_SECONDS = 3600  # that a browser keeps a picture
_FARTHEST = 1e6  # pixels from an image's corner that a box or a click may be
_USER_ERROR, _CONFLICT, _MISFIT = 400, 409, 422
_MOST_PLACES = 2**31 - 1  # in the queue

_Pixels = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=200)]  # a limit also keeps out what UTF-8 cannot say


class _Sent(BaseModel):
    """A decision as the page sends it; `mask` is the id of a mask that was asked for."""

    decision_id: str = Field(pattern="^[0-9a-f-]{8,64}$")
    reviewer: _Text
    verdict: _Text
    instance: _Text | None = None
    category: int | None = None
    into: _Text | None = None
    mask: _Text | None = None


class _Asked(BaseModel):
    """A box or points on an image; neither to get ready for them."""

    image: int
    box: tuple[_Pixels, _Pixels, _Pixels, _Pixels] | None = None
    points: list[tuple[_Pixels, _Pixels]] = []


class _Heard(BaseModel):
    """Who looks at what, and up to which version they know what was decided."""

    client: _Text
    instance: _Text | None = None
    version: int = 0


def _checked_reason(name: str) -> str:
    names = [one.name for one in (*REASONS, AUDIT)]
    if name not in ("", *names):
        raise ValueError(f"expected one of {', '.join(names)}, or '' for any")
    return name


class _Wanted(BaseModel):
    """Which instances are wanted, as in `QueueFilter`, from which place on and how many, and who asks."""

    category: list[int] = []
    min_score: float = 0.0
    max_score: float = 1.0
    image: str = ""
    reason: Annotated[str, AfterValidator(_checked_reason)] = ""
    state: State = "open"
    near: bool = True
    sorting: Sorting = "telling"
    start: int = Field(0, ge=0, le=_MOST_PLACES)
    limit: int = Field(24, ge=1, le=_MOST_CARDS)
    client: str = ""

    @property
    def filter(self) -> QueueFilter:
        """The filter."""
        own = self.model_dump(include={"min_score", "max_score", "image", "reason", "state", "sorting"})
        return QueueFilter(categories=tuple(self.category), is_near=self.near, **own)


class _Undo(BaseModel):
    decision_id: str = Field(pattern="^[0-9a-f-]{8,64}$")
    reviewer: _Text


@dataclass
class _Parts:
    """What the server answers from."""

    session: ReviewSession
    queue: ReviewQueue
    views: ReviewViews
    pictures: ReviewPictures
    segmenting: Segmenting
    likeness: Likeness


class _Refresher:
    """Reads the decisions of other processes, not more often than every few seconds however many ask."""

    def __init__(self, session: ReviewSession) -> None:
        self._session = session
        self._lock = Lock()
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > _REFRESH_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._session.refresh()
                self._last = time.monotonic()
            finally:
                self._lock.release()


def create_app(
    session: ReviewSession, segmenting: Segmenting, likeness: Likeness, pictures: ReviewPictures, token: str
) -> ASGIApp:
    """Returns the application, which answers only those who have the token."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    parts = _Parts(session, ReviewQueue(session), ReviewViews(session, pictures), pictures, segmenting, likeness)
    app.add_exception_handler(RefsegError, _explain)
    app.add_exception_handler(RequestValidationError, _explain_request)
    for address, name in _FILES.items():
        app.add_api_route(address, _answering_with(_PAGE / name))
    _add_reading(app, parts)
    _add_pictures(app, parts)
    _add_deciding(app, parts)
    return Guard(GZipMiddleware(app, minimum_size=1000), token)


def _answering_with(file: Path) -> Callable[[], FileResponse]:
    def answer() -> FileResponse:
        return FileResponse(file, headers={"cache-control": "no-cache"})

    return answer


async def _explain(_: Request, error: Exception) -> Response:
    """Answers with the message of an error that a person can do something about."""
    return JSONResponse({"error": str(error)}, _CONFLICT if isinstance(error, ConflictError) else _USER_ERROR)


async def _explain_request(_: Request, error: Exception) -> Response:
    """Answers what is wrong with a request, without what came: it may be nothing that JSON can say."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    said = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in problems]
    return JSONResponse({"error": "; ".join(said)}, _MISFIT)


def _add_reading(app: FastAPI, parts: _Parts) -> None:
    refresh = _Refresher(parts.session)

    @app.get("/api/store")
    def store() -> dict[str, Any]:
        return {**parts.views.store(), **parts.views.progress()}

    @app.get("/api/queue")
    def queue(wanted: Annotated[_Wanted, Query()]) -> dict[str, Any]:
        part = parts.queue.part(wanted.filter, start=wanted.start, limit=wanted.limit, client=wanted.client)
        return {"cards": parts.views.cards(part.rows), "num_all": part.num_all, "num_open": part.num_open}

    @app.get("/api/instances/{identity}")
    def instance(identity: str) -> dict[str, Any]:
        return parts.views.instance(identity)

    @app.get("/api/images/{number}")
    def image(number: int, whole: bool = False) -> dict[str, Any]:
        return parts.views.image(_checked(parts, number), is_whole=whole)

    @app.get("/api/references/{category}")
    def references(category: int) -> list[dict[str, Any]]:
        return parts.views.references(category)

    @app.get("/api/likeness/{identity}")
    def likeness(identity: str) -> list[dict[str, Any]]:
        return [{"row": row, "similarity": one} for row, one in parts.likeness.of(identity).items()]

    @app.post("/api/heard")
    def heard(sent: _Heard) -> dict[str, Any]:
        refresh()
        parts.queue.hold(sent.client, parts.session.index.row_of.get(sent.instance or ""))
        changed = parts.session.changes_since(sent.version)
        states = {identity: parts.views.state(identity) for identity in changed}
        identities = parts.session.index.instances.identity
        held = {identities[row]: who for row, who in parts.queue.held_by_others(sent.client).items()}
        return {**parts.views.progress(), "changed": states, "held": held}


def _checked(parts: _Parts, number: int) -> int:
    if not 0 <= number < len(parts.session.index.images):
        raise ConfigurationError(f"There is no image of number {number}.")
    return number


def _add_pictures(app: FastAPI, parts: _Parts) -> None:
    @app.get("/pictures/images/{number}")
    def image(number: int) -> Response:
        return _picture(parts.pictures.image(_checked(parts, number)))

    @app.get("/pictures/instances/{identity}")
    def crop(identity: str) -> Response:
        row = parts.session.index.row_of.get(identity)
        if row is None:
            raise ConfigurationError(f"There is no instance {brief(identity)} in these labels.")
        return _picture(parts.pictures.crop(row))

    @app.get("/pictures/references/{row}")
    def reference(row: int) -> Response:
        if not 0 <= row < len(parts.session.index.references):
            raise ConfigurationError(f"There is no reference of number {row}.")
        return _picture(parts.pictures.reference(row))


def _picture(content: bytes) -> Response:
    return Response(content, media_type="image/jpeg", headers={"cache-control": f"private, max-age={_IMAGE_SECONDS}"})


def _add_deciding(app: FastAPI, parts: _Parts) -> None:
    @app.post("/api/decisions")
    def decide(sent: _Sent) -> dict[str, Any]:
        given = sent.model_dump(exclude={"mask"})
        if sent.mask is not None:
            asked = parts.segmenting.asked(sent.mask)
            given |= {"image": asked.image, "mask": (asked.mask, asked.predicted_iou)}
        return _changed(parts, parts.session.decide(Decision(**given)))

    @app.post("/api/undo")
    def undo(sent: _Undo) -> dict[str, Any]:
        return _changed(parts, parts.session.undo(sent.reviewer, sent.decision_id))

    @app.post("/api/masks")
    def ask(sent: _Asked) -> dict[str, Any]:
        started = time.perf_counter()
        if sent.box is None and not sent.points:
            parts.segmenting.prepare(_checked(parts, sent.image))
            return {"seconds": time.perf_counter() - started}
        asked = parts.segmenting.ask(_checked(parts, sent.image), box=sent.box, points=sent.points)
        return {
            "mask": asked.mask_id,
            "path": svg_path(asked.mask),
            "box": rle_boxes([asked.mask])[0].tolist(),
            "predicted_iou": round(asked.predicted_iou, 3),
            "seconds": time.perf_counter() - started,
        }


def _changed(parts: _Parts, changed: list[str]) -> dict[str, Any]:
    return {"changed": {one: parts.views.state(one) for one in changed}, **parts.views.progress()}


def new_token() -> str:
    """Returns a token that nobody can guess."""
    return secrets.token_urlsafe(24)


def bind(port: int) -> socket.socket:
    """Returns a socket of this machine alone, at the port or at any free one for 0. Raises ConfigurationError."""
    # Named TCP, or asyncio does not send at once what it has: each answer then waits 40 ms for an acknowledgment.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"--port {port} cannot be used ({error.strerror}). Choose another, or 0.") from error
    return listening


def new_server(app: ASGIApp) -> uvicorn.Server:
    """Returns what answers for an application, until Ctrl-C or until its `should_exit` is set."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    return uvicorn.Server(config)
