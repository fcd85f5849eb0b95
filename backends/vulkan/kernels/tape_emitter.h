// Emits the instructions of a tape at one point of its iteration space, or at four or eight
// neighbours.
//
// As the epilogue of a product, for each point of a register tile:
//
//   TapeEmitter tape(module, bindings, kernel.epilogue);          // once a shader
//   module.if_then(inside, [&] {
//     tape.emit(coordinates, [&](std::int32_t result, std::uint32_t) { return sums[result]; });
//   });
//
// emit() loads, computes and stores. A caller that needs parts - a row reduction - calls move_to(),
// value() and store() instead. Values are emitted when they are first asked for, where the module
// then stands: a value that is asked for again must still be in scope there.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backends/vulkan/kernels/tensor_memory.h"

namespace fluxion::vulkan_backend {

class TapeEmitter {
 public:
  // Result number `result` of the contraction at lane `lane`, 0 to width - 1.
  using Results = std::function<spirv::Value(std::int32_t result, std::uint32_t lane)>;

  // With width 4 or 8 a point is as many neighbours along the last axis: coordinates are those of
  // the first, a multiple of the width on that axis, whose extent is a multiple of it too. Loads
  // and stores that are contiguous there move as many elements at once as 16 bytes hold. (If no
  // axis is reduced, the neighbours are of as many rows: reductions differ between them.) The tape
  // must outlive the emitter. Throws DTypeError if the tape holds f64 or i64.
  TapeEmitter(spirv::Module& module, ShaderBindings& bindings, const Tape& tape,
              std::uint32_t width = 1);

  static constexpr std::uint32_t most_width = 8;

  // Whether `width` neighbours may be taken at once, and whether at least one load or store then
  // moves them at once.
  static bool takes(const Tape& tape, std::uint32_t width);
  static bool gains_from(const Tape& tape, std::uint32_t width, const Storage& storage);

  // Moves to the point with these coordinates (u32), one for each axis of the iteration space.
  // Forgets the values of the point before, but not those that are constant along the row.
  void move_to(std::vector<spirv::Value> coordinates);
  // Also forgets those.
  void move_to_row(std::vector<spirv::Value> coordinates);

  // The value of an instruction at the point. Of `reduce` it must have been set.
  spirv::Value value(std::int32_t instruction, std::uint32_t lane = 0);
  // Replaces the value of an instruction; of one that is constant along the row until the next
  // move_to_row.
  void set_value(std::int32_t instruction, spirv::Value value, std::uint32_t lane = 0);
  bool has_value(std::int32_t instruction) const {
    return static_cast<bool>(values_[static_cast<std::size_t>(instruction)][0]);
  }

  // Writes the values of these stores at the point. All values are computed before the first is
  // written, because outputs may take over the memory of inputs.
  void store(std::span<const std::int32_t> stores);

  // All of the tape at one point.
  void emit(std::vector<spirv::Value> coordinates, const Results& results = nullptr);

  std::uint32_t width() const { return width_; }

 private:
  using Lanes = std::array<spirv::Value, most_width>;

  spirv::Value address(const Affine& affine, std::uint32_t lane) const;
  spirv::Value holds(const AffineRange& range, std::uint32_t lane) const;
  bool varies(const Affine& affine) const;
  Lanes lanes_of(std::int32_t instruction);
  Lanes load(const TapeLoad& load, spirv::Type type);
  // How many neighbours a load or store moves at once: 8, 4 or 1.
  template <class Access>
  std::uint32_t moved_at_once(const Access& access, const TensorMemory& memory) const;
  spirv::Value scalar(std::int32_t number, spirv::Type type) const;
  const TensorMemory& memory(std::int32_t buffer, bool reads, bool writes);

  spirv::Module& module_;
  ShaderBindings& bindings_;
  const Tape& tape_;
  const std::uint32_t width_;
  Results results_;
  std::vector<spirv::Value> coordinates_;
  std::vector<Lanes> values_;
  std::vector<bool> varies_;  // by instruction: differs between the lanes
  std::vector<std::pair<std::int32_t, TensorMemory>> memories_;
};

// The same work over fewer axes: those of one element are dropped, and neighbours through which
// every address runs on as through one are merged. Row axes stay row axes.
Tape simplified(const Tape& tape);

// The coordinates of point `index` (u32, below 2^31) in row-major order of these extents.
std::vector<spirv::Value> coordinates_of(spirv::Value index, std::span<const std::int64_t> extents);

}  // namespace fluxion::vulkan_backend
