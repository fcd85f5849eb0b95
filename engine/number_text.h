// Numbers as text and back, the same under every locale; files, messages and pictures use these.
// printf, streams and strtod follow the locale of the host program, which may write 0,5 for 0.5.
#pragma once

#include <charconv>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>

namespace fluxion {

// The shortest text that reads as the same number: "0.1", "1e-05", "inf", "nan".
std::string number_text(double value);
std::string number_text(float value);
// With this many digits after the point, as printf's %.*f.
std::string fixed_text(double value, int decimals);
// Rounded to this many significant digits, as printf's %.*g.
std::string rounded_text(double value, int digits);
// With an exponent and this many digits after the point, as printf's %.*e.
std::string scientific_text(double value, int decimals);

// The whole text as a number; nothing if it is not a number or out of range. Spaces and a leading
// '+' are not accepted.
template <class T>
requires std::integral<T> || std::floating_point<T> std::optional<T> parse_number(
    std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace fluxion
