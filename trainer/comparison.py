"""The comparison of all methods: from checkpoints to the tables and the figure of one page.

    python -m descry.trainer.comparison docs/results/comparison.yaml [--runs runs/sweeps] [--features] [--cache]

The file names a page and the rows of its tables. Every checkpoint of a row (`RUN-seed=N` under `--runs`) is evaluated
as the file says, and the evaluation is kept beside the page in `evaluations/`, with configuration, seed, commit, data
digests and machine. One that is there already, with the digest of the checkpoint, is not made again; a row without
checkpoints has what was kept. The tables replace what stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from descry.trainer import evaluate
from descry.trainer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, write_atomically
from descry.trainer.comparison_page import ComparisonError, Line, draw_comparison, fill_page, format_table
from descry.trainer.config import ConfigError, build_from, read_mapping
from descry.trainer.datasets import DatasetError
from descry.trainer.machine import keep_memory


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: as printed.
        run: sweep and run without its seed, `SWEEP/RUN`.
        distance: what ranks: `embedding`, `par` or `fused`.
        published: the paper's rank-1 and mAP in percent, where it has them.
        neighbours: over how many the gallery is averaged; None = as many as the checkpoint says.
    """

    name: str
    run: str
    distance: str
    published: tuple[float, ...] = ()
    neighbours: int | None = None

    @property
    def flags(self) -> list[str]:
        """Of its evaluation."""
        return [] if self.neighbours is None else [f"--neighbours={self.neighbours}"]

    def kept_in(self, folder: Path) -> Path:
        """Where in `folder` its evaluations lie."""
        sweep = folder / Path(self.run).parent
        return sweep if self.neighbours is None else sweep / f"neighbours={self.neighbours}"

    def fusion(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The constants that its evaluation of a checkpoint has."""
        own = {} if self.neighbours is None else {"neighbours": self.neighbours}
        return {**checkpoint.metrics["fusion"], **own}


@dataclass(frozen=True)
class Comparison:
    """A comparison file.

    Attributes:
        page, figure: a Markdown and a PNG file, relative to the comparison file.
        tables: rows by the name that the page has.
        evaluation: flags of all evaluations of a table by its name, e.g. where its labels lie.
    """

    page: str
    figure: str
    tables: dict[str, tuple[Row, ...]]
    evaluation: dict[str, tuple[str, ...]] = field(default_factory=dict)


def evaluate_row(row: Row, runs: Path, folder: Path, flags: Sequence[str]) -> None:
    """Evaluate the checkpoints of a row of which `folder` has no evaluation, or one of other weights or fusion.

    Raises:
        CheckpointError, ConfigError, DatasetError: a checkpoint, a flag or a dataset cannot be used.
    """
    sweep, name = Path(row.run).parent, Path(row.run).name
    for weights in sorted((runs / sweep).glob(f"{name}-seed=*/model.safetensors")):
        path = row.kept_in(folder) / f"{weights.parent.name}.json"
        checkpoint = load_checkpoint(weights.parent)
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            wanted = row.fusion(checkpoint)
            fusion = {key: kept["fusion"].get(key) for key in wanted}
            if (kept["checkpoint"]["digest"], fusion) == (checkpoint.digest, wanted):
                continue
        options, overrides = evaluate.command_line().parse_known_args([str(weights.parent), *row.flags, *flags])
        result = evaluate.evaluate(weights.parent, options, overrides)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(result) + "\n").encode())


def kept_line(row: Row, folder: Path) -> Line:
    """The line of a row with the evaluations that `folder` has of it."""
    files = sorted(row.kept_in(folder).glob(f"{Path(row.run).name}-seed=*.json"))
    evaluations = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return Line(row.name, row.distance, row.published, evaluations)


def compare(file: Path, runs: Path, flags: Sequence[str]) -> None:
    """Evaluate what is missing, and write page and figure.

    Raises:
        CheckpointError, ConfigError, DatasetError: something cannot be used.
        ComparisonError: the page lacks a marker.
    """
    comparison: Comparison = build_from(Comparison, read_mapping(file), str(file))
    folder, page = file.parent / "evaluations", file.parent / comparison.page
    rows = [(name, row) for name, rows in comparison.tables.items() for row in rows]
    for name, row in tqdm(rows, desc="evaluations", unit="row"):
        evaluate_row(row, runs, folder, [*comparison.evaluation.get(name, ()), *flags])
    tables = {name: [kept_line(row, folder) for row in rows] for name, rows in comparison.tables.items()}
    text = fill_page(page.read_text(encoding="utf-8"), {name: format_table(lines) for name, lines in tables.items()})
    write_atomically(page, text.encode())
    draw_comparison(tables, file.parent / comparison.figure)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="further flags are those of the evaluation, e.g. --features --cache"
    )
    parser.add_argument("comparison", type=Path, help="a YAML file: page, figure, tables")
    parser.add_argument("--runs", type=Path, default=Path("runs/sweeps"), help="folders that sweeps have left")
    options, flags = parser.parse_known_args(arguments)
    keep_memory()
    try:
        compare(options.comparison, options.runs, flags)
    except (CheckpointError, ConfigError, DatasetError, ComparisonError) as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
