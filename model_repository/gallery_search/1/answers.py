"""How every Python model of this repository reads requests and answers them: a bad request fails alone."""

import json
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils
from access import AccessDenied, KeyFileError
from audit_log import AuditError
from gallery import GalleryError
from gallery_row import Cancelled, InvalidRequest


class Failure(NamedTuple):
    """What became of a request that failed: one word for log and metrics, the status, and the message to its sender."""

    outcome: str
    status: str
    message: str


# Triton 24.10 has no PERMISSION_DENIED for Python models. UNSUPPORTED, UNIMPLEMENTED on the wire, means nothing else
# here, and no client tries it again.
FAILURES: dict[type[Exception], tuple[str, str]] = {
    InvalidRequest: ("refused", "INVALID_ARG"),
    AccessDenied: ("denied", "UNSUPPORTED"),
    Cancelled: ("cancelled", "CANCELLED"),
    GalleryError: ("failed", "INTERNAL"),
    AuditError: ("failed", "INTERNAL"),
    KeyFileError: ("failed", "INTERNAL"),
}


# gRPC drops a status of more than 8 KiB, in which each byte outside ASCII takes three.
LONGEST_START, LONGEST_END = 350, 150
LONGEST_REQUEST_ID = 200


def repository_of(args: dict[str, str]) -> Path:
    """The model repository that a model with these `initialize` arguments lies in."""
    return Path(args["model_repository"]).parent


def parameter(args: dict[str, str], name: str) -> str:
    """A parameter of the model's config.pbtxt; empty when it has none."""
    return json.loads(args["model_config"])["parameters"].get(name, {}).get("string_value", "")


def gallery_path(args: dict[str, str]) -> Path:
    """Where the gallery lies: the environment's DESCRY_GALLERY, else the config's `gallery`."""
    path = os.environ.get("DESCRY_GALLERY") or parameter(args, "gallery")
    if not path:
        raise GalleryError("descry: no gallery named: set DESCRY_GALLERY, or the parameter `gallery` in config.pbtxt")
    return Path(path)


def tensor(request: Any, name: str) -> np.ndarray:
    """An input [B, ...] of the request.

    Raises:
        InvalidRequest: the request has no such input.
    """
    given = pb_utils.get_input_tensor_by_name(request, name)
    if given is None:
        raise InvalidRequest(f"input {name!r} is missing")
    return given.as_numpy()


def texts(request: Any, name: str) -> list[str]:
    """A BYTES input [B, 1] as B texts.

    Raises:
        InvalidRequest: missing, or not UTF-8.
    """
    try:
        return [value.decode() for value in tensor(request, name).ravel()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not UTF-8: {error}") from error


def byte_array(values: Iterable[Iterable[str]]) -> np.ndarray:
    """Rows of texts as a BYTES tensor."""
    return np.array([[value.encode() for value in row] for row in values], np.object_)


def attempt(action: Callable[..., Any], *arguments: Any) -> Any:
    """What `action` returns, or the exception it raises: one bad item must not stop its neighbours."""
    try:
        return action(*arguments)
    except tuple(FAILURES) as error:
        # A new one: with its frames it would keep the request, 64 MiB of image maybe, until cycles are next collected.
        return type(error)(str(error))
    except Exception as error:
        return error


def failure_of(error: Exception) -> Failure:
    """How an exception is told; one that is not foreseen says no more than its name."""
    for kind, (outcome, status) in FAILURES.items():
        if isinstance(error, kind):
            return Failure(outcome, status, shortened(str(error)))
    return Failure("failed", "INTERNAL", f"{type(error).__name__} in the server; its log has the details")


def shortened(message: str) -> str:
    """The message without its middle where it quotes more than an answer can carry."""
    if len(message) <= LONGEST_START + LONGEST_END:
        return message
    return f"{message[:LONGEST_START]} … {message[-LONGEST_END:]}"


def request_id(request: Any) -> str:
    """The call's id, which its caller made, cut to what logs can carry."""
    return request.request_id()[:LONGEST_REQUEST_ID]


def respond(model: str, request: Any, answer: dict[str, np.ndarray] | Exception) -> Any:
    """The response of one request: its outputs by name, or its failure, of which the log gets one JSON line."""
    if not isinstance(answer, Exception):
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in answer.items()])
    outcome, status, message = failure_of(answer)
    line = {"event": outcome, "model": model, "request": request_id(request), "message": message}
    if not isinstance(answer, tuple(FAILURES)):
        line["traceback"] = "".join(traceback.format_exception(answer))
    log = pb_utils.Logger.log_error if outcome == "failed" else pb_utils.Logger.log_info
    log(json.dumps(line))
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, status)))
