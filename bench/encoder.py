"""Image encoder: eager float32 against the exported TorchScript forms, images/s in one run.

python bench/encoder.py [--backbone mobilenetv2_100 resnet50] [--height 256 --width 128] [--batch 32]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from untrained import untrained_checkpoint

from descry.export.scripted import script_models
from descry.trainer.machine import has_native_bfloat16


@torch.inference_mode()
def images_per_second(module: torch.nn.Module, images: torch.Tensor, rounds: int) -> float:
    """The best of `rounds` calls after three warm-up calls."""
    for _ in range(3):
        module(images)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        module(images)
        seconds.append(time.perf_counter() - started)
    return len(images) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["mobilenetv2_100", "resnet50"])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    images = torch.randint(0, 256, (options.batch, 3, options.height, options.width), dtype=torch.uint8)
    print(f"{torch.get_num_threads()} threads, batch {options.batch}, {options.height} x {options.width}; ")
    print(f"bfloat16 in hardware: {has_native_bfloat16()}")
    print(f"{'backbone':<18}{'form':<34}{'images/s':>10}{'ratio':>8}")
    for backbone in options.backbone:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = untrained_checkpoint(Path(folder), backbone, options.height, options.width)
        forms = {}
        for precision in ("float32", "bfloat16"):
            encoder = script_models(checkpoint, precision)[0]
            forms.setdefault("eager float32, contiguous", contiguous(encoder.eager))
            forms.setdefault("eager float32, channels last", encoder.eager)
            forms[f"TorchScript {precision}"] = encoder.traced
        speeds = {form: images_per_second(module, images, options.rounds) for form, module in forms.items()}
        reference = speeds["eager float32, contiguous"]
        for form, speed in speeds.items():
            print(f"{backbone:<18}{form:<34}{speed:>10.1f}{speed / reference:>8.2f}", flush=True)


def contiguous(encoder: torch.nn.Module) -> torch.nn.Module:
    """The same module as PyTorch runs it by default: weights and pixels in NCHW order."""
    backbone = encoder.method.backbone
    network = backbone.network.to(memory_format=torch.contiguous_format)

    class Plain(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return network.forward_features((images.float() - backbone.mean) / backbone.std).mean(dim=(2, 3))

    return Plain().eval()


if __name__ == "__main__":
    main()
