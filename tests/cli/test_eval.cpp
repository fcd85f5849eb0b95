// `fluxion eval` as its users meet it.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/evaluation/train_classifier.h"
#include "models/files/npy.h"
#include "models/images/image.h"
#include "models/model_file.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A folder with eight-pixel digits, their labels, a classifier for them and a model of points; made
// once.
const ScratchFolder& folder() {
  static const ScratchFolder result;
  static const bool made = [] {
    const std::shared_ptr<const DataSet> digits = make_data_set("glyphs", {.image_size = 8});
    std::vector<float> values;
    for (std::int32_t wanted = 0, position = 0; values.size() < 120 * 64;
         ++position) {  // class i mod 10 at row i
      const HostBatch one = digits->batch(1, 7, static_cast<std::uint64_t>(position));
      if (one.labels[0] != wanted) continue;
      values.insert(values.end(), one.x.begin(), one.x.end());
      wanted = (wanted + 1) % 10;
    }
    write_npy(result / "digits.npy", values, {120, 8, 8, 1});
    write_npy(result / "zeros.labels", std::vector<std::int64_t>(120, 0), {120});
    write_npy(result / "few.labels", std::vector<std::int64_t>(5, 0), {5});
    write_npy(result / "many.labels", std::vector<std::int64_t>(121, 0), {121});
    write_npy(result / "ten.labels", std::vector<std::int64_t>(120, 10), {120});
    write_npy(result / "large.labels", std::vector<std::int64_t>(120, std::int64_t{1} << 32),
              {120});
    // Two folders of samples; one of data, whose test part has a class that its training part
    // lacks.
    const auto picture = [&](const std::string& path, std::size_t digit) {
      std::filesystem::create_directories((result / path).parent_path());
      write_png(result / path, image_grid(std::span(values).subspan(64 * digit, 64), 1, 8, 8, 1,
                                          {.columns = 1, .padding = 0, .scale = 1}));
    };
    for (std::size_t i = 0; i < 120; ++i) {
      if (i % 10 >= 7)
        picture("sevens/" + std::to_string(i % 10) + "/" + std::to_string(i) + ".png", i);
      picture("counted/" + std::to_string(i) + ".png", i);
      if (i < 4)
        picture(
            "folder/" + std::string(i % 2 == 0 ? "1" : "zwei") + "/" + std::to_string(i) + ".png",
            i);
      if (i < 8)
        picture("bad-test/" + std::string(i < 4 ? "train/" : "test/") +
                    (i % 2 == 0 ? "eins"
                     : i < 4    ? "drei"
                                : "zwei") +
                    "/" + std::to_string(i) + ".png",
                i);
    }
    values[64 * 17] = std::numeric_limits<float>::quiet_NaN();
    write_npy(result / "broken.npy", values, {120, 8, 8, 1});
    write_classifier(
        result / "classifier",
        train_classifier(EvaluationData(digits), {.steps = 80, .batch = 64, .tested = 500},
                         cpu({.threads = 2})));
    const ProgramRun run = run_program(
        "train --data 8gaussians --width 16 --depth 1 --steps 5 --batch 32 --out points",
        result.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    return true;
  }();
  REQUIRE(made);
  return result;
}

nlohmann::json evaluated(const std::string& options) {
  const ProgramRun run = run_program("eval --json " + options, folder().path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  return nlohmann::json::parse(run.out);
}

}  // namespace

TEST_CASE("eval measures the likelihood of a model alone, with a tolerance of its own", "[cli]") {
  const std::string common =
      "--model points/model.safetensors --metrics likelihood --count 20 --tolerance ";
  const double exact = evaluated(common + "1e-7").at("metrics").at("nll").at("value").get<double>();
  CHECK(std::isfinite(exact));
  for (const char* tolerance : {"1e-3", "1e-3 --sampler dopri5 --metrics energy"}) {
    INFO(tolerance);
    const double nats = evaluated(common + tolerance).at("metrics").at("nll").at("value");
    CHECK(std::abs(nats - exact) < 0.05);
  }
  // The bound is there beside it.
  const nlohmann::json bound =
      evaluated("--model points/model.safetensors --metrics likelihood,elbo --count 20")
          .at("metrics");
  CHECK(bound.at("elbo").at("value") > 0);
  CHECK(std::isfinite(bound.at("elbo-bits/dim").at("value").get<double>()));
  // Without the likelihood, the tolerance is the sampler's, and this one has none.
  const ProgramRun run = run_program(
      "eval --model points/model.safetensors --metrics energy --tolerance 1e-3", folder().path());
  CHECK(run.code == 1);
  CHECK(contains(run.error, "--tolerance is for --sampler dopri5"));
}

TEST_CASE("eval refuses what is about samples where it draws none", "[cli][evaluation]") {
  for (const char* option :
       {"--steps 3", "--sampler euler", "--head-start 0.2", "--grid karras --sampler edm",
        "--draws 2", "--class none", "--relabel"}) {
    const ProgramRun run =
        run_program("eval --model points/model.safetensors --metrics likelihood,elbo --count 10 " +
                        std::string(option),
                    folder().path());
    INFO(option << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(is_one_line(run.error));
    CHECK(contains(run.error, "is for samples that are drawn, and likelihood measures"));
  }
  check_one_line(
      run_program("eval --model points/model.safetensors --metrics elbo --sampler dopri5 "
                  "--tolerance 1e-3",
                  folder().path()),
      "is for samples that are drawn");
}

TEST_CASE("eval measures the Jacobian of a model beside that of the exact score",
          "[cli][diagnostics]") {
  const nlohmann::json metrics =
      evaluated("--model points/model.safetensors --metrics conservativity,dimension --count 40")
          .at("metrics");
  for (const char* level : {"0.1", "0.5", "2"}) {
    INFO(level);
    const nlohmann::json& row = metrics.at(std::string("asymmetry@") + level);
    CHECK(row.at("value") > 1e-4);  // five steps of training make no gradient
    CHECK(row.at("value") < 2);
    CHECK(row.at("floor") < 1e-9);
  }
  for (const char* level : {"0.05", "0.1", "0.2"}) {
    INFO(level);
    // A fifth of the deviation is more than the width of one Gaussian of the eight.
    const double floor = metrics.at(std::string("dimension@") + level).at("floor");
    CHECK((level == std::string("0.2") ? floor < 1 : floor == 2));
    CHECK(std::isfinite(metrics.at(std::string("flipd@") + level).at("value").get<double>()));
  }
  CHECK(metrics.at("flipd@0.05").at("floor") == Approx(2).margin(0.3));
  // Probes instead of all directions.
  CHECK(evaluated("--model points/model.safetensors --metrics conservativity --count 40 --probes 3")
            .at("metrics")
            .at("asymmetry@0.5")
            .at("value") ==
        Approx(metrics.at("asymmetry@0.5").at("value").get<double>()).epsilon(0.5));
}

TEST_CASE("eval gives one sample no error of its mean", "[cli][diagnostics]") {
  for (const char* count : {"1", "2"}) {
    const nlohmann::json metrics =
        evaluated("--model points/model.safetensors --metrics elbo,likelihood --count " +
                  std::string(count))
            .at("metrics");
    for (const char* name : {"elbo", "nll"})
      CHECK(contains(metrics.at(name).at("note").get<std::string>(), "+-") == (*count == '2'));
  }
}

TEST_CASE("eval takes nothing that is not finite for a number of a model", "[cli][diagnostics]") {
  Model model = read_model(folder() / "points", cpu());
  for (auto& [name, parameter] : model.parameters)
    parameter = full_like(parameter, std::numeric_limits<double>::quiet_NaN());
  write_model(folder() / "diverged.safetensors", model);
  for (const auto& [metric, says] :
       {std::pair("elbo", "elbo of real sample 0 is not finite"),
        std::pair("likelihood", "8 of 8 samples can't go on"),
        std::pair("conservativity", "conservativity of real sample 0 is not finite"),
        std::pair("dimension", "Jacobian is not finite")}) {
    const ProgramRun run =
        run_program("eval --model diverged.safetensors --count 8 --metrics " + std::string(metric),
                    folder().path());
    INFO(run.out << run.error);
    CHECK(run.code == 1);
    CHECK(run.out.empty());
    CHECK(contains(run.error, says));
  }
}

TEST_CASE("eval measures a model of points against what it was trained on", "[cli][evaluation]") {
  const nlohmann::json result =
      evaluated("--model points/model.safetensors --count 300 --draws 2 --threads 2");
  CHECK(result.at("data") == "8gaussians");
  CHECK(result.at("count") == 300);
  CHECK(result.at("classifier").is_null());
  const nlohmann::json& metrics = result.at("metrics");
  for (const char* name : {"sliced-wasserstein", "energy", "mmd"}) {
    INFO(name);
    CHECK(metrics.at(name).at("draws") == 2);
    CHECK(metrics.at(name).at("value") >
          metrics.at(name).at("floor"));  // five steps of training make no eight Gaussians
  }
  CHECK(metrics.at("worst-mode").at("shares").size() == 8);
  CHECK(metrics.at("within-3-sigma").at("better") == "higher");
  const nlohmann::json again =
      evaluated("--model points/model.safetensors --count 300 --draws 2 --threads 1 --batch 64");
  CHECK(again.at("metrics").at("within-3-sigma") == metrics.at("within-3-sigma"));
}

TEST_CASE("eval judges another program's images with a classifier", "[cli][evaluation]") {
  const std::string digits = "--samples digits.npy --data glyphs --classifier classifier ";
  const nlohmann::json result = evaluated(digits + "--draws 2 --neighbours nearest.png");
  const nlohmann::json& metrics = result.at("metrics");
  const double accuracy = metrics.at("accuracy").at("value"),
               floor = metrics.at("accuracy").at("floor");
  CHECK(accuracy > 0.4);
  CHECK(std::abs(accuracy - floor) < 0.2);
  for (const char* name : {"LeNet-FD", "precision", "recall", "density", "coverage"})
    CHECK(metrics.at(name).at("floor").is_number());
  CHECK(result.at("classifier").at("trained_now") == false);
  CHECK(result.at("nearest_training").at("median") > 0);
  CHECK(text_of(folder() / "nearest.png").substr(1, 3) == "PNG");

  CHECK(evaluated(digits + "--metrics classifier --labels zeros.labels")
            .at("metrics")
            .at("accuracy")
            .at("value") < 0.3);
  CHECK(evaluated(digits + "--metrics classifier --count 10 --class 3").at("count") == 10);
  CHECK(evaluated(digits + "--metrics classifier --count 10 --labels zeros.labels").at("count") ==
        10);
  // Sub-folders 7, 8 and 9 are those classes, not the first three.
  CHECK(evaluated("--samples sevens --data glyphs --classifier classifier --metrics classifier")
            .at("metrics")
            .at("accuracy")
            .at("value") > 0.4);
  // Files 0.png, 1.png, .. are of each class in turn.
  CHECK(evaluated("--samples counted --data glyphs --classifier classifier --metrics classifier")
            .at("metrics")
            .at("accuracy")
            .at("value") > 0.4);
  CHECK(evaluated("--samples digits.npy --data glyphs --image-size 10 --metrics energy --count 20")
            .at("count") == 20);  // both are resized
  CHECK_FALSE(evaluated(digits + "--draws 0 --class none").at("metrics").contains("accuracy"));
  CHECK(evaluated("--samples digits.npy --data glyphs --metrics energy --draws 1")
            .at("classifier")
            .is_null());
}

TEST_CASE("eval prints a table with the noise floor beside each number", "[cli][evaluation]") {
  const ProgramRun run = run_program(
      "eval --samples digits.npy --data glyphs --classifier classifier --draws 2", folder().path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  for (const char* word :
       {"samples", "real data", "accuracy", "LeNet-FD", "precision", "+-", "classifier", "% right"})
    CHECK(contains(run.out, word));
}

TEST_CASE("eval names the images whose damage shows while they are read", "[cli][evaluation]") {
  const std::filesystem::path damaged = folder() / "damaged";
  std::filesystem::copy(folder() / "sevens", damaged, std::filesystem::copy_options::recursive);
  std::string file = text_of(damaged / "7/17.png");
  file[file.size() - 13] ^= 1;  // the checksum of the pixels, before the 12 bytes of the end
  std::ofstream(damaged / "7/17.png", std::ios::binary) << file;
  const ProgramRun run = run_program(
      "eval --samples damaged --data glyphs --metrics energy --draws 0", folder().path());
  INFO(run.error);
  CHECK(run.code == 0);
  CHECK(contains(run.error, "17.png: a damaged PNG"));
}

TEST_CASE("eval says what it can't do", "[cli][evaluation]") {
  struct Case {
    std::string arguments, says;
  };
  for (const Case& wrong :
       {Case{"", "--model"}, Case{"--samples digits.npy", "--data"},
        Case{"--samples broken.npy --data glyphs", "sample 17"},
        Case{"--samples digits.npy --data 8gaussians", "8gaussians"},
        Case{"--samples digits.npy --data glyphs --count 200", "120"},
        Case{"--samples digits.npy --data glyphs --retrain --metrics energy", "--retrain"},
        Case{"--samples digits.npy --data glyphs --classifier classifier --metrics energy",
             "--classifier"},
        Case{"--samples digits.npy --data glyphs --class 3 --metrics energy", "--class"},
        Case{"--samples digits.npy --data glyphs --labels ten.labels --classifier classifier",
             "class 10"},
        Case{"--samples digits.npy --data glyphs --labels large.labels --classifier classifier",
             "class 4294967296"},
        Case{"--samples folder --data glyphs --classifier classifier", "class zwei"},
        Case{
            "--samples digits.npy --data glyphs --classifier classifier --neighbours no/such/n.png",
            "no/such/n.png"},
        // Before anything is read, or drawn.
        Case{"--samples no/such.npy --data glyphs --neighbours nearest.JPG",
             "--neighbours nearest.JPG: pictures are written as PNG"},
        Case{"--samples digits.npy --data glyphs --classifier classifier --neighbours folder",
             "folder: Is a directory"},
        Case{"--samples digits.npy --data bad-test --classifier classifier", "class zwei"},
        Case{"--samples digits.npy --data glyphs --labels few.labels --classifier classifier",
             "few.labels"},
        Case{"--samples digits.npy --data glyphs --labels many.labels --classifier classifier",
             "each of 120 samples"},
        Case{"--samples digits.npy --data glyphs --count 5 --labels few.labels --classifier "
             "classifier",
             "each of 120 samples"},
        Case{"--samples digits.npy --data glyphs --class 10 --classifier classifier", "0 to 9"},
        Case{"--samples digits.npy --data glyphs --no-labels --metrics classifier", "no labels"},
        Case{"--samples glyphs --data glyphs", "file or folder"},
        Case{"--samples digits.npy --data glyphs --classifier digits.npy", "digits.npy"},
        Case{"--model no/such.safetensors", "no/such.safetensors"},
        Case{"--samples digits.npy --data glyphs --metrics dimension", "dimension is a model's"},
        Case{"--samples digits.npy --data glyphs --metrics kl", "plane"},
        Case{"--model points/model.safetensors --metrics energy --probes 2", "--probes"},
        // Before the samples of the other metric are drawn.
        Case{"--model points/model.safetensors --metrics energy,likelihood --trace hutch++",
             "--trace hutch++ is for random probes"},
        Case{"--model points/model.safetensors --metrics likelihood --trace hutchinson --probes 0",
             "--probes N"},
        Case{"--model points/model.safetensors --metrics classifier", "no labels"},
        Case{"--model points/model.safetensors --class 3", "no classes"},
        Case{"--model points/model.safetensors --metrics dimension --count 1",
             "none among 1 real sample;"},
        Case{"--model points/model.safetensors --neighbours n.png --count 10", "images"}}) {
    const ProgramRun run = run_program("eval " + wrong.arguments, folder().path());
    INFO("fluxion eval " << wrong.arguments << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(run.out.empty());
    CHECK(contains(run.error, wrong.says));
  }
  CHECK(run_program("eval --model a --samples b").code == 2);
  CHECK(run_program("eval --samples b --count 0").code == 2);
  for (const char* option :
       {"--steps 3", "--guidance 2", "--seed 1", "--batch 8", "--labels c --class 1"})
    CHECK(run_program("eval --samples b --data glyphs " + std::string(option)).code == 2);
}
