"""The page and `POST /predict`: a bounded queue before one model.

What a client sends is read with limits of size and time before it takes a place in the
queue, and is only ever in memory.
"""

import asyncio
import base64
import concurrent.futures
import hashlib
import logging
import math
import re
import socket
import traceback
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, create_form_parser
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from support import page
from support.files import encode
from support.images import BadImage
from trainer.demo.answers import Align, Answers, Prediction

MAX_BYTES = 20_000_000
#: Of all clients together, read or being read; more are asked to come again.
MAX_TOTAL_BYTES = 10 * MAX_BYTES
#: Images that may wait for the model.
MAX_WAITING = 32
#: A client has so long to send its image, and to be told that it is too large.
UPLOAD_SECONDS = 30
#: Of a form. Thousands of small ones take seconds.
_MAX_PARTS = 16
_RETRY = {"Retry-After": "2"}

#: Reason of a `BadImage` -> status.
_STATUS = {"neither JPEG nor PNG": 415, "too large": 413}
_FOLDER = Path(__file__).parent / "templates"
_SCRIPT = re.compile("<script>(.*?)</script>", re.DOTALL)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"image": _BINARY["schema"]}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "multipart/form-data": {"schema": _FORM | {"required": ["image"]}},
        },
    }
}


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


_ALIGN = (
    "whether faces are found and aligned, which needs the extra `align` and a model of "
    "CelebA's images; auto: unless the image has the aspect of the training images"
)
_PROBLEMS = {
    400: "no form with exactly one file",
    403: "sent by a page of another site",
    408: f"not sent within {UPLOAD_SECONDS} seconds",
    413: "too many bytes or pixels",
    415: "neither JPEG nor PNG",
    422: "a damaged image, or an unknown parameter",
    503: "too many images are waiting; Retry-After says when to come again",
}


class _TooLarge(JSONResponse):
    """An answer at once, whatever is still to come, which is then thrown away.

    A connection that is closed with bytes unread is reset, and the client might never
    see why.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": [*self.raw_headers, (b"connection", b"close")],
            }
        )
        rest = {"type": "http.response.body", "body": self.body, "more_body": True}
        await send(rest)
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body"})


class Queue:
    """One model, the images that wait for it, and the bytes they take."""

    def __init__(self, answers: Answers):
        self._answers = answers
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._bytes = 0

    async def answer(self, request: Request, mode: Align) -> Prediction:
        """Reads an image and predicts it; raises `HTTPException` and `BadImage`."""
        body = bytearray()
        try:
            await self._read(request, body)
            # In a thread: a form can be made so that it takes a second.
            content_type = request.headers.get("content-type", "")
            data = await asyncio.to_thread(_image_in, content_type, body)
            if self._waiting >= MAX_WAITING:
                raise HTTPException(503, "Too many images are waiting.", _RETRY)
            self._waiting += 1
            try:
                async with self._turn:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    loop = asyncio.get_running_loop()
                    work = self._answers.answer, data, mode
                    return await loop.run_in_executor(self._thread, *work)
            finally:
                self._waiting -= 1
        except asyncio.CancelledError:
            raise HTTPException(503, "The server is stopping.") from None
        finally:
            self._bytes -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        too_large = HTTPException(413, f"More than {MAX_BYTES // 10**6} MB.")
        if int(request.headers.get("content-length", 0)) > MAX_BYTES:
            raise too_large
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    self._bytes += len(chunk)
                    if len(body) > MAX_BYTES:
                        raise too_large
                    if self._bytes > MAX_TOTAL_BYTES:
                        raise HTTPException(503, "Too many images arrive.", _RETRY)
        except TimeoutError:
            cause = f"Not sent within {UPLOAD_SECONDS} seconds."
            raise HTTPException(408, cause, {"Connection": "close"}) from None


def _image_in(content_type: str, body: bytearray) -> bytes:
    """The image of a request: its body, or the only file of its form."""
    if not content_type.lower().startswith("multipart/form-data"):
        return bytes(body)
    parts: list[Field | File] = []

    def keep(part: Field | File) -> None:
        if len(parts) == _MAX_PARTS:
            raise ValueError
        parts.append(part)

    headers = {"Content-Type": content_type.encode("latin-1")}
    in_memory = {"MAX_MEMORY_FILE_SIZE": math.inf}
    try:
        parser = create_form_parser(headers, keep, keep, config=in_memory)
        parser.write(bytes(body))
        parser.finalize()
        [file] = [part for part in parts if isinstance(part, File)]
    except (FormParserError, ValueError) as error:
        raise HTTPException(400, "No form with exactly one file.") from error
    return file.file_object.getvalue()


def _add_pages(app: FastAPI, answers: Answers) -> str:
    """Adds what browsers show; returns the content security policy of all of it."""
    templates = page.environment(_FOLDER)

    def render(name: str, **values: Any) -> str:
        text = templates.get_template(name).render(answers=answers, **values)
        return encode(text).decode()  # the run's name may be no UTF-8

    index = render("demo.html", max_bytes=MAX_BYTES)
    card = render("card.html")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> str:
        return index

    @app.get("/card", response_class=HTMLResponse, include_in_schema=False)
    async def show_card() -> str:
        return card

    # FastAPI's own page would load its scripts from elsewhere.
    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def show_docs(request: Request) -> str:
        address = str(request.base_url).rstrip("/")
        return render("docs.html", api=app.openapi(), address=address)

    script = _SCRIPT.search(index)[1].encode()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _add_predict(app: FastAPI, answers: Answers) -> None:
    queue = Queue(answers)

    @app.post(
        "/predict",
        summary="Predict an image",
        responses={
            status: {"model": Problem, "description": description}
            for status, description in _PROBLEMS.items()
        },
        openapi_extra=_BODY,
    )
    async def predict(
        request: Request,
        align: Annotated[Align, Query(description=_ALIGN)] = "auto",
    ) -> Prediction:
        """Send a JPEG or PNG file, as the body or as the only file of a form."""
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            raise HTTPException(403, "Pages of other sites may not send images.")
        return await queue.answer(request, align)


def _add_handlers(app: FastAPI) -> None:
    """Every problem is one line of JSON."""

    @app.exception_handler(BadImage)
    async def bad_image(request: Request, error: BadImage) -> Response:
        status = _STATUS.get(error.reason, 422)
        return JSONResponse({"detail": str(error)}, status)

    @app.exception_handler(413)
    async def too_large(request: Request, error: HTTPException) -> Response:
        return _TooLarge({"detail": error.detail}, 413)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> Any:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        traceback.print_exception(error)
        detail = "This is a bug; where the server runs is its traceback."
        return JSONResponse({"detail": detail}, 500)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it


def make_server(answers: Answers, listener: socket.socket, host: str) -> uvicorn.Server:
    """Makes the server; its `run` serves until a signal comes, or `should_exit`.

    Args:
      answers: of the model.
      listener: listens on `host`.
      host: as the user named it.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    app = FastAPI(title="Perceived attributes", docs_url=None, redoc_url=None)
    policy = _add_pages(app, answers)
    _add_predict(app, answers)
    _add_handlers(app)
    # Else a page elsewhere could give its own name this machine's address, and read.
    names = ["127.0.0.1", "[::1]", "localhost", f"[{host}]" if ":" in host else host]
    if listener.getsockname()[0] in ("0.0.0.0", "::"):
        names = ["*"]  # this machine may have any
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    headers = {
        "Content-Security-Policy": policy,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # `bug` reports errors
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=list(headers.items()),
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
