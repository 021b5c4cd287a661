"""What a web server loads."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")


class Request(WSGIRequest):
    """Django's, which a charset that nobody knows makes raise before anything could
    answer: ``Content-Type: text/html; x*=none''%41``."""

    def __init__(self, environ: dict[str, Any]) -> None:
        content_type: str = environ.get("CONTENT_TYPE", "")
        try:
            parse_header_parameters(content_type)
        except ValueError:
            environ["CONTENT_TYPE"] = content_type.partition(";")[0]
        super().__init__(environ)


class Handler(WSGIHandler):
    request_class = Request


django.setup(set_prefix=False)
application = Handler()
