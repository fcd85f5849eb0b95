#!/usr/bin/env python3
"""The race itself; start it with compare_torch.sh, which finds the programs and says what to install.

1. The steps are checked to be the same computation (check_against_torch.py).
2. PyTorch's best settings are found for each case: which BLAS (where it doesn't bring its own), with oneDNN or without, which of its forward modes,
   compiled or not.
3. Rounds: each case once on each side, one right after the other, the order changing from round to round. A ratio is taken within a round.
"""
import argparse
import glob
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

LIBRARIES = "/usr/lib/*-linux-gnu*/"
# name -> (folder, environment)
BLAS = {"BLIS": (LIBRARIES + "blis-openmp", {}), "OpenBLAS": (LIBRARIES + "openblas-pthread", {})}
if "avx512f" in pathlib.Path("/proc/cpuinfo").read_text():
    # Debian 12's libraries don't know the newest processors and take slower kernels there, up to five times: told to, they use AVX-512.
    BLAS["BLIS for AVX-512"] = (BLAS["BLIS"][0], {"BLIS_ARCH_TYPE": "skx"})
    BLAS["OpenBLAS for AVX-512"] = (BLAS["OpenBLAS"][0], {"OPENBLAS_CORETYPE": "SkylakeX"})
TCMALLOC = LIBRARIES + "libtcmalloc_minimal.so.4"
PEER_NET = {"mlp2d": "mlp", "dit28": "dit", "unet32": "unet"}
BATCH = {"mlp2d": 4096, "dit28": 64, "unet32": 16}
QUICK_BATCH = {"mlp2d": 128, "dit28": 4, "unet32": 4}
LONGEST = 900  # seconds that one run may take, compiling included

# task -> (fluxion bench, ways to do it in PyTorch)
TASKS = {
    "flow matching": (["--objective", "flow-matching"], [["--mode", "fm"]]),
    "MeanFlow": (["--objective", "meanflow"], [["--mode", "mf", "--jvp", how] for how in ("functorch", "fwad")]),
    "MeanFlow, subset": (["--objective", "meanflow", "--tangent", "subset"], [["--mode", "mf", "--jvp", "subset"]]),
    "sample": (["--objective", "sample"], [["--mode", "sample"]]),
    "sample one": (["--objective", "sample", "--batch", "1"], [["--mode", "sample", "--batch", "1"]]),
}


def cases(nets):
    return [(net, task) for net in nets for task in TASKS if (net, task) != ("mlp2d", "sample one")]


# Ours over theirs, at most.
TIME_BARS = {"flow matching": 1.0, "MeanFlow": 0.9, "MeanFlow, subset": 0.9}
MEMORY_BAR = 0.5
# MeanFlow over flow matching, ours, at most.
COST_BARS = {"MeanFlow": 1.45, "MeanFlow, subset": 1.15}


def found(pattern):
    return next(iter(sorted(glob.glob(pattern))), None)


class Failed(Exception):
    """A program of the race did."""


def run(command, environment=None):
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}\ntook longer than {LONGEST} s") from None
    if result.returncode != 0:
        raise Failed(f"{' '.join(command)}\nfailed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout)


class Race:
    def __init__(self, options, folder):
        self.options = options
        self.cases = cases([options.net] if options.net else BATCH)
        self.log = open(options.out, "w") if options.out else None
        self.best = {}
        # What torch.compile makes, so that a later run of the same step finds it.
        self.compiled = os.path.join(folder, "compiled")
        # (not imported here: its threads and its memory are no part of the race)
        asked = subprocess.run([sys.executable, "-c", "import json, torch; print(json.dumps([torch.__version__, hasattr(torch, 'compile'), "
                                "torch.backends.mkl.is_available()]))"], capture_output=True, text=True, check=True)
        self.version, can_compile, self.brings_mkl = json.loads(asked.stdout)
        self.compiles = can_compile and not options.no_compile

    def batch(self, net, task):
        if task == "sample one":
            return []
        return ["--batch", str((QUICK_BATCH if self.options.quick else BATCH)[net])]

    def fluxion(self, net, task, steps, seconds):
        command = [self.options.fluxion, "bench", "--json", "--net", net, "--threads", str(self.options.threads), "--steps", str(steps),
                   "--seconds", str(seconds), "--peak-seconds", "0.2"]
        return self.noted("fluxion", net, task, run(command + TASKS[task][0] + self.batch(net, task)))

    def torch(self, net, task, settings, steps, seconds, warm_up):
        blas, mkldnn, how = settings
        threads = str(self.options.threads)
        environment = dict(os.environ, OMP_NUM_THREADS=threads, BLIS_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
        environment["TORCHINDUCTOR_CACHE_DIR"] = self.compiled
        if blas in BLAS:
            path = ":".join(filter(None, [found(BLAS[blas][0]), environment.get("LD_LIBRARY_PATH")]))
            environment |= BLAS[blas][1] | {"LD_LIBRARY_PATH": path}
        if allocator := found(TCMALLOC):
            environment["LD_PRELOAD"] = allocator
        command = [sys.executable, self.options.peer, "--model", PEER_NET[net], "--threads", threads, "--foreach", "--steps", str(steps), "--max-s",
                   str(seconds), "--warmup", str(warm_up)] + list(how)
        if not mkldnn:
            command.append("--no-mkldnn")
        return self.noted("torch", net, task, run(command + self.batch(net, task), environment), settings=[blas, mkldnn, list(how)])

    def noted(self, side, net, task, result, **more):
        if self.log:
            self.log.write(json.dumps({"side": side, "net": net, "task": task, **more, **result}) + "\n")
            self.log.flush()
        return result

    def find_best(self):
        libraries = ["MKL"] if self.brings_mkl else [name for name, (folder, _) in BLAS.items() if found(folder)] or ["default"]
        if self.options.quick:
            self.best = {(net, task): (libraries[0], True, tuple(TASKS[task][1][0])) for net, task in self.cases}
            return
        compiled = ", compiled or not" if self.compiles else ""
        print(f"PyTorch {self.version}'s best of: {', '.join(libraries)}; with and without oneDNN; functorch and forward_ad{compiled}")
        for net, task in self.cases:
            times = {}
            ways = [tuple(how) for how in TASKS[task][1]]
            for blas, mkldnn in itertools.product(libraries, (True, False)):
                self.probe(net, task, (blas, mkldnn, ways[0]), times)
            if not times:
                sys.exit(f"compare_torch: PyTorch runs none of {net} {task}")
            first = min(times, key=times.get)
            # Another forward mode, and compiled, with the best libraries.
            for how in ways[1:] + ([how + ("--compile",) for how in ways] if self.compiles else []):
                self.probe(net, task, (first[0], first[1], how), times)
            best = self.best[net, task] = min(times, key=times.get)
            others = ", ".join(f"{ms:.1f}" for settings, ms in times.items() if settings != best)
            mkldnn = "with" if best[1] else "without"
            print(f"  {net} {task:17} {times[best]:8.1f} ms: {best[0]}, {mkldnn} oneDNN, {' '.join(best[2])} (others {others})", flush=True)

    def probe(self, net, task, settings, times):
        try:
            times[settings] = self.torch(net, task, settings, steps=5, seconds=2.5, warm_up=2)["ms_median"]
        except Failed as failed:  # not every network compiles, or has each forward mode
            print(f"  {net} {task:17} left out {' '.join(settings[2])}: {str(failed).strip().splitlines()[-1]}", flush=True)

    def rounds(self):
        results = []
        start = time.monotonic()
        steps, seconds, warm_up = (1, 0.5, 1) if self.options.quick else (self.options.steps, 10, 3)
        while True:
            began = time.monotonic()
            one = {}
            for net, task in self.cases:
                sides = {"fluxion": lambda: self.fluxion(net, task, steps, seconds),
                         "torch": lambda: self.torch(net, task, self.best[net, task], steps, seconds, warm_up)}
                for side in sorted(sides, reverse=len(results) % 2 == 1):
                    one[side, net, task] = sides[side]()
            results.append(one)
            took, spent = time.monotonic() - began, time.monotonic() - start
            print(f"round {len(results)}: {took:.0f} s", flush=True)
            if self.options.quick or spent + took > self.options.budget:
                return results


def spread(values):
    text = f"{statistics.median(values):.3f}"
    return f"{text} ({min(values):.3f}..{max(values):.3f})" if len(values) > 1 else text


def verdict(value, bar):
    return f"{'met' if value <= bar else 'MISSED'}: <= {bar}"


def report(rounds, nets):
    def each(f):
        return [f(one) for one in rounds]

    def time_of(side, net, task):
        return lambda one: one[side, net, task]["ms_median"]

    results = [result for one in rounds for result in one.values()]
    noisy = sum(result["all_noisy"] for result in results)
    print(f"\n{len(rounds)} rounds; ratios are medians over rounds (lowest..highest); {noisy} of {len(results)} runs had no quiet stretch")
    if noisy:
        print("The machine was busy with other things: don't trust these figures.")
    print(f"\n{'step':24}{'fluxion ms':>12}{'torch ms':>10}{'GFLOP/s':>9}{'of peak':>8}  fluxion / torch")
    for net, task in cases(nets):
        ours, theirs = each(time_of("fluxion", net, task)), each(time_of("torch", net, task))
        ratios = [a / b for a, b in zip(ours, theirs)]
        bar = f"  {verdict(statistics.median(ratios), TIME_BARS[task])}" if task in TIME_BARS else ""
        rate = statistics.median(each(lambda one: one["fluxion", net, task]["gflops"]))
        peak = statistics.median(each(lambda one: one["fluxion", net, task]["peak_fraction"]))
        print(f"{net + ' ' + task:24}{statistics.median(ours):12.2f}{statistics.median(theirs):10.2f}{rate:9.1f}{peak:8.0%}  {spread(ratios)}{bar}")

    print(f"\n{'peak memory, MiB':24}{'fluxion':>12}{'torch':>10}{'beyond the start':>20}  fluxion / torch")
    for net, task in cases(nets):
        ours = each(lambda one: one["fluxion", net, task]["peak_rss_mib"])
        theirs = each(lambda one: one["torch", net, task]["peak_rss_mib"])
        more = statistics.median(each(lambda one: one["fluxion", net, task]["peak_rss_mib"] - one["fluxion", net, task]["start_rss_mib"]))
        their_more = statistics.median(each(lambda one: one["torch", net, task]["peak_rss_mib"] - one["torch", net, task]["rss_import_mib"]))
        ratios = [a / b for a, b in zip(ours, theirs)]
        print(f"{net + ' ' + task:24}{statistics.median(ours):12.0f}{statistics.median(theirs):10.0f}{f'{more:.0f} / {their_more:.0f}':>20}  "
              f"{spread(ratios)}  {verdict(statistics.median(ratios), MEMORY_BAR)}")

    print("\nMeanFlow over flow matching")
    for net in nets:
        for task, bar in COST_BARS.items():
            costs = {side: each(lambda one: time_of(side, net, task)(one) / time_of(side, net, "flow matching")(one))
                     for side in ("fluxion", "torch")}
            print(f"{net + ' ' + task:24}fluxion {spread(costs['fluxion'])}  {verdict(statistics.median(costs['fluxion']), bar)};  "
                  f"torch {spread(costs['torch'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--fluxion", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--net", choices=BATCH)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--budget", type=float, default=300)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.quick:
        options.threads = 1

    print("The same computation on both sides?", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(__file__).with_name("check_against_torch.py")
        if subprocess.run([sys.executable, str(script), options.peer, folder, options.fluxion]).returncode != 0:
            sys.exit("compare_torch: the steps differ, so comparing their speed would mean nothing")
        print()
        race = Race(options, folder)
        try:
            race.find_best()
            report(race.rounds(), [options.net] if options.net else list(BATCH))
        except Failed as failed:
            sys.exit(f"compare_torch: {failed}")
    if options.quick:
        print("\nA quick run shows that the race works, not who wins it.")


if __name__ == "__main__":
    main()
