"""The five TorchScript models of a method: tensors in, a tuple of tensors out, any batch size, no device inside."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from descry.trainer.checkpoint import Checkpoint
from descry.trainer.methods import Method
from descry.trainer.retrieval import FLOOR, Fusion

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ImageEncoder(nn.Module):
    """uint8 [B, 3, H, W] -> unit embedding [B, D], features [B, F]; normalises inside, backbone in `precision`."""

    def __init__(self, method: Method, precision: str) -> None:
        """Copy the method, so that the caller's stays float32."""
        super().__init__()
        self.method = copy.deepcopy(method).eval()
        if precision != "float32":
            fold_batch_norms(self.method.backbone.network)
        self.method.backbone.network.to(dtype=PRECISIONS[precision])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        embedding, features = self.method.encode_image(images)
        return embedding, features.flatten(1)


class ParHead(nn.Module):
    """Features [B, F] -> PAR scores [B, N] in 0..1."""

    def __init__(self, method: Method) -> None:
        """Wrap the method."""
        super().__init__()
        self.method = method

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.method.attribute_scores(features)


class AttributeEncoder(nn.Module):
    """Attributes and known [B, N] -> unit query embedding [B, D]."""

    def __init__(self, method: Method) -> None:
        """Wrap the method."""
        super().__init__()
        self.method = method

    def forward(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See the class."""
        return self.method.encode_attributes(attributes, known)


class ChangeQuery(nn.Module):
    """Embedding [B, D] of a photo, attributes and known [B, N] -> query [B, D] of this photo with those changed."""

    def __init__(self, method: Method) -> None:
        """Wrap the method."""
        super().__init__()
        self.method = method

    def forward(self, embedding: Tensor, attributes: Tensor, known: Tensor) -> Tensor:
        """See the class."""
        # A copy: Triton's C++ backend frees the inputs before it reads the outputs.
        return self.method.change_query(embedding, attributes, known).clone()


class FuseDistances(nn.Module):
    """Query [B, D], attributes, known [B, N], weight [B, 1], embedding [B, D], scores [B, N] -> distances and terms.

    A negative weight means the one measured on validation data.
    """

    def __init__(self, fusion: Fusion) -> None:
        """Keep the constants."""
        super().__init__()
        self.fusion = fusion

    def forward(
        self, query: Tensor, attributes: Tensor, known: Tensor, weight: Tensor, embedding: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fused distance [B, 1], its PAR and embedding summands [B, 1], what each attribute adds [B, N]."""
        if self.fusion.par_distance == "euclidean":
            terms = known * (attributes - scores).square()
            par = terms.sum(1, keepdim=True).sqrt() / self.fusion.max_par
        else:
            stated, denied = (-side.clamp(FLOOR, 1 - FLOOR).log() for side in (scores, 1 - scores))
            terms = known * (attributes * stated + (1 - attributes) * denied)
            par = terms.sum(1, keepdim=True) / self.fusion.max_par
        apart = (1 - (query * embedding).sum(1, keepdim=True)) / self.fusion.max_emb
        chosen = torch.where(weight < 0, torch.full_like(weight, self.fusion.par_weight), weight)
        return chosen * par + apart, par, apart, terms


@dataclass(frozen=True)
class Scripted:
    """One model before and after TorchScript, with example inputs of batch 2."""

    name: str
    eager: nn.Module
    traced: torch.jit.ScriptModule
    examples: tuple[Tensor, ...]

    def save(self, path: Path) -> None:
        """Write `path` with the inputs' types and shapes inside, for warm-up."""
        inputs = [[str(example.dtype).removeprefix("torch."), list(example.shape[1:])] for example in self.examples]
        with torchscript_is_meant():
            torch.jit.save(self.traced, str(path), _extra_files={"inputs.json": json.dumps(inputs)})


@torch.no_grad()
def script_models(checkpoint: Checkpoint, precision: str) -> list[Scripted]:
    """Trace and freeze the models of `docs/wire.md`; the eager twins compute in float32."""
    method = checkpoint.method.eval()
    fusion = Fusion(**checkpoint.metrics["fusion"])
    image = checkpoint.config.image
    images = torch.randint(0, 256, (2, 3, image.height, image.width), dtype=torch.uint8)
    embedding, features = ImageEncoder(method, "float32")(images)
    attributes = torch.zeros(2, checkpoint.schema.size)
    known = torch.ones_like(attributes)
    weight = torch.full((2, 1), -1.0)
    distances = (embedding, attributes, known, weight, embedding, torch.rand_like(attributes))
    return [
        _script("image_encoder", ImageEncoder(method, "float32"), ImageEncoder(method, precision), (images,)),
        _script("par_head", ParHead(method), ParHead(method), (features,)),
        _script("attribute_encoder", AttributeEncoder(method), AttributeEncoder(method), (attributes, known)),
        _script("change_query", ChangeQuery(method), ChangeQuery(method), (embedding, attributes, known)),
        _script("fuse_distances", FuseDistances(fusion), FuseDistances(fusion), distances),
    ]


def _script(name: str, eager: nn.Module, module: nn.Module, examples: tuple[Tensor, ...]) -> Scripted:
    with torchscript_is_meant():
        traced = torch.jit.freeze(torch.jit.trace(module.eval(), examples, check_trace=False))
    return Scripted(name, eager.eval(), traced, examples)


def fold_batch_norms(network: nn.Module) -> None:
    """Move each batch norm into the convolution registered before it, in float32.

    bfloat16 then rounds once instead of twice: on MobileNetV2 the least cosine between an embedding and its float32
    twin rises from 0.974 to 0.998. A network in another order does not survive this, which the parity table shows.
    """
    convolution: nn.Conv2d | None = None
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            convolution = module
        elif isinstance(module, nn.BatchNorm2d) and convolution is not None:
            statistics = module.get_buffer("running_mean"), module.get_buffer("running_var")
            weight, bias = convolution.weight, convolution.bias
            folded = fuse_conv_bn_weights(weight, bias, *statistics, module.eps, module.weight, module.bias)
            convolution.weight, convolution.bias = folded
            _make_identity(module)
            convolution = None


def _make_identity(norm: nn.BatchNorm2d) -> None:
    norm.reset_parameters()
    norm.get_buffer("running_var").fill_(1 - norm.eps)


@contextmanager
def torchscript_is_meant() -> Iterator[None]:
    """Silence torch's advice to use torch.export: TorchScript is what every Triton release serves (docs/export.md)."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, torch.jit.TracerWarning):
            warnings.simplefilter("ignore", kind)
        yield
