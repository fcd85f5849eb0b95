#include <dlfcn.h>

#include "backends/vulkan/library.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

std::vector<std::string> system_loader_names() {
#if defined(__APPLE__)
  return {"libvulkan.1.dylib", "libvulkan.dylib", "libMoltenVK.dylib"};
#else
  return {"libvulkan.so.1", "libvulkan.so"};
#endif
}

SharedLibrary::SharedLibrary(std::span<const std::string> names) {
  std::string reasons;
  for (const std::string& name : names) {
    if (void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      handle_.reset(handle, [](void* opened) { dlclose(opened); });
      return;
    }
    const char* const reason = dlerror();
    reasons += (reasons.empty() ? "" : "; ") + (reason ? std::string(reason) : name);
  }
  throw DeviceError(
      "vulkan: the Vulkan loader can't be opened (" + reasons +
      "); install it (Debian: libvulkan1), or set FLUXION_VULKAN_LIBRARY to its path");
}

void* SharedLibrary::find(const char* name) const { return dlsym(handle_.get(), name); }

}  // namespace fluxion::vulkan_backend
