"""The commands that ask about people: search, similar, describe and match."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias, get_args

from descry.client.commands import connect
from descry.client.errors import InvalidRequest
from descry.client.flags import positive
from descry.client.grid import draw_grid
from descry.client.printing import print_json, print_next, print_table
from descry.client.query_report import (
    agreement_json,
    agreement_rows,
    named_scores,
    print_explained,
    print_hits,
    ranking_json,
    rounded,
)
from descry.client.results import ModelInfo, Ranking
from descry.client.search import SearchClient
from descry.client.selection import Scalar, TrackDistance
from descry.client.statements import Statements, parse_statements

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(verbs: Verbs, server: argparse.ArgumentParser) -> None:
    """Add the commands and their flags; `server` holds the flags of every command that talks to a server."""
    said = _description_flags()
    search_parser = verbs.add_parser(
        "search", parents=[server, said, _ranking_flags()], help="rank the gallery by a description"
    )
    search_parser.add_argument("statements", nargs="*", metavar="ATTRIBUTE=VALUE", help="see `descry schema`")
    search_parser.add_argument("--threshold", type=float, metavar="P", help="probability below which nobody matches")
    search_parser.add_argument("--all", action="store_true", help="show the hits also where nobody matches")
    search_parser.set_defaults(run=search)

    similar_parser = verbs.add_parser(
        "similar", parents=[server, said, _ranking_flags()], help="rank the gallery: like this photo, but …"
    )
    similar_parser.add_argument("photo", type=Path, metavar="IMAGE")
    similar_parser.add_argument("statements", nargs="*", metavar="ATTRIBUTE=VALUE", help="what is not as in the photo")
    similar_parser.set_defaults(run=similar)

    describe_parser = verbs.add_parser("describe", parents=[server], help="read the attributes of a photo")
    describe_parser.add_argument("photo", type=Path, metavar="IMAGE")
    describe_parser.add_argument("--json", action="store_true")
    describe_parser.set_defaults(run=describe)

    match_parser = verbs.add_parser(
        "match", parents=[server, said], help="measure how far a photo is from a description"
    )
    match_parser.add_argument("photo", type=Path, metavar="IMAGE")
    match_parser.add_argument("statements", nargs="+", metavar="ATTRIBUTE=VALUE")
    match_parser.add_argument("--json", action="store_true")
    match_parser.set_defaults(run=match)


def _description_flags() -> argparse.ArgumentParser:
    """Flags of a description."""
    flags = argparse.ArgumentParser(add_help=False)
    help = "what another witness says of the same person; may be repeated"
    flags.add_argument("--witness", nargs="+", action="append", default=[], metavar="ATTRIBUTE=VALUE", help=help)
    flags.add_argument("--par-weight", type=float, metavar="W", help="weight of the attribute distance")
    return flags


def _ranking_flags() -> argparse.ArgumentParser:
    """Flags of the two commands that rank the gallery."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("-k", type=positive, default=20, metavar="N", help="hits wanted (%(default)s)")
    flags.add_argument("--camera", action="append", metavar="NAME", help="keep this camera; may be repeated")
    flags.add_argument("--track", action="append", metavar="NAME", help="keep this track; may be repeated")
    flags.add_argument("--from", dest="start", metavar="TIME", help="keep what was seen from then on (ISO 8601)")
    flags.add_argument("--to", dest="end", metavar="TIME", help="keep what was seen before")
    flags.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="keep this metadata; may be repeated"
    )
    distances = get_args(TrackDistance)
    flags.add_argument("--by-track", choices=distances, help="rank tracks, by their best image or the mean of all")
    flags.add_argument("--explain", action="store_true", help="show of each hit what its distance is made of")
    flags.add_argument("--grid", type=Path, metavar="PICTURE", help="also draw the hits; needs --images")
    flags.add_argument("--images", type=Path, metavar="ROOT", help="the folder that was indexed")
    flags.add_argument("--json", action="store_true")
    return flags


def search(options: argparse.Namespace) -> int:
    """Rank the gallery by a description, or say that nobody in it matches."""
    with connect(options) as client:
        ranking = client.search(_witnesses(options), **_limits(options), threshold=options.threshold)
        if ranking.verdict == "no match" and ranking and not options.json:
            _print_no_match(ranking, client.model, options.threshold)
            if not options.all:
                print_next("the same with --all, to see the hits all the same")
                return 0
        _show(options, client, ranking, " ".join(options.statements))
    return 0


def similar(options: argparse.Namespace) -> int:
    """Rank the gallery by likeness to a photo, with what is stated changed."""
    with connect(options) as client:
        ranking = client.similar(options.photo, _witnesses(options), **_limits(options))
        _show(options, client, ranking, " ".join([f"like {options.photo.name}", *options.statements]))
    return 0


def describe(options: argparse.Namespace) -> int:
    """Print the attributes of a photo."""
    with connect(options) as client:
        description = client.describe(options.photo)
        schema = client.schema
    if options.json:
        values = {prediction.group: asdict(prediction) for prediction in description.predictions}
        print_json({"attributes": values, "scores": named_scores(description.scores, schema.elements)})
    else:
        rows = [(one.group, one.value, f"{one.probability:.2f}") for one in description.predictions]
        print_table(("attribute", "value", "probability"), rows)
    print_next(f"descry similar {shlex.quote(str(options.photo))}")
    return 0


def match(options: argparse.Namespace) -> int:
    """Print how far a photo is from a description."""
    with connect(options) as client:
        result = client.match(options.photo, _witnesses(options), options.par_weight)
    names = ("distance", "par_distance", "embedding_distance")
    summands = {name: getattr(result, name) for name in names}
    if options.json:
        print_json({**rounded(summands), "agreement": [agreement_json(one) for one in result.agreement]})
        return 0
    for name, value in summands.items():
        print(f"{name:<18}  {value:.4f}")
    print()
    print_table(*agreement_rows(result.agreement))
    return 0


def _witnesses(options: argparse.Namespace) -> list[Statements]:
    said = [options.statements, *options.witness] if options.statements else options.witness
    return [parse_statements(words) for words in said]


def _limits(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that `SearchClient.search` and `similar` share."""
    if (options.grid is None) != (options.images is None):
        raise InvalidRequest("--grid PICTURE and --images ROOT belong together")
    return {
        "k": options.k,
        "par_weight": options.par_weight,
        "cameras": options.camera,
        "tracks": options.track,
        "start": options.start,
        "end": options.end,
        "metadata": _metadata(options.where),
        "by_track": options.by_track,
    }


def _metadata(words: Sequence[str]) -> dict[str, list[Scalar]]:
    """`["frame=12"]` as `{"frame": ["12", 12]}`: on a command line a number may be meant as a text."""
    wanted: dict[str, list[Scalar]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise InvalidRequest(f"{word!r} is not of the form key=value, for example --where weather=rain")
        values = wanted.setdefault(key, [])
        values.append(text)
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if isinstance(value, (bool, int, float)):
            values.append(value)
    return wanted


def _show(options: argparse.Namespace, client: SearchClient, ranking: Ranking, title: str) -> None:
    """Print a ranking as the flags want it, and draw it where they do."""
    if options.json:
        print_json(ranking_json(ranking, client.schema.elements))
    elif not ranking:
        print("no row passes the filter; `descry stats` lists the cameras", file=sys.stderr)
    else:
        if ranking.verdict == "match":
            print(f"match: the first hit has probability {ranking.probability:.2f}", file=sys.stderr)
        weight = client.model.par_weight if options.par_weight is None else options.par_weight
        print_explained(ranking, weight) if options.explain else print_hits(ranking)
    if options.grid and ranking:
        draw_grid(ranking, options.images, options.grid, title)
        print(f"drawn: {options.grid}", file=sys.stderr)
    elif ranking:
        print_next("the same with --grid hits.png --images FOLDER, to see the crops")


def _print_no_match(ranking: Ranking, model: ModelInfo, threshold: float | None) -> None:
    limit = (model.calibration or {})["match"]["threshold"] if threshold is None else threshold
    print(f"no match in this gallery: the first hit has probability {ranking.probability:.2f}, below {limit:.2f}")
