#!/usr/bin/env python3
"""Turns a PyTorch checkpoint into a safetensors file, which `fluxion import` reads.

    scripts/convert_checkpoint.py IN.pt OUT.safetensors [--weights ema|model] [--dtype keep|f32|f16|bf16]

Needs PyTorch 1.13 or newer and nothing else. Looks for the weights where training programs keep them - a moving average first -, takes off
the prefixes of wrappers, keeps all other names, casts floats, and says in the file's metadata where the numbers came from. Tensors of types that
safetensors files or this PyTorch don't have, sparse and quantised ones are left out and named.
"""

import argparse
import collections
import collections.abc
import ctypes
import inspect
import io
import json
import os
import pickle
import re
import struct
import sys
import tempfile
import zipfile

EMA_NAMES = ["ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "net_ema", "ema_net"]
MODEL_NAMES = ["model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "params", "weights"]
WRAPPERS = ["module.", "_orig_mod.", "ema_model.", "model_ema.", "ema.", "model.", "net.", "network."]
NEW_TYPES = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
             "float4_e2m1fn_x2", "complex32", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"]  # fmt: skip
STEP_NAMES = ["step", "steps", "train_steps", "global_step", "iteration", "iter"]


def fail(message):
    sys.exit("convert_checkpoint: " + message)


class Unknown(dict):
    """Stands for an object of a class that is not loaded: it swallows whatever it is given. Keys are kept, as dictionaries of many classes have them."""

    __hash__ = object.__hash__

    def __init__(self, *arguments, **named):
        super().__init__()

    def swallow(self, *arguments):
        pass

    __setstate__ = append = extend = add = swallow


class Unreadable:
    """Stands for a tensor that can't be made here; the others can."""

    def __init__(self, reason):
        self.reason = reason


class ZipReader(pickle.Unpickler):
    """Reads the zip files that torch.save writes since version 1.6: data.pkl describes the objects, data/KEY holds the bytes of one storage.

    Makes tensors and plain containers, and an Unknown of everything else, so that no code in the file can run. (torch.load is no match: before 2.6 its
    weights_only has known holes and refuses plain numbers, and 1.13 ignores the pickle module it is given.)
    """

    def __init__(self, torch, archive):
        self.torch, self.archive, self.storages = torch, archive, {}
        description = next((name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"), None)
        if description is None:
            raise ValueError("it is a zip file, but none that torch.save wrote: no data.pkl in it")
        self.folder = description[: -len("data.pkl")]
        if self.folder + "byteorder" in archive.namelist() and archive.read(self.folder + "byteorder") != b"little":
            raise ValueError("it was written by a big-endian machine")
        super().__init__(io.BytesIO(archive.read(description)), encoding="utf-8")

    def find_class(self, module, name):
        torch = self.torch
        if module == "collections" and name == "OrderedDict":
            return collections.OrderedDict
        if module == "torch" and name == "Size":
            return tuple
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self.rebuild
        if module == "torch._utils" and name == "_rebuild_tensor_v3":
            return self.rebuild_of_type
        if module in ("torch._utils", "torch") and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda data, *rest: data
        if module == "torch._tensor" and name == "_rebuild_from_type_v2":  # tensors with attributes of their own
            return lambda rebuild, kind, arguments, *rest: rebuild(*arguments)
        if module in ("torch._utils", "torch") and name.startswith("_rebuild_"):
            return lambda *rest: Unreadable("a tensor of another kind: " + name[len("_rebuild_") :])
        if module == "torch" and name in NEW_TYPES:  # written as torch.uint16
            return getattr(torch, name, Unreadable(f"torch.{name}, which PyTorch {torch.__version__} does not have"))
        if module in ("torch", "torch.storage") and name == "UntypedStorage":
            return torch.uint8
        storages = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Long": torch.int64,
                    "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
                    "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128}  # fmt: skip
        if module == "torch" and name.endswith("Storage") and name[:-7] in storages:
            return storages[name[:-7]]  # the element type stands for the class
        if module == "torch" and name.endswith("Storage"):
            return Unreadable(f"numbers of the type {name[:-7]}")
        return Unknown

    def persistent_load(self, identity):
        kind, dtype, key = identity[:3]
        if kind != "storage":
            raise ValueError("it holds objects of an unknown kind")
        if not isinstance(dtype, self.torch.dtype):
            return dtype if isinstance(dtype, Unreadable) else Unreadable("numbers of an unknown type")
        if (key, dtype) not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            whole = self.torch.frombuffer(content, dtype=dtype) if content else self.torch.empty(0, dtype=dtype)
            self.storages[key, dtype] = whole
        return self.storages[key, dtype]

    def rebuild(self, storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
        if isinstance(storage, Unreadable):
            return storage
        value = self.torch.as_strided(storage, size, stride, offset)  # throws where that leaves the storage
        # What PyTorch has not computed yet: the bytes of a tensor may stand for their negatives, or conjugates.
        if metadata and metadata.get("neg"):
            value = -value
        if metadata and metadata.get("conj"):
            value = value.conj().resolve_conj()
        return value

    def rebuild_of_type(self, storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
        """The same of the bytes of a storage; types that are newer than typed storages are written so."""
        if isinstance(dtype, Unreadable) or isinstance(storage, Unreadable):
            return dtype if isinstance(dtype, Unreadable) else storage
        return self.rebuild(storage.view(dtype), offset, size, stride, requires_grad, hooks, metadata)


def version_of(torch):
    return tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])


def load(torch, path, trust):
    """The file's object on the CPU. Without `trust` no code in the file can run."""
    if not os.path.isfile(path):
        fail(f"{path}: no such file")
    safe = {"weights_only": True} if version_of(torch) >= (2, 6) else None
    try:
        if trust:
            whole = {"weights_only": False} if "weights_only" in inspect.signature(torch.load).parameters else {}
            return torch.load(path, map_location="cpu", **whole)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return ZipReader(torch, archive).load()
        if safe:
            return torch.load(path, map_location="cpu", **safe)
        reason = f"it is no zip file as PyTorch writes since 1.6, and PyTorch {torch.__version__} can't load older ones safely (2.6 can)"
    except Exception as error:
        reason = (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
    if trust:
        fail(f"{path}: PyTorch {torch.__version__} can't read it: {reason}")
    fail(
        f"{path}: can't load the tensors in it alone: {reason}\n"
        "If it is a PyTorch checkpoint and you trust its author, add --trust: PyTorch then loads it whole, which can run any code in it."
    )


def as_mapping(value):
    """Modules that were saved whole count as their state."""
    if callable(getattr(value, "state_dict", None)):
        value = value.state_dict()
    return value if isinstance(value, collections.abc.Mapping) else None


def tensors_in(torch, mapping):
    return {str(name): value for name, value in mapping.items() if torch.is_tensor(value) or isinstance(value, Unreadable)}


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
        fail(f"no tensors in {'/'.join(where) or 'the file'}; it has: {', '.join(map(str, list(current)[:20]))}. Choose one with --container A/B. Modules saved whole need --trust")
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
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
             "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
             "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"}  # fmt: skip
    return {getattr(torch, ours): theirs for ours, theirs in names.items() if hasattr(torch, ours)}


def write_bytes(file, tensor):
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    size = tensor.numel() * tensor.element_size()
    if size > 0:  # (ctypes.string_at takes the low 32 bits of a size)
        file.write(memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B"))


def type_written(value, target):
    return target if target and value.is_floating_point() else value.dtype


def write_safetensors(torch, path, tensors, target, metadata):
    """Writes to a temporary name, flushes, renames. One tensor at a time is in memory besides the checkpoint."""
    type_names = safetensors_types(torch)
    dtype_of = {name: type_written(value, target) for name, value in tensors.items()}
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
                if cast.is_floating_point() and not finite(torch, cast):
                    damaged.append((name, finite(torch, value)))
                write_bytes(file, cast)
            if file.tell() != 8 + len(text) + offset:
                raise OSError(f"{file.tell()} bytes written of {8 + len(text) + offset}")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return offset, damaged


def finite(torch, tensor):
    return bool(torch.isfinite(tensor.to(torch.float32) if tensor.element_size() == 1 else tensor).all())


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def reason_against(torch, value, type_names):
    """Why a tensor can't be written; None if it can."""
    if isinstance(value, Unreadable):
        return value.reason
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "sparse" if value.layout != torch.strided else "quantised" if value.is_quantized else "without numbers (on the meta device)"
    return None if value.dtype in type_names else str(value.dtype)


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
    if version_of(torch) < (1, 13):
        fail(f"needs PyTorch 1.13 or newer, this is {torch.__version__}")
    if sys.byteorder != "little":
        fail("safetensors files are little-endian; this machine is not")

    root = load(torch, options.input, options.trust)
    found, where = find_weights(torch, root, options.container, options.weights)
    found, prefix = strip_wrappers(found, options.weights)
    type_names = safetensors_types(torch)
    left_out = {name: reason for name, value in found.items() if (reason := reason_against(torch, value, type_names))}
    tensors = {name: value for name, value in found.items() if name not in left_out}
    if not tensors:
        fail("no tensor of a type that safetensors files have: " + "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]))

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
    try:
        size, damaged = write_safetensors(torch, options.output, tensors, target, metadata)
    except OSError as error:
        fail(f"{options.output}: {error.strerror or error}")

    parameters = sum(value.numel() for value in tensors.values())
    print(f"weights   {'/'.join(where) or 'the file itself'}" + (f", without the prefix '{prefix}'" if prefix else ""))
    for name, reason in left_out.items():
        print(f"left out  {name}: {reason}")
    for name, by_cast in damaged[:10]:
        print(f"warning   {name} has numbers that are not finite" + (f" as {options.dtype}" if by_cast else ""))
    kinds = collections.Counter(type_names[type_written(value, target)] for value in tensors.values())
    print(f"wrote     {options.output}: {len(tensors)} tensors ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), "
          f"{parameters:,} parameters, {size / 2**20:.1f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
