#include "models/optimisers/schedule.h"

#include "engine/error.h"
#include "tests/catch.h"

using namespace fluxion;

TEST_CASE("the learning rate rises linearly and stays", "[schedule]") {
  const Schedule schedule{.learning_rate = 2, .warm_up_steps = 4};
  CHECK(learning_rate_at(schedule, 0) == 0.5);
  CHECK(learning_rate_at(schedule, 3) == 2);
  CHECK(learning_rate_at(schedule, 100) == 2);
  CHECK(learning_rate_at({.learning_rate = 2, .warm_up_steps = 0}, 0) == 2);
}

TEST_CASE("a cosine starts at the rate, is halfway at half time, and ends at the final rate",
          "[schedule]") {
  const Schedule schedule{.kind = ScheduleKind::cosine,
                          .learning_rate = 3,
                          .warm_up_steps = 10,
                          .final_learning_rate = 1,
                          .steps = 111};
  CHECK(learning_rate_at(schedule, 4) == 1.5);
  CHECK(learning_rate_at(schedule, 10) == 3);
  CHECK(learning_rate_at(schedule, 60) == Approx(2));
  CHECK(learning_rate_at(schedule, 110) == 1);
  CHECK(learning_rate_at(schedule, 5000) == 1);
  for (std::int64_t step = 10; step < 110; ++step)
    CHECK(learning_rate_at(schedule, step + 1) < learning_rate_at(schedule, step));
}

TEST_CASE("schedules that make no sense are refused", "[schedule]") {
  CHECK_NOTHROW(check(Schedule{}));
  CHECK_NOTHROW(check({.kind = ScheduleKind::cosine, .steps = 101}));
  CHECK_THROWS_AS(check({.learning_rate = 0}), Error);
  CHECK_THROWS_AS(check({.learning_rate = -1}), Error);
  CHECK_THROWS_AS(check({.warm_up_steps = -1}), Error);
  CHECK_THROWS_AS(check({.kind = ScheduleKind::cosine, .steps = 100}), Error);
  CHECK_THROWS_AS(check({.kind = ScheduleKind::cosine, .final_learning_rate = 1, .steps = 200}),
                  Error);
  CHECK(schedule_kind_from(to_string(ScheduleKind::cosine)) == ScheduleKind::cosine);
  CHECK_THROWS_AS(schedule_kind_from("cosin"), FormatError);
}
