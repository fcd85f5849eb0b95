#include "backends/vulkan/pipeline_cache.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "engine/error.h"
#include "engine/platform/file.h"

namespace fluxion::vulkan_backend {

namespace {

constexpr std::string_view name_start = "vulkan-";

// Files of the same device that no driver has written to for a long time: an update has a UUID, and
// so a file, of its own.
void remove_old_siblings(const std::filesystem::path& file) {
  constexpr std::chrono::hours long_ago{24 * 90};
  const std::string own = file.filename().string();
  const std::string device = own.substr(std::min(own.size(), own.find('-', name_start.size())));
  std::error_code error;
  std::vector<std::filesystem::path> old;
  const auto now = std::filesystem::file_time_type::clock::now();
  // (Incremented by hand: ++ throws.)
  std::filesystem::directory_iterator at(file.parent_path(), error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name == own || !name.starts_with(name_start) || !name.ends_with(device)) continue;
    std::error_code unknown;
    const auto written = at->last_write_time(unknown);
    if (!unknown && now - written > long_ago) old.push_back(at->path());
  }
  for (const std::filesystem::path& each : old) std::filesystem::remove(each, error);
}

constexpr std::array<char, 8> pipeline_magic{'F', 'L', 'X', 'V', 'K', 'P', 'C', '\n'},
    tile_magic{'F', 'L', 'X', 'V', 'K', 'T', 'S', '\n'};
constexpr std::uint32_t format_version = 1;

struct Header {
  std::array<char, 8> name{};
  std::uint32_t version = format_version;
  std::uint32_t vendor = 0, device = 0, driver = 0, driver_version = 0;
  std::uint32_t reserved = 0;
  std::array<std::uint8_t, VK_UUID_SIZE> uuid{};
  std::uint64_t bytes = 0, hash = 0;
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) == 64);

// FNV-1a, eight bytes at a time and then one by one.
std::uint64_t hash_of(std::span<const std::byte> data) {
  constexpr std::uint64_t prime = 0x100000001b3;
  std::uint64_t hash = 0xcbf29ce484222325;
  while (data.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data.data(), 8);
    hash = (hash ^ word) * prime;
    hash ^= hash >> 29;
    data = data.subspan(8);
  }
  for (const std::byte byte : data) hash = (hash ^ static_cast<std::uint64_t>(byte)) * prime;
  return hash ^ hash >> 32;
}

Header header_of(std::span<const std::byte> data, const DeviceFacts& facts, CacheKind kind) {
  Header header;
  header.name = kind == CacheKind::tiles ? tile_magic : pipeline_magic;
  header.vendor = facts.vendor;
  header.device = facts.device;
  header.driver = facts.driver;
  header.driver_version = facts.driver_version;
  header.uuid = facts.cache_uuid;
  header.bytes = data.size();
  header.hash = hash_of(data);
  return header;
}

// Vulkan's own header, which a driver checks, or should.
bool is_drivers_own(std::span<const std::byte> data, const DeviceFacts& facts) {
  if (data.size() < sizeof(VkPipelineCacheHeaderVersionOne)) return false;
  VkPipelineCacheHeaderVersionOne own{};
  std::memcpy(&own, data.data(), sizeof(own));
  return own.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
         own.headerSize >= sizeof(own) && own.vendorID == facts.vendor &&
         own.deviceID == facts.device &&
         std::memcmp(own.pipelineCacheUUID, facts.cache_uuid.data(), VK_UUID_SIZE) == 0;
}

}  // namespace

std::vector<std::byte> encode_cache(std::span<const std::byte> data, const DeviceFacts& facts,
                                    CacheKind kind) {
  const Header header = header_of(data, facts, kind);
  std::vector<std::byte> file(sizeof(header) + data.size());
  std::memcpy(file.data(), &header, sizeof(header));
  if (!data.empty()) std::memcpy(file.data() + sizeof(header), data.data(), data.size());
  return file;
}

std::optional<std::vector<std::byte>> decode_cache(std::span<const std::byte> file,
                                                   const DeviceFacts& facts, CacheKind kind) {
  if (file.size() < sizeof(Header)) return std::nullopt;
  const std::span<const std::byte> data = file.subspan(sizeof(Header));
  const Header wanted = header_of(data, facts, kind);
  if (std::memcmp(&wanted, file.data(), sizeof(wanted)) != 0) return std::nullopt;
  if (kind == CacheKind::pipelines && !is_drivers_own(data, facts)) return std::nullopt;
  return std::vector<std::byte>(data.begin(), data.end());
}

std::filesystem::path default_cache_folder() {
  if (const char* const chosen = std::getenv("FLUXION_VULKAN_CACHE")) return chosen;
  if (const char* const cache = std::getenv("XDG_CACHE_HOME"); cache && *cache == '/')
    return std::filesystem::path(cache) / "fluxion";
  if (const char* const home = std::getenv("HOME"); home && *home == '/')
    return std::filesystem::path(home) / ".cache" / "fluxion";
#ifdef _WIN32
  // (Wide: a user's name may have characters that the narrow variables can't hold.)
  if (const wchar_t* const local = ::_wgetenv(L"LOCALAPPDATA"))
    if (const std::filesystem::path folder(local); folder.is_absolute()) return folder / "fluxion";
#endif
  return {};
}

std::filesystem::path cache_file(const std::filesystem::path& folder, const DeviceFacts& facts,
                                 CacheKind kind) {
  // The driver's UUID too: two drivers of one device keep a file each.
  constexpr const char* digits = "0123456789abcdef";
  std::string name(name_start);
  for (const std::uint8_t byte : facts.cache_uuid) {
    name += digits[byte >> 4];
    name += digits[byte & 15];
  }
  name += "-" + std::to_string(facts.vendor) + "-" + std::to_string(facts.device);
  if (kind == CacheKind::pipelines) return folder / (name + ".pipelines");
  // Short code has speeds of its own.
  return folder / (name + (facts.shaders.short_code ? "-short.tiles" : ".tiles"));
}

std::optional<std::vector<std::byte>> read_cache(const std::filesystem::path& file,
                                                 const DeviceFacts& facts, CacheKind kind,
                                                 std::size_t most_bytes) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(file, error);
  if (error || bytes < sizeof(Header) || bytes - sizeof(Header) > most_bytes) return std::nullopt;
  std::ifstream stream(file, std::ios::binary);
  std::vector<std::byte> content(static_cast<std::size_t>(bytes));
  if (!stream.read(reinterpret_cast<char*>(content.data()),
                   static_cast<std::streamsize>(content.size())))
    return std::nullopt;
  return decode_cache(content, facts, kind);
}

bool write_cache(const std::filesystem::path& file, std::span<const std::byte> data,
                 const DeviceFacts& facts, CacheKind kind) {
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) return false;
  try {
    replace_file(file, encode_cache(data, facts, kind));
    remove_old_siblings(file);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace fluxion::vulkan_backend
