// Expression tapes of the CPU backend against a plain interpreter in f64: random tapes with every
// kind of view, reduction and store, on every instruction set of this processor, with bit-equal
// results for all thread counts; then the corners one by one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/tape/tape_convert.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/cpu/targets.h"
#include "tests/tape_cases.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;
using namespace fluxion::testing;

// ---- running

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete (memory, std::align_val_t{64}); }
};
struct Scratch {
  explicit Scratch(std::size_t size)
      : data(static_cast<std::byte*>(
            ::operator new (std::max<std::size_t>(size, 1), std::align_val_t{64}))) {
    std::memset(data.get(), 0xFF, size);
  }
  std::unique_ptr<std::byte, AlignedDelete> data;
};

std::vector<std::byte*> pointers(std::vector<Bytes>& buffers) {
  std::vector<std::byte*> result;
  for (Bytes& buffer : buffers) result.push_back(buffer.data.get());
  return result;
}

void run_tape(const TapeRunner& runner, std::vector<Bytes>& buffers,
              const std::vector<double>& scalars, const ThreadPool& pool) {
  const auto at = pointers(buffers);
  const Scratch scratch(runner.scratch_bytes(pool.threads()));
  runner.run({at, scalars}, pool, scratch.data.get());
}

void check_case(const TapeCase& test, bool points) {
  std::vector<Bytes> want = test.buffers;
  run_oracle(test.tape, want, test.scalars);
  const TapeRunner runner(test.tape);
  std::vector<Bytes> serial = test.buffers;
  run_tape(runner, serial, test.scalars, ThreadPool(1));
  check_buffers(test.tape, serial, want, test.tolerance);
  static const ThreadPool two(2), five(5);
  for (const ThreadPool* pool : {&two, &five}) {
    std::vector<Bytes> parallel = test.buffers;
    run_tape(runner, parallel, test.scalars, *pool);
    for (std::size_t b = 0; b < serial.size(); ++b) CHECK(parallel[b] == serial[b]);
  }
  if (!points) return;
  // Any cut into runs gives the same bits.
  std::int64_t total = 1;
  for (const std::int64_t extent : test.tape.extents) total *= extent;
  std::vector<Bytes> pieces = test.buffers;
  const auto at = pointers(pieces);
  const Scratch scratch(runner.point_scratch_bytes());
  for (std::int64_t begin = 0, length = 1; begin < total;
       begin += length, length = (length * 7 + 5) % 600 + 1)
    runner.run_points(begin, std::min(length, total - begin), {at, test.scalars}, {},
                      scratch.data.get());
  for (std::size_t b = 0; b < serial.size(); ++b) CHECK(pieces[b] == serial[b]);
}

// ---- small tapes written by hand

Affine strides(Dims coefficients, std::int64_t constant = 0) {
  return {constant, std::move(coefficients)};
}
TapeInstruction load_of(std::int32_t argument, DType dtype, bool narrow = false) {
  return {TapeCode::load, Op::identity, dtype, narrow, argument, {-1, -1, -1}};
}
TapeInstruction op_of(Op op, DType dtype, std::int32_t a, std::int32_t b = -1, std::int32_t c = -1,
                      bool narrow = false) {
  return {TapeCode::apply, op, dtype, narrow, 0, {a, b, c}};
}
TapeInstruction reduce_of(Op op, DType dtype, std::int32_t a) {
  return {TapeCode::reduce, op, dtype, true, 0, {a, -1, -1}};
}

template <class T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data.get(), values.data(), bytes.size);
  return bytes;
}
template <class T>
std::vector<T> values_of(const Bytes& bytes) {
  std::vector<T> values(bytes.size / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data.get(), bytes.size);
  return values;
}

}  // namespace

TEST_CASE("random maps agree with the plain interpreter on every instruction set", "[cpu][tape]") {
  for_each_target([](const char* target) {
    for (std::uint32_t seed = 0; seed < 120; ++seed) {
      INFO(target << ", seed " << seed);
      check_case(random_tape(seed, seed % 3 == 2 ? DType::f64 : DType::f32, false), true);
    }
  });
}

TEST_CASE("random reductions agree with the plain interpreter on every instruction set",
          "[cpu][tape]") {
  for_each_target([](const char* target) {
    for (std::uint32_t seed = 1000; seed < 1250; ++seed) {
      INFO(target << ", seed " << seed);
      check_case(random_tape(seed, seed % 3 == 2 ? DType::f64 : DType::f32, true), false);
    }
  });
}

TEST_CASE("a long sum in f32 is good to a millionth, split or not", "[cpu][tape]") {
  const std::int64_t n = 1000003;
  std::vector<float> x(static_cast<std::size_t>(n));
  std::mt19937 engine(7);
  double want = 0;
  for (float& value : x) want += value = static_cast<float>(engine()) * 0x1p-32f;
  // To a scalar; along rows of two; down columns of forty.
  struct Layout {
    std::int64_t kept, reduced, kept_step, reduced_step;
  };
  for (const Layout layout :
       {Layout{1, n, 0, 1}, Layout{2, n / 2, n / 2, 1}, Layout{40, n / 40, 1, 40}}) {
    Tape tape;
    tape.extents = {layout.kept, layout.reduced};
    tape.reduced_axes = 1;
    tape.streaming = true;
    tape.loads = {{0, DType::f32, strides({layout.kept_step, layout.reduced_step}), {}}};
    tape.instructions = {load_of(0, DType::f32), reduce_of(Op::sum, DType::f32, 0)};
    tape.stores = {{1, 1, DType::f32, strides({1, 0})}};
    std::vector<Bytes> buffers{bytes_of(x), Bytes(static_cast<std::size_t>(layout.kept) * 4)};
    run_tape(TapeRunner(tape), buffers, {}, ThreadPool(2));
    const auto sums = values_of<float>(buffers[1]);
    for (std::int64_t k = 0; k < layout.kept; ++k) {
      double exact = 0;
      for (std::int64_t r = 0; r < layout.reduced; ++r)
        exact += x[static_cast<std::size_t>(k * layout.kept_step + r * layout.reduced_step)];
      CHECK(std::abs(sums[static_cast<std::size_t>(k)] - exact) < 5e-7 * exact);
    }
  }
  CHECK(want > 0);
}

TEST_CASE("a reduction over nothing gives its identity", "[cpu][tape]") {
  for (const bool streaming : {false, true}) {
    Tape tape;
    tape.extents = {5, 0};
    tape.reduced_axes = 1;
    tape.streaming = streaming;
    tape.loads = {{0, DType::f32, strides({0, 1}), {}}};
    tape.instructions = {load_of(0, DType::f32), reduce_of(Op::sum, DType::f32, 0),
                         reduce_of(Op::max, DType::f32, 0), reduce_of(Op::min, DType::f32, 0)};
    tape.stores = {{1, 1, DType::f32, strides({1, 0})},
                   {2, 2, DType::f32, strides({1, 0})},
                   {3, 3, DType::f32, strides({1, 0})}};
    std::vector<Bytes> buffers{Bytes(0), Bytes(20), Bytes(20), Bytes(20)};
    run_tape(TapeRunner(tape), buffers, {}, ThreadPool(1));
    CHECK(values_of<float>(buffers[1]) == std::vector<float>(5, 0.0f));
    CHECK(values_of<float>(buffers[2]) == std::vector<float>(5, -INFINITY));
    CHECK(values_of<float>(buffers[3]) == std::vector<float>(5, INFINITY));
  }
}

TEST_CASE("NaN wins in max and min, wherever it stands", "[cpu][tape]") {
  for_each_target([](const char*) {
    for (const std::int64_t columns : {1, 3, 49, 130}) {
      for (std::int64_t place = 0; place < columns; ++place) {
        for (const bool streaming : {false, true}) {
          std::vector<float> x(static_cast<std::size_t>(2 * columns));
          for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
          x[static_cast<std::size_t>(place)] = NAN;
          Tape tape;
          tape.extents = {2, columns};
          tape.reduced_axes = 1;
          tape.streaming = streaming;
          tape.loads = {{0, DType::f32, strides({columns, 1}), {}}};
          tape.instructions = {load_of(0, DType::f32), reduce_of(Op::max, DType::f32, 0),
                               reduce_of(Op::min, DType::f32, 0)};
          tape.stores = {{1, 1, DType::f32, strides({1, 0})}, {2, 2, DType::f32, strides({1, 0})}};
          std::vector<Bytes> buffers{bytes_of(x), Bytes(8), Bytes(8)};
          run_tape(TapeRunner(tape), buffers, {}, ThreadPool(1));
          const auto high = values_of<float>(buffers[1]), low = values_of<float>(buffers[2]);
          REQUIRE(std::isnan(high[0]));
          REQUIRE(std::isnan(low[0]));
          REQUIRE(high[1] == *std::max_element(x.begin() + columns, x.end()));
          REQUIRE(low[1] == *std::min_element(x.begin() + columns, x.end()));
        }
      }
    }
  });
}

TEST_CASE("integers wrap, shift and compare as integers", "[cpu][tape]") {
  for_each_target([](const char*) {
    const std::vector<std::uint32_t> a{0, 1, 0xFFFFFFFFu, 0x80000000u, 123456789u, 7},
        b{3, 31, 2, 1, 4, 0};
    Tape tape;
    tape.extents = {6};
    tape.loads = {{0, DType::u32, strides({1}), {}}, {1, DType::u32, strides({1}), {}}};
    tape.instructions = {load_of(0, DType::u32), load_of(1, DType::u32)};
    const std::vector<Op> ops{Op::add, Op::sub, Op::mul, Op::shift_right, Op::maximum, Op::minimum};
    const std::vector<Op> comparisons{Op::lt, Op::le, Op::gt, Op::ge, Op::eq, Op::ne};
    std::vector<Bytes> buffers{bytes_of(a), bytes_of(b)};
    for (const Op op : ops) {
      tape.instructions.push_back(op_of(op, DType::u32, 0, 1));
      tape.stores.push_back({static_cast<std::int32_t>(tape.instructions.size() - 1),
                             static_cast<std::int32_t>(buffers.size()), DType::u32, strides({1})});
      buffers.emplace_back(24);
    }
    for (const Op op : comparisons) {
      tape.instructions.push_back(op_of(op, DType::boolean, 0, 1));
      tape.stores.push_back({static_cast<std::int32_t>(tape.instructions.size() - 1),
                             static_cast<std::int32_t>(buffers.size()), DType::boolean,
                             strides({1})});
      buffers.emplace_back(6);
    }
    std::vector<Bytes> want = buffers;
    run_oracle(tape, want, {});
    run_tape(TapeRunner(tape), buffers, {}, ThreadPool(1));
    for (std::size_t i = 0; i < buffers.size(); ++i) CHECK(buffers[i] == want[i]);
  });
}

TEST_CASE("every comparison with NaN is false, but ne", "[cpu][tape]") {
  for_each_target([](const char* target) {
    const std::vector<double> corners{0.0, -0.0, 1, -1, INFINITY, -INFINITY, NAN};
    const std::int64_t n = static_cast<std::int64_t>(corners.size());
    for (const DType dtype : {DType::f32, DType::f64}) {
      Tape tape;
      tape.extents = {n, n};
      tape.loads = {{0, dtype, strides({1, 0}), {}}, {0, dtype, strides({0, 1}), {}}};
      tape.instructions = {load_of(0, dtype), load_of(1, dtype)};
      std::vector<Bytes> buffers{Bytes(corners.size() * size_of(dtype))};
      for (std::int64_t i = 0; i < n; ++i)
        write(buffers[0], dtype, i, corners[static_cast<std::size_t>(i)]);
      for (const Op op : {Op::lt, Op::le, Op::gt, Op::ge, Op::eq, Op::ne}) {
        tape.instructions.push_back(op_of(op, DType::boolean, 0, 1));
        tape.stores.push_back({static_cast<std::int32_t>(tape.instructions.size() - 1),
                               static_cast<std::int32_t>(buffers.size()), DType::boolean,
                               strides({n, 1})});
        buffers.emplace_back(static_cast<std::size_t>(n * n));
      }
      std::vector<Bytes> want = buffers;
      run_oracle(tape, want, {});
      run_tape(TapeRunner(tape), buffers, {}, ThreadPool(1));
      INFO(target << " " << to_string(dtype));
      for (std::size_t i = 0; i < buffers.size(); ++i) CHECK(buffers[i] == want[i]);
    }
  });
}

TEST_CASE("conversions between registers truncate, saturate and take NaN to zero", "[cpu][tape]") {
  for_each_target([](const char*) {
    const std::vector<double> x{0,
                                -0.0,
                                0.9,
                                -0.9,
                                1.5,
                                -1.5,
                                2147483647.0,
                                2147483648.0,
                                -2147483648.0,
                                -2147483649.0,
                                4294967295.0,
                                4294967296.0,
                                1e30,
                                -1e30,
                                NAN,
                                INFINITY,
                                -INFINITY};
    const std::int64_t n = static_cast<std::int64_t>(x.size());
    for (const DType from : {DType::f32, DType::f64, DType::i32, DType::u32, DType::boolean}) {
      for (const DType to : {DType::f32, DType::f64, DType::i32, DType::u32, DType::boolean}) {
        std::vector<Bytes> buffers{Bytes(x.size() * size_of(from)), Bytes(x.size() * size_of(to))};
        for (std::int64_t i = 0; i < n; ++i)
          write(buffers[0], from, i, x[static_cast<std::size_t>(i)]);
        Tape tape;
        tape.extents = {n};
        tape.loads = {{0, from, strides({1}), {}}};
        tape.instructions = {load_of(0, from), op_of(Op::convert, to, 0)};
        tape.stores = {{1, 1, to, strides({1})}};
        run_tape(TapeRunner(tape), buffers, {}, ThreadPool(1));
        for (std::int64_t i = 0; i < n; ++i) {
          const double source = read(buffers[0], from, i), got = read(buffers[1], to, i);
          double want = source;
          if (to == DType::boolean)
            want = source != 0;
          else if (is_floating(from) && to == DType::i32)
            want = std::isnan(source) ? 0
                                      : std::trunc(std::clamp(source, -2147483648.0, 2147483647.0));
          else if (is_floating(from) && to == DType::u32)
            want = std::isnan(source) ? 0 : std::trunc(std::clamp(source, 0.0, 4294967295.0));
          else if (to == DType::i32 || to == DType::u32)
            want = in_register(to, source);
          else if (to == DType::f32)
            want = static_cast<float>(source);
          INFO(to_string(from) << " " << source << " to " << to_string(to));
          CHECK((got == want || (std::isnan(got) && std::isnan(want))));
        }
      }
    }
  });
}

TEST_CASE("an epilogue reads the results it is given, in any runs", "[cpu][tape]") {
  for_each_target([](const char*) {
    // out[i, j] = tanh(result0[i, j]) * row[i] + bias[j] + result1[i, j], 23 x 37
    const std::int64_t m = 23, n = 37;
    Tape tape;
    tape.extents = {m, n};
    tape.loads = {{0, DType::f32, strides({1, 0}), {}}, {1, DType::f32, strides({0, 1}), {}}};
    tape.instructions = {{TapeCode::result, Op::identity, DType::f32, false, 0, {-1, -1, -1}},
                         {TapeCode::result, Op::identity, DType::f32, false, 1, {-1, -1, -1}},
                         load_of(0, DType::f32),
                         load_of(1, DType::f32),
                         op_of(Op::tanh, DType::f32, 0),
                         op_of(Op::mul, DType::f32, 4, 2),
                         op_of(Op::add, DType::f32, 5, 3),
                         op_of(Op::add, DType::f32, 6, 1)};
    tape.stores = {{7, 2, DType::f32, strides({n, 1})}};
    std::mt19937 engine(3);
    const auto random = [&](std::int64_t count) {
      std::vector<float> values(static_cast<std::size_t>(count));
      for (float& value : values) value = static_cast<float>(engine() % 2001) / 1000 - 1;
      return values;
    };
    const auto r0 = random(m * n), r1 = random(m * n);
    std::vector<Bytes> buffers{bytes_of(random(m)), bytes_of(random(n)),
                               Bytes(static_cast<std::size_t>(m * n) * 4)};
    std::vector<Bytes> want = buffers;
    run_oracle(tape, want, {}, {{r0.begin(), r0.end()}, {r1.begin(), r1.end()}});
    const TapeRunner runner(tape);
    const Scratch scratch(runner.point_scratch_bytes());
    std::optional<Bytes> first;
    for (const std::int64_t length : {1, 5, 16, 37, 64, 851}) {
      std::memset(buffers[2].data.get(), 0, buffers[2].size);
      const auto at = pointers(buffers);
      for (std::int64_t begin = 0; begin < m * n; begin += length) {
        const std::int64_t count = std::min(length, m * n - begin);
        // Copies of exactly this run, so that reading past its end would be seen.
        const Bytes a =
            bytes_of(std::vector<float>(r0.begin() + begin, r0.begin() + begin + count));
        const Bytes b =
            bytes_of(std::vector<float>(r1.begin() + begin, r1.begin() + begin + count));
        const void* results[] = {a.data.get(), b.data.get()};
        runner.run_points(begin, count, {at, {}}, results, scratch.data.get());
      }
      check_buffers(tape, buffers, want, 1e-6);
      if (!first) first.emplace(buffers[2]);
      CHECK(buffers[2] == *first);
    }
  });
}

TEST_CASE("an output may take over an input's memory under another buffer number", "[cpu][tape]") {
  // p' = p - rate m', m' = decay m + g: three buffers read, two written over p and m.
  const std::int64_t n = 1000;
  Tape tape;
  tape.extents = {n};
  tape.loads = {{0, DType::f32, strides({1}), {}},
                {1, DType::f32, strides({1}), {}},
                {2, DType::f32, strides({1}), {}}};
  tape.instructions = {load_of(0, DType::f32),
                       load_of(1, DType::f32),
                       load_of(2, DType::f32),
                       {TapeCode::scalar, Op::identity, DType::f32, false, 0, {-1, -1, -1}},
                       {TapeCode::scalar, Op::identity, DType::f32, false, 1, {-1, -1, -1}},
                       op_of(Op::mul, DType::f32, 1, 4),
                       op_of(Op::add, DType::f32, 5, 2),
                       op_of(Op::mul, DType::f32, 6, 3),
                       op_of(Op::sub, DType::f32, 0, 7)};
  // Also p as it was, over g: a value that is stored exactly as it was loaded.
  tape.stores = {{8, 3, DType::f32, strides({1})},
                 {6, 4, DType::f32, strides({1})},
                 {0, 5, DType::f32, strides({1})}};
  std::vector<float> p(n), m(n), g(n);
  for (std::int64_t i = 0; i < n; ++i) {
    p[static_cast<std::size_t>(i)] = static_cast<float>(i);
    m[static_cast<std::size_t>(i)] = static_cast<float>(i % 13) - 6;
    g[static_cast<std::size_t>(i)] = static_cast<float>(i % 5) * 0.25f;
  }
  std::vector<Bytes> apart{bytes_of(p),  bytes_of(m),  bytes_of(g),
                           Bytes(4 * n), Bytes(4 * n), Bytes(4 * n)};
  const std::vector<double> scalars{0.125, 0.5};
  const TapeRunner runner(tape);
  run_tape(runner, apart, scalars, ThreadPool(1));
  std::vector<Bytes> shared{bytes_of(p), bytes_of(m), bytes_of(g)};
  auto at = pointers(shared);
  at.insert(at.end(), {at[0], at[1], at[2]});
  const ThreadPool pool(2);
  const Scratch scratch(runner.scratch_bytes(pool.threads()));
  runner.run({at, scalars}, pool, scratch.data.get());
  CHECK(shared[0] == apart[3]);
  CHECK(shared[1] == apart[4]);
  CHECK(shared[2] == apart[5]);
}

TEST_CASE("a tape with results refuses to run by itself", "[cpu][tape]") {
  Tape tape;
  tape.extents = {4};
  tape.instructions = {{TapeCode::result, Op::identity, DType::f32, false, 0, {-1, -1, -1}}};
  tape.stores = {{0, 0, DType::f32, strides({1})}};
  CHECK_THROWS_AS(TapeRunner(tape).run({}, ThreadPool(1), nullptr), Error);
}
