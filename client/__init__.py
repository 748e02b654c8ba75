"""The thin client: `SearchClient` talks to a Descry server over gRPC and needs numpy, Pillow and tritonclient only."""

from descry.client.errors import (
    AccessDenied,
    DeadlineExceeded,
    DescryError,
    GalleryEmpty,
    InvalidRequest,
    ServerFailed,
    ServerUnavailable,
)
from descry.client.gallery import Page, Verified
from descry.client.grid import draw_grid, thumbnail
from descry.client.groups import Group, Prediction
from descry.client.indexing import IndexReport, index_folder, index_source
from descry.client.parquet import export_gallery
from descry.client.reindexing import reindex
from descry.client.restoring import restore
from descry.client.results import TLS, Description, Frame, Hit, Match, ModelInfo, Ranking, Stats
from descry.client.schema import Agreement, Schema
from descry.client.search import SearchClient
from descry.client.sources import open_source
from descry.client.statements import AnyOf, Not, Stated, parse_statements

__all__ = [
    "TLS",
    "AccessDenied",
    "Agreement",
    "AnyOf",
    "DeadlineExceeded",
    "Description",
    "DescryError",
    "Frame",
    "GalleryEmpty",
    "Group",
    "Hit",
    "IndexReport",
    "InvalidRequest",
    "Match",
    "ModelInfo",
    "Not",
    "Page",
    "Prediction",
    "Ranking",
    "Schema",
    "SearchClient",
    "ServerFailed",
    "ServerUnavailable",
    "Stated",
    "Stats",
    "Verified",
    "draw_grid",
    "export_gallery",
    "index_folder",
    "index_source",
    "open_source",
    "parse_statements",
    "reindex",
    "restore",
    "thumbnail",
]
