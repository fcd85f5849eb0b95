#include "tests/random/rules_between.h"

#include <algorithm>

#include "autograd/batching.h"
#include "autograd/rules.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/op_examples.h"

namespace fluxion::testing {

namespace {

thread_local RuleWatch* watching = nullptr;
thread_local const Mutation* breaking = nullptr;
thread_local std::size_t broken_times = 0;

Rule rule_of(Table table, const Node& node) {
  Rule rule{table, node.op, Region::Kind::checkpoint};
  if (node.op == Op::region) rule.kind = std::get<RegionAttributes>(node.attributes).region->kind;
  return rule;
}

// The first tangent there is, in the shape of this output.
Tensor invented_tangent(const Tensors& tangents, const TensorType& output) {
  for (const Tensor& tangent : tangents) {
    if (!tangent) continue;
    if (tangent.shape() == output.shape || !is_floating(output.dtype)) return tangent;
    return broadcast_to(sum(tangent), output.shape);
  }
  return Tensor();
}

// `invent` makes a result where there is none.
template <class Invent>
void break_result(Tensors& results, Table table, Invent invent) {
  const Mutation& mutation = *breaking;
  if (mutation.result >= results.size()) return;
  Tensor& result = results[mutation.result];
  const bool along_examples = table == Table::batching;
  if (!result) {
    if (mutation.fault == Fault::invented) result = invent(mutation.result);
    broken_times += result ? 1 : 0;
    return;
  }
  if (mutation.fault == Fault::invented) return;
  switch (mutation.fault) {
    case Fault::scaled:
      if (!is_floating(result.dtype())) return;
      result = result * 1.001;
      break;
    case Fault::negated:
      if (!is_floating(result.dtype())) return;
      result = -result;
      break;
    case Fault::dropped:
      if (along_examples && result.size(0) < 2) return;
      result =
          along_examples ? broadcast_to(slice_axis(result, 0, 0, 1), result.shape()) : Tensor();
      break;
    case Fault::exchanged: {
      if (along_examples) {
        if (result.size(0) < 2) return;
        result = flip(result, {0});
        break;
      }
      const auto other =
          std::find_if(results.begin() + static_cast<std::ptrdiff_t>(mutation.result) + 1,
                       results.end(), [&](const Tensor& each) {
                         return each && each.type() == result.type() && !each.same_as(result);
                       });
      if (other == results.end()) return;
      std::swap(result, *other);
      break;
    }
    case Fault::invented:
      break;
  }
  ++broken_times;
}

}  // namespace

struct RulesBetween {
  static void note(const Rule& rule, const Tensors& results) {
    for (RuleWatch* each = watching; each; each = each->outer_) {
      each->seen_.insert(rule);
      for (std::size_t i = 0; i < results.size(); ++i)
        (results[i] ? each->given : each->empty).insert({rule, i});
    }
  }
  template <class Invent>
  static Tensors after(Table table, const Node& node, Tensors results, Invent invent) {
    const Rule rule = rule_of(table, node);
    note(rule, results);
    if (breaking && breaking->rule == rule) break_result(results, table, invent);
    return results;
  }
};

RuleWatch::RuleWatch() : outer_(watching) { watching = this; }
RuleWatch::~RuleWatch() { watching = outer_; }

BrokenRule::BrokenRule(const Mutation& mutation) : mutation_(mutation) {
  breaking = &mutation_;
  broken_times = 0;
}
BrokenRule::~BrokenRule() { breaking = nullptr; }
std::size_t times_broken() { return broken_times; }

std::string to_string(const Rule& rule) {
  const char* const tables[] = {"jvp of ", "transpose of ", "batching of "};
  const char* const kinds[] = {"checkpoint", "custom_jvp", "custom_linear", "custom_vjp",
                               "derivative of a custom_vjp"};
  return tables[static_cast<int>(rule.table)] +
         (rule.op == Op::region ? std::string(kinds[static_cast<int>(rule.kind)])
                                : std::string(fluxion::to_string(rule.op)));
}

std::string to_string(const Mutation& mutation) {
  const char* const faults[] = {"scaled", "negated", "dropped", "invented", "exchanged"};
  return to_string(mutation.rule) + ", result " + std::to_string(mutation.result) + " " +
         faults[static_cast<int>(mutation.fault)];
}

}  // namespace fluxion::testing

// ---- what the linker puts in the place of jvp_rule, transpose_rule and batch_rule (their mangled
// names)

using fluxion::Op;
using fluxion::Tensor;
using fluxion::testing::RulesBetween;
using fluxion::testing::Table;

extern "C" {
fluxion::JvpRule __real__ZN7fluxion8jvp_ruleENS_2OpE(Op op);
fluxion::TransposeRule __real__ZN7fluxion14transpose_ruleENS_2OpE(Op op);
fluxion::BatchRule __real__ZN7fluxion10batch_ruleENS_2OpE(Op op);

fluxion::JvpRule __wrap__ZN7fluxion8jvp_ruleENS_2OpE(Op) {
  return [](const fluxion::JvpCall& call) {
    return RulesBetween::after(
        Table::jvp, *call.node, __real__ZN7fluxion8jvp_ruleENS_2OpE(call.node->op)(call),
        [&](std::size_t i) {
          return fluxion::testing::invented_tangent(call.tangents, call.node->outputs[i]);
        });
  };
}

fluxion::TransposeRule __wrap__ZN7fluxion14transpose_ruleENS_2OpE(Op op) {
  if (!__real__ZN7fluxion14transpose_ruleENS_2OpE(op)) return nullptr;
  return [](const fluxion::TransposeCall& call) {
    return RulesBetween::after(Table::transpose, *call.node,
                               __real__ZN7fluxion14transpose_ruleENS_2OpE(call.node->op)(call),
                               [](std::size_t) { return Tensor(); });
  };
}

fluxion::BatchRule __wrap__ZN7fluxion10batch_ruleENS_2OpE(Op op) {
  if (!__real__ZN7fluxion10batch_ruleENS_2OpE(op)) return nullptr;
  return [](const fluxion::BatchCall& call) {
    return RulesBetween::after(Table::batching, *call.node,
                               __real__ZN7fluxion10batch_ruleENS_2OpE(call.node->op)(call),
                               [](std::size_t) { return Tensor(); });
  };
}
}
