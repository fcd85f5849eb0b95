// The byte encoding of a Program: "fluxprog", a u32 version, then the members in the order of their
// lists. Numbers are little-endian. A vector is its u64 length and its items, a variant its index
// (u8) and its value, an op its name, so that bytes stay readable when the op table grows. Nothing
// of the library reads programs from files, which hold graphs (docs/decisions/0015): the plan cache
// hashes the bytes of programs, and tests parse them.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "engine/error.h"
#include "engine/graph/containers.h"
#include "engine/graph/op_names.h"
#include "engine/program/program.h"

namespace fluxion {
namespace {

constexpr std::string_view magic = "fluxprog";
constexpr std::uint32_t version = 3;

template <class T>
struct IsVariant : std::false_type {};
template <class... T>
struct IsVariant<std::variant<T...>> : std::true_type {};

template <class E>
inline constexpr std::uint8_t last_of = 0;
template <>
inline constexpr auto last_of<DType> = static_cast<std::uint8_t>(DType::f64);
template <>
inline constexpr auto last_of<TapeCode> = static_cast<std::uint8_t>(TapeCode::reduce);
template <>
inline constexpr auto last_of<BufferKind> = static_cast<std::uint8_t>(BufferKind::temporary);

class Writer {
 public:
  std::vector<std::byte> bytes;

  void text(std::string_view characters) {
    for (const char character : characters) bytes.push_back(static_cast<std::byte>(character));
  }

  template <class T>
  void write(const T& value) {
    if constexpr (std::is_same_v<T, double>) {
      write(std::bit_cast<std::uint64_t>(value));
    } else if constexpr (std::is_integral_v<T>) {
      auto rest = static_cast<std::uint64_t>(value);
      for (std::size_t i = 0; i < sizeof(T); ++i, rest >>= 8)
        bytes.push_back(static_cast<std::byte>(rest & 0xFF));
    } else if constexpr (std::is_same_v<T, Op>) {
      const std::string_view name = info(value).name;
      write(static_cast<std::uint8_t>(name.size()));
      text(name);
    } else if constexpr (std::is_enum_v<T>) {
      write(static_cast<std::uint8_t>(value));
    } else if constexpr (IsVector<T>::value) {
      write(static_cast<std::uint64_t>(value.size()));
      for (const auto& item : value) write(item);
    } else if constexpr (IsArray<T>::value) {
      for (const auto& item : value) write(item);
    } else if constexpr (IsVariant<T>::value) {
      write(static_cast<std::uint8_t>(value.index()));
      std::visit([this](const auto& alternative) { this->write(alternative); }, value);
    } else if constexpr (std::is_same_v<T, TensorType>) {
      write(value.shape.dims());
      write(value.dtype);
    } else {
      std::apply([this](const auto&... members) { (this->write(members), ...); },
                 T::members(value));
    }
  }
};

// Memory stays proportional to the input: the reader checks that enough bytes follow before it
// allocates for them.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool at_end() const { return position_ == bytes_.size(); }

  std::string_view text(std::size_t length) {
    need(length);
    const auto* start = reinterpret_cast<const char*>(bytes_.data() + position_);
    position_ += length;
    return {start, length};
  }

  template <class T>
  void read(T& value) {
    if constexpr (std::is_same_v<T, double>) {
      std::uint64_t bits = 0;
      read(bits);
      value = std::bit_cast<double>(bits);
    } else if constexpr (std::is_same_v<T, bool>) {
      value = byte(1, "a truth value") != 0;
    } else if constexpr (std::is_integral_v<T>) {
      need(sizeof(T));
      std::uint64_t number = 0;
      for (std::size_t i = 0; i < sizeof(T); ++i)
        number |= std::to_integer<std::uint64_t>(bytes_[position_ + i]) << (8 * i);
      position_ += sizeof(T);
      value = static_cast<T>(number);
    } else if constexpr (std::is_same_v<T, Op>) {
      value =
          op(text(byte(std::numeric_limits<std::uint8_t>::max(), "the length of an op's name")));
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(byte(last_of<T>, "an enumerator"));
    } else if constexpr (IsVector<T>::value) {
      std::uint64_t length = 0;
      read(length);
      if (length > bytes_.size() - position_)
        fail("a list of " + std::to_string(length) + " items does not fit the bytes that are left");
      value.clear();
      for (std::uint64_t i = 0; i < length; ++i) read(value.emplace_back());
    } else if constexpr (IsArray<T>::value) {
      for (auto& item : value) read(item);
    } else if constexpr (IsVariant<T>::value) {
      read_alternative(value, byte(std::variant_size_v<T> - 1, "the index of a variant"),
                       std::make_index_sequence<std::variant_size_v<T>>());
    } else if constexpr (std::is_same_v<T, TensorType>) {
      Dims sizes;
      DType dtype = DType::f32;
      read(sizes);
      read(dtype);
      if (!is_representable(sizes, dtype)) fail("a tensor of absurd shape " + to_string(sizes));
      value = TensorType(Shape(std::move(sizes)), dtype);
    } else {
      std::apply([this](auto&... members) { (this->read(members), ...); }, T::members(value));
    }
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw FormatError("parse_program: " + what + " (at byte " + std::to_string(position_) + " of " +
                      std::to_string(bytes_.size()) + ")");
  }

 private:
  void need(std::size_t count) const {
    if (count > bytes_.size() - position_) fail("the bytes end within a value");
  }

  std::uint8_t byte(std::size_t last, const char* what) {
    need(1);
    const auto value = std::to_integer<std::uint8_t>(bytes_[position_]);
    if (value > last)
      fail(std::string(what) + " is " + std::to_string(value) + ", at most " +
           std::to_string(last) + " was expected");
    ++position_;
    return value;
  }

  Op op(std::string_view name) const {
    for (int number = 0; number < op_count; ++number)
      if (info(static_cast<Op>(number)).name == name) return static_cast<Op>(number);
    fail("this version knows no op of the name that stands here");
  }

  template <class Variant, std::size_t... index>
  void read_alternative(Variant& value, std::size_t chosen, std::index_sequence<index...>) {
    ((index == chosen ? read(value.template emplace<index>()) : void()), ...);
  }

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
};

}  // namespace

std::vector<std::byte> serialise(const Program& program) {
  Writer writer;
  writer.text(magic);
  writer.write(version);
  writer.write(program);
  return std::move(writer.bytes);
}

Program parse_program(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  if (bytes.size() < magic.size() || reader.text(magic.size()) != magic)
    reader.fail("these bytes are no program: they do not start with \"fluxprog\"");
  std::uint32_t found = 0;
  reader.read(found);
  if (found != version)
    reader.fail("version " + std::to_string(found) + ", this library reads version " +
                std::to_string(version));
  Program program;
  reader.read(program);
  if (!reader.at_end()) reader.fail("bytes follow the end of the program");
  return program;
}

}  // namespace fluxion
