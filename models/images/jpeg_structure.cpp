#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "models/images/jpeg.h"

namespace fluxion::jpeg {

namespace {

constexpr std::uint64_t most_pixels = std::uint64_t{1} << 27;
// A scan costs time for every block of the image and hardly any bytes. Real files have some ten.
constexpr int most_scans = 100;

std::uint32_t byte(Bytes data, std::size_t at) { return std::to_integer<std::uint32_t>(data[at]); }
std::uint32_t u16(Bytes data, std::size_t at) { return byte(data, at) << 8 | byte(data, at + 1); }

struct Component {
  std::uint32_t id = 0;
  std::size_t table = 0;  // of quantisation
  bool begun = false;     // by a scan
  // By coefficient: the bits that are still to come, -1 where nothing has come yet.
  std::array<int, 64> missing_bits{};
};

// CRC-32 of the Huffman tables of annex K.3, counts and symbols: DC, then AC, for luminance and
// chrominance.
constexpr std::uint32_t standard_tables[2][2] = {{0x9898900e, 0x57a406eb},
                                                 {0x06f8f02e, 0xa1415f28}};

struct Scan {
  int first = 0, last = 63;  // coefficients, in zigzag order
  int high = 0, low = 0;     // the bits that are to come before it and after it
};

class Reader {
 public:
  Reader(Bytes file, std::string_view name) : file_(file), name_(name) {}

  Structure read() {
    while (true) {
      const std::uint32_t marker = next_marker();
      if (marker == 0xd9) break;                                           // EOI
      if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) continue;  // without contents
      if (marker == 0xd8) refuse("a damaged JPEG: an image begins inside another");
      const Bytes segment = next_segment();
      if (marker == 0xc4)
        huffman_tables(segment);
      else if (marker == 0xdb)
        quantisation_tables(segment);
      else if (marker >= 0xc0 && marker <= 0xcf)
        frame(marker, segment);
      else if (marker == 0xda)
        scan(segment);
      else if (marker == 0xdc)
        number_of_lines(segment);
      else if (marker != 0xdd && marker != 0xfe && (marker < 0xe0 || marker > 0xef))
        unknown(marker);
    }
    finish();
    return result_;
  }

 private:
  Bytes file_;
  std::string_view name_;
  std::size_t at_ = 2;  // after SOI
  Structure result_;
  bool progressive_ = false;
  std::vector<Component> components_;
  std::array<bool, 4> dc_{}, ac_{}, quantisation_{};  // the tables that are defined
  bool own_tables_ = false;                           // Huffman tables that are not standard
  int scans_ = 0;

  [[noreturn]] void refuse(const std::string& what) const { jpeg::refuse(name_, what); }

  // Bytes that belong to no segment are passed over, as by every decoder.
  std::uint32_t next_marker() {
    while (true) {
      while (at_ < file_.size() && byte(file_, at_) != 0xff) ++at_;
      while (at_ < file_.size() && byte(file_, at_) == 0xff) ++at_;
      if (at_ >= file_.size()) refuse("a JPEG that ends early");
      const std::uint32_t marker = byte(file_, at_++);
      if (marker != 0) return marker;
    }
  }

  Bytes next_segment() {
    if (file_.size() - at_ < 2) refuse("a JPEG that ends early");
    const std::uint32_t length = u16(file_, at_);
    if (length < 2) refuse("a damaged JPEG: an impossible length");
    if (length > file_.size() - at_) refuse("a JPEG that ends early");
    const Bytes segment = file_.subspan(at_ + 2, length - 2);
    at_ += length;
    return segment;
  }

  // Class and number, 16 counts of codes by length, then their symbols.
  void huffman_tables(Bytes segment) {
    while (!segment.empty()) {
      if (segment.size() < 17) refuse("a damaged JPEG: a short Huffman table");
      const std::uint32_t kind = byte(segment, 0) >> 4, number = byte(segment, 0) & 15;
      if (kind > 1 || number > 3)
        refuse("a damaged JPEG: a Huffman table with an impossible number");
      std::size_t symbols = 0;
      for (std::size_t i = 1; i <= 16; ++i) symbols += byte(segment, i);
      if (symbols > 256 || segment.size() < 17 + symbols)
        refuse("a damaged JPEG: an impossible Huffman table");
      (kind == 0 ? dc_ : ac_)[number] = true;
      const auto* const content = reinterpret_cast<const Bytef*>(segment.data()) + 1;
      if (number > 1 || ::crc32_z(0, content, 16 + symbols) != standard_tables[kind][number])
        own_tables_ = true;
      segment = segment.subspan(17 + symbols);
    }
  }

  void quantisation_tables(Bytes segment) {
    while (!segment.empty()) {
      const std::uint32_t wide = byte(segment, 0) >> 4, number = byte(segment, 0) & 15;
      if (wide > 1 || number > 3)
        refuse("a damaged JPEG: a quantisation table with an impossible number");
      const std::size_t size = 1 + 64 * (std::size_t{wide} + 1);
      if (segment.size() < size) refuse("a damaged JPEG: a short quantisation table");
      for (std::size_t i = 1; i < size; i += std::size_t{wide} + 1)
        if ((wide ? u16(segment, i) : byte(segment, i)) == 0)
          refuse("a damaged JPEG: a quantisation table with a zero");
      quantisation_[number] = true;
      segment = segment.subspan(size);
    }
  }

  [[noreturn]] void unknown(std::uint32_t marker) const {
    if (marker == 0xde || marker == 0xdf) refuse("a hierarchical JPEG, which is not supported");
    if (marker == 0xf7) refuse("a JPEG-LS image, which is not supported: convert it to PNG");
    constexpr std::string_view digits = "0123456789abcdef";
    refuse(std::string("a damaged JPEG: an unknown marker 0x") + digits[marker >> 4] +
           digits[marker & 15]);
  }

  void frame(std::uint32_t marker, Bytes segment) {
    if (marker == 0xc8 || marker == 0xcc) unknown_or_arithmetic(marker);
    if (marker == 0xc3) refuse("a lossless JPEG, which is not supported: convert it to PNG");
    if ((marker >= 0xc5 && marker <= 0xc7) || marker >= 0xcd)
      refuse("a hierarchical JPEG, which is not supported");
    if (marker >= 0xc9) refuse("a JPEG with arithmetic coding, which is not supported");
    if (!components_.empty()) refuse("a damaged JPEG: two frame headers");
    if (segment.size() < 6) refuse("a damaged JPEG: a short frame header");
    if (byte(segment, 0) != 8)
      refuse("a JPEG of " + std::to_string(byte(segment, 0)) +
             " bits a sample, which is not supported (8 are)");
    const std::uint32_t count = byte(segment, 5);
    if (count != 1 && count != 3 && count != 4)
      refuse("a JPEG with " + std::to_string(count) +
             " components, which is not supported (1, 3 and 4 are)");
    if (segment.size() != 6 + 3 * count)
      refuse("a damaged JPEG: a frame header of an impossible length");
    progressive_ = marker == 0xc2;
    result_.components = static_cast<int>(count);
    result_.height = static_cast<int>(u16(segment, 1));
    result_.width = static_cast<int>(u16(segment, 3));
    if (result_.height == 0 && result_.width != 0)
      refuse("a JPEG that states its height only after its data (DNL), which is not supported");
    if (result_.width == 0) refuse("an image without pixels");
    if (static_cast<std::uint64_t>(result_.width) * static_cast<std::uint64_t>(result_.height) >
        most_pixels)
      refuse("an image of " + std::to_string(result_.width) + " x " +
             std::to_string(result_.height) + " pixels (at most 2^27 in all)");
    int horizontal = 1, vertical = 1;
    const auto factors = [&](std::size_t i) {
      const std::uint32_t both = byte(segment, 7 + 3 * i);
      return std::pair{static_cast<int>(both >> 4), static_cast<int>(both & 15)};
    };
    for (std::size_t i = 0; i < count; ++i) {
      Component component{.id = byte(segment, 6 + 3 * i), .table = byte(segment, 8 + 3 * i)};
      const auto [h, v] = factors(i);
      if (h < 1 || h > 4 || v < 1 || v > 4) refuse("a damaged JPEG: an impossible sampling factor");
      if (component.table > 3)
        refuse("a damaged JPEG: a quantisation table with an impossible number");
      horizontal = std::max(horizontal, h);
      vertical = std::max(vertical, v);
      component.missing_bits.fill(-1);
      components_.push_back(component);
    }
    for (std::size_t i = 0; i < count; ++i)
      if (horizontal % factors(i).first != 0 || vertical % factors(i).second != 0)
        refuse(
            "a JPEG with sampling factors that do not divide each other, which is not supported");
  }

  [[noreturn]] void unknown_or_arithmetic(std::uint32_t marker) const {
    if (marker == 0xcc) refuse("a JPEG with arithmetic coding, which is not supported");
    unknown(marker);
  }

  // After the data of the first scan, if at all.
  void number_of_lines(Bytes segment) const {
    if (segment.size() != 2 || static_cast<int>(u16(segment, 0)) != result_.height)
      refuse("a JPEG that changes its height after its data (DNL), which is not supported");
  }

  void scan(Bytes segment) {
    if (components_.empty()) refuse("a damaged JPEG: no frame header");
    if (++scans_ > most_scans)
      refuse("a JPEG with more than " + std::to_string(most_scans) + " scans");
    const std::size_t count = segment.empty() ? 0 : byte(segment, 0);
    if (count < 1 || count > components_.size() || segment.size() != 4 + 2 * count)
      refuse("a damaged JPEG: an impossible scan header");
    Scan scan;
    // A sequential scan has all coefficients, whatever it states.
    if (progressive_) {
      scan = {static_cast<int>(byte(segment, 1 + 2 * count)),
              static_cast<int>(byte(segment, 2 + 2 * count)),
              static_cast<int>(byte(segment, 3 + 2 * count) >> 4),
              static_cast<int>(byte(segment, 3 + 2 * count) & 15)};
      if (scan.last > 63 || scan.first > scan.last || (scan.first == 0) != (scan.last == 0) ||
          (scan.first > 0 && count > 1) || scan.low > 13 ||
          (scan.high != 0 && scan.high != scan.low + 1))
        refuse("a damaged JPEG: an impossible progressive scan");
    }
    std::vector<bool> taken(components_.size());
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t id = byte(segment, 1 + 2 * i), tables = byte(segment, 2 + 2 * i);
      // Where two components have one number, the next that this scan does not have yet.
      std::size_t at = 0;
      while (at < components_.size() && (components_[at].id != id || taken[at])) ++at;
      if (at == components_.size())
        refuse("a damaged JPEG: a scan of component " + std::to_string(id) +
               ", which its frame header lacks");
      taken[at] = true;
      Component& component = components_[at];
      if (!component.begun && !quantisation_[component.table])
        refuse("a JPEG without quantisation table " + std::to_string(component.table) +
               ", which component " + std::to_string(component.id) + " needs");
      component.begun = true;
      follow_progression(scan, component);
      if (scan.first == 0 && scan.high == 0) need_table("DC", dc_, tables >> 4, component);
      if (scan.last > 0) need_table("AC", ac_, tables & 15, component);
    }
    at_ = scan_end(at_);
  }

  // Frames of motion JPEG leave the tables of annex K out, and libjpeg fills them in. Beside tables
  // of its own, a file that lacks one has lost it.
  void need_table(const char* kind, const std::array<bool, 4>& defined, std::uint32_t number,
                  const Component& component) {
    if (number <= 3 && defined[number]) return;
    if (progressive_ || number > 1 || own_tables_)
      refuse(std::string("a JPEG without ") + kind + " Huffman table " + std::to_string(number) +
             ", which component " + std::to_string(component.id) + " needs");
    result_.standard_tables = true;
  }

  // A coefficient's bits come from the highest to the lowest, each once, and DC before AC.
  void follow_progression(const Scan& scan, Component& component) {
    auto& missing = component.missing_bits;
    if (scan.first > 0 && missing[0] < 0)
      refuse("a damaged JPEG: a progressive scan comes before the one that it refines");
    for (int k = scan.first; k <= scan.last; ++k) {
      int& bits = missing[static_cast<std::size_t>(k)];
      if (!progressive_ && bits >= 0) refuse("a damaged JPEG: two scans of one component");
      if (progressive_ && (scan.high == 0 ? bits >= 0 : bits != scan.high))
        refuse("a damaged JPEG: progressive scans that do not follow from each other");
      bits = scan.low;
    }
  }

  // Where the next marker stands after compressed data, in which a byte ff is followed by 00 or
  // belongs to a restart marker.
  std::size_t scan_end(std::size_t at) const {
    while (true) {
      const void* const found =
          at < file_.size() ? std::memchr(file_.data() + at, 0xff, file_.size() - at) : nullptr;
      if (found == nullptr) refuse("a JPEG that ends early");
      at = static_cast<std::size_t>(static_cast<const std::byte*>(found) - file_.data());
      std::size_t after = at + 1;
      while (after < file_.size() && byte(file_, after) == 0xff) ++after;
      if (after >= file_.size()) refuse("a JPEG that ends early");
      const std::uint32_t next = byte(file_, after);
      if (next != 0 && (next < 0xd0 || next > 0xd7)) return at;
      at = after + 1;
    }
  }

  void finish() const {
    if (scans_ == 0) refuse("a JPEG without pixels");
    for (const Component& component : components_) {
      const auto& missing = component.missing_bits;
      if (missing[0] < 0)
        refuse("a damaged JPEG: no scan of component " + std::to_string(component.id));
      if (std::any_of(missing.begin(), missing.end(), [](int bits) { return bits != 0; }))
        refuse("a damaged JPEG: a progressive one without its last scans");
    }
    // A block costs a bit or more, however well it is packed.
    const std::uint64_t blocks = static_cast<std::uint64_t>((result_.width + 7) / 8) *
                                 static_cast<std::uint64_t>((result_.height + 7) / 8);
    if (blocks / 8 > file_.size()) refuse("a JPEG that claims more pixels than its data can hold");
  }
};

}  // namespace

Structure read_structure(Bytes file, std::string_view name) { return Reader(file, name).read(); }

}  // namespace fluxion::jpeg
