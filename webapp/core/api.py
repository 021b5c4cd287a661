"""One shape for every error that the API answers: ``code`` and ``detail``."""

from __future__ import annotations

import json
from typing import Any, Final

from django.http import UnreadablePostError
from rest_framework import exceptions, parsers, serializers
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler as drf_exception_handler

from webapp.core.errors import DomainError
from webapp.core.responses import CUT_OFF_CODE, CUT_OFF_WORDS


class JSONParser(parsers.JSONParser):
    """DRF's own; it lets through as a crash what is nested too deeply, and half a
    character, which no answer and no database can hold."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            found = super().parse(*args, **kwargs)
            json.dumps(found, ensure_ascii=False).encode()
        except RecursionError as error:
            raise exceptions.ParseError(
                "JSON parse error - it is nested too deeply."
            ) from error
        except UnicodeEncodeError as error:
            raise exceptions.ParseError(
                "JSON parse error - there is half a character in it: a surrogate "
                "without its other one."
            ) from error
        return found


class ErrorSerializer(serializers.Serializer[Any]):
    """What went wrong: ``code`` for a program, ``detail`` for a person."""

    code = serializers.CharField()
    detail = serializers.CharField()


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's handler, with our own errors and one flat shape."""
    if isinstance(error, DomainError):
        headers = (
            {"Retry-After": str(error.retry_after_seconds)}
            if error.retry_after_seconds is not None
            else None
        )
        return Response(
            {"code": error.code, "detail": str(error)},
            status=error.http_status,
            headers=headers,
        )
    if isinstance(error, UnreadablePostError):
        return Response({"code": CUT_OFF_CODE, "detail": CUT_OFF_WORDS}, status=400)
    response = drf_exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, exceptions.APIException):
        codes = error.get_codes()
        response.data = {
            "code": codes if isinstance(codes, str) else "invalid",
            "detail": sentence_of(error.detail),
        }
    elif isinstance(response.data, dict) and "detail" in response.data:
        response.data = {
            "code": getattr(response.data["detail"], "code", "invalid"),
            "detail": str(response.data["detail"]),
        }
    return response


def describe_common_errors(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: what any operation may answer, and no view says."""
    for path in result["paths"].values():
        for operation in path.values():
            statuses = ["401", "503"]
            if "requestBody" in operation:
                statuses += ["411", "413", "415"]
            for status in statuses:
                operation["responses"].setdefault(status, _ERROR_ANSWER)
    return result


_ERROR_ANSWER: Final = {
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    "description": "",
}


def sentence_of(detail: Any) -> str:
    """What DRF says of a request in one line, each field by its name."""
    if isinstance(detail, dict):
        return " ".join(
            sentence_of(value)
            if key == api_settings.NON_FIELD_ERRORS_KEY
            else f"{key}: {sentence_of(value)}"
            for key, value in detail.items()
        )
    if isinstance(detail, list):
        return " ".join(sentence_of(value) for value in detail)
    return str(detail)
