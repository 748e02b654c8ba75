"""What a machine can do, and Accelerate set up for it."""

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import ProjectConfiguration

from descry.trainer.config import ExperimentConfig


def has_native_bfloat16() -> bool:
    """Whether the GPU, or without one the processor (AMX or AVX-512 BF16), multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def keep_memory() -> None:
    """Let this process keep the memory that it frees, in huge pages: a training step on the CPU takes half the time.

    By default glibc gives every large tensor back to the kernel, which clears its pages for the next one. Call this
    before the first large tensor. On other C libraries it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first large allocation
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(mmap_max, 0) and mallopt(trim_threshold, -1)):
        print("glibc refused to keep freed memory: training goes on, more slowly", file=sys.stderr)


def describe_machine() -> dict[str, Any]:
    """What a measurement was made with: `processor`, `threads`, `gpu` (None without one), `torch`, `descry`, `commit`.

    `commit` is that of the checkout the code lies in, marked when files were changed since; None outside of one.
    """
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "descry": version("descry-search"),
        "commit": _commit(Path(__file__).parent),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit(folder: Path) -> str | None:
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(git, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def build_accelerator(config: ExperimentConfig) -> Accelerator:
    """Accelerate as the config asks for it, with reproducible shuffling."""
    keep_memory()
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
