#include "models/images/jpeg_file.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"

namespace fluxion::jpeg {

namespace {

constexpr std::uint64_t most_pixels = std::uint64_t{1} << 27;
// A scan costs time for every block of the image and hardly any bytes. Real files have some ten.
constexpr int most_scans = 100;

std::uint32_t byte(Bytes data, std::size_t at) { return std::to_integer<std::uint32_t>(data[at]); }
std::uint32_t u16(Bytes data, std::size_t at) { return byte(data, at) << 8 | byte(data, at + 1); }

int divided_up(int value, int by) { return (value + by - 1) / by; }

HuffmanTable table_of(std::initializer_list<int> counts, std::string_view symbols) {
  HuffmanTable table;
  std::copy(counts.begin(), counts.end(), table.counts.begin());
  std::copy(symbols.begin(), symbols.end(), table.symbols.begin());
  table.standard = true;
  return table;
}

// The tables of annex K.3, luminance and chrominance. Frames of motion JPEG rely on them.
HuffmanTable standard_table(bool ac, bool chrominance) {
  using namespace std::string_view_literals;
  constexpr std::string_view dc_symbols = "\0\1\2\3\4\5\6\7\10\11\12\13"sv;
  if (!ac && !chrominance)
    return table_of({0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0}, dc_symbols);
  if (!ac) return table_of({0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0}, dc_symbols);
  if (!chrominance)
    return table_of(
        {0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d},
        "\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32"
        "\x81\x91\xa1\x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16"
        "\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45"
        "\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69"
        "\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94"
        "\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6"
        "\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8"
        "\xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8"
        "\xf9\xfa"sv);
  return table_of({0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77},
                  "\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81"
                  "\x08\x14\x42\x91\xa1\xb1\xc1\x09\x23\x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34"
                  "\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36\x37\x38\x39\x3a\x43\x44"
                  "\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68"
                  "\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92"
                  "\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4"
                  "\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6"
                  "\xd7\xd8\xd9\xda\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8"
                  "\xf9\xfa"sv);
}

class Reader {
 public:
  Reader(Bytes file, std::string_view name) : file_(file), name_(name) {}

  File read() {
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
      else if (marker == 0xdd)
        restart_interval(segment);
      else if (marker >= 0xc0 && marker <= 0xcf)
        frame(marker, segment);
      else if (marker == 0xda)
        scan(segment);
      else if (marker == 0xdc)
        number_of_lines(segment);
      else if (marker >= 0xe0 && marker <= 0xef)
        application(marker, segment);
      else if (marker != 0xfe)
        unknown(marker);
    }
    finish();
    return std::move(result_);
  }

 private:
  Bytes file_;
  std::string_view name_;
  std::size_t at_ = 2;  // after SOI
  File result_;
  std::array<std::optional<HuffmanTable>, 4> dc_, ac_;
  std::array<std::optional<QuantisationTable>, 4> quantisation_;
  int restart_interval_ = 0;
  bool jfif_ = false;
  std::optional<std::uint32_t> adobe_transform_;
  // Of progressive files, by component and coefficient: the bits that are still to come, -1 where
  // nothing has come yet.
  std::vector<std::array<int, 64>> missing_bits_;

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
      HuffmanTable table;
      std::size_t symbols = 0;
      std::uint32_t code = 0;
      for (std::size_t i = 0; i < 16; ++i) {
        table.counts[i] = static_cast<std::uint8_t>(byte(segment, i + 1));
        symbols += table.counts[i];
        code = 2 * code + table.counts[i];
        if (code > 2u << i) refuse("a damaged JPEG: an impossible Huffman table");
      }
      if (symbols > 256 || segment.size() < 17 + symbols)
        refuse("a damaged JPEG: an impossible Huffman table");
      for (std::size_t i = 0; i < symbols; ++i) {
        table.symbols[i] = static_cast<std::uint8_t>(byte(segment, 17 + i));
        if (kind == 0 && table.symbols[i] > 15)
          refuse("a damaged JPEG: an impossible Huffman table");
      }
      (kind == 0 ? dc_ : ac_)[number] = table;
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
      QuantisationTable table;
      for (std::size_t i = 0; i < 64; ++i) {
        table[i] =
            static_cast<std::uint16_t>(wide ? u16(segment, 1 + 2 * i) : byte(segment, 1 + i));
        if (table[i] == 0) refuse("a damaged JPEG: a quantisation table with a zero");
      }
      quantisation_[number] = table;
      segment = segment.subspan(size);
    }
  }

  void restart_interval(Bytes segment) {
    if (segment.size() != 2) refuse("a damaged JPEG: a restart interval of an impossible length");
    restart_interval_ = static_cast<int>(u16(segment, 0));
  }

  // What decides about colours.
  void application(std::uint32_t marker, Bytes segment) {
    const std::string_view text(reinterpret_cast<const char*>(segment.data()), segment.size());
    if (marker == 0xe0 && text.size() >= 14 && text.starts_with(std::string_view("JFIF\0", 5)))
      jfif_ = true;
    if (marker == 0xee && text.size() >= 12 && text.starts_with("Adobe"))
      adobe_transform_ = byte(segment, 11);
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
    if (!result_.components.empty()) refuse("a damaged JPEG: two frame headers");
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
    result_.progressive = marker == 0xc2;
    result_.height = static_cast<int>(u16(segment, 1));
    result_.width = static_cast<int>(u16(segment, 3));
    if (result_.height == 0 && result_.width != 0)
      refuse("a JPEG that states its height only after its data (DNL), which is not supported");
    if (result_.width == 0) refuse("an image without pixels");
    if (static_cast<std::uint64_t>(result_.width) * static_cast<std::uint64_t>(result_.height) >
        most_pixels)
      refuse("an image of " + std::to_string(result_.width) + " x " +
             std::to_string(result_.height) + " pixels (at most 2^27 in all)");
    for (std::size_t i = 0; i < count; ++i) {
      Component component;
      component.id = static_cast<int>(byte(segment, 6 + 3 * i));
      component.horizontal = static_cast<int>(byte(segment, 7 + 3 * i) >> 4);
      component.vertical = static_cast<int>(byte(segment, 7 + 3 * i) & 15);
      component.table = static_cast<int>(byte(segment, 8 + 3 * i));
      if (component.horizontal < 1 || component.horizontal > 4 || component.vertical < 1 ||
          component.vertical > 4)
        refuse("a damaged JPEG: an impossible sampling factor");
      if (component.table > 3)
        refuse("a damaged JPEG: a quantisation table with an impossible number");
      result_.horizontal = std::max(result_.horizontal, component.horizontal);
      result_.vertical = std::max(result_.vertical, component.vertical);
      result_.components.push_back(component);
    }
    missing_bits_.resize(count);
    for (auto& bits : missing_bits_) bits.fill(-1);
    lay_out();
  }

  [[noreturn]] void unknown_or_arithmetic(std::uint32_t marker) const {
    if (marker == 0xcc) refuse("a JPEG with arithmetic coding, which is not supported");
    unknown(marker);
  }

  void lay_out() {
    const int across = divided_up(result_.width, 8 * result_.horizontal),
              down = divided_up(result_.height, 8 * result_.vertical);
    for (Component& component : result_.components) {
      if (result_.horizontal % component.horizontal != 0 ||
          result_.vertical % component.vertical != 0)
        refuse(
            "a JPEG with sampling factors that do not divide each other, which is not supported");
      component.width = divided_up(result_.width * component.horizontal, result_.horizontal);
      component.height = divided_up(result_.height * component.vertical, result_.vertical);
      component.columns = divided_up(component.width, 8);
      component.rows = divided_up(component.height, 8);
      component.blocks_across = across * component.horizontal;
      component.blocks_down = down * component.vertical;
    }
  }

  // After the data of the first scan, if at all.
  void number_of_lines(Bytes segment) const {
    if (segment.size() != 2 || static_cast<int>(u16(segment, 0)) != result_.height)
      refuse("a JPEG that changes its height after its data (DNL), which is not supported");
  }

  void scan(Bytes segment) {
    if (result_.components.empty()) refuse("a damaged JPEG: no frame header");
    if (static_cast<int>(result_.scans.size()) == most_scans)
      refuse("a JPEG with more than " + std::to_string(most_scans) + " scans");
    const std::size_t count = segment.empty() ? 0 : byte(segment, 0);
    if (count < 1 || count > result_.components.size() || segment.size() != 4 + 2 * count)
      refuse("a damaged JPEG: an impossible scan header");
    Scan scan;
    // A sequential scan has all coefficients, whatever it states.
    if (result_.progressive) {
      scan.first = static_cast<int>(byte(segment, 1 + 2 * count));
      scan.last = static_cast<int>(byte(segment, 2 + 2 * count));
      scan.high = static_cast<int>(byte(segment, 3 + 2 * count) >> 4);
      scan.low = static_cast<int>(byte(segment, 3 + 2 * count) & 15);
      if (scan.last > 63 || scan.first > scan.last || (scan.first == 0) != (scan.last == 0) ||
          (scan.first > 0 && count > 1) || scan.low > 13 ||
          (scan.high != 0 && scan.high != scan.low + 1))
        refuse("a damaged JPEG: an impossible progressive scan");
    }
    for (std::size_t i = 0; i < count; ++i)
      scan.parts.push_back(scan_part(scan, byte(segment, 1 + 2 * i), byte(segment, 2 + 2 * i)));
    if (count == 1) {
      const Component& only = result_.components[scan.parts[0].component];
      scan.units = std::int64_t{only.columns} * only.rows;
    } else {
      scan.units = std::int64_t{divided_up(result_.width, 8 * result_.horizontal)} *
                   divided_up(result_.height, 8 * result_.vertical);
    }
    scan.restart_interval = restart_interval_;
    read_intervals(scan);
    result_.scans.push_back(std::move(scan));
  }

  ScanPart scan_part(const Scan& scan, std::uint32_t id, std::uint32_t tables) {
    ScanPart part;
    // Where two components have one number, the next that this scan does not have yet.
    const auto taken = [&](std::size_t component) {
      return std::any_of(scan.parts.begin(), scan.parts.end(),
                         [&](const ScanPart& other) { return other.component == component; });
    };
    auto& components = result_.components;
    while (part.component < components.size() &&
           (components[part.component].id != static_cast<int>(id) || taken(part.component)))
      ++part.component;
    if (part.component == components.size())
      refuse("a damaged JPEG: a scan of component " + std::to_string(id) +
             ", which its frame header lacks");
    Component& component = components[part.component];
    if (!component.quantisation) {
      component.quantisation = quantisation_[static_cast<std::size_t>(component.table)];
      if (!component.quantisation)
        refuse("a JPEG without quantisation table " + std::to_string(component.table) +
               ", which component " + std::to_string(component.id) + " needs");
    }
    follow_progression(scan, part.component);
    const bool has_dc = scan.first == 0 && scan.high == 0, has_ac = scan.last > 0;
    if (has_dc) part.dc = huffman_table(false, tables >> 4, component);
    if (has_ac) part.ac = huffman_table(true, tables & 15, component);
    return part;
  }

  HuffmanTable huffman_table(bool ac, std::uint32_t number, const Component& component) const {
    if (number > 3) refuse("a damaged JPEG: a Huffman table with an impossible number");
    const auto& defined = (ac ? ac_ : dc_)[number];
    if (defined) return *defined;
    if (result_.progressive || number > 1)
      refuse(std::string("a JPEG without ") + (ac ? "AC" : "DC") + " Huffman table " +
             std::to_string(number) + ", which component " + std::to_string(component.id) +
             " needs");
    return standard_table(ac, number == 1);
  }

  // A coefficient's bits come from the highest to the lowest, each once, and DC before AC.
  void follow_progression(const Scan& scan, std::size_t component) {
    auto& missing = missing_bits_[component];
    if (scan.first > 0 && missing[0] < 0)
      refuse("a damaged JPEG: a progressive scan comes before the one that it refines");
    for (int k = scan.first; k <= scan.last; ++k) {
      int& bits = missing[static_cast<std::size_t>(k)];
      if (!result_.progressive && bits >= 0) refuse("a damaged JPEG: two scans of one component");
      if (result_.progressive && (scan.high == 0 ? bits >= 0 : bits != scan.high))
        refuse("a damaged JPEG: progressive scans that do not follow from each other");
      bits = scan.low;
    }
  }

  // Compressed data up to the next marker, in which a byte ff is followed by 00 or belongs to a
  // restart marker.
  void read_intervals(Scan& scan) {
    std::size_t start = at_;
    int out_of_order = -1;  // the first interval whose restart marker has another number
    while (true) {
      const void* const found =
          at_ < file_.size() ? std::memchr(file_.data() + at_, 0xff, file_.size() - at_) : nullptr;
      if (found == nullptr) refuse("a JPEG that ends early");
      at_ = static_cast<std::size_t>(static_cast<const std::byte*>(found) - file_.data());
      const std::size_t end = at_;
      while (at_ < file_.size() && byte(file_, at_) == 0xff) ++at_;
      if (at_ >= file_.size()) refuse("a JPEG that ends early");
      const std::uint32_t next = byte(file_, at_);
      if (next == 0) {
        ++at_;
        continue;
      }
      scan.intervals.push_back(file_.subspan(start, end - start));
      if (next < 0xd0 || next > 0xd7) {
        at_ = end;
        break;
      }
      const int number = static_cast<int>(scan.intervals.size()) - 1;
      if (out_of_order < 0 && static_cast<int>(next - 0xd0) != number % 8) out_of_order = number;
      start = ++at_;
    }
    // Some writers end with restart markers that nothing follows.
    const std::int64_t expected =
        scan.restart_interval == 0
            ? 1
            : (scan.units + scan.restart_interval - 1) / scan.restart_interval;
    while (static_cast<std::int64_t>(scan.intervals.size()) > expected &&
           scan.intervals.back().empty())
      scan.intervals.pop_back();
    if (static_cast<std::int64_t>(scan.intervals.size()) != expected)
      refuse("a damaged JPEG: " + std::to_string(scan.intervals.size()) +
             " restart intervals, where its headers call for " + std::to_string(expected));
    if (out_of_order >= 0 && out_of_order + 1 < expected)
      refuse("a damaged JPEG: restart markers out of order");
  }

  void finish() {
    if (result_.scans.empty()) refuse("a JPEG without pixels");
    for (std::size_t i = 0; i < result_.components.size(); ++i) {
      const auto& missing = missing_bits_[i];
      if (missing[0] < 0)
        refuse("a damaged JPEG: no scan of component " + std::to_string(result_.components[i].id));
      if (std::any_of(missing.begin(), missing.end(), [](int bits) { return bits != 0; }))
        refuse("a damaged JPEG: a progressive one without its last scans");
    }
    // A block costs a bit or more, however well it is packed.
    const std::uint64_t blocks =
        static_cast<std::uint64_t>((result_.width + 7) / 8) * ((result_.height + 7) / 8);
    if (blocks / 8 > file_.size()) refuse("a JPEG that claims more pixels than its data can hold");
    result_.colours = colours();
  }

  // As libjpeg decides. Four components without word of Adobe are CMYK.
  Colours colours() const {
    const auto& components = result_.components;
    if (components.size() == 1) return Colours::grey;
    if (components.size() == 4)
      return adobe_transform_.value_or(0) == 0 ? Colours::cmyk : Colours::ycck;
    if (jfif_) return Colours::ycc;
    if (adobe_transform_) return *adobe_transform_ == 0 ? Colours::rgb : Colours::ycc;
    return components[0].id == 'R' && components[1].id == 'G' && components[2].id == 'B'
               ? Colours::rgb
               : Colours::ycc;
  }
};

}  // namespace

void refuse(std::string_view name, const std::string& what) {
  throw FormatError(std::string(name) + ": " + what);
}

File read(Bytes file, std::string_view name) { return Reader(file, name).read(); }

}  // namespace fluxion::jpeg
