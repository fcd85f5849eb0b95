#include "tests/random/survey.h"

#include <algorithm>

#include "backends/reference/reference.h"
#include "engine/graph/op_names.h"

namespace fluxion::testing {

RandomProgram numbered_program(std::uint64_t seed, std::uint64_t number) {
  Choices choices((seed << 40) + number);
  return draw_program(choices);
}

RandomProgram smallest_failing(const RandomProgram& program, const CheckDevices& devices,
                               const CheckOptions& options) {
  return shrink(program, [&](RandomProgram candidate) {
    return !place_and_check(candidate, devices, options).failure.empty();
  });
}

void Survey::add(const RandomProgram& program, const CheckResult& result) {
  if (!result.placed) {
    ++refused;
    return;
  }
  ++programs;
  if (!result.conditioned) ++unconditioned;
  if (result.taken_over > 0) ++taking_over;
  static const Device device = reference();
  int count = 0;
  const std::vector<Tensor> outputs = build(program, make_inputs(program, device, DType::f64));
  for (const auto& [op, times] : count_ops(outputs)) {
    ++with_op[op];
    if (info(op).op_class != OpClass::leaf) count += times;
  }
  ++with_op[Op::parameter];  // as compile() and vmap see the inputs
  nodes.push_back(count);
}

int Survey::median_nodes() const {
  std::vector<int> sorted = nodes;
  std::sort(sorted.begin(), sorted.end());
  return sorted.empty() ? 0 : sorted[sorted.size() / 2];
}

std::string Survey::text() const {
  std::string result = std::to_string(programs) + " programs checked, " + std::to_string(refused) +
                       " refused (near a kink), " + std::to_string(unconditioned) +
                       " without finite differences, " + std::to_string(taking_over) +
                       " took over donated memory; median of " + std::to_string(median_nodes()) +
                       " nodes\nprograms with each op:";
  std::vector<std::pair<std::int64_t, Op>> order;
  for (const auto& [op, times] : with_op) order.emplace_back(times, op);
  std::sort(order.begin(), order.end());
  for (const auto& [times, op] : order)
    result += " " + std::string(to_string(op)) + " " + std::to_string(times);
  return result + "\n";
}

std::string Survey::rare(double part) const {
  std::string names;
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    const auto found = with_op.find(op);
    if (found != with_op.end() &&
        static_cast<double>(found->second) >= part * static_cast<double>(programs))
      continue;
    names += (names.empty() ? "" : ", ") + std::string(to_string(op));
  }
  return names;
}

}  // namespace fluxion::testing
