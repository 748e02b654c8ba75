"""The commands that fill a gallery and keep it in order."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from descry.client.audit import since
from descry.client.commands import connect, example_of
from descry.client.errors import InvalidRequest
from descry.client.flags import positive
from descry.client.indexing import IndexReport, index_source
from descry.client.parquet import export_gallery
from descry.client.printing import print_json, print_next, print_table, write_json
from descry.client.reindexing import reindex
from descry.client.restoring import restore
from descry.client.sources import open_source

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(verbs: Verbs, server_flags: argparse.ArgumentParser) -> None:
    """Add this module's commands to the command line."""
    filling = _filling_flags()
    index = verbs.add_parser("index", parents=[server_flags, filling], help="add crops; continues after a stop")
    index.add_argument(
        "sources", type=Path, nargs="+", metavar="SOURCE", help="folders, FILE.tar, TABLE.csv or BOXES.json"
    )
    index.add_argument("--labels", type=Path, metavar="CSV", help="of a folder: image, camera, person, time, track")
    index.set_defaults(run=fill)

    again = verbs.add_parser("reindex", parents=[server_flags, filling], help="fill the gallery of another model")
    again.add_argument("--to", required=True, metavar="URL", help="host:port of the server with the other model")
    again.add_argument("--images", type=Path, required=True, metavar="ROOT", help="the folder that was indexed")
    again.set_defaults(run=fill_again)

    prune = verbs.add_parser("prune", parents=[server_flags], help="delete rows by age or camera")
    prune.add_argument(
        "--older-than", metavar="AGE", help="as 30d, 12h, or a time in ISO 8601; not rows without a time"
    )
    prune.add_argument("--camera", metavar="NAME", help="of this camera only; alone: all of it")
    prune.add_argument("--dry-run", action="store_true", help="count, delete nothing")
    prune.set_defaults(run=delete_old)

    for name, help, run in [
        ("verify", "check that every row of the gallery is whole", check),
        ("compact", "give back the space of deleted rows", shrink),
        ("backup", "copy the gallery on the server while it is served", copy),
    ]:
        verbs.add_parser(name, parents=[server_flags], help=help).set_defaults(run=run)
    verbs.choices["verify"].add_argument("--json", action="store_true")

    back = verbs.add_parser("restore", help="put a backup in the place of a gallery; stop its server first")
    back.add_argument("backup", type=Path, metavar="BACKUP")
    back.add_argument("--gallery", type=Path, required=True, metavar="FILE", help="what `descry serve` is given")
    back.add_argument("--repository", type=Path, metavar="DIR", help="also check that this is the backup's model")
    back.set_defaults(run=put_back)

    out = verbs.add_parser("export-gallery", parents=[server_flags], help="write the gallery to a Parquet file")
    out.add_argument("file", type=Path, metavar="FILE.parquet")
    out.set_defaults(run=write_out)


def fill(options: argparse.Namespace) -> int:
    """Index sources, one after the other; 1 when any image of them has no row afterwards."""
    sources = [open_source(path, options.labels) for path in options.sources]
    reports = []
    with connect(options) as client:
        example = example_of(client.schema)
        for source in sources:
            reports.append(index_source(client, source, in_flight=options.in_flight))
            if reports[-1].stopped:
                break
    for report in reports:
        if report.unused_labels:
            names = ", ".join(report.unused_labels[:3])
            print(f"{len(report.unused_labels)} labelled images are not in {report.source}: {names}", file=sys.stderr)
    return _tell(reports, options, f"descry search {example} --grid hits.png --images {shlex.quote(reports[0].root)}")


def fill_again(options: argparse.Namespace) -> int:
    """Reindex; 1 when any row has none in the new gallery afterwards."""
    target_options = argparse.Namespace(**{**vars(options), "url": options.to})
    with connect(options) as source, connect(target_options) as target:
        report = reindex(source, target, options.images, in_flight=options.in_flight)
    return _tell([report], options, f"descry verify --url {options.to}")


def delete_old(options: argparse.Namespace) -> int:
    """Prune by age, camera or both."""
    if options.older_than is None and options.camera is None:
        raise InvalidRequest("say which rows: --older-than AGE, --camera NAME or both")
    limit = since(options.older_than) if options.older_than is not None else None
    with connect(options) as client:
        told = _told("{0} deleted, {1} to go")
        count = client.prune(camera=options.camera, older_than=limit, dry_run=options.dry_run, progress=told)
    print(f"{count} rows {'would be deleted' if options.dry_run else 'deleted'}")
    print_next("the same without --dry-run" if options.dry_run else "descry compact, which gives back their space")
    return 0


def check(options: argparse.Namespace) -> int:
    """Verify; 1 when anything is wrong."""
    with connect(options) as client:
        found = client.verify(_told("{0} rows checked"))
    if options.json:
        print_json({**asdict(found), "sound": found.sound})
    else:
        if found.damaged:
            print_table(("damaged row", "reason"), list(found.damaged.items()))
        for problem in found.problems:
            print(f"problem: {problem}")
        print(f"{found.rows} rows checked, {len(found.damaged)} damaged, {len(found.problems)} problems of the file")
    if found.damaged or found.problems:
        print_next("descry restore BACKUP --gallery FILE; or delete the damaged rows and index their images again")
    return 0 if found.sound else 1


def shrink(options: argparse.Namespace) -> int:
    """Compact."""
    with connect(options) as client:
        sizes = client.compact()
    print(f"{sizes['bytes_before']:,} bytes before, {sizes['bytes_after']:,} now")
    return 0


def copy(options: argparse.Namespace) -> int:
    """Back up."""
    with connect(options) as client:
        name = client.backup()
    print(name)
    print("it lies beside the gallery on the server's machine: copy it to another disk", file=sys.stderr)
    print_next(f"to go back, stop the server and: descry restore {shlex.quote(name)} --gallery FILE")
    return 0


def put_back(options: argparse.Namespace) -> int:
    """Restore."""
    done = restore(options.backup, options.gallery, options.repository)
    print(f"{options.gallery}: {done.rows} rows of model {done.model_digest}")
    if done.kept is not None:
        print(f"the gallery before it is kept as {done.kept}", file=sys.stderr)
    print_next("descry serve, then descry verify")
    return 0


def write_out(options: argparse.Namespace) -> int:
    """Export; 1 when damaged rows were left out."""
    with connect(options) as client:
        damaged = export_gallery(client, options.file, _told("{0} rows written"))
    for id, reason in damaged.items():
        print(f"not exported: {id}: {reason}", file=sys.stderr)
    print(options.file)
    return 1 if damaged else 0


def _filling_flags() -> argparse.ArgumentParser:
    """Flags of the two commands that index images."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--report", type=Path, metavar="FILE", help="write what failed, and why, as JSON")
    flags.add_argument("--in-flight", type=positive, default=32, metavar="N", help="images sent at once (%(default)s)")
    return flags


def _tell(reports: Sequence[IndexReport], options: argparse.Namespace, following: str) -> int:
    """Print what became of each source, and write the report where one is wanted."""
    for report in reports:
        for image, reason in report.failed.items():
            print(f"not indexed: {image}: {reason}", file=sys.stderr)
        failed = f", {len(report.failed)} failed" if report.failed else ""
        rows = report.present + report.indexed
        print(f"{rows} of {report.found} images indexed ({report.indexed} new, {report.present} before{failed})")
    if reports[-1].stopped:
        print(f"stopped: {reports[-1].stopped}; run the same command again to continue", file=sys.stderr)
    else:
        print_next(following)
    complete = all(report.complete for report in reports)
    if options.report:
        contents = [{**asdict(report), "complete": report.complete} for report in reports]
        write_json(options.report, contents[0] if len(contents) == 1 else {"sources": contents, "complete": complete})
    return 0 if complete else 1


def _told(words: str) -> Callable[..., None]:
    """Prints how far a long call is, over and over on the same line of a terminal."""
    return lambda *numbers: print(words.format(*numbers), end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr)
