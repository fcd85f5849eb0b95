#include "backends/vulkan/kernels/folded_groups.h"

#include <algorithm>

#include "engine/divide.h"

namespace fluxion::vulkan_backend {

FoldedGroups::FoldedGroups(std::int64_t count, std::uint32_t most_on_an_axis) : count_(count) {
  const std::int64_t most = most_on_an_axis;
  const std::int64_t x = std::min(count, most), rest = ceil_div(count, x), y = std::min(rest, most),
                     z = ceil_div(rest, y);
  groups_ = {static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(y),
             static_cast<std::uint32_t>(z)};
}

void FoldedGroups::for_each(spirv::Module& module,
                            const std::function<void(spirv::Value)>& body) const {
  using spirv::Value;
  Value number = module.workgroup_id(0);
  if (groups_[1] > 1) number = number + module.workgroup_id(1) * module.u32(groups_[0]);
  if (groups_[2] > 1)
    number = number + module.workgroup_id(2) * module.u32(groups_[0] * groups_[1]);
  const std::int64_t all = std::int64_t{groups_[0]} * groups_[1] * groups_[2];
  if (all == count_)
    body(number);
  else
    module.if_then(number < module.u32(static_cast<std::uint32_t>(count_)), [&] { body(number); });
}

}  // namespace fluxion::vulkan_backend
