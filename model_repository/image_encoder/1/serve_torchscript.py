"""Serves a model's `1/model.pt` through the Python backend on CPU; the five TorchScript models' local configs name it.

NVIDIA's container serves the same files through its C++ backend instead and does not read this one.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[2] / "gallery_search" / "1"))

from access import Access  # noqa: E402
from answers import attempt, parameter, respond, tensor  # noqa: E402
from gallery_row import InvalidRequest  # noqa: E402
from served_model import ModelError  # noqa: E402

WARM_UP_BATCHES = (1, 8)
WARM_UP_PASSES = 3


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file and run it until TorchScript has optimised it."""
        self.name, self.door = args["model_name"], Access.from_environment(None)
        torch.set_num_interop_threads(1)
        torch.set_num_threads(int(parameter(args, "threads")) or cores_an_instance(args))
        path = Path(args["model_repository"], args["model_version"], "model.pt")
        extra = {"inputs.json": ""}
        if not path.is_file():
            raise ModelError(
                f"descry: {path} is missing: run `python -m descry.export CHECKPOINT --repository {path.parents[2]}`"
            )
        self.module = torch.jit.load(path, map_location="cpu", _extra_files=extra).eval()
        self.inputs = [(getattr(torch, dtype), tuple(shape)) for dtype, shape in json.loads(extra["inputs.json"])]
        self.outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]
        for batch in WARM_UP_BATCHES:
            for _ in range(WARM_UP_PASSES):
                self.run([torch.zeros(batch, *shape, dtype=dtype) for dtype, shape in self.inputs])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request."""
        read = [attempt(self.read, request) for request in requests]
        good = [inputs for inputs in read if not isinstance(inputs, Exception)]
        together = attempt(self.run_together, good)
        # A batch that fails is run again one by one, so that only the request at fault fails.
        alone = isinstance(together, Exception)
        results = iter([attempt(self.run, inputs) for inputs in good] if alone else together)
        answers = [inputs if isinstance(inputs, Exception) else next(results) for inputs in read]
        return [respond(self.name, *each) for each in zip(requests, answers, strict=True)]

    def read(self, request: Any) -> list[torch.Tensor]:
        """The request's tensors [B, ...], checked: Triton checks neither keys nor sizes nor values."""
        self.door.caller(request.parameters())
        arrays = [tensor(request, f"INPUT__{index}") for index in range(len(self.inputs))]
        for index, (array, (dtype, shape)) in enumerate(zip(arrays, self.inputs, strict=True)):
            if array.shape[1:] != shape:
                raise InvalidRequest(f"input {index} must have shape {list(shape)} a row, got {list(array.shape[1:])}")
            if dtype.is_floating_point and not np.isfinite(array).all():
                raise InvalidRequest(f"input {index} holds NaN or infinity")
        return [torch.from_numpy(array) for array in arrays]

    def run(self, inputs: list[torch.Tensor]) -> dict[str, np.ndarray]:
        """The outputs by name."""
        with torch.inference_mode():
            outputs = self.module(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: output.numpy() for name, output in zip(self.outputs, outputs, strict=True)}

    def run_together(self, requests: list[list[torch.Tensor]]) -> list[dict[str, np.ndarray]]:
        """Outputs of each request, computed as one batch."""
        if not requests:
            return []
        outputs = self.run([torch.cat(parts) for parts in zip(*requests, strict=True)])
        ends = np.cumsum([len(inputs[0]) for inputs in requests])[:-1]
        parts = {name: np.split(output, ends) for name, output in outputs.items()}
        return [{name: split[index] for name, split in parts.items()} for index in range(len(requests))]


def cores_an_instance(args):
    """The processor's cores, shared out among the instances of this model."""
    instances = sum(group["count"] for group in json.loads(args["model_config"])["instance_group"])
    return max(1, (os.cpu_count() or 1) // instances)
