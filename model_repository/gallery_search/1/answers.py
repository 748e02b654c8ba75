"""How every Python model of this repository reads requests and answers them: a bad request fails alone."""

import json
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from gallery import GalleryError
from gallery_row import InvalidRequest


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
    except Exception as error:
        return error


def answer_together(
    requests: Sequence[Any],
    read: Callable[[Any], list[Any]],
    run: Callable[[list[Any]], Sequence[Any]],
    pack: Callable[[Sequence[Any]], dict[str, np.ndarray]],
) -> list[Any]:
    """Read each request into its rows, run the rows of all good requests as one batch, pack each request's results.

    `run` returns one result a row; a result that is an exception fails its own request only.
    """
    read_rows = [attempt(read, request) for request in requests]
    outcome = attempt(run, [row for rows in read_rows if not isinstance(rows, Exception) for row in rows])
    results = iter(() if isinstance(outcome, Exception) else outcome)
    responses = []
    for rows in read_rows:
        answer = rows if isinstance(rows, Exception) else outcome
        if not isinstance(answer, Exception):
            answer = attempt(_packed, pack, list(islice(results, len(rows))))
        responses.append(respond(answer))
    return responses


def respond(answer: dict[str, np.ndarray] | Exception) -> Any:
    """The response of one request: its outputs by name, or its error without server paths or traceback."""
    if not isinstance(answer, Exception):
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in answer.items()])
    message, status = str(answer), pb_utils.TritonError.INTERNAL
    if isinstance(answer, InvalidRequest):
        status = pb_utils.TritonError.INVALID_ARG
    elif not isinstance(answer, GalleryError):
        pb_utils.Logger.log_error("".join(traceback.format_exception(answer)))
        message = f"{type(answer).__name__} in the server; its log has the details"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, status))


def _packed(pack: Callable[[Sequence[Any]], dict[str, np.ndarray]], results: list[Any]) -> dict[str, np.ndarray]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return pack(results)
