#!/usr/bin/env python3
"""Writes tests/models/public_unet.safetensors, which tests/models/test_import_unet.cpp reads: the weights of a small U-Net of public code - TorchCFM's,
which is guided-diffusion's -, its names behind "module.", and what it makes of some input ("value.*"), in double precision.

    public_unet.py FILE

Needs PyTorch, and torchcfm's sources where Python finds them (pip download torchcfm --no-deps, and unpack); nothing else of it is imported.
"""

import importlib.machinery
import math
import os
import sys
import types

import torch

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../scripts"))
GROUPS = 2  # the public code has 32, which would make a large file


def public_unet():
    """The module torchcfm.models.unet.unet, without what the packages around it import."""
    for name in ("torchcfm", "torchcfm.models"):
        spec = importlib.machinery.PathFinder.find_spec(name, sys.modules["torchcfm"].__path__ if "." in name else None)
        if spec is None:
            sys.exit("public_unet: no torchcfm on Python's path")
        package = types.ModuleType(name)
        package.__path__ = spec.submodule_search_locations
        sys.modules[name] = package
    from torchcfm.models.unet import unet

    return unet


def features(t, width, max_period=10000):
    """Their timestep_embedding, which rounds to single precision, in double."""
    angles = t[:, None] * torch.exp(-math.log(max_period) * torch.arange(width // 2, dtype=t.dtype) / (width // 2))[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


def main(path):
    import convert_checkpoint

    code = public_unet()
    code.timestep_embedding = features
    code.normalization = lambda channels: torch.nn.GroupNorm(GROUPS, channels)
    torch.manual_seed(3)
    network = code.UNetModel(image_size=8, in_channels=2, model_channels=4, out_channels=4, num_res_blocks=1, attention_resolutions=(2,),
                             channel_mult=(1, 2), num_classes=3, num_heads=2, use_scale_shift_norm=True)  # fmt: skip
    with torch.no_grad():
        for value in network.parameters():  # also those that start as zero
            value.copy_((torch.randn_like(value) * (0.3 if value.dim() == 1 else 1 / math.sqrt(value[0].numel()))).half())
    tensors = {"module." + name: value.half() for name, value in network.state_dict().items()}
    network = network.double()
    network.dtype = torch.float64
    z, t, labels = torch.randn(3, 2, 8, 8), torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0, 2, 1])
    with torch.no_grad():
        out = network(t.double(), z.double(), y=labels)
    values = {"z": z.permute(0, 2, 3, 1), "t": t, "labels": labels.int(), "out": out.permute(0, 2, 3, 1)}
    for name, value in values.items():
        tensors["value." + name] = value.contiguous()
    size, _ = convert_checkpoint.write_safetensors(torch, path, tensors, None, {"weights": "ema", "step": "42"})
    print(f"{path}: {size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
