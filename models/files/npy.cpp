#include "models/files/npy.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include "engine/platform/file.h"

namespace fluxion {

namespace {

constexpr std::string_view npy_magic = "\x93NUMPY";
constexpr std::size_t largest_npy_header = std::size_t{1} << 20;  // read; NumPy's own are below 200
constexpr std::size_t largest_npy_header_1 = 65535;  // of version 1, whose length has 16 bits
constexpr std::size_t largest_npy_rank = 64;         // NumPy's own limit since 2.0
constexpr std::size_t names_shown = 4;

using Kind = StoredType::Kind;

struct TypeName {
  DType dtype;
  std::string_view name;
};
constexpr TypeName type_names[] = {{DType::f64, "<f8"}, {DType::f32, "<f4"},    {DType::f16, "<f2"},
                                   {DType::i64, "<i8"}, {DType::i32, "<i4"},    {DType::u32, "<u4"},
                                   {DType::u8, "|u1"},  {DType::boolean, "|b1"}};

struct LongTypeName {
  std::string_view name;
  StoredType type;
};
// What np.dtype understands besides.
constexpr LongTypeName long_type_names[] = {
    {"float16", {Kind::floating, 2, false}},        {"float32", {Kind::floating, 4, false}},
    {"float64", {Kind::floating, 8, false}},        {"int8", {Kind::signed_integer, 1, false}},
    {"int16", {Kind::signed_integer, 2, false}},    {"int32", {Kind::signed_integer, 4, false}},
    {"int64", {Kind::signed_integer, 8, false}},    {"uint8", {Kind::unsigned_integer, 1, false}},
    {"uint16", {Kind::unsigned_integer, 2, false}}, {"uint32", {Kind::unsigned_integer, 4, false}},
    {"uint64", {Kind::unsigned_integer, 8, false}}, {"bool", {Kind::boolean, 1, false}}};

// Why elements of a kind, as NumPy's letter says it, can't be read, and what to do.
std::string_view reason_against(char letter) {
  switch (letter) {
    case 'c':
      return "complex numbers; save their parts as floats, np.stack([a.real, a.imag], -1)";
    case 'O':
      return "Python objects, a pickle, which can run code; save an array of numbers: arrays of "
             "one "
             "shape through np.stack";
    case 'S':
    case 'a':
    case 'U':
    case 'T':
      return "text; number it, np.unique(a, return_inverse=True)[1]";
    case 'M':
    case 'm':
      return "dates or times; save numbers, a.astype(np.float64)";
    case 'V':
      return "raw bytes of a type that is not named (bfloat16 and float8 are saved so); save "
             "floats, "
             "a.astype(np.float32)";
    case 'f':
      return "floats of more than 8 bytes (long double); save a.astype(np.float64)";
    default:
      return "of a type that NumPy does not define";
  }
}

std::optional<StoredType> stored_type(std::string_view name) {
  for (const LongTypeName& row : long_type_names)
    if (row.name == name) return row.type;
  const bool ordered = !name.empty() && std::string_view("<>|=").find(name.front()) != name.npos;
  const bool big_endian = ordered && name.front() == '>';
  if (ordered) name.remove_prefix(1);
  if (name == "?") name = "b1";
  if (name.size() != 2) return std::nullopt;
  const int bytes = name[1] - '0';
  const bool power = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
  switch (name[0]) {
    case 'b':
      return bytes == 1 ? std::optional(StoredType{Kind::boolean, 1, false}) : std::nullopt;
    case 'i':
      return power ? std::optional(StoredType{Kind::signed_integer, bytes, big_endian})
                   : std::nullopt;
    case 'u':
      return power ? std::optional(StoredType{Kind::unsigned_integer, bytes, big_endian})
                   : std::nullopt;
    case 'f':
      return power && bytes > 1 ? std::optional(StoredType{Kind::floating, bytes, big_endian})
                                : std::nullopt;
    default:
      return std::nullopt;
  }
}

// A piece of a header, made fit for a message.
std::string shown(std::string_view text) {
  std::string result;
  for (const char c : text.substr(0, 40))
    result += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return result + (text.size() > 40 ? ".." : "");
}

// Reads the header, a Python dictionary literal of three known keys: {'descr': '<f4',
// 'fortran_order': False, 'shape': (2, 3), }. Python 2 wrote sizes as longs, (2L, 3L).
class NpyHeaderReader {
 public:
  NpyHeaderReader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  NpyHeader read() {
    std::optional<StoredType> type;
    std::optional<bool> column_major;
    std::optional<Dims> shape;
    expect('{');
    while (!take('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && !type) {
        type = element_type();
      } else if (key == "fortran_order" && !column_major) {
        column_major = boolean();
      } else if (key == "shape" && !shape) {
        shape = sizes();
      } else {
        refuse("its header has an unknown or repeated key, '" + shown(key) + "'");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (!text_.empty()) refuse("there is text after its header");
    if (!type || !column_major || !shape)
      refuse("descr, fortran_order or shape is missing from its header");
    const DType dtype = held_as(*type);
    if (!is_representable(*shape, dtype)) refuse("its shape " + to_string(*shape) + " overflows");
    return {{Shape(*shape), dtype}, *type, *column_major && shape->size() > 1, 0};
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw FormatError(std::string(name_) + ": not a readable .npy file: " + what);
  }

 private:
  std::string_view text_, name_;

  void skip_spaces() {
    while (!text_.empty() && std::string_view(" \t\n\r\f").find(text_.front()) != text_.npos)
      text_.remove_prefix(1);
  }
  bool take(char c) {
    skip_spaces();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (take(c)) return;
    refuse(std::string("its header lacks a '") + c + "'" +
           (text_.empty() ? " at its end" : " before \"" + shown(text_) + "\""));
  }
  std::string_view quoted() {
    if (!text_.empty() && (take('u') || take('b'))) skip_spaces();  // u'descr', from Python 2
    const char mark = take('\'') ? '\'' : '"';
    if (mark == '"') expect('"');
    const std::size_t end = text_.find(mark);
    if (end == text_.npos) refuse("its header has an open quote");
    const std::string_view result = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    return result;
  }
  StoredType element_type() {
    skip_spaces();
    if (!text_.empty() && text_.front() == '[') refuse_fields();
    if (!text_.empty() && text_.front() == '(')
      refuse("its elements are arrays themselves; save a plain array, np.array(a.tolist())");
    const std::string_view name = quoted();
    if (const std::optional<StoredType> type = stored_type(name)) return *type;
    const std::size_t letter = name.find_first_not_of("<>|=");
    refuse("its elements (" + shown(name) + ") are " +
           std::string(reason_against(letter == name.npos ? ' ' : name[letter])));
  }
  // [('x', '<f4'), ('y', '<f4')]: the first text in each bracket is a field's name.
  [[noreturn]] void refuse_fields() const {
    std::string names;
    std::size_t count = 0;
    std::string_view rest = text_.substr(0, text_.find('}'));
    for (std::size_t open = rest.find('('); open != rest.npos; open = rest.find('(')) {
      rest.remove_prefix(open + 1);
      if (rest.empty() || (rest.front() != '\'' && rest.front() != '"')) continue;
      const std::size_t end = rest.find(rest.front(), 1);
      if (end == rest.npos) break;
      if (count++ < names_shown)
        names += (names.empty() ? "" : ", ") + shown(rest.substr(1, end - 1));
      rest.remove_prefix(end + 1);
    }
    refuse("its elements are records of several fields (" + names +
           (count > names_shown ? ", ..." : "") +
           "), a structured array; save a plain one: a['FIELD'], or "
           "numpy.lib.recfunctions.structured_to_unstructured(a)");
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
      if (!text_.empty() && text_.front() == 'L') text_.remove_prefix(1);
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

bool is_npy(std::span<const std::byte> bytes) {
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())
      .starts_with(npy_magic);
}

NpyHeader parse_npy_header(std::span<const std::byte> bytes, std::string_view name) {
  return parse_npy_header(bytes, bytes.size(), name);
}

std::uint64_t NpyHeader::file_bytes() const {
  return start + static_cast<std::uint64_t>(type.shape.elements()) *
                     static_cast<std::uint64_t>(stored.bytes);
}

NpyHeader parse_npy_start(std::span<const std::byte> bytes, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const NpyHeaderReader complain({}, name);
  if (text.size() < 10 || !text.starts_with(npy_magic))
    complain.refuse("it does not start with \\x93NUMPY, a version and a length");
  const auto byte = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(text[i]));
  };
  if (byte(6) < 1 || byte(6) > 3 || byte(7) != 0)
    complain.refuse("its format's version is " + std::to_string(byte(6)) + "." +
                    std::to_string(byte(7)) + " (1.0, 2.0 and 3.0 are read)");
  const std::size_t start = byte(6) == 1 ? 10 : 12;
  if (text.size() < start) complain.refuse("it ends inside its header");
  const std::size_t length =
      byte(8) | byte(9) << 8 | (byte(6) == 1 ? 0 : byte(10) << 16 | byte(11) << 24);
  if (length > largest_npy_header)
    complain.refuse("a header of " + std::to_string(length) + " bytes (at most " +
                    std::to_string(largest_npy_header) + ")");
  if (text.size() < start + length) complain.refuse("it ends inside its header");
  NpyHeader header = NpyHeaderReader(text.substr(start, length), name).read();
  header.start = start + length;
  return header;
}

NpyHeader parse_npy_header(std::span<const std::byte> bytes, std::uint64_t whole,
                           std::string_view name) {
  NpyHeader header = parse_npy_start(bytes, name);
  const std::uint64_t expected = header.file_bytes() - header.start, found = whole - header.start;
  const std::string needs = "its shape " + to_string(header.type.shape) + " needs " +
                            std::to_string(expected) + " bytes, it holds " + std::to_string(found);
  const NpyHeaderReader complain({}, name);
  if (found < expected) complain.refuse(needs + ": it ends early");
  if (found > expected)
    complain.refuse(needs +
                    ": several arrays in one file? np.save(FILE, np.load(FILE)) keeps the first");
  return header;
}

NpyArray parse_npy(std::span<const std::byte> bytes, std::string_view name,
                   std::optional<std::uint64_t> memory) {
  NpyHeader header = parse_npy_header(bytes, name);
  std::vector<std::byte> elements =
      held_elements(bytes.subspan(header.start), header.stored, header.type.shape,
                    header.column_major, name, memory);
  return {std::move(header.type), std::move(elements)};
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
  if (header.size() > largest_npy_header_1)
    throw ShapeError("writing " + path.string() + ": too many axes");

  std::string start(npy_magic);
  start += {'\x01', '\x00', static_cast<char>(header.size() & 255),
            static_cast<char>(header.size() >> 8)};
  ReplacementFile file(path, start.size() + header.size() + bytes.size());
  file.write(start);
  file.write(header);
  file.write(bytes);
  file.commit();
}

}  // namespace fluxion
