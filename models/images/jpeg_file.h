// The structure of a JPEG file (ITU-T T.81, annex B): what its markers say, checked, with nothing
// decoded. For decode_image alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fluxion::jpeg {

using Bytes = std::span<const std::byte>;

// Throws FormatError: the file's name, then what is wrong.
[[noreturn]] void refuse(std::string_view name, const std::string& what);

struct HuffmanTable {
  std::array<std::uint8_t, 16> counts{};    // of codes with 1 to 16 bits
  std::array<std::uint8_t, 256> symbols{};  // in the order of their codes
  bool standard = false;                    // of annex K: the file has none in this place
};

using QuantisationTable = std::array<std::uint16_t, 64>;  // in zigzag order

struct Component {
  int id = 0;
  int horizontal = 1, vertical = 1;  // sampling factors
  int table = 0;                     // which quantisation table it names
  // As defined when the component's first scan begins.
  std::optional<QuantisationTable> quantisation = {};
  int width = 0, height = 0;  // in samples
  int columns = 0, rows = 0;  // in blocks of 8 x 8 that hold samples
  int blocks_across = 0;      // in memory: with those that only fill up interleaved units
  int blocks_down = 0;
};

struct ScanPart {
  std::size_t component = 0;  // in Frame::components
  std::optional<HuffmanTable> dc = {}, ac = {};
};

struct Scan {
  std::vector<ScanPart> parts;
  int first = 0, last = 63;      // coefficients, in zigzag order
  int high = 0, low = 0;         // successive approximation: the bit position before and after
  int restart_interval = 0;      // in units (MCUs), 0: none
  std::int64_t units = 0;        // blocks of a single component, or interleaved groups
  std::vector<Bytes> intervals;  // the compressed data between restart markers
};

enum class Colours : std::uint8_t { grey, rgb, ycc, cmyk, ycck };

struct File {
  int width = 0, height = 0;
  bool progressive = false;
  int horizontal = 1, vertical = 1;  // the largest sampling factors
  Colours colours = Colours::grey;
  std::vector<Component> components;
  std::vector<Scan> scans;
};

// Refuses what is not defined, contradictory, or of a kind that can't be decoded.
File read(Bytes file, std::string_view name);

}  // namespace fluxion::jpeg
