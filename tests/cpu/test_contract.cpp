// Contractions of the CPU backend against a plain triple loop in f64, over random shapes, views,
// terms and epilogues, on every instruction set that this processor has.
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>

#include "backends/cpu/gemm/contract_kernel.h"
#include "backends/cpu/gemm/gemm_kernel.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(bound));
  }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  bool one_in(std::int64_t n) { return below(n) == 0; }
  double value() { return static_cast<double>(below(2001)) / 1000.0 - 1.0; }
  // A product of up to three factors.
  Dims digits(std::int64_t size) {
    Dims sizes;
    for (std::int64_t divisor = 2; divisor <= size && sizes.size() < 2; ++divisor) {
      if (size % divisor == 0 && one_in(2)) {
        sizes.push_back(divisor);
        size /= divisor;
      }
    }
    sizes.push_back(size);
    std::shuffle(sizes.begin(), sizes.end(), engine_);
    return sizes;
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    std::shuffle(items.begin(), items.end(), engine_);
  }

 private:
  std::mt19937 engine_;
};

// The offset of every position of an axis.
Dims offsets(const OperandAxis& axis, std::int64_t size) {
  Dims result(static_cast<std::size_t>(size), 0);
  for (std::int64_t position = 0; position < size; ++position) {
    std::int64_t rest = position;
    for (std::size_t i = axis.sizes.size(); i-- > 0; rest /= axis.sizes[i]) {
      result[static_cast<std::size_t>(position)] += rest % axis.sizes[i] * axis.strides[i];
    }
  }
  return result;
}

// Buffers of one call, of floating elements.
struct Arrays {
  explicit Arrays(DType usual) : usual(usual) {}
  DType usual;
  std::vector<DType> dtypes;
  std::vector<std::vector<std::byte>> bytes;

  std::int32_t add(std::int64_t elements) { return add(elements, usual); }
  std::int32_t add(std::int64_t elements, DType dtype) {
    dtypes.push_back(dtype);
    bytes.emplace_back(static_cast<std::size_t>(elements) * size_of(dtype));
    return static_cast<std::int32_t>(bytes.size()) - 1;
  }
  DType dtype(std::int32_t buffer) const { return dtypes[static_cast<std::size_t>(buffer)]; }
  std::int64_t elements(std::int32_t buffer) const {
    return static_cast<std::int64_t>(bytes[static_cast<std::size_t>(buffer)].size() /
                                     size_of(dtype(buffer)));
  }
  // Calls f with a pointer to element i.
  template <class F>
  auto at(std::int32_t buffer, std::int64_t i, F&& f) const {
    const std::byte* data = bytes[static_cast<std::size_t>(buffer)].data();
    switch (dtype(buffer)) {
      case DType::bf16:
        return f(reinterpret_cast<const BFloat16*>(data) + i);
      case DType::f16:
        return f(reinterpret_cast<const Float16*>(data) + i);
      case DType::f64:
        return f(reinterpret_cast<const double*>(data) + i);
      default:
        return f(reinterpret_cast<const float*>(data) + i);
    }
  }
  double get(std::int32_t buffer, std::int64_t i) const {
    return at(buffer, i, []<class T>(const T* element) {
      if constexpr (sizeof(T) == 2)
        return static_cast<double>(to_f32(*element));
      else
        return static_cast<double>(*element);
    });
  }
  void set(std::int32_t buffer, std::int64_t i, double value) {
    at(buffer, i, [value]<class T>(const T* element) {
      T& to = const_cast<T&>(*element);
      if constexpr (std::is_same_v<T, BFloat16>)
        to = to_bf16(static_cast<float>(value));
      else if constexpr (std::is_same_v<T, Float16>)
        to = to_f16(static_cast<float>(value));
      else
        to = static_cast<T>(value);
    });
  }
  // The same numbers in f32.
  void widen(std::int32_t buffer) {
    if (dtype(buffer) == DType::f32) return;
    Arrays wide(DType::f32);
    wide.add(elements(buffer));
    for (std::int64_t i = 0; i < elements(buffer); ++i) wide.set(0, i, get(buffer, i));
    bytes[static_cast<std::size_t>(buffer)] = std::move(wide.bytes[0]);
    dtypes[static_cast<std::size_t>(buffer)] = DType::f32;
  }
  void fill(std::int32_t buffer, Random& random) {
    for (std::int64_t i = 0; i < elements(buffer); ++i) set(buffer, i, random.value());
  }
  void fill(std::int32_t buffer, double value) {
    for (std::int64_t i = 0; i < elements(buffer); ++i) set(buffer, i, value);
  }
};

void run(const ContractKernel& kernel, Arrays& arrays, int threads) {
  const ContractRunner runner(kernel);
  const ThreadPool pool(threads);
  std::vector<std::byte*> buffers;
  for (auto& bytes : arrays.bytes) buffers.push_back(bytes.data());
  // A guard behind the scratch memory shows writes past its end.
  const std::size_t scratch_bytes = runner.scratch_bytes(threads), guard_bytes = 256;
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines((scratch_bytes + guard_bytes) / sizeof(Line) + 1);
  auto* const scratch = reinterpret_cast<std::byte*>(lines.data());
  std::memset(scratch, 0xff, scratch_bytes + guard_bytes);  // NaNs
  runner.run({buffers, {}}, pool, scratch);
  CHECK(std::all_of(scratch + scratch_bytes, scratch + scratch_bytes + guard_bytes,
                    [](std::byte byte) { return byte == std::byte{0xff}; }));
}

// A view of [batch, rows, columns] in a new buffer: digits of all axes in random order, gaps
// between them, batch digits possibly broadcast.
ContractOperand random_operand(Random& random, Arrays& arrays, DType dtype, std::int64_t batch,
                               std::int64_t rows, std::int64_t columns, bool plain) {
  ContractOperand operand;
  operand.batch.sizes = plain ? Dims{batch} : random.digits(batch);
  operand.rows.sizes = plain ? Dims{rows} : random.digits(rows);
  operand.columns.sizes = plain ? Dims{columns} : random.digits(columns);
  std::vector<std::pair<std::int64_t, std::int64_t*>> digits;  // size, stride
  for (OperandAxis* axis : {&operand.batch, &operand.rows, &operand.columns}) {
    axis->strides.assign(axis->sizes.size(), 0);
    for (std::size_t i = 0; i < axis->sizes.size(); ++i) {
      if (axis == &operand.batch && random.one_in(4)) continue;
      digits.emplace_back(axis->sizes[i], &axis->strides[i]);
    }
  }
  if (!plain || random.one_in(2)) random.shuffle(digits);
  operand.offset = random.below(5);
  std::int64_t extent = 1;
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit) {
    *digit->second = extent;
    extent *= std::max<std::int64_t>(1, digit->first);
    if (random.one_in(4)) extent += random.below(3);
  }
  operand.buffer = arrays.add(operand.offset + extent, dtype);
  arrays.fill(operand.buffer, random);
  return operand;
}

// Row-major order, possibly permuted, of the tape's extents.
Affine random_address(Random& random, const Dims& extents, bool permute) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < extents.size(); ++i) order.push_back(i);
  if (permute) random.shuffle(order);
  Affine address;
  address.coefficients.assign(extents.size(), 0);
  std::int64_t extent = 1;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    address.coefficients[*axis] = extent;
    extent *= std::max<std::int64_t>(1, extents[*axis]);
  }
  return address;
}

std::int64_t address(const Affine& affine, const Dims& extents, std::int64_t point) {
  std::int64_t result = affine.constant;
  for (std::size_t axis = extents.size(); axis-- > 0; point /= extents[axis])
    result += affine.coefficients[axis] * (point % extents[axis]);
  return result;
}

enum class Epilogue {
  store,     // y_r = result r
  permuted,  // the same, each with axes in an order of its own
  bias,      // y_r = result r * result 0 + bias[n]
};

struct ContractCase {
  DType dtype = DType::f32;
  std::int64_t batch = 1, m = 1, n = 1, k = 1;
  std::int32_t results = 1;
  int terms = 1;
  bool plain_views = false;
  Epilogue epilogue = Epilogue::store;
  std::optional<DType> lhs{}, rhs{};  // of the operands, where not `dtype`
};

std::ostream& operator<<(std::ostream& out, const ContractCase& c) {
  return out << to_string(c.lhs.value_or(c.dtype)) << " x " << to_string(c.rhs.value_or(c.dtype))
             << " -> " << to_string(c.dtype) << " " << c.batch << ": " << c.m << " x " << c.k
             << " x " << c.n << ", results " << c.results << ", terms " << c.terms << ", plain "
             << c.plain_views << ", epilogue " << static_cast<int>(c.epilogue);
}

TapeInstruction instruction(TapeCode code, DType dtype, std::int32_t argument) {
  TapeInstruction made;
  made.code = code;
  made.dtype = dtype;
  made.argument = argument;
  return made;
}
TapeInstruction apply(Op op, DType dtype, std::int32_t a, std::int32_t b) {
  TapeInstruction made = instruction(TapeCode::apply, dtype, 0);
  made.op = op;
  made.operands = {a, b, -1};
  return made;
}

struct Built {
  ContractKernel kernel;
  Arrays arrays;
  std::vector<std::int32_t> outputs;
  std::int32_t bias = -1;
};

Built build(const ContractCase& c, std::uint32_t seed) {
  Random random(seed);
  Built built{{}, Arrays(c.dtype), {}, -1};
  ContractKernel& kernel = built.kernel;
  kernel.lhs = c.lhs.value_or(c.dtype), kernel.rhs = c.rhs.value_or(c.dtype);
  kernel.accumulate = c.dtype;
  kernel.batch = c.batch, kernel.m = c.m, kernel.n = c.n, kernel.k = c.k;
  kernel.results = c.results;
  for (int t = 0; t < c.terms; ++t) {
    ContractTerm term;
    // Half of the later terms share an operand with an earlier one, as the primal and tangent of a
    // layer do.
    const auto earlier = [&] { return kernel.terms[static_cast<std::size_t>(random.below(t))]; };
    term.lhs = t > 0 && random.one_in(2) ? earlier().lhs
                                         : random_operand(random, built.arrays, kernel.lhs, c.batch,
                                                          c.m, c.k, c.plain_views);
    term.rhs = t > 0 && random.one_in(2) ? earlier().rhs
                                         : random_operand(random, built.arrays, kernel.rhs, c.batch,
                                                          c.k, c.n, c.plain_views);
    term.result = static_cast<std::int32_t>(t < c.results ? t : random.below(c.results));
    kernel.terms.push_back(term);
  }
  Tape& tape = kernel.epilogue;
  tape.streaming = true;
  for (const std::int64_t size : {c.batch, c.m, c.n}) {
    for (const std::int64_t digit : c.plain_views ? Dims{size} : random.digits(size))
      tape.extents.push_back(digit);
  }
  for (std::int32_t r = 0; r < c.results; ++r) {
    built.outputs.push_back(built.arrays.add(c.batch * c.m * c.n));
    built.arrays.fill(built.outputs.back(), -1e9);
    tape.instructions.push_back(instruction(TapeCode::result, c.dtype, r));
    tape.stores.push_back({r, built.outputs.back(), c.dtype,
                           random_address(random, tape.extents, c.epilogue == Epilogue::permuted)});
  }
  if (c.epilogue == Epilogue::bias) {
    built.bias = built.arrays.add(c.n);
    built.arrays.fill(built.bias, random);
    Affine index;
    index.coefficients.assign(tape.extents.size(), 0);
    std::int64_t stride = 1;
    for (std::size_t axis = tape.extents.size(); axis-- > 0 && stride < c.n;
         stride *= tape.extents[axis])
      index.coefficients[axis] = stride;
    tape.loads = {{built.bias, c.dtype, index, {}}};
    const auto bias = static_cast<std::int32_t>(tape.instructions.size());
    tape.instructions.push_back(instruction(TapeCode::load, c.dtype, 0));
    for (std::int32_t r = 0; r < c.results; ++r) {
      const auto at = static_cast<std::int32_t>(tape.instructions.size());
      tape.instructions.push_back(apply(Op::mul, c.dtype, r, 0));
      tape.instructions.push_back(apply(Op::add, c.dtype, at, bias));
      tape.stores[static_cast<std::size_t>(r)].value = at + 1;
    }
  }
  return built;
}

// Compares with sums in f64. A sum of k products errs by at most (k + 1) e sum |a b|, with e half
// the distance of 1 to the next number.
void check(const ContractCase& c, const Built& built) {
  const ContractKernel& kernel = built.kernel;
  const double half_ulp = c.dtype == DType::f32 ? 0x1p-24 : 0x1p-53;
  std::vector<double> sums(static_cast<std::size_t>(c.results)),
      magnitudes(static_cast<std::size_t>(c.results));
  // Each term's operands, gathered: lhs [batch, m, k], rhs [batch, n, k].
  const auto gather = [&](const ContractOperand& operand, const OperandAxis& strips,
                          std::int64_t size, const OperandAxis& inner) {
    std::vector<double> values;
    for (const std::int64_t batch : offsets(operand.batch, c.batch)) {
      for (const std::int64_t strip : offsets(strips, size)) {
        for (const std::int64_t p : offsets(inner, c.k))
          values.push_back(built.arrays.get(operand.buffer, operand.offset + batch + strip + p));
      }
    }
    return values;
  };
  std::vector<std::vector<double>> lhs, rhs;
  for (const ContractTerm& term : kernel.terms) {
    lhs.push_back(gather(term.lhs, term.lhs.rows, c.m, term.lhs.columns));
    rhs.push_back(gather(term.rhs, term.rhs.columns, c.n, term.rhs.rows));
  }
  std::int64_t wrong = 0;
  for (std::int64_t b = 0; b < c.batch; ++b) {
    for (std::int64_t i = 0; i < c.m; ++i) {
      for (std::int64_t j = 0; j < c.n; ++j) {
        std::fill(sums.begin(), sums.end(), 0.0);
        std::fill(magnitudes.begin(), magnitudes.end(), 0.0);
        for (std::size_t t = 0; t < kernel.terms.size(); ++t) {
          const auto result = static_cast<std::size_t>(kernel.terms[t].result);
          const double* x = lhs[t].data() + (b * c.m + i) * c.k;
          const double* y = rhs[t].data() + (b * c.n + j) * c.k;
          for (std::int64_t p = 0; p < c.k; ++p) {
            sums[result] += x[p] * y[p];
            magnitudes[result] += std::abs(x[p] * y[p]);
          }
        }
        const std::int64_t point = (b * c.m + i) * c.n + j;
        const double products = static_cast<double>(c.k * c.terms + 2);
        const double bound_0 = products * half_ulp * magnitudes[0];
        for (std::size_t r = 0; r < sums.size(); ++r) {
          double expected = sums[r], bound = products * half_ulp * magnitudes[r] * 1.01;
          if (c.epilogue == Epilogue::bias) {
            const double bias = built.arrays.get(built.bias, j);
            expected = sums[r] * sums[0] + bias;
            bound = 1.01 * (bound * (std::abs(sums[0]) + bound_0) + bound_0 * std::abs(sums[r])) +
                    4 * half_ulp * (std::abs(sums[r] * sums[0]) + std::abs(bias));
          }
          const TapeStore& store = kernel.epilogue.stores[r];
          const double actual = built.arrays.get(
              store.buffer, address(store.address, kernel.epilogue.extents, point));
          if (!(std::abs(actual - expected) <= bound)) {
            if (wrong++ == 0) {
              CAPTURE(b, i, j, r, expected, actual, bound);
              CHECK(std::abs(actual - expected) <= bound);
            }
          }
        }
      }
    }
  }
  CHECK(wrong == 0);
}

// The same contraction of operands that were converted to f32 before.
Built converted_before(Built built) {
  for (const ContractTerm& term : built.kernel.terms)
    built.arrays.widen(term.lhs.buffer), built.arrays.widen(term.rhs.buffer);
  built.kernel.lhs = built.kernel.rhs = DType::f32;
  return built;
}

bool same_outputs(const Built& a, const Built& b) {
  return std::all_of(a.outputs.begin(), a.outputs.end(), [&](std::int32_t output) {
    const auto i = static_cast<std::size_t>(output);
    return a.arrays.bytes[i] == b.arrays.bytes[i];
  });
}

void check_case(const ContractCase& c, std::uint32_t seed) {
  INFO(c << ", seed " << seed << ", target " << gemm_kernels<float>().target);
  Built one = build(c, seed);
  run(one.kernel, one.arrays, 1);
  check(c, one);
  for (const int threads : {2, 3}) {
    Built many = build(c, seed);
    run(many.kernel, many.arrays, threads);
    INFO(threads << " threads");
    CHECK(many.arrays.bytes == one.arrays.bytes);
    if (one.kernel.lhs == c.dtype && one.kernel.rhs == c.dtype) continue;
    Built before = converted_before(build(c, seed));
    run(before.kernel, before.arrays, threads);
    CHECK(same_outputs(one, before));
  }
}

// Calls f with each instruction set in turn as the only one.
template <class F>
void for_each_gemm_target(F&& f) {
  const std::int64_t supported = hwy::SupportedTargets();
  for (std::int64_t rest = supported; rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

ContractOperand row_major(std::int32_t buffer, std::int64_t batch, std::int64_t rows,
                          std::int64_t columns) {
  return {buffer, 0, {{batch}, {rows * columns}}, {{rows}, {columns}}, {{columns}, {1}}};
}

// y = a b, all row-major: buffers 0, 1 and 2.
ContractKernel simple_product(std::int64_t batch, std::int64_t m, std::int64_t k, std::int64_t n) {
  ContractKernel kernel;
  kernel.batch = batch, kernel.m = m, kernel.n = n, kernel.k = k;
  kernel.terms = {{row_major(0, batch, m, k), row_major(1, batch, k, n), 0}};
  kernel.epilogue.extents = {batch, m, n};
  kernel.epilogue.streaming = true;
  kernel.epilogue.instructions = {instruction(TapeCode::result, DType::f32, 0)};
  kernel.epilogue.stores = {{0, 2, DType::f32, {0, {m * n, n, 1}}}};
  return kernel;
}

}  // namespace

TEST_CASE("contractions of random shapes and views equal a triple loop, on any number of threads",
          "[cpu][contract]") {
  for_each_gemm_target([] {
    Random random(2024);
    for (std::uint32_t seed = 0; seed < 150; ++seed) {
      ContractCase c;
      c.dtype = random.one_in(3) ? DType::f64 : DType::f32;
      c.batch = random.one_in(2) ? 1 : random.between(1, 8);
      const std::int64_t largest = random.one_in(3) ? 7 : 70;
      c.m = random.between(1, largest), c.n = random.between(1, largest),
      c.k = random.between(1, largest);
      c.results = static_cast<std::int32_t>(random.between(1, 3));
      c.terms = static_cast<int>(random.between(c.results, 4));
      c.plain_views = random.one_in(2);
      c.epilogue = static_cast<Epilogue>(random.below(3));
      check_case(c, seed);
    }
  });
}

TEST_CASE("contractions of every blocking equal a triple loop, on any number of threads",
          "[cpu][contract]") {
  const ContractCase cases[] = {
      {DType::f32, 1, 300, 150, 100, 1, 1, true,
       Epilogue::store},  // tall: rhs packed for all tasks
      {DType::f32, 1, 250, 70, 900, 1, 1, true,
       Epilogue::store},  // several blocks of the inner axis
      {DType::f32, 1, 250, 70, 900, 2, 3, true, Epilogue::bias},  // ... waiting for the epilogue
      {DType::f64, 1, 200, 90, 600, 2, 3, false, Epilogue::bias},
      {DType::f32, 1, 20, 24, 5000, 1, 1, true, Epilogue::store},  // inner axis in chunks
      {DType::f32, 2, 20, 24, 5000, 2, 2, true, Epilogue::permuted},
      {DType::f64, 1, 33, 17, 3000, 2, 3, false, Epilogue::bias},
      {DType::f32, 3, 260, 40, 500, 1, 1, false, Epilogue::permuted},
      {DType::f32, 40, 49, 49, 32, 1, 1, true, Epilogue::store},  // windows of attention
      {DType::f32, 40, 49, 32, 49, 2, 3, true, Epilogue::bias},
      {DType::f32, 1, 40, 2000, 60, 2, 2, true, Epilogue::bias},  // wide: several blocks of columns
      {DType::f32, 1, 150, 1200, 500, 1, 1, true, Epilogue::bias},
      {DType::f32, 1, 1, 500, 700, 1, 1, true, Epilogue::store},
      {DType::f32, 1, 500, 1, 700, 1, 1, true, Epilogue::store},
      // Strips of lhs in groups: more than one group, the last one and its last strip not full.
      {DType::f32, 1, 131, 137, 300, 1, 1, true, Epilogue::store},
      {DType::f32, 1, 205, 61, 290, 1, 2, true, Epilogue::permuted},
      {DType::f32, 1, 101, 530, 70, 2, 3, true, Epilogue::bias},  // ... up to the epilogue
      {DType::f64, 2, 107, 83, 140, 2, 2, true, Epilogue::bias},
  };
  for_each_gemm_target([&] {
    std::uint32_t seed = 1;
    for (const ContractCase& c : cases) {
      for (const std::uint32_t more : {0, 1000, 2000}) check_case(c, seed + more);
      ++seed;
    }
  });
}

TEST_CASE(
    "windows of images, as convolutions read them, equal a triple loop, on any number of threads",
    "[cpu][contract]") {
  struct Windows {
    std::int64_t images, rows, columns, channels, kernel, stride, outputs;
    bool turned;  // the gradient of the weight: the windows' elements are the rows, the pixels the
                  // inner axis
    Epilogue epilogue;
  };
  const Windows all[] = {
      {2, 11, 31, 17, 3, 1, 40, false, Epilogue::store},
      {1, 9, 14, 100, 3, 1, 70, false, Epilogue::bias},  // several blocks of the inner axis
      {3, 5, 7, 3, 3, 1, 5, false, Epilogue::permuted},
      {2, 6, 5, 4, 2, 2, 33, false, Epilogue::bias},  // rows too short to be read in place
      {1, 40, 61, 8, 1, 1, 20, false, Epilogue::store},
      {1, 12, 16, 1, 5, 1, 3, false, Epilogue::bias},
      {2, 17, 29, 5, 3, 2, 40, true, Epilogue::store},
      {2, 33, 32, 30, 3, 1, 18, true, Epilogue::bias},  // inner axis in chunks
  };
  for_each_gemm_target([&] {
    std::uint32_t seed = 1;
    for (const Windows& w : all)
      for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
        ContractCase c{};
        c.dtype = dtype == DType::f64 ? DType::f64 : DType::f32;
        if (dtype != c.dtype) c.lhs = dtype, c.rhs = dtype;
        c.batch = 1, c.results = 2, c.terms = 3, c.plain_views = true, c.epilogue = w.epilogue;
        const std::int64_t pixels = w.images * w.rows * w.columns,
                           elements = w.kernel * w.kernel * w.channels;
        c.m = w.turned ? elements : pixels, c.k = w.turned ? pixels : elements, c.n = w.outputs;
        INFO(c << ", seed " << ++seed << ", target " << gemm_kernels<float>().target);
        const std::int64_t height = (w.rows - 1) * w.stride + w.kernel,
                           width = (w.columns - 1) * w.stride + w.kernel;
        const auto with_images = [&] {
          Built built = build(c, seed);
          Random random(seed);
          for (ContractTerm& term : built.kernel.terms) {
            const std::int32_t image =
                built.arrays.add(w.images * height * width * w.channels, built.kernel.lhs);
            built.arrays.fill(image, random);
            const OperandAxis seen{{w.images, w.rows, w.columns},
                                   {height * width * w.channels, w.stride * width * w.channels,
                                    w.stride * w.channels}};
            const OperandAxis kernel{{w.kernel, w.kernel * w.channels}, {width * w.channels, 1}};
            term.lhs = {image, 0, {{1}, {0}}, w.turned ? kernel : seen, w.turned ? seen : kernel};
          }
          return built;
        };
        Built one = with_images(), two = with_images();
        run(one.kernel, one.arrays, 1);
        check(c, one);
        run(two.kernel, two.arrays, 3);
        CHECK(two.arrays.bytes == one.arrays.bytes);
        if (one.kernel.lhs == c.dtype) continue;
        Built before = converted_before(with_images());
        run(before.kernel, before.arrays, 2);
        CHECK(same_outputs(one, before));
      }
  });
}

TEST_CASE(
    "16-bit operands have the sums of the same operands converted to f32 before, to the last bit",
    "[cpu][contract]") {
  for_each_gemm_target([&] {
    std::uint32_t seed = 1;
    for (const DType lhs : {DType::bf16, DType::f16, DType::f32})
      for (const DType rhs : {DType::f32, DType::f16, DType::bf16}) {
        if (lhs == DType::f32 && rhs == DType::f32) continue;
        ContractCase cases[] = {
            {DType::f32, 1, 1, 1, 1},
            {DType::f32, 1, 7, 19, 5, 2, 3, true, Epilogue::bias},
            {DType::f32, 2, 13, 35, 21, 2, 3, false, Epilogue::permuted},
            {DType::f32, 1, 65, 50, 130, 1, 1, true, Epilogue::store},
            {DType::f32, 5, 12, 16, 33, 1, 2, false, Epilogue::store},
            {DType::f32, 1, 3, 70, 1030, 2, 3, true, Epilogue::bias},       // inner axis in blocks
            {DType::f32, 1, 20, 24, 5000, 1, 1, true, Epilogue::permuted},  // ... and chunks
            {DType::f32, 3, 130, 40, 50, 1, 1, false, Epilogue::store},     // shared rhs
            {DType::f32, 1, 1, 300, 70, 1, 1, true, Epilogue::store},
        };
        for (ContractCase& c : cases) {
          c.lhs = lhs, c.rhs = rhs;
          check_case(c, ++seed);
        }
      }
  });
}

TEST_CASE("packing converts every 16-bit float exactly: subnormal numbers, infinities, NaN",
          "[cpu][contract]") {
  // All 65,536 of them as a matrix [strip elements, inner], contiguous along either axis or
  // neither.
  constexpr std::int64_t all = 65536;
  const auto check = [&](auto element, auto GemmKernels<float>::*function) {
    using S = decltype(element);
    const std::vector<S> from = [] {
      std::vector<S> patterns;
      for (std::int64_t i = 0; i < all; ++i) patterns.push_back({static_cast<std::uint16_t>(i)});
      return patterns;
    }();
    const GemmKernels<float>& kernels = gemm_kernels<float>();
    for (const std::int64_t width : {1, 3, 4, 7, 8, 2 * kernels.lanes}) {
      if (width > 2 * kernels.lanes) continue;
      for (const auto& [strip, inner_stride] :
           {std::pair(std::int64_t{1}, width), std::pair(all / width, std::int64_t{1}),
            std::pair(std::int64_t{2}, 2 * width)}) {
        const std::int64_t inner = strip == 2 ? all / (2 * width) : all / width;
        const std::int64_t to_inner = (width + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
        std::vector<std::int64_t> offsets;
        for (std::int64_t j = 0; j < width; ++j) offsets.push_back(j * strip);
        std::vector<float> to(static_cast<std::size_t>(inner * to_inner), -1.0f);
        (kernels.*function)({from.data(), offsets.data(), width, strip == 1, inner, inner_stride,
                             to.data(), to_inner});
        std::int64_t wrong = 0;
        for (std::int64_t p = 0; p < inner; ++p)
          for (std::int64_t j = 0; j < width; ++j) {
            const S source = from[static_cast<std::size_t>(j * strip + p * inner_stride)];
            const float expected = to_f32(source);
            const float got = to[static_cast<std::size_t>(p * to_inner + j)];
            wrong += std::isnan(expected) ? !std::isnan(got)
                                          : std::bit_cast<std::uint32_t>(got) !=
                                                std::bit_cast<std::uint32_t>(expected);
          }
        INFO(to_string(dtype_of<S>)
             << ", width " << width << ", strip " << strip << ", " << kernels.target);
        CHECK(wrong == 0);
      }
    }
  };
  for_each_gemm_target([&] {
    check(BFloat16{}, &GemmKernels<float>::pack_bf16);
    check(Float16{}, &GemmKernels<float>::pack_f16);
  });
}

TEST_CASE("neighbouring strips are packed together, and nothing behind their rows is read",
          "[cpu][contract]") {
  for_each_gemm_target([&] {
    const GemmKernels<float>& kernels = gemm_kernels<float>();
    for (const std::vector<std::int64_t>& heights : {std::vector<std::int64_t>{1},
                                                     {3},
                                                     {6},
                                                     {16},
                                                     {14, 13},
                                                     {6, 6, 5},
                                                     {9, 1, 1, 1, 2},
                                                     {16, 16, 15}}) {
      std::int64_t rows = 0;
      for (const std::int64_t height : heights) rows += height;
      const std::int64_t inner = 21, stride = rows + 3, to_inner = 16, to_strip = inner * to_inner;
      // Its last row ends with the memory.
      std::vector<float> from(static_cast<std::size_t>((inner - 1) * stride + rows));
      for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i);
      std::vector<float> to(heights.size() * static_cast<std::size_t>(to_strip), -1.0f);
      kernels.pack_group({from.data(), inner, stride, heights.data(), std::ssize(heights),
                          to.data(), to_strip, to_inner});
      std::int64_t wrong = 0, first = 0;
      for (std::int64_t s = 0; s < std::ssize(heights); ++s) {
        const std::int64_t height = heights[static_cast<std::size_t>(s)];
        for (std::int64_t p = 0; p < inner; ++p)
          for (std::int64_t j = 0; j < height; ++j)
            wrong += to[static_cast<std::size_t>(s * to_strip + p * to_inner + j)] !=
                     static_cast<float>(p * stride + first + j);
        first += height;
      }
      INFO(rows << " rows, " << kernels.target);
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("contractions over an empty inner axis are zero and empty results are left alone",
          "[cpu][contract]") {
  for (const std::int64_t k : {0, 3}) {
    for (const Dims& sizes :
         {Dims{1, 5, 40}, Dims{2, 0, 40}, Dims{0, 3, 3}, Dims{2, 3, 0}, Dims{3, 300, 70}}) {
      for (const DType dtype : {DType::f32, DType::f16}) {
        Arrays arrays(DType::f32);
        arrays.add(sizes[0] * sizes[1] * k, dtype);
        arrays.add(sizes[0] * k * sizes[2], dtype);
        const std::int32_t y = arrays.add(sizes[0] * sizes[1] * sizes[2]);
        arrays.fill(0, 1), arrays.fill(1, 1), arrays.fill(y, 9);
        ContractKernel kernel = simple_product(sizes[0], sizes[1], k, sizes[2]);
        kernel.lhs = kernel.rhs = dtype;
        run(kernel, arrays, 2);
        bool right = true;
        for (std::int64_t i = 0; i < arrays.elements(y); ++i)
          right = right && arrays.get(y, i) == static_cast<double>(k);
        CHECK(right);
      }
    }
  }
}

TEST_CASE("a result without terms is zero", "[cpu][contract]") {
  Arrays arrays(DType::f32);
  for (const std::int64_t elements : {6, 6, 4}) arrays.fill(arrays.add(elements), 2);
  ContractKernel kernel = simple_product(1, 2, 3, 2);
  kernel.terms.clear();
  run(kernel, arrays, 1);
  CHECK(arrays.get(2, 0) == 0);
  CHECK(arrays.get(2, 3) == 0);
}

TEST_CASE("contractions carry NaN and infinity to the elements they belong to", "[cpu][contract]") {
  struct Sizes {
    std::int64_t m, k, n;
  };
  for (const auto& [m, k, n] : {Sizes{30, 20, 50}, Sizes{110, 300, 70}})
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const double special :
           {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        Arrays arrays(DType::f32);
        arrays.fill(arrays.add(m * k, dtype), 1);
        arrays.fill(arrays.add(k * n, dtype), 1);
        arrays.fill(arrays.add(m * n), 0);
        arrays.set(0, 17 * k + 3, special);
        arrays.set(1, 5 * n + 49, special);
        ContractKernel kernel = simple_product(1, m, k, n);
        kernel.lhs = kernel.rhs = dtype;
        run(kernel, arrays, 1);
        bool right = true;
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j)
            right = right && std::isfinite(arrays.get(2, i * n + j)) == (i != 17 && j != 49);
        }
        CHECK(right);
      }
}

TEST_CASE("an epilogue's extents may straddle the axes of a row-major result", "[cpu][contract]") {
  Arrays arrays(DType::f32);
  for (const std::int64_t elements : {4 * 5, 5 * 6, 4 * 6}) arrays.fill(arrays.add(elements), 1);
  ContractKernel kernel = simple_product(1, 4, 5, 6);
  kernel.epilogue.extents = {24};
  kernel.epilogue.stores[0].address = {0, {1}};
  run(kernel, arrays, 1);
  CHECK(arrays.get(2, 0) == 5);
  CHECK(arrays.get(2, 23) == 5);
}

TEST_CASE("contractions that don't fit together are refused", "[cpu][contract]") {
  ContractKernel kernel = simple_product(1, 4, 5, 6);
  kernel.terms[0].rhs.rows.sizes = {4};
  CHECK_THROWS_AS(ContractRunner(kernel), ShapeError);
  kernel = simple_product(1, 4, 5, 6);
  kernel.epilogue.extents = {4, 5};
  CHECK_THROWS_AS(ContractRunner(kernel), ShapeError);
  kernel = simple_product(1, 4, 5, 6);
  kernel.lhs = DType::i32;
  CHECK_THROWS_AS(ContractRunner(kernel), DTypeError);
  kernel.lhs = DType::f64;
  CHECK_THROWS_AS(ContractRunner(kernel), DTypeError);
  kernel.lhs = DType::bf16, kernel.accumulate = DType::bf16;
  CHECK_THROWS_AS(ContractRunner(kernel), DTypeError);
}
