"""Sweeps: a grid of settings, or rows of a published table, as ordinary training and evaluation commands.

    python -m descry.trainer.sweep trainer/configs/sweeps/asmr_lambda_market1501.yaml [--only RUN…] [--list]
        [--section.key=value …]

Runs what has no result yet, one run after the other, and writes `results.json`, `results.md` and `results.png`. Called
again it goes on where it stopped. `--list` prints the commands instead, to be run anywhere; each can be run alone.
"""

import argparse
import fnmatch
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from descry.trainer.checkpoint import write_atomically
from descry.trainer.config import ConfigError, build_from, load_config, read_mapping
from descry.trainer.evaluate import command_line
from descry.trainer.state import latest_state
from descry.trainer.sweep_report import Measured, write_report

RESULT = "test.json"


@dataclass(frozen=True)
class RowConfig:
    """One row of a table: a name, and what it changes.

    Attributes:
        name: as the table prints it.
        config: an experiment other than the sweep's; relative to the sweep's file.
        set: values by dotted key; `{seed}` in them stands for the run's seed.
        distance: the distance that the row is ranked by, where it is not the sweep's.
        published: rank-1 of the paper in percent, if it has one.
    """

    name: str
    config: str = ""
    set: dict[str, Any] = field(default_factory=dict)
    distance: str = ""
    published: float | None = None


@dataclass(frozen=True)
class SweepConfig:
    """A sweep file.

    Attributes:
        title: of the table and the plot.
        config: the experiment, relative to the sweep's file.
        set: values by dotted key, for all runs; `{seed}` in them stands for the run's seed.
        grid: candidates by dotted key; every combination is one row.
        rows: the rows of a table, instead of a grid.
        seeds: each row is run with each.
        shared_stages: so many first stages are the same in all rows: they are trained once a seed, and every row
            starts from their weights.
        distance: what the rows are ranked by: `fused`, `embedding` or `par`.
        published: rank-1 of the paper in percent, one for each point of the grid, in its order.
        evaluation: further flags of every run's evaluation, e.g. `--reid`.
    """

    title: str
    config: str
    set: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    rows: tuple[RowConfig, ...] = ()
    seeds: tuple[int, ...] = (0,)
    shared_stages: int = 0
    distance: str = "fused"
    published: tuple[float, ...] = ()
    evaluation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        directory: of the checkpoint.
        config: the experiment file.
        overrides: what it changes, as flags.
        row: of the table; None for stages that rows share.
        evaluation_flags: of its evaluation.
    """

    directory: Path
    config: Path
    overrides: tuple[str, ...]
    row: RowConfig | None
    evaluation_flags: tuple[str, ...]

    @property
    def result(self) -> Path:
        """The file that says the run is done."""
        return self.directory / (RESULT if self.row else "model.safetensors")

    def training(self) -> list[str]:
        """The command that trains it, and that goes on with it after an interruption."""
        command = [sys.executable, "-m", "descry.trainer.run", "--config", str(self.config), *self.overrides]
        return [*command, "--resume"] if latest_state(self.directory) else command

    def evaluation(self) -> list[str]:
        """The command that evaluates it on the test split."""
        return [sys.executable, "-m", "descry.trainer.evaluate", str(self.directory), "--json", *self.evaluation_flags]


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep file.

    Raises:
        ConfigError: it cannot be used; the message names the key.
    """
    sweep: SweepConfig = build_from(SweepConfig, read_mapping(path), str(path))
    if bool(sweep.grid) == bool(sweep.rows):
        raise ConfigError(f"{path}: give either grid or rows")
    if sweep.published and len(sweep.published) != len(list(itertools.product(*sweep.grid.values()))):
        raise ConfigError(f"{path}: published has {len(sweep.published)} values, not one for each point of the grid")
    return sweep


def expand(sweep: SweepConfig, folder: Path, directory: Path, overrides: Sequence[str] = ()) -> list[Run]:
    """All runs of a sweep, in the order in which they must be run.

    Args:
        sweep: the content of a sweep file.
        folder: of that file; experiments are relative to it.
        directory: receives one folder a run.
        overrides: flags for all runs, e.g. `--image.height=128`.

    Raises:
        ConfigError: an experiment or a value cannot be used.
    """
    runs = []
    base, first = folder / sweep.config, sweep.shared_stages
    for seed in sweep.seeds:
        given = [*_of_seed({**sweep.set, "train.seed": seed}, seed), *overrides]
        shared = directory / f"shared-seed={seed}"
        if first:
            runs.append(_run(sweep, base, shared, None, [*given, *_only_stages(base, given, slice(first))]))
        for row in sweep.rows or _grid_rows(sweep):
            config = folder / row.config if row.config else base
            changes = [*given, *_of_seed(row.set, seed)]
            if first:
                changes += _only_stages(config, changes, slice(first, None))
                changes += _flags({"train.initial": str(shared)})
            runs.append(_run(sweep, config, directory / f"{_file_name(row.name)}-seed={seed}", row, changes))
    return runs


def _run(sweep: SweepConfig, config: Path, directory: Path, row: RowConfig | None, overrides: list[str]) -> Run:
    config = Path(os.path.normpath(config))
    flags = (*overrides, f"--train.directory={json.dumps(str(directory))}")
    # A flag that the evaluation does not have would only be noticed when the training is over.
    _, changes = command_line().parse_known_args([str(directory), *sweep.evaluation])
    load_config(config, [*flags, *changes])
    return Run(directory, config, flags, row, sweep.evaluation)


def _grid_rows(sweep: SweepConfig) -> list[RowConfig]:
    points = list(itertools.product(*sweep.grid.values()))
    published = sweep.published or (None,) * len(points)
    rows = []
    for point, number in zip(points, published, strict=True):
        values = dict(zip(sweep.grid, point, strict=True))
        name = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
        rows.append(RowConfig(name, set=values, published=number))
    return rows


def _only_stages(config: Path, overrides: Sequence[str], which: slice) -> list[str]:
    """Flags that keep some of an experiment's stages."""
    return _flags({"train.stages": [vars(stage) for stage in load_config(config, overrides).train.stages[which]]})


def _of_seed(values: dict[str, Any], seed: int) -> list[str]:
    return [flag.replace("{seed}", str(seed)) for flag in _flags(values)]


def _flags(values: dict[str, Any]) -> list[str]:
    return [f"--{key}={json.dumps(value)}" for key, value in values.items()]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "=.-" else "_" for letter in name)


def choose(runs: Sequence[Run], patterns: Sequence[str]) -> list[Run]:
    """The runs whose folder's name matches one of the shell patterns.

    Raises:
        ConfigError: a pattern matches none.
    """
    names = [run.directory.name for run in runs]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"--only {pattern}: no such run; there are {', '.join(names)}")
    return [run for run in runs if any(fnmatch.fnmatch(run.directory.name, pattern) for pattern in patterns)]


def carry_out(run: Run) -> None:
    """Train and evaluate a run, unless it is done.

    Raises:
        ConfigError: its folder holds another experiment.
        subprocess.CalledProcessError: a command failed; it has said why.
    """
    saved = run.directory / "config.yaml"
    if saved.is_file() and load_config(saved).to_yaml() != load_config(run.config, run.overrides).to_yaml():
        raise ConfigError(f"{run.directory} holds another experiment: remove it, or choose another --directory")
    if run.result.is_file():
        return
    if not saved.is_file() or latest_state(run.directory):
        subprocess.run(run.training(), check=True, stdout=subprocess.DEVNULL)
    if run.row:
        done = subprocess.run(run.evaluation(), check=True, stdout=subprocess.PIPE)
        write_atomically(run.result, done.stdout)


def read_results(runs: Sequence[Run], distance: str) -> list[Measured]:
    """What the runs that are done have measured, a row each; rows without a result are left out."""
    measured: dict[str, Measured] = {}
    for run in runs:
        if run.row and run.result.is_file():
            content = json.loads(run.result.read_text(encoding="utf-8"))
            row = measured.setdefault(run.row.name, Measured(run.row.name, run.row.set, run.row.published))
            search = content["search"][run.row.distance or distance]["all"]
            reid = {f"reid_{name}": content["reid"][name] for name in ("mAP", "rank1")} if "reid" in content else {}
            row.seeds.append({**search, "mA": content["attributes"]["mA"], **reid})
    return list(measured.values())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when a run failed or something cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Any config value, for all runs: --section.key=value"
    )
    parser.add_argument("sweep", type=Path, help="a file of trainer/configs/sweeps")
    parser.add_argument("--directory", type=Path, help="folder of all runs; default runs/sweeps/NAME")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="RUN", help="only runs whose folder is so named, e.g. '*-seed=1'"
    )
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    options, overrides = parser.parse_known_args(arguments)
    directory = options.directory or Path("runs/sweeps") / options.sweep.stem
    try:
        sweep = load_sweep(options.sweep)
        runs = expand(sweep, options.sweep.parent, directory, overrides)
        chosen = choose(runs, options.only)
    except ConfigError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 1
    if options.list:
        for run in chosen:
            print(shlex.join(run.training()))
            if run.row:
                print(f"{shlex.join(run.evaluation())} > {shlex.quote(str(run.result))}")
        return 0
    failed = []
    for run in tqdm(chosen, desc=sweep.title, unit="run"):
        failed += _problems(run)
        write_report(directory, sweep.title, list(sweep.grid), read_results(runs, sweep.distance))
    for problem in failed:
        print(f"sweep: {problem}", file=sys.stderr)
    return 1 if failed else 0


def _problems(run: Run) -> list[str]:
    """Carry out a run; what went wrong, if something did."""
    try:
        carry_out(run)
    except (ConfigError, subprocess.CalledProcessError) as error:
        return [f"{run.directory}: {error}"]
    return []


if __name__ == "__main__":
    sys.exit(main())
