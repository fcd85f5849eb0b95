// The part of a driver that compiles, pretended: each pipeline takes as many bytes of the cache
// that it is made with as a test says. (The software device's driver keeps nothing there.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "backends/vulkan/api.h"
#include "backends/vulkan/capabilities.h"
#include "backends/vulkan/kernel.h"

namespace fluxion::testing {

// What there is, and was.
struct PretendedDriver {
  static constexpr std::size_t pipeline_bytes = 1000;
  static constexpr std::size_t header_bytes = 32;

  int caches = 0, most_caches = 0, pipelines = 0, modules = 0, layouts = 0;
  int compiled = 0;               // not found in the cache
  int misused = 0;                // a cache was destroyed while a pipeline was made with it
  std::size_t largest_cache = 0;  // bytes of its data
  bool refuses_caches = false;    // out of memory when one is to be made
  bool hides_data = false;        // says that caches have none
};

// One at a time: the functions are C, and know it by a variable of its file.
class Pretended {
 public:
  Pretended();
  ~Pretended();
  Pretended(const Pretended&) = delete;
  Pretended& operator=(const Pretended&) = delete;

  const vulkan_backend::DeviceFunctions& call() const { return call_; }
  const vulkan_backend::DeviceFacts& facts() const { return facts_; }
  PretendedDriver state() const;
  void refuse_caches(bool refuse);
  void hide_data();

 private:
  vulkan_backend::DeviceFunctions call_;
  vulkan_backend::DeviceFacts facts_;
};

// A shader that is different for each number, with as many bytes as its pipeline takes.
vulkan_backend::Shader numbered_shader(std::uint32_t number);

}  // namespace fluxion::testing
