#include "tests/corpus/jpeg_writer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <random>
#include <stdexcept>
#include <string>

#include "tests/data/pictures.h"

namespace fluxion::testing {

namespace {

constexpr std::array<int, 64> zigzag_order() {
  std::array<int, 64> order{};
  std::size_t at = 0;
  for (int sum = 0; sum < 15; ++sum)
    for (int i = std::max(0, sum - 7); i <= std::min(7, sum); ++i)
      order[at++] = sum % 2 == 0 ? 8 * (sum - i) + i : 8 * i + sum - i;
  return order;
}
constexpr std::array<int, 64> in_zigzag = zigzag_order();

int divided_up(int value, int by) { return (value + by - 1) / by; }

JpegHuffman huffman_of(std::array<std::uint8_t, 16> counts, const std::string& hex) {
  JpegHuffman table{counts, {}};
  for (const std::byte symbol : from_hex(hex))
    table.symbols.push_back(std::to_integer<std::uint8_t>(symbol));
  return table;
}

// Bits with their Huffman codes; a byte ff is followed by 00.
class BitWriter {
 public:
  std::vector<std::uint8_t> bytes;

  void put(std::uint32_t value, int count) {
    for (int bit = count - 1; bit >= 0; --bit) {
      last_ = static_cast<std::uint8_t>(last_ << 1 | (value >> bit & 1));
      if (++filled_ < 8) continue;
      bytes.push_back(last_);
      if (last_ == 0xff) bytes.push_back(0);
      last_ = 0;
      filled_ = 0;
    }
  }
  void symbol(const JpegHuffman& table, int symbol) {
    std::uint32_t code = 0;
    std::size_t at = 0;
    for (int length = 1; length <= 16; ++length, code *= 2)
      for (int i = 0; i < table.counts[static_cast<std::size_t>(length) - 1]; ++i, ++code, ++at)
        if (table.symbols[at] == symbol) return put(code, length);
    throw std::logic_error("a symbol that its table lacks");
  }
  // The size of a value goes into a symbol, the rest follows it (F.1.2.1).
  static int size(int value) {
    int bits = 0;
    for (int rest = std::abs(value); rest > 0; rest /= 2) ++bits;
    return bits;
  }
  void value(int value) {
    const int bits = size(value);
    put(static_cast<std::uint32_t>(value < 0 ? value + (1 << bits) - 1 : value), bits);
  }
  void finish() {
    while (filled_ != 0) put(1, 1);
  }

 private:
  std::uint8_t last_ = 0;
  int filled_ = 0;
};

// The coding of one component's blocks in one interval.
class BlockWriter {
 public:
  BlockWriter(const JpegScan& scan, const JpegHuffman* dc, const JpegHuffman* ac)
      : scan_(scan), dc_(dc), ac_(ac) {}

  void write(BitWriter& to, const JpegBlock& block, bool progressive) {
    if (scan_.first == 0 && scan_.high == 0) {
      const int value = block[0] >> scan_.low;
      to.symbol(*dc_, BitWriter::size(value - last_dc_));
      to.value(value - last_dc_);
      last_dc_ = value;
    } else if (scan_.first == 0) {
      to.put(static_cast<std::uint32_t>(block[0] >> scan_.low & 1), 1);
    }
    if (!progressive)
      sequential(to, block);
    else if (scan_.first > 0 && scan_.high == 0)
      first(to, block);
    else if (scan_.first > 0)
      refine(to, block);
  }

  // The run of blocks without more (G.1.2.2), and the corrections that wait for it.
  void flush(BitWriter& to) {
    if (run_ == 0) return;
    const int bits = BitWriter::size(run_) - 1;
    to.symbol(*ac_, bits << 4);
    to.put(static_cast<std::uint32_t>(run_ - (1 << bits)), bits);
    run_ = 0;
    put_all(to, waiting_);
  }

 private:
  const JpegScan& scan_;
  const JpegHuffman *dc_, *ac_;
  int last_dc_ = 0, run_ = 0;
  std::vector<int> waiting_;

  static int at(const JpegBlock& block, int k) {
    return block[static_cast<std::size_t>(in_zigzag[static_cast<std::size_t>(k)])];
  }
  static void put_all(BitWriter& to, std::vector<int>& bits) {
    for (const int bit : bits) to.put(static_cast<std::uint32_t>(bit), 1);
    bits.clear();
  }

  void sequential(BitWriter& to, const JpegBlock& block) {
    int zeros = 0;
    for (int k = 1; k < 64; ++k) {
      const int value = at(block, k);
      if (value == 0) {
        ++zeros;
        continue;
      }
      for (; zeros > 15; zeros -= 16) to.symbol(*ac_, 0xf0);
      to.symbol(*ac_, zeros << 4 | BitWriter::size(value));
      to.value(value);
      zeros = 0;
    }
    if (zeros > 0) to.symbol(*ac_, 0);
  }

  void first(BitWriter& to, const JpegBlock& block) {
    int zeros = 0;
    for (int k = scan_.first; k <= scan_.last; ++k) {
      const int value = at(block, k) / (1 << scan_.low);
      if (value == 0) {
        ++zeros;
        continue;
      }
      flush(to);
      for (; zeros > 15; zeros -= 16) to.symbol(*ac_, 0xf0);
      to.symbol(*ac_, zeros << 4 | BitWriter::size(value));
      to.value(value);
      zeros = 0;
    }
    if (zeros > 0) ++run_;
  }

  void refine(BitWriter& to, const JpegBlock& block) {
    const auto magnitude = [&](int k) { return std::abs(at(block, k)) >> scan_.low; };
    int last_new = 0, zeros = 0;
    for (int k = scan_.first; k <= scan_.last; ++k)
      if (magnitude(k) == 1) last_new = k;
    std::vector<int> corrections;
    for (int k = scan_.first; k <= scan_.last; ++k) {
      if (magnitude(k) == 0) {
        ++zeros;
        continue;
      }
      for (; zeros > 15 && k <= last_new; zeros -= 16) {
        flush(to);
        to.symbol(*ac_, 0xf0);
        put_all(to, corrections);
      }
      if (magnitude(k) > 1) {
        corrections.push_back(magnitude(k) & 1);
        continue;
      }
      flush(to);
      to.symbol(*ac_, zeros << 4 | 1);
      to.put(at(block, k) > 0, 1);
      put_all(to, corrections);
      zeros = 0;
    }
    if (zeros == 0 && corrections.empty()) return;
    ++run_;
    waiting_.insert(waiting_.end(), corrections.begin(), corrections.end());
  }
};

// A component at the size of the picture. Half the resolution is interpolated between the centres
// of the samples, others repeat; so do rows of one or two samples, as libjpeg's.
std::vector<double> enlarged(const std::vector<double>& samples, int width, int height, int across,
                             int down) {
  const auto sample = [&](int x, int y) {
    return samples[static_cast<std::size_t>(std::clamp(y, 0, height - 1)) * width +
                   std::clamp(x, 0, width - 1)];
  };
  const bool linear_x = across == 2 && down <= 2 && width > 2,
             linear_y = down == 2 && (across == 1 || linear_x);
  std::vector<double> result;
  for (int y = 0; y < height * down; ++y)
    for (int x = 0; x < width * across; ++x) {
      const int i = x / across, j = y / down;
      const int i2 = linear_x ? (x % 2 == 0 ? i - 1 : i + 1) : i,
                j2 = linear_y ? (y % 2 == 0 ? j - 1 : j + 1) : j;
      result.push_back((9 * sample(i, j) + 3 * sample(i2, j) + 3 * sample(i, j2) + sample(i2, j2)) /
                       16);
    }
  return result;
}

// The definition (A.3.3).
double inverse_transform(const JpegBlock& block, const std::array<int, 64>& steps, int x, int y) {
  static const std::array<double, 64> cosines = [] {
    std::array<double, 64> table{};
    for (std::size_t i = 0; i < 8; ++i)
      for (std::size_t u = 0; u < 8; ++u)
        table[8 * i + u] = std::cos((2.0 * static_cast<double>(i) + 1) * static_cast<double>(u) *
                                    std::numbers::pi / 16) *
                           (u == 0 ? std::numbers::sqrt2 / 4 : 0.5);
    return table;
  }();
  double sum = 0;
  for (std::size_t v = 0; v < 8; ++v)
    for (std::size_t u = 0; u < 8; ++u)
      sum += block[8 * v + u] * steps[8 * v + u] * cosines[8 * static_cast<std::size_t>(x) + u] *
             cosines[8 * static_cast<std::size_t>(y) + v];
  return std::clamp(std::round(sum + 128), 0.0, 255.0);
}

std::uint8_t level(double value) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

std::array<double, 3> rgb_of_ycc(double y, double cb, double cr) {
  const auto within = [](double value) { return std::clamp(value, 0.0, 255.0); };
  return {within(y + 1.402 * (cr - 128)), within(y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)),
          within(y + 1.772 * (cb - 128))};
}

}  // namespace

JpegPicture::JpegPicture(int width, int height, std::vector<JpegComponent> components)
    : width(width), height(height), components(std::move(components)) {
  std::mt19937 random(static_cast<unsigned>(width * 1000 + height));
  const auto draw = [&](int reach) {
    return static_cast<int>(random() % static_cast<unsigned>(2 * reach + 1)) - reach;
  };
  for (JpegComponent& component : this->components) {
    component.across = divided_up(width, 8 * most_horizontal()) * component.horizontal;
    component.down = divided_up(height, 8 * most_vertical()) * component.vertical;
    component.blocks.resize(static_cast<std::size_t>(component.across) * component.down);
    for (JpegBlock& block : component.blocks) {
      block[0] = draw(400);
      for (int k = 1; k < 20; ++k)
        if (draw(2) > 0)
          block[static_cast<std::size_t>(in_zigzag[static_cast<std::size_t>(k)])] =
              draw(30 / k + 1);
      if (draw(1) == 0) block[63] = draw(1);
    }
  }
}

int JpegPicture::most_horizontal() const {
  int most = 1;
  for (const JpegComponent& component : components) most = std::max(most, component.horizontal);
  return most;
}

int JpegPicture::most_vertical() const {
  int most = 1;
  for (const JpegComponent& component : components) most = std::max(most, component.vertical);
  return most;
}

JpegPicture jpeg_picture(int count, int width, int height, int horizontal, int vertical) {
  std::vector<JpegComponent> components;
  for (int id = 1; id <= count; ++id) {
    const bool full = id == 1 || id == 4;
    components.push_back({id, full ? horizontal : 1, full ? vertical : 1, full ? 0 : 1});
  }
  return {width, height, components};
}

const JpegHuffman& standard_huffman(bool ac, bool chrominance) {
  // ITU-T T.81, annex K.3.
  static const std::string dc = "000102030405060708090a0b";
  static const JpegHuffman tables[4] = {
      huffman_of({0, 1, 5, 1, 1, 1, 1, 1, 1}, dc),
      huffman_of({0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, dc),
      huffman_of({0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
                 "0102030004110512213141061351610722711432"
                 "8191a1082342b1c11552d1f02433627282090a16"
                 "1718191a25262728292a3435363738393a434445"
                 "464748494a535455565758595a63646566676869"
                 "6a737475767778797a838485868788898a929394"
                 "95969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6"
                 "b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8"
                 "d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8"
                 "f9fa"),
      huffman_of({0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119},
                 "0001020311040521310612415107617113223281"
                 "08144291a1b1c109233352f0156272d10a162434"
                 "e125f11718191a262728292a35363738393a4344"
                 "45464748494a535455565758595a636465666768"
                 "696a737475767778797a82838485868788898a92"
                 "939495969798999aa2a3a4a5a6a7a8a9aab2b3b4"
                 "b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6"
                 "d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8"
                 "f9fa")};
  return tables[2 * ac + chrominance];
}

const JpegHuffman& even_huffman(bool ac) {
  static const auto made = [](std::size_t length, std::uint8_t count, int symbols) {
    JpegHuffman table;
    table.counts[length - 1] = count;
    table.counts[length] = static_cast<std::uint8_t>(symbols - count);
    while (symbols-- > 0) table.symbols.push_back(static_cast<std::uint8_t>(symbols));
    return table;
  };
  static const JpegHuffman dc_table = made(4, 12, 12), ac_table = made(8, 128, 256);
  return ac ? ac_table : dc_table;
}

JpegWriter::JpegWriter(JpegPicture picture) : picture_(std::move(picture)) { bytes("ffd8"); }

JpegWriter& JpegWriter::bytes(std::string_view hex) {
  for (const std::byte value : from_hex(std::string(hex))) file.push_back(value);
  return *this;
}

JpegWriter& JpegWriter::segment(int marker, const std::vector<int>& content) {
  const int length = static_cast<int>(content.size()) + 2;
  for (const int value : {0xff, marker, length >> 8, length & 255}) byte(value);
  for (const int value : content) byte(value);
  return *this;
}

JpegWriter& JpegWriter::jfif() {
  return segment(0xe0, {'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0});
}

JpegWriter& JpegWriter::adobe(int transform) {
  return segment(0xee, {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, transform});
}

JpegWriter& JpegWriter::quantisation(int number, int scale, bool wide) {
  Table table{};
  for (int v = 0; v < 8; ++v)
    for (int u = 0; u < 8; ++u) table[static_cast<std::size_t>(8 * v + u)] = 2 + scale * (u + v);
  quantisation_[number] = table;
  std::vector<int> content = {(wide ? 16 : 0) + number};
  for (const int at : in_zigzag) {
    const int step = table[static_cast<std::size_t>(at)];
    if (wide) content.push_back(step >> 8);
    content.push_back(step & 255);
  }
  return segment(0xdb, content);
}

JpegWriter& JpegWriter::unstated_huffman(bool ac, int number, const JpegHuffman& table) {
  huffman_[{ac, number}] = table;
  return *this;
}

JpegWriter& JpegWriter::huffman(bool ac, int number, const JpegHuffman& table) {
  unstated_huffman(ac, number, table);
  std::vector<int> content = {(ac ? 16 : 0) + number};
  content.insert(content.end(), table.counts.begin(), table.counts.end());
  content.insert(content.end(), table.symbols.begin(), table.symbols.end());
  return segment(0xc4, content);
}

JpegWriter& JpegWriter::standard_tables() {
  quantisation(0).quantisation(1, 2);
  for (const bool ac : {false, true})
    for (const int number : {0, 1}) huffman(ac, number, standard_huffman(ac, number == 1));
  return *this;
}

JpegWriter& JpegWriter::frame(int marker, int bits) {
  std::vector<int> content = {bits,
                              picture_.height >> 8,
                              picture_.height & 255,
                              picture_.width >> 8,
                              picture_.width & 255,
                              static_cast<int>(picture_.components.size())};
  for (const JpegComponent& component : picture_.components)
    for (const int value :
         {component.id, component.horizontal << 4 | component.vertical, component.quantisation})
      content.push_back(value);
  return segment(marker, content);
}

JpegWriter& JpegWriter::restart(int interval) {
  restart_interval_ = interval;
  return segment(0xdd, {interval >> 8, interval & 255});
}

std::vector<std::vector<std::uint8_t>> JpegWriter::intervals(const JpegScan& scan) const {
  // A progressive scan has DC or AC coefficients, a sequential one both.
  const bool progressive = scan.last == 0 || scan.first > 0;
  std::vector<BlockWriter> writers;
  const auto restart = [&] {
    writers.clear();
    for (const auto& [dc, ac] : scan.tables) {
      const auto find = [&](bool is_ac, int number) {
        const auto found = huffman_.find({is_ac, number});
        return found == huffman_.end() ? nullptr : &found->second;
      };
      writers.emplace_back(scan, find(false, dc), find(true, ac));
    }
  };
  std::vector<std::vector<std::uint8_t>> result;
  BitWriter bits;
  restart();
  int units = 0;
  const auto unit_ends = [&](bool last) {
    if (!last && (restart_interval_ == 0 || ++units % restart_interval_ != 0)) return;
    for (BlockWriter& writer : writers) writer.flush(bits);
    bits.finish();
    result.push_back(std::move(bits.bytes));
    bits = {};
    restart();
  };
  if (scan.components.size() == 1) {
    const JpegComponent& only = picture_.components[scan.components[0]];
    const int width =
        divided_up(divided_up(picture_.width * only.horizontal, picture_.most_horizontal()), 8);
    const int height =
        divided_up(divided_up(picture_.height * only.vertical, picture_.most_vertical()), 8);
    for (int i = 0; i < width * height; ++i) {
      writers[0].write(bits,
                       only.blocks[static_cast<std::size_t>(i / width * only.across + i % width)],
                       progressive);
      unit_ends(i + 1 == width * height);
    }
    return result;
  }
  const int across = divided_up(picture_.width, 8 * picture_.most_horizontal()),
            down = divided_up(picture_.height, 8 * picture_.most_vertical());
  for (int i = 0; i < across * down; ++i) {
    for (std::size_t part = 0; part < scan.components.size(); ++part) {
      const JpegComponent& component = picture_.components[scan.components[part]];
      for (int v = 0; v < component.vertical; ++v)
        for (int h = 0; h < component.horizontal; ++h) {
          const int x = i % across * component.horizontal + h,
                    y = i / across * component.vertical + v;
          writers[part].write(bits,
                              component.blocks[static_cast<std::size_t>(y * component.across + x)],
                              progressive);
        }
    }
    unit_ends(i + 1 == across * down);
  }
  return result;
}

JpegWriter& JpegWriter::scan(const JpegScan& stated) {
  JpegScan scan = stated;
  if (scan.components.empty())
    for (std::size_t i = 0; i < picture_.components.size(); ++i) scan.components.push_back(i);
  if (scan.tables.empty())
    for (const std::size_t i : scan.components) {
      const int number = i == 1 || i == 2 ? 1 : 0;
      scan.tables.emplace_back(number, number);
    }
  std::vector<int> content = {static_cast<int>(scan.components.size())};
  for (std::size_t i = 0; i < scan.components.size(); ++i) {
    const JpegComponent& component = picture_.components[scan.components[i]];
    of_component_.try_emplace(scan.components[i], quantisation_[component.quantisation]);
    content.push_back(component.id);
    content.push_back(scan.tables[i].first << 4 | scan.tables[i].second);
  }
  for (const int value : {scan.first, scan.last, scan.high << 4 | scan.low})
    content.push_back(value);
  segment(0xda, content);
  auto data = intervals(scan);
  if (dropped_interval) data.erase(data.begin() + static_cast<std::ptrdiff_t>(*dropped_interval));
  if (cut_interval) data[*cut_interval].resize(data[*cut_interval].size() / 2);
  for (std::size_t i = 0; i < data.size(); ++i) {
    for (const std::uint8_t value : data[i]) byte(value);
    const bool last = i + 1 == data.size();
    if ((last && !trailing_restart) || dropped_marker == i) continue;
    byte(0xff);
    byte(0xd0 + static_cast<int>(i) * restart_step % 8);
  }
  return *this;
}

JpegWriter& JpegWriter::progressive_scans() {
  const auto count = picture_.components.size();
  scan({.first = 0, .last = 0, .high = 0, .low = 1});
  for (std::size_t i = count; i-- > 0;) {
    scan({.components = {i}, .first = 1, .last = 5, .high = 0, .low = 2});
    scan({.components = {i}, .first = 6, .last = 63, .high = 0, .low = 2});
    scan({.components = {i}, .first = 1, .last = 63, .high = 2, .low = 1});
  }
  scan({.first = 0, .last = 0, .high = 1, .low = 0});
  for (std::size_t i = 0; i < count; ++i)
    scan({.components = {i}, .first = 1, .last = 63, .high = 1, .low = 0});
  return *this;
}

JpegWriter& JpegWriter::end() { return bytes("ffd9"); }

Image JpegWriter::expected(JpegColours colours) const {
  const int most_h = picture_.most_horizontal(), most_v = picture_.most_vertical();
  std::vector<std::vector<double>> planes;
  std::vector<int> strides;
  for (std::size_t i = 0; i < picture_.components.size(); ++i) {
    const JpegComponent& component = picture_.components[i];
    const int width = divided_up(picture_.width * component.horizontal, most_h),
              height = divided_up(picture_.height * component.vertical, most_v);
    std::vector<double> samples;
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        samples.push_back(inverse_transform(
            component.blocks[static_cast<std::size_t>(y / 8 * component.across + x / 8)],
            of_component_.at(i), x % 8, y % 8));
    planes.push_back(enlarged(samples, width, height, most_h / component.horizontal,
                              most_v / component.vertical));
    strides.push_back(width * (most_h / component.horizontal));
  }
  Image image(picture_.width, picture_.height, colours == JpegColours::grey ? 1 : 3);
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      std::array<double, 4> at{};
      for (std::size_t i = 0; i < planes.size(); ++i)
        at[i] = planes[i][static_cast<std::size_t>(y * strides[i] + x)];
      std::array<double, 3> rgb = {at[0], at[1], at[2]};
      if (colours == JpegColours::ycc || colours == JpegColours::ycck)
        rgb = rgb_of_ycc(at[0], at[1], at[2]);
      for (double& value : rgb) {
        if (colours == JpegColours::ycck) value = 255 - value;
        if (colours == JpegColours::ycck || colours == JpegColours::cmyk) value *= at[3] / 255;
      }
      for (std::size_t c = 0; c < static_cast<std::size_t>(image.channels); ++c)
        image.at(x, y)[c] = level(rgb[c]);
    }
  return image;
}

}  // namespace fluxion::testing
