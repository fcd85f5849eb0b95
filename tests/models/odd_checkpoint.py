#!/usr/bin/env python3
"""A PyTorch checkpoint of tensors that are seldom, to check what scripts/convert_checkpoint.py makes of them.

    odd_checkpoint.py write FILE.pt             writes it, with the types that this PyTorch has
    odd_checkpoint.py compare FILE.safetensors  compares what was made of it with the numbers that were meant

scripts/check_convert.sh runs both. Needs PyTorch.
"""

import io
import json
import struct
import sys

import torch

# What a safetensors file calls them, and how many bytes an element has.
NAMES = {"int8": "I8", "int16": "I16", "uint16": "U16", "uint32": "U32", "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
         "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "complex64": "C64"}  # fmt: skip


def kept(value):
    """Whether this PyTorch reads what it saves: versions before 2 forget that a tensor counts negative, or conjugate."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.equal(torch.load(file).detach().resolve_conj().resolve_neg(), value.detach().resolve_conj().resolve_neg())


def tensors():
    """(what to write, the bytes that must come out; None: to be left out)"""
    plain = torch.tensor([1.0, -2.0, 3.5])

    def conjugate():
        return torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj()

    found = {
        "plain": (plain, struct.pack("<3f", 1, -2, 3.5)),
        # In memory these are 1 + 2i and 3 - 4i; a bit says that they count negative, or conjugate.
        "negative": (conjugate().imag, struct.pack("<2f", -2, 4)),
        "negative.end": (conjugate().imag[1:], struct.pack("<f", 4)),
        "conjugate": (conjugate(), struct.pack("<4f", 1, -2, 3, 4)),
        "negative.parameter": (torch.nn.Parameter(conjugate().imag), struct.pack("<2f", -2, 4)),
        "double.complex": (torch.ones(2, dtype=torch.complex128), None),
        "sparse": (torch.eye(2).to_sparse(), None),
        "quantised": (torch.quantize_per_tensor(plain, 0.5, 0, torch.qint8), None),
    }
    for name in [name for name in found if name.startswith(("negative", "conjugate")) and not kept(found[name][0])]:
        print(f"odd_checkpoint: {name} left out, which PyTorch {torch.__version__} does not save", file=sys.stderr)
        del found[name]
    tagged = torch.ones(2)
    tagged.note = "an attribute"
    found["tagged"] = (tagged, struct.pack("<2f", 1, 1))
    for name in NAMES:
        dtype = getattr(torch, name, None)
        if dtype is None or dtype.is_complex:
            continue
        size = torch.empty(0, dtype=dtype).element_size()
        content = bytes([0x38, 0x40] * (2 * size))
        same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
        value = torch.frombuffer(bytearray(content), dtype=same_size).view(dtype).reshape(2, 2)
        found["type." + name] = (value, content)
        if size == 1:
            found["turned." + name] = (value.T, bytes([0x38, 0x38, 0x40, 0x40]))
    return found


def compare(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(length)), file.read()
    wrong = []
    for name, (value, content) in tensors().items():
        if (name in header) != (content is not None):
            wrong.append(f"{name} is " + ("there" if name in header else "missing"))
        if name not in header or content is None:
            continue
        begin, end = header[name]["data_offsets"]
        if data[begin:end] != content:
            wrong.append(f"{name} holds {data[begin:end].hex()}, not {content.hex()}")
        kind = str(value.dtype)[len("torch.") :]
        if kind in NAMES and header[name]["dtype"] != NAMES[kind]:
            wrong.append(f"{name} is {header[name]['dtype']}, not {NAMES[kind]}")
    if wrong:
        sys.exit("odd_checkpoint: " + "; ".join(wrong))
    print(f"odd_checkpoint: {len(header) - 1} tensors as meant")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        torch.save({"model": {name: value for name, (value, content) in tensors().items()}}, sys.argv[2])
    else:
        compare(sys.argv[2])
