#!/usr/bin/env python3
"""Turns a PyTorch checkpoint into a safetensors file, which `fluxion import` reads.

    scripts/convert_checkpoint.py IN.pt OUT.safetensors [--weights ema|model] [--dtype keep|f32|f16|bf16]

Needs PyTorch 1.13 or newer and nothing else. Looks for the weights where training programs keep them - a moving average first -, takes off
the prefixes of wrappers, keeps all other names, casts, and says in the file's metadata where the numbers came from. Tensors that are not numbers of
these types (counters and the like) are left out and named.
"""

import argparse
import collections
import collections.abc
import inspect
import json
import os
import pickle
import struct
import sys
import tempfile
import types

EMA_NAMES = ["ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "net_ema", "ema_net"]
MODEL_NAMES = ["model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "params", "weights"]
WRAPPERS = ["module.", "_orig_mod.", "ema_model.", "model_ema.", "ema.", "model.", "net.", "network."]
STEP_NAMES = ["step", "steps", "train_steps", "global_step", "iteration", "iter"]


def fail(message):
    sys.exit("convert_checkpoint: " + message)


class Unknown:
    """Stands for an object of a class that is not loaded: it swallows whatever it is given."""

    def __init__(self, *arguments, **named):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass


def tensors_only(torch):
    """A stand-in for the module pickle that makes tensors and plain containers, and an Unknown of everything else: no code in the file can run."""
    allowed = {("collections", "OrderedDict"): collections.OrderedDict, ("torch", "Size"): torch.Size}
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        allowed["torch._utils", name] = getattr(torch._utils, name)
    kinds = ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
    for name in (kind + "Storage" for kind in kinds):
        if hasattr(torch, name):
            allowed["torch", name] = getattr(torch, name)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return allowed.get((module, name), Unknown)

    stand_in = types.ModuleType("tensors_only")
    stand_in.Unpickler = Unpickler
    stand_in.load = lambda file, **named: Unpickler(file, **named).load()
    return stand_in


def load(torch, path, trust):
    """The file's object on the CPU. Without `trust` no code in the file can run."""
    if not os.path.isfile(path):
        fail(f"{path}: no such file")
    accepts = "weights_only" in inspect.signature(torch.load).parameters
    whole = {"weights_only": False} if accepts else {}
    if trust:
        try:
            return torch.load(path, map_location="cpu", **whole)
        except Exception as error:
            fail(f"{path}: PyTorch can't read it: {error}")
    if accepts:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            pass  # PyTorch refuses plain numbers (1.13) and its authors' options; what follows makes nothing of them
    try:
        return torch.load(path, map_location="cpu", pickle_module=tensors_only(torch), **whole)
    except Exception as error:
        reason = (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
        fail(
            f"{path}: PyTorch {torch.__version__} can't load the tensors in it alone: {reason}\n"
            "If it is a PyTorch checkpoint that holds more than tensors and containers, and you trust its author, add --trust: the file is then loaded\n"
            "whole, which can run any code in it."
        )


def as_mapping(value):
    """Modules that were saved whole count as their state."""
    if callable(getattr(value, "state_dict", None)):
        value = value.state_dict()
    return value if isinstance(value, collections.abc.Mapping) else None


def tensors_in(torch, mapping):
    return {str(name): value for name, value in mapping.items() if torch.is_tensor(value)}


def find_weights(torch, root, container, prefer):
    """(the mapping of tensors, where it was found: a list of keys)"""
    where, current = [], as_mapping(root)
    if current is None:
        fail(f"the file holds a {type(root).__name__}, not a dictionary of weights")
    if container:
        for key in container.split("/"):
            nested = as_mapping(current.get(key)) if key in current else None
            if nested is None:
                fail(f"there is no container '{key}'; the file has: {', '.join(map(str, list(current)[:20]))}")
            where, current = where + [key], nested
    else:
        order = EMA_NAMES + MODEL_NAMES if prefer == "ema" else MODEL_NAMES + EMA_NAMES
        while True:
            key = next((key for key in order if key in current and as_mapping(current[key]) and not torch.is_tensor(current[key])), None)
            if key is None:
                break
            where, current = where + [key], as_mapping(current[key])
    tensors = tensors_in(torch, current)
    if not tensors:
        fail(f"no tensors in {'/'.join(where) or 'the file'}; it has: {', '.join(map(str, list(current)[:20]))}. Choose one with --container A/B")
    return tensors, where


def strip_wrappers(tensors, prefer):
    """(tensors under shorter names, the prefix taken off)"""
    prefix = ""
    while True:
        shared = next((w for w in WRAPPERS if all(name.startswith(prefix + w) for name in tensors)), None)
        if shared:
            prefix += shared
            continue
        # Modules that hold a model beside its average, as Lightning's do.
        beside = ["ema_model.", "ema.", "model_ema.", "model.", "net."] if prefer == "ema" else ["model.", "net.", "ema_model.", "ema.", "model_ema."]
        averages = any(name.startswith(prefix + w) for w in ("ema_model.", "ema.", "model_ema.") for name in tensors)
        chosen = next((w for w in beside if averages and any(name.startswith(prefix + w) for name in tensors)), None)
        if chosen is None:
            return {name[len(prefix) :]: value for name, value in tensors.items()}, prefix
        tensors = {name: value for name, value in tensors.items() if name.startswith(prefix + chosen)}


def safetensors_types(torch):
    return {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
            torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip


def bytes_of(torch, tensor):
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.contiguous().view(torch.int16)
    return tensor.contiguous().numpy().tobytes()


def write_safetensors(torch, path, tensors, target, metadata):
    """Writes to a temporary name, flushes, renames. One tensor at a time is in memory besides the checkpoint."""
    type_names = safetensors_types(torch)
    floating = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    dtype_of = {name: target if target and value.dtype in floating else value.dtype for name, value in tensors.items()}
    size_of = {dtype: torch.empty(0, dtype=dtype).element_size() for dtype in type_names}
    order = sorted(tensors, key=lambda name: (-size_of[dtype_of[name]], name))
    header, offset = {"__metadata__": metadata}, 0
    for name in order:
        end = offset + tensors[name].numel() * size_of[dtype_of[name]]
        header[name] = {"dtype": type_names[dtype_of[name]], "shape": list(tensors[name].shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".convert-")
    damaged = []
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<Q", len(text)))
            file.write(text)
            for name in order:
                value = tensors[name].detach().to("cpu")
                cast = value.to(dtype_of[name])
                if cast.is_floating_point() and not torch.isfinite(cast).all():
                    damaged.append((name, bool(torch.isfinite(value).all())))
                file.write(bytes_of(torch, cast))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return offset, damaged


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", metavar="IN", help="PyTorch checkpoint (.pt, .pth, .ckpt, .bin)")
    parser.add_argument("output", metavar="OUT.safetensors")
    parser.add_argument("--weights", choices=["ema", "model"], default="ema", help="which to take where both are there (default: ema)")
    parser.add_argument("--container", metavar="A/B", help="take the weights found under these keys")
    parser.add_argument("--dtype", choices=["keep", "f32", "f16", "bf16"], default="keep", help="element type to cast to (default: keep)")
    parser.add_argument("--trust", action="store_true", help="load with the whole of pickle, which can run code in the file")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        fail("needs PyTorch: run it with the Python that has it")
    if sys.byteorder != "little":
        fail("safetensors files are little-endian; this machine is not")

    root = load(torch, options.input, options.trust)
    found, where = find_weights(torch, root, options.container, options.weights)
    found, prefix = strip_wrappers(found, options.weights)
    type_names = safetensors_types(torch)
    tensors = {name: value for name, value in found.items() if value.dtype in type_names and not value.is_sparse and not value.is_quantized}
    left_out = [name for name in found if name not in tensors]
    if not tensors:
        fail("no tensor of a type that safetensors files have")

    average = any(name in EMA_NAMES for name in where) or any(part in ("ema_model", "ema", "model_ema") for part in prefix.split("."))
    metadata = {
        "format": "pt",
        "source": os.path.basename(options.input),
        "container": "/".join(where),
        "prefix": prefix,
        "weights": "ema" if average else "unknown" if not where else "model",
        "converted_to": options.dtype,
    }
    top = as_mapping(root) or {}
    step = next((top[name] for name in STEP_NAMES if isinstance(top.get(name), int) and not isinstance(top.get(name), bool)), None)
    if step is not None:
        metadata["step"] = str(step)
    target = {"keep": None, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[options.dtype]
    size, damaged = write_safetensors(torch, options.output, tensors, target, metadata)

    parameters = sum(value.numel() for value in tensors.values())
    print(f"weights   {'/'.join(where) or 'the file itself'}" + (f", without the prefix '{prefix}'" if prefix else ""))
    for name in left_out:
        print(f"left out  {name}: {found[name].dtype}")
    for name, by_cast in damaged[:10]:
        print(f"warning   {name} has numbers that are not finite" + (f" as {options.dtype}" if by_cast else ""))
    kinds = collections.Counter(type_names[target if target and value.is_floating_point() else value.dtype] for value in tensors.values())
    print(f"wrote     {options.output}: {len(tensors)} tensors ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), "
          f"{parameters:,} parameters, {size / 2**20:.1f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
