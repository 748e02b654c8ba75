"""What a machine can do, and Accelerate set up for it."""

import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import ProjectConfiguration

from descry.trainer.config import ExperimentConfig


def has_native_bfloat16() -> bool:
    """Whether the GPU, or without one the processor (AMX or AVX-512 BF16), multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def build_accelerator(config: ExperimentConfig) -> Accelerator:
    """Accelerate as the config asks for it, with reproducible shuffling."""
    train = config.train
    automatic = "bf16" if has_native_bfloat16() else "no"
    return Accelerator(
        cpu=train.device == "cpu",
        mixed_precision=automatic if train.mixed_precision == "auto" else train.mixed_precision,
        gradient_accumulation_steps=train.accumulate,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=train.seed),
        log_with=list(train.trackers) or None,
        project_config=ProjectConfiguration(train.directory, logging_dir=str(Path(train.directory) / "trackers")),
    )


def warn_of_idle_cores(accelerator: Accelerator) -> None:
    """Say so when the launcher left processor cores unused: `accelerate launch` gives a process one thread."""
    used, cores = torch.get_num_threads() * accelerator.num_processes, os.cpu_count() or 1
    if accelerator.device.type == "cpu" and used < cores:
        accelerator.print(
            f"training on {used} of {cores} cores: launch with --num_cpu_threads_per_process "
            f"{cores // accelerator.num_processes} to use all",
            file=sys.stderr,
        )
