"""The `descry` command end to end, against the real server: what it prints where, and its exit codes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from descry.client.cli import main
from descry.client.serve import ServerError, TritonServer

HERE = "test-cli"  # the gallery is shared: these tests look only at their own camera


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five noise crops, one of them broken, and their labels."""
    root = tmp_path_factory.mktemp("crops")
    generator = np.random.default_rng(0)
    for number in range(4):
        pixels = generator.integers(0, 255, (64, 32, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"cli-{number}.png")
    (root / "cli-broken.jpg").write_bytes(b"\xff\xd8 cut off")
    rows = "".join(f"cli-{number}.png,{HERE},2026-01-0{number + 1}T10:00:00,7\n" for number in range(4))
    (root / "labels.csv").write_text("image,camera,time,person\n" + rows)
    return root


@pytest.fixture
def descry(request: pytest.FixtureRequest, monkeypatch, capsys):
    """Run one command against the server; returns exit code, stdout, stderr."""
    monkeypatch.setenv("DESCRY_URL", request.getfixturevalue("server").url)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def indexed(descry, crops):
    """The crops in the gallery, whatever the other tests have done."""
    descry("index", crops, "--labels", crops / "labels.csv")


@pytest.mark.server
def test_index_reports_and_resumes(descry, crops, tmp_path):
    ids = [f"cli-{number}.png" for number in range(4)]
    descry("delete", *ids)
    report = tmp_path / "report.json"
    code, out, err = descry("index", crops, "--labels", crops / "labels.csv", "--report", report)
    assert code == 1 and out.startswith("4 of 5 images indexed (4 new, 0 before, 1 failed)")
    assert "not indexed: cli-broken.jpg" in err and "5/5 images" in err and "next: descry search" in err
    content = json.loads(report.read_text())
    assert list(content["failed"]) == ["cli-broken.jpg"] and content["indexed"] == 4 and not content["complete"]
    code, out, _ = descry("index", crops, "--labels", crops / "labels.csv")
    assert code == 1 and out.startswith("4 of 5 images indexed (0 new, 4 before, 1 failed)")
    code, out, err = descry("index", crops, "--report", tmp_path / "absent" / "report.json")
    assert code == 1 and out.startswith("4 of 5 images indexed") and "descry index: cannot write " in err


@pytest.mark.server
def test_search_prints_a_table_and_json_that_agree(descry, indexed):
    statements = ("gender=female", "upper_color=red", "hat=unknown")
    code, out, err = descry("search", *statements, "-k", "3", "--camera", HERE)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 4 and "next:" in err
    assert lines[0].split() == ["rank", "distance", "id", "camera", "gender=female", "upper_color=red"]
    code, out, _ = descry("search", *statements, "-k", "3", "--camera", HERE, "--json")
    hits = json.loads(out)["hits"]
    assert [hit["id"] for hit in hits] == [line.split()[2] for line in lines[1:]]
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    assert hits[0]["metadata"]["camera"] == HERE and hits[0]["metadata"]["person"] == "7"
    assert [one["group"] for one in hits[0]["agreement"]] == ["gender", "upper_color"]
    assert all(0 <= score <= 1 for score in hits[0]["scores"].values())


@pytest.mark.server
def test_the_weight_changes_the_distance_as_the_wire_says(descry, indexed):
    for weight in (0.0, 1.0, 3.0):
        out = descry("search", "hat=yes", "--camera", HERE, "--par-weight", weight, "--json")[1]
        for hit in json.loads(out)["hits"]:
            expected = weight * hit["par_distance"] + hit["embedding_distance"]
            assert hit["distance"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.server
def test_search_draws_a_grid(descry, indexed, crops, tmp_path):
    picture = tmp_path / "grid.png"
    code, _, err = descry("search", "hat=yes", "--camera", HERE, "--grid", picture, "--images", crops)
    assert code == 0 and f"drawn: {picture}" in err
    with Image.open(picture) as drawn:
        assert drawn.width > 480
    code, _, err = descry("search", "hat=yes", "--grid", picture)
    assert code == 1 and "belong together" in err


@pytest.mark.server
def test_describe_match_and_similar(descry, indexed, crops):
    code, out, err = descry("describe", crops / "cli-1.png")
    assert code == 0 and {line.split()[0] for line in out.splitlines()[1:]} == {
        "gender",
        "hat",
        "upper_color",
        "accessory",
    }
    assert "next: descry similar" in err
    described = json.loads(descry("describe", crops / "cli-1.png", "--json")[1])
    gender = described["attributes"]["gender"]["value"]
    code, out, _ = descry("match", crops / "cli-1.png", f"gender={gender}", "accessory=bag+glasses", "--json")
    agreement = json.loads(out)["agreement"]
    assert code == 0 and agreement[0]["agrees"] and agreement[1]["stated"] == "bag+glasses"
    code, out, _ = descry("match", crops / "cli-1.png", f"gender={gender}")
    assert code == 0 and out.startswith("distance")
    code, out, _ = descry("similar", crops / "cli-1.png", "-k", "1", "--camera", HERE)
    assert code == 0 and out.splitlines()[1].split()[2] == "cli-1.png"


@pytest.mark.server
def test_delete_and_stats(descry, indexed):
    before = json.loads(descry("stats", "--json")[1])
    assert before["cameras"][HERE] == 4
    code, out, _ = descry("delete", "cli-3.png", "cli-absent")
    assert code == 1 and out.splitlines()[1].split() == ["cli-3.png", "deleted"] and "absent" in out.splitlines()[2]
    assert json.loads(descry("stats", "--json")[1])["rows"] == before["rows"] - 1
    code, out, _ = descry("stats")
    assert code == 0 and f"rows     {before['rows'] - 1}" in out and HERE in out


@pytest.mark.server
def test_schema(descry):
    code, out, err = descry("schema")
    assert code == 0 and "black | red | white | none" in out and "next: descry search gender=female" in err
    assert json.loads(descry("schema", "--json")[1])["name"] == "tiny"


@pytest.mark.server
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search"], "state at least one attribute"),
        (["search", "hat=unknown"], "state at least one attribute"),
        (["search", "gendre=male"], "did you mean 'gender'"),
        (["search", "upper_color=pink"], "valid: black, red, white, none, unknown"),
        (["search", "gender"], "attribute=value"),
        (["search", "gender=male", "-k", "99999999999"], "from 1 to 10000"),
        (["search", "gender=male", "--par-weight", "-1"], "from 0 on"),
        (["describe", "absent.jpg"], "cannot read the image"),
        (["index", "absent"], "is not a folder"),
        (["stats", "--tls-ca", "absent.pem"], "cannot read the TLS file"),
    ],
)
def test_refusals_are_one_message_and_exit_1(descry, arguments, message):
    code, out, err = descry(*arguments)
    assert code == 1 and out == ""
    assert message in err and err.startswith("descry ") and "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["search", "-k", "0"], ["match", "x.jpg"], ["serve"]])
def test_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: descry" in capsys.readouterr().err


def test_a_stopped_server_is_named(capsys):
    assert main(["search", "gender=male", "--url", "127.0.0.1:9"]) == 1
    assert "no Descry server answers at 127.0.0.1:9" in capsys.readouterr().err


def test_serve_refuses_a_folder_without_models(tmp_path, capsys):
    assert main(["serve", "--repository", str(tmp_path), "--gallery", str(tmp_path / "g.sqlite")]) == 1
    assert "descry serve: " in capsys.readouterr().err


@pytest.mark.server
def test_serve_names_a_log_that_cannot_be_written(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    log = tmp_path / "absent" / "triton.log"
    with pytest.raises(ServerError, match=f"cannot write the log {log}: No such file"):
        TritonServer(repository, tmp_path / "gallery.sqlite", grpc_port=0, http_port=0, metrics_port=0, log=log).start()
    assert list(tmp_path.glob("descry-serve-*")) == []


@pytest.mark.server
def test_a_reader_that_leaves_early_gets_no_traceback(server):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "descry.client", "schema", "--url", server.url]
    finished = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert finished.returncode == 1 and "Traceback" not in finished.stderr and "Exception" not in finished.stderr
