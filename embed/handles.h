// What the files of the C API share: handles, structures that say their size, and exceptions that
// become a status.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/open_device.h"
#include "embed/fluxion.h"
#include "embed/generator.h"
#include "engine/device.h"

#define FLUXION_TEXT_OF(x) #x
#define FLUXION_TEXT(x) FLUXION_TEXT_OF(x)
#define FLUXION_HEADER_VERSION        \
  FLUXION_TEXT(FLUXION_VERSION_MAJOR) \
  "." FLUXION_TEXT(FLUXION_VERSION_MINOR) "." FLUXION_TEXT(FLUXION_VERSION_PATCH)

namespace fluxion {

// A device, and the most memory that was seen in use on it.
struct OpenDevice {
  OpenDevice(Device opened, const OpenOptions& options)
      : device(std::move(opened)),
        budget(options.memory_budget == no_limit ? 0 : options.memory_budget) {}
  Device device;
  std::uint64_t budget;  // 0: no limit
  std::atomic<std::uint64_t> peak{0};

  void note_peak() {
    const std::uint64_t now = device.backend().in_use().total();
    std::uint64_t seen = peak.load(std::memory_order_relaxed);
    while (seen < now && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
  }
};

// Fills in the caller's error, unless that is nullptr; returns the status.
fluxion_status report(fluxion_error* error, fluxion_status status, const char* message) noexcept;
// Call it in a catch block: what the exception says, as a status.
fluxion_status report_exception(fluxion_error* error) noexcept;

template <class Body>
fluxion_status guarded(fluxion_error* error, const Body& body) noexcept {
  try {
    body();
  } catch (...) {
    return report_exception(error);
  }
  return report(error, FLUXION_OK, "");
}

template <class T>
T& required(T* pointer, const char* function, const char* argument) {
  if (!pointer) throw InvalidArgument(std::string(function) + ": " + argument + " is NULL");
  return *pointer;
}

// The size of a structure in the version that had it first: a caller that was compiled with that
// header has no more.
template <class T>
constexpr std::size_t first_bytes = sizeof(T);
template <>
inline constexpr std::size_t first_bytes<fluxion_request> = offsetof(fluxion_request, set_guidance);
template <>
inline constexpr std::size_t first_bytes<fluxion_info> = offsetof(fluxion_info, free_guidance);

// No structure of this API will be larger: a size beyond it was never set.
constexpr std::size_t most_struct_bytes = 4096;

template <class T>
std::size_t checked_size(const T& given, const char* function) {
  if ((given.struct_size < sizeof(T) && given.struct_size != first_bytes<T>) ||
      given.struct_size > most_struct_bytes)
    throw InvalidArgument(std::string(function) + ": a struct_size of " +
                          std::to_string(given.struct_size) + "; this structure has " +
                          std::to_string(sizeof(T)) + " bytes, which its initialiser sets");
  return given.struct_size;
}

// The structure as this version knows it: what the caller's has not is unset, and what a later
// version has added must be.
template <class T>
T taken(const T& given, const char* function) {
  const std::size_t size = checked_size(given, function);
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&given);
  for (std::size_t i = sizeof(T); i < size; ++i)
    if (bytes[i] != 0)
      throw InvalidArgument(std::string(function) +
                            ": an option of a later version is set, which version " +
                            FLUXION_HEADER_VERSION " does not have");
  T result{};
  std::memcpy(&result, &given, std::min(size, sizeof(T)));
  return result;
}

template <class T>
void give(T& to, T value, const char* function) {
  const std::size_t size = checked_size(to, function);
  value.struct_size = size;
  std::memcpy(&to, &value, std::min(size, sizeof(T)));
  if (size > sizeof(T))
    std::memset(reinterpret_cast<unsigned char*>(&to) + sizeof(T), 0, size - sizeof(T));
}

std::filesystem::path path_of(const char* text);

}  // namespace fluxion

struct fluxion_device {
  std::shared_ptr<fluxion::OpenDevice> open;
};

struct fluxion_generator {
  std::shared_ptr<fluxion::OpenDevice> on;
  fluxion::Generator generator;
  std::vector<const char*> class_names;

  fluxion_generator(const fluxion::StoredSampler& sampler,
                    std::shared_ptr<fluxion::OpenDevice> device)
      : on(std::move(device)), generator(sampler, on->device) {
    for (const std::string& name : generator.sampler().class_names)
      class_names.push_back(name.c_str());
    on->note_peak();
  }
};

struct fluxion_cancel {
  std::stop_source source;
};

namespace fluxion {

// Throw InvalidArgument.
SampleRequest request_of(const fluxion_generator& generator, const fluxion_request& given);
OpenOptions open_options_of(const fluxion_device_options* given, const char* function);

}  // namespace fluxion
