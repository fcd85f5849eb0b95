// Coverage by construction: a walk over the op table that fails on any hole among op x {backend x
// dtype, jvp, transpose, batching}. A cell is covered when a check of an example really ran it -
// the value compared, the rule called on the way to a derivative or a batch that was compared. What
// is missing must be in the list of refusals below, with its reason.
//
// The table is in docs/coverage.md (tests/autograd/coverage_page.h says how to update it).
#include <cmath>
#include <map>
#include <optional>

#include "autograd/rules.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/autograd/coverage_page.h"
#include "tests/catch.h"
#include "tests/random/program.h"
#include "tests/random/rules_checks.h"
#if FLUXION_WITH_VULKAN
#include "tests/vulkan/run_work.h"
#endif

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const DType dtypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::u32};

// Storage: moved by every op that only moves, multiplied by contractions.
bool in_16_bits(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

enum class Cell { covered, refused, failed, missing };

struct Value {
  Cell cell = Cell::missing;
  std::string failure;
};

bool any_of_dtype_under_test(const OpExample& example) {
  for (const HostValue& value : example.inputs)
    if (value.dtype == DType::f64) return true;
  return false;
}

// The operands with floating values as `dtype`; unsigned ones without a sign.
Tensors operands(const OpExample& example, const Device& device, DType dtype) {
  std::vector<HostValue> inputs = example.inputs;
  if (dtype == DType::u32)
    for (HostValue& value : inputs)
      if (value.dtype == DType::f64)
        for (double& each : value.values) each = std::abs(each);
  return to_tensors(inputs, device, dtype);
}

// Whether the values of an example on the device are those of the reference backend. An op that
// refuses the dtype (DTypeError while the graph is built) has no such cell.
Value compare(const OpExample& example, DType dtype, const Device& device,
              const Device& reference) {
  Tensors got, expected;
  try {
    got = example.f(operands(example, device, dtype)),
    expected = example.f(operands(example, reference, dtype));
  } catch (const DTypeError&) {
    return {Cell::refused, ""};
  }
  if (!count_ops(expected).contains(example.op))
    return {Cell::failed, example.label + " is made without " + std::string(to_string(example.op))};
  // Sums of products of 16-bit operands are f32.
  const double tolerance = dtype == DType::f32 || in_16_bits(dtype) ? 2e-5
                           : dtype == DType::f64                    ? 1e-12
                                                                    : 0;
  eval(got), eval(expected);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const std::string what = difference(got[i], expected[i], tolerance, tolerance);
    if (!what.empty())
      return {Cell::failed, example.label + " in " + std::string(to_string(dtype)) + ": " + what};
  }
  return {Cell::covered, ""};
}

// Values of an op on a device, over all its examples: covered if one was compared and none failed.
Value values(Op op, DType dtype, const Device& device, const Device& reference) {
  Value result;
  for (const OpExample& example : all_examples()) {
    if (example.op != op) continue;
    const bool own_dtype = !any_of_dtype_under_test(example);
    // Operands of other dtypes than the one under test count for their own.
    if (own_dtype && std::none_of(example.inputs.begin(), example.inputs.end(),
                                  [&](const HostValue& value) { return value.dtype == dtype; }))
      continue;
    Value each;
    try {
      each = compare(example, dtype, device, reference);
    } catch (const std::exception& error) {
      each = {Cell::failed, example.label + " in " + std::string(to_string(dtype)) + " on " +
                                device.name() + " threw: " + error.what()};
    }
    if (each.cell == Cell::failed) return each;
    if (each.cell == Cell::covered || result.cell == Cell::missing) result = each;
  }
  return result;
}

// A software device of the Vulkan backend, if there is one on this machine.
std::optional<Device> vulkan_device() {
#if FLUXION_WITH_VULKAN
  return software_vulkan();
#else
  return std::nullopt;
#endif
}

// Cells of values that no example has to cover.
std::string refusal_of_value(Op op, DType dtype) {
  if (op == Op::data || op == Op::parameter) return "operands of every example come in through it";
  if ((op == Op::random_bits || op == Op::shift_right) && dtype != DType::u32) return "u32 only";
  return "";
}

bool has_rule(const Rule& rule) {
  if (rule.table != Table::transpose) return true;
  if (rule.op == Op::region)
    return rule.kind != Region::Kind::custom_jvp && rule.kind != Region::Kind::custom_vjp;
  return transpose_rule(rule.op) != nullptr;
}

std::string row_name(Op op, Region::Kind kind) {
  const std::string name = to_string(Rule{Table::jvp, op, kind});
  return name.substr(std::string("jvp of ").size());
}

}  // namespace

TEST_CASE(
    "no op of the table has a hole: every backend, dtype, derivative and batch of it is checked",
    "[coverage]") {
  const Device on_cpu = cpu({1}), on_reference = reference();
  const std::optional<Device> on_vulkan = vulkan_device();
  std::map<std::string, int> reasons;  // numbered footnotes
  const auto footnote = [&](const std::string& reason) {
    const int number =
        reasons.try_emplace(reason, static_cast<int>(reasons.size()) + 1).first->second;
    return "[" + std::to_string(number) + "]";
  };
  std::string text;
  int cells = 0;
  const auto rule_cell = [&](const Rule& rule) -> std::string {
    if (!has_rule(rule)) return "not linear";
    const bool ran = reached_rules().by.contains(rule);
    const auto refused = refused_rules().find(rule);
    if (refused != refused_rules().end()) {
      if (ran) FAIL_CHECK(testing::to_string(rule) << " is on the list of refusals, but it ran");
      return footnote(refused->second);
    }
    if (!ran) {
      FAIL_CHECK("no check of an example ran the " << testing::to_string(rule));
      return "MISSING";
    }
    ++cells;
    return "yes";
  };
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    const bool region = op == Op::region;
    std::string value_cells;
    for (const DType dtype : dtypes) {
      const std::string reason = refusal_of_value(op, dtype);
      if (!reason.empty()) {
        value_cells += " " + footnote(reason) + " |";
        continue;
      }
      const Value value = values(op, dtype, on_cpu, on_reference);
      if (!value.failure.empty()) FAIL_CHECK(value.failure);
      // f32 and f64 are everybody's; 16-bit floats and integers where the shape rule takes them.
      if (value.cell == Cell::missing ||
          (value.cell == Cell::refused && is_floating(dtype) && !in_16_bits(dtype)))
        FAIL_CHECK("no example of " << to_string(op) << " was compared in " << to_string(dtype));
      // The Vulkan backend has no f64; a machine without a driver takes its cells on trust.
      const bool has_vulkan = dtype != DType::f64;
      if (on_vulkan && has_vulkan) {
        const Value there = values(op, dtype, *on_vulkan, on_reference);
        if (!there.failure.empty()) FAIL_CHECK(there.failure);
        if (there.cell != value.cell)
          FAIL_CHECK(to_string(op) << " in " << to_string(dtype) << " is covered on one backend");
      }
      value_cells += value.cell == Cell::covered   ? " yes |"
                     : value.cell == Cell::refused ? " no |"
                                                   : " MISSING |";
      if (value.cell == Cell::covered) cells += has_vulkan ? 3 : 2;  // backends
    }
    for (int kind = 0; kind < (region ? 5 : 1); ++kind) {
      const auto each = static_cast<Region::Kind>(kind);
      text += "| " + row_name(op, each) + " |" + value_cells;
      for (const Table table : {Table::jvp, Table::transpose, Table::batching})
        text += " " + rule_cell({table, op, each}) + " |";
      text += "\n";
    }
  }
  std::string notes;
  std::map<int, std::string> numbered;
  for (const auto& [reason, at] : reasons) numbered[at] = reason;
  for (const auto& [at, reason] : numbered)
    notes += "- [" + std::to_string(at) + "] " + reason + "\n";
  const std::string whole =
      "# Coverage\n\nWritten by two tests. The table of ops is that of "
      "tests/autograd/test_coverage.cpp, which "
      "fails where an op of "
      "`engine/graph/ops.def` has a hole. *yes*: a check of an "
      "example ran "
      "it and compared the result.\nbf16 and f16 are storage: ops that move take them, and "
      "contractions, which add up in f32.\nf32 to "
      "u32: the values on the CPU backend and, but for f64, on the Vulkan backend against those of "
      "the reference "
      "backend, in that dtype (*no*: the op's shape rule "
      "refuses the dtype). jvp: against finite differences.\ntranspose: <u, Jv> = <J'u, v>, for "
      "linear ops. batching: vmap against a loop.\n\n" +
      std::to_string(cells) +
      " cells are covered.\n\n| op | f32 | f64 | bf16 | f16 | i32 | u32 | jvp | transpose | "
      "batching |\n|---|---|---|---|---|---|---|---|---|---|\n" +
      text + "\nRefusals:\n\n" + notes;
  INFO("docs/coverage.md is not what this test would write; see tests/autograd/coverage_page.h");
  CHECK((CoveragePage::committed(CoveragePage::ops, whole) == whole));
}
