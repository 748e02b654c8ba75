"""What is installed, and who imports whom."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "trainer": ("descry.export", "descry.client", "descry.demo"),
    "export": ("descry.client", "descry.demo"),
    "client": ("descry.trainer", "descry.export", "descry.demo", "torch"),
    "demo": ("descry.trainer", "descry.export", "torch"),
    "model_repository": ("descry",),
}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_a_stage_imports_only_what_it_may(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imports_of(path):
            wrong = [
                forbidden for forbidden in FORBIDDEN[package] if name == forbidden or name.startswith(forbidden + ".")
            ]
            assert not wrong, f"{path.relative_to(ROOT)} imports {name}"


def test_the_wheel_holds_one_namespace_and_the_configs(tmp_path):
    source = tmp_path / "source"  # a build leaves files in its source folder, which the next build would pick up
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("trainer", "export", "client", "demo", "model_repository"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pt", "*.json"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(source),
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("descry_search-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"descry"}
    for model in sorted(path.parent.name for path in ROOT.glob("model_repository/*/config.pbtxt")):
        assert f"descry/model_repository/{model}/config.pbtxt" in names
        assert any(name.startswith(f"descry/model_repository/{model}/1/") for name in names), model
    local = ROOT.glob("model_repository/*/configs/local.pbtxt")
    assert all(f"descry/{path.relative_to(ROOT).as_posix()}" in names for path in local)
    assert "descry/trainer/configs/asmr_market1501.yaml" in names
    assert "descry/client/py.typed" in names
    assert not [name for name in names if name.endswith((".pt", ".safetensors", ".jpg"))]


def test_importing_the_trainer_from_elsewhere_works(tmp_path):
    code = "import descry.trainer.run, descry.export.__main__, descry.client.cli; print('imported')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "imported\n", done.stderr
