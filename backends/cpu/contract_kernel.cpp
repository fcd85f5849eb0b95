// A contraction is cut into blocks of the result (gemm_plan.h). A task takes one block at a time and, for each block of the inner axis, walks down its
// rows: a strip of lhs goes to the first-level cache, strips of rhs pass by it from the second, and the register tiles between them
// (gemm_kernel.h) are added to the result - in place where the epilogue only stores it, else in the task's scratch memory, from which the epilogue runs.
#include "backends/cpu/contract_kernel.h"

#include <atomic>
#include <optional>
#include <variant>

#include "backends/cpu/gemm_kernel.h"
#include "backends/cpu/gemm_operand.h"
#include "backends/cpu/gemm_plan.h"
#include "engine/error.h"

namespace fluxion::cpu_backend {

namespace {

// Hands out aligned pieces of scratch memory; without memory, counts the bytes.
class Carver {
 public:
  explicit Carver(std::byte* begin) : begin_(begin) {}
  template <class T>
  T* take(std::int64_t count) {
    T* piece = begin_ ? reinterpret_cast<T*>(begin_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* begin_;
  std::size_t used_ = 0;
};

// Where one result goes when the epilogue does nothing but store it.
struct DirectStore {
  std::int32_t buffer;
  std::int64_t offset;
  GemmAxis batch;
  std::int64_t row_stride;  // columns are contiguous
};

// Splits the axes of an affine address over batch x m x n. Empty if they don't split there.
std::optional<std::array<OperandAxis, 3>> split_address(const Dims& extents, const Affine& address, const std::array<std::int64_t, 3>& sizes) {
  std::array<OperandAxis, 3> parts;
  std::size_t axis = 0;
  for (std::size_t part = 0; part < 3; ++part) {
    std::int64_t size = 1;
    while (size < sizes[part]) {
      while (axis < extents.size() && extents[axis] == 1) ++axis;
      if (axis == extents.size()) return std::nullopt;
      size *= extents[axis];
      parts[part].sizes.push_back(extents[axis]);
      parts[part].strides.push_back(axis < address.coefficients.size() ? address.coefficients[axis] : 0);
      ++axis;
    }
    if (size != sizes[part]) return std::nullopt;
  }
  return parts;
}

// The stores of an epilogue that does nothing else, one per result; empty if it does more, or stores in another form.
std::vector<DirectStore> direct_stores(const ContractKernel& kernel) {
  std::vector<std::optional<DirectStore>> found(static_cast<std::size_t>(kernel.results));
  const Tape& tape = kernel.epilogue;
  for (const TapeStore& store : tape.stores) {
    const TapeInstruction& instruction = tape.instructions[static_cast<std::size_t>(store.value)];
    if (instruction.code != TapeCode::result || instruction.dtype != kernel.dtype || store.dtype != kernel.dtype) return {};
    auto& direct = found[static_cast<std::size_t>(instruction.argument)];
    if (direct) return {};
    OperandAxis whole;
    whole.sizes = tape.extents;
    whole.strides = store.address.coefficients;
    whole.strides.resize(whole.sizes.size(), 0);
    if (const GemmAxis flat(whole); flat.is_affine() && flat.stride() == 1) {  // row-major, even where the axes of the tape straddle m and n
      direct = DirectStore{store.buffer, store.address.constant, GemmAxis({{kernel.batch}, {kernel.m * kernel.n}}), kernel.n};
      continue;
    }
    const auto parts = split_address(tape.extents, store.address, {kernel.batch, kernel.m, kernel.n});
    if (!parts) return {};
    const GemmAxis rows((*parts)[1]), columns((*parts)[2]);
    if (!rows.is_affine() || !columns.is_affine() || (columns.stride() != 1 && kernel.n != 1)) return {};
    direct = DirectStore{store.buffer, store.address.constant, GemmAxis((*parts)[0]), rows.stride()};
  }
  std::vector<DirectStore> stores;
  for (auto& direct : found) {
    if (!direct) return {};
    stores.push_back(std::move(*direct));
  }
  return stores;
}

std::int32_t find_or_add(std::vector<ContractOperand>& operands, const ContractOperand& operand) {
  const auto index = std::find(operands.begin(), operands.end(), operand) - operands.begin();
  if (index == std::ssize(operands)) operands.push_back(operand);
  return static_cast<std::int32_t>(index);
}

// A contraction of element type T, prepared.
template <class T>
class Contraction {
 public:
  explicit Contraction(const ContractKernel& kernel);

  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch, const TapeRunner& epilogue) const;
  std::size_t scratch_bytes(int threads, const TapeRunner& epilogue) const;

 private:
  struct Term {
    std::int32_t lhs, rhs;
  };
  // Elements of an operand along the inner axis: strip element i, inner position p at data[i * strip + p * inner].
  struct Strip {
    const T* data;
    std::int64_t strip, inner;
  };
  // Scratch memory of one task.
  struct Slot {
    T* lhs;    // [lhs operand][inner][lhs_width]: a strip each
    T* rhs;    // [rhs operand][strip][inner][tile columns]: a block each, or the last strip
    T* tile;   // [result][resident row][block column]
    Strip* lhs_strips;
    GemmSegment<T>* segments;
    std::byte* epilogue;
  };
  // Scratch memory of a call.
  struct Layout {
    T* shared_rhs;  // [rhs operand][inner block][strip][inner][tile columns]
    T* partial;     // [batch][chunk][result][m][n]
    std::byte* slots;
    std::size_t bytes;
  };
  // One phase of a call: `units` pieces of work, taken by slots in turn.
  struct Call {
    const Contraction& self;
    const CallMemory& memory;
    const TapeRunner& epilogue;
    const GemmPlan& plan;
    Layout layout;
    std::int64_t panel_begin = 0, panel_end = 0;  // columns
    std::int64_t batch_begin = 0, batch_end = 0;
    std::int64_t units = 0, units_at_once = 1;
    std::atomic<std::int64_t> next{0};
  };

  GemmPlan plan(int threads) const;
  Slot carve_slot(Carver& carver, const GemmPlan& plan, const TapeRunner& epilogue) const;
  Layout carve(std::byte* scratch, const GemmPlan& plan, const TapeRunner& epilogue) const;

  template <void (Contraction::*work)(Call&, const Slot&, std::int64_t) const>
  void run_phase(Call& call, const ThreadPool& pool, std::int64_t units, std::int64_t multiplications_per_unit) const;

  void pack_shared(Call& call, const Slot& slot, std::int64_t unit) const;
  void multiply(Call& call, const Slot& slot, std::int64_t unit) const;
  void add_chunks(Call& call, const Slot& slot, std::int64_t unit) const;

  // Copies strip elements [begin, begin + width) x inner positions [inner_begin, inner_end) to [inner][to_inner].
  void pack(const CallMemory& memory, const GemmOperand& operand, std::int64_t batch, std::int64_t begin, std::int64_t width,
            std::int64_t inner_begin, std::int64_t inner_end, T* to, std::int64_t to_inner) const;
  // Whether the kernel does well to read a strip of lhs where it lies: it is consecutive in one direction and its rows don't fall on the same
  // few lines of the first-level cache.
  bool lhs_readable(const GemmOperand& lhs, std::int64_t row, std::int64_t rows, std::int64_t columns) const {
    if (!lhs.inner.is_affine() || lhs.strips.stretch(row, rows) != rows) return false;
    if (lhs.strips.stride() == 1) return true;
    const bool aliases = lhs.strips.stride() * static_cast<std::int64_t>(sizeof(T)) % 4096 == 0 && columns > 2 * tile_columns_;
    return lhs.inner.stride() == 1 && !aliases;
  }
  const T* base(const CallMemory& memory, const GemmOperand& operand, std::int64_t batch) const {
    return reinterpret_cast<const T*>(memory.buffers[static_cast<std::size_t>(operand.buffer)]) + operand.offset + operand.batch.offset(batch);
  }

  const GemmKernels<T>& kernels_;
  std::int64_t batch_, m_, n_, k_;
  std::vector<GemmOperand> lhs_, rhs_;
  std::vector<std::vector<Term>> terms_;  // by result
  std::size_t max_terms_ = 0;             // of one result
  std::vector<DirectStore> stores_;       // empty: the epilogue's tape stores
  std::int64_t tile_columns_, lhs_width_;
};

template <class T>
Contraction<T>::Contraction(const ContractKernel& kernel)
    : kernels_(gemm_kernels<T>()), batch_(kernel.batch), m_(kernel.m), n_(kernel.n), k_(kernel.k), terms_(static_cast<std::size_t>(kernel.results)) {
  std::vector<ContractOperand> lhs, rhs;
  for (const ContractTerm& term : kernel.terms) {
    if (term.result < 0 || term.result >= kernel.results) throw Error("contraction: a term adds to a result that does not exist");
    auto& terms = terms_[static_cast<std::size_t>(term.result)];
    terms.push_back({find_or_add(lhs, term.lhs), find_or_add(rhs, term.rhs)});
    max_terms_ = std::max(max_terms_, terms.size());
  }
  for (const ContractOperand& operand : lhs) {
    lhs_.push_back(GemmOperand::of_lhs(operand));
    if (lhs_.back().batch.size() != batch_ || lhs_.back().strips.size() != m_ || lhs_.back().inner.size() != k_) {
      throw ShapeError("contraction: the axes of lhs don't multiply to [batch, m, k] = " + to_string(Dims{batch_, m_, k_}));
    }
  }
  for (const ContractOperand& operand : rhs) {
    rhs_.push_back(GemmOperand::of_rhs(operand));
    if (rhs_.back().batch.size() != batch_ || rhs_.back().inner.size() != k_ || rhs_.back().strips.size() != n_) {
      throw ShapeError("contraction: the axes of rhs don't multiply to [batch, k, n] = " + to_string(Dims{batch_, k_, n_}));
    }
  }
  std::int64_t points = 1;
  for (const std::int64_t extent : kernel.epilogue.extents) points *= extent;
  if (points != batch_ * m_ * n_) throw ShapeError("contraction: the epilogue's extents don't multiply to batch x m x n");
  stores_ = direct_stores(kernel);
  tile_columns_ = gemm_max_vectors * kernels_.lanes;
  lhs_width_ = round_up(kernels_.rows, kernels_.lanes);
}

template <class T>
GemmPlan Contraction<T>::plan(int threads) const {
  GemmProblem problem{};
  problem.batch = batch_, problem.m = m_, problem.n = n_, problem.k = k_;
  problem.lhs_operands = static_cast<std::int64_t>(lhs_.size());
  problem.rhs_operands = static_cast<std::int64_t>(rhs_.size());
  problem.results = static_cast<std::int64_t>(terms_.size());
  for (const auto& terms : terms_) problem.terms += static_cast<std::int64_t>(terms.size());
  problem.element_bytes = sizeof(T);
  problem.tile_rows = kernels_.rows;
  problem.tile_columns = tile_columns_;
  problem.epilogue = stores_.empty();
  problem.rhs_broadcast = std::all_of(rhs_.begin(), rhs_.end(), [](const GemmOperand& rhs) { return rhs.batch.is_broadcast(); });
  problem.rhs_readable = std::all_of(rhs_.begin(), rhs_.end(), [&](const GemmOperand& rhs) {
    return rhs.inner.is_affine() && rhs.strips.stride() == 1 && rhs.strips.aligned_stretches(tile_columns_);
  });
  return plan_gemm(problem, threads);
}

template <class T>
auto Contraction<T>::carve_slot(Carver& carver, const GemmPlan& plan, const TapeRunner& epilogue) const -> Slot {
  const auto lhs_operands = static_cast<std::int64_t>(lhs_.size()), rhs_operands = static_cast<std::int64_t>(rhs_.size());
  const std::int64_t rhs_columns = plan.rhs == RhsSource::task ? plan.block_columns : plan.rhs == RhsSource::in_place ? tile_columns_ : 0;
  Slot slot{};
  slot.lhs = carver.take<T>(lhs_operands * plan.block_inner * lhs_width_);
  slot.rhs = carver.take<T>(rhs_operands * plan.block_inner * rhs_columns);
  slot.lhs_strips = carver.take<Strip>(lhs_operands);
  slot.segments = carver.take<GemmSegment<T>>(static_cast<std::int64_t>(max_terms_));
  if (stores_.empty()) {
    const auto results = static_cast<std::int64_t>(terms_.size());
    slot.tile = carver.take<T>(plan.chunks > 1 ? results * std::min<std::int64_t>(m_, kernels_.rows) * n_ : results * plan.resident_rows * plan.block_columns);
    slot.epilogue = carver.take<std::byte>(static_cast<std::int64_t>(epilogue.point_scratch_bytes()));
  }
  return slot;
}

template <class T>
auto Contraction<T>::carve(std::byte* scratch, const GemmPlan& plan, const TapeRunner& epilogue) const -> Layout {
  Carver carver(scratch);
  Layout layout{};
  if (plan.rhs == RhsSource::shared) {
    layout.shared_rhs = carver.take<T>(static_cast<std::int64_t>(rhs_.size()) * k_ * round_up(plan.panel_columns, tile_columns_));
  }
  if (plan.chunks > 1) layout.partial = carver.take<T>(batch_ * plan.chunks * static_cast<std::int64_t>(terms_.size()) * m_ * n_);
  layout.slots = scratch ? scratch + carver.used() : nullptr;
  Carver slot_carver(nullptr);
  carve_slot(slot_carver, plan, epilogue);
  layout.bytes = carver.used() + slot_carver.used() * static_cast<std::size_t>(plan.slots);
  return layout;
}

template <class T>
std::size_t Contraction<T>::scratch_bytes(int threads, const TapeRunner& epilogue) const {
  if (batch_ == 0 || m_ == 0 || n_ == 0) return 0;
  return carve(nullptr, plan(threads), epilogue).bytes;
}

template <class T>
template <void (Contraction<T>::*work)(typename Contraction<T>::Call&, const typename Contraction<T>::Slot&, std::int64_t) const>
void Contraction<T>::run_phase(Call& call, const ThreadPool& pool, std::int64_t units, std::int64_t multiplications_per_unit) const {
  constexpr std::int64_t multiplications_at_once = 256 * 1024;
  call.units = units;
  call.units_at_once = std::clamp<std::int64_t>(multiplications_at_once / std::max<std::int64_t>(1, multiplications_per_unit), 1,
                                                ceil_div(units, 4 * call.plan.slots));
  call.next = 0;
  const std::int64_t slots = std::min(call.plan.slots, ceil_div(units, call.units_at_once));
  pool.parallel_for(slots, [&call](std::int64_t index) {
    Carver size(nullptr);
    call.self.carve_slot(size, call.plan, call.epilogue);
    Carver carver(call.layout.slots + size.used() * static_cast<std::size_t>(index));
    const Slot slot = call.self.carve_slot(carver, call.plan, call.epilogue);
    for (;;) {
      const std::int64_t begin = call.next.fetch_add(call.units_at_once, std::memory_order_relaxed);
      if (begin >= call.units) return;
      const std::int64_t end = std::min(begin + call.units_at_once, call.units);
      for (std::int64_t unit = begin; unit < end; ++unit) (call.self.*work)(call, slot, unit);
    }
  });
}

template <class T>
void Contraction<T>::run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch, const TapeRunner& epilogue) const {
  if (batch_ == 0 || m_ == 0 || n_ == 0) return;
  const GemmPlan plan = this->plan(pool.threads());
  Call call{*this, memory, epilogue, plan, carve(scratch, plan, epilogue)};
  const std::int64_t row_blocks = ceil_div(m_, plan.block_rows);
  const std::int64_t block_multiplications = plan.block_rows * plan.block_columns * plan.chunk_inner;
  if (plan.rhs == RhsSource::shared) {
    const bool broadcast = std::all_of(rhs_.begin(), rhs_.end(), [](const GemmOperand& rhs) { return rhs.batch.is_broadcast(); });
    const std::int64_t batch_step = broadcast ? batch_ : 1;
    for (std::int64_t batch = 0; batch < batch_; batch += batch_step) {
      call.batch_begin = batch, call.batch_end = batch + batch_step;
      for (std::int64_t column = 0; column < n_; column += plan.panel_columns) {
        call.panel_begin = column, call.panel_end = std::min(n_, column + plan.panel_columns);
        const std::int64_t strips = ceil_div(call.panel_end - column, tile_columns_);
        // Packing an element takes about as long as 8 multiplications.
        run_phase<&Contraction::pack_shared>(call, pool, static_cast<std::int64_t>(rhs_.size()) * strips, 8 * k_ * tile_columns_);
        const std::int64_t column_blocks = ceil_div(call.panel_end - column, plan.block_columns);
        run_phase<&Contraction::multiply>(call, pool, batch_step * plan.chunks * column_blocks * row_blocks, block_multiplications);
      }
    }
  } else {
    call.panel_begin = 0, call.panel_end = n_;
    call.batch_begin = 0, call.batch_end = batch_;
    run_phase<&Contraction::multiply>(call, pool, batch_ * plan.chunks * ceil_div(n_, plan.block_columns) * row_blocks, block_multiplications);
  }
  if (plan.chunks > 1) {
    run_phase<&Contraction::add_chunks>(call, pool, batch_ * ceil_div(m_, kernels_.rows), 8 * plan.chunks * kernels_.rows * n_);
  }
}

template <class T>
void Contraction<T>::pack(const CallMemory& memory, const GemmOperand& operand, std::int64_t batch, std::int64_t begin, std::int64_t width,
                          std::int64_t inner_begin, std::int64_t inner_end, T* to, std::int64_t to_inner) const {
  std::int64_t offsets[gemm_max_vectors * 64 / sizeof(T)];
  const std::int64_t first = operand.strips.offset(begin);
  for (std::int64_t i = 0; i < width; ++i) offsets[i] = operand.strips.offset(begin + i) - first;
  GemmStrip<T> strip{};
  strip.offsets = offsets;
  strip.width = width;
  strip.contiguous = operand.strips.stride() == 1 && operand.strips.stretch(begin, width) == width;
  strip.inner_stride = operand.inner.stride();
  strip.to_inner = to_inner;
  const T* from = base(memory, operand, batch) + first;
  for (std::int64_t p = inner_begin; p < inner_end; p += strip.inner) {
    strip.from = from + operand.inner.offset(p);
    strip.inner = operand.inner.stretch(p, inner_end - p);
    strip.to = to + (p - inner_begin) * to_inner;
    kernels_.pack(strip);
  }
}

// One strip of one rhs along the whole inner axis.
template <class T>
void Contraction<T>::pack_shared(Call& call, const Slot&, std::int64_t unit) const {
  const GemmPlan& plan = call.plan;
  const std::int64_t strips = ceil_div(call.panel_end - call.panel_begin, tile_columns_);
  const std::int64_t panel_columns = round_up(plan.panel_columns, tile_columns_);
  const std::int64_t operand = unit / strips, column = unit % strips * tile_columns_;
  const std::int64_t width = std::min(tile_columns_, call.panel_end - call.panel_begin - column);
  for (std::int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
    const std::int64_t chunk_end = std::min(k_, (chunk + 1) * plan.chunk_inner);
    for (std::int64_t inner = chunk * plan.chunk_inner; inner < chunk_end; inner += plan.block_inner) {
      const std::int64_t inner_end = std::min(chunk_end, inner + plan.block_inner);
      T* to = call.layout.shared_rhs + (operand * k_ + inner) * panel_columns + column * (inner_end - inner);
      pack(call.memory, rhs_[static_cast<std::size_t>(operand)], call.batch_begin, call.panel_begin + column, width, inner, inner_end, to,
           tile_columns_);
    }
  }
}

// One block of the result, for one chunk of the inner axis.
template <class T>
void Contraction<T>::multiply(Call& call, const Slot& slot, std::int64_t unit) const {
  const GemmPlan& plan = call.plan;
  const auto results = static_cast<std::int64_t>(terms_.size());
  const std::int64_t row_blocks = ceil_div(m_, plan.block_rows), column_blocks = ceil_div(call.panel_end - call.panel_begin, plan.block_columns);
  const std::int64_t row_begin = unit % row_blocks * plan.block_rows, row_end = std::min(m_, row_begin + plan.block_rows);
  unit /= row_blocks;
  const std::int64_t column_begin = call.panel_begin + unit % column_blocks * plan.block_columns;
  const std::int64_t column_end = std::min(call.panel_end, column_begin + plan.block_columns), columns = column_end - column_begin;
  unit /= column_blocks;
  const std::int64_t chunk = unit % plan.chunks, batch = call.batch_begin + unit / plan.chunks;
  const std::int64_t chunk_begin = chunk * plan.chunk_inner, chunk_end = std::min(k_, chunk_begin + plan.chunk_inner);
  const bool waits = plan.resident_rows > 0;  // results wait in the slot for the epilogue
  const std::int64_t row_strips = ceil_div(row_end - row_begin, kernels_.rows);

  std::int64_t inner_begin = chunk_begin;
  do {  // once even if the inner axis is empty
    const std::int64_t inner_end = std::min(chunk_end, inner_begin + plan.block_inner), inner = inner_end - inner_begin;
    const bool first_block = inner_begin == chunk_begin, last_block = inner_end == chunk_end;

    // Packs what rhs this task packs for itself.
    const std::int64_t whole_end = column_begin + columns / tile_columns_ * tile_columns_;
    if (plan.rhs != RhsSource::shared) {
      for (std::size_t r = 0; r < rhs_.size(); ++r) {
        if (plan.rhs == RhsSource::in_place) {
          if (whole_end == column_end) continue;
          T* to = slot.rhs + static_cast<std::int64_t>(r) * plan.block_inner * tile_columns_;
          pack(call.memory, rhs_[r], batch, whole_end, column_end - whole_end, inner_begin, inner_end, to, tile_columns_);
        } else {
          for (std::int64_t column = column_begin; column < column_end; column += tile_columns_) {
            T* to = slot.rhs + static_cast<std::int64_t>(r) * plan.block_inner * plan.block_columns + (column - column_begin) * inner;
            pack(call.memory, rhs_[r], batch, column, std::min(tile_columns_, column_end - column), inner_begin, inner_end, to, tile_columns_);
          }
        }
      }
    }
    const auto rhs_strip = [&](std::int32_t r, std::int64_t column) -> Strip {
      const GemmOperand& rhs = rhs_[static_cast<std::size_t>(r)];
      switch (plan.rhs) {
        case RhsSource::shared: {
          const std::int64_t panel_columns = round_up(plan.panel_columns, tile_columns_);
          return {call.layout.shared_rhs + (r * k_ + inner_begin) * panel_columns + (column - call.panel_begin) * inner, 1, tile_columns_};
        }
        case RhsSource::task:
          return {slot.rhs + r * plan.block_inner * plan.block_columns + (column - column_begin) * inner, 1, tile_columns_};
        case RhsSource::in_place: break;
      }
      if (column == whole_end) return {slot.rhs + r * plan.block_inner * tile_columns_, 1, tile_columns_};
      return {base(call.memory, rhs, batch) + rhs.strips.offset(column) + rhs.inner.offset(inner_begin), 1, rhs.inner.stride()};
    };

    // Strips of equal height but for one row.
    std::int64_t row = row_begin;
    for (std::int64_t strip = 0; strip < row_strips; ++strip) {
      const std::int64_t rows = (row_end - row) / (row_strips - strip);
      for (std::size_t l = 0; l < lhs_.size(); ++l) {
        const GemmOperand& lhs = lhs_[l];
        if (lhs_readable(lhs, row, rows, columns)) {
          slot.lhs_strips[l] = {base(call.memory, lhs, batch) + lhs.strips.offset(row) + lhs.inner.offset(inner_begin), lhs.strips.stride(), lhs.inner.stride()};
        } else {
          T* to = slot.lhs + static_cast<std::int64_t>(l) * plan.block_inner * lhs_width_;
          pack(call.memory, lhs, batch, row, rows, inner_begin, inner_end, to, lhs_width_);
          slot.lhs_strips[l] = {to, 1, lhs_width_};
        }
      }
      // Where result r of this strip goes.
      const std::int64_t tile_row = last_block && first_block ? 0 : row - row_begin;
      const auto destination = [&](std::size_t r) -> std::pair<T*, std::int64_t> {
        const auto result = static_cast<std::int64_t>(r);
        if (plan.chunks > 1) {
          return {call.layout.partial + (((batch * plan.chunks + chunk) * results + result) * m_ + row) * n_ + column_begin, n_};
        }
        if (waits) return {slot.tile + (result * plan.resident_rows + tile_row) * columns, columns};
        const DirectStore& store = stores_[r];
        T* c = reinterpret_cast<T*>(call.memory.buffers[static_cast<std::size_t>(store.buffer)]) + store.offset + store.batch.offset(batch);
        return {c + row * store.row_stride + column_begin, store.row_stride};
      };
      GemmTile<T> tile{};
      tile.segments = slot.segments;
      tile.inner = inner;
      tile.accumulate = !first_block;
      for (std::int64_t column = column_begin; column < column_end; column += tile_columns_) {
        tile.columns = std::min(tile_columns_, column_end - column);
        for (std::size_t r = 0; r < terms_.size(); ++r) {
          tile.segment_count = 0;
          for (const Term& term : terms_[r]) {
            const Strip& lhs = slot.lhs_strips[term.lhs];
            const Strip rhs = rhs_strip(term.rhs, column);
            slot.segments[tile.segment_count++] = {lhs.data, lhs.strip, lhs.inner, rhs.data, rhs.inner};
          }
          const auto [c, c_row] = destination(r);
          tile.c = c + (column - column_begin);
          tile.c_row = c_row;
          kernels_.tile[tile.columns > kernels_.lanes ? 1 : 0][rows - 1](tile);
        }
      }
      if (waits && last_block) {
        const void* values[32];
        std::vector<const void*> many;
        const void** pointers = values;
        if (terms_.size() > std::size(values)) {
          many.resize(terms_.size());
          pointers = many.data();
        }
        const auto run_points = [&](std::int64_t at_row, std::int64_t count) {
          for (std::size_t r = 0; r < terms_.size(); ++r) pointers[r] = destination(r).first + (at_row - row) * columns;
          const std::int64_t begin = (batch * m_ + at_row) * n_ + column_begin;
          call.epilogue.run_points(begin, count, call.memory, {pointers, terms_.size()}, slot.epilogue);
        };
        if (columns == n_) {
          run_points(row, rows * n_);
        } else {
          for (std::int64_t i = 0; i < rows; ++i) run_points(row + i, columns);
        }
      }
      row += rows;
    }
    inner_begin = inner_end;
  } while (inner_begin < chunk_end);
}

// Adds up the chunks of a strip of rows, in order, and finishes it.
template <class T>
void Contraction<T>::add_chunks(Call& call, const Slot& slot, std::int64_t unit) const {
  const GemmPlan& plan = call.plan;
  const auto results = static_cast<std::int64_t>(terms_.size());
  const std::int64_t strips = ceil_div(m_, kernels_.rows), batch = unit / strips, row = unit % strips * kernels_.rows;
  const std::int64_t rows = std::min<std::int64_t>(kernels_.rows, m_ - row);
  std::vector<const void*> pointers(terms_.size());
  for (std::int64_t r = 0; r < results; ++r) {
    T* to = nullptr;
    std::int64_t to_row = n_;
    if (stores_.empty()) {
      to = slot.tile + r * rows * n_;
      pointers[static_cast<std::size_t>(r)] = to;
    } else {
      const DirectStore& store = stores_[static_cast<std::size_t>(r)];
      to_row = store.row_stride;
      to = reinterpret_cast<T*>(call.memory.buffers[static_cast<std::size_t>(store.buffer)]) + store.offset + store.batch.offset(batch) + row * to_row;
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      T* sum = to + i * to_row;
      for (std::int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
        const T* part = call.layout.partial + (((batch * plan.chunks + chunk) * results + r) * m_ + row + i) * n_;
        if (chunk == 0) {
          std::copy(part, part + n_, sum);
        } else {
          for (std::int64_t j = 0; j < n_; ++j) sum[j] += part[j];
        }
      }
    }
  }
  if (stores_.empty()) call.epilogue.run_points((batch * m_ + row) * n_, rows * n_, call.memory, pointers, slot.epilogue);
}

using AnyContraction = std::variant<Contraction<float>, Contraction<double>>;

AnyContraction prepare(const ContractKernel& kernel) {
  if (kernel.dtype == DType::f32) return Contraction<float>(kernel);
  if (kernel.dtype == DType::f64) return Contraction<double>(kernel);
  throw DTypeError("contraction: runs in f32 or f64, got " + std::string(to_string(kernel.dtype)));
}

}  // namespace

struct ContractRunner::State {
  explicit State(ContractKernel kernel) : contraction(prepare(kernel)), epilogue(std::move(kernel.epilogue)) {}
  AnyContraction contraction;
  TapeRunner epilogue;
};

ContractRunner::ContractRunner(ContractKernel kernel) : state_(std::make_unique<State>(std::move(kernel))) {}
ContractRunner::~ContractRunner() = default;
ContractRunner::ContractRunner(ContractRunner&&) noexcept = default;

void ContractRunner::run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const {
  std::visit([&](const auto& contraction) { contraction.run(memory, pool, scratch, state_->epilogue); }, state_->contraction);
}

std::size_t ContractRunner::scratch_bytes(int threads) const {
  return std::visit([&](const auto& contraction) { return contraction.scratch_bytes(threads, state_->epilogue); }, state_->contraction);
}

}  // namespace fluxion::cpu_backend
