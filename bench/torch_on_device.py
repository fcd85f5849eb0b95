#!/usr/bin/env python3
"""Times the benchmark networks in PyTorch on this machine's GPU, or its processor: a line of JSON for each network and step, as it is measured.

    torch_on_device.py PEER.py [--net NAME]* [--batch B] [--seconds S] [--steps N] [--device cuda|cpu]

PEER.py is torch_meanflow_bench.py, of which it takes networks and steps: dit28, unet32, and ditb2, which is its DiT at the size of DiT-B/2. For
scripts/gpu_check.sh, beside the same steps of `fluxion bench`; products are f32, as there. compare_torch.sh is the race on processors.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("--net", action="append", choices=BATCH)
    parser.add_argument("--batch", type=int, default=0, help="0: the network's own")
    parser.add_argument("--seconds", type=float, default=5, help="of measuring, for each step")
    parser.add_argument("--steps", type=int, default=20, help="to measure, at most")
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
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    what = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    made = networks(peer)
    for name in options.net or BATCH:
        batch = options.batch or BATCH[name]
        net = made[name]()
        for task, step in steps_of(peer, net, batch).items():
            times = []
            for warm_up in (True, False):
                end = time.perf_counter() + options.seconds
                times.clear()
                while not times or (time.perf_counter() < end and len(times) < (2 if warm_up else options.steps)):
                    start = time.perf_counter()
                    step()
                    wait()
                    times.append(1e3 * (time.perf_counter() - start))
            print(json.dumps({"net": name, "objective": task, "batch": batch, "ms_median": statistics.median(times), "steps": len(times),
                              "torch": torch.__version__, "device": what}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
