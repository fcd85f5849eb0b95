#include <algorithm>
#include <string>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/kernels/folded_groups.h"
#include "backends/vulkan/kernels/gemm.h"
#include "backends/vulkan/kernels/tape_emitter.h"
#include "engine/divide.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

std::uint32_t narrow(std::int64_t number) { return static_cast<std::uint32_t>(number); }

// Partial sums, [part, result, batch, m, n] in f32.
constexpr std::int64_t most_partial_bytes = std::int64_t{64} << 20;
std::int64_t points_of(const ContractKernel& kernel) { return kernel.batch * kernel.m * kernel.n; }
std::int64_t partial_bytes(const ContractKernel& kernel, std::int64_t splits) {
  return splits * kernel.results * points_of(kernel) * static_cast<std::int64_t>(sizeof(float));
}

double total_bytes(const ShaderBindings& bindings) {
  double total = 0;
  for (const DispatchBinding& each : bindings.list()) total += static_cast<double>(each.bytes);
  return total;
}

// Whether the epilogue runs at four neighbours of a row at once. (An axis of size 1 may be left out
// of its space, so that the last one is not always of the columns.)
std::uint32_t epilogue_width(const ContractKernel& kernel, const ShaderTarget& target) {
  const bool fours = kernel.n % 4 == 0 && TapeEmitter::takes(kernel.epilogue, 4);
  return fours && !target.short_code ? 4 : 1;
}

struct EpiloguePoint {
  Value batch, row, column;
};

// The epilogue at a point.
class Epilogue {
 public:
  // With width 4 it runs at four neighbours of a row at once.
  Epilogue(Module& module, ShaderBindings& bindings, const ContractKernel& kernel,
           std::uint32_t width)
      : kernel_(kernel), tape_(module, bindings, kernel.epilogue, width) {
    // Where the axes of batch, rows and columns end.
    const Dims& extents = kernel.epilogue.extents;
    std::int64_t product = 1;
    while (batch_end_ < extents.size() && product < kernel.batch) product *= extents[batch_end_++];
    rows_end_ = batch_end_;
    while (rows_end_ < extents.size() && product < kernel.batch * kernel.m)
      product *= extents[rows_end_++];
  }

  // Runs it at an element, or at four neighbours of a row: quads[r] are those of result r.
  void run(const EpiloguePoint& point, const std::vector<Value>& results) {
    tape_.emit(position(point), [&](std::int32_t result, std::uint32_t lane) {
      return part(results[static_cast<std::size_t>(result)], lane);
    });
  }
  std::uint32_t width() const { return tape_.width(); }

 private:
  // The position on every axis of the epilogue's space.
  std::vector<Value> position(const EpiloguePoint& point) const {
    const Dims& extents = kernel_.epilogue.extents;
    std::vector<Value> place(extents.size(), point.row.module().u32(0));
    const auto add_digits = [&](std::size_t begin, std::size_t end, Value index) {
      for (std::size_t axis = end; axis-- > begin;) {
        if (extents[axis] == 1) continue;
        const bool outermost = std::all_of(extents.begin() + static_cast<std::ptrdiff_t>(begin),
                                           extents.begin() + static_cast<std::ptrdiff_t>(axis),
                                           [](std::int64_t extent) { return extent == 1; });
        if (outermost) {
          place[axis] = index;
          return;
        }
        const Split parts = split(index, narrow(extents[axis]));
        place[axis] = parts.remainder, index = parts.quotient;
      }
    };
    add_digits(0, batch_end_, point.batch);
    add_digits(batch_end_, rows_end_, point.row);
    add_digits(rows_end_, extents.size(), point.column);
    return place;
  }

  const ContractKernel& kernel_;
  TapeEmitter tape_;
  std::size_t batch_end_ = 0, rows_end_ = 0;
};

// The kernel that computes tiles: the results of all products, or the partial sums of each part.
class TileKernel {
 public:
  TileKernel(const ContractKernel& kernel, const LoweringContext& context, const GemmChoice& choice)
      : kernel_(kernel),
        context_(context),
        tile_(choice.tile),
        splits_(choice.splits),
        part_(round_up(ceil_div(kernel.k, choice.splits), tile_.depth)),
        groups_(group_terms(kernel, context.storage, tile_, context.target.shared_bytes)),
        m_(context.target, "gemm " + to_string(tile_), {tile_.invocations(), 1, 1}),
        shape_{tile_.thread_rows / 4, tile_.thread_columns / 4},
        grid_(ThreadGrid::of(m_, tile_.rows / tile_.thread_rows,
                             tile_.columns / tile_.thread_columns)),
        bindings_(context),
        epilogue_(m_, bindings_, kernel, epilogue_width(kernel, context.target)) {}

  void add_to(KernelWork& work) {
    const std::int64_t tiles_m = ceil_div(kernel_.m, tile_.rows),
                       tiles_n = ceil_div(kernel_.n, tile_.columns);
    const std::int64_t groups = tiles_m * tiles_n * kernel_.batch * splits_;
    for (const TermGroup& group : groups_)
      for (const auto* side : {&group.lhs, &group.rhs})
        for (const OperandView& view : *side) bindings_.buffer(view.buffer, true, false);
    std::uint32_t quads = epilogue_bytes(tile_, kernel_.results) / sizeof(float) / 4;
    for (const TermGroup& group : groups_)
      quads = std::max<std::uint32_t>(
          quads, tile_bytes(tile_, group.lhs.size(), group.rhs.size()) / sizeof(float) / 4);
    shared_ = m_.shared(F32x4, quads);
    const FoldedGroups folded(groups, context_.target.max_groups);
    folded.for_each(m_, [&](Value group) {
      const Split columns = split(group, narrow(tiles_n)),
                  rows = split(columns.quotient, narrow(tiles_m)),
                  batches = split(rows.quotient, narrow(kernel_.batch));
      batch_ = batches.remainder, part_index_ = batches.quotient;
      first_row_ = rows.remainder * m_.u32(tile_.rows);
      first_column_ = columns.remainder * m_.u32(tile_.columns);
      Accumulators sums = zero_accumulators(m_, static_cast<std::size_t>(kernel_.results), shape_);
      for (std::size_t i = 0; i < groups_.size(); ++i) {
        if (i > 0) m_.barrier();
        sums = multiply(groups_[i], sums);
      }
      m_.barrier();
      finish(sums);
    });
    Dispatch dispatch;
    dispatch.shader = work.shaders.size();
    dispatch.groups = folded.groups();
    dispatch.flops = 2.0 * static_cast<double>(points_of(kernel_)) *
                     static_cast<double>(kernel_.k) * static_cast<double>(kernel_.terms.size());
    work.shaders.push_back(m_.finish());
    dispatch.bindings = bindings_.list();
    dispatch.moved_bytes = total_bytes(bindings_);
    work.dispatches.push_back(std::move(dispatch));
  }

 private:
  // Adds the products of a group over this workgroup's part of k.
  Accumulators multiply(const TermGroup& group, const Accumulators& sums) {
    std::vector<TileRequest> requests;
    std::vector<SharedTile> tiles;
    Value first = m_.u32(0);
    const auto add_operands = [&](const std::vector<OperandView>& views, std::uint32_t strips) {
      for (const OperandView& view : views) {
        requests.push_back({view, bindings_.buffer(view.buffer, true, false), strips, tile_.depth});
        tiles.push_back({shared_, first, tile_pitch(strips) / 4});
        first = first + m_.u32(tile_pitch(strips) / 4 * tile_.depth);
      }
    };
    add_operands(group.lhs, tile_.rows);
    add_operands(group.rhs, tile_.columns);
    TileSet operands(m_, requests);
    for (std::size_t i = 0; i < requests.size(); ++i)
      operands.start(i, batch_, i < group.lhs.size() ? first_row_ : first_column_);
    const std::uint32_t stage_quads =
        tile_bytes(tile_, group.lhs.size(), group.rhs.size()) / tile_.stages / sizeof(float) / 4;
    const Value depth = m_.u32(tile_.depth);
    const Value begin = part_index_ * m_.u32(narrow(part_));
    const Value end = splits_ == 1 ? m_.u32(narrow(kernel_.k))
                                   : min(begin + m_.u32(narrow(part_)), narrow(kernel_.k));
    const std::int64_t last = (kernel_.k - 1) / tile_.depth * tile_.depth;
    std::vector<Value> carried = flattened(sums);
    const std::size_t summed = carried.size();
    const auto products = [&](const std::vector<SharedTile>& staged,
                              const std::vector<Value>& values) {
      const std::span<const SharedTile> all = staged;
      return flattened(multiply_tiles(
          m_, all.first(group.lhs.size()), all.subspan(group.lhs.size()), group.terms, grid_,
          shape_, tile_.depth, tile_.unroll,
          unflattened({values.begin(), values.begin() + static_cast<std::ptrdiff_t>(summed)},
                      static_cast<std::size_t>(kernel_.results))));
    };
    if (context_.target.short_code) {
      const auto step = [&](Value first_inner, const std::vector<Value>& values) {
        operands.store(tiles, operands.fetch(first_inner));
        m_.barrier();
        std::vector<Value> result = products(tiles, values);
        m_.barrier();
        return result;
      };
      return unflattened(m_.loop(begin, end, tile_.depth, carried, step, Unroll::no),
                         static_cast<std::size_t>(kernel_.results));
    }
    const std::vector<Value> before = operands.fetch(min(begin, m_.u32(narrow(last))));
    carried.insert(carried.end(), before.begin(), before.end());
    const auto step = [&](Value first_inner, const std::vector<Value>& values) {
      std::vector<SharedTile> staged = tiles;
      if (tile_.stages == 2) {
        const Value stage = (first_inner / depth) & m_.u32(1);
        for (SharedTile& tile : staged) tile.first = tile.first + stage * m_.u32(stage_quads);
      }
      operands.store(staged, std::span(values).subspan(summed));
      m_.barrier();
      // (In the last round this reads the same tiles again.)
      const std::vector<Value> fetched =
          operands.fetch(min(first_inner + depth, m_.u32(narrow(last))));
      std::vector<Value> result = products(staged, values);
      if (tile_.stages == 1) m_.barrier();
      result.insert(result.end(), fetched.begin(), fetched.end());
      return result;
    };
    std::vector<Value> result = m_.loop(begin, end, tile_.depth, carried, step, Unroll::no);
    result.resize(summed);
    return unflattened(result, static_cast<std::size_t>(kernel_.results));
  }

  // Runs the epilogue over this invocation's elements, or writes them as partial sums. So that the
  // epilogue's code appears once, each row goes through shared memory, in a place of its own.
  void finish(const Accumulators& sums) {
    if (context_.target.short_code) return finish_elements(sums);
    const std::uint32_t threads = tile_.invocations();
    const std::size_t results = sums.size();
    const auto place = [&](std::size_t result, Value quad) {
      return (quad + m_.u32(narrow(static_cast<std::int64_t>(result) * shape_.column_quads))) *
                 m_.u32(threads) +
             m_.local_index();
    };
    m_.for_range(
        m_.u32(0), m_.u32(shape_.rows()), 1,
        [&](Value row_number) {
          for (std::uint32_t i = 0; i < shape_.rows(); ++i)
            m_.if_then(row_number == i, [&] {
              for (std::size_t r = 0; r < results; ++r)
                for (std::uint32_t q = 0; q < shape_.column_quads; ++q)
                  shared_.store(place(r, m_.u32(q)), compose(std::span(sums[r]).subspan(
                                                         i * shape_.columns() + 4 * q, 4)));
            });
          const Value row = first_row_ + grid_.y * m_.u32(4) +
                            (row_number >> m_.u32(2)) * m_.u32(4 * grid_.down) +
                            (row_number & m_.u32(3));
          if_inside(row, kernel_.m, tile_.rows, [&] {
            m_.for_range(
                m_.u32(0), m_.u32(shape_.column_quads), 1,
                [&](Value q) {
                  const Value column =
                      first_column_ + (grid_.x + q * m_.u32(grid_.across)) * m_.u32(4);
                  std::vector<Value> quads;
                  for (std::size_t r = 0; r < results; ++r)
                    quads.push_back(shared_.load(place(r, q)));
                  finish_quad(row, column, quads);
                },
                Unroll::no);
          });
        },
        Unroll::no);
  }

  void finish_quad(Value row, Value column, const std::vector<Value>& quads) {
    if (splits_ == 1 && epilogue_.width() == 4) {
      if_inside(column, kernel_.n, tile_.columns, [&] {
        epilogue_.run({batch_, row, column}, quads);
      });
      return;
    }
    for (std::uint32_t j = 0; j < 4; ++j)
      if_inside(column + m_.u32(j), kernel_.n, tile_.columns, [&] {
        std::vector<Value> results;
        for (const Value& quad : quads) results.push_back(part(quad, j));
        finish_element({batch_, row, column + m_.u32(j)}, results);
      });
  }

  void finish_element(const EpiloguePoint& point, const std::vector<Value>& results) {
    if (splits_ == 1)
      epilogue_.run(point, results);
    else
      store_partial(point, results);
  }

  // The same in short code: element by element, each chosen from the registers.
  void finish_elements(const Accumulators& sums) {
    const std::uint32_t columns = shape_.columns();
    const auto position = [&](Value first, Value own, std::uint32_t spread, Value number) {
      return first + (own + (number >> m_.u32(2)) * m_.u32(spread)) * m_.u32(4) +
             (number & m_.u32(3));
    };
    m_.for_range(
        m_.u32(0), m_.u32(shape_.elements()), 1,
        [&](Value element) {
          const Split place = split(element, columns);
          const Value row = position(first_row_, grid_.y, grid_.down, place.quotient),
                      column = position(first_column_, grid_.x, grid_.across, place.remainder);
          if_inside(row, kernel_.m, tile_.rows, [&] {
            if_inside(column, kernel_.n, tile_.columns, [&] {
              std::vector<Value> results;
              for (const std::vector<Value>& all : sums) {
                Value chosen = all.front();
                for (std::uint32_t i = 1; i < shape_.elements(); ++i)
                  chosen = select(element == i, all[i], chosen);
                results.push_back(chosen);
              }
              finish_element({batch_, row, column}, results);
            });
          });
        },
        Unroll::no);
  }

  void store_partial(const EpiloguePoint& point, const std::vector<Value>& results) {
    const Buffer partial =
        m_.buffer(bindings_.scratch(partial_bytes(kernel_, splits_), false, true), F32);
    const Value at =
        (point.batch * m_.u32(narrow(kernel_.m)) + point.row) * m_.u32(narrow(kernel_.n)) +
        point.column;
    for (std::size_t r = 0; r < results.size(); ++r)
      partial.store((part_index_ * m_.u32(narrow(kernel_.results)) +
                     m_.u32(narrow(static_cast<std::int64_t>(r)))) *
                            m_.u32(narrow(points_of(kernel_))) +
                        at,
                    results[r]);
  }

  void if_inside(Value position, std::int64_t size, std::uint32_t tile, const Module::Body& body) {
    if (size % tile == 0)
      body();
    else
      m_.if_then(position < m_.u32(narrow(size)), body);
  }

  const ContractKernel& kernel_;
  const LoweringContext& context_;
  const GemmTile tile_;
  const std::int64_t splits_, part_;
  const std::vector<TermGroup> groups_;
  Module m_;
  const RegisterShape shape_;
  const ThreadGrid grid_;
  ShaderBindings bindings_;
  Epilogue epilogue_;
  SharedArray shared_;
  Value batch_, part_index_, first_row_, first_column_;
};

// Adds the partial sums of each element, if there are any, and runs the epilogue over all.
void add_sum_kernel(const ContractKernel& kernel, const LoweringContext& context,
                    std::int64_t splits, KernelWork& work) {
  const std::uint32_t threads = std::min<std::uint32_t>(context.target.max_invocations, 128);
  const std::uint32_t width = epilogue_width(kernel, context.target);
  Module m(context.target, "gemm sums", {threads, 1, 1});
  ShaderBindings bindings(context);
  Epilogue epilogue(m, bindings, kernel, width);
  // An invocation does one element, or four neighbours of a row.
  const std::int64_t points = points_of(kernel), places = points / width;
  const FoldedGroups folded(ceil_div(places, threads), context.target.max_groups);
  folded.for_each(m, [&](Value group) {
    const Value place = group * m.u32(threads) + m.local_index();
    const auto run = [&] {
      std::vector<Value> results;
      for (std::int32_t r = 0; r < kernel.results; ++r) {
        const Type type = width == 4 ? F32x4 : F32;
        Value sum = m.constant(type, 0);
        for (std::int64_t part = 0; part < splits; ++part) {
          const Buffer partial =
              m.buffer(bindings.scratch(partial_bytes(kernel, splits), true, false), type);
          const Value term =
              partial.load(place + m.u32(narrow((part * kernel.results + r) * places)));
          sum = part == 0 ? term : sum + term;
        }
        results.push_back(sum);
      }
      const Split columns = split(place, narrow(kernel.n / width)),
                  rows = split(columns.quotient, narrow(kernel.m));
      epilogue.run({rows.quotient, rows.remainder, columns.remainder * m.u32(width)}, results);
    };
    if (places % threads == 0)
      run();
    else
      m.if_then(place < m.u32(narrow(places)), run);
  });
  Dispatch dispatch;
  dispatch.shader = work.shaders.size();
  dispatch.groups = folded.groups();
  work.shaders.push_back(m.finish());
  dispatch.bindings = bindings.list();
  dispatch.flops = static_cast<double>(splits * kernel.results * points);
  dispatch.moved_bytes = total_bytes(bindings);
  work.dispatches.push_back(std::move(dispatch));
}

void require_f32(const ContractKernel& kernel) {
  if (kernel.accumulate != DType::f32)
    throw DTypeError("vulkan: a product of matrices in " +
                     std::string(to_string(kernel.accumulate)) + "; it sums in f32 only");
}

}  // namespace

KernelWork lower_contraction(const ContractKernel& kernel, const LoweringContext& context) {
  GemmProblem problem = problem_of(kernel);
  GemmChoice choice = choose_tile(problem, context.target);
  while (choice.splits > 1 && partial_bytes(kernel, choice.splits) > most_partial_bytes)
    choice.splits /= 2;
  return lower_contraction(kernel, context, choice);
}

KernelWork lower_contraction(const ContractKernel& kernel, const LoweringContext& context,
                             const GemmChoice& choice) {
  require_f32(kernel);
  KernelWork work;
  if (points_of(kernel) == 0) return work;
  if (kernel.k == 0) {
    add_sum_kernel(kernel, context, 0, work);
    return work;
  }
  if (!runs(choice.tile, kernel.results, context.target))
    throw Error("vulkan: the device can't run tiles of " + to_string(choice.tile));
  TileKernel(kernel, context, choice).add_to(work);
  if (choice.splits > 1) {
    work.scratch_bytes = partial_bytes(kernel, choice.splits);
    add_sum_kernel(kernel, context, choice.splits, work);
  }
  return work;
}

}  // namespace fluxion::vulkan_backend
