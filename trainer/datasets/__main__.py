"""Look at a dataset before training on it.

check NAME ROOT: what is there, beside what was published. show NAME ROOT --out sheet.png: a contact sheet with labels.
infer ROOT: write schema.json for a folder of your own.
"""

import argparse
import json
import sys
from pathlib import Path

from descry.trainer.datasets import DATASETS, DataConfig, DatasetError, load_dataset
from descry.trainer.datasets.check import check, to_json, to_text
from descry.trainer.datasets.infer import write_schema
from descry.trainer.datasets.sheet import draw_sheet
from descry.trainer.schema import SchemaError


def run_check(given: argparse.Namespace) -> int:
    """Print the report; 0 when everything is as published, else 1."""
    report = check(load_dataset(data_config(given)), given.decode)
    print(json.dumps(to_json(report), indent=2) if given.json else to_text(report))
    return 0 if report.passed else 1


def run_show(given: argparse.Namespace) -> int:
    """Write a contact sheet; 0."""
    dataset = load_dataset(data_config(given))
    chosen = dataset.subset(given.split) if given.split else dataset
    if not len(chosen):
        raise DatasetError(f"{given.root} has no {given.split} split")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(chosen, rows=given.rows, columns=given.columns, seed=given.seed).save(given.out)
    print(given.out)
    return 0


def run_infer(given: argparse.Namespace) -> int:
    """Write `schema.json`; 0."""
    path, table = write_schema(given.root, given.labels, given.force)
    print(table)
    print(f"{path}: correct kinds, parts and the order of values, then train with data.name=folder", file=sys.stderr)
    return 0


def data_config(given: argparse.Namespace) -> DataConfig:
    """The command line as the trainer's configuration."""
    return DataConfig(
        name=given.name,
        root=str(given.root),
        labels=given.labels,
        schema=given.schema,
        protocol=given.protocol,
        validation=given.validation,
        split_seed=given.split_seed,
    )


def build_parser() -> argparse.ArgumentParser:
    """The three commands."""
    parser = argparse.ArgumentParser(
        prog="python -m descry.trainer.datasets",
        description=__doc__,
    )
    commands = parser.add_subparsers(required=True)
    for name, run in (("check", run_check), ("show", run_show)):
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("name", choices=DATASETS)
        command.add_argument("root", type=Path, help="folder of the dataset")
        command.add_argument("--labels", default="", help="the label file, where it is not in ROOT")
        for option in ("schema", "protocol"):
            command.add_argument(f"--{option}", default="", help="by name; default: the dataset's first")
        command.add_argument("--validation", type=float, default=0.0, help="share of train to hold out as val")
        command.add_argument("--split-seed", type=int, default=0)
        if name == "check":
            command.add_argument("--json", action="store_true", help="every missing file and problem")
            command.add_argument("--no-decode", dest="decode", action="store_false", help="do not open the images")
        else:
            command.add_argument("--out", type=Path, required=True, help="the picture to write")
            command.add_argument("--split", default="", help="only crops of this split")
            command.add_argument("--rows", type=int, default=6)
            command.add_argument("--columns", type=int, default=10)
            command.add_argument("--seed", type=int, default=0, help="of the choice of crops")
    command = commands.add_parser("infer", help=run_infer.__doc__)
    command.set_defaults(run=run_infer)
    command.add_argument("root", type=Path, help="folder with labels.csv or labels.parquet")
    command.add_argument("--labels", default="", help="the label file, where it is not in ROOT")
    command.add_argument("--force", action="store_true", help="replace an existing schema.json")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status, 1 with a message when the dataset cannot be used."""
    given = build_parser().parse_args(arguments)
    try:
        return given.run(given)
    except (DatasetError, SchemaError) as error:
        print(f"datasets: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
