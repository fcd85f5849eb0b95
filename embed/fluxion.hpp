// The C API of fluxion.h for C++17: handles that close themselves, errors as exceptions. This
// header alone; there is nothing to link but the runtime.
//
//   fluxion::runtime::Device device;
//   fluxion::runtime::Generator digits(device, "digits.fxn");
//   std::vector<std::uint8_t> pixels = digits.pixels({.seed = 7, .count = 4});   // (C++20)
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fluxion.h"

namespace fluxion {
namespace runtime {

// What a call of the C API said; status() is one of fluxion_status.
class Error : public std::runtime_error {
 public:
  Error(fluxion_status status, const char* message)
      : std::runtime_error(message), status_(status) {}
  fluxion_status status() const noexcept { return status_; }

 private:
  fluxion_status status_;
};

inline void require(fluxion_status status, const fluxion_error& error) {
  if (status != FLUXION_OK) throw Error(status, error.message);
}

struct DeviceInfo {
  std::string name, description, kind, driver;
  std::string refused;  // why it can't be used; empty: it can
  std::uint64_t memory_bytes = 0;
  bool preferred = false;
};

// The CPU and all GPUs of this machine.
inline std::vector<DeviceInfo> devices() {
  struct List {
    std::vector<DeviceInfo> devices;
    std::exception_ptr failure;
  } list;
  fluxion_error error;
  const fluxion_status status = fluxion_list_devices(
      [](void* data, const fluxion_device_info* info) {
        List& to = *static_cast<List*>(data);
        try {
          to.devices.push_back({info->name, info->description, info->kind, info->driver,
                                info->refused, info->memory_bytes, info->preferred != 0});
        } catch (...) {
          to.failure = std::current_exception();
        }
      },
      &list, &error);
  if (list.failure) std::rethrow_exception(list.failure);
  require(status, error);
  return std::move(list.devices);
}

// See fluxion_device_open.
class Device {
 public:
  explicit Device(const std::string& name = "cpu", std::uint64_t memory_budget = 0) {
    fluxion_device_options options = FLUXION_DEVICE_OPTIONS;
    options.memory_budget = memory_budget;
    open(name, options);
  }
  Device(const std::string& name, const fluxion_device_options& options) { open(name, options); }
  // On a VkDevice of the application's own: see fluxion_device_from_vulkan.
  explicit Device(const fluxion_vulkan& vulkan, const fluxion_device_options* options = nullptr) {
    fluxion_device* made = nullptr;
    fluxion_error error;
    require(fluxion_device_from_vulkan(&vulkan, options, &made, &error), error);
    handle_.reset(made);
  }

  std::string description() const {
    const char* const text = fluxion_device_description(get());
    if (!text) throw Error(FLUXION_INVALID_ARGUMENT, "device_description: device is NULL");
    return text;
  }
  fluxion_memory memory() const {
    fluxion_memory memory = FLUXION_MEMORY;
    fluxion_error error;
    require(fluxion_device_memory(get(), &memory, &error), error);
    return memory;
  }
  void trim() {
    fluxion_error error;
    require(fluxion_device_trim(get(), &error), error);
  }
  fluxion_device* get() const noexcept { return handle_.get(); }

 private:
  struct Close {
    void operator()(fluxion_device* device) const noexcept { fluxion_device_close(device); }
  };
  void open(const std::string& name, const fluxion_device_options& options) {
    fluxion_device* made = nullptr;
    fluxion_error error;
    require(fluxion_device_open(name.c_str(), &options, &made, &error), error);
    handle_.reset(made);
  }
  std::unique_ptr<fluxion_device, Close> handle_;
};

// Stops the calls that it was given to, from any thread.
class Cancel {
 public:
  Cancel() {
    fluxion_cancel* made = nullptr;
    fluxion_error error;
    require(fluxion_cancel_create(&made, &error), error);
    handle_.reset(made);
  }
  void request() noexcept { fluxion_cancel_request(handle_.get()); }
  const fluxion_cancel* get() const noexcept { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(fluxion_cancel* cancel) const noexcept { fluxion_cancel_destroy(cancel); }
  };
  std::unique_ptr<fluxion_cancel, Destroy> handle_;
};

// See fluxion_request.
struct Request {
  std::uint64_t seed = 0;
  std::int64_t first = 0, count = 1;
  std::vector<std::int32_t> classes = {};  // one for each sample, or empty
  std::int64_t batch = 0;
  // Returns whether to go on. What it throws leaves generate().
  std::function<bool(std::int64_t done, std::int64_t all)> progress = {};
  const Cancel* cancel = nullptr;
  std::vector<float> noise = {};        // [count, ..shape] as noise() gives it, or empty
  std::optional<double> guidance = {};  // empty: the generator's own
};

// See fluxion_generator_open. All functions may be called from several threads at once.
class Generator {
 public:
  Generator(const Device& device, const std::string& path) {
    fluxion_generator* made = nullptr;
    fluxion_error error;
    require(fluxion_generator_open(device.get(), path.c_str(), &made, &error), error);
    handle_.reset(made);
  }
  Generator(const Device& device, const void* bytes, std::size_t size) {
    fluxion_generator* made = nullptr;
    fluxion_error error;
    require(fluxion_generator_open_memory(device.get(), bytes, size, &made, &error), error);
    handle_.reset(made);
  }

  // Its pointers live as long as the generator.
  fluxion_info info() const {
    fluxion_info info = FLUXION_INFO;
    fluxion_error error;
    require(fluxion_generator_info(get(), &info, &error), error);
    return info;
  }
  // The number of the class with this name, for Request::classes. Throws Error where there is none.
  std::int32_t class_named(std::string_view name) const {
    const fluxion_info known = info();
    std::string names;
    for (std::int64_t i = 0; known.class_names && i < known.classes; ++i) {
      if (name == known.class_names[i]) return static_cast<std::int32_t>(i);
      constexpr std::int64_t most_told = 12;
      if (i <= most_told)
        names.append(i > 0 ? ", " : "").append(i < most_told ? known.class_names[i] : "..");
    }
    const std::string said = "no class is called '" + std::string(name) + "'; " +
                             (names.empty() ? "classes have no names here" : "there are " + names);
    throw Error(FLUXION_INVALID_ARGUMENT, said.c_str());
  }
  // Plans for batches of that size; the bytes that one needs on the device.
  std::uint64_t prepare(std::int64_t batch) const {
    std::uint64_t bytes = 0;
    fluxion_error error;
    require(fluxion_generator_prepare(get(), batch, &bytes, &error), error);
    return bytes;
  }
  // [count, ..shape], row-major.
  std::vector<float> generate(const Request& request = {}) const {
    return run<float>(request, fluxion_generate);
  }
  // [count, height, width, channels].
  std::vector<std::uint8_t> pixels(const Request& request = {}) const {
    return run<std::uint8_t>(request, fluxion_generate_pixels);
  }
  // Into a VkBuffer of the application's: see fluxion_generate_to_vulkan.
  void generate_to(const fluxion_vulkan_target& target, const Request& request = {}) const {
    make(request, [&](const fluxion_request& given, fluxion_error* error) {
      return fluxion_generate_to_vulkan(get(), &given, &target, error);
    });
  }
  // What the samples begin with, [count, ..shape].
  std::vector<float> noise(const Request& request = {}) const {
    return run<float>(request, fluxion_noise);
  }
  fluxion_generator* get() const noexcept { return handle_.get(); }

 private:
  struct Close {
    void operator()(fluxion_generator* generator) const noexcept {
      fluxion_generator_close(generator);
    }
  };
  struct Call {
    const Request& request;
    std::exception_ptr failure;
  };

  static int progress(void* data, std::int64_t done, std::int64_t all) {
    Call& call = *static_cast<Call*>(data);
    try {
      return call.request.progress(done, all) ? 0 : 1;
    } catch (...) {
      call.failure = std::current_exception();
      return 1;
    }
  }

  template <class T, class Function>
  std::vector<T> run(const Request& request, Function function) const {
    std::vector<T> values;
    try {
      values.resize(numbers_of(request));
    } catch (const std::bad_alloc&) {
      throw_too_many();
    }
    make(request, [&](const fluxion_request& given, fluxion_error* error) {
      return function(get(), &given, values.data(), values.size(), error);
    });
    return values;
  }

  [[noreturn]] static void throw_too_many() {
    throw Error(FLUXION_OUT_OF_MEMORY, "generate: more samples than the host's memory can hold");
  }

  std::size_t numbers_of(const Request& request) const {
    if (request.count <= 0) return 0;
    const auto count = static_cast<std::uint64_t>(request.count),
               elements = static_cast<std::uint64_t>(info().elements);
    constexpr std::uint64_t most = static_cast<std::size_t>(-1) / 2 / sizeof(float);
    if (count > most / elements) throw_too_many();
    return static_cast<std::size_t>(count * elements);
  }

  template <class Function>
  void make(const Request& request, Function function) const {
    if (!request.classes.empty() &&
        static_cast<std::int64_t>(request.classes.size()) != request.count)
      throw Error(FLUXION_INVALID_ARGUMENT, "generate: wants one class for each sample, or none");
    Call call{request, nullptr};
    fluxion_request given = FLUXION_REQUEST;
    given.seed = request.seed;
    given.first = request.first;
    given.count = request.count;
    given.classes = request.classes.empty() ? nullptr : request.classes.data();
    given.batch = request.batch;
    if (request.progress) {
      given.progress = progress;
      given.progress_data = &call;
    }
    given.cancel = request.cancel ? request.cancel->get() : nullptr;
    if (request.guidance) given.set_guidance = 1, given.guidance = *request.guidance;
    if (!request.noise.empty()) {
      if (request.noise.size() != numbers_of(request))
        throw Error(FLUXION_INVALID_ARGUMENT, "generate: wants noise for each sample, or none");
      given.noise = request.noise.data();
    }
    fluxion_error error;
    const fluxion_status status = function(given, &error);
    if (call.failure) std::rethrow_exception(call.failure);
    require(status, error);
  }

  std::unique_ptr<fluxion_generator, Close> handle_;
};

}  // namespace runtime
}  // namespace fluxion
