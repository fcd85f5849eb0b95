#!/usr/bin/env python3
"""The alternation itself; start it with cold_start.sh, which builds and prepares what it runs.

Every round starts each program once, in an order that changes from round to round, and takes the time from before the start of the process until
its image is in memory. Before the rounds each was started once, so that its files are in the page cache.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--python", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--starts", type=int, default=25)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    folder, threads = arguments.folder, str(arguments.threads)
    peers = str(pathlib.Path(__file__).with_name("cold_start_peers.py"))
    programs = {"fluxion": [str(folder / "cold_start"), str(folder / "dit28.fxn"), threads]}
    if (folder / "network.onnx").exists():
        programs["onnxruntime (Python)"] = [arguments.python, peers, "onnxruntime", str(folder), threads]
    if (folder / "cold_start_torch").exists():
        programs["libtorch"] = [str(folder / "cold_start_torch"), str(folder / "network.pt"), threads]
    if (folder / "cold_start_ggml").exists():
        programs["ggml"] = [str(folder / "cold_start_ggml"), str(folder / "network.gguf"), threads]
    programs["torch (Python)"] = [arguments.python, peers, "torch", str(folder), threads]
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    lines = open(arguments.out, "w") if arguments.out else None

    def run(name, *more):
        start = time.monotonic()
        done = subprocess.run(programs[name] + list(more), capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(f"cold_start: {name} failed: {done.stderr.strip()[-2000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        if lines:
            print(json.dumps({"program": name, "start": start} | result), file=lines, flush=True)
        return start, result

    for name in programs:
        run(name)
    names = list(programs)
    times = {name: {"image": [], "without": [], "open": []} for name in names}
    for index in range(arguments.starts):
        turn = index % len(names)
        for name in (names[turn:] + names[:turn])[:: -1 if index % 2 else 1]:
            start, result = run(name)
            opening = result["opened"] - result.get("loaded", result["begun"])
            times[name]["image"].append(1e3 * (result["image"] - start))
            times[name]["open"].append(1e3 * opening)
            times[name]["without"].append(1e3 * (result["image"] - start - opening))
    later = {name: {1: [], 64: []} for name in names}
    for _ in range(3):
        for name in names:
            result = run(name, str(arguments.calls))[1]
            for count in later[name]:
                later[name][count] += result[f"batch {count}"]

    def shown(values):
        ordered = sorted(values)
        low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
        return f"{statistics.median(values):8.1f} ({low:.1f}-{high:.1f})"

    print(f"\nMedians of {arguments.starts} starts each, {threads} threads, ms (10 % to 90 % of them in brackets)\n")
    print(f"{'':22} {'start to image':>26} {'without the weights':>26} {'opening the weights':>26} {'batch 1':>24} {'batch 64':>24}")
    for name in names:
        print(f"{name:22} " + " ".join(f"{shown(times[name][what]):>26}" for what in ("image", "without", "open"))
              + "".join(f" {shown(later[name][count]):>24}" for count in (1, 64)))
    ours = times["fluxion"]
    for name in names[1:]:
        ratios = [theirs / mine for theirs, mine in zip(times[name]["image"], ours["image"])]
        print(f"{name} takes {statistics.median(ratios):.1f} times as long to its first image ({min(ratios):.1f}-{max(ratios):.1f})")


if __name__ == "__main__":
    main()
