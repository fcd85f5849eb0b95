#include "tests/vulkan/gemm/contraction.h"

#include <cmath>
#include <ostream>
#include <sstream>

#include "engine/graph/op_names.h"

namespace fluxion::testing {

namespace {

// Row-major order, possibly permuted, of the tape's extents.
Affine epilogue_address(RandomNumbers& random, const Dims& extents, bool permute) {
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

// The address of every point of the space.
Dims addresses_of(const Affine& affine, const Dims& extents) {
  Dims result = offsets({extents, affine.coefficients});
  for (std::int64_t& address : result) address += affine.constant;
  return result;
}

std::int32_t append(Tape& tape, TapeCode code, std::int32_t argument) {
  TapeInstruction made;
  made.code = code;
  made.argument = argument;
  tape.instructions.push_back(made);
  return static_cast<std::int32_t>(tape.instructions.size()) - 1;
}
std::int32_t append(Tape& tape, Op op, std::int32_t a, std::int32_t b) {
  const std::int32_t at = append(tape, TapeCode::apply, 0);
  tape.instructions.back().op = op;
  tape.instructions.back().operands = {a, b, -1};
  return at;
}

double rounding(DType stored) {
  switch (stored) {
    case DType::bf16:
      return 0x1p-8;
    case DType::f16:
      return 0x1p-11;
    default:
      return 0x1p-24;
  }
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const ContractionCase& c) {
  return out << to_string(c.lhs) << " x " << to_string(c.rhs) << " -> " << to_string(c.stored)
             << " " << c.batch << ": " << c.m << " x " << c.k << " x " << c.n << ", results "
             << c.results << ", terms " << c.terms << (c.plain_views ? ", plain" : ", views")
             << ", epilogue " << static_cast<int>(c.epilogue);
}

Contraction random_contraction(const ContractionCase& c, std::uint32_t seed) {
  RandomNumbers random(seed);
  Contraction made{c, {}, -1};
  HostMemory& memory = made.memory;
  ContractKernel kernel;
  kernel.lhs = c.lhs, kernel.rhs = c.rhs;
  kernel.batch = c.batch, kernel.m = c.m, kernel.n = c.n, kernel.k = c.k;
  kernel.results = c.results;
  for (int t = 0; t < c.terms; ++t) {
    ContractTerm term;
    const auto earlier = [&] { return kernel.terms[static_cast<std::size_t>(random.below(t))]; };
    term.lhs = t > 0 && random.one_in(2)
                   ? earlier().lhs
                   : random_operand(random, memory, c.lhs, c.batch, c.m, c.k, c.plain_views);
    term.rhs = t > 0 && random.one_in(2)
                   ? earlier().rhs
                   : random_operand(random, memory, c.rhs, c.batch, c.k, c.n, c.plain_views);
    term.result = static_cast<std::int32_t>(t < c.results ? t : random.below(c.results));
    kernel.terms.push_back(term);
  }
  Tape& tape = kernel.epilogue;
  tape.streaming = true;
  for (const std::int64_t size : {c.batch, c.m, c.n}) {
    if (c.plain_views && size == 1) continue;  // the planner leaves such axes out, too
    for (const std::int64_t digit : c.plain_views ? Dims{size} : random.digits(size))
      tape.extents.push_back(digit);
  }
  const auto add_store = [&](std::int32_t value) {
    tape.stores.push_back(
        {value, memory.add_output(c.stored, Shape{c.batch, c.m, c.n}), c.stored,
         epilogue_address(random, tape.extents, c.epilogue == Epilogue::permuted)});
  };
  for (std::int32_t r = 0; r < c.results; ++r) append(tape, TapeCode::result, r);
  if (c.epilogue == Epilogue::bias) {
    std::vector<double> values(static_cast<std::size_t>(c.n));
    for (double& value : values) value = random.value();
    made.bias = memory.add_input(DType::f32, values);
    Affine index;
    index.coefficients.assign(tape.extents.size(), 0);
    std::int64_t stride = 1;
    for (std::size_t axis = tape.extents.size(); axis-- > 0 && stride < c.n;
         stride *= tape.extents[axis])
      index.coefficients[axis] = stride;
    tape.loads = {{made.bias, DType::f32, index, {}}};
    memory.program.scalars = 1;
    const std::int32_t bias = append(tape, TapeCode::load, 0),
                       scalar = append(tape, TapeCode::scalar, 0),
                       zero = append(tape, TapeCode::literal, 0);
    for (std::int32_t r = 0; r < c.results; ++r) {
      const std::int32_t product = append(tape, Op::mul, r, 0);
      add_store(append(tape, Op::add, append(tape, Op::mul, product, scalar), bias));
    }
    add_store(append(tape, Op::maximum, 0, zero));
  } else {
    for (std::int32_t r = 0; r < c.results; ++r) add_store(r);
  }
  memory.program.kernels.push_back(std::move(kernel));
  return made;
}

std::string first_wrong(const Contraction& contraction) {
  const ContractionCase& c = contraction.shape;
  const ContractKernel& kernel = contraction.kernel();
  const HostMemory& memory = contraction.memory;
  const auto number = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  // Sums of products and of their magnitudes, [result][batch, m, n].
  const std::size_t points = number(c.batch * c.m * c.n);
  std::vector<std::vector<double>> sums(number(c.results), std::vector<double>(points)),
      magnitudes = sums;
  for (const ContractTerm& term : kernel.terms) {
    const Dims at_lhs = addresses(term.lhs), at_rhs = addresses(term.rhs);
    const std::vector<double>&lhs = memory.values(term.lhs.buffer),
          &rhs = memory.values(term.rhs.buffer);
    std::size_t point = 0;
    for (std::int64_t b = 0; b < c.batch; ++b)
      for (std::int64_t i = 0; i < c.m; ++i)
        for (std::int64_t j = 0; j < c.n; ++j, ++point)
          for (std::int64_t p = 0; p < c.k; ++p) {
            const double product = lhs[number(at_lhs[number((b * c.m + i) * c.k + p)])] *
                                   rhs[number(at_rhs[number((b * c.k + p) * c.n + j)])];
            sums[number(term.result)][point] += product;
            magnitudes[number(term.result)][point] += std::abs(product);
          }
  }
  const double products = static_cast<double>(c.k * c.terms);
  const double unit = 2 * std::sqrt(std::max(products, 1.0)) * 0x1p-23, half = 0x1p-24;
  for (std::size_t s = 0; s < kernel.epilogue.stores.size(); ++s) {
    const TapeStore& store = kernel.epilogue.stores[s];
    const Dims to = addresses_of(store.address, kernel.epilogue.extents);
    for (std::size_t point = 0; point < points; ++point) {
      const auto sum = [&](std::size_t r) { return sums[r][point]; };
      const auto error = [&](std::size_t r) { return unit * magnitudes[r][point]; };
      double expected = 0, allowed = 0;
      if (c.epilogue != Epilogue::bias) {
        expected = sum(s), allowed = error(s);
      } else if (s < number(c.results)) {
        const double bias = memory.values(contraction.bias)[point % number(c.n)];
        expected = sum(s) * sum(0) * Contraction::scalar + bias;
        allowed = error(s) * (std::abs(sum(0)) + error(0)) + error(0) * std::abs(sum(s)) +
                  4 * half * (std::abs(sum(s) * sum(0)) + std::abs(bias));
      } else {
        // A maximum of NaN and 0 is NaN.
        expected = std::isnan(sum(0)) ? sum(0) : std::max(sum(0), 0.0), allowed = error(0);
      }
      allowed += rounding(c.stored) * std::abs(expected);
      const double got = memory.values(store.buffer)[number(to[point])];
      if (std::isfinite(expected) ? std::abs(got - expected) <= allowed
                                  : got == expected || (std::isnan(got) && std::isnan(expected)))
        continue;
      std::ostringstream text;
      text << "store " << s << ", point " << point << ": " << got << ", not " << expected
           << " within " << allowed;
      return text.str();
    }
  }
  return "";
}

}  // namespace fluxion::testing
