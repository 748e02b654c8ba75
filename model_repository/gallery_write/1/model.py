"""Triton model `gallery_write`: puts rows into the gallery and deletes them; answers once they are durable."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "gallery_search" / "1"))

from answers import answer_together, byte_array, gallery_path, repository_of, tensor, texts  # noqa: E402
from gallery import Gallery  # noqa: E402
from gallery_row import Delete, InvalidRequest, Put, check_id, checked_put  # noqa: E402
from served_model import ServedModel  # noqa: E402

OPERATIONS = ("put", "delete")


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.model = ServedModel.load(repository_of(args))
        self.gallery = Gallery(gallery_path(args), self.model)

    def execute(self, requests: list[Any]) -> list[Any]:
        # One transaction, hence one wait for the disk, for all requests that queued up meanwhile.
        return answer_together(requests, self.read, self.gallery.write, self.pack)

    def read(self, request: Any) -> list[Put | Delete]:
        """One `Put` or `Delete` a row of the request."""
        ids, operations = texts(request, "id"), texts(request, "operation")
        unknown = sorted(set(operations) - set(OPERATIONS))
        if unknown:
            raise InvalidRequest(f"operation {unknown[0]!r} is not known; valid: {', '.join(OPERATIONS)}")
        if "put" not in operations:
            return [Delete(check_id(id)) for id in ids]
        rows = zip(
            operations,
            ids,
            texts(request, "metadata"),
            tensor(request, "embedding"),
            tensor(request, "scores"),
            strict=True,
        )
        return [
            checked_put(self.model, *row) if operation == "put" else Delete(check_id(row[0]))
            for operation, *row in rows
        ]

    def pack(self, statuses: Sequence[str]) -> dict[str, np.ndarray]:
        return {"status": byte_array([status] for status in statuses)}
