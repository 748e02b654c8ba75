"""Finds the Triton server in the wheel nvidia-pytriton, and prepares what it needs to run outside a container."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

INSTALL = "pip install 'descry-search[server]'"


class ServerError(RuntimeError):
    """The server cannot start; the message says why and what to do."""


class TritonWheel:
    """The installed wheel.

    Raises:
        ServerError: the wheel is missing, or the environment does not suit it.
    """

    def __init__(self) -> None:
        """Locate the wheel and check the versions that it depends on."""
        # find_spec does not run the package: importing pytriton would start its own machinery.
        spec = importlib.util.find_spec("pytriton")
        if spec is None or not spec.submodule_search_locations:
            raise ServerError(f"the Triton server is not installed: {INSTALL}")
        self.folder = Path(spec.submodule_search_locations[0]) / "tritonserver"
        version = importlib.metadata.version("numpy")
        if int(version.split(".")[0]) >= 2:
            # Its Python backend was built for numpy 1 and hands over garbage, with status OK, under numpy 2.
            raise ServerError(f"the Triton server needs numpy below 2, found {version}: {INSTALL}")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._stub = self.folder / "python_backend_stubs" / python / "triton_python_backend_stub"
        if not self._stub.is_file():
            found = ", ".join(sorted(path.name for path in self._stub.parents[1].iterdir()))
            raise ServerError(f"the Triton server has no backend for Python {python}; use one of {found}")

    @property
    def binary(self) -> Path:
        """The tritonserver executable."""
        return self.folder / "bin" / "tritonserver"

    def environment(self) -> dict[str, str]:
        """This process's environment, with the wheel's libraries, and this Python first on PATH.

        The backend embeds the first `python3` on PATH; it does not read PYTHONPATH.
        """
        libraries = self.folder.parents[1] / "nvidia_pytriton.libs"
        return os.environ | {
            "LD_LIBRARY_PATH": _before(libraries, os.environ.get("LD_LIBRARY_PATH")),
            "PATH": _before(Path(sys.executable).parent, os.environ.get("PATH")),
        }

    def link_backends(self, folder: Path) -> Path:
        """Lay out in `folder` a backend directory that holds the Python backend with this Python's stub."""
        python = folder / "python"
        python.mkdir(parents=True)
        for path in [*(self.folder / "backends" / "python").iterdir(), self._stub]:
            (python / path.name).symlink_to(path)
        return folder


def _before(first: Path, rest: str | None) -> str:
    return os.pathsep.join([str(first), *([rest] if rest else [])])
