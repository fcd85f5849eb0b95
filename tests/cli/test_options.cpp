// Every option of every command, as the help lists them.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "engine/number_text.h"
#include "models/files/npy.h"
#include "models/model_file.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const std::vector<std::string>& commands() {
  static const std::vector<std::string> names = {"train",  "sample", "eval",   "inspect",
                                                 "import", "zoo",    "export", "check",
                                                 "bench",  "graph",  "devices"};
  return names;
}

// Options whose value is no number, or more than one: text, names, files.
const std::set<std::string>& options_of_text() {
  static const std::set<std::string> names = {
      // of all
      "--device",
      // of data and networks
      "--data", "--net", "--method", "--objective", "--tangent", "--direction", "--weighting",
      "--gradient", "--split", "--teacher", "--schedule", "--out", "--resume", "--preset",
      "--config", "--architecture", "--init", "--optimiser", "--coupling", "--pair-sampler",
      "--small-alpha", "--trace", "--divergence", "--flow-gradient", "--source", "--times",
      "--time-draws", "--loss", "--path", "--norm",
      // of precisions (tests/cli/test_mixed_precision.cpp)
      "--precision",
      // of intervals, which have a test of their own below
      "--checkpoint-every", "--save-every",
      // of the others
      "--model", "--sampler", "--class", "--npy", "--samples", "--labels", "--metrics",
      "--classifier", "--neighbours", "--predicts", "--second-time", "--data-at", "--fill",
      "--rename", "--ignore", "--open-class", "--check", "--transform", "--stage", "--format",
      "--save", "--load", "--init-image", "--inpaint", "--mask", "--enlarge", "--deblur",
      "--steering", "--interpolate", "--to-class", "--animate", "--methods", "--timeline",
      "--along", "--wrt", "--report", "--grid", "--dtype", "--fold"};
  return names;
}

struct NumberOption {
  std::string command, name, low, high;
  bool whole = true;
};

// Required options, so that a number is what is wrong.
std::string required(const std::string& command) {
  if (command == "sample" || command == "export") return " --model x";
  if (command == "import") return " x --predicts velocity";
  return "";
}

// The options of a command that take a number, with the ranges that they name when they refuse a
// text. Fails for one that takes a value and is neither such a number nor known to be text.
std::vector<NumberOption> number_options(const std::string& command) {
  std::vector<NumberOption> result;
  std::istringstream help(run_program(command + " --help").out);
  // "  --width N                 Hidden size", "  --json                    Print ..": a flag
  const std::regex option(R"(^  (?:-\w,)?(--[a-z-]+)( \S+)(?:  .*)?$)"),
      range(R"(must be (a whole|a) number from (\S+) to (\S+?)( or \S+)?, got)"),
      choice(R"(must be (\d+) or (\d+), got)");
  for (std::string line; std::getline(help, line);) {
    std::smatch found;
    if (!std::regex_match(line, found, option)) continue;
    const std::string name = found[1];
    if (options_of_text().contains(name)) continue;
    const std::string refused =
        run_program(command + required(command) + " " + name + "=no-number").error;
    INFO(line << "\n" << refused);
    std::smatch said;
    if (std::regex_search(refused, said, range)) {
      result.push_back({command, name, said[2], said[3], said[1] == "a whole"});
    } else {
      const bool chosen = std::regex_search(refused, said, choice);
      CHECK(chosen);
      if (chosen) result.push_back({command, name, said[1], said[2]});
    }
  }
  return result;
}

void check_refused(const NumberOption& option, const std::string& value) {
  const ProgramRun run = run_program(option.command + required(option.command) + " '" +
                                     option.name + "=" + value + "'");
  INFO(option.command << " " << option.name << "=" << value << "\n" << run.error);
  CHECK(run.code == 2);
  CHECK(is_one_line(run.error));
  CHECK(contains(run.error, option.name + ": "));
  CHECK(contains(run.error, "got " + value.substr(0, 50)));
  CHECK(contains(run.error, option.low));
  CHECK(contains(run.error, option.high));
}

}  // namespace

TEST_CASE("every option of a number has a range, and refuses what lies outside by name", "[cli]") {
  std::map<std::string, std::size_t> counts;
  for (const std::string& command : commands())
    for (const NumberOption& option : number_options(command)) {
      ++counts[command];
      const double low = *parse_number<double>(option.low),
                   high = *parse_number<double>(option.high);
      REQUIRE(low < high);
      // Two options of one kind are read by the same code; each is tried beyond both ends.
      check_refused(option, low > 0 && low < 1 ? number_text(low / 2) : number_text(low - 1));
      check_refused(option, number_text(high * 1.5 + 1));
      if (option.name == "--heads" || option.name == "--guidance" || option.name == "--seed")
        for (const char* value : {"nan", "inf", "-inf", "1e400", "-1e400", "x", "1x", "0x10", "1 2",
                                  "--1", "99999999999999999999999999"})
          check_refused(option, value);
    }
  CHECK(counts["train"] >= 25);
  CHECK(counts["sample"] >= 7);
  CHECK(counts["eval"] >= 8);
  CHECK(counts["import"] >= 3);
  CHECK(counts["export"] >= 8);
  CHECK(counts["bench"] >= 4);
  CHECK(counts["graph"] >= 5);
}

TEST_CASE("numbers are checked in the precision that they are used in", "[cli]") {
  for (const char* wrong : {"train --lr=1e39",
                            "train --lr=1e-50",
                            "train --lr=0",
                            "train --lr=-1",
                            "train --clip=1e39",
                            "train --clip=1e-50",
                            "train --weight-decay=1e-46",
                            "train --final-lr=1e-50",
                            "train --time-std=1e-50",
                            "train --omega=1e39",
                            "train --kappa=1e-60",
                            "train --power=nan",
                            "train --ema=0.9,1e-50",
                            "train --ema=0.9,nan",
                            "sample --model x --guidance=nan",
                            "sample --model x --guidance=inf",
                            "sample --model x --guidance=1e-60",
                            "eval --model x --guidance=nan",
                            "train --steps=2147483648",
                            "train --steps=1.5",
                            "train --seed=-1",
                            "train --seed=18446744073709551616",
                            "train --minutes=inf",
                            "train --memory-limit=0",
                            "train --memory-limit=1e30",
                            "train --save-every=nan",
                            "train --save-every=-1s",
                            "train --save-every=1e10",
                            "train --save-every=1e9h",
                            "train --save-every=5x",
                            "train --save-every=500steps",
                            "train --checkpoint-every=1e10",
                            "train --checkpoint-every=-1s",
                            "train --checkpoint-every=1e9h",
                            "train --checkpoint-every=nans",
                            "train --batch=0",
                            "train --batch=1e7",
                            "train --batch=automatic",
                            "train --channels=2",
                            "train --threads=-1",
                            "train --device=cpu:0",
                            "train --device=cpu:5000",
                            "graph --width=0"}) {
    const ProgramRun run = run_program(wrong);
    INFO(wrong << "\n" << run.error);
    CHECK(run.code == 2);
    CHECK(is_one_line(run.error));
  }
}

TEST_CASE("numbers in a configuration have the ranges of their options", "[cli][config]") {
  const ScratchFolder folder;
  for (const char* wrong :
       {R"({"lr": 1e39})", R"({"lr": 1e-50})", R"({"lr": true})", R"({"steps": 1e10})",
        R"({"steps": 1.5})", R"({"steps": -1})", R"({"ema": [0.9, 1e-50]})", R"({"batch": 0})",
        R"({"seed": -1})", R"({"width": "0x10"})", R"({"checkpoint-every": "-1s"})"}) {
    std::ofstream(folder / "wrong.json") << wrong;
    const ProgramRun run = run_program("train --config wrong.json", folder.path());
    INFO(wrong << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(is_one_line(run.error));
    CHECK(contains(run.error, "wrong.json"));
  }
}

TEST_CASE("a number is read in decimal digits, with an exponent if need be", "[cli]") {
  const ScratchFolder folder;
  const ProgramRun run = run_program(
      "train --data 8gaussians --width 010 --depth +1 --batch 1e1 --steps 2 --seed "
      "18446744073709551615 --lr 0.1 --schedule constant --save-every 5m --quiet --out run",
      folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  const nlohmann::json config = nlohmann::json::parse(text_of(folder / "run/config.json"));
  CHECK(config.at("width") == 10);
  CHECK(config.at("batch") == 10);
  CHECK(config.at("seed") == 18446744073709551615u);
  CHECK(config.at("lr") == 0.1);
  CHECK(config.at("save-every") == 300);
}

namespace {

void write_squares(const std::filesystem::path& path, std::int64_t height, std::int64_t width,
                   std::int64_t channels) {
  constexpr std::int64_t count = 4;
  std::vector<std::uint8_t> values(static_cast<std::size_t>(count * height * width * channels));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint8_t>(i * 37);
  write_npy(path, values, {count, height, width, channels});
}

// Trains one step unless the options say more.
std::string training(const std::string& options) {
  return "train --data images.npy --batch 2 --device cpu:1 --quiet --out run " + options +
         (contains(options, "--steps") ? "" : " --steps 1");
}

nlohmann::json settings_of_run(const std::filesystem::path& folder, const std::string& options) {
  const ProgramRun run = run_program(training(options), folder);
  INFO(options << "\n" << run.error);
  REQUIRE(run.code == 0);
  return nlohmann::json::parse(text_of(folder / "run/config.json"));
}

}  // namespace

TEST_CASE("images of every size train by default, in patches that divide them", "[cli][defaults]") {
  struct Case {
    std::int64_t side, patch;
  };
  const ScratchFolder folder;
  for (const Case& image :
       {Case{28, 4}, Case{32, 4}, Case{30, 2}, Case{15, 3}, Case{25, 5}, Case{29, 1}, Case{21, 3},
        Case{9, 1}, Case{7, 1}, Case{5, 1}, Case{1, 1}, Case{2, 2}, Case{6, 2}, Case{49, 7}}) {
    write_squares(folder / "images.npy", image.side, image.side, 1);
    INFO(image.side);
    const nlohmann::json settings = settings_of_run(folder.path(), "--width 8 --depth 1");
    CHECK(settings.at("net") == "dit");
    CHECK(settings.at("patch") == image.patch);
  }
  write_squares(folder / "images.npy", 67, 67, 1);
  const ProgramRun prime = run_program(training(""), folder.path());
  CHECK(prime.code == 1);
  CHECK(contains(prime.error, "--image-size 64"));
  for (const auto& [height, width] :
       {std::pair(15, 15), std::pair(29, 29), std::pair(9, 14), std::pair(1, 3), std::pair(12, 10)})
    for (const int channels : {1, 3}) {
      write_squares(folder / "images.npy", height, width, channels);
      INFO(height << " x " << width << " x " << channels);
      settings_of_run(folder.path(), "--net unet --width 8");
    }
}

TEST_CASE("width and heads fit each other where one of them is left open", "[cli][defaults]") {
  const ScratchFolder folder;
  write_squares(folder / "images.npy", 8, 8, 1);
  struct Case {
    std::string options;
    std::int64_t width, heads;
  };
  for (const Case& fitting :
       {Case{"--depth 1", 128, 4}, Case{"--depth 1 --heads 3", 132, 3},
        Case{"--depth 1 --heads 8", 128, 8}, Case{"--depth 1 --heads 5", 120, 5},
        Case{"--depth 1 --width 100", 100, 2}, Case{"--depth 1 --width 124", 124, 2},
        Case{"--depth 1 --width 36", 36, 1}, Case{"--depth 1 --width 96", 96, 3},
        Case{"--net unet", 32, 2}, Case{"--net unet --heads 3", 36, 3},
        Case{"--net unet --heads 8", 32, 8}, Case{"--net unet --width 30", 30, 1},
        Case{"--net unet --width 33", 33, 1}, Case{"--net unet --width 2", 2, 1}}) {
    const nlohmann::json settings = settings_of_run(folder.path(), fitting.options);
    INFO(fitting.options);
    CHECK(settings.at("width") == fitting.width);
    CHECK(settings.at("heads") == fitting.heads);
  }
}

TEST_CASE("options that don't fit are refused in terms of options, with what would",
          "[cli][defaults]") {
  const ScratchFolder folder;
  write_squares(folder / "images.npy", 28, 28, 1);
  struct Case {
    std::string options;
    std::vector<std::string> says;
  };
  for (const Case& wrong :
       {Case{"--width 30", {"--width 30", "28 or 32"}}, Case{"--width 1", {"--width 1", "4 would"}},
        Case{"--heads 3 --width 128", {"--heads 3", "--width 128", "2 or 4 would"}},
        Case{"--heads 200 --width 128", {"--heads 200", "128 would"}},
        Case{"--patch 3", {"--patch 3", "28 x 28", "2 or 4 would"}},
        Case{"--patch 64", {"--patch 64", "28 would"}},
        Case{"--net unet --width 32 --heads 3", {"--heads 3", "--width 32", "would"}},
        Case{"--net unet --width 1", {"--width 1", "2 is the least"}},
        Case{"--net unet --depth 65", {"--depth 65", "64"}},
        Case{"--net unet --channel-mult 1,2,2,2", {"--channel-mult", "multiples of 8"}},
        Case{"--net unet --channel-mult 1,1,1,1,1,1,1,1,1,1,1,1,1", {"--channel-mult", "12"}},
        Case{"--schedule cosine --warmup 5", {"--warmup 5", "--steps 1"}},
        Case{"--schedule cosine --steps 200 --lr 0.1 --final-lr 0.2", {"--final-lr 0.2", "0.1"}},
        Case{"--ema 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0", {"--ema", "16"}}}) {
    const ProgramRun run = run_program(training(wrong.options), folder.path());
    INFO(wrong.options << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(is_one_line(run.error));
    for (const std::string& word : wrong.says) CHECK(contains(run.error, word));
    for (const char* word : {"_size", "_heads", "_mult", "_blocks", "hidden", "num_", "base"})
      CHECK_FALSE(contains(run.error, word));
  }
}

TEST_CASE("a cosine over few steps has a warm-up that leaves some of them", "[cli][defaults]") {
  const ScratchFolder folder;
  write_squares(folder / "images.npy", 8, 8, 1);
  const nlohmann::json settings =
      settings_of_run(folder.path(), "--width 8 --depth 1 --schedule cosine --steps 20");
  CHECK(settings.at("warmup") == 2);
}
