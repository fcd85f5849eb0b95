#include "engine/plan/tape_edit.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "engine/plan/view.h"
#include "engine/program/affines.h"

namespace fluxion::plan {

namespace {

void drop_unit_axes(Tape& tape) {
  for (std::size_t k = tape.extents.size(); k-- > 0;) {
    if (tape.extents[k] != 1) continue;
    if (k + static_cast<std::size_t>(tape.reduced_axes) >= tape.extents.size()) --tape.reduced_axes;
    tape.extents.erase(tape.extents.begin() + static_cast<std::ptrdiff_t>(k));
    for_each_affine(tape, [&](Affine& affine) {
      affine.coefficients.erase(affine.coefficients.begin() + static_cast<std::ptrdiff_t>(k));
    });
  }
}

void split_axis(Tape& tape, std::size_t axis, std::int64_t inner) {
  const AxisSplit split{axis, inner};
  IterationSpace space{tape.extents, tape.reduced_axes};
  refine(space, split);
  tape.extents = std::move(space.extents);
  tape.reduced_axes = space.reduced_axes;
  for_each_affine(tape, [&](Affine& affine) { refine(affine, split); });
}

}  // namespace

void merge_axes(Tape& tape) {
  const auto position = [](std::size_t k) { return static_cast<std::ptrdiff_t>(k); };
  // An empty axis merges with any neighbour, which may make others neighbours: repeat.
  for (bool merged = true; merged;) {
    merged = false;
    for (std::size_t k = tape.extents.size(); k-- > 1;) {
      const std::size_t first_reduced =
          tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
      if (k == first_reduced) continue;
      const std::int64_t extent = tape.extents[k];
      bool alike = true;
      for_each_affine(tape, [&](Affine& affine) {
        alike = alike && affine.coefficients[k - 1] == affine.coefficients[k] * extent;
      });
      if (!alike && extent != 0 && tape.extents[k - 1] != 0) continue;
      tape.extents[k - 1] *= extent;
      tape.extents.erase(tape.extents.begin() + position(k));
      for_each_affine(tape, [&](Affine& affine) {
        affine.coefficients.erase(affine.coefficients.begin() + position(k) - 1);
      });
      if (k > first_reduced) --tape.reduced_axes;
      merged = true;
    }
  }
}

bool reorder_along(Tape& tape, BufferId buffer) {
  if (tape.reduced_axes != 0) return false;
  const Affine* address = nullptr;
  for (const TapeLoad& load : tape.loads) {
    if (load.buffer != buffer.number) continue;
    if (!load.guards.empty() || (address && *address != load.address)) return false;
    address = &load.address;
  }
  if (!address || address->constant != 0) return false;
  std::vector<std::size_t> order(tape.extents.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return address->coefficients[a] > address->coefficients[b];
  });
  std::int64_t stride = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    if (tape.extents[order[i]] == 1) continue;
    if (address->coefficients[order[i]] != stride) return false;
    stride *= tape.extents[order[i]];
  }
  const auto permute = [&](Dims& dims) {
    Dims result;
    for (const std::size_t k : order) result.push_back(dims[k]);
    dims = std::move(result);
  };
  permute(tape.extents);
  for_each_affine(tape, [&](Affine& affine) { permute(affine.coefficients); });
  return true;
}

bool common_axes(Tape& a, Tape& b) {
  drop_unit_axes(a);
  drop_unit_axes(b);
  // From the innermost axis outwards, split the longer of two axes to the length of the shorter.
  std::size_t from_end = 0;
  while (from_end < a.extents.size() && from_end < b.extents.size()) {
    const std::size_t i = a.extents.size() - 1 - from_end, j = b.extents.size() - 1 - from_end;
    const std::int64_t x = a.extents[i], y = b.extents[j];
    if (x > y) {
      if (y == 0 || x % y != 0) return false;
      split_axis(a, i, y);
    } else if (y > x) {
      if (x == 0 || y % x != 0) return false;
      split_axis(b, j, x);
    }
    ++from_end;
  }
  return a.extents == b.extents && a.reduced_axes == b.reduced_axes;
}

void append_tape(Tape& a, const Tape& b) {
  const auto loads = static_cast<std::int32_t>(a.loads.size()),
             indices = static_cast<std::int32_t>(a.indices.size()),
             ranges = static_cast<std::int32_t>(a.ranges.size()),
             values = static_cast<std::int32_t>(a.instructions.size());
  a.loads.insert(a.loads.end(), b.loads.begin(), b.loads.end());
  a.indices.insert(a.indices.end(), b.indices.begin(), b.indices.end());
  a.ranges.insert(a.ranges.end(), b.ranges.begin(), b.ranges.end());
  for (TapeInstruction instruction : b.instructions) {
    if (instruction.code == TapeCode::load) instruction.argument += loads;
    if (instruction.code == TapeCode::index) instruction.argument += indices;
    if (instruction.code == TapeCode::in_range) instruction.argument += ranges;
    for (std::int32_t& operand : instruction.operands)
      if (operand >= 0) operand += values;
    a.instructions.push_back(instruction);
  }
  for (TapeStore store : b.stores) {
    store.value += values;
    a.stores.push_back(store);
  }
  tidy(a);
}

void replace_load_by_result(Tape& tape, BufferId buffer, std::int32_t result) {
  for (TapeInstruction& instruction : tape.instructions) {
    if (instruction.code != TapeCode::load ||
        tape.loads[static_cast<std::size_t>(instruction.argument)].buffer != buffer.number)
      continue;
    instruction.code = TapeCode::result;
    instruction.argument = result;
  }
  tidy(tape);
}

void tidy(Tape& tape) {
  std::vector<bool> live(tape.instructions.size(), false);
  for (const TapeStore& store : tape.stores) live[static_cast<std::size_t>(store.value)] = true;
  for (std::size_t i = tape.instructions.size(); i-- > 0;)
    if (live[i])
      for (const std::int32_t operand : tape.instructions[i].operands)
        if (operand >= 0) live[static_cast<std::size_t>(operand)] = true;

  // Rebuild every table with its live entries, each once.
  Tape result;
  result.extents = tape.extents;
  result.reduced_axes = tape.reduced_axes;
  result.streaming = tape.streaming;
  const auto entry = [](auto& table, const auto& item) {
    const auto found = std::find(table.begin(), table.end(), item);
    if (found != table.end()) return static_cast<std::int32_t>(found - table.begin());
    table.push_back(item);
    return static_cast<std::int32_t>(table.size()) - 1;
  };
  using Key = std::tuple<TapeCode, Op, DType, bool, std::int32_t, std::array<std::int32_t, 3>>;
  std::map<Key, std::int32_t> known;
  std::vector<std::int32_t> moved(tape.instructions.size(), -1);
  for (std::size_t i = 0; i < tape.instructions.size(); ++i) {
    if (!live[i]) continue;
    TapeInstruction instruction = tape.instructions[i];
    const auto argument = static_cast<std::size_t>(instruction.argument);
    if (instruction.code == TapeCode::load)
      instruction.argument = entry(result.loads, tape.loads[argument]);
    if (instruction.code == TapeCode::index)
      instruction.argument = entry(result.indices, tape.indices[argument]);
    if (instruction.code == TapeCode::in_range)
      instruction.argument = entry(result.ranges, tape.ranges[argument]);
    for (std::int32_t& operand : instruction.operands)
      if (operand >= 0) operand = moved[static_cast<std::size_t>(operand)];
    const Key key{instruction.code,   instruction.op,       instruction.dtype,
                  instruction.narrow, instruction.argument, instruction.operands};
    const auto [found, fresh] =
        known.try_emplace(key, static_cast<std::int32_t>(result.instructions.size()));
    if (fresh) result.instructions.push_back(instruction);
    moved[i] = found->second;
  }
  for (TapeStore store : tape.stores) {
    store.value = moved[static_cast<std::size_t>(store.value)];
    result.stores.push_back(store);
  }
  tape = std::move(result);
  drop_unit_axes(tape);
}

std::vector<BufferId> reads(const Kernel& kernel) {
  std::vector<BufferId> buffers;
  const auto tape = [&](const Tape& t) {
    for (const TapeLoad& load : t.loads) buffers.emplace_back(load.buffer);
  };
  if (const auto* map = std::get_if<TapeKernel>(&kernel)) tape(map->tape);
  if (const auto* contract = std::get_if<ContractKernel>(&kernel)) {
    for (const ContractTerm& term : contract->terms)
      buffers.insert(buffers.end(), {BufferId(term.lhs.buffer), BufferId(term.rhs.buffer)});
    tape(contract->epilogue);
  }
  if (const auto* op = std::get_if<OpKernel>(&kernel))
    for (const std::int32_t buffer : op->inputs) buffers.emplace_back(buffer);
  std::sort(buffers.begin(), buffers.end());
  buffers.erase(std::unique(buffers.begin(), buffers.end()), buffers.end());
  return buffers;
}

std::vector<BufferId> writes(const Kernel& kernel) {
  std::vector<BufferId> buffers;
  const auto tape = [&](const Tape& t) {
    for (const TapeStore& store : t.stores) buffers.emplace_back(store.buffer);
  };
  if (const auto* map = std::get_if<TapeKernel>(&kernel)) tape(map->tape);
  if (const auto* contract = std::get_if<ContractKernel>(&kernel)) tape(contract->epilogue);
  if (const auto* op = std::get_if<OpKernel>(&kernel))
    for (const std::int32_t buffer : op->outputs) buffers.emplace_back(buffer);
  return buffers;
}

}  // namespace fluxion::plan
