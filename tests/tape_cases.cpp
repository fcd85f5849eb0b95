#include "tests/tape_cases.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/tape/tape_convert.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"

namespace fluxion::testing {

using cpu_backend::convert_lane;
using cpu_backend::with_storage_type;

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

double in_register(DType dtype, double value) {
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

namespace {

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

double oracle_op(const TapeInstruction& instruction, DType operand, double a, double b, double c) {
  switch (instruction.op) {
    case Op::neg:
      return in_register(instruction.dtype, -a);
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
      return in_register(instruction.dtype, a);
    case Op::add:
      return in_register(instruction.dtype, a + b);
    case Op::sub:
      return in_register(instruction.dtype, a - b);
    case Op::mul:
      if (operand == DType::u32)
        return static_cast<std::uint32_t>(a) * static_cast<std::uint32_t>(b);
      if (operand == DType::i32)
        return in_register(DType::i32,
                           static_cast<std::uint32_t>(static_cast<std::int64_t>(a)) *
                               static_cast<std::uint32_t>(static_cast<std::int64_t>(b)));
      return a * b;
    case Op::div:
      return a / b;
    case Op::strong_mul:
      return a == 0 || b == 0 ? 0 : a * b;
    case Op::strong_div:
      return a == 0 || std::isinf(b) ? 0 : a / b;
    case Op::maximum:
      return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b);
    case Op::minimum:
      return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b);
    case Op::shift_right:
      return static_cast<std::uint32_t>(a) >> (static_cast<std::uint32_t>(b) & 31);
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

}  // namespace

void run_oracle(const Tape& tape, std::vector<Bytes>& buffers, const std::vector<double>& scalars,
                const std::vector<std::vector<double>>& results) {
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
        values[i] = {in_register(instruction.dtype, total)};
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
              value =
                  in_register(instruction.dtype, read(before[static_cast<std::size_t>(load.buffer)],
                                                      load.dtype, evaluate(load.address, point)));
            break;
          }
          case TapeCode::scalar:
            value = in_register(instruction.dtype,
                                scalars[static_cast<std::size_t>(instruction.argument)]);
            break;
          case TapeCode::literal:
            value = in_register(instruction.dtype, instruction.argument);
            break;
          case TapeCode::index:
            value = in_register(
                instruction.dtype,
                static_cast<double>(
                    evaluate(tape.indices[static_cast<std::size_t>(instruction.argument)], point)));
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

namespace {

bool close(double got, double want, double tolerance) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want)) return got == want;
  return std::abs(got - want) <= tolerance * (1 + std::abs(want));
}

}  // namespace

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

namespace {

class TapeGenerator {
 public:
  TapeGenerator(std::uint32_t seed, DType dtype, bool wide_types)
      : engine_(seed), dtype_(dtype), wide_types_(wide_types) {}

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
    const DType chosen = one_in(4) ? dtypes[below(8)] : dtype_;
    if (wide_types_) return chosen;
    return chosen == DType::f64 ? DType::f32 : chosen == DType::i64 ? DType::i32 : chosen;
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
    if (!wide_types_ && store.dtype == DType::f64) store.dtype = DType::f16;
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
  bool wide_types_;
  std::size_t kept_ = 0;
  TapeCase made_;
  std::vector<std::int32_t> wide_, narrow_;
  std::vector<std::size_t> reusable_, reusable_narrow_;
};

}  // namespace

TapeCase random_tape(std::uint32_t seed, DType dtype, bool reduces, bool wide_types) {
  return TapeGenerator(seed, dtype, wide_types).make(reduces);
}

}  // namespace fluxion::testing
