"""The thin client: `SearchClient` talks to a Descry server over gRPC and needs numpy, Pillow and tritonclient only."""

from descry.client.errors import (
    DeadlineExceeded,
    DescryError,
    GalleryEmpty,
    InvalidRequest,
    ServerFailed,
    ServerUnavailable,
)
from descry.client.grid import draw_grid, thumbnail
from descry.client.indexing import IndexReport, index_folder
from descry.client.results import TLS, Description, Hit, Match, ModelInfo, Stats
from descry.client.schema import Agreement, Group, Prediction, Schema, parse_statements
from descry.client.search import SearchClient

__all__ = [
    "TLS",
    "Agreement",
    "DeadlineExceeded",
    "DescryError",
    "Description",
    "GalleryEmpty",
    "Group",
    "Hit",
    "IndexReport",
    "InvalidRequest",
    "Match",
    "ModelInfo",
    "Prediction",
    "Schema",
    "SearchClient",
    "ServerFailed",
    "ServerUnavailable",
    "Stats",
    "draw_grid",
    "index_folder",
    "parse_statements",
    "thumbnail",
]
