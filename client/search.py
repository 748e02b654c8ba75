"""Asks a Descry server over gRPC: search by description or by photo, describe, match, and keep the gallery.

This file and docs/wire.md say the same thing; nothing here depends on how the server computes its answers.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from descry.client.errors import GalleryEmpty, InvalidRequest, ServerFailed, translate
from descry.client.images import ImageSource, image_bytes
from descry.client.results import TLS, Description, Hit, Match, ModelInfo, Stats
from descry.client.schema import Schema, Statements

DEFAULT_URL = "127.0.0.1:8001"
MOST_HITS = 10_000  # of one search, docs/wire.md
MEASURED_WEIGHT = -1.0  # on the wire: the weight measured on validation data

# The channel looks for a server that came back within a second; gRPC's default grows to two minutes.
CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class SearchClient:
    """A connection to one server; usable from several threads, and as a context manager.

    Args:
        url: `host:port` of the server's gRPC port.
        timeout: seconds given to each call.
        tls: certificates of a secure connection; None is an open one.
        token: sent as `authorization: Bearer …`, for a gateway in front of the server.
        headers: further gRPC metadata, lower-case names.

    Every method raises a `DescryError`: `InvalidRequest`, `ServerUnavailable`, `DeadlineExceeded` or `ServerFailed`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 10.0,
        tls: TLS | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the connection; the first call makes it."""
        if "://" in url:
            raise InvalidRequest(
                f"{url!r}: give host:port of the gRPC port, without a scheme; for example {DEFAULT_URL}"
            )
        if not timeout > 0:
            raise InvalidRequest(f"a timeout is a number of seconds above 0, not {timeout:g}")
        self.url = url
        self.timeout = timeout
        self._headers = dict(headers or {}) | ({"authorization": f"Bearer {token}"} if token else {})
        certificates = tls or TLS()
        for path in (certificates.root_certificates, certificates.private_key, certificates.certificate_chain):
            if path is not None and not os.access(path, os.R_OK):
                raise InvalidRequest(f"cannot read the TLS file {path}")
        if (certificates.private_key is None) != (certificates.certificate_chain is None):
            # gRPC would abort the process.
            raise InvalidRequest("a client's certificate and its private key belong together: give both")
        self._triton = triton.InferenceServerClient(
            url,
            ssl=tls is not None,
            root_certificates=certificates.root_certificates,
            private_key=certificates.private_key,
            certificate_chain=certificates.certificate_chain,
            channel_args=CHANNEL,
        )

    def __enter__(self) -> "SearchClient":
        """Return the client itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._triton.close()

    @cached_property
    def model(self) -> ModelInfo:
        """The server's model, asked once."""
        content = self._info({"about": "model"})
        try:
            return ModelInfo(
                Schema.from_json(content["schema"]),
                str(content["model_digest"]),
                str(content["method"]),
                float(content["par_weight"]),
                float(content["max_par"]),
                float(content["max_emb"]),
                str(content["par_distance"]),
                int(content["embedding_size"]),
                (int(content["image_size"][0]), int(content["image_size"][1])),
            )
        except KeyError as error:
            raise ServerFailed(f"the server at {self.url} does not state {error} of its model") from error

    @property
    def schema(self) -> Schema:
        """The server's attribute schema."""
        return self.model.schema

    def search(
        self,
        statements: Statements,
        k: int = 20,
        par_weight: float | None = None,
        cameras: Sequence[str] | None = None,
    ) -> list[Hit]:
        """Rank the gallery by a description.

        Args:
            statements: `{"gender": "female", "carrying": "bag+hat"}`; what is left out or `unknown` does not count.
            k: hits wanted, 1 to 10 000.
            par_weight: weight of the attribute distance, >= 0; None is the weight measured with the model.
            cameras: keep these cameras only.

        Returns:
            At most `k` hits, best first; empty when no row passes the filter.

        Raises:
            GalleryEmpty: the gallery has no row at all.
        """
        query = self._description(statements, par_weight) | _ranking(k, cameras)
        return self._hits(self._infer("attribute_search", query), self.schema.parse(statements))

    def similar(
        self,
        image: ImageSource,
        statements: Statements | None = None,
        k: int = 20,
        par_weight: float | None = None,
        cameras: Sequence[str] | None = None,
    ) -> list[Hit]:
        """Rank the gallery by likeness to a photo, but with what `statements` say where they are given.

        `{"upper_color": "red"}` asks for this person with a red top; what is not stated stays as in the photo. The rest
        is as in `search`.
        """
        stated = self.schema.parse(statements or {})
        query = self._query(stated, par_weight) | _ranking(k, cameras) | {"image": _text(image_bytes(image))}
        return self._hits(self._infer("similar_search", query), stated)

    def describe(self, image: ImageSource) -> Description:
        """Read the attributes of a photo."""
        answer = self._infer("describe_image", {"image": _text(image_bytes(image))})
        scores = answer["scores"]
        return Description(self.schema.predict(scores), scores, answer["embedding"])

    def match(self, image: ImageSource, statements: Statements, par_weight: float | None = None) -> Match:
        """Measure how far a photo is from a description."""
        query = self._description(statements, par_weight)
        answer = self._infer("match", query | {"image": _text(image_bytes(image))})
        return Match(
            float(answer["distance"][0]),
            float(answer["par_distance"][0]),
            float(answer["embedding_distance"][0]),
            answer["scores"],
            answer["terms"],
            self.schema.agreement(statements, answer["scores"], answer["terms"]),
        )

    def index(self, image: ImageSource, id: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Add or replace one row; `added` or `replaced`, returned once the row is durable."""
        row = {"image": _text(image_bytes(image)), "id": _text(id), "metadata": _text(json.dumps(dict(metadata or {})))}
        return _string(self._infer("index_image", row | {"operation": _text("put")})["status"][0])

    def delete(self, ids: Iterable[str]) -> dict[str, str]:
        """Delete rows; returns `deleted` or `absent` for each id."""
        request = {"metadata": _text("{}"), "operation": _text("delete")}
        return {
            id: _string(self._infer("gallery_write", request | {"id": _text(id)})["status"][0])
            for id in dict.fromkeys(ids)
        }

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that have no row yet."""
        return [str(id) for id in self._info({"about": "missing", "ids": list(ids)})["missing"]]

    def stats(self) -> Stats:
        """What the gallery holds."""
        content = self._info({"about": "stats"})
        return Stats(
            int(content["rows"]),
            {str(camera): int(rows) for camera, rows in content["cameras"].items()},
            content.get("first_time"),
            content.get("last_time"),
            str(content["gallery"]),
            str(content["model_digest"]),
        )

    def _description(self, statements: Statements, par_weight: float | None) -> dict[str, np.ndarray]:
        """The tensors of a query that rests on its statements alone, so that there must be one."""
        query = self._query(statements, par_weight)
        if not query["known"].any():
            raise InvalidRequest(f"nothing is stated; state at least one attribute:\n{self.schema.describe()}")
        return query

    def _query(self, statements: Statements, par_weight: float | None) -> dict[str, np.ndarray]:
        if par_weight is not None and not par_weight >= 0:
            raise InvalidRequest(f"par_weight is a number from 0 on, not {par_weight:g}")
        attributes, known = self.schema.encode(statements)
        weight = MEASURED_WEIGHT if par_weight is None else par_weight
        return {"attributes": attributes, "known": known, "par_weight": np.array([weight], np.float32)}

    def _hits(self, answer: Mapping[str, np.ndarray], stated: Mapping[str, tuple[str, ...]]) -> list[Hit]:
        """Read a ranking; empty ids are padding. `stated` is parsed: what the caller does to its own is no matter."""
        hits = [
            Hit(
                index + 1,
                _string(id),
                float(answer["distances"][index]),
                float(answer["par_distances"][index]),
                float(answer["embedding_distances"][index]),
                json.loads(answer["metadata"][index]),
                answer["scores"][index],
                answer["terms"][index],
                partial(self.schema.agreement, stated, answer["scores"][index], answer["terms"][index]),
            )
            for index, id in enumerate(answer["ids"])
            if id
        ]
        if not hits and not self.stats().rows:
            raise GalleryEmpty(f"the gallery at {self.url} is empty; fill it with `descry index FOLDER`")
        return hits

    def _info(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return json.loads(self._infer("gallery_info", {"request": _text(json.dumps(request))})["response"][0])

    def _infer(self, model: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Send one request of batch 1 and return its outputs without the batch dimension."""
        inputs = []
        for name, tensor in tensors.items():
            entry = triton.InferInput(name, [1, *tensor.shape], np_to_triton_dtype(tensor.dtype))
            entry.set_data_from_numpy(tensor[np.newaxis])
            inputs.append(entry)
        try:
            result = self._triton.infer(model, inputs, headers=self._headers or None, client_timeout=self.timeout)
        except InferenceServerException as error:
            raise translate(error, self.url, self.timeout) from error
        return {output.name: result.as_numpy(output.name)[0] for output in result.get_response().outputs}


def _ranking(k: int, cameras: Sequence[str] | None) -> dict[str, np.ndarray]:
    if not 1 <= k <= MOST_HITS:
        raise InvalidRequest(f"k is a number of hits from 1 to {MOST_HITS}, not {k}")
    keep = {} if cameras is None else {"camera": list(cameras)}
    return {"k": np.array([k], np.int32), "filter": _text(json.dumps(keep))}


def _text(value: str | bytes) -> np.ndarray:
    try:
        return np.array([value.encode() if isinstance(value, str) else value], np.object_)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{value!r} is not valid UTF-8") from error


def _string(value: bytes) -> str:
    return value.decode()
