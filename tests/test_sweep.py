"""Sweeps: what they expand to, that they go on where they stopped, and what they report."""

import json
from pathlib import Path

import pytest
import yaml
from experiments import EXPERIMENT
from people import render_people

from descry.trainer import sweep
from descry.trainer.config import load_config
from descry.trainer.sweep_report import Measured, format_rows

SHIPPED = sorted((Path(__file__).parents[1] / "trainer" / "configs" / "sweeps").glob("*.yaml"))


def expand(path: Path, directory: Path, *overrides: str) -> list[sweep.Run]:
    return sweep.expand(sweep.load_sweep(path), path.parent, directory, overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_expand_to_valid_commands(path, tmp_path):
    runs = expand(path, tmp_path)
    assert len({run.directory for run in runs}) == len(runs)
    for run in runs:
        command = run.training()
        assert command[1:4] == ["-m", "descry.trainer.run", "--config"]
        assert load_config(run.config, run.overrides).train.directory == str(run.directory)


def test_the_lambda_sweep_trains_the_shared_stage_once(tmp_path):
    path = next(path for path in SHIPPED if path.stem == "asmr_lambda_market1501")
    shared, *rows = expand(path, tmp_path)
    configs = [load_config(run.config, run.overrides) for run in rows]
    assert [config.method_config().weight for config in configs] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert {config.train.initial for config in configs} == {str(shared.directory)}
    assert [stage.name for stage in load_config(shared.config, shared.overrides).train.stages] == ["pretrain"]
    assert {stage.name for config in configs for stage in config.train.stages} == {"align"}
    assert rows[6].row.published == 49.6


def test_the_extensions_of_the_multitask_transformer_are_the_rows_of_its_table(tmp_path):
    path = next(path for path in SHIPPED if path.stem == "multitask_table_4_3")
    methods = [load_config(run.config, run.overrides).method_config() for run in expand(path, tmp_path) if run.row]
    assert [(method.feedback, method.additional) for method in methods] == [
        ("none", 0), ("none", 2000), ("ma", 0), ("par", 0), ("both", 0), ("both", 2000)
    ]  # fmt: skip


@pytest.fixture
def small(tmp_path):
    """A sweep over two weights of ASMR, one epoch a stage."""
    pretrain, align = ({**stage, "epochs": 1} for stage in EXPERIMENT["train"]["stages"])
    stages = [pretrain, {**align, "multipliers": {"category": 15.0, "group_weights": 5.0}}]
    people = render_people(tmp_path / "people", persons=16)
    experiment = {
        **EXPERIMENT,
        "train": {**EXPERIMENT["train"], "stages": stages},
        "data": {"name": "folder", "root": str(people)},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    content = {
        "title": "weights",
        "config": "experiment.yaml",
        "shared_stages": 1,
        "grid": {"method.weight": [0, 2]},
        "published": [10.0, 20.0],
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_sweep_is_carried_out_and_goes_on_where_it_stopped(small, tmp_path, capsys):
    directory = tmp_path / "runs"
    command = [str(small), "--directory", str(directory)]
    assert sweep.main(command) == 0
    table = (directory / "results.md").read_text()
    assert "| weight=0 |" in table and "| weight=2 |" in table and "| 20.0 |" in table
    assert (directory / "results.png").read_bytes().startswith(b"\x89PNG")
    measured = json.loads((directory / "results.json").read_text())
    assert [len(row["seeds"]) for row in measured] == [1, 1]

    first, second = (directory / f"weight={weight}-seed=0" for weight in (0, 2))
    before = (first / "model.safetensors").stat().st_mtime_ns
    (second / "test.json").unlink()
    assert sweep.main(command) == 0
    assert (first / "model.safetensors").stat().st_mtime_ns == before, "what is done is not run again"
    assert (second / "test.json").is_file()
    assert json.loads((directory / "results.json").read_text()) == measured, "the evaluation is deterministic"

    assert sweep.main([*command, "--image.flip=0.0"]) == 1
    assert "holds another experiment: remove it, or choose another --directory" in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_go_on(small, tmp_path, capfd):
    content = yaml.safe_load(small.read_text())
    content["grid"] = {"train.stages.0.batch_size": [4096, 16]}
    content["shared_stages"] = 0
    small.write_text(yaml.safe_dump(content))
    assert sweep.main([str(small), "--directory", str(tmp_path / "runs")]) == 1
    error = capfd.readouterr().err
    assert "batch_size=4096-seed=0" in error and "fewer than one batch" in error
    assert (tmp_path / "runs" / "batch_size=16-seed=0" / "test.json").is_file()


def test_the_commands_are_listed_without_running(small, tmp_path, capsys):
    assert sweep.main([str(small), "--directory", str(tmp_path / "runs"), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 2 and lines[2].endswith("test.json")
    assert not (tmp_path / "runs").exists()


def test_only_the_named_runs_are_chosen(small, tmp_path, capsys):
    small.write_text(yaml.safe_dump({**yaml.safe_load(small.read_text()), "seeds": [0, 1]}))
    command = [str(small), "--directory", str(tmp_path / "runs"), "--list"]
    assert sweep.main([*command, "--only", "shared-seed=1", "*=2-seed=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("seed=1" in line and "seed=0" not in line for line in lines)
    assert sweep.main([*command, "--only", "weight=3-*"]) == 1
    assert "--only weight=3-*: no such run; there are shared-seed=0, weight=0-seed=0" in capsys.readouterr().err


def test_a_row_can_start_from_another_run_of_its_seed(small, tmp_path):
    content = yaml.safe_load(small.read_text())
    rows = [{"name": "joint", "set": {"train.initial": "runs/first-seed={seed}"}}]
    small.write_text(
        yaml.safe_dump({**content, "shared_stages": 0, "grid": {}, "published": [], "rows": rows, "seeds": [3, 4]})
    )
    initial = [load_config(run.config, run.overrides).train.initial for run in expand(small, tmp_path / "runs")]
    assert initial == ["runs/first-seed=3", "runs/first-seed=4"]


def test_the_flags_of_the_evaluation_reach_its_command(small, tmp_path, capsys):
    small.write_text(yaml.safe_dump({**yaml.safe_load(small.read_text()), "evaluation": ["--reid"]}))
    assert sweep.main([str(small), "--directory", str(tmp_path / "runs"), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split(" > ")[0].endswith("--json --reid") for line in lines if "evaluate" in line)
    assert sum("--reid" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": ["--reeid"]}, "reeid"),
        ({"rows": [{"name": "a"}]}, "give either grid or rows"),
        ({"grid": {}}, "give either grid or rows"),
        ({"published": [1.0]}, "published has 1 values, not one for each point"),
        ({"grids": {}}, 'can not match "grids"'),
        ({"grid": {"method.lambda": [1, 2]}}, 'can not match "lambda"'),
        ({"config": "missing.yaml"}, "missing.yaml does not exist"),
    ],
)
def test_a_sweep_that_cannot_be_used_says_why(small, change, message, capsys):
    small.write_text(yaml.safe_dump({**yaml.safe_load(small.read_text()), **change}))
    assert sweep.main([str(small), "--list"]) == 1
    assert message in capsys.readouterr().err


def test_the_table_has_mean_and_spread_over_the_seeds():
    metrics = {"rank5": 0.5, "rank10": 0.5, "mAP": 0.25, "mA": 0.75}
    row = Measured("weight=1", {"method.weight": 1}, None, [{"rank1": 0.3, **metrics}, {"rank1": 0.4, **metrics}])
    assert format_rows([row]).splitlines()[2] == (
        "| weight=1 | 35.0 ± 7.1 | 50.0 ± 0.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | 75.0 ± 0.0 | 2 |"
    )


def test_the_table_has_columns_of_reid_where_a_row_has_them():
    metrics = {"rank1": 0.3, "rank5": 0.5, "rank10": 0.5, "mAP": 0.25, "mA": 0.75}
    without = Measured("without", {}, None, [metrics])
    measured = Measured("with", {}, None, [{**metrics, "reid_mAP": 0.8, "reid_rank1": 0.9}])
    header, _, *lines = format_rows([without, measured]).splitlines()
    assert header.endswith("| PAR mA | re-ID mAP | re-ID rank-1 | seeds |")
    assert lines[0].endswith("| 75.0 |  |  | 1 |") and lines[1].endswith("| 75.0 | 80.0 | 90.0 | 1 |")
    assert "re-ID" not in format_rows([without])


def test_reid_is_read_from_the_results_of_runs(small, tmp_path):
    first, second = (run for run in expand(small, tmp_path / "runs") if run.row)
    search = {"rank1": 0.3, "rank5": 0.5, "rank10": 0.5, "mAP": 0.25}
    content = {"search": {"fused": {"all": search}}, "attributes": {"mA": 0.75}}
    for run, further in ((first, {}), (second, {"reid": {"mAP": 0.8, "rank1": 0.9, "rank5": 1.0}})):
        run.directory.mkdir(parents=True)
        run.result.write_text(json.dumps({**content, **further}))
    rows = sweep.read_results([first, second], "fused")
    assert rows[0].seeds == [{**search, "mA": 0.75}]
    assert rows[1].seeds == [{**search, "mA": 0.75, "reid_mAP": 0.8, "reid_rank1": 0.9}]
