#include "models/optimisers/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"

namespace fluxion {

std::string to_string(ScheduleKind kind) {
  return kind == ScheduleKind::constant ? "constant" : "cosine";
}

ScheduleKind schedule_kind_from(const std::string& name) {
  if (name == "constant") return ScheduleKind::constant;
  if (name == "cosine") return ScheduleKind::cosine;
  throw FormatError("schedule '" + name + "' is not one of 'constant', 'cosine'");
}

double learning_rate_at(const Schedule& schedule, std::int64_t step) {
  if (step < schedule.warm_up_steps)
    return schedule.learning_rate *
           (static_cast<double>(step + 1) / static_cast<double>(schedule.warm_up_steps));
  if (schedule.kind == ScheduleKind::constant) return schedule.learning_rate;
  const std::int64_t last = schedule.steps - 1, span = last - schedule.warm_up_steps;
  if (step >= last || span <= 0) return schedule.final_learning_rate;
  const double progress =
      static_cast<double>(step - schedule.warm_up_steps) / static_cast<double>(span);
  return schedule.final_learning_rate + (schedule.learning_rate - schedule.final_learning_rate) *
                                            (0.5 + 0.5 * std::cos(std::numbers::pi * progress));
}

void check(const Schedule& schedule) {
  const auto wrong = [](const std::string& what) { throw Error("schedule: " + what); };
  if (!(schedule.learning_rate > 0) || !fits_single(schedule.learning_rate))
    wrong("the learning rate must be positive and finite in single precision, got " +
          number_text(schedule.learning_rate));
  if (schedule.warm_up_steps < 0)
    wrong("warm-up of " + std::to_string(schedule.warm_up_steps) + " steps; 0 is none");
  if (schedule.kind == ScheduleKind::constant) return;
  if (!(schedule.final_learning_rate >= 0) ||
      !(schedule.final_learning_rate <= schedule.learning_rate))
    wrong("the final learning rate must be between 0 and the learning rate, got " +
          number_text(schedule.final_learning_rate));
  if (!fits_single(schedule.final_learning_rate))
    wrong("the final learning rate is 0 in single precision, got " +
          number_text(schedule.final_learning_rate));
  if (schedule.steps <= schedule.warm_up_steps)
    wrong("cosine goes over more steps than the warm-up's " +
          std::to_string(schedule.warm_up_steps) + ", got " + std::to_string(schedule.steps));
}

}  // namespace fluxion
