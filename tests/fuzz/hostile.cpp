// Fuzz target: serialised programs of strangers. What parses and verifies is compiled and run, on
// the CPU backend and, where it holds ops alone, on the reference backend, in buffers of exactly
// the size that it states. The mutator changes numbers of the parsed program half of the time,
// bytes the other half.
#include <cstdint>
#include <cstring>
#include <random>
#include <span>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/device.h"
#include "engine/error.h"
#include "engine/program/program.h"
#include "tests/fuzz/hostile_programs.h"

using namespace fluxion;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  std::minstd_rand random(seed + 1);
  if (random() % 4 != 0) try {
      Program program = parse_program(std::as_bytes(std::span(data, size)));
      testing::mutate(program, random);
      const std::vector<std::byte> bytes = serialise(program);
      if (bytes.size() <= max_size) {
        std::memcpy(data, bytes.data(), bytes.size());
        return bytes.size();
      }
    } catch (const Error&) {
    }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Device devices[] = {cpu({.threads = 1}), reference()};
  for (const Device& device : devices) {
    try {
      testing::compile_and_run(device, parse_program(std::as_bytes(std::span(data, size))));
    } catch (const Error&) {
    }
  }
  return 0;
}
