#include <filesystem>

#include "backends/vulkan/library.h"
#include "engine/error.h"
#include "engine/platform/system_windows.h"

namespace fluxion::vulkan_backend {

std::vector<std::string> system_loader_names() { return {"vulkan-1.dll"}; }

SharedLibrary::SharedLibrary(std::span<const std::string> names) {
  std::string reasons;
  for (const std::string& name : names) {
    if (const HMODULE library = ::LoadLibraryW(std::filesystem::path(name).c_str())) {
      handle_.reset(library, [](void* opened) { ::FreeLibrary(static_cast<HMODULE>(opened)); });
      return;
    }
    reasons += (reasons.empty() ? "" : "; ") + name + ": " + reason_of(::GetLastError());
  }
  throw DeviceError("vulkan: the Vulkan loader can't be opened (" + reasons +
                    "); install your GPU's driver, or set FLUXION_VULKAN_LIBRARY to its path");
}

void* SharedLibrary::find(const char* name) const {
  return reinterpret_cast<void*>(::GetProcAddress(static_cast<HMODULE>(handle_.get()), name));
}

}  // namespace fluxion::vulkan_backend
