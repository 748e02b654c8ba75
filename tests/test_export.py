"""Export of a briefly trained ASMR: parity, refusal, and a repository that is whole or absent."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from descry.export import __main__ as command
from descry.export import parity, repository
from descry.export.parity import BATCHES, DIFFERENCES, ParityError, ParityRow, check_parity, measure_parity
from descry.export.scripted import ChangeQuery, ImageEncoder, script_models
from descry.trainer.checkpoint import load_checkpoint

MODELS = ("image_encoder", "par_head", "attribute_encoder", "change_query", "fuse_distances")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("export") / "models"
    assert command.main([str(trained), "--repository", str(target), "--precision", "float32"]) == 0
    return target


def test_an_export_holds_models_schema_and_fusion(trained, exported):
    checkpoint = load_checkpoint(trained)
    assert all((exported / name / "1" / "model.pt").is_file() for name in MODELS)
    assert (exported / "gallery_search" / "schema.json").read_text() == checkpoint.schema.to_json()
    fusion = json.loads((exported / "gallery_search" / "fusion.json").read_text())
    assert fusion["model_digest"] == checkpoint.model_digest
    assert fusion["embedding_size"] == 128 and fusion["image_size"] == [64, 32]
    assert fusion["max_par"] == checkpoint.metrics["fusion"]["max_par"]
    assert not list(exported.rglob(".export-*")) and not list(exported.parent.glob(".export-*"))


def test_an_export_takes_the_calibration_along(trained, exported):
    assert "calibration" not in json.loads((exported / "gallery_search" / "fusion.json").read_text())
    checkpoint, calibration = load_checkpoint(trained), {"match": {"threshold": 0.5}, "temperatures": {}}
    calibrated = replace(checkpoint, metrics=checkpoint.metrics | {"calibration": calibration})
    assert json.loads(repository._fusion(calibrated))["calibration"] == calibration


def test_an_export_states_its_parity(trained, exported):
    report = json.loads((trained / "parity.json").read_text())
    assert [row["batch"] for row in report["rows"]] == list(BATCHES)
    assert all(row["embedding"] < 1e-4 and row["top10"] > 0.99 for row in report["rows"])
    assert report["model_digest"] == load_checkpoint(trained).model_digest


@pytest.mark.parametrize("name", MODELS)
def test_a_model_carries_its_inputs_and_takes_any_batch(exported, name):
    extra = {"inputs.json": ""}
    module = torch.jit.load(exported / name / "1" / "model.pt", map_location="cpu", _extra_files=extra)
    inputs = [torch.zeros(3, *shape, dtype=getattr(torch, kind)) for kind, shape in json.loads(extra["inputs.json"])]
    with torch.no_grad():
        outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(len(output) == 3 for output in outputs)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_fits_what_the_cpp_backend_asks(exported, name):
    """As many arguments as the config has inputs, used or not; and no output that is an input, which it frees first."""
    module = torch.jit.load(exported / name / "1" / "model.pt", _extra_files=(extra := {"inputs.json": ""}))
    inputs = [torch.zeros(2, *shape, dtype=getattr(torch, kind)) for kind, shape in json.loads(extra["inputs.json"])]
    config = (exported / name / "config.pbtxt").read_text()
    assert len(module.forward.schema.arguments) - 1 == config.count('"INPUT__') == len(inputs)
    with torch.no_grad():
        outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == config.count('"OUTPUT__')
    assert not {output.data_ptr() for output in outputs} & {tensor.data_ptr() for tensor in inputs}


def devices_in(module) -> list[str]:
    return [line for line in str(module.inlined_graph).splitlines() if ": Device" in line]


def test_no_device_is_baked_into_a_graph(exported):
    """A device inside would pin the file to the machine that wrote it; loading must be free to choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pinned = torch.jit.trace(lambda x: x + torch.rand(len(x), device=x.device), torch.zeros(2), check_trace=False)
    assert devices_in(pinned), "the check sees a device where there is one"
    for name in MODELS:
        assert not devices_in(torch.jit.load(exported / name / "1" / "model.pt")), name


def test_the_frozen_models_hold_no_parameters(exported):
    for name in MODELS:
        assert not list(torch.jit.load(exported / name / "1" / "model.pt").parameters())


def test_bfloat16_stays_within_its_tolerance(trained):
    checkpoint = load_checkpoint(trained)
    rows = measure_parity(checkpoint, script_models(checkpoint, "bfloat16"))
    assert 0 < max(row.embedding for row in rows) < 0.1


def test_a_model_that_computes_something_else_is_refused(trained, tmp_path, monkeypatch, capsys):
    checkpoint = load_checkpoint(trained)
    encoder, *others = script_models(checkpoint, "float32")
    with torch.no_grad():
        checkpoint.method.image_head[0].bias.add_(0.5)
    changed = replace(encoder, eager=ImageEncoder(checkpoint.method, "float32").eval())
    with pytest.raises(ParityError, match="differences up to 0.0001"):
        check_parity(measure_parity(checkpoint, [changed, *others]), "float32")

    monkeypatch.setattr(parity, "TOLERANCES", {"float32": (0.0, 1.0)})
    target = tmp_path / "models"
    assert command.main([str(trained), "--repository", str(target), "--precision", "float32"]) == 1
    assert "report it" in capsys.readouterr().err
    assert not target.exists()


def test_another_query_of_a_photo_is_refused(trained):
    class Wrong(ChangeQuery):
        def forward(self, embedding, attributes, known):
            return super().forward(embedding, attributes, known) + 0.5

    checkpoint = load_checkpoint(trained)
    wrong = Wrong(checkpoint.method)
    models = [
        replace(model, eager=wrong) if model.name == "change_query" else model
        for model in script_models(checkpoint, "float32")
    ]
    with pytest.raises(ParityError, match=r"embedding +scores +query +changed +distance"):
        check_parity(measure_parity(checkpoint, models), "float32")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_that_is_no_number_is_refused(name):
    row = ParityRow(1, **dict.fromkeys(DIFFERENCES, 0.0), top1=1.0, top10=1.0)
    check_parity([row], "float32")
    with pytest.raises(ParityError):
        check_parity([row, replace(row, **{name: float("nan")})], "float32")


@pytest.fixture
def earlier(exported, tmp_path) -> Path:
    """A repository of the time before `change_query`, with a setting of its own, and without one of its files."""
    repository = shutil.copytree(exported, tmp_path / "models")
    shutil.rmtree(repository / "change_query")
    (repository / "par_head" / "configs" / "local.pbtxt").unlink()
    search = repository / "similar_search" / "config.pbtxt"
    search.write_text(search.read_text().replace("change_query", "absent"))
    settings = repository / "gallery_search" / "config.pbtxt"
    settings.write_text(settings.read_text().replace("/gallery/gallery.sqlite", "/mine.sqlite"))
    (repository / "par_head" / "1" / "model.pt").write_bytes(b"old")
    return repository


def test_an_earlier_repository_gets_what_it_lacks_and_keeps_its_settings(trained, exported, earlier):
    assert command.main([str(trained), "--repository", str(earlier), "--precision", "float32"]) == 0
    for path in (path for path in exported.rglob("*") if path.is_file()):
        ours = (earlier / path.relative_to(exported)).read_bytes()
        if path.parent.name == "gallery_search" and path.name == "config.pbtxt":
            assert b"/mine.sqlite" in ours
        elif path.suffix != ".pt":
            assert ours == path.read_bytes(), path
    assert all(torch.jit.load(earlier / name / "1" / "model.pt") for name in MODELS)
    assert not list(earlier.rglob(".export-*"))


def test_a_full_disk_leaves_the_earlier_export(trained, earlier, monkeypatch, capsys):
    before = {path: path.is_file() and path.read_bytes() for path in earlier.rglob("*")}

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository.json, "dumps", lambda *_, **__: full(None, None))
    assert command.main([str(trained), "--repository", str(earlier), "--precision", "float32"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {path: path.is_file() and path.read_bytes() for path in earlier.rglob("*")} == before


def test_a_folder_of_other_things_is_refused(trained, tmp_path, capsys):
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert command.main([str(trained), "--repository", str(tmp_path)]) == 1
    assert "is no Descry model repository" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_missing_checkpoint_is_named(tmp_path, capsys):
    assert command.main([str(tmp_path), "--repository", str(tmp_path / "models")]) == 1
    assert "model.safetensors does not exist" in capsys.readouterr().err


def test_a_gallery_is_bound_to_settings_that_change_embeddings_but_not_weights(trained, tmp_path):
    """With another correction for hubs the same weights give other vectors."""
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    assert load_checkpoint(copy).model_digest == load_checkpoint(trained).model_digest
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["method"]["hubness"] = 0.5
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    changed, original = load_checkpoint(copy), load_checkpoint(trained)
    assert changed.digest == original.digest and changed.model_digest != original.model_digest
