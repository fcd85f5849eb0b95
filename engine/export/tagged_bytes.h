// The bytes that files of the engine are made of: numbers, words, lists and named sections under a
// header with a checksum. docs/graph-files.md states them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "engine/graph/shape.h"

namespace fluxion {

// Bounds on the integers in a file, far beyond any use. They keep sums of sizes from overflowing.
inline constexpr std::int64_t most_in_file = std::int64_t{1} << 48;

struct FileFormat {
  std::string_view name;   // in errors: "graph file"
  std::string_view thing;  // what it holds: "graph"
  std::string_view magic;  // its first 8 bytes
  std::uint32_t version;
};

class TaggedWriter {
 public:
  std::vector<std::byte> bytes;

  template <class T>
  requires std::is_integral_v<T>
  void number(T value) {
    auto rest = static_cast<std::uint64_t>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i, rest >>= 8)
      bytes.push_back(static_cast<std::byte>(rest & 0xFF));
  }
  void number(double value);
  void raw(std::string_view text);
  void append(std::span<const std::byte> more);
  void count(std::size_t value) { number(static_cast<std::uint32_t>(value)); }
  // A word of the format: at most 255 characters.
  void word(std::string_view text);
  // A text from the user, of any length. Throws Error if it is not UTF-8, which readers refuse.
  void text(std::string_view text);
  void type(const TensorType& type);
  void section(std::string_view name, const TaggedWriter& body);

  // Values by their type.
  void item(std::int64_t value);  // throws Error where a reader would refuse it
  void item(double value) { number(value); }
  void item(bool value) { number(static_cast<std::uint8_t>(value)); }
  void item(const Dims& value);
  void item(DType value) { word(to_string(value)); }
};

// Reads from one span of bytes. It checks that enough bytes follow before it allocates for them.
// All of it throws FormatError, which begins with `what` and names the byte.
class TaggedReader {
 public:
  TaggedReader(std::span<const std::byte> bytes, std::string what)
      : bytes_(bytes), what_(std::move(what)) {}

  [[noreturn]] void fail(const std::string& why) const;
  void finish() const;
  bool at_end() const { return position_ == bytes_.size(); }

  std::span<const std::byte> take(std::uint64_t count);
  template <class T>
  requires std::is_integral_v<T> T number() { return static_cast<T>(little_endian(sizeof(T))); }
  std::string_view raw(std::uint64_t count);
  std::string_view word() { return raw(number<std::uint8_t>()); }
  std::string text();
  // The number of items that follow, each of at least one byte.
  std::uint32_t count(const char* items);
  TensorType type();

  void item(std::int64_t& value);  // at most most_in_file, up and down
  void item(double& value);
  void item(bool& value);
  void item(Dims& value);  // of at most 64 axes
  void item(DType& value);

  // As it may stand in a message.
  static std::string quoted(std::string_view name);

 private:
  std::uint64_t little_endian(std::size_t count);

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string what_;
};

// A file: the header, and `body`, its sections.
std::vector<std::byte> whole_file(const FileFormat& kind, std::span<const std::byte> body);

// The sections of a file by name.
class TaggedSections {
 public:
  // Throws FormatError unless the header is that of this kind, the checksum is right, and each of
  // the names is that of exactly one section, each of `optional` that of one or none, and no other
  // is there.
  TaggedSections(const FileFormat& kind, std::span<const std::byte> bytes,
                 std::span<const std::string_view> names,
                 std::span<const std::string_view> optional = {});
  bool contains(std::string_view name) const { return found_.contains(name); }
  TaggedReader reader(std::string_view name) const;
  std::span<const std::byte> bytes(std::string_view name) const {
    return found_.find(name)->second;
  }

 private:
  std::string kind_;
  std::map<std::string_view, std::span<const std::byte>> found_;
};

}  // namespace fluxion
