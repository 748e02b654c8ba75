"""Writes a gallery to a Parquet file. Needs pyarrow, the extra `parquet`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from descry.client.errors import InvalidRequest
from descry.client.gallery import Page
from descry.client.search import SearchClient

COLUMNS = ("image", "camera", "time", "track")


def export_gallery(
    client: SearchClient, path: Path, progress: Callable[[int], None] = lambda rows: None
) -> dict[str, str]:
    """Write every row; the file appears once it is complete.

    Columns: `id`, `image`, `camera`, `time` and `track` (texts, null where a row has none), `metadata` (all of it, as
    JSON), `embedding` (list of D float32), `scores` (list of N float32, 0..1). The key `descry` of the file's metadata
    holds `model_digest`, `method` and `elements`, the names of the scores, as JSON.

    Args:
        client: the server.
        path: the file, replaced where it exists.
        progress: hears how many rows are written so far.

    Returns:
        The reason by id of the rows that are damaged, and left out.

    Raises:
        InvalidRequest: pyarrow is missing, or the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidRequest("Parquet needs pyarrow: pip install 'descry-search[parquet]'") from error
    model = client.model
    about = {"model_digest": model.model_digest, "method": model.method, "elements": list(model.schema.elements)}
    texts = [(name, pyarrow.string()) for name in ("id", *COLUMNS, "metadata")]
    sizes = {"embedding": model.embedding_size, "scores": len(about["elements"])}
    vectors = [(name, pyarrow.list_(pyarrow.float32(), size)) for name, size in sizes.items()]
    schema = pyarrow.schema([*texts, *vectors], {"descry": json.dumps(about)})
    partial, damaged, rows = path.with_name(path.name + ".partial"), dict[str, str](), 0
    try:
        with parquet.ParquetWriter(partial, schema) as writer:
            for page in client.pages():
                damaged |= page.damaged
                if page.ids:
                    columns = zip(_columns(page), schema, strict=True)
                    arrays = [pyarrow.array(column, field.type) for column, field in columns]
                    writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
                rows += len(page.ids)
                progress(rows)
        os.replace(partial, path)
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return damaged


def _columns(page: Page) -> list[Any]:
    assert page.embeddings is not None and page.scores is not None
    texts = [[row.get(name) for row in page.metadata] for name in COLUMNS]
    metadata = [json.dumps(row, ensure_ascii=False) for row in page.metadata]
    return [page.ids, *texts, metadata, list(page.embeddings), list(page.scores)]
