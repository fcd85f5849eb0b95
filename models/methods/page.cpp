#include "models/methods/method.h"

namespace fluxion {
namespace {

std::string range_of(const MethodOption& option) {
  if (!option.choices.empty()) return words_of(option.choices);
  if (std::holds_alternative<std::string>(option.fallback.images)) return "a file";
  return (std::holds_alternative<double>(option.fallback.images) ? "" : "whole, ") +
         to_string(OptionValue(option.low)) + " to " + to_string(OptionValue(option.high));
}

std::string default_of(const MethodOption& option) {
  const std::string images = to_string(option.fallback.images);
  if (!option.fallback.points) return images.empty() ? "none" : images;
  return images + "; points: " + to_string(*option.fallback.points);
}

std::string state_of(const Method& method) {
  std::string state;
  const auto add = [&](bool has, const char* what) {
    if (has) state += (state.empty() ? "" : ", ") + std::string(what);
  };
  add(static_cast<bool>(method.learned), "learned weights of its own");
  add(!method.copies.empty(), "an average of the network");
  add(!method.teacher_option.empty(), "a frozen teacher");
  add(method.needs_pairs, "pairs of a teacher, on disk");
  return state.empty() ? "-" : state;
}

}  // namespace

std::string methods_page(const MethodTable& table) {
  std::string page = R"(# Training methods

`fluxion train --method NAME`, with the options below; each is a file of
[`models/methods/`](../models/methods/) and a row of its `table.cpp`, from which this page is made.

Time t goes from data (0) to noise (1); r <= t is the end of a jump. v is the velocity, u(z, t, r)
the average velocity from t to r, X(z, t, r) where the flow takes z. A row is one sample of a batch.
`0.75; points: 0.5` is the default for images, and that for points. [Sampling](sampling.md) explains
predictions and samplers.

| method | what it trains | the network predicts | drawn with | keeps |
|---|---|---|---|---|
)";
  for (const auto& method : table)
    page += "| `" + method->name + "` | " + method->summary + " | " +
            to_string(method->prediction) + " | " + method->sampling.sampler + ", " +
            std::to_string(method->sampling.steps) +
            (method->sampling.steps == 1 ? " step" : " steps") + " | " + state_of(*method) + " |\n";
  for (const auto& method : table) {
    page += "\n## " + method->name + "\n\n" + method->paper + ".\n\n";
    if (method->takes_pairs && !method->needs_pairs)
      page += "Takes `--coupling`, `--source` and `--data` of pairs.\n\n";
    if (method->options.empty()) continue;
    page += "| option | range | default | |\n|---|---|---|---|\n";
    for (const MethodOption& option : method->options) {
      page += "| `--" + option.name + "` | " + range_of(option) + " | " + default_of(option) +
              " | " + option.help;
      if (!option.of_option.empty())
        page += " (with `--" + option.of_option + "` " + words_of(option.of_choices) + ")";
      page += " |\n";
    }
  }
  return page;
}

}  // namespace fluxion
