// Files and streams that are not what their names promise: pipes and endless devices, damaged and
// contradicting content, more than memory holds.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/data_set.h"
#include "models/evaluation/classifier_cache.h"
#include "models/files/gz.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/model_file.h"
#include "models/networks/unet.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;
using nlohmann::json;

namespace fs = std::filesystem;

namespace {

// The same file with other metadata, and no checksum in the way.
void rewrite(const fs::path& from, const fs::path& to, const std::string& key,
             const std::function<void(json&)>& change) {
  const SafetensorsFile file(from);
  json object = json::parse(file.metadata().at(key));
  change(object);
  write_safetensors(to, file.entries(), {{key, object.dump()}});
}

struct Change {
  std::string place;  // a JSON pointer
  json value;
  std::string said;  // in the message
};

std::function<void(json&)> made(const Change& change) {
  return [change](json& object) { object[json::json_pointer(change.place)] = change.value; };
}

const double huge = 1e300;

}  // namespace

TEST_CASE("what a model file says of itself is checked as a command line is", "[faults][files]") {
  const ScratchFolder folder;
  const fs::path good = trained() / "model.safetensors", bad = folder / "bad.safetensors";
  for (const Change& change : std::vector<Change>{
           {"/version", true, "version"},
           {"/version", 1.5, "version"},
           {"/version", huge, "version"},
           {"/step", huge, "step"},
           {"/step", 1.5, "step"},
           {"/step", -5, "step"},
           {"/step", true, "step"},
           {"/ema", 1, "ema"},
           {"/ema_decay", -1, "ema_decay"},
           {"/ema_decay", 2, "ema_decay"},
           {"/ema_decay", true, "ema_decay"},
           {"/sample_shape", {3}, "sample_shape"},
           {"/sample_shape", "2", "sample_shape"},
           {"/num_classes", 7, "num_classes"},
           {"/class_names", {"a", "b"}, "2 class names for 0 classes"},
           {"/class_names", std::vector<std::string>(1'000'000, "x"), "1000000 class names"},
           {"/class_marks", {"a"}, "marks"},
           {"/untrained_classes", {0}, "untrained"},
           {"/guidance", {{"omega", huge}, {"kappa", 0}}, "omega"},
           {"/guidance", {{"omega", true}, {"kappa", 0}}, "omega"},
           {"/guidance", 5, "omega"},
           {"/version", 3, "version"},
           {"/method_options", "{\"equal-share\": 1e300}", "equal-share"},
           {"/method_options", "{\"label-dropout\": -1}", "label-dropout"},
           {"/method_options", "[[[[", "method_options"},
           {"/method_options", std::string(100'000, '['), "method_options"},
           {"/prediction", "painting", "painting"},
           {"/sampling/sampler", "painting", "painting"},
           {"/sampling/steps", 1.5, "steps"},
           {"/sampling/steps", -1, "steps"},
           {"/sampling", 5, "sampler"},
           {"/open_class", 1, "open_class"},
           {"/precision", "f99", "f99"},
           {"/network/config/frequencies", 3.5, "frequencies"},
           {"/network/config/frequencies", huge, "frequencies"},
           {"/network/config/frequencies", true, "frequencies"},
           {"/network/config/hidden", {8.5}, "hidden"},
           {"/network/config/data_dim", 2.9, "data_dim"},
           {"/network/config/time_scale", huge, "time_scale"},
           {"/network/config/second_time", 3, "second_time"}}) {
    rewrite(good, bad, "fluxion.model", made(change));
    const std::string why = message_of<FormatError>([&] { read_model_info(bad); });
    INFO(change.place << " " << change.value.dump().substr(0, 60) << "\n" << why.substr(0, 300));
    CHECK(contains(why, change.said));
    CHECK(contains(why, bad.string()));
  }
}

TEST_CASE("what a checkpoint says of itself is checked as a command line is", "[faults][files]") {
  const ScratchFolder folder;
  const fs::path good = trained() / "checkpoint.safetensors", bad = folder / "bad.safetensors";
  for (const Change& change :
       std::vector<Change>{{"/version", true, "version"},
                           {"/step", huge, "step"},
                           {"/step", 2.5, "step"},
                           {"/step", -1, "step"},
                           {"/seconds", huge, "seconds"},
                           {"/seconds", true, "seconds"},
                           {"/config/batch", 1.5, "batch"},
                           {"/config/batch", true, "batch"},
                           {"/config/seed", -1, "seed"},
                           {"/config/seed", 1.5, "seed"},
                           {"/config/recompute", 1, "recompute"},
                           {"/config/optimiser/weight_decay", -1, "weight decay"},
                           {"/config/optimiser/beta1", true, "beta1"},
                           {"/config/optimiser/ema_decays", {-1}, "decay"},
                           {"/config/method/options/equal-share", huge, "equal-share"},
                           {"/config/method/options/tangent", 1, "tangent"},
                           {"/config/method/method", "painting", "painting"},
                           {"/config/total_steps", 1.5, "total_steps"},
                           {"/config/schedule/learning_rate", huge, "learning rate"},
                           {"/config/schedule/warm_up_steps", 1.5, "warm_up_steps"},
                           {"/config/schedule/warm_up_steps", -4, "warm-up"},
                           {"/config/network/config/hidden", {8.5}, "hidden"},
                           {"/data/sample_shape", {2.5}, "sample_shape"},
                           {"/data/sample_shape", {-2}, "sample shape"},
                           {"/data/classes", -1, "classes"},
                           {"/data/size", -5, "samples"},
                           {"/data/size", 5.5, "size"},
                           {"/since_row/steps", 1.5, "steps"},
                           {"/since_row/steps", 1000, "1000"}}) {
    rewrite(good, bad, "fluxion.checkpoint", made(change));
    const std::string why = message_of<FormatError>([&] { read_checkpoint_info(bad); });
    INFO(change.place << " " << change.value.dump() << "\n" << why);
    CHECK(contains(why, change.said));
    CHECK(contains(why, bad.string()));
  }
}

TEST_CASE("a run does not go on from weights that are not finite, nor from negative squares",
          "[faults][files]") {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  const fs::path good = trained() / "checkpoint.safetensors", bad = folder / "bad.safetensors";
  const float infinity = std::numeric_limits<float>::infinity(), nan = infinity - infinity;
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, float>>{{"parameters.layers.0.bias", nan},
                                                  {"m.layers.0.bias", infinity},
                                                  {"v.layers.0.bias", -1.0f},
                                                  {"v.layers.0.bias", nan},
                                                  {"ema.0.layers.0.bias", infinity}}) {
    TensorFile file = load_tensors(good, device);
    file.tensors.at(name) = full({8}, value, DType::f32, device);
    save_tensors(bad, file.tensors, file.metadata);
    const std::string why =
        message_of<FormatError>([&] { resume_trainer(bad, make_data_set("8gaussians"), device); });
    INFO(name << " " << value << "\n" << why);
    CHECK(contains(why, name));
    CHECK(contains(why, bad.string()));
  }
}

TEST_CASE("exchanged tensors and changed bits are noticed by a checksum", "[faults][files]") {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  const fs::path bad = folder / "bad.safetensors";
  {
    const SafetensorsFile file(trained() / "checkpoint.safetensors");
    std::vector<SafetensorsEntry> entries = file.entries();
    for (SafetensorsEntry& entry : entries) {
      if (entry.name == "m.layers.0.bias")
        entry.name = "parameters.layers.0.bias";
      else if (entry.name == "parameters.layers.0.bias")
        entry.name = "m.layers.0.bias";
    }
    write_safetensors(bad, entries, file.metadata());
    CHECK_NOTHROW(read_checkpoint_info(bad));
    CHECK(contains(
        message_of<FormatError>([&] { resume_trainer(bad, make_data_set("8gaussians"), device); }),
        "is damaged"));
  }
  std::string bytes = text_of(trained() / "model.safetensors");
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 4);
  replace_file(bad, bytes);
  CHECK(contains(message_of<FormatError>([&] { read_model(bad, device); }), bad.string()));
  CHECK_NOTHROW(read_model(trained() / "model.safetensors", device));
}

TEST_CASE("samples that are not finite are refused, not drawn", "[cli][faults]") {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  Model model = read_model(trained() / "model.safetensors", device);
  model.parameters.at("layers.1.bias") =
      full({2}, std::numeric_limits<float>::quiet_NaN(), DType::f32, device);
  write_model(folder / "nan.safetensors", model);
  const Ending ending =
      run(words("sample --model nan.safetensors --count 3 --out a.png --npy a.npy"), folder.path());
  INFO(ending.error);
  CHECK(ending.code == 1);
  CHECK(contains(last_line(ending.error), "nan.safetensors: sample 0"));
  CHECK(contains(last_line(ending.error), "not finite"));
  CHECK_FALSE(fs::exists(folder / "a.png"));
  CHECK_FALSE(fs::exists(folder / "a.npy"));
}

TEST_CASE("results go to standard output and to descriptors of the shell", "[cli][faults]") {
  const ScratchFolder folder;
  const std::string sampling =
      "sample --count 5 --device cpu:1 --model " + (trained() / "model.safetensors").string();
  const Ending out = run(words(sampling + " --npy /dev/stdout"), folder.path());
  INFO(out.error);
  CHECK(out.code == 0);
  CHECK(contains(out.error, "5 samples"));
  std::ofstream(folder / "out.npy", std::ios::binary) << out.out;
  CHECK(read_npy(folder / "out.npy").type.shape == Shape{5, 2});

  // A pipe, as of `| program` and >(program).
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const Ending piped = run(words(sampling + " --npy /dev/fd/9"), folder.path(), [&] {
    ::dup2(ends[1], 9);
    ::close(ends[0]);
  });
  ::close(ends[1]);
  INFO(piped.error);
  CHECK(piped.code == 0);
  std::string text(4096, '\0');
  const ssize_t count = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  REQUIRE(count > 0);
  text.resize(static_cast<std::size_t>(count));
  CHECK(text == out.out);

  const Ending closed = run(words(sampling + " --npy /dev/fd/9"), folder.path());
  CHECK(closed.code == 1);
  CHECK(contains(last_line(closed.error), "/dev/fd/9"));
}

TEST_CASE("a pipe or an endless device in place of a file is refused by name", "[cli][faults]") {
  const ScratchFolder folder;
  const auto in_the_way = [&](const fs::path& place, bool pipe) {
    fs::remove(place);
    if (pipe) {
      REQUIRE(::mkfifo(place.c_str(), 0600) == 0);
    } else {
      fs::create_symlink("/dev/zero", place);
    }
  };
  for (const bool pipe : {true, false}) {
    for (const std::string name :
         {"log.csv", "config.json", "checkpoint.safetensors", "model.safetensors", "loss.svg"}) {
      fs::remove_all(folder / "run");
      copy_trained(folder / "run");
      in_the_way(folder / "run" / name, pipe);
      const Ending ending = run(words("train --resume run --steps 4 --quiet"), folder.path());
      INFO(name << " " << pipe << "\n" << ending.error);
      CHECK(ending.code == 1);
      CHECK(contains(last_line(ending.error), "run/" + name));
    }
    // The log of another run that this one goes on from.
    fs::remove_all(folder / "run");
    copy_trained(folder / "run");
    in_the_way(folder / "run/log.csv", pipe);
    const Ending ending =
        run(words("train --resume run --steps 4 --quiet --out elsewhere"), folder.path());
    INFO(ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), "log.csv"));
    // Names of classes.
    fs::create_directories(folder / "cifar");
    std::ofstream(folder / "cifar/data_batch_1.bin", std::ios::binary)
        << std::string(3073 * 4, '\1');
    in_the_way(folder / "cifar/batches.meta.txt", pipe);
    CHECK(contains(message_of<IoError>([&] { make_data_set((folder / "cifar").string()); }),
                   "batches.meta.txt"));
  }
}

TEST_CASE("a path that holds the character NUL is refused, not cut", "[cli][faults]") {
  const ScratchFolder folder;
  write_npy(folder / "points.npy", std::vector<float>(20, 0.5f), {10, 2});
  std::ofstream(folder / "settings.json") << R"({"data": "points.npy\u0000.png", "steps": 1})";
  const Ending ending = run(words("train --config settings.json --out run"), folder.path());
  INFO(ending.error);
  CHECK(ending.code == 1);
  CHECK(contains(last_line(ending.error), "NUL"));
  CHECK(contains(message_of<IoError>([&] { MappedFile(std::string("a\0b", 3)); }), "NUL"));
  CHECK(contains(message_of<IoError>([&] { replace_file(std::string("a\0b", 3), "x"); }), "NUL"));
}

TEST_CASE("the memory limit holds for reading, sampling and judging", "[cli][faults]") {
  const ScratchFolder folder;
  // 40 MB of zeros in 40 kB, of which 32 MiB are too little to unpack.
  std::string idx("\0\0\x08\x03\0\0\x40\0\0\0\0\x32\0\0\0\x32", 16);
  idx.resize(16 + 0x4000 * 0x32 * 0x32, '\0');
  const std::vector<std::byte> packed = gzip(bytes_of(idx));
  replace_file(folder / "zeros-idx3-ubyte.gz", packed);
  write_npy(folder / "samples.npy", std::vector<std::uint8_t>(40 * 16 * 16, 7), {40, 16, 16});
  // As many labels as half a megabyte might hold.
  std::string labels("\x93NUMPY\x01\0\x76\0", 10);
  labels += "{'descr': '|u1', 'fortran_order': False, 'shape': (400000000,), }";
  labels.resize(127, ' ');
  labels += '\n';
  std::mt19937 random(1);
  for (int i = 0; i < 500'000; ++i) labels += static_cast<char>(random() & 255);
  replace_file(folder / "labels.npy.gz", gzip(bytes_of(labels)));
  for (const auto& [command, file] :
       {std::pair("train --data zeros-idx3-ubyte.gz --memory-limit 0.03125 --steps 1 --out run",
                  "zeros-idx3-ubyte.gz"),
        std::pair("eval --samples zeros-idx3-ubyte.gz --data glyphs --memory-limit 0.03125",
                  "zeros-idx3-ubyte.gz")}) {
    const Ending ending = run(words(command), folder.path());
    INFO(command << "\n" << ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), file));
    CHECK(contains(last_line(ending.error), "of memory"));
  }
  // Their shape refuses them before they are unpacked.
  const Ending labelled = run(words("eval --samples samples.npy --labels labels.npy.gz "
                                    "--data glyphs --memory-limit 0.25"),
                              folder.path());
  INFO(labelled.error);
  CHECK(labelled.code == 1);
  CHECK(
      contains(last_line(labelled.error), "labels.npy.gz: wants one whole number for each of 40"));
  const std::string model = (trained() / "model.safetensors").string();
  for (const std::string& command :
       {"sample --count 2000000 --memory-limit 0.01 --npy a.npy --model " + model,
        "eval --count 2000000 --memory-limit 0.01 --data 8gaussians --model " + model}) {
    const Ending ending = run(words(command), folder.path());
    INFO(command << "\n" << ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), "2,000,000 samples"));
    CHECK(contains(last_line(ending.error), "are free"));
  }
  // Real samples count, and what is computed of both: where there is room for those drawn alone,
  // and where none are drawn.
  for (const auto& [metrics, samples] :
       {std::pair("modes --count 700000", "700,000 samples and the real ones"),
        std::pair("energy --count 300000", "300,000 samples and the real ones"),
        std::pair("elbo --count 500000000", "500,000,000 real samples"),
        std::pair("conservativity --count 500000000", "500,000,000 real samples")}) {
    const Ending ending = run(words("eval --memory-limit 0.02 --data 8gaussians --model " + model +
                                    " --metrics " + metrics),
                              folder.path());
    INFO(metrics << "\n" << ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), samples));
    CHECK(contains(last_line(ending.error), "are free"));
  }
}

TEST_CASE("a small file of a network of huge images takes no memory", "[cli][faults]") {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  const UnetConfig config{.image_size = {65536, 65536},
                          .channels = 1,
                          .base = 32,
                          .channel_mult = {1},
                          .num_res_blocks = 1,
                          .attention_ds = {}};
  Model model;
  model.info.network = config;
  model.parameters = initialise(model.info.network, random_key(0, device));
  write_model(folder / "huge.safetensors", model);
  const Ending sampled =
      run(words("sample --model huge.safetensors --count 1 --batch 1 --npy a.npy "
                "--memory-limit 4"),
          folder.path());
  INFO(sampled.error);
  CHECK(sampled.code == 1);
  CHECK(contains(last_line(sampled.error), "of memory"));
  // No set has such images.
  const Ending judged = run(words("eval --model huge.safetensors --data glyphs"), folder.path());
  INFO(judged.error);
  CHECK(judged.code == 1);
  CHECK(contains(last_line(judged.error), "65536"));
}

TEST_CASE("a link to a folder around a set of images is left out", "[data][faults]") {
  const ScratchFolder folder;
  write_images(folder / "set/a", 3);
  write_images(folder / "set/b", 3);
  write_images(folder / "beside", 3);
  fs::create_directory_symlink("/", folder / "set/root");
  fs::create_directory_symlink("..", folder / "set/up");
  fs::create_directory_symlink("/proc/self", folder / "set/system");
  fs::create_directory_symlink(folder / "beside", folder / "set/c");
  const std::unique_ptr<DataSet> set = make_data_set((folder / "set").string());
  CHECK(set->size() == 9);
  CHECK(set->class_names() == std::vector<std::string>{"a", "b", "c"});
  std::string warnings;
  for (const std::string& line : set->warnings()) warnings += line + "\n";
  INFO(warnings);
  CHECK(contains(warnings, "set/root: left out, a link to a folder that holds this one"));
  CHECK(contains(warnings, "set/up: left out"));
  CHECK(contains(warnings, "set/system: left out, a link to files of the system"));
}

TEST_CASE("a file of very many tensors is listed one by one", "[cli][faults]") {
  const ScratchFolder folder;
  std::vector<SafetensorsEntry> entries;
  constexpr std::int64_t count = 50'000;
  for (std::int64_t i = 0; i < count; ++i)
    entries.push_back({"t" + std::to_string(i), DType::f32, Shape{0}, {}});
  write_safetensors(folder / "many.safetensors", entries);
  const Ending ending = run(words("inspect --json many.safetensors"), folder.path());
  REQUIRE(ending.code == 0);
  const json listed = json::parse(ending.out);
  CHECK(listed.at("tensors").size() == count);
  CHECK(listed.at("tensors").at(7).at("shape") == json({0}));
  CHECK(listed.dump(2) + "\n" == ending.out);
  write_safetensors(folder / "none.safetensors", {});
  CHECK(json::parse(run(words("inspect --json none.safetensors"), folder.path()).out)
            .at("tensors")
            .empty());
}

TEST_CASE("a damaged classifier of the cache is trained again, one that is named is refused",
          "[cli][faults]") {
  const ScratchFolder folder;
  const std::string name = classifier_file_name(*make_data_set("glyphs", {.image_size = 8}), false);
  fs::create_directories(folder / "cache/fluxion/classifiers");
  std::ofstream(folder / "cache/fluxion/classifiers" / name) << "damaged";
  write_images(folder / "images", 300);
  const std::string judging =
      "eval --samples images --data glyphs --image-size 8 --metrics classifier --class 1 ";
  const std::string cache = (folder / "cache").string();
  Process process(words(judging), folder.path(),
                  [&] { ::setenv("XDG_CACHE_HOME", cache.c_str(), 1); });
  wait_for([&] { return contains(text_of(folder / "stderr"), "trained again"); });
  CHECK(contains(text_of(folder / "stderr"), name));
  process.signal(SIGKILL);
  process.wait();
  const Ending named =
      run(words(judging + "--classifier cache/fluxion/classifiers/" + name), folder.path());
  CHECK(named.code == 1);
  CHECK(contains(last_line(named.error), name));
}

TEST_CASE("a cache folder that depends on the working folder is ignored", "[faults]") {
  const char* const before = std::getenv("XDG_CACHE_HOME");
  const std::string kept = before ? before : "";
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  CHECK_FALSE(contains(classifier_cache().string(), "relative"));
  ::setenv("XDG_CACHE_HOME", "/absolute", 1);
  CHECK(classifier_cache() == "/absolute/fluxion/classifiers");
  if (before) {
    ::setenv("XDG_CACHE_HOME", kept.c_str(), 1);
  } else {
    ::unsetenv("XDG_CACHE_HOME");
  }
}
