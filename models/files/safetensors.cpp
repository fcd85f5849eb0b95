#include "models/files/safetensors.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "models/files/file_kind.h"

namespace fluxion {

static_assert(std::endian::native == std::endian::little,
              "safetensors data are little-endian and used as they lie");

namespace {

constexpr std::uint64_t largest_safetensors_header =
    100'000'000;  // the limit of the format's own reader
constexpr std::size_t largest_safetensors_rank = 32;
constexpr const char* checksum_key = "fluxion.checksum";

// A name from a file, made fit for a message: short and printable.
std::string quote(std::string_view name) {
  std::string text = "\"";
  for (const char c : name.substr(0, 80))
    text += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return text + (name.size() > 80 ? "..\"" : "\"");
}

std::uint32_t crc_of(std::uint32_t before, std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(
      ::crc32_z(before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

// Of named tensors, in any order: the checksum (CRC-32) of the list of their own.
class ContentChecksum {
 public:
  void add(const std::string& name, std::span<const std::byte> bytes) {
    tensors_[name] = crc_of(0, bytes);
  }
  std::string text() const {
    std::uint32_t all = 0;
    for (const auto& [name, checksum] : tensors_) {
      const std::string line = name + " " + std::to_string(checksum) + "\n";
      all = crc_of(all, std::as_bytes(std::span(line)));
    }
    return "crc32:" + std::to_string(all);
  }

 private:
  std::map<std::string, std::uint32_t> tensors_;
};

// What the header says of one tensor, unchecked but for its form.
struct Claim {
  std::string name;
  std::optional<SafetensorsType> dtype;
  std::optional<Dims> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

// Receives the header's JSON piece by piece. No document is built, so a header costs no more memory
// than its tensors need, nesting is refused where it starts, and repeated keys, which a document
// would swallow, are seen.
class SafetensorsHeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Claim> claims;
  Metadata metadata;
  std::string error;

  bool null() override {
    // The format's own reader takes null for no metadata.
    if (place_ == Place::header && key_ == "__metadata__") return see_metadata();
    return refuse("null where " + expected() + " belongs");
  }
  bool boolean(bool) override { return refuse("a boolean where " + expected() + " belongs"); }
  bool number_float(number_float_t, const string_t& text) override {
    return refuse("the number " + quote(text) + " where " + expected() + " belongs");
  }
  bool binary(binary_t&) override { return refuse("binary data where " + expected() + " belongs"); }
  bool number_integer(number_integer_t value) override {
    return refuse("the negative number " + std::to_string(value) + " where " + expected() +
                  " belongs");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return refuse("a size of " + std::to_string(value));
      if (claims.back().shape->size() == largest_safetensors_rank)
        return refuse("more than " + std::to_string(largest_safetensors_rank) + " axes");
      claims.back().shape->push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (place_ == Place::offsets) {
      if (claims.back().offsets->size() == 2) return refuse("more than two data_offsets");
      claims.back().offsets->push_back(value);
      return true;
    }
    return refuse("a number where " + expected() + " belongs");
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      if (!metadata.emplace(key_, std::move(value)).second)
        return refuse("metadata key " + quote(key_) + " twice");
      return true;
    }
    if (place_ == Place::tensor && key_ == "dtype") {
      claims.back().dtype.emplace(std::move(value));
      return true;
    }
    return refuse("a text where " + expected() + " belongs");
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::header;
      return true;
    }
    if (place_ != Place::header) return refuse("an object where " + expected() + " belongs");
    if (key_ == "__metadata__") {
      if (!see_metadata()) return false;
      place_ = Place::metadata;
    } else {
      claims.push_back({key_, {}, {}, {}});
      place_ = Place::tensor;
    }
    return true;
  }

  bool key(string_t& value) override {
    key_ = std::move(value);
    if (place_ != Place::tensor) return true;
    const Claim& claim = claims.back();
    const bool known = key_ == "dtype" || key_ == "shape" || key_ == "data_offsets";
    if (!known) return refuse("unknown field " + quote(key_));
    if ((key_ == "dtype" && claim.dtype) || (key_ == "shape" && claim.shape) ||
        (key_ == "data_offsets" && claim.offsets))
      return refuse(key_ + " twice");
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      const Claim& claim = claims.back();
      if (!claim.dtype || !claim.shape || !claim.offsets)
        return refuse("dtype, shape or data_offsets is missing");
    }
    place_ = place_ == Place::header ? Place::outside : Place::header;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::tensor && key_ == "shape") {
      claims.back().shape.emplace();
      place_ = Place::shape;
      return true;
    }
    if (place_ == Place::tensor && key_ == "data_offsets") {
      claims.back().offsets.emplace();
      place_ = Place::offsets;
      return true;
    }
    return refuse("a list where " + expected() + " belongs");
  }

  bool end_array() override {
    if (place_ == Place::offsets && claims.back().offsets->size() != 2)
      return refuse("fewer than two data_offsets");
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& exception) override {
    // The library's text starts with its own number in brackets, and may quote the file.
    std::string_view text = exception.what();
    if (const auto end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
    error = "the header is not JSON at byte " + std::to_string(position) + ": " +
            quote(text.substr(0, 160));
    return false;
  }

 private:
  enum class Place { outside, header, metadata, tensor, shape, offsets };
  Place place_ = Place::outside;
  std::string key_;
  bool metadata_seen_ = false;

  std::string expected() const {
    switch (place_) {
      case Place::outside:
        return "the header object";
      case Place::header:
        return key_ == "__metadata__" ? "the metadata object" : "a tensor's object";
      case Place::metadata:
        return "a metadata text";
      case Place::tensor:
        return "its " + key_;
      case Place::shape:
        return "a size";
      case Place::offsets:
        return "a byte offset";
    }
    return "";
  }

  bool see_metadata() {
    if (metadata_seen_) return refuse("__metadata__ twice");
    metadata_seen_ = true;
    return true;
  }

  bool refuse(const std::string& what) {
    const bool in_tensor =
        place_ == Place::tensor || place_ == Place::shape || place_ == Place::offsets;
    error = in_tensor ? "tensor " + quote(claims.back().name) + ": " + what : "header: " + what;
    return false;
  }
};

}  // namespace

TensorType SafetensorsEntry::type() const {
  if (!dtype.dtype())
    throw FormatError("tensor " + quote(name) + ": elements of type " + quote(dtype.name()) +
                      " can't be computed with here");
  return {shape, *dtype.dtype()};
}

std::string to_string(const SafetensorsEntry& entry) {
  return to_string(entry.dtype) + to_string(entry.shape);
}

std::vector<double> to_doubles(const SafetensorsEntry& entry) {
  std::vector<double> result;
  result.reserve(static_cast<std::size_t>(entry.shape.elements()));
  const auto append = [&]<class T>(T, auto&& value) {
    for (std::size_t at = 0; at < entry.bytes.size(); at += sizeof(T)) {
      T element;
      std::memcpy(&element, entry.bytes.data() + at, sizeof element);
      result.push_back(value(element));
    }
  };
  const auto plain = [](auto element) { return static_cast<double>(element); };
  const auto half = [](auto element) { return static_cast<double>(to_f32(element)); };
  if (entry.dtype == DType::f64) {
    append(double{}, plain);
  } else if (entry.dtype == DType::f32) {
    append(float{}, plain);
  } else if (entry.dtype == DType::f16) {
    append(Float16{}, half);
  } else if (entry.dtype == DType::bf16) {
    append(BFloat16{}, half);
  } else if (const auto values = values_of_bytes(entry.dtype)) {
    for (const std::byte byte : entry.bytes)
      result.push_back((*values)[std::to_integer<std::size_t>(byte)]);
  } else {
    throw FormatError("tensor " + quote(entry.name) + ": elements of type " +
                      quote(entry.dtype.name()) + " are no floating-point numbers");
  }
  return result;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), name_(path.string()) {
  parse(file_.bytes(), name_);
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string_view name)
    : name_(name) {
  parse(bytes, name_);
}

void SafetensorsFile::check_content() const {
  const auto written = metadata_.find(checksum_key);
  if (written == metadata_.end()) return;
  ContentChecksum checksum;
  for (const SafetensorsEntry& entry : entries_) checksum.add(entry.name, entry.bytes);
  if (checksum.text() == written->second) return;
  check_whole();
  throw FormatError(name_ + ": is damaged: its tensors are not those that were written (" +
                    checksum_key + " is " + quote(written->second) + ", theirs is " +
                    quote(checksum.text()) + ")");
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto entry =
      std::lower_bound(entries_.begin(), entries_.end(), name,
                       [](const SafetensorsEntry& a, std::string_view b) { return a.name < b; });
  return entry != entries_.end() && entry->name == name ? &*entry : nullptr;
}

void SafetensorsFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  const auto refuse = [&](const std::string& what) {
    // Most likely another file altogether.
    FileDescription other = describe_file(bytes);
    if (other.kind == FileKind::zip) other = describe_zip(bytes, name);
    const bool advised = other.kind == FileKind::checkpoint || other.kind == FileKind::stand_in;
    if (other.kind != FileKind::safetensors && !other.what.empty())
      throw FormatError(name + ": not a valid safetensors file: it is " + other.what +
                        (advised ? ": " + other.advice : ""));
    throw FormatError(name + ": not a valid safetensors file: " + what);
  };
  if (bytes.size() < 8)
    refuse("it has " + std::to_string(bytes.size()) +
           " bytes, less than the 8 of the header's length");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > largest_safetensors_header)
    refuse("a header of " + std::to_string(length) + " bytes (at most 100 MB)");
  if (length > bytes.size() - 8)
    refuse("a header of " + std::to_string(length) + " bytes in a file of " +
           std::to_string(bytes.size()));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + 8), length);
  if (!text.starts_with('{')) refuse("the header does not start with '{'");

  SafetensorsHeaderReader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) refuse(reader.error);
  const std::span<const std::byte> data = bytes.subspan(8 + length);

  entries_.reserve(reader.claims.size());
  for (Claim& claim : reader.claims) {
    const std::uint64_t begin = (*claim.offsets)[0], end = (*claim.offsets)[1];
    const std::string tensor = "tensor " + quote(claim.name) + ": ";
    const std::string range =
        "data_offsets " + std::to_string(begin) + " .. " + std::to_string(end);
    if (begin > end) refuse(tensor + range + " end before they begin");
    if (end > data.size())
      refuse(tensor + range + " beyond the " + std::to_string(data.size()) + " bytes of data");
    const Dims& sizes = *claim.shape;
    if (!is_representable(sizes, claim.dtype->dtype().value_or(DType::f64)))
      refuse(tensor + "shape " + to_string(sizes) + " overflows");
    const auto elements = static_cast<std::uint64_t>(Shape(sizes).elements());
    const std::string type = quote(claim.dtype->name()) + to_string(sizes);
    if (claim.dtype->bits()) {
      const std::optional<std::uint64_t> size = claim.dtype->bytes_of(elements);
      if (!size) refuse(tensor + type + " is not a whole number of bytes");
      if (*size != end - begin)
        refuse(tensor + type + " needs " + std::to_string(*size) + " bytes, " + range + " hold " +
               std::to_string(end - begin));
    } else if ((elements == 0) != (begin == end)) {
      refuse(tensor + type + " can't be " + range);
    }
    entries_.push_back({std::move(claim.name), *claim.dtype, Shape(std::move(*claim.shape)),
                        data.subspan(begin, end - begin)});
  }

  // In the order of the data every tensor must start where the one before ends. Empty ones come
  // first among equals.
  std::sort(entries_.begin(), entries_.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return a.bytes.data() != b.bytes.data() ? a.bytes.data() < b.bytes.data()
                                                      : a.bytes.size() < b.bytes.size();
            });
  const std::byte* covered = data.data();
  for (const SafetensorsEntry& entry : entries_) {
    if (entry.bytes.data() < covered)
      refuse("tensor " + quote(entry.name) + " overlaps the one before it");
    if (entry.bytes.data() > covered)
      refuse(std::to_string(entry.bytes.data() - covered) + " unused bytes before tensor " +
             quote(entry.name));
    covered = entry.bytes.data() + entry.bytes.size();
  }
  const auto rest = static_cast<std::uint64_t>(data.data() + data.size() - covered);
  if (rest != 0) refuse(std::to_string(rest) + " unused bytes at the end");

  std::sort(entries_.begin(), entries_.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < entries_.size(); ++i)
    if (entries_[i].name == entries_[i - 1].name)
      refuse("tensor " + quote(entries_[i].name) + " twice");
  metadata_ = std::move(reader.metadata);
}

namespace {

// One tensor to write; its bytes are asked for when their turn comes.
struct Outgoing {
  std::string name;
  SafetensorsType type;
  Shape shape;
  std::uint64_t size = 0;  // in bytes
  std::function<std::span<const std::byte>()> bytes;
};

std::string json_text(const std::filesystem::path& path, const std::string& name) try {
  return nlohmann::json(name).dump();
} catch (const nlohmann::json::exception&) {
  throw FormatError("writing " + path.string() + ": a name or metadata text is not UTF-8");
}

// The header is text from the start: a JSON value of many members aborts if memory runs out while
// it is made or taken apart.
std::string header_start(const std::filesystem::path& path, const Metadata& metadata) {
  std::string text;
  for (const auto& [name, value] : metadata)
    text += (text.empty() ? "" : ",") + json_text(path, name) + ":" + json_text(path, value);
  return text.empty() ? "{" : "{\"__metadata__\":{" + text + "}";
}

void write_outgoing(const std::filesystem::path& path, std::vector<Outgoing> tensors,
                    const Metadata& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const Outgoing& a, const Outgoing& b) {
    const std::uint64_t bits_a = a.type.bits().value_or(0), bits_b = b.type.bits().value_or(0);
    return bits_a != bits_b ? bits_a > bits_b : a.name < b.name;
  });

  std::set<std::string_view> names{"__metadata__"};
  std::uint64_t offset = 0;
  std::string text = header_start(path, metadata);
  for (const Outgoing& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      throw FormatError("writing " + path.string() + ": the name " + quote(tensor.name) +
                        " is taken");
    const std::uint64_t end = offset + tensor.size;
    std::string shape;
    for (const std::int64_t size : tensor.shape.dims())
      shape += (shape.empty() ? "" : ",") + std::to_string(size);
    text += (text.size() > 1 ? "," : "") + json_text(path, tensor.name) +
            ":{\"dtype\":" + json_text(path, tensor.type.name()) + ",\"shape\":[" + shape +
            "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > largest_safetensors_header)
    throw FormatError("writing " + path.string() + ": a header of " + std::to_string(text.size()) +
                      " bytes (at most 100 MB)");

  const std::uint64_t length = text.size();
  ReplacementFile file(path, 8 + length + offset);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const Outgoing& tensor : tensors) file.write(tensor.bytes());
  file.commit();
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                       const Metadata& metadata) {
  std::vector<Outgoing> tensors;
  tensors.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) {
    const auto elements = static_cast<std::uint64_t>(entry.shape.elements());
    if (entry.dtype.bits() && entry.dtype.bytes_of(elements) != entry.bytes.size())
      throw ShapeError("writing " + path.string() + ": " + quote(entry.name) + " is " +
                       to_string(entry) + " but holds " + std::to_string(entry.bytes.size()) +
                       " bytes");
    tensors.push_back({entry.name, entry.dtype, entry.shape, entry.bytes.size(),
                       [bytes = entry.bytes] { return bytes; }});
  }
  write_outgoing(path, std::move(tensors), metadata);
}

TensorFile load_tensors(const std::filesystem::path& path, const Device& device) {
  const SafetensorsFile file(path);
  file.check_content();
  TensorFile result;
  result.metadata = file.metadata();
  result.metadata.erase(checksum_key);
  for (const SafetensorsEntry& entry : file.entries()) {
    const auto is_bit = [](std::byte value) { return std::to_integer<unsigned>(value) <= 1; };
    if (!entry.dtype.dtype())
      throw FormatError(path.string() + ": tensor " + quote(entry.name) + ": elements of type " +
                        quote(entry.dtype.name()) + " can't be computed with here");
    if (entry.dtype == DType::boolean &&
        !std::all_of(entry.bytes.begin(), entry.bytes.end(), is_bit))
      throw FormatError(path.string() + ": tensor " + quote(entry.name) +
                        " is BOOL but holds bytes other than 0 and 1");
    result.tensors.emplace_hint(result.tensors.end(), entry.name,
                                Tensor::from_bytes(entry.bytes, entry.type(), device));
  }
  file.check_whole();
  return result;
}

void save_tensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                  const Metadata& metadata) {
  std::vector<Tensor> values;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor)
      throw Error("writing " + path.string() + ": " + quote(name) +
                  " is an empty handle, not a tensor");
    values.push_back(tensor);
  }
  if (!values.empty()) eval(values);
  std::vector<Outgoing> outgoing;
  std::vector<std::byte> host;
  for (const auto& [name, tensor] : tensors)
    outgoing.push_back({name, tensor.dtype(), tensor.shape(), tensor.type().bytes(),
                        [&host, &tensor = tensor]() -> std::span<const std::byte> {
                          host.resize(tensor.type().bytes());
                          tensor.copy_to(host, tensor.dtype());
                          return host;
                        }});
  ContentChecksum checksum;
  for (const Outgoing& tensor : outgoing) checksum.add(tensor.name, tensor.bytes());
  Metadata sealed = metadata;
  sealed[checksum_key] = checksum.text();
  write_outgoing(path, std::move(outgoing), sealed);
}

}  // namespace fluxion
