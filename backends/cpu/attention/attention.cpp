// Attention by blocks, after T. Dao, D. Fu, S. Ermon, A. Rudra, C. Re, "FlashAttention" (2022),
// with tangents carried along.
//
// Queries are processed in strips. A strip is packed once, transposed: features in rows, one query
// per column. Then, for one block of keys after the other:
//
//   scores [keys, queries]   = K Q'    online softmax down the columns (attention_kernel.h)
//   sums [features, queries] += V' P   relative to the largest score so far
//
// Keys and values are the left operands, whose elements the register tile (gemm_kernel.h)
// broadcasts. So they are read in place whatever their strides, and P is the right operand exactly
// as the softmax leaves it. The dual adds
//
//   tangents [keys, queries] = K dQ' + dK Q'
//   tangent sums             += V' T + dV' P,  T = P tangents
//
// The backward holds the scores and factors V U' of a strip against all keys, finds from them what
// it must know of each row, then P and dS = P (V U' - delta), and block by block
//
//   dQ' [features, queries] += K' dS
//   dK [keys, features]     += dS Q
//   dV [keys, features]     += P U
#include "backends/cpu/attention/attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "backends/cpu/attention/attention_kernel.h"
#include "backends/cpu/gemm/gemm_blocking.h"
#include "backends/cpu/gemm/gemm_kernel.h"
#include "backends/cpu/gemm/gemm_operand.h"
#include "backends/cpu/runtime/scratch.h"
#include "engine/error.h"
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"

namespace fluxion::cpu_backend {

namespace {

// Keys of a block: its scores and tangents stay in the first-level cache.
constexpr std::int64_t max_block_keys = 112;
// Strips per unit of work; they share the blocks of keys.
constexpr std::int64_t unit_strips = 4;
// Blocks of keys whose gradients one unit sums, if queries and keys have separate phases.
constexpr std::int64_t unit_key_blocks = 2;
// Bytes of a batch entry that are asked for while the entry before it is computed: both stay in a
// second-level cache. Longer sequences reuse what they read so often that waiting costs little.
constexpr std::int64_t most_bytes_ahead = std::int64_t{128} * 1024;

// Rows in memory that are wanted after this work. Products ask for them, a few beside each tile:
// the processor can wait for some twenty lines at once, and more would hold up the product.
struct Ahead {
  struct Rows {
    std::uintptr_t first;        // a number, because the one after the last may be anywhere
    std::int64_t stride, count;  // stride in bytes; count > 0
  };
  std::array<Rows, 8> rows;
  std::size_t next = 0, end = 0;  // of `rows`, those that nobody has asked for
  std::int64_t bytes = 0;         // of a row

  void ask(std::int64_t count) {
    constexpr std::uintptr_t line = 64;
    for (; count > 0 && next < end; --count) {
      Rows& now = rows[next];
      const std::uintptr_t last = now.first + static_cast<std::uintptr_t>(bytes);
      for (std::uintptr_t at = now.first / line * line; at < last; at += line)
        __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 2);
      now.first += static_cast<std::uintptr_t>(now.stride);
      if (--now.count == 0) ++next;
    }
  }
};

template <class T>
class Attention {
 public:
  explicit Attention(const OpKernel& kernel);

  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  std::size_t scratch_bytes(int threads) const {
    const std::int64_t slots = scratch_product(
        {static_cast<std::int64_t>(carve_slot(nullptr).bytes), std::max(threads, 1)});
    return scratch_sum({static_cast<std::size_t>(slots), in_two_phases(threads) ? row_bytes() : 0});
  }

 private:
  // A matrix: element (i, j) at data[i * row + j * column].
  struct Matrix {
    const T* data;
    std::int64_t row, column;
    Matrix transposed() const { return {data, column, row}; }
  };
  struct Range {
    std::int64_t begin, end;
    std::int64_t size() const { return end - begin; }
  };
  // A strip of queries.
  struct Strip {
    T *q, *other;            // [features, columns]: Q', and dQ' or U'
    T *q_rows, *other_rows;  // backward: [queries, features]: Q and U
    T *sum, *sum_tangent;    // [features, columns]: of y and dy; of dQ'
    T *largest, *slope, *total, *total_tangent;
    T* lse_cotangent;      // backward
    BackwardRows<T> rows;  // backward
  };
  // Scratch memory of one task.
  struct Slot {
    std::array<Strip, unit_strips> strips;
    T *scores, *tangents, *mask;  // [block of keys, columns]; backward: the former two of all keys
    std::array<T*, 4> keys;       // [block of keys, features]: operands that can't be read in place
    T* rows;                      // [queries of a strip, features]
    Ahead* ahead;                 // of the unit that comes next
    std::size_t bytes;
  };
  // One phase of a call: `units` pieces of work, which the slots take in turn.
  struct Call {
    const Attention& self;
    const CallMemory& memory;
    std::byte* scratch;
    std::size_t slot_bytes;
    T* rows = nullptr;  // of the backward in two phases: the BackwardRows of all queries
    std::int64_t units = 0, units_at_once = 1;
    bool queries = true, keys = true;  // of the backward: which gradients this phase computes
    std::int64_t query_parts = 1, key_parts = 1;
    bool foresees = false;  // whether the slots take a turn ahead, to ask for its rows
    std::atomic<std::int64_t> next{0};
  };
  using Work = void (Attention::*)(const Call&, const Slot&, std::int64_t unit) const;

  // Of the backward: one pass for all gradients computes five products but runs on at most `batch`
  // threads. Two (dQ; dK and dV) compute seven. Both sum in the same order.
  bool in_two_phases(int pool_threads) const {
    const std::int64_t threads = std::max(pool_threads, 1);
    return op_ == Op::attention_backward && 5 * ceil_div(batch_, threads) * threads > 7 * batch_;
  }
  std::size_t row_bytes() const {
    return aligned(static_cast<std::size_t>(
        scratch_product({4, batch_, queries_, static_cast<std::int64_t>(sizeof(T))})));
  }
  Slot carve_slot(std::byte* memory) const;
  void run_phase(Call& call, const ThreadPool& pool, Work work, std::int64_t units,
                 double multiplications) const;
  void forward(const Call& call, const Slot& slot, std::int64_t unit) const;
  void backward(const Call& call, const Slot& slot, std::int64_t unit) const;
  void backward_block(const Call& call, const Slot& slot, std::int64_t batch, Range queries,
                      Range keys, std::int64_t wild) const;

  const T* base(const Call& call, std::size_t operand, std::int64_t batch) const {
    const GemmOperand& of = operands_[operand];
    return reinterpret_cast<const T*>(call.memory.buffers[static_cast<std::size_t>(of.buffer)]) +
           of.offset + of.batch.offset(batch);
  }
  T* output(const Call& call, std::size_t index) const {
    return reinterpret_cast<T*>(call.memory.buffers[static_cast<std::size_t>(outputs_[index])]);
  }
  void exchange_rows(const Call& call, const BackwardRows<T>& rows, std::int64_t batch,
                     Range queries, std::int64_t columns) const;
  static bool finite_rows(const BackwardRows<T>& rows, std::int64_t count);
  Ahead foresee(const Call& call, std::int64_t batch) const;
  void pack_transposed(const Call& call, std::size_t operand, std::int64_t batch, Range rows,
                       Range columns, T* to, std::int64_t pitch) const;
  void transpose(Matrix from, std::int64_t rows, std::int64_t columns, T* to,
                 std::int64_t pitch) const;
  void store_rows(const Slot& slot, const T* sum, std::int64_t columns, std::int64_t queries,
                  T* to) const;
  Matrix key_rows(const Call& call, const Slot& slot, std::size_t operand, std::size_t place,
                  std::int64_t batch, Range keys) const;
  void hide(const Call& call, const Slot& slot, std::int64_t batch, Range queries, Range keys,
            std::int64_t columns) const;
  void score(const Call& call, const Slot& slot, const Strip& strip, const Matrix& k,
             std::int64_t batch, Range queries, Range keys, std::int64_t columns) const;
  bool tame(const Call& call, bool of_keys, std::int64_t batch, Range rows) const;
  std::int64_t wild_end(const Call& call, std::int64_t batch, std::int64_t seen) const;
  Range seen_keys(const Call& call, std::int64_t batch, Range queries, Range keys,
                  std::int64_t wild) const;

  // c [rows, columns] (+)= sum over the products of a [rows, inner] b [inner, columns], b with rows
  // of whole vectors.
  struct Product {
    Matrix a;
    const T* b;
    std::int64_t b_row;
  };
  void multiply(const Slot& slot, std::initializer_list<Product> products, std::int64_t inner,
                std::int64_t rows, std::int64_t columns, T* c, std::int64_t c_row,
                bool accumulate) const;

  std::int64_t tile_columns() const { return gemm_max_vectors * kernels_.lanes; }
  std::int64_t padded_features() const { return round_up(features_, kernels_.lanes); }
  std::int64_t padded(std::int64_t queries) const { return round_up(queries, kernels_.lanes); }

  const GemmKernels<T>& kernels_;
  const AttentionKernels<T>& lanes_;
  const Op op_;
  const T scale_;
  const bool causal_;
  std::int64_t batch_ = 1, queries_ = 0, keys_ = 0, features_ = 0;
  std::int64_t strip_queries_, block_keys_;
  T tame_ = 0;  // no sum of products of numbers below it overflows

  std::vector<GemmOperand> operands_;  // as in the op; strips are tokens
  std::optional<std::size_t> mask_;
  std::vector<std::int32_t> outputs_;
};

template <class T>
Attention<T>::Attention(const OpKernel& kernel)
    : kernels_(gemm_kernels<T>()),
      lanes_(attention_kernels<T>()),
      op_(kernel.op),
      scale_(static_cast<T>(std::get<AttentionAttributes>(kernel.attributes).scale)),
      causal_(std::get<AttentionAttributes>(kernel.attributes).causal),
      outputs_(kernel.outputs) {
  const Shape &q = kernel.input_types[0].shape, &k = kernel.input_types[1].shape;
  const std::int64_t rank = q.rank();
  for (std::int64_t axis = 0; axis < rank - 2; ++axis) batch_ *= q[axis];
  queries_ = q[rank - 2], features_ = q[rank - 1], keys_ = k[rank - 2];
  for (const ContractOperand& view : kernel.views)
    operands_.push_back(GemmOperand::of_lhs(view, dtype_of<T>));
  const std::size_t operands = op_ == Op::attention ? 3 : op_ == Op::attention_dual ? 6 : 5;
  if (operands_.size() != kernel.input_types.size() || operands_.size() < operands)
    throw Error(std::string(to_string(op_)) + ": wants a view of every operand");
  if (op_ == Op::attention_backward && kernel.input_types[3].shape != q)
    throw Error("attention_backward of lse and delta should have been expanded");
  if (operands_.size() > operands) mask_ = operands;
  // The backward sums over the queries of a strip, so it uses longer strips.
  strip_queries_ = tile_columns() * (op_ == Op::attention_backward ? 2 : 1);
  // Blocks of about the same size.
  block_keys_ = keys_ == 0 ? 1 : ceil_div(keys_, ceil_div(keys_, max_block_keys));
  const T terms = static_cast<T>(4 * std::max<std::int64_t>(features_, 1));
  tame_ = std::sqrt(std::numeric_limits<T>::max() / terms / std::max(T{1}, std::abs(scale_)));
}

template <class T>
auto Attention<T>::carve_slot(std::byte* memory) const -> Slot {
  Carver carver(memory);
  Slot slot{};
  const bool back = op_ == Op::attention_backward, dual = op_ == Op::attention_dual;
  const std::int64_t columns = std::min(strip_queries_, padded(queries_)),
                     strips = std::min(unit_strips, ceil_div(queries_, strip_queries_));
  for (std::int64_t i = 0; i < (back ? 1 : strips); ++i) {
    Strip& strip = slot.strips[static_cast<std::size_t>(i)];
    strip.q = carver.take<T>(features_ * columns);
    strip.sum = carver.take<T>(features_ * columns);
    strip.largest = carver.take<T>(columns);
    strip.total = carver.take<T>(columns);
    if (dual || back) strip.other = carver.take<T>(features_ * columns);
    if (dual) strip.sum_tangent = carver.take<T>(features_ * columns);
    if (dual) strip.total_tangent = carver.take<T>(columns);
    if (dual) strip.slope = carver.take<T>(columns);
    if (!back) continue;
    strip.lse_cotangent = carver.take<T>(columns);
    for (T** each : {&strip.rows.shift, &strip.rows.slope, &strip.rows.inverse, &strip.rows.delta})
      *each = carver.take<T>(columns);
    strip.q_rows = carver.take<T>(columns * padded_features());
    strip.other_rows = carver.take<T>(columns * padded_features());
  }
  const std::int64_t held = back ? keys_ : block_keys_;
  slot.scores = carver.take<T>(scratch_product({held, columns}));
  if (dual || back) slot.tangents = carver.take<T>(scratch_product({held, columns}));
  if (mask_) slot.mask = carver.take<T>(block_keys_ * columns);
  for (std::size_t i = 0; i < (dual ? 4 : 2); ++i)
    slot.keys[i] = carver.take<T>(block_keys_ * features_);
  slot.rows = carver.take<T>(columns * padded_features());
  slot.bytes = carver.used();
  return slot;
}

template <class T>
void Attention<T>::run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const {
  if (batch_ == 0) return;
  Call call{*this, memory, scratch, carve_slot(nullptr).bytes};
  const double products = static_cast<double>(queries_) * static_cast<double>(keys_) *
                          static_cast<double>(std::max<std::int64_t>(features_, 1));
  if (op_ != Op::attention_backward) {
    call.query_parts = ceil_div(queries_, unit_strips * strip_queries_);
    const std::int64_t units = batch_ * call.query_parts;
    if (units > 0)
      run_phase(call, pool, &Attention::forward, units,
                (op_ == Op::attention ? 2 : 6) * products / static_cast<double>(call.query_parts));
    return;
  }
  if (!in_two_phases(pool.threads())) {
    run_phase(call, pool, &Attention::backward, batch_, 5 * products);
    return;
  }
  call.rows = reinterpret_cast<T*>(scratch);
  call.scratch = scratch + row_bytes();
  call.keys = false;
  call.query_parts = ceil_div(queries_, strip_queries_);
  if (call.query_parts > 0)
    run_phase(call, pool, &Attention::backward, batch_ * call.query_parts,
              3 * products / static_cast<double>(call.query_parts));
  call.keys = true, call.queries = false;
  call.query_parts = 1, call.key_parts = ceil_div(keys_, unit_key_blocks * block_keys_);
  if (call.key_parts > 0)
    run_phase(call, pool, &Attention::backward, batch_ * call.key_parts,
              4 * products / static_cast<double>(call.key_parts));
}

template <class T>
void Attention<T>::run_phase(Call& call, const ThreadPool& pool, Work work, std::int64_t units,
                             double multiplications) const {
  // A slot takes several units at a time, some microseconds' worth, but few enough that every slot
  // takes a few turns.
  constexpr double multiplications_at_once = 256 * 1024;
  const std::int64_t slots = std::min<std::int64_t>(pool.threads(), units);
  call.units = units;
  call.units_at_once = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(multiplications_at_once / std::max(1.0, multiplications)), 1,
      ceil_div(units, 4 * slots));
  call.next = 0;
  call.foresees =
      units == batch_ &&
      4 * (queries_ + keys_) * features_ * static_cast<std::int64_t>(sizeof(T)) <= most_bytes_ahead;
  const auto body = [&call, work](std::int64_t index) {
    Slot slot =
        call.self.carve_slot(call.scratch + call.slot_bytes * static_cast<std::size_t>(index));
    Ahead ahead;
    slot.ahead = &ahead;
    const auto take = [&call] {
      return call.next.fetch_add(call.units_at_once, std::memory_order_relaxed);
    };
    for (std::int64_t next = take(); next < call.units;) {
      const std::int64_t begin = next, end = std::min(begin + call.units_at_once, call.units);
      if (call.foresees) next = take();
      for (std::int64_t unit = begin; unit < end; ++unit) {
        if (call.foresees) ahead = call.self.foresee(call, unit + 1 < end ? unit + 1 : next);
        (call.self.*work)(call, slot, unit);
      }
      if (!call.foresees) next = take();
    }
  };
  pool.parallel_for(slots, std::ref(body));  // a reference: std::function then allocates nothing
}

template <class T>
void Attention<T>::multiply(const Slot& slot, std::initializer_list<Product> products,
                            std::int64_t inner, std::int64_t rows, std::int64_t columns, T* c,
                            std::int64_t c_row, bool accumulate) const {
  std::array<GemmSegment<T>, 2> segments{};
  GemmTile<T> tile{};
  tile.segments = segments.data();
  tile.segment_count = std::ssize(products);
  tile.c_row = c_row;
  tile.accumulate = accumulate;
  for (std::int64_t column = 0; column < columns; column += tile_columns()) {
    tile.columns = std::min(tile_columns(), columns - column);
    const bool narrow = tile.columns <= kernels_.lanes;
    const auto& kernels = kernels_.tile[narrow ? 0 : 1];
    std::int64_t row = 0, left = ceil_div(rows, narrow ? kernels_.narrow_rows : kernels_.rows);
    for (; left > 0; --left) {
      const std::int64_t height = (rows - row) / left;  // heights differ by one row at most
      auto segment = segments.begin();
      for (const Product& product : products)
        *segment++ = {product.a.data + row * product.a.row,
                      product.a.row,
                      product.a.column,
                      product.b + column,
                      product.b_row,
                      inner};
      tile.c = c + row * c_row + column;
      // So many that the products of 49 tokens ask for all rows of the next 49.
      slot.ahead->ask(ceil_div(height * tile.columns, 24));
      kernels[height - 1](tile);
      row += height;
    }
  }
}

// The rows that a batch entry reads and writes; none beyond the last entry.
template <class T>
Ahead Attention<T>::foresee(const Call& call, std::int64_t batch) const {
  constexpr auto element = static_cast<std::int64_t>(sizeof(T));
  Ahead ahead;
  ahead.bytes = features_ * element;
  const auto add = [&ahead](const T* first, std::int64_t stride, std::int64_t count) {
    if (count > 0)
      ahead.rows[ahead.end++] = {reinterpret_cast<std::uintptr_t>(first), stride * element, count};
  };
  if (batch >= batch_) return ahead;
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    const GemmOperand& of = operands_[i];
    if (i != mask_ && of.strips.is_affine() && of.inner.stride() == 1)
      add(base(call, i, batch), of.strips.stride(), of.strips.size());
  }
  const bool back = op_ == Op::attention_backward;
  for (std::size_t i = 0; i < outputs_.size(); i += back ? 1 : 2) {
    const std::int64_t rows = back && i > 0 ? keys_ : queries_;
    add(output(call, i) + batch * rows * features_, features_, rows);
  }
  return ahead;
}

// Packs an operand [tokens, features] transposed: to[j * pitch + i] = operand(rows.begin + i,
// columns.begin + j). Columns up to the next whole vector repeat the last row.
template <class T>
void Attention<T>::pack_transposed(const Call& call, std::size_t operand, std::int64_t batch,
                                   Range rows, Range columns, T* to, std::int64_t pitch) const {
  const GemmOperand& of = operands_[operand];
  std::int64_t offsets[gemm_max_vectors * gemm_max_lanes<T>];
  for (std::int64_t row = rows.begin; row < rows.end; row += tile_columns()) {
    GemmStrip<T> strip{};
    strip.width = std::min(tile_columns(), rows.end - row);
    const std::int64_t first = of.strips.offset(row);
    for (std::int64_t i = 0; i < strip.width; ++i) offsets[i] = of.strips.offset(row + i) - first;
    strip.offsets = offsets;
    strip.contiguous =
        of.strips.stride() == 1 && of.strips.stretch(row, strip.width) == strip.width;
    strip.inner_stride = of.inner.stride();
    strip.to_inner = pitch;
    const T* from = base(call, operand, batch) + first;
    for (std::int64_t j = columns.begin; j < columns.end; j += strip.inner) {
      strip.from = from + of.inner.offset(j);
      strip.inner = of.inner.stretch(j, columns.end - j);
      strip.to = to + (j - columns.begin) * pitch + (row - rows.begin);
      kernels_.pack(strip);
    }
  }
}

// to[j * pitch + i] = from(i, j) for i < rows, and on up to the next whole vector of i.
template <class T>
void Attention<T>::transpose(Matrix from, std::int64_t rows, std::int64_t columns, T* to,
                             std::int64_t pitch) const {
  std::int64_t offsets[gemm_max_vectors * gemm_max_lanes<T>];
  for (std::int64_t row = 0; row < rows; row += tile_columns()) {
    GemmStrip<T> strip{};
    strip.from = from.data + row * from.row;
    strip.width = std::min(tile_columns(), rows - row);
    for (std::int64_t i = 0; i < strip.width; ++i) offsets[i] = i * from.row;
    strip.offsets = offsets;
    strip.inner = columns, strip.inner_stride = from.column;
    strip.to = to + row, strip.to_inner = pitch;
    kernels_.pack(strip);
  }
}

// Writes the sums [features, columns] of a strip to rows [queries, features] of an output.
template <class T>
void Attention<T>::store_rows(const Slot& slot, const T* sum, std::int64_t columns,
                              std::int64_t queries, T* to) const {
  if (features_ == padded_features()) {
    transpose({sum, columns, 1}, features_, queries, to, features_);
    return;
  }
  transpose({sum, columns, 1}, features_, queries, slot.rows, padded_features());
  for (std::int64_t i = 0; i < queries; ++i)
    std::copy_n(slot.rows + i * padded_features(), features_, to + i * features_);
}

// A block of keys or values: in place if it has constant strides, else copied into the slot.
template <class T>
auto Attention<T>::key_rows(const Call& call, const Slot& slot, std::size_t operand,
                            std::size_t place, std::int64_t batch, Range keys) const -> Matrix {
  const GemmOperand& of = operands_[operand];
  const T* from = base(call, operand, batch);
  if (of.inner.is_affine() && of.strips.stretch(keys.begin, keys.size()) == keys.size())
    return {from + of.strips.offset(keys.begin), of.strips.stride(), of.inner.stride()};
  T* to = slot.keys[place];
  for (std::int64_t i = keys.begin; i < keys.end; ++i)
    for (std::int64_t j = 0; j < features_; ++j)
      *to++ = from[of.strips.offset(i) + of.inner.offset(j)];
  return {slot.keys[place], features_, 1};
}

// Whether the operands of keys, or of queries, are tame in these rows: neither NaN nor so large
// that their products could be infinite.
template <class T>
bool Attention<T>::tame(const Call& call, bool of_keys, std::int64_t batch, Range rows) const {
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    const bool keys = i == 1 || i == 2 || (op_ == Op::attention_dual && (i == 4 || i == 5));
    if (i == mask_ || keys != of_keys) continue;
    const GemmOperand& of = operands_[i];
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const T* from = base(call, i, batch) + of.strips.offset(row);
      for (std::int64_t j = 0; j < of.inner.size(); ++j)
        if (!(std::abs(from[of.inner.offset(j)]) < tame_)) return false;
    }
  }
  return true;
}

// The end of the last key of a batch entry that is not tame; `seen` if all from there on are.
template <class T>
std::int64_t Attention<T>::wild_end(const Call& call, std::int64_t batch, std::int64_t seen) const {
  std::int64_t end = causal_ ? keys_ : seen;
  while (end > seen && tame(call, true, batch, {end - 1, end})) --end;
  return end;
}

// The keys that a strip must visit. A causal op can skip keys after the last query only if those
// of the whole batch entry, and the queries, are tame: their weight is zero, but zero times
// infinity is NaN in the op's definition. (Of the whole entry, because what a unit visits must not
// depend on how many units there are.)
template <class T>
auto Attention<T>::seen_keys(const Call& call, std::int64_t batch, Range queries, Range keys,
                             std::int64_t wild) const -> Range {
  if (!causal_ || keys.end <= queries.end || wild > queries.end ||
      !tame(call, false, batch, queries))
    return keys;
  return {keys.begin, std::max(keys.begin, queries.end)};
}

// Adds the mask to a block of scores and hides keys that come after their query.
template <class T>
void Attention<T>::hide(const Call& call, const Slot& slot, std::int64_t batch, Range queries,
                        Range keys, std::int64_t columns) const {
  if (mask_) {
    pack_transposed(call, *mask_, batch, queries, keys, slot.mask, columns);
    lanes_.add(slot.scores, slot.mask, keys.size() * columns);
  }
  if (!causal_) return;
  for (std::int64_t j = std::max(keys.begin, queries.begin + 1); j < keys.end; ++j)
    std::fill_n(slot.scores + (j - keys.begin) * columns, std::min(j - queries.begin, columns),
                -std::numeric_limits<T>::infinity());
}

template <class T>
void Attention<T>::score(const Call& call, const Slot& slot, const Strip& strip, const Matrix& k,
                         std::int64_t batch, Range queries, Range keys,
                         std::int64_t columns) const {
  multiply(slot, {{k, strip.q, columns}}, features_, keys.size(), columns, slot.scores, columns,
           false);
  // Without features there were no packed queries to carry the scale.
  if (features_ == 0) lanes_.scale(slot.scores, scale_, keys.size() * columns);
  hide(call, slot, batch, queries, keys, columns);
}

// Forward and dual. Unit: some strips of queries of one batch entry.
template <class T>
void Attention<T>::forward(const Call& call, const Slot& slot, std::int64_t unit) const {
  const bool dual = op_ == Op::attention_dual;
  const std::int64_t batch = unit / call.query_parts, part = unit % call.query_parts;
  const std::int64_t unit_queries = unit_strips * strip_queries_;
  const Range all{part * unit_queries, std::min(queries_, (part + 1) * unit_queries)};
  const std::int64_t strips = ceil_div(all.size(), strip_queries_);
  const auto queries_of = [&](std::int64_t i) {
    return Range{all.begin + i * strip_queries_,
                 std::min(all.end, all.begin + (i + 1) * strip_queries_)};
  };
  for (std::int64_t i = 0; i < strips; ++i) {
    const Strip& strip = slot.strips[static_cast<std::size_t>(i)];
    const Range queries = queries_of(i);
    const std::int64_t columns = padded(queries.size());
    pack_transposed(call, 0, batch, queries, {0, features_}, strip.q, columns);
    lanes_.scale(strip.q, scale_, features_ * columns);
    std::fill_n(strip.largest, columns, -std::numeric_limits<T>::infinity());
    std::fill_n(strip.total, columns, T{0});
    if (!dual) continue;
    pack_transposed(call, 3, batch, queries, {0, features_}, strip.other, columns);
    lanes_.scale(strip.other, scale_, features_ * columns);
    std::fill_n(strip.total_tangent, columns, T{0});
    std::fill_n(strip.slope, columns, T{0});
  }
  const Range seen = seen_keys(call, batch, all, {0, keys_}, wild_end(call, batch, all.end));
  for (std::int64_t key = 0; key < seen.end; key += block_keys_) {
    const Range keys{key, std::min(seen.end, key + block_keys_)};
    const bool first = key == 0;
    const Matrix k = key_rows(call, slot, 1, 0, batch, keys),
                 v = key_rows(call, slot, 2, 1, batch, keys);
    const Matrix k_tangent = dual ? key_rows(call, slot, 4, 2, batch, keys) : Matrix{};
    const Matrix v_tangent = dual ? key_rows(call, slot, 5, 3, batch, keys) : Matrix{};
    for (std::int64_t i = 0; i < strips; ++i) {
      const Strip& strip = slot.strips[static_cast<std::size_t>(i)];
      const Range queries = queries_of(i);
      const std::int64_t columns = padded(queries.size());
      score(call, slot, strip, k, batch, queries, keys, columns);
      if (dual)
        multiply(slot, {{k, strip.other, columns}, {k_tangent, strip.q, columns}}, features_,
                 keys.size(), columns, slot.tangents, columns, false);
      lanes_.softmax({slot.scores, slot.tangents, keys.size(), columns, strip.largest, strip.slope,
                      strip.total, strip.total_tangent, strip.sum, strip.sum_tangent,
                      first ? 0 : features_});
      multiply(slot, {{v.transposed(), slot.scores, columns}}, keys.size(), features_, columns,
               strip.sum, columns, !first);
      if (dual)
        multiply(slot,
                 {{v.transposed(), slot.tangents, columns},
                  {v_tangent.transposed(), slot.scores, columns}},
                 keys.size(), features_, columns, strip.sum_tangent, columns, !first);
    }
  }
  for (std::int64_t i = 0; i < strips; ++i) {
    const Strip& strip = slot.strips[static_cast<std::size_t>(i)];
    const Range queries = queries_of(i);
    const std::int64_t columns = padded(queries.size()), row = batch * queries_ + queries.begin;
    if (keys_ == 0) std::fill_n(strip.sum, features_ * columns, T{0});
    if (keys_ == 0 && dual) std::fill_n(strip.sum_tangent, features_ * columns, T{0});
    lanes_.finish({nullptr, nullptr, 0, columns, strip.largest, strip.slope, strip.total,
                   strip.total_tangent, strip.sum, strip.sum_tangent, features_});
    store_rows(slot, strip.sum, columns, queries.size(), output(call, 0) + row * features_);
    std::copy_n(strip.total, queries.size(), output(call, 1) + row);
    if (!dual) continue;
    store_rows(slot, strip.sum_tangent, columns, queries.size(), output(call, 2) + row * features_);
    std::copy_n(strip.total_tangent, queries.size(), output(call, 3) + row);
  }
}

// Backward. Unit, within one batch entry: some queries with all keys, some keys with all queries,
// or all of both.
template <class T>
void Attention<T>::backward(const Call& call, const Slot& slot, std::int64_t unit) const {
  const std::int64_t parts = call.query_parts * call.key_parts, batch = unit / parts,
                     part = unit % parts;
  Range queries{0, queries_}, keys{0, keys_};
  if (call.query_parts > 1)
    queries = {part * strip_queries_, std::min(queries_, (part + 1) * strip_queries_)};
  if (call.key_parts > 1)
    keys = {part * unit_key_blocks * block_keys_,
            std::min(keys_, (part + 1) * unit_key_blocks * block_keys_)};
  if (call.keys)
    for (const std::size_t gradient : {1, 2})
      std::fill_n(output(call, gradient) + (batch * keys_ + keys.begin) * features_,
                  keys.size() * features_, T{0});
  const auto strip_end = [&](std::int64_t query) {
    return std::min(queries.end, query + strip_queries_);
  };
  const std::int64_t wild = wild_end(call, batch, strip_end(queries.begin));
  for (std::int64_t query = queries.begin; query < queries.end; query += strip_queries_)
    backward_block(call, slot, batch, {query, strip_end(query)}, keys, wild);
}

// What the backward knows of a strip's rows. Of two phases the first, which sees all keys, finds it
// and keeps it for the second.
template <class T>
void Attention<T>::exchange_rows(const Call& call, const BackwardRows<T>& rows, std::int64_t batch,
                                 Range queries, std::int64_t columns) const {
  if (!call.rows) return;
  std::int64_t which = 0;
  for (T* values : {rows.shift, rows.slope, rows.inverse, rows.delta}) {
    T* kept = call.rows + (which++ * batch_ + batch) * queries_ + queries.begin;
    if (call.queries) {
      std::copy_n(values, queries.size(), kept);
    } else {
      std::copy_n(kept, queries.size(), values);
      std::fill_n(values + queries.size(), columns - queries.size(), T{0});
    }
  }
}

// If not, weights or factors may be NaN for all keys, those that a query does not see among them.
template <class T>
bool Attention<T>::finite_rows(const BackwardRows<T>& rows, std::int64_t count) {
  for (const T* values : {rows.shift, rows.slope, rows.inverse, rows.delta})
    if (!std::all_of(values, values + count, [](T each) { return std::isfinite(each); }))
      return false;
  return true;
}

template <class T>
void Attention<T>::backward_block(const Call& call, const Slot& slot, std::int64_t batch,
                                  Range queries, Range all, std::int64_t wild) const {
  const Strip& strip = slot.strips[0];
  const std::int64_t columns = padded(queries.size()), pitch = padded_features();
  // Operands: q, k, v, u, the cotangent of lse.
  pack_transposed(call, 0, batch, queries, {0, features_}, strip.q, columns);
  lanes_.scale(strip.q, scale_, features_ * columns);
  pack_transposed(call, 3, batch, queries, {0, features_}, strip.other, columns);
  pack_transposed(call, 4, batch, queries, {0, 1}, strip.lse_cotangent, columns);
  if (call.keys) {
    transpose({strip.q, columns, 1}, features_, queries.size(), strip.q_rows, pitch);
    transpose({strip.other, columns, 1}, features_, queries.size(), strip.other_rows, pitch);
  }
  const Range seen = seen_keys(call, batch, queries, all, wild);
  bool first = true;
  Range visited = seen;
  const auto for_blocks = [&](auto body) {
    for (std::int64_t key = visited.begin; key < visited.end; key += block_keys_) {
      const Range keys{key, std::min(visited.end, key + block_keys_)};
      Slot block = slot;  // but for the part of its scores
      block.scores += (key - visited.begin) * columns;
      block.tangents += (key - visited.begin) * columns;
      body(keys, key_rows(call, slot, 1, 0, batch, keys), block);
    }
  };
  if (!call.queries) exchange_rows(call, strip.rows, batch, queries, columns);
  for (;;) {
    for_blocks([&](Range keys, const Matrix& k, const Slot& block) {
      score(call, block, strip, k, batch, queries, keys, columns);
      multiply(slot, {{key_rows(call, slot, 2, 1, batch, keys), strip.other, columns}}, features_,
               keys.size(), columns, block.tangents, columns, false);
    });
    if (call.queries)
      lanes_.find_rows(slot.scores, slot.tangents, strip.lse_cotangent, strip.rows, visited.size(),
                       columns);
    if (visited.end == all.end || finite_rows(strip.rows, queries.size())) break;
    visited = all;  // their gradients are NaN, too
  }
  if (call.queries)
    exchange_rows(call, strip.rows, batch, queries, columns);
  else
    lanes_.exponentials(slot.scores, strip.rows.shift, visited.size(), columns);
  lanes_.backward(slot.scores, slot.tangents, strip.rows, visited.size(), columns);
  for_blocks([&](Range keys, const Matrix& k, const Slot& block) {
    if (call.queries)
      multiply(slot, {{k.transposed(), block.tangents, columns}}, keys.size(), features_, columns,
               strip.sum, columns, !first);
    if (call.keys) {
      const std::int64_t row = (batch * keys_ + keys.begin) * features_;
      multiply(slot, {{{block.tangents, columns, 1}, strip.q_rows, pitch}}, queries.size(),
               keys.size(), features_, output(call, 1) + row, features_, true);
      multiply(slot, {{{block.scores, columns, 1}, strip.other_rows, pitch}}, queries.size(),
               keys.size(), features_, output(call, 2) + row, features_, true);
    }
    first = false;
  });
  if (!call.queries) return;
  if (first) std::fill_n(strip.sum, features_ * columns, T{0});
  lanes_.scale(strip.sum, scale_, features_ * columns);
  store_rows(slot, strip.sum, columns, queries.size(),
             output(call, 0) + (batch * queries_ + queries.begin) * features_);
}

// (The runtime library alone: no exported sampler computes in f64.)
#if defined(FLUXION_CPU_WITHOUT_F64)
using AnyAttention = std::variant<Attention<float>>;
#else
using AnyAttention = std::variant<Attention<float>, Attention<double>>;
#endif

AnyAttention prepare(const OpKernel& kernel) {
  if (!is_attention(kernel.op))
    throw Error("attention: can't run " + std::string(to_string(kernel.op)));
  const DType dtype = kernel.input_types.at(0).dtype;
  if (dtype == DType::f32) return AnyAttention(std::in_place_type<Attention<float>>, kernel);
#if !defined(FLUXION_CPU_WITHOUT_F64)
  if (dtype == DType::f64) return AnyAttention(std::in_place_type<Attention<double>>, kernel);
#endif
  throw DTypeError("attention: runs in f32 or f64, got " + std::string(to_string(dtype)));
}

}  // namespace

struct AttentionRunner::State {
  explicit State(const OpKernel& kernel) : attention(prepare(kernel)) {}
  AnyAttention attention;
};

AttentionRunner::AttentionRunner(OpKernel kernel) : state_(std::make_unique<State>(kernel)) {}
AttentionRunner::~AttentionRunner() = default;
AttentionRunner::AttentionRunner(AttentionRunner&&) noexcept = default;

void AttentionRunner::run(const CallMemory& memory, const ThreadPool& pool,
                          std::byte* scratch) const {
  std::visit([&](const auto& attention) { attention.run(memory, pool, scratch); },
             state_->attention);
}

std::size_t AttentionRunner::scratch_bytes(int threads) const {
  return std::visit([&](const auto& attention) { return attention.scratch_bytes(threads); },
                    state_->attention);
}

}  // namespace fluxion::cpu_backend
