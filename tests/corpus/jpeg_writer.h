// JPEG files written marker by marker, and the picture that they hold by the definitions of ITU-T
// T.81 and JFIF, in double precision. The decoder is not used.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "models/images/image.h"

namespace fluxion::testing {

using JpegBlock = std::array<int, 64>;  // row-major, before quantisation steps are applied

struct JpegComponent {
  int id = 1;
  int horizontal = 1, vertical = 1;
  int quantisation = 0;      // number of its table
  int across = 0, down = 0;  // in blocks, filled up to whole units
  std::vector<JpegBlock> blocks = {};
};

struct JpegPicture {
  int width = 0, height = 0;
  std::vector<JpegComponent> components;

  // Fills the components with smooth random content.
  JpegPicture(int width, int height, std::vector<JpegComponent> components);
  int most_horizontal() const;
  int most_vertical() const;
};

// Components 1, 2, ... with the first sampled `horizontal` x `vertical`.
JpegPicture jpeg_picture(int count, int width, int height, int horizontal = 1, int vertical = 1);

enum class JpegColours : std::uint8_t { grey, rgb, ycc, cmyk, ycck };

struct JpegHuffman {
  std::array<std::uint8_t, 16> counts{};
  std::vector<std::uint8_t> symbols;
};

const JpegHuffman& standard_huffman(bool ac, bool chrominance);
// Another one, for every symbol there is: DC in 4 bits, AC in 8 or 9.
const JpegHuffman& even_huffman(bool ac);

struct JpegScan {
  std::vector<std::size_t> components = {};  // all if empty
  int first = 0, last = 63, high = 0, low = 0;
  std::vector<std::pair<int, int>> tables =
      {};  // DC and AC of each component; 0, 1, 1, ... if empty
};

class JpegWriter {
 public:
  std::vector<std::byte> file;

  explicit JpegWriter(JpegPicture picture);  // begins with SOI

  JpegWriter& bytes(std::string_view hex);
  JpegWriter& segment(int marker, const std::vector<int>& content);
  JpegWriter& jfif();
  JpegWriter& adobe(int transform);
  // Steps 2 + scale * (row + column).
  JpegWriter& quantisation(int number, int scale = 1, bool wide = false);
  JpegWriter& huffman(bool ac, int number, const JpegHuffman& table);
  // Uses a table that the file does not state.
  JpegWriter& unstated_huffman(bool ac, int number, const JpegHuffman& table);
  JpegWriter& standard_tables();  // quantisation 0 and 1, Huffman 0 and 1
  JpegWriter& frame(int marker = 0xc0, int bits = 8);
  JpegWriter& restart(int interval);
  JpegWriter& scan(const JpegScan& scan = {});
  JpegWriter& progressive_scans();  // ten or so: every kind there is
  JpegWriter& end();

  // What a decoder should make of it. A component has the steps of its table at its first scan.
  Image expected(JpegColours colours) const;

  // Changes the compressed data of scans to come: an interval of it, or the number of its restart
  // marker.
  int restart_step = 1;
  std::optional<std::size_t> cut_interval, dropped_interval, dropped_marker;
  bool trailing_restart = false;

 private:
  using Table = std::array<int, 64>;  // row-major

  JpegPicture picture_;
  std::map<int, Table> quantisation_;
  std::map<std::size_t, Table> of_component_;
  std::map<std::pair<bool, int>, JpegHuffman> huffman_;
  int restart_interval_ = 0;

  void byte(int value) { file.push_back(static_cast<std::byte>(value)); }
  std::vector<std::vector<std::uint8_t>> intervals(const JpegScan& scan) const;
};

}  // namespace fluxion::testing
