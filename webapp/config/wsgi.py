"""What a web server loads."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import LimitedStream, WSGIHandler, WSGIRequest
from django.http import UnreadablePostError
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")


class WholeStream(LimitedStream):
    """Django's, but a body that ends before its Content-Length is a connection that
    broke: its parser would take what had arrived for all of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        missing = self.limit - self._pos  # type: ignore[attr-defined]
        wanted = missing if size is None or size < 0 else min(size, missing)
        data: bytes = super().read(size)
        if len(data) < wanted:
            raise UnreadablePostError("the body ended before its Content-Length")
        return data


class Request(WSGIRequest):
    """Django's, which a charset that nobody knows makes raise before anything could
    answer: ``Content-Type: text/html; x*=none''%41``. It knows whether its body was
    ``cut_off``, which whoever looks for a form's token does not say."""

    cut_off = False

    def __init__(self, environ: dict[str, Any]) -> None:
        content_type: str = environ.get("CONTENT_TYPE", "")
        try:
            parse_header_parameters(content_type)
        except ValueError:
            environ["CONTENT_TYPE"] = content_type.partition(";")[0]
        super().__init__(environ)
        limit = self._stream.limit  # type: ignore[attr-defined]
        self._stream = WholeStream(environ["wsgi.input"], limit)  # type: ignore[assignment]

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        try:
            data: bytes = super().read(*args, **kwargs)
        except UnreadablePostError:
            self.cut_off = True
            raise
        return data


class Handler(WSGIHandler):
    request_class = Request


django.setup(set_prefix=False)
application = Handler()
