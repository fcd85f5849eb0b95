#include "engine/number_text.h"

#include <array>

namespace fluxion {

namespace {

template <class... Form>
std::string text_of(Form... form) {
  // f64 has up to 309 digits before the point.
  std::array<char, 512> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), form...).ptr;
  return std::string(text.data(), end);
}

}  // namespace

std::string number_text(double value) { return text_of(value); }
std::string number_text(float value) { return text_of(value); }
std::string fixed_text(double value, int decimals) {
  return text_of(value, std::chars_format::fixed, decimals);
}
std::string rounded_text(double value, int digits) {
  return text_of(value, std::chars_format::general, digits);
}
std::string scientific_text(double value, int decimals) {
  return text_of(value, std::chars_format::scientific, decimals);
}

}  // namespace fluxion
