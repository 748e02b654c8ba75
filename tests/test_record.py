"""What is kept of finished sweeps."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from descry.trainer.record import epoch_means, main


def test_losses_are_averaged_by_epoch():
    history = [
        {"total": 1, "stage": "a", "epoch": 1, "loss": 4.0, "part": 1.0},
        {"total": 2, "stage": "a", "epoch": 1, "loss": 2.0, "part": 2.0},
        {"total": 2, "stage": "a", "epoch": 1, "metrics": {}},
        {"total": 3, "stage": "b", "epoch": 1, "loss": 1.0},
    ]
    assert epoch_means(history) == [
        {"stage": "a", "epoch": 1, "loss": 3.0, "part": 1.5},
        {"stage": "b", "epoch": 1, "loss": 1.0},
    ]


@pytest.fixture
def sweep(trained, tmp_path):
    for name in ("one-seed=0", "two-seed=0"):
        shutil.copytree(trained, tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "one-seed=0" / "test.json").write_text('{"search": {"rank1": 0.5}}')
    (tmp_path / "sweep" / "results.md").write_text("| row | rank-1 |\n")
    return tmp_path / "sweep"


def test_a_sweep_is_kept_with_where_its_numbers_come_from(sweep, tmp_path, capsys):
    assert main([str(sweep), "--to", str(tmp_path / "kept")]) == 0
    assert "2 runs" in capsys.readouterr().out
    kept = tmp_path / "kept" / "sweep"
    one, two = (json.loads((kept / f"{name}-seed=0.json").read_text()) for name in ("one", "two"))
    assert one["config"]["method"]["name"] == "asmr" and one["data"]["digests"]["train"]
    assert one["machine"]["torch"] and one["seconds"] >= 0
    assert [entry["stage"] for entry in one["training"]] == ["pretrain"] + ["align"] * 2, "every tenth step is logged"
    assert one["test"] == {"search": {"rank1": 0.5}} and "test" not in two
    assert (kept / "results.md").read_text() == "| row | rank-1 |\n"
    assert np.asarray(Image.open(kept / "curves.png")).std() > 10
    assert sum(path.stat().st_size for path in kept.glob("*.json")) < 30_000


def test_a_folder_without_runs_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "--to", str(tmp_path / "kept")]) == 1
    assert f"record: {tmp_path} has no run" in capsys.readouterr().err
