"""Triton model `gallery_info`: what is served, what the gallery holds, which ids it lacks."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "gallery_search" / "1"))

from answers import attempt, byte_array, gallery_path, repository_of, texts  # noqa: E402
from desk import Desk  # noqa: E402
from gallery import Gallery  # noqa: E402
from gallery_row import InvalidRequest, check_id, json_object  # noqa: E402
from served_model import ServedModel  # noqa: E402

Json = dict[str, Any]


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.desk = Desk(args)
        self.model = ServedModel.load(repository_of(args))
        self.gallery = Gallery(gallery_path(args), self.model)
        self.subjects: dict[str, Callable[[Json], Json]] = {
            "model": self.describe_model,
            "stats": self.statistics,
            "missing": self.missing,
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        return self.desk.answer(requests, lambda request: texts(request, "request"), self.answer, self.pack)

    def answer(self, questions: list[str]) -> list[Json | Exception]:
        return [attempt(self.answer_one, question) for question in questions]

    def answer_one(self, question: str) -> Json:
        request = json_object("request", question)
        about = request.get("about")
        if not isinstance(about, str) or about not in self.subjects:
            raise InvalidRequest(f"'about' {about!r} is not known; valid: {', '.join(self.subjects)}")
        return self.subjects[about](request)

    def describe_model(self, request: Json) -> Json:
        model = self.model
        return {
            "schema": model.schema,
            "model_digest": model.digest,
            "method": model.method,
            "par_weight": model.par_weight,
            "max_par": model.max_par,
            "par_distance": model.par_distance,
            "neighbours": model.neighbours,
            "max_emb": model.max_emb,
            "embedding_size": model.embedding_size,
            "image_size": model.image_size,
            "calibration": model.calibration,
        }

    def statistics(self, request: Json) -> Json:
        return self.gallery.statistics() | {"gallery": self.gallery.path.name, "model_digest": self.model.digest}

    def missing(self, request: Json) -> Json:
        ids = request.get("ids")
        if not isinstance(ids, list):
            raise InvalidRequest(f"'ids' must be a list of texts, got {ids!r}")
        return {"missing": self.gallery.missing([check_id(id) for id in ids])}

    def pack(self, responses: Sequence[Json]) -> dict[str, np.ndarray]:
        return {"response": byte_array([json.dumps(response)] for response in responses)}
