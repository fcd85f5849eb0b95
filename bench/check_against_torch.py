#!/usr/bin/env python3
"""Are the benchmark steps of Fluxion and of the PyTorch program it is compared with the same computation?

    check_against_torch.py PEER.py FOLDER [FLUXION]

Imports the PyTorch program (torch_meanflow_bench.py), gives each of its networks random parameters, none of them zero, computes one flow-matching
step and MeanFlow steps over all rows and over the subset - output, tangent, loss, every gradient - and writes each, inputs and results, to
FOLDER/NETWORK-TASK.safetensors. With FLUXION, the program, it then runs `fluxion bench --check` on each file. Exit code 0 if all agree.
"""
import importlib.util
import json
import math
import pathlib
import subprocess
import sys

import torch

BATCH = {"mlp2d": 64, "dit28": 8, "unet32": 4}


def unet_modules(net):
    """Fluxion's names of the modules of the peer's U-Net."""
    kinds = {"ResBlock": {"n1": "in_layers.0", "c1": "in_layers.2", "emb": "emb_layers.1", "n2": "out_layers.0", "c2": "out_layers.3",
                          "skip": "skip_connection"},
             "AttnBlock": {"norm": "norm", "attn.qkv": "qkv", "attn.proj": "proj_out"}, "Down": {"c": "op"}, "Up": {"c": "conv"}}
    renamed = {"inp": "input_blocks.0.0", "nf": "out.0", "out": "out.2"}
    for theirs, name in {"t": "time_embed", "r": "r_embed"}.items():
        renamed.update({f"time.{theirs}1": f"{name}.0", f"time.{theirs}2": f"{name}.2"})
    blocks = {f"down.{i}": (f"input_blocks.{i + 1}", block) for i, block in enumerate(net.down)}
    blocks |= {f"up.{i}": (f"output_blocks.{i}", block) for i, block in enumerate(net.up)} | {"mid": ("middle_block", net.mid)}
    for theirs, (name, block) in blocks.items():
        for place, layer in enumerate(block):
            for part, our_part in kinds[type(layer).__name__].items():
                renamed[f"{theirs}.{place}.{part}"] = f"{name}.{place}.{our_part}"
    return renamed


def ours(net):
    """The peer's parameters under Fluxion's names."""
    named = dict(net.named_parameters())
    if hasattr(net, "down"):
        renamed = unet_modules(net)
    elif hasattr(net, "mid"):
        renamed = {"inp": "layers.0", "cond": "time_embedder", "out": f"layers.{len(net.mid) + 1}"}
        renamed.update({f"mid.{k}": f"layers.{k + 1}" for k in range(len(net.mid))})
    else:
        renamed = {"patch": "x_embedder.proj", "time.t1": "t_embedder.mlp.0", "time.t2": "t_embedder.mlp.2", "time.r1": "r_embedder.mlp.0",
                   "time.r2": "r_embedder.mlp.2", "label": "y_embedder.embedding_table", "adaf": "final_layer.adaLN_modulation.1",
                   "out": "final_layer.linear"}
        for k in range(len(net.blocks)):
            for theirs, name in {"attn.qkv": "attn.qkv", "attn.proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
                                 "ada": "adaLN_modulation.1"}.items():
                renamed[f"blocks.{k}.{theirs}"] = f"blocks.{k}.{name}"
    result = {}
    for name, value in named.items():
        if name == "pos":
            result["pos_embed"] = value
            continue
        module, kind = name.rsplit(".", 1)
        result[f"{renamed[module]}.{kind}"] = value
    return result


def as_ours(name, tensor, patch=4):
    """In Fluxion's layout: the patch embedding is a convolution's weight, and the linear maps of a U-Net's attention are those over a line."""
    if name == "x_embedder.proj.weight":
        return tensor.reshape(tensor.shape[0], -1, patch, patch)
    if name.endswith((".qkv.weight", ".proj_out.weight")) and ".attn." not in name:
        return tensor[:, :, None]
    return tensor


def channels_last(x):
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def write_safetensors(path, tensors, metadata):
    kinds = {torch.float32: "F32", torch.int32: "I32"}
    header, data = {"__metadata__": metadata}, []
    offset = 0
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().numpy().tobytes()
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(data))


def step(peer, name, task):
    """One step of the peer's own functions, on draws made here so that both programs have the same."""
    torch.manual_seed(1)
    net = {"mlp2d": peer.MLP, "dit28": peer.DiT, "unet32": peer.UNet}[name]()
    with torch.no_grad():
        for parameter in net.parameters():
            scale = 1 / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.1
            parameter.copy_(scale * torch.randn_like(parameter))
    batch = BATCH[name]
    x, e = torch.randn(batch, *net.shape), torch.randn(batch, *net.shape)
    y = torch.randint(0, net.classes + 1, (batch,)) if net.classes else None
    t, r = peer.sample_tr(batch, ratio=1.0)
    rest = torch.arange(batch) >= batch // 4
    r = t if task == "flow_matching" else torch.where(rest, t, r)

    tb = peer.bcast(t, x)
    z, v = (1 - tb) * x + tb * e, e - x
    tensors = {"x": channels_last(x), "e": channels_last(e), "t": t, "r": r}
    if task == "flow_matching":
        u = net(z, t, t, y)
        loss = peer.adaptive(u - v)
    else:
        def f(z, t, r, rows=None):
            return net(z, t, r, y if rows is None or y is None else y[rows])

        jvp = peer.jvp_subset if task == "meanflow_subset" else peer.jvp_functorch
        u, dudt = jvp(f, (z, t, r), (v, torch.ones_like(t), torch.zeros_like(r)))
        loss = peer.adaptive(u - (v - peer.bcast(t - r, x) * dudt).detach())
        tensors["dudt"] = channels_last(dudt)
    loss.backward()
    tensors.update({"u": channels_last(u), "loss": loss})
    if y is not None:
        tensors["labels"] = y.to(torch.int32)
    for key, parameter in ours(net).items():
        tensors["parameters." + key] = as_ours(key, parameter)
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        tensors["gradients." + key] = as_ours(key, gradient)
    return tensors


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    spec = importlib.util.spec_from_file_location("peer", sys.argv[1])
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in BATCH:
        for task in ("flow_matching", "meanflow", "meanflow_subset"):
            path = folder / f"{name}-{task}.safetensors"
            write_safetensors(path, step(peer, name, task), {"network": name, "task": task})
            if len(sys.argv) == 4:
                print(f"{name} {task}", flush=True)
                failed |= subprocess.run([sys.argv[3], "bench", "--check", str(path)]).returncode != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
