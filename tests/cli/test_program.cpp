// The program as its users meet it.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/platform/file.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/model_file.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A digit model that trains in a moment, made once for all tests here.
const std::filesystem::path& digits() {
  static const ScratchFolder folder;
  static const bool trained = [] {
    const ProgramRun run = run_program(
        "train --data glyphs --image-size 8 --patch 4 --width 16 --heads 2 --depth 1 --steps 20 "
        "--batch 8 --threads 2 --seed 5 --json --out run",
        folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    const nlohmann::json result = nlohmann::json::parse(run.out);
    REQUIRE(result.at("steps") == 20);
    REQUIRE(result.at("traces") == 1);
    REQUIRE(result.at("interrupted") == false);
    return true;
  }();
  static const std::filesystem::path model =
      trained ? folder.path() / "run" / "model.safetensors" : std::filesystem::path();
  return model;
}

std::string quoted(const std::filesystem::path& path) { return "'" + path.string() + "'"; }

bool one_line(const std::string& text) {
  return !text.empty() && std::count(text.begin(), text.end(), '\n') == 1 && text.back() == '\n';
}

bool is_png(const std::filesystem::path& path) {
  return text_of(path).substr(0, 8) == "\x89PNG\r\n\x1a\n";
}

NpyArray samples_of(const std::string& options) {
  const ScratchFolder folder;
  const ProgramRun run = run_program(
      "sample --model " + quoted(digits()) + " --npy samples.npy " + options, folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  return read_npy(folder.path() / "samples.npy");
}

}  // namespace

TEST_CASE("help names every command and option, and goes to standard output", "[cli]") {
  const ProgramRun help = run_program("--help");
  CHECK(help.code == 0);
  CHECK(help.error.empty());
  for (const char* command : {"train", "sample", "inspect", "check", "Examples"})
    CHECK(contains(help.out, command));

  const ProgramRun train = run_program("train --help");
  CHECK(train.code == 0);
  for (const char* option :
       {"--data", "--objective", "--net", "--steps", "--batch", "--lr", "--seed", "--device",
        "--threads", "--out", "--json", "8gaussians", "Examples"})
    CHECK(contains(train.out, option));

  const ProgramRun sample = run_program("sample --help");
  CHECK(sample.code == 0);
  for (const char* option : {"--model", "--count", "--steps", "--class", "--guidance", "--seed",
                             "--out", "--npy", "--json", "Examples"})
    CHECK(contains(sample.out, option));

  CHECK(run_program("inspect --help").code == 0);
  CHECK(run_program("check --help").code == 0);
  CHECK(run_program("--version").out.find("fluxion ") == 0);
}

TEST_CASE("a wrong command line is one line on standard error and exit code 2", "[cli]") {
  for (const char* arguments :
       {"", "fly", "train --steps -3", "train --steps many", "train --objective magic", "sample",
        "sample --model x --count 0", "inspect"}) {
    const ProgramRun run = run_program(arguments);
    INFO("fluxion " << arguments << "\n" << run.error);
    CHECK(run.code == 2);
    CHECK(run.out.empty());
    CHECK(one_line(run.error));
    CHECK(run.error.rfind("fluxion: ", 0) == 0);
  }
}

TEST_CASE("a command or option that is nearly right is told its name", "[cli]") {
  struct Case {
    std::string arguments, says;
  };
  for (const Case& wrong :
       {Case{"trian", "no command \"trian\" (did you mean train?)"},
        Case{"sampel --model x", "did you mean sample?"},
        Case{"train --stpes 3", "train has no option --stpes (did you mean --steps?)"},
        Case{"train --stpes=3", "did you mean --steps?"},
        Case{"sample --guidence 2 --model x", "did you mean --guidance?"},
        Case{"train --batch-size 3", "did you mean --batch?"},
        Case{"train --learning_rate=3", "did you mean --lr?"},
        Case{"train --epochs 3", "did you mean --steps?"},
        Case{"sample --guidance-scale 3 --model x", "did you mean --guidance?"},
        Case{"sample --sampler hoin --model x", "rf++} (did you mean heun?)"},
        Case{"train --method mean-flow", "did you mean meanflow?"},
        Case{"eval --model x --metrics energy,fid", "fid not in {sliced-wasserstein,"},
        Case{"eval --model x --metrics fid", "did you mean frechet?"},
        Case{"--verison", "there is no option --verison (did you mean --version?)"}}) {
    const ProgramRun run = run_program(wrong.arguments);
    INFO("fluxion " << wrong.arguments << "\n" << run.error);
    CHECK(run.code == 2);
    CHECK(one_line(run.error));
    CHECK(contains(run.error, wrong.says));
  }
  const ProgramRun far = run_program("train --zebra");
  CHECK(contains(far.error, "train has no option --zebra; see"));
  CHECK(contains(run_program("completion x").error, "{bash,zsh,fish}; see"));
}

TEST_CASE("help fits the terminal and says ranges in words", "[cli]") {
  for (const char* command : {"", "train ", "sample ", "eval ", "graph ", "bench ", "import "}) {
    std::istringstream help(run_program(command + std::string("--help")).out);
    std::string before;
    bool examples = false;
    for (std::string line; std::getline(help, line);) {
      INFO("fluxion " << command << "--help: " << line);
      examples = examples || line.starts_with("Example");
      // A name that fills a line alone, and commands to be copied, stay whole.
      CHECK((examples || line.size() <= 80 || line.find(' ', 30) == std::string::npos));
      CHECK_FALSE(contains(line, "2147483647"));
      CHECK_FALSE(contains(line, "REQUIRED"));
    }
  }
  CHECK(contains(run_program("sample --help").out, "[at least 1]"));
}

TEST_CASE("completion knows every command, option and word", "[cli]") {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const ProgramRun script = run_program(std::string("completion ") + shell);
    INFO(shell);
    REQUIRE(script.code == 0);
    for (const char* text : {"train", "devices", "svg", "dot", "grad-of-jvp"})
      CHECK(contains(script.out, text));
  }
  CHECK(run_program("completion tcsh").code == 2);
  // What bash would offer.
  const ProgramRun offered = run_program(
      "completion bash", {},
      "bash -c 'eval \"$(\"$@\")\"; COMP_WORDS=(fluxion graph --format \"\"); COMP_CWORD=3; "
      "_fluxion; "
      "echo \"${COMPREPLY[@]}\"; COMP_WORDS=(fluxion sample --np); COMP_CWORD=2; _fluxion; "
      "echo \"${COMPREPLY[@]}\"' bash");
  INFO(offered.error);
  CHECK(offered.out == "svg dot text\n--npy\n");
}

TEST_CASE("what can't be done is one line on standard error and exit code 1", "[cli]") {
  struct Case {
    std::string arguments, says;
  };
  const std::string model = quoted(digits());
  for (const Case& wrong :
       {Case{"train --data nine-gaussians", "8gaussians"},
        Case{"train --data 8gaussians --net dit", "--net mlp"},
        Case{"train --data glyphs --net mlp", "--net dit"},
        Case{"train --data 8gaussians --omega 2", "--omega has no effect without classes"},
        Case{"train --data glyphs --frequencies 2", "--net mlp"},
        Case{"sample --model no/such.safetensors", "no/such.safetensors"},
        Case{"inspect no/such.safetensors", "no/such.safetensors"},
        Case{"sample --class 10 --model " + model, "0 to 9"},
        Case{"sample --class seven --model " + model, "seven"},
        Case{"sample --out no/such/folder.png --model " + model, "no/such/folder.png"}}) {
    const ProgramRun run = run_program(wrong.arguments);
    INFO("fluxion " << wrong.arguments << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(run.out.empty());
    CHECK(one_line(run.error));
    CHECK(contains(run.error, wrong.says));
  }
}

TEST_CASE("a result that can't be written to standard output is an error", "[cli]") {
  if (!std::filesystem::exists("/dev/full")) {
    WARN("skipped: there is no /dev/full");
    return;
  }
  for (const std::string& arguments :
       {std::string("--help"), std::string("--version"), std::string("graph --help"),
        std::string("graph softmax --format text"), std::string("graph softmax --out -"),
        std::string("graph --list"), std::string("graph --list --json"),
        "inspect " + quoted(digits()), "inspect --json " + quoted(digits())}) {
    const ProgramRun run =
        run_program(arguments, {}, "into_full() { \"$@\" >/dev/full; }; into_full");
    INFO("fluxion " << arguments << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(one_line(run.error));
    CHECK(contains(run.error, "standard output"));
  }
}

TEST_CASE("training leaves a model, its raw weights, pictures and a log", "[cli]") {
  const std::filesystem::path folder = digits().parent_path();
  const ModelInfo averaged = read_model_info(digits()),
                  raw = read_model_info(folder / "model-raw.safetensors");
  CHECK(averaged.step == 20);
  CHECK(averaged.ema);
  CHECK_FALSE(raw.ema);
  CHECK(is_png(folder / "samples.png"));
  CHECK(is_png(folder / "samples/step_000020.png"));
  const std::string log = text_of(folder / "log.csv");
  CHECK(log.rfind("step,seconds,loss,error,gradient_norm,learning_rate,peak_memory_mib\n1,", 0) ==
        0);
  CHECK(log.find("\n20,") != std::string::npos);
}

TEST_CASE("the same command gives the same model, bit for bit; another seed gives another",
          "[cli]") {
  const ScratchFolder folder;
  const std::string command =
      "train --data 8gaussians --width 16 --depth 2 --steps 12 --batch 32 --threads 2 --out ";
  REQUIRE(run_program(command + "a --seed 1", folder.path()).code == 0);
  REQUIRE(run_program(command + "b --seed 1", folder.path()).code == 0);
  REQUIRE(run_program(command + "c --seed 2", folder.path()).code == 0);
  const std::string a = text_of(folder.path() / "a" / "model.safetensors");
  CHECK(a.size() > 1000);
  CHECK(a == text_of(folder.path() / "b" / "model.safetensors"));
  CHECK(a != text_of(folder.path() / "c" / "model.safetensors"));
}

TEST_CASE("every objective trains and samples", "[cli]") {
  for (const char* options :
       {"--objective meanflow --tangent all", "--objective meanflow --tangent subset",
        "--objective flow-matching", "--objective split-meanflow", "--omega 1 --kappa 0.5",
        "--no-labels"}) {
    INFO(options);
    const ScratchFolder folder;
    const ProgramRun run =
        run_program(std::string("train --image-size 8 --patch 4 --width 16 --heads 2 --depth 1 "
                                "--steps 3 --batch 8 --out . ") +
                        options,
                    folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    CHECK(run_program("sample --model model.safetensors --count 3 --out samples.png", folder.path())
              .code == 0);
  }
}

TEST_CASE("any count of samples is drawn, and a sample does not depend on the count or the batch",
          "[cli]") {
  const NpyArray seven = samples_of("--count 7 --batch 4");
  CHECK(seven.type == TensorType{{7, 8, 8, 1}, DType::f32});
  const NpyArray ten = samples_of("--count 10 --batch 10");
  CHECK(ten.type == TensorType{{10, 8, 8, 1}, DType::f32});
  const std::vector<float> a = seven.values<float>(), b = ten.values<float>();
  for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(std::abs(a[i] - b[i]) < 1e-5f);
  CHECK(samples_of("--count 7 --batch 4 --seed 1").bytes != seven.bytes);
  CHECK(samples_of("--count 1").type.shape == Shape{1, 8, 8, 1});

  const ScratchFolder folder;
  const ProgramRun run = run_program(
      "sample --json --count 130 --batch 32 --steps 2 --class 3 --out grid.png --model " +
          quoted(digits()),
      folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  const nlohmann::json result = nlohmann::json::parse(run.out);
  CHECK(result.at("shape") == nlohmann::json({130, 8, 8, 1}));
  CHECK(result.at("traces") == 1);
  CHECK(result.at("evaluations") == 2);
  CHECK(is_png(folder.path() / "grid.png"));
}

TEST_CASE("a model trained with guidance refuses guidance when it is sampled", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(run_program("train --image-size 8 --patch 4 --width 16 --heads 2 --depth 1 --steps 2 "
                      "--batch 8 --kappa 0.5 --out .",
                      folder.path())
              .code == 0);
  CHECK(run_program("sample --model model.safetensors --count 2", folder.path()).code == 0);
  const ProgramRun run =
      run_program("sample --model model.safetensors --count 2 --guidance 2", folder.path());
  CHECK(run.code == 1);
  CHECK(one_line(run.error));
  CHECK(contains(run.error, "guidance"));
}

TEST_CASE("inspect shows the model and every tensor", "[cli]") {
  const ProgramRun text = run_program("inspect " + quoted(digits()));
  CHECK(text.code == 0);
  for (const char* word :
       {"dit", "meanflow", "10 classes", "blocks.0.attn.qkv.weight", "parameters"})
    CHECK(contains(text.out, word));

  const ProgramRun json = run_program("inspect --json " + quoted(digits()));
  REQUIRE(json.code == 0);
  const nlohmann::json result = nlohmann::json::parse(json.out);
  CHECK(result.at("model").at("network").at("family") == "dit");
  CHECK(result.at("model").at("step") == 20);
  CHECK(result.at("tensors").size() == parameter_shapes(read_model_info(digits()).network).size());
}

TEST_CASE("inspect reads any safetensors file, and is not fooled by control characters in it",
          "[cli]") {
  const ScratchFolder folder;
  const std::vector<float> values(6, 1.0f);
  const SafetensorsEntry entry{
      "evil\x1b[2Jname", DType::f32, {2, 3}, std::as_bytes(std::span(values))};
  write_safetensors(folder.path() / "any.safetensors", std::span(&entry, 1),
                    {{"key", "line\nbreak"}});
  const ProgramRun run = run_program("inspect any.safetensors", folder.path());
  CHECK(run.code == 0);
  CHECK(contains(run.out, "f32[2, 3]"));
  CHECK(run.out.find('\x1b') == std::string::npos);
  CHECK(contains(run.out, "6 parameters"));
}

TEST_CASE("inspect lists tensors of any type, and says what is no safetensors file", "[cli]") {
  const ScratchFolder folder;
  const std::vector<std::uint8_t> bytes(12, 7);
  const auto span = std::as_bytes(std::span(bytes));
  const auto type = [](const char* name) { return SafetensorsType(std::string(name)); };
  const std::vector<SafetensorsEntry> entries = {
      {"a", type("F8_E4M3"), {3, 4}, span},         {"b", type("I16"), {6}, span},
      {"c", type("C64"), {1}, span.first(8)},       {"d", type("F4"), {24}, span},
      {"e", type("F3\x1b[2J"), {8}, span.first(3)}, {"f", DType::f32, {3}, span}};
  write_safetensors(folder.path() / "any.safetensors", entries);
  const ProgramRun run = run_program("inspect any.safetensors", folder.path());
  INFO(run.error);
  CHECK(run.code == 0);
  for (const char* line :
       {"F8_E4M3[3, 4]", "I16[6]", "C64[1]", "F4[24]", "F3\\x1b[2J[8]", "f32[3]"})
    CHECK(contains(run.out, line));
  const ProgramRun json = run_program("inspect --json any.safetensors", folder.path());
  REQUIRE(json.code == 0);
  CHECK(nlohmann::json::parse(json.out).at("tensors").at(0).at("dtype") == "F8_E4M3");

  const auto refused = [&](const std::string& content, const std::string& why) {
    replace_file(folder.path() / "x.safetensors", content);
    const ProgramRun wrong = run_program("inspect x.safetensors", folder.path());
    INFO(wrong.error);
    CHECK(wrong.code == 1);
    CHECK(one_line(wrong.error));
    CHECK(contains(wrong.error, why));
  };
  refused("version https://git-lfs.github.com/spec/v1\n", "git lfs pull");
  refused("{\"metadata\": {}, \"weight_map\": {}}", "checkpoint in several files");
  refused("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "convert_checkpoint.py");
}

TEST_CASE("a truncated model is refused by every command that reads one", "[cli]") {
  const ScratchFolder folder;
  std::filesystem::copy_file(digits(), folder.path() / "cut.safetensors");
  std::filesystem::resize_file(folder.path() / "cut.safetensors",
                               std::filesystem::file_size(digits()) / 2);
  for (const char* arguments : {"inspect cut.safetensors", "sample --model cut.safetensors"}) {
    const ProgramRun run = run_program(arguments, folder.path());
    INFO(run.error);
    CHECK(run.code == 1);
    CHECK(one_line(run.error));
    CHECK(contains(run.error, "cut.safetensors"));
  }
}

TEST_CASE("every command that computes takes the name of a device", "[cli][device]") {
  for (const char* command : {"train", "sample", "eval", "import", "check", "bench", "graph"}) {
    const ProgramRun help = run_program(command + std::string(" --help"));
    INFO(command);
    CHECK(contains(help.out, "--device"));
    CHECK(contains(help.out, "cpu:N"));
    CHECK(contains(help.out, "reference"));
    const ProgramRun wrong = run_program(command + std::string(" --device gpu"));
    CHECK(wrong.code == 2);
    CHECK(contains(wrong.error, "gpu"));
    CHECK(contains(wrong.error, "cpu:N"));
  }
  CHECK(run_program("check --device cpu:2 --threads 1").code == 2);
  const ProgramRun slow = run_program("check --json --device reference");
  REQUIRE(slow.code == 0);
  CHECK(nlohmann::json::parse(slow.out).at("device") == "reference");
}

TEST_CASE("devices lists the processor, and the GPUs or why there is none", "[cli][device]") {
  const ProgramRun json = run_program("devices --json");
  INFO(json.error);
  REQUIRE(json.code == 0);
  const auto object = nlohmann::json::parse(json.out);
  const auto& devices = object.at("devices");
  REQUIRE(devices.size() >= 1);
  CHECK(devices[0].at("name") == "cpu");
  CHECK((devices.size() > 1 || object.contains("without_vulkan")));
  for (std::size_t i = 1; i < devices.size(); ++i) {
    CHECK(devices[i].at("name") == "vulkan:" + std::to_string(i - 1));
    CHECK(devices[i].at("capabilities").contains("shared memory"));
  }
  const ProgramRun text = run_program("devices");
  CHECK(text.code == 0);
  CHECK(contains(text.out, "cpu ("));
  const ProgramRun none =
      run_program("devices", {}, "FLUXION_VULKAN_LIBRARY=/nowhere/libvulkan.so");
  CHECK(none.code == 0);
  CHECK(contains(none.out, "No Vulkan device"));
  const ProgramRun refused =
      run_program("check --device vulkan", {}, "FLUXION_VULKAN_LIBRARY=/nowhere/libvulkan.so");
  CHECK(refused.code == 1);
  CHECK(one_line(refused.error));
}

TEST_CASE("devices --report tests and measures a device, and writes what it found",
          "[cli][device]") {
  const ScratchFolder folder;
  const ProgramRun run =
      run_program("devices --report report.json --device cpu:1 --seconds 4", folder.path());
  INFO(run.out << run.error);
  REQUIRE(run.code == 0);
  CHECK(contains(run.out, "product"));
  CHECK(contains(run.out, "GB/s"));
  const auto report = nlohmann::json::parse(text_of(folder / "report.json"));
  CHECK(report.at("passed") == true);
  CHECK(report.at("chosen").at("name") == "cpu:1");
  CHECK(report.at("devices").size() >= 1);
  CHECK(report.at("self_test").size() >= 20);
  for (const auto& each : report.at("self_test")) {
    INFO(each.dump());
    CHECK((each.contains("problem") ? each.at("problem") == "not run: out of time"
                                    : each.at("passed") == true));
  }
  CHECK(report.at("speeds").size() >= 5);
  // Nothing is in the way of a report that has no time.
  const ProgramRun none =
      run_program("devices --report none.json --device cpu:1 --seconds 1 --json", folder.path());
  CHECK(none.code == 0);
  CHECK(nlohmann::json::parse(none.out).at("self_test").size() == report.at("self_test").size());
  CHECK(run_program("devices --seconds 5").code == 2);
  const ProgramRun nowhere =
      run_program("devices --report missing/report.json --device cpu:1", folder.path());
  CHECK(nowhere.code == 1);
  CHECK(one_line(nowhere.error));
}

TEST_CASE("the reference agrees with itself in its report", "[cli][device]") {
  const ScratchFolder folder;
  const ProgramRun run = run_program(
      "devices --report report.json --device reference --seconds 6 --json", folder.path());
  INFO(run.error);
  CHECK(run.code == 0);
  const nlohmann::json report = nlohmann::json::parse(run.out);
  for (const auto& each : report.at("self_test"))
    if (each.contains("error")) CHECK(each.at("error") == 0);
}

TEST_CASE("check passes on this machine and says on what", "[cli]") {
  const ProgramRun text = run_program("check");
  INFO(text.out << text.error);
  CHECK(text.code == 0);
  CHECK(contains(text.out, "All is well"));
  const ProgramRun json = run_program("check --json --threads 1");
  REQUIRE(json.code == 0);
  const nlohmann::json result = nlohmann::json::parse(json.out);
  CHECK(result.at("passed") == true);
  CHECK(result.at("checks").size() >= 3);
}

TEST_CASE("a run that is interrupted saves what it has", "[cli]") {
  const ScratchFolder folder;
  // The shell starts the run, waits until it has logged something, and presses Ctrl-C for us.
  const ProgramRun run = run_program(
      "train --data 8gaussians --width 16 --depth 1 --steps 100000000 --batch 16 --json --out . "
      ">result.json 2>progress.txt & process=$!; "
      "for i in $(seq 300); do sleep 0.1; grep -q '^10,' log.csv 2>/dev/null && break; done; kill "
      "-TERM $process; wait $process; echo $? >code; true",
      folder.path());
  REQUIRE(run.code == 0);
  CHECK(text_of(folder.path() / "code") == "143\n");
  CHECK(nlohmann::json::parse(text_of(folder.path() / "result.json")).at("interrupted") == true);
  CHECK(read_model_info(folder.path() / "model.safetensors").step >= 10);
}
