#!/usr/bin/env python3
"""How well a model restores test digits that it is shown a part of: PSNR beside that of what it was shown.

    bench/restoration.py --fluxion build/release/bin/fluxion --model out/mnist/model.safetensors --data path/to/mnist

Every digit is damaged in three ways and drawn anew by `fluxion sample` with its class and --steering: a box of half the sides is
covered (--inpaint), it is reduced to a quarter of the sides (--enlarge), or blurred (--deblur). PSNR = 10 log10(1 / mean squared
error) in dB, of whole pictures with values from 0 to 1; the covered box counts as black and the small picture is enlarged by
repetition. --out writes a picture, below the originals: for each damage a row of what was shown, and rows of what was drawn with
flowchef and, in the box, with replacement.
Needs Python alone.
"""
import argparse
import gzip
import math
import pathlib
import statistics
import struct
import subprocess
import tempfile
import zlib


def write_png(path, rows):
    """rows: lists of values from 0 to 1."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + bytes(round(255 * min(max(v, 0), 1)) for v in row) for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def read_npy(path, side):
    """The first image of [1, side, side, 1] in f32, from -1..1 to 0..1."""
    data = path.read_bytes()
    start = 10 + struct.unpack("<H", data[8:10])[0]
    values = struct.unpack(f"<{side * side}f", data[start:start + 4 * side * side])
    return [[min(max((v + 1) / 2, 0), 1) for v in values[i * side:(i + 1) * side]] for i in range(side)]


def read_digits(folder, count):
    """The first `count` test digits, spread over the classes: (class, image) pairs."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        _, total, height, width = struct.unpack(">4I", file.read(16))
        images = file.read()
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = file.read()[8:]
    by_class = {c: [i for i in range(total) if labels[i] == c] for c in range(10)}
    for n in range(count):
        i = by_class[n % 10][n // 10]
        pixels = images[i * height * width:(i + 1) * height * width]
        yield n % 10, [[p / 255 for p in pixels[y * width:(y + 1) * width]] for y in range(height)]


def psnr(a, b):
    errors = [(x - y) ** 2 for p, q in zip(a, b) for x, y in zip(p, q)]
    return 10 * math.log10(len(errors) / max(sum(errors), 1e-12))


def blurred(image, deviation):
    """Rows, then columns: the weights of a line sum to 1 (models/samplers/steering.cpp)."""
    size = len(image)
    lines = [[math.exp(-0.5 * ((i - j) / deviation) ** 2) for j in range(size)] for i in range(size)]
    lines = [[w / sum(line) for w in line] for line in lines]
    across = [[sum(w * v for w, v in zip(line, row)) for line in lines] for row in image]
    return [[sum(w * across[j][x] for j, w in enumerate(line)) for x in range(size)] for line in lines]


def damages(image, folder, blur):
    """(name, what is shown, options that restore it)."""
    side = len(image)
    box = range(side // 4, side - side // 4)
    inside = [[1.0 if y in box and x in box else 0.0 for x in range(side)] for y in range(side)]
    covered = [[0.0 if inside[y][x] else image[y][x] for x in range(side)] for y in range(side)]
    write_png(folder / "covered.png", covered)
    write_png(folder / "mask.png", inside)
    yield "box inpainting", covered, ["--inpaint", str(folder / "covered.png"), "--mask", str(folder / "mask.png")]

    small = [[sum(image[4 * y + i][4 * x + j] for i in range(4) for j in range(4)) / 16 for x in range(side // 4)]
             for y in range(side // 4)]
    write_png(folder / "small.png", small)
    yield "super-resolution", [[small[y // 4][x // 4] for x in range(side)] for y in range(side)], [
        "--enlarge", str(folder / "small.png")]

    soft = blurred(image, blur)
    write_png(folder / "soft.png", soft)
    yield "deblurring", soft, ["--deblur", str(folder / "soft.png"), "--blur", str(blur)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fluxion", required=True, help="the program")
    parser.add_argument("--model", required=True, help="a model of MNIST digits")
    parser.add_argument("--data", required=True, type=pathlib.Path, help="folder of MNIST")
    parser.add_argument("--count", type=int, default=20, help="test digits, class by class (default 20)")
    parser.add_argument("--blur", type=float, default=2, help="standard deviation in pixels (default 2)")
    parser.add_argument("--options", nargs="*", default=[], help="of `fluxion sample`, without the leading --: steps=20 ..")
    parser.add_argument("--out", type=pathlib.Path, help="picture of the first ten digits")
    arguments = parser.parse_args()
    extra = ["--" + option for option in arguments.options]
    tasks, pictures = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for n, (label, image) in enumerate(read_digits(arguments.data, arguments.count)):
            column = [image]
            for task, shown, options in damages(image, folder, arguments.blur):
                column.append(shown)
                for steering in ["flowchef", "replacement"][:2 if "--inpaint" in options else 1]:
                    drawn = folder / "drawn.npy"
                    subprocess.run([arguments.fluxion, "sample", "--model", arguments.model, "--count", "1", "--class", str(label),
                                    "--seed", str(n), "--steering", steering, "--npy", str(drawn), *options, *extra],
                                   check=True, stdout=subprocess.DEVNULL)
                    result = read_npy(drawn, len(image))
                    tasks.setdefault((task, steering), []).append((psnr(shown, image), psnr(result, image)))
                    column.append(result)
            pictures.append(column)
    print(f"{'PSNR in dB, ' + str(arguments.count) + ' digits':<34}{'as shown':>10}{'restored':>10}{'better':>8}")
    for (task, steering), pairs in tasks.items():
        before, after = (statistics.mean(column) for column in zip(*pairs))
        better = sum(b > a for a, b in pairs)
        print(f"{task + ', ' + steering:<34}{before:>10.1f}{after:>10.1f}{better:>5}/{len(pairs)}")
    if arguments.out:
        # Every pixel twice as large.
        write_png(arguments.out, [[v for column in pictures[:10] for v in column[row][y] for _ in range(2)]
                                  for row in range(len(pictures[0])) for y in range(len(pictures[0][0])) for _ in range(2)])


if __name__ == "__main__":
    main()
