"""Triton model `gallery_admin`: prunes, compacts, verifies, backs up and reads out the gallery."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "gallery_search" / "1"))

from admin_requests import AdminRequests  # noqa: E402
from answers import attempt, byte_array, gallery_path, repository_of, texts  # noqa: E402
from desk import Desk  # noqa: E402
from served_model import ServedModel  # noqa: E402
from upkeep import Json, Upkeep  # noqa: E402


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.desk = Desk(args, "admin", audit="before")
        self.requests = AdminRequests(Upkeep(gallery_path(args), ServedModel.load(repository_of(args))))

    def execute(self, requests: list[Any]) -> list[Any]:
        return self.desk.answer(requests, lambda request: texts(request, "request"), self.answer, self.pack)

    def answer(self, requests: list[str]) -> list[Json | Exception]:
        return [attempt(self.requests.answer, request) for request in requests]

    def pack(self, responses: Sequence[Json]) -> dict[str, np.ndarray]:
        return {"response": byte_array([json.dumps(response)] for response in responses)}
