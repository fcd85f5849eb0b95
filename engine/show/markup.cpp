#include "engine/show/markup.h"

#include <array>
#include <cmath>

#include "engine/number_text.h"
#include "engine/utf8.h"

namespace fluxion::show {

namespace {

bool continues(unsigned char byte) { return (byte & 0xc0) == 0x80; }

// As utf8_length, but XML does not have U+FFFE and U+FFFF.
std::size_t character_length(std::string_view text, std::size_t at) {
  const std::string_view character = text.substr(at, 3);
  if (character == "\xef\xbf\xbe" || character == "\xef\xbf\xbf") return 0;
  return utf8_length(text, at);
}

}  // namespace

std::string xml_escaped(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = character_length(text, at);
    if (length == 0) {
      result += "\xef\xbf\xbd";
      ++at;
      continue;
    }
    const char c = text[at];
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '"')
      result += "&quot;";
    else if (c == '\'')
      result += "&#39;";
    else if (length > 1 || static_cast<unsigned char>(c) >= 32 || c == '\n' || c == '\t')
      result += text.substr(at, length);
    at += length;
  }
  return result;
}

std::string dot_escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (c == '\n')
      result += "\\n";
    else if (static_cast<unsigned char>(c) >= 32)
      result += c;
  }
  return result;
}

std::string coordinate(double value) {
  std::string result = fixed_text(value, 1);
  if (result.ends_with(".0")) result.resize(result.size() - 2);
  return result == "-0" ? "0" : result;
}

std::string bytes_text(std::uint64_t bytes) {
  static constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) value /= 1024, ++unit;
  return coordinate(value) + " " + units[unit];
}

std::string shortened(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  std::size_t end = most > 3 ? most - 3 : 0;
  while (end > 0 && continues(static_cast<unsigned char>(text[end]))) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::string counted(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::vector<std::string> wrapped(const std::vector<std::string>& words, std::size_t characters,
                                 std::size_t most_lines) {
  std::vector<std::string> lines;
  std::string line;
  for (std::size_t k = 0; k < words.size(); ++k) {
    const std::string next = words[k] + (k + 1 < words.size() ? "," : "");
    if (!line.empty() && line.size() + 1 + next.size() > characters) {
      if (lines.size() + 1 == most_lines) {
        line += " and " + std::to_string(words.size() - k) + " more";
        break;
      }
      lines.push_back(line);
      line.clear();
    }
    line += (line.empty() ? "" : " ") + next;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

double text_width(std::string_view text, double size) {
  double width = 0;
  for (const char c : text) {
    if (continues(static_cast<unsigned char>(c))) continue;
    const bool narrow = std::string_view(" .,:;|!'il[]()").find(c) != std::string_view::npos;
    const bool wide = std::string_view("mwMW%@").find(c) != std::string_view::npos;
    width += narrow ? 0.38 : wide ? 0.92 : 0.63;
  }
  return width * size;
}

}  // namespace fluxion::show
