// Writes files for the fuzzers to start from: fluxion-fuzz-seeds FILES PROGRAMS SAMPLERS. Each in
// the folder FILES is a valid one, after the byte that chooses its reader; each in PROGRAMS a
// serialised program; each in SAMPLERS a sampler.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/export/stored_graph.h"
#include "engine/graph/ops.h"
#include "models/files/gz.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "tests/embed/stored_samplers.h"
#include "tests/files/containers.h"
#include "tests/fuzz/program_seeds.h"

using namespace fluxion;

namespace {

std::vector<std::byte> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void write(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

void write(const std::filesystem::path& path, std::uint8_t reader,
           const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.put(static_cast<char>(reader));
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::filesystem::path folder = argv[1], scratch = folder / "scratch";
  std::filesystem::create_directories(folder);
  const Device device = cpu({1});
  std::filesystem::create_directories(argv[2]);
  for (const auto& [name, program] : testing::program_seeds(device))
    write(std::filesystem::path(argv[2]) / name, serialise(program));
  const std::filesystem::path samplers = argv[3];
  std::filesystem::create_directories(samplers);
  write(samplers / "guided", testing::guided_sampler());
  write(samplers / "restless", testing::restless_sampler());
  write(samplers / "constant", testing::constant_image({0, 1, -1, 1e30f, 0.5f, 2}, 2, 3));
  write(samplers / "wide", testing::wide_image());
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3}, device);

  save_tensors(scratch, {{"weight", x}, {"bias", sum(x, {0})}}, {{"name", "seed"}});
  write(folder / "safetensors", 0, bytes_of(scratch));
  write_npy(scratch, std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  write(folder / "npy", 1, bytes_of(scratch));
  write(folder / "npy-header", 2, bytes_of(scratch));
  write(folder / "gz", 4, gzip(bytes_of(scratch)));
  std::vector<std::byte> idx{std::byte{0}, std::byte{0}, std::byte{8}, std::byte{1}, std::byte{0},
                             std::byte{0}, std::byte{0}, std::byte{2}, std::byte{7}, std::byte{9}};
  write(folder / "idx", 3, idx);
  const std::string json =
      R"({"name": "seed", "sizes": [1, 2.5, -3e4], /* nested */ "inner": {"flag": true, "none": null}})";
  const auto text = std::as_bytes(std::span(json));
  write(folder / "json", 5, {text.begin(), text.end()});
  const TracedParameters traced({x});
  const Tensor y = softmax(matmul(traced.tensors()[0], transpose(x, {1, 0})) * 0.5);
  write(folder / "graph", 6,
        serialise(
            store("seed", {{"x", "primal"}}, {{"y", "primal"}}, traced.tensors(), std::vector{y})));
  const auto layer =
      compile([](const Tensor& a, const Tensor& b) { return softmax(silu(matmul(a, b) + 1.0)); });
  write(folder / "program", 7, serialise(layer.program(x, transpose(x, {1, 0}))));
  const auto ops = compile([](const Tensor& a) {
    return take(cumsum(pad(a, {1, 0}, {0, 2}), 0), argmax(a, 1), 0);
  });
  write(folder / "program-of-ops", 7, serialise(ops.program(x)));
  const std::vector<std::byte> array = bytes_of(scratch);
  const testing::ZipPlan zip{.members = {{.name = "a.npy", .content = array},
                                         {.name = "b.npy", .content = array, .deflate = true}}};
  write(folder / "zip", 8, zip.bytes());
  std::filesystem::remove(scratch);
  return 0;
}
