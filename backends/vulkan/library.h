// A shared library that is opened at run time.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fluxion::vulkan_backend {

// What the Vulkan loader is called on this system, the likeliest first.
std::vector<std::string> system_loader_names();

class SharedLibrary {
 public:
  // Opens the first of these names that the system finds. Throws DeviceError, with the system's
  // reason, if there is none.
  explicit SharedLibrary(std::span<const std::string> names);
  // The address of a function, or nullptr.
  void* find(const char* name) const;

 private:
  std::shared_ptr<void> handle_;
};

}  // namespace fluxion::vulkan_backend
