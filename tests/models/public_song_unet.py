#!/usr/bin/env python3
"""Writes tests/models/public_ddpmpp.safetensors and public_ncsnpp.safetensors, which tests/models/test_import_song_unet.cpp reads: the weights of
small networks of NVlabs/edm's class SongUNet under their names behind "module.model.", in 16 bits, and what it makes of some input ("value.*"), in double
precision.

    public_song_unet.py EDM FOLDER

Needs PyTorch, NumPy and, at EDM, the sources of https://github.com/NVlabs/edm; of those, training/networks.py alone is read.
"""

import math
import os
import sys
import types

import torch

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../scripts"))


def public_code(folder):
    """The module training.networks, whose classes stay as they are."""
    persistence = types.ModuleType("torch_utils.persistence")
    persistence.persistent_class = lambda made: made
    around = types.ModuleType("torch_utils")
    around.persistence = persistence
    sys.modules.update({"torch_utils": around, "torch_utils.persistence": persistence})
    code = types.ModuleType("networks")
    with open(os.path.join(folder, "training/networks.py")) as source:
        exec(compile(source.read(), "networks.py", "exec"), code.__dict__)
    return code


def write(code, path, **options):
    import convert_checkpoint

    torch.manual_seed(5)
    network = code.SongUNet(img_resolution=8, in_channels=2, out_channels=2, label_dim=3, augment_dim=9, model_channels=8, channel_mult=[1, 2],
                            num_blocks=1, attn_resolutions=[4], **options).eval()  # fmt: skip
    with torch.no_grad():
        for value in network.parameters():  # also those that start near zero
            value.copy_((torch.randn_like(value) * (0.3 if value.dim() == 1 else 1 / math.sqrt(value[0].numel()))).half())
        for name, value in network.named_buffers():
            if name == "map_noise.freqs":
                value.copy_(value.half())
    tensors = {"module.model." + name: value.half() for name, value in network.state_dict().items()}
    network = network.double()
    z, t, labels = torch.randn(3, 2, 8, 8).half(), torch.tensor([0.9, -0.7, 0.2]), torch.tensor([0, 2, 3])  # the last: no class
    known = torch.nn.functional.one_hot(labels, 4)[:, :3].double()
    with torch.no_grad():
        out = network(z.double(), t.double(), known)
    values = {"z": z.float().permute(0, 2, 3, 1), "t": t, "labels": labels.int(), "out": out.permute(0, 2, 3, 1)}
    for name, value in values.items():
        tensors["value." + name] = value.contiguous()
    size, _ = convert_checkpoint.write_safetensors(torch, path, tensors, None, {"weights": "ema"})
    print(f"{path}: {size} bytes")


def main(edm, folder):
    code = public_code(edm)
    write(code, os.path.join(folder, "public_ddpmpp.safetensors"), embedding_type="positional", encoder_type="standard", channel_mult_noise=1,
          resample_filter=[1, 1])  # fmt: skip
    write(code, os.path.join(folder, "public_ncsnpp.safetensors"), embedding_type="fourier", encoder_type="residual", channel_mult_noise=2,
          resample_filter=[1, 3, 3, 1])  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
