#include "backends/cpu/tape/affine_runs.h"

#include <algorithm>

#include "engine/error.h"

namespace fluxion::cpu_backend {

std::int64_t coefficient(const Affine& affine, int axis) {
  return static_cast<std::size_t>(axis) < affine.coefficients.size()
             ? affine.coefficients[static_cast<std::size_t>(axis)]
             : 0;
}

AffineRuns::AffineRuns(const Dims& extents, const std::vector<int>& axes,
                       const std::vector<const Affine*>& functions)
    : functions_(functions.size()) {
  for (const int axis : axes) {
    const std::int64_t extent = extents[static_cast<std::size_t>(axis)];
    if (extent == 1) continue;
    std::vector<std::int64_t> steps;
    for (const Affine* function : functions) steps.push_back(coefficient(*function, axis));
    for (const std::int64_t step : steps) varies_ = varies_ || step != 0;
    bool merges = !extents_.empty();
    for (std::size_t f = 0; merges && f < functions_; ++f)
      merges = steps_[steps_.size() - functions_ + f] == steps[f] * extent;
    if (merges) {
      extents_.back() *= extent;
      std::copy(steps.begin(), steps.end(), steps_.end() - static_cast<std::ptrdiff_t>(functions_));
    } else {
      extents_.push_back(extent);
      steps_.insert(steps_.end(), steps.begin(), steps.end());
    }
  }
  if (extents_.empty()) {
    extents_.push_back(1);
    steps_.resize(functions_, 0);
  }
  if (extents_.size() > static_cast<std::size_t>(max_axes))
    throw Error("cpu: a kernel has an iteration space of more than " + std::to_string(max_axes) +
                " axes");
}

Access::Access(const Dims& extents, const AxisGroups& groups, const Affine& address,
               const std::vector<AffineRange>& valid) {
  std::vector<const Affine*> functions{&address};
  constant.push_back(address.constant);
  low.push_back(0);
  high.push_back(0);
  for (const AffineRange& range : valid) {
    functions.push_back(&range.index);
    constant.push_back(range.index.constant);
    low.push_back(range.low);
    high.push_back(range.high);
  }
  if (functions.size() > static_cast<std::size_t>(AffineRuns::max_functions))
    throw Error("cpu: a load is limited by more than " +
                std::to_string(AffineRuns::max_functions - 1) + " ranges");
  batch = AffineRuns(extents, groups.batch, functions);
  rows = AffineRuns(extents, groups.rows, functions);
  columns = AffineRuns(extents, groups.columns, functions);
}

std::int64_t points(const Dims& extents, const std::vector<int>& axes) {
  std::int64_t product = 1;
  for (const int axis : axes) product *= extents[static_cast<std::size_t>(axis)];
  return product;
}

}  // namespace fluxion::cpu_backend
