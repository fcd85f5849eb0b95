// The command line of the program: its subcommands, their options, and the variables that options
// set. A front of CLI11, whose header takes seven seconds to compile: command_line.cpp alone
// includes it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/program.h"

namespace CLI {
class App;
class Option;
class ParseError;
}  // namespace CLI

namespace fluxion::cli {

// What the text of an option must be: `name` says it in the help, `fault` what is wrong with a
// text, "" if nothing is.
struct Check {
  std::string name;
  std::function<std::string(const std::string& text)> fault;
};
Check one_of(const std::vector<std::string>& names);

// The numbers that an option takes. Every option of a number has one: see Parser::add_number.
struct Range {
  std::string name;   // in the help: "[1, 8192]"
  std::string wants;  // in messages: "a whole number from 1 to 8192"
  // A text that is such a number, as the parser reads it exactly; nothing for any other text.
  std::function<std::optional<std::string>(const std::string& text)> read;
};
// "8192", and "8e3" too.
Range whole(std::uint64_t low, std::uint64_t high);
// The precision in which an option's number is computed with.
enum class Precision { single_precision, double_precision };
// In single precision, a number that is not 0 and would become 0 or less than normal is refused.
Range real(double low, double high, Precision precision = Precision::single_precision);
Range either(std::uint64_t a, std::uint64_t b);  // a < b
// The word, or one of the numbers.
Range word_or(const std::string& word, Range range);

// The number that a text is, all of it.
std::optional<std::int64_t> integer_in(const std::string& text);

// A handle on an option of a parser.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  // In the help: "--count N", the heading under which the option stands, and its default.
  Option type_name(const std::string& name) const;
  Option group(const std::string& name) const;
  Option show_default() const;

  Option check(const Check& check) const;
  Option required() const;
  Option needs(Option other) const;
  Option excludes(Option other) const;
  // How lists are written: "1,2,3".
  Option delimiter(char separator) const;
  // The option may stand without a value.
  Option value_optional() const;

  std::vector<std::string> long_names() const;  // without the dashes
  std::string help() const;
  std::string type() const;                // "N", "FILE.png"; "" for a flag
  std::vector<std::string> words() const;  // those it takes; none where it takes other texts
  bool given() const;
  // Sets the variable as if `text` stood on the command line; throws Error if that would be wrong.
  void give(const std::string& text) const;

 private:
  CLI::Option* option_;
};

// A handle on the parser of a subcommand.
class Parser {
 public:
  explicit Parser(CLI::App* app) : app_(app) {}

  // `names` begin with dashes, or name an argument by its place. The variable must live as long as
  // the program parses; its value is the default. A list of texts is one word, so that it takes
  // none of what stands after it; the option may be repeated.
  Option add_option(const std::string& names, std::string& variable, const std::string& help) const;
  Option add_option(const std::string& names, std::optional<std::string>& variable,
                    const std::string& help) const;
  Option add_option(const std::string& names, std::vector<std::string>& variable,
                    const std::string& help) const;
  // T is a number, an optional or a vector of one, or a string where the range has a word (see the
  // instances in command_line.cpp).
  template <class T>
  Option add_number(const std::string& names, T& variable, const Range& range,
                    const std::string& help) const;
  Option add_flag(const std::string& names, bool& variable, const std::string& help) const;
  void footer(const std::string& text) const;

  Option option(const std::string& name) const;  // "--out"; throws Error if there is none
  std::vector<Option> options() const;           // all but --help
  std::string name() const;
  std::string help() const;
  bool chosen() const;  // the command line names this subcommand

 private:
  CLI::App* app_;
};

struct ProgramText {
  std::string name, description, footer, version;
  int columns = 80;  // of the help
};

class CommandLine {
 public:
  explicit CommandLine(const ProgramText& text);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Parser add_subcommand(const std::string& name, const std::string& help);
  std::vector<Parser> subcommands() const;

  // Sets the variables of all options given. Answers --help and --version, and says what is wrong
  // with a command line: then nothing is left to do, and the exit code is returned.
  std::optional<int> parse(int argc, const char* const* argv, const Streams& streams);

 private:
  // `first` is the first word after the program's name.
  std::string fault(const CLI::ParseError& error, const std::string& first) const;

  std::unique_ptr<CLI::App> app_;
};

}  // namespace fluxion::cli
