// A contraction is cut into blocks of the result (gemm_blocking.h). A task takes one block at a
// time and, for each block of the inner axis, walks down its rows: a strip of lhs comes into the
// first-level cache, strips of rhs pass by it from the second, and the register tiles between them
// (gemm_kernel.h) are added to the result - in place where the epilogue only stores it, else in the
// task's scratch memory, where the epilogue finds it.
//
// Operands are read where they lie if the kernel can; a strip that it can't read - the wrong axis
// contiguous, or none, or elements of 16 bits - is packed first, and converted on the way
// (gemm_reader.h). Packing changes neither the order nor the rounding of any sum: a product of
// 16-bit operands has the bits of the same product of operands that were converted before.
#include "backends/cpu/gemm/contract_kernel.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>
#include <variant>
#include <vector>

#include "backends/cpu/gemm/gemm_blocking.h"
#include "backends/cpu/gemm/gemm_kernel.h"
#include "backends/cpu/gemm/gemm_reader.h"
#include "backends/cpu/gemm/gemm_store.h"
#include "backends/cpu/runtime/scratch.h"
#include "engine/error.h"

namespace fluxion::cpu_backend {

namespace {

std::int32_t find_or_add(std::vector<ContractOperand>& operands, const ContractOperand& operand) {
  const auto index = std::find(operands.begin(), operands.end(), operand) - operands.begin();
  if (index == std::ssize(operands)) operands.push_back(operand);
  return static_cast<std::int32_t>(index);
}

// A single row times a weight [outputs, inputs] would pack the whole weight to use it once. The
// product of the transposes has the same points and sums, and reads the weight in place.
ContractKernel turned_row(ContractKernel kernel) {
  const auto along_inner = [](const ContractTerm& term) {
    const GemmAxis inner(term.rhs.rows), columns(term.rhs.columns);
    return inner.is_affine() && inner.stride() == 1 && columns.stride() != 1;
  };
  if (kernel.m != 1 || !std::ranges::all_of(kernel.terms, along_inner)) return kernel;
  std::swap(kernel.m, kernel.n);
  std::swap(kernel.lhs, kernel.rhs);
  for (ContractTerm& term : kernel.terms) {
    std::swap(term.lhs, term.rhs);
    std::swap(term.lhs.rows, term.lhs.columns);
    std::swap(term.rhs.rows, term.rhs.columns);
  }
  return kernel;
}

// A contraction whose accumulators are of type T, prepared.
template <class T>
class Contraction {
 public:
  explicit Contraction(const ContractKernel& kernel);

  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch,
           const TapeRunner& epilogue) const;
  std::size_t scratch_bytes(int threads, const TapeRunner& epilogue) const;

 private:
  using Reader = GemmReader<T>;
  struct Term {
    std::int32_t lhs, rhs;
  };
  using Strip = GemmStripView<T>;
  // Part of a result: element (i, j) at data[i * row + j].
  struct Rows {
    T* data;
    std::int64_t row;
  };
  // Scratch memory of one task.
  struct Slot {
    T* lhs;  // [lhs operand][strip of a group][inner][lhs width]
    T* rhs;  // [rhs operand][strip][inner][tile columns]: the block of each, or only its last strip
    T* tile;             // [result][resident row][column]
    Strip* lhs_strips;   // [lhs operand][strip of a group]
    Rows* destinations;  // [result][strip of a group]
    GemmSegment<T>* segments;
    const void** results;
    std::byte* epilogue;
  };
  // Scratch memory of a call.
  struct Layout {
    T* shared_rhs;  // [rhs operand][inner block][strip][inner][tile columns]
    T* partial;     // [batch][chunk][result][m][n]
    std::byte* slots;
    std::size_t bytes;
  };
  // A call, at one of its phases: `units` pieces of work, which slots take in turn.
  struct Call {
    const Contraction& self;
    const CallMemory& memory;
    const TapeRunner& epilogue;
    const GemmBlocking& plan;
    Layout layout;
    std::int64_t batch_begin = 0, batch_end = 0;
    std::int64_t panel_begin = 0, panel_end = 0;  // columns
    std::int64_t units = 0, units_at_once = 1;
    std::atomic<std::int64_t> next{0};
  };
  // What a task works on: a block of the result, for a block of the inner axis.
  struct Block {
    std::int64_t batch, chunk;
    std::int64_t row_begin, row_end, column_begin, column_end;
    std::int64_t inner_begin, inner_end;
    std::int64_t next_end;  // where the block of the inner axis after this one ends
    bool first, last;       // of its inner axis
    std::int64_t columns() const { return column_end - column_begin; }
    std::int64_t inner() const { return inner_end - inner_begin; }
  };
  using Work = void (Contraction::*)(const Call&, const Slot&, std::int64_t unit) const;

  GemmBlocking plan(int threads) const;
  Slot carve_slot(Carver& carver, const GemmBlocking& plan, const TapeRunner& epilogue) const;
  Layout carve(std::byte* scratch, const GemmBlocking& plan, const TapeRunner& epilogue) const;
  void run_phase(Call& call, const ThreadPool& pool, Work work, std::int64_t units,
                 double multiplications_per_unit) const;

  // The phases' work.
  void pack_shared_rhs(const Call& call, const Slot& slot, std::int64_t unit) const;
  void multiply(const Call& call, const Slot& slot, std::int64_t unit) const;
  void add_chunks(const Call& call, const Slot& slot, std::int64_t unit) const;

  void pack_task_rhs(const Call& call, const Slot& slot, const Block& block) const;
  GemmGroup group_at(const Call& call, const Block& block, std::int64_t row) const;
  void multiply_group(const Call& call, const Slot& slot, const Block& block,
                      const GemmGroup& group) const;
  void multiply_column(const Call& call, const Slot& slot, const Block& block,
                       const GemmGroup& group, std::int64_t column) const;
  void foresee(const Call& call, const Block& block, std::int64_t column, std::int64_t row) const;
  static void ask_for(const Strip& lhs, std::int64_t rows, std::int64_t inner);
  void run_epilogue(const Call& call, const Slot& slot, const Block& block,
                    const GemmGroup& group) const;

  Strip rhs_strip(const Call& call, const Slot& slot, const Block& block, std::int32_t operand,
                  std::int64_t column) const;
  Rows destination(const Call& call, const Slot& slot, const Block& block, const GemmGroup& group,
                   std::int64_t result, std::int64_t row) const;
  Rows stored(const Call& call, std::int64_t batch, std::int64_t result, std::int64_t row) const;
  T* partial(const Call& call, std::int64_t batch, std::int64_t chunk, std::int64_t result,
             std::int64_t row) const;

  bool rhs_broadcast() const {
    return std::all_of(rhs_.begin(), rhs_.end(),
                       [](const Reader& rhs) { return rhs.batch().is_broadcast(); });
  }
  std::int64_t results() const { return std::ssize(terms_); }
  std::int64_t tile_columns() const { return gemm_max_vectors * kernels_.lanes; }
  // Strips that are multiplied before `foresee` is called again: some thousand cycles.
  std::int64_t foreseeing_strips() const { return std::max(1, 24 / kernels_.rows); }
  std::int64_t lhs_width() const { return round_up(kernels_.rows, kernels_.lanes); }

  const GemmKernels<T>& kernels_;
  std::int64_t batch_, m_, n_, k_;
  std::vector<Reader> lhs_, rhs_;         // distinct ones
  std::vector<std::vector<Term>> terms_;  // by result
  std::vector<DirectStore> stores_;       // by result; empty: the epilogue's tape stores
};

template <class T>
Contraction<T>::Contraction(const ContractKernel& kernel)
    : kernels_(gemm_kernels<T>()),
      batch_(kernel.batch),
      m_(kernel.m),
      n_(kernel.n),
      k_(kernel.k),
      terms_(static_cast<std::size_t>(kernel.results)) {
  std::vector<ContractOperand> lhs, rhs;
  for (const ContractTerm& term : kernel.terms) {
    if (term.result < 0 || term.result >= kernel.results)
      throw Error("contraction: a term adds to result " + std::to_string(term.result));
    terms_[static_cast<std::size_t>(term.result)].push_back(
        {find_or_add(lhs, term.lhs), find_or_add(rhs, term.rhs)});
  }
  for (const ContractOperand& operand : lhs) {
    const Reader& added = lhs_.emplace_back(GemmOperand::of_lhs(operand, kernel.lhs));
    if (added.batch().size() != batch_ || added.strips().size() != m_ ||
        added.inner().size() != k_) {
      throw ShapeError("contraction: the axes of lhs don't multiply to [batch, m, k] = " +
                       to_string(Dims{batch_, m_, k_}));
    }
  }
  for (const ContractOperand& operand : rhs) {
    const Reader& added = rhs_.emplace_back(GemmOperand::of_rhs(operand, kernel.rhs));
    if (added.batch().size() != batch_ || added.inner().size() != k_ ||
        added.strips().size() != n_) {
      throw ShapeError("contraction: the axes of rhs don't multiply to [batch, k, n] = " +
                       to_string(Dims{batch_, k_, n_}));
    }
  }
  std::int64_t points = 1;
  for (const std::int64_t extent : kernel.epilogue.extents) points *= extent;
  if (points != batch_ * m_ * n_) {
    throw ShapeError("contraction: the epilogue's extents " + to_string(kernel.epilogue.extents) +
                     " don't multiply to [batch, m, n] = " + to_string(Dims{batch_, m_, n_}));
  }
  stores_ = direct_stores(kernel);
}

template <class T>
GemmBlocking Contraction<T>::plan(int threads) const {
  GemmProblem problem{};
  problem.batch = batch_, problem.m = m_, problem.n = n_, problem.k = k_;
  problem.rhs_operands = std::ssize(rhs_);
  problem.results = results();
  for (const auto& terms : terms_) problem.terms += std::ssize(terms);
  problem.element_bytes = sizeof(T);
  problem.tile_rows = kernels_.rows;
  problem.tile_columns = tile_columns();
  problem.epilogue = stores_.empty();
  problem.rhs_broadcast = rhs_broadcast();
  // Rows far apart share a few sets of the caches, and many of them push one another out: worth
  // packing where many strips of lhs pass by.
  constexpr std::int64_t first_level_bytes = 32 * 1024;
  const bool tall = m_ > 8 * kernels_.rows;
  const auto scattered = [&](const Reader& rhs) {
    const std::int64_t rows = std::clamp<std::int64_t>(k_, 1, max_block_inner(sizeof(T)));
    return std::abs(rhs.inner().stride()) >
           first_level_bytes / (rows * static_cast<std::int64_t>(sizeof(T)));
  };
  problem.rhs_readable = std::all_of(rhs_.begin(), rhs_.end(), [&](const Reader& rhs) {
    return rhs.is_native() && rhs.inner().is_affine() && rhs.strips().stride() == 1 &&
           rhs.strips().aligned_stretches(tile_columns()) && !(tall && scattered(rhs));
  });
  return choose_blocking(problem, threads);
}

template <class T>
auto Contraction<T>::carve_slot(Carver& carver, const GemmBlocking& plan,
                                const TapeRunner& epilogue) const -> Slot {
  const std::int64_t rhs_columns = plan.rhs == RhsSource::task       ? plan.block_columns
                                   : plan.rhs == RhsSource::in_place ? tile_columns()
                                                                     : 0;
  std::int64_t max_segments = 0;
  for (const auto& terms : terms_) {
    std::int64_t segments = 0;
    for (const Term& term : terms)
      segments += lhs_[static_cast<std::size_t>(term.lhs)].segments(plan.block_inner);
    max_segments = std::max(max_segments, segments);
  }
  Slot slot{};
  slot.lhs = carver.take<T>(
      scratch_product({std::ssize(lhs_), plan.group_strips, plan.block_inner, lhs_width()}));
  slot.rhs = carver.take<T>(scratch_product({std::ssize(rhs_), plan.block_inner, rhs_columns}));
  slot.lhs_strips = carver.take<Strip>(scratch_product({std::ssize(lhs_), plan.group_strips}));
  slot.destinations = carver.take<Rows>(scratch_product({results(), plan.group_strips}));
  slot.segments = carver.take<GemmSegment<T>>(max_segments);
  if (stores_.empty()) {
    const std::int64_t tile = plan.chunks > 1 ? std::min<std::int64_t>(m_, kernels_.rows) * n_
                                              : plan.resident_rows * plan.block_columns;
    slot.tile = carver.take<T>(scratch_product({results(), tile}));
    slot.results = carver.take<const void*>(results());
    slot.epilogue =
        carver.take<std::byte>(static_cast<std::int64_t>(epilogue.point_scratch_bytes()));
  }
  return slot;
}

template <class T>
auto Contraction<T>::carve(std::byte* scratch, const GemmBlocking& plan,
                           const TapeRunner& epilogue) const -> Layout {
  Carver carver(scratch);
  Layout layout{};
  if (plan.rhs == RhsSource::shared)
    layout.shared_rhs = carver.take<T>(scratch_product({std::ssize(rhs_), k_, plan.panel_columns}));
  if (plan.chunks > 1)
    layout.partial = carver.take<T>(scratch_product({batch_, plan.chunks, results(), m_, n_}));
  layout.slots = scratch ? scratch + carver.used() : nullptr;
  Carver slot(nullptr);
  carve_slot(slot, plan, epilogue);
  const std::int64_t slots = scratch_product({static_cast<std::int64_t>(slot.used()), plan.slots});
  layout.bytes = scratch_sum({carver.used(), static_cast<std::size_t>(slots)});
  return layout;
}

template <class T>
std::size_t Contraction<T>::scratch_bytes(int threads, const TapeRunner& epilogue) const {
  if (batch_ == 0 || m_ == 0 || n_ == 0) return 0;
  return carve(nullptr, plan(threads), epilogue).bytes;
}

template <class T>
void Contraction<T>::run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch,
                         const TapeRunner& epilogue) const {
  if (batch_ == 0 || m_ == 0 || n_ == 0) return;
  const GemmBlocking plan = this->plan(pool.threads());
  Call call{*this, memory, epilogue, plan, carve(scratch, plan, epilogue)};
  const std::int64_t row_blocks = ceil_div(m_, plan.block_rows);
  const double block_multiplications = static_cast<double>(plan.block_rows) *
                                       static_cast<double>(plan.block_columns) *
                                       static_cast<double>(plan.chunk_inner);
  const bool shared = plan.rhs == RhsSource::shared;
  const std::int64_t batch_step = shared && !rhs_broadcast() ? 1 : batch_;
  for (std::int64_t batch = 0; batch < batch_; batch += batch_step) {
    call.batch_begin = batch, call.batch_end = batch + batch_step;
    for (std::int64_t column = 0; column < n_; column += plan.panel_columns) {
      call.panel_begin = column, call.panel_end = std::min(n_, column + plan.panel_columns);
      const std::int64_t columns = call.panel_end - call.panel_begin;
      if (shared) {
        constexpr std::int64_t multiplications_per_packed_element = 8;  // that take as long
        run_phase(call, pool, &Contraction::pack_shared_rhs,
                  std::ssize(rhs_) * ceil_div(columns, tile_columns()),
                  static_cast<double>(multiplications_per_packed_element * tile_columns()) *
                      static_cast<double>(k_));
      }
      run_phase(call, pool, &Contraction::multiply,
                batch_step * plan.chunks * ceil_div(columns, plan.block_columns) * row_blocks,
                block_multiplications);
    }
  }
  if (plan.chunks > 1) {
    constexpr std::int64_t multiplications_per_sum = 8;
    run_phase(call, pool, &Contraction::add_chunks, batch_ * ceil_div(m_, kernels_.rows),
              static_cast<double>(multiplications_per_sum * plan.chunks * kernels_.rows) *
                  static_cast<double>(n_));
  }
}

template <class T>
void Contraction<T>::run_phase(Call& call, const ThreadPool& pool, Work work, std::int64_t units,
                               double multiplications_per_unit) const {
  // Units are taken in handfuls that last some microseconds, but so that each slot comes back a few
  // times.
  constexpr double multiplications_at_once = 256 * 1024;
  call.units = units;
  call.units_at_once = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(multiplications_at_once / std::max(1.0, multiplications_per_unit)),
      1, ceil_div(units, 4 * call.plan.slots));
  call.next = 0;
  struct Phase {
    Call& call;
    Work work;
  } phase{call, work};
  pool.parallel_for(
      std::min(call.plan.slots, ceil_div(units, call.units_at_once)), [&phase](std::int64_t index) {
        Call& call = phase.call;
        const Contraction& self = call.self;
        Carver counter(nullptr);
        self.carve_slot(counter, call.plan, call.epilogue);
        Carver carver(call.layout.slots + counter.used() * static_cast<std::size_t>(index));
        const Slot slot = self.carve_slot(carver, call.plan, call.epilogue);
        for (;;) {
          const std::int64_t begin =
              call.next.fetch_add(call.units_at_once, std::memory_order_relaxed);
          if (begin >= call.units) return;
          const std::int64_t end = std::min(begin + call.units_at_once, call.units);
          for (std::int64_t unit = begin; unit < end; ++unit) (self.*phase.work)(call, slot, unit);
        }
      });
}

// Unit: a strip of one rhs, along the whole inner axis.
template <class T>
void Contraction<T>::pack_shared_rhs(const Call& call, const Slot&, std::int64_t unit) const {
  const GemmBlocking& plan = call.plan;
  const std::int64_t strips = ceil_div(call.panel_end - call.panel_begin, tile_columns());
  const std::int64_t operand = unit / strips, column = unit % strips * tile_columns();
  const std::int64_t width = std::min(tile_columns(), call.panel_end - call.panel_begin - column);
  for (std::int64_t chunk_begin = 0; chunk_begin < k_; chunk_begin += plan.chunk_inner) {
    const std::int64_t chunk_end = std::min(k_, chunk_begin + plan.chunk_inner);
    for (std::int64_t inner_begin = chunk_begin; inner_begin < chunk_end;
         inner_begin += plan.block_inner) {
      const std::int64_t inner_end = std::min(chunk_end, inner_begin + plan.block_inner);
      T* to = call.layout.shared_rhs + (operand * k_ + inner_begin) * plan.panel_columns +
              column * (inner_end - inner_begin);
      rhs_[static_cast<std::size_t>(operand)].pack(call.memory, call.batch_begin,
                                                   call.panel_begin + column, width, inner_begin,
                                                   inner_end, to, tile_columns());
    }
  }
}

// Unit: a block of the result, for one chunk of the inner axis.
template <class T>
void Contraction<T>::multiply(const Call& call, const Slot& slot, std::int64_t unit) const {
  const GemmBlocking& plan = call.plan;
  const std::int64_t row_blocks = ceil_div(m_, plan.block_rows),
                     column_blocks =
                         ceil_div(call.panel_end - call.panel_begin, plan.block_columns);
  Block block{};
  block.row_begin = unit % row_blocks * plan.block_rows;
  block.row_end = std::min(m_, block.row_begin + plan.block_rows);
  block.column_begin = call.panel_begin + unit / row_blocks % column_blocks * plan.block_columns;
  block.column_end = std::min(call.panel_end, block.column_begin + plan.block_columns);
  const std::int64_t item = unit / row_blocks / column_blocks;
  block.chunk = item % plan.chunks;
  block.batch = call.batch_begin + item / plan.chunks;
  const std::int64_t chunk_begin = block.chunk * plan.chunk_inner,
                     chunk_end = std::min(k_, chunk_begin + plan.chunk_inner);

  block.inner_end = chunk_begin;
  do {  // once even if the inner axis is empty
    block.inner_begin = block.inner_end;
    block.inner_end = std::min(chunk_end, block.inner_begin + plan.block_inner);
    block.first = block.inner_begin == chunk_begin;
    block.last = block.inner_end == chunk_end;
    block.next_end = std::min(chunk_end, block.inner_end + plan.block_inner);
    pack_task_rhs(call, slot, block);
    for (std::int64_t row = block.row_begin; row < block.row_end;) {
      const GemmGroup group = group_at(call, block, row);
      multiply_group(call, slot, block, group);
      if (block.last && plan.resident_rows > 0) run_epilogue(call, slot, block, group);
      row += group.rows;
    }
  } while (!block.last);
}

template <class T>
void Contraction<T>::pack_task_rhs(const Call& call, const Slot& slot, const Block& block) const {
  if (call.plan.rhs == RhsSource::shared) return;
  const bool whole = call.plan.rhs == RhsSource::task;
  const std::int64_t columns = whole ? call.plan.block_columns : tile_columns();
  const std::int64_t begin =
      whole ? block.column_begin
            : block.column_begin + block.columns() / tile_columns() * tile_columns();
  for (std::size_t r = 0; r < rhs_.size(); ++r) {
    T* to = slot.rhs + static_cast<std::int64_t>(r) * call.plan.block_inner * columns;
    for (std::int64_t column = begin; column < block.column_end; column += tile_columns()) {
      rhs_[r].pack(call.memory, block.batch, column,
                   std::min(tile_columns(), block.column_end - column), block.inner_begin,
                   block.inner_end, to + (column - begin) * block.inner(), tile_columns());
    }
  }
}

template <class T>
auto Contraction<T>::rhs_strip(const Call& call, const Slot& slot, const Block& block,
                               std::int32_t operand, std::int64_t column) const -> Strip {
  const GemmBlocking& plan = call.plan;
  if (plan.rhs == RhsSource::shared) {
    const T* panel =
        call.layout.shared_rhs + (operand * k_ + block.inner_begin) * plan.panel_columns;
    return {panel + (column - call.panel_begin) * block.inner(), 1, tile_columns()};
  }
  if (plan.rhs == RhsSource::task) {
    return {slot.rhs + operand * plan.block_inner * plan.block_columns +
                (column - block.column_begin) * block.inner(),
            1, tile_columns()};
  }
  if (block.column_end - column < tile_columns())
    return {slot.rhs + operand * plan.block_inner * tile_columns(), 1, tile_columns()};
  const Reader& rhs = rhs_[static_cast<std::size_t>(operand)];
  return {rhs.native(call.memory, block.batch,
                     rhs.strips().offset(column) + rhs.inner().offset(block.inner_begin)),
          1, rhs.inner().stride()};
}

// The strips from `row` on that share a group.
template <class T>
auto Contraction<T>::group_at(const Call& call, const Block& block, std::int64_t row) const
    -> GemmGroup {
  GemmGroup group;
  group.row = row;
  while (group.strips < call.plan.group_strips && row + group.rows < block.row_end) {
    const std::int64_t begin = row + group.rows, left = block.row_end - begin;
    const std::int64_t height = lhs_.empty() ? left / ceil_div(left, kernels_.rows)
                                             : lhs_[0].strip_height(begin, block.row_end);
    group.heights[group.strips++] = height;
    group.rows += height;
  }
  return group;
}

template <class T>
T* Contraction<T>::partial(const Call& call, std::int64_t batch, std::int64_t chunk,
                           std::int64_t result, std::int64_t row) const {
  return call.layout.partial +
         (((batch * call.plan.chunks + chunk) * results() + result) * m_ + row) * n_;
}

template <class T>
auto Contraction<T>::stored(const Call& call, std::int64_t batch, std::int64_t result,
                            std::int64_t row) const -> Rows {
  const DirectStore& store = stores_[static_cast<std::size_t>(result)];
  T* buffer = reinterpret_cast<T*>(call.memory.buffers[static_cast<std::size_t>(store.buffer)]);
  return {buffer + store.offset + store.batch.offset(batch) + row * store.row_stride,
          store.row_stride};
}

// Where the block's part of a result goes, from `row` on.
template <class T>
auto Contraction<T>::destination(const Call& call, const Slot& slot, const Block& block,
                                 const GemmGroup& group, std::int64_t result,
                                 std::int64_t row) const -> Rows {
  if (call.plan.chunks > 1)
    return {partial(call, block.batch, block.chunk, result, row) + block.column_begin, n_};
  if (call.plan.resident_rows > 0) {
    const std::int64_t tile_row = row - (block.first && block.last ? group.row : block.row_begin);
    return {slot.tile + (result * call.plan.resident_rows + tile_row) * block.columns(),
            block.columns()};
  }
  const Rows to = stored(call, block.batch, result, row);
  return {to.data + block.column_begin, to.row};
}

template <class T>
void Contraction<T>::multiply_group(const Call& call, const Slot& slot, const Block& block,
                                    const GemmGroup& group) const {
  const std::int64_t packed_strip = call.plan.block_inner * lhs_width();
  for (std::size_t l = 0; l < lhs_.size(); ++l) {
    const std::int64_t first = static_cast<std::int64_t>(l) * call.plan.group_strips;
    lhs_[l].find_strips(call.memory,
                        {.rows = group,
                         .batch = block.batch,
                         .inner_begin = block.inner_begin,
                         .inner_end = block.inner_end,
                         .columns = block.columns(),
                         .packed = slot.lhs + first * packed_strip,
                         .packed_strip = packed_strip,
                         .width = lhs_width()},
                        slot.lhs_strips + first);
  }
  for (std::int64_t result = 0; result < results(); ++result) {
    for (std::int64_t s = 0, row = group.row; s < group.strips; ++s) {
      slot.destinations[result * call.plan.group_strips + s] =
          destination(call, slot, block, group, result, row);
      row += group.heights[s];
    }
  }
  for (std::int64_t column = block.column_begin; column < block.column_end;
       column += tile_columns())
    multiply_column(call, slot, block, group, column);
}

// Of a task that packs all that it multiplies: asks for what comes with the next block of the inner
// axis, a part beside some tiles, so that it arrives from memory while this block is multiplied.
template <class T>
void Contraction<T>::foresee(const Call& call, const Block& block, std::int64_t column,
                             std::int64_t row) const {
  const std::int64_t begin = block.inner_end, length = block.next_end - begin;
  // Of strip elements from `at` on: inner positions from `part` to `next_part` of `parts`.
  const auto ask = [&](const Reader& operand, std::int64_t at, std::int64_t width,
                       std::int64_t part, std::int64_t next_part, std::int64_t parts) {
    operand.prefetch(call.memory, block.batch, at, width, begin + length * part / parts,
                     begin + length * std::min(next_part, parts) / parts);
  };
  const std::int64_t rows = block.row_end - block.row_begin, down = row - block.row_begin,
                     across = column - block.column_begin,
                     rows_at_once = foreseeing_strips() * kernels_.rows;
  for (const Reader& rhs : rhs_) ask(rhs, column, tile_columns(), down, down + rows_at_once, rows);
  for (const Reader& lhs : lhs_)
    ask(lhs, row, rows_at_once, across, across + tile_columns(), block.columns());
}

template <class T>
void Contraction<T>::ask_for(const Strip& lhs, std::int64_t rows, std::int64_t inner) {
  if (lhs.stretches || lhs.inner != 1) return;
  constexpr std::int64_t line = 64 / sizeof(T);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t p = 0; p < inner; p += line) __builtin_prefetch(lhs.data + i * lhs.strip + p);
}

// The group's tiles beside one strip of rhs, which stays in the first-level cache meanwhile.
template <class T>
void Contraction<T>::multiply_column(const Call& call, const Slot& slot, const Block& block,
                                     const GemmGroup& group, std::int64_t column) const {
  GemmTile<T> tile{};
  tile.segments = slot.segments;
  tile.accumulate = !block.first;
  tile.columns = std::min(tile_columns(), block.column_end - column);
  const auto& kernels = kernels_.tile[tile.columns > kernels_.lanes ? 1 : 0];
  const bool foresees = call.plan.rhs == RhsSource::task && !block.last;
  // Then lhs comes from memory and is read once, in rows too short for the processor to foresee.
  const bool only_column = block.columns() <= tile_columns();
  for (std::int64_t result = 0; result < results(); ++result) {
    const std::vector<Term>& terms = terms_[static_cast<std::size_t>(result)];
    for (std::int64_t s = 0, row = group.row; s < group.strips; row += group.heights[s++]) {
      if (foresees && result == 0 && s % foreseeing_strips() == 0)
        foresee(call, block, column, row);
      if (only_column && s + 1 < group.strips)
        for (const Term& term : terms)
          ask_for(slot.lhs_strips[term.lhs * call.plan.group_strips + s + 1], group.heights[s + 1],
                  block.inner());
      GemmSegment<T>* segment = slot.segments;
      for (const Term& term : terms) {
        const Strip& lhs = slot.lhs_strips[term.lhs * call.plan.group_strips + s];
        const Strip rhs = rhs_strip(call, slot, block, term.rhs, column);
        if (!lhs.stretches) {
          *segment++ = {lhs.data, lhs.strip, lhs.inner, rhs.data, rhs.inner, block.inner()};
          continue;
        }
        for (std::int64_t p = block.inner_begin, length = 0; p < block.inner_end; p += length) {
          length = lhs.stretches->stretch(p, block.inner_end - p);
          *segment++ = {lhs.data + lhs.stretches->offset(p),
                        lhs.strip,
                        1,
                        rhs.data + (p - block.inner_begin) * rhs.inner,
                        rhs.inner,
                        length};
        }
      }
      tile.segment_count = segment - slot.segments;
      const Rows& to = slot.destinations[result * call.plan.group_strips + s];
      tile.c = to.data + (column - block.column_begin);
      tile.c_row = to.row;
      kernels[group.heights[s] - 1](tile);
    }
  }
}

template <class T>
void Contraction<T>::run_epilogue(const Call& call, const Slot& slot, const Block& block,
                                  const GemmGroup& group) const {
  // Rows that reach from edge to edge are consecutive points.
  const std::int64_t rows_at_once = block.columns() == n_ ? group.rows : 1;
  for (std::int64_t i = 0; i < group.rows; i += rows_at_once) {
    for (std::int64_t result = 0; result < results(); ++result)
      slot.results[result] = destination(call, slot, block, group, result, group.row + i).data;
    call.epilogue.run_points((block.batch * m_ + group.row + i) * n_ + block.column_begin,
                             rows_at_once * block.columns(), call.memory,
                             {slot.results, terms_.size()}, slot.epilogue);
  }
}

// Unit: a strip of rows, of which the chunks are added up in order.
template <class T>
void Contraction<T>::add_chunks(const Call& call, const Slot& slot, std::int64_t unit) const {
  const std::int64_t strips = ceil_div(m_, kernels_.rows), batch = unit / strips,
                     row_begin = unit % strips * kernels_.rows;
  const std::int64_t rows = std::min<std::int64_t>(kernels_.rows, m_ - row_begin);
  for (std::int64_t result = 0; result < results(); ++result) {
    Rows to{};
    if (stores_.empty()) {
      to = {slot.tile + result * rows * n_, n_};
      slot.results[result] = to.data;
    } else {
      to = stored(call, batch, result, row_begin);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      T* sum = to.data + i * to.row;
      const T* first = partial(call, batch, 0, result, row_begin + i);
      std::copy(first, first + n_, sum);
      for (std::int64_t chunk = 1; chunk < call.plan.chunks; ++chunk) {
        const T* part = partial(call, batch, chunk, result, row_begin + i);
        for (std::int64_t j = 0; j < n_; ++j) sum[j] += part[j];
      }
    }
  }
  if (stores_.empty()) {
    call.epilogue.run_points((batch * m_ + row_begin) * n_, rows * n_, call.memory,
                             {slot.results, terms_.size()}, slot.epilogue);
  }
}

// (The runtime library alone: no exported sampler computes in f64.)
#if defined(FLUXION_CPU_WITHOUT_F64)
using AnyContraction = std::variant<Contraction<float>>;
#else
using AnyContraction = std::variant<Contraction<float>, Contraction<double>>;
#endif

AnyContraction prepare(const ContractKernel& kernel) {
  const auto each = [&](auto holds) { return holds(kernel.lhs) && holds(kernel.rhs); };
  if (kernel.accumulate == DType::f32 &&
      each([](DType dtype) { return is_floating(dtype) && dtype != DType::f64; }))
    return Contraction<float>(kernel);
#if !defined(FLUXION_CPU_WITHOUT_F64)
  if (kernel.accumulate == DType::f64 && each([](DType dtype) { return dtype == DType::f64; }))
    return Contraction<double>(kernel);
#endif
  throw DTypeError(
      "contraction: sums products of bf16, f16 and f32 in f32 and of f64 in f64, not " +
      std::string(to_string(kernel.lhs)) + " x " + std::string(to_string(kernel.rhs)) + " in " +
      std::string(to_string(kernel.accumulate)));
}

}  // namespace

struct ContractRunner::State {
  explicit State(ContractKernel kernel)
      : contraction(prepare(turned_row(kernel))), epilogue(std::move(kernel.epilogue)) {}
  AnyContraction contraction;
  TapeRunner epilogue;
};

ContractRunner::ContractRunner(ContractKernel kernel)
    : state_(std::make_unique<State>(std::move(kernel))) {}
ContractRunner::~ContractRunner() = default;
ContractRunner::ContractRunner(ContractRunner&&) noexcept = default;

void ContractRunner::run(const CallMemory& memory, const ThreadPool& pool,
                         std::byte* scratch) const {
  std::visit(
      [&](const auto& contraction) { contraction.run(memory, pool, scratch, state_->epilogue); },
      state_->contraction);
}

std::size_t ContractRunner::scratch_bytes(int threads) const {
  return std::visit(
      [&](const auto& contraction) { return contraction.scratch_bytes(threads, state_->epilogue); },
      state_->contraction);
}

}  // namespace fluxion::cpu_backend
