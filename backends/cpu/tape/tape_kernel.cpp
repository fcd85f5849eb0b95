// TapeRunner: cuts the iteration space into units of work, hands them to threads and combines
// partial reductions in a fixed order.
#include "backends/cpu/tape/tape_kernel.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <limits>
#include <optional>

#include "backends/cpu/runtime/scratch.h"
#include "backends/cpu/tape/blocked_tape.h"
#include "backends/cpu/tape/tape_convert.h"
#include "backends/cpu/tape/tape_layout.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/program/limits.h"

namespace fluxion::cpu_backend {

namespace {

// The points that are worth waking another thread for; also what a thread takes at a time.
constexpr std::int64_t parallel_points = 16384;
// A long reduction is split into about wanted_units parts of at least split_points points. These
// are constants, because results must not depend on the number of threads.
constexpr std::int64_t wanted_units = 16, split_points = 32768;
// A streaming tape's results are its reductions, a contraction's epilogue reads those of the
// product.
constexpr std::size_t most_results = static_cast<std::size_t>(KernelLimits{}.max_instructions);
static_assert(KernelLimits{}.max_results <= KernelLimits{}.max_instructions);

// The running value of one reduction at one point: floating values in f64, integers modulo 2^64.
union Cell {
  double floating;
  std::int64_t integer;
};
static_assert(sizeof(Cell) == 8);

Cell nothing(Op op, DType dtype) {
  Cell cell;
  if (is_floating(dtype)) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    cell.floating = op == Op::sum ? 0 : op == Op::max ? -infinity : infinity;
  } else if (dtype == DType::i32) {
    cell.integer = op == Op::sum   ? 0
                   : op == Op::max ? std::numeric_limits<std::int32_t>::lowest()
                                   : std::numeric_limits<std::int32_t>::max();
  } else {
    cell.integer = op == Op::min ? std::numeric_limits<std::uint32_t>::max() : 0;
  }
  return cell;
}

template <class T>
T combine(Op op, T a, T b) {
  if (op == Op::sum) {
    if constexpr (std::is_same_v<T, double>)
      return a + b;
    else
      return static_cast<T>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  }
  if (a != a || b != b) return a + b;  // NaN wins
  return op == Op::max ? std::max(a, b) : std::min(a, b);
}

void combine_cells(const BlockedTape::Reduction& reduction, Cell* into, const Cell* from,
                   std::int64_t n) {
  if (is_floating(reduction.dtype)) {
    for (std::int64_t i = 0; i < n; ++i)
      into[i].floating = combine(reduction.op, into[i].floating, from[i].floating);
  } else {
    for (std::int64_t i = 0; i < n; ++i)
      into[i].integer = combine(reduction.op, into[i].integer, from[i].integer);
  }
}

// Adds the partial values of one block, given as register lanes, to the cells.
void combine_lanes(const BlockedTape::Reduction& reduction, Cell* into, const std::byte* lanes,
                   std::int64_t n) {
  switch (reduction.dtype) {
    case DType::f32: {
      const float* from = reinterpret_cast<const float*>(lanes);
      if (reduction.op == Op::sum) {
        for (std::int64_t i = 0; i < n; ++i) into[i].floating += from[i];
      } else {
        for (std::int64_t i = 0; i < n; ++i)
          into[i].floating = combine<double>(reduction.op, into[i].floating, from[i]);
      }
      return;
    }
    case DType::f64: {
      const double* from = reinterpret_cast<const double*>(lanes);
      for (std::int64_t i = 0; i < n; ++i)
        into[i].floating = combine(reduction.op, into[i].floating, from[i]);
      return;
    }
    case DType::i32: {
      const std::int32_t* from = reinterpret_cast<const std::int32_t*>(lanes);
      for (std::int64_t i = 0; i < n; ++i)
        into[i].integer = combine<std::int64_t>(reduction.op, into[i].integer, from[i]);
      return;
    }
    default: {
      const std::uint32_t* from = reinterpret_cast<const std::uint32_t*>(lanes);
      for (std::int64_t i = 0; i < n; ++i)
        into[i].integer = combine<std::int64_t>(reduction.op, into[i].integer, from[i]);
      return;
    }
  }
}

void cells_to_lanes(DType dtype, const Cell* cells, std::byte* lanes, std::int64_t n) {
  switch (dtype) {
    case DType::f32:
      for (std::int64_t i = 0; i < n; ++i)
        reinterpret_cast<float*>(lanes)[i] = static_cast<float>(cells[i].floating);
      return;
    case DType::f64:
      for (std::int64_t i = 0; i < n; ++i) reinterpret_cast<double*>(lanes)[i] = cells[i].floating;
      return;
    default:  // the low 32 bits
      for (std::int64_t i = 0; i < n; ++i)
        reinterpret_cast<std::uint32_t*>(lanes)[i] = static_cast<std::uint32_t>(cells[i].integer);
      return;
  }
}

// Calls body(first, last, task) for ranges of units, `grain` at a time, on as many tasks as there
// are threads; a task takes a range whenever it has finished one.
template <class Body>
void share_units(const ThreadPool& pool, std::int64_t units, std::int64_t grain, const Body& body) {
  const std::int64_t ranges = ceil_div(units, grain);
  if (ranges <= 1 || pool.threads() == 1) {
    if (units > 0) body(std::int64_t{0}, units, std::int64_t{0});
    return;
  }
  std::atomic<std::int64_t> next{0};
  const auto work = [&](std::int64_t task) {
    for (std::int64_t range; (range = next.fetch_add(1, std::memory_order_relaxed)) < ranges;)
      body(range * grain, std::min(units, (range + 1) * grain), task);
  };
  pool.parallel_for(std::min<std::int64_t>(ranges, pool.threads()),
                    std::ref(work));  // a reference: std::function then allocates nothing
}

}  // namespace

struct TapeRunner::State {
  explicit State(Tape source);

  void run_blocks(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  void run_streaming(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  void accumulate(std::int64_t unit, const CallMemory& memory, std::byte* plan_scratch,
                  Cell* cells) const;
  void finish(std::int64_t begin, std::int64_t count, const Cell* cells, std::int64_t cell_step,
              const CallMemory& memory, std::byte* scratch) const;
  void run_line(std::int64_t begin, std::int64_t count, const CallMemory& memory,
                std::span<const void* const> results, std::byte* scratch) const;

  std::size_t reductions() const { return main->reductions().size(); }
  // Cells (and lanes) that one unit of a streaming tape accumulates, per reduction.
  std::int64_t unit_width() const {
    return along == ReduceAlong::rows ? main->block_columns() : main->block_rows();
  }
  std::size_t cell_bytes() const {
    return aligned(static_cast<std::size_t>(
        scratch_product({static_cast<std::int64_t>(reductions()), unit_width(), sizeof(Cell)})));
  }
  std::size_t task_bytes() const {
    std::size_t bytes = main ? aligned(main->scratch_bytes()) : 0;
    if (streaming)
      bytes = scratch_sum({bytes, cell_bytes(), cell_bytes(), aligned(line->scratch_bytes())});
    return bytes;
  }
  std::size_t partial_bytes() const {
    return streaming && splits > 1
               ? aligned(static_cast<std::size_t>(scratch_product(
                     {splits, kept, static_cast<std::int64_t>(reductions()), sizeof(Cell)})))
               : 0;
  }

  Tape tape;
  bool reads_results = false;
  bool streaming = false;  // reduce in pieces, then run `line` for what depends on the results
  ReduceAlong along = ReduceAlong::nothing;
  std::int64_t kept = 1, reduced = 1;
  std::int64_t splits = 1, split_length = 1;  // of the reduced range
  std::optional<BlockedTape> main;
  // The whole tape as one line of points; of a streaming tape only finish_tape.
  std::optional<BlockedTape> line;
  std::vector<std::int64_t> result_lane_bytes;  // of `line`
};

TapeRunner::State::State(Tape source) : tape(std::move(source)) {
  const std::size_t axes = tape.extents.size(),
                    kept_axes = axes - static_cast<std::size_t>(tape.reduced_axes);
  for (std::size_t axis = 0; axis < axes; ++axis)
    (axis < kept_axes ? kept : reduced) *= tape.extents[axis];
  for (const TapeInstruction& instruction : tape.instructions)
    reads_results = reads_results || instruction.code == TapeCode::result;

  const Tape* line_tape = &tape;
  Tape rest;
  if (tape.reduced_axes == 0) {
    if (!reads_results) main.emplace(tape, BlockedTapeOptions{map_groups(tape)});
  } else {
    streaming = tape.streaming || reduced == 0;
    const ReductionLayout layout = reduction_layout(tape);
    along = layout.along;
    main.emplace(tape, BlockedTapeOptions{layout.groups, along, streaming});
    if (streaming) {
      rest = finish_tape(tape);
      line_tape = &rest;
    }
  }
  if (tape.reduced_axes == 0 || streaming)
    line.emplace(*line_tape, BlockedTapeOptions{line_groups(*line_tape)});
  for (const TapeInstruction& instruction : line_tape->instructions) {
    if (instruction.code != TapeCode::result) continue;
    const std::size_t result = static_cast<std::size_t>(instruction.argument);
    result_lane_bytes.resize(std::max(result_lane_bytes.size(), result + 1), 4);
    result_lane_bytes[result] = lane_bytes(instruction.dtype);
  }

  split_length = std::max<std::int64_t>(reduced, 1);
  if (streaming && kept > 0 && reduced > 0) {
    const std::int64_t block =
        along == ReduceAlong::rows ? main->block_rows() : main->block_columns();
    const std::int64_t width = along == ReduceAlong::rows ? main->columns() : main->rows();
    const std::int64_t groups = main->batches() * ceil_div(width, unit_width());
    const std::int64_t wanted =
        std::min(ceil_div(wanted_units, groups), kept * reduced / split_points);
    split_length = ceil_div(ceil_div(reduced, std::max<std::int64_t>(wanted, 1)), block) * block;
    splits = ceil_div(reduced, split_length);
  }
}

void TapeRunner::State::run_blocks(const CallMemory& memory, const ThreadPool& pool,
                                   std::byte* scratch) const {
  const std::int64_t row_blocks = ceil_div(main->rows(), main->block_rows());
  const std::int64_t column_blocks = ceil_div(main->columns(), main->block_columns());
  const std::int64_t units = main->batches() * row_blocks * column_blocks;
  const std::int64_t grain =
      std::max<std::int64_t>(parallel_points / (main->block_rows() * main->block_columns()), 1);
  share_units(pool, units, grain, [&](std::int64_t first, std::int64_t last, std::int64_t task) {
    std::byte* own = scratch + static_cast<std::size_t>(task) * task_bytes();
    main->begin(memory, own);
    for (std::int64_t unit = first; unit < last; ++unit) {
      TapeBlock block;
      block.column = unit % column_blocks * main->block_columns();
      block.columns = std::min(main->block_columns(), main->columns() - block.column);
      block.row = unit / column_blocks % row_blocks * main->block_rows();
      block.rows = std::min(main->block_rows(), main->rows() - block.row);
      block.batch = unit / column_blocks / row_blocks;
      main->run(block, memory, {}, own);
    }
  });
}

// Runs one unit: some kept points (rows or columns) over one split of the reduced range. Writes its
// cells, [reduction][unit_width].
void TapeRunner::State::accumulate(std::int64_t unit, const CallMemory& memory,
                                   std::byte* plan_scratch, Cell* cells) const {
  const bool by_rows = along == ReduceAlong::rows;
  const std::int64_t width = unit_width(),
                     groups = ceil_div(by_rows ? main->columns() : main->rows(), width);
  const std::int64_t group = unit % groups;
  const std::int64_t split = unit / groups / main->batches();
  const std::int64_t begin = split * split_length, end = std::min(reduced, begin + split_length);
  TapeBlock block;
  block.batch = unit / groups % main->batches();
  (by_rows ? block.column : block.row) = group * width;
  const std::int64_t count = (by_rows ? block.columns : block.rows) =
      std::min(width, (by_rows ? main->columns() : main->rows()) - group * width);
  for (std::size_t r = 0; r < reductions(); ++r)
    std::fill_n(cells + static_cast<std::int64_t>(r) * width, count,
                nothing(main->reductions()[r].op, main->reductions()[r].dtype));
  const std::int64_t piece = by_rows ? main->block_rows() : main->block_columns();
  for (std::int64_t at = begin; at < end; at += piece) {
    (by_rows ? block.row : block.column) = at;
    (by_rows ? block.rows : block.columns) = std::min(piece, end - at);
    main->run(block, memory, {}, plan_scratch);
    for (std::size_t r = 0; r < reductions(); ++r)
      combine_lanes(main->reductions()[r], cells + static_cast<std::int64_t>(r) * width,
                    main->partial(r, plan_scratch), count);
  }
}

// Runs the narrow part for kept points [begin, begin + count), count <= unit_width(); cells of
// reduction r start at cells + r * cell_step. `scratch` has room for the lanes of all reductions
// and for the plan.
void TapeRunner::State::finish(std::int64_t begin, std::int64_t count, const Cell* cells,
                               std::int64_t cell_step, const CallMemory& memory,
                               std::byte* scratch) const {
  std::array<const void*, most_results> results;
  for (std::size_t r = 0; r < reductions(); ++r) {
    std::byte* lanes = scratch + r * static_cast<std::size_t>(unit_width()) * sizeof(Cell);
    cells_to_lanes(main->reductions()[r].dtype, cells + static_cast<std::int64_t>(r) * cell_step,
                   lanes, count);
    results[r] = lanes;
  }
  run_line(begin, count, memory, {results.data(), reductions()}, scratch + cell_bytes());
}

void TapeRunner::State::run_streaming(const CallMemory& memory, const ThreadPool& pool,
                                      std::byte* scratch) const {
  const bool by_rows = along == ReduceAlong::rows;
  const std::int64_t width = unit_width(), extent = by_rows ? main->columns() : main->rows();
  const std::int64_t groups = ceil_div(extent, width);
  const std::int64_t units = groups * main->batches() * splits;
  const std::int64_t unit_points =
      width * std::max<std::int64_t>(std::min(reduced, split_length), 1);
  const std::int64_t grain = std::max<std::int64_t>(parallel_points / unit_points, 1);
  // Split reductions leave their cells here: [split][reduction][kept point].
  Cell* const partials = reinterpret_cast<Cell*>(scratch);
  std::byte* const tasks = scratch + partial_bytes();
  const std::int64_t reductions = static_cast<std::int64_t>(this->reductions());

  share_units(pool, units, grain, [&](std::int64_t first, std::int64_t last, std::int64_t task) {
    std::byte* own = tasks + static_cast<std::size_t>(task) * task_bytes();
    Cell* cells = reinterpret_cast<Cell*>(own);
    std::byte* finish_scratch = own + cell_bytes();
    std::byte* plan_scratch = finish_scratch + cell_bytes() + aligned(line->scratch_bytes());
    if (reduced > 0) main->begin(memory, plan_scratch);
    for (std::int64_t unit = first; unit < last; ++unit) {
      accumulate(unit, memory, plan_scratch, cells);
      const std::int64_t begin = unit / groups % main->batches() * extent + unit % groups * width;
      const std::int64_t count = std::min(width, extent - unit % groups * width);
      if (splits == 1) {
        finish(begin, count, cells, width, memory, finish_scratch);
        continue;
      }
      const std::int64_t split = unit / groups / main->batches();
      for (std::int64_t r = 0; r < reductions; ++r)
        std::copy_n(cells + r * width, count, partials + (split * reductions + r) * kept + begin);
    }
  });
  if (splits == 1) return;

  const std::int64_t ranges = ceil_div(kept, width);
  share_units(pool, ranges, std::max<std::int64_t>(parallel_points / (width * splits), 1),
              [&](std::int64_t first, std::int64_t last, std::int64_t task) {
                std::byte* own = tasks + static_cast<std::size_t>(task) * task_bytes();
                for (std::int64_t range = first; range < last; ++range) {
                  const std::int64_t begin = range * width, count = std::min(width, kept - begin);
                  for (std::int64_t r = 0; r < reductions; ++r)
                    for (std::int64_t split = 1; split < splits; ++split)
                      combine_cells(main->reductions()[static_cast<std::size_t>(r)],
                                    partials + r * kept + begin,
                                    partials + (split * reductions + r) * kept + begin, count);
                  finish(begin, count, partials + begin, kept, memory, own);
                }
              });
}

void TapeRunner::State::run_line(std::int64_t begin, std::int64_t count, const CallMemory& memory,
                                 std::span<const void* const> results, std::byte* scratch) const {
  const std::int64_t vector = line->vector(), most = line->block_columns();
  line->begin(memory, scratch);
  std::array<const void*, most_results> moved;
  for (std::int64_t done = 0; done < count;) {
    // Whole vectors first: they can be read and written in place. The rest goes through registers.
    std::int64_t n = std::min(count - done, most);
    if (n > vector) n -= n % vector;
    std::span<const void* const> at = results;
    if (done > 0) {
      for (std::size_t r = 0; r < result_lane_bytes.size(); ++r)
        moved[r] = static_cast<const std::byte*>(results[r]) + done * result_lane_bytes[r];
      at = {moved.data(), result_lane_bytes.size()};
    }
    line->run({0, 0, 1, begin + done, n}, memory, at, scratch);
    done += n;
  }
}

TapeRunner::TapeRunner(Tape tape) : state_(std::make_unique<State>(std::move(tape))) {}
TapeRunner::~TapeRunner() = default;
TapeRunner::TapeRunner(TapeRunner&&) noexcept = default;

void TapeRunner::run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const {
  if (state_->reads_results)
    throw Error("cpu: an epilogue can't run by itself; its contraction calls run_points");
  if (state_->kept == 0 || (state_->tape.reduced_axes == 0 && state_->reduced == 0)) return;
  if (state_->streaming)
    state_->run_streaming(memory, pool, scratch);
  else
    state_->run_blocks(memory, pool, scratch);
}

std::size_t TapeRunner::scratch_bytes(int threads) const {
  return state_->reads_results
             ? 0
             : scratch_sum({state_->partial_bytes(),
                            static_cast<std::size_t>(scratch_product(
                                {threads, static_cast<std::int64_t>(state_->task_bytes())}))});
}

void TapeRunner::run_points(std::int64_t begin, std::int64_t count, const CallMemory& memory,
                            std::span<const void* const> results, std::byte* scratch) const {
  if (state_->tape.reduced_axes != 0)
    throw Error("cpu: run_points needs a tape without reduced axes");
  state_->run_line(begin, count, memory, results, scratch);
}

std::size_t TapeRunner::point_scratch_bytes() const {
  return state_->line ? aligned(state_->line->scratch_bytes()) : 0;
}

}  // namespace fluxion::cpu_backend
