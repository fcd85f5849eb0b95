// The C API: handles, structures that say their size, and exceptions that become a status.
#include "embed/fluxion.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/open_device.h"
#include "embed/generator.h"
#include "embed/handles.h"
#include "engine/error.h"
#include "engine/platform/host_memory.h"
#include "engine/utf8.h"

static_assert(std::string_view(FLUXION_HEADER_VERSION) == FLUXION_PROJECT_VERSION,
              "fluxion.h states another version than CMakeLists.txt");

namespace fluxion {

// Writes into the caller's memory alone: it must not fail for want of any. A message is one line of
// UTF-8, whatever names of files and their content are among its words.
fluxion_status report(fluxion_error* error, fluxion_status status, const char* message) noexcept {
  if (!error) return status;
  error->status = status;
  const std::string_view text(message);
  std::size_t length = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t found = utf8_length(text, at), bytes = std::max<std::size_t>(found, 1);
    if (length + bytes >= sizeof error->message) break;  // not within a character
    std::memcpy(error->message + length, message + at, bytes);
    const auto first = static_cast<unsigned char>(text[at]);
    if (found == 0 || first < 0x20 || first == 0x7f) error->message[length] = '?';
    length += bytes;
    at += bytes;
  }
  error->message[length] = '\0';
  return status;
}

fluxion_status report_exception(fluxion_error* error) noexcept {
  try {
    throw;
  } catch (const Error& caught) {
    const auto is = [&]<class T>(const T*) { return dynamic_cast<const T*>(&caught) != nullptr; };
    fluxion_status status = FLUXION_INTERNAL;
    if (caught.aftermath() == Aftermath::device_dead)
      status = FLUXION_DEVICE_LOST;
    else if (is(static_cast<const InvalidArgument*>(nullptr)))
      status = FLUXION_INVALID_ARGUMENT;
    else if (is(static_cast<const IoError*>(nullptr)))
      status = FLUXION_CANNOT_READ;
    else if (is(static_cast<const FormatError*>(nullptr)))
      status = FLUXION_BAD_FILE;
    else if (is(static_cast<const DeviceError*>(nullptr)))
      status = FLUXION_NO_DEVICE;
    else if (is(static_cast<const OutOfMemory*>(nullptr)))
      status = FLUXION_OUT_OF_MEMORY;
    else if (is(static_cast<const Cancelled*>(nullptr)))
      status = FLUXION_CANCELLED;
    return report(error, status, caught.what());
  } catch (const std::bad_alloc&) {
    return report(error, FLUXION_OUT_OF_MEMORY, "an allocation on the host failed");
  } catch (const std::length_error&) {
    return report(error, FLUXION_OUT_OF_MEMORY, "more than the host's memory can hold");
  } catch (const std::exception& caught) {
    return report(error, FLUXION_INTERNAL, caught.what());
  } catch (...) {
    return report(error, FLUXION_INTERNAL, "an exception of an unknown type");
  }
}

std::filesystem::path path_of(const char* text) {
#ifdef _WIN32
  // Elsewhere paths are any bytes.
  if (!is_utf8(text)) throw InvalidArgument("a path that is not UTF-8");
#endif
  return std::filesystem::path(reinterpret_cast<const char8_t*>(text));
}

namespace {
// That many elements of a caller's array, as a size in memory.
std::size_t size_of_array(std::int64_t count, std::int64_t elements, std::size_t element_bytes) {
  constexpr std::uint64_t most = std::numeric_limits<std::ptrdiff_t>::max();
  if (static_cast<std::uint64_t>(count) >
      most / element_bytes / static_cast<std::uint64_t>(elements))
    throw InvalidArgument("generate: no array has numbers for " + std::to_string(count) +
                          " samples on this system");
  return static_cast<std::size_t>(count * elements);
}
}  // namespace

SampleRequest request_of(const fluxion_generator& generator, const fluxion_request& given) {
  SampleRequest request{.seed = given.seed, .first = given.first, .count = given.count};
  constexpr std::int64_t most_by_default = 64;
  request.batch = given.batch;
  if (given.batch == 0) request.batch = std::clamp<std::int64_t>(given.count, 1, most_by_default);
  if (given.count < 0) throw InvalidArgument("generate: a count of " + std::to_string(given.count));
  if (given.classes)
    request.classes = {given.classes, size_of_array(given.count, 1, sizeof(*given.classes))};
  if (given.noise)
    request.noise = {
        given.noise,
        size_of_array(given.count, generator.generator.sampler().sample_shape.elements(),
                      sizeof(*given.noise))};
  if (given.set_guidance != 0 && given.set_guidance != 1)
    throw InvalidArgument("generate: set_guidance is " + std::to_string(given.set_guidance) +
                          ", which is neither 0 nor 1");
  if (given.set_guidance == 1) request.guidance = given.guidance;
  if (given.cancel) request.cancel = given.cancel->source.get_token();
  request.progress = [&generator, call = given.progress, data = given.progress_data](
                         std::int64_t done, std::int64_t all) {
    generator.on->note_peak();
    return !call || call(data, done, all) == 0;
  };
  return request;
}

OpenOptions open_options_of(const fluxion_device_options* given, const char* function) {
  fluxion_device_options chosen = FLUXION_DEVICE_OPTIONS;
  if (given) chosen = taken(*given, function);
  OpenOptions open;
  if (chosen.memory_budget != 0)
    open.memory_budget =
        static_cast<std::size_t>(std::min<std::uint64_t>(chosen.memory_budget, no_limit));
  if (chosen.kernel_cache) open.kernel_cache = path_of(chosen.kernel_cache);
  return open;
}

namespace {

// Read, not mapped: a file that is cut short while it is mapped ends the process.
struct Content {
  HostMemory memory;
  std::size_t size;
  std::span<const std::byte> bytes() const { return {memory.get(), size}; }
};
Content read_whole(const std::filesystem::path& path) {
  std::error_code refused;
  const auto fail = [&](const std::string& why) { throw IoError(path.string() + ": " + why); };
  const std::filesystem::file_status status = std::filesystem::status(path, refused);
  if (!std::filesystem::exists(status)) fail(refused ? refused.message() : "there is no such file");
  if (!std::filesystem::is_regular_file(status)) fail("it is not a regular file");
  const std::uintmax_t size = std::filesystem::file_size(path, refused);
  if (refused) fail(refused.message());
  if (size > static_cast<std::uintmax_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    fail("it has more bytes than this system's addresses can count");
  const auto bytes = static_cast<std::size_t>(size);
  Content content{allocate_host_memory(bytes), bytes};
  if (!content.memory) throw std::bad_alloc();
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("it can't be opened for reading");
  // In pieces: the C library of Windows counts the bytes of one read in an int.
  constexpr std::size_t most = std::size_t{1} << 30;
  for (std::size_t done = 0; done < bytes;) {
    const auto piece = static_cast<std::streamsize>(std::min(bytes - done, most));
    file.read(reinterpret_cast<char*>(content.memory.get() + done), piece);
    if (file.gcount() != piece) fail("it can't be read to its end");
    done += static_cast<std::size_t>(piece);
  }
  return content;
}

}  // namespace

}  // namespace fluxion

using namespace fluxion;

const char* fluxion_status_name(std::int32_t status) noexcept {
  switch (status) {
    case FLUXION_OK:
      return "ok";
    case FLUXION_INVALID_ARGUMENT:
      return "invalid argument";
    case FLUXION_CANNOT_READ:
      return "cannot read";
    case FLUXION_BAD_FILE:
      return "bad file";
    case FLUXION_NO_DEVICE:
      return "no device";
    case FLUXION_OUT_OF_MEMORY:
      return "out of memory";
    case FLUXION_CANCELLED:
      return "cancelled";
    case FLUXION_DEVICE_LOST:
      return "device lost";
    case FLUXION_INTERNAL:
      return "internal error";
    default:
      return "unknown status";
  }
}

const char* fluxion_version() noexcept { return FLUXION_HEADER_VERSION; }

// ---- devices

fluxion_status fluxion_list_devices(void (*each)(void* data, const fluxion_device_info* info),
                                    void* data, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    if (!each) throw InvalidArgument("list_devices: the function is NULL");
    for (const ListedDevice& device : list_devices().devices) {
      const fluxion_device_info info{sizeof(fluxion_device_info), device.name.c_str(),
                                     device.description.c_str(),  device.kind.c_str(),
                                     device.driver.c_str(),       device.refused.c_str(),
                                     device.memory_bytes,         device.preferred ? 1 : 0};
      each(data, &info);
    }
  });
}

fluxion_status fluxion_device_open(const char* name, const fluxion_device_options* options,
                                   fluxion_device** device, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "device_open";
    fluxion_device*& to = required(device, function, "device");
    const OpenOptions open = open_options_of(options, function);
    const std::string wanted = name ? name : "cpu";
    try {
      parse_device_name(wanted);
    } catch (const DeviceError& caught) {
      throw InvalidArgument(caught.what());
    }
    auto made = std::make_unique<fluxion_device>();
    made->open = std::make_shared<OpenDevice>(open_device(wanted, open), open);
    to = made.release();
  });
}

void fluxion_device_close(fluxion_device* device) noexcept { delete device; }

const char* fluxion_device_description(const fluxion_device* device) noexcept {
  return device ? device->open->device.name().c_str() : nullptr;
}

fluxion_status fluxion_device_memory(const fluxion_device* device, fluxion_memory* memory,
                                     fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "device_memory";
    OpenDevice& open = *required(device, function, "device").open;
    fluxion_memory& to = required(memory, function, "memory");
    const MemoryUse use = open.device.backend().in_use();
    open.note_peak();
    give(to, {0, use.buffers + use.arenas, use.kept, open.peak.load(), open.budget}, function);
  });
}

fluxion_status fluxion_device_trim(fluxion_device* device, fluxion_error* error) noexcept {
  return guarded(error,
                 [&] { required(device, "device_trim", "device").open->device.backend().trim(); });
}

// ---- generators

fluxion_status fluxion_generator_open(fluxion_device* device, const char* path,
                                      fluxion_generator** generator,
                                      fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "generator_open";
    const std::shared_ptr<OpenDevice>& on = required(device, function, "device").open;
    const std::filesystem::path file = path_of(&required(path, function, "path"));
    fluxion_generator*& to = required(generator, function, "generator");
    const Content content = read_whole(file);
    try {
      to = new fluxion_generator(parse_sampler(content.bytes(), nullptr), on);
    } catch (const FormatError& caught) {
      throw FormatError(file.string() + ": " + caught.what());
    }
  });
}

fluxion_status fluxion_generator_open_memory(fluxion_device* device, const void* bytes,
                                             std::size_t size, fluxion_generator** generator,
                                             fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "generator_open_memory";
    const std::shared_ptr<OpenDevice>& on = required(device, function, "device").open;
    if (!bytes) throw InvalidArgument(std::string(function) + ": bytes is NULL");
    fluxion_generator*& to = required(generator, function, "generator");
    to = new fluxion_generator(parse_sampler({static_cast<const std::byte*>(bytes), size}, nullptr),
                               on);
  });
}

void fluxion_generator_close(fluxion_generator* generator) noexcept { delete generator; }

fluxion_status fluxion_generator_info(const fluxion_generator* generator, fluxion_info* info,
                                      fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "generator_info";
    const fluxion_generator& asked = required(generator, function, "generator");
    fluxion_info& to = required(info, function, "info");
    const StoredSampler& sampler = asked.generator.sampler();
    const Shape& shape = sampler.sample_shape;
    fluxion_info filled = FLUXION_INFO;
    filled.name = sampler.name.c_str();
    filled.shape = shape.dims().data();
    filled.rank = shape.rank();
    filled.elements = shape.elements();
    if (asked.generator.has_images()) {
      filled.height = shape[0];
      filled.width = shape[1];
      filled.channels = shape[2];
    }
    filled.classes = sampler.classes;
    if (!asked.class_names.empty()) filled.class_names = asked.class_names.data();
    if (!sampler.usual_classes.empty()) filled.usual_classes = sampler.usual_classes.data();
    filled.usual_class_count = std::ssize(sampler.usual_classes);
    filled.open_class = sampler.open_class ? 1 : 0;
    filled.steps = std::ssize(sampler.steps);
    filled.evaluations = sampler.evaluations;
    filled.weights = asked.generator.weight_bytes();
    filled.free_guidance = sampler.guidance ? 1 : 0;
    filled.guidance = sampler.guidance.value_or(0);
    give(to, filled, function);
  });
}

fluxion_status fluxion_generator_prepare(const fluxion_generator* generator, std::int64_t batch,
                                         std::uint64_t* bytes, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    const std::uint64_t needed =
        required(generator, "generator_prepare", "generator").generator.prepare(batch);
    if (bytes) *bytes = needed;
  });
}

// ---- samples

fluxion_status fluxion_cancel_create(fluxion_cancel** cancel, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    fluxion_cancel*& to = required(cancel, "cancel_create", "cancel");  // before there is one
    to = new fluxion_cancel();
  });
}

void fluxion_cancel_request(fluxion_cancel* cancel) noexcept {
  if (cancel) cancel->source.request_stop();
}

void fluxion_cancel_destroy(fluxion_cancel* cancel) noexcept { delete cancel; }

fluxion_status fluxion_generate(const fluxion_generator* generator, const fluxion_request* request,
                                float* samples, std::size_t capacity,
                                fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "generate";
    const fluxion_generator& from = required(generator, function, "generator");
    const fluxion_request given = taken(required(request, function, "request"), function);
    if (given.count > 0) required(samples, function, "samples");
    from.generator.generate(request_of(from, given), {samples, samples ? capacity : 0});
  });
}

fluxion_status fluxion_generate_pixels(const fluxion_generator* generator,
                                       const fluxion_request* request, std::uint8_t* pixels,
                                       std::size_t capacity, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "generate_pixels";
    const fluxion_generator& from = required(generator, function, "generator");
    const fluxion_request given = taken(required(request, function, "request"), function);
    if (given.count > 0) required(pixels, function, "pixels");
    from.generator.generate_pixels(request_of(from, given), {pixels, pixels ? capacity : 0});
  });
}

fluxion_status fluxion_noise(const fluxion_generator* generator, const fluxion_request* request,
                             float* noise, std::size_t capacity, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "noise";
    const fluxion_generator& from = required(generator, function, "generator");
    const fluxion_request given = taken(required(request, function, "request"), function);
    if (given.count > 0) required(noise, function, "noise");
    from.generator.noise(request_of(from, given), {noise, noise ? capacity : 0});
  });
}
