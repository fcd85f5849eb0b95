// Workgroups by one number, folded over the axes of a dispatch.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "backends/vulkan/spirv/module.h"

namespace fluxion::vulkan_backend {

// `count` workgroups, folded over the axes of a dispatch.
class FoldedGroups {
 public:
  FoldedGroups(std::int64_t count, std::uint32_t most_on_an_axis);
  std::array<std::uint32_t, 3> groups() const { return groups_; }
  // Calls `body` with the number of the workgroup; not in those beyond `count`.
  void for_each(spirv::Module& module, const std::function<void(spirv::Value)>& body) const;

 private:
  std::int64_t count_;
  std::array<std::uint32_t, 3> groups_;
};

}  // namespace fluxion::vulkan_backend
