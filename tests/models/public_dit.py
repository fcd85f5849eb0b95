#!/usr/bin/env python3
"""A diffusion transformer with the names and layouts of the public PyTorch code, to check what this project makes of such checkpoints.

    public_dit.py checkpoints FOLDER   writes checkpoints as training programs do, and one whose output is zero
    public_dit.py compare FOLDER       compares samples that `fluxion sample` drew from them with the same steps taken here
    public_dit.py fixture FILE         writes the file that tests/models/test_import.cpp reads

scripts/check_convert.sh runs the first two. Needs PyTorch and NumPy.
"""

import argparse
import math
import os
import sys

import numpy
import torch
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../scripts"))


def positions(width, grid):
    def half(values, width):
        angles = numpy.outer(values, 1.0 / 10000 ** (numpy.arange(width // 2) / (width / 2.0)))
        return numpy.concatenate([numpy.sin(angles), numpy.cos(angles)], axis=1)

    rows, columns = numpy.meshgrid(numpy.arange(grid), numpy.arange(grid), indexing="ij")
    table = numpy.concatenate([half(columns.reshape(-1), width // 2), half(rows.reshape(-1), width // 2)], axis=1)
    return torch.from_numpy(table)[None]


def modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


class PatchEmbed(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    def __init__(self, width, features=256):
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        half = self.features // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half, dtype=t.dtype) / half)[None]
        return self.mlp(torch.cat([torch.cos(angles), torch.sin(angles)], dim=1))


class LabelEmbedder(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, y):
        return self.embedding_table(y)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(width // self.heads), dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, 4 * width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    def __init__(self, width, patch, channels):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, patch * patch * channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class DiT(nn.Module):
    def __init__(self, size, patch, channels, width, depth, heads, classes, learn_sigma=False, second=None):
        super().__init__()
        self.patch, self.channels, self.out_channels = patch, channels, channels * (2 if learn_sigma else 1)
        self.second = second
        self.x_embedder = PatchEmbed(channels, width, patch)
        self.t_embedder = TimestepEmbedder(width)
        if second:
            setattr(self, second, TimestepEmbedder(width))
        self.y_embedder = LabelEmbedder(classes, width)
        self.pos_embed = nn.Parameter(positions(width, size // patch).float(), requires_grad=False)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.final_layer = FinalLayer(width, patch, self.out_channels)

    def forward(self, x, t, y, h=None):
        """x [batch, channels, size, size] -> [batch, channels, size, size]; of a predicted variance nothing is returned"""
        batch, grid = x.shape[0], x.shape[2] // self.patch
        c = self.t_embedder(t) + self.y_embedder(y)
        if self.second and h is not None:
            c = c + getattr(self, self.second)(h)
        x = self.x_embedder(x) + self.pos_embed
        for block in self.blocks:
            x = block(x, c)
        x = self.final_layer(x, c).reshape(batch, grid, grid, self.patch, self.patch, self.out_channels)
        x = torch.einsum("nhwpqc->nchpwq", x).reshape(batch, self.out_channels, grid * self.patch, grid * self.patch)
        return x[:, : self.channels]


def random_network(seed, **options):
    """Every parameter drawn, also those that start as zero, so that each of them counts; rounded so that 16 bits hold them."""
    torch.manual_seed(seed)
    network = DiT(**options)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name != "pos_embed":
                fan = value.numel() / value.shape[0]
                value.copy_(torch.randn_like(value) * (0.2 if value.dim() == 1 else 1 / math.sqrt(fan)))
            value.copy_(value.half().float())
    return network


# name -> (network options, options of `fluxion import`, how samples are drawn)
CASES = {
    "meanflow": (dict(size=8, patch=2, channels=1, width=32, depth=2, heads=4, classes=10, second="h_embedder"),
                 "--predicts average-velocity --heads 4", dict(steps=2, average=True)),
    "plain": (dict(size=8, patch=4, channels=3, width=64, depth=3, heads=1, classes=4),
              "--predicts velocity --fill second-time", dict(steps=4)),
    "reversed": (dict(size=8, patch=2, channels=2, width=32, depth=1, heads=2, classes=3, learn_sigma=True),
                 "--predicts velocity --heads 2 --data-at 1 --drop-variance --fill second-time --config {\"time_scale\":1}", dict(steps=4, reverse=True)),
}  # fmt: skip


def checkpoints(folder):
    os.makedirs(folder, exist_ok=True)
    for index, (name, (options, arguments, _)) in enumerate(CASES.items()):
        network, other = random_network(index, **options), random_network(100 + index, **options)
        state = network.state_dict()
        silent = {key: torch.zeros_like(value) if key.startswith("final_layer.linear") else value for key, value in state.items()}
        wrapped = {
            "meanflow": {"model": {"module." + k: v for k, v in other.state_dict().items()}, "ema": {"module." + k: v for k, v in state.items()},
                         "opt": {"param_groups": [{"lr": 1e-4}]}, "args": argparse.Namespace(lr=1e-4), "train_steps": 1234},
            "plain": {"state_dict": {**{"model." + k: v for k, v in other.state_dict().items()}, **{"ema_model." + k: v for k, v in state.items()}}},
            "reversed": state,
        }  # fmt: skip
        torch.save(wrapped[name], os.path.join(folder, name + ".pt"))
        torch.save(silent, os.path.join(folder, name + "-silent.pt"))
        with open(os.path.join(folder, name + ".arguments"), "w") as file:
            file.write(arguments)


def compare(folder):
    worst = 0.0
    for index, (name, (options, _, drawing)) in enumerate(CASES.items()):
        network = random_network(index, **options).double()
        # A network that answers zero leaves the noise as it was.
        noise = torch.from_numpy(numpy.load(os.path.join(folder, name + "-silent.npy"))).double().permute(0, 3, 1, 2)
        got = torch.from_numpy(numpy.load(os.path.join(folder, name + ".npy"))).double().permute(0, 3, 1, 2)
        z, steps = noise, drawing["steps"]
        labels = torch.arange(len(noise)) % options["classes"]
        with torch.no_grad():
            for step in range(steps):
                t, s = 1 - step / steps, 1 - (step + 1) / steps
                times = torch.full((len(z),), t, dtype=torch.float64)
                if drawing.get("reverse"):
                    u = -network(z, 1 - times, labels)
                else:
                    u = network(z, times, labels, times - s if drawing.get("average") else None)
                z = z - (t - s) * u
        error = ((got - z).abs().max() / z.abs().max()).item()
        moved = ((z - noise).abs().max() / z.abs().max()).item()
        print(f"{name}: relative difference {error:.1e} after {steps} steps that moved the noise by {moved:.2f}")
        worst = max(worst, error if moved > 0.1 else math.inf)
    if not worst < 1e-5:
        sys.exit("public_dit: the samples differ")


def fixture(path):
    import convert_checkpoint

    network = random_network(7, size=4, patch=2, channels=2, width=16, depth=2, heads=2, classes=3, learn_sigma=True, second="h_embedder")
    tensors = {"module." + name: value.half() for name, value in network.state_dict().items()}
    network = network.double()
    network.pos_embed.data = network.pos_embed.data.float().half().double()
    z = torch.randn(3, 2, 4, 4, dtype=torch.float32)
    t, r, labels = torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0.0, 0.5, 0.1]), torch.tensor([0, 2, 3])
    with torch.no_grad():
        both = network(z.double(), t.double(), labels, (t - r).double())
        plain = network(z.double(), t.double(), labels)
    values = {"z": z.permute(0, 2, 3, 1), "t": t, "r": r, "labels": labels.int(), "both": both.permute(0, 2, 3, 1), "plain": plain.permute(0, 2, 3, 1)}
    for name, value in values.items():
        tensors["value." + name] = value.contiguous()
    size, _ = convert_checkpoint.write_safetensors(torch, path, tensors, None, {"weights": "ema", "step": "42"})
    print(f"{path}: {size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["checkpoints", "compare", "fixture"])
    parser.add_argument("place")
    options = parser.parse_args()
    {"checkpoints": checkpoints, "compare": compare, "fixture": fixture}[options.action](options.place)
