"""Triton model `gallery_write`: puts rows, updates their metadata, deletes them; answers once that is durable."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "gallery_search" / "1"))

from answers import byte_array, gallery_path, repository_of, tensor, texts  # noqa: E402
from desk import Desk  # noqa: E402
from gallery import Gallery  # noqa: E402
from gallery_row import Delete, InvalidRequest, Put, Update, check_id, checked_put, checked_update  # noqa: E402
from served_model import ServedModel  # noqa: E402

OPERATIONS = ("put", "update", "delete")


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.desk = Desk(args, "write", audit="before")
        self.model = ServedModel.load(repository_of(args))
        self.gallery = Gallery(gallery_path(args), self.model)

    def execute(self, requests: list[Any]) -> list[Any]:
        # One transaction, hence one wait for the disk, for all requests that queued up meanwhile.
        return self.desk.answer(requests, self.read, self.gallery.write, self.pack)

    def read(self, request: Any) -> list[Put | Update | Delete]:
        """One operation a row of the request."""
        ids, operations = texts(request, "id"), texts(request, "operation")
        unknown = sorted(set(operations) - set(OPERATIONS))
        if unknown:
            raise InvalidRequest(f"operation {unknown[0]!r} is not known; valid: {', '.join(OPERATIONS)}")
        # Only a put brings vectors.
        names = ("embedding", "scores") if "put" in operations else ()
        vectors = zip(*(tensor(request, name) for name in names), strict=True) if names else [()] * len(ids)
        rows = zip(operations, ids, texts(request, "metadata"), vectors, strict=True)
        return [self.read_row(*row) for row in rows]

    def read_row(self, operation: str, id: str, metadata: str, vectors: Sequence[np.ndarray]) -> Put | Update | Delete:
        if operation == "put":
            return checked_put(self.model, id, metadata, *vectors)
        return checked_update(id, metadata) if operation == "update" else Delete(check_id(id))

    def pack(self, statuses: Sequence[str]) -> dict[str, np.ndarray]:
        return {"status": byte_array([status] for status in statuses)}
