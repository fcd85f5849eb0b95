#include "models/images/animation.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "engine/error.h"
#include "models/images/png_file.h"

namespace fluxion {
namespace {

void check_frames(std::span<const Image> frames) {
  if (frames.empty()) throw ShapeError("animation: no frames");
  const Image& first = frames.front();
  for (const Image& frame : frames)
    if (frame.width != first.width || frame.height != first.height ||
        frame.channels != first.channels)
      throw ShapeError("animation: frames of unequal sizes");
}

// ---- GIF89a

constexpr int colour_bits = 5;  // of a channel, by which colours are counted
using GifColour = std::array<std::uint8_t, 3>;

std::uint32_t cell_of(const std::uint8_t* pixel) {
  return std::uint32_t{pixel[0]} >> (8 - colour_bits) << (2 * colour_bits) |
         std::uint32_t{pixel[1]} >> (8 - colour_bits) << colour_bits |
         std::uint32_t{pixel[2]} >> (8 - colour_bits);
}

struct Palette {
  std::vector<GifColour> colours;
  std::vector<std::uint8_t> of_cell;
};

// Boxes of counted colours, cut at the median of their longest side until there are 256.
Palette median_cut(std::span<const Image> frames) {
  struct Cell {
    std::uint32_t number;
    std::uint64_t count = 0;
    std::array<std::uint64_t, 3> sum = {};
    int side(int channel) const {
      return static_cast<int>(number >> ((2 - channel) * colour_bits)) & ((1 << colour_bits) - 1);
    }
  };
  std::vector<Cell> all(std::size_t{1} << (3 * colour_bits));
  for (const Image& frame : frames)
    for (std::size_t i = 0; i < frame.pixels.size(); i += 3) {
      Cell& cell = all[cell_of(frame.pixels.data() + i)];
      ++cell.count;
      for (std::size_t c = 0; c < 3; ++c) cell.sum[c] += frame.pixels[i + c];
    }
  std::vector<Cell> cells;
  for (std::uint32_t number = 0; number < all.size(); ++number) {
    all[number].number = number;
    if (all[number].count > 0) cells.push_back(all[number]);
  }
  struct Box {
    std::size_t begin, end;
    std::uint64_t count;
    int channel, length;  // the longest side
  };
  const auto box = [&](std::size_t begin, std::size_t end) {
    Box made{begin, end, 0, 0, -1};
    for (int channel = 0; channel < 3; ++channel) {
      int low = 1 << colour_bits, high = -1;
      for (std::size_t i = begin; i < end; ++i) {
        low = std::min(low, cells[i].side(channel));
        high = std::max(high, cells[i].side(channel));
      }
      if (high - low > made.length) made.channel = channel, made.length = high - low;
    }
    for (std::size_t i = begin; i < end; ++i) made.count += cells[i].count;
    return made;
  };
  std::vector<Box> boxes{box(0, cells.size())};
  while (boxes.size() < 256) {
    const auto widest =
        std::max_element(boxes.begin(), boxes.end(), [](const Box& a, const Box& b) {
          return std::pair(a.length > 0 ? a.count : 0, a.length) <
                 std::pair(b.length > 0 ? b.count : 0, b.length);
        });
    if (widest->length == 0) break;
    const Box cut = *widest;
    const auto at = [&](std::size_t i) { return cells.begin() + static_cast<std::ptrdiff_t>(i); };
    std::sort(at(cut.begin), at(cut.end), [&](const Cell& a, const Cell& b) {
      return std::pair(a.side(cut.channel), a.number) < std::pair(b.side(cut.channel), b.number);
    });
    std::size_t middle = cut.begin;
    for (std::uint64_t seen = 0; middle + 1 < cut.end && 2 * seen < cut.count; ++middle)
      seen += cells[middle].count;
    middle = std::max(middle, cut.begin + 1);
    *widest = box(cut.begin, middle);
    boxes.push_back(box(middle, cut.end));
  }
  Palette palette;
  palette.of_cell.resize(all.size());
  for (const Box& each : boxes) {
    std::array<std::uint64_t, 3> sum = {};
    for (std::size_t i = each.begin; i < each.end; ++i) {
      palette.of_cell[cells[i].number] = static_cast<std::uint8_t>(palette.colours.size());
      for (std::size_t c = 0; c < 3; ++c) sum[c] += cells[i].sum[c];
    }
    GifColour mean{};
    for (std::size_t c = 0; c < 3; ++c)
      mean[c] = static_cast<std::uint8_t>((sum[c] + each.count / 2) / each.count);
    palette.colours.push_back(mean);
  }
  return palette;
}

// Lempel, Ziv and Welch's codes of 8-bit symbols, 9 to 12 bits each, in blocks of up to 255 bytes.
class LzwBlocks {
 public:
  explicit LzwBlocks(std::vector<std::byte>& file) : file_(file) {}

  void encode(std::span<const std::uint8_t> symbols) {
    reset();
    put(clear);
    int prefix = -1;
    for (const std::uint8_t symbol : symbols) {
      if (prefix < 0) {
        prefix = symbol;
        continue;
      }
      const std::uint32_t key = static_cast<std::uint32_t>(prefix) << 8 | symbol;
      if (const auto known = codes_.find(key); known != codes_.end()) {
        prefix = known->second;
        continue;
      }
      put(prefix);
      if (next_ == 4096) {
        put(clear);
        reset();
      } else {
        // The reader learns each code one step later than the writer.
        if (next_ == 1 << width_) ++width_;
        codes_.emplace(key, next_++);
      }
      prefix = symbol;
    }
    if (prefix >= 0) put(prefix);
    // The reader has learnt one more code by now.
    if (next_ == 1 << width_ && width_ < 12) ++width_;
    put(end);
    if (filled_ > 0) put_byte(static_cast<std::uint8_t>(buffer_));
    flush();
    file_.push_back(std::byte{0});
  }

 private:
  static constexpr int clear = 256, end = 257;

  void reset() {
    codes_.clear();
    next_ = 258;
    width_ = 9;
  }
  void put(int code) {
    buffer_ |= static_cast<std::uint32_t>(code) << filled_;
    filled_ += width_;
    for (; filled_ >= 8; filled_ -= 8, buffer_ >>= 8) put_byte(static_cast<std::uint8_t>(buffer_));
  }
  void put_byte(std::uint8_t value) {
    block_.push_back(std::byte{value});
    if (block_.size() == 255) flush();
  }
  void flush() {
    if (block_.empty()) return;
    file_.push_back(static_cast<std::byte>(block_.size()));
    file_.insert(file_.end(), block_.begin(), block_.end());
    block_.clear();
  }

  std::vector<std::byte>& file_;
  std::vector<std::byte> block_;
  std::unordered_map<std::uint32_t, int> codes_;
  int next_ = 258, width_ = 9, filled_ = 0;
  std::uint32_t buffer_ = 0;
};

}  // namespace

std::vector<std::byte> encode_gif(std::span<const Image> frames, const AnimationOptions& options) {
  check_frames(frames);
  const Image& first = frames.front();
  if (first.width > 65535 || first.height > 65535)
    throw ShapeError("gif: a picture of " + std::to_string(first.width) + " x " +
                     std::to_string(first.height) + " pixels is larger than 65535");
  Palette palette;
  if (first.channels == 1)
    for (int level = 0; level < 256; ++level) {
      const auto grey = static_cast<std::uint8_t>(level);
      palette.colours.push_back({grey, grey, grey});
    }
  else
    palette = median_cut(frames);

  std::vector<std::byte> file;
  const auto text = [&](std::string_view bytes) {
    for (const char c : bytes) file.push_back(static_cast<std::byte>(c));
  };
  const auto u16 = [&](int value) {
    file.push_back(static_cast<std::byte>(value & 255));
    file.push_back(static_cast<std::byte>(value >> 8));
  };
  text("GIF89a");
  u16(first.width);
  u16(first.height);
  text(std::string_view("\xF7\0\0", 3));  // a palette of 256 colours for all frames
  for (std::size_t i = 0; i < 256; ++i)
    for (std::size_t c = 0; c < 3; ++c)
      file.push_back(
          std::byte{i < palette.colours.size() ? palette.colours[i][c] : std::uint8_t{0}});
  text(std::string_view("\x21\xFF\x0BNETSCAPE2.0\x03\x01\0\0\0", 19));  // repeat without end
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const int ms = i + 1 == frames.size() ? options.last_ms : options.frame_ms;
    text(std::string_view("\x21\xF9\x04\x04", 4));  // a frame that stays until the next
    u16(std::clamp((ms + 5) / 10, 2, 65535));
    text(std::string_view("\0\0\x2C\0\0\0\0", 7));
    u16(first.width);
    u16(first.height);
    text(std::string_view("\0\x08", 2));
    std::vector<std::uint8_t> symbols;
    if (first.channels == 1) {
      symbols = frames[i].pixels;
    } else {
      symbols.reserve(frames[i].pixels.size() / 3);
      for (std::size_t at = 0; at < frames[i].pixels.size(); at += 3)
        symbols.push_back(palette.of_cell[cell_of(frames[i].pixels.data() + at)]);
    }
    LzwBlocks(file).encode(symbols);
  }
  text(";");
  return file;
}

std::vector<std::byte> encode_apng(std::span<const Image> frames, std::span<const ImageText> texts,
                                   const AnimationOptions& options) {
  check_frames(frames);
  std::vector<int> ms(frames.size(), options.frame_ms);
  ms.back() = options.last_ms;
  return encode_png_frames(frames, ms, texts);
}

}  // namespace fluxion
