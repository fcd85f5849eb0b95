#include "models/images/jpeg_samples.h"

#include <algorithm>
#include <cstring>

#include "models/images/jpeg_transform.h"

namespace fluxion::jpeg {

namespace {

constexpr std::array<std::uint8_t, 64> zigzag = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// The bits of one interval. Past its end come zeros, which overrun() tells.
class BitReader {
 public:
  // `data` has no stuffed bytes.
  void restart(const std::vector<std::uint8_t>& data) {
    data_ = data.data();
    size_ = data.size();
    at_ = 0;
    window_ = 0;
    count_ = 0;
  }

  // Makes 56 bits or more available: for a code and its value.
  void refill() {
    if (at_ + 8 <= size_) {
      std::uint64_t next = 0;
      for (std::size_t i = 0; i < 8; ++i) next = next << 8 | data_[at_ + i];
      window_ |= next >> count_;
      const int bytes = (63 - count_) >> 3;
      at_ += static_cast<std::size_t>(bytes);
      count_ += 8 * bytes;
      return;
    }
    while (count_ <= 56) {
      const std::uint64_t next = at_ < size_ ? data_[at_] : 0;
      window_ |= next << (56 - count_);
      ++at_;
      count_ += 8;
    }
  }
  std::uint32_t peek(int bits) const { return static_cast<std::uint32_t>(window_ >> (64 - bits)); }
  void skip(int bits) {
    window_ <<= bits;
    count_ -= bits;
  }
  std::uint32_t take(int bits) {
    if (bits == 0) return 0;
    const std::uint32_t value = peek(bits);
    skip(bits);
    return value;
  }
  bool bit() {
    if (count_ == 0) refill();
    return take(1) != 0;
  }
  // The difference that `bits` bits stand for (F.2.2.1).
  int difference(int bits) {
    const int value = static_cast<int>(take(bits));
    return bits > 0 && value < 1 << (bits - 1) ? value - (1 << bits) + 1 : value;
  }

  bool overrun() const { return used_bits() > 8 * size_; }
  std::size_t used_bytes() const { return (used_bits() + 7) / 8; }

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0, at_ = 0;
  std::uint64_t window_ = 0;  // the next bits, from the highest on
  int count_ = 0;             // how many of them are there

  std::size_t used_bits() const { return 8 * at_ - static_cast<std::size_t>(count_); }
};

// Looks codes of up to 9 bits up; longer ones are compared with the last of each length.
class Codes {
 public:
  explicit Codes(const HuffmanTable& table) : symbols_(table.symbols) {
    std::uint32_t code = 0;
    int symbol = 0;
    for (int length = 1; length <= 16; ++length) {
      const auto l = static_cast<std::size_t>(length);
      offset_[l] = symbol - static_cast<int>(code);
      for (int i = 0; i < table.counts[l - 1]; ++i, ++code, ++symbol) {
        if (length > fast_bits) continue;
        const std::uint32_t start = code << (fast_bits - length);
        std::fill_n(
            fast_.begin() + start, std::size_t{1} << (fast_bits - length),
            static_cast<std::uint16_t>(length << 8 | symbols_[static_cast<std::size_t>(symbol)]));
      }
      end_[l] = code << (16 - length);
      code *= 2;
    }
  }

  // -1 for bits that are no code.
  int next(BitReader& bits) const {
    const std::uint16_t found = fast_[bits.peek(fast_bits)];
    if (found != 0) {
      bits.skip(found >> 8);
      return found & 255;
    }
    const std::uint32_t ahead = bits.peek(16);
    for (int length = fast_bits + 1; length <= 16; ++length) {
      const auto l = static_cast<std::size_t>(length);
      if (ahead >= end_[l]) continue;
      bits.skip(length);
      const int index = static_cast<int>(ahead >> (16 - length)) + offset_[l];
      return symbols_[static_cast<std::size_t>(index)];
    }
    return -1;
  }

 private:
  static constexpr int fast_bits = 9;
  std::array<std::uint8_t, 256> symbols_;
  std::array<std::uint16_t, 1 << fast_bits> fast_{};  // length and symbol
  std::array<int, 17> offset_{};
  std::array<std::uint32_t, 17> end_{};  // of the codes of this length, as 16 bits
};

class Decoder {
 public:
  Decoder(const File& file, std::string_view name) : file_(file), name_(name) {
    for (const Component& component : file.components) {
      const std::size_t blocks =
          static_cast<std::size_t>(component.blocks_across) * component.blocks_down;
      planes_.push_back({static_cast<std::size_t>(component.blocks_across) * 8,
                         std::vector<std::uint8_t>(blocks * 64)});
      if (file.progressive) coefficients_.emplace_back(blocks * 64);
      const QuantisationTable& table = component.quantisation.value();
      auto& steps = steps_.emplace_back();
      for (std::size_t k = 0; k < 64; ++k) steps[zigzag[k]] = table[k];
    }
  }

  std::vector<Plane> decode() {
    for (const Scan& scan : file_.scans) decode(scan);
    if (file_.progressive) transform_all();
    return std::move(planes_);
  }

 private:
  struct Part {
    const Component* component;
    std::size_t index;
    std::optional<Codes> dc, ac;
    int last_dc = 0;
  };

  const File& file_;
  std::string_view name_;
  std::vector<Plane> planes_;
  std::vector<std::array<std::int32_t, 64>> steps_;      // of quantisation, row-major
  std::vector<std::vector<std::int16_t>> coefficients_;  // of progressive files, by component
  std::vector<Part> parts_;
  BitReader bits_;
  std::uint32_t blocks_without_more_ = 0;  // the end-of-band run (G.1.2.2)

  [[noreturn]] void refuse(const std::string& what) const {
    jpeg::refuse(name_, "a damaged JPEG: " + what);
  }
  // For what zeros behind the end can bring about as well.
  [[noreturn]] void refuse(const std::string& what, const BitReader& bits) const {
    refuse(bits.overrun() ? "its data ends before its last pixel" : what);
  }

  void decode(const Scan& scan) {
    parts_.clear();
    bool standard = false;
    for (const ScanPart& part : scan.parts) {
      parts_.push_back({&file_.components[part.component], part.component, {}, {}});
      if (part.dc) parts_.back().dc.emplace(*part.dc);
      if (part.ac) parts_.back().ac.emplace(*part.ac);
      standard = standard || (part.dc && part.dc->standard) || (part.ac && part.ac->standard);
    }
    std::int64_t unit = 0;
    std::vector<std::uint8_t> data;
    for (const Bytes& interval : scan.intervals) {
      unstuff(interval, data);
      bits_.restart(data);
      for (Part& part : parts_) part.last_dc = 0;
      blocks_without_more_ = 0;
      const std::int64_t end = scan.restart_interval == 0
                                   ? scan.units
                                   : std::min(scan.units, unit + scan.restart_interval);
      for (; unit < end; ++unit) {
        decode_unit(scan, unit);
        if (bits_.overrun()) refuse("its data ends before its last pixel");
      }
      check_rest(data, unit < scan.units, standard);
    }
  }

  // Takes out what follows a byte ff.
  static void unstuff(Bytes interval, std::vector<std::uint8_t>& data) {
    data.clear();
    data.reserve(interval.size());
    const auto* const begin = reinterpret_cast<const std::uint8_t*>(interval.data());
    const auto* const end = begin + interval.size();
    for (const auto* at = begin; at < end;) {
      const auto* const mark = std::find(at, end, std::uint8_t{0xff});
      data.insert(data.end(), at, mark);
      at = mark;
      if (at == end) break;
      data.push_back(0xff);
      while (at < end && *at == 0xff) ++at;
      ++at;  // the 00
    }
  }

  // Padding is common, and some cameras leave a few bytes. More is data for which there are no
  // pixels: the header or a table is not what the data was written with.
  void check_rest(const std::vector<std::uint8_t>& data, bool more_intervals, bool standard) const {
    const std::size_t used = std::min(bits_.used_bytes(), data.size()), left = data.size() - used;
    const auto rest = data.begin() + static_cast<std::ptrdiff_t>(used);
    const auto all = [&](std::uint8_t value) {
      return std::all_of(rest, data.end(), [&](std::uint8_t byte) { return byte == value; });
    };
    if (left == 0 || all(0) || all(0xff)) return;
    if (standard) refuse("it lacks Huffman tables, and the standard ones do not fit its data");
    if (more_intervals || left > 64 + used / 16)
      refuse("it has data for more pixels than it states");
  }

  void decode_unit(const Scan& scan, std::int64_t unit) {
    if (parts_.size() == 1) {
      Part& part = parts_[0];
      const int columns = part.component->columns;
      decode_block(scan, part, static_cast<int>(unit % columns), static_cast<int>(unit / columns));
      return;
    }
    const int across = file_.components[0].blocks_across / file_.components[0].horizontal;
    const int x = static_cast<int>(unit % across), y = static_cast<int>(unit / across);
    for (Part& part : parts_) {
      const int h = part.component->horizontal, v = part.component->vertical;
      for (int i = 0; i < v; ++i)
        for (int j = 0; j < h; ++j) decode_block(scan, part, x * h + j, y * v + i);
    }
  }

  void decode_block(const Scan& scan, Part& part, int x, int y) {
    if (!file_.progressive) {
      std::array<std::int16_t, 64> block{};
      sequential(part, block.data());
      transform(part.index, block.data(), x, y);
      return;
    }
    std::int16_t* const block =
        coefficients_[part.index].data() +
        64 * (static_cast<std::size_t>(y) * part.component->blocks_across + x);
    if (scan.first == 0 && scan.high == 0)
      block[0] = next_dc(part, scan.low);
    else if (scan.first == 0)
      block[0] = static_cast<std::int16_t>(block[0] | (bits_.bit() ? 1 << scan.low : 0));
    else if (scan.high == 0)
      first_ac(scan, *part.ac, block);
    else
      refine_ac(scan, *part.ac, block);
  }

  int next_symbol(const Codes& codes) { return next_symbol(codes, bits_); }
  int next_symbol(const Codes& codes, BitReader& bits) const {
    bits.refill();
    const int symbol = codes.next(bits);
    if (symbol < 0) refuse("its data has a code that its tables lack", bits);
    return symbol;
  }

  std::int16_t next_dc(Part& part, int shift) {
    part.last_dc += bits_.difference(next_symbol(*part.dc));
    const int value = part.last_dc * (1 << shift);
    if (value < INT16_MIN || value > INT16_MAX) refuse("an impossible coefficient", bits_);
    return static_cast<std::int16_t>(value);
  }

  static std::int16_t* place(std::int16_t* block, int k) {
    return block + zigzag[static_cast<std::size_t>(k)];
  }

  void sequential(Part& part, std::int16_t* block) {
    block[0] = next_dc(part, 0);
    const Codes& codes = *part.ac;
    BitReader bits = bits_;  // where compilers keep it in registers
    for (int k = 1; k < 64; ++k) {
      const int symbol = next_symbol(codes, bits), run = symbol >> 4, size = symbol & 15;
      if (size == 0) {
        if (run != 15) break;
        k += 15;
        continue;
      }
      k += run;
      if (k > 63) refuse("a coefficient outside its block", bits);
      *place(block, k) = static_cast<std::int16_t>(bits.difference(size));
    }
    bits_ = bits;
  }

  void first_ac(const Scan& scan, const Codes& codes, std::int16_t* block) {
    if (blocks_without_more_ > 0) {
      --blocks_without_more_;
      return;
    }
    for (int k = scan.first; k <= scan.last; ++k) {
      const int symbol = next_symbol(codes), run = symbol >> 4, size = symbol & 15;
      if (size == 0 && run == 15) {
        k += 15;
      } else if (size == 0) {
        blocks_without_more_ = (1u << run) - 1 + bits_.take(run);
        break;
      } else {
        k += run;
        if (k > scan.last) refuse("a coefficient outside its block", bits_);
        const int value = bits_.difference(size) * (1 << scan.low);
        if (value < INT16_MIN || value > INT16_MAX) refuse("an impossible coefficient", bits_);
        *place(block, k) = static_cast<std::int16_t>(value);
      }
    }
  }

  void refine_ac(const Scan& scan, const Codes& codes, std::int16_t* block) {
    const int step = 1 << scan.low;
    const auto refine = [&](std::int16_t& value) {
      if (bits_.bit() && (value & step) == 0)
        value = static_cast<std::int16_t>(value > 0 ? value + step : value - step);
    };
    int k = scan.first;
    if (blocks_without_more_ == 0) {
      for (; k <= scan.last; ++k) {
        const int symbol = next_symbol(codes), size = symbol & 15;
        int run = symbol >> 4, value = 0;
        if (size > 1) refuse("a coefficient that begins in a refining scan", bits_);
        if (size == 1) {
          value = bits_.bit() ? step : -step;
        } else if (run != 15) {
          blocks_without_more_ = (1u << run) + bits_.take(run);
          break;
        }
        for (; k <= scan.last; ++k) {
          std::int16_t& at = *place(block, k);
          if (at != 0)
            refine(at);
          else if (run-- == 0)
            break;
        }
        if (value == 0) continue;
        if (k > scan.last) refuse("a coefficient outside its block", bits_);
        *place(block, k) = static_cast<std::int16_t>(value);
      }
    }
    if (blocks_without_more_ == 0) return;
    for (; k <= scan.last; ++k)
      if (std::int16_t& at = *place(block, k); at != 0) refine(at);
    --blocks_without_more_;
  }

  void transform_all() {
    for (std::size_t i = 0; i < planes_.size(); ++i) {
      const Component& component = file_.components[i];
      for (int y = 0; y < component.rows; ++y)
        for (int x = 0; x < component.columns; ++x)
          transform(i,
                    coefficients_[i].data() +
                        64 * (static_cast<std::size_t>(y) * component.blocks_across + x),
                    x, y);
      coefficients_[i] = {};
    }
  }

  void transform(std::size_t component, const std::int16_t* block, int x, int y) {
    const std::array<std::int32_t, 64>& steps = steps_[component];
    std::array<std::int32_t, 64> values;
    for (std::size_t i = 0; i < 64; ++i) values[i] = block[i] * steps[i];
    Plane& to = planes_[component];
    inverse_transform(values,
                      to.samples.data() + static_cast<std::size_t>(y) * 8 * to.stride +
                          static_cast<std::size_t>(x) * 8,
                      to.stride);
  }
};

}  // namespace

std::vector<Plane> decode_samples(const File& file, std::string_view name) {
  return Decoder(file, name).decode();
}

}  // namespace fluxion::jpeg
