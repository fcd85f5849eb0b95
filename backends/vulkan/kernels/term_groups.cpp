#include <algorithm>
#include <optional>

#include "backends/vulkan/kernels/gemm.h"

namespace fluxion::vulkan_backend {

namespace {

// Distinct operands of terms so far.
struct OperandSet {
  std::vector<ContractOperand> operands;

  std::optional<std::size_t> find(const ContractOperand& operand) const {
    const auto found = std::find(operands.begin(), operands.end(), operand);
    if (found == operands.end()) return std::nullopt;
    return static_cast<std::size_t>(found - operands.begin());
  }
  std::size_t size_with(const ContractOperand& operand) const {
    return operands.size() + (find(operand) ? 0 : 1);
  }
  std::size_t add(const ContractOperand& operand) {
    if (const auto found = find(operand)) return *found;
    operands.push_back(operand);
    return operands.size() - 1;
  }
};

struct OpenGroup {
  OperandSet lhs, rhs;
  std::vector<TileTerm> terms;

  bool shares_with(const ContractTerm& term) const {
    return lhs.find(term.lhs).has_value() || rhs.find(term.rhs).has_value();
  }
  void add(const ContractTerm& term) {
    terms.push_back({lhs.add(term.lhs), rhs.add(term.rhs), static_cast<std::size_t>(term.result)});
  }
};

template <class Fits>
std::vector<OpenGroup> grouped(const ContractKernel& kernel, Fits fits) {
  std::vector<OpenGroup> groups;
  for (const ContractTerm& term : kernel.terms) {
    const auto group = std::find_if(groups.begin(), groups.end(), [&](const OpenGroup& each) {
      return each.shares_with(term) &&
             fits(each.lhs.size_with(term.lhs), each.rhs.size_with(term.rhs));
    });
    if (group != groups.end())
      group->add(term);
    else
      groups.emplace_back().add(term);
  }
  return groups;
}

}  // namespace

std::vector<TermGroup> group_terms(const ContractKernel& kernel, const Storage& storage,
                                   const GemmTile& tile, std::uint32_t shared_limit) {
  std::vector<TermGroup> groups;
  for (const OpenGroup& open : grouped(kernel, [&](std::size_t lhs, std::size_t rhs) {
         return tile_bytes(tile, lhs, rhs) <= shared_limit;
       })) {
    TermGroup group;
    for (const ContractOperand& each : open.lhs.operands)
      group.lhs.push_back(OperandView::of_lhs(each, storage.kept(kernel.lhs)));
    for (const ContractOperand& each : open.rhs.operands)
      group.rhs.push_back(OperandView::of_rhs(each, storage.kept(kernel.rhs)));
    group.terms = open.terms;
    groups.push_back(std::move(group));
  }
  return groups;
}

GemmProblem problem_of(const ContractKernel& kernel) {
  GemmProblem problem{kernel.batch,   kernel.m, kernel.n, kernel.k,
                      kernel.results, 0,        0,        kernel.terms.size()};
  for (const OpenGroup& group : grouped(kernel, [](std::size_t, std::size_t) { return true; })) {
    problem.lhs = std::max(problem.lhs, group.lhs.operands.size());
    problem.rhs = std::max(problem.rhs, group.rhs.operands.size());
  }
  return problem;
}

}  // namespace fluxion::vulkan_backend
