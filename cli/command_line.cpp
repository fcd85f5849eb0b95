#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "cli/nearest_name.h"
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

constexpr std::size_t help_column = 28, narrowest_help = 24;
constexpr int widest_help = 100;

// `text` in lines of at most `width`, those after the first behind `indent` spaces. Line breaks and
// indentation of the text itself stay.
std::string wrapped(const std::string& text, std::size_t width, std::size_t indent) {
  std::string result;
  std::size_t column = 0;
  bool first_word = true;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '\n') {
      result += '\n' + std::string(indent, ' ');
      column = 0, first_word = true, ++at;
      continue;
    }
    const std::size_t word = std::min(text.find_first_not_of(' ', at), text.size());
    const std::size_t end = std::min(text.find_first_of(" \n", word), text.size());
    const std::size_t spaces = word - at, length = end - word;
    if (!first_word && column + spaces + length > width) {
      result += '\n' + std::string(indent, ' ');
      column = 0;
    } else {
      result += std::string(spaces, ' ');
      column += spaces;
    }
    result += text.substr(word, length);
    column += length, first_word = false, at = end;
  }
  return result;
}

// A name before a text, as a list in a help has them; long names stand on a line of their own.
std::string help_entry(const std::string& name, const std::string& text, std::size_t columns) {
  const std::string start = "  " + name;
  const std::size_t width =
      std::max(columns > help_column ? columns - help_column : 0, narrowest_help);
  std::string result = start;
  if (start.size() + 2 > help_column) {
    result += '\n' + std::string(help_column, ' ');
  } else {
    result += std::string(help_column - start.size(), ' ');
  }
  return result + wrapped(text, width, help_column) + "\n";
}

// What an option takes. CLI11 keeps it as one text, "N:[1, 8]" or "NAME:{a,b}".
struct TypeText {
  std::string name, takes;
};
TypeText type_of(const CLI::Option& option) {
  const std::string text = option.get_type_name();
  const std::size_t colon = std::min(text.find(":["), text.find(":{"));  // not that of "A:B"
  if (colon == std::string::npos) return {text, ""};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// The words that an option takes; none where it takes other texts.
std::vector<std::string> words_of(const CLI::Option& option) {
  const std::string takes = type_of(option).takes;
  std::vector<std::string> words;
  if (!takes.starts_with('{') || !takes.ends_with('}')) return words;
  for (std::size_t at = 1; at < takes.size();) {
    const std::size_t end = takes.find_first_of(",}", at);
    words.push_back(takes.substr(at, end - at));
    at = end + 1;
    while (at < takes.size() && takes[at] == ' ') ++at;
  }
  return words;
}

// "a, b or c".
std::string listed(const std::vector<std::string>& words) {
  std::string result;
  for (std::size_t i = 0; i < words.size(); ++i)
    result += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + words[i];
  return result;
}

// The range of a number in words, without ends that nobody meets: "[1, 2147483647]" is "at least
// 1".
std::string range_text(const std::string& takes) {
  constexpr std::size_t longest = 9;
  const std::size_t comma = takes.find(", ");
  if (!takes.starts_with('[') || comma == std::string::npos) return "";
  const std::string low = takes.substr(1, comma - 1),
                    high = takes.substr(comma + 2, takes.size() - comma - 3);
  if (high.size() <= longest) return low + " to " + high;
  return low == "0" || low.size() > longest ? "" : "at least " + low;
}

// Help in the width of the terminal: names, what they mean, and in brackets range and default.
class HelpFormatter : public CLI::Formatter {
 public:
  explicit HelpFormatter(std::size_t columns) : columns_(columns) {}

  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    const TypeText type = type_of(*option);
    std::string name = make_option_name(option, is_positional);
    if (!is_positional && option->get_type_size() != 0 && !type.name.empty())
      name += " " + type.name;
    std::string text = option->get_description();
    std::string notes;
    const auto note = [&](const std::string& words) {
      if (!words.empty()) notes += (notes.empty() ? "" : "; ") + words;
    };
    if (option->get_required()) note("required");
    const std::vector<std::string> words = words_of(*option);
    const bool told = std::all_of(words.begin(), words.end(), [&](const std::string& word) {
      return text.find(word) != std::string::npos;
    });
    note(told ? range_text(type.takes) : listed(words));
    if (const std::string value = option->get_default_str(); !value.empty())
      note("default: " + value);
    for (const CLI::Option* other : option->get_needs()) note("with " + other->get_name());
    // What excludes most others, such as --list, would be said at each of them.
    constexpr std::size_t most_excluded = 4;
    const auto excludes_few = [](const CLI::Option* each) {
      return each->get_excludes().size() <= most_excluded;
    };
    if (excludes_few(option))
      for (const CLI::Option* other : option->get_excludes())
        if (excludes_few(other)) note("not with " + other->get_name());
    if (!notes.empty()) text += " [" + notes + "]";
    return help_entry(name, text, columns_);
  }

  std::string make_subcommand(const CLI::App* command) const override {
    return help_entry(command->get_name(), command->get_description(), columns_);
  }

  std::string make_footer(const CLI::App* app) const override {
    const std::string footer = app->get_footer();
    return footer.empty() ? "" : wrapped(footer, columns_, 0) + "\n";
  }

 private:
  std::size_t columns_;
};

using Reading = std::function<std::optional<std::string>(const std::string&)>;

Range range_of(const std::string& kind, const std::string& low, const std::string& high,
               Reading read) {
  return {"[" + low + ", " + high + "]", "a " + kind + " from " + low + " to " + high,
          std::move(read)};
}

}  // namespace

Check one_of(const std::vector<std::string>& names) {
  const CLI::Validator member = CLI::IsMember(names);
  return {member.get_description(), [member, names](const std::string& text) {
            std::string changeable = text;
            const std::string fault = member(changeable);
            return fault.empty() ? fault : fault + suggestion(text, names);
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

Option Option::value_optional() const {
  option_->expected(0, 1);
  return *this;
}

std::vector<std::string> Option::long_names() const { return option_->get_lnames(); }
std::string Option::help() const { return option_->get_description(); }
std::string Option::type() const {
  return option_->get_type_size() == 0 ? "" : type_of(*option_).name;
}
std::vector<std::string> Option::words() const { return words_of(*option_); }

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
  return Option(app_->add_option(names, variable, help)->allow_extra_args(false));
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

std::string Parser::name() const { return app_->get_name(); }
std::string Parser::help() const { return app_->get_description(); }

bool Parser::chosen() const { return app_->parsed(); }

CommandLine::CommandLine(const ProgramText& text)
    : app_(std::make_unique<CLI::App>(text.description, text.name)) {
  app_->footer(text.footer);
  app_->set_version_flag("-v,--version", text.version, "Print the version and exit");
  app_->set_help_flag("-h,--help", "Print this help and exit");
  app_->require_subcommand(1);
  app_->formatter(std::make_shared<HelpFormatter>(
      static_cast<std::size_t>(std::max(std::min(text.columns, widest_help), 1))));
  app_->get_formatter()->label("OPTIONS", "options");
  app_->get_formatter()->label("SUBCOMMAND", "COMMAND");
  app_->get_formatter()->label("Positionals", "Arguments");
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
    std::string command;
    for (const CLI::App* chosen : app_->get_subcommands()) command = chosen->get_name() + " ";
    streams.error << app_->get_name() << ": " << fault(error, argc > 1 ? argv[1] : "") << "; see `"
                  << app_->get_name() << " " << command << "--help`\n";
    return 2;
  }
}

std::vector<Parser> CommandLine::subcommands() const {
  std::vector<Parser> result;
  for (CLI::App* const command : app_->get_subcommands(nullptr)) result.emplace_back(command);
  return result;
}

// One line on what is wrong, naming what was probably meant.
std::string CommandLine::fault(const CLI::ParseError& error, const std::string& first) const {
  const std::vector<CLI::App*> chosen = app_->get_subcommands();
  const std::vector<std::string> extras = app_->remaining(true);
  const auto written = std::find_if(extras.begin(), extras.end(),
                                    [](const std::string& text) { return text.starts_with('-'); });
  std::vector<std::string> names;
  if (chosen.empty() && !first.empty() && !first.starts_with('-')) {
    for (const Parser& command : subcommands()) names.push_back(command.name());
    return "there is no command \"" + first.substr(0, 64) + "\"" + suggestion(first, names);
  }
  if (written != extras.end() &&
      (chosen.empty() || dynamic_cast<const CLI::ExtrasError*>(&error))) {
    const std::string name = written->substr(0, written->find('='));
    for (const CLI::App* app : chosen.empty() ? std::vector<CLI::App*>{app_.get()} : chosen)
      for (const CLI::Option* option : app->get_options())
        for (const std::string& word : option->get_lnames()) names.push_back("--" + word);
    return (chosen.empty() ? "there" : chosen[0]->get_name()) +
           (chosen.empty() ? " is no option " : " has no option ") + name.substr(0, 64) +
           suggestion(name, names);
  }
  std::string says = error.what();
  if (!extras.empty() && dynamic_cast<const CLI::ExtrasError*>(&error)) {
    says = "not expected here:";
    for (const std::string& text : extras) says += " " + text.substr(0, 64);
  }
  constexpr const char* repeated = ": At Most 1 required but received";
  if (const std::size_t at = says.find(repeated); at != says.npos)
    says = says.substr(0, at) + " was given more than once";
  if (dynamic_cast<const CLI::RequiredError*>(&error) && chosen.empty())
    says = "a command is missing";
  std::replace(says.begin(), says.end(), '\n', ' ');
  return says;
}

}  // namespace fluxion::cli
