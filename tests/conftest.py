"""Fixtures: a model repository of tiny models, and one real server that serves it for the whole run."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Modules beside the tests, and the repository's own, which Triton imports by their bare names as well.
MODELS = TESTS.parent / "model_repository"
sys.path[:0] = [str(TESTS), *(str(MODELS / model / "1") for model in ("gallery_search", "gallery_admin"))]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository that is exported from tiny random models; read only."""
    from tiny_models import tiny_repository

    return tiny_repository(tmp_path_factory.mktemp("repository") / "models")


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["TritonServer"]:  # noqa: F821
    """A running `TritonServer` on free ports with a gallery of its own, shared by all tests: use ids of your own."""
    if importlib.util.find_spec("pytriton") is None:
        pytest.skip("the wheel nvidia-pytriton is not installed")
    from descry.client.serve import TritonServer

    folder = tmp_path_factory.mktemp("server")
    with TritonServer(repository, folder / "gallery.sqlite", "127.0.0.1", 0, 0, 0, folder / "triton.log") as server:
        yield server


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of synthetic pedestrians with labels; read only."""
    from people import render_people

    return render_people(tmp_path_factory.mktemp("people") / "crops", persons=40, images_per_person=4)


@pytest.fixture(scope="session")
def few_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `people`, fewer of them, for tests that train often; read only."""
    from people import render_people

    return render_people(tmp_path_factory.mktemp("few_people") / "crops", persons=30, images_per_person=4)


@pytest.fixture
def experiment(request: pytest.FixtureRequest, tmp_path: Path, few_people: Path) -> Callable[..., "ExperimentConfig"]:  # noqa: F821
    """A function of a folder's name and overrides: the `EXPERIMENT` of the test's module on `few_people`."""
    from experiments import configure

    return lambda directory, *overrides: configure(
        request.module.EXPERIMENT, few_people, tmp_path / directory, *overrides
    )


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ASMR after a few steps on `people`; read only."""
    from experiments import train_briefly

    return train_briefly(people, tmp_path_factory.mktemp("trained") / "asmr")


@pytest.fixture
def fake() -> Iterator["FakeServer"]:  # noqa: F821
    """A server in this process that speaks the wire over a dictionary."""
    from fake_server import FakeServer, serving

    with serving(FakeServer()) as service:
        yield service


@pytest.fixture
def client(fake: "FakeServer") -> Iterator["SearchClient"]:  # noqa: F821
    """A client of `fake`."""
    from descry.client import SearchClient

    with SearchClient(fake.url, timeout=5) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos, red, green and blue, half of them in a subfolder, and a file that is no photo."""
    from PIL import Image

    root = tmp_path / "crops"
    (root / "deeper").mkdir(parents=True)
    for name, color in {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}.items():
        Image.new("RGB", (64, 128), color).save(root / f"{name}.jpg")
        Image.new("RGB", (64, 128), color).save(root / "deeper" / f"{name}.PNG")
    (root / "notes.txt").write_text("not an image")
    return root
