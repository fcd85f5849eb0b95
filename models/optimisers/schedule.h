// How the learning rate goes over a run: a pure function of the step, so that a run that resumes
// goes on where it was.
#pragma once

#include <cstdint>
#include <string>

namespace fluxion {

enum class ScheduleKind { constant, cosine };
std::string to_string(ScheduleKind kind);
ScheduleKind schedule_kind_from(const std::string& name);  // throws FormatError for an unknown name

struct Schedule {
  ScheduleKind kind = ScheduleKind::constant;
  double learning_rate = 1e-3;  // reached after warm_up_steps
  std::int64_t warm_up_steps =
      100;  // the rate rises linearly: learning_rate * (step + 1) / warm_up_steps
  double final_learning_rate =
      0;                   // cosine: reached at the last of `steps` updates and kept from then on
  std::int64_t steps = 0;  // cosine: updates of the whole run, the warm-up included
  bool operator==(const Schedule&) const = default;
};

// The rate of update `step`, 0 first. Cosine after the warm-up (Loshchilov and Hutter, "SGDR",
// 2017, without restarts):
//   final + (learning_rate - final) (1 + cos(pi s)) / 2,  s = (step - warm_up_steps) / (steps - 1 -
//   warm_up_steps)
double learning_rate_at(const Schedule& schedule, std::int64_t step);

// Throws Error, saying what would be right, for a schedule that makes no sense.
void check(const Schedule& schedule);

}  // namespace fluxion
