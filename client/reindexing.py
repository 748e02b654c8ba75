"""Fills the gallery of another model from the stored image references of one that goes on answering."""

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from descry.client.errors import InvalidRequest
from descry.client.indexing import IndexReport, index_source
from descry.client.search import SearchClient
from descry.client.sources import Crop, Source


def reindex(
    source: SearchClient,
    target: SearchClient,
    images: Path,
    *,
    in_flight: int = 32,
    progress: TextIO | None = None,
) -> IndexReport:
    """Give every row of one server's gallery a row in another's, with the same id and metadata, embedded anew.

    It continues after any stop, as `index_source` does; rows that `source` gets meanwhile need another run. Rows that
    are damaged, or whose image is not found, are `failed`.

    Args:
        source: the server to read ids and metadata from.
        target: the server to write to, of another model or gallery.
        images: the folder that the image references are relative to.
        in_flight: images sent at the same time.
        progress: where the progress line goes; None is stderr.

    Raises:
        InvalidRequest: no such folder, or both are the same server.
        DescryError: the source fails; the same call continues.
    """
    if source.url == target.url:
        raise InvalidRequest(f"{source.url} is both source and target; serve the new model with a gallery of its own")
    if not images.is_dir():
        raise InvalidRequest(f"{images} is not a folder")
    damaged: dict[str, str] = {}
    crops = _crops(source, damaged)
    report = index_source(
        target,
        Source(f"the gallery at {source.url}", images, crops, source.stats().rows),
        in_flight=in_flight,
        progress=progress,
    )
    report.failed |= damaged
    return report


def _crops(source: SearchClient, damaged: dict[str, str]) -> Iterator[Crop]:
    for page in source.pages(vectors=False):
        damaged |= page.damaged
        # A row without a reference was given its image under its id.
        yield from (Crop(id, {"image": id, **metadata}) for id, metadata in zip(page.ids, page.metadata, strict=True))
