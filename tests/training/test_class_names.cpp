// Runs and models keep the names of classes, and know which had samples.
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "engine/platform/file.h"
#include "models/data/glyphs.h"
#include "models/files/safetensors.h"
#include "models/training/checkpoint.h"
#include "models/training/preview.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Classes = std::vector<std::string>;

TrainingConfig small_config(std::int64_t classes) {
  return {.network = DitConfig{.image_size = 4,
                               .patch_size = 2,
                               .hidden_size = 8,
                               .depth = 1,
                               .num_heads = 1,
                               .num_classes = classes},
          .batch = 4,
          .seed = 2};
}

void write_animals(const std::filesystem::path& folder, const Classes& names) {
  int level = 0;
  for (const std::string& name : names) {
    std::filesystem::create_directories(folder / name);
    for (int i = 0; i < 2; ++i, ++level)
      replace_file(folder / name / (std::to_string(i) + ".png"),
                   grey_square(4, static_cast<std::uint8_t>(20 * level)));
  }
}

// A run on bird, cat and dog that has done a step.
struct AnimalRun {
  ScratchFolder folder;
  std::filesystem::path data = folder / "animals", checkpoint = folder / "c";
  AnimalRun() {
    write_animals(data, {"bird", "cat", "dog"});
    Trainer trainer(small_config(3), make_data_set(data.string()), cpu({.threads = 1}));
    trainer.step();
    write_checkpoint(checkpoint, trainer, 0);
  }
  void rename(const char* from, const char* to) const {
    std::filesystem::rename(data / from, data / to);
  }
  // As the program resumes.
  std::string resumed(ClassesBy by = ClassesBy::name) const {
    return message_of([&] {
      std::shared_ptr<DataSet> set = make_data_set(data.string());
      if (by == ClassesBy::name) match_classes(*set, read_checkpoint_info(checkpoint));
      resume_trainer(checkpoint, set, cpu({.threads = 1}), by).step();
    });
  }
};

// The checkpoint as a version that kept no names wrote it.
void forget_names(const std::filesystem::path& path, std::int32_t classes) {
  TensorFile file = load_tensors(path, cpu({.threads = 1}));
  nlohmann::json info = nlohmann::json::parse(file.metadata.at("fluxion.checkpoint"));
  for (const char* key : {"class_names", "class_marks", "untrained_classes"})
    info["data"].erase(key);
  CHECK(info["data"]["classes"] == classes);
  file.metadata["fluxion.checkpoint"] = info.dump();
  save_tensors(path, file.tensors, file.metadata);
}

}  // namespace

TEST_CASE("a run goes on with the classes that it began with", "[training][classes]") {
  const AnimalRun run;
  CHECK(run.resumed().empty());
  const CheckpointInfo info = read_checkpoint_info(run.checkpoint);
  CHECK(info.data.class_names == Classes{"bird", "cat", "dog"});
  CHECK(info.data.class_marks.size() == 3);
}

TEST_CASE("a class that was renamed is refused with both names, or taken by number",
          "[training][classes]") {
  const AnimalRun run;
  run.rename("bird", "zebra");  // the first becomes the last
  const std::string message = run.resumed();
  CHECK(contains(message, "the run has bird, which"));
  CHECK(contains(message, "has zebra, which the run lacks"));
  CHECK(contains(message, "--relabel"));
  CHECK(std::count(message.begin(), message.end(), '\n') == 0);
  CHECK(run.resumed(ClassesBy::number).empty());
}

TEST_CASE("classes that changed places are refused, though their names are the same",
          "[training][classes]") {
  const AnimalRun run;
  run.rename("cat", "x");
  run.rename("dog", "cat");
  run.rename("x", "dog");
  CHECK(contains(run.resumed(), "cat holds what was dog"));
  CHECK(run.resumed(ClassesBy::number).empty());
}

TEST_CASE("other data with as many classes and samples are refused", "[training][classes]") {
  const AnimalRun run;
  std::filesystem::remove_all(run.data);
  write_animals(run.data, {"car", "plane", "ship"});
  CHECK(contains(run.resumed(), "bird, cat, dog"));
  CHECK(contains(run.resumed(), "car, plane, ship"));
  std::filesystem::remove_all(run.data);
  write_animals(run.data, {"bird", "cat"});
  CHECK(contains(run.resumed(), "the run has dog"));
  CHECK(contains(run.resumed(ClassesBy::number), "number of classes"));
  write_animals(run.data, {"bird", "cat", "dog", "eel"});
  CHECK(contains(run.resumed(), "has eel, which the run lacks"));
}

TEST_CASE("data with the same names and no picture in common are other data",
          "[training][classes]") {
  const AnimalRun run;
  for (const char* name : {"bird", "cat", "dog"})
    for (const char* file : {"0.png", "1.png"})
      replace_file(run.data / name / file, grey_square(4, static_cast<std::uint8_t>(name[0])));
  CHECK(contains(run.resumed(), "none of them begins"));
  CHECK(run.resumed(ClassesBy::number).empty());
}

TEST_CASE("the library itself refuses classes in another order", "[training][classes]") {
  const AnimalRun run;
  const std::shared_ptr<DataSet> set = make_data_set(run.data.string());
  set->number_classes({"dog", "cat", "bird"});
  CHECK(contains(message_of([&] { resume_trainer(run.checkpoint, set, cpu({.threads = 1})); }),
                 "another order"));
  match_classes(*set, read_checkpoint_info(run.checkpoint));
  CHECK(set->class_names() == Classes{"bird", "cat", "dog"});
  CHECK_NOTHROW(resume_trainer(run.checkpoint, set, cpu({.threads = 1})));
}

TEST_CASE("a relabelled run has the new names from then on", "[training][classes]") {
  const AnimalRun run;
  run.rename("bird", "zebra");
  Trainer again = resume_trainer(run.checkpoint, make_data_set(run.data.string()),
                                 cpu({.threads = 1}), ClassesBy::number);
  CHECK(again.model(Weights::raw).info.class_names == Classes{"cat", "dog", "zebra"});
  write_checkpoint(run.checkpoint, again, 0);
  CHECK(run.resumed().empty());
}

TEST_CASE("checkpoints without names go on as before", "[training][classes]") {
  const AnimalRun run;
  forget_names(run.checkpoint, 3);
  run.rename("bird", "zebra");
  CHECK(run.resumed().empty());
  // Labels from 1 used to make one class more, without samples; classes are numbers there.
  const ScratchFolder folder;
  for (const char* name : {"1", "2", "3"}) write_animals(folder / "numbers", {name});
  const std::shared_ptr<DataSet> four = make_data_set((folder / "numbers").string());
  four->number_classes({"0", "1", "2", "3"});
  Trainer old(small_config(4), four, cpu({.threads = 1}));
  write_checkpoint(folder / "c", old, 0);
  forget_names(folder / "c", 4);
  for (int times = 0; times < 2; ++times) {
    const std::shared_ptr<DataSet> three = make_data_set((folder / "numbers").string());
    CHECK(three->classes() == 3);
    match_classes(*three, read_checkpoint_info(folder / "c"));
    Trainer trainer = resume_trainer(folder / "c", three, cpu({.threads = 1}));
    const ModelInfo info = trainer.model(Weights::average).info;
    CHECK(info.untrained_classes == std::vector<std::int32_t>{0});
    CHECK(trained_classes(info) == std::vector<std::int32_t>{1, 2, 3});
    write_checkpoint(folder / "c", trainer, 0);  // and with names, the second time
  }
}

TEST_CASE("a model knows the classes that it had no sample of, and draws none",
          "[training][classes]") {
  const ScratchFolder folder;
  write_animals(folder / "animals", {"bird", "cat", "dog"});
  const std::shared_ptr<DataSet> set = make_data_set((folder / "animals").string());
  set->number_classes({"ant", "bird", "cat", "dog"});
  Trainer trainer(small_config(4), set, cpu({.threads = 1}));
  const Model model = trainer.model(Weights::average);
  write_model(folder / "m", model);
  const ModelInfo info = read_model_info(folder / "m");
  CHECK(info == model.info);
  CHECK(info.untrained_classes == std::vector<std::int32_t>{0});
  CHECK(info.class_marks.size() == 4);
  CHECK(class_of(info, "cat") == 2);
  CHECK(class_of(info, "3") == 3);
  CHECK(contains(message_of([&] { class_of(info, "ant"); }), "no sample of it"));
  CHECK(contains(message_of([&] { class_of(info, "0"); }), "no sample of it"));
  CHECK(contains(message_of([&] { class_of(info, "eel"); }), "ant, bird, cat, dog"));
  // Three columns of pictures, not four.
  const Image three = preview(trainer);
  std::shared_ptr<DataSet> own = make_data_set((folder / "animals").string());
  const Image plain = preview(Trainer(small_config(3), own, cpu({.threads = 1})));
  CHECK(three.width == plain.width);
}

TEST_CASE("a model without names is asked by number", "[training][classes]") {
  Trainer trainer({.network = DitConfig{.image_size = 8,
                                        .patch_size = 4,
                                        .hidden_size = 8,
                                        .depth = 1,
                                        .num_heads = 1,
                                        .num_classes = 10},
                   .batch = 4},
                  glyphs(8), cpu({.threads = 1}));
  ModelInfo info = trainer.model(Weights::raw).info;
  CHECK(info.class_marks.empty());
  CHECK(info.untrained_classes.empty());
  info.class_names.clear();
  CHECK(class_of(info, "9") == 9);
  CHECK(contains(message_of([&] { class_of(info, "10"); }), "0 to 9"));
  CHECK(contains(message_of([&] { class_of(info, "-1"); }), "0 to 9"));
  CHECK(trained_classes(info).size() == 10);
}
