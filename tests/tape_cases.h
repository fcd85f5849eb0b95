// Random tapes with every kind of view, reduction and store, and a plain interpreter of them in
// f64.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "engine/program/program.h"

namespace fluxion::testing {

// Memory of exactly the right size, so that the address sanitizer sees every overrun.
struct Bytes {
  explicit Bytes(std::size_t size) : data(new std::byte[size]), size(size) {
    std::memset(data.get(), 0x5A, size);
  }
  Bytes(const Bytes& other) : data(new std::byte[other.size]), size(other.size) {
    std::memcpy(data.get(), other.data.get(), size);
  }
  Bytes(Bytes&&) = default;
  bool operator==(const Bytes& other) const {
    return size == other.size && std::memcmp(data.get(), other.data.get(), size) == 0;
  }
  std::unique_ptr<std::byte[]> data;
  std::size_t size;
};

double read(const Bytes& bytes, DType dtype, std::int64_t at);
void write(Bytes& bytes, DType dtype, std::int64_t at, double value);

// The number as a register of `dtype` holds it: integers wrap.
double in_register(DType dtype, double value);

// Runs the tape on `buffers` in place. results[r][point] are the contraction's results.
void run_oracle(const Tape& tape, std::vector<Bytes>& buffers, const std::vector<double>& scalars,
                const std::vector<std::vector<double>>& results = {});

// Compares the stored elements within a tolerance, and all other bytes exactly.
void check_buffers(const Tape& tape, std::vector<Bytes> got, std::vector<Bytes> want,
                   double tolerance);

struct TapeCase {
  Tape tape;
  std::vector<Bytes> buffers;
  std::vector<double> scalars;
  double tolerance = 0;
};

// A tape that computes in `dtype`. Without `wide_types` nothing in it is f64 or i64.
TapeCase random_tape(std::uint32_t seed, DType dtype, bool reduces, bool wide_types = true);

}  // namespace fluxion::testing
