"""What each `descry` command does, and how it prints what the server answers."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from descry.client.errors import InvalidRequest
from descry.client.grid import draw_grid
from descry.client.indexing import index_folder
from descry.client.results import TLS, Hit
from descry.client.schema import Agreement, Schema, parse_statements
from descry.client.search import SearchClient


def connect(options: argparse.Namespace) -> SearchClient:
    """The client that the common flags describe."""
    certificates = TLS(options.tls_ca, options.tls_key, options.tls_cert)
    return SearchClient(
        options.url,
        timeout=options.timeout,
        tls=certificates if certificates != TLS() else None,
        token=options.token or os.environ.get("DESCRY_TOKEN"),
    )


def serve(options: argparse.Namespace) -> int:
    """Run a server until it is stopped."""
    from descry.client.serve import serve as run_server

    return run_server(
        repository=options.repository,
        gallery=options.gallery,
        host=options.host,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        log=options.log,
    )


def index(options: argparse.Namespace) -> int:
    """Index a folder; 1 when any image of it has no row afterwards."""
    with connect(options) as client:
        example = _example(client.schema)
        report = index_folder(client, options.folder, labels=options.labels, in_flight=options.in_flight)
    for image, reason in report.failed.items():
        print(f"not indexed: {image}: {reason}", file=sys.stderr)
    if report.unused_labels:
        names = ", ".join(report.unused_labels[:3])
        print(f"{len(report.unused_labels)} labelled images are not in {report.folder}: {names}", file=sys.stderr)
    rows = report.present + report.indexed
    failed = f", {len(report.failed)} failed" if report.failed else ""
    print(f"{rows} of {report.found} images indexed ({report.indexed} new, {report.present} before{failed})")
    if report.stopped:
        print(f"stopped: {report.stopped}; run the same command again to continue", file=sys.stderr)
    else:
        _next(f"descry search {example} --grid hits.png --images {shlex.quote(report.folder)}")
    if options.report:
        _write(options.report, {**asdict(report), "complete": report.complete})
    return 0 if report.complete else 1


def search(options: argparse.Namespace) -> int:
    """Rank the gallery by a description or by a photo."""
    if (options.grid is None) != (options.images is None):
        raise InvalidRequest("--grid PICTURE and --images ROOT belong together")
    statements = parse_statements(options.statements)
    with connect(options) as client:
        if options.photo is None:
            hits = client.search(statements, options.k, options.par_weight, options.camera)
        else:
            hits = client.similar(options.photo, statements, options.k, options.par_weight, options.camera)
        elements = client.schema.elements
    if options.json:
        _print_json({"hits": [_hit_json(hit, elements) for hit in hits]})
    elif hits:
        _print_hits(hits)
    else:
        print("no row passes the filter; `descry stats` lists the cameras", file=sys.stderr)
    if options.grid and hits:
        like = f"like {options.photo.name} " if options.photo else ""
        draw_grid(hits, options.images, options.grid, like + " ".join(options.statements))
        print(f"drawn: {options.grid}", file=sys.stderr)
    elif hits:
        _next("the same with --grid hits.png --images FOLDER, to see the crops")
    return 0


def describe(options: argparse.Namespace) -> int:
    """Print the attributes of a photo."""
    with connect(options) as client:
        description = client.describe(options.photo)
        schema = client.schema
    if options.json:
        values = {prediction.group: asdict(prediction) for prediction in description.predictions}
        _print_json({"attributes": values, "scores": _named(description.scores, schema.elements)})
    else:
        rows = [(one.group, one.value, f"{one.probability:.2f}") for one in description.predictions]
        _print_table(("attribute", "value", "probability"), rows)
    _next(f"descry similar {shlex.quote(str(options.photo))}")
    return 0


def match(options: argparse.Namespace) -> int:
    """Print how far a photo is from a description."""
    with connect(options) as client:
        result = client.match(options.photo, parse_statements(options.statements), options.par_weight)
    summands = {
        "distance": result.distance,
        "par_distance": result.par_distance,
        "embedding_distance": result.embedding_distance,
    }
    if options.json:
        _print_json({**_numbers(summands), "agreement": [_agreement_json(one) for one in result.agreement]})
        return 0
    for name, value in summands.items():
        print(f"{name:<18}  {value:.4f}")
    print()
    header = ("attribute", "stated", "photo shows", "probability", "term")
    rows = [
        (one.group, one.stated, one.predicted, f"{one.probability:.2f}", f"{one.term:.3f}") for one in result.agreement
    ]
    _print_table(header, rows)
    return 0


def delete(options: argparse.Namespace) -> int:
    """Remove rows; 1 when an id had none."""
    with connect(options) as client:
        answers = client.delete(options.ids)
    _print_table(("id", "status"), list(answers.items()))
    _next("descry stats")
    return 0 if set(answers.values()) == {"deleted"} else 1


def stats(options: argparse.Namespace) -> int:
    """Print what the gallery holds."""
    with connect(options) as client:
        result = client.stats()
        example = _example(client.schema)
    if options.json:
        _print_json(asdict(result))
    else:
        cameras = ", ".join(f"{name or '(none)'}: {rows}" for name, rows in result.cameras.items())
        print(f"rows     {result.rows}\ncameras  {cameras or '-'}")
        print(f"times    {result.first_time or '-'} to {result.last_time or '-'}")
        print(f"gallery  {result.gallery}\nmodel    {result.model_digest}")
    _next(f"descry search {example}" if result.rows else "descry index FOLDER")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Print what may be stated."""
    with connect(options) as client:
        served = client.schema
    if options.json:
        _print_json(asdict(served))
    else:
        rows = [(group.name, group.part, group.kind, " | ".join(group.choices)) for group in served.groups]
        _print_table(("attribute", "part", "kind", "values"), rows)
    _next(f"descry search {_example(served)}")
    return 0


def _print_hits(hits: Sequence[Hit]) -> None:
    """One line a hit; per stated attribute `yes`, or what the photo shows, and the stated value's probability."""
    stated = tuple(f"{one.group}={one.stated}" for one in hits[0].agreement)
    rows = []
    for hit in hits:
        cells = tuple(f"{'yes' if one.agrees else one.predicted} {one.probability:.2f}" for one in hit.agreement)
        rows.append((str(hit.rank), f"{hit.distance:.4f}", hit.id, str(hit.metadata.get("camera", "-")), *cells))
    _print_table(("rank", "distance", "id", "camera", *stated), rows)


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns, two spaces apart."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _hit_json(hit: Hit, elements: Sequence[str]) -> dict[str, Any]:
    distances = {
        "distance": hit.distance,
        "par_distance": hit.par_distance,
        "embedding_distance": hit.embedding_distance,
    }
    return {
        "rank": hit.rank,
        "id": hit.id,
        **_numbers(distances),
        "metadata": dict(hit.metadata),
        "agreement": [_agreement_json(one) for one in hit.agreement],
        "scores": _named(hit.scores, elements),
    }


def _agreement_json(one: Agreement) -> dict[str, Any]:
    return {**asdict(one), **_numbers({"probability": one.probability, "term": one.term}), "agrees": one.agrees}


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def _named(scores: np.ndarray, elements: Sequence[str]) -> dict[str, float]:
    return {name: round(float(score), 6) for name, score in zip(elements, scores, strict=True)}


def _print_json(content: Mapping[str, Any]) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error


def _example(schema: Schema) -> str:
    """Two statements that this server understands."""
    return " ".join(shlex.quote(f"{group.name}={group.values[-1]}") for group in schema.groups[:2])


def _next(command: str) -> None:
    print(f"next: {command}", file=sys.stderr)
