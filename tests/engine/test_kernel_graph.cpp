// The planner's mechanisms, each alone: the kernel graph, and the passes of the schedule.
#include <algorithm>
#include <array>
#include <random>

#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/plan/schedule.h"
#include "engine/plan/tape_edit.h"
#include "tests/catch.h"

namespace fluxion::plan {

namespace {

KernelGraph chain(std::int64_t length) {
  KernelGraph graph;
  for (std::int64_t k = 0; k < length; ++k) graph.add_last();
  for (std::int64_t k = 1; k < length; ++k) graph.connect(KernelId(k - 1), KernelId(k));
  return graph;
}

// A copy of buffer `from` to buffer `to`, element for element.
LoweredKernel copy(std::int32_t from, std::int32_t to, std::int64_t position) {
  Tape tape;
  tape.extents = {4};
  tape.loads = {{from, DType::f32, {0, {1}}, {}}};
  tape.instructions = {{TapeCode::load, Op::identity, DType::f32, false, 0, {-1, -1, -1}}};
  tape.stores = {{0, to, DType::f32, {0, {1}}}};
  return {TapeKernel{tape}, NodeId(position)};
}

LoweredKernel after(std::int32_t x, std::int32_t token, std::int32_t result,
                    std::int64_t position) {
  const TensorType type{{4}, DType::f32};
  return {OpKernel{Op::after, NoAttributes{}, {x, token}, {result}, {type, type}, {type}, {}},
          NodeId(position)};
}

Slots slots(std::initializer_list<BufferKind> kinds) {
  Slots result;
  for (const BufferKind kind : kinds) result.add({kind, {{4}, DType::f32}, 0, 0});
  return result;
}

constexpr auto input = BufferKind::input, output = BufferKind::output,
               temporary = BufferKind::temporary;

}  // namespace

TEST_CASE("kernels merge unless a path leads out of them and back", "[engine][plan]") {
  KernelGraph graph = chain(3);
  const KernelId a(0), b(1), c(2);
  CHECK_FALSE(graph.would_cycle(std::array{a, b}));
  CHECK(graph.would_cycle(std::array{a, c}));
  CHECK_FALSE(graph.would_cycle(std::array{a, b, c}));
  CHECK(graph.would_cycle(std::array{c}, std::array{a}));
  CHECK(graph.depends(c, a));
  CHECK_FALSE(graph.depends(a, c));
  graph.merge(a, b);
  CHECK(graph.of(b) == a);
  CHECK_FALSE(graph.alive(b));
  CHECK(graph.users(a) == std::vector{c});
  CHECK_FALSE(graph.would_cycle(std::array{a, c}));
}

TEST_CASE("a dependence that closes a circle is an error", "[engine][plan]") {
  KernelGraph graph = chain(3);
  CHECK_THROWS_AS(graph.connect(KernelId(2), KernelId(0)), Error);
}

TEST_CASE("the kernel graph answers as a search of all paths does", "[engine][plan]") {
  // Kernels by number, so that edges from lower to higher ones make no circle; added in random
  // places.
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    constexpr std::size_t count = 12;
    KernelGraph graph;
    std::vector<KernelId> kernels;
    for (std::size_t k = 0; k < count; ++k)
      kernels.push_back(below(2) == 0 ? graph.add_first() : graph.add_last());
    std::vector<std::vector<bool>> path(count, std::vector<bool>(count, false));
    for (std::size_t edge = 0; edge < 16; ++edge) {
      const std::size_t a = below(count - 1), b = a + 1 + below(count - 1 - a);
      graph.connect(kernels[a], kernels[b]);
      for (std::size_t from = 0; from < count; ++from)
        for (std::size_t to = 0; to < count; ++to)
          if ((from == a || path[from][a]) && (to == b || path[b][to])) path[from][to] = true;
    }
    for (std::size_t a = 0; a < count; ++a)
      for (std::size_t b = 0; b < count; ++b) {
        if (a == b) continue;
        bool around = false;
        for (std::size_t via = 0; via < count; ++via)
          around = around || (path[a][via] && path[via][b]) || (path[b][via] && path[via][a]);
        CHECK(graph.depends(kernels[b], kernels[a]) == path[a][b]);
        CHECK(graph.would_cycle(std::array{kernels[a], kernels[b]}) == around);
        CHECK(graph.related(kernels[a])[kernels[b]] == (path[a][b] || path[b][a]));
      }
  }
}

TEST_CASE("a barrier is no kernel: its readers read x and wait for the token", "[engine][plan]") {
  // 0 -> 1, the token; after(0, 1) = 2 -> 3.
  Kernels kernels;
  kernels.add(copy(0, 1, 1));
  kernels.add(after(0, 1, 2, 2));
  kernels.add(copy(2, 3, 3));
  const Waits waits = dissolve_barriers(kernels, slots({input, temporary, temporary, output}));
  REQUIRE(kernels.size() == 2);
  CHECK(reads(kernels[KernelId(1)].kernel) == std::vector{BufferId(0)});
  CHECK(waits[KernelId(0)].empty());
  CHECK(waits[KernelId(1)] == std::set{BufferId(1)});
}

TEST_CASE("what could overwrite a donated input commits, and so does what depends on it",
          "[engine][plan]") {
  Kernels kernels;
  kernels.add(copy(0, 1, 1));  // over the donated input
  kernels.add(copy(1, 2, 2));  // reads its result
  kernels.add(copy(0, 3, 3));  // only a temporary
  const Traffic traffic(kernels, 4);
  const auto commits =
      commit_set(kernels, traffic.dependences(), {BufferId(0)}, {BufferId(1), BufferId(2)});
  CHECK(commits.items() == std::vector{true, true, false});
}

TEST_CASE("the commit set runs last", "[engine][plan]") {
  Kernels kernels;
  kernels.add(copy(0, 1, 1));
  kernels.add(copy(0, 2, 2));
  kernels.add(copy(2, 3, 3));
  const Traffic traffic(kernels, 4);
  Indexed<KernelId, bool> commits(3);
  commits[KernelId(0)] = true;
  const Order order = find_order(kernels, traffic, traffic.dependences(),
                                 slots({input, output, temporary, output}), commits);
  CHECK(order.kernels == std::vector{KernelId(1), KernelId(2), KernelId(0)});
}

TEST_CASE("lifetimes that meet in time are apart in memory, each in one block", "[engine][plan]") {
  for (unsigned seed = 0; seed < 100; ++seed) {
    std::mt19937 random(seed);
    const std::int64_t block = seed % 2 == 0 ? one_block : 5 * 64;
    std::vector<Lifetime> lifetimes;
    for (int i = 0; i < 40; ++i) {
      const auto from = static_cast<std::int32_t>(random() % 30);
      lifetimes.push_back({from, from + static_cast<std::int32_t>(random() % 10),
                           static_cast<std::int64_t>(random() % 5) * 64});
    }
    for (const auto place : {place_by_size, place_by_time}) {
      std::vector<Lifetime> placed = lifetimes;
      const std::int64_t bytes = place(placed, block);
      for (const Lifetime& a : placed) {
        CHECK(a.offset + a.bytes <= bytes);
        if (a.bytes > 0) CHECK(a.offset / block == (a.offset + a.bytes - 1) / block);
        for (const Lifetime& b : placed) {
          if (&a == &b || a.bytes == 0 || b.bytes == 0) continue;
          const bool together = a.from <= b.to && b.from <= a.to;
          const bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
          CHECK_FALSE((together && overlap));
        }
      }
    }
  }
}

}  // namespace fluxion::plan
