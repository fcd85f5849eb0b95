// gzip and raw deflate, as far as data sets need them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace fluxion {

bool is_gzip(std::span<const std::byte> bytes);

// The decompressed bytes of all members in turn. Zeros behind a member are padding, as they are to
// gzip and Python; other bytes that start no member are refused. Throws FormatError if the stream
// is damaged, ends early, or holds more than `limit` bytes; `name` stands for it in messages.
std::vector<std::byte> gunzip(std::span<const std::byte> bytes, std::size_t limit,
                              std::string_view name = "gzip data");

// At most the first `count` decompressed bytes; what follows is not looked at.
std::vector<std::byte> gunzip_prefix(std::span<const std::byte> bytes, std::size_t count,
                                     std::string_view name = "gzip data");

std::vector<std::byte> gzip(std::span<const std::byte> bytes);

// Deflate can't shrink data more than 1032-fold, so a compressed file bounds what it can hold
// (https://zlib.net/zlib_tech.html).
inline constexpr std::uint64_t largest_expansion = 1032;

// What a deflate stream without a header holds, as in zip files: exactly `size` bytes, and no byte
// of the stream left over. Throws FormatError.
std::vector<std::byte> inflate_raw(std::span<const std::byte> bytes, std::uint64_t size,
                                   std::string_view name);
// At most its first `count` bytes.
std::vector<std::byte> inflate_raw_prefix(std::span<const std::byte> bytes, std::size_t count,
                                          std::string_view name);

}  // namespace fluxion
