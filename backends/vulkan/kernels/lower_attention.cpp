#include <spirv/unified1/GLSL.std.450.h>

#include <limits>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/kernels/attention.h"
#include "backends/vulkan/kernels/folded_groups.h"
#include "backends/vulkan/kernels/tensor_memory.h"
#include "backends/vulkan/spirv/math.h"
#include "engine/divide.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// The op's sizes: batch entries of [queries, features] and [keys, features].
struct AttentionSizes {
  std::int64_t batch = 1, queries = 0, keys = 0, features = 0;

  explicit AttentionSizes(const OpKernel& kernel) {
    const Shape &q = kernel.input_types.at(0).shape, &k = kernel.input_types.at(1).shape;
    const std::int64_t rank = q.rank();
    for (std::int64_t axis = 0; axis < rank - 2; ++axis) batch *= q[axis];
    queries = q[rank - 2], features = q[rank - 1], keys = k[rank - 2];
  }
};

std::size_t operand_count(Op op) {
  return op == Op::attention ? 3 : op == Op::attention_dual ? 6 : 5;
}

std::uint32_t u32_of(std::int64_t number) { return static_cast<std::uint32_t>(number); }

// The maximum, which loses NaN: the weights bring it back.
Value larger(Value a, Value b) {
  return a.module().extended(GLSLstd450NMax, a.type(), {a.id(), b.id()});
}

// e^x for x <= 88, and 0 below -87: one or two units in the last place.
Value weight(Value x) { return select(x < -87.0f, x.module().f32(0), exp_moderate(x)); }

class AttentionKernel {
 public:
  AttentionKernel(const OpKernel& kernel, const LoweringContext& context, AttentionPass pass,
                  const AttentionTile& tile)
      : kernel_(kernel),
        sizes_(kernel),
        pass_(pass),
        products_(products_of(pass)),
        tile_(tile),
        rows_(pass == AttentionPass::key_gradient ? sizes_.keys : sizes_.queries),
        columns_(pass == AttentionPass::key_gradient ? sizes_.queries : sizes_.keys),
        scale_(static_cast<float>(std::get<AttentionAttributes>(kernel.attributes).scale)),
        causal_(std::get<AttentionAttributes>(kernel.attributes).causal),
        masked_(kernel.inputs.size() > operand_count(kernel.op)),
        context_(context),
        m_(context.target, products_.name + " " + to_string(tile), {tile.invocations(), 1, 1}),
        bindings_(context),
        grid_(ThreadGrid::of(m_, tile.down(), tile.across())),
        memory_(AttentionMemory::of(tile, pass, sizes_.features)),
        score_shape_{tile.thread_rows / 4, 1},
        output_shape_{tile.thread_rows / 4,
                      sizes_.features > 0 ? tile.feature_quads(sizes_.features) : 0} {}

  void add_to(KernelWork& work) {
    const std::int64_t blocks = ceil_div(rows_, tile_.rows);
    const FoldedGroups folded(blocks * sizes_.batch, context_.target.max_groups);
    shared_ = m_.shared(F32x4, memory_.total);
    folded.for_each(m_, [&](Value group) {
      const Split place = split(group, u32_of(blocks));
      batch_ = place.quotient;
      first_row_ = place.remainder * m_.u32(tile_.rows);
      compute();
    });
    Dispatch dispatch;
    dispatch.shader = work.shaders.size();
    dispatch.groups = folded.groups();
    work.shaders.push_back(m_.finish());
    dispatch.bindings = bindings_.list();
    const double terms =
        static_cast<double>(products_.score_terms.size() + products_.output_terms.size());
    dispatch.flops = 2 * terms * static_cast<double>(sizes_.batch * rows_) *
                     static_cast<double>(columns_) * static_cast<double>(sizes_.features);
    for (const DispatchBinding& each : dispatch.bindings)
      dispatch.moved_bytes += static_cast<double>(each.bytes);
    work.dispatches.push_back(std::move(dispatch));
    if (kernel_.op == Op::attention_backward) work.scratch_bytes = row_bytes();
  }

 private:
  // What a workgroup carries from one block of columns to the next.
  struct Carried {
    Accumulators outputs;
    // By row of the invocation: the largest score so far, and sums over its own columns of p and t.
    // With a slope, that and the largest score lie in shared memory: registers are few then.
    std::vector<Value> largest, total, total_tangent;
  };
  using Values = std::vector<Value>;

  const ContractOperand& view(std::size_t operand) const { return kernel_.views[operand]; }
  DType kept(std::size_t operand) const {
    return context_.storage.kept(kernel_.input_types[operand].dtype);
  }
  std::uint32_t binding(std::size_t operand) {
    return bindings_.buffer(kernel_.inputs[operand], true, false);
  }
  TileRequest request(std::size_t operand, bool along_features, std::uint32_t strips,
                      std::uint32_t depth) {
    const OperandView read = along_features ? OperandView::of_lhs(view(operand), kept(operand))
                                            : OperandView::of_rhs(view(operand), kept(operand));
    return {read, binding(operand), strips, depth};
  }
  bool features_at_all() const { return sizes_.features > 0; }
  std::uint32_t unroll() const { return context_.target.short_code ? 1 : 4; }
  Value row(std::uint32_t i) const { return first_row_ + score_shape_.row(grid_, i); }
  Value column(Value first_column, std::uint32_t j) const {
    return first_column + score_shape_.column(grid_, j);
  }

  void compute() {
    Carried carried;
    carried.outputs = zero_accumulators(m_, products_.outputs.size(), output_shape_);
    if (finds_softmax(pass_)) {
      const Values nothing(tile_.thread_rows, m_.f32(minus_infinity));
      carried.total.assign(tile_.thread_rows, m_.f32(0));
      if (finds_slope(pass_)) {
        carried.total_tangent = carried.total;
        keep(nothing, carried.total);
        m_.barrier();
      } else {
        carried.largest = nothing;
      }
    }
    if (columns_ > 0) {
      if (features_at_all()) prepare_operands();
      if (masked_) {
        const ViewAxis rows = mask_rows();
        for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
          mask_row_offsets_.push_back(axis_offset(rows, clamped(row(i), rows_, tile_.rows)));
      }
      const Values last = m_.loop(
          m_.u32(0), m_.u32(u32_of(columns_)), tile_.columns, flattened_state(carried),
          [&](Value first_column, const Values& values) {
            return flattened_state(add_block(first_column, unflattened_state(values, carried)));
          },
          Unroll::no);
      carried = unflattened_state(last, carried);
    }
    finish(carried);
  }

  static Values flattened_state(const Carried& carried) {
    Values all = flattened(carried.outputs);
    for (const Values* part : {&carried.largest, &carried.total, &carried.total_tangent})
      all.insert(all.end(), part->begin(), part->end());
    return all;
  }
  static Carried unflattened_state(const Values& values, const Carried& like) {
    Carried carried = like;
    auto next = values.begin();
    const auto take = [&](Values& to) {
      for (Value& value : to) value = *next++;
    };
    for (Values& output : carried.outputs) take(output);
    take(carried.largest), take(carried.total), take(carried.total_tangent);
    return carried;
  }

  // A position, or the last one there is, if tiles may reach beyond.
  Value clamped(Value position, std::int64_t size, std::uint32_t tile) {
    return size % tile == 0 ? position : min(position, m_.u32(u32_of(size - 1)));
  }

  // ---- scores

  Carried add_block(Value first_column, Carried carried) {
    m_.barrier();
    Accumulators matrices = scores(first_column);
    hide(first_column, matrices[0]);
    if (finds_softmax(pass_))
      update_softmax(first_column, matrices, carried);
    else
      weigh(first_column, matrices);
    if (features_at_all()) carried.outputs = add_outputs(first_column, carried.outputs);
    return carried;
  }

  // The tiles of the scores' operands, rows before columns, and of those of the outputs.
  void prepare_operands() {
    const std::uint32_t padded = tile_.padded_features(sizes_.features);
    std::vector<TileRequest> of_scores, of_outputs;
    std::uint32_t first = 0;
    const auto add = [&](std::size_t operand, std::uint32_t strips) {
      of_scores.push_back(request(operand, true, strips, tile_.feature_depth));
      score_tiles_.push_back({shared_, m_.u32(first), tile_pitch(strips) / 4});
      first += tile_pitch(strips) / 4 * tile_.feature_depth;
    };
    for (const std::size_t operand : products_.row_operands) add(operand, tile_.rows);
    for (const std::size_t operand : products_.column_operands) add(operand, tile_.columns);
    first = memory_.outputs;
    for (const std::size_t operand : products_.summed_operands) {
      of_outputs.push_back(request(operand, false, padded, tile_.column_depth));
      output_tiles_.push_back({shared_, m_.u32(first), tile_pitch(padded) / 4});
      first += tile_pitch(padded) / 4 * tile_.column_depth;
    }
    score_operands_ = TileSet(m_, of_scores);
    output_operands_ = TileSet(m_, of_outputs);
    for (std::size_t i = 0; i < products_.row_operands.size(); ++i)
      score_operands_.start(i, batch_, first_row_);
    for (std::size_t i = 0; i < of_outputs.size(); ++i)
      output_operands_.start(i, batch_, m_.u32(0));
  }

  Accumulators scores(Value first_column) {
    const Accumulators none = zero_accumulators(m_, products_.matrices(), score_shape_);
    if (!features_at_all()) return none;
    const std::size_t rows = products_.row_operands.size();
    for (std::size_t i = 0; i < products_.column_operands.size(); ++i)
      score_operands_.start(rows + i, batch_, first_column);
    const Values sums = m_.loop(
        m_.u32(0), m_.u32(u32_of(sizes_.features)), tile_.feature_depth, flattened(none),
        [&](Value first_feature, const Values& values) {
          load_tiles(score_operands_, score_tiles_, first_feature);
          const std::span<const SharedTile> all = score_tiles_;
          return flattened(multiply_tiles(
              m_, all.first(rows), all.subspan(rows), products_.score_terms, grid_, score_shape_,
              tile_.feature_depth, unroll(), unflattened(values, products_.matrices())));
        },
        Unroll::no);
    return unflattened(sums, products_.matrices());
  }

  // Replaces the tiles, which all invocations have finished reading by then.
  void load_tiles(const TileSet& operands, const std::vector<SharedTile>& tiles,
                  Value first_inner) {
    const Values fetched = operands.fetch(first_inner);
    m_.barrier();
    operands.store(tiles, fetched);
    m_.barrier();
  }

  std::size_t mask() const { return operand_count(kernel_.op); }
  ViewAxis mask_rows() const {
    const ContractOperand& of = view(mask());
    return ViewAxis::of(pass_ == AttentionPass::key_gradient ? of.columns : of.rows);
  }
  ViewAxis mask_columns() const {
    const ContractOperand& of = view(mask());
    return ViewAxis::of(pass_ == AttentionPass::key_gradient ? of.rows : of.columns);
  }

  // Scales the scores, adds the mask, and hides keys that come after their query.
  void hide(Value first_column, Values& score) {
    for (Value& each : score) each = each * m_.f32(scale_);
    if (masked_) {
      const FloatReader reader(m_, binding(mask()), kept(mask()));
      const ViewAxis columns = mask_columns();
      const Value base = m_.u32(u32_of(view(mask()).offset)) +
                         axis_offset(ViewAxis::of(view(mask()).batch), batch_);
      for (std::uint32_t j = 0; j < 4; ++j) {
        const Value at =
            base + axis_offset(columns, clamped(column(first_column, j), columns_, tile_.columns));
        for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
          score[4 * i + j] = score[4 * i + j] + reader.load(at + mask_row_offsets_[i]);
      }
    }
    const bool column_tail = columns_ % tile_.columns != 0;
    for (std::uint32_t j = 0; j < 4 && (causal_ || column_tail); ++j) {
      const Value key_or_query = column(first_column, j);
      for (std::uint32_t i = 0; i < tile_.thread_rows; ++i) {
        Value hidden = m_.boolean(false);
        if (causal_)
          hidden =
              pass_ == AttentionPass::key_gradient ? row(i) > key_or_query : key_or_query > row(i);
        if (column_tail) hidden = hidden | !inside(first_column, j);
        score[4 * i + j] = select(hidden, m_.f32(minus_infinity), score[4 * i + j]);
      }
    }
  }

  Value inside(Value first_column, std::uint32_t j) {
    if (columns_ % tile_.columns == 0) return m_.boolean(true);
    return column(first_column, j) < m_.u32(u32_of(columns_));
  }

  // ---- weights

  // Values of the rows, one of each invocation of a row, combined over those invocations.
  Values combined(const Values& own, Value (*combine)(Value, Value)) {
    const std::uint32_t quads = tile_.rows / 4;
    const auto place = [&](Value x, std::uint32_t quad) {
      return m_.u32(memory_.partial + quad * tile_.down()) + x * m_.u32(quads) + grid_.y;
    };
    for (std::uint32_t quad = 0; quad < score_shape_.row_quads; ++quad)
      shared_.store(place(grid_.x, quad), compose(std::span(own).subspan(4 * quad, 4)));
    m_.barrier();
    Values all(own.size());
    for (std::uint32_t quad = 0; quad < score_shape_.row_quads; ++quad)
      for (std::uint32_t x = 0; x < tile_.across(); ++x) {
        const Value loaded = shared_.load(place(m_.u32(x), quad));
        for (std::uint32_t i = 0; i < 4; ++i) {
          Value& value = all[4 * quad + i];
          value = x == 0 ? part(loaded, i) : combine(value, part(loaded, i));
        }
      }
    return all;
  }

  // x, and 0 where it is -inf: what to subtract from the scores of a row over nothing.
  Value shift_by(Value x) { return select(has_bits_of(x, minus_infinity), m_.f32(0), x); }

  // The largest scores and the slopes of the rows, from one block of columns to the next.
  Value kept_place(std::uint32_t which, std::uint32_t quad) {
    return m_.u32(memory_.kept + which * (tile_.rows / 4) + quad * tile_.down()) + grid_.y;
  }
  void keep(const Values& largest, const Values& slope) {
    m_.if_then(grid_.x == 0, [&] {
      std::uint32_t which = 0;
      for (const Values* values : {&largest, &slope}) {
        for (std::uint32_t quad = 0; quad < score_shape_.row_quads; ++quad)
          shared_.store(kept_place(which, quad), compose(std::span(*values).subspan(4 * quad, 4)));
        ++which;
      }
    });
  }
  Values kept_values(std::uint32_t which) {
    Values values;
    for (std::uint32_t quad = 0; quad < score_shape_.row_quads; ++quad) {
      const Value four = shared_.load(kept_place(which, quad));
      for (std::uint32_t i = 0; i < 4; ++i) values.push_back(part(four, i));
    }
    return values;
  }
  Values kept_largest() { return kept_values(0); }
  Values kept_slope() { return kept_values(1); }

  // The second element at the largest score of each row, which block by block may rise.
  Values slopes(const Accumulators& matrices, const Values& largest, const Values& largest_before,
                const Values& slope_before) {
    Values own(tile_.thread_rows, m_.f32(minus_infinity));
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
      for (std::uint32_t j = 0; j < 4; ++j)
        own[i] = larger(own[i], select(matrices[0][4 * i + j] == largest[i], matrices[1][4 * i + j],
                                       m_.f32(minus_infinity)));
    m_.barrier();  // combined() has been read
    Values slope = combined(own, larger);
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
      slope[i] = select(largest[i] > largest_before[i], slope[i], slope_before[i]);
    return slope;
  }

  void update_softmax(Value first_column, Accumulators& matrices, Carried& carried) {
    const bool with_slope = finds_slope(pass_);
    // (Scores are products behind barriers. Without features nothing waits for what is kept.)
    if (with_slope && !features_at_all()) m_.barrier();
    const Values largest_before = with_slope ? kept_largest() : carried.largest,
                 slope_before = with_slope ? kept_slope() : Values();
    Values own = largest_before;
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
      for (std::uint32_t j = 0; j < 4; ++j) own[i] = larger(own[i], matrices[0][4 * i + j]);
    const Values largest = combined(own, larger);
    if (pass_ == AttentionPass::dual)
      for (Value& tangent : matrices[1]) tangent = tangent * m_.f32(scale_);
    Values slope;
    if (with_slope) slope = slopes(matrices, largest, largest_before, slope_before);
    Accumulators weights(products_.weights, Values(score_shape_.elements()));
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i) {
      const Value shift = shift_by(largest[i]), shrink = weight(largest_before[i] - shift);
      // Sums of p (second - slope before) become sums of p (second - slope).
      const Value down = with_slope ? slope_before[i] - slope[i] : Value();
      const auto adapt = [&](Value& of_p, Value* of_t) {
        if (of_t) *of_t = (*of_t + down * of_p) * shrink;
        of_p = of_p * shrink;
      };
      adapt(carried.total[i], with_slope ? &carried.total_tangent[i] : nullptr);
      for (std::uint32_t f = 0; f < output_shape_.columns(); ++f) {
        const std::uint32_t at = i * output_shape_.columns() + f;
        adapt(carried.outputs[0][at], with_slope ? &carried.outputs[1][at] : nullptr);
      }
      for (std::uint32_t j = 0; j < 4; ++j) {
        const std::uint32_t at = 4 * i + j;
        const Value p = weight(matrices[0][at] - shift);
        weights[0][at] = p;
        carried.total[i] = carried.total[i] + p;
        if (!with_slope) continue;
        const Value t =
            select(inside(first_column, j), p * (matrices[1][at] - slope[i]), m_.f32(0));
        weights[1][at] = t;
        carried.total_tangent[i] = carried.total_tangent[i] + t;
      }
    }
    if (with_slope)
      keep(largest, slope);
    else
      carried.largest = largest;
    store_weights(weights);
  }

  // The key gradient's weights, from what the query gradient has left of each query.
  void weigh(Value first_column, const Accumulators& matrices) {
    const Buffer left = row_values(true);
    Accumulators weights(products_.weights, Values(score_shape_.elements()));
    for (std::uint32_t j = 0; j < 4; ++j) {
      const Value query = batch_ * m_.u32(u32_of(sizes_.queries)) +
                          clamped(column(first_column, j), columns_, tile_.columns);
      const auto value = [&](std::int64_t which) {
        return left.load(m_.u32(u32_of(which * sizes_.batch * sizes_.queries)) + query);
      };
      const Value lse = value(0), slope = value(1), delta = value(2);
      for (std::uint32_t i = 0; i < tile_.thread_rows; ++i) {
        const std::uint32_t at = 4 * i + j;
        const Value p = weight(matrices[0][at] - lse);
        // A key of such weight has the largest score. Its difference is 0, even if a driver rounds
        // the products of the two shaders differently.
        const Value difference = select(p > 0.75f, m_.f32(0), matrices[1][at] - slope);
        const Value g = p * (difference - delta) * m_.f32(scale_);
        const auto kept = [&](Value each) {
          return select(inside(first_column, j), each, m_.f32(0));
        };
        weights[0][at] = kept(g), weights[1][at] = kept(p);
      }
    }
    m_.barrier();  // the scores' tiles have been read
    store_weights(weights);
  }

  // In scratch memory: shift_by(lse), slope and delta of all queries, one list after the other.
  std::int64_t row_bytes() const { return 3 * 4 * sizes_.batch * sizes_.queries; }
  Buffer row_values(bool reads) {
    return m_.buffer(bindings_.scratch(row_bytes(), reads, !reads), F32);
  }
  Value lse_cotangent(Value query) {
    const FloatReader reader(m_, binding(4), kept(4));
    const ContractOperand& of = view(4);
    return reader.load(m_.u32(u32_of(of.offset)) + axis_offset(ViewAxis::of(of.batch), batch_) +
                       axis_offset(ViewAxis::of(of.rows), query));
  }

  SharedTile weight_tile(std::size_t number) {
    const std::uint32_t pitch = tile_pitch(tile_.rows) / 4;
    return {shared_, m_.u32(u32_of(static_cast<std::int64_t>(number)) * tile_.columns * pitch),
            pitch};
  }
  // In place of the scores' tiles, which all invocations must have read.
  void store_weights(const Accumulators& weights) {
    for (std::size_t w = 0; w < weights.size(); ++w) {
      const SharedTile tile = weight_tile(w);
      for (std::uint32_t j = 0; j < 4; ++j)
        for (std::uint32_t quad = 0; quad < score_shape_.row_quads; ++quad) {
          std::array<Value, 4> rows;
          for (std::uint32_t i = 0; i < 4; ++i) rows[i] = weights[w][4 * (4 * quad + i) + j];
          shared_.store(tile.first + score_shape_.column(grid_, j) * m_.u32(tile.pitch_quads) +
                            grid_.y + m_.u32(quad * tile_.down()),
                        compose(rows));
        }
    }
  }

  // ---- outputs

  Accumulators add_outputs(Value first_column, const Accumulators& sums) {
    const Value all = m_.u32(tile_.columns);
    const Value columns =
        columns_ % tile_.columns == 0 ? all : min(all, m_.u32(u32_of(columns_)) - first_column);
    const Values result = m_.loop(
        m_.u32(0), columns, tile_.column_depth, flattened(sums),
        [&](Value within, const Values& values) {
          load_tiles(output_operands_, output_tiles_, first_column + within);
          std::vector<SharedTile> weights;
          for (std::size_t w = 0; w < products_.weights; ++w) {
            weights.push_back(weight_tile(w));
            weights.back().first =
                weights.back().first + within * m_.u32(weights.back().pitch_quads);
          }
          return flattened(multiply_tiles(m_, weights, output_tiles_, products_.output_terms, grid_,
                                          output_shape_, tile_.column_depth, unroll(),
                                          unflattened(values, sums.size())));
        },
        Unroll::no);
    return unflattened(result, sums.size());
  }

  void finish(Carried& carried) {
    if (finds_softmax(pass_)) normalise(carried);
    for (std::size_t o = 0; o < products_.outputs.size() && features_at_all(); ++o)
      if (products_.outputs[o] != AttentionProducts::not_stored)
        store_rows(products_.outputs[o], carried.outputs[o]);
  }

  // Divides by the sums of the weights, and stores what the rows have beside their outputs.
  void normalise(Carried& carried) {
    const bool with_slope = finds_slope(pass_), gradient = pass_ == AttentionPass::query_gradient;
    const auto add = [](Value a, Value b) { return a + b; };
    m_.barrier();
    const Values total = combined(carried.total, add);
    Values total_tangent;
    if (with_slope) {
      m_.barrier();
      total_tangent = combined(carried.total_tangent, add);
    }
    const Values largest = with_slope ? kept_largest() : carried.largest,
                 slope = with_slope ? kept_slope() : Values();
    Values lse, lse_tangent, delta;
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i) {
      // Over nothing y is 0 and lse -inf.
      const Value inverse = select(total[i] == 0.0f, m_.f32(0), divide(m_.f32(1), total[i]));
      lse.push_back(largest[i] + log(total[i]));
      if (with_slope) {
        delta.push_back(total_tangent[i] * inverse);
        lse_tangent.push_back(slope[i] + delta[i]);
      }
      if (gradient) delta[i] = delta[i] - lse_cotangent(clamped(row(i), rows_, tile_.rows));
      for (std::uint32_t f = 0; f < output_shape_.columns(); ++f) {
        const std::uint32_t at = i * output_shape_.columns() + f;
        Value& y = carried.outputs[0][at];
        y = y * inverse;
        if (!with_slope) continue;
        Value& tangent = carried.outputs[1][at];
        tangent = tangent * inverse - delta[i] * y;
        if (gradient) tangent = tangent * m_.f32(scale_);
      }
    }
    m_.if_then(grid_.x == 0, [&] {
      if (gradient) {
        leave_row_values(lse, slope, delta);
        return;
      }
      store_row_values(1, lse);
      if (with_slope) store_row_values(3, lse_tangent);
    });
  }

  void if_row(std::uint32_t i, const Module::Body& body) {
    if (rows_ % tile_.rows == 0)
      body();
    else
      m_.if_then(row(i) < m_.u32(u32_of(rows_)), body);
  }
  Value output_row(std::uint32_t i) { return batch_ * m_.u32(u32_of(rows_)) + row(i); }

  void store_row_values(std::size_t output, const Values& values) {
    const TensorMemory to(m_, bindings_, kernel_.outputs[output], false, true);
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
      if_row(i, [&] { to.store(output_row(i), values[i]); });
  }

  void leave_row_values(const Values& lse, const Values& slope, const Values& delta) {
    const Buffer left = row_values(false);
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
      if_row(i, [&] {
        std::int64_t which = 0;
        for (const Value value : {shift_by(lse[i]), slope[i], delta[i]})
          left.store(m_.u32(u32_of(which++ * sizes_.batch * sizes_.queries)) + output_row(i),
                     value);
      });
  }

  void store_rows(std::size_t output, const Values& values) {
    const TensorMemory to(m_, bindings_, kernel_.outputs[output], false, true);
    const std::int64_t features = sizes_.features;
    for (std::uint32_t i = 0; i < tile_.thread_rows; ++i)
      if_row(i, [&] {
        const Value first = output_row(i) * m_.u32(u32_of(features));
        for (std::uint32_t q = 0; q < output_shape_.column_quads; ++q) {
          const Value feature = output_shape_.column(grid_, 4 * q);
          std::array<Value, 4> quad;
          for (std::uint32_t f = 0; f < 4; ++f)
            quad[f] = values[i * output_shape_.columns() + 4 * q + f];
          store_quad(to, first, feature, quad);
        }
      });
  }
  void store_quad(const TensorMemory& to, Value first, Value feature,
                  const std::array<Value, 4>& quad) {
    const auto features = u32_of(sizes_.features);
    const bool all = tile_.padded_features(sizes_.features) == features;
    const auto when_inside = [&](Value at, const Module::Body& body) {
      if (all)
        body();
      else
        m_.if_then(at < m_.u32(features), body);
    };
    if (features % 4 == 0) {
      when_inside(feature, [&] { to.store_many(first + feature, quad); });
      return;
    }
    for (std::uint32_t f = 0; f < 4; ++f)
      when_inside(feature + m_.u32(f), [&] { to.store(first + feature + m_.u32(f), quad[f]); });
  }

  const OpKernel& kernel_;
  const AttentionSizes sizes_;
  const AttentionPass pass_;
  const AttentionProducts& products_;
  const AttentionTile tile_;
  const std::int64_t rows_, columns_;
  const float scale_;
  const bool causal_, masked_;
  const LoweringContext& context_;
  Module m_;
  ShaderBindings bindings_;
  const ThreadGrid grid_;
  const AttentionMemory memory_;
  const RegisterShape score_shape_, output_shape_;
  SharedArray shared_;
  TileSet score_operands_, output_operands_;
  std::vector<SharedTile> score_tiles_, output_tiles_;
  Value batch_, first_row_;
  Values mask_row_offsets_;
};

std::vector<AttentionPass> passes_of(const OpKernel& kernel) {
  switch (kernel.op) {
    case Op::attention:
      return {AttentionPass::forward};
    case Op::attention_dual:
      return {AttentionPass::dual};
    case Op::attention_backward:
      return {AttentionPass::query_gradient, AttentionPass::key_gradient};
    default:
      throw Error("vulkan: there is no kernel of attention for " +
                  std::string(to_string(kernel.op)));
  }
}

template <class Choose>
KernelWork lower_passes(const OpKernel& kernel, const LoweringContext& context, Choose choose) {
  const std::string name = "vulkan: " + std::string(to_string(kernel.op));
  const std::vector<AttentionPass> passes = passes_of(kernel);
  const DType dtype = kernel.input_types.at(0).dtype;
  if (dtype != DType::f32)
    throw DTypeError(name + ": runs in f32, got " + std::string(to_string(dtype)));
  if (kernel.views.size() != kernel.inputs.size() ||
      kernel.inputs.size() < operand_count(kernel.op))
    throw Error(name + ": wants a view of every operand");
  if (kernel.op == Op::attention_backward &&
      kernel.input_types[3].shape != kernel.input_types[0].shape)
    throw Error(name + " of lse and delta should have been expanded");
  const AttentionSizes sizes(kernel);
  KernelWork work;
  for (const AttentionPass pass : passes) {
    const bool by_key = pass == AttentionPass::key_gradient;
    const AttentionProblem problem{sizes.batch, by_key ? sizes.keys : sizes.queries,
                                   by_key ? sizes.queries : sizes.keys, sizes.features};
    if (problem.batch == 0 || problem.rows == 0) continue;
    // Gradients of heads without features have no elements.
    if (kernel.op == Op::attention_backward && sizes.features == 0) continue;
    const std::optional<AttentionTile> tile = choose(pass, problem);
    if (!tile)
      throw Error(name + ": heads of " + std::to_string(sizes.features) +
                  " features don't fit into the device's shared memory");
    AttentionKernel(kernel, context, pass, *tile).add_to(work);
  }
  return work;
}

}  // namespace

KernelWork lower_attention(const OpKernel& kernel, const LoweringContext& context) {
  return lower_passes(kernel, context, [&](AttentionPass pass, const AttentionProblem& problem) {
    return choose_attention_tile(pass, problem, context.target);
  });
}

KernelWork lower_attention(const OpKernel& kernel, const LoweringContext& context,
                           const AttentionTile& tile) {
  return lower_passes(kernel, context,
                      [&](AttentionPass, const AttentionProblem&) { return std::optional(tile); });
}

}  // namespace fluxion::vulkan_backend
