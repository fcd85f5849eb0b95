#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace fluxion::cli {

namespace {

Check check_of(const CLI::Validator& validator) {
  return {validator.get_description(), [validator](const std::string& text) {
            std::string changeable = text;
            return validator(changeable);
          }};
}

Check number_check(const char* name, const char* rule, bool (*holds)(double)) {
  return {name, [rule, holds](const std::string& text) {
            const std::optional<double> value = number_in(text);
            return value && std::isfinite(*value) && holds(*value)
                       ? std::string()
                       : "must be " + std::string(rule) + ", got " + text;
          }};
}

template <class T>
std::optional<T> whole_text(const std::string& text) {
  T value{};
  return CLI::detail::lexical_cast(text, value) ? std::optional(value) : std::nullopt;
}

}  // namespace

Check between(std::int64_t low, std::int64_t high) { return check_of(CLI::Range(low, high)); }
Check between(double low, double high) { return check_of(CLI::Range(low, high)); }
Check one_of(const std::vector<std::string>& names) { return check_of(CLI::IsMember(names)); }
Check finite() {
  return number_check("NUMBER", "a number", [](double) { return true; });
}
Check more_than_zero() {
  return number_check("POSITIVE", "a number above 0", [](double value) { return value > 0; });
}
Check not_negative() {
  return number_check("NONNEGATIVE", "a number not below 0",
                      [](double value) { return value >= 0; });
}

std::optional<std::int64_t> integer_in(const std::string& text) {
  return whole_text<std::int64_t>(text);
}
std::optional<double> number_in(const std::string& text) { return whole_text<double>(text); }

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

template <class T>
Option Parser::add_option(const std::string& names, T& variable, const std::string& help) const {
  return Option(app_->add_option(names, variable, help));
}
#define FLUXION_OPTION_TYPE(...)                                             \
  template Option Parser::add_option(const std::string& names, __VA_ARGS__&, \
                                     const std::string& help) const
FLUXION_OPTION_TYPE(std::string);
FLUXION_OPTION_TYPE(int);
FLUXION_OPTION_TYPE(std::int64_t);
FLUXION_OPTION_TYPE(std::uint64_t);
FLUXION_OPTION_TYPE(double);
FLUXION_OPTION_TYPE(std::optional<std::string>);
FLUXION_OPTION_TYPE(std::optional<std::int64_t>);
FLUXION_OPTION_TYPE(std::optional<double>);
FLUXION_OPTION_TYPE(std::vector<std::string>);
FLUXION_OPTION_TYPE(std::vector<std::int64_t>);
FLUXION_OPTION_TYPE(std::vector<double>);
#undef FLUXION_OPTION_TYPE

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
