#!/usr/bin/env python3
"""The peers' side of cold_start.py.

    cold_start_peers.py prepare PEER.py MODEL.safetensors FOLDER   writes one network for every program
    cold_start_peers.py check FOLDER                               compares what they draw from the same noise
    cold_start_peers.py torch FOLDER THREADS [CALLS]               as cold_start.c does, in eager PyTorch
    cold_start_peers.py onnxruntime FOLDER THREADS [CALLS]         and in ONNX Runtime

A MODEL of the shape of dit28, of `fluxion train`, gets the random parameters that the peer's DiT has in FOLDER.
"""
import time

begun = time.monotonic()
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

MANY, CLASS = 64, 3


def load(path):
    import importlib.util
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_step(peer, torch):
    """The network as a generator of one step: noise and classes in, images out."""
    class OneStep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = peer.DiT()

        def forward(self, noise, classes):
            ones = torch.ones_like(classes, dtype=noise.dtype)
            return noise - self.network(noise, ones, 0 * ones, classes)

    return OneStep().eval()


def write_gguf(path, tensors):
    """As ggml's file of named tensors, version 3: no keys, floats, each tensor at a multiple of 32 bytes."""
    import struct
    header, data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0), b""
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        header += struct.pack(f"<Q{len(name)}sI{len(shape)}QIQ", len(name), name.encode(), len(shape), *shape, 0, len(data))
        data += tensor.contiguous().numpy().tobytes()
        data += bytes(-len(data) % 32)
    with open(path, "wb") as file:
        file.write(header + bytes(-len(header) % 32) + data)


def prepare(peer_file, model, folder):
    import struct
    import warnings
    import torch
    here = os.path.dirname(os.path.abspath(__file__))
    check = load(os.path.join(here, "check_against_torch.py"))
    torch.manual_seed(1)
    generator = one_step(load(peer_file), torch)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(torch.randn_like(parameter) / (parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 10))
    torch.save(generator.state_dict(), os.path.join(folder, "state.pt"))
    write_gguf(os.path.join(folder, "network.gguf"), generator.network.state_dict())
    with open(os.path.join(folder, "peer"), "w") as file:
        file.write(os.path.abspath(peer_file))

    values = {key: check.as_ours(key, value) for key, value in check.ours(generator.network).items()}
    with open(model, "rb") as file:
        data = bytearray(file.read())
    size, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if set(entries) != set(values):
        sys.exit("cold_start: only one of the model and the peer's DiT has " + ", ".join(sorted(set(entries) ^ set(values))))
    for name, entry in entries.items():
        if entry["dtype"] != "F32" or entry["shape"] != list(values[name].shape):
            sys.exit(f"cold_start: the model's {name} is {entry['dtype']} {entry['shape']}, the peer's {list(values[name].shape)}")
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        data[begin:end] = values[name].detach().contiguous().numpy().tobytes()
    # What the benchmark dit28 has and training would not choose; and the checksum is that of the weights of before.
    about = json.loads(header["__metadata__"]["fluxion.model"])
    about["network"]["config"].update(gelu="erf", positions="learned", time_scale=1000)
    header["__metadata__"]["fluxion.model"] = json.dumps(about)
    header["__metadata__"].pop("fluxion.checksum", None)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data[8 + size:])

    example = torch.randn(2, 1, 28, 28), torch.full((2,), CLASS)
    warnings.simplefilter("ignore")  # that tracing is of yesterday; libtorch alone loads nothing else
    with torch.inference_mode():
        torch.jit.trace(generator, example).save(os.path.join(folder, "network.pt"))
    try:
        import onnx  # noqa: F401
    except ImportError:
        return
    torch.onnx.export(generator, example, os.path.join(folder, "network.onnx"), input_names=["noise", "classes"], output_names=["images"],
                      dynamic_axes={name: {0: "batch"} for name in ("noise", "classes", "images")}, dynamo=False)


def with_torch(folder, threads):
    import torch
    loaded = time.monotonic()
    torch.set_num_threads(threads)
    with open(os.path.join(folder, "peer")) as file:
        generator = one_step(load(file.read()), torch)
    generator.load_state_dict(torch.load(os.path.join(folder, "state.pt")))

    def draw(count, noise=None):
        with torch.inference_mode():
            noise = torch.randn(count, 1, 28, 28) if noise is None else torch.from_numpy(noise)
            return generator(noise, torch.full((count,), CLASS)).numpy()

    return loaded, draw


def with_onnxruntime(folder, threads):
    import numpy
    import onnxruntime
    loaded = time.monotonic()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(os.path.join(folder, "network.onnx"), options, providers=["CPUExecutionProvider"])

    def draw(count, noise=None):
        if noise is None:
            noise = numpy.random.default_rng().standard_normal((count, 1, 28, 28), numpy.float32)
        return session.run(None, {"noise": noise, "classes": numpy.full(count, CLASS, numpy.int64)})[0]

    return loaded, draw


RUNTIMES = {"torch": with_torch, "onnxruntime": with_onnxruntime}


def run(runtime, folder, threads, calls):
    loaded, draw = RUNTIMES[runtime](folder, threads)
    opened = time.monotonic()
    draw(1)
    result = {"begun": begun, "loaded": loaded, "opened": opened, "image": time.monotonic()}
    for count in (1, MANY) if calls else ():
        draw(count)
        result[f"batch {count}"] = []
        for _ in range(calls):
            start = time.monotonic()
            draw(count)
            result[f"batch {count}"].append(1e3 * (time.monotonic() - start))
    print(json.dumps(result))


def ggml_image(folder):
    import numpy
    import subprocess
    program, network, noise, image = (os.path.join(folder, name) for name in ("cold_start_ggml", "network.gguf", "ours.noise", "ggml.image"))
    subprocess.run([program, network, "1", noise, image], check=True)
    return numpy.fromfile(image, numpy.float32)


def check(folder):
    import numpy
    # Ours are [height, width, channels], of one channel.
    noise, image = (numpy.fromfile(os.path.join(folder, "ours." + end), numpy.float32) for end in ("noise", "image"))
    for runtime, needs in {"torch": "state.pt", "onnxruntime": "network.onnx", "ggml": "cold_start_ggml"}.items():
        if not os.path.exists(os.path.join(folder, needs)):
            continue
        theirs = ggml_image(folder) if runtime == "ggml" else RUNTIMES[runtime](folder, 1)[1](1, noise.reshape(1, 1, 28, 28)).reshape(-1)
        error = float(numpy.abs(theirs - image).max() / numpy.abs(image).max())
        if not error < 1e-4:
            sys.exit(f"cold_start: {runtime} draws another image: it differs by {error:.3g} of the largest value")
        print(f"{runtime} draws our image but for {error:.1g} of its largest value")


def main():
    what, *rest = sys.argv[1:] or [""]
    if what == "prepare" and len(rest) == 3:
        prepare(*rest)
    elif what == "check" and len(rest) == 1:
        check(rest[0])
    elif what in RUNTIMES and len(rest) in (2, 3):
        run(what, rest[0], int(rest[1]), int(rest[2]) if len(rest) == 3 else 0)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
