#include "engine/export/tagged_bytes.h"

#include <algorithm>
#include <bit>

#include "engine/error.h"
#include "engine/export/crc32.h"
#include "engine/utf8.h"

namespace fluxion {

namespace {

constexpr std::uint32_t most_axes = 64;
constexpr std::size_t header_bytes = 8 + 4 + 4 + 8;

constexpr DType all_dtypes[] = {DType::boolean, DType::u8,  DType::i32, DType::u32, DType::i64,
                                DType::bf16,    DType::f16, DType::f32, DType::f64};

bool beyond_every_size(std::int64_t value) { return value > most_in_file || value < -most_in_file; }

// Checks the header and the checksum. Returns the bytes of the sections.
std::span<const std::byte> body_of(const FileFormat& kind, std::span<const std::byte> bytes) {
  TaggedReader header(bytes, std::string(kind.name) + ": header");
  if (bytes.size() < kind.magic.size() || header.raw(kind.magic.size()) != kind.magic)
    header.fail("these bytes are no " + std::string(kind.thing) + ": they do not start with \"" +
                std::string(kind.magic) + "\"");
  const auto found = header.number<std::uint32_t>();
  if (found != kind.version)
    header.fail("version " + std::to_string(found) + ", this library reads version " +
                std::to_string(kind.version));
  const auto checksum = header.number<std::uint32_t>();
  const auto length = header.number<std::uint64_t>();
  const std::span<const std::byte> body = bytes.subspan(header_bytes);
  if (body.size() != length)
    header.fail(std::to_string(length) + " bytes should follow, there are " +
                std::to_string(body.size()) + ": the file is cut short, or something follows it");
  if (crc32(body) != checksum) header.fail("the checksum differs: the file is damaged");
  return body;
}

}  // namespace

void TaggedWriter::number(double value) { number(std::bit_cast<std::uint64_t>(value)); }
void TaggedWriter::raw(std::string_view text) { append(std::as_bytes(std::span(text))); }
void TaggedWriter::append(std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}
void TaggedWriter::word(std::string_view text) {
  number(static_cast<std::uint8_t>(text.size()));
  raw(text);
}
void TaggedWriter::text(std::string_view text) {
  if (!is_utf8(text)) throw Error("writing " + TaggedReader::quoted(text) + ", which is not UTF-8");
  count(text.size());
  raw(text);
}
void TaggedWriter::item(const Dims& value) {
  count(value.size());
  for (const std::int64_t size : value) item(size);
}
void TaggedWriter::type(const TensorType& type) {
  item(type.dtype);
  item(type.shape.dims());
}
void TaggedWriter::section(std::string_view name, const TaggedWriter& body) {
  word(name);
  number(static_cast<std::uint64_t>(body.bytes.size()));
  append(body.bytes);
}

void TaggedReader::fail(const std::string& why) const {
  throw FormatError(what_ + ": " + why + " (at byte " + std::to_string(position_) + " of " +
                    std::to_string(bytes_.size()) + ")");
}
void TaggedReader::finish() const {
  if (position_ != bytes_.size()) fail("bytes follow its end");
}
std::span<const std::byte> TaggedReader::take(std::uint64_t count) {
  if (count > bytes_.size() - position_) fail("the bytes end within a value");
  const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(count));
  position_ += taken.size();
  return taken;
}
std::uint64_t TaggedReader::little_endian(std::size_t count) {
  std::uint64_t result = 0;
  const auto taken = take(count);
  for (std::size_t i = 0; i < count; ++i)
    result |= std::to_integer<std::uint64_t>(taken[i]) << (8 * i);
  return result;
}
std::string_view TaggedReader::raw(std::uint64_t count) {
  const auto taken = take(count);
  return {reinterpret_cast<const char*>(taken.data()), taken.size()};
}
std::string TaggedReader::text() {
  const std::string_view text = raw(number<std::uint32_t>());
  if (!is_utf8(text)) fail("the text " + quoted(text) + " is not UTF-8");
  return std::string(text);
}
std::uint32_t TaggedReader::count(const char* items) {
  const auto result = number<std::uint32_t>();
  if (result > bytes_.size() - position_)
    fail(std::to_string(result) + " " + items + " do not fit the bytes that are left");
  return result;
}
void TaggedWriter::item(std::int64_t value) {
  if (beyond_every_size(value))
    throw Error("the number " + std::to_string(value) + " is too large for a file");
  number(value);
}
void TaggedReader::item(std::int64_t& value) {
  value = number<std::int64_t>();
  if (beyond_every_size(value))
    fail("the number " + std::to_string(value) + " is beyond every size");
}
void TaggedReader::item(double& value) { value = std::bit_cast<double>(number<std::uint64_t>()); }
void TaggedReader::item(bool& value) {
  const auto byte = number<std::uint8_t>();
  if (byte > 1) fail("a truth value of " + std::to_string(byte));
  value = byte == 1;
}
void TaggedReader::item(Dims& value) {
  const std::uint32_t rank = count("sizes");
  if (rank > most_axes) fail(std::to_string(rank) + " axes; at most 64 are read");
  value.assign(rank, 0);
  for (std::int64_t& size : value) item(size);
}
void TaggedReader::item(DType& value) {
  const std::string_view name = word();
  const auto found = std::find_if(std::begin(all_dtypes), std::end(all_dtypes),
                                  [&](DType dtype) { return to_string(dtype) == name; });
  if (found == std::end(all_dtypes))
    fail("element type " + quoted(name) + " is not one that this version knows");
  value = *found;
}
TensorType TaggedReader::type() {
  DType dtype{};
  item(dtype);
  Dims sizes;
  item(sizes);
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) {
    if (size < 0) fail("a tensor has an axis of negative size");
    if (size > most_in_file / elements) fail("a tensor has absurdly many elements");
    elements *= std::max<std::int64_t>(size, 1);
  }
  return {Shape(std::move(sizes)), dtype};
}
std::string TaggedReader::quoted(std::string_view name) {
  std::string text = "'";
  for (const char c : name) text += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return text + "'";
}

std::vector<std::byte> whole_file(const FileFormat& kind, std::span<const std::byte> body) {
  TaggedWriter file;
  file.bytes.reserve(header_bytes + body.size());
  file.raw(kind.magic);
  file.number(kind.version);
  file.number(crc32(body));
  file.number(static_cast<std::uint64_t>(body.size()));
  file.append(body);
  return std::move(file.bytes);
}

TaggedSections::TaggedSections(const FileFormat& kind, std::span<const std::byte> bytes,
                               std::span<const std::string_view> names,
                               std::span<const std::string_view> optional)
    : kind_(kind.name) {
  TaggedReader reader(body_of(kind, bytes), kind_ + ": sections");
  while (!reader.at_end()) {
    const std::string_view name = reader.word();
    const auto among = [name](std::span<const std::string_view> list) {
      return std::find(list.begin(), list.end(), name) != list.end();
    };
    if (!among(names) && !among(optional))
      reader.fail("section " + TaggedReader::quoted(name) + " is not one that this version knows");
    if (!found_.emplace(name, reader.take(reader.number<std::uint64_t>())).second)
      reader.fail("section '" + std::string(name) + "' is given twice");
  }
  for (const std::string_view name : names)
    if (!found_.contains(name)) reader.fail("section '" + std::string(name) + "' is missing");
}

TaggedReader TaggedSections::reader(std::string_view name) const {
  return {bytes(name), kind_ + ": section '" + std::string(name) + "'"};
}

}  // namespace fluxion
