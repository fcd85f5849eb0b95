// Every row of the table of methods: what it says of itself, and that all of it holds together.
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "models/methods/method.h"
#include "models/samplers/default_sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("every method names its paper, its sampler and what it predicts", "[methods]") {
  std::set<std::string> names;
  for (const auto& method : built_in_methods()) {
    INFO(method->name);
    CHECK(names.insert(method->name).second);
    CHECK_FALSE(method->summary.empty());
    CHECK(contains(method->paper, "20"));
    ModelInfo info;
    describe(configure(method->name), info);
    CHECK(default_sampler(info).steps == method->sampling.steps);
  }
}

TEST_CASE("an option that several methods have is the same for each, but for its default",
          "[methods]") {
  std::map<std::string, const MethodOption*> known;
  for (const auto& method : built_in_methods()) {
    std::set<std::string> own;
    for (const MethodOption& option : method->options) {
      INFO(method->name << " " << option.name);
      CHECK(own.insert(option.name).second);
      CHECK_FALSE(option.help.empty());
      for (const SampleKind kind : {SampleKind::images, SampleKind::points})
        CHECK_NOTHROW(option.checked(option.default_for(kind)));
      const auto [found, fresh] = known.emplace(option.name, &option);
      const MethodOption& first = *found->second;
      CHECK(first.help == option.help);
      CHECK(first.choices == option.choices);
      CHECK(first.low == option.low);
      CHECK(first.high == option.high);
      CHECK(first.needs_classes == option.needs_classes);
      CHECK(first.fallback.images.index() == option.fallback.images.index());
    }
  }
}

TEST_CASE("a configured method survives JSON bit for bit", "[methods]") {
  for (const auto& method : built_in_methods()) {
    INFO(method->name);
    for (const SampleKind kind : {SampleKind::images, SampleKind::points}) {
      MethodConfig config = configure(method->name, {}, kind);
      if (config.options.has("time-mean")) config.options.set("time-mean", 1.0 / 3);
      CHECK(method_from_json(nlohmann::json::parse(method_to_json(config).dump())) == config);
      if (!config.options.has("times")) continue;
      config = configure(method->name, {{"times", std::string("uniform")}}, kind);
      CHECK(method_from_json(nlohmann::json::parse(method_to_json(config).dump())) == config);
    }
  }
}

TEST_CASE("what no method can be is refused by name", "[methods]") {
  CHECK(contains(message_of<FormatError>([] { configure("magic"); }), "'magic' is not one of"));
  CHECK(contains(message_of([] { configure("meanflow", {{"pover", 1}}); }), "no option 'pover'"));
  CHECK(contains(message_of([] {
                   configure("meanflow", {{"power", 5}});
                 }),
                 "power must be a number from 0 to 4, got 5"));
  CHECK(contains(message_of([] { configure("meanflow", {{"power", 1e-60}}); }), "1e-60"));
  CHECK(contains(message_of([] { configure("meanflow", {{"power", "high"}}); }), "got high"));
  CHECK(contains(message_of([] {
                   configure("meanflow", {{"tangent", "some"}});
                 }),
                 "one of subset, all, got some"));
  using nlohmann::json;
  for (const json& wrong : {json{{"method", "magic"}}, json{{"method", 3}}, json::array(),
                            json{{"kind", "magic"}}, json{{"method", "meanflow"}, {"options", 3}},
                            json{{"method", "meanflow"}, {"options", {{"power", true}}}},
                            json{{"method", "meanflow"}, {"options", {{"power", 9}}}}})
    CHECK_THROWS_AS(method_from_json(wrong), FormatError);

  const MethodConfig guided = configure("meanflow", {{"kappa", 0.5}});
  CHECK(contains(message_of([&] { check(guided, MlpConfig{}, 0); }), "needs classes"));
  CHECK_NOTHROW(check(guided, DitConfig{.num_classes = 2}, 0));
}

TEST_CASE("a table takes methods of a program's own, each name once", "[methods]") {
  Method own = *built_in_methods().front();
  CHECK_THROWS_AS(with_method(built_in_methods(), own), Error);
  own.name = "own";
  const MethodTable table = with_method(built_in_methods(), own);
  CHECK(table.size() == built_in_methods().size() + 1);
  CHECK(configure("own", {}, SampleKind::images, table).method->name == "own");
  CHECK_THROWS_AS(configure("own"), FormatError);
  // The command line has one option for all methods that share its name.
  const auto refusal = [&](MethodOption option) {
    Method other = own;
    other.name = "other", other.options = {std::move(option)};
    return message_of([&] { with_method(built_in_methods(), other); });
  };
  const MethodOption power = configure("meanflow").method->option("power"),
                     tangent = configure("meanflow").method->option("tangent");
  CHECK(refusal(with_default(power, {.images = 0.5})).empty());
  const auto changed = [](MethodOption option, const auto& change) {
    change(option);
    return option;
  };
  CHECK(refusal(changed(power, [](MethodOption& option) { option.high = 9; })) ==
        "method other: option power has another range than that of method flow-matching; give it "
        "the same, or another name");
  CHECK(contains(refusal(changed(power, [](MethodOption& option) { option.help = "?"; })),
                 "another help"));
  CHECK(contains(refusal(changed(tangent, [](auto& option) { option.choices.push_back("none"); })),
                 "another choices"));
  CHECK(contains(refusal(file_option("power", "A file")), "another type"));
  own.options.push_back(own.options.at(0));
  own.name = "twice";
  CHECK(contains(message_of([&] { with_method(built_in_methods(), own); }), "is there twice"));
  own.name = "empty";
  own.loss = {};
  CHECK_THROWS_AS(with_method(table, own), Error);
}

// After a change that is meant, set FLUXION_UPDATE_PINNED=1, run this test once, and look at the
// difference.
TEST_CASE("docs/methods.md is the table", "[methods]") {
  const std::filesystem::path page =
      std::filesystem::path(FLUXION_SOURCE_DIR) / "docs" / "methods.md";
  const std::string text = methods_page(built_in_methods());
  if (std::getenv("FLUXION_UPDATE_PINNED")) std::ofstream(page) << text;
  CHECK(text_of(page) == text);
}
