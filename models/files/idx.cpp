#include "models/files/idx.h"

#include <algorithm>
#include <optional>
#include <string>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/files/gz.h"

namespace fluxion {

namespace {

constexpr std::size_t largest_idx_rank = 4;
constexpr std::uint64_t largest_idx_bytes = std::uint64_t{1} << 34;

std::optional<StoredType> idx_type(std::uint32_t code) {
  using Kind = StoredType::Kind;
  switch (code) {
    case 0x08:
      return StoredType{Kind::unsigned_integer, 1, true};
    case 0x09:
      return StoredType{Kind::signed_integer, 1, true};
    case 0x0B:
      return StoredType{Kind::signed_integer, 2, true};
    case 0x0C:
      return StoredType{Kind::signed_integer, 4, true};
    case 0x0D:
      return StoredType{Kind::floating, 4, true};
    case 0x0E:
      return StoredType{Kind::floating, 8, true};
    default:
      return std::nullopt;
  }
}

}  // namespace

FileArray parse_idx(std::span<const std::byte> bytes, std::string_view name,
                    std::optional<std::uint64_t> memory, const WantedType& wanted) {
  const auto refuse = [&](const std::string& what) {
    throw FormatError(std::string(name) + ": not a valid IDX file: " + what);
  };
  const bool compressed = is_gzip(bytes);
  std::vector<std::byte> start;
  if (compressed) {
    start = gunzip_prefix(bytes, 4 + 4 * largest_idx_rank, name);
  } else {
    start.assign(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                    bytes.size(), 4 + 4 * largest_idx_rank)));
  }

  if (start.size() < 4)
    refuse("it has " + std::to_string(start.size()) +
           " bytes, less than the 4 of its magic number");
  const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(start[i]); };
  if (byte(0) != 0 || byte(1) != 0) refuse("it does not start with two zero bytes");
  const std::optional<StoredType> type = idx_type(byte(2));
  if (!type)
    refuse("element type " + std::to_string(byte(2)) +
           " (8: u8, 9: i8, 11: i16, 12: i32, 13: f32 and 14: f64 are defined)");
  const std::size_t rank = byte(3);
  if (rank < 1 || rank > largest_idx_rank)
    refuse(std::to_string(rank) + " axes (1 to " + std::to_string(largest_idx_rank) + " are read)");
  const std::size_t header = 4 + 4 * rank;
  if (start.size() < header) refuse("it ends inside its header");

  Dims sizes;
  auto total = static_cast<std::uint64_t>(type->bytes);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const std::uint32_t size = byte(4 + 4 * axis) << 24 | byte(5 + 4 * axis) << 16 |
                               byte(6 + 4 * axis) << 8 | byte(7 + 4 * axis);
    sizes.push_back(size);
    if (__builtin_mul_overflow(total, static_cast<std::uint64_t>(size), &total) ||
        total > largest_idx_bytes)
      refuse("its sizes are absurd");
  }
  if (!is_representable(sizes, held_as(*type))) refuse("its sizes are absurd");
  const std::string claim =
      "its header claims " + to_string(sizes) + ", " + std::to_string(total) + " bytes";
  if (compressed ? total / largest_expansion > bytes.size() : total != bytes.size() - header)
    refuse(claim + ", and the file has " +
           std::to_string(bytes.size() - (compressed ? 0 : header)));
  const Shape shape(std::move(sizes));
  if (wanted) wanted({shape, held_as(*type)});

  std::vector<std::byte> unpacked;
  if (compressed) {
    require_memory(unpacking_bytes(header + total), name, memory);
    unpacked = gunzip(bytes, header + total, name);
    if (unpacked.size() != header + total)
      refuse(claim + ", and the compressed stream holds " +
             std::to_string(unpacked.size() - header));
    unpacked.erase(unpacked.begin(), unpacked.begin() + static_cast<std::ptrdiff_t>(header));
    if (is_held_as_stored(*type)) return {{shape, held_as(*type)}, std::move(unpacked)};
    bytes = unpacked;
  } else {
    bytes = bytes.subspan(header);
  }
  return {{shape, held_as(*type)}, held_elements(bytes, *type, shape, false, name, memory)};
}

FileArray read_idx(const std::filesystem::path& path, std::optional<std::uint64_t> memory,
                   const WantedType& wanted) {
  const MappedFile file(path);
  FileArray array = parse_idx(file.bytes(), path.string(), memory, wanted);
  file.check_whole();
  return array;
}

}  // namespace fluxion
