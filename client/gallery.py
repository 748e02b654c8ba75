"""Keeps a Descry server's gallery over gRPC: writes rows, asks what there is, keeps the file in order."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from descry.client.connection import Connection, bytes_tensor
from descry.client.images import ImageSource, image_bytes
from descry.client.results import Stats

MOST_WRITES = 1024  # of one request, docs/wire.md
ADMIN_SECONDS = 3600.0


@dataclass(frozen=True)
class Verified:
    """What a check of the whole gallery found.

    Attributes:
        rows: looked at.
        damaged: the reason by id of the rows that are damaged, and left out of every search.
        problems: what is wrong with the structure of the file.
    """

    rows: int
    damaged: Mapping[str, str]
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.problems


@dataclass(frozen=True, eq=False)
class Page:
    """Some rows of a gallery.

    Attributes:
        ids: as given.
        metadata: as given.
        embeddings: float32 [rows, D]; None where no vectors were asked for.
        scores: float32 [rows, N], 0..1; None likewise.
        damaged: the reason by id of rows that are left out.
    """

    ids: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]
    embeddings: np.ndarray | None
    scores: np.ndarray | None
    damaged: Mapping[str, str]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Page":
        """Read the answer to `{"do": "rows"}` of docs/wire.md."""
        rows = content["rows"]
        ids, metadata = tuple(row["id"] for row in rows), tuple(row["metadata"] for row in rows)
        return cls(ids, metadata, _vectors(rows, "embedding"), _vectors(rows, "scores"), _reasons(content))


class GalleryClient(Connection):
    """The calls about the gallery itself; `SearchClient` has them too."""

    def index(self, image: ImageSource, id: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Add or replace one row; `added` or `replaced`, returned once the row is durable."""
        row = {
            "image": bytes_tensor(image_bytes(image)),
            "id": bytes_tensor(id),
            "metadata": bytes_tensor(json.dumps(dict(metadata or {}))),
        }
        return self.infer_one("index_image", row | {"operation": bytes_tensor("put")})["status"][0].decode()

    def update(self, metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Replace the metadata of rows, given by id; returns `updated` or `absent` for each. All else stays."""
        return self._write("update", {id: json.dumps(dict(content)) for id, content in metadata.items()})

    def delete(self, ids: Iterable[str]) -> dict[str, str]:
        """Delete rows; returns `deleted` or `absent` for each id."""
        return self._write("delete", dict.fromkeys(ids, "{}"))

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that have no row yet."""
        return [str(id) for id in self.info({"about": "missing", "ids": list(ids)})["missing"]]

    def stats(self) -> Stats:
        """What the gallery holds."""
        content = self.info({"about": "stats"})
        return Stats(
            int(content["rows"]),
            {str(camera): int(rows) for camera, rows in content["cameras"].items()},
            content.get("first_time"),
            content.get("last_time"),
            str(content["gallery"]),
            str(content["model_digest"]),
        )

    def info(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `gallery_info` answers to a request of docs/wire.md."""
        return json.loads(self.infer_one("gallery_info", {"request": bytes_tensor(json.dumps(request))})["response"][0])

    def prune(
        self,
        *,
        camera: str | None = None,
        older_than: datetime | None = None,
        dry_run: bool = False,
        progress: Callable[[int, int], None] = lambda deleted, remaining: None,
    ) -> int:
        """Delete the rows of a camera, those with a time before `older_than`, or where both hold; returns how many.

        Args:
            camera: None is every camera.
            older_than: None is any time. A row without a time is never older.
            dry_run: count the rows, delete none.
            progress: called after every few thousand rows; what it raises ends the deletion there.
        """
        limit = None if older_than is None else older_than.isoformat()
        request = {"do": "prune", "camera": camera, "older_than": limit, "dry_run": dry_run}
        answer = self.admin(request)
        if dry_run:
            return int(answer["remaining"])
        deleted = int(answer["deleted"])
        while answer["remaining"]:
            progress(deleted, answer["remaining"])
            answer = self.admin(request)
            deleted += int(answer["deleted"])
        return deleted

    def compact(self) -> dict[str, int]:
        """Give back the space of deleted rows; `bytes_before` and `bytes_after`. Writes wait meanwhile."""
        return self.admin({"do": "compact"})

    def backup(self) -> str:
        """Copy the gallery to a new file beside it on the server, while it is served; returns the file's name."""
        return str(self.admin({"do": "backup"})["backup"])

    def verify(self, progress: Callable[[int], None] = lambda rows: None) -> Verified:
        """Check the structure of the file, then every row; `progress` hears how many rows are checked so far."""
        problems = tuple(str(problem) for problem in self.admin({"do": "check_file"})["problems"])
        rows, damaged = 0, dict[str, str]()
        after: int | None = 0
        while after is not None:
            answer = self.admin({"do": "check_rows", "after": after})
            rows, after = rows + int(answer["rows"]), answer["next"]
            damaged |= _reasons(answer)
            progress(rows)
        return Verified(rows, damaged, problems)

    def pages(self, *, vectors: bool = True, rows: int = 500) -> Iterator[Page]:
        """Every row in pages of at most `rows`, as each page is when it is read; what is added meanwhile is left out.

        Args:
            vectors: with embeddings and scores.
            rows: of a page, 1 to 1000.
        """
        request = {"do": "rows", "count": rows, "vectors": vectors}
        position: dict[str, int | None] = {"after": 0, "until": None}
        while position["after"] is not None:
            answer = self.admin(request | position)
            yield Page.from_json(answer)
            position = {"after": answer["next"], "until": answer["until"]}

    def admin(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `gallery_admin` answers to a request of docs/wire.md; given time, as it may read the whole file."""
        tensors = {"request": bytes_tensor(json.dumps(request))}
        return json.loads(self.infer_one("gallery_admin", tensors, max(self.timeout, ADMIN_SECONDS))["response"][0])

    def _write(self, operation: str, metadata: Mapping[str, str]) -> dict[str, str]:
        """Carry out one operation on rows, given by id; as few requests as may be."""
        statuses: dict[str, str] = {}
        ids = list(metadata)
        for start in range(0, len(ids), MOST_WRITES):
            part = ids[start : start + MOST_WRITES]
            columns = {"id": part, "metadata": [metadata[id] for id in part], "operation": [operation] * len(part)}
            tensors = {name: np.stack([bytes_tensor(value) for value in column]) for name, column in columns.items()}
            answer = self.infer("gallery_write", tensors)["status"]
            statuses |= {id: status.decode() for id, status in zip(part, answer[:, 0], strict=True)}
        return statuses


def _reasons(content: Mapping[str, Any]) -> dict[str, str]:
    return {str(one["id"]): str(one["reason"]) for one in content["damaged"]}


def _vectors(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray | None:
    """float32 [rows, any] from base64; None where the rows have no such key."""
    if not rows or name not in rows[0]:
        return None
    return np.stack([np.frombuffer(base64.b64decode(row[name]), "<f4") for row in rows])
