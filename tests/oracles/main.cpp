// fluxion-oracles: runs reference cases against the engine.
//
// A case passes if its values, jvp, vjp, hvp and gradients agree with the file in f32 on the CPU
// backend and in f64 on the CPU and the reference backend, each op by op and as one compiled
// function. With --device it is that device's f32 instead, and its f64 where it has one. A case is
// skipped where this project has no such op, network or objective.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <map>

#include "backends/open_device.h"
#include "tests/oracles/check.h"

namespace fluxion::oracles {
namespace {

struct Options {
  std::vector<std::string> folders;
  std::string device, filter, mode;
  bool verbose = false;
};

struct Place {
  std::string device;
  DType dtype;
};

std::vector<Mode> modes(const Options& options) {
  std::vector<Place> places{{"cpu", DType::f32}, {"cpu", DType::f64}, {"reference", DType::f64}};
  if (!options.device.empty())
    places = {{options.device, DType::f32}, {options.device, DType::f64}};
  std::map<std::string, Device> devices;
  for (const Place& place : places)
    if (!devices.contains(place.device)) devices.emplace(place.device, open_device(place.device));
  std::vector<Mode> result;
  for (const bool compiled : {false, true})
    for (const auto& [name, dtype] : places) {
      const Device& device = devices.at(name);
      if (dtype == DType::f64 && !device.backend().capabilities().f64) continue;
      Mode mode{name + " " + std::string(to_string(dtype)) + (compiled ? " compiled" : " eager"),
                device, dtype, compiled};
      if (mode.name.find(options.mode) != std::string::npos) result.push_back(std::move(mode));
    }
  return result;
}

class Report {
 public:
  explicit Report(bool verbose) : verbose_(verbose) {}

  void pass(const std::string& id) {
    ++passed_;
    if (verbose_) std::cout << "pass  " << id << std::endl;
  }
  void skip(const std::string& id, const std::string& missing) {
    ++skipped_;
    ++missing_[missing];
    if (verbose_) std::cout << "skip  " << id << ": not built: " << missing << std::endl;
  }
  void fail(const std::vector<std::string>& lines) {
    ++failed_;
    for (const std::string& line : lines) std::cout << "FAIL  " << line << std::endl;
  }
  int finish() const {
    for (const auto& [name, count] : missing_)
      std::cout << "not built: " << name << " (" << count << (count == 1 ? " case)" : " cases)")
                << "\n";
    std::cout << passed_ << " passed, " << failed_ << " failed, " << skipped_ << " skipped"
              << std::endl;
    if (passed_ + failed_ + skipped_ == 0) std::cerr << "no case was found\n";
    return failed_ == 0 && passed_ + skipped_ > 0 ? 0 : 1;
  }

 private:
  bool verbose_;
  int passed_ = 0, failed_ = 0, skipped_ = 0;
  std::map<std::string, int> missing_;
};

void run_case(const std::filesystem::path& path, const Options& options,
              const std::vector<Mode>& modes, Report& report) {
  Case oracle;
  try {
    oracle = load_case(path);
  } catch (const std::exception& error) {
    return report.fail({path.string() + " does not load: " + error.what()});
  }
  const std::string id = oracle.kind + "/" + oracle.id;
  if (id.find(options.filter) == std::string::npos) return;
  std::vector<std::string> failures;
  try {
    const Subject subject = subject_of(oracle);
    for (const Mode& mode : modes) {
      const std::string where = id + " [" + mode.name + "] ";
      try {
        for (const std::string& failure : check(oracle, subject, mode))
          failures.push_back(where + failure);
      } catch (const std::exception& error) {
        failures.push_back(where + "threw: " + error.what());
      }
    }
  } catch (const NotBuilt& missing) {
    return report.skip(id, missing.what());
  } catch (const std::exception& error) {
    failures.push_back(id + " can't be set up: " + error.what());
  }
  failures.empty() ? report.pass(id) : report.fail(failures);
}

int run(const Options& options) {
  const std::vector<Mode> chosen = modes(options);
  Report report(options.verbose);
  for (const std::string& folder : options.folders) {
    const auto paths = find_cases(folder);
    if (paths.empty()) report.fail({folder + ": holds no case"});
    for (const auto& path : paths) run_case(path, options, chosen, report);
  }
  if (chosen.empty()) report.fail({"no mode is named like '" + options.mode + "'"});
  return report.finish();
}

}  // namespace
}  // namespace fluxion::oracles

int main(int argc, char** argv) {
  CLI::App app("Runs reference cases (safetensors files) against the engine.", "fluxion-oracles");
  fluxion::oracles::Options options;
  app.add_option("folders", options.folders,
                 "Folders that are searched for case files, or single files")
      ->required()
      ->check(CLI::ExistingPath);
  app.add_option("--device", options.device, "Only this device: " + fluxion::device_names());
  app.add_option("--filter", options.filter,
                 "Only cases whose kind/name/variant contains this text");
  app.add_option("--mode", options.mode,
                 "Only modes whose name contains this text, e.g. 'cpu f32' or 'compiled'");
  app.add_flag("--verbose", options.verbose, "Also print cases that pass or are skipped");
  CLI11_PARSE(app, argc, argv);
  try {
    return fluxion::oracles::run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fluxion-oracles: %s\n", error.what());
    return 2;
  }
}
