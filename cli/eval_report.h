// What `fluxion eval` says in the end, as text or as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "cli/eval_samples.h"
#include "models/evaluation/classifier.h"
#include "models/evaluation/evaluation.h"
#include "models/evaluation/memorisation.h"

namespace fluxion::cli {

struct EvalReport {
  std::int64_t count = 0;
  std::string samples, data;  // what they are, for people
  std::string no_test_part;   // why the data have none; empty: they have one, or need none
  bool held_out = false;
  std::vector<Measurement> measurements;
  const ClassifierInfo* judge = nullptr;  // null: none was needed
  std::string judge_file;                 // empty: it is not kept
  bool judge_trained = false;             // just now, in judge_seconds
  double judge_seconds = 0;
  std::optional<NearestTraining> nearest;
  double seconds = 0;
};

// As JSON.
void write_report(std::ostream& out, const EvalArguments& options, const EvalReport& report);
void print_report(std::ostream& out, const EvalArguments& options, const EvalReport& report);

}  // namespace fluxion::cli
