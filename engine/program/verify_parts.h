// The parts of verify (program.h). verify.cpp runs them in this order:
//   slots      kind, type and place of each buffer           verify.cpp
//   kernels    tapes                                         verify_tape.cpp
//              contractions and ops                          verify_kernels.cpp
//   memory     order, overlap in the arena, donation         verify_memory.cpp
//
// Programs come from the planner, which may have errors and plans graphs of files, which may be
// hostile; tests parse programs from any bytes. Every index into a list of the program goes through
// `item`, which checks it. Sums and products of numbers of the program are computed in 128 bits, or
// after a check against max_reach.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/program/program.h"

namespace fluxion::verification {

__extension__ using Wide = __int128;

constexpr std::size_t max_axes = 64;
constexpr std::size_t max_guards = 1024;

// How a kernel touches a buffer, for liveness and in-place checks.
struct Access {
  std::int32_t buffer = 0;
  const Affine* address = nullptr;  // of a tape access at every point; else nullptr
  bool base = false;                // of an OpKernel: element i is read for element i of the result
};
struct Accesses {
  std::vector<Access> reads, writes;
};

// A program under inspection, and the results so far.
class Inspection {
 public:
  Inspection(const Program& program, const Storage& storage)
      : program(program), storage(storage) {}

  const Program& program;
  const Storage& storage;          // of the device that will run it
  std::int64_t kernel = -1;        // the kernel under inspection; -1: none
  std::vector<Accesses> accesses;  // per kernel so far

  [[noreturn]] void fail(const std::string& what) const;

  // list[index]. Fails if there is none: "<what> 7 is out of range, there are 3".
  template <class T>
  const T& item(const std::vector<T>& list, std::int64_t index, const std::string& what) const {
    if (index < 0 || index >= static_cast<std::int64_t>(list.size()))
      fail(what + " " + std::to_string(index) + " is out of range, there are " +
           std::to_string(list.size()));
    return list[static_cast<std::size_t>(index)];
  }
  const BufferSlot& slot(std::int32_t buffer) const;
  std::int64_t elements(std::int32_t buffer) const { return slot(buffer).type.shape.elements(); }

  void read(const Access& access) { accesses.back().reads.push_back(access); }
  // Fails if the buffer is an input, or this kernel already writes it.
  void write(const Access& access);

  // The number of points of a space. Fails beyond max_axes axes or max_tensor_bytes points.
  std::int64_t points(const Dims& extents) const;
  // Fails unless `affine` has a coefficient per axis and stays within max_reach.
  void check_affine(const Affine& affine, const Dims& extents, const std::string& what) const;
};

// The least and the greatest value.
struct Bounds {
  Wide low = 0, high = 0;
  bool within(std::int64_t begin, std::int64_t end) const { return low >= begin && high < end; }
};
std::string text(const Bounds& bounds);  // "3 to 7"

// The values of `affine` over all points of a space without empty axes.
Bounds values_of(const Affine& affine, const Dims& extents);

void check_slots(const Inspection& inspection);
// `results`: number and dtype of the results of the contraction whose epilogue the tape is; nothing
// for a TapeKernel.
void check_tape(Inspection& inspection, const Tape& tape,
                std::optional<std::pair<std::int32_t, DType>> results);
void check_kernel(Inspection& inspection, const TapeKernel& kernel);
void check_kernel(Inspection& inspection, const ContractKernel& kernel);
void check_kernel(Inspection& inspection, const OpKernel& kernel);
void check_memory(const Inspection& inspection);

}  // namespace fluxion::verification
