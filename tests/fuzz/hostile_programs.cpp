#include "tests/fuzz/hostile_programs.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>
#include <type_traits>
#include <variant>

#include "engine/backend.h"
#include "engine/graph/containers.h"
#include "engine/graph/op_names.h"

namespace fluxion::testing {

namespace {

template <class T>
struct IsVariant : std::false_type {};
template <class... T>
struct IsVariant<std::variant<T...>> : std::true_type {};

// Visits every number of a program in order, and changes those that are drawn.
class Mutator {
 public:
  explicit Mutator(std::minstd_rand& random) : random_(random) {}

  std::size_t count(Program& program) {
    changes_ = false;
    seen_ = 0;
    visit(program);
    return seen_;
  }
  void change(Program& program, std::size_t which) {
    changes_ = true;
    which_ = which;
    seen_ = 0;
    visit(program);
  }

 private:
  std::uint32_t below(std::uint32_t end) { return static_cast<std::uint32_t>(random_()) % end; }
  bool here() { return seen_++ == which_ && changes_; }

  template <class T>
  void visit(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      if (here()) value = !value;
    } else if constexpr (std::is_floating_point_v<T>) {
      if (here()) value = below(3) == 0 ? std::numeric_limits<T>::infinity() : value * 2 - 1;
    } else if constexpr (std::is_integral_v<T>) {
      if (here()) value = other(value);
    } else if constexpr (std::is_same_v<T, Op>) {
      if (here()) value = static_cast<Op>(below(op_count));
    } else if constexpr (std::is_same_v<T, DType>) {
      if (here()) value = static_cast<DType>(below(static_cast<int>(DType::f64) + 1));
    } else if constexpr (std::is_same_v<T, TapeCode>) {
      if (here()) value = static_cast<TapeCode>(below(static_cast<int>(TapeCode::reduce) + 1));
    } else if constexpr (std::is_same_v<T, BufferKind>) {
      if (here()) value = static_cast<BufferKind>(below(3));
    } else if constexpr (IsVector<T>::value) {
      if (here()) resize(value);
      for (auto& item : value) visit(item);
    } else if constexpr (IsArray<T>::value) {
      for (auto& item : value) visit(item);
    } else if constexpr (IsVariant<T>::value) {
      std::visit([this](auto& alternative) { visit(alternative); }, value);
    } else if constexpr (std::is_same_v<T, TensorType>) {
      Dims sizes = value.shape.dims();
      visit(sizes);
      value.shape = Shape(std::move(sizes));
      visit(value.dtype);
    } else {
      std::apply([this](auto&... members) { (visit(members), ...); }, T::members(value));
    }
  }

  template <class T>
  T other(T value) {
    constexpr T greatest = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::lowest();
    using Unsigned = std::make_unsigned_t<T>;
    const auto plus = [](T a, T b) {
      return static_cast<T>(
          static_cast<Unsigned>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b)));
    };
    switch (below(12)) {
      case 0:
        return 0;
      case 1:
        return greatest;
      case 2:
        return least;
      case 3:
        return static_cast<T>(T{1} << below(8 * sizeof(T) - 1));
      case 4:
        return plus(0, static_cast<T>(static_cast<Unsigned>(0) - static_cast<Unsigned>(value)));
      case 5:
        return plus(value, value);
      case 6:
        return value / 2;
      case 7:
        return static_cast<T>(-1);
      default:
        return plus(value, static_cast<T>(static_cast<int>(below(9)) - 4));
    }
  }

  template <class T>
  void resize(std::vector<T>& list) {
    if (list.empty() || below(3) == 0) {
      if (list.empty())
        list.emplace_back();
      else
        list.push_back(T(list[below(static_cast<std::uint32_t>(list.size()))]));
    } else if (below(2) == 0) {
      list.erase(list.begin() + below(static_cast<std::uint32_t>(list.size())));
    } else {
      std::swap(list[below(static_cast<std::uint32_t>(list.size()))],
                list[below(static_cast<std::uint32_t>(list.size()))]);
    }
  }

  std::minstd_rand& random_;
  bool changes_ = false;
  std::size_t seen_ = 0, which_ = 0;
};

constexpr double few = 1 << 16;

double product(const Dims& sizes) {
  double result = 1;
  for (const std::int64_t size : sizes)
    result *= static_cast<double>(std::max<std::int64_t>(size, 1));
  return result;
}

double work(const Kernel& kernel) {
  if (const auto* tape = std::get_if<TapeKernel>(&kernel))
    return product(tape->tape.extents) *
           static_cast<double>(1 + tape->tape.instructions.size() + tape->tape.loads.size());
  if (const auto* contract = std::get_if<ContractKernel>(&kernel))
    return product({contract->batch, contract->m, contract->n, contract->k}) *
           static_cast<double>(1 + contract->terms.size() + contract->epilogue.instructions.size());
  const auto& op = std::get<OpKernel>(kernel);
  // No op does more than meet every element of one tensor with every element of another.
  double largest = 1, second = 1;
  for (const auto* types : {&op.input_types, &op.output_types})
    for (const TensorType& type : *types) {
      const double elements = product(type.shape.dims());
      second = std::max(second, std::min(elements, largest));
      largest = std::max(largest, elements);
    }
  return largest * second;
}

}  // namespace

void mutate(Program& program, std::minstd_rand& random) {
  const std::uint32_t changes = 1 + static_cast<std::uint32_t>(random()) % 4;
  for (std::uint32_t i = 0; i < changes; ++i) {
    Mutator mutator(random);
    const std::size_t numbers = mutator.count(program);
    mutator.change(program, static_cast<std::size_t>(random()) % numbers);
  }
}

bool is_small(const Program& program) {
  double total = static_cast<double>(program.arena_bytes) + program.scalars;
  for (const auto* types : {&program.inputs, &program.outputs})
    for (const TensorType& type : *types) total += product(type.shape.dims());
  for (const Kernel& kernel : program.kernels) total += work(kernel) / 64;
  return total <= few;
}

bool compile_and_run(const Device& device, const Program& program) {
  Backend& backend = device.backend();
  const std::unique_ptr<Executable> executable = backend.compile(program);
  if (!is_small(program) || executable->workspace_bytes() > (std::size_t{16} << 20)) return false;
  std::vector<std::shared_ptr<Buffer>> owned;
  const auto bind = [&](const std::vector<TensorType>& types) {
    std::vector<Buffer*> buffers;
    for (const TensorType& type : types) {
      owned.push_back(backend.allocate(type));
      backend.upload(*owned.back(), type.dtype, std::vector<std::byte>(type.bytes(), std::byte{1}));
      buffers.push_back(owned.back().get());
    }
    return buffers;
  };
  const std::vector<Buffer*> inputs = bind(program.inputs);
  std::vector<Buffer*> outputs = bind(program.outputs);
  // Where the program takes over an input, the output is its memory.
  for (std::size_t i = 0; i < outputs.size() && i < program.donations.size(); ++i)
    if (program.donations[i] >= 0)
      outputs[i] = inputs[static_cast<std::size_t>(program.donations[i])];
  const std::vector<double> scalars(static_cast<std::size_t>(program.scalars), 0.5);
  executable->run({inputs, outputs, scalars}, {});
  return true;
}

}  // namespace fluxion::testing
