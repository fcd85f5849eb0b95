#include <atomic>
#include <thread>

#include "engine/error.h"
#include "models/data/prefetch.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Counts the samples made; fails at one position.
class Counting : public DataSet {
 public:
  explicit Counting(std::uint64_t bad = ~std::uint64_t{0})
      : DataSet("counting", {1}, 0, std::nullopt), bad_(bad) {}
  mutable std::atomic<int> made = 0;

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
    ++made;
    if (position == bad_) throw FormatError("sample " + std::to_string(position) + " is bad");
    x[0] = static_cast<float>(position);
    return 0;
  }

 private:
  std::uint64_t bad_;
};

}  // namespace

TEST_CASE("prefetch: the batches of a data set, in order, from any step on", "[data]") {
  const std::shared_ptr<const DataSet> set =
      make_data_set("glyphs", {.image_size = 8, .flip = true});
  for (const int threads : {1, 3}) {
    Prefetcher batches(set, 4, 9, 5, {.depth = 4, .threads = threads});
    for (std::uint64_t step = 5; step < 40; ++step) {
      CHECK(batches.step() == step);
      const HostBatch batch = batches.next(), expected = set->batch(4, 9, step);
      REQUIRE(batch.x == expected.x);
      REQUIRE(batch.labels == expected.labels);
    }
  }
}

TEST_CASE("prefetch: no more than its depth is made ahead, and it ends while batches wait",
          "[data]") {
  const auto set = std::make_shared<const Counting>();
  {
    Prefetcher batches(set, 1, 0, 0, {.depth = 3, .threads = 2});
    while (set->made < 3) std::this_thread::yield();
    CHECK(batches.next().x[0] == 0);
    while (set->made < 4) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(set->made == 4);
    Prefetcher moved = std::move(batches);
    CHECK(moved.next().x[0] == 1);
  }
  CHECK(set->made <= 5);
}

TEST_CASE("prefetch: a failure reaches the caller at its step, and the next step follows",
          "[data]") {
  Prefetcher batches(std::make_shared<const Counting>(7), 2, 0, 0, {.depth = 4, .threads = 2});
  for (int step = 0; step < 3; ++step)
    CHECK(batches.next().x[1] == static_cast<float>(2 * step + 1));
  CHECK(contains(message_of([&] { batches.next(); }), "sample 7 is bad"));
  CHECK(batches.next().x[0] == 8);
  CHECK_THROWS_AS(Prefetcher(nullptr, 1, 0), Error);
  CHECK_THROWS_AS(Prefetcher(std::make_shared<const Counting>(), 0, 0), Error);
  CHECK_THROWS_AS(Prefetcher(std::make_shared<const Counting>(), 1, 0, 0, {.depth = -1}), Error);
}
