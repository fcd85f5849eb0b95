// Classes as the users of `fluxion` meet them: by name, and none that was never trained.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "engine/platform/file.h"
#include "models/evaluation/train_classifier.h"
#include "models/files/npy.h"
#include "models/model_file.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/data/pictures.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

namespace fs = std::filesystem;

const std::string small_run =
    "train --patch 4 --width 8 --heads 1 --depth 1 --batch 4 --threads 1 --quiet ";

// Bird, cat and dog, six squares of 8 x 8 each.
void write_animals(const fs::path& folder) {
  int level = 0;
  for (const char* name : {"bird", "cat", "dog"}) {
    fs::create_directories(folder / name);
    for (int i = 0; i < 6; ++i, ++level)
      replace_file(folder / name / (std::to_string(i) + ".png"),
                   grey_square(8, static_cast<std::uint8_t>(10 * level)));
  }
}

// The animals, a model that has seen them and a classifier for them.
class Animals {
 public:
  Animals() {
    write_animals(folder_ / "animals");
    const ProgramRun run = program(small_run + "--data animals --steps 2 --out run");
    INFO(run.error);
    REQUIRE(run.code == 0);
    std::shared_ptr<const DataSet> set = make_data_set((folder_ / "animals").string());
    write_classifier(folder_ / "judge",
                     train_classifier(EvaluationData(set), {.steps = 2, .batch = 8, .tested = 9},
                                      cpu({.threads = 1})));
  }
  ProgramRun program(const std::string& arguments) const {
    return run_program(arguments, folder_.path());
  }
  ProgramRun evaluated(const std::string& more) const {
    return program("eval --count 12 --draws 0 --threads 1 --classifier judge " + more);
  }
  void rename(const std::string& from, const std::string& to) const {
    fs::rename(folder_ / from, folder_ / to);
  }
  const ScratchFolder& folder() const { return folder_; }

 private:
  ScratchFolder folder_;
};

bool is_a_line(const std::string& text) {
  return !text.empty() && std::count(text.begin(), text.end(), '\n') == 1 && text.back() == '\n';
}

void check_refused(const ProgramRun& run, const std::vector<std::string>& words) {
  INFO(run.error);
  CHECK(run.code == 1);
  CHECK(is_a_line(run.error));
  for (const std::string& word : words) CHECK(contains(run.error, word));
}

}  // namespace

TEST_CASE("resuming and evaluating on renamed folders is refused in a line that shows both names",
          "[cli][classes]") {
  const Animals animals;
  const std::string model = "--model run/model.safetensors ";
  CHECK(animals.evaluated(model).code == 0);
  animals.rename("animals/bird", "animals/zebra");
  const std::vector<std::string> says = {"bird", "zebra", "lacks", "--relabel"};
  check_refused(animals.program("train --resume run --steps 3 --quiet"), says);
  check_refused(animals.evaluated(model), says);
  CHECK(read_model_info(animals.folder() / "run/model.safetensors").class_names ==
        std::vector<std::string>{"bird", "cat", "dog"});
  // The judge of another time is as little asked about zebras.
  check_refused(animals.evaluated("--samples animals --data animals"), {"bird", "zebra"});

  // By their order, if that is asked for; without classes, if they do not matter.
  CHECK(animals.evaluated(model + "--relabel").code == 0);
  CHECK(animals
            .program("eval --count 12 --draws 0 --threads 1 --class none --metrics energy " + model)
            .code == 0);
  const ProgramRun again = animals.program("train --resume run --steps 3 --quiet --relabel");
  INFO(again.error);
  CHECK(again.code == 0);
  CHECK(read_model_info(animals.folder() / "run/model.safetensors").class_names ==
        std::vector<std::string>{"cat", "dog", "zebra"});
  CHECK(animals.program("train --resume run --steps 4 --quiet").code == 0);
  check_refused(animals.program(small_run + "--data animals --relabel --out new"), {"--resume"});
}

TEST_CASE("folders that changed names are refused", "[cli][classes]") {
  const Animals animals;
  animals.rename("animals/cat", "animals/x");
  animals.rename("animals/dog", "animals/cat");
  animals.rename("animals/x", "animals/dog");
  check_refused(animals.program("train --resume run --steps 3 --quiet"),
                {"cat holds what was dog", "--relabel"});
  check_refused(animals.evaluated("--model run/model.safetensors"), {"cat holds what was dog"});
  check_refused(animals.evaluated("--samples animals --data animals"), {"classifier", "cat holds"});
  CHECK(animals.program("train --resume run --steps 3 --quiet --relabel").code == 0);
}

TEST_CASE("a model is measured on the classes that the data have", "[cli][classes]") {
  const Animals animals;
  const std::string model = "--model run/model.safetensors ";
  fs::copy(animals.folder() / "animals", animals.folder() / "fewer", fs::copy_options::recursive);
  fs::remove_all(animals.folder() / "fewer/cat");
  const ProgramRun fewer = animals.evaluated(model + "--data fewer --metrics classifier --json");
  INFO(fewer.error);
  CHECK(fewer.code == 0);
  CHECK(contains(fewer.error, "has no class cat"));
  check_refused(animals.evaluated(model + "--data fewer --class cat"),
                {"--class cat", "bird, dog"});
  CHECK(animals.evaluated(model + "--data fewer --class dog").code == 0);

  fs::copy(animals.folder() / "animals", animals.folder() / "more", fs::copy_options::recursive);
  fs::copy(animals.folder() / "animals/cat", animals.folder() / "more/eel");
  check_refused(animals.evaluated(model + "--data more"), {"eel", "lacks"});
  // As many, and others.
  animals.rename("more/cat", "more/ant");
  fs::remove_all(animals.folder() / "more/bird");
  check_refused(animals.evaluated(model + "--data more"), {"bird, cat", "ant, eel"});
  check_refused(animals.evaluated(model + "--data more --class bird"), {"bird", "ant, dog, eel"});
}

TEST_CASE("samples of others are asked for by name", "[cli][classes]") {
  const Animals animals;
  write_npy(animals.folder() / "s.npy", std::vector<std::uint8_t>(6 * 64, 30), {6, 8, 8});
  const auto with_labels = [&](const std::vector<std::int64_t>& labels) {
    write_npy(animals.folder() / "s.labels.npy", labels, {6});
    return animals.program(
        "eval --samples s.npy --data animals --classifier judge --metrics classifier --draws 0");
  };
  // Numbers are places, where names are no numbers.
  CHECK(with_labels({0, 1, 2, 0, 1, 2}).code == 0);
  CHECK(with_labels({1, 1, 1, 1, 2, 2}).code == 0);
  check_refused(with_labels({1, 2, 3, 1, 2, 3}), {"class 3", "bird, cat, dog"});
  fs::create_directories(animals.folder() / "drawn/eel");
  fs::create_directories(animals.folder() / "drawn/cat");
  for (const char* name : {"drawn/eel/1.png", "drawn/cat/1.png"})
    replace_file(animals.folder() / name, grey_square(8, 9));
  check_refused(animals.program("eval --samples drawn --data animals --classifier judge --metrics "
                                "classifier --draws 0"),
                {"class eel", "bird, cat, dog"});
}

TEST_CASE("labels from 1 and labels with gaps make as many classes as there are",
          "[cli][classes]") {
  const ScratchFolder folder;
  write_npy(folder / "x.npy", std::vector<std::uint8_t>(6 * 64, 30), {6, 8, 8});
  write_npy(folder / "x.labels.npy", std::vector<std::int64_t>{0, 1, 900, 900, 1, 0}, {6});
  const ProgramRun run = run_program(
      "train --patch 4 --width 8 --heads 1 --depth 1 --batch 4 --threads 1 --data x.npy --steps 2 "
      "--out run",
      folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(contains(run.error, "3 classes: 0, 1, 900"));
  const ModelInfo info = read_model_info(folder / "run/model.safetensors");
  CHECK(num_classes(info.network) == 3);
  const std::string sample = "sample --model run/model.safetensors --count 4 --class ";
  CHECK(run_program(sample + "900", folder.path()).code == 0);
  check_refused(run_program(sample + "2", folder.path()), {"--class 2", "0, 1, 900"});
}

TEST_CASE("a class without samples is neither drawn nor judged unasked", "[cli][classes]") {
  const Animals animals;
  // Long enough that classes differ.
  REQUIRE(
      animals.program(small_run + "--data animals --steps 20 --lr 0.05 --ema 0 --out run").code ==
      0);
  Model model = read_model(animals.folder() / "run/model.safetensors", cpu({.threads = 1}));
  model.info.untrained_classes = {1};
  write_model(animals.folder() / "m", model);
  const ProgramRun inspected = animals.program("inspect m");
  CHECK(contains(inspected.out, "3 classes: bird, cat, dog"));
  CHECK(contains(inspected.out, "untrained    class cat"));
  check_refused(animals.program("sample --model m --class cat --count 1"), {"no sample of it"});
  const auto drawn = [&](const std::string& file, const std::string& more) {
    const ProgramRun run =
        animals.program("sample --count 2 --npy out.npy --model " + file + " " + more);
    INFO(run.error);
    CHECK(run.code == 0);
    return text_of(animals.folder() / "out.npy");
  };
  // In turn: bird, dog. (Sample i depends on its class, the seed and i.)
  const std::string both = drawn("m", ""), dogs = drawn("m", "--class dog");
  CHECK(both.substr(both.size() - 256) == dogs.substr(dogs.size() - 256));
  CHECK(drawn("run/model.safetensors", "").substr(both.size() - 256) !=
        both.substr(both.size() - 256));
  check_refused(animals.evaluated("--model m --data animals"), {"cat", "lacks"});
  fs::remove_all(animals.folder() / "animals/cat");
  CHECK(animals.evaluated("--model m --data animals").code == 0);
}

TEST_CASE(
    "a class that the classifier never saw is named, and too few samples are refused before "
    "it is trained",
    "[cli][classes]") {
  const Animals animals;
  // One eel: in whichever half it lies, the other has none.
  fs::create_directories(animals.folder() / "animals/eel");
  replace_file(animals.folder() / "animals/eel/1.png", grey_square(8, 250));
  const std::shared_ptr<const DataSet> set = make_data_set((animals.folder() / "animals").string());
  const EvaluationData data(set);
  const bool unseen = !data.unseen_classes().empty();
  const Classifier judge =
      train_classifier(data, {.steps = 2, .batch = 8, .tested = 9}, cpu({.threads = 1}));
  CHECK(judge.info.class_names == set->class_names());
  CHECK(judge.info.unseen == data.unseen_classes());
  write_classifier(animals.folder() / "judge", judge);
  REQUIRE(animals.program(small_run + "--data animals --steps 2 --out run").code == 0);
  const ProgramRun run = animals.evaluated("--model run/model.safetensors");
  INFO(run.error);
  CHECK(run.code == 0);
  CHECK(contains(run.error, "no sample of class eel") == unseen);
  if (unseen)
    check_refused(animals.evaluated("--model run/model.safetensors --class eel"), {"class eel"});

  const std::string few =
      "eval --model run/model.safetensors --threads 1 --classifier new --draws 0 --count ";
  check_refused(animals.program(few + "3"), {"recall needs at least 4 samples, got 3"});
  check_refused(animals.program(few + "1 --metrics frechet"), {"frechet needs at least 2"});
  CHECK_FALSE(fs::exists(animals.folder() / "new"));
  for (const char* name : {"bird", "cat", "dog"})
    for (int i = 1; i < 6; ++i)
      fs::remove(animals.folder() / "animals" / name / (std::to_string(i) + ".png"));
  check_refused(animals.program(few + "12"), {"real samples to compare with"});
  CHECK_FALSE(fs::exists(animals.folder() / "new"));
}

TEST_CASE("labels that lie beside samples are not asked about where others are given",
          "[cli][classes]") {
  const Animals animals;
  write_npy(animals.folder() / "theirs.npy", std::vector<std::uint8_t>(6 * 64, 30), {6, 8, 8});
  write_npy(animals.folder() / "labels.npy", std::vector<std::int64_t>{0, 1, 2, 0, 1, 2}, {6});
  const std::string theirs =
      "eval --samples theirs.npy --data animals --classifier judge --draws 0 --metrics ";
  check_refused(animals.program(theirs + "classifier"), {"labels.npy", "theirs.labels.npy"});
  CHECK(animals.program(theirs + "classifier --labels labels.npy").code == 0);
  CHECK(animals.program(theirs + "classifier --class dog").code == 0);
  CHECK(animals.program(theirs + "recall").code == 0);
}

TEST_CASE("models and classifiers without names go by number, as they did", "[cli][classes]") {
  const Animals animals;
  Model model = read_model(animals.folder() / "run/model.safetensors", cpu({.threads = 1}));
  model.info.class_names.clear();
  model.info.class_marks.clear();
  write_model(animals.folder() / "old", model);
  Classifier judge = read_classifier(animals.folder() / "judge", cpu({.threads = 1}));
  judge.info.class_names.clear();
  judge.info.class_marks.clear();
  write_classifier(animals.folder() / "judge", judge);
  animals.rename("animals/bird", "animals/zebra");
  CHECK(animals.evaluated("--model old").code == 0);
  CHECK(animals.program("sample --model old --class 2 --count 2").code == 0);
  check_refused(animals.program("sample --model old --class 3 --count 2"), {"0 to 2"});
  fs::remove_all(animals.folder() / "animals/zebra");
  check_refused(animals.evaluated("--model old"), {"class 2", "cat, dog"});
}

TEST_CASE("a class left open is not drawn of a model that has never seen one", "[cli][classes]") {
  const Animals animals;
  REQUIRE(
      animals.program(small_run + "--data animals --steps 2 --label-dropout 0 --out never").code ==
      0);
  const std::string never = "--model never/model.safetensors ";
  check_refused(animals.program("sample --class none " + never), {"label dropout 0"});
  check_refused(animals.program("sample --guidance 2 " + never), {"guidance", "label dropout 0"});
  check_refused(animals.evaluated(never + "--class none"), {"label dropout 0"});
  CHECK(animals.program("sample --count 2 " + never).code == 0);
  CHECK(animals.program("sample --class none --count 2 --model run/model.safetensors").code == 0);
}

TEST_CASE("eval heeds classes only where it draws samples of them", "[cli][classes]") {
  const Animals animals;
  check_refused(animals.program("eval --model run --metrics energy --count 4 --threads 1 "
                                "--class none --guidance 2"),
                {"--class none leaves it open"});
  animals.rename("animals/cat", "animals/lion");
  const ProgramRun run =
      animals.program("eval --model run --metrics likelihood --count 2 --threads 1 --probes 1");
  INFO(run.error);
  CHECK(run.code == 0);
}
