// Would the checks see a wrong rule? Every rule of the three tables is broken in every way there
// is, one at a time, and some check of an example must fail.
#include <algorithm>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/random/rules_checks.h"
#include "tests/random/survey.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::vector<Mutation> mutations() {
  std::vector<Mutation> all;
  const Reached& reached = reached_rules();
  for (const auto& [rule, result] : reached.given) {
    for (const Fault fault : {Fault::scaled, Fault::negated, Fault::dropped})
      all.push_back({rule, result, fault});
    if (rule.table == Table::batching || reached.given.contains({rule, result + 1}))
      all.push_back({rule, result, Fault::exchanged});
  }
  // Zero derivatives.
  for (const auto& [rule, result] : reached.empty)
    if (rule.table == Table::jvp && !reached.given.contains({rule, result}))
      all.push_back({rule, result, Fault::invented});
  return all;
}

// A fault that is none.
bool harmless(const Mutation& mutation) {
  // The two tangents have one type in rows of one element only, and there both are zero.
  return mutation.rule == Rule{Table::jvp, Op::layer_norm} && mutation.fault == Fault::exchanged;
}

enum class Outcome { caught, missed, nothing_changed };

Outcome outcome(const Mutation& mutation) {
  bool changed = false;
  const BrokenRule broken(mutation);
  for (const ExampleCheck& check : reached_rules().by.at(mutation.rule)) {
    const std::size_t before = times_broken();
    const bool failed = !run(check).empty();
    changed = changed || times_broken() > before;
    if (failed) return Outcome::caught;
  }
  return changed ? Outcome::missed : Outcome::nothing_changed;
}

}  // namespace

TEST_CASE("the checks of the examples hold", "[random][mutation]") {
  for (const std::string& failure : reached_rules().failures) FAIL_CHECK(failure);
}

TEST_CASE("every rule that is broken is caught", "[random][mutation]") {
  std::set<Rule> rules;
  std::size_t caught = 0, tried = 0, vacuous = 0;
  for (const Mutation& mutation : mutations()) {
    if (harmless(mutation)) continue;
    const Outcome result = outcome(mutation);
    if (result == Outcome::nothing_changed) {
      // A boolean has no sign; no two results have one type.
      ++vacuous;
      continue;
    }
    ++tried;
    rules.insert(mutation.rule);
    if (result == Outcome::caught)
      ++caught;
    else
      FAIL_CHECK("not caught: " << to_string(mutation));
  }
  WARN(rules.size() << " rules broken in " << tried << " ways, " << caught << " caught (" << vacuous
                    << " ways changed nothing)");
  CHECK(caught == tried);
  // Each rule that ran was broken in some way.
  for (const auto& [rule, checks] : reached_rules().by)
    if (!rules.contains(rule)) FAIL_CHECK("never broken: " << to_string(rule));
}

TEST_CASE("random programs catch broken rules by themselves", "[random][mutation]") {
  // A sample: what the examples catch, thirty programs with the op catch too.
  const CheckDevices devices{reference(), cpu({1})};
  std::size_t caught = 0, tried = 0;
  for (const Op op : {Op::exp, Op::tanh, Op::div, Op::matmul, Op::where, Op::attention, Op::conv2d,
                      Op::softmax, Op::layer_norm, Op::max})
    for (const Table table : {Table::jvp, Table::batching}) {
      bool found = false;
      std::size_t asked = 0;
      for (std::uint64_t number = 0; number < 400 && asked < 30 && !found; ++number) {
        RandomProgram program = numbered_program(4, number);
        if (!count_ops(build(program, make_inputs(program, devices.cpu, DType::f64))).contains(op))
          continue;
        if (!place(program, devices.reference)) continue;
        ++asked;
        const BrokenRule broken({{table, op}, 0, Fault::scaled});
        found = !check(program, devices).failure.empty();
      }
      ++tried;
      caught += found ? 1 : 0;
      if (!found) FAIL_CHECK("no random program catches " << to_string(Rule{table, op}));
    }
  CHECK(caught == tried);
}
