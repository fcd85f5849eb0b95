// The options of training methods: their names, ranges, defaults and help, and values for them. The
// command line, configurations, model files and docs/methods.md take all of it from here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace fluxion {

using OptionValue = std::variant<double, std::int64_t, std::string>;

// "squared, huber".
std::string words_of(const std::vector<std::string>& choices);
// "0.5", "3" or the text itself.
std::string to_string(const OptionValue& value);

// What the data are, as far as defaults depend on it.
enum class SampleKind { images, points };

struct OptionDefault {
  OptionValue images;
  std::optional<OptionValue> points = {};  // where it is another
};

struct MethodOption {
  std::string name;  // as on the command line, without its dashes: "time-mean"
  std::string help;  // a sentence, without a full stop
  OptionDefault fallback;
  // The range of a number, both ends included.
  double low = 0, high = 0;
  // The words that a text may be; none: a text is the name of a file.
  std::vector<std::string> choices = {};
  // What files mean that were written before there was such an option; none: the default.
  std::optional<OptionValue> in_older_files = {};
  bool needs_classes = false;  // it changes nothing where the network has no classes
  // Nor where another option is none of these words or numbers.
  std::string of_option = {};
  std::vector<std::string> of_choices = {};

  const OptionValue& default_for(SampleKind kind) const;
  // The value as one of this option's type. Throws Error that says what would be right.
  OptionValue checked(const OptionValue& value) const;
};

MethodOption real_option(std::string name, double low, double high, OptionDefault fallback,
                         std::string help);
MethodOption whole_option(std::string name, std::int64_t low, std::int64_t high,
                          OptionDefault fallback, std::string help);
MethodOption choice_option(std::string name, std::vector<std::string> choices,
                           OptionDefault fallback, std::string help);
MethodOption file_option(std::string name, std::string help);  // default: none, ""

// The same option with another default, with another meaning of files without it, or for networks
// with classes alone.
MethodOption with_default(MethodOption option, OptionDefault fallback);
MethodOption newer_option(MethodOption option, OptionValue in_older_files);
MethodOption for_classes(MethodOption option);
// The same option where another is one of these words.
MethodOption for_choices(std::string other, std::vector<std::string> choices, MethodOption option);

// A value for every option of a method. Asking for one that the method does not have, or for
// another type, throws Error.
class MethodOptions {
 public:
  double real(const std::string& name) const;
  std::int64_t whole(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  bool has(const std::string& name) const { return values_.contains(name); }

  void set(const std::string& name, OptionValue value) { values_[name] = std::move(value); }
  const std::map<std::string, OptionValue>& values() const { return values_; }
  bool operator==(const MethodOptions&) const = default;

 private:
  std::map<std::string, OptionValue> values_;
};

}  // namespace fluxion
