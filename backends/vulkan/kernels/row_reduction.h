// Reductions inside of a workgroup: running values of one invocation, and trees over invocations.
#pragma once

#include <vector>

#include "backends/vulkan/spirv/module.h"
#include "engine/graph/op.h"

namespace fluxion::vulkan_backend {

// What op - sum, max or min - gives over nothing.
spirv::Value neutral_value(spirv::Module& module, Op op, spirv::Type type);
// NaN wins over all in max and min; integers wrap in sums.
spirv::Value combined(Op op, spirv::Value a, spirv::Value b);

// The running value of a reduction in f32, i32 or u32. With `compensated` the rounding errors of a
// sum are summed beside it, so that its error does not grow with the number of elements.
class Accumulator {
 public:
  Accumulator(spirv::Module& module, Op op, spirv::Type type, bool compensated);
  void add(spirv::Value value) const;
  spirv::Value total() const;

 private:
  Op op_;
  bool compensated_;
  spirv::Variable value_, lost_;
};

// How the invocations of a workgroup share rows: `slots` rows with `lanes` invocations each.
struct RowLanes {
  std::uint32_t slots = 1, lanes = 1;  // powers of two
  bool slots_first = false;            // neighbouring invocations are of neighbouring rows
  spirv::Value slot(spirv::Module& module) const;
  spirv::Value lane(spirv::Module& module) const;
};

struct LaneValue {
  Op op;  // sum, max, min
  spirv::Value value;
};

// Combines the values of the lanes of each row; every lane gets the results. Uses subgroup
// arithmetic if the target has it and the workgroup has one row.
class LaneReduction {
 public:
  LaneReduction(spirv::Module& module, RowLanes lanes) : module_(module), lanes_(lanes) {}
  // In uniform control flow only.
  std::vector<spirv::Value> reduce(const std::vector<LaneValue>& values);

 private:
  std::vector<spirv::Value> reduce_some(std::span<const LaneValue> values);
  std::vector<spirv::Value> by_subgroups(std::span<const LaneValue> values);
  std::vector<spirv::Value> by_tree(std::span<const LaneValue> values);
  const spirv::SharedArray& shared(std::size_t number);

  spirv::Module& module_;
  const RowLanes lanes_;
  std::vector<spirv::SharedArray> shared_;
  bool used_ = false;
};

}  // namespace fluxion::vulkan_backend
