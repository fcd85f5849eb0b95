#include "engine/program/limits.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/graph/expansion.h"

namespace fluxion {

KernelLimits no_limits() {
  constexpr int any = std::numeric_limits<int>::max();
  KernelLimits limits;
  limits.max_axes = limits.max_guards = limits.max_buffers = limits.max_loads = any;
  limits.max_stores = limits.max_instructions = limits.max_results = any;
  limits.max_row_elements = std::numeric_limits<std::int64_t>::max();
  return limits;
}

// A convolution's windows have six axes. A choice between two operands (where) and a scatter have
// three operands and a result: three loads and four buffers. Everything else can be done in smaller
// steps.
KernelLimits least_limits() {
  KernelLimits limits;
  limits.max_axes = 6;
  limits.max_guards = 1;
  limits.max_buffers = 4;
  limits.max_loads = 3;
  limits.max_stores = 1;
  limits.max_instructions = 8;
  limits.max_results = 1;
  limits.max_row_elements = limits.max_row_bytes = 0;
  limits.max_binding_bytes = 0;
  limits.index_bits = 32;
  return limits;
}

std::string_view to_string(Limit limit) {
  switch (limit) {
    case Limit::none:
      return "none";
    case Limit::axes:
      return "max_axes";
    case Limit::guards:
      return "max_guards";
    case Limit::buffers:
      return "max_buffers";
    case Limit::loads:
      return "max_loads";
    case Limit::stores:
      return "max_stores";
    case Limit::instructions:
      return "max_instructions";
    case Limit::results:
      return "max_results";
    case Limit::row_elements:
      return "max_row_elements";
    case Limit::row_bytes:
      return "max_row_bytes";
    case Limit::attention_head:
      return "max_attention_head";
    case Limit::alignment:
      return "alignment";
    case Limit::binding:
      return "max_binding_bytes";
    case Limit::index:
      return "index_bits";
  }
  return "";
}

std::string to_string(const Fit& fit) {
  const auto counted = [&](const char* what) {
    return std::to_string(fit.found) + " " + what + ", at most " + std::to_string(fit.allowed) +
           " (" + std::string(to_string(fit.broken)) + ")";
  };
  switch (fit.broken) {
    case Limit::none:
      return "fits";
    case Limit::axes:
      return counted("axes");
    case Limit::guards:
      return counted("ranges that guard one load");
    case Limit::buffers:
      return counted("distinct buffers");
    case Limit::loads:
      return counted("loads");
    case Limit::stores:
      return counted("stores");
    case Limit::instructions:
      return counted("instructions");
    case Limit::results:
      return counted("results of products");
    case Limit::row_elements:
      return counted("elements in a resident row");
    case Limit::row_bytes:
      return counted("bytes in a resident row");
    case Limit::attention_head:
      return counted("features of an attention head");
    case Limit::alignment:
      return "a temporary at byte " + std::to_string(fit.found) + ", which is no multiple of " +
             std::to_string(fit.allowed) + " (alignment)";
    case Limit::binding:
      return counted("bytes in one buffer");
    case Limit::index:
      return "an index or a count of " + std::to_string(fit.found) + ", at most " +
             std::to_string(fit.allowed) + " (index_bits)";
  }
  return "";
}

namespace {

// Saturating arithmetic: a product that overflows 64 bits still breaks every limit.
std::int64_t product(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (!__builtin_mul_overflow(a, b, &result)) return result;
  return (a < 0) == (b < 0) ? std::numeric_limits<std::int64_t>::max()
                            : std::numeric_limits<std::int64_t>::min();
}
std::int64_t sum(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (!__builtin_add_overflow(a, b, &result)) return result;
  return a < 0 ? std::numeric_limits<std::int64_t>::min()
               : std::numeric_limits<std::int64_t>::max();
}

class FitCheck {
 public:
  FitCheck(std::span<const BufferSlot> buffers, const KernelLimits& limits, const Storage& storage)
      : buffers_(buffers), limits_(limits), storage_(storage) {}

  Fit of(const Kernel& kernel) {
    std::visit([this](const auto& each) { check(each); }, kernel);
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    at_most(Limit::buffers, count(touched_), limits_.max_buffers);
    // Report a buffer that is too large first: splitting the kernel does not make it smaller.
    const Fit of_kernel = std::exchange(fit_, Fit{});
    for (const std::int32_t buffer : touched_) check_memory(buffer);
    return fit_ ? of_kernel : fit_;
  }

 private:
  template <class Items>
  static std::int64_t count(const Items& items) {
    return static_cast<std::int64_t>(items.size());
  }

  // Records the first limit that breaks.
  void at_most(Limit limit, std::int64_t found, std::int64_t allowed, std::int32_t buffer = -1) {
    if (fit_ && found > allowed) fit_ = {limit, found, allowed, buffer};
  }
  void index(std::int64_t value) { at_most(Limit::index, value, limits_.max_index()); }

  static std::int64_t axes_of(const Dims& extents) {
    return std::count_if(extents.begin(), extents.end(),
                         [](std::int64_t extent) { return extent != 1; });
  }

  // Checks that all values of `affine` over the space fit the index width.
  void index(const Affine& affine, const Dims& extents) {
    if (limits_.index_bits == 64) return;
    std::int64_t low = affine.constant, high = affine.constant;
    for (std::size_t k = 0; k < extents.size() && k < affine.coefficients.size(); ++k) {
      if (extents[k] == 0) return;
      const std::int64_t last = product(affine.coefficients[k], extents[k] - 1);
      std::int64_t& end = last < 0 ? low : high;
      end = sum(end, last);
    }
    index(high);
    if (low < -limits_.max_index()) index(-(low + 1));
  }
  void index(const AffineRange& range, const Dims& extents) {
    index(range.index, extents);
    for (const std::int64_t bound : {range.low, range.high}) index(bound < 0 ? -bound : bound);
  }

  void check_tape(const Tape& tape, std::int64_t operands) {
    at_most(Limit::axes, axes_of(tape.extents), limits_.max_axes);
    for (const TapeLoad& load : tape.loads)
      at_most(Limit::guards, count(load.guards), limits_.max_guards);
    at_most(Limit::loads, count(tape.loads) + operands, limits_.max_loads);
    at_most(Limit::stores, count(tape.stores), limits_.max_stores);
    at_most(Limit::instructions, count(tape.instructions), limits_.max_instructions);
    const std::size_t kept = tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
    std::int64_t rows = 1, row = 1;
    for (std::size_t k = 0; k < tape.extents.size(); ++k)
      (k < kept ? rows : row) = product(k < kept ? rows : row, tape.extents[k]);
    index(rows);
    index(row);
    if (tape.reduced_axes > 0 && !tape.streaming) {
      std::int64_t widest = 1;
      for (const TapeInstruction& instruction : tape.instructions)
        if (!instruction.narrow)
          widest = std::max(widest, static_cast<std::int64_t>(size_of(instruction.dtype)));
      at_most(Limit::row_elements, row, limits_.max_row_elements);
      at_most(Limit::row_bytes, product(row, widest), limits_.max_row_bytes);
    }
    for (const TapeLoad& load : tape.loads) {
      index(load.address, tape.extents);
      for (const LoadGuard& guard : load.guards) index(guard.range, tape.extents);
      touched_.push_back(load.buffer);
    }
    for (const Affine& affine : tape.indices) index(affine, tape.extents);
    for (const AffineRange& range : tape.ranges) index(range, tape.extents);
    for (const TapeStore& store : tape.stores) {
      index(store.address, tape.extents);
      touched_.push_back(store.buffer);
    }
  }

  void check_operand(const ContractOperand& operand) {
    Affine address{operand.offset, {}};
    Dims sizes;
    for (const OperandAxis* axis : {&operand.batch, &operand.rows, &operand.columns}) {
      sizes.insert(sizes.end(), axis->sizes.begin(), axis->sizes.end());
      address.coefficients.insert(address.coefficients.end(), axis->strides.begin(),
                                  axis->strides.end());
    }
    at_most(Limit::axes, axes_of(sizes), limits_.max_axes);
    index(address, sizes);
    touched_.push_back(operand.buffer);
  }

  void check(const TapeKernel& kernel) { check_tape(kernel.tape, 0); }

  void check(const ContractKernel& kernel) {
    at_most(Limit::results, kernel.results, limits_.max_results);
    for (const ContractTerm& term : kernel.terms) {
      check_operand(term.lhs);
      check_operand(term.rhs);
    }
    index(kernel.k);
    check_tape(kernel.epilogue, 2 * count(kernel.terms));
  }

  void check(const OpKernel& kernel) {
    at_most(Limit::loads, count(kernel.inputs), limits_.max_loads);
    at_most(Limit::stores, count(kernel.outputs), limits_.max_stores);
    if (is_attention(kernel.op)) {
      if (!kernel.input_types.empty() && kernel.input_types[0].shape.rank() > 0)
        at_most(Limit::attention_head, kernel.input_types[0].shape.back(),
                limits_.max_attention_head);
      for (const ContractOperand& view : kernel.views) check_operand(view);
    } else {
      for (const auto* types : {&kernel.input_types, &kernel.output_types})
        for (const TensorType& type : *types)
          at_most(Limit::axes, axes_of(type.shape.dims()), limits_.max_axes);
    }
    touched_.insert(touched_.end(), kernel.inputs.begin(), kernel.inputs.end());
    touched_.insert(touched_.end(), kernel.outputs.begin(), kernel.outputs.end());
  }

  void check_memory(std::int32_t buffer) {
    if (buffer < 0 || static_cast<std::size_t>(buffer) >= buffers_.size()) return;
    const BufferSlot& slot = buffers_[static_cast<std::size_t>(buffer)];
    const std::int64_t elements = slot.type.shape.elements();
    at_most(Limit::binding, static_cast<std::int64_t>(bytes_of(slot.type, storage_)),
            limits_.max_binding_bytes, buffer);
    at_most(Limit::index, elements, limits_.max_index(), buffer);
    if (fit_ && slot.kind == BufferKind::temporary && slot.offset % limits_.alignment != 0)
      fit_ = {Limit::alignment, slot.offset, limits_.alignment, buffer};
  }

  std::span<const BufferSlot> buffers_;
  const KernelLimits& limits_;
  const Storage& storage_;
  Fit fit_;
  std::vector<std::int32_t> touched_;
};

}  // namespace

Fit fits(const Kernel& kernel, std::span<const BufferSlot> buffers, const KernelLimits& limits,
         const Storage& storage) {
  return FitCheck(buffers, limits, storage).of(kernel);
}

void require_fits(const Program& program, const KernelLimits& limits, const Storage& storage,
                  std::string_view device) {
  for (std::size_t k = 0; k < program.kernels.size(); ++k) {
    const Fit fit = fits(program.kernels[k], program.buffers, limits, storage);
    if (fit) continue;
    throw Error(std::string(device) + ": kernel " + std::to_string(k) + " has " + to_string(fit) +
                "; plan the graph for this device");
  }
}

void require_least(const KernelLimits& limits, std::string_view device) {
  const KernelLimits least = least_limits();
  const auto at_least = [&](Limit limit, std::int64_t offered, std::int64_t wanted) {
    if (offered < wanted)
      throw Error("plan: " + std::string(device) + " offers " + std::to_string(offered) + " as " +
                  std::string(to_string(limit)) + ", a backend must offer at least " +
                  std::to_string(wanted));
  };
  at_least(Limit::axes, limits.max_axes, least.max_axes);
  at_least(Limit::guards, limits.max_guards, least.max_guards);
  at_least(Limit::buffers, limits.max_buffers, least.max_buffers);
  at_least(Limit::loads, limits.max_loads, least.max_loads);
  at_least(Limit::stores, limits.max_stores, least.max_stores);
  at_least(Limit::instructions, limits.max_instructions, least.max_instructions);
  at_least(Limit::results, limits.max_results, least.max_results);
  if (limits.index_bits != 32 && limits.index_bits != 64)
    throw Error("plan: " + std::string(device) + " offers index_bits " +
                std::to_string(limits.index_bits) + ", it must be 32 or 64");
  if (limits.alignment < 64 || limits.alignment % 64 != 0)
    throw Error("plan: " + std::string(device) + " wants an alignment of " +
                std::to_string(limits.alignment) + " bytes, it must be a multiple of 64");
}

}  // namespace fluxion
