"""Health, doctor, the metrics and the dashboard that reads them."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from descry.client import InvalidRequest, SearchClient
from descry.client.audit import check_audit, read_audit
from descry.client.cli import main

ROOT = Path(__file__).parents[1]
DASHBOARD = json.loads((ROOT / "ops" / "grafana.json").read_text(encoding="utf-8"))
PHOTO = Image.new("RGB", (20, 40), "blue")
HERE = "test-operations"


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def metric_names(text: str) -> set[str]:
    return set(re.findall(r"\b((?:nv|descry)_[a-z_]+)\b", text))


def test_the_dashboard_is_whole():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) and all(panel["description"] for panel in panels)
    for expression in expressions():
        assert expression.count("(") == expression.count(")") and '{instance=~"$instance"' in expression
    for wanted in (
        "descry_gallery_rows",
        "descry_searches_total",
        "descry_rows_written_total",
        "descry_seconds_bucket",
    ):
        assert any(wanted in expression for expression in expressions())


@pytest.mark.server
def test_every_metric_of_the_dashboard_is_put_out(server):
    with SearchClient(server.url, timeout=60) as client:
        client.index(PHOTO, "operations/1", {"camera": HERE})
        client.search({"hat": "yes"}, k=1)
        with pytest.raises(InvalidRequest):
            client.describe(b"no image")
        rows = client.stats().rows
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    shown = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    assert metric_names(" ".join(expressions())) - shown == set()
    values = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:6] == "descry"
    }
    assert values['descry_gallery_rows{model="gallery_search"}'] == rows
    assert values['descry_requests_total{model="decode_image",outcome="refused"}'] >= 1
    assert values['descry_rows_written_total{model="gallery_write",status="added"}'] >= 1
    assert sum(value for name, value in values.items() if name.startswith("descry_searches_total")) >= 1
    for part in ("read", "run", "pack", "audit"):
        assert values[f'descry_seconds_count{{model="gallery_search",part="{part}"}}'] >= 1


@pytest.mark.server
def test_the_metrics_are_the_manuals(server):
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as answer:
        put_out = set(re.findall(r"^# TYPE (descry_\w+)", answer.read().decode(), re.MULTILINE))
    assert put_out and not [name for name in put_out if f"`{name}`" not in manual]


@pytest.mark.server
def test_health_is_a_query_and_no_search_in_the_audit_log(server, capsys):
    log = Path(server.config.server.gallery).with_suffix(".audit.jsonl")
    searches = [one for one in read_audit(log) if one["action"] == "gallery_search"]
    assert main(["health", "--url", server.url]) == 0
    assert "answers queries" in capsys.readouterr().out
    assert [one for one in read_audit(log) if one["action"] == "gallery_search"] == searches
    assert check_audit(log).problems == []


def test_health_of_nobody(capsys):
    assert main(["health", "--url", "127.0.0.1:9"]) == 1
    assert "no Descry server answers" in capsys.readouterr().err


@pytest.mark.server
def test_doctor_finds_a_sound_server(server, tmp_path, capsys):
    config = tmp_path / "serve.yaml"
    config.write_text(server.config.to_yaml())
    code = main(["doctor", "--url", server.url, "--config", str(config), "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one for one in findings if one["state"] == "problem"] == [] and code == 0
    found = {one["subject"]: one["detail"] for one in findings}
    assert "tiny-model-digest" in found["server"] and "structure sound" in found["gallery"]
    assert "answered a query" in found["self-test"] and "chain sound" in found["audit log"]
    assert {"python", "numpy", "tritonclient", "nvidia-pytriton", "gpu", "disk", "ports"} <= set(found)


def test_doctor_names_what_is_wrong(tmp_path, capsys):
    keys, gallery = tmp_path / "keys.json", tmp_path / "gallery.sqlite"
    keys.write_text('{"keys": []}')
    keys.chmod(0o644)
    gallery.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    gallery.with_suffix(".audit.jsonl").write_text("forged\n")
    config = tmp_path / "serve.yaml"
    config.write_text(f"server: {{repository: {tmp_path}, gallery: {gallery}}}\nkeys: {{file: {keys}}}\n")
    assert main(["doctor", "--url", "127.0.0.1:9", "--config", str(config)]) == 1
    lines = capsys.readouterr().out.splitlines()
    problems = {line.split()[1]: line for line in lines if line.startswith("problem")}
    assert "is not exported" in problems["repository"] and "chmod 600" in problems["keys.file"]
    assert "gallery" in problems and "not a line of the log" in problems["audit"]
    assert "no Descry server answers" in problems["server"]
    assert any(line.startswith("warning") and "nobody gets in" in line for line in lines)


def test_doctor_without_a_configuration_looks_at_the_server_alone(capsys):
    assert main(["doctor", "--url", "127.0.0.1:9"]) == 1
    out = capsys.readouterr().out
    assert "no Descry server answers" in out and "gallery" not in out.replace("gallery_", "")
