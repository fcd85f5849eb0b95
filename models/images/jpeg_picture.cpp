#include "models/images/jpeg_picture.h"

#include <algorithm>
#include <array>

namespace fluxion::jpeg {

namespace {

// Nearly all values are within the range: one comparison for both ends.
std::uint8_t level(int value) {
  if (static_cast<unsigned>(value) > 255) return value < 0 ? 0 : 255;
  return static_cast<std::uint8_t>(value);
}

// One component's rows at the resolution of the picture.
class Enlarged {
 public:
  Enlarged(const File& file, const Component& component, const Plane& plane)
      : component_(component),
        plane_(plane),
        across_(file.horizontal / component.horizontal),
        down_(file.vertical / component.vertical),
        linear_(across_ == 2 && down_ <= 2 && component.width > 2),
        row_(static_cast<std::size_t>(component.width) * across_),
        sums_(static_cast<std::size_t>(component.width)) {}

  const std::uint8_t* row(int y) {
    const int near = y / down_;
    if (across_ == 1 && down_ == 1) return plane_.row(y);
    // The nearer row counts three times, the farther once.
    const int far = std::clamp(y % 2 == 0 ? near - 1 : near + 1, 0, component_.height - 1);
    if (across_ == 1 && down_ == 2) {
      const std::uint8_t *a = plane_.row(near), *b = plane_.row(far);
      const int bias = y % 2 == 0 ? 1 : 2;
      for (std::size_t x = 0; x < row_.size(); ++x)
        row_[x] = static_cast<std::uint8_t>((3 * a[x] + b[x] + bias) >> 2);
    } else if (linear_ && down_ == 1) {
      const std::uint8_t* const a = plane_.row(near);
      std::copy(a, a + sums_.size(), sums_.begin());
      interpolate(2, 1, 2);
    } else if (linear_) {
      const std::uint8_t *a = plane_.row(near), *b = plane_.row(far);
      for (std::size_t x = 0; x < sums_.size(); ++x) sums_[x] = 3 * a[x] + b[x];
      interpolate(4, 8, 7);
    } else {
      const std::uint8_t* const a = plane_.row(near);
      for (std::size_t x = 0; x < sums_.size(); ++x)
        std::fill_n(row_.begin() + static_cast<std::ptrdiff_t>(x) * across_, across_, a[x]);
    }
    return row_.data();
  }

 private:
  const Component& component_;
  const Plane& plane_;
  int across_, down_;
  bool linear_;
  std::vector<std::uint8_t> row_;
  std::vector<int> sums_;

  // Twice as many: three parts of the nearer and one of the farther, where the sum of the parts has
  // `bits` bits. The two roundings take turns, so that none prevails.
  void interpolate(int bits, int left_bias, int right_bias) {
    const std::size_t last = sums_.size() - 1;
    const int* const sums = sums_.data();
    std::uint8_t* const row = row_.data();
    for (std::size_t x = 0; x <= last; ++x) {
      const int left = sums[x > 0 ? x - 1 : 0], right = sums[x < last ? x + 1 : last];
      row[2 * x] = static_cast<std::uint8_t>((3 * sums[x] + left + left_bias) >> bits);
      row[2 * x + 1] = static_cast<std::uint8_t>((3 * sums[x] + right + right_bias) >> bits);
    }
  }
};

using Rgb = std::array<std::uint8_t, 3>;

// ITU-R BT.601 as JFIF states it, with 16 bits behind the point.
Rgb rgb_of_ycc(int luma, int blue, int red) {
  constexpr auto fixed = [](double value) { return static_cast<int>(value * 65536 + 0.5); };
  constexpr int half = 1 << 15;
  const int cb = blue - 128, cr = red - 128;
  return {level(luma + ((fixed(1.40200) * cr + half) >> 16)),
          level(luma + ((-fixed(0.34414) * cb - fixed(0.71414) * cr + half) >> 16)),
          level(luma + ((fixed(1.77200) * cb + half) >> 16))};
}

// The paper shows through what ink leaves over, of the colour and of black.
std::uint8_t through(int colour, int black) {
  const int product = (255 - colour) * black + 128;
  return level(black - (((product >> 8) + product) >> 8));
}

// Writes a row of pixels from a row of each component.
void convert(Colours colours, std::array<const std::uint8_t*, 4> rows, std::size_t width,
             std::uint8_t* to) {
  const std::uint8_t *const a = rows[0], *const b = rows[1], *const c = rows[2], *const k = rows[3];
  const auto each = [to, width](auto pixel) {
    for (std::size_t x = 0; x < width; ++x) {
      const Rgb rgb = pixel(x);
      for (std::size_t i = 0; i < 3; ++i) to[3 * x + i] = rgb[i];
    }
  };
  switch (colours) {
    case Colours::grey:
      std::copy(a, a + width, to);
      break;
    case Colours::rgb:
      each([a, b, c](std::size_t x) { return Rgb{a[x], b[x], c[x]}; });
      break;
    case Colours::ycc:
      each([a, b, c](std::size_t x) { return rgb_of_ycc(a[x], b[x], c[x]); });
      break;
    case Colours::cmyk:
      each([a, b, c, k](std::size_t x) {
        return Rgb{through(a[x], k[x]), through(b[x], k[x]), through(c[x], k[x])};
      });
      break;
    case Colours::ycck:
      convert(Colours::ycc, rows, width, to);
      for (std::size_t i = 0; i < 3 * width; ++i) to[i] = through(255 - to[i], k[i / 3]);
      break;
  }
}

}  // namespace

Image picture(const File& file, const std::vector<Plane>& planes) {
  Image image(file.width, file.height, file.colours == Colours::grey ? 1 : 3);
  std::vector<Enlarged> components;
  for (std::size_t i = 0; i < planes.size(); ++i)
    components.emplace_back(file, file.components[i], planes[i]);
  for (int y = 0; y < file.height; ++y) {
    std::array<const std::uint8_t*, 4> rows{};
    for (std::size_t i = 0; i < components.size(); ++i) rows[i] = components[i].row(y);
    convert(file.colours, rows, static_cast<std::size_t>(file.width), image.at(0, y));
  }
  return image;
}

}  // namespace fluxion::jpeg
