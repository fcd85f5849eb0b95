#!/usr/bin/env python3
"""Times the benchmark networks in PyTorch on this machine's GPU, or its processor: a line of JSON for each network and step, as it is measured.

    torch_on_device.py PEER.py [--net NAME]* [--batch B] [--seconds S] [--steps N] [--device cuda|cpu]

PEER.py is torch_meanflow_bench.py, of which it takes networks and steps: dit28, unet32, and ditb2, which is its DiT at the size of DiT-B/2. For
scripts/gpu_check.sh, beside the same steps of `fluxion bench`; products and convolutions are f32, as there, not TF32. A step that fails is a line
with its "problem". compare_torch.sh is the race on processors.
"""
import argparse
import importlib.util
import json
import statistics
import sys
import time

import torch

BATCH = {"dit28": 64, "unet32": 16, "ditb2": 16}


def networks(peer):
    class DitB2(peer.DiT):
        shape, classes = (4, 32, 32), 1000

        def __init__(self):
            super().__init__(dim=768, depth=12, heads=12, patch=2)

    return {"dit28": peer.DiT, "unet32": peer.UNet, "ditb2": DitB2}


def steps_of(peer, net, batch):
    """The steps by the names that `fluxion bench --objective` has for them."""
    x = torch.randn(batch, *net.shape)
    y = torch.randint(0, net.classes, (batch,)) if net.classes else None
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)

    def training(loss):
        def step():
            optimiser.zero_grad(set_to_none=True)
            loss().backward()
            optimiser.step()
        return step

    return {"flow-matching": training(lambda: peer.fm_loss(net, x, y)),
            "meanflow": training(lambda: peer.mf_loss(net, x, y, peer.jvp_fwad)),
            "sample": lambda: peer.generate(net, batch, y)}


def first_line(error):
    return str(error).splitlines()[0].replace('"', "'") if str(error) else type(error).__name__


def measured(step, wait, options):
    """Milliseconds of each step, once the clock has risen: a tenth of the time warms up, two steps at least."""
    times = []
    for seconds in (0.1 * options.seconds, options.seconds):
        end = time.perf_counter() + seconds
        times.clear()
        while len(times) < 2 or (time.perf_counter() < end and not 0 < options.steps <= len(times)):
            start = time.perf_counter()
            step()
            wait()
            times.append(1e3 * (time.perf_counter() - start))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("--net", action="append", choices=BATCH)
    parser.add_argument("--batch", type=int, default=0, help="0: the network's own")
    parser.add_argument("--seconds", type=float, default=5, help="of measuring, for each step")
    parser.add_argument("--steps", type=int, default=0, help="to measure, at most; 0: as many as fit")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("peer", options.peer)
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    if options.device == "cuda":
        # New tensors, also those that the networks make on their way, are on the GPU.
        if hasattr(torch, "set_default_device"):
            torch.set_default_device("cuda")
        else:
            torch.set_default_tensor_type("torch.cuda.FloatTensor")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    what = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    made = networks(peer)
    for name in options.net or BATCH:
        batch = options.batch or BATCH[name]
        about = {"net": name, "batch": batch, "torch": torch.__version__, "device": what}
        try:
            steps = steps_of(peer, made[name](), batch)
        except RuntimeError as error:
            print(json.dumps({"net": name, "objective": "all", "problem": first_line(error), **about}), flush=True)
            continue
        for task, step in steps.items():
            try:
                times = measured(step, wait, options)
            except RuntimeError as error:  # memory, mostly
                print(json.dumps({"net": name, "objective": task, "problem": first_line(error), **about}), flush=True)
                continue
            print(json.dumps({"net": name, "objective": task, "ms_median": statistics.median(times), "steps": len(times), **about}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
