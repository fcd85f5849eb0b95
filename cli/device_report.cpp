#include "cli/device_report.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>

#include "backends/open_device.h"
#include "backends/reference/reference.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/benchmark/device_speed.h"
#include "models/benchmark/self_test.h"

namespace fluxion::cli {

namespace {

// Of the time, the part that the self-test may take; measuring needs the rest.
constexpr double self_test_share = 0.7;

std::string report_text(const nlohmann::json& report) {
  return report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

nlohmann::json write_device_report(const std::filesystem::path& file, nlohmann::json header,
                                   const Device& device, double seconds, const Streams& streams) {
  const auto start = std::chrono::steady_clock::now();
  const auto passed_time = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  nlohmann::json report = std::move(header);
  report["complete"] = false;
  report["passed"] = true;
  for (const char* part : {"self_test", "speeds", "product_tiles"})
    report[part] = nlohmann::json::array();
  const auto save = [&] {
    report["seconds"] = passed_time();
    ReplacementFile to(file);
    to.write(report_text(report));
    to.commit();
  };
  save();
  ProgressLine line(streams);
  const auto& families = self_test_families();
  const auto& speeds = device_speeds();
  const std::size_t steps = families.size() + speeds.size() + 1;
  std::size_t step = 0;
  const auto begin = [&](const std::string& what) {
    ++step;
    if (line.due()) line.show(std::to_string(step) + "/" + std::to_string(steps) + " " + what);
  };

  const Device defining = reference();
  bool all_ran = true;
  for (std::size_t i = 0; i < families.size(); ++i) {
    begin(families[i]);
    nlohmann::json entry = {{"family", families[i]}};
    if (passed_time() > self_test_share * seconds) {
      entry["problem"] = "not run: out of time";
      all_ran = false;
    } else {
      const SelfTestResult result = self_test(i, device, defining);
      entry["passed"] = result.passed;
      entry["error"] = result.error;
      entry["allowed"] = result.allowed;
      entry["seconds"] = result.seconds;
      if (!result.passed) {
        entry["problem"] = result.problem;
        report["passed"] = false;
      }
    }
    report["self_test"].push_back(entry);
    save();
  }
  // What is left is shared by what is left to measure; the tiles count as much as three others.
  constexpr double tiles_share = 3;
  for (std::size_t i = 0; i < speeds.size(); ++i) {
    begin(speeds[i].what);
    nlohmann::json entry = {{"what", speeds[i].what}, {"unit", speeds[i].unit}};
    const double left = seconds - passed_time(),
                 shares = static_cast<double>(speeds.size() - i) + tiles_share;
    if (left <= 0) {
      entry["problem"] = "not run: out of time";
      all_ran = false;
    } else {
      try {
        entry["value"] = device_speed(i, device, left / shares);
      } catch (const std::exception& error) {
        entry["problem"] = error.what();
      }
    }
    report["speeds"].push_back(entry);
    save();
  }
  begin("tiles of products");
  if (const double left = seconds - passed_time(); left > 0) {
    try {
      for (const ListedTileSpeed& each : list_tile_speeds(device, left))
        report["product_tiles"].push_back(
            {{"tile", each.tile}, {"gflops_per_second", 1e-9 * each.flops_per_second}});
    } catch (const std::exception& error) {
      report["product_tiles_problem"] = error.what();
    }
  } else {
    all_ran = false;
  }
  report["complete"] = all_ran;
  save();
  return report;
}

void print_device_report(std::ostream& out, const nlohmann::json& report) {
  const auto column = [](std::string text, std::size_t width) {
    text.resize(std::max(width, text.size() + 1), ' ');
    return text;
  };
  std::size_t passed = 0;
  for (const nlohmann::json& each : report.at("self_test")) {
    const bool good = each.value("passed", false);
    passed += good;
    out << "  " << column(each.at("family").get<std::string>(), 36);
    if (good)
      out << "right   " << scientific_text(each.at("error").get<double>(), 1) << " of the largest";
    else
      out << (each.contains("passed") ? "WRONG   " : "        ")
          << printable(each.at("problem").get<std::string>(), 1000);
    out << "\n";
  }
  for (const nlohmann::json& each : report.at("speeds")) {
    out << "  " << column(each.at("what").get<std::string>(), 36);
    if (each.contains("value"))
      out << rounded_text(each.at("value").get<double>(), 3) << " "
          << each.at("unit").get<std::string>();
    else
      out << printable(each.at("problem").get<std::string>(), 1000);
    out << "\n";
  }
  for (const nlohmann::json& each : report.at("product_tiles"))
    out << "  " << column("products with " + each.at("tile").get<std::string>(), 36)
        << rounded_text(each.at("gflops_per_second").get<double>(), 3) << " GFLOP/s\n";
  out << passed << " of " << report.at("self_test").size() << " kernel families are right\n";
}

}  // namespace fluxion::cli
