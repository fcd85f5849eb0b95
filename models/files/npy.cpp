#include "models/files/npy.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "engine/platform/file.h"

namespace fluxion {

namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t largest_npy_header = 65535;  // of version 1, whose length has 16 bits
constexpr std::size_t largest_npy_rank = 32;       // NumPy's own limit

struct TypeName {
  DType dtype;
  std::string_view name;
};
constexpr TypeName type_names[] = {{DType::f64, "<f8"},    {DType::f32, "<f4"}, {DType::i64, "<i8"},
                                   {DType::i32, "<i4"},    {DType::u32, "<u4"}, {DType::u8, "|u1"},
                                   {DType::boolean, "|b1"}};

// Reads the header, a Python dictionary literal of three known keys: {'descr': '<f4',
// 'fortran_order': False, 'shape': (2, 3), }
class NpyHeaderReader {
 public:
  NpyHeaderReader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  TensorType read() {
    std::optional<DType> dtype;
    std::optional<bool> column_major;
    std::optional<Dims> shape;
    expect('{');
    while (!take('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && !dtype) {
        dtype = element_type();
      } else if (key == "fortran_order" && !column_major) {
        column_major = boolean();
      } else if (key == "shape" && !shape) {
        shape = sizes();
      } else {
        refuse("its header has an unknown or repeated key");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (!text_.empty()) refuse("there is text after its header");
    if (!dtype || !column_major || !shape)
      refuse("descr, fortran_order or shape is missing from its header");
    if (*column_major && shape->size() > 1)
      refuse("it is in Fortran order (only row-major arrays are read)");
    if (!is_representable(*shape, *dtype)) refuse("its shape " + to_string(*shape) + " overflows");
    return {Shape(std::move(*shape)), *dtype};
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw FormatError(std::string(name_) + ": not a readable .npy file: " + what);
  }

 private:
  std::string_view text_, name_;

  void skip_spaces() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n'))
      text_.remove_prefix(1);
  }
  bool take(char c) {
    skip_spaces();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) refuse(std::string("its header lacks a '") + c + "'");
  }
  std::string_view quoted() {
    const char mark = take('\'') ? '\'' : '"';
    if (mark == '"') expect('"');
    const std::size_t end = text_.find(mark);
    if (end == text_.npos) refuse("its header has an open quote");
    const std::string_view result = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    return result;
  }
  DType element_type() {
    const std::string_view name = quoted();
    for (const TypeName& row : type_names)
      if (row.name == name) return row.dtype;
    refuse("its element type is none of <f8 <f4 <i8 <i4 <u4 |u1 |b1");
  }
  bool boolean() {
    skip_spaces();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!text_.starts_with(word)) continue;
      text_.remove_prefix(word.size());
      return value;
    }
    refuse("fortran_order is neither True nor False");
  }
  Dims sizes() {
    Dims result;
    expect('(');
    while (!take(')')) {
      std::int64_t size = 0;
      skip_spaces();
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) refuse("its shape is not a tuple of sizes");
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      if (result.size() == largest_npy_rank)
        refuse("its shape has more than " + std::to_string(largest_npy_rank) + " axes");
      result.push_back(size);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return result;
  }
};

}  // namespace

NpyHeader parse_npy_header(std::span<const std::byte> bytes, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const NpyHeaderReader complain({}, name);
  if (text.size() < 10 || !text.starts_with(magic))
    complain.refuse("it does not start with \\x93NUMPY, a version and a length");
  if (text[6] != 1 || text[7] != 0) complain.refuse("its version is not 1.0");
  const std::size_t length =
      static_cast<unsigned char>(text[8]) + 256u * static_cast<unsigned char>(text[9]);
  if (text.size() < 10 + length) complain.refuse("it ends inside its header");
  TensorType type = NpyHeaderReader(text.substr(10, length), name).read();
  bytes = bytes.subspan(10 + length);

  const std::size_t expected = type.bytes();
  if (expected != bytes.size())
    complain.refuse("its shape " + to_string(type.shape) + " needs " + std::to_string(expected) +
                    " bytes, it holds " + std::to_string(bytes.size()));
  return {std::move(type), 10 + length};
}

NpyArray parse_npy(std::span<const std::byte> bytes, std::string_view name) {
  NpyHeader header = parse_npy_header(bytes, name);
  bytes = bytes.subspan(header.start);
  return {std::move(header.type), std::vector<std::byte>(bytes.begin(), bytes.end())};
}

NpyArray read_npy(const std::filesystem::path& path) {
  const MappedFile file(path);
  NpyArray array = parse_npy(file.bytes(), path.string());
  file.check_whole();
  return array;
}

void write_npy(const std::filesystem::path& path, const TensorType& type,
               std::span<const std::byte> bytes) {
  const auto row = std::find_if(std::begin(type_names), std::end(type_names),
                                [&](const TypeName& row) { return row.dtype == type.dtype; });
  if (row == std::end(type_names))
    throw DTypeError("writing " + path.string() + ": .npy has no " +
                     std::string(to_string(type.dtype)));
  if (type.bytes() != bytes.size())
    throw ShapeError("writing " + path.string() + ": " + to_string(type) + " needs " +
                     std::to_string(type.bytes()) + " bytes, got " + std::to_string(bytes.size()));
  std::string shape;
  for (const std::int64_t size : type.shape) shape += std::to_string(size) + ", ";
  if (type.shape.rank() > 1) shape.resize(shape.size() - 2);
  if (type.shape.rank() == 1) shape.pop_back();
  std::string header = "{'descr': '" + std::string(row->name) +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  // The data start at a multiple of 64, the header ends with a newline.
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  if (header.size() > largest_npy_header)
    throw ShapeError("writing " + path.string() + ": too many axes");

  std::string start(magic);
  start += {'\x01', '\x00', static_cast<char>(header.size() & 255),
            static_cast<char>(header.size() >> 8)};
  ReplacementFile file(path, start.size() + header.size() + bytes.size());
  file.write(start);
  file.write(header);
  file.write(bytes);
  file.commit();
}

}  // namespace fluxion
