// gzip, as far as data sets need it.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace fluxion {

bool is_gzip(std::span<const std::byte> bytes);

// The decompressed bytes. Throws FormatError if the stream is damaged, ends early, or holds more
// than `limit` bytes; `name` stands for it in messages.
std::vector<std::byte> gunzip(std::span<const std::byte> bytes, std::size_t limit,
                              std::string_view name = "gzip data");

// At most the first `count` decompressed bytes; what follows is not looked at.
std::vector<std::byte> gunzip_prefix(std::span<const std::byte> bytes, std::size_t count,
                                     std::string_view name = "gzip data");

std::vector<std::byte> gzip(std::span<const std::byte> bytes);

}  // namespace fluxion
