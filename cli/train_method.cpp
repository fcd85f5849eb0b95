#include "cli/train_method.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace fluxion::cli {

namespace {

using nlohmann::json;

// An option, and the methods that have it.
struct SharedOption {
  const MethodOption* option;  // of the first of them
  std::vector<const Method*> users;
};

// In the order of the table.
std::vector<SharedOption> shared_options(const MethodTable& methods) {
  std::vector<SharedOption> shared;
  for (const auto& method : methods)
    for (const MethodOption& option : method->options) {
      const auto found = std::ranges::find_if(
          shared, [&](const SharedOption& each) { return each.option->name == option.name; });
      if (found == shared.end())
        shared.push_back({&option, {method.get()}});
      else
        found->users.push_back(method.get());
    }
  return shared;
}

std::string default_text(const MethodOption& option) {
  const std::string images = to_string(option.fallback.images);
  if (!option.fallback.points) return images.empty() ? "none" : images;
  return images + " for images, " + to_string(*option.fallback.points) + " for points";
}

// "0.75 for images, 0.5 for points", with what is another for some methods behind it.
std::string defaults_text(const SharedOption& shared) {
  const std::string usual = default_text(*shared.option);
  std::string text = usual;
  for (const Method* method : shared.users)
    if (const std::string own = default_text(method->option(shared.option->name)); own != usual)
      text += "; " + method->name + ": " + own;
  return text;
}

std::string help_of(const SharedOption& shared, const MethodTable& methods) {
  std::string users;
  if (shared.users.size() != methods.size())
    for (const Method* method : shared.users) users += (users.empty() ? "" : ", ") + method->name;
  return (users.empty() ? "" : users + ": ") + shared.option->help +
         " (default: " + defaults_text(shared) + ")";
}

void add_option(const Parser& parser, const SharedOption& shared, TrainOptions& options,
                const std::string& group) {
  const MethodOption& option = *shared.option;
  const std::string name = "--" + option.name, help = help_of(shared, options.methods);
  MethodValues& values = options.method_values;
  if (std::holds_alternative<double>(option.fallback.images)) {
    parser.add_number(name, values.reals[option.name], real(option.low, option.high), help)
        .type_name("X")
        .group(group);
  } else if (std::holds_alternative<std::int64_t>(option.fallback.images)) {
    parser
        .add_number(
            name, values.wholes[option.name],
            whole(static_cast<std::uint64_t>(option.low), static_cast<std::uint64_t>(option.high)),
            help)
        .type_name("N")
        .group(group);
  } else if (!option.choices.empty()) {
    parser.add_option(name, values.texts[option.name], help)
        .check(one_of(option.choices))
        .type_name("NAME")
        .group(group);
  } else {
    parser.add_option(name, values.texts[option.name], help).type_name("FILE").group(group);
  }
}

// Its value in the options of the command line; empty: not given.
std::optional<OptionValue> given_value(const MethodValues& values, const std::string& name) {
  const auto in = [&](const auto& map) -> std::optional<OptionValue> {
    const auto found = map.find(name);
    if (found == map.end() || !found->second) return std::nullopt;
    return *found->second;
  };
  if (const auto real = in(values.reals)) return real;
  if (const auto whole = in(values.wholes)) return whole;
  return in(values.texts);
}

MethodConfig configured(const TrainOptions& options, SampleKind kind) {
  GivenOptions given;
  for (const MethodOption& option : method_named(options.method, options.methods)->options)
    if (const auto value = given_value(options.method_values, option.name))
      given.emplace(option.name, *value);
  return configure(options.method, given, kind, options.methods);
}

// A path that holds from anywhere, so that a run goes on from anywhere.
std::string from_anywhere(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

void check_option_names(const MethodTable& methods) {
  if (methods == built_in_methods()) return;
  CommandLine program({});
  TrainOptions without_methods;
  without_methods.methods.clear();
  const Parser parser = program.add_subcommand("train", "");
  add_train_options(parser, without_methods);
  std::set<std::string> taken{"help"};
  for (const Option& option : parser.options())
    for (const std::string& name : option.long_names()) taken.insert(name);
  for (const auto& method : methods)
    for (const MethodOption& option : method->options)
      if (taken.contains(option.name))
        throw Error("method " + method->name + ": option " + option.name +
                    " is taken by fluxion train; give it another name");
}

void add_method_options(const Parser& parser, TrainOptions& options) {
  const std::string group = "Method";
  std::vector<std::string> names;
  for (const auto& method : options.methods) names.push_back(method->name);
  parser
      .add_option("--method,--objective", options.method,
                  "How the network is trained (--list-methods says what each is, docs/methods.md "
                  "all about them)")
      .check(one_of(names))
      .type_name("NAME")
      .show_default()
      .group(group);
  for (const SharedOption& shared : shared_options(options.methods))
    add_option(parser, shared, options, group);
  std::string takers;
  for (const auto& method : options.methods)
    if (method->takes_pairs) takers += (takers.empty() ? "" : ", ") + method->name;
  parser
      .add_option("--coupling", options.coupling,
                  takers +
                      ": which noise of a batch goes with which sample: independent, exact (the "
                      "assignment of least distance) or sinkhorn (drawn from entropic transport); "
                      "within each class, where there are classes")
      .check(one_of(coupling_names()))
      .type_name("NAME")
      .show_default()
      .group(group);
  parser
      .add_option("--source", options.source,
                  "A built-in set of points that the flow begins in, instead of standard normal "
                  "noise: between two sets, for the methods that take --coupling")
      .type_name("NAME")
      .group(group);
  parser
      .add_number("--coupling-epsilon", options.coupling_epsilon, real(1e-6, 1e6),
                  "Entropy of --coupling sinkhorn, in means of the squared distances above the "
                  "least of them (default: 0.05)")
      .type_name("X")
      .group(group);
}

std::string method_list(const MethodTable& methods) {
  std::size_t widest = 0;
  for (const auto& method : methods) widest = std::max(widest, method->name.size());
  std::string text;
  for (const auto& method : methods)
    text +=
        method->name + std::string(widest + 2 - method->name.size(), ' ') + method->summary + "\n";
  return text;
}

void resolve_method(TrainOptions& options, SampleKind kind) {
  const MethodConfig config = configured(options, kind);
  MethodValues& values = options.method_values;
  for (const auto& [name, value] : config.options.values()) {
    if (const double* real = std::get_if<double>(&value)) values.reals[name] = *real;
    if (const std::int64_t* whole = std::get_if<std::int64_t>(&value)) values.wholes[name] = *whole;
    if (const std::string* text = std::get_if<std::string>(&value))
      values.texts[name] =
          config.method->option(name).choices.empty() ? from_anywhere(*text) : *text;
  }
}

MethodConfig method_for(const TrainOptions& options) {
  return configured(options, SampleKind::images);
}

void set_method(json& settings, const MethodConfig& method, const MethodTable& methods) {
  settings.erase("objective");
  for (const SharedOption& shared : shared_options(methods)) settings.erase(shared.option->name);
  settings["method"] = method.method->name;
  for (const auto& [name, value] : method.options.values())
    if (value != OptionValue(std::string()))
      std::visit([&](const auto& each) { settings[name] = each; }, value);
}

std::string why_unread(const MethodConfig& method, bool has_classes, const MethodTable& methods,
                       const std::string& name) {
  const auto has = [&](const auto& each) {
    return std::ranges::count(each->options, name, &MethodOption::name) > 0;
  };
  if (std::ranges::none_of(methods, has)) return "";
  if (!method.options.has(name)) return "on --method " + method.method->name;
  const MethodOption& option = method.method->option(name);
  if (option.needs_classes && !has_classes) return "without classes";
  const MethodOption* const other = method.method->unread_by(option, method.options);
  if (!other) return "";
  return "with --" + other->name + " " + to_string(method.options.values().at(other->name)) +
         (other->name == option.of_option ? ", only with " + words_of(option.of_choices)
                                          : std::string());
}

void check_method_read(const MethodConfig& method, bool has_classes, const MethodTable& methods,
                       const std::set<std::string>& given) {
  for (const std::string& name : given)
    if (const std::string why = why_unread(method, has_classes, methods, name); !why.empty())
      throw Error("train: --" + name + " has no effect " + why + "; leave it out");
}

}  // namespace fluxion::cli
