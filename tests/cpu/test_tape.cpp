// Expression tapes of the CPU backend against a plain interpreter in f64: random tapes with every
// kind of view, reduction and store, on every instruction set of this processor, with bit-equal
// results for all thread counts; then the corners one by one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>

#include "backends/cpu/tape/tape_convert.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/cpu/targets.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;
using fluxion::testing::for_each_target;

// ---- memory of exactly the right size, so that the address sanitizer sees every overrun

struct Bytes {
  explicit Bytes(std::size_t size) : data(new std::byte[size]), size(size) {
    std::memset(data.get(), 0x5A, size);
  }
  Bytes(const Bytes& other) : data(new std::byte[other.size]), size(other.size) {
    std::memcpy(data.get(), other.data.get(), size);
  }
  Bytes(Bytes&&) = default;
  bool operator==(const Bytes& other) const {
    return size == other.size && std::memcmp(data.get(), other.data.get(), size) == 0;
  }
  std::unique_ptr<std::byte[]> data;
  std::size_t size;
};

double read(const Bytes& bytes, DType dtype, std::int64_t at) {
  if (at < 0 || (static_cast<std::size_t>(at) + 1) * size_of(dtype) > bytes.size)
    throw Error("the oracle left a buffer");
  return with_storage_type(dtype, [&](auto element) {
    std::memcpy(&element, bytes.data.get() + static_cast<std::size_t>(at) * sizeof(element),
                sizeof(element));
    return convert_lane<double>(element);
  });
}

void write(Bytes& bytes, DType dtype, std::int64_t at, double value) {
  if (at < 0 || (static_cast<std::size_t>(at) + 1) * size_of(dtype) > bytes.size)
    throw Error("the oracle left a buffer");
  with_storage_type(dtype, [&](auto element) {
    element = convert_lane<decltype(element)>(value);
    std::memcpy(bytes.data.get() + static_cast<std::size_t>(at) * sizeof(element), &element,
                sizeof(element));
  });
}

// ---- the oracle

std::int64_t evaluate(const Affine& affine, const Dims& point) {
  std::int64_t value = affine.constant;
  for (std::size_t i = 0; i < affine.coefficients.size() && i < point.size(); ++i)
    value += affine.coefficients[i] * point[i];
  return value;
}

bool holds(const AffineRange& range, const Dims& point) {
  const std::int64_t value = evaluate(range.index, point);
  return value >= range.low && value < range.high;
}

double as(DType dtype, double value) {
  switch (dtype) {
    case DType::i32:
      return static_cast<std::int32_t>(
          static_cast<std::uint32_t>(static_cast<std::int64_t>(value)));
    case DType::u32:
      return static_cast<std::uint32_t>(static_cast<std::int64_t>(value));
    case DType::boolean:
      return value != 0;
    default:
      return value;
  }
}

double oracle_op(const TapeInstruction& instruction, DType operand, double a, double b, double c) {
  switch (instruction.op) {
    case Op::neg:
      return as(instruction.dtype, -a);
    case Op::abs:
      return std::abs(a);
    case Op::sign:
      return a > 0 ? 1 : a < 0 ? -1 : a;
    case Op::floor:
      return std::floor(a);
    case Op::exp:
      return std::exp(a);
    case Op::log:
      return std::log(a);
    case Op::sin:
      return std::sin(a);
    case Op::cos:
      return std::cos(a);
    case Op::tanh:
      return std::tanh(a);
    case Op::sigmoid:
      return 1 / (1 + std::exp(-a));
    case Op::erf:
      return std::erf(a);
    case Op::sqrt:
      return std::sqrt(a);
    case Op::rsqrt:
      return 1 / std::sqrt(a);
    case Op::identity:
      return a;
    case Op::convert:
      if (is_floating(operand) &&
          (instruction.dtype == DType::i32 || instruction.dtype == DType::u32))
        return instruction.dtype == DType::i32 ? convert_lane<std::int32_t>(a)
                                               : convert_lane<std::uint32_t>(a);
      return as(instruction.dtype, a);
    case Op::add:
      return as(instruction.dtype, a + b);
    case Op::sub:
      return as(instruction.dtype, a - b);
    case Op::mul:
      if (operand == DType::u32)
        return static_cast<std::uint32_t>(a) * static_cast<std::uint32_t>(b);
      if (operand == DType::i32)
        return as(DType::i32, static_cast<std::uint32_t>(static_cast<std::int64_t>(a)) *
                                  static_cast<std::uint32_t>(static_cast<std::int64_t>(b)));
      return a * b;
    case Op::div:
      return a / b;
    case Op::strong_mul:
      return a == 0 || b == 0 ? 0 : a * b;
    case Op::strong_div:
      return a == 0 ? 0 : a / b;
    case Op::maximum:
      return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b);
    case Op::minimum:
      return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b);
    case Op::shift_right:
      return static_cast<std::uint32_t>(a) >> static_cast<std::uint32_t>(b);
    case Op::lt:
      return a < b;
    case Op::le:
      return a <= b;
    case Op::gt:
      return a > b;
    case Op::ge:
      return a >= b;
    case Op::eq:
      return a == b;
    case Op::ne:
      return a != b;
    case Op::where:
      return a != 0 ? b : c;
    default:
      FAIL("the oracle lacks an op");
      return 0;
  }
}

void next(Dims& point, const Dims& extents, std::size_t first, std::size_t last) {
  for (std::size_t axis = last; axis-- > first;) {
    if (++point[axis] < extents[axis]) return;
    point[axis] = 0;
  }
}

// Runs the tape on `buffers` in place. results[r][point] are the contraction's results.
void run_oracle(const Tape& tape, std::vector<Bytes>& buffers, const std::vector<double>& scalars,
                const std::vector<std::vector<double>>& results = {}) {
  const std::vector<Bytes> before = buffers;
  const std::size_t axes = tape.extents.size(),
                    kept_axes = axes - static_cast<std::size_t>(tape.reduced_axes);
  std::int64_t kept = 1, reduced = 1;
  for (std::size_t axis = 0; axis < axes; ++axis)
    (axis < kept_axes ? kept : reduced) *= tape.extents[axis];
  Dims point(axes, 0);
  for (std::int64_t k = 0; k < kept; ++k) {
    std::vector<std::vector<double>> values(
        tape.instructions.size());  // of this row: one per point, or a single one
    for (std::size_t i = 0; i < tape.instructions.size(); ++i) {
      const TapeInstruction& instruction = tape.instructions[i];
      const bool narrow = instruction.narrow && tape.reduced_axes > 0;
      const auto operand = [&](int n, std::int64_t r) {
        const std::int32_t index = instruction.operands[static_cast<std::size_t>(n)];
        if (index < 0) return 0.0;
        const auto& list = values[static_cast<std::size_t>(index)];
        return list[list.size() == 1 ? 0 : static_cast<std::size_t>(r)];
      };
      if (instruction.code == TapeCode::reduce) {
        double total = instruction.op == Op::sum   ? 0
                       : instruction.op == Op::max ? -INFINITY
                                                   : INFINITY;
        if (instruction.dtype == DType::i32 && instruction.op != Op::sum)
          total = instruction.op == Op::max ? INT32_MIN : INT32_MAX;
        for (std::int64_t r = 0; r < reduced; ++r) {
          const double value = operand(0, r);
          if (instruction.op == Op::sum)
            total += value;
          else if (std::isnan(value) || std::isnan(total))
            total = NAN;
          else
            total = instruction.op == Op::max ? std::max(total, value) : std::min(total, value);
        }
        values[i] = {as(instruction.dtype, total)};
        continue;
      }
      std::fill(point.begin() + static_cast<std::ptrdiff_t>(kept_axes), point.end(), 0);
      for (std::int64_t r = 0; r < (narrow ? 1 : reduced); ++r) {
        double value = 0;
        switch (instruction.code) {
          case TapeCode::load: {
            const TapeLoad& load = tape.loads[static_cast<std::size_t>(instruction.argument)];
            if (std::all_of(load.guards.begin(), load.guards.end(),
                            [&](const LoadGuard& guard) { return holds(guard.range, point); }))
              value = as(instruction.dtype, read(before[static_cast<std::size_t>(load.buffer)],
                                                 load.dtype, evaluate(load.address, point)));
            break;
          }
          case TapeCode::scalar:
            value = as(instruction.dtype, scalars[static_cast<std::size_t>(instruction.argument)]);
            break;
          case TapeCode::literal:
            value = as(instruction.dtype, instruction.argument);
            break;
          case TapeCode::index:
            value = as(instruction.dtype,
                       static_cast<double>(evaluate(
                           tape.indices[static_cast<std::size_t>(instruction.argument)], point)));
            break;
          case TapeCode::in_range:
            value = holds(tape.ranges[static_cast<std::size_t>(instruction.argument)], point);
            break;
          case TapeCode::result:
            value = results[static_cast<std::size_t>(instruction.argument)]
                           [static_cast<std::size_t>(k * reduced + r)];
            break;
          case TapeCode::apply: {
            const std::size_t last = instruction.op == Op::where ? 1 : 0;
            const DType type =
                tape.instructions[static_cast<std::size_t>(instruction.operands[last])].dtype;
            value = oracle_op(instruction, type, operand(0, r), operand(1, r), operand(2, r));
            break;
          }
          case TapeCode::reduce:
            break;
        }
        values[i].push_back(value);
        next(point, tape.extents, kept_axes, axes);
      }
    }
    for (const TapeStore& store : tape.stores) {
      const auto& list = values[static_cast<std::size_t>(store.value)];
      const bool narrow =
          tape.instructions[static_cast<std::size_t>(store.value)].narrow && tape.reduced_axes > 0;
      std::fill(point.begin() + static_cast<std::ptrdiff_t>(kept_axes), point.end(), 0);
      for (std::int64_t r = 0; r < (narrow ? 1 : reduced); ++r) {
        write(buffers[static_cast<std::size_t>(store.buffer)], store.dtype,
              evaluate(store.address, point),
              list[list.size() == 1 ? 0 : static_cast<std::size_t>(r)]);
        next(point, tape.extents, kept_axes, axes);
      }
    }
    std::fill(point.begin() + static_cast<std::ptrdiff_t>(kept_axes), point.end(), 0);
    next(point, tape.extents, 0, kept_axes);
  }
}

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

bool close(double got, double want, double tolerance) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want)) return got == want;
  return std::abs(got - want) <= tolerance * (1 + std::abs(want));
}

// Compares the stored elements within a tolerance, and all other bytes exactly.
void check_buffers(const Tape& tape, std::vector<Bytes> got, std::vector<Bytes> want,
                   double tolerance) {
  std::vector<DType> dtypes(got.size(), DType::u8);
  for (const TapeStore& store : tape.stores)
    dtypes[static_cast<std::size_t>(store.buffer)] = store.dtype;
  for (std::size_t b = 0; b < got.size(); ++b) {
    if (got[b] == want[b]) continue;
    const DType dtype = dtypes[b];
    const double rounding = dtype == DType::bf16                           ? 0.008
                            : dtype == DType::f16                          ? 0.001
                            : is_integer(dtype) || dtype == DType::boolean ? 0
                                                                           : tolerance;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(got[b].size / size_of(dtype)); ++i) {
      const double x = read(got[b], dtype, i), y = read(want[b], dtype, i);
      if (!close(x, y, std::max(rounding, tolerance))) {
        INFO("buffer " << b << " element " << i << ": " << x << ", want " << y);
        FAIL();
      }
    }
  }
}

// ---- random tapes

struct TapeCase {
  Tape tape;
  std::vector<Bytes> buffers;
  std::vector<double> scalars;
  double tolerance = 0;
};

class Generator {
 public:
  Generator(std::uint32_t seed, DType dtype) : engine_(seed), dtype_(dtype) {}

  TapeCase make(bool reduces) {
    Tape& tape = made_.tape;
    const std::int64_t kept = between(0, 3) + (reduces ? 0 : 1),
                       reduced = reduces ? between(1, 2) : 0;
    static constexpr std::int64_t extents[] = {1,  2,  3,  4,  5,  7,  8,   16,  17,
                                               31, 32, 33, 48, 64, 65, 100, 128, 250};
    std::int64_t total = 1;
    for (std::int64_t axis = 0; axis < kept + reduced; ++axis) {
      std::int64_t extent = extents[below(18)];
      if (one_in(12) && total < 100) extent = between(300, 5000);
      while (total * extent > 60000) extent = std::max<std::int64_t>(extent / 2, 1);
      if (one_in(60)) extent = 0;
      tape.extents.push_back(extent);
      total *= std::max<std::int64_t>(extent, 1);
    }
    tape.reduced_axes = static_cast<std::int32_t>(reduced);
    tape.streaming = reduces && one_in(2);
    made_.scalars = {0.75, 1.0 / static_cast<double>(std::max<std::int64_t>(total, 1))};
    kept_ = static_cast<std::size_t>(kept);

    // Leaves.
    for (std::int64_t i = between(1, 4); i > 0; --i) wide_.push_back(add_load(false));
    if (reduces)
      for (std::int64_t i = between(0, 2); i > 0; --i) narrow_.push_back(add_load(true));
    if (one_in(3))
      wide_.push_back(add({TapeCode::scalar,
                           Op::identity,
                           dtype_,
                           false,
                           static_cast<std::int32_t>(below(2)),
                           {-1, -1, -1}}));
    if (one_in(3))
      wide_.push_back(add({TapeCode::literal,
                           Op::identity,
                           dtype_,
                           false,
                           static_cast<std::int32_t>(between(-1, 1)),
                           {-1, -1, -1}}));
    if (one_in(3)) {
      tape.indices.push_back(affine(false));
      const std::int32_t index = add({TapeCode::index,
                                      Op::identity,
                                      one_in(2) ? dtype_ : DType::i32,
                                      false,
                                      static_cast<std::int32_t>(tape.indices.size() - 1),
                                      {-1, -1, -1}});
      wide_.push_back(apply(Op::cos, convert(index, dtype_, false), -1, -1, false));
    }
    // Expressions, reductions, more expressions.
    const std::int64_t first = between(1, 6);
    for (std::int64_t i = 0; i < first; ++i) wide_.push_back(expression(false));
    if (reduces) {
      std::vector<std::int32_t> reductions;
      for (std::int64_t i = between(1, 2); i > 0; --i) {
        const Op op = one_in(2) ? Op::sum : one_in(2) ? Op::max : Op::min;
        reductions.push_back(add({TapeCode::reduce, op, dtype_, true, 0, {pick(wide_), -1, -1}}));
      }
      const std::vector<std::int32_t> wide_before = wide_;
      for (const std::int32_t reduction : reductions) {
        const std::int32_t scale =
            add({TapeCode::scalar, Op::identity, dtype_, true, 1, {-1, -1, -1}});
        // Sums grow with the row; bring them back to order one.
        const bool sum = tape.instructions[static_cast<std::size_t>(reduction)].op == Op::sum;
        narrow_.push_back(sum ? apply(Op::mul, reduction, scale, -1, true)
                              : apply(Op::tanh, reduction, -1, -1, true));
      }
      for (std::int64_t i = between(0, 3); i > 0; --i) narrow_.push_back(expression(true));
      if (!tape.streaming) {
        wide_.push_back(apply(Op::sub, pick(wide_), narrow_.back(), -1, false));
        for (std::int64_t i = between(0, 3); i > 0; --i) wide_.push_back(expression(false));
      } else {
        wide_ = wide_before;
      }
    }
    // Stores.
    const std::int64_t wide_stores = reduces && tape.streaming ? below(2) : between(1, 2);
    for (std::int64_t i = 0; i < wide_stores; ++i)
      add_store(i == 0 ? wide_.back() : pick(wide_), false);
    if (reduces)
      for (std::int64_t i = between(wide_stores > 0 ? 0 : 1, 2); i > 0; --i)
        add_store(i == 1 ? narrow_.back() : pick(narrow_), true);
    made_.tolerance = dtype_ == DType::f64 ? 1e-10 : 3e-5;
    return std::move(made_);
  }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(bound));
  }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  bool one_in(std::int64_t n) { return below(n) == 0; }
  std::int32_t pick(const std::vector<std::int32_t>& list) {
    return list[static_cast<std::size_t>(below(static_cast<std::int64_t>(list.size())))];
  }

  std::int32_t add(TapeInstruction instruction) {
    made_.tape.instructions.push_back(instruction);
    return static_cast<std::int32_t>(made_.tape.instructions.size() - 1);
  }
  std::int32_t apply(Op op, std::int32_t a, std::int32_t b, std::int32_t c, bool narrow,
                     std::optional<DType> dtype = {}) {
    return add({TapeCode::apply, op, dtype.value_or(dtype_), narrow, 0, {a, b, c}});
  }
  std::int32_t convert(std::int32_t value, DType dtype, bool narrow) {
    return apply(Op::convert, value, -1, -1, narrow, dtype);
  }

  std::int32_t expression(bool narrow) {
    const auto operand = [&] {
      return narrow || (!narrow_.empty() && one_in(3))
                 ? (narrow_.empty() ? pick(wide_) : pick(narrow_))
                 : pick(wide_);
    };
    const auto safe = [&] {
      const std::int32_t value = operand();
      return value;
    };
    if (narrow && narrow_.empty())
      return add({TapeCode::literal, Op::identity, dtype_, true, 1, {-1, -1, -1}});
    switch (below(12)) {
      case 0:
        return apply(Op::add, safe(), safe(), -1, narrow);
      case 1:
        return apply(Op::sub, safe(), safe(), -1, narrow);
      case 2:
        return apply(Op::tanh, apply(Op::mul, safe(), safe(), -1, narrow), -1, -1, narrow);
      case 3:
        return apply(Op::maximum, safe(), safe(), -1, narrow);
      case 4:
        return apply(Op::minimum, safe(), safe(), -1, narrow);
      case 5:
        return apply(Op::sigmoid, safe(), -1, -1, narrow);
      case 6:
        return apply(Op::abs, safe(), -1, -1, narrow);
      case 7:
        return apply(Op::neg, safe(), -1, -1, narrow);
      case 8: {
        const std::int32_t a = safe(), b = safe();
        return apply(Op::where, apply(Op::lt, a, b, -1, narrow, DType::boolean), a, b, narrow);
      }
      case 9: {
        AffineRange range{affine(narrow), 0, 0};
        range.low = range.index.constant + between(-5, 5);
        range.high = range.low + between(0, 60);
        made_.tape.ranges.push_back(range);
        const std::int32_t inside = add({TapeCode::in_range,
                                         Op::identity,
                                         DType::boolean,
                                         narrow,
                                         static_cast<std::int32_t>(made_.tape.ranges.size() - 1),
                                         {-1, -1, -1}});
        return apply(Op::where, inside, safe(), safe(), narrow);
      }
      case 10:
        return apply(Op::tanh, apply(Op::identity, safe(), -1, -1, narrow), -1, -1, narrow);
      default:
        return apply(Op::mul, safe(),
                     add({TapeCode::scalar, Op::identity, dtype_, narrow, 0, {-1, -1, -1}}), -1,
                     narrow);
    }
  }

  Affine affine(bool narrow) {
    Affine result;
    result.constant = between(-10, 10);
    for (std::size_t axis = 0; axis < made_.tape.extents.size(); ++axis)
      result.coefficients.push_back(narrow && axis >= kept_ ? 0 : between(-1, 2));
    return result;
  }

  // A view of a buffer: axes in a random order in memory, some broadcast, some flipped, stepped or
  // shifted into padding. Sets the elements it needs.
  std::int32_t add_load(bool narrow) {
    const Dims& extents = made_.tape.extents;
    const std::size_t axes = narrow ? kept_ : extents.size();
    TapeLoad load;
    load.buffer = static_cast<std::int32_t>(made_.buffers.size());
    load.dtype = storage();
    load.address.coefficients.assign(extents.size(), 0);
    std::vector<std::size_t> order(axes);
    for (std::size_t i = 0; i < axes; ++i) order[i] = i;
    if (one_in(2)) std::shuffle(order.begin(), order.end(), engine_);
    std::int64_t size = 1;
    bool whole = true;
    for (std::size_t i = axes; i-- > 0;) {
      const std::size_t axis = order[i];
      if (one_in(4)) {  // broadcast
        whole = whole && extents[axis] == 1;
        continue;
      }
      std::int64_t step = 1, shift = 0, length = extents[axis];
      if (one_in(6)) {  // padding: positions before 0 and behind the end are not there
        shift = between(-3, 3);
        length = std::max<std::int64_t>(extents[axis] - between(0, 4), 0);
        AffineRange range;
        range.index.constant = shift;
        range.index.coefficients.assign(extents.size(), 0);
        range.index.coefficients[axis] = 1;
        range.high = length;
        load.guards.push_back({range, size});
        whole = false;
      } else if (one_in(8)) {
        step = 2;
        length = 2 * length;
        whole = false;
      }
      if (one_in(8) && step == 1 && shift == 0 && length == extents[axis]) {
        load.address.constant += size * (length - 1);
        load.address.coefficients[axis] = -size;
      } else {
        load.address.constant += size * shift;
        load.address.coefficients[axis] = size * step;
      }
      size *= length + (one_in(8) ? 3 : 0);
    }
    if (size == 0 && made_.tape.extents.empty()) size = 1;
    Bytes bytes(static_cast<std::size_t>(size) * size_of(load.dtype));
    for (std::int64_t i = 0; i < size; ++i)
      write(
          bytes, load.dtype, i,
          load.dtype == DType::boolean ? one_in(2) : static_cast<double>(between(-300, 300)) / 128);
    made_.buffers.push_back(std::move(bytes));
    made_.tape.loads.push_back(load);
    const std::int32_t value = add({TapeCode::load,
                                    Op::identity,
                                    dtype_,
                                    narrow,
                                    static_cast<std::int32_t>(made_.tape.loads.size() - 1),
                                    {-1, -1, -1}});
    if (whole && load.guards.empty() && load.dtype == dtype_)
      (narrow ? reusable_narrow_ : reusable_).push_back(made_.tape.loads.size() - 1);
    return value;
  }

  DType storage() {
    static constexpr DType dtypes[] = {DType::bf16, DType::f16, DType::f32,     DType::f64,
                                       DType::u8,   DType::i32, DType::boolean, DType::i64};
    return one_in(4) ? dtypes[below(8)] : dtype_;
  }

  void add_store(std::int32_t value, bool narrow) {
    Tape& tape = made_.tape;
    const Dims& extents = tape.extents;
    auto& reusable = narrow ? reusable_narrow_ : reusable_;
    if (!reusable.empty() && one_in(2)) {  // in place
      const TapeLoad& load = tape.loads[reusable.back()];
      reusable.pop_back();
      tape.stores.push_back({value, load.buffer, load.dtype, load.address});
      return;
    }
    TapeStore store;
    store.value = value;
    store.buffer = static_cast<std::int32_t>(made_.buffers.size());
    store.dtype = one_in(5) ? (one_in(2) ? DType::bf16 : DType::f64) : dtype_;
    store.address.coefficients.assign(extents.size(), 0);
    const std::size_t axes = narrow ? kept_ : extents.size();
    std::vector<std::size_t> order(axes);
    for (std::size_t i = 0; i < axes; ++i) order[i] = i;
    if (one_in(4)) std::shuffle(order.begin(), order.end(), engine_);
    std::int64_t size = 1;
    for (std::size_t i = axes; i-- > 0;) {
      store.address.coefficients[order[i]] = size;
      size *= extents[order[i]] + (one_in(5) ? 2 : 0);
    }
    store.address.constant = one_in(4) ? 3 : 0;
    made_.buffers.emplace_back(static_cast<std::size_t>(size + store.address.constant) *
                               size_of(store.dtype));
    tape.stores.push_back(store);
  }

  std::mt19937 engine_;
  DType dtype_;
  std::size_t kept_ = 0;
  TapeCase made_;
  std::vector<std::int32_t> wide_, narrow_;
  std::vector<std::size_t> reusable_, reusable_narrow_;
};

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
      check_case(Generator(seed, seed % 3 == 2 ? DType::f64 : DType::f32).make(false), true);
    }
  });
}

TEST_CASE("random reductions agree with the plain interpreter on every instruction set",
          "[cpu][tape]") {
  for_each_target([](const char* target) {
    for (std::uint32_t seed = 1000; seed < 1250; ++seed) {
      INFO(target << ", seed " << seed);
      check_case(Generator(seed, seed % 3 == 2 ? DType::f64 : DType::f32).make(true), false);
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
            want = as(to, source);
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
