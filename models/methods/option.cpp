#include "models/methods/option.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"

namespace fluxion {
namespace {

template <class T>
const T& value_of(const std::map<std::string, OptionValue>& values, const std::string& name) {
  const auto found = values.find(name);
  if (found == values.end()) throw Error("method: there is no option '" + name + "'");
  const T* value = std::get_if<T>(&found->second);
  if (!value) throw Error("method: option '" + name + "' is of another type");
  return *value;
}

OptionValue checked_number(const MethodOption& option, const OptionValue& value, bool is_whole) {
  double number = 0;
  bool fits = false;
  if (const double* real = std::get_if<double>(&value)) {
    number = *real;
    fits = !is_whole && fits_single(number);
  } else if (const std::int64_t* whole = std::get_if<std::int64_t>(&value)) {
    number = static_cast<double>(*whole);
    fits = true;
  }
  if (!fits || !(number >= option.low && number <= option.high))
    throw Error(option.name + " must be " + (is_whole ? "a whole number" : "a number") + " from " +
                number_text(option.low) + " to " + number_text(option.high) + ", got " +
                to_string(value));
  if (is_whole) return value;
  return number;
}

}  // namespace

std::string words_of(const std::vector<std::string>& choices) {
  std::string words;
  for (const std::string& choice : choices) words += (words.empty() ? "" : ", ") + choice;
  return words;
}

std::string to_string(const OptionValue& value) {
  if (const double* real = std::get_if<double>(&value)) return number_text(*real);
  if (const std::int64_t* whole = std::get_if<std::int64_t>(&value)) return std::to_string(*whole);
  return std::get<std::string>(value);
}

const OptionValue& MethodOption::default_for(SampleKind kind) const {
  return kind == SampleKind::points && fallback.points ? *fallback.points : fallback.images;
}

OptionValue MethodOption::checked(const OptionValue& value) const {
  if (std::holds_alternative<double>(fallback.images)) return checked_number(*this, value, false);
  if (std::holds_alternative<std::int64_t>(fallback.images))
    return checked_number(*this, value, true);
  const std::string* text = std::get_if<std::string>(&value);
  if (!text || (!choices.empty() && std::ranges::count(choices, *text) == 0))
    throw Error(name + " must be " + (choices.empty() ? "a text" : "one of " + words_of(choices)) +
                ", got " + to_string(value));
  return value;
}

MethodOption real_option(std::string name, double low, double high, OptionDefault fallback,
                         std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .fallback = std::move(fallback),
          .low = low,
          .high = high};
}

MethodOption whole_option(std::string name, std::int64_t low, std::int64_t high,
                          OptionDefault fallback, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .fallback = std::move(fallback),
          .low = static_cast<double>(low),
          .high = static_cast<double>(high)};
}

MethodOption choice_option(std::string name, std::vector<std::string> choices,
                           OptionDefault fallback, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .fallback = std::move(fallback),
          .choices = std::move(choices)};
}

MethodOption file_option(std::string name, std::string help) {
  return {.name = std::move(name), .help = std::move(help), .fallback = {.images = std::string()}};
}

MethodOption with_default(MethodOption option, OptionDefault fallback) {
  option.fallback = std::move(fallback);
  return option;
}

MethodOption for_classes(MethodOption option) {
  option.needs_classes = true;
  return option;
}

MethodOption newer_option(MethodOption option, OptionValue in_older_files) {
  option.in_older_files = std::move(in_older_files);
  return option;
}

MethodOption for_choices(std::string other, std::vector<std::string> choices, MethodOption option) {
  option.of_option = std::move(other);
  option.of_choices = std::move(choices);
  return option;
}

double MethodOptions::real(const std::string& name) const {
  return value_of<double>(values_, name);
}

std::int64_t MethodOptions::whole(const std::string& name) const {
  return value_of<std::int64_t>(values_, name);
}

const std::string& MethodOptions::text(const std::string& name) const {
  return value_of<std::string>(values_, name);
}

}  // namespace fluxion
