// What engine/platform/libcxx13/charconv declares, on top of printf and strtod, which know no
// locale but "C" in WebAssembly's C library.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

namespace {

std::string printed(const char* format, int digits, double value) {
  char text[512];  // f64 has up to 309 digits before the point
  const int length = std::snprintf(text, sizeof text, format, digits, value);
  return std::string(text, static_cast<std::size_t>(std::clamp<int>(length, 0, sizeof text - 1)));
}

template <class T>
T scanned(const std::string& text) {
  return sizeof(T) == 4 ? static_cast<T>(std::strtof(text.c_str(), nullptr))
                        : static_cast<T>(std::strtod(text.c_str(), nullptr));
}

std::to_chars_result put(const std::string& text, char* first, char* last) {
  if (last - first < static_cast<std::ptrdiff_t>(text.size()))
    return {last, std::errc::value_too_large};
  std::memcpy(first, text.data(), text.size());
  return {first + text.size(), std::errc{}};
}

std::string special(double value) {
  return std::string(std::signbit(value) ? "-" : "") + (std::isnan(value) ? "nan" : "inf");
}

// As few digits as bring the number back, in the shorter form.
template <class T>
std::string shortest(T value) {
  if (!std::isfinite(value)) return special(value);
  std::string scientific;
  int decimals = 0;
  for (; decimals < std::numeric_limits<T>::max_digits10; ++decimals) {
    scientific = printed("%.*e", decimals, value);
    if (scanned<T>(scientific) == value) break;
  }
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  const std::string fixed = printed("%.*f", std::max(decimals - exponent, 0), value);
  return fixed.size() <= scientific.size() ? fixed : scientific;
}

std::string formed(double value, std::chars_format form, int precision) {
  if (!std::isfinite(value)) return special(value);
  const char* const format = form == std::chars_format::fixed        ? "%.*f"
                             : form == std::chars_format::scientific ? "%.*e"
                                                                     : "%.*g";
  return printed(format, precision, value);
}

// The length of the longest start of the text that is a number in the general form: [-], then inf,
// infinity, nan or digits with a point among or beside them, then perhaps e [+-] digits.
std::size_t number_length(std::string_view text) {
  std::size_t at = 0;
  const auto is = [&](std::string_view letters) {
    return at < text.size() && letters.find(text[at]) != std::string_view::npos;
  };
  const auto digits = [&] {
    const std::size_t begin = at;
    while (is("0123456789")) ++at;
    return at - begin;
  };
  const auto word = [&](std::string_view name) {
    for (std::size_t i = 0; i < name.size(); ++i)
      if (at + i >= text.size() || (text[at + i] | 0x20) != name[i]) return false;
    at += name.size();
    return true;
  };
  if (is("-")) ++at;
  if (word("infinity") || word("inf") || word("nan")) return at;
  std::size_t count = digits();
  if (is(".")) ++at, count += digits();
  if (count == 0) return 0;
  const std::size_t mantissa = at;
  if (!is("eE")) return at;
  ++at;
  if (is("+-")) ++at;
  return digits() > 0 ? at : mantissa;
}

template <class T>
std::from_chars_result read(const char* first, const char* last, T& value) {
  const std::string text(first, number_length({first, static_cast<std::size_t>(last - first)}));
  if (text.empty()) return {first, std::errc::invalid_argument};
  const char* const end = first + text.size();
  const T result = scanned<T>(text);
  const bool named = text.find_first_of("nN") != std::string::npos;
  const bool zero =
      text.substr(0, text.find_first_of("eE")).find_first_of("123456789") == std::string::npos;
  // Too large, or too small, to be told from infinity or zero.
  if (!named && (std::isinf(result) || (result == 0 && !zero)))
    return {end, std::errc::result_out_of_range};
  value = result;
  return {end, std::errc{}};
}

}  // namespace

namespace std {

#if _LIBCPP_VERSION < 14000
to_chars_result to_chars(char* first, char* last, float value) {
  return put(shortest(value), first, last);
}
to_chars_result to_chars(char* first, char* last, double value) {
  return put(shortest(value), first, last);
}
to_chars_result to_chars(char* first, char* last, float value, chars_format form, int precision) {
  return put(formed(static_cast<double>(value), form, precision), first, last);
}
to_chars_result to_chars(char* first, char* last, double value, chars_format form, int precision) {
  return put(formed(value, form, precision), first, last);
}
#endif

#if _LIBCPP_VERSION < 20000
from_chars_result from_chars(const char* first, const char* last, float& value) {
  return read(first, last, value);
}
from_chars_result from_chars(const char* first, const char* last, double& value) {
  return read(first, last, value);
}
#endif

}  // namespace std
