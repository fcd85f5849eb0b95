#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"

namespace fluxion::cli {

namespace {

// People write a leading '+', which parse_number does not take.
std::string_view unsigned_text(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  return text;
}

// In decimal digits, or with a point or an exponent that leaves no fraction: "8e3".
std::optional<std::uint64_t> whole_number_in(const std::string& text) {
  constexpr double exact = 0x1p53;
  if (const auto digits = parse_number<std::uint64_t>(unsigned_text(text))) return digits;
  const auto value = parse_number<double>(unsigned_text(text));
  if (!value || !(*value >= 0 && *value <= exact) || *value != std::floor(*value))
    return std::nullopt;
  return static_cast<std::uint64_t>(*value);
}

// CLI11 reads decimals as long double and rounds a second time; hexadecimal digits are exact.
std::string hexadecimal(double value) {
  std::array<char, 64> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), std::abs(value),
                                 std::chars_format::hex)
                       .ptr;
  return (std::signbit(value) ? "-0x" : "0x") + std::string(digits.data(), end);
}

using Reading = std::function<std::optional<std::string>(const std::string&)>;

Range range_of(const std::string& kind, const std::string& low, const std::string& high,
               Reading read) {
  return {"[" + low + ", " + high + "]", "a " + kind + " from " + low + " to " + high,
          std::move(read)};
}

}  // namespace

Check one_of(const std::vector<std::string>& names) {
  const CLI::Validator member = CLI::IsMember(names);
  return {member.get_description(), [member](const std::string& text) {
            std::string changeable = text;
            return member(changeable);
          }};
}

Range whole(std::uint64_t low, std::uint64_t high) {
  return range_of("whole number", std::to_string(low), std::to_string(high),
                  [low, high](const std::string& text) -> std::optional<std::string> {
                    const auto number = whole_number_in(text);
                    if (!number || *number < low || *number > high) return std::nullopt;
                    return std::to_string(*number);
                  });
}

Range real(double low, double high, Precision precision) {
  return range_of("number", number_text(low), number_text(high),
                  [low, high, precision](const std::string& text) -> std::optional<std::string> {
                    const auto number = parse_number<double>(unsigned_text(text));
                    if (!number || !(*number >= low && *number <= high)) return std::nullopt;
                    if (precision == Precision::single_precision && !fits_single(*number))
                      return std::nullopt;
                    return hexadecimal(*number);
                  });
}

Range either(std::uint64_t a, std::uint64_t b) {
  const std::string low = std::to_string(a), high = std::to_string(b);
  return {"{" + low + ", " + high + "}", low + " or " + high,
          [low, high, read = whole(a, b).read](const std::string& text) {
            const std::optional<std::string> number = read(text);
            return number == low || number == high ? number : std::nullopt;
          }};
}

Range word_or(const std::string& word, Range range) {
  return {range.name, range.wants + " or " + word,
          [word, read = std::move(range.read)](const std::string& text) {
            return text == word ? std::optional(word) : read(text);
          }};
}

std::optional<std::int64_t> integer_in(const std::string& text) {
  return parse_number<std::int64_t>(unsigned_text(text));
}

Option Option::type_name(const std::string& name) const {
  option_->type_name(name);
  return *this;
}

Option Option::group(const std::string& name) const {
  option_->group(name);
  return *this;
}

Option Option::show_default() const {
  option_->capture_default_str();
  return *this;
}

Option Option::check(const Check& check) const {
  option_->check(
      CLI::Validator([fault = check.fault](std::string& text) { return fault(text); }, check.name));
  return *this;
}

Option Option::required() const {
  option_->required();
  return *this;
}

Option Option::needs(Option other) const {
  option_->needs(other.option_);
  return *this;
}

Option Option::excludes(Option other) const {
  option_->excludes(other.option_);
  return *this;
}

Option Option::delimiter(char separator) const {
  option_->delimiter(separator);
  return *this;
}

Option Option::one_word() const {
  option_->allow_extra_args(false);
  return *this;
}

Option Option::value_optional() const {
  option_->expected(0, 1);
  return *this;
}

std::vector<std::string> Option::long_names() const { return option_->get_lnames(); }

bool Option::given() const { return option_->count() > 0; }

void Option::give(const std::string& text) const {
  try {
    option_->add_result(text);
    option_->run_callback();
  } catch (const CLI::ParseError& error) {
    throw Error(error.what());
  }
}

Option Parser::add_option(const std::string& names, std::string& variable,
                          const std::string& help) const {
  return Option(app_->add_option(names, variable, help));
}
Option Parser::add_option(const std::string& names, std::optional<std::string>& variable,
                          const std::string& help) const {
  return Option(app_->add_option(names, variable, help));
}
Option Parser::add_option(const std::string& names, std::vector<std::string>& variable,
                          const std::string& help) const {
  return Option(app_->add_option(names, variable, help));
}

template <class T>
Option Parser::add_number(const std::string& names, T& variable, const Range& range,
                          const std::string& help) const {
  CLI::Option* const option = app_->add_option(names, variable, help);
  // A text that was read is replaced by one that says the same to CLI11, whose own reading takes
  // 010 for 8, -1 for 2^64 - 1 and what is too large for the largest number.
  option->transform(CLI::Validator(
      [range](std::string& text) {
        const std::optional<std::string> number = range.read(text);
        if (!number) return "must be " + range.wants + ", got " + text.substr(0, 100);
        text = *number;
        return std::string();
      },
      range.name));
  return Option(option);
}
#define FLUXION_NUMBER_TYPE(...)                                                                 \
  template Option Parser::add_number(const std::string& names, __VA_ARGS__&, const Range& range, \
                                     const std::string& help) const
FLUXION_NUMBER_TYPE(std::string);
FLUXION_NUMBER_TYPE(int);
FLUXION_NUMBER_TYPE(std::int64_t);
FLUXION_NUMBER_TYPE(std::uint64_t);
FLUXION_NUMBER_TYPE(double);
FLUXION_NUMBER_TYPE(std::optional<std::int64_t>);
FLUXION_NUMBER_TYPE(std::optional<double>);
FLUXION_NUMBER_TYPE(std::vector<std::int64_t>);
FLUXION_NUMBER_TYPE(std::vector<double>);
#undef FLUXION_NUMBER_TYPE

Option Parser::add_flag(const std::string& names, bool& variable, const std::string& help) const {
  return Option(app_->add_flag(names, variable, help));
}

void Parser::footer(const std::string& text) const { app_->footer(text); }

Option Parser::option(const std::string& name) const {
  CLI::Option* const found = app_->get_option_no_throw(name);
  if (!found) throw Error(app_->get_name() + " has no option " + name);
  return Option(found);
}

std::vector<Option> Parser::options() const {
  std::vector<Option> result;
  for (CLI::Option* const option : app_->get_options())
    if (option != app_->get_help_ptr()) result.emplace_back(option);
  return result;
}

bool Parser::chosen() const { return app_->parsed(); }

CommandLine::CommandLine(const ProgramText& text)
    : app_(std::make_unique<CLI::App>(text.description, text.name)) {
  app_->footer(text.footer);
  app_->set_version_flag("--version", text.version);
  app_->require_subcommand(1);
  app_->get_formatter()->column_width(34);
}

CommandLine::~CommandLine() = default;

Parser CommandLine::add_subcommand(const std::string& name, const std::string& help) {
  return Parser(app_->add_subcommand(name, help));
}

std::optional<int> CommandLine::parse(int argc, const char* const* argv, const Streams& streams) {
  try {
    app_->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& success) {  // --help, --version
    return app_->exit(success, streams.out, streams.error);
  } catch (const CLI::ParseError& error) {
    std::string says = error.what(), command;
    std::replace(says.begin(), says.end(), '\n', ' ');
    for (const CLI::App* chosen : app_->get_subcommands()) command = chosen->get_name() + " ";
    streams.error << app_->get_name() << ": " << says << "; see `" << app_->get_name() << " "
                  << command << "--help`\n";
    return 2;
  }
}

}  // namespace fluxion::cli
