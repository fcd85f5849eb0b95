// `fluxion train` as its users meet it: settings, stopping, going on, and machines that run out of
// something.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "models/files/npy.h"
#include "models/model_file.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string tiny_points =
    "train --data 8gaussians --width 16 --depth 2 --batch 32 --threads 1 ";
const std::string tiny = tiny_points + "--schedule constant ";

json config_of(const fs::path& folder) { return json::parse(text_of(folder / "config.json")); }

void write_points(const fs::path& path, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(2 * count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) - 3;
  write_npy(path, values, {count, 2});
}

// The log without what differs from run to run: its times and its memory.
std::string log_of(const fs::path& folder) {
  std::istringstream lines(text_of(folder / "log.csv"));
  std::string result;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t step = line.find(','), seconds = line.find(',', step + 1);
    result += line.substr(0, step) + line.substr(seconds, line.rfind(',') - seconds) + "\n";
  }
  return result;
}

// What the files of two runs must have in common.
void check_same_run(const fs::path& a, const fs::path& b) {
  CHECK(log_of(a) == log_of(b));
  for (const char* name : {"model.safetensors", "model-raw.safetensors", "samples.png"}) {
    INFO(name);
    CHECK(text_of(a / name) == text_of(b / name));
    CHECK(text_of(a / name).size() > 100);
  }
}

}  // namespace

TEST_CASE(
    "a run that is killed at random moments and resumed ends with the bits of one that was not",
    "[cli][kill]") {
  // FLUXION_KILLS sets how often; scripts/kill_test.sh asks for 50.
  const char* const wanted = std::getenv("FLUXION_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 5;
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const ScratchFolder folder;
  // A constant rate, so that a run of fewer steps is the beginning of a longer one.
  const std::vector<std::string> common = {"--quiet", "--threads",    "1",   "--checkpoint-every",
                                           "7steps",  "--save-every", "0.05"};
  std::vector<std::string> first = {"train",      "--data",  "8gaussians", "--width", "24",
                                    "--depth",    "2",       "--batch",    "64",      "--ema",
                                    "0.9,0.99",   "--steps", "1000000",    "--out",   "killed",
                                    "--schedule", "constant"};
  first.insert(first.end(), common.begin(), common.end());
  std::vector<std::string> more = {"train", "--resume", "killed"};
  more.insert(more.end(), common.begin(), common.end());

  const fs::path killed = folder / "killed", checkpoint = killed / "checkpoint.safetensors";
  std::int64_t before = 0;
  for (int kill = 0; kill < kills; ++kill) {
    const bool exists = fs::exists(checkpoint);
    Process process(exists ? more : first, folder.path());
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + random() % 250));
    process.signal(SIGKILL);
    const int status = process.wait();
    INFO("kill " << kill << "\n" << text_of(folder / "stderr"));
    REQUIRE(WIFSIGNALED(status));  // it did not end by itself
    if (!fs::exists(checkpoint)) continue;
    const CheckpointInfo info = read_checkpoint_info(checkpoint);
    REQUIRE(info.step >= before);
    before = info.step;
    for (const char* name :
         {"model.safetensors", "model-ema0.99.safetensors", "model-raw.safetensors"})
      if (fs::exists(killed / name)) REQUIRE_NOTHROW(read_model_info(killed / name));
  }
  const std::int64_t steps = before + 30;
  const ProgramRun last = run_program(
      exists(checkpoint) ? "train --resume killed --quiet --steps " + std::to_string(steps)
                         : "train --data 8gaussians --width 24 --depth 2 --batch 64 --ema 0.9,0.99 "
                           "--schedule constant --threads 1 --quiet "
                           "--out killed --steps " +
                               std::to_string(steps),
      folder.path());
  INFO(last.error);
  REQUIRE(last.code == 0);
  REQUIRE(run_program("train --data 8gaussians --width 24 --depth 2 --batch 64 --ema 0.9,0.99 "
                      "--schedule constant --threads 1 --quiet --out whole --steps " +
                          std::to_string(steps),
                      folder.path())
              .code == 0);
  check_same_run(killed, folder / "whole");
  CHECK(text_of(killed / "model-ema0.99.safetensors") ==
        text_of(folder / "whole/model-ema0.99.safetensors"));
  for (const fs::path& place : {killed, killed / "samples"})
    for (const auto& entry : fs::directory_iterator(place))
      CHECK_FALSE(entry.path().string().ends_with(".part"));
}

TEST_CASE("the option --resume takes the settings from the checkpoint and refuses others by name",
          "[cli][resume]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--steps 20 --seed 4 --out whole", folder.path()).code == 0);
  REQUIRE(run_program(tiny + "--steps 12 --seed 4 --out run", folder.path()).code == 0);

  struct Case {
    std::string arguments, says;
  };
  for (const Case& wrong :
       {Case{"train --resume run --width 32", "--width 32 (the checkpoint has 16)"},
        Case{"train --resume run --seed 5 --steps 30", "--seed 5"},
        Case{"train --resume run --data moons", "--data moons"},
        Case{"train --resume run --ema 0.9,0.99", "--ema 0.9,0.99"},
        Case{"train --resume run --omega 2", "--omega 2.0 (the checkpoint has 1.0)"},
        Case{"train --resume run", "12 of --steps 12"}, Case{"train --resume nowhere", "nowhere"},
        Case{"train --resume run/model.safetensors", "no checkpoint"}}) {
    const ProgramRun run = run_program(wrong.arguments + " --quiet", folder.path());
    INFO(wrong.arguments << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(is_one_line(run.error));
    CHECK(contains(run.error, wrong.says));
  }
  const ProgramRun more =
      run_program("train --resume --out run --steps 20 --width 16", folder.path());
  INFO(more.error);
  REQUIRE(more.code == 0);
  CHECK(contains(more.error, "after step 12"));
  check_same_run(folder / "whole", folder / "run");
  CHECK(config_of(folder / "run").at("steps") == 20);
}

TEST_CASE("a resumed run may go to another folder", "[cli][resume]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--steps 5 --quiet --out a", folder.path()).code == 0);
  REQUIRE(run_program("train --resume a/checkpoint.safetensors --steps 8 --quiet --out b",
                      folder.path())
              .code == 0);
  CHECK(read_checkpoint_info(folder / "a/checkpoint.safetensors").step == 5);
  CHECK(read_checkpoint_info(folder / "b/checkpoint.safetensors").step == 8);
}

TEST_CASE(
    "a run that branches into another's folder keeps that one's checkpoint and brings its own log",
    "[cli][resume]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--steps 12 --seed 1 --quiet --out a", folder.path()).code == 0);
  REQUIRE(run_program(tiny + "--steps 25 --seed 2 --quiet --out b", folder.path()).code == 0);
  const std::string log = text_of(folder / "a/log.csv"),
                    other = text_of(folder / "b/checkpoint.safetensors");
  const ProgramRun branch = run_program("train --resume a --out b --steps 15", folder.path());
  INFO(branch.error);
  REQUIRE(branch.code == 0);
  CHECK(contains(branch.error, "holds another run"));
  CHECK(text_of(folder / "b/checkpoint-before.safetensors") == other);
  CHECK(read_checkpoint_info(folder / "b/checkpoint.safetensors").step == 15);
  const std::string regular = log.substr(0, log.find("\n12,") + 1);
  CHECK(text_of(folder / "b/log.csv").starts_with(regular));
  CHECK_FALSE(contains(text_of(folder / "b/log.csv"), "\n12,"));
  CHECK(text_of(folder / "a/log.csv") == log);

  // Back to the one that was put aside: it stays, and so does the one that took its place.
  const std::string newer = text_of(folder / "b/checkpoint.safetensors");
  REQUIRE(run_program("train --resume b/checkpoint-before.safetensors --steps 30 --quiet",
                      folder.path())
              .code == 0);
  CHECK(text_of(folder / "b/checkpoint-before.safetensors") == other);
  CHECK(text_of(folder / "b/checkpoint-before-2.safetensors") == newer);
  CHECK(read_checkpoint_info(folder / "b/checkpoint.safetensors").step == 30);
}

TEST_CASE("no run in a folder costs one that was there before its checkpoint", "[cli][resume]") {
  const ScratchFolder folder;
  for (const std::string steps : {"12", "5", "6", "7"})
    REQUIRE(run_program(tiny + "--quiet --out run --steps " + steps, folder.path()).code == 0);
  const auto steps_of = [&](const std::string& name) {
    return read_checkpoint_info(folder / ("run/" + name + ".safetensors")).step;
  };
  CHECK(steps_of("checkpoint-before") == 12);
  CHECK(steps_of("checkpoint-before-2") == 5);
  CHECK(steps_of("checkpoint-before-3") == 6);
  CHECK(steps_of("checkpoint") == 7);
  // A run that ends before it saves anything leaves those of others, and they are named.
  std::filesystem::remove(folder / "run/checkpoint.safetensors");
  const ProgramRun resumed = run_program("train --resume run --quiet", folder.path());
  CHECK(resumed.code == 1);
  CHECK(contains(resumed.error, "no run was saved there"));
  CHECK(contains(resumed.error,
                 "run/checkpoint-before-3.safetensors, run/checkpoint-before.safetensors, which"));
  std::filesystem::create_directory(folder / "empty");
  CHECK(contains(run_program("train --resume empty --quiet", folder.path()).error,
                 "no run was saved there"));
}

TEST_CASE("the models of a run that has ended can be had again from its checkpoint",
          "[cli][resume]") {
  const ScratchFolder folder;
  const auto run = [&](const std::string& arguments) {
    return run_program(arguments, folder.path());
  };
  REQUIRE(run(tiny + "--steps 12 --seed 1 --quiet --out run").code == 0);
  fs::copy(folder / "run", folder / "whole", fs::copy_options::recursive);
  // A configuration alone takes no other run's place.
  check_one_line(run("train --config run/config.json"), "--out says where this one goes");
  CHECK(text_of(folder / "run/model.safetensors") == text_of(folder / "whole/model.safetensors"));
  REQUIRE(run("train --config run/config.json --seed 2 --quiet --out run").code == 0);
  const std::string kept = "run/checkpoint-before.safetensors";
  for (const std::string command : {"sample --model ", "export --model "})
    check_one_line(run(command + kept), "`fluxion train --resume " + kept + " --out FOLDER`");
  check_one_line(run(tiny + "--init " + kept), kept + " --out FOLDER`");
  check_one_line(run("train --resume " + kept), "another --out");
  const ProgramRun back = run("train --resume " + kept + " --out back");
  INFO(back.error);
  REQUIRE(back.code == 0);
  CHECK(contains(back.error, "nothing is trained"));
  for (const char* name :
       {"model.safetensors", "model-raw.safetensors", "samples.png", "samples/step_000012.png"}) {
    INFO(name);
    CHECK(text_of(folder / "back" / name) == text_of(folder / "whole" / name));
  }
  // With its log where that lies beside it, and it goes on as ever.
  REQUIRE(run("train --resume whole --out copy --quiet --json").code == 0);
  CHECK(log_of(folder / "copy") == log_of(folder / "whole"));
  REQUIRE(run("train --resume copy --steps 15 --quiet").code == 0);
  REQUIRE(run(tiny + "--steps 15 --seed 1 --quiet --out longer").code == 0);
  check_same_run(folder / "copy", folder / "longer");
}

TEST_CASE("what stands for data of the user is asked for, and a run's folder for its model",
          "[cli]") {
  const ScratchFolder folder;
  for (const std::string preset : {"images", "mnist", "images-large"}) {
    const ProgramRun asked = run_program("train --out run --preset " + preset, folder.path());
    CHECK(asked.code != 0);
    CHECK(contains(asked.error, "--preset " + preset + " is for data of yours: add --data"));
  }
  REQUIRE(run_program(tiny + "--quiet --out run --steps 2", folder.path()).code == 0);
  for (const std::string command :
       {"sample --npy a.npy --count 1", "eval --metrics energy --count 16 --draws 0", "inspect",
        "export --out a.fxn"}) {
    INFO(command);
    const std::string model = command == "inspect" ? " run" : " --model run";
    const ProgramRun run = run_program(command + model, folder.path());
    INFO(run.error);
    CHECK(run.code == 0);
  }
  fs::create_directory(folder / "empty");
  for (const std::string command :
       {"sample --model", "export --model", "inspect", "train --data moons --init"})
    check_one_line(run_program(command + " empty", folder.path()),
                   "empty: this folder holds no model.safetensors (yet)");
  CHECK(contains(run_program("inspect run/checkpoint.safetensors", folder.path()).out,
                 "a checkpoint of a training run"));
  CHECK(contains(run_program("sample --model run x y z", folder.path()).error,
                 "not expected here: x y z"));
  CHECK(contains(run_program("sample --model run --class a --class b", folder.path()).error,
                 "--class was given more than once"));
}

TEST_CASE("a run goes on from another working directory, and with data that have moved",
          "[cli][resume]") {
  const ScratchFolder folder;
  fs::create_directories(folder / "here");
  write_points(folder / "here/points.npy", 64);
  REQUIRE(run_program("train --data points.npy --width 8 --depth 1 --batch 8 --steps 3 --threads 1 "
                      "--schedule constant --quiet --out ../run",
                      folder / "here")
              .code == 0);
  const ProgramRun elsewhere = run_program("train --resume run --steps 5 --quiet", folder.path());
  INFO(elsewhere.error);
  CHECK(elsewhere.code == 0);
  fs::rename(folder / "here", folder / "there");
  check_one_line(run_program("train --resume run --steps 7", folder.path()),
                 "points.npy, the data of this run, is not there; --data");
  const ProgramRun moved =
      run_program("train --resume run --steps 7 --quiet --data there/points.npy", folder.path());
  INFO(moved.error);
  CHECK(moved.code == 0);
  write_points(folder / "fewer.npy", 32);
  CHECK(contains(
      run_program("train --resume run --steps 9 --quiet --data fewer.npy", folder.path()).error,
      "number of samples"));
}

TEST_CASE(
    "a model knows the data of a relative path from anywhere, and a run goes on with its bits",
    "[cli][resume]") {
  const ScratchFolder folder;
  fs::create_directories(folder / "here");
  write_points(folder / "here/points.npy", 64);
  const std::string points =
      "train --data points.npy --method flow-matching --width 8 --depth 1 --batch 8 --threads 1 "
      "--schedule constant --quiet ";
  const fs::path here = folder / "here";
  REQUIRE(run_program(points + "--steps 3 --out run", here).code == 0);
  REQUIRE(run_program("train --resume here/run --steps 6 --quiet", folder.path()).code == 0);
  REQUIRE(run_program(points + "--steps 6 --out whole", here).code == 0);
  check_same_run(here / "run", here / "whole");
  CHECK(read_model_info(here / "run/model.safetensors").dataset == (here / "points.npy").string());
  const ProgramRun sampled =
      run_program("sample --model here/run --count 2 --head-start 0.3 --npy x.npy", folder.path());
  INFO(sampled.error);
  CHECK(sampled.code == 0);
  // What is passed on doesn't say where that was.
  REQUIRE(run_program("export --model here/run --steps 2 --out x.fxn", folder.path()).code == 0);
  CHECK(contains(text_of(folder / "x.fxn"), "points.npy"));
  CHECK_FALSE(contains(text_of(folder / "x.fxn"), here.string()));
}

TEST_CASE("a run may begin with an average that it then replaces", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--steps 2 --ema 0.9,0.5 --quiet --out run", folder.path()).code == 0);
  const std::string again = tiny + "--steps 2 --ema 0.9 --quiet --out run --init ";
  CHECK(run_program(again + "run/model-ema0.5.safetensors --clip nonsense", folder.path()).code !=
        0);
  CHECK(fs::exists(folder / "run/model-ema0.5.safetensors"));
  CHECK(run_program(again + "run/model-ema0.5.safetensors", folder.path()).code == 0);
  CHECK_FALSE(fs::exists(folder / "run/model-ema0.5.safetensors"));
}

TEST_CASE("a run that began without a number of steps goes on without one", "[cli][resume]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--minutes 0.0001 --quiet --out run", folder.path()).code == 0);
  Process process(words("train --resume run --minutes 0"), folder.path());
  const std::int64_t before = read_checkpoint_info(folder / "run/checkpoint.safetensors").step;
  wait_for([&] {
    return contains(text_of(folder / "run/log.csv"), "\n" + std::to_string(before / 10 * 10 + 20));
  });
  process.signal(SIGINT);
  const int status = process.wait();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 128 + SIGINT);
  CHECK_FALSE(config_of(folder / "run").contains("steps"));
  CHECK_FALSE(contains(text_of(folder / "stderr"), " left"));
}

TEST_CASE("a run at its limit says which option would let it go on, before data are read",
          "[cli][resume]") {
  const ScratchFolder folder;
  write_points(folder / "points.npy", 64);
  const std::string points = "train --data points.npy --width 8 --depth 1 --batch 8 --threads 1 ";
  for (const std::string limit : {"--minutes 0.002 --out timed", "--steps 3 --out counted"})
    REQUIRE(run_program(points + limit + " --quiet", folder.path()).code == 0);
  fs::rename(folder / "points.npy", folder / "away.npy");
  check_one_line(run_program("train --resume timed --steps 1000000", folder.path()),
                 "of --minutes 0.002; a higher --minutes, or --minutes 0 with --steps, continues");
  check_one_line(run_program("train --resume counted --steps 2", folder.path()),
                 "has done 3 of --steps 2; a higher --steps continues it");
  fs::rename(folder / "away.npy", folder / "points.npy");
  const std::int64_t done = read_checkpoint_info(folder / "timed/checkpoint.safetensors").step;
  const ProgramRun more =
      run_program("train --resume timed --quiet --minutes 0 --steps " + std::to_string(done + 2),
                  folder.path());
  INFO(more.error);
  CHECK(more.code == 0);
}

TEST_CASE("a cosine that goes on may end within its warm-up", "[cli][resume]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny_points + "--schedule cosine --warmup 10 --steps 20 --minutes 1e-7 "
                                    "--quiet --out run",
                      folder.path())
              .code == 0);
  const ProgramRun more =
      run_program("train --resume run --minutes 0 --steps 10 --quiet", folder.path());
  INFO(more.error);
  CHECK(more.code == 0);
}

TEST_CASE("a run leaves nothing of another's that was in its folder", "[cli]") {
  const ScratchFolder folder;
  const fs::path run = folder / "run";
  REQUIRE(run_program(tiny + "--ema 0.9,0.99 --steps 5 --quiet --out run", folder.path()).code ==
          0);
  REQUIRE(fs::exists(run / "model-ema0.99.safetensors"));
  REQUIRE(fs::exists(run / "samples/step_000005.png"));
  const std::vector<std::string> foreign = {"model-ema.safetensors", "model-ema0.990.safetensors",
                                            "samples/step_5.png", "samples/mine.png"};
  for (const std::string& name : foreign) std::ofstream(run / name) << "mine";
  // It goes on with what it made.
  REQUIRE(run_program("train --resume run --steps 8 --quiet", folder.path()).code == 0);
  CHECK(fs::exists(run / "samples/step_000005.png"));
  REQUIRE(run_program("train --resume run/checkpoint-previous.safetensors --steps 7 --quiet",
                      folder.path())
              .code == 0);
  CHECK(fs::exists(run / "samples/step_000005.png"));
  CHECK_FALSE(fs::exists(run / "samples/step_000008.png"));
  CHECK(fs::exists(run / "model-ema0.99.safetensors"));

  REQUIRE(run_program(tiny + "--ema 0.9 --steps 3 --quiet --out run", folder.path()).code == 0);
  CHECK_FALSE(fs::exists(run / "model-ema0.99.safetensors"));
  CHECK_FALSE(fs::exists(run / "samples/step_000005.png"));
  CHECK(fs::exists(run / "samples/step_000003.png"));
  for (const std::string& name : foreign) CHECK(fs::exists(run / name));
}

TEST_CASE("paths that no configuration can hold are refused before anything runs", "[cli]") {
  const ScratchFolder folder;
  for (const char* path : {"''", "'a\xff'"}) {
    const ProgramRun refused = run_program(tiny + "--steps 2 --out " + path, folder.path());
    INFO(refused.error);
    CHECK(refused.code == 1);
    CHECK(contains(refused.error, "--out"));
  }
  for (const char* option : {"--init", "--method cd --teacher"}) {
    INFO(option);
    check_one_line(run_program(tiny + "--steps 2 " + option + " 'a\xff'", folder.path()),
                   "is not UTF-8");
  }
}

TEST_CASE("options that the run would not read are refused, and numbers that are none", "[cli]") {
  const ScratchFolder folder;
  struct Case {
    std::string arguments, says;
  };
  for (const Case& wrong :
       {Case{"--final-lr 0.1 --schedule constant", "--final-lr"},
        Case{"--objective flow-matching --power 1", "--power"},
        Case{"--objective flow-matching --equal-share 0.5", "--equal-share"},
        Case{"--objective split-meanflow --tangent all", "--tangent"},
        Case{"--label-dropout 0.2", "--label-dropout"},
        Case{"--checkpoint-every 0.5steps", "0.5steps"}, Case{"--save-every inf", "--save-every"},
        Case{"--time-mean nan", "--time-mean"}, Case{"--equal-share nan", "--equal-share"}}) {
    const ProgramRun run =
        run_program(tiny_points + "--steps 2 --quiet " + wrong.arguments, folder.path());
    INFO(wrong.arguments << "\n" << run.error);
    CHECK(run.code != 0);
    CHECK(contains(run.error, wrong.says));
  }
}

TEST_CASE(
    "config.json of a run makes the same run again; the command line goes before it, and it before "
    "a preset",
    "[cli][config]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--steps 6 --ema 0.9,0.99 --quiet --out a", folder.path()).code == 0);
  REQUIRE(run_program("train --config a/config.json --quiet --out b", folder.path()).code == 0);
  check_same_run(folder / "a", folder / "b");
  CHECK(fs::exists(folder / "b/model-ema0.99.safetensors"));
  CHECK(read_model_info(folder / "b/model-ema0.99.safetensors").ema_decay == 0.99);
  json a = config_of(folder / "a"), b = config_of(folder / "b");
  CHECK(a.at("width") == 16);
  a.erase("out"), b.erase("out");
  CHECK(a == b);

  std::ofstream(folder / "some.json")
      << "// comments are fine\n{\"data\": \"moons\", \"steps\": 4, \"batch\": 16, \"width\": 8}";
  REQUIRE(run_program("train --preset points-flow --config some.json --steps 3 --warmup 0 --depth "
                      "1 --quiet --out c",
                      folder.path())
              .code == 0);
  const json c = config_of(folder / "c");
  CHECK(c.at("steps") == 3);
  CHECK(c.at("width") == 8);
  CHECK(c.at("method") == "flow-matching");

  // Steps of one's own are done whatever time a preset gives.
  REQUIRE(run_program("train --preset glyphs --steps 2 --width 16 --depth 1 --heads 1 --batch 4 "
                      "--quiet --out d",
                      folder.path())
              .code == 0);
  CHECK(config_of(folder / "d").at("minutes") == 0);
}

TEST_CASE("a wrong configuration is one line that names the file, the setting and the nearest name",
          "[cli][config]") {
  const ScratchFolder folder;
  struct Case {
    std::string text, says;
  };
  for (const Case& wrong :
       {Case{"{\"widht\": 3}", "did you mean 'width'"},
        Case{"{\"learning-rate\": 3}", "'learning-rate' is no setting"},
        Case{"{\"width\": 0}", "--width"}, Case{"{\"width\": \"wide\"}", "--width"},
        Case{"{\"width\": {}}", "'width'"},
        Case{"{\"resume\": \"x\"}", "'resume' is an option of the command line only"},
        Case{"{\"quiet\": true}", "'quiet' is an option of the command line only"},
        Case{"[1]", "object"}, Case{"{\"width\"", "not JSON"},
        Case{"{\"objective\": \"magic\"}", "--method"}, Case{"{\"ema\": [[0.9]]}", "'ema'"},
        Case{"{\"ema\": " + std::string(400000, '['), "deep"}}) {
    std::ofstream(folder / "wrong.json") << wrong.text;
    const ProgramRun run = run_program("train --config wrong.json", folder.path());
    INFO(wrong.text << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(is_one_line(run.error));
    CHECK(contains(run.error, "wrong.json"));
    CHECK(contains(run.error, wrong.says));
  }
  std::ofstream(folder / "named.json") << "{\"out\": \"elsewhere\"}";
  CHECK(contains(run_program("train --config named.json --resume", folder.path()).error,
                 "elsewhere"));
  CHECK(contains(run_program("train --config nowhere.json", folder.path()).error, "nowhere.json"));
  CHECK(contains(run_program("train --preset nothing").error, "points-flow"));
  const ProgramRun list = run_program("train --list-presets");
  CHECK(list.code == 0);
  for (const char* word : {"points", "mnist", "--kappa 0.5", "--ema 0.999,0.9999"})
    CHECK(contains(list.out, word));
}

TEST_CASE("settings of a configuration that the run does not use are named in one line",
          "[cli][config]") {
  const ScratchFolder folder;
  const std::string run = "train --width 8 --depth 1 --batch 8 --steps 2 --threads 1 --quiet ";
  std::ofstream(folder / "mixed.json")
      << "{\"data\": \"moons\", \"method\": \"flow-matching\", \"kappa\": 0.5, \"sigma-max\": 30, "
         "\"huber\": 0.3, \"final-lr\": 0.1, \"schedule\": \"constant\"}";
  const ProgramRun mixed = run_program(run + "--config mixed.json --out a", folder.path());
  INFO(mixed.error);
  CHECK(mixed.code == 0);
  CHECK(is_one_line(mixed.error));
  CHECK(contains(mixed.error,
                 "mixed.json has settings that this run does not use: final-lr, huber, kappa, "
                 "sigma-max"));
  // A run's own configuration has none; with another method it is one line.
  const ProgramRun same = run_program(run + "--config a/config.json --out b", folder.path());
  CHECK(same.code == 0);
  CHECK(same.error.empty());
  const ProgramRun other =
      run_program(run + "--config a/config.json --method meanflow --out c", folder.path());
  INFO(other.error);
  CHECK(other.code == 0);
  CHECK(is_one_line(other.error));
  const ProgramRun again = run_program(run + "--config c/config.json --out d", folder.path());
  CHECK(again.code == 0);
  CHECK(again.error.empty());
}

TEST_CASE("few images, and a batch beyond them, are warned of", "[cli]") {
  const ScratchFolder folder;
  write_images(folder / "few", 9);
  const std::string train =
      "train --data few --image-size 8 --patch 4 --width 16 --depth 1 --steps 1 ";
  const ProgramRun beyond = run_program(train + "--batch 10 --out a", folder.path());
  REQUIRE(beyond.code == 0);
  CHECK(contains(beyond.error, "only 9 images"));
  CHECK(contains(beyond.error, "--flip adds"));
  CHECK_FALSE(contains(run_program(train + "--batch 9 --flip --out f", folder.path()).error,
                       "--flip adds"));
  CHECK(contains(beyond.error, "--batch 9 makes each step faster"));
  const ProgramRun chosen = run_program(train + "--batch auto --json --out b", folder.path());
  REQUIRE(chosen.code == 0);
  CHECK(json::parse(chosen.out).at("batch") <= 9);
  CHECK(!contains(chosen.error, "or less"));
}

TEST_CASE("a cosine schedule wants to know its steps", "[cli]") {
  const ScratchFolder folder;
  const ProgramRun refused =
      run_program(tiny_points + "--schedule cosine --minutes 1", folder.path());
  CHECK(refused.code == 1);
  CHECK(contains(refused.error, "--steps"));
  REQUIRE(
      run_program(
          tiny_points +
              "--schedule cosine --warmup 2 --steps 8 --lr 0.5 --final-lr 0.25 --quiet --out run",
          folder.path())
          .code == 0);
  const std::string log = text_of(folder / "run/log.csv");
  CHECK(contains(log, ",0.25,"));  // both the first step of the warm-up and the last of the cosine
  REQUIRE(run_program(tiny_points + "--schedule cosine --warmup 2 --steps 8 --quiet --out zero",
                      folder.path())
              .code == 0);
  const ProgramRun further = run_program("train --resume zero --steps 9", folder.path());
  CHECK(further.code == 1);
  CHECK(contains(further.error, "cosine"));
}

TEST_CASE(
    "memory that does not suffice is refused with the batch that would fit, and auto takes it",
    "[cli][memory]") {
  const ScratchFolder folder;
  const std::string digits =
      "train --data glyphs --image-size 16 --patch 4 --width 32 --heads 2 --depth 2 --steps 2 "
      "--threads 1 --memory-limit 0.06 ";
  const ProgramRun refused = run_program(digits + "--batch 4096", folder.path());
  INFO(refused.error);
  CHECK(refused.code == 1);
  CHECK(is_one_line(refused.error));
  CHECK(contains(refused.error, "of memory"));
  const auto at = refused.error.find("--batch ");
  REQUIRE(at != refused.error.npos);
  const int fits = std::atoi(refused.error.c_str() + at + 8);
  CHECK((fits >= 1 && fits < 4096));
  CHECK(
      run_program(digits + "--quiet --out a --batch " + std::to_string(fits), folder.path()).code ==
      0);
  const ProgramRun chosen = run_program(digits + "--batch auto --out b", folder.path());
  INFO(chosen.error);
  CHECK(chosen.code == 0);
  CHECK(contains(chosen.error, "the largest that fits"));
  CHECK(config_of(folder / "b").at("batch") == std::min(fits, 256));
  CHECK(contains(run_program(tiny + "--memory-limit 0.001", folder.path()).error, "--width"));
}

TEST_CASE("a limit of memory holds for a step of many kernels, whatever was tried before it",
          "[cli][memory]") {
  const ScratchFolder folder;
  const ProgramRun run = run_program(
      "train --data glyphs --image-size 16 --patch 4 --width 32 --heads 2 --depth 12 --steps 1 "
      "--threads 1 --batch auto --memory-limit 0.15 --json --quiet",
      folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  const json said = json::parse(run.out);
  CHECK(said.at("kernels") > 1000);
  CHECK(said.at("batch") > 1);
  CHECK(said.at("peak_process_bytes").get<double>() <= 0.15 * (1 << 30));
}

TEST_CASE(
    "a disk that takes no more is warned of on the way and an error at the end; what was written "
    "stays",
    "[cli][disk]") {
  const ScratchFolder folder;
  REQUIRE(run_program(tiny + "--steps 12 --quiet --out run", folder.path()).code == 0);
  const std::string checkpoint = text_of(folder / "run/checkpoint.safetensors"),
                    log = text_of(folder / "run/log.csv");
  REQUIRE(checkpoint.size() > 3 * 1024);
  // A file may not grow beyond 2 KiB: writing what is larger fails as on a full disk. The log stays
  // below that.
  const ProgramRun full = run_program("train --resume run --steps 60 --checkpoint-every 10steps",
                                      folder.path(), "ulimit -f 4;");
  INFO(full.error);
  CHECK(full.code == 1);
  CHECK(contains(full.error, "training goes on"));
  CHECK(contains(full.error, "run/checkpoint.safetensors"));
  CHECK(contains(full.error, "the last good checkpoint, after step 12"));
  CHECK(text_of(folder / "run/checkpoint.safetensors") == checkpoint);
  CHECK(text_of(folder / "run/log.csv").starts_with(log.substr(0, log.find("\n12,") + 1)));
  // With room again it goes on from there.
  REQUIRE(run_program("train --resume run --steps 60 --quiet", folder.path()).code == 0);
  REQUIRE(run_program(tiny + "--steps 60 --quiet --out whole", folder.path()).code == 0);
  check_same_run(folder / "run", folder / "whole");
}

TEST_CASE("a log that can't grow keeps whole rows, and training goes on", "[cli][disk]") {
  const ScratchFolder folder;
  // 1 KiB: less than the log of 300 steps.
  const ProgramRun full =
      run_program(tiny + "--steps 300 --out run", folder.path(), "ulimit -f 2;");
  INFO(full.error);
  CHECK(full.code == 1);
  CHECK(contains(full.error, "log.csv"));
  const std::string log = text_of(folder / "run/log.csv");
  CHECK(log.size() > 100);
  CHECK(log.back() == '\n');
  CHECK(contains(full.error, "step 300/300"));
}

TEST_CASE("the option --quiet says nothing, and lines that are no terminal's are few", "[cli]") {
  const ScratchFolder folder;
  const ProgramRun quiet = run_program(tiny + "--steps 5 --quiet --out a", folder.path());
  CHECK(quiet.code == 0);
  CHECK(quiet.out.empty());
  CHECK(quiet.error.empty());
  const ProgramRun plain = run_program(tiny + "--steps 50 --out b", folder.path());
  CHECK(contains(plain.error, "step 50/50"));
  CHECK(plain.error.find('\r') == std::string::npos);
  CHECK(std::count(plain.error.begin(), plain.error.end(), '\n') < 20);
  const std::string chart = text_of(folder / "b/loss.svg");
  CHECK(chart.rfind("<svg", 0) == 0);
  CHECK(contains(chart, "prefers-color-scheme: dark"));
}

TEST_CASE("Ctrl-C saves a checkpoint that --resume goes on from", "[cli][resume]") {
  const ScratchFolder folder;
  {
    Process process({"train", "--data", "8gaussians", "--width", "16", "--depth", "2", "--batch",
                     "32", "--threads", "1", "--schedule", "constant", "--steps", "100000000",
                     "--quiet", "--out", "run"},
                    folder.path());
    wait_for([&] { return contains(text_of(folder / "run/log.csv"), "\n20,"); });
    process.signal(SIGINT);
    const int status = process.wait();
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 128 + SIGINT);
  }
  const std::int64_t step = read_checkpoint_info(folder / "run/checkpoint.safetensors").step;
  CHECK(step >= 20);
  CHECK(read_model_info(folder / "run/model.safetensors").step == step);
  const std::string steps = std::to_string(step + 10);
  REQUIRE(run_program("train --resume run --quiet --steps " + steps, folder.path()).code == 0);
  REQUIRE(run_program(tiny + "--quiet --out whole --steps " + steps, folder.path()).code == 0);
  check_same_run(folder / "run", folder / "whole");
}

TEST_CASE("Ctrl-C pressed twice ends at once", "[cli]") {
  const ScratchFolder folder;
  // A step of this run takes long, so that the second signal meets the first one's step.
  Process process({"train", "--data",  "glyphs", "--image-size", "64", "--patch",   "4", "--width",
                   "256",   "--depth", "6",      "--batch",      "64", "--threads", "1", "--steps",
                   "1000",  "--quiet", "--out",  "run"},
                  folder.path());
  wait_for([&] { return fs::exists(folder / "run/config.json"); });
  std::this_thread::sleep_for(std::chrono::milliseconds(
      200));  // the signals belong to the training, not to what comes before it
  process.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  process.signal(SIGINT);
  wait_for([&] { return !process.running(); });
  REQUIRE(WIFEXITED(process.status()));
  CHECK(WEXITSTATUS(process.status()) == 128 + SIGINT);
  CHECK(text_of(folder / "stderr") == "fluxion: interrupted\n");
  CHECK_FALSE(fs::exists(folder / "run/model.safetensors"));
}
