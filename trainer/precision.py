"""Which arithmetic a machine does natively."""

import torch


def has_native_bfloat16() -> bool:
    """Whether the GPU, or without one the processor (AMX or AVX-512 BF16), multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
