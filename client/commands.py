"""What each `descry` command does, and how it prints what the server answers."""

import argparse
import os
import shlex
from dataclasses import asdict

from descry.client.keys import KEY_HEADER, USER_HEADER, read_key
from descry.client.printing import print_json, print_next, print_table
from descry.client.results import TLS
from descry.client.schema import Schema
from descry.client.search import SearchClient


def connect(options: argparse.Namespace, user: str | None = None) -> SearchClient:
    """The client that the common flags describe; `user` goes into the server's audit log beside the key's name."""
    key = read_key(options.key_file) if options.key_file else os.environ.get("DESCRY_KEY")
    return SearchClient(
        options.url,
        timeout=options.timeout,
        tls=tls_of(options),
        token=options.token or os.environ.get("DESCRY_TOKEN"),
        headers={**({KEY_HEADER: key} if key else {}), **({USER_HEADER: user} if user else {})},
    )


def tls_of(options: argparse.Namespace) -> TLS | None:
    """The certificates that the common flags name; None is an open connection."""
    certificates = TLS(options.tls_ca, options.tls_key, options.tls_cert, options.tls_name)
    return certificates if certificates != TLS() else None


def delete(options: argparse.Namespace) -> int:
    """Remove rows; 1 when an id had none."""
    with connect(options) as client:
        answers = client.delete(options.ids)
    print_table(("id", "status"), list(answers.items()))
    print_next("descry stats")
    return 0 if set(answers.values()) == {"deleted"} else 1


def stats(options: argparse.Namespace) -> int:
    """Print what the gallery holds."""
    with connect(options) as client:
        result = client.stats()
        example = example_of(client.schema)
    if options.json:
        print_json(asdict(result))
    else:
        cameras = ", ".join(f"{name or '(none)'}: {rows}" for name, rows in result.cameras.items())
        print(f"rows     {result.rows}\ncameras  {cameras or '-'}")
        print(f"times    {result.first_time or '-'} to {result.last_time or '-'}")
        print(f"gallery  {result.gallery}\nmodel    {result.model_digest}")
    print_next(f"descry search {example}" if result.rows else "descry index FOLDER")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Print what may be stated."""
    with connect(options) as client:
        served = client.schema
    if options.json:
        print_json(asdict(served))
    else:
        rows = [(group.name, group.part, group.kind, " | ".join(group.choices)) for group in served.groups]
        print_table(("attribute", "part", "kind", "values"), rows)
    print_next(f"descry search {example_of(served)}")
    return 0


def example_of(schema: Schema) -> str:
    """Two statements that this server understands."""
    return " ".join(shlex.quote(f"{group.name}={group.values[-1]}") for group in schema.groups[:2])
