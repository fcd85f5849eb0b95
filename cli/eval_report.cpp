#include "cli/eval_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/number_text.h"

namespace fluxion::cli {

namespace {

std::string short_text(double value) {
  return std::abs(value) >= 1e-3 || value == 0 ? rounded_text(value, 4) : scientific_text(value, 2);
}

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.insert(0, width - text.size(), ' ');
  return text;
}

void print_table(std::ostream& out, const std::vector<Measurement>& measurements) {
  std::size_t width = 6;
  for (const Measurement& row : measurements) width = std::max(width, row.name.size());
  const auto left = [&](std::string text) { return text.resize(width, ' '), text; };
  out << left("") << padded("samples", 12) << padded("real data", 22) << "\n";
  for (const Measurement& row : measurements) {
    std::string floor = row.floor ? short_text(*row.floor) : "";
    if (row.floor && row.draws > 1) floor += " +- " + short_text(row.spread);
    out << left(row.name) << padded(short_text(row.value), 12) << padded(floor, 22) << "   "
        << row.note;
    if (row.large_floor)
      out << "; " << grouped(row.large_draw) << " real samples get "
          << short_text(*row.large_floor);
    out << "\n";
    for (std::size_t k = 0; k < row.parts.size(); ++k)
      out << (k == 0 ? left("") + "   shares " : " ") << short_text(row.parts[k]);
    if (!row.parts.empty()) out << "\n";
  }
}

nlohmann::json to_json(const std::vector<Measurement>& measurements) {
  nlohmann::json object = nlohmann::json::object();
  for (const Measurement& row : measurements) {
    nlohmann::json& entry = object[row.name];
    entry = {{"value", row.value},
             {"floor", nullptr},
             {"spread", row.spread},
             {"draws", row.draws},
             {"note", row.note}};
    entry["better"] = row.lower_is_better ? "lower" : "higher";
    if (row.floor) entry["floor"] = *row.floor, entry["floor_count"] = row.floor_count;
    if (row.large_floor)
      entry["large_floor"] = *row.large_floor, entry["large_draw"] = row.large_draw;
    if (!row.parts.empty()) entry["shares"] = row.parts;
  }
  return object;
}

}  // namespace

void write_report(std::ostream& out, const EvalArguments& options, const EvalReport& report) {
  nlohmann::json object = {{"model", nullptr},
                           {"samples", nullptr},
                           {"count", report.count},
                           {"data", report.data},
                           {"held_out", report.held_out},
                           {"metrics", to_json(report.measurements)},
                           {"classifier", nullptr},
                           {"nearest_training", nullptr},
                           {"seconds", report.seconds}};
  if (!options.model.empty()) object["model"] = options.model, object["seed"] = options.seed;
  if (!options.samples.empty()) object["samples"] = options.samples;
  if (report.judge)
    object["classifier"] = {{"file", report.judge_file},
                            {"accuracy", report.judge->accuracy},
                            {"trained_now", report.judge_trained}};
  if (report.nearest) {
    object["nearest_training"] = {{"picture", options.neighbours},
                                  {"searched", report.nearest->searched},
                                  {"median", report.nearest->median}};
    if (report.nearest->held_out_median)
      object["nearest_training"]["held_out_median"] = *report.nearest->held_out_median;
  }
  write_json(out, object);
}

void print_report(std::ostream& out, const EvalArguments& options, const EvalReport& report) {
  out << "samples     " << report.samples << "\ndata        " << printable(report.data);
  if (!report.no_test_part.empty())
    out << " (no test part: " << printable(report.no_test_part, 300)
        << "; half of the data is the reference, and a model of all of it has seen that)";
  out << "\n";
  if (report.judge) {
    out << "classifier  "
        << (report.judge_file.empty() ? "not kept" : printable(report.judge_file, 300)) << ", "
        << short_text(100 * report.judge->accuracy) << " % right on "
        << grouped(report.judge->tested) << " test samples";
    if (report.judge_trained) out << ", trained in " << clock_text(report.judge_seconds);
    out << "\n";
  }
  out << "\n";
  print_table(out, report.measurements);
  if (report.nearest) {
    out << "\nnearest of " << grouped(report.nearest->searched)
        << " training images (Euclidean, pixels), median distance: samples "
        << short_text(report.nearest->median);
    if (report.nearest->held_out_median)
      out << ", real images that were held out " << short_text(*report.nearest->held_out_median);
    out << "\npicture     " << options.neighbours << "\n";
  }
  out << std::flush;
}

}  // namespace fluxion::cli
